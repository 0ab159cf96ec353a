"""What other learning-rate finders would suggest for a recorded sweep, written anew from their documented behaviour.

Each rule takes rates that rise exponentially and the true loss of each batch, and returns one rate. Smoothing, early
stop and trimming are each tool's defaults. For comparison only; nothing in the package uses them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.signal import lfilter

Rule = Callable[[np.ndarray, np.ndarray], float]


def exponential_average(losses: np.ndarray, keep: float, *, corrected: bool) -> np.ndarray:
    """Exponential moving average from zero, divided by its weight if `corrected`; else from the first loss."""
    if corrected:
        weights = 1 - keep ** np.arange(1, len(losses) + 1)
        return lfilter([1 - keep], [1, -keep], losses) / weights
    return lfilter([1 - keep], [1, -keep], losses, zi=[keep * losses[0]])[0]


def until_diverged(losses: np.ndarray, factor: float) -> int:
    """Number of points up to the first that is not finite or exceeds `factor` times the least so far."""
    least = np.minimum.accumulate(np.where(np.isfinite(losses), losses, np.inf))
    over = ~np.isfinite(losses) | (losses > factor * least)
    return int(over.argmax()) + 1 if over.any() else len(losses)


def _fastai_view(lrs: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    smooth = exponential_average(losses, 0.98, corrected=True)
    view = slice(10, until_diverged(smooth, 4.0) - 5)  # a tenth of the 100 steps of a sweep is left out
    return lrs[view], smooth[view]


def fastai_valley(lrs: np.ndarray, losses: np.ndarray) -> float:
    """The default of fastai: the middle of the longest falling subsequence of the smoothed loss."""
    lrs, losses = _fastai_view(lrs, losses)
    length = np.ones(len(losses), int)
    for i in range(1, len(losses)):
        before = length[:i][losses[:i] > losses[i]]
        length[i] += before.max(initial=0)
    end = int(length.argmax())
    start, third = end - int(length[end]), (length[end]) / 3
    return float(lrs[start + int(third) + int(third / 2)])


def fastai_minimum(lrs: np.ndarray, losses: np.ndarray) -> float:
    """A tenth of the rate with the least smoothed loss."""
    lrs, losses = _fastai_view(lrs, losses)
    return float(lrs[losses.argmin()] / 10)


def fastai_steep(lrs: np.ndarray, losses: np.ndarray) -> float:
    """Where the smoothed loss falls fastest in the logarithm of the rate."""
    lrs, losses = _fastai_view(lrs, losses)
    return float(lrs[(np.diff(losses) / np.diff(np.log(lrs))).argmin()])


def lightning(lrs: np.ndarray, losses: np.ndarray) -> float:
    """Where the smoothed loss falls fastest in the rate itself."""
    smooth = exponential_average(losses, 0.98, corrected=True)
    view = slice(10, until_diverged(smooth, 4.0) - 1)
    return float(lrs[view][np.gradient(smooth[view], lrs[view]).argmin()])


def torch_lr_finder(lrs: np.ndarray, losses: np.ndarray) -> float:
    """Where the smoothed loss falls fastest from point to point."""
    smooth = exponential_average(losses, 0.95, corrected=False)
    view = slice(10, until_diverged(smooth, 5.0) - 5)
    return float(lrs[view][np.gradient(smooth[view]).argmin()])


def keras_lr_finder(lrs: np.ndarray, losses: np.ndarray) -> float:
    """The steepest fall over 20 points of what Keras logs: the mean since the epoch began."""
    logged = np.cumsum(losses) / np.arange(1, len(losses) + 1)
    end = until_diverged(logged, 4.0)
    slope = np.zeros(end)
    slope[20:] = (logged[20:end] - logged[: end - 20]) / 20
    return float(lrs[:end][10:-5][slope[10:-5].argmin()])


def method_as_published(lrs: np.ndarray, losses: np.ndarray) -> float:
    """The article's own code: a zero-padded box, and the window's two ends each searched from the start."""

    def box(values: np.ndarray) -> np.ndarray:
        return np.convolve(values, np.ones(20) / 20, mode="same")

    smooth = box(losses)
    slope = box(np.diff(smooth))
    start, end = int((slope <= 0).argmax()), int((slope >= 0).argmax()) or len(slope)
    window = smooth[start:end]
    low, drop = window[:-1].min(), np.ptp(window[:-1])
    return float(
        max(
            lrs[
                start + int((window <= low + 0.5 * drop).argmax()) : start + int((window <= low + 0.05 * drop).argmax())
            ]
        )
    )


PEERS: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        fastai_valley,
        fastai_minimum,
        fastai_steep,
        lightning,
        torch_lr_finder,
        keras_lr_finder,
        method_as_published,
    )
}
