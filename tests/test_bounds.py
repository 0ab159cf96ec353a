import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autolr.bounds import find_bounds, smooth_losses
from autolr.verdicts import STATUSES, LRBounds

RNG = np.random.default_rng


def rates(n=200, start=1e-6, end=10.0):
    return np.geomspace(start, end, n)


def trough(lrs, *, noise=0.0, seed=0, fall_at=1e-3, rise_at=1.0, high=2.3, low=0.5, rise_to=9.0):
    """A loss that falls from `high` to `low` around one rate and jumps to `rise_to` at another."""
    x = np.log10(lrs)
    losses = low + (high - low) / (1 + 10 ** (3 * (x - np.log10(fall_at))))
    losses = np.where(lrs >= rise_at, rise_to, losses)
    return losses + noise * RNG(seed).normal(size=len(lrs))


def test_a_curve_that_is_as_good_as_infinite_is_left_as_it_is():
    losses = np.full(20, -1e217)
    assert find_bounds(rates(20), losses).status == "non_finite"
    np.testing.assert_array_equal(smooth_losses(rates(20), losses), losses)


@st.composite
def sweeps(draw, min_size=2, max_size=60):
    n = draw(st.integers(min_size, max_size))
    gaps = draw(st.lists(st.floats(1e-3, 1.0), min_size=n, max_size=n))
    x = draw(st.floats(-9.0, 0.0)) + np.cumsum(gaps) * min(1.0, 12 / sum(gaps))
    loss = st.one_of(
        st.floats(-10, 10), st.floats(allow_nan=True, allow_infinity=True), st.just(2.3), st.just(float("nan"))
    )
    return 10**x, np.array(draw(st.lists(loss, min_size=n, max_size=n)))


@given(sweeps())
@settings(deadline=None, max_examples=100)
def test_any_curve_gives_finite_ordered_bounds_inside_the_sweep(sweep):
    lrs, losses = sweep
    found = find_bounds(lrs, losses)
    assert lrs[0] <= found.min_lr < found.max_lr <= lrs[-1]
    assert type(found.min_lr) is float
    assert type(found.max_lr) is float
    assert found.status in STATUSES
    assert found.reason.startswith(STATUSES[found.status])
    assert found.confidence in ("high", "medium", "low")
    smoothed = smooth_losses(lrs, losses)
    assert smoothed.shape == losses.shape
    assert np.array_equal(np.isfinite(smoothed), np.isfinite(losses))


@st.composite
def troughs(draw):
    lrs = rates(draw(st.integers(60, 200)))
    fall_at, width = draw(st.floats(-4, -1.5)), draw(st.floats(1, 2))
    noise, seed = draw(st.floats(0, 0.2)), draw(st.integers(0, 1000))
    return lrs, trough(lrs, noise=noise, seed=seed, fall_at=10**fall_at, rise_at=10 ** (fall_at + width))


@given(troughs(), st.floats(1e-3, 1e3), st.floats(-100, 100))
@settings(deadline=None, max_examples=30)
def test_scaling_and_shifting_the_loss_changes_nothing(curve, factor, shift):
    lrs, losses = curve
    found, moved = find_bounds(lrs, losses), find_bounds(lrs, factor * losses + shift)
    assert tuple(moved) == pytest.approx(tuple(found), rel=1e-4)
    assert (moved.status, moved.confidence) == (found.status, found.confidence)


@given(troughs(), st.floats(1e-4, 1e4))
@settings(deadline=None, max_examples=30)
def test_bounds_scale_with_the_rates(curve, factor):
    lrs, losses = curve
    found, moved = find_bounds(lrs, losses), find_bounds(factor * lrs, losses)
    assert tuple(moved) == pytest.approx(tuple(factor * np.array(tuple(found))), rel=1e-4)
    assert moved.status == found.status


# A trough of 0.6 decades has four of 50 steps; with fewer, noise moves the bounds by a fifth of a decade now and then.
@given(st.floats(-4, -1.5), st.floats(0.6, 2), st.integers(0, 100))
@settings(deadline=None, max_examples=15)
def test_number_of_steps_hardly_matters(fall_at, width, seed):
    found = []
    for n in (50, 200, 1000):
        lrs = rates(n)
        losses = trough(lrs, noise=0.05, seed=seed, fall_at=10**fall_at, rise_at=10 ** (fall_at + width))
        found.append(find_bounds(lrs, losses))
    assert {f.status for f in found} == {"ok"}
    assert np.ptp(np.log10([f.max_lr for f in found])) < 0.2
    assert np.ptp(np.log10([f.min_lr for f in found])) < 0.2


@pytest.mark.xfail(
    strict=True, reason="three of 50 steps lie in this trough, and noise moves `min_lr` a quarter decade"
)
def test_number_of_steps_matters_in_the_narrowest_troughs():
    found = [
        find_bounds(lrs, trough(lrs, noise=0.05, seed=13, fall_at=10**-3.7890625, rise_at=10**-3.2890625))
        for lrs in map(rates, (50, 200, 1000))
    ]
    assert np.ptp(np.log10([f.min_lr for f in found])) < 0.2
    assert np.ptp(np.log10([f.max_lr for f in found])) < 0.2


def test_bounds_of_a_curve_worked_out_by_hand():
    """A logistic fall is half done at its centre; `max_lr` is limited by the ratio, then by the rise on both sides."""
    lrs = rates(400)
    wide = find_bounds(lrs, trough(lrs, fall_at=1e-3, rise_at=0.5))
    assert wide.status == "ok"
    assert wide.confidence == "high"
    assert wide.min_lr == pytest.approx(1e-3, rel=0.05)
    assert wide.max_lr == pytest.approx(4e-3, rel=0.05)
    wider = find_bounds(lrs, trough(lrs, fall_at=1e-3, rise_at=4.0))
    assert wider.max_lr == pytest.approx(4.0 / 200, rel=0.05)
    assert wider.min_lr == pytest.approx(wider.max_lr / 4)
    narrow = find_bounds(lrs, trough(lrs, fall_at=1e-3, rise_at=9e-3))
    assert narrow.max_lr == pytest.approx(3e-3, rel=0.1)


def test_parameters_do_what_they_say():
    lrs = rates(400)
    losses = trough(lrs, rise_at=0.5)
    # Three quarters of a logistic of slope 3 decades^-1 are left log10(3) / 3 decades before its centre.
    assert find_bounds(lrs, losses, min_level=0.75).min_lr == pytest.approx(1e-3 * 3 ** (-1 / 3), rel=0.1)
    assert find_bounds(lrs, losses, max_ratio=10).max_lr == pytest.approx(1e-2, rel=0.05)
    assert find_bounds(lrs, losses, max_ratio=1e4, margin=10).max_lr == pytest.approx(0.05, rel=0.1)


def test_only_a_fall_beyond_doubt_lifts_the_bounds_towards_a_far_rise():
    lrs = rates(100)
    far = {"fall_at": 1e-3, "rise_at": 5.0}
    sure, unsure = (find_bounds(lrs, trough(lrs, noise=noise, low=2.0, **far)) for noise in (0.1, 0.3))
    assert (sure.confidence, unsure.confidence) == ("high", "medium")
    assert sure.max_lr == pytest.approx(5.0 / 200, rel=0.2)
    assert unsure.max_lr < 5.0 / 200 / 2


@pytest.mark.parametrize("seed", range(5))
def test_noise_as_large_as_the_fall_moves_the_bounds_little(seed):
    lrs = rates(300)
    found = find_bounds(lrs, trough(lrs, noise=1.8, seed=seed))
    assert found.status == "ok"
    assert abs(np.log10(found.max_lr / 3.8e-3)) < 0.5


def with_spikes(lrs):
    losses = trough(lrs, noise=0.02)
    losses[[1, 7, 20, 55]] = 50.0
    return losses


def with_nan_tail(lrs):
    return np.where(lrs >= 1.0, np.nan, trough(lrs, noise=0.02))


KNOWN = {
    "v_shaped": (lambda x: np.abs(np.log10(x) + 2) + 0.02 * RNG(0).normal(size=len(x)), "ok"),
    "v_without_noise": (lambda x: np.abs(np.log10(x) + 2), "ok"),
    "negative": (lambda x: trough(x, noise=0.02) - 7, "ok"),
    "spikes": (with_spikes, "ok"),
    "nan_tail": (with_nan_tail, "ok"),
    "inf_tail": (lambda x: np.where(x >= 1.0, np.inf, trough(x, noise=0.02)), "ok"),
    "huge_tail": (lambda x: np.where(x >= 1.0, 1e30, trough(x, noise=0.02)), "ok"),
    "pure_noise": (lambda x: RNG(0).normal(size=len(x)), "too_noisy"),
    "constant": (lambda x: np.full(len(x), 2.3), "flat"),
    "constant_zero": (lambda x: np.zeros(len(x)), "flat"),
    "monotone_falling": (lambda x: -np.log10(x) + 0.02 * RNG(0).normal(size=len(x)), "never_diverged"),
    "fell_and_stayed": (lambda x: trough(x, noise=0.02, rise_at=np.inf), "never_diverged"),
    "plateau_then_cliff": (lambda x: np.where(x >= 0.1, 9.0, 2.3) + 0.02 * RNG(0).normal(size=len(x)), "never_fell"),
    "plateau_then_cliff_without_noise": (lambda x: np.where(x >= 0.1, 100.0, 2.3), "never_fell"),
    "zero_then_cliff_without_noise": (lambda x: np.where(x >= 0.1, 1.0, 0.0), "never_fell"),
    "plateau_then_nan": (lambda x: np.where(x >= 0.1, np.nan, 2.3 + 0.02 * RNG(0).normal(size=len(x))), "never_fell"),
    "monotone_rising": (lambda x: np.log10(x) + 0.02 * RNG(0).normal(size=len(x)), "diverged_at_once"),
    "cliff_at_once": (lambda x: np.where(x >= 4e-6, 9.0, 2.3) + 0.02 * RNG(0).normal(size=len(x)), "diverged_at_once"),
    "all_nan": (lambda x: np.full(len(x), np.nan), "non_finite"),
    "nan_after_three": (lambda x: np.where(np.arange(len(x)) < 3, 2.3, np.nan), "non_finite"),
}


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("n", [100, 300])
def test_status_of_known_curves(name, n):
    lrs = rates(n)
    make, status = KNOWN[name]
    found = find_bounds(lrs, make(lrs))
    assert found.status == status, found
    assert lrs[0] <= found.min_lr < found.max_lr <= lrs[-1]
    assert (found.confidence == "low") == (status not in ("ok", "never_diverged"))


def test_spikes_and_the_height_of_the_cliff_do_not_move_the_bounds():
    lrs = rates()
    plain = find_bounds(lrs, trough(lrs, noise=0.02))
    for make in (with_spikes, with_nan_tail, KNOWN["huge_tail"][0]):
        assert tuple(find_bounds(lrs, make(lrs))) == pytest.approx(tuple(plain), rel=0.1)


def test_a_nan_inside_the_sweep_is_left_out():
    lrs = rates()
    losses = trough(lrs, noise=0.02)
    plain = find_bounds(lrs, losses)
    losses[[0, 30, 60]] = np.nan
    holed = find_bounds(lrs, losses)
    assert holed.status == "ok"
    assert tuple(holed) == pytest.approx(tuple(plain), rel=0.05)


def test_without_a_fall_the_bounds_stay_well_below_the_rise():
    lrs = rates()
    found = find_bounds(lrs, KNOWN["plateau_then_cliff"][0](lrs))
    assert 0.1 / 30 < found.max_lr < 0.1 / 10


@given(
    level=st.floats(-1e3, 1e3),
    height=st.floats(1e-3, 1e6),
    decades=st.floats(1.5, 6.5),
    n=st.sampled_from([50, 100, 300, 1000]),
)
def test_a_level_without_noise_has_no_fall(level, height, decades, n):
    """What rounding leaves of its means is none either."""
    lrs = rates(n)
    cliff = lrs[0] * 10**decades
    found = find_bounds(lrs, np.where(lrs >= cliff, level + height, level))
    assert found.status in ("never_fell", "diverged_at_once")
    assert found.max_lr < cliff / 4


@pytest.mark.parametrize("n", [0, 1, 2, 3, 9])
@pytest.mark.parametrize("value", [1.0, np.nan])
def test_few_points(n, value):
    lrs = rates(n) if n > 1 else np.full(n, 1e-3)
    found = find_bounds(lrs, np.full(n, value))
    assert found.status == ("non_finite" if n and np.isnan(value) else "too_few_points")
    assert 0 < found.min_lr < found.max_lr < np.inf
    if n > 1:
        assert lrs[0] <= found.min_lr
        assert found.max_lr <= lrs[-1]
    else:
        assert tuple(found) == (2.5e-4, 1e-3)


@given(
    # Not so close together that no float lies between two.
    lrs=st.lists(st.floats(1.001, 100), min_size=2, max_size=9).map(lambda factors: 1e-7 * np.cumprod(factors)),
    first=st.integers(0, 8),
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
)
def test_without_ten_finite_losses_the_bounds_stay_below_the_first_that_is_not(lrs, first, value):
    losses = np.full(len(lrs), 2.3)
    first = min(first, len(lrs) - 1)
    losses[first:] = value
    found = find_bounds(lrs, losses)
    assert found.status == "non_finite"
    # At the sweep's first rate there is nothing below.
    assert (tuple(found) == (lrs[0], lrs[1])) if first == 0 else (lrs[0] <= found.min_lr < found.max_lr < lrs[first])


def test_few_curves_of_pure_noise_pass():
    rng, lrs = np.random.default_rng(0), np.geomspace(1e-6, 10, 100)
    found = [find_bounds(lrs, rng.normal(size=100)) for _ in range(400)]
    assert sum(each.status != "too_noisy" for each in found) < 0.06 * len(found)


def test_weak_falls_do_not_part_the_bounds():
    """`max_lr` moves with them and is never more than `max_ratio` times `min_lr`."""
    rng, lrs = np.random.default_rng(0), np.geomspace(1e-6, 10, 100)
    curve = trough(lrs, noise=0.0, seed=0, fall_at=1e-4, rise_at=1e-1)
    found = [find_bounds(lrs, curve + rng.normal(scale=1.5 * np.ptp(curve[lrs < 1e-2]), size=100)) for _ in range(100)]
    assert max(each.max_lr / each.min_lr for each in found) <= 4 * (1 + 1e-9)


def test_a_loss_near_the_largest_number_has_diverged_as_an_infinite_one():
    lrs = np.geomspace(1e-6, 10, 100)
    found = [find_bounds(lrs, [2.3] * 5 + [huge] * 95) for huge in (1e150, np.inf)]
    assert found[0] == found[1]
    assert found[0].status == "non_finite"


@pytest.mark.parametrize("lrs", [[1e-200, 1e-190], [1e190, 1e200]])
def test_rates_whose_product_no_float_can_hold(lrs):
    found = find_bounds(lrs, [1.0, 2.0])
    assert lrs[0] <= found.min_lr < found.max_lr <= lrs[1]


@pytest.mark.parametrize(
    ("lrs", "losses", "message"),
    [
        ([1e-3, 1e-2], [1.0], "`losses` must have as many values as `lrs`.*Received: 2 rates, 1 losses"),
        ([[1e-3, 1e-2]], [1.0, 2.0], "`lrs` must be one-dimensional.*Received"),
        ([1e-3, 1e-2], [[1.0, 2.0]], "`losses` must be one-dimensional.*Received"),
        ([1e-2, 1e-3], [1.0, 2.0], "`lrs` must be finite, positive and strictly increasing.*Received"),
        ([1e-3, 1e-3], [1.0, 2.0], "strictly increasing.*2 rates, of which number 2 is 0.001 after 0.001"),
        ([0.0, 1e-3], [1.0, 2.0], "positive"),
        ([-3.0, -2.0], [1.0, 2.0], r"positive.*number 1 is -3\. Of logarithms, give `10\*\*lrs`"),
        ([1e-3, np.nan], [1.0, 2.0], "finite"),
        ([1e-3, np.inf], [1.0, 2.0], "finite"),
        (["low", "high"], [1.0, 2.0], "`lrs` must be a list or an array of numbers.*Received: lrs="),
        ([1e-3, 1e-2], (loss for loss in [1.0, 2.0]), "`losses` must be a list or an array of numbers.*Received"),
        ([1e-3, 1e-2], [1.0 + 1j, 2.0], "`losses` must be a list or an array of numbers.*Received"),
        ([1e-3, 1e-2], [[1.0], 2.0], "`losses` must be a list or an array of numbers.*Received"),
    ],
)
def test_malformed_curves_are_refused(lrs, losses, message):
    for function in (find_bounds, smooth_losses):
        with pytest.raises(ValueError, match=message):
            function(lrs, losses)


@pytest.mark.parametrize("name", ["min_level", "max_ratio", "margin"])
@pytest.mark.parametrize("value", [0.0, -1.0, 1.0, float("nan"), float("inf"), "0.5", None])
def test_malformed_parameters_are_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be .*Received: {name}="):
        find_bounds(rates(), trough(rates()), **{name: value})


def test_bounds_unpack_and_round_trip_through_json():
    found = find_bounds(rates(), trough(rates()))
    low, high = found
    assert (low, high) == (found.min_lr, found.max_lr)
    assert found.ok
    assert LRBounds.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    with pytest.raises(AttributeError):
        found.max_lr = 1.0
    with pytest.raises(ValueError, match="`data` must have min_lr, max_lr, status, reason, confidence"):
        LRBounds.from_dict({"min_lr": 0.1, "max_lr": 1.0})
    for damaged in (None, 5, [], {**found.to_dict(), "confidence": None}, {**found.to_dict(), "min_lr": "0.1"}):
        with pytest.raises(ValueError, match="must "):
            LRBounds.from_dict(damaged)
    assert not find_bounds([], []).ok


def test_smoothing_has_no_lag_and_keeps_a_straight_line_to_its_ends():
    lrs = rates()
    line = 5 - np.log10(lrs)
    np.testing.assert_allclose(smooth_losses(lrs, line)[:-30], line[:-30], rtol=1e-6)
    losses = trough(lrs)
    smoothed = smooth_losses(lrs, losses)
    half = np.argmax(smoothed < (2.3 + 0.5) / 2)
    assert lrs[half] == pytest.approx(1e-3, rel=0.1)


def test_importing_bounds_imports_neither_tensorflow_nor_keras():
    code = "import sys, autolr.bounds; print([m for m in ('tensorflow', 'keras', 'keras_tuner') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("seed", range(10))
def test_a_linear_sweep_is_judged_like_one_in_log_rate(seed):
    """Its first gap is decades wide, and must not blur the rest of the curve."""
    linear = np.linspace(1e-5, 2, 300)
    losses = trough(linear, noise=0.05, seed=seed, fall_at=0.03, rise_at=1.0)
    found, even = find_bounds(linear, losses), find_bounds(rates(300), trough(rates(300), fall_at=0.03, rise_at=1.0))
    assert found.status == "ok"
    assert abs(np.log10(found.max_lr / even.max_lr)) < 0.35
    smoothed = smooth_losses(linear, losses)
    clean = trough(linear, fall_at=0.03, rise_at=1.0)
    inside = (linear > 0.1) & (linear < 0.3)
    assert np.max(np.abs(smoothed - clean)[inside]) < 0.1


def test_errors_of_long_arrays_end_with_what_to_try():
    lrs = np.geomspace(1e-6, 10, 800)
    for wrong in (np.log10(lrs), lrs[::-1], lrs[1:], lrs[:, None], ["x"] * 800):
        with pytest.raises(ValueError, match="Received") as caught:
            find_bounds(wrong, lrs)
        assert len(str(caught.value)) < 500


def test_masked_losses_are_those_of_bad_batches():
    lrs = np.geomspace(1e-6, 10, 100)
    losses = np.where(lrs < 1e-3, 2.3, np.where(lrs < 1, 0.5, 9.0)) + np.random.default_rng(0).normal(size=100) * 0.01
    masked = np.ma.masked_array(losses, mask=(np.arange(100) >= 10) & (np.arange(100) < 30))
    nan = np.where(masked.mask, np.nan, losses)
    masked.data[masked.mask] = -1e6
    assert find_bounds(lrs, masked) == find_bounds(lrs, nan)
    np.testing.assert_array_equal(smooth_losses(lrs, masked), smooth_losses(lrs, nan))


@pytest.mark.parametrize("pair", [(1.0, 0.1), (0.1, 0.1), (0.0, 1.0), (-1.0, 1.0), (0.1, float("inf")), ("a", 1.0)])
def test_bounds_that_are_none_cannot_be_made(pair):
    with pytest.raises(ValueError, match="`min_lr` and `max_lr` must be finite and positive"):
        LRBounds(*pair, "ok", "By eye.", "high")


def test_swapped_bounds_are_guessed():
    with pytest.raises(ValueError, match=r"min_lr=1.0, max_lr=0.1\. Are the two swapped\?"):
        LRBounds(1.0, 0.1, "ok", "By eye.", "high")
    with pytest.raises(ValueError, match=r"max_lr=0.0\. Give two learning rates"):
        LRBounds(0.1, 0.0, "ok", "By eye.", "high")


def test_a_long_curve_is_smoothed_as_a_short_one():
    """Of a hundred thousand points, in a moment and without gigabytes."""
    noise = 0.1 * np.random.default_rng(0).normal(size=100_000)
    lrs = np.geomspace(1e-6, 10, 100_000)
    losses = 2.3 - 1.5 * (lrs > 1e-3) + 8.0 * (lrs > 1) + noise
    long, short = smooth_losses(lrs, losses), smooth_losses(lrs[::250], losses[::250])
    inner = slice(20, -120)
    np.testing.assert_allclose(long[::250][inner], short[inner], atol=0.15)


def test_bounds_of_numpys_numbers_are_pythons_own():
    bounds = LRBounds(np.float32(0.1), np.float64(0.2), "ok", "By eye.", "high")
    assert [type(rate) for rate in bounds] == [float, float]
    assert LRBounds.from_dict(json.loads(json.dumps(bounds.to_dict()))) == bounds
