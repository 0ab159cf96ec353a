"""Cycles of the learning rate as integer arithmetic on steps: where they begin, and the rate at a step.

Everything else that knows a schedule (the Keras callback and schedule, the tuners, the plots) asks this file. A cycle
is half-open: the step on which the next one begins belongs to the next one. With the default shape, a cosine, the step
on which a cycle begins is at the peak rate.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from autolr.errors import invalid, is_finite

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_FAR = 2**62  # no training gets there, and 64 bits hold it
SHAPES = ("cosine", "triangular", "triangular2", "one_cycle")
ONE_CYCLE_END = 0.9  # a one-cycle is back at `min_lr` here, and uses what remains to go on down ...
ONE_CYCLE_FLOOR = 0.01  # ... to this share of `min_lr`: Smith's "several orders of magnitude less"


def check_schedule(
    *,
    min_lr: float,
    max_lr: float,
    cycle_length: int,
    mult_factor: float,
    lr_decay: float,
    steps_per_epoch: int = 1,
    shape: str = "cosine",
    warmup: float = 0,
    has_end: bool = False,
) -> None:
    """Raise `ValueError` unless the arguments describe a schedule, whose end is known or not."""
    if not (is_finite(min_lr) and min_lr >= 0):
        raise invalid("min_lr", "be a finite number, zero or more", min_lr)
    if not (is_finite(max_lr) and max_lr > 0):
        raise invalid("max_lr", "be a finite, positive number", max_lr)
    if min_lr > max_lr:
        raise ValueError(
            "Argument `min_lr` must not be larger than `max_lr`. "
            f"Received: min_lr={min_lr!r}, max_lr={max_lr!r}. Are the two swapped?"
        )
    check_cycles(cycle_length, mult_factor, steps_per_epoch)
    if not (is_finite(lr_decay) and 0 < lr_decay <= 1):
        raise invalid("lr_decay", "be in (0, 1]", lr_decay, "1 keeps every peak at `max_lr`.")
    if shape not in SHAPES:
        raise invalid("shape", f"be one of {', '.join(map(repr, SHAPES))}", shape)
    if not (is_finite(warmup) and (warmup == 0 or 0 < warmup < 1 or _is_count(warmup))):
        raise invalid("warmup", "be a whole number of epochs, zero or more, or a share of the training", warmup)
    if 0 < warmup < 1 and not has_end:
        hint = "The end is known with `total_steps`, or `fit_budget=True` for a callback."
        raise invalid("warmup", "be a whole number of epochs where the training's end is unknown", warmup, hint)


def check_cycles(cycle_length: int, mult_factor: float, steps_per_epoch: int) -> None:
    """Raise `ValueError` unless the arguments describe cycles."""
    if not _is_count(cycle_length):
        raise invalid("cycle_length", "be a positive whole number of epochs", cycle_length)
    if not (is_finite(mult_factor) and mult_factor >= 1):
        raise invalid("mult_factor", "be a finite number, 1 or more", mult_factor, "1 keeps all cycles equally long.")
    if not _is_count(steps_per_epoch):
        raise invalid("steps_per_epoch", "be a positive whole number", steps_per_epoch)


def check_total_steps(total_steps: int | None) -> None:
    """Raise `ValueError` unless it is a budget, or none."""
    if total_steps is not None and not _is_count(total_steps):
        raise invalid("total_steps", "be a positive whole number or None", total_steps)


def _is_count(value: Any) -> bool:
    return not isinstance(value, bool) and is_finite(value) and value >= 1 and value == int(value)


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
        edges.append(min(edges[-1] + length * int(steps_per_epoch), _FAR))
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
    if int(cycle_length) * int(steps_per_epoch) >= total_steps:
        return np.array([0, total_steps], dtype=np.int64)
    edges = cycle_edges(
        total_steps, cycle_length=cycle_length, mult_factor=mult_factor, steps_per_epoch=steps_per_epoch
    )
    whole = max(1, int(np.searchsorted(edges, total_steps, side="right")) - 1)
    grain = int(steps_per_epoch) if total_steps % steps_per_epoch == 0 else 1
    # Integer arithmetic, rounding half up: exact for any number of steps. Stretched cycles stay an epoch apart.
    grains = (2 * edges[: whole + 1] * (total_steps // grain) + edges[whole]) // (2 * edges[whole])
    return cast(IntArray, grains * grain)


def lay_out(
    steps: int,
    *,
    fit_budget: bool,
    cycle_length: int,
    mult_factor: float,
    steps_per_epoch: int,
    shape: str = "cosine",
    warmup: float = 0,
) -> IntArray:
    """The edges of a whole schedule: warm-up until the first of them, then cycles.

    Args:
        steps: How far the edges must reach; with `fit_budget`, where the last cycle ends.
        fit_budget: Whether to stretch the cycles, as `fitted_edges` does.
        cycle_length: Epochs in the first cycle.
        mult_factor: Growth of the cycles, as in `cycle_edges`.
        steps_per_epoch: Optimizer steps in an epoch.
        shape: Of a cycle; after a `"one_cycle"` there is no other.
        warmup: Epochs in front of the first cycle; or, with `fit_budget`, a share of the steps below 1, which the first
            cycle begins with, though not more than half of it. So restarts stay where they would be without.

    Returns:
        Integers, shape `(num_cycles + 1,)`; the first is where warm-up ends, 0 without one.

    Raises:
        ValueError: If the warm-up takes the whole budget.
    """
    share = warmup if warmup < 1 else 0.0
    ramp = 0 if share else int(warmup) * int(steps_per_epoch)
    if fit_budget and ramp >= steps:
        raise invalid("warmup", f"be shorter than the training, {steps / steps_per_epoch:g} epochs", warmup)
    if shape == "one_cycle":
        edges = np.array([0, steps - ramp if fit_budget else cycle_length * steps_per_epoch], dtype=np.int64)
    else:
        edges = (fitted_edges if fit_budget else cycle_edges)(
            max(steps - ramp, 0), cycle_length=cycle_length, mult_factor=mult_factor, steps_per_epoch=steps_per_epoch
        )
    edges = edges + ramp
    if share:
        edges[0] = min(round(share * steps), edges[1] // 2)
    return edges


def height(done: Any, shape: str, xp: Any = np) -> Any:
    """How high the rate stands in its cycle, from 0 (`min_lr`) to 1 (the peak), once a fraction of it is done.

    Args:
        done: Fraction of the cycle, from 0 to 1, an array or a tensor.
        shape: One of `SHAPES`.
        xp: Where the operations come from: `numpy`, or `keras.ops` inside a training graph.
    """
    if shape == "cosine":
        return 0.5 * (1 + xp.cos(np.pi * done))
    if shape == "one_cycle":
        done = xp.minimum(done / ONE_CYCLE_END, 1.0)
    return 1 - xp.abs(2 * done - 1)


def peak_in_cycle(
    cycle: Any, *, min_lr: float, max_lr: float, lr_decay: float, shape: str = "cosine", xp: Any = np
) -> Any:
    """The highest rate of a cycle.

    Args:
        cycle: Which cycle it is, from 0, an array or a floating tensor.
        min_lr: Rate that each cycle falls to.
        max_lr: Peak of the first cycle.
        lr_decay: What each restart multiplies the peak by.
        shape: One of `SHAPES`.
        xp: Where the operations come from: `numpy`, or `keras.ops` inside a training graph.
    """
    peak = xp.maximum(min_lr, max_lr * xp.power(float(lr_decay), cycle))
    if shape == "triangular2":  # each cycle's range is half of the one before
        peak = min_lr + (peak - min_lr) * xp.power(0.5, cycle)
    return peak


def rate_in_cycle(done: Any, peak: Any, *, min_lr: float, shape: str = "cosine", xp: Any = np) -> Any:
    """The learning rate once a fraction of a cycle is done; the one definition behind every face of the schedule.

    Args:
        done: Fraction of the cycle, from 0 to 1, an array or a tensor.
        peak: Highest rate of the cycle, of the same shape or a number.
        min_lr: Rate that each cycle falls to.
        shape: One of `SHAPES`.
        xp: Where the operations come from: `numpy`, or `keras.ops` inside a training graph.
    """
    low = min_lr
    if shape == "one_cycle":
        left = xp.minimum((1 - done) / (1 - ONE_CYCLE_END), 1.0)
        low = min_lr * (ONE_CYCLE_FLOOR + (1 - ONE_CYCLE_FLOOR) * left)
    weight = height(done, shape, xp)
    # A weighted mean, not min + weight * (max - min): exact at both ends.
    return low * (1 - weight) + peak * weight


def place(step: npt.ArrayLike, edges: IntArray) -> tuple[Any, Any]:
    """Which cycle each step is in, and what fraction of it is done; before the first edge and past the last, at it."""
    at = np.asarray(step)
    cycle = np.clip(np.searchsorted(edges, at, side="right") - 1, 0, len(edges) - 2)
    done = (at - edges[cycle]) / (edges[cycle + 1] - edges[cycle])
    return cycle, np.clip(done, 0.0, 1.0)


def warmup_start(warmup: float, min_lr: float) -> float:
    """What the rate rises from: zero in front of the cycles, but inside the first one not below the bounds."""
    return min_lr if 0 < warmup < 1 else 0.0


def warmed(rate: Any, step: Any, first: int, *, start: float, xp: Any = np) -> Any:
    """The rate at a step: up to the first edge it rises in equal parts, from the first step on.

    Args:
        rate: What it is from the first edge on, and at it.
        step: An array or a floating tensor.
        first: The first edge.
        start: What it rises from; see `warmup_start`.
        xp: Where the operations come from: `numpy`, or `keras.ops` inside a training graph.
    """
    risen = xp.minimum((step + 1.0) / (first + 1.0), 1.0)
    # A weighted mean: exact at both ends.
    return start * (1 - risen) + rate * risen


def rate_on_edges(
    step: npt.ArrayLike,
    edges: IntArray,
    *,
    min_lr: float,
    max_lr: float,
    lr_decay: float,
    shape: str = "cosine",
    start: float = 0.0,
) -> FloatArray:
    """The learning rate at each step, for cycles that begin at `edges`.

    Before the first edge the rate warms up from `start`. Past the last edge it stays where the last cycle ended.
    """
    cycle, done = place(step, edges)
    peak = peak_in_cycle(cycle, min_lr=min_lr, max_lr=max_lr, lr_decay=lr_decay, shape=shape)
    rates = rate_in_cycle(done, peak, min_lr=min_lr, shape=shape)
    return cast(FloatArray, warmed(rates, np.asarray(step), edges[0], start=start))


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
    shape: str = "cosine",
    warmup: float = 0,
) -> float | FloatArray:
    """Learning rate of cosine annealing with warm restarts (SGDR), or of another cyclical schedule, at a step.

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
        shape: Of a cycle. `"cosine"`, the default, begins at the peak. `"triangular"` begins at `min_lr`, rises in a
            straight line until the middle and falls again; `"triangular2"` also halves the distance from `min_lr` to
            the peak in each cycle (Smith 2015). `"one_cycle"` is a single triangle over nine tenths of one cycle,
            and falls to a hundredth of `min_lr` in the last tenth, where it stays (Smith 2018); then `mult_factor` and
            `lr_decay` have nothing to act on.
        warmup: Epochs, a whole number, in front of the first cycle, in which the rate rises in a straight line from
            near zero to that of the cycle's first step. With `total_steps` it may also be a share of them, below 1:
            then the first cycle begins with it (at most half of that cycle), the rate rises from `min_lr`, and
            restarts stay where they are. Defaults to 0.

    Returns:
        A float for one step, else an array of the shape of `step`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
    >>> sgdr_lr(0, min_lr=0.1, max_lr=1.0, cycle_length=2, steps_per_epoch=5)
    1.0
    >>> sgdr_lr([5, 9, 10], min_lr=0.1, max_lr=1.0, cycle_length=2, steps_per_epoch=5, lr_decay=0.5).round(3)
    array([0.55 , 0.122, 0.5  ])
    >>> sgdr_lr([0, 1, 2, 3, 4], min_lr=0.0, max_lr=1.0, cycle_length=4, steps_per_epoch=1, shape="triangular")
    array([0. , 0.5, 1. , 0.5, 0. ])

    Reference:
        Loshchilov & Hutter, 2017, [SGDR: Stochastic Gradient Descent with Warm Restarts](https://arxiv.org/abs/1608.03983);
        the decaying peak is the addition of an article of May 2019, "Cyclical learning rates with Tensorflow
        Implementation". Triangles: Smith, 2015, [Cyclical Learning Rates](https://arxiv.org/abs/1506.01186). One cycle:
        Smith, 2018, [A disciplined approach to neural network hyper-parameters](https://arxiv.org/abs/1803.09820).
    """
    check_schedule(
        min_lr=min_lr,
        max_lr=max_lr,
        cycle_length=cycle_length,
        mult_factor=mult_factor,
        lr_decay=lr_decay,
        steps_per_epoch=steps_per_epoch,
        shape=shape,
        warmup=warmup,
        has_end=total_steps is not None,
    )
    check_total_steps(total_steps)
    at = np.asarray(step)
    if at.size and not (np.all(np.isfinite(at)) and at.min() >= 0):
        raise invalid("step", "be zero or more", step)
    edges = lay_out(
        (math.ceil(at.max()) if at.size else 0) if total_steps is None else int(total_steps),
        fit_budget=total_steps is not None,
        cycle_length=cycle_length,
        mult_factor=mult_factor,
        steps_per_epoch=steps_per_epoch,
        shape=shape,
        warmup=warmup,
    )
    rates = rate_on_edges(
        at,
        edges,
        min_lr=min_lr,
        max_lr=max_lr,
        lr_decay=lr_decay,
        shape=shape,
        start=warmup_start(warmup, min_lr),
    )
    return float(rates) if at.ndim == 0 else rates
