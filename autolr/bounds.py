"""Learning-rate bounds from a recorded range-test curve."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression

Floats = NDArray[np.float64]

STATUSES = {
    "ok": "The loss fell and then rose again, both clearly.",
    "never_fell": "The loss did not fall before it rose.",
    "flat": "The loss neither fell nor rose.",
    "never_diverged": "The loss fell, and had not risen again when the sweep ended.",
    "diverged_at_once": "The loss rose from the first rates of the sweep on.",
    "too_few_points": "The sweep has too few points to judge.",
    "non_finite": "Hardly any loss of the sweep is finite.",
    "too_noisy": "The fall of the loss cannot be told from its noise.",
}


@dataclass(frozen=True, slots=True)
class LRBounds:
    """Bounds (first version; being worked on)."""

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
        return self.status == "ok"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "LRBounds":
        return cls(**data)


def _smooth(x: Floats, y: Floats, width: float) -> Floats:
    d = (x[None, :] - x[:, None]) / width
    w = np.exp(-0.5 * d * d)
    s0, s1, s2, t0, t1 = w.sum(1), (w * d).sum(1), (w * d * d).sum(1), w @ y, (w * d) @ y
    return np.asarray((s2 * t0 - s1 * t1) / np.maximum(s0 * s2 - s1 * s1, 1e-12))


def _clip(losses: Floats) -> tuple[Floats, float]:
    finite = losses[np.isfinite(losses)]
    start = float(np.median(finite[: max(3, len(finite) // 10)]))
    low = float(np.quantile(finite, 0.02))
    cap = 2 * start - low
    return np.where(np.isfinite(losses), np.minimum(losses, cap), cap), start


def smooth_losses(lrs: ArrayLike, losses: ArrayLike) -> Floats:
    """The smoothed curve `find_bounds` decides on."""
    x, y = np.log10(np.asarray(lrs, float)), np.asarray(losses, float)
    if np.isfinite(y).sum() < 3:
        return np.where(np.isfinite(y), y, np.nan)
    return np.where(np.isfinite(y), _smooth(x, _clip(y)[0], 0.2), np.nan)


def find_bounds(lrs: ArrayLike, losses: ArrayLike, *, max_level: float = 0.05, min_level: float = 0.5) -> LRBounds:
    """Bounds from a curve (first version; being worked on)."""
    x, y = np.log10(np.asarray(lrs, float)), np.asarray(losses, float)
    if np.isfinite(y).sum() < 10:
        lo, hi = (10 ** x[0], 10 ** x[-1]) if len(x) > 1 else (1e-4, 1e-3)
        return LRBounds(float(lo), float(hi), "too_few_points", "The sweep has too few points.", "low")
    clipped, start = _clip(y)
    s = _smooth(x, clipped, 0.2)
    low = np.minimum.accumulate(s)
    risen = (s - low > 0.5 * (start - low)) & (start - low > 0.5 * (start - s.min()))
    end = int(np.argmax(risen)) if risen.any() else len(s)
    valley = int(np.argmin(s[:end])) if end else 0
    fall = np.asarray(isotonic_regression(s[: valley + 1], increasing=False).x)

    def reach(level: float) -> float:
        target = fall[-1] + level * (fall[0] - fall[-1])
        i = int(np.argmax(fall <= target))
        return x[0] if i == 0 else x[i - 1] + (x[i] - x[i - 1]) * (fall[i - 1] - target) / (fall[i - 1] - fall[i])

    lo, hi = reach(min_level), reach(max_level)
    status = "ok" if risen.any() else "never_diverged"
    if not hi > lo:
        lo, hi, status = x[0] + (x[-1] - x[0]) / 3, x[0] + 2 * (x[-1] - x[0]) / 3, "never_fell"
    return LRBounds(float(10**lo), float(10**hi), status, STATUSES[status], "medium")
