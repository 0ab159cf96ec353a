"""Whether a trial's record makes sense: what its readers lean on is there, and is what it should be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from autolr.errors import MAX_EXACT_INT, is_count

LEAST_RATE, MOST_RATE = 1e-30, 1e30  # beyond them a picture's scale is no number any more
BOUNDS = {"min_lr", "max_lr", "status", "reason", "confidence"}


def check_record(record: Any) -> None:
    """Raise an error, of whatever kind, if a `TrialRecord` lacks what its readers lean on, or it makes no sense."""
    if not _is_sound(record):
        raise ValueError("its numbers make no sense")


def _is_sound(record: Any) -> bool:
    bounds, schedule, curve = record.bounds, record.schedule, record.range_test
    edges, per_epoch, start = schedule["edges"], schedule["steps_per_epoch"], schedule["initial_epoch"]
    sound = isinstance(record.values, dict) and isinstance(record.source, str)
    sound &= isinstance(record.earlier, list) and all(map(_are_bounds, (bounds, *record.earlier)))
    sound &= 0 < schedule["lr_decay"] <= 1 and 0 <= schedule["warmup"] < 1
    sound &= len(edges) > 1 and all(isinstance(edge, int) for edge in edges) and _is_whole(start)
    sound &= edges[0] >= 0 and edges[-1] < MAX_EXACT_INT and all(a < b for a, b in itertools.pairwise(edges))
    sound &= per_epoch is None or (_is_whole(per_epoch) and per_epoch > 0)
    per_update = schedule["batches_per_update"]
    sound &= isinstance(per_update, int) and per_update > 0
    if curve is not None:
        rates, losses = [float(rate) for rate in curve["lrs"]], [float(loss) for loss in curve["losses"]]
        sound &= len(rates) == len(losses) and isinstance(curve["steps_spent"], int)
        sound &= all(
            LEAST_RATE < lr < MOST_RATE and not math.isnan(float(change)) and _is_whole(steps) and steps > 0
            for lr, change, steps in curve["bursts"]
        )
        sound &= all(isinstance(it, bool) for it in (curve["diverged"], curve.get("normalized", False)))
        sound &= all(a < b for a, b in itertools.pairwise(rates))
        sound &= all(LEAST_RATE < rate < MOST_RATE for rate in rates)
    sound &= isinstance(record.optimizer, str) and all(isinstance(text, str) for text in record.warnings)
    sound &= _is_whole(record.ways) and (record.steps_tested is None or _is_whole(record.steps_tested))
    if (objective := record.objective) is not None:
        sound &= isinstance(objective["name"], str) and objective["direction"] in ("min", "max")
    return bool(sound and (record.training is None or _is_sound_training(record.training)))


def _are_bounds(bounds: Mapping[str, Any]) -> bool:
    named = set(bounds) == BOUNDS and all(isinstance(bounds[name], str) for name in BOUNDS - {"min_lr", "max_lr"})
    return named and bool(LEAST_RATE < bounds["min_lr"] < bounds["max_lr"] < MOST_RATE)


def _is_whole(number: Any) -> bool:
    """Whether it is a whole number of 0 or more that a float can hold."""
    return isinstance(number, int) and is_count(number, least=0)


def _is_sound_training(training: Mapping[str, Any]) -> bool:
    rates, losses, epochs = training["rates"], training["losses"], training["epochs"]
    sound = all(map(_is_whole, (training["fits"], training["steps"], training["steps_of_all"])))
    sound &= all(0 <= float(lr) < math.inf for lr in rates["lr"]) and len(rates["step"]) == len(rates["lr"])
    sound &= len(losses["step"]) == len([float(loss) for loss in losses["loss"]])
    ends = [epoch["step"] for epoch in epochs]
    for steps in (rates["step"], losses["step"], ends):
        sound &= all(isinstance(step, int) for step in steps)
    for steps in (rates["step"], losses["step"]):
        sound &= all(a < b for a, b in itertools.pairwise([0, *steps]))
    # An update of several batches may be longer than an epoch, which then ends on the step of the one before.
    sound &= all(a <= b for a, b in itertools.pairwise([1, *ends]))
    numbers = [epoch["epoch"] for epoch in epochs]
    sound &= all(map(_is_whole, numbers)) and all(a < b for a, b in itertools.pairwise([0, *numbers]))
    for epoch in epochs:
        sound &= all(isinstance(float(x), float) for x in epoch["logs"].values())  # else it raises
    return bool(sound)
