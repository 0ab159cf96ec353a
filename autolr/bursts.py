"""Confirming doubtful bounds: short trainings at single rates, each from the untouched weights.

A sweep shows each rate for a step or two. On models that learn late (deep ReLU networks without normalisation, hard
images) it may show nothing but noise until it diverges, far above the rates that train. Two dozen steps at one rate
show much more. AutoLRS (arXiv:2105.10762) searches in a like way, during training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from autolr.bounds import LRBounds

BURST_STEPS = 24  # with 16 or fewer, models that learn late have not begun to: measured on the dev tasks of benchmarks/
MAX_BURSTS = 5
FACTOR = math.sqrt(10)  # between neighbouring rates


class Burst(NamedTuple):
    """What a short training at one rate did to the loss.

    Attributes:
        lr: The rate.
        change: Mean loss of the burst's last third, less that of the untrained model on the same steps. Negative if
            the model learned, infinite if it diverged.
    """

    lr: float
    change: float

    @classmethod
    def of(cls, lr: float, losses: npt.ArrayLike, untrained: npt.ArrayLike) -> Burst:
        """The burst whose batch losses these are.

        Args:
            lr: Its rate.
            losses: Loss of each step, shape `(steps,)`.
            untrained: Losses of the untrained model on as many batches, at best the same ones: then the differences
                between batches cancel.
        """
        after, before = np.asarray(losses, dtype=np.float64), np.asarray(untrained, dtype=np.float64)
        steps = min(len(after), len(before))
        if steps < 3 or len(after) < len(before) or not np.all(np.isfinite(after)):
            return cls(float(lr), math.inf)
        last = slice(steps - steps // 3, steps)
        return cls(float(lr), float(np.mean(after[last] - before[last])))


def next_rate(centre: float, bursts: Sequence[Burst]) -> float | None:
    """The rate to try next, or None when the best one lies between two that are worse.

    First the centre, then a third of it and three times it; then on towards where it is better. Where no rate
    has helped at all, towards lower ones: a network that is dead looks alike at every rate above.

    Args:
        centre: The `max_lr` in doubt.
        bursts: What has been tried.
    """
    for rate in (centre, centre / FACTOR, centre * FACTOR):
        if not any(math.isclose(rate, burst.lr) for burst in bursts):
            return rate
    tried = sorted(bursts)
    best = min(tried, key=lambda burst: burst.change)
    if best.change >= 0 or best == tried[0]:
        return tried[0].lr / FACTOR
    if best == tried[-1]:
        return tried[-1].lr * FACTOR
    return None


def confirm(bounds: LRBounds, bursts: Sequence[Burst]) -> LRBounds:
    """Doubtful bounds, mended by what bursts showed.

    Args:
        bounds: What was found on the sweep.
        bursts: What was tried.

    Returns:
        Bounds whose `max_lr` is the rate at which bursts learned most, by a parabola in log-rate through the best
        and its neighbours, with `min_lr` as far below it as before. Those given, if no burst learned anything.
    """
    tried = sorted(bursts)
    if not tried or min(burst.change for burst in tried) >= 0:
        return bounds
    best = min(range(len(tried)), key=lambda i: tried[i].change)
    shift = (
        _vertex([burst.change for burst in tried[max(0, best - 1) : best + 2]]) if 0 < best < len(tried) - 1 else 0.0
    )
    max_lr = tried[best].lr * FACTOR**shift
    rates = f"{tried[0].lr:.1e} to {tried[-1].lr:.1e}"
    return LRBounds(
        min_lr=max_lr * bounds.min_lr / bounds.max_lr,
        max_lr=max_lr,
        status="ok",
        reason=f"The sweep alone was doubtful ({bounds.status}). Of {len(tried)} short trainings at single rates, "
        f"{rates}, those near max_lr learned most.",
        confidence="medium",
    )


def _vertex(changes: list[float]) -> float:
    """Where the parabola through three evenly spaced values is least, in spacings from the middle one."""
    before, least, after = changes
    # A neighbour that diverged says that the best is not there, not how far away it is.
    ceiling = least + 4 * abs((before if math.isfinite(before) else 0.0) - least)
    before, after = min(before, ceiling), min(after, ceiling)
    bend = before - 2 * least + after
    return 0.0 if bend <= 0 else float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5))
