"""How long a trial is, how much of it a range test may take, and the schedule laid over it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autolr.bursts import BURST_STEPS, FEWEST, ROUNDS
from autolr.cycles import cycle_lengths
from autolr.data import count_batches
from autolr.fit import training_arguments
from autolr.lr_finder import DEFAULT_NUM_STEPS
from autolr.sgdr import Schedule
from autolr.trial_values import WARMUP

RANGE_TEST_SHARE = 0.1
RANGE_TEST_STEPS = DEFAULT_NUM_STEPS + BURST_STEPS  # a whole sweep, and all bursts that are ever wanted
FIRST, SECOND = ROUNDS
THREE_RATES = FIRST.steps * FEWEST
FIRST_ROUND = FIRST.steps * FIRST.most
# Both rounds, the second from where the first ended, or from the beginning.
GOING_ON = FIRST_ROUND + (SECOND.steps - FIRST.steps) * SECOND.most
BOTH_ROUNDS = FIRST_ROUND + SECOND.steps * SECOND.most
WITHOUT_LATE_BURSTS = DEFAULT_NUM_STEPS + BOTH_ROUNDS
MIN_SWEEP_STEPS = 40  # with fewer, a sweep over eight decades has no more than five points in each
# A coarse sweep and both rounds of bursts, or the first alone, even where those are more than the share: searches of
# trials of which they are 43 % gain by them though fewer trials are left (`docs/bounds.md`).
MIN_RANGE_TEST_STEPS = MIN_SWEEP_STEPS + GOING_ON
WITH_FIRST_ROUND = MIN_SWEEP_STEPS + FIRST_ROUND
SHORT_TRIAL_SHARE = 0.45
# In shorter ones, three bursts: their winners are no better for it, but the mean and the worst of trials are.
WITH_THREE_RATES = MIN_SWEEP_STEPS + THREE_RATES


def range_test_budget(
    trial: float | None,
    *,
    share: float,
    most: int,
    least: int = MIN_RANGE_TEST_STEPS,
    goes_on: bool = True,
    screening: bool = False,
) -> tuple[int, int]:
    """Steps of the sweep and of the bursts after it: a share of the trial's own steps, but enough to see something.

    What a test must have is `least` steps, though no more than 45 % of the trial's: trials lost to bad bounds cost more
    than the steps that would have found better ones. Where 45 % are fewer than `least` and than both rounds of bursts
    take, it is what the first takes; where they are fewer than that, what three bursts take, if that is no more than
    the trial itself, else 40. For a trial that only screens, three bursts must be no more than 45 %, too: they improve
    the mean and the worst of such trials, but not the best, which alone go on (`docs/bounds.md`).

    A few short bursts show more than a finer sweep, so a sweep gives up points for their sake, down to 40. Steps that
    are not enough for a further round of bursts go to the sweep, up to 100. The last round has what is left after that.

    Args:
        trial: Steps of the trial. None where data are of unknown size: then there are no late bursts, as it may be a
            short one.
        share: Largest share of the trial's steps.
        most: Steps where the share allows it.
        least: Steps a test may have in spite of the share, up to 45 % of the trial.
        goes_on: Whether longer bursts can go on from shorter ones. Where they can't, the second round takes more.
        screening: Whether the trial only screens: is in a first rung of Hyperband of which the best go on.
    """
    budget = min(most, WITHOUT_LATE_BURSTS)
    if trial is not None:
        affordable = int(SHORT_TRIAL_SHARE * trial)
        if affordable < min(least, MIN_RANGE_TEST_STEPS):
            fitting = ((WITH_FIRST_ROUND, affordable), (WITH_THREE_RATES, affordable if screening else trial))
            affordable = next((steps for steps, limit in fitting if steps <= limit), MIN_SWEEP_STEPS)
        needed = min(least, affordable)
        budget = min(most, max(int(share * trial), needed))
    both = (BOTH_ROUNDS, GOING_ON) if goes_on else (BOTH_ROUNDS,)
    rounds = (*both, FIRST_ROUND, THREE_RATES)
    bursts = next((n for n in rounds if budget >= MIN_SWEEP_STEPS + n), 0)
    sweep = min(budget - bursts, DEFAULT_NUM_STEPS)
    return sweep, min(budget - sweep, BURST_STEPS) if bursts >= GOING_ON else bursts


def epochs_of(arguments: Mapping[str, Any]) -> int:
    """Epochs that a `fit` with these arguments trains for."""
    return int(arguments.get("epochs", 1)) - int(arguments.get("initial_epoch", 0))


def trial_schedule(choices: Mapping[str, Any]) -> Schedule:
    """The schedule of a trial but for its bounds, in whose place stand 0 and 1.

    Raises:
        ValueError: If the values of the hyperparameters can't be a schedule's.
    """
    return Schedule(min_lr=0.0, max_lr=1.0, warmup=WARMUP, fit_budget=True, **choices)


def plan(
    choices: dict[str, Any], arguments: dict[str, Any], per_epoch: int | None, *, batches_per_update: int = 1
) -> dict[str, Any]:
    """The schedule as it will run, for the record and the reader: `TrialRecord.schedule`.

    Args:
        choices: The values of its hyperparameters.
        arguments: The arguments of `fit`.
        per_epoch: Batches in an epoch, None if unknown.
        batches_per_update: More than 1 under gradient accumulation.
    """
    epochs = int(arguments.get("epochs", 1))
    edges = trial_schedule(choices).edges(epochs * (per_epoch or 1), per_epoch or 1)
    return {
        **choices,
        "warmup": WARMUP,
        "epochs": epochs,
        "initial_epoch": int(arguments.get("initial_epoch", 0)),
        "steps_per_epoch": per_epoch,
        "batches_per_update": batches_per_update,
        "edges": edges.tolist(),
    }


def describe(schedule: dict[str, Any]) -> str:
    """A planned schedule in words."""
    lengths = [f"{length:.3g}" for length in cycle_lengths(schedule["edges"], schedule["steps_per_epoch"])]
    shown = ", ".join([*lengths[:6], "..."] if len(lengths) > 6 else lengths)
    start = f", from epoch {schedule['initial_epoch']}" if schedule["initial_epoch"] else ""
    return f"schedule: {len(lengths)} cycle{'s' * (len(lengths) > 1)} of {shown} epoch{'s' * (shown != '1')}{start}"


def batches_per_epoch(arguments: dict[str, Any]) -> int | None:
    """Batches in an epoch of a `fit` with these arguments, None if it cannot be known beforehand."""
    seen = training_arguments(arguments)
    counting = ("x", "batch_size", "steps_per_epoch", "validation_split")
    return count_batches(**{name: seen[name] for name in counting if name in seen})
