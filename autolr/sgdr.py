"""Cosine annealing with warm restarts as integer arithmetic on steps: where cycles begin, and the rate at a step.

Everything else that knows a schedule (the Keras callback, the tuners, the plots) asks this file. A cycle is half-open:
the step on which it begins is at the peak rate, the step on which the next one begins belongs to the next one.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from autolr.errors import invalid

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def check_schedule(
    *, min_lr: float, max_lr: float, cycle_length: int, mult_factor: float, lr_decay: float, steps_per_epoch: int = 1
) -> None:
    """Raise `ValueError` unless the arguments describe a schedule."""
    if not (math.isfinite(min_lr) and min_lr >= 0):
        raise invalid("min_lr", "be a finite number, zero or more", min_lr)
    if not (math.isfinite(max_lr) and max_lr > 0):
        raise invalid("max_lr", "be a finite, positive number", max_lr)
    if min_lr > max_lr:
        raise ValueError(
            "Argument `min_lr` must not be larger than `max_lr`. "
            f"Received: min_lr={min_lr!r}, max_lr={max_lr!r}. Are the two swapped?"
        )
    check_cycles(cycle_length, mult_factor, steps_per_epoch)
    if not (math.isfinite(lr_decay) and 0 < lr_decay <= 1):
        raise invalid("lr_decay", "be in (0, 1]", lr_decay, "1 keeps every peak at `max_lr`.")


def check_cycles(cycle_length: int, mult_factor: float, steps_per_epoch: int) -> None:
    """Raise `ValueError` unless the arguments describe cycles."""
    if not _is_count(cycle_length):
        raise invalid("cycle_length", "be a positive whole number of epochs", cycle_length)
    if not (math.isfinite(mult_factor) and mult_factor >= 1):
        raise invalid("mult_factor", "be a finite number, 1 or more", mult_factor, "1 keeps all cycles equally long.")
    if not _is_count(steps_per_epoch):
        raise invalid("steps_per_epoch", "be a positive whole number", steps_per_epoch)


def _is_count(value: Any) -> bool:
    return not isinstance(value, bool) and math.isfinite(value) and value >= 1 and value == int(value)


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
    length, factor = int(cycle_length), Fraction(repr(float(mult_factor)))
    if factor == 1:  # equal cycles need no loop, and a long training has very many short ones
        return np.arange(steps // (length * steps_per_epoch) + 2, dtype=np.int64) * (length * int(steps_per_epoch))
    edges = [0]
    while edges[-1] <= steps:
        edges.append(edges[-1] + length * int(steps_per_epoch))
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
    edges = cycle_edges(
        total_steps, cycle_length=cycle_length, mult_factor=mult_factor, steps_per_epoch=steps_per_epoch
    )
    whole = max(1, int(np.searchsorted(edges, total_steps, side="right")) - 1)
    grain = int(steps_per_epoch) if total_steps % steps_per_epoch == 0 else 1
    # Integer arithmetic, rounding half up: exact for any number of steps. Stretched cycles stay an epoch apart.
    grains = (2 * edges[: whole + 1] * (total_steps // grain) + edges[whole]) // (2 * edges[whole])
    return cast(IntArray, grains * grain)


def rate_on_edges(step: npt.ArrayLike, edges: IntArray, *, min_lr: float, max_lr: float, lr_decay: float) -> FloatArray:
    """The learning rate at each step, for cycles that begin at `edges`; past the last edge it stays at `min_lr`."""
    at = np.asarray(step)
    cycle = np.clip(np.searchsorted(edges, at, side="right") - 1, 0, len(edges) - 2)
    done = np.minimum((at - edges[cycle]) / (edges[cycle + 1] - edges[cycle]), 1.0)
    peak = np.maximum(min_lr, max_lr * np.power(float(lr_decay), cycle))
    weight = 0.5 * (1 + np.cos(np.pi * done))
    # A weighted mean, not min + weight * (max - min): exact at both ends.
    return min_lr * (1 - weight) + peak * weight


def sgdr_lr(
    step: npt.ArrayLike,
    *,
    min_lr: float,
    max_lr: float,
    cycle_length: int = 10,
    mult_factor: float = 2.0,
    lr_decay: float = 1.0,
    steps_per_epoch: int,
    total_steps: int | None = None,
) -> float | FloatArray:
    """Learning rate of cosine annealing with warm restarts (SGDR) at a step.

    Inside a cycle, with `t` the fraction of it done, the rate is
    `min_lr + (max_lr - min_lr) * (1 + cos(pi * t)) / 2`. At a restart the cycle becomes
    `ceil(cycle_length * mult_factor)` epochs long and `max_lr` becomes `max_lr * lr_decay`, though never less than
    `min_lr`. The step of a restart is at the peak.

    Args:
        step: Optimizer steps done before this one, from 0; a number or an array of any shape.
        min_lr: Rate that each cycle falls to.
        max_lr: Rate at the start of the first cycle.
        cycle_length: Epochs in the first cycle. Defaults to 10, as in the method's source.
        mult_factor: What each restart multiplies the cycle's length by, at least 1. Defaults to 2.
        lr_decay: What each restart multiplies the peak by, in (0, 1]. Defaults to 1: every peak the same.
        steps_per_epoch: Optimizer steps in an epoch.
        total_steps: When given, cycles are stretched to end with this many steps, as the tuners do, and the rate
            stays at `min_lr` after them. By default they are exactly as many epochs long as said, without end.

    Returns:
        A float for one step, else an array of the shape of `step`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
    >>> sgdr_lr(0, min_lr=0.1, max_lr=1.0, cycle_length=2, steps_per_epoch=5)
    1.0
    >>> sgdr_lr([5, 9, 10], min_lr=0.1, max_lr=1.0, cycle_length=2, steps_per_epoch=5, lr_decay=0.5).round(3)
    array([0.55 , 0.122, 0.5  ])

    Reference:
        Loshchilov & Hutter, 2017, [SGDR: Stochastic Gradient Descent with Warm Restarts](https://arxiv.org/abs/1608.03983);
        the decaying peak is the addition of an article of May 2019, "Cyclical learning rates with Tensorflow
        Implementation".
    """
    check_schedule(
        min_lr=min_lr,
        max_lr=max_lr,
        cycle_length=cycle_length,
        mult_factor=mult_factor,
        lr_decay=lr_decay,
        steps_per_epoch=steps_per_epoch,
    )
    at = np.asarray(step)
    if at.size and not (np.all(np.isfinite(at)) and at.min() >= 0):
        raise invalid("step", "be zero or more", step)
    cycles = {"cycle_length": cycle_length, "mult_factor": mult_factor, "steps_per_epoch": steps_per_epoch}
    if total_steps is None:
        edges = cycle_edges(math.ceil(at.max()) if at.size else 0, **cycles)  # type: ignore[arg-type]
    elif _is_count(total_steps):
        edges = fitted_edges(int(total_steps), **cycles)  # type: ignore[arg-type]
    else:
        raise invalid("total_steps", "be a positive whole number or None", total_steps)
    rates = rate_on_edges(at, edges, min_lr=min_lr, max_lr=max_lr, lr_decay=lr_decay)
    return float(rates) if at.ndim == 0 else rates
