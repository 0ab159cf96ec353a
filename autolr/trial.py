"""What AutoLR does inside one trial: when its model's `fit` is called, a range test, then the same `fit` on a schedule.

At that point the final arguments are known, whoever chose them: the search, a `HyperModel.fit`, or Hyperband.
"""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from autolr import compat
from autolr.bounds import LRBounds
from autolr.bursts import BURST_STEPS, MAX_BURSTS
from autolr.callbacks import DEFAULT_NUM_STEPS, CycleEarlyStopping, SGDRScheduler
from autolr.curve import RangeTest
from autolr.data import Rewindable, count_steps
from autolr.errors import AutoLRWarning
from autolr.records import TrialRecord
from autolr.sgdr import fitted_edges
from autolr.sweep import range_test, with_number_as_rate

MIN_LR, MAX_LR = f"{compat.TRIAL_PREFIX}min_lr", f"{compat.TRIAL_PREFIX}max_lr"
DEFAULTS = {"cycle_length": 100, "mult_factor": 2.0, "lr_decay": 1.0}

RANGE_TEST_SHARE = 0.1
RANGE_TEST_STEPS = DEFAULT_NUM_STEPS + MAX_BURSTS * BURST_STEPS  # a whole sweep, and all bursts it may need
MIN_RANGE_TEST_STEPS = 40  # with fewer, a sweep over eight decades has no more than five points in each
MIN_BURSTS = 3  # the rate in doubt, one below it and one above

# The arguments of `fit` that decide what a training step sees.
TRAINING_ARGUMENTS = ("batch_size", "sample_weight", "class_weight", "shuffle", "steps_per_epoch", "validation_split")


@dataclass
class AssistedTrial:
    """One Keras Tuner trial, and the bounds found for it.

    Attributes:
        trial: The `keras_tuner` trial.
        folder: Where its record goes.
        range_test_share: Largest share of the trial's own steps that a range test may add.
        range_test_steps: Steps of a range test where the share allows it.
        quiet: Whether to print nothing.
        warned: What the search has been warned of, so that each thing is said once.
        bounds: What was found; every further `fit` of the trial uses it.
    """

    trial: Any
    folder: str
    range_test_share: float
    range_test_steps: int
    quiet: bool = False
    warned: set[str] = field(default_factory=set)
    bounds: LRBounds | None = None

    def attach(self, model: keras.Model) -> None:
        """Make this model's `fit` a range test and a `fit` on the schedule."""
        original: Callable[..., Any] = model.fit
        signature = inspect.signature(keras.Model.fit)

        def fit(*args: Any, **kwargs: Any) -> Any:
            model.fit = original  # the range test is a `fit`, too
            try:
                try:
                    arguments = dict(signature.bind(model, *args, **kwargs).arguments)
                except TypeError as error:
                    self.warn_once(
                        "signature",
                        f"The model's `fit` takes other arguments than Keras's ({error}). It trains without AutoLR.",
                    )
                    return original(*args, **kwargs)
                del arguments["self"]
                return original(**self.prepare(model, arguments))
            finally:
                model.fit = fit

        model.fit = fit

    def prepare(self, model: keras.Model, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments of `fit` with the schedule added, once the trial's bounds are known.

        Args:
            model: The freshly built model.
            arguments: The arguments its `fit` was called with, by name.

        Returns:
            Arguments to call `fit` with instead.
        """
        self._replace_rate(model)
        first = self.bounds is None
        test, source = None, ""
        if self.bounds is None:
            data: Any = arguments.get("x")
            if hasattr(data, "__next__"):  # what the test draws from an iterator is put back for training
                data = Rewindable(data)
            self.bounds, test, source = self._find_bounds(model, {**arguments, "x": data})
            if isinstance(data, Rewindable):
                arguments = {**arguments, "x": data.release()}
        values = self.trial.hyperparameters.values
        # Python floats: NumPy's break JSON and the chief-worker protocol.
        values[MIN_LR], values[MAX_LR] = float(self.bounds.min_lr), float(self.bounds.max_lr)
        choices = {name: values.get(name, default) for name, default in DEFAULTS.items()}
        schedule = plan(choices, arguments)
        self._say(describe(schedule))
        if first:
            self._record(schedule, test, source)
        scheduler = SGDRScheduler(
            self.bounds.min_lr, self.bounds.max_lr, fit_budget=True, restore_weights=False, **choices
        )
        callbacks = keras.tree.flatten(arguments.get("callbacks") or [])
        for callback in callbacks:
            if isinstance(callback, CycleEarlyStopping):
                callback.scheduler = scheduler
        return {**arguments, "callbacks": [scheduler, *callbacks]}

    def _replace_rate(self, model: keras.Model) -> None:
        rate = compat.learning_rate_source(model.optimizer)
        if not isinstance(rate, keras.Variable):
            # Freshly built and never trained, so nothing of the optimizer is lost.
            model.optimizer = with_number_as_rate(model.optimizer)
            compiled = "schedule"
        elif (value := np.float32(keras.ops.convert_to_numpy(rate))) != np.float32(default_rate(model.optimizer)):
            compiled = f"of {value:g}"
        else:
            return  # nobody chose it, so nobody need be told
        self.warn_once(
            "replaced",
            f"The learning rate {compiled} that the model is compiled with is not used: AutoLR finds each trial's own. "
            "It can be left out of the build function.",
        )

    def _find_bounds(self, model: keras.Model, arguments: dict[str, Any]) -> tuple[LRBounds, RangeTest | None, str]:
        """Bounds, the curve they were found on, and where they come from."""
        values = self.trial.hyperparameters.values
        parent = values.get("tuner/trial_id")
        if parent and MIN_LR in values and MAX_LR in values:  # a later rung of Hyperband, with its parent's weights
            self._say(f"range test: none, goes on with the bounds of trial {parent}")
            taken = LRBounds(values[MIN_LR], values[MAX_LR], "ok", f"Taken over from trial {parent}.", "high")
            return taken, None, f"trial {parent}"
        steps, bursts = self._budget(arguments)
        self._say(f"range test: up to {steps + bursts * BURST_STEPS} steps ...")
        try:
            chosen = {name: arguments[name] for name in TRAINING_ARGUMENTS if name in arguments}
            test = range_test(model, arguments["x"], arguments.get("y"), num_steps=steps, max_bursts=bursts, **chosen)
            bounds = test.bounds()
        except Exception as error:  # whatever it was, training itself will show it too, or go well
            test, bounds = None, fallback(model.optimizer, f"The range test raised {type(error).__name__}: {error}")
        if not bounds.ok:
            warnings.warn(f"Trial {self.trial.trial_id}: {bounds.status}. {bounds.reason}", AutoLRWarning, stacklevel=2)
        spent = f", {test.steps_spent} steps" if test else ""
        verdict = f"{bounds.status}, {bounds.confidence} confidence{spent}"
        self._say(f"bounds: {bounds.min_lr:.2e} to {bounds.max_lr:.2e} ({verdict})")
        return bounds, test, "range test" if test else "fallback"

    def _budget(self, arguments: dict[str, Any]) -> tuple[int, int]:
        """Steps of the sweep and number of bursts: a share of the trial's own steps, but enough to see something.

        A whole sweep comes first, then bursts, of which fewer than three decide nothing.
        """
        budget, per_epoch = self.range_test_steps, steps_per_epoch(arguments)
        if per_epoch is not None:
            epochs = int(arguments.get("epochs", 1)) - int(arguments.get("initial_epoch", 0))
            affordable = int(self.range_test_share * per_epoch * epochs)
            budget = min(budget, max(affordable, MIN_RANGE_TEST_STEPS))
        least = MIN_BURSTS * BURST_STEPS
        # A sweep may give up a third of its points for the sake of bursts, no more.
        enough = budget - least >= 2 * DEFAULT_NUM_STEPS // 3
        sweep = min(DEFAULT_NUM_STEPS, budget - least if enough else budget)
        bursts = min(MAX_BURSTS, (budget - sweep) // BURST_STEPS)
        return sweep, bursts if bursts >= MIN_BURSTS else 0

    def _record(self, schedule: dict[str, Any], test: RangeTest | None, source: str) -> None:
        assert self.bounds is not None
        record = TrialRecord(
            trial_id=str(self.trial.trial_id),
            values=dict(self.trial.hyperparameters.values),
            bounds=self.bounds.to_dict(),
            schedule=schedule,
            range_test=test.to_dict() if test else None,
            source=source,
        )
        try:
            record.write(self.folder)
        except (OSError, TypeError, ValueError) as error:
            warnings.warn(
                f"Trial {self.trial.trial_id}: its range test could not be recorded ({error}). The trial goes on.",
                AutoLRWarning,
                stacklevel=2,
            )

    def _say(self, text: str) -> None:
        """One line about a phase of the trial."""
        if not self.quiet:
            print(f"AutoLR trial {self.trial.trial_id} | {text}", flush=True)

    def warn_once(self, topic: str, text: str) -> None:
        """Warn, unless the search has been warned of this before."""
        if topic not in self.warned:
            self.warned.add(topic)
            warnings.warn(text, AutoLRWarning, stacklevel=2)


def plan(choices: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """The schedule as it will run, for the record and the reader: `TrialRecord.schedule`."""
    epochs, per_epoch = int(arguments.get("epochs", 1)), steps_per_epoch(arguments)
    edges = fitted_edges(
        epochs * (per_epoch or 1),
        cycle_length=choices["cycle_length"],
        mult_factor=choices["mult_factor"],
        steps_per_epoch=per_epoch or 1,
    )
    return {
        **choices,
        "epochs": epochs,
        "initial_epoch": int(arguments.get("initial_epoch", 0)),
        "steps_per_epoch": per_epoch,
        "edges": edges.tolist(),
    }


def describe(schedule: dict[str, Any]) -> str:
    """A planned schedule in words."""
    edges, per_epoch = schedule["edges"], schedule["steps_per_epoch"] or 1
    lengths = [f"{(end - begin) / per_epoch:.3g}" for begin, end in itertools.pairwise(edges)]
    shown = ", ".join([*lengths[:6], "..."] if len(lengths) > 6 else lengths)
    start = f", from epoch {schedule['initial_epoch']}" if schedule["initial_epoch"] else ""
    return f"schedule: {len(lengths)} cycle{'s' * (len(lengths) > 1)} of {shown} epochs{start}"


def steps_per_epoch(arguments: dict[str, Any]) -> int | None:
    """Steps in an epoch of a `fit` with these arguments, None if it cannot be known beforehand."""
    return count_steps(
        arguments.get("x"),
        batch_size=arguments.get("batch_size"),
        steps_per_epoch=arguments.get("steps_per_epoch"),
        validation_split=0.0
        if arguments.get("validation_data") is not None
        else arguments.get("validation_split", 0.0),
    )


def default_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """The rate an optimizer of this class has when none is given."""
    if compat.optimizer_is_scaled(optimizer):
        return default_rate(optimizer.inner_optimizer)
    parameter = inspect.signature(type(optimizer).__init__).parameters.get("learning_rate")
    return parameter.default if parameter is not None and isinstance(parameter.default, float) else 0.001


def fallback(optimizer: keras.optimizers.Optimizer, what_happened: str) -> LRBounds:
    """Bounds when there is no curve at all: the optimizer's default rate, and a 25th of it."""
    rate = default_rate(optimizer)
    return LRBounds(rate / 25, rate, "failed", f"{what_happened}. The optimizer's default rate is used.", "low")
