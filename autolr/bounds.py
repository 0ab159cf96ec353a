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
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression

from autolr.errors import invalid

Floats = NDArray[np.float64]

STATUSES: Mapping[str, str] = {
    "ok": "The loss fell and rose again, and both stand out from its noise.",
    "never_fell": "The loss rose at high rates but did not fall before.",
    "small_fall": "At no rate did the loss fall by more than its own noise.",
    "flat": "The loss did not change at all.",
    "never_diverged": "The loss fell and had not risen again when the sweep ended.",
    "diverged_at_once": "The loss rose near the start of the sweep, without a fall before.",
    "too_few_points": "There are too few finite losses to judge.",
    "non_finite": "Fewer than 10 losses are finite, and others are not.",
    "too_noisy": "Neither a fall nor a rise of the loss stands out from its noise.",
}

ADVICE = {
    "ok": "Use the bounds.",
    "never_fell": "max_lr is about a twentieth of the rate at which the loss leaves its level. Sweep more "
    "slowly (more steps over the last two decades before that rate), or use a larger batch. A model that is "
    "already trained looks like this, too: it has little left to fall.",
    "small_fall": "The bounds are those of the rate that did best in short trainings, or of the lowest tried if none "
    "helped. A model that is already trained looks like this; so do very noisy labels, where a larger batch helps.",
    "flat": "The bounds are the middle of the sweep. Check that the model has trainable weights and that the "
    "losses are per batch, and raise `end_lr`.",
    "never_diverged": "The bounds are safe but may be low. Raise `end_lr`.",
    "diverged_at_once": "The bounds are at the sweep's low end and may still be too high. Lower `start_lr`.",
    "too_few_points": "The bounds are a guess, not a finding. Record at least {points} steps.",
    "non_finite": "The bounds stay below the first non-finite loss. Lower `start_lr`, and check the data and the "
    "loss for NaN.",
    "too_noisy": "The bounds are a guess: max_lr is a twentieth of the sweep's last rate. Sweep more slowly or use "
    "a larger batch.",
}

# What to fall back on without a sweep: Adam's usual rate and a quarter of it.
DEFAULT_BOUNDS = (2.5e-4, 1e-3)

# In decades: what the smoothing blurs, and so the narrowest trough there is. 0.1 to 0.3 give nearly the same bounds.
_WIDTH = 0.15
# Standard errors by which a fall or a rise stands out. Of curves of pure noise, about one in a hundred passes.
_DOUBTFUL, _CERTAIN = 3.0, 4.5
# Standard errors of a fall that counts for nothing, and of one that decides alone.
_WEAK, _STRONG = 1.0, 7.0
_BELOW_ONSET = 1.25  # decades that training diverges below the onset of the rise; 1.0 to 1.5 score alike
_HUGE = 1e100  # as good as infinite; its square is still a number
_MIN_POINTS = 10
_MAX_POINTS = 500  # of longer sweeps, neighbours are averaged: the search for the trough is quadratic


@dataclass(frozen=True, slots=True)
class LRBounds:
    """The learning rates a range test suggests, and how far to trust them.

    Unpacks as two numbers: `min_lr, max_lr = find_bounds(lrs, losses)`. Both are always finite, positive and
    `min_lr < max_lr`, whatever the status.

    Attributes:
        min_lr: Lower bound.
        max_lr: Upper bound: where a cosine cycle starts.
        status: A key of `STATUSES`. `"ok"` means that the bounds were read off the curve; with any other status
            they are the fallback that `reason` names. `"small_fall"` takes a range test with bursts.
        reason: In words, what the curve looks like and what to do.
        confidence: `"high"`: the fall and the rise both stand out from the noise by at least 4.5 standard errors.
            `"medium"`: one of them by 3 to 4.5 only, or there is no rise. `"low"`: there is no usable trough
            and the bounds are a fallback. After bursts: `"high"` if the longer ones found the same rate best as the
            brief ones did, `"medium"` otherwise, `"low"` if the loss hardly fell.
    """

    min_lr: float
    max_lr: float
    status: str
    reason: str
    confidence: str

    def __iter__(self) -> Iterator[float]:
        yield self.min_lr
        yield self.max_lr

    @property
    def ok(self) -> bool:
        """Whether the bounds were read off the curve."""
        return self.status == "ok"

    def to_dict(self) -> dict[str, Any]:
        """This value as a JSON-serialisable dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LRBounds:
        """The value `to_dict` was called on."""
        return cls(**data)


class _Trough(NamedTuple):
    """A curve cut into level, trough and rise: losses `[:left]`, `[left:right]` and `[right:]`."""

    losses: Floats  # cut off at the height above which a loss is just "diverged"
    left: int
    right: int
    fall: float  # in standard errors
    rise: float
    level: float  # the loss it falls from


def find_bounds(  # noqa: PLR0911 - one return for each verdict
    lrs: ArrayLike, losses: ArrayLike, *, min_level: float = 0.5, max_ratio: float = 3.85, margin: float = 3.0
) -> LRBounds:
    """Learning-rate bounds from any recorded range test, also one recorded by another tool.

    1. Losses higher above the starting level than the trough is deep count as that high: a loss of 10 and one of
       1e20 say the same.
    2. The trough is found by least squares: the two cuts that best divide the losses into three constants, high,
       low, high. This uses every point and needs no threshold, so early spikes don't end it (Lightning #1767,
       #21141).
    3. `min_lr` is the rate at which the smoothed loss has made half of its fall.
    4. `max_lr` is `max_ratio` times `min_lr`, but at most the `margin`-th part of the rate at which the loss rises.
    5. The weaker the fall, the more the rise alone decides: below seven standard errors of the noise, `max_lr` moves
       (in log-rate) towards a twentieth of the rate at which the loss leaves its starting level; at one it is there.

    The bounds don't change if the losses are scaled by a positive number or shifted (negative losses are fine),
    and scale with the rates. They hardly depend on how many points of a sweep are given.

    Args:
        lrs: Learning rates, positive and strictly increasing, shape `(num_steps,)`. Best spaced evenly in log-rate.
        losses: The loss of each step's own batch, shape `(num_steps,)`. Not the epoch's running mean, which lags.
            Infinite losses, and NaN after the last finite loss, mean divergence; other NaN are left out.
        min_level: Share of the fall still to go at `min_lr`.
        max_ratio: Largest `max_lr / min_lr`; values from 3 to 5 score alike. A sweep sees a rate for a few steps, a
            cycle for hundreds: far above the rate that halves the fall, training is noisy or overfits before the
            sweep can show it.
        margin: Smallest factor between `max_lr` and the rate at which the loss rises. Diverging takes steps too,
            so training diverges below the rate at which a sweep does.

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
    if not 0 < min_level < 1:
        raise invalid("min_level", "be between 0 and 1, exclusive", min_level, "The default is 0.5.")
    for name, value, default in (("max_ratio", max_ratio, 3.85), ("margin", margin, 3)):
        if not 1 < value < math.inf:
            raise invalid(name, "be a finite number above 1", value, f"The default is {default}.")
    rates, x, y = _prepare(lrs, losses)
    ratio = math.log10(max_ratio)

    def answer(status: str, high: float, low: float | None = None, confidence: str = "low") -> LRBounds:
        reason = f"{STATUSES[status]} {ADVICE[status].format(points=_MIN_POINTS)}"
        if len(rates) < 2:
            return LRBounds(*DEFAULT_BOUNDS, status, reason, confidence)
        start, end = math.log10(rates[0]), math.log10(rates[-1])
        high = min(high, end)
        low = high - ratio if low is None else min(low, high - math.log10(2))
        low = max(low, (start + high) / 2)
        # Rounding in 10**log10(rate) must not leave the sweep.
        bounds = np.clip([10**low, 10**high], rates[0], rates[-1])
        if not bounds[0] < bounds[1]:
            bounds = rates[[0, -1]]
        return LRBounds(float(bounds[0]), float(bounds[1]), status, reason, confidence)

    def below(rate: float, decades: float) -> float:
        """`decades` below a rate, but at least halfway from the sweep's start to it."""
        return float(max(rate - decades, (x[0] + rate) / 2))

    finite = np.isfinite(y)
    if np.count_nonzero(finite) < _MIN_POINTS:
        if len(rates) and not np.all(np.isfinite(np.asarray(losses, float))):
            first = x[np.argmin(finite)] if len(x) and finite[0] else math.log10(rates[0])
            floor = math.log10(rates[min(1, len(rates) - 1)])
            return answer("non_finite", max(first - 1, (math.log10(rates[0]) + first) / 2, floor))
        return answer("too_few_points", math.log10(rates[0] * rates[-1]) / 2 if len(rates) > 1 else 0.0)
    if np.ptp(y) <= 1e-9 * np.max(np.abs(y[finite])):
        return answer("flat", (x[0] + x[-1]) / 2)

    trough = _find_trough(x, y)
    onset, jump = _find_onset(x, y)
    rose = jump >= _CERTAIN
    fell = trough is not None and trough.fall >= _DOUBTFUL and max(trough.fall, trough.rise) >= _CERTAIN
    if not (fell or rose):
        return answer("too_noisy", below(x[-1], _BELOW_ONSET))
    low, high = None, below(onset, _BELOW_ONSET)
    if trough is not None:
        low = _half_fall(x, trough, min_level)
        cliff = below(x[trough.right if trough.rise >= _DOUBTFUL else -1], math.log10(margin))
        # The weaker the fall, the more the rise alone decides.
        trust = float(np.clip((trough.fall - _WEAK) / (_STRONG - _WEAK), 0, 1)) if rose else 1.0
        high += trust * (min(low + ratio, cliff) - high)
    if trough is None or not fell:
        return answer("never_fell" if onset - _BELOW_ONSET >= x[0] else "diverged_at_once", high)
    if trough.rise < _DOUBTFUL:
        return answer("never_diverged", high, low, "medium")
    return answer("ok", high, low, "high" if min(trough.fall, trough.rise) >= _CERTAIN else "medium")


def smooth_losses(lrs: ArrayLike, losses: ArrayLike) -> Floats:
    """The smoothed curve `find_bounds` reads `min_lr` from, for plots.

    Each point is a straight line fitted to the losses around it, weighted by a Gaussian of 0.15 decades in log-rate:
    no lag, and no bend at the ends (a zero-padded box bends both towards zero). Losses are cut off as in
    `find_bounds`.

    Args:
        lrs: Learning rates, as for `find_bounds`.
        losses: Losses, as for `find_bounds`.

    Returns:
        Array of shape `(num_steps,)`; NaN where the loss is not finite.
    """
    rates, x, y = _prepare(lrs, losses)
    raw = np.asarray(losses, float)
    finite = np.isfinite(raw)
    if np.count_nonzero(finite) < _MIN_POINTS:
        return np.where(finite, raw, np.nan)
    trough = _find_trough(x, y)
    curve = y if trough is None else trough.losses
    keep = np.isfinite(curve)
    smoothed = np.full(len(raw), np.nan)
    smoothed[finite] = _smooth(x[keep], curve[keep], np.log10(rates[finite]))
    return smoothed


def _prepare(lrs: ArrayLike, losses: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Check the arguments; the rates, and log-rates and losses to judge (`inf` where training diverged)."""
    rates, raw = np.asarray(lrs, float), np.asarray(losses, float)
    for name, array in (("lrs", rates), ("losses", raw)):
        if array.ndim != 1:
            raise invalid(name, "be one-dimensional", array, "Give one value per step.")
    if len(rates) != len(raw):
        raise invalid("losses", f"have as many values as `lrs` ({len(rates)})", raw, "Record both at the same step.")
    if not (np.all(np.isfinite(rates)) and np.all(rates > 0) and np.all(np.diff(rates) > 0)):
        raise invalid(
            "lrs", "be finite, positive and strictly increasing", rates, "Give one sweep's rates, in order, each once."
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


def _find_trough(x: Floats, y: Floats) -> _Trough | None:
    start = _start(y)
    shallow = y[np.isfinite(y)]
    # The cut-off depends on the trough's depth and the trough on the cut-off: begin high and settle.
    deepest = float(np.min(_median_of_5(shallow), initial=start))
    losses = np.minimum(y, _cutoff(y, start, start - deepest, batch_noise(shallow[: max(5, len(y) // 3)])))
    for _ in range(4):
        cuts = _cut(x, losses)
        if cuts is None:
            return None
        left, right = cuts
        level, bottom = _level(losses[:left]), float(np.mean(losses[left:right]))
        noise = batch_noise(losses[:right])
        cutoff = _cutoff(y, level, level - bottom, noise)
        if cutoff >= np.max(losses):
            break
        losses = np.minimum(y, cutoff)
    # The noise may grow as the rate does, so judge the trough by its own where that is larger.
    before, within = max(batch_noise(losses[:left]), noise), max(batch_noise(losses[left:right]), noise)
    fall = _ratio(level - bottom, math.hypot(before / math.sqrt(left), within / math.sqrt(right - left)))
    rise = 0.0
    if right < len(y):
        width = math.sqrt(1 / (right - left) + 1 / (len(y) - right))
        rise = _ratio(float(np.median(y[right:])) - bottom, within * width)
    return _Trough(losses, left, right, fall, rise, level)


def _cut(x: Floats, y: Floats) -> tuple[int, int] | None:
    """The two cuts that best divide `y` into three constants, high, low, high (the last may be empty)."""
    n = len(y)
    total = np.concatenate([[0.0], np.cumsum(y - np.mean(y))])
    edge = np.append(x, 2 * x[-1] - x[-2])
    left, right = np.arange(n + 1)[:, None], np.arange(n + 1)[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        before = total[:, None] / left
        within = (total[None, :] - total[:, None]) / (right - left)
        after = (total[-1] - total[None, :]) / (n - right)
        # Least squares: the largest sum, over the parts, of (number of points) x (mean of the part) squared.
        gain = total[:, None] * before + (right - left) * within**2 + np.where(right < n, (n - right) * after**2, 0)
        valid = (left >= 3) & (right - left >= 3) & (edge[None, :] - edge[:, None] >= _WIDTH * (1 - 1e-9))
        valid &= (within < before) & ((right == n) | (within < after))
    if not valid.any():
        return None
    first, last = divmod(int(np.argmax(np.where(valid, gain, -np.inf))), n + 1)
    return first, last


def _find_onset(x: Floats, y: Floats) -> tuple[float, float]:
    """Log-rate at which the loss leaves its starting level, and by how many standard errors it then rises.

    The mean of two readings: where the loss goes up, and where it strays up or down. Training close to instability
    shows first in the spread of the losses.
    """
    finite = y[np.isfinite(y)]
    onsets, rise = [], 0.0
    for two_sided in (True, False):
        level, noise = _start(y), batch_noise(finite[: max(5, len(y) // 3)])
        for _ in range(3):
            strayed = np.minimum(np.abs(y - level) if two_sided else y - level, _cutoff(y, level, 0.0, noise) - level)
            cut = _cut_once(strayed)
            before = y[:cut][np.isfinite(y[:cut])]
            if len(before) > 5:
                level, noise = float(np.median(before)), batch_noise(before)
        onsets.append(x[cut])
        rise = _ratio(float(np.median(y[cut:])) - level, noise * math.sqrt(1 / cut + 1 / (len(y) - cut)))
    return float(np.mean(onsets)), rise


def _cut_once(y: Floats) -> int:
    """The cut that best divides `y` into two constants, low, high."""
    n = len(y)
    total = np.cumsum(y - np.mean(y))[:-1]
    size = np.arange(1, n)
    return 1 + int(np.argmax(np.where(total < 0, total**2 / size + total**2 / (n - size), -1.0)))


def _half_fall(x: Floats, trough: _Trough, level: float) -> float:
    """Log-rate at which the smoothed loss has only the share `level` of its fall to go."""
    smoothed = _smooth(x, trough.losses, x)
    bottom = trough.left + int(np.argmin(smoothed[trough.left : trough.right]))
    # The nearest curve that only falls: crossed once, by the fall and not by a wiggle before it.
    falling = isotonic_regression(smoothed[: bottom + 1], increasing=False).x
    target = falling[-1] + level * (trough.level - falling[-1])
    i = int(np.argmax(falling <= target))
    if i == 0:
        return float(x[0])
    # Log-linear between the two points around the target.
    return float(x[i - 1] + (x[i] - x[i - 1]) * (falling[i - 1] - target) / (falling[i - 1] - falling[i]))


def _smooth(x: Floats, y: Floats, at: Floats) -> Floats:
    """Local straight lines through `(x, y)`, weighted by a Gaussian, at the points `at`."""
    width = max(_WIDTH, float(np.max(np.diff(x), initial=0.0)))
    distance = (x[None, :] - at[:, None]) / width
    weight = np.exp(-0.5 * distance**2)
    s0, s1, s2 = weight.sum(1), (weight * distance).sum(1), (weight * distance**2).sum(1)
    t0, t1 = weight @ y, (weight * distance) @ y
    return np.asarray((s2 * t0 - s1 * t1) / (s0 * s2 - s1**2))


def _level(y: Floats) -> float:
    """The level a loss falls from: the mean of its first half, as the second may hold the start of the fall."""
    return float(np.mean(y[: max(3, len(y) // 2)]))


def _start(y: Floats) -> float:
    """The starting level: the median of the first tenth of the losses."""
    return float(np.median(y[np.isfinite(y)][: max(3, len(y) // 10)]))


def batch_noise(y: Floats) -> float:
    """Standard deviation of a batch's loss around its trend, from the differences between neighbours."""
    steps = np.abs(np.diff(y))
    # The median is deaf to spikes, but zero if most losses are equal.
    return float(1.4826 * np.median(steps) or 1.2533 * np.mean(steps)) / math.sqrt(2) if len(steps) else 0.0


def _cutoff(y: Floats, level: float, depth: float, noise: float) -> float:
    """The loss above which training has just diverged: as far above the level as the trough is below it."""
    height = max(depth, 3 * noise)
    if height > 0:
        return level + height
    # A level without noise: whatever is above it.
    lowest = float(np.min(y[y > level], initial=np.inf))
    return lowest if math.isfinite(lowest) else level + max(1.0, abs(level))


def _median_of_5(y: Floats) -> Floats:
    padded = np.pad(y, 2, mode="edge")
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=1))


def _ratio(difference: float, error: float) -> float:
    return difference / error if error > 0 else math.copysign(math.inf, difference)
