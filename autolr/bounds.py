"""Learning-rate bounds from a recorded range test, decided without a person looking at the curve.

A range test trains a fresh model while its learning rate rises exponentially. Its loss stays level, falls, and
rises again: a trough. The method autolr implements reads both bounds off the *falling* side (`min_lr` where half of
the fall is done, `max_lr` where 95 % of it is). Half of the fall is a good landmark, because all of the fall's points
locate it. The bottom is a bad one, because the loss at a rate depends on all the steps before it: a fast sweep
reaches its bottom when it is about to diverge, a slow one when the model has learned what there is. So `max_lr` is
placed from the two sides of the trough instead, and from the far side alone if the fall drowns in noise.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from autolr.array_types import FloatArray
from autolr.errors import check_numbers, invalid, is_finite
from autolr.trough import find_onset, find_trough, half_fall, smooth
from autolr.verdicts import ADVICE, DEFAULT_BOUNDS, MIN_POINTS, STATUSES, LRBounds

# Standard errors by which a fall or a rise stands out. Of curves of pure noise, three or four in a hundred pass.
_DOUBTFUL, _CERTAIN = 3.0, 4.5
# Standard errors: a fall of so many decides by 1 - 1/e, of four times as many by 98 %. 4 to 6 score alike.
_TRUSTED = 5.0
_BELOW_ONSET = 1.25  # decades that training diverges below the onset of the rise; 1.0 to 1.5 score alike
# Widest step from `max_lr` to the rise: where the rise is further off, a small early fall was taken for the whole.
# 150 to 250 score alike.
_WIDEST = 200.0
_HUGE = 1e100  # as good as infinite; its square is still a number
_MAX_POINTS = 500  # of longer sweeps, neighbours are averaged: the search for the trough is quadratic


def find_bounds(
    lrs: ArrayLike, losses: ArrayLike, *, min_level: float = 0.5, max_ratio: float = 4.0, margin: float = 3.0
) -> LRBounds:
    """Learning-rate bounds from any recorded range test, also one recorded by another tool.

    1. Losses higher above the starting level than the trough is deep count as that high: a loss of 10 and one of
       1e20 say the same.
    2. The trough is found by least squares: the two cuts that best divide the losses into three constants, high,
       low, high. This uses every point and needs no threshold, so early spikes don't end it (Lightning #1767,
       #21141).
    3. `min_lr` is the rate at which the smoothed loss has made half of its fall.
    4. From the fall, `max_lr` is `max_ratio` times that, or more where the fall is beyond doubt (4.5 standard errors of
       the noise) and the rise far off: the 200th part of the rate at which the loss rises, or of the last rate if it
       does not; but at most the `margin`-th part of it, or halfway (in log-rate) from the sweep's start to it if that
       is more.
    5. From the rise, `max_lr` is 1.25 decades below the rate at which the loss leaves its starting level (an 18th).
       The weaker the fall, the more this counts: in log-rate, a fall of `z` standard errors counts `1 - exp(-z / 5)`,
       this the rest.
    6. `min_lr` stays between half of `max_lr` and its `max_ratio`-th part, and at least halfway (in log-rate) from the
       sweep's start to it.

    The bounds don't change if the losses are scaled by a positive number or shifted (negative losses are fine),
    and scale with the rates. They hardly depend on how many points of a sweep are given.

    Args:
        lrs: Learning rates, positive and strictly increasing, shape `(num_steps,)`. Best spaced evenly in log-rate.
        losses: The loss of each step's own batch, shape `(num_steps,)`. Not the epoch's running mean, which lags.
            Infinite losses (beyond 1e100), and NaN after the last finite loss, mean divergence; other NaN are left out.
            What is masked counts as NaN.
        min_level: Share of the fall still to go at `min_lr`. Defaults to 0.5.
        max_ratio: Factor from the rate of half the fall to `max_lr`, and the largest `max_lr / min_lr`, which is never
            less than 2. Defaults to 4; values from 3 to 5 score alike. A sweep sees a rate for a few steps, a cycle for
            hundreds: far above the rate that halves the fall, training is noisy or overfits before the sweep can show
            it.
        margin: Smallest factor between `max_lr` and the rate at which the loss rises, except near the sweep's start.
            Defaults to 3. Diverging takes steps too, so training diverges below the rate at which a sweep does.

    Returns:
        An `LRBounds`. A curve that can't be judged gives a status other than `"ok"` and a fallback, inside the sweep
        if it has two points or more, never an error.

    Raises:
        ValueError: If `lrs` or `losses` are malformed, or a parameter is out of its range.

    Example:
    >>> lrs = np.geomspace(1e-6, 10, 100)
    >>> losses = np.where(lrs < 1e-3, 2.3, np.where(lrs < 1, 0.5, 9.0))
    >>> find_bounds(lrs, losses).status
    'ok'

    Reference: [Smith, 2015](https://arxiv.org/abs/1506.01186), section 3.3.
    """
    if not (is_finite(min_level) and 0 < min_level < 1):
        raise invalid("min_level", "be between 0 and 1, exclusive", min_level, "The default is 0.5.")
    for name, value, default in (("max_ratio", max_ratio, 4), ("margin", margin, 3)):
        if not (is_finite(value) and value > 1):
            raise invalid(name, "be a finite number above 1", value, f"The default is {default}.")
    rates, x, y = _prepare(lrs, losses)
    logs = np.log10(rates)  # not of single rates: in an array, the last digit may be another
    ratio = math.log10(max_ratio)

    def answer(status: str, high: float, low: float | None = None, confidence: str = "low") -> LRBounds:
        reason = f"{STATUSES[status]} {ADVICE[status]}"
        if len(rates) < 2:
            return LRBounds(*DEFAULT_BOUNDS, status, reason, confidence)
        high = min(high, logs[-1])
        low = high - ratio if low is None else min(max(low, high - ratio), high - math.log10(2))
        low = max(low, (logs[0] + high) / 2)
        # Rounding in 10**log10(rate) must not leave the sweep.
        bounds = np.clip([10**low, 10**high], rates[0], rates[-1])
        if not bounds[0] < bounds[1]:
            bounds = rates[:2]
        return LRBounds(float(bounds[0]), float(bounds[1]), status, reason, confidence)

    def below(rate: float, decades: float) -> float:
        """`decades` below a rate, but at least halfway from the sweep's start to it."""
        return float(max(rate - decades, (x[0] + rate) / 2))

    finite = np.isfinite(y)
    if np.count_nonzero(finite) < MIN_POINTS:
        bad = ~(np.abs(check_numbers("losses", losses)) <= _HUGE)
        if bad.any():
            first = logs[np.argmax(bad)]
            return answer("non_finite", max(first - 1, (logs[0] + first) / 2))
        return answer("too_few_points", (logs[0] + logs[-1]) / 2 if len(logs) else 0.0)
    if np.ptp(y) <= 1e-9 * np.max(np.abs(y[finite])):
        return answer("flat", (x[0] + x[-1]) / 2)

    trough = find_trough(x, y)
    onset, jump = find_onset(x, y)
    rose = jump >= _CERTAIN
    fell = trough is not None and trough.fall >= _DOUBTFUL and max(trough.fall, trough.rise) >= _CERTAIN
    if not (fell or rose):
        return answer("too_noisy", below(x[-1], _BELOW_ONSET))
    low, high = None, below(onset, _BELOW_ONSET)
    if trough is not None:
        low = half_fall(x, trough, min_level)
        edge = x[trough.right if trough.rise >= _DOUBTFUL else -1]
        wanted = low + ratio
        if trough.fall >= _CERTAIN:
            wanted = max(wanted, edge - math.log10(_WIDEST))
        # The weaker the fall, the more the rise alone decides.
        trust = 1 - math.exp(-max(trough.fall, 0.0) / _TRUSTED) if rose else 1.0
        high += trust * (min(wanted, below(edge, math.log10(margin))) - high)
    if trough is None or not fell:
        return answer("never_fell" if onset - _BELOW_ONSET >= x[0] else "diverged_at_once", high)
    status = "ok" if trough.rise >= _DOUBTFUL else "never_diverged"
    return answer(status, high, low, "high" if min(trough.fall, trough.rise) >= _CERTAIN else "medium")


def smooth_losses(lrs: ArrayLike, losses: ArrayLike) -> FloatArray:
    """The smoothed curve `find_bounds` reads `min_lr` from, for plots.

    Each point is a straight line fitted to the losses around it, weighted by a Gaussian of 0.15 decades in log-rate,
    or more where points are further apart: no lag, and no bend at the ends (a zero-padded box bends both towards zero).
    Losses are cut off as in `find_bounds`.

    Args:
        lrs: Learning rates, as for `find_bounds`.
        losses: Losses, as for `find_bounds`.

    Returns:
        Array of shape `(num_steps,)`; NaN where the loss is not finite.
    """
    rates, x, y = _prepare(lrs, losses)
    raw = check_numbers("losses", losses)
    finite = np.isfinite(raw)
    if np.count_nonzero(np.abs(raw) <= _HUGE) < MIN_POINTS:
        return np.where(finite, raw, np.nan)
    trough = find_trough(x, y)
    curve = y if trough is None else trough.losses
    keep = np.isfinite(curve)
    at = np.log10(rates[finite])
    smoothed = np.full(len(raw), np.nan)
    if len(rates) > _MAX_POINTS:  # the fit takes as many straight lines as there are points
        smoothed[finite] = np.interp(at, x[keep], smooth(x[keep], curve[keep], x[keep]))
    else:
        smoothed[finite] = smooth(x[keep], curve[keep], at)
    return smoothed


def _prepare(lrs: ArrayLike, losses: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Check the arguments; the rates, and log-rates and losses to judge (`inf` where training diverged)."""
    rates, raw = check_numbers("lrs", lrs), check_numbers("losses", losses)
    for name, array in (("lrs", rates), ("losses", raw)):
        if array.ndim != 1:
            raise ValueError(
                f"Argument `{name}` must be one-dimensional, one value per step. Received: shape {array.shape}. "
                "Of several sweeps, give one at a time."
            )
    if len(rates) != len(raw):
        raise ValueError(
            "Argument `losses` must have as many values as `lrs`. "
            f"Received: {len(rates)} rates, {len(raw)} losses. Record both at the same step."
        )
    wrong = ~(np.isfinite(rates) & (rates > 0) & (np.diff(rates, prepend=-np.inf) > 0))
    if wrong.any():
        at = int(np.argmax(wrong))
        after = f" after {rates[at - 1]:g}" if at else ""
        hint = "Of logarithms, give `10**lrs`." if np.any(rates < 0) else "Give one sweep's rates, in order, each once."
        raise ValueError(
            "Argument `lrs` must be finite, positive and strictly increasing. "
            f"Received: {len(rates)} rates, of which number {at + 1} is {rates[at]:g}{after}. {hint}"
        )
    y = np.where(raw > _HUGE, np.inf, np.where(raw >= -_HUGE, raw, np.nan))
    if np.isfinite(y).any():
        # Once a weight is NaN every later loss is: a NaN before a finite loss is not divergence but a bad batch.
        last = np.flatnonzero(np.isfinite(y))[-1] + 1
        y[last:] = np.inf
    keep = ~np.isnan(y)
    x, y = np.log10(rates[keep]), y[keep]
    if len(x) > _MAX_POINTS:
        starts = np.unique(np.linspace(0, len(x), _MAX_POINTS, endpoint=False).astype(int))
        sizes = np.diff(np.append(starts, len(x)))
        x, y = np.add.reduceat(x, starts) / sizes, np.add.reduceat(y, starts) / sizes
    return rates, x, y
