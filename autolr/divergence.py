"""When a range test has seen enough: the loss has diverged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WINDOW = 5  # steps in the running median: two outliers in a row neither end a sweep nor hide that it should end
MIN_STEPS = 3 * WINDOW  # of ten, what outliers leave is too little to tell the noise by
OUTLIERS = 4  # differences that two losses which stand alone make
ROUNDING = float(np.finfo(np.float32).eps) / 2  # of a loss, which is a number of single precision
NOISE_FACTOR = 10.0  # rises of the median by chance stay far below ten standard deviations of a single loss


def has_diverged(losses: Sequence[float]) -> bool:
    """Whether the last of the recorded losses show that training has come apart.

    The running median must have risen above where it began by as much as it had fallen below it, and by far more than
    noise. Only differences of losses count, so a loss may be negative or tiny: a multiple of the best loss, which
    other finders stop at, means nothing then (Lightning #10557, ignite #1482).

    Args:
        losses: Batch losses so far, in order.

    Returns:
        True after a NaN or infinite loss, or once the loss has diverged; never on fewer than 15 finite losses.

    Example:
    >>> has_diverged([2.3, 2.2, float("nan")])
    True
    >>> has_diverged([2.3, 2.2, 2.1] * 10)
    False
    """
    values = np.asarray(losses, dtype=np.float64)
    if values.size and not np.isfinite(values[-1]):
        return True
    if values.size < MIN_STEPS or not np.all(np.isfinite(values)):
        return False
    medians = np.median(np.lib.stride_tricks.sliding_window_view(values, WINDOW), axis=1)
    start, best, now = medians[0], medians.min(), medians[-1]
    # Successive differences see the noise but not the trend; their scale is sqrt(2) of a single loss's. Their mean, not
    # their median: to a trained model most batches are alike, and some are not.
    steps = np.sort(np.abs(np.diff(values)))[:-OUTLIERS]
    # Losses of half precision are often equal, or apart by a last digit.
    noise = max(1.2533 * float(np.mean(steps)) / np.sqrt(2), ROUNDING * abs(start))
    return bool(now - start > max(start - best, NOISE_FACTOR * noise))
