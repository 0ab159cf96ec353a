"""The trough of a range test's losses: where they fall, where they rise, and how far both stand out from the noise."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression

from autolr.array_types import FloatArray

# In decades: what the smoothing blurs, and so the narrowest trough there is. 0.1 to 0.3 give nearly the same bounds.
_WIDTH = 0.15
# Of a loss without noise: what its means and sums differ by is no fall.
_ROUNDING = 1e-12


class Trough(NamedTuple):
    """A curve cut into level, trough and rise: losses `[:left]`, `[left:right]` and `[right:]`."""

    losses: FloatArray  # cut off at the height above which a loss is just "diverged"
    left: int
    right: int
    fall: float  # in standard errors
    rise: float
    level: float  # the loss it falls from


def find_trough(x: FloatArray, y: FloatArray) -> Trough | None:
    """The trough of the losses `y` at the log-rates `x`; `None` if there is no fall at all."""
    start = _start(x, y)
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
        noise = max(batch_noise(losses[:right]), _ROUNDING * float(np.max(np.abs(losses[:right]))))
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
    return Trough(losses, left, right, fall, rise, level)


def _cut(x: FloatArray, y: FloatArray) -> tuple[int, int] | None:
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


def find_onset(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    """Log-rate at which the loss leaves its starting level, and by how many standard errors it then rises.

    The mean of two readings: where the loss goes up, and where it strays up or down. Training close to instability
    shows first in the spread of the losses.
    """
    finite = y[np.isfinite(y)]
    onsets, rise = [], 0.0
    for two_sided in (True, False):
        level, noise = _start(x, y), batch_noise(finite[: max(5, len(y) // 3)])
        for _ in range(3):
            strayed = np.minimum(np.abs(y - level) if two_sided else y - level, _cutoff(y, level, 0.0, noise) - level)
            cut = _cut_once(strayed)
            before = y[:cut][np.isfinite(y[:cut])]
            if len(before) > 5:
                level, noise = float(np.median(before)), batch_noise(before)
        onsets.append(x[cut])
        rise = _ratio(float(np.median(y[cut:])) - level, noise * math.sqrt(1 / cut + 1 / (len(y) - cut)))
    return float(np.mean(onsets)), rise


def _cut_once(y: FloatArray) -> int:
    """The cut that best divides `y` into two constants, low, high."""
    n = len(y)
    total = np.cumsum(y - np.mean(y))[:-1]
    size = np.arange(1, n)
    return 1 + int(np.argmax(np.where(total < 0, total**2 / size + total**2 / (n - size), -1.0)))


def half_fall(x: FloatArray, trough: Trough, level: float) -> float:
    """Log-rate at which the smoothed loss has only the share `level` of its fall to go."""
    smoothed = smooth(x, trough.losses, x)
    bottom = trough.left + int(np.argmin(smoothed[trough.left : trough.right]))
    # The nearest curve that only falls: crossed once, by the fall and not by a wiggle before it.
    falling = isotonic_regression(smoothed[: bottom + 1], increasing=False).x
    target = falling[-1] + level * (trough.level - falling[-1])
    i = int(np.argmax(falling <= target))
    if i == 0:
        return float(x[0])
    # Log-linear between the two points around the target.
    return float(x[i - 1] + (x[i] - x[i - 1]) * (falling[i - 1] - target) / (falling[i - 1] - falling[i]))


def smooth(x: FloatArray, y: FloatArray, at: FloatArray) -> FloatArray:
    """Local straight lines through `(x, y)`, weighted by a Gaussian, at the points `at`.

    Where points are further apart, it is as wide as the nearest one is far; but not as the first gap of a linear sweep,
    which is decades, or the many points at the high rates would be all that is seen there.
    """
    gaps = np.diff(x, prepend=-np.inf, append=np.inf)
    nearest = np.interp(at, x, np.minimum(gaps[:-1], gaps[1:]))
    width = np.maximum(np.clip(nearest, _WIDTH, 3 * _WIDTH), nearest / 8)  # an eighth: so that weights are not all zero
    distance = (x[None, :] - at[:, None]) / width[:, None]
    weight = np.exp(-0.5 * distance**2)
    s0, s1, s2 = weight.sum(1), (weight * distance).sum(1), (weight * distance**2).sum(1)
    t0, t1 = weight @ y, (weight * distance) @ y
    return np.asarray((s2 * t0 - s1 * t1) / (s0 * s2 - s1**2))


def _level(y: FloatArray) -> float:
    """The level a loss falls from: the mean of its first half, as the second may hold the start of the fall."""
    return float(np.mean(y[: max(3, len(y) // 2)]))


def _start(x: FloatArray, y: FloatArray) -> float:
    """The starting level: the median of the first tenth of the losses, and of the log-rates if these are uneven."""
    finite = np.isfinite(y)
    early = np.count_nonzero(x[finite] < x[0] + (x[-1] - x[0]) / 10)
    return float(np.median(y[finite][: max(3, min(early, len(y) // 10))]))


def batch_noise(y: FloatArray) -> float:
    """Standard deviation of a batch's loss around its trend, from the differences between neighbours."""
    steps = np.abs(np.diff(y))
    # The median is deaf to spikes, but zero if most losses are equal.
    return float(1.4826 * np.median(steps) or 1.2533 * np.mean(steps)) / math.sqrt(2) if len(steps) else 0.0


def _cutoff(y: FloatArray, level: float, depth: float, noise: float) -> float:
    """The loss above which training has just diverged: as far above the level as the trough is below it."""
    height = max(depth, 3 * noise)
    if height > 0:
        return level + height
    # A level without noise: whatever is above it.
    lowest = float(np.min(y[y > level], initial=np.inf))
    return lowest if math.isfinite(lowest) else level + max(1.0, abs(level))


def _median_of_5(y: FloatArray) -> FloatArray:
    """Of each value and its neighbours: SciPy 1.15.0's `median_filter` is wrong, on short arrays beyond their ends."""
    padded = np.pad(y, 2, mode="edge")
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=1))


def _ratio(difference: float, error: float) -> float:
    if error > 0:
        return difference / error
    return math.copysign(math.inf, difference) if difference else 0.0
