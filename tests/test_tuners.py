"""Real searches with real Keras Tuner: one contract for every tuner, then what only some of them do."""

from __future__ import annotations

import contextlib
import io
import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import keras
import keras_tuner as kt
import numpy as np
import pytest
import tensorflow as tf
from helpers import RateSpy, compiled

import autolr
from autolr import AutoLRMixin, AutoLRWarning, RangeTest, SGDRScheduler, sgdr_lr, with_auto_lr
from autolr.records import TrialRecord
from autolr.search_folder import read_search
from autolr.trial_bounds import verdict_on
from autolr.trial_summary import summarise

SCHEDULE = ("cycle_length", "mult_factor", "lr_decay")
# Twelve steps an epoch: in Keras an epoch costs more than a step of these models.
FIT = {"epochs": 4, "batch_size": 4, "validation_split": 0.25}


def dense(units=4, cls=keras.Sequential):
    return cls(
        [
            keras.Input((6,)),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


class Late(keras.Model):
    """Has no variables until it sees data."""

    def __init__(self, layers):
        super().__init__()
        self.stack = layers[1:]

    def call(self, x):
        for layer in self.stack:
            x = layer(x)
        return x


def build(hp):
    return ready(dense(hp.Choice("units", [4, 8])))


def build_one(hp):
    hp.Fixed("units", 4)
    return ready(dense())


def ready(model, optimizer="sgd", **arguments):
    """Compiled without metrics: each costs every trial some tracing."""
    return compiled(model, optimizer, metrics=[], **arguments)


def held(**changes):
    hp = kt.HyperParameters()
    for name, value in {"cycle_length": 1, "mult_factor": 1.5, "lr_decay": 0.9, **changes}.items():
        hp.Fixed(name, value)
    return hp


class FirstComeOracle(kt.Oracle):
    """A user's own: the defaults, then the last of each choice."""

    def populate_space(self, trial_id):
        space = self.get_space().space
        values = {p.name: p.default if len(self.trials) == 0 else list(p.values)[-1] for p in space}
        return {"status": "RUNNING", "values": values}


class UsersTuner(AutoLRMixin, kt.RandomSearch):
    """A user's own, with hooks and attributes of its own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._memory, self._options, self._watch, self._helped = [], {}, None, "mine"

    def on_trial_begin(self, trial):
        self.begun = [*getattr(self, "begun", []), trial.trial_id]
        super().on_trial_begin(trial)


def small_grid():
    hp = kt.HyperParameters()
    hp.Fixed("cycle_length", 1)
    hp.Choice("mult_factor", [1.0, 2.0])
    hp.Fixed("lr_decay", 0.9)
    return hp


TUNERS = {
    # Two models and a schedule that is held: nine trials are asked for, two are possible.
    "random": lambda **where: autolr.RandomSearch(
        build, "val_loss", max_trials=9, hyperparameters=held(), seed=1, **where
    ),
    "bayesian": lambda **where: autolr.BayesianOptimization(
        build, "val_loss", max_trials=2, num_initial_points=1, seed=1, **where
    ),
    "grid": lambda **where: autolr.GridSearch(build, "val_loss", hyperparameters=small_grid(), **where),
    "hyperband": lambda **where: autolr.Hyperband(build, "val_loss", max_epochs=2, factor=2, seed=1, **where),
    "any tuner": lambda **where: with_auto_lr(kt.Tuner)(
        oracle=FirstComeOracle("val_loss", max_trials=2), hypermodel=build, **where
    ),
    "a user's subclass": lambda **where: UsersTuner(build, "val_loss", max_trials=2, seed=1, **where),
}
NUM_TRIALS = {"grid": 4, "hyperband": 5}


@dataclass
class Search:
    """A finished search: what it printed, warned of, and at which rates each of its trainings ran."""

    tuner: kt.Tuner
    printed: str
    warned: list[str]
    rates: list[list[float]]

    @property
    def trials(self):
        """In the order they ran in."""
        return [self.tuner.oracle.trials[trial_id] for trial_id in self.tuner.oracle.start_order]

    @property
    def said(self):
        return [line for line in self.printed.splitlines() if "AutoLR trial_" in line]

    def record(self, trial) -> TrialRecord:
        return TrialRecord.read(self.tuner.get_trial_dir(trial.trial_id))


def run(tuner, data, **arguments) -> Search:
    x, y = data
    spy, printed = RateSpy(), io.StringIO()
    with contextlib.redirect_stdout(printed), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tuner.search(x, y, **{**FIT, "verbose": 2, "callbacks": [spy], **arguments})
    warned = [str(warning.message) for warning in caught if issubclass(warning.category, AutoLRWarning)]
    return Search(tuner, printed.getvalue(), warned, spy.fits)


def search(tmp_path, data, hypermodel=build_one, *, hyperparameters=None, arguments=None, **options) -> Search:
    """A random search of one trial, unless told otherwise, with the schedule held."""
    hyperparameters = held() if hyperparameters is None else hyperparameters
    tuner = autolr.RandomSearch(
        hypermodel,
        **{"objective": "val_loss", "max_trials": 1, "seed": 1, **options},
        hyperparameters=hyperparameters,
        directory=tmp_path,
    )
    return run(tuner, data, **(arguments or {}))


def rates_of(schedule, bounds):
    """The rates that a recorded schedule means, in float32 as the optimizer has them."""
    per_epoch = schedule["steps_per_epoch"]
    steps = np.arange(schedule["initial_epoch"] * per_epoch, schedule["epochs"] * per_epoch)
    rates = sgdr_lr(
        steps,
        min_lr=bounds["min_lr"],
        max_lr=bounds["max_lr"],
        **{name: schedule[name] for name in SCHEDULE},
        steps_per_epoch=per_epoch,
        total_steps=schedule["epochs"] * per_epoch,
        warmup=0.1,
    )
    return rates.astype("float32").tolist()


def assert_completed(*trials):
    for trial in trials:
        assert trial.status == "COMPLETED", trial.message


# By default one that draws its trials, and one that continues them.
BY_DEFAULT = {"random", "hyperband"}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[] if name in BY_DEFAULT else [pytest.mark.slow]) for name in TUNERS],
)
def finished(request, tmp_path_factory, data):
    keras.utils.set_random_seed(1)
    where = {"directory": tmp_path_factory.mktemp("search"), "project_name": "project"}
    found = run(TUNERS[request.param](**where), data)
    found.kind, found.where = request.param, where
    return found


class TestEveryTuner:
    def test_completes_its_trials(self, finished):
        assert len(finished.trials) == NUM_TRIALS.get(finished.kind, 2)
        assert_completed(*finished.trials)

    def test_tells_what_each_trial_found_in_plain_floats(self, finished):
        for trial in finished.trials:
            values = trial.hyperparameters.values
            for name in ("autolr/min_lr", "autolr/max_lr"):
                assert type(values[name]) is float
            assert 0 < values["autolr/min_lr"] < values["autolr/max_lr"]
            stored = json.loads(Path(finished.tuner.get_trial_dir(trial.trial_id), "trial.json").read_text())
            assert stored["hyperparameters"]["values"] == values

    def test_keeps_curve_bounds_and_schedule_in_the_trials_folder(self, finished):
        for trial in finished.trials:
            record, values = finished.record(trial), trial.hyperparameters.values
            assert record.trial_id == trial.trial_id
            assert record.values == values
            assert record.bounds["min_lr"] == values["autolr/min_lr"]
            assert record.bounds["max_lr"] == values["autolr/max_lr"]
            assert {name: record.schedule[name] for name in SCHEDULE} == {name: values[name] for name in SCHEDULE}
            assert record.schedule["edges"][-1] == record.schedule["epochs"] * 12
            if record.range_test is not None:
                test = RangeTest.from_dict(record.range_test)
                assert 10 <= len(test) <= 40
                assert test.bounds().to_dict() == record.bounds

    def test_trains_each_trial_at_its_schedules_rates_and_shows_its_callbacks_no_range_test(self, finished):
        assert len(finished.rates) == len(finished.trials)
        for trial, rates in zip(finished.trials, finished.rates, strict=True):
            record = finished.record(trial)
            assert rates == rates_of(record.schedule, record.bounds)
            assert rates

    def test_warns_of_no_learning_rate_that_nobody_chose(self, finished):
        # With Hyperband, a later rung loads a rate with its parent's weights; it is not the user's.
        assert not [text for text in finished.warned if "compiled with" in text]

    def test_searches_the_schedule_too(self, finished):
        names = [parameter.name for parameter in finished.tuner.oracle.get_space().space]
        assert sorted(names) == sorted(["units", *SCHEDULE])

    def test_tests_each_model_that_begins_untrained_and_no_other(self, finished):
        for trial in finished.trials:
            parent = trial.hyperparameters.values.get("tuner/trial_id")
            record = finished.record(trial)
            assert (record.range_test is None) == bool(parent)
            assert record.source == (f"trial {parent}" if parent else "range test")

    def test_says_one_line_for_each_phase(self, finished):
        assert len(finished.said) == sum(2 if finished.record(t).range_test is None else 3 for t in finished.trials)
        for trial in finished.trials:
            mine = [line for line in finished.said if line.startswith(f"AutoLR trial_{trial.trial_id} |")]
            assert "range test" in mine[0]
            assert "schedule: " in mine[-1]
            assert ("in place of the compiled rate" in mine[-1]) == (trial is finished.trials[0])
            if finished.record(trial).range_test is not None:
                assert f"({finished.record(trial).bounds['status']}, " in mine[1]

    def test_summary_shows_bounds_and_schedule_of_every_trial(self, finished, capsys):
        finished.tuner.results_summary()
        lines = capsys.readouterr().out.splitlines()
        assert "from_hyperparameters(hp)" in lines[-1]
        for trial in finished.trials:
            values = trial.hyperparameters.values
            found = f"Trial {trial.trial_id}: {values['autolr/min_lr']:.2e} to {values['autolr/max_lr']:.2e} ("
            line = next(line for line in lines if line.startswith(found))
            assert f"{finished.record(trial).bounds['confidence']} confidence, from " in line
            cycles = len(finished.record(trial).schedule["edges"]) - 1
            assert f"schedule: {cycles} cycle" in line

    def test_best_hyperparameters_are_enough_to_train_the_winner_again(self, finished, data):
        best = finished.tuner.oracle.get_best_trials(1)[0]
        hp, spy = finished.tuner.get_best_hyperparameters()[0], RateSpy()
        schedule = finished.record(best).schedule
        finished.tuner.hypermodel.build(hp).fit(
            *data,
            **{**FIT, "epochs": schedule["epochs"], "initial_epoch": schedule["initial_epoch"]},
            callbacks=[SGDRScheduler.from_hyperparameters(hp), spy],
            verbose=0,
        )
        assert spy.fits[0] == finished.rates[finished.trials.index(best)]

    @pytest.mark.parametrize("finished", ["random", "hyperband"], indirect=True)
    def test_the_best_model_can_be_loaded(self, finished, data):
        x, y = data
        best = finished.tuner.oracle.get_best_trials(1)[0]
        model = finished.tuner.get_best_models()[0]
        assert model.evaluate(x[48:], y[48:], verbose=0) == pytest.approx(best.score, rel=1e-4)
        assert "fit" not in vars(model)

    def test_a_search_taken_up_again_shows_what_was_found(self, finished, capsys):
        again = TUNERS[finished.kind](**finished.where)
        again.results_summary()
        printed = capsys.readouterr().out
        for trial in finished.trials:
            assert f"Trial {trial.trial_id}: {trial.hyperparameters.values['autolr/min_lr']:.2e} to " in printed


@pytest.mark.parametrize("finished", ["a user's subclass"], indirect=True)
def test_a_users_own_hooks_still_run(finished):
    assert finished.tuner.begun == [trial.trial_id for trial in finished.trials]


@pytest.mark.parametrize("finished", ["hyperband"], indirect=True)
def test_later_rungs_of_hyperband_go_on_with_bounds_and_schedule_of_their_parents(finished):
    later = [trial for trial in finished.trials if "tuner/trial_id" in trial.hyperparameters.values]
    assert later
    for trial in later:
        values, record = trial.hyperparameters.values, finished.record(trial)
        parent = finished.tuner.oracle.trials[values["tuner/trial_id"]]
        for name in ("autolr/min_lr", "autolr/max_lr"):
            assert values[name] == parent.hyperparameters.values[name]
        assert record.bounds == finished.record(parent).bounds
        assert record.source == f"trial {parent.trial_id}"
        assert record.schedule["initial_epoch"] == values["tuner/initial_epoch"] == 1
        assert record.schedule["epochs"] == values["tuner/epochs"] == 2
        # The schedule is laid over both epochs, and the trial trains the second.
        assert len(finished.rates[finished.trials.index(trial)]) == 12


class LosesRecords(autolr.Hyperband):
    """Of the trials that found their bounds."""

    def on_trial_end(self, trial):
        super().on_trial_end(trial)
        if not trial.hyperparameters.values.get("tuner/trial_id"):
            (Path(self.get_trial_dir(trial.trial_id)) / "autolr.json").unlink()


@pytest.mark.slow
def test_a_parent_without_a_record_hands_on_its_rates_but_no_verdict(tmp_path, data):
    tuner = LosesRecords(build, "val_loss", max_epochs=2, factor=2, seed=1, directory=tmp_path)
    found = run(tuner, data)
    later = [trial for trial in found.trials if "tuner/trial_id" in trial.hyperparameters.values]
    assert later
    for trial in later:
        bounds, values = found.record(trial).bounds, trial.hyperparameters.values
        assert (bounds["status"], bounds["confidence"]) == ("unknown", "low")
        assert (bounds["min_lr"], bounds["max_lr"]) == (values["autolr/min_lr"], values["autolr/max_lr"])


@pytest.mark.parametrize("finished", ["random"], indirect=True)
def test_a_space_of_two_points_ends_after_two_trials_when_the_schedule_is_held(finished):
    assert sorted(trial.hyperparameters.values["units"] for trial in finished.trials) == [4, 8]
    held_fixed = [p for p in finished.tuner.oracle.get_space().space if p.name in SCHEDULE]
    assert [type(p).__name__ for p in held_fixed] == ["Fixed"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("finished", ["grid"], indirect=True)
def test_a_grid_is_visited_once_and_no_bounds_are_handed_on(finished):
    values = [trial.hyperparameters.values for trial in finished.trials]
    assert sorted((v["units"], v["mult_factor"]) for v in values) == [(4, 1.0), (4, 2.0), (8, 1.0), (8, 2.0)]
    assert len({v["autolr/min_lr"] for v in values}) > 1


def test_a_range_declared_in_the_build_function_is_used(tmp_path, data):
    def build_with_cycles(hp):
        hp.Int("cycle_length", 2, 3)
        return build_one(hp)

    found = search(tmp_path, data, build_with_cycles, hyperparameters=kt.HyperParameters(), max_trials=1)
    declared = {p.name: p for p in found.tuner.oracle.get_space().space}
    assert isinstance(declared["cycle_length"], kt.engine.hyperparameters.Int)
    assert (declared["cycle_length"].min_value, declared["cycle_length"].max_value) == (2, 3)
    assert found.record(found.trials[0]).schedule["cycle_length"] in (2, 3)
    assert set(declared) == {"units", *SCHEDULE}


@pytest.mark.slow
def test_a_range_declared_under_a_condition_is_warned_of(tmp_path, data):
    def build_with_restarts(hp):
        if hp.Choice("restarts", [False, True]):
            with hp.conditional_scope("restarts", [True]):
                hp.Int("cycle_length", 1, 3)
        return build_one(hp)

    hp = kt.HyperParameters()
    hp.Choice("restarts", [False, True])
    hp.Fixed("mult_factor", 1.0)
    hp.Fixed("lr_decay", 1.0)
    found = search(tmp_path, data, build_with_restarts, hyperparameters=hp, max_trials=4)
    assert {trial.hyperparameters.values["restarts"] for trial in found.trials} == {False, True}
    assert len([text for text in found.warned if "Declared under a condition: `cycle_length`" in text]) == 1


def test_a_range_declared_in_hyperparameters_is_used(tmp_path, data):
    hp = held(lr_decay=0.5)
    found = search(tmp_path, data, hyperparameters=hp)
    record = found.record(found.trials[0])
    assert record.schedule["lr_decay"] == 0.5
    assert found.rates[0][record.schedule["edges"][1]] == np.float32(
        max(record.bounds["min_lr"], 0.5 * record.bounds["max_lr"])
    )


def test_a_rate_compiled_in_is_replaced_and_told_once(tmp_path, data):
    def build_with_rate(hp):
        return ready(dense(), keras.optimizers.SGD(hp.Choice("rate", [0.0625, 0.03125]), momentum=0.8))

    found = search(tmp_path, data, build_with_rate, max_trials=2)
    assert_completed(*found.trials)
    assert len({trial.hyperparameters.values["rate"] for trial in found.trials}) == 2
    told = [text for text in found.warned if "compiled with" in text]
    assert len(told) == 1
    assert "is not used" in told[0]
    noted = [[text for text in found.record(trial).warnings if "compiled with" in text] for trial in found.trials]
    assert noted[0] == noted[1]  # the same words whatever the rate, so a report says them once
    assert len(noted[0]) == 1
    for trial, rates in zip(found.trials, found.rates, strict=True):
        record = found.record(trial)
        assert rates == rates_of(record.schedule, record.bounds)
        assert not {np.float32(0.0625), np.float32(0.03125)} & set(rates)


def test_a_schedule_compiled_in_is_replaced_and_told_of(tmp_path, data):
    def build_with_schedule(hp):
        return ready(dense(), keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.0625, 9), momentum=0.8))

    found = search(tmp_path, data, build_with_schedule)
    assert_completed(*found.trials)
    assert len([text for text in found.warned if "schedule that the model is compiled with" in text]) == 1
    record = found.record(found.trials[0])
    assert found.rates[0] == rates_of(record.schedule, record.bounds)
    assert record.source == "range test"
    assert len(record.range_test["lrs"]) >= 10


def test_a_quiet_search_says_nothing(tmp_path, data):
    found = search(tmp_path, data, arguments={"verbose": 0})
    assert_completed(*found.trials)
    assert not found.said


@pytest.mark.slow
def test_a_model_kept_from_a_search_is_its_users_own_again(tmp_path, data):
    """One model for all trials: neither a later trial nor a later `fit` may reach into a trial that has ended."""
    kept = dense()

    def build_shared(hp):
        hp.Choice("unused", [1, 2])
        return ready(kept)

    found = search(tmp_path, data, build_shared, max_trials=2)
    assert_completed(*found.trials)
    assert [found.record(trial).training["fits"] for trial in found.trials] == [1, 1]
    assert [len(rates) for rates in found.rates] == [48, 48]
    assert "fit" not in vars(kept)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert "learning_rate" not in kept.fit(*data, epochs=2, verbose=0).history
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == files


class NoLoss(keras.Sequential):
    """Reports no loss in training."""

    def train_step(self, data):
        super().train_step(data)
        return {"something": 1.0}


def test_a_trial_whose_range_test_fails_trains_at_the_default_rate(tmp_path, data, capsys):
    found = search(tmp_path, data, lambda hp: ready(dense(cls=NoLoss)))
    (trial,) = found.trials
    assert_completed(trial)
    assert len(found.warned) == 1
    assert "The bounds are the optimizer's usual rate and a 25th of it" in found.warned[0]
    record = found.record(trial)
    assert record.bounds["status"] == "failed"
    assert record.range_test is None
    assert record.bounds["max_lr"] == pytest.approx(0.01)  # SGD's
    assert found.rates[0] == rates_of(record.schedule, record.bounds)
    found.tuner.results_summary()
    assert "failed" in capsys.readouterr().out


class OnlyEager(keras.Model):
    """Cannot be built symbolically, and trains well eagerly."""

    def __init__(self):
        super().__init__()
        self.top = keras.layers.Dense(3, activation="softmax")

    def call(self, x):
        return self.top(x if float(keras.ops.convert_to_numpy(x).mean()) > -9 else -x)


def test_a_model_that_cannot_be_built_beforehand_still_trains(tmp_path, data):
    # Building it is part of what may fail in a range test, and must not fail the trial.
    found = search(tmp_path, data, lambda hp: ready(OnlyEager(), run_eagerly=True))
    assert_completed(*found.trials)
    assert found.warned


def test_a_record_that_cannot_be_written_is_told_of_and_the_trial_goes_on(tmp_path, data, monkeypatch, capsys):
    def fail(self, folder):
        raise OSError("read-only file system")

    monkeypatch.setattr(TrialRecord, "write", fail)
    found = search(tmp_path, data)
    assert_completed(*found.trials)
    assert any("read-only file system" in text for text in found.warned)
    assert "autolr/min_lr" in found.trials[0].hyperparameters.values
    found.tuner.results_summary()  # and does without
    assert "does not exist" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "epochs", "most"),
    [
        ({}, 4, 40),  # a tenth of 48 steps would be four: the least there is
        ({"range_test_share": 0.9}, 5, 54),
        ({"range_test_share": 0.2, "range_test_min_steps": 10}, 5, 12),
        pytest.param({"range_test_share": 0.9, "range_test_steps": 10}, 1, 10, marks=pytest.mark.slow),
    ],
)
def test_a_range_test_takes_no_more_than_its_share(tmp_path, data, options, epochs, most):
    found = search(tmp_path, data, arguments={"epochs": epochs}, **options)
    assert_completed(*found.trials)
    assert f"up to {most} steps" in found.said[0]
    test = found.record(found.trials[0]).range_test
    assert test["steps_spent"] <= most
    assert len(test["lrs"]) >= min(10, most)


def test_executions_of_a_trial_share_one_range_test(tmp_path, data):
    found = search(tmp_path, data, executions_per_trial=2)
    assert_completed(*found.trials)
    assert len([line for line in found.said if "range test: " in line]) == 1
    assert len(found.rates) == 2
    assert found.rates[0] == found.rates[1]
    assert [line.endswith(" (training 2 of the trial)") for line in found.said if "schedule: " in line] == [False, True]
    record = found.record(found.trials[0])
    assert record.training["fits"] == 2
    assert record.steps_tested == record.range_test["steps_spent"]


@pytest.mark.parametrize(
    "cls", [pytest.param(keras.Sequential, id="built", marks=pytest.mark.slow), pytest.param(Late, id="unbuilt")]
)
def test_the_range_test_takes_no_batch_of_a_generator_away(tmp_path, data, cls):
    # Keras takes a generator for data, but no other iterator: what is put back must be one.
    x, y = data

    def batches():  # as many as the training needs
        for number in range(60):
            yield x[number % 60 : number % 60 + 4], y[number % 60 : number % 60 + 4]

    tuner = autolr.RandomSearch(
        lambda hp: ready(dense(cls=cls)),
        "val_loss",
        max_trials=1,
        hyperparameters=held(),
        directory=tmp_path,
    )
    spy = RateSpy()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*ran out of data")
        tuner.search(batches(), steps_per_epoch=6, epochs=10, validation_data=data, callbacks=[spy], verbose=0)
    found = Search(tuner, "", [], spy.fits)
    assert_completed(*found.trials)
    record = found.record(found.trials[0])
    assert record.source == "range test"
    assert len(record.range_test["lrs"]) >= 10
    assert found.rates[0] == rates_of(record.schedule, record.bounds)
    assert len(found.rates[0]) == 60


@pytest.mark.slow
def test_the_trials_of_a_search_train_on_a_generator_one_after_another(tmp_path, data):
    x, y = data
    seen = []

    class Seen(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(int(self.model.latest))

    class Noting(keras.Sequential):  # which batch it trains on is in the data
        latest = None

        def train_step(self, batch):
            inputs, targets, number = batch
            if self.latest is None:
                self.latest = keras.Variable(-1, trainable=False, dtype="int32")
            self.latest.assign(keras.ops.cast(number[0], "int32"))
            return super().train_step((inputs, targets))

    def batches():  # enough for what the trials train on and what is read ahead for them, not for as many range tests
        for number in range(60):
            yield x[:4], y[:4], np.full(4, number)

    def build(hp):
        model = Noting([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")])
        return ready(model, run_eagerly=True)

    tuner = autolr.RandomSearch(build, "val_loss", max_trials=3, hyperparameters=two_or_more(), directory=tmp_path)
    tuner.search(batches(), steps_per_epoch=6, epochs=1, validation_data=data, callbacks=[Seen()], verbose=0)
    assert_completed(*tuner.oracle.trials.values())
    assert len(tuner.oracle.trials) == 3
    assert len(seen) == 18
    assert seen == sorted(set(seen))  # each batch once, and in order
    assert max(seen) < 30


def two_or_more():
    hp = held()
    hp.Choice("units", [2, 4, 8])
    return hp


@pytest.mark.parametrize(
    ("units", "decays", "said"),
    [
        ([2, 4], [0.8, 0.9, 1.0], "4 of 6 trials had the model of an earlier one"),
        ([2], [0.8, 0.9, 1.0], ""),
        ([2, 4], [0.9], ""),
    ],
    ids=["few models", "one model", "held"],
)
def test_a_search_that_would_have_ended_with_its_few_models_says_so(tmp_path, data, units, decays, said):
    hp = kt.HyperParameters()
    hp.Fixed("cycle_length", 1)
    hp.Fixed("mult_factor", 1.0)
    hp.Choice("lr_decay", decays)

    class Untrained(kt.HyperModel):
        def build(self, hp):
            return ready(dense(hp.Choice("units", units)))

        def fit(self, hp, model, *args, **kwargs):
            return 1.0

    found = search(tmp_path, data, Untrained(), objective=None, hyperparameters=hp, max_trials=6)
    lines = [line for line in found.printed.splitlines() if "had the model of an earlier one" in line]
    assert len(lines) == bool(said)
    if said:
        assert said in lines[0]
        assert "`hp.Fixed`" in lines[0]


class OwnLoop(kt.HyperModel):
    def build(self, hp):
        return build_one(hp)

    def fit(self, hp, model, x, y, **kwargs):
        return float(model.train_on_batch(x, y))


def test_trials_that_train_without_fit_are_told_of_once_and_all_counted(tmp_path, data):
    found = search(tmp_path, data, OwnLoop(), objective=None, hyperparameters=two_or_more(), max_trials=3)
    assert_completed(*found.trials)
    (said,) = [text for text in found.warned if "`fit` was not called" in text]
    assert "the rate is what your code says" in said
    names = ", ".join(trial.trial_id for trial in found.trials)
    assert f"3 trials trained without AutoLR, for a reason given above: trials {names}." in found.printed


def test_of_a_trial_whose_training_fails_the_range_test_is_not_blamed(tmp_path, data, capsys):
    def build_wrong(hp):
        model = build_one(hp)
        model.compile("sgd", "categorical_crossentropy")  # of labels that are numbers
        return model

    found = search(tmp_path, data, build_wrong)
    assert [trial.status for trial in found.trials] == ["FAILED"]
    assert "rate's fault" not in found.printed
    assert "range tests" not in found.printed
    found.trials[0].hyperparameters.values.clear()
    assert summarise(found.trials[0], tmp_path / "none") == "failed, no bounds recorded"


class OwnFit(kt.HyperModel):
    def build(self, hp):
        return build_one(hp)

    def fit(self, hp, model, *args, **kwargs):
        return model.fit(*args, **{**kwargs, "batch_size": hp.Choice("batch_size", [8]), "epochs": 3})


def test_arguments_chosen_by_a_hypermodels_fit_are_those_planned_with(tmp_path, data):
    found = search(tmp_path, data, OwnFit())
    (trial,) = found.trials
    assert_completed(trial)
    record = found.record(trial)
    assert (record.schedule["steps_per_epoch"], record.schedule["epochs"]) == (6, 3)
    assert found.rates[0] == rates_of(record.schedule, record.bounds)


class TwoFits(kt.HyperModel):
    """Trains on one loss, then on another that is a hundred thousand times as large."""

    def build(self, hp):
        return build_one(hp)

    def fit(self, hp, model, *args, **kwargs):
        model.fit(*args, **{**kwargs, "epochs": 2, "batch_size": 8})
        model.compile("sgd", "sparse_categorical_crossentropy", loss_weights=[1e5])
        return model.fit(*args, **{**kwargs, "epochs": 3, "batch_size": 16})


def test_another_loss_has_bounds_of_its_own_and_the_record_is_of_the_last_training(tmp_path, data):
    found = search(tmp_path, data, TwoFits())
    (trial,) = found.trials
    assert_completed(trial)
    record = found.record(trial)
    assert (record.schedule["steps_per_epoch"], record.schedule["epochs"]) == (3, 3)
    assert record.bounds["max_lr"] == trial.hyperparameters.values["autolr/max_lr"]
    assert [text for text in found.said if "in place of the compiled rate" in text] == [found.said[2]]
    assert len([line for line in found.said if "range test: " in line]) == 2
    first, second = found.rates
    assert max(second) < max(first) / 30
    assert second == rates_of(record.schedule, record.bounds)
    assert (record.training["fits"], record.training["steps"], record.training["steps_of_all"]) == (2, 9, 2 * 6 + 9)
    spent = [int(re.search(r"(\d+) steps\)", text)[1]) for text in found.said if "bounds: " in text]
    assert len(spent) == 2
    assert read_search(found.tuner.project_dir).trials[0].steps_tested == sum(spent)


def test_further_executions_train_each_phase_on_its_own_bounds(tmp_path, data):
    found = search(tmp_path, data, TwoFits(), executions_per_trial=2)
    assert_completed(*found.trials)
    assert len([line for line in found.said if "range test: " in line]) == 2
    assert found.rates[2:] == found.rates[:2]


def test_stopping_at_the_ends_of_cycles_is_left_out_where_there_are_none(tmp_path, data):
    callbacks = [keras.callbacks.ReduceLROnPlateau(), autolr.CycleEarlyStopping()]
    found = search(tmp_path, data, arguments={"callbacks": callbacks}, rate_callbacks="keep")
    assert_completed(*found.trials)
    assert any("no cycles for `CycleEarlyStopping`" in text for text in found.warned)


def test_nan_in_the_data_is_told_of_once_and_kept_in_every_record(tmp_path, data):
    x, y = data[0].copy(), data[1]
    x[0, 0] = np.nan
    found = search(tmp_path, (x, y), hyperparameters=two_or_more(), max_trials=2)
    assert sum("hold NaN, in `x`" in text for text in found.warned) == 1
    assert all(any("hold NaN" in text for text in found.record(trial).warnings) for trial in found.trials)


def test_a_warning_of_keras_is_shown_once_as_without_autolr(tmp_path, data):
    """As it is by default: once for each place in the code."""
    batches = tf.data.Dataset.from_tensor_slices(data).batch(4)

    def times_shown(train):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            train(batches, shuffle=True, epochs=2, verbose=0)
        return len([it for it in caught if "`shuffle=True` was passed" in str(it.message)])

    if not times_shown(ready(dense()).fit):
        pytest.skip("this Keras does not warn of it")
    tuner = autolr.RandomSearch(build, "loss", max_trials=2, hyperparameters=two_or_more(), directory=tmp_path)
    assert times_shown(tuner.search) == 1
    assert_completed(*tuner.oracle.trials.values())


def test_a_model_that_is_not_compiled_gets_keras_own_message(tmp_path, data):
    tuner = autolr.RandomSearch(
        lambda hp: dense(), "val_loss", max_trials=1, max_consecutive_failed_trials=1, directory=tmp_path
    )
    with pytest.raises(RuntimeError, match=r"compile\(\)"):
        tuner.search(*data, validation_data=data, verbose=0)


def test_a_schedule_that_cannot_be_costs_no_range_test_and_leaves_no_bounds(tmp_path, data):
    class Meddling(OwnFit):
        def fit(self, hp, model, *args, **kwargs):
            hp.values["cycle_length"] = 2.5
            return super().fit(hp, model, *args, **kwargs)

    found = search(tmp_path, data, Meddling())
    assert_completed(*found.trials)
    assert any("could not be prepared (ValueError: Argument `cycle_length` must" in text for text in found.warned)
    assert not any(name.startswith("autolr/") for name in found.trials[0].hyperparameters.values)
    assert not list(tmp_path.rglob("autolr.json"))


def test_each_kind_of_error_that_keeps_a_trial_from_autolr_is_told_of_and_all_are_counted(tmp_path, data, monkeypatch):
    errors = iter([ValueError("one"), KeyError("two"), ValueError("three")])

    def fail(*args, **kwargs):
        raise next(errors)

    monkeypatch.setattr("autolr.trial.plan", fail)
    found = search(tmp_path, data, hyperparameters=two_or_more(), max_trials=3)
    assert_completed(*found.trials)
    told = [text for text in found.warned if "could not be prepared" in text]
    assert ["ValueError: one" in told[0], "KeyError" in told[1], len(told)] == [True, True, 2]
    names = ", ".join(trial.trial_id for trial in found.trials)
    assert f"3 trials trained without AutoLR, for a reason given above: trials {names}." in found.printed


def test_the_record_of_a_training_that_was_cut_off_goes_when_another_begins(tmp_path, data):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    def tuner(**options):
        return autolr.RandomSearch(
            build_one, "val_loss", max_trials=1, hyperparameters=held(), directory=tmp_path, **options
        )

    arguments = {"validation_data": data, "epochs": 2, "verbose": 0}
    with pytest.raises(KeyboardInterrupt):
        tuner().search(*data, callbacks=[Stop()], **arguments)
    assert len(list(tmp_path.rglob("autolr.json"))) == 1
    alone = tuner(rate_callbacks="keep")
    alone.search(*data, callbacks=[keras.callbacks.LearningRateScheduler(lambda epoch: 0.1)], **arguments)
    assert_completed(*alone.oracle.trials.values())
    assert not list(tmp_path.rglob("autolr.json")), "it trained without"


def test_a_remote_folder_is_left_to_keras_tuner(data):
    tuner = autolr.RandomSearch(
        build_one, "val_loss", max_trials=1, hyperparameters=held(), directory="ram://searches", project_name="remote"
    )
    with pytest.warns(AutoLRWarning, match="could not be written .*no local folder"):
        tuner.search(*data, validation_data=data, epochs=2, verbose=0)
    assert_completed(*tuner.oracle.trials.values())
    assert not Path("ram:").exists()


def test_a_range_in_whole_steps_holds_schedules(tmp_path):
    hp = kt.HyperParameters()
    hp.Float("cycle_length", 1, 4.5, step=1)
    hp.Float("lr_decay", 0.5, 1.02, step=0.1)  # 1.0 is the last value drawn
    autolr.RandomSearch(build_one, "val_loss", max_trials=1, hyperparameters=hp, directory=tmp_path)


@pytest.mark.parametrize(
    ("declare", "name"),
    [
        (lambda hp: hp.Float("cycle_length", 1, 4), "cycle_length"),
        (lambda hp: hp.Fixed("cycle_length", 1.5), "cycle_length"),
        (lambda hp: hp.Int("cycle_length", 0, 4), "cycle_length"),
        (lambda hp: hp.Choice("mult_factor", [0.5, 1.0]), "mult_factor"),
        (lambda hp: hp.Float("lr_decay", 0.5, 1.5), "lr_decay"),
        (lambda hp: hp.Float("lr_decay", 0.0, 1.0), "lr_decay"),  # no inner value is at fault, but its ends
        (lambda hp: hp.Float("lr_decay", 0.5, 1.02), "lr_decay"),
        (lambda hp: hp.Float("cycle_length", 1, 4, step=0.5), "cycle_length"),
        (lambda hp: hp.Fixed("lr_decay", "much"), "lr_decay"),
    ],
)
def test_ranges_that_hold_no_schedule_are_refused_at_once(tmp_path, declare, name):
    hp = kt.HyperParameters()
    declare(hp)
    with pytest.raises(ValueError, match=f"^Hyperparameter `{name}` must .*Received.*Declared: "):
        autolr.RandomSearch(build_one, "val_loss", max_trials=1, hyperparameters=hp, directory=tmp_path)


@pytest.mark.parametrize(("low", "high", "told"), [(1e-6, 1e-3, 1), (0.1, 0.9, 0)])
def test_another_decay_that_is_taken_for_the_schedules_is_told_of(tmp_path, low, high, told):
    def build(hp):
        hp.Float("lr_decay", low, high, sampling="log")
        return build_one(hp)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        autolr.RandomSearch(build, "val_loss", max_trials=1, directory=tmp_path)
    texts = [str(it.message) for it in caught if issubclass(it.category, AutoLRWarning)]
    assert len(texts) == told
    assert all("taken for the schedule's" in text and "Received: Float(name: 'lr_decay'" in text for text in texts)


class OtherFit(keras.Sequential):
    def fit(self, x, y, patience_of_mine=3, **arguments):
        return super().fit(x, y, **arguments)


class OtherNames(keras.Sequential):
    def fit(self, data, targets=None, **arguments):
        return super().fit(data, targets, **arguments)


def test_a_fit_with_other_names_for_data_and_targets_is_called_as_its_user_calls_it(tmp_path, data):
    found = search(tmp_path, data, lambda hp: ready(dense(cls=OtherNames)))
    (trial,) = found.trials
    assert_completed(trial)
    record = found.record(trial)
    assert record.source == "range test"
    assert found.rates[0] == rates_of(record.schedule, record.bounds)


class CallsOtherFit(kt.HyperModel):
    def build(self, hp):
        return ready(dense(cls=OtherFit), keras.optimizers.Adam(0.02))

    def fit(self, hp, model, *args, **kwargs):
        return model.fit(*args, patience_of_mine=2, **kwargs)


def test_a_fit_with_arguments_of_its_own_trains_unassisted_and_says_so(tmp_path, data, capsys):
    found = search(tmp_path, data, CallsOtherFit())
    assert_completed(*found.trials)
    assert any("trains without AutoLR" in text for text in found.warned)
    assert set(found.rates[0]) == {float(np.float32(0.02))}
    found.tuner.results_summary()
    assert f"Trial {found.trials[0].trial_id}: no bounds recorded" in capsys.readouterr().out


def test_a_space_that_may_not_grow_is_left_alone_and_the_winner_can_be_trained_again(tmp_path, data):
    # A trial without the three trains on one cycle; the scheduler's own defaults are others.
    hp = kt.HyperParameters()
    hp.Fixed("units", 4)
    found = search(tmp_path, data, hyperparameters=hp, allow_new_entries=False)
    (trial,) = found.trials
    assert_completed(trial)
    assert [p.name for p in found.tuner.oracle.get_space().space] == ["units"]
    again = SGDRScheduler.from_hyperparameters(found.tuner.get_best_hyperparameters()[0])
    trained = found.record(trial).schedule
    assert {name: getattr(again.schedule, name) for name in SCHEDULE} == {name: trained[name] for name in SCHEDULE}


def test_with_auto_lr_makes_a_class_of_the_same_name_once():
    tuner_class = with_auto_lr(kt.RandomSearch)
    assert tuner_class.__name__ == "RandomSearch"
    assert issubclass(tuner_class, AutoLRMixin)
    assert issubclass(tuner_class, kt.RandomSearch)
    assert with_auto_lr(tuner_class) is tuner_class
    assert with_auto_lr(autolr.Hyperband) is autolr.Hyperband


def test_the_mixin_behind_the_tuner_is_refused():
    with pytest.raises(TypeError, match=r"^`AutoLRMixin` must come before .*Received: RandomSearch, AutoLRMixin"):
        type("Late", (kt.RandomSearch, AutoLRMixin), {})


@pytest.mark.parametrize("tuner_class", [autolr.RandomSearch, autolr.Hyperband, UsersTuner])
def test_a_search_without_a_model_is_refused_at_once(tmp_path, tuner_class):
    with pytest.raises(ValueError, match=r"^Argument `hypermodel` must .*Received: hypermodel=None"):
        tuner_class(None, "loss", directory=tmp_path)


@pytest.mark.parametrize("in_front", [True, False])
def test_a_tuner_that_runs_its_trials_itself_needs_no_model(tmp_path, data, in_front):
    class Runs(kt.RandomSearch):
        def run_trial(self, trial, *args, **kwargs):
            return trial.hyperparameters.Float("x", -1.0, 1.0) ** 2

    tuner_class = type("Both", (AutoLRMixin, Runs), {"run_trial": Runs.run_trial} if in_front else {})
    tuner = tuner_class(objective=kt.Objective("default_objective", "min"), max_trials=2, directory=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AutoLRWarning)
        tuner.search(verbose=0)
    assert_completed(*tuner.oracle.trials.values())


@pytest.mark.parametrize("wrong", [kt.HyperModel, "RandomSearch", None, kt.Oracle])
def test_with_auto_lr_takes_tuner_classes_only(wrong):
    with pytest.raises(TypeError, match=r"^Argument `tuner_class` must .*Received: tuner_class="):
        with_auto_lr(wrong)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("range_test_share", 0),
        ("range_test_share", 1.5),
        ("range_test_steps", 1),
        ("range_test_min_steps", 1),
        ("range_test_steps", float("nan")),
        ("range_test_share", "a"),
        ("range_test_steps", None),
        ("range_test_min_steps", "a"),
        ("num_snapshots", "a"),
        ("reuse_bounds", "no"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, argument, value):
    with pytest.raises(ValueError, match=rf"^Argument `{argument}` must .*Received: {argument}="):
        autolr.RandomSearch(build, "val_loss", max_trials=1, directory=tmp_path, **{argument: value})
    assert not list(tmp_path.iterdir())


def test_weights_of_classes_may_have_numpys_labels(tmp_path, data):
    """As scikit-learn's `compute_class_weight` is commonly used."""
    tuner = autolr.RandomSearch(build, "val_loss", max_trials=1, directory=tmp_path)
    weights = dict(zip(np.unique(data[1]), [1.0, 2.0, 3.0], strict=True))
    tuner.search(*data, validation_data=data, epochs=4, batch_size=12, verbose=0, class_weight=weights)
    assert TrialRecord.read(tuner.get_trial_dir("0")).source == "range test"


def test_a_trial_that_cannot_be_prepared_to_the_end_trains_as_it_is_compiled(tmp_path, data, monkeypatch):
    def fail(planned):
        raise RuntimeError("boom")

    monkeypatch.setattr("autolr.trial.describe", fail)
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.9)
    found = search(tmp_path, data, lambda hp: ready(dense(), keras.optimizers.SGD(schedule)))
    assert_completed(*found.trials)
    assert any("could not be prepared" in text for text in found.warned)
    np.testing.assert_allclose(found.rates[0], 0.5 * 0.9 ** np.arange(1, 1 + len(found.rates[0])), rtol=1e-4)
    assert "autolr/min_lr" not in found.trials[0].hyperparameters.values


class ThenByItself(kt.HyperModel):
    def build(self, hp):
        hp.Fixed("units", 4)
        return ready(dense())

    def fit(self, hp, model, *args, callbacks=(), **kwargs):
        model.fit(*args, callbacks=list(callbacks), **kwargs)
        return model.fit(
            *args, callbacks=[*callbacks, keras.callbacks.LearningRateScheduler(lambda epoch: 1e-3)], **kwargs
        )


def test_what_was_found_stays_where_a_later_training_sets_its_own_rate(tmp_path, data):
    found = search(tmp_path, data, ThenByItself(), rate_callbacks="keep")
    assert_completed(*found.trials)
    assert "autolr/min_lr" in found.trials[0].hyperparameters.values
    assert found.record(found.trials[0]).training["steps"] == 48


def test_a_range_test_that_failed_is_counted_in_the_end(tmp_path, data):
    found = search(tmp_path, data, lambda hp: ready(dense(cls=NoLoss)))
    assert "1 of 1 range tests found no bounds beyond doubt" in found.printed


def test_a_record_of_other_bounds_is_no_verdict_on_these(tmp_path, data):
    found = search(tmp_path, data)
    record = found.record(found.trials[0])
    low, high = record.bounds["min_lr"], record.bounds["max_lr"]
    assert verdict_on(low, high, record).status == record.bounds["status"]
    assert verdict_on(low, 2 * high, record).status == "unknown"


def test_only_bounds_beyond_doubt_are_shared(tmp_path, data):
    def build(hp):
        return ready(dense(cls=NoLoss))

    hp = small_grid()
    found = search(tmp_path, data, build, hyperparameters=hp, reuse_bounds=True, max_trials=2)
    assert [found.record(trial).source for trial in found.trials] == ["fallback", "fallback"]


def test_a_trial_keeps_as_many_snapshots_as_wanted(tmp_path, data):
    found = search(tmp_path, data, num_snapshots=1)  # of two
    assert found.rates
    assert [path.name[:10] for path in tmp_path.rglob("cycle-*")] == ["cycle-0002"]


def test_a_summary_shows_as_many_trials_as_wanted_and_that_none_was_cut_short(tmp_path, data, capsys):
    found = search(tmp_path, data, build, max_trials=2)
    found.tuner.results_summary(1)
    out = capsys.readouterr().out
    assert "Showing 1 best trials" in out
    assert "ended after epoch" not in out


class TakesNoCallbacks(keras.Sequential):
    def fit(self, x, y, epochs=1, batch_size=32):
        return super().fit(x, y, epochs=epochs, batch_size=batch_size, verbose=0)


class FitsWithout(kt.HyperModel):
    def build(self, hp):
        hp.Fixed("units", 4)
        return ready(dense(cls=TakesNoCallbacks))

    def fit(self, hp, model, x, y, **arguments):
        return model.fit(x, y)


class Interrupts(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise KeyboardInterrupt


def test_the_record_of_a_training_that_was_cut_off_goes_also_where_autolr_cannot_help(tmp_path, data):
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, data, arguments={"callbacks": [Interrupts()]})
    assert len(list(tmp_path.rglob("autolr.json"))) == 1
    search(tmp_path, data, FitsWithout())
    assert not list(tmp_path.rglob("autolr.json")), "it trained without"


class Notes(autolr.RandomSearch):
    def on_epoch_end(self, trial, model, epoch, logs=None):
        self.oracle.update_trial(trial.trial_id, {"zeal": 1.0 + epoch})


def test_an_objective_that_a_tuner_notes_by_itself_is_taken(tmp_path, data):
    tuner = Notes(lambda hp: ready(dense()), kt.Objective("zeal", "max"), max_trials=1, directory=tmp_path)
    tuner.search(*data, epochs=2, verbose=0)
    assert_completed(*tuner.oracle.trials.values())


def test_ctrl_c_is_no_error(tmp_path, data):
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, data, arguments={"callbacks": [Interrupts()]})
    (folder,) = {path.parent for path in tmp_path.rglob("oracle.json")}
    found = read_search(folder)
    assert (found.state, found.problems) == ("interrupted", ())
