"""Which of the user's callbacks a trial can train with."""

from __future__ import annotations

from typing import Any

import keras

from autolr.early_stopping import CycleEarlyStopping
from autolr.errors import LIBRARIES, library_of
from autolr.lr_finder import LRFinder
from autolr.scheduler import SGDRScheduler

# Callbacks that set the rate themselves. Of two that do, the last in the list wins each step or epoch.
RATE_CALLBACKS = (
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ReduceLROnPlateau,
    LRFinder,
    SGDRScheduler,
)


def callbacks_of(arguments: dict[str, Any]) -> list[Any]:
    """The user's callbacks, one or a nest of them, as a list."""
    return list(keras.tree.flatten(arguments.get("callbacks") or []))


def without_rate_callbacks(callbacks: list[Any]) -> list[Any]:
    """Those that leave the learning rate alone."""
    return [callback for callback in callbacks if not isinstance(callback, RATE_CALLBACKS)]


def without_cycles_to_judge(callbacks: list[Any]) -> list[Any]:
    """Without those that judge the ends of cycles of a schedule that is not among them: an earlier trial's, say."""
    return [
        it
        for it in callbacks
        if not isinstance(it, CycleEarlyStopping) or any(it.scheduler is other for other in callbacks)
    ]


def has_own_end(callbacks: list[Any]) -> bool:
    """Whether one of the user's own does something when training ends: it may report a value then."""
    ends = (getattr(it, "on_train_end", None) for it in callbacks)  # of a `LambdaCallback` its own, not its class's
    return any(library_of(end) not in LIBRARIES for end in ends if end is not None)


def stop_within_cycles(callbacks: list[Any], epochs: int) -> bool:
    """Whether one may end a training of so many epochs while its learning rate is still high."""
    return any(
        # The first epoch is better than none, but not than a baseline.
        it.start_from_epoch + max(it.patience, 1) + (it.baseline is None) < epochs
        for it in callbacks
        if isinstance(it, keras.callbacks.EarlyStopping) and not isinstance(it, CycleEarlyStopping)
    )
