"""The range test in one call: sweep a compiled model's learning rate, and leave the model exactly as it was."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import keras

from autolr.batchnorm import is_normalized, moving_statistics
from autolr.burst_recorder import BurstRecorder
from autolr.burst_search import BurstSearch
from autolr.bursts import ALL_ROUNDS, BURST_STEPS
from autolr.curve import RangeTest
from autolr.data import holding_nan, is_empty, without_samples
from autolr.errors import check_count, invalid, is_finite, shown, warn
from autolr.fit import Fit, quick_collection, unassisted_fit
from autolr.lr_finder import DEFAULT_END_LR, DEFAULT_NUM_STEPS, DEFAULT_START_LR, LRFinder
from autolr.model_state import ModelState, variables_of_data
from autolr.optimizers import (
    KEPT,
    SEVERAL,
    against_schedules,
    batches_per_update,
    keeps_its_optimizer,
    several_optimizers,
    takes_a_number,
)
from autolr.preparing import prepare, step_by_step
from autolr.recorder import LossRecorder
from autolr.terminal import Line

OWN_ARGUMENTS = {"epochs", "initial_epoch", "callbacks", "validation_freq"}


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
    verbose: str | int = "auto",
    **fit_arguments: Any,
) -> RangeTest:
    """Find out at which learning rates a model learns, and leave it exactly as it was.

    The model trains while its rate rises exponentially from `start_lr` to `end_lr`, and the loss of every batch is
    recorded. The sweep ends by itself when the loss diverges. It shows each rate for a step or two only, so what it
    suggests is confirmed by bursts: trainings of 24 steps at single rates around it, each from the model's untouched
    weights, of which the best and its neighbours go on to 48 steps. Where the model begins to learn late they are
    longer: 96 steps if there was no fall beyond the noise or one that gathers pace, and 192 if there is none yet.

    Then weights, BatchNorm statistics, the optimizer's slots and step count, metrics, variables of the loss and of the
    user's own objects, and random generators are put back bit for bit, also after Ctrl-C or an error: training
    afterwards is what it would have been without a test, wherever the order of the data can be repeated (arrays, a
    `PyDataset` that changes only between epochs, `tf.data` that does not shuffle, with the seeds of layers within
    it). Not put back are numbers, lists and other plain values that a `train_step` or a data set changes in Python,
    nor generators of random numbers inside a Python function that `tf.data` calls.
    Training uses the step that was traced for the test, so the test costs its steps and little else.

    Args:
        model: A compiled Keras model, built or not.
        x: Training data, anything that `model.fit` takes. A generator can be drawn from only once: the batches a test
            takes from it are gone for training (in a tuner they are kept for it).
        y: Targets, likewise.
        batch_size: As in `model.fit`; the same as in training, since the bounds depend on it.
        start_lr: First learning rate. Defaults to 1e-7, where no optimizer moves.
        end_lr: Last learning rate. Defaults to 10, where nearly all have diverged.
        num_steps: Optimizer steps of a whole sweep. Defaults to 100.
        burst_steps: Optimizer steps that bursts may take in all; 0 for none. Defaults to 1128, all ever wanted:
            five bursts of 24, three of 48, and where the model begins to learn late three of 96 and of 192; fewer are
            spent where bursts go on from shorter ones, some 192 or 600 to 700 in all. With a smaller number, the longer
            ones are left out first.
        verbose: Whether to tell what is being tried: 0 for nothing, 1 or 2 for a line. Defaults to "auto", a single
            line on a terminal, nothing elsewhere.
        **fit_arguments: Further arguments of `model.fit` that decide what a training step sees: `sample_weight`,
            `class_weight`, `shuffle`, `steps_per_epoch`, `validation_split` (whose share is left out).

    Returns:
        The recorded curve, a `RangeTest`; its `bounds()` are the learning rates to train between. If their status is
        not `"ok"`, a warning says why, and what to do.

    Raises:
        ValueError: If an argument is out of its range (`0 < start_lr < end_lr`, `num_steps` of 2 or more, `burst_steps`
            of 0 or more, `batch_size` of 1 or more, `verbose` as above, `validation_split` in [0, 1)), `model` is no
            compiled model, `x` holds no sample, targets are missing that the loss needs, the training step reports no
            `loss`, or, where the optimizer's rate is a schedule, the model also stores it in an attribute of its own or
            refers to it in a method, or its config does not hold all of its arguments.
        RuntimeError: If an unbuilt model runs eagerly and needs real numbers to be built, or has a `fit` that trains it
            by itself, which then has done so: call it on a batch first. Or if that `fit` does not tell its callbacks.
        TypeError: If an argument of `fit` is given that says how long to train and what to do meanwhile (`epochs`,
            `initial_epoch`, `callbacks`, `validation_freq`), or one that `fit` does not know.

    Example:
    ```python
    model.compile("sgd", "sparse_categorical_crossentropy")
    test = autolr.range_test(model, x, y, batch_size=64)
    min_lr, max_lr = test.bounds()
    ```

    Reference:
        Smith, 2015, [Cyclical Learning Rates for Training Neural Networks](https://arxiv.org/abs/1506.01186), 3.2.2.
    """
    if batch_size is not None:
        # Not as None: a `fit` of the user's own need not take it.
        fit_arguments["batch_size"] = check_count("batch_size", batch_size, "samples", hint="Best that of training.")
    with Line(verbose) as line:
        test = run_range_test(
            model,
            x,
            y,
            finder=LRFinder(start_lr=start_lr, end_lr=end_lr, num_steps=num_steps, restore=False),
            burst_steps=burst_steps,
            warn=warn,
            say=line.say,
            **fit_arguments,
        )
        bounds = test.bounds()
        verdict = f"{bounds.status}, {bounds.confidence} confidence; {test.steps_spent} steps"
        line.say(f"range test: {bounds.min_lr:.2e} to {bounds.max_lr:.2e} ({verdict})")
    if not bounds.ok:
        warn(f"{bounds.status}. {bounds.reason}")
    return test


def run_range_test(
    model: keras.Model,
    x: Any,
    y: Any = None,
    *,
    finder: LRFinder,
    burst_steps: int,
    warn: Callable[[str], None],
    say: Callable[[str], None] = lambda text: None,
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
        say: Is told what happens.
        **fit_arguments: Further arguments of `model.fit`, `batch_size` among them.
    """
    check_count("burst_steps", burst_steps, least=0, hint="0 leaves the bursts out.")
    _check(model, x, fit_arguments)
    _warn_of(model, x, y, fit_arguments, warn)
    fit = Fit.on(model, x, y, **fit_arguments)

    with quick_collection(fit):
        draws = prepare(fit)
        if not model.trainable_variables:
            warn("The model has no trainable weights, so no learning rate changes it. Unfreeze a layer; compile again.")
            burst_steps = 0  # there is nothing to confirm
        original = ModelState.of(model, fit.x)
        try:
            with step_by_step(model) as changed:
                if changed:
                    draws = prepare(fit)
                before = ModelState.of(model, fit.x) if changed else original
                statistics = moving_statistics(model)

                def train(recorder: LossRecorder) -> RangeTest:
                    skipped = 0
                    try:
                        if isinstance(recorder, BurstRecorder):
                            say(f"range test: a burst of {recorder.num_steps} steps at {recorder.rate:.1e}")
                            skipped = recorder.resume(model, drawn_by=variables_of_data(fit.x))
                        else:
                            say(f"range test: a sweep of {recorder.num_steps} steps")
                        # Enough epochs even when each is a single batch. The callback ends training in time.
                        fit(recorder, epochs=recorder.num_steps * batches_per_update(model.optimizer), skipped=skipped)
                        normalized = is_normalized(model, statistics)
                    finally:
                        fit.dispose()
                        before.restore(kernels=draws)
                    if not len(recorder.result):
                        raise without_samples(x)
                    return replace(recorder.result, normalized=normalized)

                def may_pause(steps: int) -> bool:
                    longer = steps < ALL_ROUNDS[-1].steps
                    return longer and fit.can_skip(steps * batches_per_update(model.optimizer))

                sweep = train(finder)
                return BurstSearch(sweep, train, steps=burst_steps, end_lr=finder.end_lr, may_pause=may_pause).run()
        finally:
            original.restore()


def _check(model: Any, x: Any, fit_arguments: Mapping[str, Any]) -> None:
    """Refuse what no range test can be run on, before anything is touched."""
    if not isinstance(model, keras.Model):
        hint = "Call it first." if callable(model) else "The model comes first, then the data."
        raise invalid("model", "be a compiled Keras model", model, hint)
    _check_fit_arguments(model, fit_arguments)
    if getattr(model, "optimizer", None) is None:
        raise ValueError(
            "Argument `model` must be compiled with an optimizer and a loss. "
            f"Received: model={model!r}, not compiled. Call `model.compile(...)` first."
        )
    if keeps_its_optimizer(model) and not takes_a_number(model.optimizer):
        raise ValueError(f"{KEPT} Received: model={model!r}. Compile it with a number, or use `self.optimizer`.")
    if is_empty(x):
        raise without_samples(x)


def _warn_of(model: keras.Model, x: Any, y: Any, fit_arguments: Mapping[str, Any], warn: Callable[[str], None]) -> None:
    """Say where a range test finds nothing that means anything."""
    if nan := holding_nan(x=x, y=y, sample_weight=fit_arguments.get("sample_weight")):
        warn(
            f"The training data hold NaN, in {' and '.join(f'`{name}`' for name in nan)}. Unless the model or its loss "
            "leaves them out, no learning rate helps: what a range test finds means nothing then. Leave those samples "
            "out, or fill them in."
        )
    if reason := against_schedules(model.optimizer):
        warn(f"{reason} Choose its rate by training at several.")
    if several_optimizers(model):
        warn(f"{SEVERAL} What it finds is about the one it is compiled with, whether that trains anything or not.")


def _check_fit_arguments(model: keras.Model, arguments: Mapping[str, Any]) -> None:
    if own := arguments.keys() & OWN_ARGUMENTS:
        several = len(own) > 1
        raise TypeError(
            f"Argument{'s' * several} {', '.join(f'`{name}`' for name in sorted(own))} of `fit` "
            f"{'are' if several else 'is'} the range test's own. Received: "
            f"{', '.join(f'{name}={shown(arguments[name])}' for name in sorted(own))}. Leave them out."
        )
    try:
        inspect.signature(unassisted_fit(model)).bind_partial(**arguments)
    except ValueError:  # a `fit` that does not tell what it takes
        pass
    except TypeError as error:
        received = ", ".join(f"{name}={shown(value)}" for name, value in arguments.items())
        raise TypeError(
            "A range test takes `batch_size`, `start_lr`, `end_lr`, `num_steps`, `burst_steps`, `verbose` and "
            f"arguments of the model's `fit`. Received: {received} ({error}). Leave out what `fit` does not take."
        ) from None
    if steps := arguments.get("steps_per_epoch"):  # 0 is none to Keras
        check_count("steps_per_epoch", steps, hint="Leave it out: a range test goes through all of the data.")
    split = arguments.get("validation_split")
    if split is not None and not (is_finite(split) and 0 <= split < 1):
        raise invalid("validation_split", "be in [0, 1)", split, "It is left out of the test, as of training.")
