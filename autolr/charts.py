"""The geometry of charts: values in, SVG paths and places of labels out. `templates/charts.html.j2` draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Values = Sequence[float] | npt.NDArray[Any]

AIR = 0.06  # of a range, beyond each end

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Scale:
    """Places values between two pixels, evenly or evenly in their logarithms."""

    def __init__(self, low: float, high: float, start: float, end: float, *, log: bool = False) -> None:
        self.log, self.low, self.high, self.start = log, low, high, start
        first, last = (math.log10(low), math.log10(high)) if log else (low, high)
        if not last > first:
            first, last = first - 0.5, last + 0.5
        self.first, self.last = first, last
        self.factor = (end - start) / (last - first)

    def __call__(self, x: float) -> float:
        """The pixel of a value; what is out of range is at the edge."""
        at = math.log10(x) if self.log else float(x)  # arithmetic on NumPy's scalars is slow
        return round(self.start + (min(max(at, self.first), self.last) - self.first) * self.factor, 1)

    def ticks(self, count: int = 5) -> list[tuple[float, str]]:
        """Places and labels of about `count` round values."""
        span = self.last - self.first
        powers = range(math.floor(self.first), math.ceil(self.last) + 1)
        if self.log and span >= 2:
            each = max(1, math.ceil(span / count))
            return self._within([(10.0**k, f"10{str(k).translate(_SUPERSCRIPTS)}") for k in powers if k % each == 0])
        if self.log and span >= 0.7:
            digits = (1, 2, 5) if 3 * span <= count + 1 else (1, 3)
            return self._within(
                [(m * 10.0**k, f"{m * 10.0**k:.3g}".replace("e-0", "e-")) for k in powers for m in digits]
            )
        low, high = (10**self.first, 10**self.last) if self.log else (self.first, self.last)
        step = 10 ** math.floor(math.log10((high - low) / count))
        step *= next(nice for nice in (1, 2, 5, 10) if (high - low) / (step * nice) <= count)
        marks = [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
        marks = [mark for mark in marks if mark > 0 or not self.log]
        return list(zip(map(self, marks), _labels(marks), strict=True))

    def _within(self, marks: list[tuple[float, str]]) -> list[tuple[float, str]]:
        ends = self.first - 1e-9, self.last + 1e-9
        return [(self(mark), text) for mark, text in marks if ends[0] <= math.log10(mark) <= ends[1]]


def _labels(marks: Sequence[float]) -> list[str]:
    """Numbers at an axis: large ones in as few digits as tell them apart, since it has room for some seven letters."""
    is_large = bool(marks) and max(map(abs, marks)) >= 1e6
    for digits in range(1 if is_large else 10, 17):
        texts = [f"{mark:.{digits}g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e") for mark in marks]
        if len(set(texts)) == len(texts):
            break
    return texts


@dataclass
class Chart:
    """The geometry of a chart; `templates/charts.html.j2` draws it."""

    label: str  # in words, for those who do not see it
    x: Scale
    y: Scale
    x_name: str = ""
    y_name: str = ""
    paths: list[tuple[str, str]] = field(default_factory=list)  # CSS class and SVG path, in order
    texts: list[tuple[float, float, str, str]] = field(default_factory=list)  # x, y, anchor, text
    links: list[tuple[float, float, str, str, str]] = field(default_factory=list)  # x, y, CSS class, href, title
    x_ticks: list[tuple[float, str]] | None = None
    WIDTH, HEIGHT = 520, 300
    LEFT, RIGHT, TOP, BOTTOM = 58, 508, 34, 252

    top: int = TOP
    bottom: int = BOTTOM
    above: Chart | None = None  # another panel of the same picture, which shares the axis from left to right

    def has(self, kind: str) -> bool:
        """Whether something of a CSS class is in it: then the legend names it."""
        kinds = [path[0] for path in self.paths] + [link[2] for link in self.links]
        return any(kind in other.split() for other in kinds) or bool(self.above and self.above.has(kind))

    def line(self, kind: str, xs: Values, ys: Values) -> None:
        """A line through points; not-a-number ends it, and it goes on behind."""
        parts, pen = [], "M"
        for x, y in zip(xs, ys, strict=True):
            if math.isfinite(y):
                parts.append(f"{pen}{self.x(x):g} {self.y(y):g}")
                pen = "L"
            else:
                pen = "M"
        self.paths.append((kind, "".join(parts)))

    def dots(self, kind: str, xs: Values, ys: Values) -> None:
        """Dots: strokes of no length with round ends, in a tenth of the bytes of circles."""
        pairs = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
        self.paths.append((kind, "".join(f"M{self.x(x):g} {self.y(y):g}h0" for x, y in pairs)))

    def upright(self, kind: str, x: float) -> None:
        """A line from top to bottom."""
        self.paths.append((kind, f"M{self.x(x):g} {self.top}V{self.bottom}"))

    def band(self, kind: str, low: float, high: float) -> None:
        """An area from top to bottom."""
        self.paths.append((kind, f"M{self.x(low):g} {self.top}H{self.x(high):g}V{self.bottom}H{self.x(low):g}z"))


def box(x: tuple[float, float], y: tuple[float, float], *, log_y: bool = False) -> tuple[Scale, Scale]:
    """Scales over the whole of a chart."""
    return Scale(*x, Chart.LEFT, Chart.RIGHT), Scale(*y, Chart.BOTTOM, Chart.TOP, log=log_y)


def padded(low: float, high: float) -> tuple[float, float]:
    """A range with some air at both ends."""
    gap = (high - low) * AIR or abs(high) * AIR or 1.0
    return low - gap, high + gap


def loss_limits(losses: npt.NDArray[Any], smoothed: npt.NDArray[Any]) -> tuple[float, float]:
    """The lowest and highest loss of a range test to show.

    The blow-up at the end of the sweep is left above the picture: it would flatten the part one looks at.

    Args:
        losses: Recorded losses, at least one of them finite.
        smoothed: The smoothed curve; not-a-number where there is none.
    """
    finite, line = losses[np.isfinite(losses)], smoothed[np.isfinite(smoothed)]
    low, high = min(finite.min(), line.min(initial=np.inf)), max(finite.max(), line.max(initial=-np.inf))
    begin = finite[: max(3, len(finite) // 5)].max()
    enough = begin + 0.6 * (begin - low)
    return float(low), float(enough if low < enough < high else high)


def thinned(length: int, most: int) -> Any:
    """Indices of at most so many of `length` points, evenly, the first and the last among them."""
    return np.unique(np.linspace(0, length - 1, min(length, most)).round().astype(int))
