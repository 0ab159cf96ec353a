"""Where the cycles of a learning rate begin and end, as integer arithmetic on steps.

A cycle is half-open: the step on which the next one begins belongs to the next one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from autolr.array_types import IntArray

_FAR = 2**62  # far beyond any step, and 64 bits hold it


def cycle_edges(steps: int, *, cycle_length: int, mult_factor: float, steps_per_epoch: int) -> IntArray:
    """The steps on which cycles begin, from 0 to the first edge past `steps`.

    Args:
        steps: How far the edges must reach: the last one is larger than this.
        cycle_length: Epochs in the first cycle.
        mult_factor: After each cycle the length becomes `ceil(length * mult_factor)` epochs. The product is taken of
            the number as it is written, so that ten epochs times 1.1 are eleven; in binary floating point they are
            a hair more, and would be rounded up to twelve.
        steps_per_epoch: Optimizer steps in an epoch.

    Returns:
        Integers, shape `(num_cycles + 1,)`.
    """
    length, factor = cycle_length, Fraction(repr(float(mult_factor)))
    if factor == 1:  # equal cycles need no loop, and a long training has very many short ones
        each = min(length * steps_per_epoch, _FAR)
        return np.arange(steps // each + 2, dtype=np.int64) * each
    edges = [0]
    while edges[-1] <= steps:
        edges.append(min(edges[-1] + length * steps_per_epoch, _FAR))
        length = math.ceil(length * factor)
    return np.array(edges, dtype=np.int64)


def fitted_edges(total_steps: int, *, cycle_length: int, mult_factor: float, steps_per_epoch: int) -> IntArray:
    """The edges of as many whole cycles as the budget holds, stretched so that the last one ends with the last step.

    A model judged in mid-cycle is judged at a high learning rate, by accident. That is why cycles also end with an
    epoch, where models are judged, if the budget is whole epochs. With a `cycle_length` of the whole budget or more
    there is one cycle: plain cosine annealing.

    Args:
        total_steps: Optimizer steps of the whole training.
        cycle_length: Epochs in the first cycle, before stretching.
        mult_factor: Growth of the cycles, as in `cycle_edges`.
        steps_per_epoch: Optimizer steps in an epoch.

    Returns:
        Integers, shape `(num_cycles + 1,)`, the last of them `total_steps`.

    Example:
    >>> fitted_edges(1000, cycle_length=3, mult_factor=1.5, steps_per_epoch=100)  # 3 + 5 epochs, stretched to 10
    array([   0,  400, 1000])
    """
    if cycle_length * steps_per_epoch >= total_steps:
        return np.array([0, total_steps], dtype=np.int64)
    edges = cycle_edges(
        total_steps, cycle_length=cycle_length, mult_factor=mult_factor, steps_per_epoch=steps_per_epoch
    )
    whole = int(np.searchsorted(edges, total_steps, side="right")) - 1
    grain = steps_per_epoch if total_steps % steps_per_epoch == 0 else 1
    # Python's integers, rounding half up: exact for any number of steps. Stretched cycles stay an epoch apart.
    exact = edges[: whole + 1].astype(object)
    grains = (2 * exact * (total_steps // grain) + exact[whole]) // (2 * exact[whole])
    return cast(IntArray, (grains * grain).astype(np.int64))


def cycle_lengths(edges: Iterable[int], steps_per_epoch: int | None) -> list[float]:
    """Lengths of the cycles in epochs, or in steps where it is not known how many an epoch has.

    Args:
        edges: Steps on which cycles begin, and the last one ends. Warm-up before the first is part of it.
        steps_per_epoch: Steps in an epoch, if known.
    """
    ends = list(edges)[1:]
    return [(end - begin) / (steps_per_epoch or 1) for begin, end in itertools.pairwise([0, *ends])]


def place(step: npt.ArrayLike, edges: IntArray) -> tuple[Any, Any]:
    """Which cycle each step is in, and what fraction of it is done; before the first edge and past the last, at it."""
    at = np.asarray(step)
    cycle = np.clip(np.searchsorted(edges, at, side="right") - 1, 0, len(edges) - 2)
    # Under gradient accumulation a cycle may be shorter than a step.
    done = (at - edges[cycle]) / np.maximum(edges[cycle + 1] - edges[cycle], 1)
    return cycle, np.clip(done, 0.0, 1.0)
