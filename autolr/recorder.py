"""Training at one rate after the other, with the loss of each step's own batch recorded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import keras
import numpy as np

from autolr.array_types import FloatArray
from autolr.curve import RangeTest
from autolr.divergence import has_diverged
from autolr.errors import warn
from autolr.model_state import ModelState
from autolr.optimizers import batches_per_update, check_assignable_rate, has_rate, iterations_of, set_rate
from autolr.variables import assign
from autolr.verdicts import MIN_POINTS


class LossRecorder(keras.callbacks.Callback):
    """Sets the rate of each step and records its loss; ends the training after the last, or when it diverges.

    Args:
        num_steps: Optimizer steps in all.
        restore: Whether to put the model back when training ends.
    """

    def __init__(self, num_steps: int, *, restore: bool) -> None:
        super().__init__()
        self.num_steps, self._restore = num_steps, restore
        self._result: RangeTest | None = None
        self.batches_in_epoch: int | None = None  # of the longest epoch that ended meanwhile; some data have no size
        self._batches, self._ended = 0, False

    def _lay_out(self, points: int) -> FloatArray:
        """The rates of so many points, of which a point is one step, or more where Keras calls back less often."""
        raise NotImplementedError  # abstract: a sweep's rise, a burst's are all one

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
        self._recorded: list[float] = []
        self._ended = self._diverged = False
        self._batches, self.batches_in_epoch = 0, None
        # Keras calls back once per execution, and the optimizer may gather the gradients of several batches for one
        # update: a rate is held, and the mean loss recorded, for as many batches as are whole ones of both.
        execution, update = int(self.model.steps_per_execution or 1), batches_per_update(self.model.optimizer)
        execution = min(execution, (self.params or {}).get("steps") or execution)  # none goes on into the next epoch
        batches, self._executes_several = math.lcm(execution, update), execution > 1
        self._calls_per_point, self._updates_per_point = batches // execution, batches // update
        self._call_losses: list[float] = []
        self._lrs = self._lay_out(max(2, self.num_steps // self._updates_per_point))
        if len(self._lrs) < MIN_POINTS <= self.num_steps:
            warn(
                f"Of `num_steps={self.num_steps}` the range test makes {len(self._lrs)} points, too few to judge: "
                f"Keras calls back once in {self._updates_per_point} steps. Raise `num_steps`, compile the model "
                "without `steps_per_execution`, or use `autolr.range_test`, which takes single steps."
            )
        self._iterations = iterations_of(self.model.optimizer)
        # The loss Keras reports is the mean since the epoch began, which lags (keras #17167): forget it each step.
        # Resetting its tracker alone is much cheaper than resetting all metrics, among which a training step of the
        # user's own may have its own tracker.
        trackers = [metric for metric in self.model.metrics if metric.name == "loss"]
        own_step = type(self.model).train_step is not keras.Model.train_step
        self._forget = partial(_reset, trackers[0]) if trackers and not own_step else self.model.reset_metrics
        self._before = ModelState.of(self.model) if self._restore else None

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Count the epoch's batches."""
        self._batches = 0

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Note how many there were, unless something cut it short: the test itself, or a callback of the user's."""
        if not (self._ended or self.model.stop_training):
            self.batches_in_epoch = max(self.batches_in_epoch or 0, self._batches)

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Set this step's rate."""
        if not self._ended:
            set_rate(self.model.optimizer, self._lrs[len(self._recorded)])
            self._forget()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Record this step's loss; stop when done or diverged."""
        if self._ended:
            return
        self._batches = batch + 1
        if not logs or "loss" not in logs:
            raise ValueError(
                "The model's training step must report a loss called `loss` for a range test to record. "
                f"Received: logs with {sorted(logs or {})}."
            )
        if len(self._recorded) == 1 and not has_rate(self.model.optimizer, self._lrs[1]):
            if self._before is not None:
                self._before.restore()
            raise RuntimeError(
                "Something else sets the learning rate, too, within the step: `LRFinder` would not see what its own "
                "rates do. Leave the other out: a schedule's callback perhaps, behind it in the list."
            )
        self._call_losses.append(float(logs["loss"]))
        if len(self._call_losses) < self._calls_per_point:
            return
        self._recorded.append(sum(self._call_losses) / self._calls_per_point)
        self._call_losses.clear()
        self._diverged = has_diverged(self._recorded)
        if self._diverged or len(self._recorded) == len(self._lrs):
            self._ended = self.model.stop_training = True

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Keep the curve as far as it was recorded, and put the model back."""
        done = len(self._recorded)
        # The last execution of an epoch may be a short one. Not every optimizer counts its updates, and where data end
        # unexpectedly, one is counted that was none.
        updates = iterations_of(self.model.optimizer) - self._iterations if self._executes_several else 0
        self._result = RangeTest(
            lrs=self._lrs[:done],
            losses=np.array(self._recorded),
            diverged=self._diverged,
            steps_spent=updates or done * self._updates_per_point,
        )
        if not self._ended:
            warn(
                f"Training ended after {done} of the {len(self._lrs)} points of the range test. Pass more `epochs` to "
                "a `fit` of yours: the test ends it by itself. In `range_test` and the tuners something else has ended "
                "it: the model's own `fit`, a callback in that, or `keras.config.set_max_epochs`."
            )
        if self._before is not None:
            self._before.restore()
            self._before = None  # no use any more, and as large as the model


def _reset(metric: keras.metrics.Metric) -> None:
    """Reset a metric, a mean more quickly than it does so itself."""
    if type(metric) is keras.metrics.Mean:
        for variable in (metric.total, metric.count):
            assign(variable, 0)
    else:
        metric.reset_state()
