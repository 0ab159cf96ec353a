"""The losses of a burst, a short training at one rate that may go on later."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from autolr.optimizers import batches_per_update
from autolr.recorder import LossRecorder
from autolr.snapshot import Snapshot
from autolr.trough import Floats

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
    state: Snapshot


class BurstRecorder(LossRecorder):
    """Trains at one rate and records the losses.

    Args:
        rate: The rate.
        num_steps: Steps in all, those before it paused included.
        begun: Where it goes on.
        pausing: Whether to keep the state in which it ends.

    Attributes:
        paused: After the training, where a longer one may go on; None if none can.
    """

    def __init__(self, rate: float, num_steps: int, *, begun: Paused | None = None, pausing: bool = False) -> None:
        super().__init__(num_steps, restore=False)
        self.rate = rate
        self.paused: Paused | None = None
        self._begun, self._pausing, self._to_skip = begun, pausing, 0

    def _lay_out(self, points: int) -> Floats:
        return np.full(points, self.rate)

    def resume(self, model: keras.Model) -> int:
        """Give the model the state it had where the burst paused, and say how many batches `fit` has to leave out.

        Generators by which data are drawn are not put where they were: `fit` draws what it leaves out.
        """
        if self._begun is None:
            return 0
        self._begun.state.assign()
        self._to_skip = len(self._begun.losses) * batches_per_update(model.optimizer)
        return self._to_skip

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Begin with the losses of the steps before."""
        super().on_train_begin(logs)
        self._recorded = list(self._begun.losses) if self._begun else []

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Record this step's loss, unless its batch is left out."""
        if self._to_skip:
            self._to_skip -= 1
        else:
            super().on_train_batch_end(batch, logs)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Call it diverged if a weight is no number: the loss may still be one, as ReLU makes NaN zero."""
        finite = (keras.ops.all(keras.ops.isfinite(variable)) for variable in self.model.trainable_variables)
        if self._recorded and not all(map(bool, finite)):
            self._recorded[-1] = math.inf
        super().on_train_end(logs)
        if self._begun:
            self._result = replace(self.result, steps_spent=self.result.steps_spent - len(self._begun.losses))
        if self._pausing and len(self._recorded) == len(self._lrs) and np.all(np.isfinite(self._recorded)):
            variables = [*self.model.variables, *self.model.optimizer.variables]
            if sum(math.prod(variable.shape) for variable in variables) <= MOST_NUMBERS:
                self.paused = Paused(self.rate, self._recorded, Snapshot.of(self.model))
