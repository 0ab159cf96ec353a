"""What trials do beside the plain case: states loaded, bounds shared, rates in step, everything said once."""

from __future__ import annotations

import gc
import math
import tracemalloc
import types
import warnings
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import keras
import keras_tuner as kt
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
from compatibility import Setup, model, search
from compatibility_cases import adversaries, hyperband, multi, named
from compatibility_cases import dataset as batches_of
from helpers import TrainsItsLossToo, WeightedLoss, assert_same_arrays, compiled, one_weight, plain, sequential

import autolr
from autolr import AutoLRWarning, LRFinder, SGDRScheduler, compat, compat_tuner, range_test
from autolr.budget import RANGE_TEST_STEPS, range_test_budget
from autolr.bursts import Burst
from autolr.data import count_batches, first_batch, holding_nan, is_array_data
from autolr.objective_check import ObjectiveCheck
from autolr.optimizers import keeps_its_optimizer, several_optimizers, usual_rate, with_number_as_rate
from autolr.random_state import python_state
from autolr.records import TrialRecord
from autolr.replay import Replay
from autolr.report_views import rate
from autolr.reuse import compiled_setup
from autolr.search_folder import read_search
from autolr.search_memory import SearchMemory
from autolr.trial_bounds import judged, screens
from autolr.trial_callbacks import has_own_end, stop_within_cycles
from autolr.trial_summary import summarise


def records(outcome):
    folder = outcome.tuner.get_trial_dir
    return [TrialRecord.read(folder(trial.trial_id)) for trial in outcome.trials]


class AtFirstStep(keras.callbacks.Callback):
    """Notes the optimizer's step count and slots as training begins; survives Keras Tuner's copying."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __deepcopy__(self, memo):
        return self

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0 and (not self.seen or self.seen[-1][0] is not self.model):
            optimizer = self.model.optimizer
            slots = sum(float(np.abs(keras.ops.convert_to_numpy(v)).sum()) for v in optimizer.variables[2:])
            self.seen.append((self.model, int(optimizer.iterations), slots))


class RatesByFit(keras.callbacks.Callback):
    """Notes the rate of each step of each training; survives Keras Tuner's copying."""

    def __init__(self):
        super().__init__()
        self.fits = []

    def __deepcopy__(self, memo):
        return self

    def on_train_begin(self, logs=None):
        self.fits.append([])

    def on_train_batch_end(self, batch, logs=None):
        self.fits[-1].append(float(self.model.optimizer.learning_rate))


@pytest.mark.parametrize(
    ("scheduled", "kept", "beside"),
    [
        pytest.param(False, False, False, id="a number as rate"),
        pytest.param(True, False, False, id="a schedule as rate", marks=pytest.mark.slow),
        pytest.param(False, True, False, id="without AutoLR", marks=pytest.mark.slow),
        pytest.param(False, False, True, id="a variable beside the model's", marks=pytest.mark.slow),
    ],
)
def test_later_rungs_of_hyperband_go_on_with_their_parents_optimizer(tmp_path, scheduled, kept, beside):
    def build(hp):
        made = named(hp)
        if beside:
            made = TrainsItsLossToo(made.layers)
            made.compile("adam", WeightedLoss())
        rate = keras.optimizers.schedules.CosineDecay(0.1, 99) if scheduled else 0.001
        made.optimizer = keras.optimizers.Adam(rate)
        return made

    spy = AtFirstStep()
    callbacks = [spy, *([keras.callbacks.ReduceLROnPlateau("loss")] if kept else [])]
    options = {"rate_callbacks": "keep" if kept else "replace"}
    outcome = search(Setup(build, fit={"callbacks": callbacks}, tuner=hyperband, options=options), tmp_path)
    later = 0
    for trial, (_, steps, slots) in zip(outcome.trials, spy.seen, strict=True):
        if "tuner/trial_id" in trial.hyperparameters.values:
            later += 1
            # The checkpoint is that of the parent's best epoch, which may not be its last.
            assert steps > 0
            assert steps % 8 == 0
            assert slots > 0
        else:
            assert (steps, slots) == (0, 0.0)
    assert later
    assert not [text for text in outcome.warned if "optimizer's state" in text]
    assert not [text for text in outcome.warned_by_others if "Skipping variable loading" in text]


class TwoPhases(kt.HyperModel):
    """Sets a weight, trains, compiles anew, and trains on."""

    def __init__(self):
        super().__init__()
        self.later = []

    def build(self, hp):
        return named(hp)

    def fit(self, hp, model, *args, **kwargs):
        model.layers[-1].bias.assign([7.0, 7.0, 7.0])
        started, ended, went_on = [], [], []

        class See(keras.callbacks.Callback):
            def on_train_begin(self, logs=None):
                (went_on if ended else started).append(self.model.get_weights())

        callbacks = [*kwargs.pop("callbacks"), See()]
        model.fit(*args, callbacks=callbacks, **kwargs)
        ended.append(model.get_weights())
        model.compile("adam", model.loss)
        history = model.fit(*args, callbacks=callbacks, **kwargs)
        if hp.values.get("tuner/trial_id"):
            self.later.append((started[0][-1], ended[0], went_on[0]))
        return history


@pytest.mark.slow
def test_later_rungs_of_hyperband_lose_nothing_that_was_set_or_trained_in_the_trial(tmp_path):
    hypermodel = TwoPhases()
    outcome = search(Setup(hypermodel, tuner=hyperband), tmp_path)
    assert all(trial.status == "COMPLETED" for trial in outcome.trials)
    assert hypermodel.later
    for bias, ended, went_on in hypermodel.later:
        assert set(bias) == {7.0}
        assert_same_arrays(ended, went_on)


@pytest.mark.slow
def test_bounds_are_shared_by_trials_that_differ_in_their_schedule_alone(tmp_path):
    def space():
        hp = kt.HyperParameters()
        hp.Choice("cycle_length", [1, 2])
        hp.Fixed("mult_factor", 1.0)
        hp.Fixed("lr_decay", 1.0)
        hp.Choice("units", [4, 8])
        return hp

    def build(hp):
        made = keras.Sequential([keras.Input((6,)), keras.layers.Dense(hp.get("units"), "relu"), keras.layers.Dense(3)])
        made.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return made

    fit = {"epochs": 8}
    options = {"max_trials": None, "reuse_bounds": True}
    outcome = search(Setup(build, fit, autolr.GridSearch, options, space=space), tmp_path)
    found = records(outcome)
    assert len(found) == 4
    first = {}
    for record in found:
        units = record.values["units"]
        if units in first and first[units].bounds["status"] == "ok":
            assert record.source == f"trial {first[units].trial_id}"
            assert record.bounds["max_lr"] == first[units].bounds["max_lr"]
        else:
            assert record.source == "range test"
        first.setdefault(units, record)
    assert any(record.source != "range test" for record in found)
    # Another call of `search` may have other data.
    assert outcome.tuner._autolr_memory.shared
    outcome.tuner.search(verbose=0)
    assert not outcome.tuner._autolr_memory.shared


class Batches(keras.utils.PyDataset):
    """Draws random numbers for its batches, as one that augments them does."""

    def __init__(self, size, width):
        super().__init__()
        self.size, self.width = size, width

    def __len__(self):
        return 96 // self.size

    def __getitem__(self, index):
        return np.random.random((self.size, self.width)), np.zeros(self.size)


def dataset(size, width):
    x = np.zeros((96, width), "float32")
    return tf.data.Dataset.from_tensor_slices((x, np.zeros(96))).batch(size)


class DataSet:
    """Batches as of a `grain.MapDataset`: neither a generator nor a class that is known here."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return np.zeros((8, 6), "float32"), np.zeros(8, "int32")

    def __iter__(self):
        return (self[index] for index in range(len(self)))


class Stream(DataSet):
    """As a `DataLoader` over data of unknown size: its length is an error."""

    def __len__(self):
        raise TypeError("object of type 'Iterable' has no len()")


def test_data_that_are_no_arrays_are_taken_as_batches():
    assert not is_array_data(DataSet())
    assert count_batches(DataSet()) == 12
    assert count_batches(iter(DataSet())) is None
    assert count_batches(Stream()) is None
    assert [symbol.shape for symbol in first_batch(DataSet())] == [(8, 6), (8,)]
    assert holding_nan(x=DataSet()) == []
    for arrays in (np.zeros((3, 2)), {"a": tf.zeros((3, 2)), "b": [np.zeros(3), None]}):
        assert is_array_data(arrays)


class Images(Batches):
    """A loader that notes the size of its images, as an array has a shape."""

    shape = 6


def test_a_loader_with_a_shape_of_its_own_is_no_array(tmp_path):
    assert not is_array_data(Images(8, 6))
    outcome = search(Setup(positional=(Images(8, 6),)), tmp_path)
    (record,) = records(outcome)
    assert (record.source, record.schedule["steps_per_epoch"]) == ("range test", len(Images(8, 6)))


def test_lists_of_texts_are_samples_where_a_model_takes_them():
    texts = ["a", "b", "c"] * 20
    images = np.zeros((60, 2))
    parts = [(texts, texts), (images, texts), {"first": texts, "second": texts}, {"images": images, "texts": texts}]
    for x in (texts, tuple(texts), [text.encode() for text in texts], list(np.array(texts)), *parts):
        assert count_batches(x, batch_size=8) == 8
        assert count_batches(x, batch_size=8, validation_split=0.5) == 4
    assert count_batches(texts) == 2
    assert count_batches([[[0.5] * 3] * 4] * 5) == 5  # no texts: as if they were batches


def test_counting_texts_takes_no_room():
    texts = ["a"] * 1000 + ["a" * 1_000_000]  # 4 GB as one array of NumPy's
    tracemalloc.start()
    try:
        assert count_batches(texts) == 32
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_search_on_a_data_set_of_grain_is_assisted(tmp_path):
    grain = pytest.importorskip("grain")
    rows = [(np.full(6, number, "float32"), np.int32(number % 3)) for number in range(96)]
    outcome = search(Setup(positional=(grain.MapDataset.source(rows).batch(8),)), tmp_path)
    assert [record.source for record in records(outcome)] == ["range test"]


class Padded(Batches):
    """Texts, each batch as long as its longest."""

    def __init__(self, size, lengths):
        super().__init__(size, None)
        self.lengths = lengths

    def __getitem__(self, index):
        return np.zeros((self.size, self.lengths[index % len(self.lengths)])), np.zeros(self.size)


def test_a_loader_that_pads_its_batches_each_to_its_longest_is_one():
    made = model()
    shuffled, single = (
        [compiled_setup(made, {"x": Padded(*its)}) for its in pairs]
        for pairs in (((8, (6, 5)), (8, (4, 6))), ((96, (6,)), (96, (6,))))
    )
    assert len(set(shuffled)) == 1
    assert len(set(single)) == 1  # of a single batch there is no second to compare with


def test_a_loader_of_larger_images_is_another():
    made = model()
    assert compiled_setup(made, {"x": Batches(8, 6)}) != compiled_setup(made, {"x": Batches(8, 5)})


@pytest.mark.parametrize("make", [Batches, dataset])
def test_data_in_batches_are_told_apart_by_what_the_batches_look_like(make):
    made = model()
    random_state = np.random.get_state()[1].copy()
    setups = [compiled_setup(made, {"x": make(size, width)}) for size, width in ((8, 6), (16, 6), (24, 6), (8, 6))]
    assert len(set(setups)) == 3
    assert setups[0] == setups[3]
    np.testing.assert_array_equal(np.random.get_state()[1], random_state)


def test_rates_of_a_multi_optimizer_keep_their_ratio():
    made = multi(None)
    multi_optimizer = made.optimizer
    assert isinstance(compat.learning_rate_source(multi_optimizer), list)
    in_step = with_number_as_rate(multi_optimizer)
    in_step.build(made.trainable_variables)
    in_step.learning_rate = 0.5
    assert [round(float(part.learning_rate), 6) for part in in_step.optimizers] == [0.5, 0.05]
    in_step.learning_rate = 0.1
    assert [round(float(part.learning_rate), 6) for part in in_step.optimizers] == [0.1, 0.01]
    assert [type(part) for part in in_step.optimizers] == [keras.optimizers.SGD, keras.optimizers.Adam]
    assert [round(float(part.learning_rate), 6) for part in multi_optimizer.optimizers] == []  # untouched, not built


@pytest.mark.parametrize("wrap", [lambda it: it, keras.optimizers.LossScaleOptimizer])
def test_variables_excluded_from_weight_decay_are_excluded_by_the_copy(wrap):
    made = model()
    rate = keras.optimizers.schedules.CosineDecay(0.1, 99)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=0.5)
    listed, *others = made.trainable_variables
    optimizer.exclude_from_weight_decay(var_list=[listed], var_names=["bias"])
    copy = with_number_as_rate(wrap(optimizer))
    for variable in made.trainable_variables:
        variable.assign(keras.ops.ones_like(variable))
    copy.apply([keras.ops.zeros_like(variable) for variable in made.trainable_variables], made.trainable_variables)
    for variable in made.trainable_variables:
        decays = variable is not listed and variable.name != "bias"
        assert (float(keras.ops.max(variable)) < 1) == decays
    assert any(variable.name == "kernel" for variable in others)


if not hasattr(keras.optimizers, "MultiOptimizer"):
    del test_rates_of_a_multi_optimizer_keep_their_ratio


def test_optimizers_of_a_models_own_are_seen_and_no_others():
    assert several_optimizers(adversaries(None))
    assert not several_optimizers(model())
    pretrained = model("adam")
    outer = keras.Sequential([keras.Input((6,)), pretrained])
    outer.compile("sgd", "mse")
    assert not several_optimizers(outer)
    scaled = model(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()))
    assert not several_optimizers(scaled)
    rate = keras.optimizers.schedules.CosineDecay(0.1, 99)
    assert keeps_its_optimizer(keeps_optimizer(rate))
    assert not any(keeps_its_optimizer(it) for it in (model(keras.optimizers.SGD(rate)), outer, scaled))


class KeepsOptimizer(keras.Sequential):
    """Trains with the optimizer it was compiled with, whatever `self.optimizer` is by then."""

    def compile(self, optimizer, *args, **kwargs):
        super().compile(optimizer, *args, **kwargs)
        self.mine = optimizer

    def train_step(self, batch):
        x, y = batch
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        self.mine.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        self._loss_tracker.update_state(loss)
        return {"loss": self._loss_tracker.result()}


def keeps_optimizer(rate):
    return model(keras.optimizers.SGD(rate), cls=KeepsOptimizer)


def test_a_model_that_keeps_an_optimizer_with_a_schedule_trains_as_without_autolr(tmp_path):
    def setup(tuner):
        rate = keras.optimizers.schedules.CosineDecay(0.1, 99)
        return Setup(lambda hp: keeps_optimizer(rate), tuner=tuner)

    ours, theirs = (search(setup(tuner.RandomSearch), tmp_path / tuner.__name__) for tuner in (autolr, kt))
    assert ours.seen == theirs.seen
    assert len(ours.warned) == 1
    assert "in an attribute of its own" in ours.warned[0]


def test_a_model_that_keeps_an_optimizer_with_a_number_is_helped(tmp_path):
    outcome = search(Setup(lambda hp: keeps_optimizer(0.01)), tmp_path)
    assert [record.source for record in records(outcome)] == ["range test"]
    assert not [text for text in outcome.warned if "in an attribute of its own" in text]


def test_a_range_test_of_a_model_that_keeps_an_optimizer_with_a_schedule_is_refused():
    made = keeps_optimizer(keras.optimizers.schedules.CosineDecay(0.1, 99))
    with pytest.raises(ValueError, match=r"in an attribute of its own.*Received: model="):
        range_test(made, np.zeros((8, 6), "float32"), np.zeros(8))


@pytest.mark.parametrize("wrap", [lambda it: it, keras.optimizers.LossScaleOptimizer])
def test_an_optimizer_whose_weights_are_proportional_to_the_rate_is_warned_of(wrap):
    # What the warning says: a step at a tenth of the rate, without a gradient, leaves a tenth of the weight.
    made = one_weight()
    made.compile(wrap(keras.optimizers.Ftrl(0.5)), lambda y, prediction: prediction * y)
    x, y = np.ones((8, 1), "float32"), np.ones((8, 1), "float32")
    made.fit(x, y, batch_size=1, verbose=0)
    before = float(made.get_weights()[0].item())
    made.optimizer.learning_rate = 0.05
    made.train_on_batch(x, np.zeros_like(y))
    assert made.get_weights()[0].item() == pytest.approx(before / 10, rel=1e-4)
    with pytest.warns(AutoLRWarning, match=r"proportion.*training at several"):
        range_test(made, x, y, batch_size=1, num_steps=4, burst_steps=0)
    with pytest.warns(AutoLRWarning, match=r"proportion.*constant rate"):
        made.fit(x, y, verbose=0, callbacks=[SGDRScheduler(0.1, 0.5)])


def test_gradient_accumulation_holds_the_rate_for_an_update_and_records_the_mean_loss():
    # The loss is the weight, which falls by the rate at each update: constant for four batches, then lower.
    made = one_weight()
    made.compile(keras.optimizers.SGD(0.5, gradient_accumulation_steps=4), lambda y, prediction: prediction * y)
    x = np.ones((64, 1), "float32")
    y = np.tile([[0.0], [1.0], [2.0], [3.0]], (16, 1)).astype("float32")  # mean 1.5
    test = range_test(made, x, y, batch_size=1, shuffle=False, num_steps=6, start_lr=0.1, end_lr=1.0, burst_steps=0)
    assert len(test) == test.steps_spent == 6
    # Each update's gradient is the mean of the four: 1.5, times the rate.
    weight = -1.5 * np.concatenate([[0], np.cumsum(test.lrs)[:-1]])
    np.testing.assert_allclose(test.losses, 1.5 * weight, rtol=1e-5, atol=1e-6)


def test_accumulation_and_several_steps_per_execution_together():
    made = compiled(
        sequential(), keras.optimizers.SGD(0.1, gradient_accumulation_steps=4), steps_per_execution=6, metrics=[]
    )
    x, y = np.zeros((96, 6), "float32"), np.zeros(96, "int32")
    finder = LRFinder(num_steps=12, start_lr=1e-6, end_lr=1e-5)
    made.fit(x, y, batch_size=1, epochs=9, callbacks=[finder], verbose=0)
    # A point is 12 batches: two executions of 6, three updates of 4.
    assert len(finder.result) == 4
    assert finder.result.steps_spent == 12


@pytest.mark.parametrize(
    ("batches_per_update", "epochs", "planned"),
    [(2, {}, 25), (None, {"epochs": 3, "initial_epoch": 1}, 100)],
)
def test_the_share_is_one_of_the_updates_of_the_epochs_that_are_trained(
    tmp_path, capsys, batches_per_update, epochs, planned
):
    def build(hp):
        return plain(keras.optimizers.SGD(gradient_accumulation_steps=batches_per_update))

    options = {"max_trials": 1, "directory": tmp_path, "range_test_share": 1.0, "range_test_min_steps": 2}
    x, y = np.zeros((50, 6), "float32"), np.zeros(50)
    autolr.RandomSearch(build, "loss", **options).search(x, y, batch_size=1, verbose=2, **epochs)
    assert f"range test: up to {planned} steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (20, (40, 0)),  # without so many a test could not see anything
        (111, (40, 0)),
        (112, (40, 72)),  # three bursts, as many steps as the trial's own
        (355, (40, 72)),  # since 45 % are too few for five
        (356, (40, 120)),
        (515, (40, 120)),  # since 45 % are too few for a second round
        (516, (40, 192)),
        (2320, (40, 192)),  # a tenth
        (2500, (58, 192)),
        (99999, (100, 264)),
    ],
)
def test_a_short_trial_gives_more_than_the_share(steps, expected):
    assert range_test_budget(steps, share=0.1, most=364) == expected


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (112, (40, 0)),
        (248, (40, 0)),  # since 45 % are too few for three bursts
        (249, (40, 72)),
        (356, (40, 120)),
        (516, (40, 192)),
        (99999, (100, 264)),
    ],
)
def test_a_trial_that_only_screens_gives_no_more_than_45_percent(steps, expected):
    assert range_test_budget(steps, share=0.1, most=364, screening=True) == expected


def test_first_rungs_of_hyperband_spend_no_bursts_and_share_nothing_with_whole_trials(tmp_path):
    x = np.random.default_rng(0).normal(size=(3840, 6))
    fit = {"x": x, "y": x[:, :3].argmax(1), "batch_size": 32}  # 120 steps an epoch
    setup = Setup(lambda hp: model(), positional=(), fit=fit, tuner=halving, space=kt.HyperParameters)
    outcome = search(setup, tmp_path, reuse_bounds=True)  # all trials differ in their schedule alone
    bursts, sharing = {}, []
    epochs = {trial.trial_id: trial.hyperparameters.values["tuner/epochs"] for trial in outcome.trials}
    for trial, record in zip(outcome.trials, records(outcome), strict=True):
        if record.range_test is not None:
            bursts.setdefault(epochs[trial.trial_id], set()).add(bool(record.range_test["bursts"]))
        elif "tuner/trial_id" not in trial.hyperparameters.values:
            sharing.append((epochs[trial.trial_id], epochs[record.source.removeprefix("trial ")]))
    assert bursts == {1: {False}, 2: {True}}
    assert sharing
    assert all(own == others for own, others in sharing)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, False),
        ({"tuner/bracket": 2, "tuner/round": 0}, True),
        ({"tuner/bracket": 0, "tuner/round": 0}, False),
        ({"tuner/bracket": 2, "tuner/round": 1, "tuner/trial_id": "0"}, False),  # perhaps of another bracket
    ],
)
def test_which_trials_only_screen_is_told_of_first_rungs(values, expected):
    hp = kt.HyperParameters()
    hp.values.update(values)
    assert screens(kt.engine.trial.Trial(hp)) is expected


def test_bounds_are_shared_where_the_size_of_the_data_was_not_known_to_the_first(tmp_path):
    x = np.random.default_rng(0).normal(size=(3840, 6)).astype("float32")
    batches = tf.data.Dataset.from_tensor_slices((x, x[:, :3].argmax(1))).batch(32).filter(lambda x, y: True)
    setup = Setup(lambda hp: model(), positional=(batches,), fit={"epochs": 1}, space=kt.HyperParameters)
    found = records(search(setup, tmp_path, reuse_bounds=True, max_trials=3))
    assert [record.bounds["status"] for record in found] == ["ok"] * 3
    assert [record.source for record in found] == ["range test", *["trial " + found[0].trial_id] * 2]


def halving(hypermodel, objective, max_trials, seed, hyperparameters, **where):
    length = {"max_epochs": 2, "factor": 2}
    return autolr.Hyperband(hypermodel, objective, **length, seed=seed, hyperparameters=hyperparameters, **where)


def test_what_a_short_trial_gives_can_be_chosen():
    assert range_test_budget(1000, share=0.1, most=364, least=10) == (100, 0)
    assert range_test_budget(1000, share=0.01, most=364, least=10) == (10, 0)
    assert range_test_budget(300, share=0.1, most=364, least=100) == (100, 0)  # of 135
    assert range_test_budget(300, share=0.1, most=364, least=150) == (40, 72)
    assert range_test_budget(1000, share=0.1, most=364, least=160) == (40, 120)
    assert range_test_budget(500, share=0.1, most=364, least=200) == (80, 120)  # of 225
    assert range_test_budget(400, share=0.1, most=364, least=200) == (40, 120)
    assert range_test_budget(100, share=0.1, most=364, least=30) == (30, 0)
    assert range_test_budget(1000, share=0.01, most=364, least=1000) == (100, 264)
    assert range_test_budget(1000, share=0.1, most=30) == (30, 0)


@pytest.mark.parametrize(
    ("affordable", "expected"),
    [
        (20, (20, 0)),
        (40, (40, 0)),
        (111, (100, 0)),
        (112, (40, 72)),
        (159, (87, 72)),
        (160, (40, 120)),
        (231, (100, 120)),
        (232, (40, 192)),
        (292, (100, 192)),
        (303, (100, 203)),
        (304, (40, 264)),
        (364, (100, 264)),
        (9999, (100, 264)),
    ],
)
def test_bursts_come_before_a_finer_sweep(affordable, expected):
    assert range_test_budget(10 * affordable, share=0.1, most=364, least=2) == expected


@pytest.mark.parametrize(
    ("affordable", "expected"), [(160, (40, 120)), (232, (100, 120)), (303, (100, 120)), (304, (40, 264))]
)
def test_where_bursts_begin_anew_a_second_round_is_planned_only_where_it_has_room(affordable, expected):
    assert range_test_budget(10 * affordable, share=0.1, most=364, least=2, goes_on=False) == expected


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="bursts begin anew")
@pytest.mark.parametrize(
    ("samples", "steps_per_epoch", "planned"),
    [(50, 10, "up to 220 steps"), (50, 25, "up to 232 steps")],  # batches of 5 samples, and of 2: 25 an epoch
)
def test_the_budget_counts_the_batches_that_steps_per_epoch_makes_of_arrays(
    tmp_path, capsys, samples, steps_per_epoch, planned
):
    x, y = np.zeros((samples, 6), "float32"), np.zeros(samples)
    options = {"max_trials": 1, "directory": tmp_path, "range_test_share": 1.0, "range_test_steps": 232}
    fit = {"steps_per_epoch": steps_per_epoch, "epochs": 11 * 25 // steps_per_epoch, "verbose": 2}
    autolr.RandomSearch(lambda hp: plain(), "loss", **options).search(x, y, **fit)
    assert planned in capsys.readouterr().out


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="bursts begin anew")
@pytest.mark.parametrize(("batches", "planned"), [(24, "up to 220 steps"), (25, "up to 232 steps")])
def test_an_epoch_of_few_batches_gets_a_finer_sweep_in_place_of_a_second_round(tmp_path, capsys, batches, planned):
    x, y = np.zeros((batches, 6), "float32"), np.zeros(batches)
    options = {"max_trials": 1, "directory": tmp_path, "range_test_share": 1.0, "range_test_steps": 232}
    autolr.RandomSearch(lambda hp: plain(), "loss", **options).search(x, y, batch_size=1, epochs=11, verbose=2)
    assert planned in capsys.readouterr().out


def test_trials_of_unknown_length_get_no_late_bursts():
    assert range_test_budget(None, share=0.1, most=RANGE_TEST_STEPS) == (100, 264)
    assert range_test_budget(None, share=0.1, most=90) == (90, 0)
    assert range_test_budget(20_000, share=0.1, most=RANGE_TEST_STEPS) == (100, 1128)


def test_the_first_trial_tells_the_others_the_size_of_the_data(tmp_path):
    def build(hp):
        return plain(hp.Choice("optimizer", ["sgd", "adam"]))

    spy = RatesByFit()
    fit = {"callbacks": [spy], "epochs": 4}
    known, unknown = (
        records(search(Setup(build, positional=(made,), fit=fit), tmp_path / name, max_trials=trials))
        for name, made, trials in (("known", batches_of(), 1), ("unknown", batches_of(unknown=True), 2))
    )
    per_epoch = known[0].schedule["steps_per_epoch"]
    # The first one's sweep comes to the end of an epoch, so its schedule has steps and a warm-up, too.
    assert [record.schedule["steps_per_epoch"] for record in unknown] == [per_epoch, per_epoch]
    assert unknown[0].range_test["steps_spent"] > unknown[1].range_test["steps_spent"]
    assert [len(set(rates[:per_epoch])) > 1 for rates in spy.fits] == [True, True, True]
    assert all(rates[0] == min(rates[:3]) < max(rates) for rates in spy.fits)
    most = sum(range_test_budget(4 * per_epoch, share=0.1, most=RANGE_TEST_STEPS))
    spent = [its.range_test["steps_spent"] for its in (*known, *unknown[1:])]
    assert max(spent) <= most, (spent, most)


def test_a_sweep_within_an_epoch_says_nothing_of_its_length(tmp_path, capsys):
    spy, per_epoch = RatesByFit(), int(batches_of().cardinality())
    tuner = autolr.RandomSearch(
        lambda hp: plain(hp.Choice("optimizer", ["sgd", "adam"])),
        "loss",
        max_trials=2,
        range_test_steps=per_epoch - 1,
        range_test_min_steps=2,
        directory=tmp_path,
    )
    tuner.search(batches_of(unknown=True), epochs=4, callbacks=[spy], verbose=2)
    assert [len(set(rates[:per_epoch])) > 1 for rates in spy.fits] == [False, True]
    said = [line for line in capsys.readouterr().out.splitlines() if "schedule: " in line]
    assert ["its length is unknown" in line for line in said] == [True, False]


def test_an_epoch_that_was_cut_short_says_nothing_of_its_length(data):
    x, y = data
    model, finder = plain(), LRFinder(num_steps=40)
    stop = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: setattr(model, "stop_training", True))
    for callbacks, expected in (([finder], -(-len(x) // 4)), ([finder, stop], None)):
        model.fit(x, y, batch_size=4, epochs=40, callbacks=callbacks, verbose=0)
        assert finder.batches_in_epoch == expected


class TellsOfEpochsAlone(keras.Sequential):
    def fit(self, *args, callbacks=(), **kwargs):
        for callback in callbacks:
            callback.set_model(self)
            callback.on_epoch_end(0)


def test_a_fit_that_tells_its_callbacks_of_no_training_is_an_error_in_words():
    model = compiled(TellsOfEpochsAlone([keras.Input((6,)), keras.layers.Dense(3)]), "sgd")
    with pytest.raises(RuntimeError, match="calls neither Keras's training step nor"):
        range_test(model, np.zeros((8, 6)), np.zeros(8))


class WarmsUp(kt.HyperModel):
    """Trains a few batches first, then as it was told to."""

    def build(self, hp):
        return model("sgd")

    def fit(self, hp, model, *args, **kwargs):
        model.fit(*args, **{**kwargs, "epochs": 1, "steps_per_epoch": 2})
        return model.fit(*args, **kwargs)


def test_the_size_of_data_is_no_number_of_steps_that_somebody_asked_for(tmp_path):
    spy = RatesByFit()
    fit = {"callbacks": [spy], "epochs": 2}
    made = Setup(WarmsUp(), positional=(batches_of(unknown=True),), fit=fit, options={"range_test_steps": 7})
    outcome = search(made, tmp_path, max_trials=1)
    (record,) = records(outcome)
    assert record.schedule["steps_per_epoch"] is None
    warm_up, rates = spy.fits
    first = rates[: len(rates) // 2]
    assert len(warm_up) == 2
    assert len(set(first)) == 1  # nothing is known of them yet
    assert len(set(rates)) > 2


@pytest.mark.slow
def test_the_size_of_data_is_known_to_later_searches_also_if_updates_do_not_divide_it(tmp_path):
    """12 batches, of which an update gathers 5: the third update of an epoch ends in the next one."""
    data, spy = batches_of(unknown=True), RatesByFit()

    def build(hp):
        return model(keras.optimizers.SGD(gradient_accumulation_steps=5))

    tuner = autolr.RandomSearch(build, "loss", max_trials=1, directory=tmp_path, range_test_steps=40)
    tuner.search(data, epochs=2, verbose=0)
    tuner.oracle.max_trials = 2
    tuner.search(data, epochs=2, verbose=0, callbacks=[spy])
    record = TrialRecord.read(tuner.get_trial_dir("1"))
    per_epoch = record.schedule["steps_per_epoch"]
    (rates,) = spy.fits
    assert len(rates) == 2 * per_epoch
    assert [len(set(rates[begin : begin + 5])) for begin in range(0, len(rates) - 4, 5)] == [1] * (len(rates) // 5)
    assert len(set(rates[:per_epoch])) == -(-per_epoch // 5)


@pytest.mark.filterwarnings("ignore:The learning rate schedule")
def test_a_model_saved_in_a_trial_goes_on_though_it_was_compiled_with_a_schedule(tmp_path, data):
    def build(hp):
        return plain(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-2, 100)))

    x, y = data
    saves = keras.callbacks.ModelCheckpoint(tmp_path / "saved.keras")
    tuner = autolr.RandomSearch(build, "loss", max_trials=1, directory=tmp_path / "search")
    tuner.search(x, y, epochs=2, batch_size=16, callbacks=[saves], verbose=0)
    optimizer = keras.models.load_model(tmp_path / "saved.keras").optimizer
    assert int(optimizer.iterations) == 8
    values = tuner.get_best_hyperparameters()[0].values
    assert values["autolr/min_lr"] < float(optimizer.learning_rate) < values["autolr/max_lr"]


def test_another_object_at_the_same_place_in_memory_is_other_data():
    class Data:
        pass

    memory, one, other = SearchMemory(), Data(), Data()
    memory.note_epoch(one, 12)
    assert (memory.batches_in_epoch(one), memory.batches_in_epoch(other)) == (12, None)
    memory.note_epoch(one, 3)  # the data ran out, say
    assert memory.batches_in_epoch(one) == 12
    memory.lengths[id(other)] = memory.lengths.pop(id(one))
    assert memory.batches_in_epoch(other) is None


@pytest.mark.parametrize(
    ("affordable", "expected"),
    [(364, (100, 264)), (400, (100, 300)), (652, (100, 552)), (1228, (100, 1128)), (9999, (100, 1128))],
)
def test_what_is_left_is_for_the_longest_bursts(affordable, expected):
    assert range_test_budget(10 * affordable, share=0.1, most=RANGE_TEST_STEPS) == expected


@pytest.mark.parametrize("number", [5, 40])
def test_a_generator_is_played_again_and_then_whole(number):
    replay = Replay(iter(range(number)))
    assert replay.first() == 0
    early = replay.replay()
    assert [next(early) for _ in range(7)] == [n % number for n in range(7)]
    again = replay.replay()
    assert next(again) == 0
    assert list(early) == []  # a reader left over from before gets nothing more
    rest = replay.release()
    assert isinstance(rest, types.GeneratorType)  # Keras takes nothing else
    assert list(rest) == list(range(number))
    assert list(again) == []


def test_what_a_training_leaves_of_a_generator_is_the_next_ones():
    replay = Replay(iter(range(10)))
    test = replay.replay()
    assert [next(test) for _ in range(7)] == list(range(7))
    first = replay.release()
    assert [next(first) for _ in range(3)] == [0, 1, 2]
    assert next(replay.replay()) == 3
    assert list(first) == []
    assert list(replay.release()) == list(range(3, 10))


def test_a_generator_may_fill_the_same_arrays_again_and_again():
    def refilled():
        x, other = np.zeros((2, 3)), scipy.sparse.csr_matrix(np.ones((2, 2)))
        for number in range(6):
            x[:] = other.data[:] = number
            yield {"x": x, "other": other}, (x[:, 0],)

    replay = Replay(refilled())
    test = replay.replay()
    for _ in range(4):
        next(test)
    seen = [(x["x"][0, 0], x["other"].data[1], y[0]) for x, (y,) in replay.release()]
    assert seen == [(number, number, number) for number in range(6)]


def test_what_ends_a_generator_ends_the_training_too(tmp_path):
    """Else the trial would be ranked as if it had trained: who asks a broken generator again hears of its end only."""

    def damaged():
        for number in range(30):
            if number == 12:
                raise OSError("file 12 is damaged")
            yield np.ones((4, 6)), np.zeros(4)

    replay = Replay(damaged())
    test = replay.replay()
    with pytest.raises(OSError, match="damaged"):
        list(test)
    rest = replay.release()
    assert len([next(rest) for _ in range(12)]) == 12
    with pytest.raises(RuntimeError, match="ended with an error: OSError: file 12 is damaged"):
        next(rest)

    tuner = autolr.RandomSearch(lambda hp: model(), "loss", max_trials=1, directory=tmp_path)
    tuner.search(damaged(), steps_per_epoch=10, epochs=2, verbose=0)
    (trial,) = tuner.oracle.trials.values()
    assert trial.status == "FAILED"
    assert "file 12 is damaged" in trial.message


def test_what_is_remembered_of_a_generator_is_forgotten_with_it():
    memory = SearchMemory()
    source = (number for number in range(5))
    assert memory.replayable(source).first() == 0
    assert list(memory.replayable(source).release()) == list(range(5))
    assert len(memory.streams) == 1
    del source
    gc.collect()
    assert not memory.streams


@pytest.mark.slow
def test_a_gan_is_told_of_once_and_keeps_its_rates(tmp_path):
    outcome = search(Setup(adversaries, options={"max_trials": 2}, space=two_points), tmp_path)
    assert len(outcome.trials) == 2
    assert len(outcome.warned) == 1
    assert "optimizers of its own" in outcome.warned[0]


def two_points():
    hp = kt.HyperParameters()
    hp.Choice("unused", [1, 2])
    for name in ("cycle_length", "mult_factor", "lr_decay"):
        hp.Fixed(name, 1)
    return hp


@pytest.mark.slow
def test_conflicting_callbacks_are_told_of_once_in_a_search(tmp_path):
    callbacks = [keras.callbacks.ReduceLROnPlateau("loss"), keras.callbacks.LearningRateScheduler(lambda epoch: 0.5)]
    setup = Setup(lambda hp: model(), {"callbacks": callbacks}, options={"max_trials": 2}, space=two_points)
    told = [text for text in search(setup, tmp_path).warned if "Callbacks that set" in text]
    assert len(told) == 1
    assert "LearningRateScheduler, ReduceLROnPlateau" in told[0]


def test_an_unknown_choice_for_rate_callbacks_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r'^Argument `rate_callbacks` must be "replace" or "keep".*Received: '):
        autolr.RandomSearch(lambda hp: model(), "loss", max_trials=1, directory=tmp_path, rate_callbacks="theirs")


@pytest.mark.slow
@pytest.mark.parametrize("text", ['{"format": 1, "trial_id"', '{"somebody": "else\'s"}'], ids=["truncated", "foreign"])
def test_a_spoilt_record_is_told_of_and_replaced_by_the_next_trial_in_its_folder(tmp_path, capsys, text):
    outcome = search(Setup(), tmp_path)
    path = tmp_path / "search" / "trial_0" / "autolr.json"
    path.write_text(text)
    outcome.tuner.results_summary()
    assert "is no trial record of autolr" in capsys.readouterr().out
    # As after a kill in the first trial under plain Keras Tuner: the folder is there, the search is not.
    (tmp_path / "search" / "tuner0.json").unlink()
    again = search(Setup(), tmp_path)
    assert again.trials[0].status == "COMPLETED"
    assert records(again)[0].values == again.trials[0].hyperparameters.values


class OwnFit(keras.Sequential):
    """Takes few of the arguments that Keras's `fit` takes."""

    def fit(self, x, y, epochs=1, batch_size=32):
        return super().fit(x, y, epochs=epochs, batch_size=batch_size, verbose=0)


class FitsItself(kt.HyperModel):
    def build(self, hp):
        return model(cls=OwnFit)

    def fit(self, hp, model, x, y, **kwargs):
        return model.fit(x, y, epochs=2)


def test_a_fit_that_takes_no_callbacks_trains_without_autolr(tmp_path):
    outcome = search(Setup(FitsItself()), tmp_path)
    assert [trial.status for trial in outcome.trials] == ["COMPLETED"]
    assert any("takes no `callbacks`" in text for text in outcome.warned)
    assert outcome.tuner._autolr_memory.unassisted == [trial.trial_id for trial in outcome.trials]


@keras.saving.register_keras_serializable("test_dropin_trials")
class WeightedByClass(keras.losses.Loss):
    def __init__(self, weights, name="weighted"):
        super().__init__(name=name)
        self.weights = weights

    def call(self, y, prediction):
        return sum(self.weights.values()) * keras.ops.mean(prediction**2, axis=-1)

    def get_config(self):
        return {"weights": self.weights, "name": self.name}


@pytest.mark.parametrize("keys", [[np.int64(0), np.int64(1)], [0, "one"], [(0, 1), (2, 3)]])
def test_setups_are_told_apart_whatever_the_keys_of_a_config_are(keys):
    def setup(first):
        made = sequential()
        made.compile("sgd", WeightedByClass(dict(zip(keys, (first, 0.5), strict=True))))
        return compiled_setup(made, {"x": np.zeros((8, 6))})

    assert setup(0.5) == setup(0.5) != setup(0.7)


def scaled(factor):
    def loss(y, prediction):
        return factor * keras.ops.mean(prediction**2, axis=-1)

    return loss


def powered(y, prediction, power):
    return keras.ops.mean(prediction**power, axis=-1)


class Scaled(keras.losses.Loss):
    """Without a `get_config`; Keras numbers its names."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, y, prediction):
        return self.factor * keras.ops.mean(prediction**2, axis=-1)


def scaled_within(factor):
    class ScaledWithin(keras.losses.Loss):
        def call(self, y, prediction):
            return factor * keras.ops.mean(prediction**2, axis=-1)

    return ScaledWithin


class Callable:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, y, prediction):
        return self.factor * keras.ops.mean(prediction**2, axis=-1)


def nested(power):
    """Functions of one name, whose inner ones differ in a constant."""
    source = f"def loss(y, prediction): return keras.ops.mean((lambda z: z ** {power})(prediction), axis=-1)"
    scope = {"keras": keras}
    exec(source, scope)
    return scope["loss"]


squared, cubed = nested(2), nested(3)


@pytest.mark.parametrize(
    "loss",
    [
        scaled,
        Scaled,
        lambda factor: scaled(np.full(3, factor)),
        lambda factor: partial(powered, power=factor),
        lambda factor: {2: "mse", 3: "mae"}[factor],
        lambda factor: [scaled(factor)],
        lambda factor: keras.losses.Huber(delta=factor),
        lambda factor: scaled(keras.ops.full((3,), factor)),
        lambda factor: scaled_within(factor)(),
        Callable,
        lambda factor: cubed if factor == 3 else squared,
    ],
    ids=["closure", "object", "array", "partial", "name", "list", "keras", "tensor", "class", "callable", "nested"],
)
def test_losses_of_one_name_are_told_apart_by_what_they_do(loss):
    def setup(factor):
        made = sequential()
        made.compile("sgd", loss(factor))
        return compiled_setup(made, {"x": np.zeros((8, 6))})

    assert setup(2) == setup(2) != setup(3)


def test_a_small_fall_of_weights_that_a_trial_has_trained_before_is_no_matter():
    memory = SearchMemory()
    curve = autolr.RangeTest(np.geomspace(1e-7, 10, 40), np.ones(40), bursts=(Burst(1e-3, 0.0, 24),))
    for status in ("ok", "small_fall"):
        memory.note_test("0", curve, autolr.LRBounds(1e-3, 1e-2, status, "It fell.", "high"))
    assert memory.summaries() == []
    memory.note_test("0", curve, autolr.LRBounds(1e-3, 1e-2, "non_finite", "Not a number.", "low"))
    (doubtful,) = memory.summaries()
    assert "non_finite: trial 0" in doubtful


def test_a_report_tells_once_that_the_rates_of_all_trials_are_not_used(tmp_path):
    def build(hp):
        return model(keras.optimizers.SGD(hp.Float("rate", 1e-3, 0.1, sampling="log")))

    outcome = search(Setup(build), tmp_path, max_trials=2)
    assert len({trial.hyperparameters.values["rate"] for trial in outcome.trials}) == 2
    page = autolr.write_report(outcome.tuner, tmp_path / "report.html").read_text()
    assert page.count("that the model is compiled with is not used") == 1


def test_the_summary_says_of_a_failed_trial_that_it_is_one(tmp_path, data, capsys):
    class Fails(kt.HyperModel):
        def build(self, hp):
            return plain()

        def fit(self, hp, model, *args, **kwargs):
            model.fit(*args, **kwargs)
            raise ValueError("afterwards")

    tuner = autolr.RandomSearch(Fails(), "loss", max_trials=1, directory=tmp_path, max_consecutive_failed_trials=2)
    tuner.search(*data, epochs=1, verbose=0)
    (trial,) = tuner.oracle.trials.values()
    said = summarise(trial, tuner.get_trial_dir(trial.trial_id))
    assert said.startswith(f"failed, {trial.hyperparameters.values['autolr/min_lr']:.2e} to")


def test_a_search_says_at_its_end_of_which_trials_the_bounds_were_in_doubt():
    memory = SearchMemory()
    curve = autolr.RangeTest(np.geomspace(1e-7, 10, 40), np.ones(40))
    with_bursts = replace(curve, bursts=(Burst(1e-3, 0.0, 24),))
    assert memory.summaries() == []
    memory.note_test("0", curve, autolr.LRBounds(1e-3, 1e-2, "ok", "It fell.", "high"))
    assert memory.summaries() == []
    memory.note_test("1", curve, autolr.LRBounds(1e-3, 1e-2, "ok", "It fell.", "low"))
    for name in "23456789":
        memory.note_test(name, with_bursts, autolr.LRBounds(1e-3, 1e-2, "small_fall", "Hardly.", "low"))
    memory.note_test("10", None, autolr.LRBounds(1e-3, 1e-2, "failed", "An error.", "low"))
    guesses, doubtful = memory.summaries()
    assert guesses.startswith("1 of 11 range tests were too short")
    assert doubtful.startswith("9 of 11 range tests found no bounds beyond doubt")
    assert "(failed: trial 10; small_fall: trials 2, 3, 4, 5, 6 and 3 more)" in doubtful
    for name in ("1", "10"):
        memory.forget(name)  # failed: the rate is not to blame
    (doubtful,) = memory.summaries()
    assert doubtful.startswith("8 of 9 range tests found")
    assert "failed" not in doubtful


@pytest.mark.parametrize(
    ("optimizer", "usual"),
    [("adam", 1e-3), (keras.optimizers.SGD(0.5), 1e-2), ("adadelta", 1.0)],
    ids=["Adam", "SGD", "Adadelta"],
)
def test_where_noise_hides_everything_a_trial_has_its_optimizers_usual_rate(optimizer, usual):
    noise = np.random.default_rng(0).normal(size=40)
    test, plain = autolr.RangeTest(np.geomspace(1e-7, 10, 40), noise), compiled(sequential(), optimizer)
    assert test.bounds().status == "too_noisy"
    bounds = judged(test, plain.optimizer)
    assert (bounds.status, bounds.confidence) == ("too_noisy", "low")
    assert tuple(bounds) == pytest.approx((usual / 25, usual))
    assert "usual rate" in bounds.reason
    assert "last rate" not in bounds.reason


@pytest.mark.parametrize(("default", "usual"), [(0.5, 0.5), (1, 1.0), (0.0, 1e-3), (math.inf, 1e-3), (None, 1e-3)])
def test_a_default_that_is_no_rate_is_not_usual(default, usual):
    class Own(keras.optimizers.SGD):
        def __init__(self, learning_rate=default, **options):
            super().__init__(0.1, **options)

    assert usual_rate(Own()) == usual


def test_after_a_test_of_too_few_steps_a_trial_has_its_optimizers_usual_rate():
    test = autolr.RangeTest(np.geomspace(1e-7, 10, 5), np.ones(5))
    bounds = judged(test, compiled(sequential(), "adadelta").optimizer)
    assert (*bounds, bounds.status) == (1 / 25, 1.0, "too_few_points")
    assert "range_test_min_steps" in bounds.reason


class LooksFirst(kt.HyperModel):
    """Looks at the model's range test before it trains it."""

    def build(self, hp):
        hp.Choice("units", [3, 4])
        return model()

    def fit(self, hp, model, *args, **kwargs):
        low, high = range_test(model, *args, num_steps=20, burst_steps=0).bounds()
        assert 0 < low < high
        return model.fit(*args, **kwargs)


def test_a_range_test_of_the_users_own_within_a_trial_is_none_of_autolrs(tmp_path):
    outcome = search(Setup(LooksFirst()), tmp_path)
    assert [trial.status for trial in outcome.trials] == ["COMPLETED"] * len(outcome.trials)
    assert {record.source for record in records(outcome)} == {"range test"}
    assert {record.training["fits"] for record in records(outcome)} == {1}
    assert not [text for text in outcome.warned if "range test raised" in text or "left out" in text]


def test_each_kind_of_error_of_a_range_test_is_told_once(tmp_path, monkeypatch):
    errors = iter([ValueError("one thing"), ValueError("one thing"), OSError("another thing")])

    def fail(*args, **kwargs):
        raise next(errors)

    monkeypatch.setattr("autolr.trial_bounds.run_range_test", fail)
    told = search(Setup(lambda hp: model(hp.Choice("rate", [0.1, 0.2, 0.3]) and "sgd")), tmp_path, max_trials=3).warned
    assert [("one thing" in it, "another thing" in it) for it in told] == [(True, False), (False, True)]


def test_no_name_of_autolrs_can_be_one_of_a_users_tuner():
    documented = {"get_best_ensemble"}
    for kind in (autolr.AutoLRMixin, *autolr.AutoLRMixin.__mro__[1:-1]):
        own = {name for name in vars(kind) if not name.startswith("__") and not hasattr(kt.Tuner, name)}
        assert {name for name in own - documented if not name.startswith("_autolr_")} == set()


class Frozen(kt.HyperModel):
    """Trains with a first layer that is frozen, then all of it."""

    def build(self, hp):
        hp.Choice("units", [3, 4, 5, 6])
        return model()

    def fit(self, hp, model, *args, **kwargs):
        for trainable in (False, True):
            model.layers[0].trainable = trainable
            model.compile("sgd", model.loss)
            history = model.fit(*args, **kwargs)
        return history


def test_a_trial_trained_in_several_ways_keeps_the_bounds_of_each(tmp_path, capsys):
    outcome = search(Setup(Frozen()), tmp_path, max_trials=1)
    (trial,), (record,) = outcome.trials, records(outcome)
    (first,) = record.earlier
    assert record.ways == 2
    assert first != record.bounds
    assert trial.hyperparameters.values["autolr/max_lr"] == record.bounds["max_lr"]
    outcome.tuner.results_summary()
    rates = [f"{its['min_lr']:.2e} to {its['max_lr']:.2e}" for its in (first, record.bounds)]
    assert " and then ".join(rates) in capsys.readouterr().out
    page = autolr.write_report(outcome.tuner, tmp_path / "report.html").read_text()
    assert f"repeat what came before it, at {rate(first['min_lr'])} to {rate(first['max_lr'])}." in page


@pytest.mark.slow
def test_a_later_rung_whose_parent_trained_in_several_ways_tests_each(tmp_path):
    outcome = search(Setup(Frozen(), tuner=hyperband), tmp_path)
    later = [
        record
        for trial, record in zip(outcome.trials, records(outcome), strict=True)
        if "tuner/trial_id" in trial.hyperparameters.values
    ]
    assert later
    assert {record.source for record in later} == {"range test"}


@pytest.mark.slow
def test_executions_are_no_ways_of_training(tmp_path):
    outcome = search(Setup(named, tuner=hyperband, options={"executions_per_trial": 2}), tmp_path)
    later = [
        (trial.hyperparameters.values["tuner/trial_id"], record)
        for trial, record in zip(outcome.trials, records(outcome), strict=True)
        if "tuner/trial_id" in trial.hyperparameters.values
    ]
    assert later
    for parent, record in later:
        assert record.source == f"trial {parent}"


def test_a_kill_leaves_no_half_of_the_tuners_file(tmp_path, monkeypatch):
    tuner = autolr.RandomSearch(lambda hp: plain(), "loss", max_trials=1, directory=tmp_path)
    tuner.save()
    path = Path(tuner.project_dir) / "tuner0.json"
    whole = path.read_text()

    def cut_short(file, content):
        Path(file).write_text("")
        raise KeyboardInterrupt

    monkeypatch.setattr(tuner.oracle, "save", lambda: None)
    monkeypatch.setattr("keras_tuner.src.engine.stateful.utils.save_json", cut_short)
    with pytest.raises(KeyboardInterrupt):
        tuner.save()
    assert path.read_text() == whole
    assert sorted(file.name for file in path.parent.glob("tuner*")) == ["tuner0.json"]


def test_a_search_warns_of_early_stopping_within_cycles(tmp_path):
    callbacks = [keras.callbacks.EarlyStopping("loss", patience=1)]
    outcome = search(Setup(fit={"callbacks": callbacks, "epochs": 3}), tmp_path)
    assert any("CycleEarlyStopping" in text for text in outcome.warned)


@pytest.mark.parametrize("options", [{}, {"baseline": 0.1}, {"start_from_epoch": 2}])
@pytest.mark.parametrize("patience", [0, 1, 3, 50])
def test_early_stopping_within_cycles_is_known_beforehand(options, patience):
    """By what Keras itself does where nothing ever gets better."""
    epochs, stop = 6, keras.callbacks.EarlyStopping("loss", patience=patience, **options)
    stop.set_model(one_weight())
    stop.on_train_begin()
    stop.model.stop_training, trained = False, 0
    while trained < epochs and not stop.model.stop_training:
        stop.on_epoch_end(trained, {"loss": 1.0})
        trained += 1
    assert stop_within_cycles([stop], epochs) == (trained < epochs)


def test_a_distributed_dataset_tells_its_size_by_a_number():
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    dataset = tf.data.Dataset.from_tensor_slices((np.zeros((24, 6), "float32"), np.zeros(24))).batch(8)
    assert count_batches(strategy.experimental_distribute_dataset(dataset)) == 3


def test_the_first_of_optional_inputs_may_be_missing():
    assert count_batches({"a": None, "b": np.zeros((24, 3))}, batch_size=8) == 3


def test_a_warning_shows_the_users_own_line(tmp_path):
    x, y = np.full((64, 6), np.nan, "float32"), np.zeros(64)
    tuner = autolr.RandomSearch(lambda hp: plain(), "loss", max_trials=1, directory=tmp_path)
    with pytest.warns(AutoLRWarning) as caught:
        tuner.search(x, y, epochs=1, verbose=0)
    assert {warning.filename for warning in caught if warning.category is AutoLRWarning} == {__file__}


def test_ctrl_c_says_how_to_go_on(tmp_path, capsys):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    x, y = np.zeros((64, 6), "float32"), np.zeros(64)
    tuner = autolr.RandomSearch(lambda hp: plain(), "loss", max_trials=1, directory=tmp_path)
    for verbose, said in ((2, True), (0, False)):
        with pytest.raises(KeyboardInterrupt):
            tuner.search(x, y, epochs=1, verbose=verbose, callbacks=[Interrupt()])
        hint = f"interrupted. To go on, make the tuner again and call `search`: {tmp_path}"
        assert (hint in capsys.readouterr().out) == said
    tuner = autolr.RandomSearch(lambda hp: plain(), "loss", max_trials=1, directory=tmp_path, overwrite=True)
    with pytest.raises(KeyboardInterrupt):
        tuner.search(x, y, epochs=1, verbose=2, callbacks=[Interrupt()])
    hint = f"To go on, make the tuner again, with `overwrite=False`, and call `search`: {tmp_path}"
    assert hint in capsys.readouterr().out  # as the script has it, the search would be gone


def test_a_search_that_had_ended_says_that_nothing_was_trained(tmp_path, data, capsys):
    options = {"max_trials": 1, "directory": tmp_path, "project_name": "p"}
    for said in (False, True):
        autolr.RandomSearch(lambda hp: plain(), "loss", **options).search(*data, epochs=1, verbose=2)
        assert ("nothing was trained: all 1 trials" in capsys.readouterr().out) == said
    more = autolr.RandomSearch(lambda hp: plain(hp.Choice("o", ["sgd", "adam"])), "loss", **options | {"max_trials": 2})
    more.search(*data, epochs=1, verbose=2)
    assert "nothing was trained" not in capsys.readouterr().out


def test_a_quiet_search_tells_a_report_when_it_began(tmp_path, data, capsys):
    before = datetime.now()
    tuner = autolr.RandomSearch(lambda hp: plain(), "loss", max_trials=1, directory=tmp_path)
    tuner.search(*data, epochs=1, verbose=0)
    assert before <= read_search(tuner).started <= datetime.now()
    assert list(tuner.oracle.get_state()["display"]["trial_start"]) == ["0"]
    assert not capsys.readouterr().out
    assert tuner.oracle.verbose == 0


def test_a_search_without_an_objective_says_so(tmp_path, data):
    search = autolr.RandomSearch(lambda hp: plain(), max_trials=1, directory=tmp_path)
    with pytest.raises(
        kt.errors.FatalValueError, match=r"\(loss, val_loss\)\. Received: objective=None\. Pass one .*HyperModel\.fit"
    ):
        search.search(*data, validation_split=0.25, epochs=1, verbose=0)


def test_a_mistyped_argument_is_keras_own_error_and_no_warning(tmp_path, data):
    search = autolr.RandomSearch(lambda hp: plain(), "val_loss", max_trials=1, directory=tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", AutoLRWarning)
        search.search(*data, validation_split=0.25, epoch=1, verbose=0)
    assert "unexpected keyword argument 'epoch'" in search.oracle.get_trial("0").message


def test_a_mistyped_objective_ends_the_search_in_its_first_epoch(tmp_path, data):
    def search_for(objective, name="search", **training):
        tuner = autolr.RandomSearch(
            lambda hp: plain(metrics=["accuracy"]),
            objective=objective,
            max_trials=1,
            range_test_min_steps=10,
            directory=tmp_path,
            project_name=name,
        )
        tuner.search(*data, epochs=2, verbose=0, **training)
        return tuner

    with pytest.raises(
        kt.errors.FatalValueError, match=r"`objective`.*\(accuracy, .*'val_acc'\. Perhaps `val_accuracy`"
    ):
        search_for("val_acc", validation_split=0.25)
    assert "`val_accuracy` is meant" in read_search(tmp_path / "search").problems[0]
    with pytest.raises(ValueError, match=r"objective='val_accuracy'\. Pass `validation_data` or `validation_split`"):
        search_for("val_accuracy")
    # The same search goes on with what was meant.
    trials = search_for("val_accuracy", validation_split=0.25).oracle.trials.values()
    assert [trial.status for trial in trials] == ["COMPLETED"]
    # Keras Tuner has a callback of TensorBoard's join one of Keras's, and nothing is reported by that either.
    board = keras.callbacks.TensorBoard(tmp_path / "logs", write_graph=False)
    with pytest.raises(kt.errors.FatalValueError, match=r"'val_los'\. Perhaps `val_loss`"):
        search_for(kt.Objective("val_los", "min"), name="watched", validation_split=0.25, callbacks=[board])
    with pytest.raises(ValueError, match=r"objective='zeal'\. Name one of these"):
        search_for([kt.Objective("loss", "min"), kt.Objective("zeal", "min")], name="several")


class Reporter(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        logs["zeal"] = 1.0 + epoch


class ReturnsItsOwn(kt.HyperModel):
    def build(self, hp):
        return plain()

    def fit(self, hp, model, *args, **kwargs):
        model.fit(*args, **kwargs)
        return {"zeal": 2.0}


@pytest.mark.parametrize(
    ("hypermodel", "callbacks"),
    [(lambda hp: plain(), [Reporter()]), pytest.param(ReturnsItsOwn(), [], marks=pytest.mark.slow)],
)
def test_an_objective_that_somebody_else_reports_is_taken(tmp_path, data, hypermodel, callbacks):
    tuner = autolr.RandomSearch(hypermodel, kt.Objective("zeal", "max"), max_trials=1, directory=tmp_path)
    tuner.search(*data, epochs=2, verbose=0, callbacks=callbacks)
    assert tuner.oracle.get_best_trials()[0].score == 2


def test_what_a_kill_has_left_of_a_chiefs_file_is_no_search(tmp_path, data):
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / ".0a1b-chief.json").write_text("")
    tuner = autolr.RandomSearch(lambda hp: plain(), "loss", max_trials=1, directory=tmp_path, project_name="search")
    tuner.search(*data, epochs=1, verbose=0)
    assert (tmp_path / "search" / "tuner0.json").exists()


class ReportsInTheEnd(keras.Sequential):
    def fit(self, *args, **kwargs):
        history = super().fit(*args, **kwargs)
        history.history["zeal"] = [3.0] * len(history.history["loss"])
        return history


class Ends(keras.callbacks.Callback):
    def on_train_end(self, logs=None):
        history = self.model.history.history
        history["zeal"] = [3.0] * len(history["loss"])


@pytest.mark.parametrize(
    ("cls", "callbacks"), [(ReportsInTheEnd, []), pytest.param(keras.Sequential, [Ends()], marks=pytest.mark.slow)]
)
def test_an_objective_that_is_reported_in_the_end_is_taken(tmp_path, data, cls, callbacks):
    options = {"max_trials": 1, "directory": tmp_path, "range_test_min_steps": 2}
    tuner = autolr.RandomSearch(lambda hp: compiled(cls(plain().layers)), kt.Objective("zeal", "max"), **options)
    tuner.search(*data, epochs=1, verbose=0, callbacks=callbacks)
    assert tuner.oracle.get_best_trials()[0].score == 3


class KeepsItsStop(kt.HyperModel):
    stop = autolr.CycleEarlyStopping()

    def build(self, hp):
        return plain(hp.Choice("optimizer", ["sgd", "ftrl"]))

    def fit(self, hp, model, *args, callbacks=(), **kwargs):
        return model.fit(*args, callbacks=[*callbacks, self.stop], **kwargs)


def test_stopping_at_ends_of_cycles_that_one_trial_had_is_left_out_of_another_without(tmp_path):
    setup = Setup(KeepsItsStop(), tuner=autolr.GridSearch, options={"range_test_min_steps": 2})
    outcome = search(setup, tmp_path, max_trials=2)
    assert [trial.status for trial in outcome.trials] == ["COMPLETED"] * 2
    assert any("no cycles for `CycleEarlyStopping` to judge" in text for text in outcome.warned)


def test_sizes_of_numpys_type_are_told_apart():
    one, other, same = (
        compiled_setup(plain(), {"x": np.zeros((64, 6)), "batch_size": size}) for size in (np.int64(4), np.int64(24), 4)
    )
    assert one != other
    assert one == same


def test_a_rung_that_trains_without_autolr_has_no_bounds_of_its_parent(tmp_path):
    class KeepsLater(kt.HyperModel):
        def build(self, hp):
            hp.Choice("units", [2, 3, 4, 5])
            return plain()

        def fit(self, hp, model, *args, callbacks=(), **kwargs):
            later = [keras.callbacks.ReduceLROnPlateau("loss")] if hp.values.get("tuner/initial_epoch") else []
            return model.fit(*args, callbacks=[*callbacks, *later], **kwargs)

    options = {"rate_callbacks": "keep", "range_test_min_steps": 2}
    outcome = search(Setup(KeepsLater(), tuner=hyperband, options=options), tmp_path)
    helped = {bool(it.hyperparameters.values.get("tuner/initial_epoch")): [] for it in outcome.trials}
    for trial in outcome.trials:
        values = trial.hyperparameters.values
        helped[bool(values.get("tuner/initial_epoch"))].append("autolr/max_lr" in values)
    assert all(helped[False])
    assert not any(helped[True])


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (kt.Objective("loss", "min"), kt.Objective("loss", "min"), None),
        (kt.Objective("loss", "min"), kt.Objective("loss", "max"), "loss (min), and goes on with loss (max)"),
        (["loss"], ["loss", "val_loss"], "loss (min), and goes on with loss (min), val_loss (min)"),
    ],
)
def test_a_search_that_goes_on_with_another_objective_says_so(tmp_path, data, before, after, told):
    def search_for(objective, max_trials, **options):
        options = {"directory": tmp_path, "range_test_min_steps": 2, **options}
        return autolr.RandomSearch(lambda hp: plain(), objective, max_trials=max_trials, **options)

    search_for(before, 1).search(*data, validation_split=0.25, epochs=1, verbose=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        search_for(after, 2)
    said = [str(it.message) for it in caught if "was begun with the objective" in str(it.message)]
    assert len(said) == (told is not None)
    assert told is None or told in said[0]
    (tmp_path / "untitled_project" / "trial_0" / "trial.json").write_text(
        (tmp_path / "untitled_project" / "trial_0" / "trial.json").read_text().replace("COMPLETED", "FAILED")
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*was begun with the objective")
        search_for(after, 2)  # nothing has a score


def test_who_may_report_at_the_end_of_training_is_known():
    ends = keras.callbacks.LambdaCallback(on_train_end=lambda logs: None)
    keras_own = [keras.callbacks.LambdaCallback(), keras.callbacks.EarlyStopping(), keras.callbacks.TensorBoard()]
    assert not has_own_end([*keras_own, autolr.CycleEarlyStopping(), LRFinder()])
    assert has_own_end([*keras_own, ends])
    assert has_own_end([Ends()])


def test_a_doubtful_test_of_a_trial_stays_doubtful_after_another():
    memory = SearchMemory()
    curve = autolr.RangeTest(np.geomspace(1e-7, 10, 40), np.ones(40))
    memory.note_test("0", None, autolr.LRBounds(1e-3, 1e-2, "failed", "An error.", "low"))
    memory.note_test("0", curve, autolr.LRBounds(1e-3, 1e-2, "ok", "It fell.", "high"))
    assert "failed: trial 0" in memory.summaries()[0]


def test_five_trials_are_named_and_no_more():
    memory = SearchMemory(unassisted=list("01234"))
    assert memory.summaries()[0].endswith("trials 0, 1, 2, 3, 4.")


def test_a_frozen_layer_is_another_setup():
    made = sequential()
    made.compile("sgd", "mse")
    before = compiled_setup(made, {})
    made.layers[0].trainable = False
    assert compiled_setup(made, {}) != before


def test_what_decides_no_step_makes_no_other_setup():
    made = sequential()
    made.compile("sgd", "mse")

    def setup(**arguments):
        return compiled_setup(made, {"x": np.zeros((8, 6)), **arguments})

    assert setup() == setup(batch_size=None, epochs=3, verbose=0, validation_data=(1, 2), validation_split=0.5)
    assert len({setup(), setup(shuffle=False), setup(batch_size=4), setup(validation_split=0.5)}) == 4


def test_losses_are_told_apart_by_defaults_that_are_given_by_name_alone():
    def setup(factor):
        def loss(y, prediction, *, by=factor):
            return by * keras.ops.mean(prediction**2, axis=-1)

        made = sequential()
        made.compile("sgd", loss)
        return compiled_setup(made, {"x": np.zeros((8, 6))})

    assert setup(2) == setup(2) != setup(3)


def test_a_look_at_a_batch_draws_no_random_number():
    made, before = plain(), python_state()
    compiled_setup(made, {"x": Batches(8, 6)})
    assert python_state() == before


def test_a_rate_is_no_part_of_what_a_range_test_depends_on():
    assert len({compiled_setup(plain(keras.optimizers.SGD(rate)), {}) for rate in (0.1, 0.2)}) == 1


def test_what_a_search_leaves_of_a_generator_is_the_next_ones(tmp_path):
    drawn = []

    def batches():
        while True:
            drawn.append(0)
            yield np.zeros((4, 6), "float32"), np.zeros(4)

    data, counts = batches(), []
    tuner = autolr.RandomSearch(lambda hp: plain(), "loss", max_trials=1, directory=tmp_path, range_test_steps=20)
    for trials in (1, 2):
        tuner.oracle.max_trials = trials
        tuner.search(data, steps_per_epoch=2, epochs=1, verbose=0)
        counts.append(len(drawn))
    assert counts[1] - counts[0] < 10 < counts[0]


def test_only_the_trial_of_a_worker_fails_for_its_objective(tmp_path, monkeypatch):
    tuner = autolr.RandomSearch(lambda hp: plain(), kt.Objective("val_los", "min"), max_trials=1, directory=tmp_path)
    for worker, error in ((False, kt.errors.FatalValueError), (True, kt.errors.FailedTrialError)):
        monkeypatch.setattr(compat_tuner, "is_worker", lambda tuner, worker=worker: worker)
        check = tuner._autolr_objective_check(tuner.oracle.create_trial("a"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(error):
                check.on_epoch_end(0, {"val_loss": 1.0})


def test_a_chief_is_not_asked_for_what_training_reports():
    check = ObjectiveCheck(kt.Objective("loss", "min"), noted=lambda: pytest.fail("asked"))
    check.on_epoch_end(0, {"loss": 1.0})


def test_of_several_objectives_the_one_that_nobody_reports_is_named():
    wanted = [kt.Objective("noted", "min"), kt.Objective("val_los", "min")]
    oracle = kt.oracles.RandomSearchOracle(objective=wanted, max_trials=1)
    check = ObjectiveCheck(oracle.objective, noted=lambda: ["noted"])
    with pytest.raises(kt.errors.FatalValueError, match="objective='val_los'"):
        check.on_epoch_end(0, {"val_loss": 1.0})
