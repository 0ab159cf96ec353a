"""What is kept of a model at the ends of its cycles: the latest in memory, and the last few in files."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from autolr.errors import invalid, warn
from autolr.files import check_space, is_remote, written_aside
from autolr.variables import array_of

SUFFIX = ".weights.h5"
MARGIN = 2**20  # bytes that a file takes beside the weights; of a model of a thousand layers it is as much


class CycleEnds:
    """The ends of the cycles of one training.

    Args:
        model: The model in training.
        folder: Where to keep snapshots; None for nowhere.
        keep: How many.
        restores: Whether the latest end is put back if training ends inside a cycle, and worse.
    """

    def __init__(self, model: keras.Model, folder: Path | None, *, keep: int, restores: bool) -> None:
        self._model, self._folder, self._keep = model, folder, keep
        self.restores = restores
        self.weights: list[Any] | None = None  # at the latest
        self._logs: Mapping[str, Any] = {}  # of its epoch
        self._latest_logs: Mapping[str, Any] = {}  # of the latest epoch
        self._is_at_end = False  # whether that one ended a cycle
        self._last_weights: list[Any] | None = None  # when training ended, if not at a cycle's end

    def drop(self, after: int) -> None:
        """Remove the snapshots of later cycles than this."""
        if self._folder is not None:
            drop_snapshots(self._folder, after=after)

    def epoch_ended(self, number: int | None, logs: Mapping[str, Any], *, is_last: bool) -> None:
        """An epoch has ended, and with it cycle `number`, from 1, if it is not None."""
        self._latest_logs = logs
        self._is_at_end = number is not None and self._add(number, logs)
        # A callback in front may put weights of its own back when training ends.
        may_put_back = is_last and self.restores and not self._is_at_end and self.weights is not None
        self._last_weights = self._model.get_weights() if may_put_back else None

    def training_ended(self) -> None:
        """Put the latest end back if training has ended inside a cycle, and worse."""
        if self.weights is not None and self.restores and not self._is_at_end and not self._have_been_set():
            self._put_back()
        self._last_weights = None  # no use any more, and as large as the model

    def _have_been_set(self) -> bool:
        """Whether the weights are others than when the last epoch ended: somebody has chosen them."""
        if self._last_weights is None:
            return False
        pairs = zip(self._last_weights, self._model.get_weights(), strict=True)
        return any(not np.array_equal(then, now, equal_nan=True) for then, now in pairs)

    def _add(self, number: int, logs: Mapping[str, Any]) -> bool:
        """Cycle `number`, from 1, has ended. Whether that is kept: not with a loss or a weight that is no number."""
        if math.isnan(logs.get("loss", 0.0)) or has_non_finite_weights(self._model):
            return False
        self.weights, self._logs = self._model.get_weights(), logs
        if self._folder is None:
            return True
        try:
            save_snapshot(self._model, self._folder, number, keep=self._keep)
        except OSError as error:  # a full disk: the training is worth more
            warn(
                f"The weights at the end of cycle {number} could not be kept in {self._folder} ({error}). "
                "Training goes on."
            )
        return True

    def _put_back(self) -> None:
        """Put the latest end's weights back if it was better than the latest epoch."""
        logs = self._latest_logs
        monitor = "val_loss" if "val_loss" in self._logs and "val_loss" in logs else "loss"
        if monitor not in self._logs or monitor not in logs:
            return  # there is no reason to undo training
        before, now = self._logs[monitor], logs[monitor]
        if now > before or math.isnan(now) > math.isnan(before):
            self._model.set_weights(self.weights)


def check_snapshot_folder(folder: Any) -> Path | None:
    """Where snapshots are kept, None for nowhere; an empty name would be the working directory.

    Raises:
        ValueError: If it is neither a path nor None, or on a remote file system.
    """
    if folder is None:
        return None
    if not (isinstance(folder, str | os.PathLike) and os.fspath(folder)):
        raise invalid("snapshot_folder", "be a folder", folder, "None keeps no snapshots.")
    if is_remote(os.fspath(folder)) or re.match("(gs|s3|hdfs):/", os.fspath(folder), re.I):  # `Path` drops a slash
        raise invalid("snapshot_folder", "be a folder of this machine", folder, "Copy the snapshots afterwards.")
    return Path(folder)


def has_non_finite_weights(model: keras.Model) -> bool:
    """Whether a weight is not a number, or one that is trained infinite; a mask may be of infinite constants."""
    trained = {id(variable) for variable in model.trainable_variables}
    for variable in model.weights:
        weight = array_of(variable)
        if np.any(np.isnan(weight)) or (id(variable) in trained and np.any(np.isinf(weight))):
            return True
    return False


def save_snapshot(model: keras.Model, folder: Path, cycle: int, *, keep: int) -> None:
    """Write a model's weights at the end of a cycle, whole or not at all, and remove all but the last `keep` of them.

    Args:
        model: The model.
        folder: Where to; made if it is not there.
        cycle: Number of the cycle that ended, from 1.
        keep: How many to keep.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = getattr(model, "optimizer", None)  # Keras saves its slots, too
    saved = [*model.variables, *(optimizer.variables if optimizer else ())]
    check_space(folder, sum(array_of(variable).nbytes for variable in saved) + MARGIN)
    with written_aside(folder / f"cycle-{cycle:04d}{SUFFIX}") as aside:
        model.save_weights(aside)
    for path in snapshot_paths(folder)[:-keep]:
        path.unlink(missing_ok=True)


def drop_snapshots(folder: Path, *, after: int) -> None:
    """Remove the weights of cycles later than `after`, which are those of a training given up.

    Of all cycles, also what a kill has left half written.
    """
    late = [path for path in snapshot_paths(folder) if cycle_of(path) > after]
    try:
        for path in [*late, *(folder.glob(f".*-cycle-*{SUFFIX}") if after == 0 else ())]:
            path.unlink(missing_ok=True)
    except OSError as error:  # another's folder, perhaps: the training is worth more
        warn(f"Snapshots of an earlier training could not be removed from {folder} ({error}). Training goes on.")


def snapshot_paths(folder: str | os.PathLike[str]) -> list[Path]:
    """The weights that `SGDRScheduler(snapshot_folder=...)` has kept in a folder, the earliest cycle first."""
    return sorted(filter(cycle_of, Path(folder).glob(f"cycle-*{SUFFIX}")), key=cycle_of)


def cycle_of(path: Path) -> int:
    """The number of the cycle, from 1, at whose end a snapshot was taken; 0 for a file of another name."""
    digits = path.name[len("cycle-") : -len(SUFFIX)]
    return int(digits) if digits.isdecimal() else 0
