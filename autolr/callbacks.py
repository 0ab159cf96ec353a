"""The range test as a Keras callback, for anybody's own `fit`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from autolr import compat
from autolr.bounds import MIN_POINTS
from autolr.curve import RangeTest
from autolr.divergence import has_diverged
from autolr.errors import check_count, invalid, is_finite, warn
from autolr.optimizers import batches_per_update, has_rate, iterations_of
from autolr.sgdr import FloatArray
from autolr.snapshot import Snapshot
from autolr.verdicts import LRBounds

DEFAULT_START_LR = 1e-7
DEFAULT_END_LR = 10.0
DEFAULT_NUM_STEPS = 100


def check_assignable_rate(model: keras.Model) -> None:
    """Raise `ValueError` unless a callback can set the model's learning rate."""
    source = compat.learning_rate_source(model.optimizer)
    if not isinstance(source, keras.Variable):
        raise ValueError(
            "The model must be compiled with a number as its learning rate for a callback to set it. "
            f"Received: learning_rate={source!r}. Compile with a float, for instance the optimizer's default: "
            "a build function can leave the schedule out."
        )


class LRFinder(keras.callbacks.Callback):
    """Learning-rate range test as a callback: raises the rate exponentially, step by step, and records the losses.

    Training stops by itself after `num_steps`, or earlier when the loss diverges. Then the model is put back exactly
    as it was when training began. This is the sweep alone: its bounds are not confirmed by bursts, as those of
    `autolr.range_test` are, which also needs no `fit`, builds a model that is not built, takes a model with a schedule,
    sees each step where `steps_per_execution` are several, puts back what data draw, and restores the model when `fit`
    raises, too. An optimizer that trains variables beside the model's must be built with all of them before.

    Args:
        start_lr: First learning rate. Defaults to 1e-7, where no optimizer moves.
        end_lr: Last learning rate. Defaults to 10, where nearly all have diverged.
        num_steps: Optimizer steps of a whole sweep. Defaults to 100.
        restore: Whether to put the model back when training ends. Defaults to True.

    Raises:
        ValueError: If the rates are not `0 < start_lr < end_lr` or there are fewer than 2 steps; when training
            begins, if the model is not built or its learning rate is not a number.
        RuntimeError: In the second step, if another callback sets the rate; the model is put back.

    Example:
    ```python
    finder = autolr.LRFinder()
    model.fit(x, y, epochs=100, callbacks=[finder], verbose=0)  # as many epochs as the sweep may need
    min_lr, max_lr = finder.bounds()
    finder.result.plot()
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
        if not (is_finite(start_lr) and start_lr > 0):
            raise invalid("start_lr", "be a finite, positive number", start_lr, f"The default is {DEFAULT_START_LR:g}.")
        if not (is_finite(end_lr) and end_lr > start_lr):
            raise ValueError(
                "Argument `end_lr` must be finite and larger than `start_lr`. "
                f"Received: start_lr={start_lr!r}, end_lr={end_lr!r}. The default of `end_lr` is {DEFAULT_END_LR:g}."
            )
        self.num_steps = check_count("num_steps", num_steps, least=2, hint=f"The default is {DEFAULT_NUM_STEPS}.")
        self.start_lr, self.end_lr = float(start_lr), float(end_lr)
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

    def bounds(self, **options: Any) -> LRBounds:
        """The bounds on the recorded curve: `result.bounds(**options)`.

        Raises:
            RuntimeError: If no training with this callback has ended.
        """
        return self.result.bounds(**options)

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Note the model's state and lay out the rates."""
        check_assignable_rate(self.model)
        self._result = None
        self._recorded: list[float] = []
        self._ended = self._diverged = False
        # Keras calls back once per execution, and the optimizer may gather the gradients of several batches for one
        # update: a rate is held, and the mean loss recorded, for as many batches as are whole ones of both.
        execution, update = int(self.model.steps_per_execution or 1), batches_per_update(self.model.optimizer)
        execution = min(execution, (self.params or {}).get("steps") or execution)  # none goes on into the next epoch
        batches = math.lcm(execution, update)
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
        self._forget = trackers[0].reset_state if trackers and not own_step else self.model.reset_metrics
        self._before = Snapshot.of(self.model) if self._restore else None

    def _lay_out(self, points: int) -> FloatArray:
        return np.geomspace(self.start_lr, self.end_lr, points)

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Set this step's rate."""
        if not self._ended:
            self.model.optimizer.learning_rate = self._lrs[len(self._recorded)]
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
        """Keep the curve and put the model back."""
        self.finish()
        if not self._ended:
            warn(
                f"Training ended after {len(self._recorded)} of the {len(self._lrs)} points of the range test, so the "
                "higher rates were not tried. Pass more `epochs` to `fit`: the test ends it by itself."
            )
        if self._before is not None:
            self._before.restore()

    def finish(self) -> RangeTest:
        """The curve as far as it was recorded, also when training was interrupted."""
        done = len(self._recorded)
        # The last execution of an epoch may be a short one; but not every optimizer counts its updates.
        updates = iterations_of(self.model.optimizer) - self._iterations
        self._result = RangeTest(
            lrs=self._lrs[:done],
            losses=np.array(self._recorded),
            diverged=self._diverged,
            steps_spent=updates or done * self._updates_per_point,
        )
        return self._result
