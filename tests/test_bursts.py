"""Bursts: what is tried next, and what is made of it."""

from __future__ import annotations

import math
from dataclasses import replace

import keras
import numpy as np
import pytest
from helpers import compiled, sequential
from hypothesis import assume, given
from hypothesis import strategies as st

from autolr import LRBounds, RangeTest, SGDRScheduler, range_test
from autolr.batchnorm import is_normalized, moving_statistics
from autolr.bursts import (
    ALL_ROUNDS,
    BURST_STEPS,
    FACTOR,
    LATE_ROUNDS,
    ROUNDS,
    Burst,
    confirm,
    gathers_pace,
    may_go_on,
    next_burst,
)

SWEEP = LRBounds(2e-3, 8e-3, "never_fell", "Nothing was seen.", "low")


def search(change, centre=8e-3, *, steps_left=BURST_STEPS, highest=10.0, noise=0.0, going_on=False):
    """All bursts of a model on which a burst of a rate has this effect."""
    bursts = []

    def cost(rate, steps):
        halves = [b for b in bursts if going_on and math.isclose(b.lr, rate) and b.steps == steps // 2]
        return steps - steps // 2 * len(halves)

    while found := next_burst(centre, bursts, steps_left=steps_left, highest=highest, noise=noise, cost=cost):
        rate, steps = found
        steps_left -= cost(rate, steps)
        assert steps_left >= 0
        bursts.append(Burst(rate, change(rate, steps), steps))
    return bursts


def valley(best):
    return lambda rate, steps: abs(math.log10(rate / best)) - 2


@pytest.mark.parametrize("factor", [1 / 20, 1 / 5, 1, 5, 20])
def test_the_best_rate_is_found_within_a_decade_and_a_half_of_the_sweeps(factor):
    bounds = confirm(SWEEP, search(valley(8e-3 * factor)))
    assert abs(math.log10(bounds.max_lr / (8e-3 * factor))) <= 0.25
    assert bounds.ok
    assert bounds.max_lr / bounds.min_lr == pytest.approx(4)


@pytest.mark.parametrize("shift", [-0.14, -0.07, 0.07, 0.14])
def test_the_best_rate_between_the_rates_tried_is_that_of_a_parabola(shift):
    best = 8e-3 * FACTOR ** (2 * shift)
    bounds = confirm(SWEEP, search(lambda rate, steps: math.log10(rate / best) ** 2 - 2))
    assert math.log10(bounds.max_lr) == pytest.approx(math.log10(best), abs=1e-9)


def test_each_rate_is_tried_once_in_a_round_and_the_best_ones_for_longer():
    bursts = search(valley(8e-3))
    brief, longer = ([burst.lr for burst in bursts if burst.steps == steps] for steps, _ in ROUNDS)
    assert sorted(brief) == pytest.approx([8e-3 / FACTOR, 8e-3, 8e-3 * FACTOR])
    assert sorted(longer) == pytest.approx(sorted(brief))


def test_confidence_is_high_where_both_rounds_agree():
    assert confirm(SWEEP, search(valley(8e-3))).confidence == "high"


def test_a_round_that_saw_nothing_help_does_not_agree():
    bursts = [Burst(rate, change, 24) for rate, change in ((1e-3, 0.1), (3e-3, 0.2), (9e-3, 0.3))]
    bursts += [Burst(rate, change, steps) for steps in (48, 96) for rate, change in ((1e-3, -0.1), (3e-3, -0.2))]
    assert confirm(SWEEP, bursts).confidence == "medium"

    def slow(rate, steps):
        return valley(8e-3 if steps == ROUNDS[0].steps else 8e-3 * FACTOR)(rate, steps)

    moved = confirm(SWEEP, search(slow))
    assert moved.confidence == "medium"
    assert moved.max_lr == pytest.approx(8e-3 * FACTOR)
    assert confirm(SWEEP, search(valley(8e-3), steps_left=100)).confidence == "medium"


def test_where_no_rate_helps_the_lowest_one_is_taken_and_nobody_is_sure_of_it():
    bursts = search(lambda rate, steps: 0.1, noise=0.2)
    assert min(bursts).lr < 1e-3  # looked for a rate low enough
    bounds = confirm(SWEEP, bursts, noise=0.2)
    assert (bounds.max_lr, bounds.status, bounds.confidence) == (min(bursts).lr, "small_fall", "low")
    assert "Of 8 short trainings" in bounds.reason
    assert "none helped" in bounds.reason


def test_a_fall_within_the_noise_is_a_small_one():
    bursts = search(valley(8e-3))
    assert confirm(SWEEP, bursts, noise=1.0).status == "ok"
    bounds = confirm(SWEEP, bursts, noise=3.0)
    assert (bounds.status, bounds.confidence) == ("small_fall", "low")
    assert "already trained" in bounds.reason
    assert bounds.max_lr == pytest.approx(8e-3)


def test_after_a_small_fall_a_rate_that_raised_the_loss_at_first_is_not_taken():
    """A trained model: the highest rate does best in the end, by next to nothing, after it had done harm."""
    changes = {24: (-0.02, -0.01, 0.2), 48: (-0.02, -0.01, 0.1), 96: (-0.02, -0.03, -0.04)}
    rates = (1e-3, 1e-3 * FACTOR, 1e-2)
    bursts = [
        Burst(rate, change, steps) for steps, of in changes.items() for rate, change in zip(rates, of, strict=True)
    ]
    assert confirm(SWEEP, bursts, noise=0.01).max_lr == pytest.approx(1e-2)  # a fall: the longest decide
    assert confirm(SWEEP, bursts, noise=0.1).max_lr == pytest.approx(1e-3)
    # Another rate's luck is none of it: no burst at the others, no bolder choice than that of the longest.
    bolder = [Burst(burst.lr, -burst.lr if burst.steps < 96 else burst.lr - 0.1, burst.steps) for burst in bursts]
    assert confirm(SWEEP, bolder, noise=1.0).max_lr == confirm(SWEEP, bolder, noise=0.0).max_lr == pytest.approx(1e-3)


@pytest.mark.parametrize("change", [math.inf, 0.5])
def test_a_model_that_comes_apart_at_every_rate_has_diverged(change):
    bursts = search(lambda rate, steps: change, noise=0.1)
    bounds = confirm(SWEEP, bursts, noise=0.1)
    assert (bounds.status, bounds.confidence) == ("diverged_at_once", "low")
    assert bounds.max_lr == min(bursts).lr < 1e-5
    assert "none helped" in bounds.reason


@pytest.mark.parametrize("harm", [math.inf, 7e7])
def test_what_looks_like_learning_above_a_rate_that_did_harm_is_not_trusted(harm):
    """A network of which all ReLUs are zero fits the targets' mean, which is more than the first steps of any rate."""

    def change(rate, steps):
        if rate > 0.3:
            return math.inf if rate > 1 else -4.9e5
        return harm if rate > 3e-4 else -1e5 - 1e9 * rate

    bursts = search(change, centre=0.15, noise=4e4)
    bounds = confirm(SWEEP, bursts, noise=4e4)
    assert bounds.ok
    assert 1e-5 < bounds.max_lr < 4e-4
    assert max(bursts).lr == 0.15, "nothing is to be sought above it"
    dead = confirm(SWEEP, [Burst(0.47, -4.9e5, 24), Burst(0.15, harm, 24), Burst(0.047, harm, 24)], noise=4e4)
    assert (dead.status, dead.max_lr) == ("diverged_at_once", min(0.047, SWEEP.max_lr))


@pytest.mark.parametrize("seed", [2, 9])
def test_a_network_whose_relus_die_at_high_rates_is_not_trained_at_those(seed):
    """Targets of no scale; with these seeds rates of 0.4 and 0.25 passed for the best."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1600, 12)).astype("float32")
    y = (x[:, 0] * x[:, 1] + np.sin(x[:, 2]) * 3).astype("float32") * 100 + 500
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((12,)), *(keras.layers.Dense(16, activation="relu") for _ in range(2))])
    model.add(keras.layers.Dense(1))
    model.compile("sgd", "mse")
    bounds = range_test(model, x, y, batch_size=32, num_steps=40, burst_steps=120, verbose=0).bounds()
    schedule = SGDRScheduler(*bounds, cycle_length=4, warmup=1)
    losses = model.fit(x, y, epochs=5, batch_size=32, callbacks=[schedule], verbose=0).history["loss"]
    assert losses[-1] < 0.8 * np.var(y), "what a constant can"
    assert losses[0] < np.mean(y**2)


def test_longer_bursts_that_all_diverged_overrule_brief_ones():
    brief = [Burst(rate, -rate, 24) for rate in (1e-3, 3e-3, 9e-3)]
    bounds = confirm(SWEEP, brief + [Burst(burst.lr, math.inf, 48) for burst in brief])
    assert (bounds.status, bounds.confidence) == ("diverged_at_once", "low")
    assert bounds.max_lr == pytest.approx(1e-3)
    assert "none helped" in bounds.reason


def test_the_words_for_bursts_that_all_diverged_are_not_those_of_a_sweep():
    brief = [Burst(rate, -rate, 24) for rate in (1e-3, 3e-3, 9e-3)]
    fine = replace(SWEEP, status="ok")
    reason = confirm(fine, brief + [Burst(burst.lr, math.inf, 48) for burst in brief]).reason
    assert "all diverged" in reason
    assert "without a fall" not in reason  # there was one


def test_a_normalized_model_that_learned_at_a_settled_pace_gets_twice_the_rate():
    bursts = search(valley(8e-3))
    plain, raised = confirm(SWEEP, bursts), confirm(SWEEP, bursts, normalized=True)
    assert raised.max_lr == pytest.approx(2 * plain.max_lr)
    assert raised.max_lr / raised.min_lr == pytest.approx(plain.max_lr / plain.min_lr)
    assert (raised.status, raised.confidence) == (plain.status, plain.confidence)
    assert "BatchNormalization" in raised.reason
    assert f"near {plain.max_lr:.1e} learned most" in raised.reason
    assert "BatchNormalization" not in plain.reason


@pytest.mark.parametrize(("highest", "max_lr"), [(1.0, 16e-3), (12e-3, 12e-3), (8e-3, 8e-3), (1e-3, 8e-3)])
def test_it_is_not_raised_beyond_the_sweep_nor_lowered_to_its_end(highest, max_lr):
    bounds = confirm(SWEEP, search(valley(8e-3)), normalized=True, highest=highest)
    assert bounds.max_lr == pytest.approx(max_lr)


def test_nothing_is_raised_where_a_normalized_model_has_not_learned_or_has_only_begun_to():
    brief = search(valley(8e-3), steps_left=100)
    assert {burst.steps for burst in brief} == {24}
    gathering = search(lambda rate, steps: valley(8e-3)(rate, steps) * (steps / 24) ** 1.5)
    assert gathers_pace(gathering)
    for bursts, noise in ((brief, 0.0), (gathering, 0.0), (search(valley(8e-3)), 3.0), ([], 0.0)):
        assert confirm(SWEEP, bursts, noise=noise, normalized=True) == confirm(SWEEP, bursts, noise=noise)
    later = gathering + [Burst(burst.lr, 2 * burst.change, 96) for burst in gathering if burst.steps == 48]
    assert confirm(SWEEP, later, normalized=True).max_lr == pytest.approx(2 * confirm(SWEEP, later).max_lr)


def dense(*layers):
    return keras.Sequential([keras.Input((6,)), *layers])


def normalizing(**options):
    return keras.layers.BatchNormalization(**options)


def frozen():
    """Normalizes by its moving statistics."""
    layer = normalizing()
    layer.trainable = False
    return layer


class Still(keras.layers.Layer):
    """A layer that normalizes, but by its moving statistics, as a base that is fine-tuned does."""

    def __init__(self):
        super().__init__()
        self.dense, self.norm = keras.layers.Dense(4), normalizing()

    def build(self, shape):
        self.dense.build(shape)
        self.norm.build((*shape[:-1], 4))

    def call(self, inputs):
        return self.norm(self.dense(inputs), training=False)


@pytest.mark.parametrize(
    ("layers", "normalized"),
    [
        (lambda: [keras.layers.Dense(4), normalizing(), keras.layers.Dense(3)], True),
        (lambda: [keras.layers.Dense(4), normalizing(), *(keras.layers.Dense(3) for _ in range(2))], False),
        (lambda: [keras.Sequential([keras.layers.Dense(4), normalizing()]), keras.layers.Dense(3)], True),
        (lambda: [keras.layers.Dense(4), frozen(), keras.layers.Dense(3)], False),
        (lambda: [keras.layers.Dense(4), keras.layers.LayerNormalization(), keras.layers.Dense(3)], False),
        (lambda: [keras.layers.Dense(3)], False),
        (lambda: [normalizing()], False),
        (lambda: [normalizing(), keras.layers.Dense(3)], False),
        (lambda: [normalizing(), keras.layers.Dense(4), normalizing(), keras.layers.Dense(3)], True),
        (lambda: [Still(), keras.layers.Dense(3)], False),
    ],
    ids=[
        *("one to two kernels", "one to three", "within a layer", "frozen", "another kind", "none", "no kernel"),
        *("of the inputs", "of the inputs, too", "in inference mode"),
    ],
)
def test_which_models_are_normalized(data, layers, normalized):
    model = dense(*layers())
    before = moving_statistics(model)
    assert not is_normalized(model, before), "nothing has been seen of it"
    model(data[0], training=True)
    assert is_normalized(model, before) == normalized


def test_a_range_test_notes_that_a_model_is_normalized_and_raises_its_bounds(data):
    model = dense(keras.layers.Dense(8, activation="relu"), normalizing(), keras.layers.Dense(3, activation="softmax"))
    model.compile(keras.optimizers.SGD(), "sparse_categorical_crossentropy")
    test = range_test(model, *data, batch_size=8, burst_steps=264)
    assert test.normalized
    assert RangeTest.from_dict(test.to_dict()) == test
    assert test.bounds().status == "ok"
    plain = replace(test, normalized=False)
    assert plain != test
    assert plain.bounds().max_lr < test.bounds().max_lr <= max(2.0001 * plain.bounds().max_lr, test.lrs[-1])
    older = {name: value for name, value in test.to_dict().items() if name != "normalized"}
    assert RangeTest.from_dict(older) == plain  # records of before this was noted
    plain_model = dense(keras.layers.Dense(3, activation="softmax"))
    plain_model.compile("sgd", "sparse_categorical_crossentropy")
    assert not range_test(plain_model, *data, batch_size=8, burst_steps=0).normalized


def test_no_bursts_change_nothing():
    assert confirm(SWEEP, []) == SWEEP


def test_nothing_is_tried_where_nothing_may_be():
    assert search(valley(8e-3), highest=1e-4) == []


def test_rates_above_divergence_are_left_behind():
    bounds = confirm(SWEEP, search(lambda rate, steps: math.inf if rate > 2e-3 else -rate))
    assert 5e-4 < bounds.max_lr < 4e-3


@pytest.mark.parametrize(("steps_left", "lengths"), [(0, []), (71, []), (72, [24] * 3), (100, [24] * 3)])
def test_no_round_is_begun_that_cannot_compare_three_rates(steps_left, lengths):
    assert [burst.steps for burst in search(valley(8e-3), steps_left=steps_left)] == lengths


@pytest.mark.parametrize(
    ("best", "steps_left", "lengths"),
    [
        (8e-3, 143, [24] * 3),
        (8e-3, 144, [24] * 3 + [48] * 3),  # 72 steps more
        (8e-3 * FACTOR, 168, [24] * 4 + [48] * 3),
        (8e-3 * FACTOR**2, 192, [24] * 5 + [48] * 3),
        (8e-3 * FACTOR**3, 192, [24] * 5),  # the best is the highest tried: three times it has to begin anew
    ],
)
def test_bursts_that_go_on_count_by_what_is_left_of_them(best, steps_left, lengths):
    bursts = search(valley(best), steps_left=steps_left, going_on=True)
    assert [burst.steps for burst in bursts] == lengths


@given(
    st.floats(1e-6, 1.0),
    st.integers(0, 400),
    st.booleans(),
    st.lists(st.one_of(st.just(math.inf), st.floats(-5, 5)), min_size=12, max_size=12),
)
def test_whatever_bursts_show_the_search_ends_inside_the_sweep(centre, steps_left, going_on, changes):
    queue = iter(changes)
    bursts = search(lambda rate, steps: next(queue), centre, steps_left=steps_left, highest=1.0, going_on=going_on)
    assert len(bursts) <= sum(most for _, most in ROUNDS)
    assert all(burst.lr <= 1.0 for burst in bursts)
    bounds = confirm(LRBounds(centre / 4, centre, "ok", "", "high"), bursts)
    assert 0 < bounds.min_lr < bounds.max_lr <= 1.0
    if bursts:
        assert min(bursts).lr / FACTOR <= bounds.max_lr <= max(bursts).lr * FACTOR


@given(st.booleans(), st.integers(0, 2**32 - 1), st.floats(0.01, 100), st.floats(-100, 100))
def test_a_burst_is_scaled_with_the_loss_and_deaf_to_a_constant(same, seed, scale, shift):
    after, before = np.random.default_rng(seed).uniform(-3, 3, size=(2, 24))
    after[0] = before[0] + (not same)

    def change(after, before, noise):
        return Burst.of(0.1, after, before, steps=24, noise=noise).change

    plain = change(after, before, 1e-3)
    other = change(after * scale + shift, before * scale + shift, 1e-3 * scale)
    assume(abs(plain) > 3e-3)  # nearer to the error of the level, rounding may decide whether it is none
    assert other == pytest.approx(plain * scale, abs=1e-9 * (scale + abs(shift)) + 1e-12)


def test_differences_between_batches_cancel():
    batches = np.random.default_rng(0).normal(size=24)
    after = batches - 0.5 * (np.arange(24) > 0)  # the first loss is that before any update
    assert Burst.of(0.1, after, batches, steps=24).change == pytest.approx(-0.5)


def test_batches_that_are_not_the_same_do_not_cancel():
    """Of data that shuffle themselves: what is known is the level alone."""
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=40), rng.normal(size=24)
    assert Burst.of(0.1, after - 3, before, steps=24).change == pytest.approx(np.mean(after[8:]) - 3 - np.mean(before))


def test_on_other_batches_a_change_that_may_be_chance_is_none():
    """One in twenty of no change is taken for one; of one of twice the noise, none is missed."""

    def change(seed, height):
        rng = np.random.default_rng(seed)
        return Burst.of(0.1, rng.normal(size=24) + height, rng.normal(size=40), steps=24, noise=1).change

    assert np.mean([change(seed, 0.0) != 0 for seed in range(300)]) < 0.1
    assert all(change(seed, -2.0) < 0 for seed in range(300))


def test_where_no_rate_makes_a_difference_the_same_are_tried_for_longer():
    """A model that has not begun to learn: a lower rate, which never will, is no better for it."""
    bursts = search(lambda rate, steps: 0.0)
    rates = [8e-3, 8e-3 / FACTOR, 8e-3 * FACTOR]
    assert [burst.lr for burst in bursts] == pytest.approx(rates * 2)
    bounds = confirm(SWEEP, bursts, noise=0.1)
    assert (bounds.max_lr, bounds.status, bounds.confidence) == (8e-3, "small_fall", "low")


def test_a_rate_that_does_harm_is_not_taken_for_one_that_does_nothing():
    """A trained model: the highest rate that changes nothing, not the lowest."""
    bursts = search(lambda rate, steps: 0.01 * (rate > 2e-3), noise=0.1)
    assert confirm(SWEEP, bursts, noise=0.1).max_lr == pytest.approx(8e-3 / FACTOR**2)


def test_a_burst_that_ended_early_or_is_not_finite_diverged():
    assert Burst.of(0.1, [1.0] * 23, [1.0] * 24, steps=24).change == math.inf
    assert Burst.of(0.1, [1.0] * 23 + [math.nan], [1.0] * 24, steps=24).change == math.inf


def test_a_range_test_tries_its_rates_and_counts_the_steps(data):
    x, y = data

    def model():
        return compiled(dense(keras.layers.Dense(3, activation="softmax")), "sgd")

    test = range_test(model(), x, y, batch_size=12)
    assert {burst.steps for burst in test.bursts} == {24, 48}
    whole = sum(burst.steps for burst in test.bursts)
    assert len(test) + 3 * 24 <= test.steps_spent <= len(test) + whole <= 364
    again = confirm(test.bounds(), test.bursts, normalized=test.normalized, highest=test.lrs[-1])
    assert test.bounds().max_lr == again.max_lr
    assert range_test(model(), x, y, batch_size=12, burst_steps=0).bursts == ()
    few = range_test(model(), x, y, batch_size=12, burst_steps=100)
    assert len(few.bursts) in (3, 4)


@pytest.mark.parametrize(
    ("burst_steps", "lengths"),
    [
        (264, {24, 48}),
        pytest.param(552, {24, 48, 96}, marks=pytest.mark.slow),
        pytest.param(1128, {24, 48, 96, 192}, marks=pytest.mark.slow),
    ],
)
def test_where_nothing_fell_the_bursts_are_longer_if_there_are_steps_for_it(burst_steps, lengths):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 4)).astype("float32"), rng.normal(size=64).astype("float32")  # nothing to learn
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="zeros")])
    model.compile("sgd", "mse")
    test = range_test(model, x, y, batch_size=4, burst_steps=burst_steps)
    assert test.bounds().status == "small_fall"
    assert {burst.steps for burst in test.bursts} == lengths
    assert test.steps_spent <= 100 + burst_steps


def test_a_longer_round_that_sees_a_fall_decides():
    """Nothing falls within 48 steps but by chance; of 96, the highest rate learns."""
    rounds = ALL_ROUNDS[:3]
    bursts, left = [], BURST_STEPS
    while found := next_burst(8e-3, bursts, steps_left=left, rounds=rounds, noise=1e-2):
        rate, steps = found
        left -= steps
        bursts.append(
            Burst(rate, -rate if steps == LATE_ROUNDS[0].steps else abs(math.log10(rate / 8e-3)) / 100 - 0.001, steps)
        )
    brief = [burst for burst in bursts if burst.steps < LATE_ROUNDS[0].steps]
    assert confirm(SWEEP, brief, noise=1e-2).status == "small_fall"
    found = confirm(SWEEP, bursts, noise=1e-2)
    assert found.max_lr == max(burst for burst in bursts if burst.steps == LATE_ROUNDS[0].steps).lr
    assert found.confidence == "medium"


@pytest.mark.parametrize(
    ("brief", "longer", "begun"),
    [(-0.1, -0.15, False), (-0.1, -0.2, False), (-0.1, -0.25, True), (0.01, -0.02, True), (0.01, 0.0, False)],
)
def test_a_fall_of_more_than_twice_in_twice_the_steps_gathers_pace(brief, longer, begun):
    bursts = [Burst(rate, brief + off, 24) for rate, off in ((1e-3, 0.3), (3e-3, 0.0), (1e-2, math.inf))]
    assert not gathers_pace(bursts, noise=0.5)
    bursts += [Burst(3e-3, longer, 48), Burst(1e-3, longer + 0.1, 48)]
    assert gathers_pace(bursts, noise=0.5) == begun


def test_a_dead_networks_fall_is_no_pace():
    dead = [Burst(rate, change, 24) for rate, change in ((1e-3, -0.1), (3e-3, 9.0), (1e-2, -5.0))]
    assert gathers_pace([*dead, Burst(1e-3, -0.3, 48)]), "at the rate that learns, three times in twice the steps"
    assert not gathers_pace([Burst(1e-3, -0.1, 24), *(burst._replace(steps=48) for burst in dead)])


@pytest.mark.slow
def test_a_model_that_has_only_begun_to_learn_gets_longer_bursts_though_its_loss_fell():
    """A deep linear network with small weights starts on a plateau, and leaves it at a growing pace."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(512, 8)).astype("float32")
    y = x @ rng.normal(size=(8, 1)).astype("float32")
    keras.utils.set_random_seed(5)
    small = {"use_bias": False, "kernel_initializer": keras.initializers.RandomNormal(0, 0.1)}
    model = keras.Sequential([keras.Input((8,)), *(keras.layers.Dense(width, **small) for width in (8, 8, 8, 1))])
    model.compile("sgd", "mse")
    test = range_test(model, x, y, batch_size=64, shuffle=False)
    assert {burst.steps for burst in test.bursts} == {24, 48, 96}
    shorter = tuple(burst for burst in test.bursts if burst.steps < LATE_ROUNDS[0].steps)
    assert gathers_pace(shorter)
    assert replace(test, bursts=shorter).bounds().status == "ok"  # so it is not for want of a fall
    assert test.bounds().status == "ok"


@pytest.mark.parametrize("burst_steps", [-1, 24.5, None, "24"])
def test_burst_steps_that_count_nothing_are_refused(data, burst_steps):
    with pytest.raises(ValueError, match=r"`burst_steps` must be a whole number, 0 or more.*Received: burst_steps="):
        range_test(compiled(sequential(), "sgd"), *data, burst_steps=burst_steps)


class BreaksAtOnce(keras.optimizers.SGD):
    """Makes the weights not-a-numbers whatever the rate, as some of Keras's do where a gradient is always zero."""

    def update_step(self, gradient, variable, learning_rate):
        self.assign_sub(variable, keras.ops.cast(learning_rate, variable.dtype) * gradient + np.nan)


def test_weights_that_are_no_numbers_have_diverged_though_the_loss_is_one(data):
    x, y = data
    layers = [keras.layers.Dense(8), keras.layers.Lambda(lambda h: keras.ops.where(keras.ops.isnan(h), 0.0, h))]
    model = keras.Sequential([keras.Input((6,)), *layers, keras.layers.Lambda(lambda h: h[:, :3])])
    model.compile(BreaksAtOnce(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    test = range_test(model, x, y, batch_size=8, burst_steps=72)
    assert np.all(np.isfinite(test.losses))
    assert {burst.change for burst in test.bursts} == {np.inf}
    assert test.bounds().status == "diverged_at_once"
    assert test.bounds().confidence == "low"


def test_of_bursts_the_best_and_its_neighbours_may_go_on():
    """What a longer round wants was kept, if it was tried; what it does not want was not."""
    bursts = search(valley(8e-3 / 20))
    brief = [burst for burst in bursts if burst.steps == 24]
    longer = [burst for burst in bursts if burst.steps == 48]
    kept = [burst for burst in brief if may_go_on(burst.lr, 24, brief)]
    assert len(brief) == 5
    assert len(kept) <= 3
    tried_before = [it for it in longer if any(math.isclose(it.lr, burst.lr) for burst in brief)]
    assert len(tried_before) >= 2
    assert all(any(math.isclose(it.lr, burst.lr) for burst in kept) for it in tried_before)
    assert not may_go_on(1e-3, 24, [Burst(1e-3, math.inf, 24)])
