"""The report: any search folder in, one safe, small, self-contained page out; and what reads the folder."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import warnings
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import pyplot

from autolr import RangeTest
from autolr.charts import Scale
from autolr.cli import _Page, main
from autolr.cycles import fitted_edges
from autolr.errors import RecordError
from autolr.plots import plot_search
from autolr.records import TrialRecord, note_start, note_stop
from autolr.report import literal, write_report
from autolr.report_views import Overview, TrialView, number, rate
from autolr.search_folder import find_project, read_search
from autolr.training_chart import training_chart

ANCIENT = 1_700_000_000.0  # long before any test runs


def curve(seed: int = 0, num_steps: int = 100) -> RangeTest:
    """A range test that starts level, falls and blows up, as real ones do."""
    lrs = np.geomspace(1e-7, 10, num_steps)
    log = np.log10(lrs)
    noise = 0.05 * np.random.default_rng(seed).normal(size=num_steps)
    losses = 2.3 - 1.6 / (1 + np.exp(-3 * (log + 2.5))) + np.exp(4 * (log - 0.2)) + noise
    losses[-1] = math.inf
    return RangeTest(lrs, losses, diverged=True)


def trained(steps: int = 600, num_epochs: int = 6, **changes) -> dict:
    """What a trial records of its training: rates on two cycles, a falling loss, and each epoch's logs."""
    at = list(range(2, steps + 1, max(2, steps // 300)))
    rates = [0.1 * (1 - (step % (steps // 2)) / steps) for step in at]
    values = {"fits": 1, "steps": steps, "steps_of_all": steps, "epochs": []}
    for n, accuracy in enumerate([0.5, 0.8, 0.9, 0.7, 0.6, 0.65][:num_epochs], 1):
        logs = {"loss": 1 / n, "val_loss": 1.2 / n, "val_accuracy": accuracy}
        values["epochs"].append({"epoch": n, "step": steps * n // num_epochs, "logs": logs})
    values["rates"] = {"step": at, "lr": rates}
    values["losses"] = {"step": at, "loss": [2 / (1 + step / 100) for step in at]}
    return {**values, **changes}


def rewrite(path: Path, **changes) -> None:
    """Change what is in a trial's record."""
    file = path / "autolr.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


class Folder:
    """A Keras Tuner project folder, written as Keras Tuner writes it."""

    def __init__(self, path: Path, *, objective: str = "val_accuracy", direction: str = "max"):
        self.path, self.objective, self.direction = path, objective, direction
        self.order: list[str] = []
        self.ongoing: dict[str, str] = {}
        path.mkdir(parents=True, exist_ok=True)

    def trial(self, name, score=0.9, *, status="COMPLETED", message=None, record=True, bounds=(), **values):
        folder = self.path / f"trial_{name}"
        folder.mkdir()
        self.order.append(name)
        values = {"units": 64, "optimizer": "adam", "cycle_length": 2, "mult_factor": 1.5, "lr_decay": 0.9, **values}
        if record:
            test = curve(len(self.order))
            found = {**test.bounds().to_dict(), **dict(bounds)}
            values.update({"autolr/min_lr": found["min_lr"], "autolr/max_lr": found["max_lr"]})
            edges = fitted_edges(600, cycle_length=2, mult_factor=1.5, steps_per_epoch=100)
            choices = {name: values[name] for name in ("cycle_length", "mult_factor", "lr_decay")}
            planned = {"epochs": 6, "initial_epoch": 0, "steps_per_epoch": 100, "batches_per_update": 1}
            schedule = {**choices, **planned, "warmup": 0.1, "edges": edges.tolist()}
            source = "range test"
            TrialRecord(name, values, found, schedule, test.to_dict(), source).write(folder)
        metrics = {}
        if score is not None:
            for metric, direction, x in ((self.objective, self.direction, score), ("loss", "min", 0.1)):
                metrics[metric] = {"direction": direction, "observations": [{"value": [x], "step": 5}]}
        state = {
            "trial_id": name,
            "hyperparameters": {"space": [], "values": values},
            "metrics": {"metrics": metrics},
            "score": score,
            "best_step": 5,
            "status": status,
            "message": message,
        }
        (folder / "trial.json").write_text(json.dumps(state), encoding="utf-8")
        if status == "RUNNING":
            self.ongoing[f"tuner{len(self.ongoing)}"] = name
        return folder

    def done(self, *, age: float | None = None):
        oracle = {"ongoing_trials": self.ongoing, "start_order": self.order, "end_order": []}
        oracle["display"] = {"search_start": "2026-01-31T12:00:00", "trial_start": {}}
        (self.path / "oracle.json").write_text(json.dumps(oracle), encoding="utf-8")
        (self.path / "tuner0.json").write_text("{}", encoding="utf-8")
        if age is not None:
            for file in self.path.rglob("*"):
                os.utime(file, (time.time() - age,) * 2)
        return self.path


def finished(path: Path, trials: int = 5) -> Path:
    folder = Folder(path)
    for n in range(trials):
        folder.trial(
            f"{n:03d}", 0.9 + 0.001 * (n * 7 % 11), units=[32, 64, 128][n % 3], optimizer=["sgd", "adam"][n % 2]
        )
    return folder.done()


class Page(HTMLParser):
    """The text of a page, its tags and the addresses in it."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(html)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] not in ("script", "style"):
            self.words.append(data)


def report(folder: Path) -> Page:
    page = write_report(folder, folder.parent / "report.html")
    return Page(page.read_text(encoding="utf-8"))


# --- reading a folder ------------------------------------------------------------------------------------------------


def test_a_finished_search_is_read(tmp_path):
    search = read_search(finished(tmp_path / "mnist"))
    assert (search.name, search.state, search.objective, search.direction) == (
        "mnist",
        "finished",
        "val_accuracy",
        "max",
    )
    assert [trial.trial_id for trial in search.trials] == ["000", "001", "002", "003", "004"]
    assert search.best.trial_id == "003"
    assert search.problems == ()
    assert not any(trial.needs_a_look for trial in search.trials)
    assert search.trials[0].steps_tested == 100
    assert search.trials[0].steps_trained == 600


def test_the_only_search_in_a_folder_is_found(tmp_path):
    finished(tmp_path / "one")
    assert find_project(tmp_path).name == "one"
    assert find_project(tmp_path / "one").name == "one"
    finished(tmp_path / "two")
    with pytest.raises(RecordError, match="'one', 'two'"):
        find_project(tmp_path)


def test_lower_is_better_where_keras_tuner_says_so(tmp_path):
    folder = Folder(tmp_path / "s", objective="val_loss", direction="min")
    for n, score in enumerate([0.5, 0.2, math.inf, 0.9]):
        folder.trial(str(n), score)
    search = read_search(folder.done())
    assert (search.objective, search.direction, search.best.trial_id) == ("val_loss", "min", "1")
    assert [trial.trial_id for trial in search.ranked] == ["1", "0", "3", "2"]


def test_a_score_that_is_no_metric_says_so(tmp_path):
    folder = Folder(tmp_path / "s")
    path = folder.trial("0", 0.5) / "trial.json"
    path.write_text(path.read_text().replace('"score": 0.5', '"score": 7.0'))
    search = read_search(folder.done())
    assert search.objective == "score"
    assert "not known" in search.problems[0]


def test_an_objective_called_score_is_known_by_the_records(tmp_path):
    folder = Folder(tmp_path / "s")
    for name, score in (("0", 7.0), ("1", 45.0)):
        file = folder.trial(name, score) / "autolr.json"
        record = json.loads(file.read_text())
        file.write_text(json.dumps({**record, "objective": {"name": "score", "direction": "max"}}))
    search = read_search(folder.done())
    assert (search.objective, search.direction, search.best.trial_id) == ("score", "max", "1")
    assert not search.problems


def test_charts_count_trials_as_keras_tuner_names_them(tmp_path):
    search = read_search(finished(tmp_path / "s"))
    numbers = [int(trial.trial_id) for trial in search.trials]
    progress, ranges = Overview(search).progress, Overview(search).ranges
    for chart in (progress, ranges):
        assert [text for _, text in chart.x_ticks] == [str(number) for number in numbers]
    assert [link[0] for link in progress.links] == pytest.approx([progress.x(number) for number in numbers])


def test_the_rate_that_keras_logs_is_no_metric(tmp_path):
    folder = Folder(tmp_path / "s")
    path = folder.trial("0", 0.5) / "trial.json"
    state = json.loads(path.read_text())
    state["metrics"]["metrics"]["learning_rate"] = state["metrics"]["metrics"]["loss"]
    path.write_text(json.dumps(state))
    search = read_search(folder.done())
    shown = dict(TrialView(search.trials[0], Overview(search)).lists)["Metrics, in the best epoch"]
    assert set(shown) == {"val_accuracy", "loss"}


@pytest.mark.parametrize(
    ("statuses", "age", "state"),
    [
        (["COMPLETED", "RUNNING"], 5, "running"),
        (["COMPLETED", "RUNNING", "RUNNING"], 5, "running"),
        (["COMPLETED", "RUNNING"], 3600, "interrupted"),
        (["COMPLETED", "INVALID"], 5, "running"),
        (["COMPLETED", "INVALID"], 3600, "interrupted"),
        (["COMPLETED", "FAILED"], 5, "finished"),
        (["FAILED", "FAILED", "FAILED"], 5, "failed"),
        # A search may be told to bear more failures than three.
        (["COMPLETED", "FAILED", "FAILED", "FAILED"], 5, "finished"),
        (["FAILED", "FAILED", "FAILED", "COMPLETED"], 5, "finished"),
        ([], 5, "running"),
        ([], 3600, "empty"),
    ],
)
def test_the_state_of_a_search(tmp_path, statuses, age, state):
    folder = Folder(tmp_path / "s")
    for n, status in enumerate(statuses):
        score = 0.9 if status == "COMPLETED" else None
        folder.trial(str(n), score, status=status, message="Traceback" if status == "FAILED" else None)
    search = read_search(folder.done(age=age))
    assert search.state == state
    assert state in report(folder.path).text


@pytest.mark.parametrize("by", ["autolr", "plain Keras Tuner"])
@pytest.mark.parametrize("last", ["RUNNING", "FAILED"])  # the third failure is not written down, but by AutoLR
def test_a_search_given_up_has_failed(tmp_path, by, last):
    folder = Folder(tmp_path / "s")
    for n, status in enumerate(["COMPLETED", "FAILED", "FAILED", last]):
        folder.trial(str(n), 0.9 if status == "COMPLETED" else None, status=status, record=by == "autolr")
    folder.done(age=3600)
    if by == "autolr":
        note_stop(folder.path, "RuntimeError: Number of consecutive failures exceeded the limit of 3.")
    assert read_search(folder.path).state == "failed"


def test_a_copy_of_a_search_given_up_has_failed(tmp_path):
    """Whatever its files' times are."""
    folder = Folder(tmp_path / "s")
    for n, status in enumerate(["COMPLETED", "FAILED", "FAILED", "FAILED"]):
        folder.trial(str(n), 0.9 if status == "COMPLETED" else None, status=status)
    note_stop(folder.path, "RuntimeError: Number of consecutive failures exceeded the limit of 3.")
    folder.done()
    assert read_search(folder.path).state == "failed"


def test_a_copy_of_an_interrupted_search_is_interrupted_until_it_goes_on(tmp_path):
    """Whatever its files' times are: a copy's are those of the copying, in any order."""
    folder = Folder(tmp_path / "s")
    folder.trial("0", 0.9)
    folder.trial("1", None, status="RUNNING")
    note_stop(folder.path)
    folder.done()  # files that are newer
    assert read_search(folder.path).state == "interrupted"
    note_start(folder.path)
    assert read_search(folder.path).state == "running"


def test_a_slow_fall_within_its_noise_is_one(tmp_path):
    rng, looked_at = np.random.default_rng(0), []
    at = list(range(10, 3010, 10))
    for at_trial, fall in enumerate([0.0, 0.1] * 20):
        folder = Folder(tmp_path / f"{at_trial}")
        losses = np.linspace(2.3, 2.3 - fall, 300) + 0.1 * rng.normal(size=300)
        rewrite(folder.trial("0", 0.1), training=trained(losses={"step": at, "loss": losses.tolist()}))
        looked_at.append(read_search(folder.done()).trials[0].needs_a_look)
    assert sum(looked_at[::2]) >= 15, "without a fall"
    assert sum(looked_at[1::2]) <= 1, "with one as large as the noise of a point"


@pytest.mark.parametrize(
    ("ends_at", "changes", "looked_at"),
    [
        (2.3, {}, True),
        (4.0, {}, True),
        (2.1, {}, False),
        (2.3, {"source": "trial 7"}, False),  # a later round of Hyperband goes on with a trained model
        (2.3, {"ways": 2}, False),  # fine-tuning
    ],
)
def test_a_trial_that_learned_nothing_needs_a_look(tmp_path, ends_at, changes, looked_at):
    folder = Folder(tmp_path / "s")
    path = folder.trial("0", 0.1)
    noise = 0.01 * np.random.default_rng(0).normal(size=60)
    losses = np.linspace(2.3, ends_at, 60) + noise
    at = list(range(10, 610, 10))
    rewrite(path, training=trained(losses={"step": at, "loss": losses.tolist()}), **changes)
    trial = read_search(folder.done()).trials[0]
    assert trial.needs_a_look == looked_at
    assert any("No fall of its loss can be seen" in problem for problem in trial.problems) == looked_at
    assert ("No fall of its loss can be seen" in report(folder.path).text) == looked_at


@pytest.mark.parametrize(("scores", "highest"), [([0.99], 1.0), ([1.0, 0.5], 1.0), ([90.0, 99.0], None)])
def test_an_accuracy_is_drawn_on_an_axis_that_ends_at_one(tmp_path, scores, highest):
    folder = Folder(tmp_path / "s")
    for n, score in enumerate(scores):
        folder.trial(str(n), score)
    high = Overview(read_search(folder.done())).progress.y.high
    assert high == highest if highest else high > max(scores)


def test_a_score_that_is_no_number_wins_nothing(tmp_path):
    folder = Folder(tmp_path / "s")
    for n, score in enumerate([0.9, math.nan, 0.95]):
        folder.trial(str(n), score)
    assert [trial.score for trial in read_search(folder.done()).ranked] == [0.95, 0.9]


def test_a_search_that_an_error_ended_says_which(tmp_path):
    folder = Folder(tmp_path / "s")
    folder.trial("0", None, status="RUNNING")
    folder.done(age=5)
    note_stop(folder.path, "ValueError: it was <mistyped>")
    search = read_search(folder.path)
    assert search.state == "interrupted"
    assert search.problems == ("The search was ended by an error: ValueError: it was <mistyped>",)
    assert "ValueError: it was <mistyped>" in report(folder.path).text


@pytest.mark.parametrize(("confidence", "words"), [("high", "ok"), ("low", "a guess")])
def test_bounds_of_low_confidence_are_called_a_guess(tmp_path, confidence, words):
    folder = Folder(tmp_path / "s")
    folder.trial("0", bounds={"status": "ok", "confidence": confidence})
    assert read_search(folder.done()).trials[0].bounds_in_words == words
    assert f"bounds {words}" in report(folder.path).text
    guessed = report(folder.done()).text
    assert ("; 1 with bounds that are a guess" in guessed) == (words == "a guess")


def test_a_pause_is_no_long_trial(tmp_path):
    """Begun two days ago, gone on with a day later, and killed then."""
    folder, day = Folder(tmp_path / "s"), 24 * 3600
    now = time.time()
    for name, status, begun in (("0", "COMPLETED", now - 2 * day), ("1", "RUNNING", now - day)):
        trial = folder.trial(name, 0.9 if status == "COMPLETED" else None, status=status)
        for file in (trial, *trial.rglob("*")):
            os.utime(file, (begun + 60,) * 2)
    oracle = json.loads((folder.done() / "oracle.json").read_text())
    oracle["display"]["trial_start"] = {
        str(n): datetime.fromtimestamp(now - days * day).isoformat() for n, days in ((0, 2), (1, 1))
    }
    (folder.path / "oracle.json").write_text(json.dumps(oracle))
    for file in folder.path.glob("*.json"):
        os.utime(file, (now - day + 60,) * 2)
    assert read_search(folder.path).state == "interrupted"


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("range_test", "lrs", [1e-7, "inf"]),
        ("range_test", "lrs", [5e-324, 1.0]),
        ("bounds", "max_lr", 1e308),
        ("bounds", "min_lr", 5e-324),
        ("training", "steps", 10**400),
        ("training", "fits", -1),
        ("range_test", "normalized", "false"),
        ("schedule", "initial_epoch", 10**400),
        ("schedule", "initial_epoch", -1),
    ],
)
def test_numbers_beyond_reason_are_a_damaged_record(tmp_path, part, name, value):
    path = finished(tmp_path / "mnist")
    rewrite(path / "trial_000", training=trained(200, 2))
    record = json.loads((path / "trial_000" / "autolr.json").read_text())
    record[part][name] = value
    if name == "lrs":
        record[part]["losses"] = [1.0, 2.0]
    rewrite(path / "trial_000", **{part: record[part]})
    page = report(path)
    assert "its numbers make no sense" in page.text


def test_a_record_holds_hyperparameters_that_are_infinite(tmp_path):
    folder = Folder(tmp_path / "s")
    folder.trial("0", clip=math.inf, floor=-math.inf)
    search = read_search(folder.done())
    assert search.trials[0].record is not None
    assert not search.trials[0].problems


def test_a_winner_trained_in_several_ways_says_so(tmp_path):
    path = finished(tmp_path / "mnist", trials=1)
    assert "ways" not in report(path).text
    rewrite(path / "trial_000", ways=2)
    assert "# The trial trained in 2 ways, one after the other." in report(path).text


def test_workers_and_what_they_train_are_named(tmp_path):
    folder = Folder(tmp_path / "s")
    folder.trial("0")
    folder.trial("1", None, status="RUNNING")
    folder.trial("2", None, status="RUNNING", record=False)
    folder.ongoing["done already"] = "0"
    search = read_search(folder.done())
    assert search.ongoing == {"tuner0": "1", "tuner1": "2"}
    assert not search.trials[2].needs_a_look, "one that has just begun has no record yet"
    assert "trial 1 (tuner0), trial 2 (tuner1)." in report(folder.path).text


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
@pytest.mark.parametrize("name", ["oracle.json", "trial_001/trial.json", "trial_001/autolr.json"])
def test_a_file_cut_off_anywhere_is_a_gap_and_no_error(tmp_path, name, share):
    path = finished(tmp_path / "s")
    content = (path / name).read_bytes()
    (path / name).write_bytes(content[: int(share * len(content))])
    search = read_search(path)
    assert len(search.trials) == 5
    assert search.best is not None
    if name == "oracle.json":
        assert "oracle.json cannot be read" in search.problems[0]
    else:
        assert name.partition("/")[2] in search.trials[1].problems[0]
        assert search.trials[1].needs_a_look
    text = report(path).text
    assert name.rpartition("/")[2] in text
    assert str(tmp_path) not in text, "the path of a machine is nobody's business"


@pytest.mark.parametrize(
    "content", ["[]", "7", "null", '"text"', "[" * 100_000, "{}", '{"a": {}}', '{"metrics": [1], "score": "x"}']
)
@pytest.mark.parametrize("name", ["oracle.json", "trial_001/trial.json", "trial_001/autolr.json"])
def test_files_of_others_are_no_error(tmp_path, name, content):
    path = finished(tmp_path / "s")
    (path / name).write_text(content)
    assert len(read_search(path).trials) == 5
    report(path)


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("bounds", {"min_lr": "x"}),
        ("bounds", {"min_lr": 10.0}),
        ("bounds", {"min_lr": -1}),
        ("bounds", {"min_lr": 0.1, "max_lr": 0.1}),
        ("bounds", {"max_lr": math.inf}),
        ("bounds", {"status": None}),
        ("bounds", {"reason": 3}),
        ("bounds", None),
        ("schedule", {"edges": []}),
        ("schedule", {"edges": [0]}),
        ("schedule", {"edges": [0, 5, 5]}),
        ("schedule", {"edges": [-5, 5]}),
        ("schedule", {"edges": [0, 5.5]}),
        ("schedule", {"edges": "none"}),
        ("schedule", {"steps_per_epoch": "many"}),
        ("schedule", {"steps_per_epoch": 0}),
        ("schedule", {"lr_decay": None}),
        ("schedule", {"warmup": -1}),
        ("schedule", {"warmup": "x"}),
        ("schedule", {"initial_epoch": "x"}),
        ("schedule", 5),
        ("range_test", {"lrs": [1], "losses": []}),
        ("range_test", {"lrs": [2, 1], "losses": [1, 1]}),
        ("range_test", {"bursts": [[1]]}),
        ("range_test", {"bursts": [["x", 1, 24]]}),
        ("range_test", 7),
        ("values", 3),
        ("source", 3),
        ("optimizer", 3),
        ("objective", "val_loss"),
        ("objective", {"name": "val_loss", "direction": "up"}),
        ("warnings", [1]),
        ("warnings", 5),
        ("training", 7),
        ("training", []),
        ("training", {}),
        ("schedule", {"edges": [0, 10**400]}),
        ("training", trained(fits="x")),
        ("training", trained(losses={"step": [1], "loss": [10**400]})),
        ("training", trained(steps=600, rates={"step": [1, 2], "lr": [0.1]})),
        ("training", trained(rates={"step": [2, 1], "lr": [0.1, 0.1]})),
        ("training", trained(rates={"step": [1, 2], "lr": [0.1, "x"]})),
        ("training", trained(rates={"step": [1], "lr": ["inf"]})),
        ("training", trained(rates={"step": [1], "lr": [-0.1]})),
        ("training", trained(losses={"step": [1, 2], "loss": [0.1]})),
        ("training", trained(losses={"step": [1.5], "loss": [0.1]})),
        ("training", trained(losses={"step": [1], "loss": ["much"]})),
        ("training", trained(epochs=[{"epoch": 1, "step": 0, "logs": {}}])),
        ("training", trained(epochs=[{"epoch": n, "step": 4 - n, "logs": {}} for n in (1, 2)])),
        ("training", trained(epochs=[{"epoch": "x", "step": 3, "logs": {}}])),
        ("training", trained(epochs=[{"epoch": 1, "step": 3, "logs": {"loss": "low"}}])),
        ("training", trained(epochs=[{"epoch": 1, "step": 3, "logs": [1]}])),
    ],
)
def test_records_that_make_no_sense_are_no_error(tmp_path, where, what):
    path = finished(tmp_path / "s")
    file = path / "trial_001" / "autolr.json"
    record = json.loads(file.read_text())
    record[where] = {**(record[where] or {}), **what} if isinstance(what, dict) else what
    file.write_text(json.dumps(record))
    assert read_search(path).trials[1].record is None
    assert read_search(path).trials[0].record is not None
    assert "autolr.json is no trial record" in report(path).text


@pytest.mark.parametrize(
    "test",
    [
        {"losses": ["inf"] * 100},
        {"losses": ["nan"] * 100},
        {"lrs": [], "losses": []},
        {"lrs": [1], "losses": [2]},
        None,
    ],
)
@pytest.mark.parametrize("plan", [{}, {"steps_per_epoch": None, "edges": [0, 2, 6]}, {"edges": [0, 1]}])
def test_unusual_records_are_drawn_as_far_as_they_go(tmp_path, test, plan):
    path = finished(tmp_path / "s")
    file = path / "trial_001" / "autolr.json"
    record = json.loads(file.read_text())
    record["range_test"] = test and {**record["range_test"], **test}
    record["schedule"].update(plan)
    file.write_text(json.dumps(record))
    assert read_search(path).trials[1].record is not None
    assert "Schedule as planned" in report(path).text


def test_a_record_of_other_values_is_stale(tmp_path):
    path = finished(tmp_path / "s")
    shutil.copy(path / "trial_000" / "autolr.json", path / "trial_001" / "autolr.json")
    trial = read_search(path).trials[1]
    assert trial.record is None
    assert "stale" in trial.problems[0]


def test_missing_records_and_trials_are_named(tmp_path):
    path = finished(tmp_path / "s")
    (path / "trial_002" / "autolr.json").unlink()
    shutil.rmtree(path / "trial_003")
    page = report(path)
    assert "autolr.json does not exist" in page.text
    assert "folders of these trials are missing: 003" in page.text
    assert "No trial has a record" not in page.text
    for file in path.glob("*/autolr.json"):
        file.unlink()
    assert "No trial has a record of autolr" in report(path).text


def test_a_search_of_plain_keras_tuner_is_no_gap_and_its_winners_code_makes_nothing_up(tmp_path):
    folder = Folder(tmp_path / "s")
    folder.trial("0", 0.8, record=False)
    folder.trial("1", 0.9, record=False)
    folder.trial("2", None, record=False, status="FAILED")
    page, search = report(folder.done()), read_search(folder.path)
    assert [trial.needs_a_look for trial in search.trials] == [False, False, True]
    assert not any(trial.problems for trial in search.trials)
    assert "No trial has a record of autolr" in page.text
    assert "# Fill in `epochs` and `batch_size` as in the search, whose folder does not tell." in page.text
    assert "model.fit(x, y, batch_size=batch_size, epochs=epochs)" in page.text
    folder.trial("3", 0.95, record=False, **{"tuner/epochs": 7})  # of Hyperband
    text = report(folder.done()).text
    assert "# Fill in `batch_size` as in the search, whose folder does not tell." in text
    assert "model.fit(x, y, batch_size=batch_size, epochs=7)" in text


def test_the_winners_code_says_what_the_record_does_not_tell(tmp_path):
    path = finished(tmp_path / "s", 1)
    text = report(path).text
    assert "Fill in `batch_size` as in the search, where an epoch had 100 batches;" in text
    assert "model.fit(x, y, batch_size=batch_size, epochs=6, callbacks=[schedule])" in text
    schedule = json.loads((path / "trial_000" / "autolr.json").read_text())["schedule"]
    rewrite(path / "trial_000", schedule={**schedule, "steps_per_epoch": None})  # data that came in batches
    assert "model.fit(x, y, epochs=6, callbacks=[schedule])" in report(path).text


def test_bursts_are_drawn_where_there_were_some(tmp_path):
    path = finished(tmp_path / "s", 1)
    assert "max_lr bursts" not in report(path).text
    file = path / "trial_000" / "autolr.json"
    record = json.loads(file.read_text())
    record["range_test"]["bursts"] = [[1e-3, -0.5, 24], [1e-2, "inf", 48]]
    file.write_text(json.dumps(record))
    page = report(path)
    assert "max_lr bursts" in page.text
    assert "bursts that are off the scale" in page.text
    assert [it["class"] for _, it in page.tags if it.get("class", "").startswith("burst")] == ["burst", "burst gone"]
    record["range_test"]["bursts"][1][1] = 1000.0  # no infinity, and above all that is drawn
    file.write_text(json.dumps(record))
    classes = [it["class"] for _, it in report(path).tags if it.get("class", "").startswith("burst")]
    assert classes == ["burst", "burst gone"]


def test_objectives_of_two_kinds_are_told_of(tmp_path):
    path = finished(tmp_path / "s", 2)
    for trial, name in (("trial_000", "loss"), ("trial_001", "val_loss")):
        rewrite(path / trial, objective={"name": name, "direction": "min"})
    (problem,) = read_search(path).problems
    assert problem.startswith("Trials were scored by different objectives: loss (min), val_loss (min).")


def test_what_was_warned_of_in_several_trials_is_said_once(tmp_path):
    path = finished(tmp_path / "s", 3)
    for trial, own in (("trial_000", ["Only here."]), ("trial_001", []), ("trial_002", [])):
        rewrite(path / trial, warnings=["Of all of them.", *own])
    text = report(path).text
    assert text.count("Of all of them.") == 1
    assert "autolr warned in several trials: Of all of them." in text
    assert "autolr warned in this trial: Only here." in text


def test_a_training_is_shown_as_it_ran(tmp_path):
    path = finished(tmp_path / "s", 2)
    reason = json.loads((path / "trial_000" / "autolr.json").read_text())["bounds"]["reason"]
    rewrite(
        path / "trial_000",
        training=trained(),
        optimizer="Nadam",
        warnings=["Something was replaced.", f"Trial 000: ok. {reason}"],
    )
    page = report(path)
    assert "Training as run" in page.text
    assert "Schedule as planned" in page.text, "of the trial without"
    assert "Nadam, " in page.text
    assert "autolr warned in this trial: Something was replaced." in page.text
    assert page.text.count(reason) == 2, "the verdict of each trial, and no warning of the same words"
    assert "600 steps were run." in page.text
    assert "val_accuracy was best, 0.9, in epoch 3." in page.text
    labels = [attributes.get("aria-label", "") for _, attributes in page.tags]
    assert any(label.startswith("Training as run: the learning rate over 600 steps") for label in labels)
    assert "planned, not run" not in page.text
    assert "still planned" not in page.text


def test_what_is_left_of_the_schedule_is_drawn_when_training_ended_early(tmp_path):
    path = finished(tmp_path / "s", 1)
    rewrite(path / "trial_000", training=trained(200, 2))
    page = report(path).text
    assert "planned, not run" in page
    assert "200 of the 600 planned steps were run" in page
    state = json.loads((path / "trial_000" / "trial.json").read_text())
    (path / "trial_000" / "trial.json").write_text(json.dumps({**state, "status": "RUNNING"}))
    assert "still planned" in report(path).text
    rewrite(path / "trial_000", training=trained(fits=3))
    assert "in the last of 3 trainings, the one that is shown" in report(path).text


@pytest.mark.parametrize(
    "training",
    [
        trained(rates={"step": [], "lr": []}),
        trained(losses={"step": [], "loss": []}),
        trained(losses={"step": [1, 2, 3], "loss": ["nan", "inf", "-inf"]}, epochs=[]),
        trained(losses={"step": [1, 2, 3], "loss": [-1, "nan", 2]}),
        trained(losses={"step": [1, 2, 3], "loss": [1e-30, 1, 1e30]}),
        trained(losses={"step": [1], "loss": [0]}, rates={"step": [1], "lr": [0]}, steps=1, epochs=[]),
        trained(epochs=[{"epoch": 7, "step": 9, "logs": {"val_loss": "inf", "val_accuracy": "nan"}}]),
        trained(steps=0, rates={"step": [], "lr": []}, losses={"step": [], "loss": []}, epochs=[]),
        trained(500_000),
    ],
)
@pytest.mark.parametrize("plan", [{}, {"steps_per_epoch": None, "edges": [0, 2, 6]}, {"initial_epoch": 2}])
def test_unusual_trainings_are_drawn_as_far_as_they_go(tmp_path, training, plan):
    path = finished(tmp_path / "s", 1)
    schedule = json.loads((path / "trial_000" / "autolr.json").read_text())["schedule"]
    rewrite(path / "trial_000", training=training, schedule={**schedule, **plan})
    assert read_search(path).trials[0].record is not None
    page = report(path)
    drawn = " ".join(attributes.get("d", "") for tag, attributes in page.tags if tag == "path")
    assert "nan" not in drawn
    assert "inf" not in drawn
    assert ("Training as run" in page.text) == bool(training["rates"]["step"])


def test_on_a_logarithm_one_high_loss_does_not_lift_the_smoothed_line(tmp_path):
    losses = np.where(np.arange(240) % 8 == 4, 1.0, 1e-3)  # the mean of nine of them is above a tenth
    training = trained(losses={"step": list(range(1, 241)), "loss": losses.tolist()}, epochs=[])
    path = finished(tmp_path / "s", 1)
    rewrite(path / "trial_000", training=training)
    chart = training_chart(read_search(path).trials[0].record)
    (smooth,) = [path for kind, path in chart.paths if kind == "smooth"]
    heights = [float(pair.split()[1]) for pair in re.findall(r"[ML]([\d.]+ [\d.]+)", smooth)]
    assert heights
    assert min(heights) > chart.y(1e-2)  # the axis points down


def test_the_objective_is_the_recorded_one(tmp_path):
    folder = Folder(tmp_path / "s")
    path = folder.trial("0", 0.1)  # the score is also the training loss
    assert read_search(folder.done()).objective == "val_accuracy"
    rewrite(path, objective={"name": "loss", "direction": "min"})
    search = read_search(folder.path)
    assert (search.objective, search.direction) == ("loss", "min")


def test_a_training_that_is_not_recorded_counts_as_planned(tmp_path):
    folder = Folder(tmp_path / "s")
    folder.trial("0")
    assert read_search(folder.done()).trials[0].steps_trained == 600


@pytest.mark.parametrize("status", ["FAILED", "INVALID", "RUNNING"])
def test_a_trial_that_was_cut_off_in_its_first_epoch_has_trained_nothing_that_is_known(tmp_path, status):
    folder = Folder(tmp_path / "s")
    folder.trial("0")
    folder.trial("1", None, status=status)
    found = read_search(folder.done())
    assert [trial.steps_trained for trial in found.trials] == [600, 0]


def test_a_training_that_stopped_early_counts_as_run(tmp_path):
    folder = Folder(tmp_path / "s")
    rewrite(folder.trial("0"), training=trained(steps=250, fits=2, steps_of_all=500))
    assert read_search(folder.done()).trials[0].steps_trained == 500


# --- the page --------------------------------------------------------------------------------------------------------


def test_the_page_says_what_there_is(tmp_path):
    page = report(finished(tmp_path / "mnist"))
    assert "Best val_accuracy 0.91" in page.text
    assert "14.3 % 500 of 3,500 steps" in page.text
    assert "5 completed" in page.text
    assert "no bad status" in page.text
    assert "autolr.SGDRScheduler.from_hyperparameters(hp)" in page.text
    assert sum(tag == "details" for tag, _ in page.tags) == 5


def test_the_page_asks_the_network_for_nothing(tmp_path):
    path = finished(tmp_path / "s")
    html = write_report(path, tmp_path / "r.html").read_text(encoding="utf-8")
    for _, attributes in Page(html).tags:
        for name in ("src", "href", "action", "srcset", "data"):
            assert (attributes.get(name) or "#")[0] == "#" or attributes[name] == "data:,"
    assert not re.search(r"https?://|@import|url\(", html)
    assert "default-src 'none'" in html


def test_links_within_the_page_lead_somewhere(tmp_path):
    page = report(finished(tmp_path / "s"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {attributes["href"][1:] for tag, attributes in page.tags if tag == "a"}
    assert targets <= set(ids)
    for _, attributes in page.tags:
        assert set((attributes.get("aria-labelledby") or "").split()) <= set(ids)


EVIL = "<script>alert(1)</script>\"'&</style></pre><img src=x onerror=alert(1)>{{ 7 * 7 }}"


def test_names_and_messages_are_text(tmp_path):
    folder = Folder(tmp_path / "s<b>", objective=EVIL)
    folder.trial("0", 0.5, message=EVIL, **{EVIL: EVIL, "autolr/" + EVIL: 1})
    folder.trial("<i>1", 0.6, bounds={"reason": EVIL, "status": EVIL, "confidence": EVIL}, **{EVIL: 3})
    folder.trial('"2', None, status=EVIL, message=EVIL)
    folder.ongoing[EVIL] = '"2'
    page = report(folder.done())
    assert {tag for tag, _ in page.tags}.isdisjoint({"img", "b", "i"} - {"i"})
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7 * 7 }}" in page.text


def test_names_of_files_that_are_not_utf_8_are_no_error(tmp_path):
    folder = Folder(tmp_path / "s")
    folder.trial("0", None, message="no data in donn\udce9es.npz", status="FAILED")
    assert "donn\\udce9es.npz" in report(folder.done()).text


def test_numbers_that_no_float_can_hold_are_no_error(tmp_path):
    path = finished(tmp_path / "s")
    file = path / "trial_001" / "trial.json"
    state = json.loads(file.read_text())
    observations = [{"value": [10**400], "step": 0}]
    state.update(score=-(10**400), metrics={"metrics": {"loss": {"direction": "min", "observations": observations}}})
    file.write_text(json.dumps(state))
    assert read_search(path).trials[1].score == -math.inf
    assert report(path).text


def test_a_large_search_is_a_small_page_made_quickly(tmp_path):
    path = finished(tmp_path / "s", 100)
    begun = time.process_time()  # on a machine shared with others, the clock on the wall measures them too
    page = write_report(path, tmp_path / "r.html")
    assert time.process_time() - begun < 5
    assert page.stat().st_size < 3_000_000


def test_very_many_cycles_and_steps_stay_small(tmp_path):
    path = finished(tmp_path / "s", 1)
    file = path / "trial_000" / "autolr.json"
    record = json.loads(file.read_text())
    record["schedule"]["edges"] = list(range(0, 5_000_000, 100))
    record["range_test"] = curve(num_steps=5000).to_dict()
    file.write_text(json.dumps(record))
    assert write_report(path, tmp_path / "r.html").stat().st_size < 100_000


def test_a_later_rung_of_hyperband(tmp_path):
    folder = Folder(tmp_path / "s")
    file = folder.trial("0001", **{"tuner/epochs": 6, "tuner/trial_id": "0000"}) / "autolr.json"
    record = json.loads(file.read_text())
    record.update(source="trial 0000", range_test=None)
    record["schedule"].update(initial_epoch=2, steps_per_epoch=100)
    file.write_text(json.dumps(record))
    page = report(folder.done())
    assert read_search(folder.path).trials[0].steps_trained == 400
    assert "None: the bounds are from trial 0000." in page.text
    assert "trained by an earlier trial" in page.text
    assert "Set by Keras Tuner" in page.text


def test_bounds_taken_over_after_a_range_test_of_another_way_to_train(tmp_path):
    """With `reuse_bounds`, a trial that trains twice may have tested for the first training alone."""
    folder = Folder(tmp_path / "s")
    file = folder.trial("0001") / "autolr.json"
    record = json.loads(file.read_text())
    record.update(source="trial 0000", range_test=None, ways=2, steps_tested=40)
    file.write_text(json.dumps(record))
    assert "from trial 0000 (40 steps)" in report(folder.done()).text


@pytest.mark.parametrize("burst", [[0.1, 24, "x"], [0.1, "x", 24], [0.1, -1.0], ["x", -1.0, 24]])
def test_a_burst_that_is_none_is_a_damaged_record(tmp_path, burst):
    folder = Folder(tmp_path / "s")
    file = folder.trial("0") / "autolr.json"
    record = json.loads(file.read_text())
    record["range_test"]["bursts"] = [burst]
    file.write_text(json.dumps(record))
    assert "is no trial record" in report(folder.done()).text


def test_a_report_is_written_whole_or_not_at_all(tmp_path):
    path = finished(tmp_path / "s")
    with pytest.raises(OSError, match="none"):
        write_report(path, tmp_path / "none" / "r.html")
    assert write_report(str(path), str(tmp_path / "r.html")) == tmp_path / "r.html"


def test_numbers_in_words():
    assert [rate(1e-7), rate(0.0123), rate(1.96)] == ["1.0e-7", "1.2e-2", "2.0e0"]
    assert number(0.123456789) == "0.12346"
    assert number(None) != ""
    assert eval(literal(math.inf)) == math.inf
    assert eval(literal({"a": [1.5, "x'"]})) == {"a": [1.5, "x'"]}


def test_large_numbers_at_an_axis_are_short():
    for span in ((0, 2.2e9), (1e6, 1.4e6), (-3e7, 1e7)):
        assert max(len(text) for _, text in Scale(*span, 0, 100).ticks()) <= 7
    texts = [text for _, text in Scale(0, 2.2e9, 0, 100).ticks()]
    assert [float(text) for text in texts] == [0, 5e8, 1e9, 1.5e9, 2e9]


@pytest.mark.parametrize(
    "span", [(1e9, 1e9 + 3), (0, 1), (0.9651, 0.9652), (-3, 1e6), (0, 1e-5), (5, 5), (1e-12, 1e12)]
)
@pytest.mark.parametrize("log", [False, True])
def test_ticks_are_few_distinct_and_within(span, log):
    low, high = (max(x, 1e-9) for x in span) if log else span
    ticks = Scale(low, high, 0, 100, log=log).ticks()
    assert len(ticks) <= 11
    assert len({text for _, text in ticks}) == len(ticks)
    assert all(0 <= at <= 100 for at, _ in ticks)


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_writes_the_report(tmp_path, capsys, monkeypatch):
    path = finished(tmp_path / "s")
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(path)]) == 0
    assert (tmp_path / "report.html").exists()
    assert main(["report", str(path), "-o", "other.html"]) == 0
    assert (tmp_path / "other.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "other.html" in capsys.readouterr().out


def test_a_name_that_the_terminal_cannot_show_is_no_failure(tmp_path):
    path = finished(tmp_path / "süche")
    command = [sys.executable, "-m", "autolr", "report", str(path), "-o", str(tmp_path / "é.html")]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\xe9.html" in done.stdout


@pytest.mark.parametrize("watching", [[], ["--watch", "--port", "0"]])
def test_what_is_no_search_is_one_line_and_exit_code_2(tmp_path, capsys, watching):
    (tmp_path / "file").write_text("")
    for directory in ("none", "file", "."):
        assert main(["report", str(tmp_path / directory), *watching]) == 2
        error = capsys.readouterr().err
        assert error.startswith("autolr report: ")
        assert error.count("\n") == 1


def test_a_file_that_cannot_be_written_is_one_line_and_exit_code_2(tmp_path, capsys):
    path = finished(tmp_path / "s")
    assert main(["report", str(path), "-o", str(tmp_path / "none" / "r.html")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "-o must name a file in a folder that exists" in error


def test_a_link_and_a_pipe_stay_what_they_are(tmp_path):
    path, link, pipe, read = finished(tmp_path / "s"), tmp_path / "latest.html", tmp_path / "pipe", []
    (tmp_path / "store").mkdir()
    link.symlink_to(tmp_path / "store" / "of-today")
    write_report(path, link)
    assert link.is_symlink()
    assert "</html>" in (tmp_path / "store" / "of-today").read_text()
    assert [it.name for it in (tmp_path / "store").iterdir()] == ["of-today"]
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    assert main(["report", str(path), "-o", str(pipe)]) == 0
    reader.join()
    assert pipe.is_fifo()
    assert "</html>" in read[0]


@pytest.mark.parametrize(
    ("arguments", "said"), [([""], "DIRECTORY must name"), (["{}", "-o", ""], "-o must name a file")]
)
def test_an_empty_name_is_not_taken_for_none(tmp_path, capsys, arguments, said):
    path = finished(tmp_path / "s")
    assert main(["report", *(argument.format(path) for argument in arguments)]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_is_no_file_to_write(tmp_path, capsys):
    path = finished(tmp_path / "s")
    assert main(["report", str(path), "-o", str(tmp_path)]) == 2
    assert (
        capsys.readouterr().err
        == f"autolr report: -o must name a file in a folder that exists. Received: -o {str(tmp_path)!r}, a folder: "
        "add a name, report.html say\n"
    )
    with pytest.raises(IsADirectoryError, match=r"^Argument `path` must name a file. Received: path=.*, a folder"):
        write_report(path, tmp_path)


def test_a_port_without_a_page_to_serve_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as raised:
        main(["report", str(finished(tmp_path / "s")), "--port", "8000"])
    assert raised.value.code == 2
    error = capsys.readouterr().err
    assert "autolr report: error: --port goes with --watch, which serves the page\n" in error
    assert error.startswith("usage: autolr report ")


@pytest.mark.parametrize("port", ["70000", "a", "-1", "1e3", "", "9" * 5000])
def test_a_port_that_is_none_is_exit_code_2(port, capsys):
    with pytest.raises(SystemExit) as raised:
        main(["report", "x", "--watch", f"--port={port}"])
    assert raised.value.code == 2
    assert f"must be a whole number from 0 to 65535. Received: {port}\n" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["report"]])
def test_wrong_arguments_are_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert "usage: autolr" in capsys.readouterr().err


def test_a_search_is_named_by_its_tuner_too(tmp_path):
    path = finished(tmp_path / "s")
    tuner = SimpleNamespace(project_dir=str(path))
    assert read_search(tuner) == read_search(path)
    with pytest.raises(RecordError, match=r"^A search is given as its tuner or its folder, a path. Received: 7"):
        read_search(7)


BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"tensorflow", "keras", "keras_tuner", "jax", "torch", "tensorboard"}:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Block())
"""


def report_without_keras(path: Path, where: Path) -> Page:
    """The page that the command writes where neither Keras nor TensorFlow can be imported."""
    code = f"{BLOCK}from autolr.cli import main\nsys.exit(main(['report', {str(path)!r}, '-o', 'r.html']))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=where, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return Page((where / "r.html").read_text(encoding="utf-8"))


def test_the_command_works_without_keras_and_tensorflow(tmp_path):
    page = report_without_keras(finished(tmp_path / "s"), tmp_path)
    assert "Best val_accuracy 0.91" in page.text
    blocked = subprocess.run(
        [sys.executable, "-c", f"{BLOCK}import keras"], capture_output=True, text=True, check=False
    )
    assert "is blocked" in blocked.stderr, "the hook must do what this test leans on"


@pytest.mark.slow
def test_the_command_works_without_keras_and_tensorflow_on_what_the_example_leaves_behind(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (400, 14, 14), dtype=np.uint8)
    y = (x.mean(axis=(1, 2)) > 127).astype(np.uint8)
    np.savez(tmp_path / "tiny.npz", x_train=x, y_train=y, x_test=x[:50], y_test=y[:50])
    example = Path(__file__).parent.parent / "examples" / "mnist_search.py"
    settings = ["--data", tmp_path / "tiny.npz", "--trials", "2", "--epochs", "3", "--out", tmp_path / "out"]
    done = subprocess.run(
        [sys.executable, example, *settings], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    page = report_without_keras(tmp_path / "out", tmp_path)
    search = read_search(tmp_path / "out" / "search")
    assert search.state == "finished"
    assert not [problem for trial in search.trials for problem in trial.problems]
    for trial in search.trials:
        assert trial.record.training["steps"] == 3 * 6  # of 360 images, 64 at a time
        assert trial.values["optimizer"] == trial.record.optimizer.lower()
        assert f"Trial {trial.trial_id}" in page.text
    assert f"Best val_accuracy {number(search.best.score)}" in page.text
    assert sum(attributes.get("aria-label", "").startswith("Training as run") for _, attributes in page.tags) == 2


class Watched:
    """`autolr report --watch` as a process of its own, on a port that was free."""

    def __init__(self, path: Path, *arguments: str):
        command = [sys.executable, "-m", "autolr", "report", str(path), "--watch", "--port", "0", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.line = self.process.stdout.readline()
        self.url = re.search(r"http://127\.0\.0\.1:\d+/", self.line)[0]

    def get(self, path="", **headers) -> str:
        with urllib.request.urlopen(urllib.request.Request(self.url + path, headers=headers), timeout=20) as answer:
            return answer.read().decode()

    def end(self) -> tuple[int, str]:
        self.process.send_signal(2)
        out, err = self.process.communicate(timeout=20)
        assert "Traceback" not in err, err
        return self.process.returncode, out


@pytest.fixture
def watched(tmp_path):
    folder = Folder(tmp_path / "s")
    folder.trial("0", 0.9)
    folder.trial("1", None, status="RUNNING")
    process = Watched(folder.done(), "-o", str(tmp_path / "kept.html"))
    process.folder = folder
    yield process
    if process.process.poll() is None:
        process.end()


def until(question, seconds=20.0):
    end = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < end, "in vain"
        time.sleep(0.1)
    return answer


def test_watch_follows_the_search_and_ends_cleanly(watched, tmp_path):
    before = watched.get("version")
    assert f'data-version="{before}"' in watched.get()
    assert "trial 1 (tuner0)" in watched.get()
    watched.folder.trial("2", 0.95)
    watched.folder.done()
    until(lambda: watched.get("version") != before)
    until(lambda: "0.95" in watched.get())
    assert "0.95" in (tmp_path / "kept.html").read_text(encoding="utf-8")
    assert "data-version" not in (tmp_path / "kept.html").read_text(encoding="utf-8"), "a file asks nobody"
    code, out = watched.end()
    assert code == 0
    assert "No longer watching." in out


@pytest.mark.parametrize(("status", "changes"), [("RUNNING", True), ("COMPLETED", False)])
def test_a_watched_page_changes_by_time_alone_only_while_the_search_runs(tmp_path, monkeypatch, status, changes):
    folder = Folder(tmp_path / "s")
    folder.trial("0")
    folder.trial("1", 0.5 if status == "COMPLETED" else None, status=status)
    page = _Page(folder.done(), None)
    assert not page.refresh()
    later = time.time() + 61
    monkeypatch.setattr("autolr.cli.time.time", lambda: later)
    assert page.refresh() == changes
    folder.trial("2", 0.7)
    folder.done()
    assert page.refresh()


def test_a_search_that_was_cut_off_has_no_trial_under_way(tmp_path):
    folder = Folder(tmp_path / "s")
    folder.trial("0")
    folder.trial("1", None, status="RUNNING")
    assert "Under way: trial 1 (tuner0)" in report(folder.done()).text
    note_stop(folder.path)
    text = report(folder.path).text
    assert "Cut off: trial 1 (tuner0)" in text
    assert "Under way" not in text


def test_watch_goes_on_where_the_file_cannot_be_written(tmp_path):
    folder = Folder(tmp_path / "s")
    folder.trial("0", 0.9)
    (tmp_path / "out").mkdir()
    watched = Watched(folder.done(), "-o", str(tmp_path / "out" / "kept.html"))
    shutil.rmtree(tmp_path / "out")
    folder.trial("1", 0.95)
    folder.done()
    until(lambda: "0.95" in watched.get())
    assert "kept.html could not be written" in watched.process.stderr.readline()
    assert watched.end()[0] == 0


def test_watch_answers_this_machine_alone_and_only_what_is_there(watched):
    assert "127.0.0.1" in watched.line
    for path, headers, code in (
        ("oracle.json", {}, 404),
        ("../oracle.json", {}, 404),
        ("", {"Host": "evil.example"}, 403),
    ):
        with pytest.raises(urllib.error.HTTPError) as raised:
            watched.get(path, **headers)
        assert raised.value.code == code
        raised.value.close()
    assert "<!doctype html>" in watched.get("?again")
    shutil.rmtree(watched.folder.path)
    time.sleep(1.5)
    assert "<!doctype html>" in watched.get(), "the last page stays while the folder is away"


def test_a_port_that_is_taken_is_said(watched, capsys):
    port = watched.url.rsplit(":", 1)[1].strip("/")
    assert main(["report", str(watched.folder.path), "--watch", "--port", port]) == 2
    assert "--port 0" in capsys.readouterr().err


def test_a_reader_never_sees_half_a_page_while_the_search_writes(tmp_path):
    path = finished(tmp_path / "s", 3)
    stop = threading.Event()

    def write():
        while not stop.is_set():
            for file in (path / "oracle.json", path / "trial_001" / "trial.json"):
                text = file.read_text() or "{}"
                file.write_text(text[: len(text) // 2])
                file.write_text(text)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            assert len(read_search(path).trials) == 3
            report(path)
    finally:
        stop.set()
        writer.join()


# --- the picture of a search -----------------------------------------------------------------------------------------


@pytest.fixture
def _figures():
    yield
    pyplot.close("all")


@pytest.mark.usefixtures("_figures")
class TestPlotSearch:
    def test_best_so_far(self, tmp_path):
        path = finished(tmp_path / "s")
        ax = plot_search(path)
        best = next(line for line in ax.lines if line.get_label() == "best so far")
        scores = [trial.score for trial in read_search(path).trials]
        np.testing.assert_array_equal(best.get_ydata(), np.maximum.accumulate(scores))
        assert best.get_xdata().tolist() == [int(trial.trial_id) for trial in read_search(path).trials]
        assert ax.get_ylabel() == "val_accuracy"
        by_steps = plot_search(path, kind="steps").lines[0]
        assert by_steps.get_xdata().tolist() == [700, 1400, 2100, 2800, 3500]

    def test_steps_of_trials_without_a_score_count(self, tmp_path):
        folder = Folder(tmp_path / "s")
        folder.trial("0", 0.9)
        rewrite(folder.trial("1", None, status="FAILED", message="boom"), training=trained(steps=300))
        folder.trial("2", 0.8)
        assert plot_search(folder.done(), kind="steps").lines[0].get_xdata().tolist() == [700, 1800]

    @pytest.mark.parametrize(
        "kind", ["trials", "steps", "bounds", "cycle_length", "mult_factor", "lr_decay", "optimizer"]
    )
    def test_every_kind_draws_on_the_axes_given(self, tmp_path, kind, capsys):
        search = read_search(finished(tmp_path / "s"))
        ax = pyplot.figure().add_subplot()
        assert plot_search(search, kind=kind, ax=ax) is ax
        ax.figure.canvas.draw()
        assert len(pyplot.get_fignums()) == 1
        assert capsys.readouterr() == ("", "")

    def test_bounds_are_drawn_by_optimizer(self, tmp_path):
        ax = plot_search(finished(tmp_path / "s"), kind="bounds")
        assert sorted(int(text.get_text()) for text in ax.texts) == list(range(len(ax.texts)))  # the trials' numbers
        assert ax.texts
        assert [text.get_text() for text in ax.get_xticklabels()] == ["sgd", "adam"]
        assert ax.get_yscale() == "log"

    def test_an_optimizer_that_is_no_hyperparameter_of_that_name_is_told_from_others_too(self, tmp_path):
        path = finished(tmp_path / "s", trials=2)
        for at, name in enumerate(["SGD", "Adam"]):
            folder = path / f"trial_00{at}"
            trial = json.loads((folder / "trial.json").read_text())
            trial["hyperparameters"]["values"].pop("optimizer")
            (folder / "trial.json").write_text(json.dumps(trial))
            record = json.loads((folder / "autolr.json").read_text())
            record["values"].pop("optimizer")
            (folder / "autolr.json").write_text(json.dumps(record | {"optimizer": name}))
        labels = [text.get_text() for text in plot_search(path, kind="bounds").get_xticklabels()]
        assert labels == ["SGD", "Adam"]

    def test_long_names_under_an_axis_do_not_run_into_each_other(self, tmp_path):
        path = finished(tmp_path / "s", trials=6)
        for at in range(6):
            folder = path / f"trial_00{at}"
            for name in ("trial.json", "autolr.json"):
                content = json.loads((folder / name).read_text())
                values = content["hyperparameters"]["values"] if "hyperparameters" in content else content["values"]
                values["optimizer"] = f"a_name_of_twenty_letters_{at}"
                (folder / name).write_text(json.dumps(content))
        for kind in ("bounds", "optimizer"):
            ax = plot_search(path, kind=kind)
            ax.figure.canvas.draw()
            names = ax.get_xticklabels()
            assert len(names) == 6
            assert {text.get_rotation() for text in names} == {30.0}
        box = plot_search(path, kind="bounds")
        box.figure.canvas.draw()
        legend = box.get_legend().get_window_extent()
        assert legend.y0 >= box.get_window_extent().y1 - 1, "above the bars"

    def test_what_is_not_there_is_an_error_that_names_what_is(self, tmp_path):
        with pytest.raises(ValueError, match=r"kind='nonsense'.*units"):
            plot_search(finished(tmp_path / "s"), kind="nonsense")
        with pytest.raises(ValueError, match="none"):
            plot_search(Folder(tmp_path / "empty").done())


# --- a real search ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory, data):
    import keras

    import autolr

    def build_model(hp):
        layers = [keras.layers.Dense(hp.Choice("units", [4, 8]), activation="relu"), keras.layers.Dense(3)]
        model = keras.Sequential([keras.Input((6,)), *layers])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(hp.Choice("optimizer", ["sgd", "adam"]), loss, metrics=["accuracy"])
        return model

    x, y = data
    where = tmp_path_factory.mktemp("real")
    tuner = autolr.RandomSearch(
        build_model, objective="val_accuracy", max_trials=2, directory=where, project_name="tiny", seed=1
    )
    with warnings.catch_warnings():  # data this small may give curves that autolr warns of
        warnings.simplefilter("ignore")
        tuner.search(x, y, validation_split=0.25, epochs=2, batch_size=16, verbose=0)
    return tuner, build_model, x, y


def test_the_report_agrees_with_keras_tuner(real):
    tuner, *_ = real
    search = read_search(tuner.project_dir)
    best = tuner.oracle.get_best_trials()[0]
    assert search.best.trial_id == best.trial_id
    assert search.best.score == best.score
    assert (search.objective, search.direction) == (tuner.oracle.objective.name, tuner.oracle.objective.direction)
    assert search.state == "finished"
    assert all(trial.record is not None and not trial.problems for trial in search.trials)
    assert (
        main(["report", str(Path(tuner.project_dir).parent), "-o", str(Path(tuner.project_dir).parent / "r.html")]) == 0
    )


def test_the_code_in_the_report_trains_the_winner(real, tmp_path):
    tuner, build_model, x, y = real
    html = write_report(tuner.project_dir, tmp_path / "r.html").read_text(encoding="utf-8")
    code = "".join(Page(re.search(r'<code id="code">.*?</code>', html, re.DOTALL)[0]).words)
    part = len(x) * 3 // 4  # what the search trained on
    known = {"build_model": build_model, "x": x[:part], "y": y[:part], "batch_size": 16}
    exec(code, known)
    best = tuner.get_best_hyperparameters()[0].values
    assert {name: known["hp"].values[name] for name in best} == best
    record = read_search(tuner.project_dir).best.record
    assert known["schedule"].history["lr"] == pytest.approx(record.training["rates"]["lr"], rel=1e-5)


def test_under_gradient_accumulation_batches_are_not_called_steps(tmp_path):
    path = finished(tmp_path / "s", 1)
    schedule = json.loads((path / "trial_000" / "autolr.json").read_text())["schedule"]
    rewrite(path / "trial_000", schedule={**schedule, "batches_per_update": 4}, training=trained(steps=125))
    text = report(path).text
    assert "100 batches an epoch" in text
    assert "125 of the 150 planned steps were run" in text


def test_epochs_shorter_than_an_update_end_on_the_same_step(tmp_path):
    """Of gradient accumulation over more batches than an epoch has."""
    path = finished(tmp_path / "s", 1)
    path / "trial_000" / "autolr.json"
    epochs = [{"epoch": n, "step": (n + 1) // 2, "logs": {"loss": 1 / n}} for n in range(1, 9)]
    rewrite(path / "trial_000", training=trained(epochs=epochs))
    assert read_search(path).trials[0].record is not None
    assert "Training as run" in report(path).text


def test_a_report_into_a_folder_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"folder that exists. Received: path='.*nowhere/page.html'"):
        write_report(finished(tmp_path / "s"), tmp_path / "nowhere" / "page.html")


@pytest.mark.parametrize(("silence", "state"), [(2, "running"), (4, "interrupted")])
def test_a_search_may_be_silent_for_three_times_its_longest_trial(tmp_path, silence, state):
    folder, hour, now = Folder(tmp_path / "s"), 3600, time.time()
    folder.trial("0")
    folder.trial("1", None, status="RUNNING")
    folder.done(age=silence * hour)
    oracle = json.loads((folder.path / "oracle.json").read_text())
    begun = {"0": now - (silence + 1) * hour, "1": now - silence * hour}
    oracle["display"]["trial_start"] = {name: datetime.fromtimestamp(it).isoformat() for name, it in begun.items()}
    (folder.path / "oracle.json").write_text(json.dumps(oracle))
    os.utime(folder.path / "oracle.json", (now - silence * hour,) * 2)
    assert read_search(folder.path).state == state


@pytest.mark.parametrize("name", ["**a", "[", "a\0b"])
def test_no_name_or_moment_of_a_trial_ends_a_report(tmp_path, name):
    path = finished(tmp_path / "s")
    oracle = json.loads((path / "oracle.json").read_text())
    oracle["display"]["trial_start"] = {name: "2024-01-01T00:00:00", "0": "0001-01-01T00:00:00"}
    (path / "oracle.json").write_text(json.dumps(oracle))
    assert read_search(path).state


def test_a_training_that_is_resumed_need_not_learn(tmp_path):
    folder = Folder(tmp_path / "s")
    path = folder.trial("0", 0.1)
    schedule = json.loads((path / "autolr.json").read_text())["schedule"]
    losses = {"step": list(range(10, 610, 10)), "loss": [2.3] * 60}
    rewrite(path, training=trained(losses=losses), schedule={**schedule, "initial_epoch": 2})
    assert not read_search(folder.done()).trials[0].needs_a_look


def test_a_running_trial_may_hold_values_that_keras_tuner_has_not_written_yet(tmp_path):
    folder = Folder(tmp_path / "s")
    path = folder.trial("0", None, status="RUNNING")
    record = json.loads((path / "autolr.json").read_text())
    rewrite(path, values={**record["values"], "declared later": 1})
    trial = read_search(folder.done()).trials[0]
    assert trial.record is not None
    assert not trial.problems


def test_an_execution_whose_metric_is_no_number_does_not_hide_the_others(tmp_path):
    folder = Folder(tmp_path / "s")
    path = folder.trial("0") / "trial.json"
    state = json.loads(path.read_text())
    state["metrics"]["metrics"]["loss"]["observations"] = [
        {"value": [math.nan], "step": 0},
        {"value": [0.5], "step": 1},
    ]
    path.write_text(json.dumps(state))
    assert read_search(folder.done()).trials[0].metrics["loss"] == 0.5


def test_a_trial_that_failed_has_not_been_scored_by_another_objective(tmp_path):
    folder = Folder(tmp_path / "s")
    for name, status, objective in (("0", "COMPLETED", "val_accuracy"), ("1", "FAILED", "val_acc")):
        path = folder.trial(name, 0.9 if status == "COMPLETED" else None, status=status)
        rewrite(path, objective={"name": objective, "direction": "max"})
    assert read_search(folder.done()).problems == ()


def test_a_folder_of_somebody_elses_is_no_search_and_no_error(tmp_path, monkeypatch):
    (tmp_path / "theirs").mkdir()
    folder = finished(tmp_path / "ours", 1)
    is_file = Path.is_file

    def refused(self):
        if "theirs" in str(self):
            raise PermissionError(13, "Permission denied")
        return is_file(self)

    monkeypatch.setattr(Path, "is_file", refused)
    assert read_search(tmp_path).name == folder.name


def test_watch_answers_to_localhost_too(watched):
    assert "<!doctype html>" in watched.get("", Host="localhost:1234")


def test_a_write_to_a_trial_alone_is_seen(watched):
    before = watched.get("version")
    rewrite(watched.folder.path / "trial_0", warnings=["Something new."])
    until(lambda: "Something new." in watched.get(), seconds=8)
    assert watched.get("version") != before


def test_an_interrupted_command_has_a_shells_exit_code(tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("autolr.cli.write_report", interrupt)
    assert main(["report", str(finished(tmp_path / "s", 1))]) == 130


def test_a_guess_that_needs_a_look_is_counted_once(tmp_path):
    folder = Folder(tmp_path / "s")
    folder.trial("0", None, status="FAILED", bounds={"status": "ok", "confidence": "low"})
    overview = Overview(read_search(folder.done()))
    assert (len(overview.suspects), overview.guesses) == (1, 0)


def test_the_verdict_on_the_bounds_is_no_warning_of_a_trial_besides(tmp_path):
    path = finished(tmp_path / "s", 1)
    reason = json.loads((path / "trial_000" / "autolr.json").read_text())["bounds"]["reason"]
    rewrite(path / "trial_000", warnings=[f"Trial 000: too_noisy. {reason}", "Something else."])
    search = read_search(path)
    assert TrialView(search.trials[0], Overview(search)).warnings == ["Something else."]


def test_steps_are_counted_where_those_of_both_are_known(tmp_path):
    folder = Folder(tmp_path / "s")
    folder.trial("0")
    path = folder.trial("1")
    schedule = json.loads((path / "autolr.json").read_text())["schedule"]
    rewrite(path, schedule={**schedule, "steps_per_epoch": None, "edges": [0, 6]})
    assert Overview(read_search(folder.done())).steps == (100, 600)


def test_a_worker_in_a_long_epoch_is_alive(tmp_path):
    """It writes nothing, but touches its trial's folder."""
    folder = Folder(tmp_path / "s")
    trial = folder.trial("0", None, status="RUNNING")
    folder.done(age=24 * 3600)
    assert read_search(folder.path).state == "interrupted"
    os.utime(trial)
    assert read_search(folder.path).state == "running"
