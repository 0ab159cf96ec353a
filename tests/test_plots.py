"""Pictures: the Axes come back with what they should show, and nothing else happens."""

from __future__ import annotations

import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import pyplot

from autolr import LRBounds, RangeTest, plot_range_test, plot_schedule, sgdr_lr
from autolr.bursts import Burst
from autolr.verdicts import ADVICE, STATUSES


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    pyplot.close("all")


@pytest.fixture
def curve():
    lrs = np.geomspace(1e-6, 10, 80)
    log = np.log10(lrs)
    return RangeTest(lrs, 2 - 1.5 / (1 + np.exp(-3 * (log + 2.5))) + np.exp(3 * (log - 0.3)), diverged=True)


def vertical_lines(ax):
    return {float(line.get_xdata()[0]) for line in ax.lines if len(set(line.get_xdata())) == 1}


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize(
    "edges",
    [
        [],
        [0],
        [0, 5, 3],
        [-5, 10],
        [0.5, 2.0],
        [0, 2**60],
        [0, 10**400],
        "abc",
        None,
        np.array([0, 200, 100], np.uint8),
    ],
)
def test_edges_that_are_none_are_refused(edges):
    with pytest.raises(
        ValueError, match=r"`edges` must be two or more whole numbers from 0 on, rising. Received: edges="
    ):
        plot_schedule(edges, min_lr=0.1, max_lr=1.0)


@pytest.mark.parametrize("argument", ["steps_per_epoch", "total_steps"])
@pytest.mark.parametrize("value", [0, -5, 1.5, "x"])
def test_counts_that_are_none_are_refused(argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must be a positive whole number"):
        plot_schedule([0, 5, 9], min_lr=0.1, max_lr=1.0, **{argument: value})


def test_a_finder_is_drawn_by_its_result(curve):
    finder = SimpleNamespace(result=curve)
    assert plot_range_test(finder).get_title() == plot_range_test(curve).get_title()


def test_two_numbers_are_no_bounds_to_draw(curve):
    with pytest.raises(ValueError, match=r"`bounds` must be an `LRBounds` or None. Received: bounds=\(0.1, 0.2\)"):
        plot_range_test(curve, bounds=(0.1, 0.2))


def test_a_range_test_is_drawn_with_its_bounds(curve):
    ax = plot_range_test(curve)
    bounds = curve.bounds()
    assert {bounds.min_lr, bounds.max_lr} <= vertical_lines(ax)
    assert f"min_lr {bounds.min_lr:.2e}" in legend(ax)
    assert f"max_lr {bounds.max_lr:.2e}" in legend(ax)
    assert bounds.status in ax.get_title()
    assert ax.get_xscale() == "log"
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    points = next(line for line in ax.lines if line.get_marker() == ".")
    np.testing.assert_array_equal(points.get_xdata(), curve.lrs)
    np.testing.assert_array_equal(points.get_ydata(), curve.losses)


def test_bounds_may_be_given(curve):
    ax = plot_range_test(curve, bounds=LRBounds(0.002, 0.03, "ok", "By eye.", "high"))
    assert {0.002, 0.03} <= vertical_lines(ax)
    assert "By eye." in ax.get_title()


def test_what_is_to_be_done_is_left_to_the_verdict(curve):
    bounds = plot_range_test(curve).get_title().replace("\n", " ")
    assert curve.bounds().reason.startswith(bounds.partition(": ")[2])
    assert "Use the bounds" not in bounds


def test_given_axes_are_drawn_on_and_no_others(curve):
    ax = pyplot.figure().add_subplot()
    assert plot_range_test(curve, ax=ax) is ax
    assert plot_schedule([0, 10], min_lr=0.1, max_lr=1, ax=ax) is ax
    assert len(pyplot.get_fignums()) == 1


def test_nothing_is_shown_or_printed(curve, capsys, monkeypatch):
    monkeypatch.setattr(pyplot, "show", lambda *args, **kwargs: pytest.fail("shown"))
    plot_range_test(curve)
    plot_schedule([0, 10], min_lr=0.1, max_lr=1)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "losses",
    [
        [math.nan] * 30,
        [2.0] * 30,
        [2.0] * 10 + [math.inf] * 20,
        list(np.geomspace(1, 1e30, 30)),
        [*-np.geomspace(1, 2, 29), math.nan],
    ],
)
def test_ugly_curves_can_be_drawn(losses):
    ax = plot_range_test(RangeTest(np.geomspace(1e-6, 1, 30), losses))
    ax.figure.canvas.draw()
    assert np.all(np.isfinite(ax.get_ylim()))


@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_short_curves_can_be_drawn(num_steps):
    ax = plot_range_test(RangeTest(np.geomspace(1e-6, 1, 3)[:num_steps], [3.0, 2.0, 1.0][:num_steps]))
    ax.figure.canvas.draw()


def test_the_blow_up_does_not_flatten_the_rest(curve):
    exploded = RangeTest(curve.lrs, np.where(curve.lrs > 5, 1e12, curve.losses))
    assert plot_range_test(exploded).get_ylim()[1] < 100


def test_a_schedule_is_drawn_step_by_step_with_its_restarts():
    ax = plot_schedule([0, 10, 25], min_lr=0.1, max_lr=1.0, lr_decay=0.5, steps_per_epoch=5)
    rates, peaks = ax.lines
    expected = sgdr_lr(
        np.arange(25), min_lr=0.1, max_lr=1.0, lr_decay=0.5, cycle_length=2, mult_factor=1.5, steps_per_epoch=5
    )
    np.testing.assert_array_equal(rates.get_ydata(), expected)
    np.testing.assert_allclose(rates.get_xdata(), np.arange(25) / 5)
    assert peaks.get_xdata().tolist() == [0, 2]
    assert peaks.get_ydata().tolist() == [1.0, 0.5]
    assert ax.get_xlabel() == "epoch"
    assert plot_schedule([0, 10], min_lr=0.1, max_lr=1.0).get_xlabel() == "step"


def test_of_a_very_long_schedule_enough_steps_are_drawn():
    edges = [0, 7, 10**9]
    rates, _ = plot_schedule(edges, min_lr=0.1, max_lr=1.0).lines
    steps = rates.get_xdata()
    assert len(steps) < 50_000
    assert {0, 6, 7, 10**9 - 1} <= set(steps)
    assert np.max(np.abs(np.diff(rates.get_ydata()[steps >= 7]))) < 1e-3


def test_without_matplotlib_the_error_names_the_command():
    code = """
import sys
sys.modules["matplotlib"] = None
import autolr
try:
    autolr.plot_range_test(autolr.RangeTest([1e-3, 1e-2], [2.0, 1.0]))
except ImportError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert "pip install matplotlib" in result.stdout


def test_losses_that_are_not_finite_are_marked_at_the_top():
    losses = [2.0] * 15 + [math.nan, math.inf] * 5
    ax = plot_range_test(RangeTest(np.geomspace(1e-6, 1, 25), losses))
    (crosses,) = (line for line in ax.lines if line.get_marker() == "x")
    assert crosses.get_xdata().tolist() == np.geomspace(1e-6, 1, 25)[15:].tolist()
    in_axes = ax.transAxes.inverted().transform(crosses.get_transform().transform(crosses.get_xydata()))
    assert in_axes[:, 1] == pytest.approx(1)
    assert "not finite" in legend(ax)


@pytest.mark.parametrize("width", [4, 7, 12])
def test_a_long_verdict_stays_within_the_picture(curve, width):
    figure, ax = pyplot.subplots(figsize=(width, 4.2), layout="constrained")
    bounds = LRBounds(0.002, 0.03, "small_fall", f"{STATUSES['small_fall']} {ADVICE['small_fall']}", "low")
    plot_range_test(curve, bounds=bounds, ax=ax)
    figure.canvas.draw()
    title = ax.title.get_window_extent()
    assert title.x0 > 0
    assert title.x1 < figure.bbox.width
    assert title.y1 < figure.bbox.height


def test_nothing_is_drawn_under_the_legend(curve):
    ax = plot_range_test(curve)
    ax.figure.canvas.draw()
    box = ax.get_legend().get_window_extent()
    assert box.y1 < ax.xaxis.label.get_window_extent().y0
    assert box.y0 >= 0  # and it is on the picture, which makes room for it
    plain = pyplot.figure().add_subplot()
    plot_range_test(curve, ax=plain).figure.canvas.draw()
    assert plain.get_legend().get_window_extent().y0 > plain.get_window_extent().y0  # that one does not


def test_a_warm_up_that_is_a_share_begins_the_first_cycle():
    ax = plot_schedule([10, 50, 100], min_lr=0.1, max_lr=1.0, warmup=0.1)
    starts = ax.lines[1]
    assert starts.get_xdata().tolist() == [0, 50]
    assert starts.get_ydata() == pytest.approx([0.1, 1.0], abs=0.1)


def test_bursts_are_drawn_inside_the_picture_and_diverged_ones_at_its_top():
    lrs = np.geomspace(1e-6, 1, 60)
    losses = np.where(lrs < 1e-3, 2.3, np.where(lrs < 0.1, 2.0, 9.0))
    bursts = (Burst(1e-3, -2.1, 24), Burst(1e-2, -0.1, 24), Burst(1e-1, np.inf, 24))
    ax = plot_range_test(RangeTest(lrs, losses, bursts=bursts))
    bottom, top = ax.get_ylim()
    heights = [y for line in ax.lines if line.get_marker() in ("D", "X") for y in line.get_ydata()]
    assert heights == pytest.approx([0.2, 2.2, top])
    assert bottom < 0.2


def test_the_legend_tells_longer_bursts_from_shorter_ones():
    lrs = np.geomspace(1e-6, 1, 60)
    bursts = (Burst(1e-3, np.inf, 48), Burst(1e-3, -0.1, 24), Burst(1e-2, -0.1, 24), Burst(1e-2, -0.2, 48))
    legend = plot_range_test(RangeTest(lrs, lrs, bursts=bursts)).get_legend()
    sizes = {
        text.get_text(): handle.get_markersize()
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
        if "bursts" in text.get_text()
    }
    assert list(sizes) == ["bursts of 24 steps", "bursts of 48 steps"]
    assert sizes["bursts of 24 steps"] < sizes["bursts of 48 steps"]
