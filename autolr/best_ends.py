"""Which trials, and which ends of a trial's cycles, are worth averaging."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from autolr.cycle_ends import cycle_of, snapshot_paths
from autolr.records import record_in

T = TypeVar("T", bound=Hashable)

# For a convex loss the mean of predictions is at worst as bad as the mean of its members' losses: of trials within
# twice the best one's, what one can do harm is little, and what it adds in other errors commonly more.
WORST_TRIAL = 2.0
# Ends of one training err alike, so one that is worse hardly helps (`docs/results.md`).
WORST_END = 1.1


def one_of_each_chain(trials: Iterable[T], parents: Mapping[T, T | None]) -> list[T]:
    """The first of each chain in which one trial went on with another's weights, as the rungs of Hyperband do.

    Both have the same architecture and nearly the same weights, so the other one would hardly err differently.

    Args:
        trials: Their names, the best first.
        parents: By name of each trial, also of others, the one it went on from; None if it did not.
    """
    best: dict[T, T] = {}
    for trial in trials:
        first = trial
        while (parent := parents.get(first)) is not None:
            first = parent
        best.setdefault(first, trial)
    return list(best.values())


def near_the_best(trials: Sequence[Any], objective: Any) -> list[Any]:
    """Trials, the best first, without those whose score is more than twice the best.

    Of an objective to be maximized, of several, or where the best score is not positive, twice means nothing, and all
    are kept.
    """
    several = hasattr(objective, "objectives")  # Keras Tuner takes the difference of their sums
    if not trials or several or objective.direction != "min" or trials[0].score <= 0:
        return list(trials)
    return [trial for trial in trials if trial.score <= WORST_TRIAL * trials[0].score]


def best_ends(folder: Path, snapshots: Path, *, last: int | None = None) -> list[Path]:
    """A trial's snapshots, without those more than a tenth worse than the best of them.

    An early cycle may end before the model has learned much, and each end counts the same in an ensemble. How bad an
    end is, the search's objective tells: itself if it is to be minimized, what it lacks to 1 if it is an accuracy or
    another such share. If it is neither, or was not reported at each end, the loss tells, that of validation, or of
    training where not all were validated. Of what is negative a tenth means nothing, and all are kept, as where nothing
    is recorded.

    Args:
        folder: The trial's, with its record.
        snapshots: Where its snapshots are.
        last: Look at the last so many only.
    """
    paths = snapshot_paths(snapshots)
    paths = paths[-last:] if last else paths
    return [path for path, is_near in zip(paths, near_the_least(_badness(folder, paths)), strict=True) if is_near]


def near_the_least(values: Sequence[float | None], *, within: float = WORST_END) -> list[bool]:
    """Which values are within so many times the least; all if that is negative, and those that are not known."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    if not known or min(known) < 0:
        return [True] * len(values)
    return [value is None or value <= within * min(known) for value in values]


def _badness(folder: Path, paths: Sequence[Path]) -> list[float | None]:
    """How bad the model was at each end, None where it is not recorded, as in a damaged record."""
    record = record_in(folder)
    if record is None:
        return [None] * len(paths)
    edges = record.schedule["edges"]
    logs = {epoch["epoch"]: epoch["logs"] for epoch in record.epochs}
    cycles = [cycle_of(path) for path in paths]
    found = [logs.get(edges[cycle] // record.per_epoch, {}) if cycle < len(edges) else {} for cycle in cycles]

    def values(name: str) -> list[float | None]:
        return [float(its[name]) if name in its else None for its in found]

    def is_everywhere(name: str) -> bool:  # not each epoch may have been validated; of some nothing is known
        return all(name in its for its in found if its)

    if (objective := record.objective) and is_everywhere(objective["name"]):
        scores = values(objective["name"])
        if objective["direction"] == "min":
            return scores
        if all(score is None or 0 <= score <= 1 for score in scores):
            return [None if score is None else 1 - score for score in scores]
    return values("val_loss" if is_everywhere("val_loss") else "loss")
