"""Pictures of a range test and of a schedule, with matplotlib. Axes in, Axes out; nothing is shown or printed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from autolr.bounds import LRBounds, smooth_losses
from autolr.curve import RangeTest
from autolr.sgdr import rate_on_edges

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito's colours, which colour-blind readers can tell apart; widths and dashes tell the lines apart in grey.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8A8A8A"


def new_axes(ax: Axes | None) -> Axes:
    """The axes to draw on: those given, or those of a new figure.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("Plots need matplotlib. Install it with: pip install 'keras-autolr[plots]'") from error
    axes: Axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")[1]
    return axes


def plot_range_test(test: RangeTest, *, bounds: LRBounds | None = None, ax: Axes | None = None) -> Axes:
    """Draw a range test: the recorded and the smoothed loss by learning rate, the bounds, and what was decided.

    Args:
        test: A recorded curve with at least one step.
        bounds: The bounds to draw. Defaults to `test.bounds()`.
        ax: Axes to draw on. Defaults to those of a new figure.

    Returns:
        The axes.

    Raises:
        ImportError: If matplotlib is not installed.

    Example:
    ```python
    autolr.plot_range_test(autolr.range_test(model, x, y)).figure.savefig("range_test.png")
    ```
    """
    ax = new_axes(ax)
    bounds = test.bounds() if bounds is None else bounds
    smooth = smooth_losses(test.lrs, test.losses)
    finite = np.isfinite(test.losses)
    ax.plot(test.lrs[finite], test.losses[finite], ".", color=GREY, markersize=4, label="loss of each batch")
    ax.plot(test.lrs, smooth, color=BLUE, linewidth=2, label="smoothed")
    ax.axvspan(bounds.min_lr, bounds.max_lr, color=ORANGE, alpha=0.15, linewidth=0)
    ax.axvline(bounds.min_lr, color=ORANGE, linewidth=1.5, linestyle="--", label=f"min_lr {bounds.min_lr:.2e}")
    ax.axvline(bounds.max_lr, color=ORANGE, linewidth=1.5, label=f"max_lr {bounds.max_lr:.2e}")
    ax.set_xscale("log")
    if np.any(finite):
        _show_what_matters(ax, test.losses[finite], smooth[np.isfinite(smooth)])
    ax.set_xlabel("learning rate (log scale)")
    ax.set_ylabel("batch loss")
    ax.set_title(f"{bounds.status} ({bounds.confidence} confidence): {bounds.reason}", fontsize=9, wrap=True)
    ax.legend(fontsize=8, loc="best", frameon=False)
    _tidy(ax)
    return ax


def _show_what_matters(ax: Axes, losses: Any, smooth: Any) -> None:
    """Leave the blow-up at the end of the sweep above the picture: it would flatten the part one looks at."""
    begin = losses[: max(3, len(losses) // 5)]
    low = min(losses.min(), smooth.min() if smooth.size else losses.min())
    high = begin.max() + 0.6 * (begin.max() - low)
    if losses.max() > high > low:
        ax.set_ylim(low - 0.06 * (high - low), high)


def plot_schedule(
    edges: Any,
    *,
    min_lr: float,
    max_lr: float,
    lr_decay: float = 1.0,
    steps_per_epoch: int = 1,
    total_steps: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a schedule: the learning rate at every step, with the restarts marked.

    Args:
        edges: Steps on which the cycles begin, and that on which the last one ends; `autolr.sgdr.cycle_edges` and
            `fitted_edges` compute them, and a trial's record holds them.
        min_lr: Rate that each cycle falls to.
        max_lr: Rate at the start of the first cycle.
        lr_decay: What each restart multiplies the peak by.
        steps_per_epoch: Optimizer steps in an epoch, to label the axis in epochs. Defaults to 1: steps.
        total_steps: Where to stop drawing. Defaults to the last edge.
        ax: Axes to draw on. Defaults to those of a new figure.

    Returns:
        The axes.

    Raises:
        ImportError: If matplotlib is not installed.

    Example:
    ```python
    autolr.plot_schedule([0, 375, 1000], min_lr=0.01, max_lr=0.5, lr_decay=0.9, steps_per_epoch=100)
    ```
    """
    ax = new_axes(ax)
    edges = np.asarray(edges, dtype=np.int64)
    total = int(edges[-1]) if total_steps is None else total_steps
    steps = np.arange(total)
    rates = rate_on_edges(steps, edges, min_lr=min_lr, max_lr=max_lr, lr_decay=lr_decay)
    ax.plot(steps / steps_per_epoch, rates, color=BLUE, linewidth=1.5)
    starts = edges[:-1][edges[:-1] < total]
    peaks = rate_on_edges(starts, edges, min_lr=min_lr, max_lr=max_lr, lr_decay=lr_decay)
    ax.plot(starts / steps_per_epoch, peaks, "o", color=ORANGE, markersize=4, label="start of a cycle")
    ax.set_xlabel("epoch" if steps_per_epoch > 1 else "step")
    ax.set_ylabel("learning rate")
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=8, frameon=False)
    _tidy(ax)
    return ax


def _tidy(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)
