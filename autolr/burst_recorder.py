"""The losses of a burst, a short training at one rate that may go on later."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from autolr.array_types import FloatArray
from autolr.fit import SKIPPED
from autolr.model_state import ModelState
from autolr.optimizers import batches_per_update
from autolr.recorder import LossRecorder
from autolr.variables import array_of

MOST_NUMBERS = 2**25  # in the weights and slots of a model whose bursts pause: 128 MB, of which some are kept at a time


@dataclass(frozen=True)
class Paused:
    """A burst that may go on.

    Attributes:
        rate: Its learning rate.
        losses: Of its steps so far.
        state: Of the model after them.
    """

    rate: float
    losses: list[float]
    state: ModelState


class BurstRecorder(LossRecorder):
    """Trains at one rate and records the losses.

    Args:
        rate: The rate.
        num_steps: Steps in all, those before it paused included.
        begun: Where it goes on: `fit` must leave out the batches it has had.
        pausing: Whether to keep the state in which it ends.

    Attributes:
        paused: After the training, where a longer one may go on; None if none can.
    """

    def __init__(self, rate: float, num_steps: int, *, begun: Paused | None = None, pausing: bool = False) -> None:
        super().__init__(num_steps, restore=False)
        self.rate = rate
        self.paused: Paused | None = None
        self._begun, self._pausing = begun, pausing

    def _lay_out(self, points: int) -> FloatArray:
        return np.full(points, self.rate)

    def resume(self, model: keras.Model, *, drawn_by: Sequence[Any]) -> int:
        """Give the model the state it had where the burst paused, and say how many batches are to be left out.

        Args:
            model: The model.
            drawn_by: Variables and generators that data are drawn by. They begin anew: what is left out is drawn.
        """
        if self._begun is None:
            return 0
        self._begun.state.without(drawn_by).assign()
        return len(self._begun.losses) * batches_per_update(model.optimizer)

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Begin with the losses of the steps before."""
        super().on_train_begin(logs)
        self._recorded = list(self._begun.losses) if self._begun else []

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Record this step's loss, unless it was left out; keep the state after the last."""
        if SKIPPED in (logs or {}):
            return
        super().on_train_batch_end(batch, logs)
        # Not when the training has ended: an optimizer that averages the weights has put these in their place then.
        if self._pausing and self._ended and not self._diverged:
            variables = [*self.model.variables, *self.model.optimizer.variables]
            if sum(math.prod(variable.shape) for variable in variables) <= MOST_NUMBERS:
                self.paused = Paused(self.rate, self._recorded, ModelState.of(self.model))

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Call it diverged if a weight is no number: the loss may still be one, as ReLU makes NaN zero."""
        weights = map(array_of, self.model.trainable_variables)
        if self._recorded and not all(np.all(np.isfinite(weight)) for weight in weights):
            self._recorded[-1] = math.inf
        super().on_train_end(logs)
        if self._begun:
            self._result = replace(self.result, steps_spent=self.result.steps_spent - len(self._begun.losses))
        if not np.all(np.isfinite(self._recorded)):
            self.paused = None
