"""Training after a range test is what it is without one: everything that a training moves, one case each."""

from __future__ import annotations

import importlib.util
import random
import threading
from typing import ClassVar
from unittest import mock

import keras
import numpy as np
import pytest
from helpers import LOSS, TrainsItsLossToo, assert_same_arrays, compiled, state_of

from autolr import held, range_test
from autolr.held import held_variables
from autolr.model_state import ModelState

ON_TENSORFLOW = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's own, or traced by it")
layers = keras.layers


def small(*more, cls=keras.Sequential):
    return cls([keras.Input((6,)), layers.Dense(4), *more, layers.Dense(3, "softmax")])


class NoisyLoss(keras.losses.Loss):
    """Has a seed of its own."""

    def __init__(self):
        super().__init__()
        self.seed = keras.random.SeedGenerator(5)

    def call(self, y, prediction):
        noise = 0.1 * keras.random.normal(keras.ops.shape(prediction), seed=self.seed)
        return keras.losses.sparse_categorical_crossentropy(y, keras.ops.softmax(prediction + noise))


class ScaledLoss(keras.losses.Loss):
    """Has a variable of its own."""

    def __init__(self):
        super().__init__()
        self.scale = keras.Variable(1.0, trainable=False)

    def call(self, y, prediction):
        loss = keras.losses.sparse_categorical_crossentropy(y, prediction)
        self.scale.assign(0.9 * self.scale + 0.1 * keras.ops.mean(loss))
        return loss / self.scale


def loss_in_a_closure():
    scale = keras.Variable(1.0, trainable=False)

    def loss(y, prediction):
        scale.assign(0.9 * scale)
        return scale * keras.losses.sparse_categorical_crossentropy(y, prediction)

    return loss


class Box:
    """A helper object of the user's."""

    def __init__(self, value):
        self.value = value


class Slot:
    """The same, without a dictionary."""

    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class Fading(layers.Layer):
    """Multiplies by a variable that Keras does not know of, and lets it fall."""

    def __init__(self, hold):
        import tensorflow as tf

        super().__init__()
        self.held = hold(tf.Variable(1.0, trainable=False))

    def call(self, x, training=False):
        factor = self.held.value if isinstance(self.held, (Box, Slot)) else self.held["deep"][0]
        if training:
            factor.assign(0.9 * factor)
        return x * factor


class DrawsGlobally(layers.Layer):
    """Noise from the generator that unseeded operations of TensorFlow's share."""

    def call(self, x):
        import tensorflow as tf

        return x + 0.1 * tf.random.get_global_generator().normal(tf.shape(x))


class DrawsByName(layers.Layer):
    """Noise from a generator of its module, scaled by a variable of its class, both moved by a function it calls."""

    scale: ClassVar[list] = []

    def call(self, x, training=False):
        return drawn(type(self).scale, x) if training else x


GENERATORS: dict = {}


def drawn(scale, x):
    scale[0].assign(0.9 * scale[0])
    return x + scale[0] * GENERATORS["ours"].normal(keras.ops.shape(x))


def drawing_by_name():
    import tensorflow as tf

    GENERATORS["ours"], DrawsByName.scale = tf.random.Generator.from_seed(3), [tf.Variable(1.0, trainable=False)]
    return compiled(small(DrawsByName()))


class DrawsUnseeded(keras.Sequential):
    """Noise from Keras's generator for all that have no seed, which is made when it is first asked."""

    def train_step(self, batch):
        x, y = batch
        return super().train_step((x + 0.1 * keras.random.normal(keras.ops.shape(x)), y))


class DrawsInTracing(layers.Layer):
    """As some of Keras's augmentations do."""

    def call(self, x):
        return x * random.uniform(0.5, 1.5)


class TrainsItsTop(keras.Sequential):
    """Its optimizer has some of the model's variables."""

    def train_step(self, batch):
        import tensorflow as tf

        x, y = batch
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        variables = self.layers[-1].trainable_variables
        self.optimizer.apply(tape.gradient(loss, [variable.value for variable in variables]), variables)
        return {"loss": loss}


class TakesApart(keras.Model):
    """Cannot be built from a batch, since only its `train_step` knows what to call it with."""

    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(4)

    def call(self, one, other):
        return self.hidden(one) - keras.ops.cast(other, "float32")[:, None]

    def train_step(self, batch):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = keras.ops.mean(self(*batch) ** 2)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss}


def stacked_cells():
    cells = [layers.LSTMCell(3), layers.GRUCell(3)]
    shape = [keras.Input(batch_shape=(16, 6)), layers.Reshape((3, 2))]
    return keras.Sequential([*shape, layers.RNN(cells, stateful=True), layers.Dense(3, "softmax")])


def with_loss(make):
    def build():
        model = small()
        model.compile("adam", make())
        return model

    return build


class NoisyAdam(keras.optimizers.Adam):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seed = keras.random.SeedGenerator(3)

    def update_step(self, gradient, variable, learning_rate):
        noise = keras.random.normal(gradient.shape, seed=self.seed, dtype=gradient.dtype)
        super().update_step(gradient + 0.1 * noise, variable, learning_rate)


def executing_several():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.05, 2, 0.5)
    return compiled(small(layers.Dropout(0.2)), keras.optimizers.SGD(schedule), steps_per_execution=3)


MODELS = {
    "the seed of a loss": with_loss(NoisyLoss),
    "the variable of a loss": with_loss(ScaledLoss),
    "a variable in a loss function's closure": with_loss(loss_in_a_closure),
    "the seed of an optimizer in another": lambda: compiled(
        small(), keras.optimizers.LossScaleOptimizer(NoisyAdam(0.01))
    ),
    "states of stacked cells": lambda: compiled(stacked_cells()),
    "a variable in a dictionary": lambda: compiled(small(Fading(lambda it: {"deep": [it]}))),
    "a variable in a helper object": lambda: compiled(small(Fading(Box))),
    "a variable in a slot": lambda: compiled(small(Fading(Slot))),
    "TensorFlow's global generator": lambda: compiled(small(DrawsGlobally())),
    "what it refers to by name": drawing_by_name,
    "Keras's global generator": lambda: compiled(small(cls=DrawsUnseeded)),
    "draws in tracing": lambda: compiled(small(DrawsInTracing())),
    "a part of the variables that is trained": lambda: compiled_with(small(cls=TrainsItsTop), LOSS),
    "a call that a train_step alone knows": lambda: compiled_with(TakesApart()),
    "steps_per_execution and a schedule": executing_several,
}


def compiled_with(model, loss=None):
    model.compile("adam", loss)
    return model


def run(build, data, *, tested, fit=None):
    keras.backend.clear_session()
    keras.utils.set_random_seed(7)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.random.set_global_generator(tf.random.Generator.from_seed(1))
    model = build()
    given = {"x": data[0], "y": data[1], "batch_size": 16, "shuffle": False} if fit is None else fit()
    if tested:
        test = range_test(model, **given, num_steps=6, start_lr=1e-3, end_lr=1.0, burst_steps=0)
        assert len(test) >= 5
        assert np.std(test.losses) > 0
    history = model.fit(**given, epochs=2, verbose=0).history
    return history, state_of(model), (random.random(), np.random.random())


def assert_same(one, other):
    assert one[0] == other[0]
    assert_same_arrays(one[1], other[1])
    assert one[2] == other[2]


QUICK = {
    "what it refers to by name",
    "the seed of a loss",
    "the seed of an optimizer in another",
    "Keras's global generator",
    "a call that a train_step alone knows",
    "steps_per_execution and a schedule",
}


@ON_TENSORFLOW
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in QUICK else pytest.mark.slow) for kind in MODELS]
)
def test_training_goes_on_as_without_a_test(data, kind):
    assert_same(run(MODELS[kind], data, tested=True), run(MODELS[kind], data, tested=False))


class Slope(keras.losses.Loss):
    """Has a weight that is trained; its gradients are all one."""

    def __init__(self):
        super().__init__()
        self.weight = keras.Variable([1.0])

    def call(self, y, prediction):
        return keras.ops.mean(prediction, axis=-1) + self.weight


@ON_TENSORFLOW
def test_an_optimizer_may_train_a_variable_of_the_loss():
    """In numbers that floats hold exactly: TensorFlow rounds such a step differently now and then, without a test."""

    def build():
        model = TrainsItsLossToo([keras.Input((1,)), layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
        model.compile(keras.optimizers.SGD(0.5, momentum=0.5), Slope())
        return model

    ones = np.ones((64, 1), "float32")
    with_test, without = (run(build, (ones, ones), tested=tested) for tested in (True, False))
    assert_same(with_test, without)
    assert without[1][0] < 0  # it trained
    assert len(without[1]) == 7  # the kernel; step count, rate and two momenta; the mean loss's sum and count


class AugmentsItself(keras.utils.PyDataset):
    """Draws its noise from NumPy, and some from a layer."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y, self.noise = x, y, layers.GaussianNoise(0.1, seed=3)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        rows = slice(16 * index, 16 * index + 16)
        noisy = self.noise(self.x[rows] + 0.1 * np.random.normal(size=(16, 6)).astype("float32"), training=True)
        return keras.ops.convert_to_numpy(noisy), self.y[rows]


MODULES_OWN = random.Random(4)


class AugmentsByItsOwn(AugmentsItself):
    """Draws its noise from generators that nobody else knows of."""

    def __init__(self, x, y):
        super().__init__(x, y)
        self.noise, self.own, self.old = None, np.random.default_rng(2), [np.random.RandomState(3)]

    def __getitem__(self, index):
        rows = slice(16 * index, 16 * index + 16)
        scale = self.old[0].normal() + MODULES_OWN.random()
        return (self.x[rows] + scale * self.own.normal(size=(16, 6))).astype("float32"), self.y[rows]


def augmented(data, **options):
    import tensorflow as tf

    noise, generator = layers.GaussianNoise(0.1, seed=1), tf.random.Generator.from_seed(2)

    def augment(x, y):
        return noise(x, training=True) + 0.1 * generator.normal(tf.shape(x)), y

    batches = tf.data.Dataset.from_tensor_slices(data).batch(16)
    return {"x": batches.map(augment).prefetch(2), **options}


def unbuilt():
    return compiled(keras.Sequential([layers.Dense(4), layers.Dense(3, "softmax")]))


@ON_TENSORFLOW
@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda: compiled(small()), id="built", marks=pytest.mark.slow),
        pytest.param(unbuilt, id="unbuilt"),
    ],
)
@pytest.mark.parametrize(
    "kind",
    [
        "layers in tf.data",
        "a PyDataset that draws",
        pytest.param("a PyDataset with generators", marks=pytest.mark.slow),
    ],
)
def test_data_that_draw_are_what_they_are_without_a_test(data, kind, build):
    def fit():
        MODULES_OWN.seed(4)
        if kind == "layers in tf.data":
            return augmented(data)
        return {"x": (AugmentsByItsOwn if "generators" in kind else AugmentsItself)(*data)}

    assert_same(run(build, data, tested=True, fit=fit), run(build, data, tested=False, fit=fit))


@ON_TENSORFLOW
def test_a_pipeline_that_fills_its_cache_in_a_file_can_be_tested_and_trained_on(data, tmp_path):
    import tensorflow as tf

    batches = tf.data.Dataset.from_tensor_slices(data).batch(4).cache(str(tmp_path / "cache")).prefetch(2)
    model = compiled(small())
    assert range_test(model, batches, num_steps=10, burst_steps=72).bursts
    assert np.isfinite(model.fit(batches, verbose=0).history["loss"]).all()


@pytest.mark.slow
@ON_TENSORFLOW
def test_several_steps_in_one_execution_make_no_difference_to_a_range_test(data):
    def test_of(several):
        keras.utils.set_random_seed(7)
        model = compiled(small(layers.Dropout(0.2)), steps_per_execution=several)
        test = range_test(model, *data, batch_size=16, num_steps=40, burst_steps=120)
        assert model.steps_per_execution == several
        return test

    assert test_of(50) == test_of(1)


@ON_TENSORFLOW
def test_the_training_step_is_traced_no_more_often_than_without_a_test(data):
    class Counting(keras.Sequential):
        traced = 0

        def train_step(self, batch):
            self.traced += 1
            return super().train_step(batch)

    def traces(*, tested):
        model = compiled(small(cls=Counting))
        if tested:
            range_test(model, *data, batch_size=4, num_steps=10, burst_steps=72)
        model.fit(*data, batch_size=4, verbose=0)
        return model.traced

    assert traces(tested=True) == traces(tested=False) > 0


@ON_TENSORFLOW
@pytest.mark.parametrize(
    "build",
    [pytest.param(lambda: compiled(small()), id="built", marks=pytest.mark.slow), pytest.param(unbuilt, id="unbuilt")],
)
@pytest.mark.parametrize("kind", ["filtered", pytest.param("taken from", marks=pytest.mark.slow)])
def test_data_without_a_batch_are_refused(data, kind, build):
    import tensorflow as tf

    batches = tf.data.Dataset.from_tensor_slices(data).batch(16)
    empty = batches.take(0) if kind == "taken from" else batches.filter(lambda x, y: False)
    with (
        pytest.warns(UserWarning, match="ran out of data"),
        pytest.raises(ValueError, match=r"^Argument `x` must hold at least one sample"),
    ):
        range_test(build(), empty)


@pytest.mark.parametrize("nothing", [None, [], {}, np.zeros((0, 6)), [None]])
def test_no_data_at_all_are_refused(nothing):
    with pytest.raises(ValueError, match=r"^Argument `x` must hold at least one sample. .* Pass training data."):
        range_test(compiled(small()), nothing)


@ON_TENSORFLOW
def test_an_error_of_the_users_is_not_taken_for_missing_targets(data):
    import tensorflow as tf

    model = small()
    model.compile("sgd", lambda y, prediction: None)
    with pytest.raises(ValueError, match="None values not supported") as raised:
        range_test(model, tf.data.Dataset.from_tensor_slices(data).batch(16))
    assert "yield targets" not in str(raised.value)


def test_data_that_hold_very_many_objects_are_not_all_looked_at():
    class Sample:
        pass

    class Many:
        def __init__(self):
            self.samples = [[Sample() for _ in range(900)] for _ in range(100)]
            self.counter = keras.Variable(0.0)

    counted = Many()
    assert [id(it) for it in held_variables(counted)] == [id(counted.counter)]  # it is near
    looked_at = 0
    within = held._within

    def count(it):
        nonlocal looked_at
        looked_at += 1
        return within(it)

    with mock.patch.object(held, "_within", count):
        held_variables(counted)
    assert looked_at <= held.MAX_OBJECTS < 900 * 100


class Assigns(layers.Layer):
    """Its `assign` has nothing to do with variables, though it has a `dtype`, as all layers do."""

    def __init__(self):
        super().__init__()
        self.factor, self.hidden = 2.0, [keras.Variable(1.0, trainable=False)]

    def assign(self, factor):
        self.factor = factor

    def call(self, x):
        return x * self.factor


def test_a_method_called_assign_makes_no_variable(data):
    layer = Assigns()
    model = compiled(small(layer), "sgd", run_eagerly=True)
    range_test(model, *data, batch_size=12, num_steps=12, burst_steps=0)
    assert layer.factor == 2.0
    found = held_variables(layer)
    assert not any(it is layer for it in found)
    assert any(variable is layer.hidden[0] for variable in found)


def test_what_cannot_be_put_back_keeps_nothing_else_from_it(data):
    model = compiled(small())
    model.fit(*data, verbose=0)
    state = ModelState.of(model)
    before, broken = state_of(model), mock.Mock(assign=mock.Mock(side_effect=ValueError("locked")))
    state.values.insert(0, (broken, 0.0))
    seed = random.getstate()
    model.fit(*data, verbose=0)
    random.random()
    with pytest.raises(ValueError, match="locked"):
        state.restore()
    assert_same_arrays(state_of(model), before)
    assert random.getstate() == seed


def test_a_generator_that_yields_nothing_is_refused():
    nothing = (batch for batch in ())
    with pytest.raises(ValueError, match=r"^Argument `x` must hold at least one sample. Received: x=<generator"):
        range_test(unbuilt(), nothing)


def test_a_model_that_only_real_numbers_can_build_says_so(data):
    class Looks(keras.Sequential):
        def call(self, x, training=False):
            return super().call(x * float(np.sign(keras.ops.convert_to_numpy(x)[0, 0])), training=training)

    model = Looks([layers.Dense(3, "softmax")])
    model.compile("adam", LOSS, run_eagerly=True)
    with pytest.raises(RuntimeError, match="build it yourself"):
        range_test(model, *data, batch_size=16)
    model(data[0][:16])
    assert len(range_test(model, *data, batch_size=16, num_steps=6, burst_steps=0)) >= 5


def test_metrics_are_as_they_were(data):
    model = compiled(small())
    model.train_on_batch(data[0][:16], data[1][:16])
    before = state_of(model)
    range_test(model, *data, batch_size=16, num_steps=6, burst_steps=0)
    assert_same_arrays(state_of(model), before)


@ON_TENSORFLOW
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_model_with_a_train_function_of_its_own_is_tested(data, wrapped):
    class OwnFunction(keras.Sequential):
        def make_train_function(self, force=False):
            import tensorflow as tf

            def run(iterator):
                return self.train_step(next(iterator))

            self.train_function = tf.function(run) if wrapped else run
            return self.train_function

    model = compiled(OwnFunction([layers.Dense(4), layers.Dense(3, "softmax")]))
    assert len(range_test(model, *data, batch_size=16, num_steps=6, burst_steps=0)) >= 5
    assert int(model.optimizer.iterations) == 0


class Unready:
    """A proxy that stands for nothing yet."""

    def __getattribute__(self, name):
        raise RuntimeError(name)


class Refuses(type):
    """Raises what `hasattr` does not expect."""

    def __getattr__(cls, name):
        raise RuntimeError(name)


class Refused(metaclass=Refuses):
    """Its class has no attribute that one may ask for."""


def lazy_module(folder):
    """A module whose code fails, and is not run before someone asks it for something."""
    path = folder / "lazy_and_broken.py"
    path.write_text(f"open({str(folder / 'ran')!r}, 'w').close()\nimport not_installed_thing")
    spec = importlib.util.spec_from_file_location("lazy_and_broken", path)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ODD = [Unready(), Refused()]


@ON_TENSORFLOW
def test_objects_that_cannot_be_looked_into_do_no_harm(data, tmp_path):
    lazy = lazy_module(tmp_path)

    class RefersToThem(keras.Sequential):
        def train_step(self, batch):
            assert len(ODD) == 2
            assert lazy is not None
            return super().train_step(batch)

    model = compiled(small(cls=RefersToThem))
    assert len(range_test(model, *data, batch_size=16, num_steps=6, burst_steps=0)) >= 5
    assert not (tmp_path / "ran").exists()  # the module


def test_what_another_thread_works_on_is_not_put_back():
    class NamesThreads(keras.Sequential):
        def train_step(self, batch):
            assert threading.Thread
            return super().train_step(batch)

    anothers, done = keras.Variable(0.0), threading.Event()
    thread = threading.Thread(target=lambda variable: done.wait(), args=(anothers,))
    thread.start()
    try:
        assert not any(variable is anothers for variable in held_variables(compiled(small(cls=NamesThreads))))
    finally:
        done.set()
        thread.join()
