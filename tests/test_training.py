"""What a trial records of its training: the truth, about 300 points of it, at no cost to speak of."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace

import keras
import keras_tuner as kt
import numpy as np
import pytest
import tensorflow as tf
from helpers import RateSpy, one_weight

import autolr
from autolr.budget import batches_per_epoch, describe, plan
from autolr.fit import training_arguments
from autolr.records import TrialRecord
from autolr.scheduler import SGDRScheduler
from autolr.training_chart import planned_line
from autolr.training_log import POINTS, TrainingLog

CHOICES = {"cycle_length": 1, "mult_factor": 1.0, "lr_decay": 1.0}


def train(x, *, callbacks=(), model=None, fit_budget=True, choices=CHOICES, **arguments):
    """A training with a log: what it handed on each time, and the rate of each step."""
    model = model or one_weight()
    saved, spy = [], RateSpy()
    schedule = plan(choices, {"x": x, **arguments}, batches_per_epoch({"x": x, **arguments}))
    scheduler = SGDRScheduler(0.01, 0.5, fit_budget=fit_budget, **choices)
    log = TrainingLog(schedule, saved.append)
    y = None if hasattr(x, "__next__") else np.zeros(len(x))
    model.fit(x, y, callbacks=[scheduler, log, spy, *callbacks], verbose=0, **arguments)
    json.dumps(saved, allow_nan=False)
    return saved, spy.fits[0]


def test_a_short_training_is_noted_step_by_step():
    # The loss is the weight, which falls by the rate in each step: both can be worked out.
    saved, rates = train(np.ones((40, 1), "float32"), batch_size=4, epochs=3)
    training = saved[-1]
    assert training["steps"] == 30
    assert training["rates"]["step"] == list(range(1, 31))
    np.testing.assert_allclose(training["rates"]["lr"], rates, rtol=1e-5)
    weights = -np.concatenate([[0.0], np.cumsum(rates)[:-1]])
    steps = np.array(training["losses"]["step"])
    assert steps.tolist() == [n for n in range(1, 31) if n % 10], "an epoch's last batch may be a smaller one"
    np.testing.assert_allclose(training["losses"]["loss"], weights[steps - 1], rtol=1e-4, atol=1e-5)
    assert [epoch["step"] for epoch in training["epochs"]] == [10, 20, 30]
    assert [epoch["epoch"] for epoch in training["epochs"]] == [1, 2, 3]
    assert training["epochs"][0]["logs"]["loss"] == pytest.approx(weights[:10].mean(), rel=1e-4)


def test_batches_too_few_for_an_update_are_no_step():
    model = one_weight()
    model.compile(keras.optimizers.SGD(0.5, gradient_accumulation_steps=4), lambda y, prediction: prediction)
    saved, _ = train(np.ones((10, 1), "float32"), model=model, batch_size=1, epochs=3)
    training = saved[-1]
    assert training["steps"] == int(model.optimizer.iterations) == 7
    assert [epoch["step"] for epoch in training["epochs"]] == [2, 5, 7]
    assert max(training["rates"]["step"]) == 7


def test_a_long_training_is_thinned_and_keeps_the_corners_of_its_cycles():
    saved, rates = train(np.ones((1000, 1), "float32"), batch_size=1, epochs=2)
    training = saved[-1]
    assert training["steps"] == 2000
    for line in (training["rates"], training["losses"]):
        assert POINTS / 2 < len(line["step"]) <= 1.1 * POINTS
    assert {1, 1000, 1001, 2000} <= set(training["rates"]["step"])
    at = np.array(training["rates"]["step"]) - 1
    np.testing.assert_allclose(training["rates"]["lr"], np.array(rates)[at], rtol=1e-5)
    # A point is the mean of the steps since the last one.
    weights = -np.concatenate([[0.0], np.cumsum(rates)[:-1]])
    begin, end = training["losses"]["step"][4:6]
    assert training["losses"]["loss"][5] == pytest.approx(weights[begin:end].mean(), rel=1e-2)


def test_of_a_training_of_some_hundred_steps_one_in_five_is_noted():
    # A point takes a small model a tenth of a step.
    saved, rates = train(np.ones((450, 1), "float32"), batch_size=1, epochs=1)
    training = saved[-1]
    assert training["losses"]["step"] == list(range(5, 450, 5))
    assert training["rates"]["step"] == sorted({1, 46, *range(5, 451, 5)}), "warm-up ends after 45"
    at = np.array(training["rates"]["step"]) - 1
    np.testing.assert_allclose(training["rates"]["lr"], np.array(rates)[at], rtol=1e-5)


@pytest.mark.parametrize(("per_epoch", "epochs", "every"), [(10, 30, 2), (4, 40, 1), (100, 3, 5), (100, 1, 1)])
def test_of_short_epochs_most_steps_are_seen(per_epoch, epochs, every):
    saved, _ = train(np.ones((per_epoch, 1), "float32"), batch_size=1, epochs=epochs)
    places = {(step - 1) % per_epoch + 1 for step in saved[-1]["losses"]["step"]}
    assert places == set(range(every, per_epoch, every))


@pytest.mark.slow  # as many epochs as it takes
def test_of_very_many_epochs_those_that_end_a_cycle_are_kept():
    saved, _ = train(np.ones((1, 1), "float32"), choices={**CHOICES, "cycle_length": 7}, batch_size=1, epochs=350)
    epochs = [epoch["epoch"] for epoch in saved[-1]["epochs"]]
    assert len(epochs) <= 1.5 * POINTS
    assert {1, *range(7, 351, 7)} <= set(epochs)


@pytest.mark.slow
def test_data_of_unknown_size_are_thinned_as_they_come():
    def batches():
        for _ in range(1500):
            yield np.ones((1, 1), "float32"), np.zeros((1, 1), "float32")

    saved, rates = train(batches(), epochs=1)
    training = saved[-1]
    assert len(rates) == training["steps"] == 1500
    assert POINTS <= len(training["losses"]["step"]) <= 2 * POINTS
    assert len(training["rates"]["step"]) <= 2 * POINTS
    assert training["epochs"][0]["step"] == 1500


@pytest.mark.parametrize(
    ("stop_at", "compile_with", "noted"),
    [(None, {}, [10, 10]), (4, {}, []), (None, {"steps_per_execution": 4}, [10, 10])],
)
def test_the_length_of_whole_epochs_is_told(stop_at, compile_with, noted):
    """A callback that ends an epoch before its data do tells nothing of them."""

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == stop_at

    told = []
    schedule = {"steps_per_epoch": None, "epochs": 2, "initial_epoch": 0, "edges": [0, 2]}
    log = TrainingLog(schedule, lambda training: None, note_epoch=told.append)
    x = tf.data.Dataset.from_tensor_slices((np.ones((10, 1)), np.zeros(10))).batch(1).filter(lambda x, y: True)
    one_weight(**compile_with).fit(x, epochs=2, callbacks=[log, Stop()], verbose=0)
    assert told == noted


def test_a_length_that_gathered_executions_do_not_tell_exactly_is_not_told():
    told = []
    schedule = {"steps_per_epoch": None, "epochs": 1, "initial_epoch": 0, "edges": [0, 1]}
    log = TrainingLog(schedule, lambda training: None, note_epoch=told.append)
    model = one_weight(steps_per_execution=8)
    model.optimizer.gradient_accumulation_steps = 3
    x = tf.data.Dataset.from_tensor_slices((np.ones((20, 1)), np.zeros(20))).batch(1).filter(lambda x, y: True)
    model.fit(x, callbacks=[log], verbose=0)
    assert told == []


def test_many_short_epochs_are_points_themselves():
    # Keras takes a while for so many, and brings nothing to it.
    saved = []
    log = TrainingLog({"steps_per_epoch": 2, "epochs": 1000, "initial_epoch": 0, "edges": [0, 2000]}, saved.append)
    log.set_model(one_weight())
    log.set_params({"steps": 2})
    for epoch in range(1000):
        log.on_epoch_begin(epoch)
        for batch in range(2):
            log.on_train_batch_end(batch, {"loss": float(epoch)})
        log.on_epoch_end(epoch, {"loss": float(epoch)})
    log.on_train_end()
    training = saved[-1]
    assert POINTS / 2 < len(training["losses"]["step"]) <= 2 * POINTS
    assert all(abs(loss - step / 2) <= 4 for step, loss in zip(*training["losses"].values(), strict=True))
    assert len(training["epochs"]) == POINTS
    assert (training["epochs"][0]["epoch"], training["epochs"][-1]["epoch"]) == (1, 1000)
    assert training["epochs"][-1]["step"] == training["steps"] == 2000


@pytest.mark.parametrize(("batches", "epochs"), [(1, 4000), (2, 2000), (1000, 4)])
def test_a_training_that_reports_no_loss_has_no_more_rates_than_another(batches, epochs):
    saved = []
    edges = [0, batches * epochs]
    log = TrainingLog({"steps_per_epoch": batches, "epochs": epochs, "initial_epoch": 0, "edges": edges}, saved.append)
    log.set_model(one_weight())
    log.set_params({"steps": batches})
    for epoch in range(epochs):
        log.on_epoch_begin(epoch)
        for batch in range(batches):
            log.on_train_batch_end(batch, {})
        log.on_epoch_end(epoch, {})
    log.on_train_end()
    assert POINTS / 2 < len(saved[-1]["rates"]["step"]) <= 4 * POINTS + 4
    assert saved[-1]["losses"]["loss"] == []


def test_the_rate_is_the_optimizers_whoever_set_it():
    class Halve(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.model.optimizer.learning_rate = 0.125

    saved, _ = train(np.ones((8, 1), "float32"), batch_size=1, callbacks=[Halve()])
    assert set(saved[-1]["rates"]["lr"]) == {0.125}


def test_steps_are_updates_under_gradient_accumulation():
    model = one_weight()
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), lambda y, prediction: prediction)
    saved, _ = train(np.ones((12, 1), "float32"), batch_size=1, epochs=2, model=model)
    assert saved[-1]["steps"] == 12
    assert saved[-1]["rates"]["step"] == list(range(1, 13))


def test_an_update_that_scaling_the_loss_skips_is_a_batch_trained():
    model = one_weight()
    # Too large by a hair: the first update is skipped, and its scale halved.
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=2.0**126)
    model.compile(optimizer, lambda y, prediction: prediction, steps_per_execution=3)
    saved, _ = train(np.full((18, 1), 4.0, "float32"), batch_size=1, epochs=2, model=model)
    assert int(optimizer.iterations) == 35
    assert [epoch["step"] for epoch in saved[-1]["epochs"]] == [18, 36]
    assert saved[-1]["rates"]["step"][-1] == saved[-1]["steps"] == 36


def test_losses_that_are_no_numbers_are_strings():
    saved, _ = train(np.full((8, 1), np.inf, "float32"), batch_size=1)
    assert "nan" in saved[-1]["losses"]["loss"]
    assert saved[-1]["epochs"][0]["logs"]["loss"] == "nan"


def test_a_log_that_cannot_note_or_save_fails_no_training():
    def fail(training):
        raise RuntimeError("no room")

    schedule = plan(CHOICES, {}, 8)
    log = TrainingLog(schedule, fail)
    one_weight().fit(np.ones((8, 1), "float32"), np.zeros(8), batch_size=1, callbacks=[log], verbose=0)


@pytest.mark.parametrize(("seconds", "written"), [(0.9, [5]), (2.0, [3, 5]), (6.0, [1, 2, 3, 4, 5, 5])])
def test_it_is_written_while_training_runs_but_not_for_every_epoch(monkeypatch, seconds, written):
    """Whenever it is looked at, the clock has gone on by so much."""
    clock = SimpleNamespace(monotonic=itertools.count(0.0, seconds).__next__)
    monkeypatch.setattr("autolr.training_log.time", clock)
    saved, _ = train(np.ones((4, 1), "float32"), batch_size=1, epochs=5)
    assert [len(training["epochs"]) for training in saved] == written


class Untouched(dict):
    """Logs that nobody may look into."""

    def __contains__(self, name):
        raise AssertionError(name)

    __getitem__ = get = __contains__


def test_most_steps_are_not_looked_at(monkeypatch):
    log = TrainingLog({"steps_per_epoch": 10**6, "epochs": 1, "initial_epoch": 0, "edges": [0, 10**6]}, print)
    log.set_model(one_weight())
    log.set_params({"steps": 10**6})
    log.on_epoch_begin(0)
    log.on_train_batch_end(0, {"loss": 1.0})  # the cycle's first step
    monkeypatch.setattr("autolr.training_log.current_rate", Untouched().get)
    for batch in range(1, 3001):  # below the first point
        log.on_train_batch_end(batch, Untouched())
    assert len(log.rates()) == 1


# --- in a search -----------------------------------------------------------------------------------------------------


@pytest.fixture
def searched(tmp_path, data):
    def search(**options):
        def build(hp):
            layers = [keras.layers.Dense(4, activation="relu"), keras.layers.Dense(3, activation="softmax")]
            model = keras.Sequential([keras.Input((6,)), *layers])
            model.compile(keras.optimizers.SGD(0.0625), "sparse_categorical_crossentropy", metrics=["accuracy"])
            return model

        hp = kt.HyperParameters()
        for name, value in CHOICES.items():
            hp.Fixed(name, value)
        hp.Choice("again", [1, 2])
        arguments = {"max_trials": 2, "seed": 1, "directory": tmp_path, "hyperparameters": hp, **options}
        tuner = autolr.RandomSearch(build, "val_accuracy", **arguments)
        tuner.search(*data, epochs=3, batch_size=4, validation_split=0.25, verbose=0)
        trials = [tuner.oracle.trials[trial_id] for trial_id in tuner.oracle.start_order]
        return [(trial, TrialRecord.read(tuner.get_trial_dir(trial.trial_id))) for trial in trials]

    return search


@pytest.mark.filterwarnings("ignore::autolr.AutoLRWarning")
def test_every_trial_of_a_search_records_its_training(searched):
    for trial, record in searched():
        training = record.training
        assert training["fits"] == 1
        assert training["steps"] == 36
        rates = training["rates"]["lr"]
        assert record.bounds["min_lr"] < rates[0] < rates[1]  # warm-up
        assert max(rates) == pytest.approx(record.bounds["max_lr"], rel=1e-5)
        assert max(epoch["logs"]["val_accuracy"] for epoch in training["epochs"]) == pytest.approx(
            trial.score, rel=1e-5
        )
        assert record.optimizer == "SGD"
        assert record.objective == {"name": "val_accuracy", "direction": "max"}
        assert record.values == trial.hyperparameters.values
        # Said once in the search, and true of both.
        assert any("compiled with" in text for text in record.warnings)


@pytest.mark.filterwarnings("ignore::autolr.AutoLRWarning")
def test_of_several_executions_the_last_is_kept_and_counted(searched):
    ((_, record),) = searched(executions_per_trial=2, max_trials=1)
    assert record.training["fits"] == 2
    assert record.training["steps"] == 36


def test_warm_up_belongs_to_the_first_cycle_in_words_and_is_drawn():
    schedule = plan({"cycle_length": 3, "mult_factor": 1.5, "lr_decay": 0.9}, {"epochs": 8}, 10)
    assert schedule["edges"] == [8, 30, 80]
    assert describe(schedule) == "schedule: 2 cycles of 3, 5 epochs"
    epochs, rates = planned_line(
        SimpleNamespace(schedule=schedule, per_epoch=10, bounds={"min_lr": 0.1, "max_lr": 1.0})
    )
    assert epochs[0] == 0
    assert 0.1 < rates[0] < 0.3
    assert epochs[int(np.argmax(rates))] == 0.8
    assert rates.max() == 1.0


def test_steps_are_counted_from_1_also_in_an_epoch_shorter_than_an_update():
    model = one_weight()
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=5), lambda y, prediction: prediction)
    saved, _ = train(np.ones((2, 1), "float32"), batch_size=1, epochs=5, model=model)
    assert [epoch["step"] for epoch in saved[-1]["epochs"]] == [1, 1, 1, 1, 2]


def test_a_training_resumed_keeps_the_corners_of_its_cycles():
    x, saved = np.ones((100, 1), "float32"), []
    choices = {"cycle_length": 1, "mult_factor": 2.0, "lr_decay": 1.0}
    schedule = plan(choices, {"epochs": 7, "initial_epoch": 1}, 100)
    callbacks = [SGDRScheduler(0.01, 0.5, fit_budget=True, **choices), TrainingLog(schedule, saved.append)]
    one_weight().fit(x, np.zeros(100), callbacks=callbacks, batch_size=1, epochs=7, initial_epoch=1, verbose=0)
    edge = schedule["edges"][2] - 100
    assert len(saved[-1]["rates"]["step"]) < 400  # of 600
    assert {edge, edge + 1} <= set(saved[-1]["rates"]["step"])


def test_the_schedule_of_a_later_rung_is_laid_over_all_epochs_and_says_where_it_begins():
    choices = {"cycle_length": 1, "mult_factor": 1.0, "lr_decay": 1.0}
    schedule = plan(choices, {"epochs": 3, "initial_epoch": 1}, 10)
    assert schedule["edges"][-1] == 30
    assert describe(schedule) == "schedule: 3 cycles of 1, 1, 1 epochs, from epoch 1"


def test_a_share_set_aside_counts_unless_there_are_data_for_validation():
    fit = {"x": np.zeros((100, 1)), "batch_size": 1, "validation_split": 0.75}
    assert batches_per_epoch(fit) == 25
    assert batches_per_epoch({**fit, "validation_data": (0, 0)}) == 100


def test_a_range_test_is_given_what_a_training_step_depends_on():
    names = ("x", "y", "batch_size", "sample_weight", "class_weight", "shuffle", "steps_per_epoch", "validation_split")
    given = {name: number for number, name in enumerate(names)}
    assert training_arguments({**given, "epochs": 9, "callbacks": []}) == given
    assert "validation_split" not in training_arguments({**given, "validation_data": (1, 2)})
