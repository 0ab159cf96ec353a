"""Which steps a training has made, and at which rates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


class RateHistory:
    """Steps and their rates, noted when they begin and settled when their epoch ends.

    Attributes:
        values: `{"step": [...], "lr": [...]}`.
    """

    def __init__(self) -> None:
        self.values: dict[str, list[Any]] = {"step": [], "lr": []}
        self._batches: list[int] = []  # of the running epoch, those at which a step began

    @property
    def is_new_epoch(self) -> bool:
        """Whether the running epoch has no step yet."""
        return not self._batches

    @property
    def last_step(self) -> int:
        """The latest step; -1 if there was none."""
        return self.values["step"][-1] if self.values["step"] else -1

    def begin_epoch(self) -> None:
        """What follows is of another epoch."""
        self._batches = []

    def begin_step(self, step: int, rate: float, *, batch: int) -> None:
        """A step begins with this batch of the epoch."""
        self._batches.append(batch)
        self.values["step"].append(step)
        self.values["lr"].append(rate)

    def leave_out(self, *, after: int) -> None:
        """Leave out the epoch's steps after so many batches: they were begun and not trained.

        Keras also announces the step at which data of unknown size turn out to have ended.
        """
        while self._batches and self._batches[-1] >= after:
            self._batches.pop()
            self.values["step"].pop()
            self.values["lr"].pop()

    def renumber(self, step_of: Callable[[int], int]) -> None:
        """Number the steps anew, where the first epoch's end has shown which batches make which step.

        Args:
            step_of: The step of a batch. Of several batches of one step, the first stays.
        """
        steps, first = np.unique([step_of(batch) for batch in self._batches], return_index=True)
        self._batches = [self._batches[i] for i in first]
        self.values = {"step": steps.tolist(), "lr": [self.values["lr"][i] for i in first]}
