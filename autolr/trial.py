"""What AutoLR does inside one trial: when its model's `fit` is called, a range test, then the same `fit` on a schedule.

At that point the final arguments are known, whoever chose them: the search, a `HyperModel.fit`, or Hyperband.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import keras
from keras.callbacks import SwapEMAWeights

from autolr import compat
from autolr.budget import batches_per_epoch, describe, epochs_of, plan, trial_schedule
from autolr.cycle_ends import drop_snapshots
from autolr.early_stopping import CycleEarlyStopping
from autolr.errors import in_brief
from autolr.fit import Fit, accepts, arguments_by_name, is_keras_own, training_arguments
from autolr.left_alone import reason_to_leave_alone
from autolr.optimizers import (
    batches_per_update,
    copy_with_number_as_rate,
    current_rate,
    default_rate,
    has_rate,
    name_of,
    scope_of,
    several_optimizers,
    takes_a_number,
)
from autolr.preparing import build, prepare
from autolr.progress import StepReporter
from autolr.replay import Replay
from autolr.reuse import compiled_setup
from autolr.scheduler import SGDRScheduler
from autolr.search_memory import Options, SearchMemory
from autolr.search_space import declared_twice
from autolr.tensorboard import tensorboard_callbacks
from autolr.training_log import TrainingLog
from autolr.trial_bounds import find_trial_bounds, parent_of
from autolr.trial_callbacks import (
    callbacks_of,
    has_own_end,
    stop_within_cycles,
    without_cycles_to_judge,
    without_rate_callbacks,
)
from autolr.trial_diary import Found, TrialDiary
from autolr.trial_values import DEFAULTS, MAX_LR, MIN_LR, TAIL
from autolr.verdicts import LRBounds

SNAPSHOTS = "cycles"  # in a trial's folder: the weights at the ends of its last cycles


@dataclass
class AssistedTrial:
    """One Keras Tuner trial, and the bounds found for it.

    Attributes:
        trial: The `keras_tuner` trial.
        folder_of: Gives the folder of a trial; its own is where its record goes.
        checkpoint_of: Gives the file with the best weights of a trial.
        options: What the user chose.
        search: What the trials share.
        fitted: How often the `fit` of one of its models was called.
        found: Its bounds, and where they come from, by what they depend on: every further `fit` that is set up alike
            uses them.
        objective: The search's, for the record.
        objective_check: Ends a `fit` that does not report it; None where a `fit` need not.
        diary: What is said and written down of it.
    """

    trial: Any
    folder_of: Callable[[str], str]
    checkpoint_of: Callable[[str], str]
    options: Options
    search: SearchMemory
    fitted: int = 0
    found: dict[str, Found] = field(default_factory=dict)
    objective: dict[str, str] | None = None
    objective_check: keras.callbacks.Callback | None = None
    diary: TrialDiary = field(init=False)
    _attached: list[tuple[keras.Model, dict[str, Any]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.diary = TrialDiary(self.trial, self.folder, self.search, self.objective)

    @property
    def folder(self) -> str:
        """The trial's own folder."""
        return self.folder_of(self.trial.trial_id)

    def attach(self, model: keras.Model) -> None:
        """Make this model's `fit` a range test and a `fit` on the schedule, until `detach`."""
        own = {"fit": vars(model)["fit"]} if "fit" in vars(model) else {}  # on the model, not of its class
        self._attached.append((model, own))
        original: Callable[..., Any] = model.fit
        trained: list[Any] = []  # optimizers this model was trained with

        def fit(*args: Any, **kwargs: Any) -> Any:
            model.fit = original  # the range test is a `fit`, too
            try:
                return self._fit(model, args, kwargs, trained=trained)
            finally:
                model.fit = fit

        vars(fit)["unassisted"] = original
        model.fit = fit

    def _fit(self, model: keras.Model, args: tuple[Any, ...], kwargs: dict[str, Any], *, trained: list[Any]) -> Any:
        """The model's own `fit` with these arguments, on the schedule if it can be helped; notes its optimizer."""
        self.fitted += 1
        if self.fitted == 1:  # of a training that was interrupted: whatever comes, they are none of this one's
            drop_snapshots(Path(self.folder) / SNAPSHOTS, after=0)
            self.diary.forget()
        arguments, trouble = arguments_by_name(model, args, kwargs)
        if arguments is None:
            if trouble:
                self.search.note_unassisted(str(self.trial.trial_id))
                self.diary.warn("signature", f"{trouble} It trains without AutoLR.")
            return model.fit(*args, **kwargs)
        # What came by position goes on by position: the model's own `fit` may call it something else.
        positional = list(arguments)[: len(args)]
        if accepts(model.fit, "verbose"):
            arguments = self._on_screen(arguments)
        arguments = self.assist(model, arguments, trained=trained)
        may_come_later = not is_keras_own(model.fit) or has_own_end(callbacks_of(arguments))
        if self.objective_check is not None and arguments.get("validation_freq", 1) == 1 and not may_come_later:
            # Behind those that report, too.
            arguments["callbacks"] = [*callbacks_of(arguments), self.objective_check]
        trained.append(getattr(model, "optimizer", None))  # one that is not compiled has none
        values = [arguments.pop(name) for name in positional]
        return model.fit(*values, **arguments)

    def detach(self) -> None:
        """Give the models their own `fit` back: who keeps one and trains it further is no part of the trial."""
        while self._attached:
            model, own = self._attached.pop()
            vars(model).pop("fit", None)
            vars(model).update(own)

    def _on_screen(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Where AutoLR has the screen, its own bar in place of Keras's; not if a `HyperModel.fit` asks for that."""
        progress = self.search.progress
        if not progress.takes_over or arguments.get("verbose", "auto") != "auto":
            return arguments
        callbacks = [*callbacks_of(arguments), StepReporter(progress, number=self.fitted)]
        return {**arguments, "verbose": 0, "callbacks": callbacks}

    def assist(self, model: keras.Model, arguments: dict[str, Any], *, trained: Sequence[Any] = ()) -> dict[str, Any]:
        """The arguments of `fit` with the schedule added; as they were, if the trial can't be or shall not be helped.

        Args:
            model: The freshly built model.
            arguments: The arguments its `fit` was called with, by name.
            trained: The optimizers it was trained with in this trial.

        Returns:
            Arguments to call `fit` with instead.
        """
        data = self.search.replayable(arguments.get("x"))  # what a test draws is put back for training
        if self._leave_alone(model, arguments):
            if not self.found:  # those of the trial that it goes on from are none of its own
                self._forget_values()
            self._take_over_optimizer(model, {**arguments, "x": data}, trained)
        else:
            before, optimizer = arguments, model.optimizer
            try:
                arguments = self._prepare(model, {**arguments, "x": data}, trained)
            except Exception as error:  # AutoLR's own: the user's would show in training, too
                arguments = before
                compat.replace_optimizer(model, optimizer)
                self._forget_values()
                self.search.note_unassisted(str(self.trial.trial_id))
                self.diary.warn(
                    f"unprepared {type(error).__name__}",
                    f"Trial {self.trial.trial_id} could not be prepared ({in_brief(error)}). "
                    "It trains without AutoLR, at the rate its model is compiled with.",
                )
        arguments = self._leave_out_judges_of_cycles(arguments)
        return {**arguments, "x": data.release()} if isinstance(data, Replay) else arguments

    def _forget_values(self) -> None:
        """Take back what a trial has found, or has from another, since no schedule of these will run."""
        for name in (MIN_LR, MAX_LR, TAIL):
            self.trial.hyperparameters.values.pop(name, None)
        self.diary.forget()

    def _leave_out_judges_of_cycles(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Without callbacks that stop at the ends of cycles, if this trial is not assisted and has none."""
        callbacks = callbacks_of(arguments)
        kept = without_cycles_to_judge(callbacks)
        if len(kept) == len(callbacks):
            return arguments
        self.diary.warn(
            "no cycles",
            f"Trial {self.trial.trial_id} trains without AutoLR's schedule, so there are no cycles for "
            "`CycleEarlyStopping` to judge: it is left out, and the trial trains all of its epochs.",
        )
        return {**arguments, "callbacks": kept}

    def _leave_alone(self, model: keras.Model, arguments: dict[str, Any]) -> bool:
        if getattr(model, "optimizer", None) is None:  # not compiled: Keras will say so
            return True
        if reason := reason_to_leave_alone(model):
            self.diary.warn(*reason)
            self.search.note_unassisted(str(self.trial.trial_id))
            return True
        callbacks = callbacks_of(arguments)
        return self.options.rate_callbacks == "keep" and without_rate_callbacks(callbacks) != callbacks

    def _prepare(self, model: keras.Model, arguments: dict[str, Any], trained: Sequence[Any]) -> dict[str, Any]:
        values = self.trial.hyperparameters.values
        choices = {name: values.get(name, default) for name, default in DEFAULTS.items()}
        trial_schedule(choices)  # refuses what is none, before anything is spent on it
        self._warn_of_schedule(arguments)
        replaced = "" if model.optimizer in trained else self._replace_rate(model, arguments)
        self._take_over_optimizer(model, arguments, trained)
        # Where Keras cannot know it, what an earlier training has found.
        per_epoch = batches_per_epoch(arguments) or self.search.batches_in_epoch(arguments["x"])
        found = self._find_bounds(model, arguments, per_epoch)
        per_epoch = per_epoch or self.search.batches_in_epoch(arguments["x"])  # the test may have come to its end
        planned = plan(choices, arguments, per_epoch, batches_per_update=batches_per_update(model.optimizer))
        again = f" (training {self.fitted} of the trial)" if self.fitted > 1 else ""
        unknown = "" if per_epoch else "; in the first epoch the rate stands still, as its length is unknown"
        self.diary.say(describe(planned) + unknown + replaced + again)
        earlier = {id(its): its.bounds.to_dict() for its in self.found.values() if its is not found}
        self.diary.begin(found, planned, optimizer=name_of(model.optimizer), earlier=list(earlier.values()))
        return {**arguments, "callbacks": self._callbacks(arguments, found.bounds, planned)}

    def _warn_of_schedule(self, arguments: dict[str, Any]) -> None:
        """Say what of the space or the callbacks does not do what it looks like."""
        if twice := declared_twice(self.trial.hyperparameters):
            names = ", ".join(f"`{name}`" for name in twice)
            self.diary.warn(
                "declared twice",
                f"Declared under a condition: {names}, of AutoLR's schedule. In trials drawn before the condition was "
                "first met, AutoLR's own range is searched; later, where it is not met, the default holds. Declare it "
                "without a condition to search yours.",
            )
        if stop_within_cycles(callbacks_of(arguments), epochs_of(arguments)):
            self.diary.warn(
                "early stopping",
                "Keras's `EarlyStopping` ends a trial inside a cycle, when the learning rate has not come down yet. "
                "`autolr.CycleEarlyStopping()` judges a trial at the ends of its cycles only, and so never stops one "
                "that has a single cycle.",
            )

    def _find_bounds(self, model: keras.Model, arguments: dict[str, Any], per_epoch: int | None) -> Found:
        """Bounds for this training, from its own range test or an earlier one; noted among the trial's values."""
        setup = compiled_setup(model, arguments)
        found = self.found.get(setup)
        if found is None:
            found = find_trial_bounds(
                model,
                arguments,
                diary=self.diary,
                options=self.options,
                folder_of=self.folder_of,
                per_epoch=per_epoch,
            )
            # Before and after: an unbuilt model's variables are only there now.
            self.found[setup] = self.found[compiled_setup(model, arguments)] = found
        bounds = found.bounds
        # Python floats: NumPy's break JSON and the chief-worker protocol.
        values = self.trial.hyperparameters.values
        values[MIN_LR], values[MAX_LR] = float(bounds.min_lr), float(bounds.max_lr)
        values[TAIL] = self.options.tail_average  # for who trains the winner again
        return found

    def _callbacks(self, arguments: dict[str, Any], bounds: LRBounds, planned: dict[str, Any]) -> list[Any]:
        """The user's callbacks, and before them those that set the rate and write down what happens."""
        callbacks = self._leave_out_rate_callbacks(callbacks_of(arguments))
        keeps_snapshots = self.options.num_snapshots > 0 and not self.diary.is_remote
        scheduler = SGDRScheduler.from_hyperparameters(
            self.trial.hyperparameters,
            restore_weights=False,
            snapshot_folder=Path(self.folder) / SNAPSHOTS if keeps_snapshots else None,
            num_snapshots=self.options.num_snapshots or 1,
        )
        # Of the data that Keras trains on, which a model's own `fit` may make of these.
        scheduler.batches_if_unknown = self.search.batches_in_epoch(arguments["x"])
        for callback in callbacks:
            if isinstance(callback, CycleEarlyStopping):
                callback.scheduler = scheduler
        # Before the user's, who may change the rate when a step has ended.
        told_by_user = arguments.get("steps_per_epoch") is not None  # how long an epoch is, and not by the data
        note_epoch = None if told_by_user else partial(self.search.note_epoch, arguments["x"])
        log = TrainingLog(planned, self.diary.keep_training, fits=self.fitted, note_epoch=note_epoch)
        own = [scheduler, log, *tensorboard_callbacks(callbacks, log, bounds, planned)]
        # What puts averages in the weights' place at an epoch's end comes first: snapshots hold them then.
        swaps = [it for it in callbacks if isinstance(it, SwapEMAWeights) and it.swap_on_epoch]
        return [*swaps, *own, *(it for it in callbacks if it not in swaps)]

    def _replace_rate(self, model: keras.Model, arguments: dict[str, Any]) -> str:
        """Let the optimizer take a number as its rate; what to add to the trial's line on its schedule."""
        optimizer = model.optimizer
        if not takes_a_number(optimizer):
            several = isinstance(compat.learning_rate_source(optimizer), list)
            with scope_of(model):
                compat.replace_optimizer(model, copy_with_number_as_rate(optimizer))
            if several:  # their ratio, which is what was chosen, is kept
                build(Fit.on(model, **training_arguments(arguments)))
            else:
                self._warn_of_rate(" schedule")
            return ""
        if not has_rate(optimizer, default_rate(optimizer)):
            self._warn_of_rate()
            return ""
        # Perhaps nobody chose it, so a warning would be too much: the first trial's line on its schedule tells.
        is_first = self.search.note_topic("default")
        return f", in place of the compiled rate {current_rate(optimizer):g}" if is_first else ""

    def _warn_of_rate(self, kind: str = "") -> None:
        """Say that the rate a model is compiled with is not used."""
        if parent_of(self.trial):  # it was loaded, not chosen
            return
        self.diary.warn(
            "replaced",
            # Without the number, so that a report sees that the trials were told the same.
            f"The learning rate{kind} that the model is compiled with is not used: AutoLR finds each trial's "
            "own. It can be left out where it is set; a hyperparameter that chooses it chooses nothing.",
        )

    def _take_over_optimizer(self, model: keras.Model, arguments: dict[str, Any], trained: Sequence[Any]) -> None:
        """Give a later rung of Hyperband its parent's optimizer state, too, before anything is trained.

        Keras Tuner loads the parent's checkpoint into a model whose optimizer has no variables yet, and Keras passes
        over what finds no place. The weights, which a `HyperModel.fit` may have set since, are left as they are.
        """
        parent = parent_of(self.trial)
        if not parent or trained or getattr(model, "optimizer", None) is None or several_optimizers(model):
            return
        try:
            with scope_of(model):
                if not model.optimizer.built:
                    prepare(Fit.on(model, **training_arguments(arguments)))
                weights = [(variable, keras.ops.copy(variable)) for variable in model.variables]
                try:
                    model.load_weights(self.checkpoint_of(parent))
                finally:
                    for variable, value in weights:
                        variable.assign(value)
        except Exception as error:  # whatever it was, the weights are there
            self.diary.warn(
                "optimizer",
                f"The optimizer's state of trial {parent} could not be loaded ({in_brief(error)}). "
                f"Trial {self.trial.trial_id} goes on with its weights and a fresh optimizer.",
            )

    def _leave_out_rate_callbacks(self, callbacks: list[Any]) -> list[Any]:
        kept = without_rate_callbacks(callbacks)
        if len(kept) < len(callbacks):
            names = ", ".join(sorted({type(callback).__name__ for callback in callbacks if callback not in kept}))
            self.diary.warn(
                "callbacks",
                f"Callbacks that set the learning rate are left out of the trials, since AutoLR sets it: {names}. "
                'To train with them and without AutoLR\'s schedule, pass `rate_callbacks="keep"` to the tuner.',
            )
        return kept
