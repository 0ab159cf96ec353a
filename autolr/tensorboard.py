"""What a trial shows in TensorBoard, where the user passes its callback: the rate by step, bounds and schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from autolr import compat
from autolr.errors import in_brief, warn
from autolr.optimizers import iterations_of
from autolr.training_log import TrainingLog
from autolr.trial_values import DEFAULTS, MAX_LR, MIN_LR, PREFIX
from autolr.verdicts import LRBounds


def tensorboard_callbacks(
    callbacks: list[Any], log: TrainingLog, bounds: LRBounds, schedule: Mapping[str, Any]
) -> list[Any]:
    """Add AutoLR's values to the hparams that Keras Tuner logs; returns callbacks that write the learning rate.

    Args:
        callbacks: Those of a trial's `fit`, Keras Tuner's included.
        log: Notes the rates of this `fit`.
        bounds: Those the trial trains between.
        schedule: What `autolr.budget.plan` says.

    Returns:
        One callback for each TensorBoard callback, to go in front of it.
    """
    found = {
        MIN_LR: float(bounds.min_lr),
        MAX_LR: float(bounds.max_lr),
        f"{PREFIX}bounds": bounds.status,
        f"{PREFIX}cycles": len(schedule["edges"]) - 1,
        **{name: schedule[name] for name in DEFAULTS},  # a search whose space may not grow does not log them
    }
    for callback in callbacks:
        compat.add_hparams(callback, found)
    return [RateWriter(board, log) for board in callbacks if isinstance(board, keras.callbacks.TensorBoard)]


class RateWriter(keras.callbacks.Callback):
    """Writes a training's learning rate by optimizer step beside what a TensorBoard callback writes of it.

    At the ends of epochs, and only the points that the trial's record has: a summary for each step would take longer
    than many a step.

    Args:
        board: Keras's callback.
        log: Of the same `fit`.
    """

    def __init__(self, board: keras.callbacks.TensorBoard, log: TrainingLog) -> None:
        super().__init__()
        self._board, self._log = board, log
        self._written = self._before = 0
        self._works = True

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Note the steps before this `fit`: the optimizer counts on where a trial goes on from another."""
        self._before = iterations_of(self.model.optimizer)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Write the rates since the last time."""
        if not self._works:
            return
        try:
            points = self._log.rates()
            # The board's own writer: TensorBoard reads one file of a folder after the other, and no older one again.
            with compat.train_writer(self._board).as_default():
                for step, rate in points.items():
                    if step > self._written:
                        self._board.summary.scalar("learning_rate", rate, step=self._before + step)
                        self._written = step
        except Exception as error:  # a picture less is no reason to fail a trial
            self._works = False
            warn(f"The learning rate is no longer shown in TensorBoard ({in_brief(error)}).")
