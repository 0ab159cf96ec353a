"""Early stopping that knows the cycles of the schedule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from autolr.errors import check_count, invalid
from autolr.scheduler import SGDRScheduler


class CycleEarlyStopping(keras.callbacks.EarlyStopping):
    """Early stopping that looks only at the ends of cycles.

    Inside a cycle the loss is high because the rate was just restarted, not because training has stopped getting
    better: ordinary early stopping ends it there, at its worst. When training ends inside a cycle, that end is judged,
    too: it is kept if it is better than the best end of a cycle, which is put back otherwise.

    Args:
        scheduler: The `SGDRScheduler` of the same `fit`. Not needed in an AutoLR search, where each trial has its own.
        patience: Training ends when so many cycles in a row have brought no improvement. Defaults to 1: the first such.
        restore_best_weights: Whether to put back the weights of the best end of a cycle. Defaults to True; then the
            scheduler's `restore_weights` is not needed and does nothing.
        **options: The other arguments of `keras.callbacks.EarlyStopping`: `monitor` (default `"val_loss"`), `mode`,
            `min_delta`, `baseline`, `verbose`, `start_from_epoch` (in epochs).

    Raises:
        ValueError: If `scheduler` is something else, or `patience` is no whole number of 0 or more; when training
            begins, without a scheduler, or with one that takes no part in it.

    Example:
    ```python
    schedule = autolr.SGDRScheduler(0.01, 0.5, cycle_length=3, mult_factor=1.5)
    stop = autolr.CycleEarlyStopping(schedule, patience=2)
    model.fit(x, y, validation_split=0.1, epochs=100, callbacks=[schedule, stop])
    ```
    """

    def __init__(
        self,
        scheduler: SGDRScheduler | None = None,
        *,
        patience: int = 1,
        restore_best_weights: bool = True,
        **options: Any,
    ) -> None:
        if not (scheduler is None or isinstance(scheduler, SGDRScheduler)):
            hint = "Other arguments are given by name, `patience=2` say."
            raise invalid("scheduler", "be the `SGDRScheduler` of the same `fit`", scheduler, hint)
        patience = check_count("patience", patience, least=0, hint="The default is 1.")
        super().__init__(patience=patience, restore_best_weights=restore_best_weights, **options)
        self.scheduler = scheduler

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Start counting."""
        self._check_scheduler(self.scheduler is not None and self.scheduler.model is self.model)
        super().on_train_begin(logs)
        self.best = None  # before Keras 3.13 that of an earlier training would stay
        self._unjudged: tuple[int, Any] | None = None

    def _check_scheduler(self, is_this_trainings: bool) -> None:
        if not is_this_trainings:
            raise ValueError(
                "Argument `scheduler` must be the `SGDRScheduler` of this training, whose cycles are judged. "
                f"Received: scheduler={self.scheduler}. Pass it to both: "
                "`callbacks=[schedule, CycleEarlyStopping(schedule)]`."
            )

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Look whether the scheduler has begun, too: it may be that of an earlier training of the model."""
        self._check_scheduler(self.scheduler is not None and self.scheduler.in_training)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Judge, if a cycle or the training ends here."""
        assert self.scheduler is not None
        if self.restore_best_weights and self.monitor in (logs or {}):  # else nothing will be put back here
            self.scheduler.leave_weights_alone()
        is_last = epoch + 1 == self.params["epochs"] or self.model.stop_training  # by a callback in front
        self._unjudged = None
        if self.scheduler.ends_cycle(epoch) or is_last:
            super().on_epoch_end(epoch, logs)
        else:
            self._unjudged = epoch, logs

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Judge the last epoch if a callback behind has ended the training with it; put the best weights back."""
        if self._unjudged is not None:
            super().on_epoch_end(*self._unjudged)
        super().on_train_end(logs)
