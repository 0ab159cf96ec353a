"""Cyclical learning rates: one definition of the rate at a step, behind every face of the schedule.

The Keras callback and schedule, the tuners and the plots all ask this file. With the default shape, a cosine, the step
on which a cycle begins is at the peak rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from autolr.array_types import FloatArray, IntArray
from autolr.cycles import cycle_edges, fitted_edges, place
from autolr.errors import MAX_EXACT_INT, check_count, check_optional_count, invalid, is_count, is_finite

BOUNDS = "`autolr.range_test` finds both bounds: `min_lr, max_lr = test.bounds()`."
STEPS_PER_EPOCH = "For arrays it is `math.ceil(len(x) / batch_size)`."
SHAPES = ("cosine", "triangular", "triangular2", "one_cycle")
ONE_CYCLE_END = 0.9  # a one-cycle is back at `min_lr` here, and uses what remains to go on down ...
ONE_CYCLE_FLOOR = 0.01  # ... to this share of `min_lr`: Smith's "several orders of magnitude less"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A cyclical learning rate: its arguments, checked, and all that follows from them.

    It does not know how long training is: `edges` lays its cycles out over a number of steps, and `rates` evaluates
    them. The other methods are its building blocks, which the training graph can use with `xp=keras.ops`.

    Attributes:
        min_lr: Rate that each cycle falls to.
        max_lr: Highest rate of the first cycle.
        cycle_length: Epochs in the first cycle.
        mult_factor: Growth of the cycles, as in `cycle_edges`.
        lr_decay: What each restart multiplies the peak by.
        shape: Of a cycle, one of `SHAPES`; after a `"one_cycle"` there is no other.
        warmup: Epochs in front of the first cycle; or, with `fit_budget`, a share of the steps below 1, which the first
            cycle begins with, though not more than half of it. So restarts stay where they would be without.
        fit_budget: Whether the cycles are stretched to end with a training, whose end is known then.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
    >>> schedule = Schedule(min_lr=0.1, max_lr=1.0, cycle_length=2, lr_decay=0.5)
    >>> edges = schedule.edges(30, steps_per_epoch=5)
    >>> edges
    array([ 0, 10, 30, 70])
    >>> schedule.rates([0, 10, 29, 30], edges).round(3)
    array([1.   , 0.5  , 0.102, 0.25 ])
    """

    min_lr: float
    max_lr: float
    cycle_length: int = 10
    mult_factor: float = 2.0
    lr_decay: float = 1.0
    shape: str = "cosine"
    warmup: float = 0
    fit_budget: bool = False

    def __post_init__(self) -> None:
        if not (is_finite(self.min_lr) and self.min_lr >= 0):
            raise invalid("min_lr", "be a finite number, zero or more", self.min_lr, BOUNDS)
        if not (is_finite(self.max_lr) and self.max_lr > 0):
            raise invalid("max_lr", "be a finite, positive number", self.max_lr, BOUNDS)
        if self.min_lr > self.max_lr:
            raise ValueError(
                "Argument `min_lr` must not be larger than `max_lr`. "
                f"Received: min_lr={self.min_lr!r}, max_lr={self.max_lr!r}. Are the two swapped?"
            )
        cycle_length = check_count("cycle_length", self.cycle_length, "epochs", hint="The default is 10.")
        if not (is_finite(self.mult_factor) and self.mult_factor >= 1):
            hint = "1 keeps all cycles equally long."
            raise invalid("mult_factor", "be a finite number, 1 or more", self.mult_factor, hint)
        if not (is_finite(self.lr_decay) and 0 < self.lr_decay <= 1):
            raise invalid("lr_decay", "be in (0, 1]", self.lr_decay, "1 keeps every peak at `max_lr`.")
        if not (isinstance(self.shape, str) and self.shape in SHAPES):
            raise invalid("shape", f"be one of {', '.join(map(repr, SHAPES))}", self.shape, "SGDR is 'cosine'.")
        warmup = self.warmup
        if not (is_finite(warmup) and (warmup == 0 or 0 < warmup < 1 or is_count(warmup))):
            hint = "Say 1 for an epoch, or 0.1 for a tenth of a training whose end is known."
            raise invalid(
                "warmup", "be a whole number of epochs, zero or more, or a share of the training", warmup, hint
            )
        if 0 < warmup < 1 and not self.fit_budget:
            hint = "The end is known with `total_steps`, or `fit_budget=True` for a callback."
            raise invalid("warmup", "be a whole number of epochs where the training's end is unknown", warmup, hint)
        if self.fit_budget not in (True, False):
            raise invalid(
                "fit_budget", "be True or False", self.fit_budget, "True ends the last cycle with the training."
            )
        # Python's own numbers: NumPy's would not go into a model's configuration.
        for name in ("min_lr", "max_lr", "mult_factor", "lr_decay"):
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "cycle_length", cycle_length)
        object.__setattr__(self, "fit_budget", bool(self.fit_budget))
        object.__setattr__(self, "warmup", float(warmup) if 0 < warmup < 1 else int(warmup))

    @property
    def warms_up_inside(self) -> bool:
        """Whether warm-up is part of the first cycle, not in front of it."""
        return 0 < self.warmup < 1

    def edges(self, steps: int, steps_per_epoch: int) -> IntArray:
        """The edges of a whole schedule: warm-up until the first of them, then cycles.

        Args:
            steps: How far the edges must reach; with `fit_budget`, where the last cycle ends.
            steps_per_epoch: Optimizer steps in an epoch.

        Returns:
            Integers, shape `(num_cycles + 1,)`; the first is where warm-up ends, 0 without one.

        Raises:
            ValueError: If the warm-up takes the whole budget, or an epoch has no steps.
        """
        per_epoch = check_count("steps_per_epoch", steps_per_epoch, hint=STEPS_PER_EPOCH)
        ramp = 0 if self.warms_up_inside else int(self.warmup * per_epoch)
        if self.fit_budget and ramp and ramp >= steps:
            length = f"{steps / per_epoch:g} epochs"
            raise invalid("warmup", f"be shorter than the training, {length}", self.warmup, "A tenth of it is plenty.")
        if self.shape == "one_cycle":
            edges = np.array(
                [0, steps - ramp if self.fit_budget else min(self.cycle_length * per_epoch, MAX_EXACT_INT)],
                dtype=np.int64,
            )
        else:
            edges = (fitted_edges if self.fit_budget else cycle_edges)(
                max(steps - ramp, 0),
                cycle_length=self.cycle_length,
                mult_factor=self.mult_factor,
                steps_per_epoch=per_epoch,
            )
        edges = edges + ramp
        if self.warms_up_inside:
            edges[0] = min(round(self.warmup * steps), edges[1] // 2)
        return edges

    def rates(self, step: npt.ArrayLike, edges: IntArray) -> FloatArray:
        """The learning rate at each step, for cycles that begin at `edges`.

        Before the first edge the rate warms up. Past the last edge it stays where the last cycle ended.
        """
        cycle, done = place(step, edges)
        return cast(FloatArray, self.warmed(self.in_cycle(done, self.peak(cycle)), np.asarray(step), edges[0]))

    def height(self, done: Any, xp: Any = np) -> Any:
        """How high the rate stands in its cycle, from 0 (`min_lr`) to 1 (the peak), once a fraction of it is done.

        Args:
            done: Fraction of the cycle, from 0 to 1, an array or a tensor.
            xp: Where the operations come from.
        """
        if self.shape == "cosine":
            return 0.5 * (1 + xp.cos(np.pi * done))
        if self.shape == "one_cycle":
            done = xp.minimum(done / ONE_CYCLE_END, 1.0)
        return 1 - xp.abs(2 * done - 1)

    def peak(self, cycle: Any, xp: Any = np) -> Any:
        """The highest rate of a cycle.

        Args:
            cycle: Which cycle it is, from 0, an array or a floating tensor.
            xp: Where the operations come from.
        """
        peak = xp.maximum(self.min_lr, self.max_lr * xp.power(self.lr_decay, cycle))
        if self.shape == "triangular2":  # each cycle's range is half of the one before
            peak = self.min_lr + (peak - self.min_lr) * xp.power(0.5, cycle)
        return peak

    def in_cycle(self, done: Any, peak: Any, xp: Any = np) -> Any:
        """The learning rate once a fraction of a cycle is done.

        Args:
            done: Fraction of the cycle, from 0 to 1, an array or a tensor.
            peak: Highest rate of the cycle, of the same shape or a number.
            xp: Where the operations come from.
        """
        low: Any = self.min_lr
        if self.shape == "one_cycle":
            left = xp.minimum((1 - done) / (1 - ONE_CYCLE_END), 1.0)
            low = self.min_lr * (ONE_CYCLE_FLOOR + (1 - ONE_CYCLE_FLOOR) * left)
        weight = self.height(done, xp)
        # A weighted mean, not min + weight * (max - min): exact at both ends.
        return low * (1 - weight) + peak * weight

    def warmed(self, rate: Any, step: Any, first: int, xp: Any = np) -> Any:
        """The rate at a step: up to the first edge it rises in equal parts, from the first step on.

        It rises from zero in front of the cycles, but inside the first one not from below the bounds.

        Args:
            rate: What it is from the first edge on, and at it.
            step: An array or a floating tensor.
            first: The first edge.
            xp: Where the operations come from.
        """
        start = self.min_lr if self.warms_up_inside else 0.0
        risen = xp.minimum((step + 1.0) / (first + 1.0), 1.0)
        # A weighted mean: exact at both ends.
        return start * (1 - risen) + rate * risen


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
        max_lr: Highest rate of the first cycle.
        cycle_length: Epochs in the first cycle. Defaults to 10, as in the method's source.
        mult_factor: What each restart multiplies the cycle's length by, at least 1. Defaults to 2.
        lr_decay: What each restart multiplies the peak by, in (0, 1]. Defaults to 1: every peak the same.
        steps_per_epoch: Optimizer steps in an epoch.
        total_steps: When given, cycles are stretched to end with this many steps, as the tuners do, and the rate stays
            where the last one ended: at `min_lr`, or a hundredth of it for a one-cycle. By default they are exactly as
            many epochs long as said, without end.
        shape: Of a cycle. `"cosine"`, the default, begins at the peak. `"triangular"` begins at `min_lr`, rises in a
            straight line until the middle and falls again; `"triangular2"` also halves the distance from `min_lr` to
            the peak in each cycle (Smith 2015). `"one_cycle"` is a single triangle over nine tenths of one cycle,
            and falls to a hundredth of `min_lr` in the last tenth, where it stays (Smith 2018); then `mult_factor` and
            `lr_decay` have nothing to act on.
        warmup: Epochs, a whole number, in front of the first cycle, in which the rate rises in a straight line from
            near zero to that of the cycle's first step. With `total_steps` it may also be a share of them, below 1:
            then the first cycle begins with it (at most half of that cycle), the rate rises from `min_lr`, and
            restarts stay where they are; a triangle, which begins at `min_lr`, only begins later. Defaults to 0.

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
    schedule = Schedule(
        min_lr=min_lr,
        max_lr=max_lr,
        cycle_length=cycle_length,
        mult_factor=mult_factor,
        lr_decay=lr_decay,
        shape=shape,
        warmup=warmup,
        fit_budget=total_steps is not None,
    )
    at = np.asarray(step)
    if at.size and at.dtype.kind in "USOcMm":
        raise invalid("step", "be a number or an array of numbers", step, "Steps are counted from 0.")
    at = at if at.dtype.kind in "iuf" else at.astype(np.float64)  # truth values, and kinds NumPy does not know
    if at.size and not (np.all(np.isfinite(at)) and at.min() >= 0 and at.max() <= MAX_EXACT_INT):
        raise invalid("step", f"be zero or more, and no more than {MAX_EXACT_INT}", step, "Steps are counted from 0.")
    furthest = math.ceil(at.max()) if at.size else 0
    hint = "Steps of the whole training; None for cycles without end."
    end = check_optional_count("total_steps", total_steps, hint=hint) or furthest
    edges = schedule.edges(end, steps_per_epoch)
    rates = schedule.rates(at, edges)
    return float(rates) if at.ndim == 0 else rates
