"""When a range test ends: a loss that has come apart, however it is scaled, and nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autolr.divergence import has_diverged


def sweep(noise=0.0, seed=0, scale=1.0, shift=0.0):
    """Losses of a whole sweep: level at 2, down to 1, and up to 30."""
    t = np.linspace(0, 1, 100)
    losses = 2 - 1 / (1 + np.exp(-30 * (t - 0.4))) + 30 * np.maximum(0, t - 0.7) ** 1.5
    losses = losses + noise * np.random.default_rng(seed).normal(size=100)
    return scale * losses + shift


def first_divergence(losses):
    """The step at which a sweep would stop."""
    return next((n for n in range(1, len(losses) + 1) if has_diverged(losses[:n])), None)


def test_a_sweep_ends_soon_after_the_loss_has_risen_above_its_start():
    end = first_divergence(sweep())
    rose = int(np.flatnonzero(sweep() > 3)[0])
    assert rose <= end <= rose + 5


@pytest.mark.parametrize("seed", range(5))
def test_noise_moves_the_end_by_little(seed):
    assert abs(first_divergence(sweep(noise=0.1, seed=seed)) - first_divergence(sweep())) <= 6


@given(st.floats(1e-6, 1e6), st.floats(-1e4, 1e4), st.integers(0, 20))
def test_scale_and_shift_of_the_loss_do_not_matter(scale, shift, seed):
    assume(abs(shift) < 1e6 * scale)  # else the curve drowns in rounding
    losses = sweep(noise=0.05, seed=seed)
    assert first_divergence(scale * losses + shift) == first_divergence(losses)


@pytest.mark.parametrize("digit", [np.spacing(np.float32(1)), 3e-7])
def test_the_last_digit_of_equal_losses_is_no_divergence(digit):
    """Losses of half precision are equal for many steps."""
    losses = [1.0] * 12 + [1.0 + float(digit)] * 3
    assert first_divergence(losses) is None
    assert first_divergence([*losses, *[3.0] * 3]) is not None


def test_a_noisy_batch_among_the_first_is_no_divergence():
    """Recorded at rates from 1e-7 to 7e-6: the model had not begun to move."""
    losses = [0.628, 0.665, 0.682, 0.681, 0.690, 0.651, 0.664, 0.855, 0.758, 0.758]
    assert first_divergence(losses) is None
    assert first_divergence([*losses, *[9.0] * 5]) is not None


def test_a_network_that_comes_apart_for_three_steps_and_is_dead_then_ends_a_coarse_sweep():
    """Targets of no scale: at four points in a decade, ReLUs are torn apart and all zero within one."""
    level = 3e5 + 4e4 * np.random.default_rng(0).normal(size=14)
    assert first_divergence([*level, 1e9, 1e12, 1e15, 5e4, 5e4]) == 17


@pytest.mark.parametrize("draw", ["normal", "lognormal"])
def test_losses_that_stay_level_do_not_end_a_sweep(draw):
    sweeps = getattr(np.random.default_rng(0), draw)(size=(400, 30))
    assert not any(first_divergence(losses) for losses in sweeps)


@pytest.mark.parametrize("share", [0.1, 0.2, 0.35, 0.5])
def test_batches_that_a_trained_model_gets_wrong_rarely_end_a_sweep(share):
    """Most losses are next to nothing, and some are not: whatever the rate, as long as it is low."""
    rng = np.random.default_rng(0)
    sweeps = np.where(rng.random((40, 80)) < share, rng.gamma(2, 0.5, (40, 80)), 0.003 * rng.random((40, 80)))
    assert np.mean([first_divergence(losses) is not None for losses in sweeps]) <= 0.15
    assert all(first_divergence([*losses, *np.geomspace(2, 1e6, 20)]) is not None for losses in sweeps)


def test_negative_losses_are_judged_alike():
    losses = sweep(shift=-100)
    assert np.all(losses < 0)
    assert first_divergence(losses) == first_divergence(sweep())


def test_a_loss_that_goes_down_through_zero_has_not_diverged():
    assert first_divergence(np.linspace(1, -5, 100)) is None


@pytest.mark.parametrize("at", [0, 1, 20, 50])
@pytest.mark.parametrize("width", [1, 2])
def test_a_spike_does_not_end_a_sweep(at, width):
    losses = 2 - np.linspace(0, 1, 60) + 0.01 * np.random.default_rng(0).normal(size=60)
    losses[at : at + width] += 1000
    assert first_divergence(losses) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("before", [0, 1, 30])
def test_a_loss_that_is_not_finite_ends_it_at_once(bad, before):
    assert has_diverged([2.0] * before + [bad])


@pytest.mark.parametrize("seed", range(20))
def test_flat_noise_does_not_end_a_sweep(seed):
    losses = 2.3 + 0.2 * np.random.default_rng(seed).normal(size=100)
    assert first_divergence(losses) is None


@given(st.floats(-1e6, 1e6))
def test_a_constant_loss_has_not_diverged(value):
    assert not has_diverged([value] * 50)


@pytest.mark.parametrize("losses", [[], [1.0], [1.0, 1e9], list(np.geomspace(1, 1e9, 9))])
def test_a_few_finite_losses_are_too_few_to_tell(losses):
    assert not has_diverged(losses)


def test_a_rise_from_the_first_steps_on_ends_it():
    assert first_divergence([2.0] * 8 + list(np.linspace(2, 50, 30))) is not None


def test_a_rise_smaller_than_the_fall_does_not():
    losses = [*np.linspace(3, 1, 40), *np.linspace(1, 4.5, 40)]
    assert first_divergence(losses) is None


def test_the_answer_is_a_plain_bool():
    assert type(has_diverged([1.0] * 20)) is bool
    assert type(has_diverged([math.nan])) is bool
