"""The schedule's arithmetic, against tables worked out by hand and a loop that cannot be wrong."""

from __future__ import annotations

import math
import warnings
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autolr import sgdr_lr
from autolr.cycles import cycle_edges, fitted_edges
from autolr.sgdr import ONE_CYCLE_FLOOR, SHAPES, Schedule

# The schedule of the method's source, here with five steps an epoch: cycles of 3, 5, 8 and 12 epochs.
METHOD = {"min_lr": 0.1, "max_lr": 2.0, "cycle_length": 3, "mult_factor": 1.5, "lr_decay": 0.9, "steps_per_epoch": 5}
METHOD_EDGES = [0, 15, 40, 80, 140]


def naive(num_steps, *, min_lr, max_lr, cycle_length, mult_factor, lr_decay, steps_per_epoch):
    """The method as one would do it with pen and paper, one step after the other."""
    rates, begin, length, peak = [], 0, cycle_length, max_lr
    for step in range(num_steps):
        if step == begin + length * steps_per_epoch:
            begin, length = step, math.ceil(length * Decimal(str(mult_factor)))
            peak = max(min_lr, peak * lr_decay)
        done = (step - begin) / (length * steps_per_epoch)
        rates.append(min_lr + 0.5 * (peak - min_lr) * (1 + math.cos(math.pi * done)))
    return rates


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 2.0),
        (5, 0.1 + 1.9 * 0.75),  # a third of the cycle: (1 + cos 60°) / 2
        (10, 0.1 + 1.9 * 0.25),
        (14, 0.1 + 1.9 * 0.5 * (1 + math.cos(math.pi * 14 / 15))),
        (15, 1.8),  # the restart is at the peak, decayed once
        (16, 0.1 + 1.7 * 0.5 * (1 + math.cos(math.pi / 25))),
        (39, 0.1 + 1.7 * 0.5 * (1 + math.cos(math.pi * 24 / 25))),
        (40, 1.62),
        (60, 0.1 + 1.52 * 0.5),  # half of the third cycle
        (80, 1.458),
        (110, 0.1 + 1.358 * 0.5),
        (139, 0.1 + 1.358 * 0.5 * (1 + math.cos(math.pi * 59 / 60))),
        (140, 1.3122),
    ],
)
def test_the_methods_schedule_worked_by_hand(step, rate):
    assert sgdr_lr(step, **METHOD) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize("edge", METHOD_EDGES)
@pytest.mark.parametrize("off", [-1, 0, 1])
def test_boundaries_agree_with_a_naive_loop(edge, off):
    step = edge + off
    if step >= 0:
        assert sgdr_lr(step, **METHOD) == pytest.approx(naive(step + 1, **METHOD)[step], rel=1e-12)


def test_cycles_of_the_method_are_3_5_8_and_12_epochs():
    edges = cycle_edges(100, cycle_length=3, mult_factor=1.5, steps_per_epoch=5)
    assert edges.tolist() == METHOD_EDGES
    assert edges.dtype == np.int64


def test_defaults_are_the_methods():
    edges = [0, 10, 30, 70]
    rates = sgdr_lr(edges, min_lr=0.0, max_lr=1.0, steps_per_epoch=1)
    np.testing.assert_array_equal(rates, np.ones(4))


@pytest.mark.parametrize(
    ("length", "factor", "next_length"),
    [(10, 1.1, 11), (100, 1.1, 110), (10, 1.3, 13), (5, 1.2, 6), (3, 1.5, 5), (1, 1.01, 2), (7, 3, 21), (10, 1.11, 12)],
)
def test_the_factor_is_taken_as_written(length, factor, next_length):
    # In binary floating point 10 * 1.1 is 11.000000000000002, whose ceiling is 12.
    edges = cycle_edges(length, cycle_length=length, mult_factor=factor, steps_per_epoch=1)
    assert np.diff(edges).tolist() == [length, next_length]


@pytest.mark.parametrize("step", ["a", ["1"], None, [None], 1j, np.datetime64("2020-01-01"), [np.timedelta64(1, "s")]])
def test_steps_that_are_no_numbers_are_refused(step):
    with pytest.raises(ValueError, match=r"`step` must be a number or an array of numbers. Received: step="):
        sgdr_lr(step, **METHOD)


def test_a_cycle_shorter_than_a_step_has_a_rate():
    """As two cycles of one batch each are, if four batches make a step."""
    schedule = Schedule(min_lr=0.1, max_lr=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.all(np.isfinite(schedule.rates(np.arange(4), np.array([0, 1, 1, 2]))))


def test_powers_of_three_restart_on_the_step():
    # Flooring a logarithm restarts a step early at the fifth restart for a factor of 3, as torch and timm do.
    edges = cycle_edges(10**6, cycle_length=1, mult_factor=3, steps_per_epoch=1)
    assert edges.tolist() == [(3**n - 1) // 2 for n in range(len(edges))]
    rates = sgdr_lr(edges, min_lr=0.0, max_lr=1.0, cycle_length=1, mult_factor=3, steps_per_epoch=1)
    assert np.all(rates == 1.0)


def test_a_million_steps_agree_with_a_naive_loop():
    steps = 1_000_000
    schedule = {**METHOD, "steps_per_epoch": 469}
    np.testing.assert_allclose(sgdr_lr(np.arange(steps), **schedule), naive(steps, **schedule), rtol=1e-9)


def test_an_array_of_any_shape_gives_what_its_numbers_give():
    steps = np.arange(144).reshape(2, 9, 8)
    rates = sgdr_lr(steps, **METHOD)
    assert rates.shape == steps.shape
    assert rates.dtype == np.float64
    for step, rate in zip(steps.flat, rates.flat, strict=True):
        alone = sgdr_lr(int(step), **METHOD)
        assert isinstance(alone, float)
        assert alone == rate
    assert sgdr_lr([], **METHOD).shape == (0,)


def test_the_order_of_the_steps_does_not_matter():
    steps = np.random.default_rng(0).permutation(200)
    np.testing.assert_array_equal(sgdr_lr(steps, **METHOD), sgdr_lr(np.arange(200), **METHOD)[steps])


def test_decay_never_takes_the_peak_below_min_lr():
    schedule = {"min_lr": 0.3, "max_lr": 1.0, "cycle_length": 2, "mult_factor": 1, "lr_decay": 0.5}
    peaks = sgdr_lr(np.arange(0, 12, 2), **schedule, steps_per_epoch=1)
    assert peaks.tolist() == [1.0, 0.5, 0.3, 0.3, 0.3, 0.3]
    assert np.all(sgdr_lr(np.arange(100), **schedule, steps_per_epoch=1) >= 0.3)


def test_a_budget_is_divided_in_the_cycles_proportions():
    # 3 and 5 of 10 epochs are whole cycles, the third would end after 16. 3/8 of 10 epochs are four, to a whole one.
    edges = fitted_edges(1000, cycle_length=3, mult_factor=1.5, steps_per_epoch=100)
    assert edges.tolist() == [0, 400, 1000]


def test_a_budget_of_whole_cycles_is_left_as_it_is():
    assert fitted_edges(80, cycle_length=3, mult_factor=1.5, steps_per_epoch=5).tolist() == [0, 15, 40, 80]
    assert fitted_edges(79, cycle_length=3, mult_factor=1.5, steps_per_epoch=5)[-2:].tolist() == [30, 79]


@pytest.mark.parametrize("cycle_length", [10, 11, 100, 10**9])
def test_one_cycle_when_the_budget_holds_no_more(cycle_length):
    edges = fitted_edges(70, cycle_length=cycle_length, mult_factor=2, steps_per_epoch=7)
    assert edges.tolist() == [0, 70]


def test_a_fitted_schedule_ends_at_min_lr_and_stays_there():
    rates = sgdr_lr(np.arange(0, 120), **METHOD, total_steps=100)
    edges = np.array([0, 20, 50, 100])  # 3, 8 and 16 of 16 epochs, stretched to 20
    schedule = Schedule(min_lr=0.1, max_lr=2, lr_decay=0.9)
    np.testing.assert_array_equal(rates, schedule.rates(np.arange(120), edges))
    assert rates[[0, 20, 50]].tolist() == [2.0, 1.8, 2 * 0.9**2]
    assert 0.1 < rates[99] < 0.102
    assert np.all(rates[100:] == 0.1)


def test_equal_bounds_are_a_constant_rate():
    rates = sgdr_lr(np.arange(100), min_lr=0.1, max_lr=0.1, cycle_length=7, lr_decay=0.9, steps_per_epoch=3)
    np.testing.assert_allclose(rates, 0.1, rtol=1e-15)


rates_in_order = st.tuples(st.floats(0, 10, allow_subnormal=False), st.floats(1e-9, 10, allow_subnormal=False)).map(
    lambda pair: {"min_lr": min(pair), "max_lr": max(pair)}
)
cycles = st.fixed_dictionaries(
    {
        "cycle_length": st.integers(1, 30),
        "mult_factor": st.one_of(st.just(1.0), st.floats(1, 3), st.sampled_from([1.1, 1.5, 2, 3])),
        "steps_per_epoch": st.integers(1, 50),
    }
)
decays = st.floats(0.01, 1)


@given(rates_in_order, cycles, decays, st.integers(1, 3000))
def test_rates_stay_within_the_bounds(bounds, cycles, decay, steps):
    rates = sgdr_lr(np.arange(steps), **bounds, **cycles, lr_decay=decay)
    # A rounding error may be of either sign; nothing larger may.
    assert rates.min() >= bounds["min_lr"] * (1 - 1e-15)
    assert rates.max() <= bounds["max_lr"] * (1 + 1e-15)


@given(rates_in_order, cycles, decays, st.integers(1, 3000))
def test_each_restart_is_exactly_at_its_peak(bounds, cycles, decay, steps):
    edges = cycle_edges(steps, **cycles)
    peaks = np.maximum(bounds["min_lr"], bounds["max_lr"] * decay ** np.arange(len(edges)))
    np.testing.assert_array_equal(sgdr_lr(edges, **bounds, **cycles, lr_decay=decay), peaks)


@given(rates_in_order, cycles, st.integers(1, 2000))
def test_the_rate_falls_inside_a_cycle(bounds, cycles, steps):
    for begin, end in np.lib.stride_tricks.sliding_window_view(cycle_edges(steps, **cycles), 2)[:5]:
        rates = sgdr_lr(np.arange(begin, end), **bounds, **cycles)
        assert np.all(np.diff(rates) <= 1e-15 * bounds["max_lr"])


@given(cycles, st.integers(0, 10**6))
def test_edges_are_increasing_and_reach_past_the_step(cycles, steps):
    edges = cycle_edges(steps, **cycles)
    assert edges[0] == 0
    assert edges[-1] > steps >= edges[-2]
    lengths = np.diff(edges)
    assert np.all(lengths > 0)
    assert np.all(np.diff(lengths) >= 0)
    assert np.all(lengths % cycles["steps_per_epoch"] == 0)


@given(cycles, st.integers(1, 10**6))
def test_fitted_edges_are_increasing_and_end_on_the_last_step(cycles, total_steps):
    edges = fitted_edges(total_steps, **cycles)
    assert edges[0] == 0
    assert edges[-1] == total_steps
    assert np.all(np.diff(edges) > 0)
    first = cycles["cycle_length"] * cycles["steps_per_epoch"]
    assert (len(edges) == 2) or first < total_steps


@given(cycles, st.integers(1, 300))
def test_a_budget_of_whole_epochs_is_divided_into_whole_epochs(cycles, epochs):
    edges = fitted_edges(epochs * cycles["steps_per_epoch"], **cycles)
    assert np.all(edges % cycles["steps_per_epoch"] == 0)
    assert np.all(np.diff(edges) > 0)
    assert edges[-1] == epochs * cycles["steps_per_epoch"]


def test_a_cycle_beyond_any_budget_is_still_one_cycle():
    # The product of the three overflows 64 bits.
    edges = fitted_edges(10**6 + 1, cycle_length=10**9, mult_factor=2, steps_per_epoch=10**4)
    assert edges.tolist() == [0, 10**6 + 1]


SMITH = {"min_lr": 0.1, "max_lr": 0.9, "cycle_length": 4, "mult_factor": 1, "steps_per_epoch": 1}


@pytest.mark.parametrize(
    ("shape", "rates"),
    [
        ("triangular", [0.1, 0.5, 0.9, 0.5, 0.1, 0.5, 0.9, 0.5, 0.1]),
        ("triangular2", [0.1, 0.5, 0.9, 0.5, 0.1, 0.3, 0.5, 0.3, 0.1]),  # 0.8 above min_lr, then 0.4
    ],
)
def test_triangles_worked_by_hand(shape, rates):
    np.testing.assert_allclose(sgdr_lr(np.arange(9), **SMITH, shape=shape), rates, rtol=1e-12)


def test_triangles_grow_and_decay_as_cosines_do():
    rates = sgdr_lr([0, 2, 4, 8, 12, 20], **{**SMITH, "mult_factor": 2}, lr_decay=0.5, shape="triangular")
    np.testing.assert_allclose(rates, [0.1, 0.9, 0.1, 0.45, 0.1, 0.225], rtol=1e-12)


def test_one_cycle_worked_by_hand():
    one = {"min_lr": 0.1, "max_lr": 1.0, "steps_per_epoch": 10, "shape": "one_cycle"}
    # 20 steps: up to the peak at 9, back at 18, then down to a hundredth at 20, where it stays.
    rates = sgdr_lr([0, 3, 9, 15, 18, 19, 20, 1000], **one, cycle_length=2)
    np.testing.assert_allclose(rates, [0.1, 0.4, 1.0, 0.4, 0.1, 0.0505, 0.001, 0.001], rtol=1e-12)
    np.testing.assert_array_equal(sgdr_lr([0, 3, 9], **one, total_steps=20), rates[:3])  # whatever the cycle's length
    assert sgdr_lr(9, **one, total_steps=20, cycle_length=7, mult_factor=3, lr_decay=0.5) == 1.0


@pytest.mark.parametrize("shape", SHAPES)
def test_warm_up_is_a_straight_line_in_front_of_any_shape(shape):
    schedule = {**METHOD, "shape": shape}
    plain, warmed = sgdr_lr(np.arange(200), **schedule), sgdr_lr(np.arange(210), **schedule, warmup=2)
    np.testing.assert_array_equal(warmed[10:], plain)
    np.testing.assert_allclose(warmed[:11], plain[0] * np.arange(1, 12) / 11, rtol=1e-12)


def test_a_budget_includes_the_warm_up():
    rates = sgdr_lr(np.arange(130), **METHOD, total_steps=110, warmup=2)
    np.testing.assert_array_equal(rates[10:], sgdr_lr(np.arange(120), **METHOD, total_steps=100))
    with pytest.raises(ValueError, match=r"^Argument `warmup` must be shorter than the training, 2 epochs"):
        sgdr_lr(0, **METHOD, total_steps=10, warmup=2)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_share_of_warm_up_begins_the_first_cycle_and_moves_no_restart(shape):
    schedule = {**METHOD, "cycle_length": 10, "mult_factor": 1.0, "shape": shape, "total_steps": 100}
    plain, warmed = sgdr_lr(np.arange(120), **schedule), sgdr_lr(np.arange(120), **schedule, warmup=0.1)
    first = 100 if shape == "one_cycle" else 50  # the step after the first cycle
    np.testing.assert_array_equal(warmed[first:], plain[first:])
    np.testing.assert_allclose(np.diff(warmed[:11], prepend=schedule["min_lr"]), (warmed[10] - METHOD["min_lr"]) / 11)
    shortened = {**schedule, "total_steps": None, "mult_factor": 1.0, "cycle_length": 1, "steps_per_epoch": first - 10}
    np.testing.assert_array_equal(warmed[10:first], sgdr_lr(np.arange(first - 10), **shortened))


def test_a_share_of_warm_up_takes_no_more_than_half_of_the_first_cycle():
    schedule = {**METHOD, "cycle_length": 1, "mult_factor": 1.0, "total_steps": 100}  # cycles of five steps
    rates = sgdr_lr(np.arange(100), **schedule, warmup=0.5)
    assert int(np.argmax(rates)) == 2
    np.testing.assert_array_equal(rates[5:], sgdr_lr(np.arange(5, 100), **schedule))


def test_a_share_of_warm_up_needs_an_end():
    with pytest.raises(ValueError, match=r"(?s)^Argument `warmup` must .*Received: warmup=0\.1.*total_steps"):
        sgdr_lr(0, **METHOD, warmup=0.1)


@given(rates_in_order, cycles, decays, st.floats(0.001, 0.999), st.integers(1, 1000))
def test_a_share_of_warm_up_never_leaves_the_bounds(bounds, cycles, decay, share, total):
    rates = sgdr_lr(np.arange(total + 5), **bounds, **cycles, lr_decay=decay, total_steps=total, warmup=share)
    assert rates.max() <= bounds["max_lr"] * (1 + 1e-15)
    assert rates.min() >= bounds["min_lr"] * (1 - 1e-12)


@given(rates_in_order, cycles, decays, st.sampled_from(SHAPES), st.integers(0, 5))
def test_no_shape_leaves_the_bounds(bounds, cycles, decay, shape, warmup):
    rates = sgdr_lr(np.arange(1000), **bounds, **cycles, lr_decay=decay, shape=shape, warmup=warmup)
    assert rates.max() <= bounds["max_lr"] * (1 + 1e-15)
    lowest = ONE_CYCLE_FLOOR if shape == "one_cycle" else 1
    assert rates[warmup * cycles["steps_per_epoch"] :].min(initial=np.inf) >= lowest * bounds["min_lr"] * (1 - 1e-12)
    assert rates.min() >= 0


def test_edges_beyond_64_bits_are_cut_off():
    assert np.all(np.diff(cycle_edges(10**6, cycle_length=1, mult_factor=1e300, steps_per_epoch=10**6)) > 0)


def test_counts_as_large_as_a_float_can_tell_are_exact_and_larger_ones_refused():
    edges = fitted_edges(6_000_000_000, cycle_length=1, mult_factor=2, steps_per_epoch=500_000_001)
    assert edges[-1] == 6_000_000_000
    assert np.all(np.diff(edges) > 0)
    for mult_factor in (1, 2):
        for shape in SHAPES:
            far = {"cycle_length": 2**53, "mult_factor": mult_factor, "steps_per_epoch": 2**53, "shape": shape}
            assert sgdr_lr([0, 2**53], min_lr=0.5, max_lr=1, **far).shape == (2,)


GOOD = {**METHOD, "step": 0}


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("min_lr", -0.1),
        ("min_lr", "0.1"),
        ("max_lr", None),
        ("cycle_length", "3"),
        ("warmup", None),
        ("min_lr", math.nan),
        ("min_lr", 3.0),  # above max_lr
        ("max_lr", 0.0),
        ("max_lr", math.inf),
        ("cycle_length", 0),
        ("cycle_length", 2.5),
        ("cycle_length", True),
        ("mult_factor", 0.5),
        ("mult_factor", math.nan),
        ("mult_factor", math.inf),
        ("lr_decay", 0.0),
        ("lr_decay", 1.1),
        ("lr_decay", math.nan),
        ("steps_per_epoch", 0),
        ("steps_per_epoch", 1.5),
        ("step", -1),
        ("step", [0, -1]),
        ("step", math.nan),
        ("total_steps", 0),
        ("total_steps", 2.5),
        ("shape", "square"),
        ("shape", np.array(["cosine", "cosine"])),
        ("step", 1e19),
        ("total_steps", 10**19),
        ("cycle_length", 10**19),
        ("warmup", -1),
        ("warmup", 0.5),
        ("warmup", 1.5),
    ],
)
def test_a_bad_argument_is_named_with_what_was_received(argument, value):
    with pytest.raises(ValueError, match=rf"^Argument `{argument}` must .*Received: .*{argument}="):
        sgdr_lr(**{**GOOD, argument: value})


def test_swapped_bounds_are_guessed():
    with pytest.raises(ValueError, match="swapped"):
        sgdr_lr(0, **{**METHOD, "min_lr": 2.0, "max_lr": 0.1})
