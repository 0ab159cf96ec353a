"""The recorded curve: frozen, comparable, and whole after a trip through JSON."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolr import RangeTest, find_bounds
from autolr.bursts import Burst


def falling_then_rising() -> RangeTest:
    lrs = np.geomspace(1e-6, 10, 80)
    log = np.log10(lrs)
    return RangeTest(lrs, 2 - 1.5 / (1 + np.exp(-3 * (log + 2.5))) + np.exp(3 * (log - 0.3)), diverged=True)


def test_values_are_frozen_copies():
    lrs, losses = np.array([0.1, 0.2]), np.array([2.0, 1.0])
    test = RangeTest(lrs, losses)
    lrs[0] = losses[0] = 9
    assert test.lrs.tolist() == [0.1, 0.2]
    assert test.losses.tolist() == [2.0, 1.0]
    for array in (test.lrs, test.losses):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        test.diverged = True


def test_lists_and_float32_are_taken():
    test = RangeTest([0.1, 0.2], np.array([2, 1], dtype=np.float32), diverged=np.True_, steps_spent=np.int64(7))
    assert test.losses.dtype == np.float64
    assert (test.diverged, test.steps_spent, len(test)) == (True, 7, 2)
    assert type(test.diverged) is bool
    assert type(test.steps_spent) is int
    with_bursts = RangeTest([0.1, 0.2], [2, 1], bursts=[(0.1, -0.5, np.int64(24))], normalized=np.True_)
    assert with_bursts.bursts == (Burst(0.1, -0.5, 24),)
    assert type(with_bursts.normalized) is bool
    assert type(with_bursts.bursts[0].steps) is int
    assert RangeTest.from_dict(with_bursts.to_dict()) == with_bursts


@pytest.mark.parametrize(
    ("values", "argument"),
    [
        ({"lrs": 1j}, "lrs"),
        ({"lrs": [0.1, 10**400]}, "lrs"),
        ({"losses": "ab"}, "losses"),
        ({"steps_spent": float("nan")}, "steps_spent"),
        ({"steps_spent": -5}, "steps_spent"),
        ({"bursts": None}, "bursts"),
        ({"bursts": [[1]]}, "bursts"),
        ({"bursts": [(0.1, "low", 24)]}, "bursts"),
        ({"bursts": [(0.1, -0.5, math.inf)]}, "bursts"),
    ],
)
def test_values_that_no_test_has_are_refused(values, argument):
    given_ = {"lrs": [0.1, 0.2], "losses": [2, 1], "diverged": False, "steps_spent": 2, "bursts": [], **values}
    for make in (lambda: RangeTest(**given_), lambda: RangeTest.from_dict(given_)):
        with pytest.raises(ValueError, match=rf"^Argument `{argument}` must .*Received: {argument}=") as error:
            make()
        assert not isinstance(error.value, OverflowError)


def test_steps_spent_are_the_points_unless_told():
    assert RangeTest([0.1, 0.2], [2, 1]).steps_spent == 2


@pytest.mark.parametrize(("lrs", "losses"), [([0.1], [1, 2]), ([[0.1]], [[1]]), (0.1, 1.0)])
def test_shapes_that_do_not_fit_are_refused(lrs, losses):
    with pytest.raises(ValueError, match=r"^Arguments `lrs` and `losses` must .*Received: shapes"):
        RangeTest(lrs, losses)


def test_equality_is_of_values_and_nan_equals_nan():
    test = RangeTest([0.1, 0.2], [1, math.nan], diverged=True)
    assert test == RangeTest([0.1, 0.2], [1, math.nan], diverged=True)
    assert test != RangeTest([0.1, 0.2], [1, 2], diverged=True)
    assert test != RangeTest([0.1, 0.3], [1, math.nan], diverged=True)
    assert test != RangeTest([0.1, 0.2], [1, math.nan])
    assert test != RangeTest([0.1, 0.2], [1, math.nan], diverged=True, steps_spent=9)
    assert test != "a curve"
    with pytest.raises(TypeError, match="unhashable"):
        hash(test)


numbers = st.floats(width=64) | st.sampled_from([math.nan, math.inf, -math.inf, 0.1, 5e-324])


@given(st.lists(st.tuples(st.floats(1e-12, 1e3), numbers), max_size=20), st.booleans())
def test_a_curve_survives_strict_json_bit_for_bit(points, diverged):
    test = RangeTest([p[0] for p in points], [p[1] for p in points], diverged=diverged, steps_spent=99)
    text = json.dumps(test.to_dict(), allow_nan=False)
    again = RangeTest.from_dict(json.loads(text))
    assert again == test
    np.testing.assert_array_equal(again.losses, test.losses, strict=True)


def test_values_that_are_no_curve_are_refused():
    with pytest.raises(
        ValueError, match=r"must have losses, steps_spent, bursts\. Received: values=\['diverged', 'lrs'\]\. Give"
    ):
        RangeTest.from_dict({"lrs": [0.1], "diverged": False})


def test_bounds_are_those_of_find_bounds():
    test = falling_then_rising()
    assert test.bounds() == find_bounds(test.lrs, test.losses)
    assert test.bounds(max_ratio=3) == find_bounds(test.lrs, test.losses, max_ratio=3)
    assert test.bounds() != test.bounds(max_ratio=3)


@pytest.mark.parametrize(("points", "confidence"), [(40, "low"), (75, "low"), (85, "high"), (100, "high")])
def test_a_coarse_sweep_without_bursts_is_a_guess(points, confidence):
    lrs = np.geomspace(1e-7, 10, points)
    losses = np.where(lrs < 1e-4, 2.3, np.where(lrs < 0.1, 0.5, 9.0))
    bounds, plain = RangeTest(lrs, losses).bounds(), find_bounds(lrs, losses)
    assert (bounds.confidence, plain.confidence) == (confidence, "high")
    assert tuple(bounds) == tuple(plain)
    assert ("for a guess" in bounds.reason) == (confidence == "low")
    assert bounds.reason == plain.reason or "Use the bounds" not in bounds.reason


def test_plot_draws_the_curve_on_the_given_axes():
    from matplotlib import pyplot

    ax = pyplot.figure().add_subplot()
    assert falling_then_rising().plot(ax=ax) is ax
    assert ax.lines


def test_a_fall_within_rounding_is_none():
    """Losses of a model that NaN has stopped from learning: equal but for the last digits of 32-bit floats."""
    lrs = np.geomspace(1e-7, 10, 100)
    changes = {1e-7: -3e-8, 3e-7: -6e-8, 1e-6: -2e-8}
    bursts = [Burst(rate, change, steps) for steps in (24, 48) for rate, change in changes.items()]
    test = RangeTest(lrs, np.where(lrs < 1e-5, 2.303, 9.0), bursts=tuple(bursts))
    assert test.bounds().status == "small_fall"


class Named(RangeTest):
    pass


def test_copies_cannot_be_written_to_either():
    test = Named([1e-3, 1e-2], [2.0, 1.0], bursts=(Burst(1e-2, -0.5, 24),), normalized=True)
    for twin in (pickle.loads(pickle.dumps(test)), copy.deepcopy(test)):
        assert (twin, type(twin)) == (test, Named)
        with pytest.raises(ValueError, match="read-only"):
            twin.losses[0] = 0.0


def test_a_curve_that_begins_infinite_is_judged_without_a_warning_of_numpys():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert RangeTest([1e-7, 1e-6], [np.inf, np.inf]).untrained_losses().tolist() == [np.inf, np.inf]
