"""The schedule inside the training graph, for any Keras backend."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from autolr.errors import invalid
from autolr.sgdr import check_schedule, cycle_edges, fitted_edges

_LAST_STEP = 2**31 - 2  # what an optimizer's 32-bit step count can reach


@keras.saving.register_keras_serializable(package="autolr")
class SGDRSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Cosine annealing with warm restarts as a `LearningRateSchedule`: compiled into the model and saved with it.

    The same rates as `sgdr_lr` and `SGDRScheduler`, computed in the graph from the optimizer's own step count. Keras's
    `CosineDecayRestarts` differs: its floor `alpha` is a fraction of the initial rate and its cycles need not be whole
    steps, since restarts are found from a logarithm.

    Args:
        min_lr: Rate that each cycle falls to.
        max_lr: Rate at the start of the first cycle.
        steps_per_epoch: Optimizer steps in an epoch.
        cycle_length: Epochs in the first cycle. Defaults to 10.
        mult_factor: After each cycle it becomes `ceil(length * mult_factor)` epochs long. Defaults to 2.
        lr_decay: After each cycle the peak is multiplied by this, though never below `min_lr`. Defaults to 1.
        total_steps: When given, cycles are stretched to end with this many steps, and the rate stays at `min_lr` after
            them.
        name: Name of the schedule in the graph.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
    ```python
    schedule = autolr.SGDRSchedule(0.01, 0.5, steps_per_epoch=len(x) // 64, cycle_length=3)
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
        name: str = "SGDRSchedule",
    ) -> None:
        super().__init__()
        schedule = {
            "min_lr": min_lr,
            "max_lr": max_lr,
            "cycle_length": cycle_length,
            "mult_factor": mult_factor,
            "lr_decay": lr_decay,
            "steps_per_epoch": steps_per_epoch,
        }
        check_schedule(**schedule)  # type: ignore[arg-type]
        self._levels = float(min_lr), float(max_lr), float(lr_decay)
        self._config = {**schedule, "total_steps": total_steps, "name": name}
        cycles = {"cycle_length": cycle_length, "mult_factor": mult_factor, "steps_per_epoch": steps_per_epoch}
        if total_steps is not None:
            if not total_steps >= 1:
                raise invalid("total_steps", "be a positive whole number or None", total_steps)
            self._edges = fitted_edges(int(total_steps), **cycles)  # type: ignore[arg-type]
        elif mult_factor == 1:
            self._edges = cycle_edges(0, **cycles)  # type: ignore[arg-type] # one cycle, and all others are like it
        else:
            self._edges = np.minimum(cycle_edges(_LAST_STEP, **cycles), _LAST_STEP + 1)  # type: ignore[arg-type]
        self._endless = total_steps is None and mult_factor == 1

    def __call__(self, step: Any) -> Any:
        """The learning rate at a step, a scalar tensor."""
        min_lr, max_lr, lr_decay = self._levels
        step = ops.cast(step, "int32")
        if self._endless:
            length = ops.cast(int(self._edges[1]), "int32")
            cycle = ops.floor_divide(step, length)
            done = step - cycle * length
        else:
            edges = ops.convert_to_tensor(self._edges.astype("int32"))
            passed = ops.sum(ops.cast(ops.greater_equal(step, edges), "int32"))
            cycle = ops.minimum(passed - 1, len(self._edges) - 2)
            start = ops.take(edges, cycle)
            length = ops.take(edges, cycle + 1) - start
            done = ops.minimum(step - start, length)
        # Whole steps are subtracted before anything becomes a 32-bit float: late steps are as exact as early ones.
        fraction = ops.cast(done, "float32") / ops.cast(length, "float32")
        peak = ops.maximum(min_lr, max_lr * ops.power(lr_decay, ops.cast(cycle, "float32")))
        weight = 0.5 * (1.0 + ops.cos(np.pi * fraction))
        return min_lr * (1.0 - weight) + peak * weight

    def get_config(self) -> dict[str, Any]:
        """The arguments, to save and to clone."""
        return dict(self._config)
