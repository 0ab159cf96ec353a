"""The schedule as a Keras callback."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from autolr.averaging import TailAverage, averages_itself, check_tail_average
from autolr.cycle_ends import CycleEnds, check_snapshot_folder
from autolr.cycles import place
from autolr.errors import check_count, check_optional_count, invalid
from autolr.momentum import CycledMomentum, check_momentum
from autolr.optimizers import batches_per_update, batches_trained, check_assignable_rate, updates_and_scale
from autolr.rate_history import RateHistory
from autolr.rate_watch import BETWEEN_STEPS, WITHIN_STEP, RateWatch
from autolr.schedule_warnings import warn_if_cut_short, warn_if_short, warn_of_optimizer
from autolr.sgdr import Schedule
from autolr.trial_values import scheduler_arguments

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLOCK = 1024  # steps whose rates are computed at once: NumPy takes nearly as long for one


class SGDRScheduler(keras.callbacks.Callback):
    """Cosine annealing with warm restarts, or another cyclical schedule, step by step.

    The rate is set *before* each step, so the first step of a cycle trains at the peak. Nothing of the arguments is
    changed by training: one instance serves any number of fits, and a `fit` with `initial_epoch` goes on where the
    schedule is then. A step is an optimizer update: under gradient accumulation the rate changes once per update, and
    with `steps_per_execution` once per execution, since Keras calls back no more often. Another callback that sets the
    rate has no effect, unless it stands behind this one and does so in `on_train_batch_begin`; a warning tells.

    Args:
        min_lr: Rate that each cycle falls to.
        max_lr: Highest rate of the first cycle.
        cycle_length: Epochs in the first cycle. Defaults to 10. In a shorter training the rate does not come down to
            `min_lr`, unless `fit_budget` is set.
        mult_factor: After each cycle it becomes `ceil(length * mult_factor)` epochs long. Defaults to 2.
        lr_decay: After each cycle the peak is multiplied by this, though never below `min_lr`. Defaults to 1.
        fit_budget: Whether to stretch the cycles so that the last one ends with the last step of `fit`, as the
            tuners do. Defaults to False: cycles are exactly as many epochs long as said.
        steps_per_epoch: Optimizer steps in an epoch. Only needed for data whose size Keras cannot tell; without it,
            the rate on such data stands still within the first epoch, while its steps are counted.
        restore_weights: Whether to restore the weights of the latest cycle's end if training stops inside a later
            cycle, where the rate is high and the model worse, unless the monitored loss (`val_loss`, or `loss` without
            validation) has improved since. Defaults to True. Nothing is restored if the optimizer has `use_ema=True`,
            whose average the model has then, or if a callback in front, such as
            `EarlyStopping(restore_best_weights=True)`, has just put other weights back than those of the last epoch.
            Beside such a callback, whose choice of the last epoch can't be seen, pass False. The ends of cycles before
            `initial_epoch` are not known.
        shape: Of a cycle: `"cosine"`, the default, `"triangular"`, `"triangular2"` or `"one_cycle"`; see `sgdr_lr`.
        warmup: Epochs, a whole number, in front of the first cycle, in which the rate rises in a straight line. With
            `fit_budget` it may also be a share of the training, below 1: then the first cycle begins with it (at most
            half of that cycle), and the rate rises from `min_lr`. Defaults to 0.
        momentum: What the optimizer's momentum (`momentum` or `beta_1`) is at the peak of a `"one_cycle"` and at its
            ends. It moves against the rate, and the optimizer's own is put back when training ends. Defaults to
            `(0.85, 0.95)`, as in the paper; None leaves momentum alone, as do the other shapes. A momentum of 0, as of
            Keras's `"sgd"` and `"rmsprop"`, is left alone in any case.
        tail_average: Share of the training's steps (those before an `initial_epoch` included), below 1: when a cycle
            ends, the model is given the mean of the weights it had in so many steps before, at most in the second
            half of the cycle, and goes on from there. At `min_lr` weights still move about the minimum they are
            near; their mean lies closer to it. The epoch's validation sees it, and so do the callbacks that stand
            behind this one. A cycle that is not trained to its end is not averaged. Defaults to 0: no averaging. An
            optimizer with `use_ema=True`, which averages by itself, is left alone.
        snapshot_folder: Where to keep the model's weights at the ends of the cycles, for `autolr.snapshot_ensemble`:
            files `cycle-0001.weights.h5` and so on. When a `fit` begins, those of all cycles later than the ones it
            starts from are removed. Defaults to None: nothing is written.
        num_snapshots: How many of the last cycles' ends to keep there. Defaults to 5.

    Attributes:
        schedule: The arguments that decide the rates, `schedule.max_lr` say.
        history: `{"step": [...], "lr": [...]}` of the latest training: each step planned and trained, and its rate.
        cycle_end_weights: Weights at the end of the latest whole cycle, a list of arrays as `get_weights` returns;
            None before there was one.
        batches_if_unknown: Batches of an epoch, for data whose size neither Keras nor `steps_per_epoch` tells; None if
            that is to be learned in the first epoch. The tuners set it to what an earlier trial has found.

    Raises:
        ValueError: If an argument is out of its range; when training begins, if the learning rate is not a number, or
            `steps_per_epoch` is not what Keras counts.

    Example:
    ```python
    schedule = autolr.SGDRScheduler(min_lr=0.01, max_lr=0.5, cycle_length=3, mult_factor=1.5, lr_decay=0.9)
    model.fit(x, y, epochs=16, callbacks=[schedule])  # cycles of 3, 5 and 8 epochs
    ```

    Reference:
        Loshchilov & Hutter, 2017, [SGDR: Stochastic Gradient Descent with Warm Restarts](https://arxiv.org/abs/1608.03983);
        one cycle with momentum: Smith, 2018, [A disciplined approach to neural network
        hyper-parameters](https://arxiv.org/abs/1803.09820).
    """

    # Keras may call `on_train_batch_end` from other threads: then it need not wait for each step's results.
    async_safe = True

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
        shape: str = "cosine",
        warmup: float = 0,
        momentum: tuple[float, float] | None = (0.85, 0.95),
        tail_average: float = 0,
        snapshot_folder: str | os.PathLike[str] | None = None,
        num_snapshots: int = 5,
    ) -> None:
        super().__init__()
        self.schedule = Schedule(
            min_lr=min_lr,
            max_lr=max_lr,
            cycle_length=cycle_length,
            mult_factor=mult_factor,
            lr_decay=lr_decay,
            shape=shape,
            warmup=warmup,
            fit_budget=fit_budget,
        )
        self.steps_per_epoch = check_optional_count(
            "steps_per_epoch", steps_per_epoch, hint="None where Keras can count them."
        )
        self.batches_if_unknown: int | None = None
        check_momentum(momentum)
        check_tail_average(tail_average)
        self.momentum = momentum
        self.restore_weights = restore_weights
        self.tail_average = float(tail_average)
        self.snapshot_folder = check_snapshot_folder(snapshot_folder)
        self.num_snapshots = check_count(
            "num_snapshots", num_snapshots, hint="Without a `snapshot_folder` none are kept."
        )
        self._history = RateHistory()
        self._momentum: CycledMomentum | None = None
        self._watch = RateWatch()
        self._warned_of_short = False
        self._tail: TailAverage | None = None
        self.in_training = False  # for who judges its cycles

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.schedule}>"

    @property
    def history(self) -> dict[str, list[Any]]:
        """Steps trained and their rates; see the class."""
        return self._history.values

    @property
    def cycle_end_weights(self) -> list[Any] | None:
        """Weights at the end of the latest whole cycle; see the class."""
        return self._cycle_ends.weights if hasattr(self, "_cycle_ends") else None

    @classmethod
    def from_hyperparameters(cls, hp: Any, **overrides: Any) -> SGDRScheduler:
        """The schedule a trial was trained with, from the hyperparameters of that trial.

        Args:
            hp: `keras_tuner.HyperParameters` of a finished trial, from `tuner.get_best_hyperparameters()`. A trial of
                a later rung of `Hyperband` went on from its parent's weights, on a schedule laid over all epochs up to
                its own last: trained again it runs through that schedule from the beginning, and no part twice.
            **overrides: Arguments of this class that take precedence. As in the tuners, `fit_budget` defaults to True
                here, `warmup` to theirs (none with another `shape`), and `tail_average` to the trial's: `fit` for as
                many epochs as the trial had, and the training is the same, but for such a later rung. Values missing
                from `hp` take the tuners' defaults, a single cycle say.

        Raises:
            ValueError: If `hp` holds no bounds, or is no `HyperParameters`.

        Example:
        ```python
        hp = tuner.get_best_hyperparameters()[0]
        schedule = autolr.SGDRScheduler.from_hyperparameters(hp)
        tuner.hypermodel.build(hp).fit(x, y, epochs=12, callbacks=[schedule])
        ```
        """
        return cls(**scheduler_arguments(hp, overrides))

    def preview(self, epochs: int, *, steps_per_epoch: int = 100, ax: Axes | None = None) -> Axes:
        """Draw the schedule of a training without training.

        Args:
            epochs: Epochs of the training.
            steps_per_epoch: Optimizer steps in an epoch. Defaults to 100, enough for a smooth line.
            ax: Axes to draw on. Defaults to those of a new figure.

        Returns:
            The axes.

        Raises:
            ValueError: If an argument is no whole number of 1 or more, or `warmup` leaves no step for a cycle.
            ImportError: If matplotlib is not installed.
        """
        from autolr.plots import draw_schedule  # needs matplotlib, and sits above this file

        epochs = check_count("epochs", epochs, hint="As many as `fit` will be given.")
        steps_per_epoch = check_count("steps_per_epoch", steps_per_epoch, hint="100 draw a smooth line.")
        total = epochs * steps_per_epoch
        edges = self.schedule.edges(total, steps_per_epoch)
        return draw_schedule(self.schedule, edges, steps_per_epoch=steps_per_epoch, total_steps=total, ax=ax)

    def ends_cycle(self, epoch: int) -> bool:
        """Whether a cycle of the running training ends with this epoch, counted from 0.

        Raises:
            RuntimeError: If no training with this schedule has begun: the number of steps in an epoch decides.
        """
        if not hasattr(self, "_ends"):
            raise RuntimeError("No training with this schedule has begun. Pass it to `model.fit` first.")
        return self._batches_until(epoch + 1) in self._ends

    def leave_weights_alone(self) -> None:
        """Put no weights back in the running training: somebody else will."""
        self._cycle_ends.restores = False

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Start afresh: nothing is left of an earlier training."""
        check_assignable_rate(self.model)
        warn_of_optimizer(self.model)
        self._give_momentum_back()  # if that training was interrupted
        self._history = RateHistory()
        self.in_training = True
        # Such an optimizer has put its own average into the model by the time training ends.
        restores = self.restore_weights and not averages_itself(self.model.optimizer)
        self._cycle_ends = CycleEnds(self.model, self.snapshot_folder, keep=self.num_snapshots, restores=restores)
        self._batches_per_update = batches_per_update(self.model.optimizer)
        self._batches_per_epoch = self._batches_in_epoch()
        self._step = self._block_start = -1
        self._trained_before = 0  # batches, before this epoch
        self._thread = threading.get_ident()
        self._watch.begin()
        self._lay_out_cycles()
        warn_if_cut_short(self.schedule, int(self.params["epochs"]))
        self._is_new = True
        if self.schedule.shape == "one_cycle" and self.momentum is not None:
            self._momentum = CycledMomentum(self.model)

    def _batches_in_epoch(self) -> int | None:
        """As Keras counts them, or else as the user has, or an earlier training; None if none could."""
        counted: int | None = self.params.get("steps")
        told = self.steps_per_epoch and self.steps_per_epoch * self._batches_per_update
        if counted and told and abs(counted - told) >= self._batches_per_update:
            raise invalid(
                "steps_per_epoch",
                f"be the optimizer steps of an epoch, {counted / self._batches_per_update:g} here",
                self.steps_per_epoch,
                "Leave it out: Keras knows the size of these data.",
            )
        return counted or told or self.batches_if_unknown

    def _give_momentum_back(self) -> None:
        if self._momentum is not None:
            self._momentum.give_back()
            self._momentum = None

    def _lay_out_cycles(self) -> None:
        """Lay out the cycles in batches; until it is known how many an epoch has, in epochs."""
        batches = self._batches_until(int(self.params["epochs"]))
        edges = self.schedule.edges(batches, self._batches_per_epoch or 1)
        self._ends = {end: number for number, end in enumerate(edges[1:].tolist(), start=1)}
        averages = self.tail_average > 0 and not averages_itself(self.model.optimizer)
        self._tail = TailAverage(edges, round(self.tail_average * batches)) if averages else None
        # An update of several batches belongs to the cycle in which it begins.
        self._edges = -(-edges // self._batches_per_update) if self._batches_per_epoch else edges
        self._rates: list[float] = []

    def _batches_until(self, epoch: int) -> int:
        return epoch * (self._batches_per_epoch or 1)

    def _step_of(self, batch: int) -> int:
        if self._batches_per_epoch is None:
            return self._epoch
        return self._place_of(batch) // self._batches_per_update

    def _place_of(self, batch: int) -> int:
        """The number of a batch in the training; an epoch longer than planned does not run on into the next cycle."""
        return self._batches_until(self._epoch) + min(batch, (self._batches_per_epoch or 1) - 1)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Place the schedule at this epoch."""
        if self._is_new:
            self._cycle_ends.drop(after=sum(end <= self._batches_until(epoch) for end in self._ends))
        self._is_new = False
        self._epoch, self._latest_batch = epoch, -1
        self._since = updates_and_scale(self.model.optimizer)
        self._history.begin_epoch()
        self._ended: list[int] = []  # batches that were trained

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Set this step's rate; in the last steps of a cycle, look at the weights."""
        self._latest_batch = batch
        if self._tail is not None and self._batches_per_epoch:
            self._tail.sample(self._place_of(batch), self.model, trained=self._trained_before + batch)
        step = self._step_of(batch)
        if step == self._step and self._batches_per_epoch:
            return  # another batch of the same update
        self._step = step
        if self._history.is_new_epoch:
            self._watch.look(self.model.optimizer, BETWEEN_STEPS)
        if not 0 <= step - self._block_start < len(self._rates):
            self._compute_block(step)
        rate = self._rates[step - self._block_start]
        self._watch.set(self.model.optimizer, rate)
        if self._momentum is not None:
            self._momentum.assign(self._momenta[step - self._block_start])
        self._history.begin_step(step, rate, batch=batch)

    def _compute_block(self, start: int) -> None:
        steps = np.arange(start, start + BLOCK)
        self._block_start = start
        self._rates = self.schedule.rates(steps, self._edges).tolist()
        if self._momentum is not None and self.momentum is not None:
            low, high = self.momentum
            self._momenta = (high - (high - low) * self.schedule.height(place(steps, self._edges)[1])).tolist()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Count the batches trained."""
        self._ended.append(batch)
        # From another thread, as where no callback needs the results at once, the optimizer may be further on.
        if len(self._ended) == 1 and threading.get_ident() == self._thread:
            self._watch.look(self.model.optimizer, WITHIN_STEP)

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Let the validation of an epoch that ends a cycle see the averaged weights.

        Where an epoch turns out shorter than planned, that cannot be told from a look at the model within one: its
        weights are averaged afterwards.
        """
        if self._tail is not None and self._has_reached_end():
            # The latest batches may not have been called back yet.
            self._close_cycle(max(self._trained(), self._batches_per_epoch or 0))

    def _close_cycle(self, trained: int) -> None:
        """Hand the averaged weights over, if a cycle ends with this epoch, of which so many batches were trained."""
        if self._tail is not None and self._batches_per_epoch and self.ends_cycle(self._epoch):
            self._tail.close(self.model, self._trained_before + trained)

    def _trained(self) -> int:
        """Batches of this epoch that were trained."""
        return batches_trained(self.model, max(self._ended, default=-1) + 1, since=self._since)

    def _has_reached_end(self) -> bool:
        """Whether the epoch has come as far as its last batch."""
        return self._latest_batch + int(self.model.steps_per_execution or 1) >= (self._batches_per_epoch or 0)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Report the rate; keep the weights if a cycle ends here."""
        logs = {} if logs is None else logs
        # A callback may stop training within an epoch. An epoch that is only shorter than others, as of data of unknown
        # size, has ended all the same, unless a callback in front has just ended the training with it.
        is_cut_short = self.model.stop_training and not self._has_reached_end()
        if not is_cut_short:
            self._close_cycle(self._trained())
        self._settle_epoch()
        if self.history["lr"]:
            logs["learning_rate"] = self.history["lr"][-1]
        ends_cycle = self.ends_cycle(epoch) and not is_cut_short
        self._cycle_ends.epoch_ended(
            self._ends[self._batches_until(epoch + 1)] if ends_cycle else None,
            dict(logs),
            is_last=self.model.stop_training or epoch + 1 == self.params.get("epochs"),
        )

    def _settle_epoch(self) -> None:
        """Leave out what was not trained, and learn how many batches an epoch of unknown size has."""
        trained = self._trained()
        self._trained_before += trained
        self._warn_if_short(trained)
        self._history.leave_out(after=trained)
        if self._batches_per_epoch is None and trained:
            self._batches_per_epoch = trained
            self._lay_out_cycles()  # from here on the schedule moves within epochs, too
            self._history.renumber(self._step_of)
        self._step = self._history.last_step

    def _warn_if_short(self, trained: int) -> None:
        """Warn, once, of an epoch that is much shorter than the schedule was laid out for."""
        if not self.model.stop_training and not self._warned_of_short:
            self._warned_of_short = warn_if_short(trained, self._batches_per_epoch or 0)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Put the latest cycle's end back if training ended inside a cycle, and worse."""
        self.in_training = False
        self._give_momentum_back()
        self._cycle_ends.training_ended()
