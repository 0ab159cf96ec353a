"""The range test and the schedule as Keras callbacks, for anybody's own `fit`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from autolr import compat
from autolr.curve import RangeTest
from autolr.divergence import has_diverged
from autolr.errors import invalid
from autolr.sgdr import FloatArray, IntArray, check_schedule, cycle_edges, fitted_edges, rate_on_edges
from autolr.snapshot import Snapshot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DEFAULT_START_LR = 1e-7
DEFAULT_END_LR = 10.0
DEFAULT_NUM_STEPS = 100


def check_assignable_rate(model: keras.Model) -> None:
    """Raise `ValueError` unless a callback can set the model's learning rate."""
    source = compat.learning_rate_source(model.optimizer)
    if not isinstance(source, keras.Variable):
        raise ValueError(
            "The model must be compiled with a number as its learning rate for a callback to set it. "
            f"Received: learning_rate={source!r}. Compile with a float, for instance the optimizer's default."
        )


class LRFinder(keras.callbacks.Callback):
    """Learning-rate range test as a callback: raises the rate exponentially, step by step, and records the losses.

    Training stops by itself after `num_steps`, or earlier when the loss diverges. Then the model is put back exactly
    as it was when training began. `autolr.range_test` does the same in one call, builds a model that is not built,
    takes a model with a schedule, and restores it when `fit` raises, too.

    Args:
        start_lr: First learning rate. Defaults to 1e-7, where no optimizer moves.
        end_lr: Last learning rate. Defaults to 10, where nearly all have diverged.
        num_steps: Optimizer steps of a whole sweep. Defaults to 100.
        restore: Whether to put the model back when training ends. Defaults to True.

    Raises:
        ValueError: If the rates are not `0 < start_lr < end_lr` or there are fewer than 2 steps; when training
            begins, if the model is not built or its learning rate is not a number.

    Example:
    ```python
    finder = autolr.LRFinder()
    model.fit(x, y, epochs=100, callbacks=[finder], verbose=0)  # as many epochs as the sweep may need
    min_lr, max_lr = finder.result.bounds()
    ```

    Reference:
        Smith, 2015, [Cyclical Learning Rates for Training Neural Networks](https://arxiv.org/abs/1506.01186), 3.2.2.
    """

    def __init__(
        self,
        *,
        start_lr: float = DEFAULT_START_LR,
        end_lr: float = DEFAULT_END_LR,
        num_steps: int = DEFAULT_NUM_STEPS,
        restore: bool = True,
    ) -> None:
        super().__init__()
        if not (math.isfinite(start_lr) and start_lr > 0):
            raise invalid("start_lr", "be a finite, positive number", start_lr)
        if not (math.isfinite(end_lr) and end_lr > start_lr):
            raise ValueError(
                "Argument `end_lr` must be finite and larger than `start_lr`. "
                f"Received: start_lr={start_lr!r}, end_lr={end_lr!r}."
            )
        if not num_steps >= 2:
            raise invalid("num_steps", "be 2 or more", num_steps, f"The default is {DEFAULT_NUM_STEPS}.")
        self.start_lr, self.end_lr, self.num_steps = float(start_lr), float(end_lr), int(num_steps)
        self._restore = restore
        self._result: RangeTest | None = None

    @property
    def result(self) -> RangeTest:
        """The recorded curve.

        Raises:
            RuntimeError: If no training with this callback has ended.
        """
        if self._result is None:
            raise RuntimeError("No range test has ended. Pass this callback to `model.fit` first.")
        return self._result

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Note the model's state and lay out the rates."""
        check_assignable_rate(self.model)
        self._result = None
        self._losses: list[float] = []
        self._ended = self._diverged = False
        # Keras calls back once per execution: one rate and one loss for all its batches.
        self._steps_per_point = int(self.model.steps_per_execution or 1)
        self._lrs = self._lay_out(max(2, self.num_steps // self._steps_per_point))
        # The loss Keras reports is the mean since the epoch began, which lags (keras #17167): forget it each step.
        # Resetting its tracker alone is much cheaper than resetting all metrics.
        trackers = [metric for metric in self.model.metrics if metric.name == "loss"]
        self._forget = trackers[0].reset_state if trackers else self.model.reset_metrics
        self._before = Snapshot.of(self.model) if self._restore else None

    def _lay_out(self, points: int) -> FloatArray:
        return np.geomspace(self.start_lr, self.end_lr, points)

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Set this step's rate."""
        if not self._ended:
            self.model.optimizer.learning_rate = self._lrs[len(self._losses)]
            self._forget()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Record this step's loss; stop when done or diverged."""
        if self._ended:
            return
        if not logs or "loss" not in logs:
            raise ValueError(
                "The model's training step must report a loss called `loss` for a range test to record. "
                f"Received: logs with {sorted(logs or {})}."
            )
        self._losses.append(float(logs["loss"]))
        self._diverged = has_diverged(self._losses)
        if self._diverged or len(self._losses) == len(self._lrs):
            self._ended = self.model.stop_training = True

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Keep the curve and put the model back."""
        self.finish()
        if self._before is not None:
            self._before.restore()

    def finish(self) -> RangeTest:
        """The curve as far as it was recorded, also when training was interrupted."""
        done = len(self._losses)
        self._result = RangeTest(
            lrs=self._lrs[:done],
            losses=np.array(self._losses),
            diverged=self._diverged,
            steps_spent=done * self._steps_per_point,
        )
        return self._result


class SGDRScheduler(keras.callbacks.Callback):
    """Cosine annealing with warm restarts, step by step.

    The rate is set *before* each step, so the first step of a cycle trains at the peak. Nothing of the arguments is
    changed by training: one instance serves any number of fits, and a `fit` with `initial_epoch` goes on where the
    schedule is then.

    Args:
        min_lr: Rate that each cycle falls to.
        max_lr: Rate at the start of the first cycle.
        cycle_length: Epochs in the first cycle. Defaults to 10.
        mult_factor: After each cycle it becomes `ceil(length * mult_factor)` epochs long. Defaults to 2.
        lr_decay: After each cycle the peak is multiplied by this, though never below `min_lr`. Defaults to 1.
        fit_budget: Whether to stretch the cycles so that the last one ends with the last step of `fit`, as the
            tuners do. Defaults to False: cycles are exactly as many epochs long as said.
        steps_per_epoch: Optimizer steps in an epoch. Only needed for data whose size Keras cannot tell; without it,
            the rate on such data stands still within the first epoch, while its steps are counted.
        restore_weights: What to do when training ends inside a cycle, where the rate is high and the model worse
            than it has been. If True, the default, the weights of the latest cycle's end are put back, unless the
            monitored loss (`val_loss`, or `loss` without validation) is better now. If False, nothing is touched.

    Attributes:
        history: `{"step": [...], "lr": [...]}` of the latest training: each step trained and its rate.
        cycle_end_weights: Weights at the end of the latest whole cycle, a list of arrays as `get_weights` returns;
            None before there was one.

    Raises:
        ValueError: If an argument is out of its range; when training begins, if the learning rate is not a number.

    Example:
    ```python
    schedule = autolr.SGDRScheduler(min_lr=0.01, max_lr=0.5, cycle_length=3, mult_factor=1.5, lr_decay=0.9)
    model.fit(x, y, epochs=16, callbacks=[schedule])  # cycles of 3, 5 and 8 epochs
    ```

    Reference:
        Loshchilov & Hutter, 2017, [SGDR: Stochastic Gradient Descent with Warm Restarts](https://arxiv.org/abs/1608.03983).
    """

    def __init__(
        self,
        min_lr: float,
        max_lr: float,
        *,
        cycle_length: int = 10,
        mult_factor: float = 2.0,
        lr_decay: float = 1.0,
        fit_budget: bool = False,
        steps_per_epoch: int | None = None,
        restore_weights: bool = True,
    ) -> None:
        super().__init__()
        check_schedule(
            min_lr=min_lr,
            max_lr=max_lr,
            cycle_length=cycle_length,
            mult_factor=mult_factor,
            lr_decay=lr_decay,
            steps_per_epoch=1 if steps_per_epoch is None else steps_per_epoch,
        )
        self.min_lr, self.max_lr, self.lr_decay = float(min_lr), float(max_lr), float(lr_decay)
        self.cycle_length, self.mult_factor = int(cycle_length), float(mult_factor)
        self.fit_budget, self.steps_per_epoch = fit_budget, steps_per_epoch
        self.restore_weights = restore_weights
        self.history: dict[str, list[Any]] = {"step": [], "lr": []}
        self.cycle_end_weights: list[Any] | None = None

    @classmethod
    def from_hyperparameters(cls, hp: Any, **overrides: Any) -> SGDRScheduler:
        """The schedule a trial was trained with, from the hyperparameters of that trial.

        Args:
            hp: `keras_tuner.HyperParameters` of a finished trial, from `tuner.get_best_hyperparameters()`.
            **overrides: Arguments of this class that take precedence. `fit_budget` defaults to True here, as in
                the tuners: `fit` for as many epochs as the trial had, and the schedule is the same.

        Raises:
            ValueError: If `hp` holds no bounds.

        Example:
        ```python
        hp = tuner.get_best_hyperparameters()[0]
        schedule = autolr.SGDRScheduler.from_hyperparameters(hp)
        tuner.hypermodel.build(hp).fit(x, y, epochs=12, callbacks=[schedule])
        ```
        """
        names = {"min_lr": f"{compat.TRIAL_PREFIX}min_lr", "max_lr": f"{compat.TRIAL_PREFIX}max_lr"}
        names.update({name: name for name in ("cycle_length", "mult_factor", "lr_decay")})
        arguments = {argument: hp.values[name] for argument, name in names.items() if name in hp.values}
        missing = {"min_lr", "max_lr"} - {*arguments, *overrides}
        if missing:
            raise ValueError(
                "Argument `hp` must hold the bounds a trial found, as `autolr/min_lr` and `autolr/max_lr`. "
                f"Received: hp.values={hp.values!r}. Take it from a finished AutoLR search, or pass "
                f"{' and '.join(sorted(missing))}."
            )
        return cls(**{"fit_budget": True, **arguments, **overrides})

    def preview(self, epochs: int, *, steps_per_epoch: int = 100, ax: Axes | None = None) -> Axes:
        """Draw the schedule of a training without training.

        Args:
            epochs: Epochs of the training.
            steps_per_epoch: Optimizer steps in an epoch. Defaults to 100, enough for a smooth line.
            ax: Axes to draw on. Defaults to those of a new figure.
        """
        from autolr.plots import plot_schedule  # needs matplotlib, and sits above this file

        return plot_schedule(
            self._edges_of(epochs, steps_per_epoch),
            min_lr=self.min_lr,
            max_lr=self.max_lr,
            lr_decay=self.lr_decay,
            steps_per_epoch=steps_per_epoch,
            total_steps=epochs * steps_per_epoch,
            ax=ax,
        )

    def ends_cycle(self, epoch: int) -> bool:
        """Whether a cycle of the running training ends with this epoch, counted from 0."""
        # In the first epoch of data of unknown size, cycles are still counted in epochs.
        return (epoch + 1) * (self._steps or 1) in self._ends

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Start afresh: nothing is left of an earlier training."""
        check_assignable_rate(self.model)
        self.history = {"step": [], "lr": []}
        self.cycle_end_weights = None
        self._cycle_end_loss = math.nan
        self._steps: int | None = self.steps_per_epoch or self.params.get("steps")
        self._lay_out_cycles()

    def _edges_of(self, epochs: int, steps_per_epoch: int) -> IntArray:
        return (fitted_edges if self.fit_budget else cycle_edges)(
            epochs * steps_per_epoch,
            cycle_length=self.cycle_length,
            mult_factor=self.mult_factor,
            steps_per_epoch=steps_per_epoch,
        )

    def _lay_out_cycles(self) -> None:
        self._edges = self._edges_of(int(self.params["epochs"]), self._steps or 1)
        self._ends = frozenset(self._edges[1:].tolist())

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Place the schedule at this epoch."""
        self._epoch, self._batches = epoch, 0

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Set this step's rate."""
        self._step = self._epoch * (self._steps or 1) + (batch if self._steps else 0)
        self._rate = float(
            rate_on_edges(self._step, self._edges, min_lr=self.min_lr, max_lr=self.max_lr, lr_decay=self.lr_decay)
        )
        self.model.optimizer.learning_rate = self._rate

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Record the step; keep the weights when a cycle ends with it."""
        # Not before the step: Keras also announces the step at which data of unknown size turns out to have ended.
        self.history["step"].append(self._step)
        self.history["lr"].append(self._rate)
        self._batches = batch + 1
        if self._steps and self._epoch * self._steps + self._batches in self._ends:
            self._keep_weights()

    def _keep_weights(self) -> None:
        self.cycle_end_weights = self.model.get_weights()
        self._cycle_end_loss = math.nan  # until the epoch's end tells, if this is one

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Report the rate, and note how good the end of a cycle was."""
        logs = {} if logs is None else logs
        if self.history["lr"]:
            logs["learning_rate"] = self.history["lr"][-1]
        self._loss = float(logs.get("val_loss", logs.get("loss", math.nan)))
        if self._steps is None and self._batches:
            # Data of unknown size: now that it is known, the schedule moves within epochs, too.
            self._steps = self._batches
            self._lay_out_cycles()
            if (epoch + 1) * self._steps in self._ends:
                self._keep_weights()
        self._last_step = (epoch + 1) * (self._steps or 1)
        if self._last_step in self._ends:
            self._cycle_end_loss = self._loss

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Put the latest cycle's end back if training ended inside a cycle, and worse."""
        if self.cycle_end_weights is None or not self.restore_weights or self._last_step in self._ends:
            return
        if self._loss > self._cycle_end_loss:  # false if either is NaN: then there is no reason to undo training
            self.model.set_weights(self.cycle_end_weights)


class CycleEarlyStopping(keras.callbacks.EarlyStopping):
    """Early stopping that looks only at the ends of cycles.

    Inside a cycle the loss is high because the rate was just restarted, not because training has stopped getting
    better: ordinary early stopping ends it there, at its worst.

    Args:
        scheduler: The `SGDRScheduler` of the same `fit`. Not needed in an AutoLR search, where each trial has its own.
        patience: How many cycles may end without an improvement. Defaults to 1.
        restore_best_weights: Whether to put back the weights of the best end of a cycle. Defaults to True.
        **options: The other arguments of `keras.callbacks.EarlyStopping`: `monitor` (default `"val_loss"`), `mode`,
            `min_delta`, `baseline`, `verbose`, `start_from_epoch` (in epochs).

    Raises:
        ValueError: When training begins without a scheduler.

    Example:
    ```python
    schedule = autolr.SGDRScheduler(0.01, 0.5, cycle_length=3, mult_factor=1.5)
    stop = autolr.CycleEarlyStopping(schedule, patience=2)
    model.fit(x, y, validation_split=0.1, epochs=100, callbacks=[schedule, stop])
    ```
    """

    def __init__(
        self,
        scheduler: SGDRScheduler | None = None,
        *,
        patience: int = 1,
        restore_best_weights: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(patience=patience, restore_best_weights=restore_best_weights, **options)
        self.scheduler = scheduler

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Start counting."""
        if self.scheduler is None:
            raise ValueError(
                "Argument `scheduler` must be the `SGDRScheduler` of this training, whose cycles are judged. "
                "Received: scheduler=None. Pass it to both: `callbacks=[schedule, CycleEarlyStopping(schedule)]`."
            )
        super().on_train_begin(logs)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Judge, if a cycle ends here."""
        assert self.scheduler is not None
        if self.scheduler.ends_cycle(epoch):
            super().on_epoch_end(epoch, logs)
