"""Weights averaged at the ends of cycles: which steps count, who sees the average, and what is left alone."""

from __future__ import annotations

import itertools
from inspect import signature

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import LOSS, RateSpy, assert_same_arrays, compiled, one_weight, plain, sequential, state_of
from hypothesis import given
from hypothesis import strategies as st

from autolr import RandomSearch, SGDRScheduler, averaged_weights, snapshot_ensemble
from autolr.averaging import SAMPLES, SPACING, TailAverage, averaged_variables
from autolr.batchnorm import gather_statistics
from autolr.cycle_ends import snapshot_paths

X, Y = np.ones((40, 1), "float32"), np.zeros((40, 1), "float32")


class AfterEachStep(keras.callbacks.Callback):
    """Notes the weights after each step, and at the ends of epochs; after the scheduler."""

    def on_train_begin(self, logs=None):
        self.steps, self.epochs = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append([np.array(weight) for weight in self.model.get_weights()])

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append([np.array(weight) for weight in self.model.get_weights()])


def fit(model, schedule, *callbacks, x=X, y=Y, batch_size=4, epochs=4, **arguments):
    return model.fit(
        x, y, batch_size=batch_size, epochs=epochs, callbacks=[schedule, *callbacks], verbose=0, **arguments
    )


def mean_of(weights):
    return [np.mean(list(each), axis=0) for each in zip(*weights, strict=True)]


def assert_close(left, right):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_the_model_gets_the_mean_of_its_weights_in_the_tail_and_goes_on_from_there():
    """Two cycles of 20 steps; a tail of an eighth of 40 steps: what the weights were after steps 15 to 20."""
    spy = AfterEachStep()
    model = one_weight()
    fit(model, SGDRScheduler(0.125, 0.125, cycle_length=2, mult_factor=1, tail_average=0.125), spy)
    # The weight falls by 0.125 a step: the mean of -15/8 to -20/8 is -17.5/8, and the next step goes on from it.
    assert spy.steps[14][0].item() == pytest.approx(-15 / 8)
    assert spy.epochs[1][0].item() == pytest.approx(-17.5 / 8)
    assert spy.steps[20][0].item() == pytest.approx(-18.5 / 8)
    assert spy.epochs[0][0].item() == spy.steps[9][0].item()  # no cycle ends there
    assert model.get_weights()[0].item() == pytest.approx((-17.5 - 17.5) / 8)


def test_a_tail_is_no_longer_than_half_of_its_cycle():
    spy = AfterEachStep()
    fit(one_weight(), SGDRScheduler(0.125, 0.125, cycle_length=1, mult_factor=1, tail_average=0.9), spy)
    assert spy.epochs[0][0].item() == pytest.approx(-np.mean([5, 6, 7, 8, 9, 10]) / 8)


def test_validation_and_snapshots_see_the_average(data, tmp_path):
    keras.utils.set_random_seed(0)
    x, y = data
    model, spy = compiled(sequential(), "sgd"), AfterEachStep()
    schedule = SGDRScheduler(
        0.05, 0.2, cycle_length=2, mult_factor=1, tail_average=0.25, snapshot_folder=tmp_path, restore_weights=False
    )
    history = fit(model, schedule, spy, x=x, y=y, batch_size=8, validation_data=(x, y)).history
    expected = mean_of(spy.steps[done - 1] for done in (24, 28, 32))  # a tail of 8 steps, sampled not too often
    for variable, weight, mean in zip(model.weights, model.get_weights(), expected, strict=True):
        if "moving" not in variable.name:  # of which more below
            np.testing.assert_allclose(weight, mean, rtol=1e-4, atol=1e-6)
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(spy.steps[-1], expected, strict=True))
    assert_same_arrays(schedule.cycle_end_weights, model.get_weights())
    assert history["val_loss"][-1] == pytest.approx(model.evaluate(x, y, verbose=0)[0], rel=1e-5)
    last = snapshot_ensemble(model, tmp_path, last=1)
    np.testing.assert_allclose(last.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-4, atol=1e-6)


def test_the_default_changes_nothing(data):
    x, y = data
    states = []
    for options in ({}, {"tail_average": 0}):
        keras.utils.set_random_seed(0)
        model, spy = plain(), AfterEachStep()
        fit(model, SGDRScheduler(1e-3, 1e-2, cycle_length=2, **options), spy, x=x, y=y, validation_data=(x, y))
        assert_same_arrays(spy.epochs[-1], spy.steps[-1])
        states.append(state_of(model))
    assert_same_arrays(*states)


def test_one_instance_serves_two_fits_and_a_resumed_one():
    schedule = SGDRScheduler(0.125, 0.125, cycle_length=4, tail_average=0.25)
    first, second, resumed = one_weight(), one_weight(), one_weight()
    for model in (first, second):
        fit(model, schedule)
    assert_same_arrays(first.get_weights(), second.get_weights())
    assert first.get_weights()[0].item() == pytest.approx(-35 / 8)
    fit(resumed, schedule, initial_epoch=3)  # steps 30 to 40, sampled before the first of them and after 33, 37 and 40
    assert resumed.get_weights()[0].item() == pytest.approx(-np.mean([0, 3, 7, 10]) / 8)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_a_training_resumed_where_a_tail_begins_ends_as_if_it_had_not_stopped(share):
    def schedule():
        return SGDRScheduler(0.05, 0.25, cycle_length=4, tail_average=share)

    whole, resumed, before = one_weight(), one_weight(), round(4 * (1 - share))
    fit(whole, schedule())
    fit(resumed, SGDRScheduler(0.05, 0.25, cycle_length=4), epochs=before)
    unaveraged = resumed.get_weights()
    fit(resumed, schedule(), initial_epoch=before)
    np.testing.assert_allclose(resumed.get_weights()[0], whole.get_weights()[0], rtol=1e-6)
    assert not np.allclose(unaveraged[0], whole.get_weights()[0])


@pytest.mark.parametrize("several", [5, 10])
def test_with_several_steps_per_execution_there_are_fewer_samples(several):
    model, spy = one_weight(steps_per_execution=several), AfterEachStep()
    fit(model, SGDRScheduler(0.125, 0.125, cycle_length=2, mult_factor=1, tail_average=0.25), spy)
    # After 10, 15 and 20 steps or 10 and 20, and so on from there; nothing of the first cycle counts in the second.
    ends = [epoch[0].item() * 8 for epoch in spy.epochs]
    assert ends == pytest.approx([-10, -15, -25, -30])


def test_an_epoch_shorter_than_planned_takes_nothing_from_its_cycle_to_the_next():
    """15 steps an epoch are promised, 10 are there, which Keras can't know.

    A tail has 15 steps: the second epoch of a cycle, before whose steps 1, 4, 7 and 10 weights are sampled, and at its
    end.
    """
    model, spy = one_weight(), AfterEachStep()
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4).filter(lambda x, y: True)
    schedule = SGDRScheduler(
        0.125, 0.125, cycle_length=2, mult_factor=1, tail_average=0.25, steps_per_epoch=15, restore_weights=False
    )
    fit(model, schedule, spy, x=data, y=None, batch_size=None)
    mean = (10 + 13 + 16 + 19 + 20) / 5
    assert [epoch[0].item() * 8 for epoch in spy.epochs] == pytest.approx([-10, -mean, -mean - 10, -2 * mean])


def test_only_validation_at_the_end_of_a_cycle_averages(data):
    model, schedule = one_weight(), SGDRScheduler(0.125, 0.125, cycle_length=4, tail_average=0.5)
    model.evaluate(X, Y, callbacks=[schedule], verbose=0)  # of a schedule that has trained nothing
    assert model.get_weights()[0].item() == 0

    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if len(schedule.history["step"]) == 35:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, schedule, Interrupt())
    for _ in range(2):
        assert model.get_weights()[0].item() == pytest.approx(-35 / 8)
        model.evaluate(X, Y, callbacks=[schedule], verbose=0)
    again = one_weight()
    fit(again, schedule)  # nothing is left of the interrupted one
    assert again.get_weights()[0].item() == pytest.approx(-30 / 8)


def test_a_training_stopped_inside_a_cycle_is_not_averaged():
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = len(schedule.history["step"]) == 37

    model, schedule = one_weight(), SGDRScheduler(0.125, 0.125, cycle_length=4, tail_average=0.5)
    fit(model, schedule, Stop(), validation_data=(X, Y))
    assert model.get_weights()[0].item() == pytest.approx(-37 / 8)


def test_a_mean_obeys_constraints(data):
    x, y = data
    top = keras.layers.Dense(3, activation="softmax", kernel_constraint="unit_norm")
    model = keras.Sequential([keras.Input((6,)), top])
    model.compile(keras.optimizers.SGD(0.5), LOSS)
    fit(model, SGDRScheduler(0.5, 0.5, cycle_length=4, tail_average=0.5), x=x, y=y, batch_size=8)
    np.testing.assert_allclose(np.linalg.norm(model.get_weights()[0], axis=0), 1, rtol=1e-5)


def test_data_of_unknown_size_are_averaged_once_the_size_is_known():
    def batches():
        for _ in range(10):
            yield X[:4], Y[:4]

    tensorflow = pytest.importorskip("tensorflow")
    data = tensorflow.data.Dataset.from_generator(
        batches, output_signature=(tensorflow.TensorSpec((4, 1)), tensorflow.TensorSpec((4, 1)))
    )
    model, spy = one_weight(), AfterEachStep()
    schedule = SGDRScheduler(0.125, 0.125, cycle_length=1, mult_factor=1, tail_average=0.05)
    model.fit(data, epochs=3, callbacks=[schedule, spy], verbose=0)
    ends = [epoch[0].item() * 8 for epoch in spy.epochs]
    # The first epoch's is what its last step left; of the others, the mean of its last steps' weights.
    assert ends == pytest.approx([-10, -19, -28])


def test_what_averages_by_itself_is_left_alone(data):
    x, y = data
    ends = []
    for share in (0, 0.5):
        keras.utils.set_random_seed(0)
        model = compiled(sequential(), keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9))
        fit(model, SGDRScheduler(0.01, 0.1, cycle_length=2, tail_average=share), x=x, y=y)
        ends.append(model.get_weights())
    assert_same_arrays(*ends)


class Masked(keras.layers.Layer):
    """Has infinite constants, as attention masks do."""

    def build(self, shape):
        values = keras.initializers.Constant(-np.inf)
        self.mask = self.add_weight(shape=(2,), initializer=values, trainable=False, name="mask")

    def call(self, x):
        return x


def test_an_infinite_constant_stays_what_it_is():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1), Masked()])
    model.compile("sgd", "mse")
    fit(model, SGDRScheduler(0.01, 0.1, cycle_length=2, tail_average=0.5))
    assert np.all(model.layers[-1].get_weights()[0] == -np.inf)


class Counting(keras.layers.Layer):
    """Has a weight that is no float: how often it was called."""

    def build(self, shape):
        self.count = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False, name="count")

    def call(self, x):
        self.count.assign_add(1)
        return x


def test_a_count_stays_a_count_and_half_precision_is_gathered_in_single(data):
    x, y = data
    top = keras.layers.Dense(3, activation="softmax", dtype="float16")
    model = keras.Sequential([keras.Input((6,)), Counting(), top])
    model.compile(keras.optimizers.SGD(0.1), LOSS)
    spy = AfterEachStep()
    fit(model, SGDRScheduler(0.1, 0.1, cycle_length=4, tail_average=0.25), spy, x=x, y=y, batch_size=8)
    count, kernel = (np.array(weight) for weight in (model.layers[0].count, top.kernel))
    assert count == 32
    expected = np.mean([spy.steps[done - 1][1].astype("float32") for done in (24, 28, 32)], axis=0)
    assert kernel.dtype == np.float16
    np.testing.assert_allclose(kernel, expected, rtol=2e-3, atol=1e-3)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=6), st.integers(1, 2000))
def test_samples_lie_in_the_second_half_of_their_cycle_and_are_few(lengths, length):
    edges = np.cumsum([0, *lengths])
    due = [step for step, _ in TailAverage(edges, length)._due]
    assert due == sorted(set(due))
    for begin, end in itertools.pairwise(edges):
        its = [step for step in due if begin <= step < end]
        assert len(its) <= SAMPLES
        assert all(later - step >= SPACING for step, later in itertools.pairwise(its))
        assert all(step >= max(end - length, (begin + end) / 2) for step in its)
        assert its or end - begin == 1
    assert len(due) == sum(begin <= step < end for begin, end in itertools.pairwise(edges) for step in due)


@pytest.mark.parametrize("share", [-0.1, 1, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match=r"^Argument `tail_average` must be a share.*Received: tail_average="):
        SGDRScheduler(0.1, 1.0, tail_average=share)


class LastWeights(keras.callbacks.Callback):
    """What a training left; Keras Tuner copies callbacks, and the copies tell it here."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def __deepcopy__(self, memo):
        return self

    def on_train_end(self, logs=None):
        self.weights.append([np.array(weight) for weight in self.model.get_weights()])


@pytest.mark.parametrize(
    "share", [{}, *(pytest.param({"tail_average": share}, marks=pytest.mark.slow) for share in (0, 0.3))]
)
def test_a_trial_ends_with_the_average_and_its_hyperparameters_tell_how_to_get_it_again(share, data, tmp_path):
    x, y = data

    def build(hp):
        keras.utils.set_random_seed(0)
        return plain()

    spy = LastWeights()
    search = RandomSearch(build, objective="val_loss", max_trials=1, directory=tmp_path, **share)
    training = {"batch_size": 4, "epochs": 3, "validation_data": (x, y), "verbose": 0}
    search.search(x, y, callbacks=[spy], **training)
    (trial,) = search.oracle.trials.values()
    hp = search.get_best_hyperparameters()[0]
    schedule = SGDRScheduler.from_hyperparameters(hp)
    assert schedule.tail_average == share.get("tail_average", 0.1)
    again = build(hp)
    again.fit(x, y, callbacks=[schedule], **training)
    assert_same_arrays(spy.weights[-1], again.get_weights())
    assert search.get_best_models()[0].evaluate(x, y, verbose=0) == pytest.approx(trial.score, rel=1e-5)
    without = build(hp)
    without.fit(x, y, callbacks=[SGDRScheduler.from_hyperparameters(hp, tail_average=0)], **training)
    differs = any(np.any(a != b) for a, b in zip(without.get_weights(), again.get_weights(), strict=True))
    assert differs == (schedule.tail_average > 0)


def test_a_tuner_refuses_a_share_that_is_none(tmp_path):
    with pytest.raises(ValueError, match=r"^Argument `tail_average` must be a share"):
        RandomSearch(lambda hp: None, objective="val_loss", max_trials=1, directory=tmp_path, tail_average=1)


def drifting(batches, size=8):
    """Batches whose mean grows by one each, of three features."""
    x = np.random.default_rng(0).normal(size=(batches, size, 3)) + np.arange(batches)[:, None, None]
    return x.astype("float32")


@pytest.mark.parametrize("momentum", [0.99, 0.9])
def test_moving_statistics_become_those_of_the_tail_alone(momentum):
    """40 batches, a tail of 16: what the 24 before have left in the moving statistics is taken out."""
    batches = drifting(40)
    layer = keras.layers.BatchNormalization(momentum=momentum)
    model = keras.Sequential([keras.Input((3,)), layer, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    schedule = SGDRScheduler(1e-3, 1e-2, cycle_length=1, tail_average=0.4)
    x = batches.reshape(-1, 3)
    fit(model, schedule, x=x, y=np.zeros((len(x), 1), "float32"), batch_size=8, epochs=1, shuffle=False)
    for statistic, expected in (
        (layer.moving_mean, batches.mean(axis=1)),
        (layer.moving_variance, batches.var(axis=1)),
    ):
        np.testing.assert_allclose(np.asarray(statistic), expected[24:].mean(axis=0), rtol=0.02)


def test_statistics_that_stand_still_stay_and_those_of_a_layer_used_twice_are_averaged():
    frozen = keras.layers.BatchNormalization()
    twice = keras.layers.BatchNormalization()
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(1)(twice(keras.layers.Dense(3)(twice(frozen(inputs))))))
    frozen.moving_mean.assign([1.0, 2.0, 3.0])
    frozen.trainable = False
    model.compile("sgd", "mse")
    x, spy = drifting(40).reshape(-1, 3), AfterEachStep()
    y = np.zeros((len(x), 1), "float32")
    fit(model, SGDRScheduler(1e-5, 1e-4, cycle_length=1, tail_average=0.4), spy, x=x, y=y, batch_size=8, epochs=1)
    np.testing.assert_allclose(np.asarray(frozen.moving_mean), [1.0, 2.0, 3.0], rtol=1e-6)
    place = next(i for i, weight in enumerate(model.weights) if weight is twice.moving_mean)
    sampled = [spy.steps[done - 1][place] for done in (24, 27, 30, 34, 37, 40)]
    np.testing.assert_allclose(np.asarray(twice.moving_mean), np.mean(sampled, axis=0), rtol=0.02)


def test_a_channel_that_stands_still_has_a_variance_of_nothing_not_less():
    """What rounding leaves is divided by the little that 4 batches forget at a momentum of 0.999."""
    layer = keras.layers.BatchNormalization(momentum=0.999, epsilon=1e-7)
    model = keras.Sequential([keras.Input((64,)), layer, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    layer.moving_variance.assign(np.random.default_rng(2).uniform(0.1, 10, size=64))
    x, y = np.zeros((80, 64), "float32"), np.zeros((80, 1), "float32")
    fit(model, SGDRScheduler(1e-4, 1e-3, cycle_length=1, tail_average=0.2), x=x, y=y, epochs=1)
    assert np.min(np.asarray(layer.moving_variance)) >= 0
    assert np.max(np.asarray(layer.moving_variance)) < 0.05
    assert np.all(np.isfinite(model.predict(x, verbose=0)))


def test_a_short_training_with_batch_normalization_is_validated_on_fresh_statistics():
    """60 steps leave half of the initial statistics in place, the 18 of the tail nothing of them."""
    rng = np.random.default_rng(1)
    x = rng.normal(3.0, 2.0, size=(480, 8)).astype("float32")
    y = (x[:, 0] > 3).astype("int32")
    losses = []
    for share in (0, 0.3):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((8,)),
                keras.layers.BatchNormalization(),
                keras.layers.Dense(16, "relu"),
                keras.layers.BatchNormalization(),
                keras.layers.Dense(2, "softmax"),
            ]
        )
        model.compile(keras.optimizers.Adam(), LOSS)
        schedule = SGDRScheduler(1e-3, 1e-2, cycle_length=1, tail_average=share)
        history = fit(model, schedule, x=x, y=y, batch_size=8, epochs=1, validation_data=(x, y)).history
        losses.append(history["val_loss"][-1])
    assert losses[1] < 0.7 * losses[0]


class Freezes(keras.callbacks.Callback):
    """Two layers take turns in being trained, from one step to the next."""

    def on_train_batch_begin(self, batch, logs=None):
        for place, layer in enumerate(self.model.layers[:2]):
            layer.trainable = place == batch % 2


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="there a step fails unless it trains what was compiled")
def test_layers_frozen_within_a_tail_are_averaged_each_with_itself():
    kernels = [keras.layers.Dense(1, use_bias=False, kernel_initializer=kind) for kind in ("zeros", "ones")]
    model = keras.Sequential([keras.Input((1,)), *kernels, keras.layers.BatchNormalization()])
    model.compile("sgd", "mse")
    fit(model, SGDRScheduler(1e-9, 1e-8, cycle_length=1, tail_average=0.4), Freezes(), epochs=1)
    np.testing.assert_allclose([float(layer.kernel[0, 0]) for layer in kernels], [0, 1], atol=1e-5)


@keras.saving.register_keras_serializable("tests")
class Block(keras.layers.Layer):
    """Made of layers, the last of them only when it is built."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.dense = keras.layers.Dense(3)

    def build(self, shape):
        self.dense.build(shape)
        self.norm = keras.layers.BatchNormalization()
        self.norm.build((None, 3))

    def call(self, x, training=False):
        return self.norm(self.dense(x), training=training)


def test_statistics_within_a_layer_are_averaged_or_gathered_anew(tmp_path):
    batches = drifting(40)
    x = batches.reshape(-1, 3)
    model = keras.Sequential([keras.Input((3,)), Block()])
    model.layers[0].dense.kernel.assign(np.eye(3))
    model.compile("sgd", "mse")
    schedule = SGDRScheduler(1e-9, 1e-8, cycle_length=1, tail_average=0.4, snapshot_folder=tmp_path)
    spy = AfterEachStep()
    fit(model, schedule, spy, x=x, y=np.zeros((len(x), 3), "float32"), batch_size=8, epochs=1, shuffle=False)
    place = next(i for i, weight in enumerate(model.weights) if weight is model.layers[0].norm.moving_mean)
    # The layer may see each batch more than once, for all that the model's graph tells: averaged as it is.
    sampled = [spy.steps[done - 1][place] for done in (24, 27, 30, 34, 37, 40)]
    np.testing.assert_allclose(np.asarray(model.layers[0].norm.moving_mean), np.mean(sampled, axis=0), rtol=0.02)
    whole = x.mean(axis=0)
    with pytest.raises(ValueError, match="`x` must be data to gather the statistics"):
        averaged_weights(model, tmp_path)
    averaged = averaged_weights(model, tmp_path, x, batch_size=8)
    np.testing.assert_allclose(np.asarray(averaged.layers[0].norm.moving_mean), whole, rtol=0.02)


class Twins(keras.Model):
    """One layer for two views of each sample, as in contrastive learning."""

    def __init__(self):
        super().__init__()
        self.norm = keras.layers.BatchNormalization()

    def call(self, x, training=False):
        return self.norm(x, training=training) + self.norm(x + 1, training=training)


def twin_steps():
    norm = keras.layers.BatchNormalization()

    class TwinSteps(keras.Sequential):
        def train_step(self, batch):
            self(batch[0] + 1, training=True)
            return super().train_step(batch)

    return TwinSteps([keras.Input((3,)), norm])


STEPS_OF_TENSORFLOW = pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX calls another training step")


@pytest.mark.parametrize("make", [Twins, pytest.param(twin_steps, marks=STEPS_OF_TENSORFLOW)])
def test_a_layer_that_sees_each_batch_twice_unknown_to_any_graph_keeps_its_variance(make):
    rng = np.random.default_rng(0)
    x = rng.normal(5, 2, size=(320, 3)).astype("float32")
    model = make()
    model.compile("sgd", "mse")
    fit(
        model,
        SGDRScheduler(1e-9, 1e-8, cycle_length=1, tail_average=0.4),
        x=x,
        y=np.zeros((320, 3), "float32"),
        batch_size=8,
        epochs=1,
    )
    norm = next(layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))
    # Of 80 looks at a hundredth each, the means between 48 and 80: some two fifths of the way from 0 and 1.
    assert 1.5 < np.min(np.asarray(norm.moving_mean)) <= np.max(np.asarray(norm.moving_mean)) < 3.5
    assert 1.5 < np.min(np.asarray(norm.moving_variance)) <= np.max(np.asarray(norm.moving_variance)) < 3.5


def in_epochs_of(*lengths):
    """Data of unknown size, and a callback that gives each epoch so many batches."""
    now = [lengths[0]]

    def batches():
        for _ in range(now[0]):
            yield np.ones((1, 1), "float32"), np.zeros((1, 1), "float32")

    kinds = (tf.TensorSpec((1, 1)), tf.TensorSpec((1, 1)))
    data = tf.data.Dataset.from_generator(batches, output_signature=kinds)
    return data, keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: now.__setitem__(0, lengths[epoch]))


@pytest.mark.parametrize("lengths", [(20, 18, 20, 20), (20, 18, 20, 18), (20, 20, 20, 15)])
def test_a_cycle_that_ends_with_a_short_epoch_is_averaged_over_its_own_tail(lengths):
    """The weight falls by one a step: a tail of an eighth of 80 steps is the last ten planned, as far as they come."""
    (data, lengthen), model, spy = in_epochs_of(*lengths), one_weight(), AfterEachStep()
    schedule = SGDRScheduler(1.0, 1.0, cycle_length=2, mult_factor=1, tail_average=0.125)
    model.fit(data, epochs=4, callbacks=[lengthen, schedule, spy], verbose=0)
    assert len(spy.steps) == sum(lengths)
    weight = 0.0
    for epoch in (1, 3):
        trained = lengths[epoch - 1] + lengths[epoch]
        weight -= (30 + trained) / 2  # the mean from the 30th step of the cycle, which went on from the last mean
        assert spy.epochs[epoch][0].item() == pytest.approx(weight, abs=1.5)


def test_an_epoch_longer_than_planned_does_not_begin_the_next_cycle():
    (data, lengthen), spy = in_epochs_of(15, 15), RateSpy()
    schedule = SGDRScheduler(0.001, 0.1, cycle_length=1, mult_factor=1, steps_per_epoch=10)
    one_weight().fit(data, epochs=2, callbacks=[lengthen, schedule, spy], verbose=0)
    (rates,) = spy.fits
    assert len(rates) == 30
    assert rates[9:15] == [rates[9]] * 6
    assert max(rates[8:15]) < 0.02
    assert rates[15] == pytest.approx(0.1)


def test_a_layer_that_a_wrapper_calls_for_each_step_in_time_is_averaged_as_it_is():
    norm = keras.layers.BatchNormalization()
    model = keras.Sequential([keras.Input((4, 3)), keras.layers.TimeDistributed(norm), keras.layers.Flatten()])
    model.add(keras.layers.Dense(1))
    model.compile("sgd", "mse")
    x, spy = np.repeat(drifting(40).reshape(-1, 1, 3), 4, axis=1), AfterEachStep()
    y = np.zeros((len(x), 1), "float32")
    fit(model, SGDRScheduler(1e-5, 1e-4, cycle_length=1, tail_average=0.4), spy, x=x, y=y, batch_size=8, epochs=1)
    place = next(i for i, weight in enumerate(model.weights) if weight is norm.moving_mean)
    sampled = [spy.steps[done - 1][place] for done in (24, 27, 30, 34, 37, 40)]
    np.testing.assert_allclose(np.asarray(norm.moving_mean), np.mean(sampled, axis=0), rtol=0.02)


class Counts(keras.layers.Layer):
    """Counts its calls in training, in a number that is a float and is not trained."""

    def build(self, shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x, training=False):
        if training:
            self.calls.assign_add(1.0)
        return x


def test_what_is_not_trained_is_not_averaged(tmp_path):
    model = keras.Sequential([keras.Input((1,)), Counts(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    schedule = SGDRScheduler(0.01, 0.1, cycle_length=2, mult_factor=1, tail_average=0.25, snapshot_folder=tmp_path)
    fit(model, schedule)
    assert float(model.layers[0].calls) == 40
    averaged = averaged_weights(model, tmp_path)
    assert float(averaged.layers[0].calls) == 40  # the last snapshot's, not 30
    ends = [one.get_weights() for one in (averaged_weights(model, [path]) for path in snapshot_paths(tmp_path))]
    np.testing.assert_allclose(averaged.layers[1].kernel, np.mean([end[1] for end in ends], axis=0), rtol=1e-6)


def test_layers_frozen_after_training_are_averaged_too_and_stay_frozen(tmp_path):
    model, schedule = one_weight(), SGDRScheduler(0.125, 0.125, cycle_length=2, mult_factor=1, snapshot_folder=tmp_path)
    fit(model, schedule)
    model.layers[0].trainable = False
    averaged = averaged_weights(model, tmp_path)
    assert averaged.get_weights()[0].item() == pytest.approx(-(20 + 40) / 2 / 8)
    assert not averaged.layers[0].trainable
    assert averaged.trainable


def test_statistics_that_never_move_are_left_alone(data):
    model = compiled(
        keras.Sequential(
            [keras.Input((6,)), keras.layers.BatchNormalization(momentum=1.0), keras.layers.Dense(3, "softmax")]
        )
    )
    schedule = SGDRScheduler(0.01, 0.1, fit_budget=True, tail_average=0.5)
    model.fit(*data, batch_size=4, epochs=1, verbose=0, callbacks=[schedule])
    np.testing.assert_array_equal(model.layers[0].moving_mean, np.zeros(6))


def test_a_layer_that_is_never_built_is_not_averaged():
    model = plain()
    model.spare = keras.layers.BatchNormalization()
    assert len(averaged_variables(model)) == 2


@pytest.mark.skipif("renorm" not in signature(keras.layers.BatchNormalization).parameters, reason="this Keras has none")
def test_statistics_whose_variance_follows_a_moving_deviation_are_left_to_keras():
    layer = keras.layers.BatchNormalization(renorm=True)
    model = keras.Sequential([keras.Input((3,)), layer, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = 0.2 * np.random.default_rng(0).normal(size=(480, 3)).astype("float32")
    spy = AfterEachStep()
    schedule = SGDRScheduler(1e-3, 1e-2, cycle_length=3, tail_average=0.1)
    fit(model, schedule, spy, x=x, y=np.zeros((480, 1), "float32"), batch_size=8, epochs=3)
    place = next(i for i, weight in enumerate(model.weights) if weight is layer.moving_variance)
    sampled = [weights[place] for weights in spy.steps[-19:]]
    assert np.all(np.asarray(layer.moving_variance) >= np.min(sampled, axis=0) * 0.99)


def test_statistics_of_epochs_longer_than_planned_are_nearly_means_of_all_their_batches():
    """Of five batches planned, twenty come. Weights are sampled in those planned, hence nearly: it was 7, not 5."""
    layer = keras.layers.BatchNormalization()
    model = keras.Sequential([keras.Input((3,)), layer, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    rng = np.random.default_rng(0)

    def batches():
        for _ in range(20):
            yield rng.normal(5, 1, size=(8, 3)).astype("float32"), np.zeros((8, 1), "float32")

    kinds = (tf.TensorSpec((8, 3)), tf.TensorSpec((8, 1)))
    data = tf.data.Dataset.from_generator(batches, output_signature=kinds)
    schedule = SGDRScheduler(1e-5, 1e-4, cycle_length=6, steps_per_epoch=5, tail_average=0.5)
    model.fit(data, epochs=6, callbacks=[schedule], verbose=0)
    np.testing.assert_allclose(np.asarray(layer.moving_mean), 5, atol=0.3)


def test_a_kernel_that_its_layer_normalizes_in_training_is_not_moved_by_gathering_statistics():
    dense = keras.layers.SpectralNormalization(keras.layers.Dense(4))
    model = keras.Sequential([keras.Input((3,)), dense, keras.layers.BatchNormalization()])
    before = dense.get_weights()
    assert gather_statistics(model, [np.random.default_rng(0).random((8, 3))]) == 8
    assert_same_arrays(dense.get_weights(), before)


def test_what_a_layer_counts_is_not_moved_by_gathering_statistics(tmp_path):
    model = keras.Sequential([keras.Input((1,)), Counts(), keras.layers.BatchNormalization(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    fit(model, SGDRScheduler(0.01, 0.1, cycle_length=2, mult_factor=1, snapshot_folder=tmp_path))
    averaged = averaged_weights(model, tmp_path, X)
    assert float(averaged.layers[0].calls) == 40
