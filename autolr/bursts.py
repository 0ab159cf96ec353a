"""Confirming a sweep's bounds: short trainings at single rates, all from the untouched weights.

A sweep shows each rate for a step or two. A model that learns late (a deep ReLU network without normalisation, hard
images) shows nothing but noise in it until it diverges, far above the rates that train; noisy labels or small batches
hide the fall; and a loss may fall without the model learning anything but how often each class occurs. Some dozen steps
at one rate show much more. AutoLRS (arXiv:2105.10762) searches in a like way, during training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from autolr.trough import batch_noise
from autolr.verdicts import ADVICE, STATUSES, LRBounds


class Round(NamedTuple):
    """Bursts of one length.

    Attributes:
        steps: Length of each.
        most: How many there may be.
    """

    steps: int
    most: int


# Many rates briefly, then the best and its neighbours for longer: the first round alone errs where models learn late,
# the second alone has erred more in one of four recordings, and in none less (`docs/bounds.md`).
ROUNDS = (Round(24, 5), Round(48, 3))
# Some models begin to learn late: longer ones as long as there is no fall beyond the noise, the first of them also
# where it gathers pace.
LATE_ROUNDS = (Round(96, 3), Round(192, 3))
ALL_ROUNDS = (*ROUNDS, *LATE_ROUNDS)
FEWEST = 3  # a rate, one below and one above: with fewer, nothing is compared
BURST_STEPS = sum(steps * most for steps, most in ALL_ROUNDS)
FACTOR = math.sqrt(10)  # between neighbouring rates
# In place of what a sweep of that status has shown.
_SEEN = {
    "ok": "The loss fell.",
    "diverged_at_once": "The longest short trainings all diverged, or raised the loss.",
}
# Under BatchNormalization a rate too high grows the weights, which lowers what it does to them, and one too low is not
# mended by anything (arXiv:1812.03981): what learned most in some dozen steps errs on the low side (`docs/bounds.md`).
# Twice, as the first that diverges is three to four times as high.
BOLDER = 2.0


class Burst(NamedTuple):
    """What a short training at one rate did to the loss.

    Attributes:
        lr: The rate.
        change: Mean loss after the burst's first third, less that of the untrained model. Negative if the model
            learned, zero if that cannot be told from chance, infinite if it diverged.
        steps: Steps it was meant to take.
    """

    lr: float
    change: float
    steps: int

    @classmethod
    def of(cls, lr: float, losses: npt.ArrayLike, untrained: npt.ArrayLike, *, steps: int, noise: float = 0.0) -> Burst:
        """The burst whose batch losses these are.

        Args:
            lr: Its rate.
            losses: Loss of each step, shape `(steps,)`; fewer if it was ended because it diverged.
            untrained: Losses of the untrained model, 3 or more. Where the burst saw the same batches, as its first loss
                tells, differences between these cancel, and the mean stands for batches whose loss is not known. Where
                it did not, as of data that shuffle themselves, a change is none if it is less than two standard errors.
            steps: Steps it was meant to take.
            noise: Standard deviation of the untrained model's batch losses.
        """
        after, before = np.asarray(losses, dtype=np.float64), np.asarray(untrained, dtype=np.float64)
        if len(after) < steps or not np.all(np.isfinite(after)):
            return cls(float(lr), math.inf, steps)
        first, error = steps // 3, 0.0
        if abs(after[0] - before[0]) <= noise / 100:  # the same batches
            known = before[:steps]
            before = np.append(known, np.full(steps - len(known), np.mean(known)))
        else:
            error = 2 * math.sqrt(noise**2 / len(before) + batch_noise(after[first:]) ** 2 / (steps - first))
            before = np.full(steps, np.mean(before))
        change = float(np.mean((after - before)[first:]))
        return cls(float(lr), change if abs(change) > error else 0.0, steps)


def next_burst(
    centre: float,
    bursts: Sequence[Burst],
    *,
    steps_left: int,
    highest: float = math.inf,
    rounds: Sequence[Round] = ROUNDS,
    noise: float = 0.0,
    cost: Callable[[float, int], int] = lambda rate, steps: steps,
) -> tuple[float, int] | None:
    """Rate and length of the burst to try next, or None when enough has been seen.

    First the rate in doubt, then a third of it and three times it, then on towards where it is better, until the best
    lies between two that are worse; but down by decades while all that were tried did harm. Then the best and its two
    neighbours again, for twice as long. Where none made a difference, the rate in doubt stays in doubt.

    Args:
        centre: The `max_lr` that the sweep suggests.
        bursts: What has been tried.
        steps_left: Steps that may still be spent. No round is begun that can't compare three rates.
        highest: Rate above which none may be tried.
        rounds: What may be tried, the shortest bursts first.
        noise: Standard deviation of the untrained model's batch losses.
        cost: Steps that a burst of a rate and length takes: fewer than its length if it goes on from a shorter one.
    """
    for number, (steps, most) in enumerate(rounds):
        tried = [burst for burst in bursts if burst.steps == steps]
        if len(tried) < most:
            rates = _next_rates(centre, tried, highest, widen=number == 0, noise=noise)
            missing = max(FEWEST - len(tried), 1)
            costs = [cost(rate, steps) for rate in rates[:missing]]
            if rates and sum(costs) + steps * (missing - len(costs)) <= steps_left:
                return rates[0], steps
        best = _best(tried, noise)
        if best is not None:
            centre = best.lr
        elif tried and _learned_most(tried, noise) is None:
            centre = min(tried).lr
    return None


def _next_rates(centre: float, tried: Sequence[Burst], most: float, *, widen: bool, noise: float) -> list[float]:
    """What is left of the first three rates, or the one that these lead on to; none where enough has been seen."""
    ceiling = _lowest_harmful(tried, noise)

    def new(rate: float) -> bool:
        seen = any(math.isclose(rate, burst.lr) for burst in tried)
        return rate <= most and rate < ceiling and not seen

    first = [rate for rate in (centre, centre / FACTOR, centre * FACTOR) if new(rate)]
    if first or not tried:
        return first
    lowest, highest = min(tried).lr, max(tried).lr
    best = _learned_most(tried, noise)
    if best is None:
        rate = lowest / FACTOR**2
    elif not widen or lowest < best.lr < highest:
        return []
    else:
        rate = lowest / FACTOR if best.lr == lowest else highest * FACTOR
    return [rate] if new(rate) else []


def _lowest_harmful(tried: Sequence[Burst], noise: float) -> float:
    """The lowest rate that did harm: diverged, or raised the loss by more than any lowered it; infinite if none did.

    A network that came apart may be dead, all of its ReLUs zero, and fit what a constant can. Above a rate that did
    harm, that looks like learning.
    """
    bar = max([noise, *(-burst.change for burst in tried)])
    return min((burst.lr for burst in tried if burst.change > bar), default=math.inf)


def _learned_most(tried: Sequence[Burst], noise: float) -> Burst | None:
    """The burst that did best at a lower rate than any that did harm; None if all did harm.

    Of several that made no difference it is the one that was tried first, as suggested, and not the lowest, which never
    makes any.
    """
    ceiling = _lowest_harmful(tried, noise)
    harmless = (burst for burst in tried if burst.lr < ceiling)
    return min(harmless, key=lambda burst: (burst.change, burst.lr if burst.change else 0.0), default=None)


def _best(tried: Sequence[Burst], noise: float) -> Burst | None:
    """The burst that did best; None if all did harm, or if the lowest rate did best and did not help either.

    Whether a rate helped is less certain than which one did best: bursts are compared on the same batches, the
    untrained model with them on the first of these only.
    """
    best = _learned_most(tried, noise)
    if best is None or (best.change >= 0 and best.lr == min(tried).lr):
        return None
    return best


def may_go_on(lr: float, steps: int, bursts: Sequence[Burst], *, noise: float = 0.0) -> bool:
    """Whether a burst of this rate and length may be wanted longer: if it is the best of its length, or next to it."""
    best = _learned_most([burst for burst in bursts if burst.steps == steps], noise)
    return best is not None and abs(math.log(lr / best.lr)) < 1.5 * math.log(FACTOR)


def gathers_pace(bursts: Sequence[Burst], *, noise: float = 0.0) -> bool:
    """Whether the loss fell the faster in the longer of the two first rounds: such a model has only begun to learn.

    At a steady pace it falls twice as far in twice the steps; most models slow down. Until then the rates that learn
    fast and those that will diverge are hard to tell apart.
    """
    brief, longer = (_learned_most([burst for burst in bursts if burst.steps == steps], noise) for steps, _ in ROUNDS)
    steady = ROUNDS[1].steps / ROUNDS[0].steps * min(brief.change, 0.0) if brief else 0.0
    return longer is not None and longer.change < steady


def has_settled(bursts: Sequence[Burst], *, noise: float = 0.0) -> bool:
    """Whether the bursts were long enough for a model's pace: two rounds at least, and a third if it was gathering."""
    longest = max((burst.steps for burst in bursts), default=0)
    return longest > ROUNDS[-1].steps or (longest == ROUNDS[-1].steps and not gathers_pace(bursts, noise=noise))


def confirm(
    bounds: LRBounds,
    bursts: Sequence[Burst],
    *,
    noise: float = 0.0,
    normalized: bool = False,
    highest: float = math.inf,
) -> LRBounds:
    """A sweep's bounds, mended by what bursts showed.

    Args:
        bounds: What was found on the sweep.
        bursts: What was tried.
        noise: Standard deviation of the untrained model's batch losses. A fall within it is a small one.
        normalized: Whether BatchNormalization follows most of the model's weights.
        highest: Rate above which `max_lr` is not raised for that.

    Returns:
        Bounds whose `max_lr` is the rate at which the longest bursts learned most, by a parabola in log-rate through
        the best and its neighbours, with `min_lr` as far below it as before. Of a normalized model that learned at a
        settled pace it is twice that. A model that is already trained is not to be spoilt: after a small fall `max_lr`
        is at most the one of these rates that did best in the mean of all lengths, and if the lowest rate did best and
        did not help either, it is that rate, or the sweep's if that is lower. No rate is taken above one that
        diverged, or raised the loss by more than any lowered it.
    """
    if not bursts:
        return bounds
    rounds = [[burst for burst in bursts if burst.steps == steps] for steps in sorted({b.steps for b in bursts})]
    bests = [_best(tried, noise) for tried in rounds]
    longest, best = rounds[-1], bests[-1]
    if best is not None:
        by_rate = sorted(longest)
        at = by_rate.index(best)
        inner = 0 < at < len(by_rate) - 1
        shift = _vertex([burst.change for burst in by_rate[at - 1 : at + 2]]) if inner else 0.0
        max_lr, fall = best.lr * FACTOR**shift, -best.change
        if not fall:  # nothing was seen that says more than the sweep
            max_lr = min(max_lr, bounds.max_lr)
    else:
        max_lr, fall = min(bounds.max_lr, *(burst.lr for burst in bursts)), 0.0
    raised = 0.0
    if _learned_most(longest, noise) is None:
        status = "diverged_at_once"
    elif fall > noise:
        status = "ok"
        if normalized and has_settled(bursts, noise=noise):
            raised = max(max_lr, min(BOLDER * max_lr, highest))
    else:
        status = "small_fall"
        if best is not None:
            max_lr = min(max_lr, _best_on_the_whole(bursts, among=longest))
    chosen = [burst.lr for burst in bests if burst is not None]
    steady = len(chosen) == len(rounds) > 1 and all(math.isclose(rate, chosen[0]) for rate in chosen)
    confident = "high" if steady else "medium"
    rates = f"{min(bursts).lr:.1e} to {max(bursts).lr:.1e}"
    most = f"those near {max_lr:.1e} learned most" if status == "ok" else "those near max_lr did best on the whole"
    found = "none helped" if best is None else most
    if raised > max_lr:
        found += f", and max_lr is {raised / max_lr:.2g} times that, which BatchNormalization bears in longer trainings"
        max_lr = raised
    return LRBounds(
        min_lr=max_lr * bounds.min_lr / bounds.max_lr,
        max_lr=max_lr,
        status=status,
        reason=f"{_SEEN.get(status, STATUSES[status])} Of {len(bursts)} short trainings at single "
        f"rates, {rates}, {found}; the sweep alone suggested {bounds.max_lr:.1e} ({bounds.status}). {ADVICE[status]}",
        confidence=confident if status == "ok" else "low",
    )


def _best_on_the_whole(bursts: Sequence[Burst], *, among: Sequence[Burst]) -> float:
    """The rate that did best in the mean of its bursts of all lengths: within the noise, the longest may do so by luck.

    A trained model's loss may fall a trifle in the end at a rate that raised it at first.
    """

    def change(rate: float) -> float:
        return float(np.mean([burst.change for burst in bursts if math.isclose(burst.lr, rate)]))

    return min(among, key=lambda burst: (change(burst.lr), burst.lr if burst.change else 0.0)).lr


def _vertex(changes: list[float]) -> float:
    """Where the parabola through three evenly spaced values is least, in spacings from the middle one."""
    before, least, after = changes
    # A neighbour that diverged says that the best is not there, not how far away it is.
    ceiling = least + 4 * abs((before if math.isfinite(before) else 0.0) - least)
    before, after = min(before, ceiling), min(after, ceiling)
    bend = before - 2 * least + after
    return 0.0 if bend <= 0 else float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5))
