"""What AutoLR does inside one trial: when its model's `fit` is called, a range test, then the same `fit` on a schedule.

At that point the final arguments are known, whoever chose them: the search, a `HyperModel.fit`, or Hyperband.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from autolr import compat
from autolr.boards import show
from autolr.budget import DEFAULTS, WARMUP, describe, plan, range_test_budget, trial_schedule
from autolr.curve import RangeTest
from autolr.data import Replay
from autolr.early_stopping import CycleEarlyStopping
from autolr.errors import AutoLRWarning
from autolr.optimizers import (
    PROPORTIONAL,
    batches_per_update,
    current_rate,
    default_rate,
    has_proportional_weights,
    name_of,
    scope_of,
    several_optimizers,
    takes_a_number,
    with_number_as_rate,
)
from autolr.progress import StepReporter
from autolr.records import TrialRecord
from autolr.reuse import compiled_setup, measured_setup
from autolr.scheduler import SGDRScheduler
from autolr.search_memory import Options, SearchMemory
from autolr.sweep import build, range_test
from autolr.training import TrainingLog
from autolr.trial_callbacks import callbacks_of, without_cycles_to_judge, without_rate_callbacks
from autolr.verdicts import LRBounds

MIN_LR, MAX_LR = f"{compat.TRIAL_PREFIX}min_lr", f"{compat.TRIAL_PREFIX}max_lr"
TAIL = f"{compat.TRIAL_PREFIX}tail_average"

SNAPSHOTS = "cycles"  # in a trial's folder: the weights at the ends of its last cycles

# The arguments of `fit` that decide what a training step sees.
TRAINING_ARGUMENTS = ("batch_size", "sample_weight", "class_weight", "shuffle", "steps_per_epoch", "validation_split")


@dataclass
class AssistedTrial:
    """One Keras Tuner trial, and the bounds found for it.

    Attributes:
        trial: The `keras_tuner` trial.
        folder: Where its record goes.
        checkpoint_of: Gives the file with the best weights of a trial.
        options: What the user chose.
        search: What the trials share.
        fitted: How often the `fit` of one of its models was called.
        bounds: What was found; every further `fit` of the trial that is set up alike uses it.
        replaced: Which default rate the schedule takes the place of, in words, in the first trial that has one.
        objective: The search's, for the record.
        warned: What this trial was warned of, said or not.
        record: What is written down of it.
    """

    trial: Any
    folder: str
    checkpoint_of: Callable[[str], str]
    options: Options = field(default_factory=Options)
    search: SearchMemory = field(default_factory=SearchMemory)
    fitted: int = 0
    bounds: LRBounds | None = None
    replaced: str = ""
    objective: Any = None
    warned: list[str] = field(default_factory=list)
    record: TrialRecord | None = None
    _setups: frozenset[str] = frozenset()
    _found: Sequence[Any] = (None, "")  # what the bounds were found on, and where they come from
    _steps_before: int = 0  # of the trainings before the latest

    @property
    def _parent(self) -> str | None:
        """The trial of Hyperband's rung before, with whose weights this one goes on."""
        return self.trial.hyperparameters.values.get("tuner/trial_id") or None

    def attach(self, model: keras.Model) -> None:
        """Make this model's `fit` a range test and a `fit` on the schedule."""
        original: Callable[..., Any] = model.fit
        signature = inspect.signature(keras.Model.fit)
        seen: list[Any] = []  # optimizers this model was trained with

        def fit(*args: Any, **kwargs: Any) -> Any:
            model.fit = original  # the range test is a `fit`, too
            self.fitted += 1
            try:
                try:
                    arguments = dict(signature.bind(model, *args, **kwargs).arguments)
                except TypeError as error:
                    self._warn(
                        "signature",
                        f"The model's `fit` takes other arguments than Keras's ({error}). It trains without AutoLR.",
                    )
                    return original(*args, **kwargs)
                del arguments["self"]
                arguments = self._on_screen(arguments)
                fresh = getattr(model, "optimizer", None) not in seen  # one that is not compiled has none
                arguments = self.assist(model, arguments, fresh=fresh)
                seen.append(getattr(model, "optimizer", None))
                return original(**arguments)
            finally:
                model.fit = fit

        model.fit = fit

    def _on_screen(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Where AutoLR has the screen, its own bar in place of Keras's; not if a `HyperModel.fit` asks for that."""
        progress = self.search.progress
        if not progress.takes_over or arguments.get("verbose", "auto") != "auto":
            return arguments
        callbacks = [*callbacks_of(arguments), StepReporter(progress)]
        return {**arguments, "verbose": 0, "callbacks": callbacks}

    def assist(self, model: keras.Model, arguments: dict[str, Any], *, fresh: bool = True) -> dict[str, Any]:
        """The arguments of `fit` with the schedule added; as they were, if the trial can't be or shall not be helped.

        Args:
            model: The freshly built model.
            arguments: The arguments its `fit` was called with, by name.
            fresh: Whether its optimizer was not trained with yet.

        Returns:
            Arguments to call `fit` with instead.
        """
        data = self.search.replayable(arguments.get("x"))  # what a test draws is put back for training
        if not self._leave_alone(model, arguments):
            before, optimizer = arguments, model.optimizer
            try:
                arguments = self._prepare(model, {**arguments, "x": data}, fresh=fresh)
            except Exception as error:  # AutoLR's own: the user's would show in training, too
                arguments, model.optimizer, model.train_function = before, optimizer, None
                for name in (MIN_LR, MAX_LR, TAIL):  # no schedule of these will run
                    self.trial.hyperparameters.values.pop(name, None)
                self._warn(
                    "unprepared",
                    f"Trial {self.trial.trial_id} could not be prepared ({type(error).__name__}: {error}). "
                    "It trains without AutoLR, at the rate its model is compiled with.",
                )
        arguments = self._without_cycles_to_judge(arguments)
        return {**arguments, "x": data.release()} if isinstance(data, Replay) else arguments

    def _without_cycles_to_judge(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Without callbacks that stop at the ends of cycles, if this trial is not assisted and has none."""
        callbacks = callbacks_of(arguments)
        kept = without_cycles_to_judge(callbacks)
        if len(kept) == len(callbacks):
            return arguments
        self._warn(
            "no cycles",
            f"Trial {self.trial.trial_id} trains without AutoLR's schedule, so there are no cycles for "
            "`CycleEarlyStopping` to judge: it is left out, and the trial trains all of its epochs.",
        )
        return {**arguments, "callbacks": kept}

    def _leave_alone(self, model: keras.Model, arguments: dict[str, Any]) -> bool:
        if getattr(model, "optimizer", None) is None:  # not compiled: Keras will say so
            return True
        if several_optimizers(model):
            self._warn(
                "several",
                "The model has optimizers of its own beside the one it is compiled with, and one range test cannot "
                "find bounds for several. It trains without AutoLR, at the rates its optimizers have.",
            )
            return True
        if has_proportional_weights(model.optimizer):
            self._warn(
                "proportional", f"{PROPORTIONAL} The trial trains without AutoLR, at the rate it is compiled with."
            )
            return True
        callbacks = callbacks_of(arguments)
        return self.options.rate_callbacks == "keep" and without_rate_callbacks(callbacks) != callbacks

    def _prepare(self, model: keras.Model, arguments: dict[str, Any], *, fresh: bool) -> dict[str, Any]:
        values = self.trial.hyperparameters.values
        choices = {name: values.get(name, default) for name, default in DEFAULTS.items()}
        trial_schedule(choices)  # refuses what is none, before anything is spent on it
        if fresh:
            self._replace_rate(model, arguments)
            if self._parent:
                self._load_optimizer(model, self._parent)
        callbacks = self._without_rate_callbacks(callbacks_of(arguments))
        setup = compiled_setup(model, arguments)
        if self.bounds is None or setup not in self._setups:
            self.bounds, *self._found = self._find_bounds(model, arguments)
            # Before and after: an unbuilt model's variables are only there now.
            self._setups |= {setup, compiled_setup(model, arguments)}
        schedule = plan(choices, arguments, batches_per_update=batches_per_update(model.optimizer))
        # Python floats: NumPy's break JSON and the chief-worker protocol.
        values[MIN_LR], values[MAX_LR] = float(self.bounds.min_lr), float(self.bounds.max_lr)
        values[TAIL] = self.options.tail_average  # for who trains the winner again
        self._say(describe(schedule) + self.replaced)
        self._record(model, schedule)
        scheduler = SGDRScheduler(
            self.bounds.min_lr,
            self.bounds.max_lr,
            fit_budget=True,
            warmup=WARMUP,
            tail_average=self.options.tail_average,
            restore_weights=False,
            snapshot_folder=Path(self.folder) / SNAPSHOTS if self._keeps_snapshots() else None,
            num_snapshots=self.options.num_snapshots or 1,
            **choices,
        )
        for callback in callbacks:
            if isinstance(callback, CycleEarlyStopping):
                callback.scheduler = scheduler
        # Before the user's, who may change the rate when a step has ended.
        log = TrainingLog(schedule, self._keep_training, fits=self.fitted)
        writers = show(callbacks, log, self.bounds, schedule)
        return {**arguments, "callbacks": [scheduler, log, *writers, *callbacks]}

    def _keeps_snapshots(self) -> bool:
        return self.options.num_snapshots > 0 and not self._is_remote()

    def _is_remote(self) -> bool:
        """Whether the trial's folder is on a file system that only TensorFlow can write to, as Keras Tuner does."""
        return "://" in self.folder

    def _replace_rate(self, model: keras.Model, arguments: dict[str, Any]) -> None:
        if not takes_a_number(model.optimizer):
            several = isinstance(compat.learning_rate_source(model.optimizer), list)
            # Freshly built and never trained, so nothing of the optimizer is lost.
            with scope_of(model):
                model.optimizer = with_number_as_rate(model.optimizer)
            model.train_function = None  # should it have been traced with the other one
            if several:  # their ratio, which is what was chosen, is kept
                build(model, arguments["x"], arguments.get("y"), arguments.get("sample_weight"))
                return
            compiled = "schedule"
        elif (value := np.float32(current_rate(model.optimizer))) != np.float32(default_rate(model.optimizer)):
            compiled = f"of {value:g}"
        else:
            # Perhaps nobody chose it, so a warning would be too much: the first trial's line on its schedule tells.
            if "default" not in self.search.warned:
                self.search.warned.add("default")
                self.replaced = f", in place of the compiled rate {value:g}"
            return
        if not self._parent:  # else it was loaded, not chosen
            self._warn(
                "replaced",
                f"The learning rate {compiled} that the model is compiled with is not used: AutoLR finds each trial's "
                "own. It can be left out of the build function; a hyperparameter that chooses it chooses nothing.",
            )

    def _load_optimizer(self, model: keras.Model, parent: str) -> None:
        """Give a later rung of Hyperband its parent's optimizer state, too.

        Keras Tuner loads the parent's checkpoint into a model whose optimizer has no variables yet, and Keras passes
        over what finds no place.
        """
        try:
            with scope_of(model):
                if not model.optimizer.built:
                    model.optimizer.build(model.trainable_variables)
                model.load_weights(self.checkpoint_of(parent))
        except Exception as error:  # whatever it was, the weights are there
            self._warn(
                "optimizer",
                f"The optimizer's state of trial {parent} could not be loaded ({type(error).__name__}: {error}). "
                f"Trial {self.trial.trial_id} goes on with its weights and a fresh optimizer.",
            )

    def _without_rate_callbacks(self, callbacks: list[Any]) -> list[Any]:
        kept = without_rate_callbacks(callbacks)
        if len(kept) < len(callbacks):
            names = ", ".join(sorted({type(callback).__name__ for callback in callbacks if callback not in kept}))
            self._warn(
                "callbacks",
                f"Callbacks that set the learning rate are left out of the trials, since AutoLR sets it: {names}. "
                'To train with them and without AutoLR\'s schedule, pass `rate_callbacks="keep"` to the tuner.',
            )
        return kept

    def _find_bounds(self, model: keras.Model, arguments: dict[str, Any]) -> tuple[LRBounds, RangeTest | None, str]:
        """Bounds, the curve they were found on, and where they come from."""
        values = self.trial.hyperparameters.values
        if self._parent and MIN_LR in values and MAX_LR in values:
            return self._taken_over(self._parent, LRBounds(values[MIN_LR], values[MAX_LR], "ok", "", "high"))
        measured = measured_setup(model, arguments, values) if self.options.reuse_bounds else ""
        if measured in self.search.found:
            return self._taken_over(*self.search.found[measured])
        steps, bursts = range_test_budget(
            arguments,
            share=self.options.range_test_share,
            most=self.options.range_test_steps,
            least=self.options.range_test_min_steps,
            batches_per_update=batches_per_update(model.optimizer),
            batches_per_call=int(model.steps_per_execution or 1),
        )
        self._say(f"range test: up to {steps + bursts} steps ...")
        try:
            chosen = {name: arguments[name] for name in TRAINING_ARGUMENTS if name in arguments}
            if arguments.get("validation_data") is not None:
                chosen.pop("validation_split", None)  # Keras ignores it then
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always", AutoLRWarning)
                    test = range_test(
                        model, arguments["x"], arguments.get("y"), num_steps=steps, burst_steps=bursts, **chosen
                    )
            finally:  # also what was warned of before an error
                self._pass_on(caught)
            bounds = test.bounds()
        except Exception as error:  # whatever it was, training itself will show it too, or go well
            test, bounds = None, fallback(model.optimizer, f"The range test raised {type(error).__name__}: {error}")
        if bounds.ok and measured:
            self.search.found[measured] = str(self.trial.trial_id), bounds
        if not bounds.ok:
            # Once a search for each verdict; every trial's record has its own.
            self._warn(bounds.status, f"Trial {self.trial.trial_id}: {bounds.status}. {bounds.reason}")
        spent = f", {test.steps_spent} steps" if test else ""
        verdict = f"{bounds.status}, {bounds.confidence} confidence{spent}"
        self._say(f"bounds: {bounds.min_lr:.2e} to {bounds.max_lr:.2e} ({verdict})")
        return bounds, test, "range test" if test else "fallback"

    def _pass_on(self, caught: list[warnings.WarningMessage]) -> None:
        """AutoLR's own warnings as the trial's; others as they were."""
        for it in caught:
            if issubclass(it.category, AutoLRWarning):
                self._warn(str(it.message), str(it.message))
            else:
                warnings.warn_explicit(it.message, it.category, it.filename, it.lineno)

    def _taken_over(self, trial_id: str, bounds: LRBounds) -> tuple[LRBounds, None, str]:
        self._say(f"range test: none, goes on with the bounds of trial {trial_id}")
        return replace(bounds, reason=f"Taken over from trial {trial_id}."), None, f"trial {trial_id}"

    def _record(self, model: keras.Model, schedule: dict[str, Any]) -> None:
        assert self.bounds is not None
        (test, source), training = self._found, self.record.training if self.record else None
        self._steps_before = training["steps_of_all"] if training else 0
        named = {name: str(getattr(self.objective, name, "")) for name in ("name", "direction")}
        self.record = TrialRecord(
            trial_id=str(self.trial.trial_id),
            values=dict(self.trial.hyperparameters.values),
            bounds=self.bounds.to_dict(),
            schedule=schedule,
            range_test=test.to_dict() if test else None,
            source=source,
            training=training,
            optimizer=name_of(model.optimizer),
            objective=named if named["direction"] in ("min", "max") else None,
            warnings=list(self.warned),
        )
        self._write_record()

    def _keep_training(self, training: dict[str, Any]) -> None:
        if self.record is not None:
            # A user's `HyperModel.fit` may have declared another hyperparameter since.
            values = dict(self.trial.hyperparameters.values)
            training = {**training, "steps_of_all": self._steps_before + training["steps"]}
            self.record = replace(self.record, values=values, training=training, warnings=list(self.warned))
            self._write_record()

    def _write_record(self) -> None:
        assert self.record is not None
        try:
            if self._is_remote():
                raise OSError(f"{self.folder} is no local folder")
            self.record.write(self.folder)
        except (OSError, TypeError, ValueError) as error:
            self._warn(
                "record",
                f"The range test of trial {self.trial.trial_id} could not be recorded ({error}). The trial goes on.",
            )

    def _warn(self, topic: str, text: str) -> None:
        """Warn once in the search; the trial's record has it in any case."""
        if text not in self.warned:
            self.warned.append(text)
        self.search.warn_once(topic, text)

    def _say(self, text: str) -> None:
        """One line about a phase of the trial."""
        self.search.progress.say(str(self.trial.trial_id), text)


def fallback(optimizer: Any, what_happened: str) -> LRBounds:
    """Bounds when there is no curve at all: the optimizer's default rate, and a 25th of it."""
    rate = default_rate(optimizer)
    reason = f"{what_happened.rstrip('.')}. The optimizer's default rate is used."
    return LRBounds(rate / 25, rate, "failed", reason, "low")
