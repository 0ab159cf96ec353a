"""Whether somebody else sets the learning rate, too."""

from __future__ import annotations

from typing import Any

from autolr.errors import warn
from autolr.optimizers import has_rate, set_rate

BETWEEN_STEPS = (
    "Something else sets the learning rate, too, a callback like `ReduceLROnPlateau` perhaps. `SGDRScheduler` sets it "
    "before each step, so that the other has no effect, unless it is a callback behind it that does so in "
    "`on_train_batch_begin`. Leave one of the two out. (Loading a model's weights loads its optimizer's rate, too.)"
)
WITHIN_STEP = (
    "Something else sets the learning rate within the step, too, in `on_train_batch_begin` perhaps. A callback that "
    "does so behind `SGDRScheduler` decides what the model trains at, not the schedule; what is set in "
    "`on_train_batch_end` has no effect. Leave one of the two out."
)


class RateWatch:
    """Warns, once, of a rate that is not the one last set."""

    def __init__(self) -> None:
        self._rate: float | None = None
        self._warned = False

    def begin(self) -> None:
        """A training begins: what the rate was before it is nobody's business."""
        self._rate = None

    def set(self, optimizer: Any, rate: float) -> None:
        """Give the optimizer a rate."""
        set_rate(optimizer, rate)
        self._rate = rate

    def look(self, optimizer: Any, warning: str) -> None:
        """Warn if the optimizer has another rate by now."""
        if self._rate is None or self._warned or has_rate(optimizer, self._rate):
            return
        self._warned = True
        warn(warning)
