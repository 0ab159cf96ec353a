"""Which trials, and which ends of a trial's cycles, are worth averaging."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autolr.cycle_ends import cycle_of, snapshot_paths
from autolr.records import record_in

# For a convex loss the mean of predictions is at worst as bad as the mean of its members' losses: within twice the best
# one's, what an end can do harm is little, and what it adds in other errors commonly more.
WORST = 2.0


def near_the_best(trials: Sequence[Any], objective: Any) -> list[Any]:
    """Trials, the best first, without those whose score is more than twice the best.

    Of an objective to be maximized, of several, or where the best score is not positive, twice means nothing, and all
    are kept.
    """
    several = hasattr(objective, "objectives")  # Keras Tuner takes the difference of their sums
    if not trials or several or objective.direction != "min" or trials[0].score <= 0:
        return list(trials)
    return [trial for trial in trials if trial.score <= WORST * trials[0].score]


def best_ends(folder: Path, snapshots: Path, *, last: int | None = None) -> list[Path]:
    """A trial's snapshots, without those whose loss was more than twice that of the best.

    An early cycle may end before the model has learned much, and each end counts the same in an ensemble. The loss is
    that of validation, or of training where not all were validated; where it is not recorded or not positive, so that
    twice means nothing, all are kept.

    Args:
        folder: The trial's, with its record.
        snapshots: Where its snapshots are.
        last: Look at the last so many only.
    """
    paths = snapshot_paths(snapshots)
    paths = paths[-last:] if last else paths
    losses = _losses_at_ends(folder, paths)
    known = [loss for loss in losses if loss is not None and not math.isnan(loss)]
    if not known or min(known) <= 0:
        return paths
    return [path for path, loss in zip(paths, losses, strict=True) if loss is None or loss <= WORST * min(known)]


def _losses_at_ends(folder: Path, paths: Sequence[Path]) -> list[float | None]:
    """The loss at each end, None where it is not recorded, as in a damaged record."""
    record = record_in(folder)
    if record is None:
        return [None] * len(paths)
    edges = record.schedule["edges"]
    logs = {epoch["epoch"]: epoch["logs"] for epoch in record.epochs}
    cycles = [cycle_of(path) for path in paths]
    found = [logs.get(edges[cycle] // record.per_epoch, {}) if cycle < len(edges) else {} for cycle in cycles]
    # Not each epoch may have been validated, and losses of two kinds can't be compared. Of some nothing is known.
    name = "val_loss" if all("val_loss" in its for its in found if its) else "loss"
    return [float(its[name]) if name in its else None for its in found]
