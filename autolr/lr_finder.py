"""The range test as a Keras callback, for anybody's own `fit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from autolr.array_types import FloatArray
from autolr.errors import check_count, invalid, is_finite
from autolr.recorder import LossRecorder
from autolr.verdicts import LRBounds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DEFAULT_START_LR = 1e-7
DEFAULT_END_LR = 10.0
DEFAULT_NUM_STEPS = 100


class LRFinder(LossRecorder):
    """Learning-rate range test as a callback: raises the rate exponentially, step by step, and records the losses.

    Training stops by itself after `num_steps`, or earlier when the loss diverges. Then the model is put back exactly as
    it was when training began; not if `fit` ends by an error or Ctrl-C, which leave it as the sweep has made it, nor by
    a callback behind this one that puts weights of its own back, as `EarlyStopping(restore_best_weights=True)`. This
    is the sweep alone: its bounds are not confirmed by bursts, as those of `autolr.range_test` are, which also needs no
    `fit`, builds a model that is not built, takes a model with a schedule, sees each step where `steps_per_execution`
    are several, puts back what data draw, and restores the model when `fit` raises, too. An optimizer that trains
    variables beside the model's must be built with all of them before.

    Args:
        start_lr: First learning rate. Defaults to 1e-7, where no optimizer moves.
        end_lr: Last learning rate. Defaults to 10, where nearly all have diverged.
        num_steps: Optimizer steps of a whole sweep. Defaults to 100.
        restore: Whether to put the model back when training ends. Defaults to True.

    Attributes:
        result: What was recorded, an `autolr.RangeTest`. Before a training has ended it is a `RuntimeError`.

    Raises:
        ValueError: If the rates are not `0 < start_lr < end_lr` or there are fewer than 2 steps; when training
            begins, if the model is not built or its learning rate is not a number.
        RuntimeError: In the second step, if another callback sets the rate; the model is put back.

    Example:
    ```python
    finder = autolr.LRFinder()
    model.fit(x, y, epochs=100, callbacks=[finder], verbose=0)  # as many epochs as the sweep may need
    min_lr, max_lr = finder.bounds()
    finder.plot()
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
        if not (is_finite(start_lr) and start_lr > 0):
            raise invalid("start_lr", "be a finite, positive number", start_lr, f"The default is {DEFAULT_START_LR:g}.")
        if not (is_finite(end_lr) and end_lr > start_lr):
            raise ValueError(
                "Argument `end_lr` must be finite and larger than `start_lr`. "
                f"Received: start_lr={start_lr!r}, end_lr={end_lr!r}. The default of `end_lr` is {DEFAULT_END_LR:g}."
            )
        steps = check_count("num_steps", num_steps, least=2, hint=f"The default is {DEFAULT_NUM_STEPS}.")
        super().__init__(steps, restore=restore)
        self.start_lr, self.end_lr = float(start_lr), float(end_lr)

    def _lay_out(self, points: int) -> FloatArray:
        return np.geomspace(self.start_lr, self.end_lr, points)

    def bounds(self, **options: Any) -> LRBounds:
        """The bounds on the recorded curve: `result.bounds(**options)`.

        Raises:
            RuntimeError: If no training with this callback has ended.
        """
        return self.result.bounds(**options)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the recorded curve with its bounds: `result.plot(ax)`.

        Raises:
            RuntimeError: If no training with this callback has ended.
        """
        return self.result.plot(ax)
