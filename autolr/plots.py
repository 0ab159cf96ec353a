"""Pictures of a range test, a schedule and a search, with matplotlib. Axes in, Axes out; nothing is shown."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from autolr.bounds import smooth_losses
from autolr.charts import loss_limits
from autolr.errors import MAX_EXACT_INT, check_count, check_optional_count, invalid
from autolr.search_folder import Search, Source, Trial, read_search
from autolr.sgdr import Schedule
from autolr.verdicts import ADVICE, LRBounds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from autolr.curve import RangeTest
    from autolr.lr_finder import LRFinder

# Okabe & Ito's colours, which colour-blind readers can tell apart; widths and dashes tell the lines apart in grey.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8A8A8A"
FEW = 20  # points; so few are drawn larger
MOST_DRAWN = 20_000  # steps of a schedule: more cannot be told apart
MOST_NAMED = 30  # trials whose numbers have room in a picture
LETTERS, LETTERS_OF_NAMES = 18, 13  # in an inch: of a title, and of names at an axis


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
        raise ImportError("Plots need matplotlib. Install it with: pip install matplotlib") from error
    axes: Axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")[1]
    return axes


def plot_range_test(test: RangeTest | LRFinder, *, bounds: LRBounds | None = None, ax: Axes | None = None) -> Axes:
    """Draw a range test: the recorded and the smoothed loss by learning rate, the bounds, and what was decided.

    Diamonds are bursts, at the mean loss they reached (a cross at the top: it diverged, or came to more); larger ones
    were longer. Thin crosses at the top are losses that are not finite.

    Args:
        test: A recorded curve with at least one step, or the `LRFinder` that recorded it.
        bounds: The bounds to draw. Defaults to `test.bounds()`.
        ax: Axes to draw on. Defaults to those of a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If `test` is no range test, or `bounds` are none.
        ImportError: If matplotlib is not installed.

    Example:
    ```python
    autolr.plot_range_test(autolr.range_test(model, x, y)).figure.savefig("range_test.png")
    ```
    """
    test = getattr(test, "result", test)
    if not hasattr(test, "lrs"):
        hint = "That is what `autolr.range_test` returns, and the `result` of an `LRFinder`."
        raise invalid("test", "be a `RangeTest`", test, hint)
    bounds = test.bounds() if bounds is None else bounds
    if not isinstance(bounds, LRBounds):
        raise invalid("bounds", "be an `LRBounds` or None", bounds, "That is what `find_bounds` returns.")
    ax = new_axes(ax)
    smooth = smooth_losses(test.lrs, test.losses)
    finite = np.isfinite(test.losses)
    size = 4 if np.count_nonzero(finite) > FEW else 8
    dots: dict[str, Any] = {"color": GREY, "markersize": size, "zorder": 2.5}
    ax.plot(test.lrs[finite], test.losses[finite], ".", label="loss of each batch", **dots)
    ax.plot(test.lrs, smooth, color=BLUE, linewidth=2, label="smoothed")
    if not np.all(finite):
        top = np.ones(np.count_nonzero(~finite))
        edge: dict[str, Any] = {"transform": ax.get_xaxis_transform(), "clip_on": False}
        ax.plot(test.lrs[~finite], top, "x", color=GREY, markersize=4, label="not finite", **edge)
    ax.axvspan(bounds.min_lr, bounds.max_lr, color=ORANGE, alpha=0.15, linewidth=0)
    ax.axvline(bounds.min_lr, color=ORANGE, linewidth=1.5, linestyle="--", label=f"min_lr {bounds.min_lr:.2e}")
    ax.axvline(bounds.max_lr, color=ORANGE, linewidth=1.5, label=f"max_lr {bounds.max_lr:.2e}")
    ax.set_xscale("log")
    if np.any(finite):
        low, high = loss_limits(test.losses, smooth)
        if high < np.max(test.losses[finite]):
            ax.set_ylim(low - 0.06 * (high - low), high)
    if test.bursts:
        _draw_bursts(ax, test)
    ax.set_xlabel("learning rate (log scale)")
    ax.set_ylabel("batch loss")
    advice = ADVICE.get(bounds.status, "")  # too long for a title
    seen = bounds.reason.removesuffix(advice).strip()
    verdict = f"{bounds.status} ({bounds.confidence} confidence): {seen}"
    letters = max(20, int(LETTERS * ax.bbox.width / ax.figure.dpi))
    ax.set_title("\n".join(textwrap.wrap(verdict, letters)), fontsize=9)
    _legend_outside(ax)
    _tidy(ax)
    return ax


def _legend_outside(ax: Axes, *, above: bool = False) -> None:
    """A legend under the name of the axis or above, if the figure makes room: inside it may lie on points or lines."""
    from matplotlib.transforms import ScaledTranslation

    if ax.figure.get_layout_engine() is None:
        ax.legend(fontsize=8, loc="best", frameon=False)
        return
    away = ScaledTranslation(0, 0 if above else -40 / 72, ax.figure.dpi_scale_trans)
    ax.legend(
        fontsize=8,
        loc="lower center" if above else "upper center",
        ncols=3,
        frameon=False,
        bbox_to_anchor=(0.5, float(above)),
        bbox_transform=ax.transAxes + away,
    )


def _draw_bursts(ax: Axes, test: RangeTest) -> None:
    heights = test.burst_losses()
    bottom, top = ax.get_ylim()
    # A burst learns more than a sweep: make room for the lowest.
    lowest = min(filter(math.isfinite, heights), default=bottom)
    if lowest < bottom + 0.03 * (top - bottom):
        ax.set_ylim(lowest - 0.06 * (top - lowest), top)
    look: dict[str, Any] = {"color": GREEN, "markeredgecolor": "white", "linestyle": "none", "zorder": 4}
    for burst, height in zip(test.bursts, heights, strict=True):
        at, marker = (height, "D") if height < top else (top, "X")
        ax.plot(burst.lr, at, marker=marker, markersize=_burst_size(burst.steps), clip_on=False, **look)
    for steps in sorted({burst.steps for burst in test.bursts}):
        ax.plot([], [], marker="D", markersize=_burst_size(steps), label=f"bursts of {steps} steps", **look)


def _burst_size(steps: int) -> float:
    return 5 + steps / 16


def plot_schedule(
    edges: Any,
    *,
    min_lr: float,
    max_lr: float,
    lr_decay: float = 1.0,
    shape: str = "cosine",
    steps_per_epoch: int = 1,
    total_steps: int | None = None,
    warmup: float = 0,
    ax: Axes | None = None,
) -> Axes:
    """Draw a schedule: the learning rate at every step, with the restarts marked.

    Args:
        edges: Steps on which the cycles begin, and that on which the last one ends, as a trial's record holds them.
            `SGDRScheduler.preview` draws a schedule that has not been trained with.
        min_lr: Rate that each cycle falls to.
        max_lr: Highest rate of the first cycle.
        lr_decay: What each restart multiplies the peak by. Defaults to 1.
        shape: Of a cycle, as in `autolr.sgdr_lr`. Defaults to a cosine.
        steps_per_epoch: Optimizer steps in an epoch, to label the axis in epochs. Defaults to 1: steps.
        total_steps: Where to stop drawing. Defaults to the last edge.
        warmup: How the rate comes to the first edge, as in `autolr.sgdr_lr`: from `min_lr` if this is a share, below 1,
            as in a trial's record; from 0 otherwise. Defaults to 0.
        ax: Axes to draw on. Defaults to those of a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If there are fewer than two edges, or they do not rise, or another argument is out of its range.
        ImportError: If matplotlib is not installed.

    Example:
    ```python
    autolr.plot_schedule([0, 375, 1000], min_lr=0.01, max_lr=0.5, lr_decay=0.9, steps_per_epoch=100)
    ```
    """
    schedule = Schedule(min_lr=min_lr, max_lr=max_lr, lr_decay=lr_decay, shape=shape, warmup=warmup, fit_budget=True)
    try:
        steps = np.asarray(edges, dtype=np.float64)
        rising = (
            steps.ndim == 1 and len(steps) > 1 and np.all(steps % 1 == 0) and np.all(np.diff(steps, prepend=-1) > 0)
        ) and steps[-1] <= MAX_EXACT_INT
    except (TypeError, ValueError, OverflowError):
        rising = False
    if not rising:
        hint = "For instance `[0, 375, 1000]`. A scheduler draws itself: `SGDRScheduler.preview`."
        raise invalid("edges", "be two or more whole numbers from 0 on, rising", edges, hint)
    check_count("steps_per_epoch", steps_per_epoch, hint="1 labels the axis in steps.")
    check_optional_count("total_steps", total_steps, hint="None draws until the last edge.")
    return draw_schedule(schedule, edges, steps_per_epoch=steps_per_epoch, total_steps=total_steps, ax=ax)


def draw_schedule(
    schedule: Schedule, edges: Any, *, steps_per_epoch: int = 1, total_steps: int | None = None, ax: Axes | None = None
) -> Axes:
    """Draw a schedule on its edges; the other arguments are those of `plot_schedule`."""
    ax = new_axes(ax)
    edges = np.asarray(edges, dtype=np.int64)
    total = int(edges[-1]) if total_steps is None else total_steps
    # Of a long schedule some, with both sides of each restart.
    corners = np.concatenate([edges - 1, edges])
    steps = np.arange(total) if total <= MOST_DRAWN else np.linspace(0, total - 1, MOST_DRAWN).astype(np.int64)
    steps = np.union1d(steps, corners[(corners >= 0) & (corners < total)])
    ax.plot(steps / steps_per_epoch, schedule.rates(steps, edges), color=BLUE, linewidth=1.5)
    starts = np.array([0, *edges[1:-1]]) if schedule.warms_up_inside else edges[:-1]  # the first begins with a share
    starts = starts[starts < total]
    peaks = schedule.rates(starts, edges)
    ax.plot(starts / steps_per_epoch, peaks, "o", color=ORANGE, markersize=4, label="start of a cycle")
    ax.set_xlabel("epoch" if steps_per_epoch > 1 else "step")
    ax.set_ylabel("learning rate")
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=8, frameon=False)
    _tidy(ax)
    return ax


def plot_search(search: Source | Search, *, kind: str = "trials", ax: Axes | None = None) -> Axes:
    """Draw a search, finished or running, from the folder Keras Tuner wrote.

    Args:
        search: The tuner, or the folder, `directory/project_name` in its arguments.
        kind: What to draw:
            `"trials"`, the objective of each trial and the best so far;
            `"steps"`, the same by the optimizer steps spent up to then, those of range tests included;
            `"bounds"`, the learning rates each trial was trained between, by the hyperparameter `optimizer` if there
            is one, else by the optimizer's class;
            or the name of a hyperparameter, `"cycle_length"` say: the objective against its value.
        ax: Axes to draw on. Defaults to those of a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If no trial has what is to be drawn, or the folder holds no search.
        ImportError: If matplotlib is not installed.

    Example:
    ```python
    autolr.plot_search("runs/mnist", kind="steps").figure.savefig("search.png")
    ```
    """
    found = search if isinstance(search, Search) else read_search(search)
    scored = [trial for trial in found.trials if trial.score is not None and np.isfinite(trial.score)]
    if kind == "bounds":
        drawn = [trial for trial in found.trials if trial.record]
    elif kind == "steps":
        drawn = [trial for trial in scored if trial.steps_trained is not None]
    else:
        drawn = [trial for trial in scored if kind == "trials" or kind in trial.values]
    if not drawn:
        names = sorted({name for trial in scored for name in trial.values})
        raise invalid(
            "kind",
            "be 'trials', 'steps', 'bounds' or a hyperparameter, and some trial must have what it shows",
            kind,
            f"Hyperparameters of trials with a score: {', '.join(names) or 'none'}.",
        )
    ax = new_axes(ax)
    if kind == "bounds":
        _draw_bounds(ax, drawn)
    else:
        ax.set_ylabel(found.objective)
        if kind in ("trials", "steps"):
            _draw_progress(ax, found, drawn, by_steps=kind == "steps")
        else:
            _draw_against(ax, kind, drawn)
    _tidy(ax)
    return ax


def _draw_progress(ax: Axes, search: Search, trials: list[Trial], *, by_steps: bool) -> None:
    scores = np.array([trial.score for trial in trials], dtype=float)
    best = np.maximum.accumulate(scores) if search.direction == "max" else np.minimum.accumulate(scores)
    if by_steps:
        spent = np.cumsum([trial.steps_tested + (trial.steps_trained or 0) for trial in search.trials])
        x = spent[[search.trials.index(trial) for trial in trials]]  # those of trials without a score, too
    else:
        x = np.array([search.trials.index(trial) for trial in trials])  # as Keras Tuner names them
        ax.locator_params(axis="x", integer=True)
    ax.step(x, best, where="post", color=BLUE, linewidth=1.5, label="best so far")
    ax.plot(x, scores, "o", color=GREY, markersize=5, markerfacecolor="none", label="trial")
    if search.best in trials:
        at = trials.index(search.best)
        ax.plot(x[at : at + 1], scores[at : at + 1], "D", color=ORANGE, label=f"best: trial {search.best.trial_id}")
    ax.set_xlabel("optimizer steps, range tests included" if by_steps else "trial")
    ax.legend(fontsize=8, frameon=False)


def _draw_bounds(ax: Axes, trials: list[Trial]) -> None:
    named = [trial.values.get("optimizer") or (trial.record and trial.record.optimizer) for trial in trials]
    group_of = {trial.trial_id: str(name or "all trials") for trial, name in zip(trials, named, strict=True)}
    groups = list(dict.fromkeys(group_of.values()))
    for place, group in enumerate(groups):
        own = [trial for trial in trials if group_of[trial.trial_id] == group]
        for at, trial in zip(place + (np.arange(len(own)) - (len(own) - 1) / 2) * 0.6 / len(own), own, strict=True):
            bounds = trial.record.bounds if trial.record else {}
            good = trial.bounds_in_words == "ok"
            ax.plot(
                [at, at],
                [bounds["min_lr"], bounds["max_lr"]],
                color=BLUE if good else ORANGE,
                linewidth=3 if good else 1.5,
                linestyle="-" if good else ":",
            )
            if len(trials) <= MOST_NAMED:
                under: dict[str, Any] = {
                    "xytext": (0, -3),
                    "textcoords": "offset points",
                    "ha": "center",
                    "va": "top",
                    "fontsize": 7,
                }
                ax.annotate(trial.trial_id.lstrip("0") or "0", (at, bounds["min_lr"]), color=GREY, **under)
    ax.plot([], [], color=BLUE, linewidth=3, label="min_lr to max_lr of a trial")
    if any(trial.bounds_in_words != "ok" for trial in trials):
        ax.plot([], [], color=ORANGE, linewidth=1.5, linestyle=":", label="a guess, or a status other than ok")
    ax.set_yscale("log")
    ax.set_ylabel("learning rate (log scale)")
    slanted = _name_places(ax, groups)
    ax.set_xlim(-0.6, len(groups) - 0.4)
    _legend_outside(ax, above=slanted)


def _draw_against(ax: Axes, name: str, trials: list[Trial]) -> None:
    values = [trial.values[name] for trial in trials]
    scores = np.array([trial.score for trial in trials], dtype=float)
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        choices = sorted(set(values))
        if choices[0] > 0 and choices[-1] >= 20 * choices[0]:  # as if drawn from a logarithmic range
            ax.set_xscale("log")
        ax.plot(values, scores, "o", color=BLUE, markersize=6, alpha=0.6)
        if len(choices) <= 8 and all(map(_is_short, choices)):
            ax.set_xticks(choices, [f"{choice:g}" for choice in choices])
            ax.minorticks_off()
    else:
        names = list(dict.fromkeys(map(str, values)))
        ax.plot([names.index(str(value)) for value in values], scores, "o", color=BLUE, markersize=6, alpha=0.6)
        _name_places(ax, names)
        ax.set_xlim(-0.5, len(names) - 0.5)
    ax.set_xlabel(name)


def _name_places(ax: Axes, names: Sequence[str]) -> bool:
    """Names under the axis, slanted if they would run into each other; whether they are."""
    ax.set_xticks(range(len(names)), names)
    room = LETTERS_OF_NAMES * ax.bbox.width / ax.figure.dpi / max(len(names), 1)
    slanted = max(map(len, names), default=0) >= room
    if slanted:
        ax.set_xticks(ax.get_xticks(), names, rotation=30, ha="right", rotation_mode="anchor")
    return slanted


def _is_short(choice: float) -> bool:
    """Whether a value has been chosen by a person, and so has room under the axis beside others."""
    return len(f"{choice:g}") <= 5


def _tidy(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)
