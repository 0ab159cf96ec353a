"""`range_test` leaves a model exactly as it was: the promise that everything else stands on."""

from __future__ import annotations

import gc
import multiprocessing
import random
import threading
import time
import warnings

import keras
import numpy as np
import pytest
from helpers import LOSS, Subclassed, assert_same_arrays, compiled, functional, plain, sequential, state_of

from autolr import AutoLRWarning, RangeTest, SGDRScheduler, range_test
from autolr.burst_recorder import BurstRecorder
from autolr.data import count_batches

MODELS = {"sequential": sequential, "functional": functional, "unbuilt subclass": Subclassed}
OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.02),
    "momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "adadelta": lambda: keras.optimizers.Adadelta(1.0),
}
QUICK = {("sequential", "momentum"), ("functional", "adadelta"), ("unbuilt subclass", "adam")}
CASES = [  # every model and every optimizer by default, every pair with the slow tests
    pytest.param(kind, optimizer, marks=[] if (kind, optimizer) in QUICK else pytest.mark.slow)
    for kind in MODELS
    for optimizer in OPTIMIZERS
]


def train_two_epochs(model, data, **arguments):
    x, y = data
    # Shuffled, and the last batch is a partial one.
    history = model.fit(x, y, epochs=2, batch_size=12, verbose=0, **arguments).history
    return history, state_of(model)


def assert_same_training(left, right):
    assert left[0] == right[0]
    assert_same_arrays(left[1], right[1])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="operations of TensorFlow's own")
@pytest.mark.parametrize("eagerly", [False, True])
def test_each_burst_draws_the_numbers_that_the_sweep_has_drawn(data, eagerly):
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    model = plain()
    model.compile("sgd", lambda y, prediction: tf.random.normal(()) + 0.0 * prediction, run_eagerly=eagerly)
    test = range_test(model, *data, batch_size=16, burst_steps=72, verbose=0)
    assert np.std(test.losses) > 0.5
    assert [burst.change for burst in test.bursts] == [0.0] * 3


def test_a_burst_records_the_loss_of_each_batch():
    """Not the running mean that Keras reports, which each backend keeps somewhere else."""
    x = np.arange(1.0, 6.0, dtype="float32")[:, None]
    model, recorder = (
        keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)]),
        BurstRecorder(1e-30, 5),
    )
    model.compile("sgd", lambda y, prediction: prediction)
    model.set_weights([np.ones((1, 1))])
    model.fit(x, x, batch_size=1, shuffle=False, callbacks=[recorder], verbose=0)
    np.testing.assert_allclose(recorder.result.losses, x[:, 0], rtol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="elsewhere arrays stay what they are")
@pytest.mark.parametrize("dtype", ["float64", pytest.param("uint8", marks=pytest.mark.slow)])
def test_arrays_train_as_tensors_do(data, dtype):
    """Keras makes a data set of either for each training; a range test makes one for all of its own."""
    x, y = data
    x = (x * 3).astype(dtype)
    weights = np.linspace(0.5, 2, len(x))

    def run(inputs, *, tested=True):
        keras.utils.set_random_seed(7)
        model = compiled(sequential(), "sgd")
        options = {"sample_weight": weights, "validation_split": 0.25, "batch_size": 12}
        test = range_test(model, inputs, y, num_steps=12, burst_steps=0, **options) if tested else None
        history = model.fit(x, y, epochs=2, verbose=0, **options).history
        return test, (history, state_of(model))

    (test, training), (of_tensors, _), (_, without) = run(x), run(keras.ops.convert_to_tensor(x)), run(x, tested=False)
    assert len(test) > 5
    assert test == of_tensors
    assert_same_training(training, without)


@pytest.mark.parametrize(("kind", "optimizer"), CASES)
def test_two_epochs_after_a_range_test_are_bit_for_bit_those_without_one(data, kind, optimizer):
    x, y = data

    def run(*, tested):
        keras.utils.set_random_seed(7)
        model = compiled(MODELS[kind](), OPTIMIZERS[optimizer]())
        if tested:
            # Bursts take their time; one optimizer is enough to see that each begins where the sweep did.
            bursts = 72 if optimizer == "momentum" else 0
            test = range_test(model, x, y, batch_size=12, start_lr=1e-4, num_steps=12, burst_steps=bursts)
            assert isinstance(test, RangeTest)
            assert len(test.bursts) == bursts // 24
            assert len(test) >= 10  # two epochs
            assert np.std(test.losses) > 0
        return train_two_epochs(model, data), random.random(), np.random.random()

    (with_test, *draws_with), (without, *draws_without) = run(tested=True), run(tested=False)
    assert len(without[0]["loss"]) == 2
    assert_same_training(with_test, without)
    assert draws_with == draws_without


def test_a_model_already_trained_goes_on_as_if_nothing_had_happened(data):
    x, y = data

    def run(*, tested):
        keras.utils.set_random_seed(7)
        model = compiled(sequential(), OPTIMIZERS["adam"]())
        train_two_epochs(model, data)
        if tested:
            assert range_test(model, x, y, batch_size=12, num_steps=12, burst_steps=72).bursts
        return train_two_epochs(model, data, validation_data=data)

    assert_same_training(run(tested=True), run(tested=False))


def test_a_schedule_compiled_in_is_there_again_with_its_step(data):
    x, y = data

    def run(*, tested):
        keras.utils.set_random_seed(7)
        optimizer = keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.05, 2, 0.5))
        model = compiled(sequential(), optimizer)
        train_two_epochs(model, data)
        if tested:
            test = range_test(model, x, y, batch_size=12, start_lr=1e-4, num_steps=12, burst_steps=0)
            np.testing.assert_allclose(test.lrs, np.geomspace(1e-4, 10.0, 12)[: len(test)])
            assert model.optimizer is optimizer
        return train_two_epochs(model, data)

    assert_same_training(run(tested=True), run(tested=False))


class Interrupting(keras.layers.Layer):
    """Passes its input on, uses up random numbers, and raises in its tenth training step."""

    def __init__(self, error):
        super().__init__()
        self.error, self.calls = error, 0

    def call(self, x, training=False):
        if training and isinstance(self.calls, int):
            random.random()
            np.random.random()
            self.calls += 1
            if self.calls == 10:
                raise self.error
        return x


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")])
def test_a_model_is_as_it_was_when_the_test_is_interrupted(data, error):
    x, y = data
    keras.utils.set_random_seed(7)
    interrupting = Interrupting(error)
    model = keras.Sequential([keras.Input((6,)), interrupting, *sequential().layers])
    # Eagerly, so that the layer runs in every step and not just in the tracing.
    model.compile(keras.optimizers.Adam(0.02), LOSS, metrics=["accuracy"], run_eagerly=True)
    model.fit(x[:8], y[:8], verbose=0)
    before, states = state_of(model), (random.getstate(), np.random.get_state())
    history, calls = model.history, interrupting.calls
    with pytest.raises(type(error)):
        range_test(model, x, y, batch_size=16, start_lr=0.1, end_lr=10.0, num_steps=50)
    assert interrupting.calls == 10 > calls + 5
    assert_same_arrays(state_of(model), before)
    assert random.getstate() == states[0]
    for now, then in zip(np.random.get_state(), states[1], strict=True):
        np.testing.assert_array_equal(now, then)
    assert model.history is history
    assert not model.stop_training
    assert "fit" not in vars(model)


@pytest.mark.slow
def test_an_interrupted_test_gives_a_schedule_back(data):
    x, y = data
    optimizer = keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.05, 2, 0.5))
    model = keras.Sequential([keras.Input((6,)), Interrupting(RuntimeError("stop")), *sequential().layers])
    model.compile(optimizer, LOSS, run_eagerly=True)
    with pytest.raises(RuntimeError, match="stop"):
        range_test(model, x, y, batch_size=16, num_steps=50)
    assert model.optimizer is optimizer
    assert optimizer.iterations == 0


@pytest.mark.parametrize("kind", ["sequential", "unbuilt subclass"])
def test_a_generator_loses_only_the_batches_trained_on_and_those_keras_reads_ahead(data, kind):
    # What holds: a generator cannot be rewound, so what the test trains on is spent.
    # An unbuilt model gets its first batch back, in a generator: Keras does not take an `itertools.chain` for data.
    x, y = data
    keras.utils.set_random_seed(7)
    drawn = []

    def batches():
        for number in range(200):
            drawn.append(number)
            yield x[:16] + number / 100, y[:16]

    generator = batches()
    test = range_test(
        compiled(MODELS[kind](), "sgd"), generator, num_steps=12, start_lr=1e-7, end_lr=1e-6, burst_steps=0
    )
    assert len(test) == 12
    assert np.all(np.diff(test.losses) != 0)  # twelve batches, each another
    assert 12 <= len(drawn) <= 12 + 4
    assert next(generator)[0].shape == (16, 6)


def test_the_share_held_out_for_validation_is_left_out(data):
    x, y = data
    # What is held out is the end, and here it is poison.
    poisoned = x.copy()
    poisoned[48:] = np.nan
    model = compiled(keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")]), "sgd")
    arguments = {"batch_size": 16, "num_steps": 12, "start_lr": 1e-4, "end_lr": 1e-2, "burst_steps": 0}
    test = range_test(model, poisoned, y, validation_split=0.25, **arguments)
    assert len(test) == 12
    assert np.all(np.isfinite(test.losses))
    assert not np.all(np.isfinite(range_test(model, poisoned, y, **arguments).losses))


def test_nothing_is_validated_during_the_test(data):
    # With `validation_split`, Keras would evaluate the share held out after each of the test's epochs.
    x, y = data
    validated = []

    class Validated(keras.Sequential):
        def evaluate(self, *args, **kwargs):
            validated.append(1)
            return super().evaluate(*args, **kwargs)

    model = compiled(Validated([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")]))
    range_test(model, x, y, batch_size=4, num_steps=12, start_lr=1e-4, burst_steps=72, validation_split=0.25)
    assert not validated


def test_sample_weights_are_part_of_the_loss(data):
    x, y = data
    model = compiled(keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")]), "sgd")
    arguments = {"batch_size": 64, "num_steps": 5, "start_lr": 1e-7, "end_lr": 1e-6, "burst_steps": 0}
    once = range_test(model, x, y, **arguments)
    thrice = range_test(model, x, y, sample_weight=np.full(64, 3.0), **arguments)
    np.testing.assert_allclose(thrice.losses, 3 * once.losses, rtol=1e-5)


def test_a_dataset_is_swept_and_trained_on_as_without(data):
    import tensorflow as tf

    def run(*, tested):
        keras.utils.set_random_seed(7)
        model = compiled(Subclassed(), OPTIMIZERS["adam"]())
        dataset = tf.data.Dataset.from_tensor_slices(data).batch(6)
        if tested:
            range_test(model, dataset, num_steps=12, burst_steps=72)
        return model.fit(dataset, epochs=2, verbose=0).history, state_of(model)

    assert_same_training(run(tested=True), run(tested=False))


def test_nothing_is_printed_and_nobody_is_warned(data, capsys):
    x = data[0]
    y = (x[:, 0] > 0).astype("int32")
    keras.utils.set_random_seed(0)  # that bounds are found must be no matter of chance
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)  # Keras's own
        assert range_test(compiled(sequential()), x, y, batch_size=4, num_steps=40, burst_steps=120).bounds().ok
    assert capsys.readouterr() == ("", "")


def test_a_model_that_is_not_compiled_is_refused(data):
    with pytest.raises(ValueError, match=r"^Argument `model` must be compiled.*Received: model=.*compile"):
        range_test(sequential(), *data)


@pytest.mark.parametrize("nest", [lambda x: x, lambda x: {"pixels": x}])
def test_data_without_a_sample_are_refused_before_anything_is_touched(data, nest):
    x, y = data
    model = compiled(Subclassed())
    with pytest.raises(ValueError, match=r"^Argument `x` must hold at least one sample\. Received: x=.*filtered"):
        range_test(model, nest(x[:0]), y[:0])
    assert not model.built


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("start_lr", 0.0),
        ("start_lr", 20.0),
        ("end_lr", 1e-9),
        ("end_lr", float("nan")),
        ("num_steps", 1),
        ("batch_size", "32"),
        ("steps_per_epoch", -1),
        ("steps_per_epoch", 2.5),
        ("steps_per_epoch", "3"),
        ("steps_per_epoch", float("nan")),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_touched(data, argument, value):
    model = compiled(Subclassed())
    with pytest.raises(ValueError, match=rf"^Argument `({argument}|end_lr)` must .*Received: "):
        range_test(model, *data, **{argument: value})
    assert not model.built


def test_a_model_may_have_a_fit_of_its_own_that_takes_no_more_than_it_must(data):
    class FitsItself(keras.Sequential):
        def fit(self, x, y=None, *, batch_size=None, epochs=1, verbose="auto", callbacks=None):
            assert isinstance(x, np.ndarray)  # as it was given: nobody knows what is done with it here
            assert isinstance(y, np.ndarray)
            return super().fit(x, y, batch_size=batch_size, epochs=epochs, verbose=verbose, callbacks=callbacks)

    own = FitsItself([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")])
    assert len(range_test(compiled(own), *data, batch_size=16, num_steps=12, burst_steps=0)) > 5


def test_a_whole_batch_size_may_be_a_float(data):
    assert len(range_test(compiled(sequential()), *data, batch_size=16.0, num_steps=12, burst_steps=0)) > 5


def test_a_fit_that_brings_its_own_validation_does_not_validate_in_a_test(data):
    class Validates(keras.Sequential):
        evaluated = 0

        def fit(self, x, y=None, **options):
            return super().fit(x, y, **{"validation_data": (x, y), **options})

        def evaluate(self, *args, **options):
            self.evaluated += 1
            return super().evaluate(*args, **options)

    own = compiled(Validates([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")]))
    range_test(own, *data, batch_size=16, num_steps=12, burst_steps=0)
    assert own.evaluated == 0
    own.fit(*data, batch_size=16, verbose=0)
    assert own.evaluated == 1


def test_a_model_without_trainable_weights_is_told_of(data):
    keras.utils.set_random_seed(0)  # a dozen batches in chance's order may look like a fall and a rise
    model = sequential()
    model.trainable = False
    with pytest.warns(AutoLRWarning, match=r"^The model has no trainable weights"):
        test = range_test(compiled(model), *data, num_steps=12)
    assert not test.bounds().ok
    assert test.steps_spent <= 12, "there is nothing to confirm"


def test_what_is_no_finding_is_told_of(data):
    x, y = data
    with pytest.warns(AutoLRWarning, match=r"^too_few_points\. There are too few finite losses.*Record at least"):
        assert not range_test(compiled(sequential()), x, y, num_steps=5, burst_steps=0).bounds().ok


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="this Keras has none")
def test_a_model_with_several_optimizers_is_tested_and_goes_on_as_without(data):
    x, y = data

    def run(*, tested):
        keras.utils.set_random_seed(7)
        first, rest = keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.1, momentum=0.9)
        model = compiled(
            sequential(), keras.optimizers.MultiOptimizer(lambda it: first if "kernel" in it.path else rest)
        )
        if tested:
            assert len(range_test(model, x, y, batch_size=16, num_steps=14, burst_steps=0)) > 9
        return train_two_epochs(model, data)

    assert_same_training(run(tested=True), run(tested=False))


def test_a_training_step_without_a_loss_says_so_and_the_model_is_as_it_was(data):
    class Silent(keras.Sequential):
        def train_step(self, *inputs):
            logs = super().train_step(*inputs)  # on the JAX backend with the new state
            silent = {"something": keras.ops.ones(())}
            return (silent, *logs[1:]) if isinstance(logs, tuple) else silent

    model = compiled(Silent([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")]))
    before = state_of(model)
    with pytest.raises(ValueError, match=r"`loss`.*Received: logs with \['something'\]"):
        range_test(model, *data)
    assert_same_arrays(state_of(model)[:2], before[:2])


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_an_already_trained_model_is_noticed_and_not_spoilt(optimizer):
    # 30 epochs on scikit-learn's digits, and then a second training on the bounds that are found.
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x, y = (x / 16).astype("float32"), y.astype("int32")
    train, held_out = (x[:1300], y[:1300]), (x[1300:], y[1300:])
    keras.utils.set_random_seed(7)
    layers = [keras.layers.Dense(64, activation="relu"), keras.layers.Dense(10, activation="softmax")]
    model = keras.Sequential([keras.Input((64,)), *layers])
    make = {"adam": lambda: keras.optimizers.Adam(5e-3), "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9)}
    model.compile(make[optimizer](), LOSS)
    fresh = range_test(model, *train, batch_size=32).bounds()
    assert fresh.status == "ok"
    model.fit(*train, batch_size=32, epochs=30, verbose=0)
    before = model.evaluate(*held_out, verbose=0)
    model.compile(make[optimizer](), LOSS)
    bounds = range_test(model, *train, batch_size=32).bounds()
    assert (bounds.status, bounds.confidence) == ("small_fall", "low")
    assert "already trained" in bounds.reason
    assert bounds.max_lr < fresh.max_lr / 3
    model.fit(
        *train,
        batch_size=32,
        epochs=5,
        verbose=0,
        callbacks=[SGDRScheduler(min_lr=bounds.min_lr, max_lr=bounds.max_lr)],
    )
    assert model.evaluate(*held_out, verbose=0) < 1.05 * before


class ShufflesItself(keras.utils.PyDataset):
    """The usual way: a new order at the end of each epoch."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y, self.order = x, y, np.arange(len(x))

    def __len__(self):
        return len(self.x) // 12

    def __getitem__(self, index):
        rows = self.order[12 * index : 12 * index + 12]
        return self.x[rows], self.y[rows]

    def on_epoch_end(self):
        np.random.shuffle(self.order)


class ReadsAhead(ShufflesItself):
    """Read by threads or processes."""

    def __init__(self, x, y, **options):
        super().__init__(x, y)
        keras.utils.PyDataset.__init__(self, **options)


@pytest.mark.parametrize(
    "options", [{"workers": 3}, pytest.param({"workers": 2, "use_multiprocessing": True}, marks=pytest.mark.slow)]
)
def test_nothing_reads_ahead_when_a_range_test_has_ended(data, options):
    x, y = (np.concatenate([part] * 20) for part in data)
    model = compiled(sequential(), "sgd")
    before = threading.active_count()
    test = range_test(model, ReadsAhead(x, y, **options), num_steps=20, burst_steps=72)
    assert test.bursts
    deadline = time.monotonic() + 10  # a thread ends when it is given time to
    while (threading.active_count() > before or multiprocessing.active_children()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threading.active_count() <= before
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_dataset_that_shuffles_itself_is_not_told_of_the_tests_epochs(data):
    def run(*, tested):
        keras.utils.set_random_seed(3)
        model, batches = compiled(functional()), ShufflesItself(*data)
        if tested:
            range_test(model, batches, start_lr=1e-4, num_steps=12, burst_steps=0)
            assert batches.order.tolist() == list(range(len(data[0])))
        return model.fit(batches, epochs=2, verbose=0).history, state_of(model)

    assert_same_training(run(tested=True), run(tested=False))


def test_an_unbuilt_model_without_targets_can_be_tested(data):
    class LossOfItsOwn(Subclassed):
        def call(self, x, training=False):
            prediction = super().call(x, training=training)
            self.add_loss(keras.ops.mean(prediction**2))
            return prediction

    model = LossOfItsOwn()
    model.compile("sgd")
    assert len(range_test(model, data[0], batch_size=12, num_steps=12, burst_steps=0)) >= 10


@pytest.mark.parametrize("name", ["x", "sample_weight"])
def test_data_with_nan_are_told_of(data, name):
    x, y = data
    parts = {"x": x.copy(), "y": y, "sample_weight": np.ones(len(x), "float32")}
    parts[name].flat[5] = np.nan
    with pytest.warns(AutoLRWarning, match=f"hold NaN, in `{name}`"):
        range_test(compiled(sequential()), **parts, batch_size=12, num_steps=12, burst_steps=0)


def test_arguments_that_are_the_tests_own_are_refused(data):
    with pytest.raises(
        TypeError, match=r"`callbacks`, `epochs` of `fit` are the range test's own. Received: .*epochs=3"
    ):
        range_test(compiled(sequential()), *data, epochs=3, callbacks=[])


def test_an_argument_that_nobody_knows_is_refused(data):
    with pytest.raises(TypeError, match=r"^A range test takes .*`start_lr`.*Received: min_lr=0.1 "):
        range_test(compiled(sequential()), *data, min_lr=0.1)


@pytest.mark.parametrize(
    ("model", "hint"), [(None, "comes first"), (np.zeros((4, 6)), "comes first"), (sequential, "Call it first")]
)
def test_what_is_no_model_is_refused(data, model, hint):
    with pytest.raises(ValueError, match=rf"^Argument `model` must be a compiled Keras model. Received: [\s\S]*{hint}"):
        range_test(model, *data)


@pytest.mark.parametrize("share", [1.5, 1, -0.1, "0.1"])
def test_a_share_to_leave_out_that_is_none_is_refused(data, share):
    with pytest.raises(ValueError, match=r"^Argument `validation_split` must be in \[0, 1\). Received: "):
        range_test(compiled(sequential()), *data, validation_split=share)


def test_a_result_is_shown_in_a_line(data):
    test = range_test(compiled(sequential()), *data, batch_size=12, num_steps=12, burst_steps=0)
    assert repr(test) == f"<RangeTest: 12 rates from 1.0e-07 to {test.lrs[-1]:.1e}; 0 bursts; 12 steps in all>"


class Paired(keras.layers.Layer):
    """Needs an even number of samples, so a batch of one can't tell its shapes."""

    def call(self, x):
        first, second = keras.ops.split(x, 2, axis=0)
        return keras.ops.concatenate([first + second, first - second], axis=0)


def test_an_unbuilt_model_is_built_for_batches_as_they_are(data):
    model = compiled(keras.Sequential([keras.layers.Dense(4), Paired(), keras.layers.Dense(3, "softmax")]))
    x, y = data[0][:48], data[1][:48]
    range_test(model, x, y, batch_size=12, num_steps=6, burst_steps=0)
    assert model.input_shape == (12, 6)  # as Keras's own `fit` would have it
    model.fit(x, y, batch_size=12, verbose=0)


class OnlySteps(keras.Model):
    """A `train_step` and no `call`, as autoencoders often have."""

    def __init__(self):
        super().__init__()
        self.encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)])
        self.decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(6)])

    def train_step(self, data):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = keras.ops.mean((self.decoder(self.encoder(data)) - data) ** 2)
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss}


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a train_step of TensorFlow's")
def test_a_model_that_has_a_train_step_alone_is_tested(data):
    model = OnlySteps()
    model.compile("adam")
    before = [np.array(weight) for weight in model.get_weights()]
    assert np.std(range_test(model, data[0], batch_size=12, num_steps=12, burst_steps=0).losses) > 0
    assert_same_arrays(model.get_weights(), before)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tensors of TensorFlow's")
@pytest.mark.parametrize("kind", ["texts", "sparse", "ragged"])
def test_an_unbuilt_model_of_other_tensors_is_tested(kind):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    numbers, y = rng.integers(0, 3, (48, 6)), rng.integers(0, 3, 48)
    if kind == "texts":
        x = tf.constant([" ".join("abc"[number] for number in row) for row in numbers])
        first = keras.layers.TextVectorization(vocabulary=["a", "b", "c"], output_mode="count")
    elif kind == "ragged":
        x, first = tf.ragged.constant([[1] * (1 + n % 4) for n in range(48)]), keras.layers.Embedding(8, 4)
    else:
        x, first = tf.sparse.from_dense(numbers.astype("float32")), keras.layers.Dense(4)
    pooling = [keras.layers.GlobalAveragePooling1D()] if kind == "ragged" else []
    assert count_batches(x, batch_size=12) == 4
    model = compiled(keras.Sequential([first, *pooling, keras.layers.Dense(3, "softmax")]))
    assert len(range_test(model, x, y, batch_size=12, num_steps=12, burst_steps=0, shuffle=False)) >= 10


class Unready:
    """Not all that a model has can be read, and that is no reason to fail."""

    @property
    def state(self):
        raise RuntimeError("not ready")


class WithStateOfItsOwn(keras.Model):
    """Moves a variable and a generator that Keras does not know of."""

    def __init__(self):
        import tensorflow as tf

        super().__init__()
        self.top = keras.layers.Dense(3)
        self.strength = tf.Variable(0.0, trainable=False)
        self.generator = tf.random.Generator.from_seed(1)
        self.odd = Unready()

    def call(self, x):
        return self.top(x)

    def train_step(self, data):
        self.strength.assign_add(1.0)
        self.generator.normal(())
        return super().train_step(data)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's variables")
def test_variables_that_keras_does_not_list_are_put_back(data):
    model = compiled(WithStateOfItsOwn())
    before = np.array(model.generator.state)
    range_test(model, *data, batch_size=12, num_steps=12, burst_steps=0)
    assert float(model.strength) == 0
    np.testing.assert_array_equal(model.generator.state, before)
    model.fit(*data, batch_size=12, verbose=0)
    assert float(model.strength) > 0
    assert np.any(np.array(model.generator.state) != before)


def test_the_states_of_a_recurrent_layer_are_put_back(data):
    rows = np.repeat(data[0][:48, None], 3, axis=1)
    layers = [
        keras.Input(batch_shape=(12, 3, 6)),
        keras.layers.LSTM(4, stateful=True),
        keras.layers.Dense(3, "softmax"),
    ]
    model = compiled(keras.Sequential(layers))
    range_test(model, rows, data[1][:48], batch_size=12, num_steps=12, burst_steps=0, shuffle=False)
    for state in model.layers[0].states:
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(state), 0)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras's own error is another one there")
def test_forgotten_targets_are_asked_for(data):
    with pytest.raises(ValueError, match=r"^Argument `y` must be given.* Received: y=None"):
        range_test(compiled(sequential()), data[0])
    import tensorflow as tf

    batches = tf.data.Dataset.from_tensor_slices(data[0]).batch(12)
    with pytest.raises(ValueError, match=r"^Argument `x` must yield targets, too.* Received: x=<_BatchDataset"):
        range_test(compiled(sequential()), batches)


def test_a_model_whose_loss_needs_no_targets_is_tested_without(data):
    class Penalised(keras.Model):
        def __init__(self):
            super().__init__()
            self.top = keras.layers.Dense(2)

        def call(self, x):
            return self.top(x)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return keras.ops.mean((y_pred - 1) ** 2)

    model = Penalised()
    model.compile("sgd", loss="mse")  # which is not used
    assert len(range_test(model, data[0], batch_size=12, num_steps=12, burst_steps=0)) >= 10


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a training step of TensorFlow's")
@pytest.mark.parametrize("split", [0.0, 0.25])
def test_steps_of_an_epoch_decide_the_batches_of_arrays_as_in_training(data, split):
    """Keras makes as many batches as steps where no size is given."""
    x, y = data
    sizes = []

    class Sized(keras.Sequential):
        def train_step(self, data):
            sizes.append(data[0].shape[0])
            return super().train_step(data)

    model = Sized([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")])
    model.compile("sgd", LOSS, run_eagerly=True)
    model.fit(x, y, steps_per_epoch=4, validation_split=split, epochs=1, verbose=0)
    expected, sizes[:] = set(sizes), []
    range_test(model, x, y, steps_per_epoch=4, validation_split=split, num_steps=12, burst_steps=0)
    assert set(sizes) == expected == {round(16 * (1 - split))}


@pytest.mark.parametrize("kind", ["arrays", "a data set"])
def test_how_many_steps_an_epoch_has_does_not_end_data_that_end(data, kind):
    """Keras would say that they ran out, and that is no fault of the user's."""
    import tensorflow as tf

    x, y = data
    keras.utils.set_random_seed(7)
    model = compiled(sequential())
    if kind == "arrays":
        arguments = {"x": x, "y": y, "batch_size": 8}
    else:
        arguments = {"x": tf.data.Dataset.from_tensor_slices((x, y)).batch(8)}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*ran out of data")
        test = range_test(model, **arguments, steps_per_epoch=3, num_steps=20, burst_steps=0)
    assert len(test) == 20


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of tf.data")
def test_steps_on_data_of_unknown_size_are_counted_though_their_end_is_a_surprise(data):
    import tensorflow as tf

    unknown = tf.data.Dataset.from_tensor_slices(data).batch(16).filter(lambda x, y: True)  # ends again and again
    test = range_test(compiled(sequential()), unknown, num_steps=12, burst_steps=0)
    assert test.steps_spent == len(test) == 12


CONSTANT = keras.optimizers.schedules.PolynomialDecay(0.05, 10, 0.05)


def test_an_optimizer_with_a_schedule_is_swept_with_its_own_slots(data):
    """Adagrad divides by all gradients it has seen: without them, a trained model would be swept as a fresh one."""
    x, y = data

    def swept(rate):
        keras.utils.set_random_seed(3)
        model = compiled(sequential(), keras.optimizers.Adagrad(rate))
        train_two_epochs(model, data)
        return range_test(model, x, y, batch_size=16, num_steps=12, burst_steps=0, shuffle=False).losses

    np.testing.assert_allclose(swept(CONSTANT), swept(0.05), rtol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="its training step")
@pytest.mark.parametrize("chosen", [slice(2, None), pytest.param(slice(None, None, -1), marks=pytest.mark.slow)])
def test_slots_go_to_the_variables_that_a_step_trains_in_its_order(data, chosen):
    import tensorflow as tf

    class Chooses(keras.Sequential):
        def train_step(self, batch):
            x, y = batch
            variables = self.trainable_variables[chosen]
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x, training=True))
            self.optimizer.apply(tape.gradient(loss, [it.value for it in variables]), variables)
            return {"loss": loss}

    def swept(rate):
        keras.utils.set_random_seed(3)
        model = Chooses(sequential().layers)
        model.compile(keras.optimizers.Adagrad(rate), LOSS)
        model.fit(*data, batch_size=16, epochs=2, shuffle=False, verbose=0)
        return range_test(model, *data, batch_size=16, num_steps=12, burst_steps=0, shuffle=False).losses

    np.testing.assert_allclose(swept(CONSTANT), swept(0.05), rtol=1e-5)


def test_a_sweep_of_one_optimizer_among_several_says_what_it_is_about(data):
    model = compiled(sequential())
    model.other = keras.optimizers.SGD(0.1)
    with pytest.warns(
        AutoLRWarning, match="has optimizers of its own.*the one it is compiled with, whether that trains"
    ):
        range_test(model, *data, num_steps=12, burst_steps=0)


@pytest.mark.parametrize("frozen", [False, True])
def test_what_is_frozen_for_a_range_test_is_thawed_and_the_users_own_stays_frozen(data, frozen):
    import tensorflow as tf

    gc.unfreeze()  # by the tests' own set-up
    if frozen:
        gc.freeze()
    try:
        range_test(plain(), tf.data.Dataset.from_tensor_slices(data).batch(16), num_steps=4, burst_steps=0)
        assert (gc.get_freeze_count() > 0) == frozen
    finally:
        gc.freeze()
