"""What a search shows: a screen on a real (pseudo-)terminal, plain lines in a pipe, nothing if it is to be quiet."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import threading
import time
import warnings
from types import SimpleNamespace

import keras
import keras_tuner as kt
import pytest
from rich.console import Console

import autolr
from autolr.progress import Lines, Screen, Silence, StepReporter, duration, progress_for
from autolr.search_folder import read_search
from autolr.search_memory import SearchMemory
from autolr.trial import AssistedTrial

pty = pytest.importorskip("pty", reason="needs pseudo-terminals")
pytestmark = pytest.mark.filterwarnings("ignore::autolr.AutoLRWarning")


class Terminal:
    """A pseudo-terminal in place of stdout; keeps what was written, and what is to be seen in the end."""

    def __enter__(self):
        self.master, slave = pty.openpty()
        self.file = open(slave, "w", encoding="utf-8", newline="")
        self.bytes = b""
        self.reader = threading.Thread(target=self._read)
        self.reader.start()
        self.redirection = contextlib.redirect_stdout(self.file)
        self.redirection.__enter__()
        return self

    def _read(self):
        with contextlib.suppress(OSError):  # the other side has been closed
            while chunk := os.read(self.master, 4096):
                self.bytes += chunk

    def __exit__(self, *error):
        self.redirection.__exit__(*error)
        self.file.close()
        self.reader.join()
        os.close(self.master)
        self.text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.bytes.decode())

    def lines(self) -> list[str]:
        """What is on the screen: the little of a terminal that `rich` needs."""
        shown, row, column = [""], 0, 0
        for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", self.bytes.decode()):
            if token == "\n":
                row, column = row + 1, 0
                shown += [""] * (row + 1 - len(shown))
            elif token == "\r":
                column = 0
            elif token.endswith("A") and token[0] == "\x1b":
                row -= int(token[2:-1] or 1)
            elif token == "\x1b[2K":
                shown[row] = ""
            elif token[0] != "\x1b":
                shown[row] = (shown[row].ljust(column) + token + shown[row][column + len(token) :])[:200]
                column += len(token)
        return [line.rstrip() for line in shown if line.strip()]


@pytest.fixture
def tuner(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")

    def build(hp):
        hp.Choice("units", [4, 8])
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy")
        return model

    hp = kt.HyperParameters()
    for name, value in {"cycle_length": 1, "mult_factor": 1.0, "lr_decay": 0.9}.items():
        hp.Fixed(name, value)
    return autolr.RandomSearch(
        build, "val_loss", max_trials=2, seed=1, directory=tmp_path, project_name="mine", hyperparameters=hp
    )


FIT = {"epochs": 2, "batch_size": 4, "validation_split": 0.25}


def test_a_terminal_has_one_screen_with_all_there_is_to_know(tuner, data, monkeypatch):
    monkeypatch.setattr("autolr.progress.REFRESH_SECONDS", 60.0)  # drawn at every change, however soon it is over
    tuner.executions_per_trial = 2
    with Terminal() as terminal:
        tuner.search(*data, **FIT)
    for expected in (
        *("Trial 1 of 2", "Trial 2 of 2", "range test: up to", "100%"),
        *("training, epoch 2 of 2", "training 2, epoch 2 of 2"),
        *("s left", "best so far", "none yet", "about", "mine, 1 trial ended"),
    ):
        assert expected in terminal.text
    # Neither Keras Tuner's tables nor Keras's bars, nor AutoLR's own lines.
    for unwanted in ("Running Trial", "Hyperparameter", "/step", "AutoLR trial_"):
        assert unwanted not in terminal.text
    best = tuner.oracle.get_best_trials(1)[0]
    *seen, advice = terminal.lines()
    assert len(seen) == 6, seen
    assert advice.startswith("AutoLR | 2 of 2 range tests were too short for more than a guess")
    assert seen[0].startswith(f"Trial 2 of 2 (trial_{tuner.oracle.start_order[1]})  ended")
    assert f"val_loss {best.score:.5g} (trial_{best.trial_id})" in seen[4]
    assert "left" not in "".join(seen), "nothing is left to wait for"
    assert "to" in seen[2]
    assert "cycles of 1, 1 epochs" in seen[3]
    assert tuner.oracle.get_state()["display"]["search_start"], "Keras Tuner's own notes are as ever"
    with Terminal() as terminal:
        tuner.search(*data, **FIT)  # nothing is left to do
    (line,) = terminal.lines()  # no screen
    assert line.startswith("AutoLR | nothing was trained: all 2 trials of this search had ended before")


@pytest.mark.parametrize("verbose", [{}, pytest.param({"verbose": 1}, marks=pytest.mark.slow)])
def test_a_range_test_of_ones_own_has_one_line_of_a_terminal(data, verbose):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    with Terminal() as terminal:
        test = autolr.range_test(model, *data, batch_size=8, burst_steps=72, **verbose)
    for expected in ("range test: a sweep of 100 steps", "range test: a burst of 24 steps at "):
        assert expected in terminal.text
    (line,) = terminal.lines()
    bounds = test.bounds()
    assert line.startswith(f"AutoLR | range test: {bounds.min_lr:.2e} to {bounds.max_lr:.2e} ({bounds.status}, ")
    assert f"{test.steps_spent} steps" in line


def test_an_error_leaves_the_line_of_a_range_test_alone(data):
    class Breaks(keras.utils.PyDataset):
        def __len__(self):
            return 9

        def __getitem__(self, at):
            if at > 3:
                raise OSError("gone")
            return data[0][:8], data[1][:8]

    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    with Terminal() as terminal:
        with pytest.raises(Exception, match="gone"):
            autolr.range_test(model, Breaks(), num_steps=40)
        print("after")
    assert terminal.lines() == ["AutoLR | range test: a sweep of 40 steps", "after"]


def test_elsewhere_a_range_test_tells_in_lines_if_it_is_asked_to(data, capsys):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    options = {"batch_size": 8, "num_steps": 12, "burst_steps": 0}
    for quiet in ({}, {"verbose": 0}, {"verbose": "auto"}):
        autolr.range_test(model, *data, **options, **quiet)
        assert capsys.readouterr().out == ""
    autolr.range_test(model, *data, **options, verbose=1)
    first, last = capsys.readouterr().out.splitlines()
    assert first == "AutoLR | range test: a sweep of 12 steps"
    assert last.startswith("AutoLR | range test: ")
    with pytest.raises(ValueError, match=r"^Argument `verbose` must be .*Received: verbose='loud'"):
        autolr.range_test(model, *data, **options, verbose="loud")


@pytest.mark.slow
def test_a_search_taken_up_again_counts_the_trials_of_before(tuner, data):
    tuner.oracle.max_trials = 1
    tuner.search(*data, verbose=0, **FIT)
    tuner.oracle.max_trials = 2
    with Terminal() as terminal:
        tuner.search(*data, **FIT)
    assert "mine, 0 trials ended" not in terminal.text
    assert any("mine, 2 trials ended" in line for line in terminal.lines())


def test_what_others_print_stays_above_the_screen(tuner, data):
    class Talk(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            print(f"heard in epoch {epoch}")

    with Terminal() as terminal:
        tuner.search(*data, callbacks=[Talk()], **FIT)
    seen = terminal.lines()
    assert [line for line in seen if "heard" in line] == ["heard in epoch 0", "heard in epoch 1"] * 2
    assert "Trial 2 of 2" in seen[4]


def test_a_search_that_fails_gives_the_terminal_back(tuner, data):
    class Fail(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            raise KeyboardInterrupt

    with Terminal() as terminal, pytest.raises(KeyboardInterrupt):
        tuner.search(*data, callbacks=[Fail()], **FIT)
    seen, after = terminal.bytes.rsplit(b"\x1b[?25h", 1)
    assert seen, "the cursor is shown again"
    assert after.strip().startswith(b"AutoLR | interrupted. To go on"), "nothing is drawn any more"
    assert "on_trial_begin" not in vars(tuner.oracle._display)


@pytest.mark.parametrize("verbose", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_who_asks_for_keras_own_output_gets_it_on_a_terminal_too(tuner, data, verbose):
    with Terminal() as terminal:
        tuner.search(*data, **FIT, verbose=verbose)
    assert "Search: Running Trial #2" in terminal.text
    assert "/step" in terminal.text
    assert terminal.text.count("AutoLR trial_") == 6
    assert "best so far" not in terminal.text


def test_quiet_is_quiet_on_a_terminal_and_in_a_pipe(tuner, data):
    with Terminal() as terminal:
        tuner.search(*data, **FIT, verbose=0)
    assert terminal.bytes == b""


def test_a_pipe_gets_a_plain_line_for_each_phase(tuner, data):
    reader, writer = os.pipe()
    # As much as a pipe holds without a reader is far more than this says.
    with open(writer, "w", encoding="utf-8") as pipe, contextlib.redirect_stdout(pipe), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tuner.search(*data, **FIT)
    with open(reader, encoding="utf-8") as file:
        text = file.read()
    said = [line for line in text.splitlines() if line.startswith("AutoLR trial")]
    assert [re.sub(r".*\| (.*?):.*", r"\1", line) for line in said] == ["range test", "bounds", "schedule"] * 2
    assert "best so far" not in text
    assert not re.search(r"\x1b\[\?25", text), "nobody hides the cursor of a file"


def test_which_kind_fits(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert type(progress_for("auto")) is Lines
    assert type(progress_for(0)) is Silence
    with Terminal():
        monkeypatch.setenv("TERM", "xterm")
        kinds = [type(progress_for(verbose)) for verbose in ("auto", 1, 2, 0)]
        monkeypatch.setenv("TERM", "dumb")
        kinds.append(type(progress_for("auto")))
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
        kinds.append(type(progress_for("auto")))
    assert kinds == [Screen, Lines, Lines, Silence, Lines, Lines]


class Writable:
    """All that Python asks of a `sys.stdout`."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def test_an_output_that_can_only_be_written_to_gets_plain_lines(tuner, data, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Writable())
    tuner.oracle.max_trials = 1
    tuner.search(*data, **FIT)
    assert sys.stdout.text.count("AutoLR trial_0 |") == 3


@pytest.mark.parametrize("stream", [Writable(), None])
def test_a_screen_is_shown_whatever_errors_are_written_to(tuner, stream, monkeypatch):
    with Terminal() as terminal:
        monkeypatch.setattr(sys, "stderr", stream)
        with progress_for("auto", "mine").shown(tuner.oracle):
            pass
    assert "\x1b[?25h" in terminal.bytes.decode()
    monkeypatch.setattr(sys, "stdout", stream)
    assert type(progress_for("auto")) is Lines


@pytest.mark.parametrize(("seconds", "said"), [(0.2, "0 s"), (89, "89 s"), (100, "2 min"), (5400, "1 h 30 min")])
def test_times_in_words(seconds, said):
    assert duration(seconds) == said


def test_a_first_trial_that_fails_or_is_interrupted_ends_no_search(tuner, data):
    """Keras Tuner counts such a trial among the best ones while there are no others."""

    class FailAtFirst(keras.callbacks.Callback):
        error = RuntimeError("of the user's own")

        def on_epoch_begin(self, epoch, logs=None):
            if FailAtFirst.error is not None:
                error, FailAtFirst.error = FailAtFirst.error, None
                raise error

    with Terminal() as terminal:
        tuner.search(*data, **FIT, callbacks=[FailAtFirst()])
    assert [trial.status for trial in tuner.oracle.trials.values()] == ["FAILED", "COMPLETED"]
    assert "none yet" in terminal.text


@pytest.mark.slow
def test_a_trial_that_is_retried_counts_once(tuner, data):
    class FailOnce(keras.callbacks.Callback):
        failed = False

        def on_epoch_begin(self, epoch, logs=None):
            if not FailOnce.failed:
                FailOnce.failed = True
                raise RuntimeError("of the user's own")

    tuner.oracle.max_trials, tuner.oracle.max_retries_per_trial = 1, 1
    with Terminal() as terminal:
        tuner.search(*data, **FIT, callbacks=[FailOnce()])
    assert [trial.status for trial in tuner.oracle.trials.values()] == ["COMPLETED"]
    assert any("mine, 1 trial ended" in line for line in terminal.lines())


def test_a_search_interrupted_in_its_first_trial_is_taken_up_again(tuner, data):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            raise KeyboardInterrupt

    with Terminal(), pytest.raises(KeyboardInterrupt):
        tuner.search(*data, **FIT, callbacks=[Interrupt()])
    assert read_search(tuner).state == "interrupted"
    again = autolr.RandomSearch(
        tuner.hypermodel, "val_loss", max_trials=2, seed=1, directory=tuner.directory, project_name="mine"
    )
    states = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(read_search(again).state))
    seen = []
    with Terminal():
        again.search(*data, **FIT, callbacks=[states])
    assert set(seen) == {"running"}
    assert read_search(again).state == "finished"
    assert [trial.status for trial in again.oracle.trials.values()] == ["COMPLETED"] * 2


def test_a_hypermodels_fit_that_asks_for_keras_own_output_gets_it(tmp_path):
    memory = SearchMemory(progress=Screen(Console(), "s"))
    trial = AssistedTrial(SimpleNamespace(trial_id="0"), lambda it: str(tmp_path), str, None, memory)
    assert trial._on_screen({"verbose": 2}) == {"verbose": 2}
    assert trial._on_screen({})["verbose"] == 0


def test_the_bar_of_a_training_resumed_begins_at_its_beginning():
    told = []
    progress = Lines()
    progress.step = lambda done, total, text: told.append((done, total, text))
    reporter = StepReporter(progress)
    reporter.set_params({"epochs": 5, "steps": 10})
    reporter.on_epoch_begin(3)
    reporter.on_epoch_end(3)
    assert told == [(0.0, 20.0, "training, epoch 4 of 5"), (10.0, 20.0, "training, epoch 5 of 5")]


def test_the_time_left_counts_a_trial_whose_training_has_not_begun(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("autolr.progress.time.monotonic", lambda: now[0])
    oracle = SimpleNamespace(start_order=["0"], max_trials=3, objective=None, get_best_trials=lambda most: [])
    screen = Screen(Console(), "s")
    screen.begin(SimpleNamespace(trial_id="0"), oracle)
    now[0] = 60.0
    screen.end(SimpleNamespace(trial_id="0", status="COMPLETED"), oracle)
    oracle.start_order.append("1")
    screen.begin(SimpleNamespace(trial_id="1"), oracle)
    assert screen._search_seconds_left() == 120.0, "this one's and the next one's"


def test_a_trial_that_fails_leaves_a_line_with_its_name(tuner, data):
    def fail(epoch, logs):
        raise kt.errors.FailedTrialError("As it happens.")

    with Terminal() as terminal:
        tuner.search(*data, **FIT, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=fail)])
    assert len(tuner.oracle.trials) == 2
    for trial in tuner.oracle.trials:
        assert f"AutoLR trial_{trial} | no score: see the error above" in terminal.text


def test_a_trial_that_is_retried_takes_the_time_of_both(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("autolr.progress.time.monotonic", lambda: now[0])
    oracle = SimpleNamespace(start_order=["0"], max_trials=2, objective=None, get_best_trials=lambda most: [])
    screen, trial = Screen(Console(), "s"), SimpleNamespace(trial_id="0", status="COMPLETED")
    for end in (60.0, 90.0):
        screen.begin(trial, oracle)
        now[0] = end
        screen.end(trial, oracle)
    assert screen._search_seconds_left() == 90.0


def test_the_screen_may_be_drawn_while_a_phase_begins(monkeypatch):
    """Rich's thread draws it; here another phase begins in the middle of that."""
    screen, clock = Screen(Console(), "s"), time.monotonic
    screen.step(5.0, 10.0, "training")

    def interrupting():
        screen.say("0", "range test: up to 40 steps ...")
        return clock()

    monkeypatch.setattr("autolr.progress.time", SimpleNamespace(monotonic=interrupting))
    screen._draw()
    assert screen._phase.startswith("range test")
