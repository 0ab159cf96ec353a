"""The schedule inside the training graph, for any Keras backend."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import keras
import numpy as np
from keras import ops

from autolr.errors import check_count, check_optional_count, invalid
from autolr.sgdr import STEPS_PER_EPOCH, Schedule

NONE = "None leaves it out."
_LAST_STEP = 2**31 - 2  # what an optimizer's 32-bit step count can reach


@keras.saving.register_keras_serializable(package="autolr")
class SGDRSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Cosine annealing with warm restarts as a `LearningRateSchedule`: compiled into the model and saved with it.

    The same rates as `sgdr_lr` and `SGDRScheduler`, computed in the graph from the optimizer's own step count, so they
    cost next to nothing and are exact with `steps_per_execution`, too. Keras's `CosineDecayRestarts` differs: it
    shrinks the range above its floor, not the peak; its cycles need not be whole steps; it finds them by a logarithm.

    To load a model that was saved with it, run `from autolr import SGDRSchedule` first: `import autolr` alone imports
    nothing of Keras, so Keras does not know the class yet.

    Args:
        min_lr: Rate that each cycle falls to.
        max_lr: Highest rate of the first cycle.
        steps_per_epoch: Optimizer steps in an epoch.
        cycle_length: Epochs in the first cycle. Defaults to 10.
        mult_factor: After each cycle it becomes `ceil(length * mult_factor)` epochs long. Defaults to 2.
        lr_decay: After each cycle the peak is multiplied by this, though never below `min_lr`. Defaults to 1.
        total_steps: When given, cycles are stretched to end with this many steps, and the rate stays where the last one
            ended. Defaults to None: they are as long as said, without end.
        shape: Of a cycle: `"cosine"`, the default, `"triangular"`, `"triangular2"` or `"one_cycle"`; see `sgdr_lr`.
            A schedule cannot move the momentum: for a one-cycle with momentum use `SGDRScheduler`.
        warmup: Epochs, a whole number, in front of the first cycle, in which the rate rises in a straight line; with
            `total_steps` also a share of them, see `sgdr_lr`. Defaults to 0.
        gradient_accumulation_steps: The optimizer's argument of this name, if it has one: Keras calls the schedule once
            per batch; one step is this many batches. Defaults to None: each batch is a step.
        name: As Keras's schedules have one; it changes nothing.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
    ```python
    schedule = autolr.SGDRSchedule(0.01, 0.5, steps_per_epoch=math.ceil(len(x) / 64), cycle_length=3)
    model.compile(keras.optimizers.SGD(schedule), "mse")
    ```

    Reference:
        Loshchilov & Hutter, 2017, [SGDR: Stochastic Gradient Descent with Warm Restarts](https://arxiv.org/abs/1608.03983).
    """

    def __init__(
        self,
        min_lr: float,
        max_lr: float,
        *,
        steps_per_epoch: int,
        cycle_length: int = 10,
        mult_factor: float = 2.0,
        lr_decay: float = 1.0,
        total_steps: int | None = None,
        shape: str = "cosine",
        warmup: float = 0,
        gradient_accumulation_steps: int | None = None,
        name: str = "SGDRSchedule",
    ) -> None:
        super().__init__()
        schedule = Schedule(
            min_lr=min_lr,
            max_lr=max_lr,
            cycle_length=cycle_length,
            mult_factor=mult_factor,
            lr_decay=lr_decay,
            shape=shape,
            warmup=warmup,
            fit_budget=total_steps is not None,
        )
        counts: dict[str, Any] = {
            "steps_per_epoch": check_count("steps_per_epoch", steps_per_epoch, hint=STEPS_PER_EPOCH),
            "total_steps": check_optional_count("total_steps", total_steps, hint=NONE),
            "gradient_accumulation_steps": check_optional_count(
                "gradient_accumulation_steps", gradient_accumulation_steps, hint=NONE
            ),
        }
        arguments = {name: value for name, value in asdict(schedule).items() if name != "fit_budget"}
        self._config: dict[str, Any] = {**arguments, **counts, "name": name}
        self.name = name
        self._schedule = schedule
        self._batches_per_step: int = counts["gradient_accumulation_steps"] or 1
        # Equal cycles without end are one, again and again: a table of them all would be long.
        self._endless = total_steps is None and schedule.mult_factor == 1 and schedule.shape != "one_cycle"
        last_step = counts["total_steps"] or (0 if self._endless else _LAST_STEP)
        edges = schedule.edges(last_step, counts["steps_per_epoch"])
        edges = edges[:2] if self._endless else edges
        # What can be worked out beforehand is: each operation in the graph costs microseconds at each step.
        self._lengths = np.diff(edges).astype("float32")
        self._edges = np.minimum(edges, _LAST_STEP + 1).astype("int32")
        self._peak_of = schedule.peak(np.arange(len(self._lengths))).astype("float32")

    def __call__(self, step: Any) -> Any:
        """The learning rate at a step, a scalar tensor.

        Raises:
            ValueError: If `step` is not a scalar.
        """
        step = ops.cast(step, "int32")
        if len(step.shape):
            raise invalid("step", "be a single one", step, "For a curve give them all to `autolr.sgdr_lr`.")
        if self._batches_per_step > 1:
            step = ops.floor_divide(step, self._batches_per_step)
        first = int(self._edges[0])
        warm = ops.maximum(step, first) if first else step  # at warm-up the cycle has not begun
        done, length, peak = self._in_cycle_without_end(warm) if self._endless else self._in_cycle(warm)
        # Whole steps are subtracted before anything becomes a 32-bit float: late steps are as exact as early ones.
        fraction = ops.minimum(ops.cast(done, "float32") / length, 1.0)
        rate = self._schedule.in_cycle(fraction, peak, ops)
        return self._schedule.warmed(rate, ops.cast(step, "float32"), first, ops) if first else rate

    def _in_cycle(self, step: Any) -> tuple[Any, Any, Any]:
        """Steps done in the cycle that a step is in, that cycle's steps, and its peak."""
        if len(self._lengths) == 1:
            return step - int(self._edges[0]), float(self._lengths[0]), float(self._peak_of[0])
        cycle = ops.sum(ops.cast(ops.greater_equal(step, self._edges[1:-1]), "int32"))
        tables = (self._edges, self._lengths, self._peak_of)
        # Not `ops.take`, which also serves negative indices, in twice as many operations.
        start, length, peak = (ops.convert_to_tensor(table)[cycle] for table in tables)
        return step - start, length, peak

    def _in_cycle_without_end(self, step: Any) -> tuple[Any, Any, Any]:
        """The same where all cycles are equal."""
        first, second = (int(edge) for edge in self._edges)
        past = step - first if first else step
        if self._schedule.lr_decay == 1 and self._schedule.shape != "triangular2":
            peak, done = float(self._peak_of[0]), ops.mod(past, second - first)
        else:
            cycle = ops.floor_divide(past, second - first)
            done = past - cycle * (second - first)
            peak = self._schedule.peak(ops.cast(cycle, "float32"), ops)
        return done, float(self._lengths[0]), peak

    def get_config(self) -> dict[str, Any]:
        """The arguments, to save and to clone."""
        return dict(self._config)
