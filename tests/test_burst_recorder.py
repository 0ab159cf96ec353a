"""Bursts that go on where shorter ones have paused: the same range test, by fewer steps."""

from __future__ import annotations

import collections
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import LOSS, assert_same_arrays, compiled, plain, rate_of, state_of
from tensorflow.python.eager import context

from autolr import burst_recorder, bursts, range_test

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="elsewhere each burst begins anew")


@pytest.fixture
def data():
    """26 batches of 12, the last a partial one: an epoch in which 24 can be left out."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(310, 6)).astype("float32")
    return x, np.argmax(x[:, :3] + 0.3 * rng.normal(size=(310, 3)), axis=1)


OPTIMIZERS = {
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.02),
    "accumulating": lambda: keras.optimizers.Adam(0.02, gradient_accumulation_steps=2),
    "averaging": lambda: keras.optimizers.Adam(0.02, use_ema=True, ema_momentum=0.9),
    "schedule": lambda: keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 100)),
}


class BeginsAnew(keras.Sequential):
    """With a `fit` of its own, of which nobody knows whether it can leave batches out."""

    def fit(self, *args, **kwargs):
        return super().fit(*args, **kwargs)


def model_of(kind, optimizer):
    keras.utils.set_random_seed(3)
    layers = [
        keras.Input((6,)),
        keras.layers.Dense(8, activation="tanh"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.2),
        keras.layers.Dense(3, activation="softmax"),
    ]
    return compiled(kind(layers), OPTIMIZERS[optimizer]())


def data_of(kind, x, y):
    if kind == "arrays":
        return {"x": x, "y": y, "batch_size": 6}  # 52 batches: 24 steps may take 48
    if kind == "generator":
        return {"x": ((x[i : i + 12], y[i : i + 12]) for i in itertools.cycle(range(0, len(x), 12)))}
    import tensorflow as tf

    noise = keras.layers.GaussianNoise(0.1, seed=5)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(12)
    return {"x": dataset.map(lambda rows, targets: (noise(rows, training=True), targets))}


@pytest.mark.parametrize(
    ("kind", "optimizer"),
    [
        ("arrays", "averaging"),
        pytest.param("arrays", "momentum", marks=pytest.mark.slow),
        pytest.param("tf.data", "averaging", marks=pytest.mark.slow),
        pytest.param("arrays", "accumulating", marks=pytest.mark.slow),
        pytest.param("arrays", "schedule", marks=pytest.mark.slow),
        pytest.param("generator", "adam", marks=pytest.mark.slow),
    ],
)
def test_a_burst_that_goes_on_is_bit_for_bit_one_from_the_beginning(data, kind, optimizer):
    """Arrays are shuffled; with a partial last batch, through several epochs, past dropout and noise in the data."""

    def run(model_kind):
        model = model_of(model_kind, optimizer)
        arguments = data_of(kind, *data)
        test = range_test(model, **arguments, num_steps=40, burst_steps=264)
        if kind != "generator":  # which has been read further
            model.fit(**arguments, epochs=2, verbose=0)
        return test, state_of(model)

    (test, state), (anew, state_anew) = run(keras.Sequential), run(BeginsAnew)
    assert {burst.steps for burst in test.bursts} >= {24, 48}
    assert test.bursts == anew.bursts
    assert test.losses.tolist() == anew.losses.tolist()
    assert_same_arrays(state, state_anew)
    pairs = itertools.combinations(test.bursts, 2)
    gone_on = [a for a, b in pairs if a.lr == b.lr and (a.steps, b.steps) == (24, 48) and np.isfinite(a.change)]
    assert len(gone_on) >= 2
    assert test.steps_spent <= anew.steps_spent - 24 * len(gone_on)


class Wary(keras.metrics.SparseCategoricalAccuracy):
    """Refuses to give the mean of nothing."""

    def result(self):
        if tf.executing_eagerly() and not float(self.count):
            raise ValueError("no batch seen")
        return super().result()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="bursts begin anew")
@pytest.mark.parametrize("steps", [10, pytest.param(60, marks=pytest.mark.slow)])
def test_no_epoch_is_left_out_as_a_whole(data, steps):
    """Of endless data an epoch is as long as it is said to be."""
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=[Wary()])
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(12).repeat()
    test = range_test(model, dataset, steps_per_epoch=steps, num_steps=40, burst_steps=264)
    assert {burst.steps for burst in test.bursts} == {24, 48}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["arrays", "of unknown size"])
def test_the_steps_spent_are_those_that_were_taken(data, kind):
    """Where nobody knows how long an epoch is, each burst begins anew: its end may come while batches are left out."""
    taken = []

    class Counting(keras.Sequential):
        def train_step(self, batch):
            taken.append(1)
            return super().train_step(batch)

    model = Counting([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")])
    model.compile("adam", LOSS, run_eagerly=True)
    if kind == "arrays":
        arguments = {"x": data[0], "y": data[1], "batch_size": 12}
    else:
        arguments = {"x": data_of("tf.data", *data)["x"].filter(lambda x, y: True)}
    test = range_test(model, **arguments, num_steps=40, burst_steps=264)
    assert {burst.steps for burst in test.bursts} == {24, 48}
    assert len(taken) == test.steps_spent
    anew = len(test) + sum(burst.steps for burst in test.bursts)
    assert (test.steps_spent < anew) == (kind == "arrays")


class Strict(keras.metrics.Metric):
    """Has no result of nothing."""

    def __init__(self):
        super().__init__()
        self.count = self.add_weight(shape=(), initializer="zeros")

    def update_state(self, y, prediction, sample_weight=None):
        self.count.assign_add(1.0)

    def result(self):
        if float(self.count) == 0:
            raise ValueError("nothing was counted yet")
        return self.count


@pytest.mark.slow
def test_no_epoch_is_left_out_whole_as_a_metric_may_have_no_result_of_nothing(data):
    model = model_of(keras.Sequential, "adam")
    model.compile("adam", LOSS, metrics=[Strict()], run_eagerly=True)
    assert range_test(model, data[0][:100], data[1][:100], batch_size=12, num_steps=40, burst_steps=264).bounds().ok


@pytest.mark.slow
def test_a_seed_that_model_and_data_share_begins_anew_with_the_data(data):
    import tensorflow as tf

    def run(kind):
        model = model_of(kind, "adam")
        model.shared = noise = keras.layers.GaussianNoise(0.5, seed=5)
        dataset = tf.data.Dataset.from_tensor_slices(data).batch(12)
        return range_test(model, dataset.map(lambda x, y: (noise(x, training=True), y)), num_steps=40, burst_steps=264)

    test, anew = run(keras.Sequential), run(BeginsAnew)
    assert test.bursts == anew.bursts
    assert test.steps_spent < anew.steps_spent


def test_a_second_round_is_begun_where_what_is_left_of_it_can_be_paid(data):
    def run(kind):
        keras.utils.set_random_seed(3)
        model = kind([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")])
        model.compile("sgd", LOSS)
        return range_test(model, *data, batch_size=12, num_steps=40, burst_steps=192)

    test, anew = run(keras.Sequential), run(BeginsAnew)
    assert {burst.steps for burst in test.bursts} == {24, 48}
    assert {burst.steps for burst in anew.bursts} == {24}
    assert test.steps_spent <= 40 + 192
    assert test.bursts[: len(anew.bursts)] == anew.bursts


def test_a_rate_that_has_diverged_is_not_tried_again_for_longer():
    """It would diverge at the same step: that is known without one."""
    taken = collections.Counter()

    class Counting(keras.Sequential):
        def train_step(self, batch):
            taken[rate_of(self)] += 1
            return super().train_step(batch)

    keras.utils.set_random_seed(3)
    model = Counting([keras.Input((6,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    x = 20 * np.random.default_rng(0).normal(size=(73, 6)).astype("float32")
    test = range_test(model, x, x[:, :1], batch_size=12, num_steps=40, burst_steps=264)
    diverged = {steps: {b.lr for b in test.bursts if b.steps == steps and b.change == np.inf} for steps in (24, 48)}
    again = diverged[24] & diverged[48]
    assert again
    assert test.steps_spent == taken.total()
    assert all(taken[np.float32(rate).item()] < 24 for rate in again)


@pytest.mark.slow
@pytest.mark.parametrize("damaged", [0, 10, 23])
def test_an_error_while_batches_are_left_out_leaves_the_model_as_it_was(data, damaged):
    x, y = data
    passes = 0  # not batches, as how many are read ahead is a matter of time

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 25

        def __getitem__(self, index):
            nonlocal passes
            passes += index == 0
            if (passes, index) == fails_at:
                raise RuntimeError("damaged")
            return x[index * 12 : index * 12 + 12], y[index * 12 : index * 12 + 12]

    def model():
        keras.utils.set_random_seed(3)
        return plain(keras.optimizers.SGD(0.05, momentum=0.9))

    fails_at = None
    first = range_test(model(), Batches(), num_steps=40, burst_steps=120)
    assert {burst.steps for burst in first.bursts} == {24}
    fails_at, passes = (passes + 1, damaged), 0

    def run(*, tested):
        nonlocal fails_at
        trained = model()
        if tested:
            with pytest.raises(Exception, match="damaged"):
                range_test(trained, Batches(), num_steps=40, burst_steps=264)
            assert passes == fails_at[0]
        fails_at = None
        return trained.fit(Batches(), verbose=0, epochs=2).history, state_of(trained)

    (history, state), (untested, state_untested) = run(tested=True), run(tested=False)
    assert history == untested
    assert_same_arrays(state, state_untested)


@pytest.mark.slow
def test_no_state_is_kept_of_a_model_too_large_for_it(data, monkeypatch):
    """The bursts are the same, each from the beginning."""

    def run():
        return range_test(model_of(keras.Sequential, "adam"), *data, batch_size=12, num_steps=40, burst_steps=264)

    small = run()
    monkeypatch.setattr(burst_recorder, "MOST_NUMBERS", 10)
    large = run()
    assert small.bursts == large.bursts
    assert small.steps_spent < large.steps_spent


def test_without_a_seed_bursts_see_the_batches_of_the_sweep_all_the_same(data, monkeypatch):
    """And TensorFlow is left without one."""
    eager = context.context()
    monkeypatch.setattr(eager, "_seed", None)
    x, y = data
    model = plain()
    firsts = []
    of = bursts.Burst.of
    monkeypatch.setattr(
        bursts.Burst,
        "of",
        lambda lr, losses, untrained, **options: (
            firsts.append((losses[0], untrained[0])) or of(lr, losses, untrained, **options)
        ),
    )
    range_test(model, x, y, batch_size=4)
    assert len(firsts) >= 3
    assert all(burst == pytest.approx(sweep, rel=1e-6) for burst, sweep in firsts)
    assert eager._seed is None


class HasALimit(keras.Sequential):
    """Ends a training whose loss is no good any more."""

    limit = float("inf")

    def fit(self, *args, callbacks=(), **kwargs):
        guard = keras.callbacks.LambdaCallback(on_train_batch_end=self.guard)
        return super().fit(*args, callbacks=[*callbacks, guard], **kwargs)

    def guard(self, batch, logs):
        self.stop_training = self.stop_training or logs["loss"] > self.limit


@pytest.mark.filterwarnings("ignore")
def test_a_burst_that_was_ended_for_what_its_rate_does_has_diverged():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(960, 20)).astype("float32")
    y = np.sin(x @ rng.normal(size=(20, 1))).astype("float32")
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(32, activation="relu", kernel_initializer="he_normal") for _ in range(8)]
    model = HasALimit([keras.Input((20,)), *hidden, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    free = range_test(model, x, y, batch_size=16, burst_steps=264)
    model.limit = 20.0
    limited = range_test(model, x, y, batch_size=16, burst_steps=264)
    assert any(burst.change == np.inf for burst in limited.bursts)
    assert [burst.lr for burst in limited.bursts] == [burst.lr for burst in free.bursts]


class StopsEarly(keras.Sequential):
    def fit(self, *args, callbacks=(), **kwargs):
        stop = keras.callbacks.LambdaCallback(on_train_batch_end=self.stop)
        self.steps = 0
        return super().fit(*args, callbacks=[*callbacks, stop], **kwargs)

    def stop(self, batch, logs):
        self.steps += 1
        self.stop_training = self.stop_training or (self.steps == 30 and self.ends_bursts)


@pytest.mark.filterwarnings("ignore")
def test_a_burst_that_something_else_has_ended_is_not_taken_for_one_that_diverged(data):
    x, y = data
    model = StopsEarly([keras.Input(x.shape[1:]), *plain().layers])
    model.ends_bursts = False
    model.compile("sgd", LOSS)
    whole = range_test(model, x, y, batch_size=4, num_steps=30)
    model.ends_bursts = True
    cut = range_test(model, x, y, batch_size=4, num_steps=30)
    assert max(burst.steps for burst in whole.bursts) > 30
    assert {burst.steps for burst in cut.bursts} == {24}
    assert cut.bursts == whole.bursts[: len(cut.bursts)]
