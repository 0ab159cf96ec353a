"""The range test in one call: sweep a compiled model's learning rate, and leave the model exactly as it was."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from autolr import compat
from autolr.bursts import ALL_LOOKS, BURST_STEPS, LOOKS, Burst, Look, gathers_pace, next_burst
from autolr.callbacks import DEFAULT_END_LR, DEFAULT_NUM_STEPS, DEFAULT_START_LR, LRFinder
from autolr.curve import RangeTest
from autolr.data import Replay, Unannounced, first_batch, holding_nan, is_array_data, is_empty, replayable
from autolr.errors import AutoLRWarning, invalid
from autolr.optimizers import (
    KEPT,
    PROPORTIONAL,
    batches_per_update,
    has_proportional_weights,
    keeps_its_optimizer,
    scope_of,
    takes_a_number,
    with_number_as_rate,
)
from autolr.sgdr import FloatArray
from autolr.snapshot import Snapshot

NEVER = 2**31  # epochs between two validations
OWN_ARGUMENTS = {"epochs", "initial_epoch", "callbacks", "verbose", "validation_freq"}


def range_test(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    batch_size: int | None = None,
    start_lr: float = DEFAULT_START_LR,
    end_lr: float = DEFAULT_END_LR,
    num_steps: int = DEFAULT_NUM_STEPS,
    burst_steps: int = BURST_STEPS,
    **fit_arguments: Any,
) -> RangeTest:
    """Find out at which learning rates a model learns, and leave it exactly as it was.

    The model trains while its rate rises exponentially from `start_lr` to `end_lr`, and the loss of every batch is
    recorded. The sweep ends by itself when the loss diverges. It shows each rate for a step or two only, so what it
    suggests is confirmed by bursts: trainings of 24 steps at single rates around it, then of 48 steps around the
    best, each from the model's untouched weights. Where the model begins to learn late they are longer: 96 steps
    if there was no fall beyond the noise or one that gathers pace, and 192 if there is none yet.

    Then weights, BatchNorm statistics, the optimizer's slots and step count, metrics and random generators are put
    back bit for bit, also after Ctrl-C or an error: training afterwards is what it would have been without a test,
    wherever the order of the data can be repeated (arrays, a `PyDataset` whose batches are what they are until an epoch
    ends, `tf.data` that does not shuffle). It reuses
    the traced training step, so the test costs its steps and nothing else.

    Args:
        model: A compiled Keras model, built or not.
        x: Training data, anything that `model.fit` takes.
        y: Targets, likewise.
        batch_size: As in `model.fit`; the same as in training, since the bounds depend on it.
        start_lr: First learning rate. Defaults to 1e-7, where no optimizer moves.
        end_lr: Last learning rate. Defaults to 10, where nearly all have diverged.
        num_steps: Optimizer steps of a whole sweep. Defaults to 100.
        burst_steps: Optimizer steps that bursts may take in all; 0 for none. Defaults to 1128, all ever wanted:
            five bursts of 24, three of 48, and where the model begins to learn late three of 96 and of 192. With
            fewer, the longer ones are left out first.
        **fit_arguments: Further arguments of `model.fit` that decide what a training step sees: `sample_weight`,
            `class_weight`, `shuffle`, `steps_per_epoch`, `validation_split` (whose share is left out).

    Returns:
        The recorded curve, a `RangeTest`; its `bounds()` are the learning rates to train between.

    Raises:
        ValueError: If the rates are not `0 < start_lr < end_lr`, there are fewer than 2 steps or a negative number of
            `burst_steps`, the model is not compiled, `x` holds no sample, `y` is missing and the loss needs it, or the
            model keeps an optimizer with a schedule as its rate under a name of its own.
        TypeError: If an argument of `fit` is given that says how long and how visibly to train (`epochs`, `callbacks`,
            `verbose`, `validation_freq`).

    Example:
    ```python
    model.compile("sgd", "sparse_categorical_crossentropy")
    test = autolr.range_test(model, x, y, batch_size=64)
    min_lr, max_lr = test.bounds()
    ```

    Reference:
        Smith, 2015, [Cyclical Learning Rates for Training Neural Networks](https://arxiv.org/abs/1506.01186), 3.2.2.
    """
    return run_range_test(
        model,
        x,
        y,
        finder=LRFinder(start_lr=start_lr, end_lr=end_lr, num_steps=num_steps, restore=False),
        burst_steps=burst_steps,
        warn=lambda text: warnings.warn(text, AutoLRWarning, stacklevel=4),
        batch_size=batch_size,
        **fit_arguments,
    )


def run_range_test(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    finder: LRFinder,
    burst_steps: int,
    warn: Callable[[str], None],
    batch_size: int | None = None,
    **fit_arguments: Any,
) -> RangeTest:
    """What `range_test` does, with a sweep that is laid out already.

    Args:
        model: As for `range_test`, and so are the others.
        x: Training data.
        y: Targets.
        finder: Sweeps; it must not put the model back, which is done here.
        burst_steps: Optimizer steps that bursts may take.
        warn: Is given what is to be warned of.
        batch_size: As in `model.fit`.
        **fit_arguments: Further arguments of `model.fit`.
    """
    if own := fit_arguments.keys() & OWN_ARGUMENTS:
        raise TypeError(
            f"Arguments {', '.join(f'`{name}`' for name in sorted(own))} of `fit` are the range test's own. Received: "
            f"{', '.join(f'{name}={fit_arguments[name]!r}' for name in sorted(own))}. Leave them out."
        )
    if burst_steps < 0:
        raise invalid("burst_steps", "be 0 or more", burst_steps, "0 leaves the bursts out.")
    if getattr(model, "optimizer", None) is None:
        raise ValueError(
            "Argument `model` must be compiled with an optimizer and a loss. "
            f"Received: model={model!r}, not compiled. Call `model.compile(...)` first."
        )
    if keeps_its_optimizer(model) and not takes_a_number(model.optimizer):
        raise ValueError(f"{KEPT} Received: model={model!r}. Compile it with a number, or use `self.optimizer`.")
    if is_empty(x):
        raise invalid("x", "hold at least one sample", x, "Was everything filtered out?")
    if nan := holding_nan(x=x, y=y, sample_weight=fit_arguments.get("sample_weight")):
        warn(
            f"The training data hold NaN, in {' and '.join(f'`{name}`' for name in nan)}. No learning rate helps a "
            "model trained on it: what a range test finds means nothing. Leave those samples out, or fill them in."
        )
    if has_proportional_weights(model.optimizer):
        warn(f"{PROPORTIONAL} Choose its rate by training at several.")
    x = Unannounced(x) if isinstance(x, keras.utils.PyDataset) else replayable(x)

    def fit(callback: keras.callbacks.Callback, epochs: int) -> None:
        try:
            model.fit(
                x.replay() if isinstance(x, Replay) else x,
                y,
                batch_size=batch_size,
                epochs=epochs,
                validation_freq=NEVER,  # Keras must not evaluate the share held out in between
                callbacks=[callback],
                verbose=0,
                **fit_arguments,
            )
        except ValueError as error:
            if y is None and is_array_data(x) and "None values not supported" in str(error):
                raise invalid("y", "be given, since the model's loss needs it", y, "Pass the targets.") from error
            raise

    if compat.first_fit_draws_a_batch(model) and not isinstance(x, Replay):
        begin(model, fit)
    build(model, x, y, fit_arguments.get("sample_weight"), batch_size=batch_size)

    def train(recorder: LRFinder) -> RangeTest:
        try:
            # Enough epochs even when each is a single batch. The callback ends training in time.
            fit(recorder, recorder.num_steps * batches_per_update(model.optimizer))
        finally:
            before.restore()
        return recorder.result

    original = Snapshot.of(model)
    try:
        with number_as_rate(model):
            before = Snapshot.of(model)
            return _confirmed(train(finder), burst_steps, train, end_lr=finder.end_lr)
    finally:
        original.restore()


def _confirmed(
    sweep: RangeTest, burst_steps: int, train: Callable[[LRFinder], RangeTest], *, end_lr: float
) -> RangeTest:
    """The sweep, with bursts around what it suggests."""
    bounds, untrained = sweep.bounds(), sweep.untrained_losses()
    if bounds.status in ("flat", "non_finite") or len(untrained) < 3 or not np.all(np.isfinite(untrained)):
        return sweep
    steps_per_point = sweep.steps_spent // len(sweep)
    bursts: list[Burst] = []
    spent = 0
    # Above a rate that diverged nothing is to be sought; where nothing did, the best may lie beyond the sweep.
    highest = end_lr if sweep.diverged else math.inf

    def look(looks: Sequence[Look]) -> RangeTest:
        nonlocal spent
        while found := next_burst(
            bounds.max_lr,
            bursts,
            steps_left=(burst_steps - spent) // steps_per_point,
            within=(0.0, highest),
            looks=looks,
        ):
            rate, steps = found
            burst = train(BurstRecorder(rate, steps * steps_per_point))
            spent += burst.steps_spent
            bursts.append(Burst.of(rate, burst.losses, untrained, steps=steps))
        return replace(sweep, steps_spent=sweep.steps_spent + spent, bursts=tuple(bursts))

    test = look(LOOKS)
    # Longer ones only for a model that begins to learn late, the longest only where it has not begun yet.
    if test.bounds().status == "small_fall" or gathers_pace(bursts):
        test = look(ALL_LOOKS[:-1])
    if test.bounds().status == "small_fall":
        test = look(ALL_LOOKS)
    return test


class BurstRecorder(LRFinder):
    """Trains at one rate and records the losses."""

    def __init__(self, rate: float, num_steps: int) -> None:
        super().__init__(start_lr=rate, end_lr=2 * rate, num_steps=num_steps, restore=False)

    def _lay_out(self, points: int) -> FloatArray:
        return np.full(points, self.start_lr)


class _BegunError(Exception):
    """A `fit` has begun, which is all that was wanted of it."""


class _EndAtOnce(keras.callbacks.Callback):
    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        raise _BegunError


def begin(model: keras.Model, fit: Callable[[keras.callbacks.Callback, int], None]) -> None:
    """Let a `fit` do what only the first one does, and nothing more.

    On the JAX backend the first `fit` builds the model from a batch that it draws from the shuffled data. If the range
    test's were the first, training afterwards would not draw it, and would see another order of batches than without
    a test.
    """
    history = getattr(model, "history", None)
    try:
        fit(_EndAtOnce(), 1)
    except _BegunError:
        model.history = history


def build(
    model: keras.Model, x: Any, y: Any = None, sample_weight: Any = None, *, batch_size: int | None = None
) -> None:
    """Create the variables that a model and its optimizer have not got yet."""
    with scope_of(model):
        layers_built = all(layer.built for layer in model.layers)
        if layers_built and type(model).call is keras.Model.call:
            model.built = True  # a `train_step` that calls the layers is all it has
        elif not (model.built and layers_built):
            compat.symbolic_build(model, first_batch(x, y, sample_weight, batch_size=batch_size))
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)


@contextmanager
def number_as_rate(model: keras.Model) -> Iterator[None]:
    """Let callbacks set the rate of a model that was compiled with a schedule, a callable or several rates.

    Such an optimizer refuses to be assigned a number. A copy that differs in that alone takes its place for a while;
    the training step is traced anew for each.
    """
    if takes_a_number(model.optimizer):
        yield
        return
    original = model.optimizer
    try:
        with scope_of(model):
            model.optimizer = with_number_as_rate(original)
        model.train_function = None
        yield
    finally:
        model.optimizer = original
        model.train_function = None
