"""What people search with: one case for each line of `docs/compatibility.md`."""

from __future__ import annotations

import contextlib
import tempfile
from typing import Any
from unittest import mock

import keras
import keras_tuner as kt
import numpy as np
from compatibility import BATCH, Case, Setup, compile_, data, model

import autolr
from autolr import trial as trial_module
from autolr import trial_bounds
from autolr.records import TrialRecord

HEAD = """# Compatibility

What AutoLR does with the searches people have. This page is written by `python tests/compatibility.py`, which runs each
line on the real Keras Tuner; the tests fail when a line no longer holds.

*Bit for bit* says whether training after the range test came out exactly as it does without one: every logged number,
and at the end every weight and optimizer variable. "cannot be" marks data whose order cannot be repeated, or moves on
with each pass: of `tf.data` that shuffles, with a seed too, training sees another order after a test, but the same with
`reshuffle_each_iteration=False`. "-" marks lines without a range test of their own to compare.

Random generators of the user's own are put back, `numpy.random.default_rng()` and `random.Random()` in a `PyDataset`
say. Not put back are plain values that a `train_step` changes in Python (a counter, a list), tables as
`tf.lookup.experimental.MutableHashTable`, generators inside a Python function that `tf.data` calls (`from_generator`,
`py_function`), and what other processes hold (`use_multiprocessing`). Give a counter to the model as a `keras.Variable`
or a weight."""

FOOT = """
## Versions

Keras Tuner 1.4.8, the latest there is, is the one supported. This page was made on Keras 3.15 and TensorFlow 2.21, the
newest. The lowest are Keras 3.12, the newest for Python 3.10, and TensorFlow 2.18 (`make test-lowest`). Names that
neither package promises to keep are used in `autolr/compat.py` and `autolr/compat_tuner.py` alone;
`tests/test_compat.py` and `tests/test_dropin_compat.py` tell when one is gone.

## Backends

The tables above are TensorFlow's. `make test-backends` holds on JAX what schedules, callbacks, ensembles and range
tests promise: the same rates at every step, and training after a range test bit for bit as without one. On JAX

- `shape="one_cycle"` does not cycle the momentum, since a traced step sees no variable that is not the optimizer's own:
  the rate moves alone, and a warning says so;
- the tuners are not tested.

## Kills, and many machines

Searches whose processes are killed are tested in `tests/test_dropin_resume.py`, chief and workers in
`tests/test_dropin_distributed.py`; see [distributed.md](distributed.md).
"""


def choice_model(hp):
    units = hp.Choice("units", [4, 8])
    return compile_(keras.Sequential([keras.Input((6,)), keras.layers.Dense(units, "relu"), keras.layers.Dense(3)]))


class LastOracle(kt.Oracle):
    """A user's own."""

    def populate_space(self, trial_id):
        return {"status": "RUNNING", "values": {p.name: list(p.values)[-1] for p in self.get_space().space}}


class OwnTuner(autolr.AutoLRMixin, kt.RandomSearch):
    """A user's subclass with a `run_trial` as Keras Tuner's documentation has it, which AutoLR's does not see."""

    def run_trial(self, trial, *args, **kwargs):
        hp = trial.hyperparameters
        built = self.hypermodel.build(hp)
        return self.hypermodel.fit(hp, built, *args, **kwargs)


class HookedTuner(autolr.AutoLRMixin, kt.BayesianOptimization):
    """A user's subclass with hooks."""

    def on_epoch_end(self, trial, model, epoch, logs=None):
        super().on_epoch_end(trial, model, epoch, logs)


def tuner(cls, **options):
    return lambda: Setup(choice_model, tuner=cls, options=options)


TUNERS = [
    Case("Tuners", "`RandomSearch`", tuner(autolr.RandomSearch, max_trials=2)),
    Case("Tuners", "`BayesianOptimization`", tuner(autolr.BayesianOptimization, num_initial_points=1, max_trials=2)),
    Case("Tuners", "`GridSearch`", tuner(autolr.GridSearch, max_trials=None)),
    Case("Tuners", "`with_auto_lr(kt.RandomSearch)`", tuner(autolr.with_auto_lr(kt.RandomSearch))),
    Case("Tuners", "the mixin on a subclass with hooks", tuner(HookedTuner)),
    Case("Tuners", "a subclass whose `run_trial` builds the model itself", tuner(OwnTuner), quick=True),
    Case(
        "Tuners",
        "a custom `Oracle` with `kt.Tuner`",
        lambda: Setup(
            choice_model,
            tuner=lambda hypermodel, objective, max_trials, seed, hyperparameters, **where: autolr.with_auto_lr(
                kt.Tuner
            )(oracle=LastOracle(objective, max_trials, hyperparameters), hypermodel=hypermodel, **where),
        ),
    ),
    Case("Tuners", "the schedule searched, not held", lambda: Setup(choice_model, space=kt.HyperParameters)),
]


class Sequence(keras.utils.PyDataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        x, y = data()
        return x[index * BATCH : (index + 1) * BATCH], y[index * BATCH : (index + 1) * BATCH]


def batches(number):
    for index in range(number):
        yield Sequence()[index % 8]


def drawn_batches(number):
    for x, y in batches(number):
        yield x + 0.1 * np.random.normal(size=x.shape).astype("float32"), y


class LayersInside:
    """`tf.data` that passes through Keras's own layers."""

    def __init__(self):
        self.noise = keras.layers.GaussianNoise(0.1, seed=1)

    def batches(self, **options):
        return dataset().map(lambda x, y: (self.noise(x, training=True), y), **options)


def dataset(*, shuffle=False, repeat=False, unknown=False, file=False):
    import tensorflow as tf

    made = tf.data.Dataset.from_tensor_slices(data())
    if shuffle:
        made = made.shuffle(64)
    made = made.batch(BATCH)
    if file:
        made = made.cache(tempfile.mkdtemp() + "/batches")
    if repeat:
        made = made.repeat()
    return made.filter(lambda x, y: True) if unknown else made


def tensors():
    return tuple(keras.ops.convert_to_tensor(array) for array in data())


def fed(*positional, hypermodel=lambda hp: model(), **fit):
    return Setup(hypermodel, positional=positional, fit=fit)


def two_inputs(hp=None):
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    both = keras.layers.Concatenate()([a, keras.layers.Dropout(0.1)(keras.layers.Dense(4, "relu")(b))])
    return compile_(keras.Model({"a": a, "b": b}, keras.layers.Dense(3)(both)))


DATA = [
    Case("Data", "NumPy arrays", Setup, quick=True),
    Case("Data", "tensors", lambda: fed(*tensors(), batch_size=BATCH)),
    Case(
        "Data",
        "a dict of inputs",
        lambda: fed({"a": data()[0], "b": data()[0]}, data()[1], hypermodel=two_inputs, batch_size=BATCH),
    ),
    Case("Data", "`tf.data`", lambda: fed(dataset())),
    Case("Data", "`tf.data`, repeated, with `steps_per_epoch`", lambda: fed(dataset(repeat=True), steps_per_epoch=8)),
    Case("Data", "`tf.data` of unknown size", lambda: fed(dataset(unknown=True))),
    Case("Data", "`tf.data` that augments by Keras's layers", lambda: fed(LayersInside().batches())),
    Case(
        "Data",
        "`tf.data` that augments in parallel calls",
        lambda: fed(LayersInside().batches(num_parallel_calls=2)),
        exact=False,
    ),
    Case("Data", "`tf.data` that fills its cache in a file", lambda: fed(dataset(file=True))),
    Case("Data", "`tf.data` that shuffles", lambda: fed(dataset(shuffle=True)), exact=False),
    Case("Data", "`PyDataset`", lambda: fed(Sequence())),
    Case(
        "Data",
        "a finite generator",
        lambda: fed(batches(16), steps_per_epoch=8),
        why="in one trial, as in Keras Tuner itself: it cannot be drawn from twice",
        quick=True,
    ),
    Case("Data", "an infinite generator", lambda: fed(batches(10**9), steps_per_epoch=8)),
    Case(
        "Data",
        "a generator that draws from `np.random`",
        lambda: fed(drawn_batches(10**9), steps_per_epoch=24),
    ),
    Case("Data", "`validation_split`", lambda: Setup(fit={"validation_split": 0.25})),
    Case("Data", "`validation_data`", lambda: Setup(fit={"validation_data": data(16)})),
    Case("Data", "`class_weight`", lambda: Setup(fit={"class_weight": {0: 1.0, 1: 2.0, 2: 3.0}})),
    Case("Data", "`sample_weight`", lambda: Setup(fit={"sample_weight": np.linspace(0.5, 1.5, 64)})),
]


class Late(keras.Model):
    """Has no variables until it sees data."""

    def __init__(self):
        super().__init__()
        self.hidden, self.drop, self.top = (
            keras.layers.Dense(4, "relu"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(3),
        )

    def call(self, x, training=False):
        return self.top(self.drop(self.hidden(x), training=training))


class OwnStep(keras.Sequential):
    """A training step of its own, with a loss tracker of its own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.tracker = keras.metrics.Mean(name="own")

    def train_step(self, batch):
        import tensorflow as tf

        x, y = batch
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result()}


class Silent(keras.Sequential):
    def train_step(self, batch):
        super().train_step(batch)
        return {"something": 1.0}


class Adversaries(keras.Model):
    """A GAN's shape: two networks, two optimizers, and a compiled dummy."""

    def __init__(self):
        super().__init__()
        self.one, self.other = keras.layers.Dense(1), keras.layers.Dense(1)
        self.one.build((None, 6))
        self.other.build((None, 6))
        self.built = True

    def compile(self, one, other):
        super().compile()
        self.one_optimizer, self.other_optimizer = one, other

    def call(self, x):
        return self.one(x) - self.other(x)

    def train_step(self, batch):
        import tensorflow as tf

        x, _ = batch
        for layer, optimizer in ((self.one, self.one_optimizer), (self.other, self.other_optimizer)):
            with tf.GradientTape() as tape:
                loss = keras.ops.mean(keras.ops.square(self(x) - 1.0))
            optimizer.apply(tape.gradient(loss, layer.trainable_variables), layer.trainable_variables)
        return {"loss": loss}


def adversaries(hp):
    made = Adversaries()
    made.compile(keras.optimizers.Adam(0.01), keras.optimizers.Adam(0.02))
    return made


def two_outputs(hp):
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(4, "relu")(inputs)
    made = keras.Model(inputs, [keras.layers.Dense(3)(hidden), keras.layers.Dense(1)(hidden)])
    loss = [keras.losses.SparseCategoricalCrossentropy(from_logits=True), "mse"]
    return compile_(made, loss=loss, loss_weights=[1.0, 0.1])


def mixed(hp):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        return model("adam")
    finally:
        keras.config.set_dtype_policy(before)


def multi(hp):
    made = model()
    first, rest = keras.optimizers.SGD(0.01, momentum=0.9), keras.optimizers.Adam(0.001)
    kernel = made.variables[0].path
    made.optimizer = keras.optimizers.MultiOptimizer(lambda variable: first if variable.path == kernel else rest)
    return made


def mirrored():
    import tensorflow as tf

    devices = [f"/cpu:{number}" for number in range(len(tf.config.list_logical_devices("CPU")))]
    return Setup(options={"distribution_strategy": tf.distribute.MirroredStrategy(devices)})


def built_by(make, **options):
    return lambda: Setup(lambda hp: make(), **options)


sgd = keras.optimizers.SGD
MODELS = [
    Case("Models", "`Sequential`", Setup),
    Case(
        "Models",
        "functional, several inputs",
        lambda: fed({"a": data()[0], "b": data()[0]}, data()[1], hypermodel=two_inputs),
    ),
    Case("Models", "several outputs", lambda: fed(data()[0], [data()[1], data()[0][:, :1]], hypermodel=two_outputs)),
    Case("Models", "subclassed and unbuilt", built_by(lambda: compile_(Late(), "adam"))),
    Case("Models", "custom `train_step`", built_by(lambda: model("adam", OwnStep))),
    Case(
        "Models",
        "custom `train_step` that logs no loss",
        lambda: Setup(
            lambda hp: model("adam", Silent, metrics=["accuracy"]),
            fit={"validation_split": 0.25},
            options={"objective": "val_loss"},
        ),
        failing=True,
    ),
    Case("Models", "mixed precision", lambda: Setup(mixed)),
    Case("Models", "`steps_per_execution`", built_by(lambda: model("adam", steps_per_execution=2))),
    Case("Models", "`steps_per_execution` of a whole epoch", built_by(lambda: model("adam", steps_per_execution=8))),
    Case("Models", "gradient accumulation", built_by(lambda: model(sgd(0.01, gradient_accumulation_steps=4)))),
    Case("Models", "`run_eagerly`", built_by(lambda: model("adam", run_eagerly=True))),
    Case("Models", "EMA of the weights", built_by(lambda: model(keras.optimizers.Adam(use_ema=True)))),
    Case(
        "Models",
        "compiled with a `LearningRateSchedule`",
        built_by(lambda: model(sgd(keras.optimizers.schedules.CosineDecay(0.1, 16)))),
        quick=True,
    ),
    Case("Models", "compiled with a callable rate", built_by(lambda: model(sgd(lambda: 0.05)))),
    Case("Models", "`MultiOptimizer`", lambda: Setup(multi), why="the ratio of the rates is kept"),
    Case("Models", "several optimizers, as in a GAN", lambda: Setup(adversaries), quick=True),
    Case("Models", "`Ftrl`", built_by(lambda: model(keras.optimizers.Ftrl(0.5)))),
    Case("Models", "`ScheduleFreeAdamW`", built_by(lambda: model(keras.optimizers.ScheduleFreeAdamW(0.01)))),
    Case("Models", "`MirroredStrategy` on two CPUs", mirrored, cpus=2),
]
OPTIMIZERS = ("MultiOptimizer", "ScheduleFreeAdamW")  # which older versions of Keras have not got
GONE = [name for name in OPTIMIZERS if not hasattr(keras.optimizers, name)]
MODELS = [case for case in MODELS if not any(name in case.name for name in GONE)]


class ChoosesInFit(kt.HyperModel):
    def build(self, hp):
        return model()

    def fit(self, hp, model, *args, **kwargs):
        return model.fit(*args, **{**kwargs, "batch_size": hp.Fixed("batch_size", 16), "epochs": hp.Fixed("epochs", 3)})


class FitsTwice(kt.HyperModel):
    """Trains the head, then all of it, compiled anew."""

    def build(self, hp):
        return model()

    def fit(self, hp, model, *args, **kwargs):
        model.layers[0].trainable = False
        compile_(model, sgd(0.01))
        model.fit(*args, **{**kwargs, "epochs": 1})
        model.layers[0].trainable = True
        compile_(model, sgd(0.01))
        return model.fit(*args, **{**kwargs, "initial_epoch": 1})


class OwnLoop(kt.HyperModel):
    def build(self, hp):
        return model()

    def fit(self, hp, model, x, y, **kwargs):
        return float(model.train_on_batch(x, y))


class CrossValidates(kt.HyperModel):
    def build(self, hp):
        return model()

    def fit(self, hp, model, *args, **kwargs):
        losses = [self.build(hp).fit(*args, **kwargs).history["loss"][-1] for _ in range(2)]
        return float(np.mean(losses))


def with_callback(make, *, epochs=2, **options):
    return lambda: Setup(fit={"callbacks": [make()], "epochs": epochs}, options=options)


FIT = [
    Case("Fit", "`HyperModel.fit` chooses `batch_size` and `epochs`", lambda: Setup(ChoosesInFit())),
    Case("Fit", "`HyperModel.fit` calls `fit` twice", lambda: Setup(FitsTwice()), why="tested for each"),
    Case("Fit", "`HyperModel.fit` with a loop of its own", lambda: Setup(OwnLoop())),
    Case("Fit", "`HyperModel.fit` that builds models itself (k-fold)", lambda: Setup(CrossValidates())),
    Case("Fit", "`executions_per_trial`", lambda: Setup(options={"executions_per_trial": 2})),
    Case("Fit", "`EarlyStopping`", with_callback(lambda: keras.callbacks.EarlyStopping("loss", patience=0), epochs=3)),
    Case("Fit", "`ModelCheckpoint`", with_callback(lambda: keras.callbacks.ModelCheckpoint("checkpoint.keras"))),
    Case("Fit", "`TensorBoard`", with_callback(lambda: keras.callbacks.TensorBoard("logs"))),
    Case("Fit", "`ReduceLROnPlateau`", with_callback(lambda: keras.callbacks.ReduceLROnPlateau("loss"))),
    Case(
        "Fit",
        "`LearningRateScheduler`",
        with_callback(lambda: keras.callbacks.LearningRateScheduler(lambda epoch: 0.1)),
    ),
    Case(
        "Fit",
        '`LearningRateScheduler`, `rate_callbacks="keep"`',
        with_callback(lambda: keras.callbacks.LearningRateScheduler(lambda epoch: 0.1), rate_callbacks="keep"),
        quick=True,
    ),
]


def hyperband(hypermodel, objective, max_trials, seed, hyperparameters, **where):
    return autolr.Hyperband(
        hypermodel, objective, max_epochs=3, factor=3, seed=seed, hyperparameters=hyperparameters, **where
    )


def named(hp):
    made = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(hp.Choice("units", [3, 4, 5, 6])), keras.layers.Dense(3)]
    )
    return compile_(made, "adam")


HYPERBAND = [
    Case(
        "Hyperband",
        "later rungs go on with bounds, schedule and optimizer state of their parents",
        lambda: Setup(named, tuner=hyperband),
    )
]


@contextlib.contextmanager
def full_disk():
    def fail(self, folder):
        raise OSError(28, "No space left on device")

    with mock.patch.object(TrialRecord, "write", fail):
        yield


@contextlib.contextmanager
def raising():
    def fail(*args, **kwargs):
        raise RuntimeError("out of memory")

    with mock.patch.object(trial_bounds, "run_range_test", fail):
        yield


@contextlib.contextmanager
def unpreparable():
    def fail(*args, **kwargs):
        raise RuntimeError("a fault of AutoLR")

    with mock.patch.object(trial_module, "plan", fail):
        yield


def scored():
    return model(metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")])


FAILURE: list[Case] = [
    Case(
        "Failure",
        "NaN in the data",
        lambda: Setup(
            lambda hp: scored(),
            positional=(np.full((64, 6), np.nan, "float32"), data()[1]),
            fit={"batch_size": BATCH},
            options={"objective": kt.Objective("accuracy", "max")},
        ),
        failing=True,
    ),
    Case("Failure", "an exception in the range test", lambda: Setup(around=raising), failing=True, quick=True),
    Case("Failure", "an exception in AutoLR", lambda: Setup(around=unpreparable)),
    Case("Failure", "a full disk when the record is written", lambda: Setup(around=full_disk)),
]

CASES: list[Any] = [*TUNERS, *DATA, *MODELS, *FIT, *HYPERBAND, *FAILURE]
