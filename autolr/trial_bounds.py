"""Where the bounds of a trial come from: its own range test, another trial's, or a fallback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras

from autolr.budget import epochs_of, range_test_budget
from autolr.bursts import ROUNDS
from autolr.curve import RangeTest
from autolr.errors import in_brief
from autolr.fit import Fit, training_arguments
from autolr.lr_finder import LRFinder
from autolr.optimizers import batches_per_update, usual_rate
from autolr.records import TrialRecord, record_in
from autolr.reuse import measured_setup
from autolr.search_memory import Options
from autolr.sweep import run_range_test
from autolr.trial_diary import Found, TrialDiary
from autolr.trial_values import BRACKET, MAX_LR, MIN_LR, PARENT, RUNG
from autolr.verdicts import STATUSES, LRBounds


def parent_of(trial: Any) -> str | None:
    """The trial of Hyperband's rung before, with whose weights this one goes on."""
    return trial.hyperparameters.values.get(PARENT) or None


def screens(trial: Any) -> bool:
    """Whether this trial is in a first rung of Hyperband of which only the best go on.

    Later ones go on with their parents' bounds; with several workers, Keras Tuner gives them numbers of other brackets.
    """
    values = trial.hyperparameters.values
    return parent_of(trial) is None and bool(values.get(RUNG, 0) < values.get(BRACKET, 0))


def find_trial_bounds(
    model: keras.Model,
    arguments: dict[str, Any],
    *,
    diary: TrialDiary,
    options: Options,
    folder_of: Callable[[str], str],
    per_epoch: int | None,
) -> Found:
    """Bounds for a training that is about to begin; whatever goes wrong, there are some.

    Args:
        model: The freshly built model.
        arguments: Those of its `fit`.
        diary: Of the trial: is told, and knows what the trials of the search share.
        options: What the user chose.
        folder_of: Gives the folder of a trial.
        per_epoch: Batches in an epoch, None if unknown.
    """
    trial, search = diary.trial, diary.search
    values = trial.hyperparameters.values
    parent = parent_of(trial)
    if parent and MIN_LR in values and MAX_LR in values:
        record = record_in(folder_of(parent))
        # Of several ways of training the bounds are the last one's, and can't serve for what came before.
        if record is None or record.ways == 1:
            return _taken_over(parent, verdict_on(values[MIN_LR], values[MAX_LR], record), diary)
    seen, per_update = training_arguments(arguments), batches_per_update(model.optimizer)
    steps, bursts = range_test_budget(
        per_epoch * epochs_of(arguments) / per_update if per_epoch else None,
        share=options.range_test_share,
        most=options.range_test_steps,
        least=options.range_test_min_steps,
        goes_on=Fit.on(model, **seen).can_skip(ROUNDS[0].steps * per_update),
        screening=screens(trial),
    )
    measured = measured_setup(model, arguments, values) if options.reuse_bounds else ""
    if measured in search.shared:
        tester, bounds, most = search.shared[measured]
        if most >= steps + bursts:  # a short trial's guess would not do for a long one
            return _taken_over(tester, bounds, diary)
    diary.say(f"range test: up to {steps + bursts} steps ...")
    try:
        finder = LRFinder(num_steps=steps, restore=False)
        # Warnings are not caught on their way: Python would repeat Keras's own in each trial then.
        test = run_range_test(
            model, finder=finder, burst_steps=bursts, warn=lambda text: diary.warn(text, text), **seen
        )
        if per_epoch is None and finder.batches_in_epoch:  # of data that don't tell their size
            search.note_epoch(arguments["x"], finder.batches_in_epoch)
        found = Found(judged(test, model.optimizer), test, "range test")
        topic = found.bounds.status
    except Exception as error:  # whatever it was, training itself will show it too, or go well
        topic = f"failed {type(error).__name__}"
        bounds = fallback(model.optimizer, f"The range test raised {in_brief(error)}")
        found = Found(bounds, None, "fallback")
    bounds = found.bounds
    search.note_test(str(trial.trial_id), found.test, bounds)
    if bounds.ok and measured:
        search.shared[measured] = str(trial.trial_id), bounds, steps + bursts
    if not bounds.ok:
        # Once a search for each verdict and kind of error; every trial's record has its own.
        diary.warn(topic, f"Trial {trial.trial_id}: {bounds.status}. {bounds.reason}")
    spent = f", {found.test.steps_spent} steps" if found.test else ""
    verdict = f"{bounds.status}, {bounds.confidence} confidence{spent}"
    diary.say(f"bounds: {bounds.min_lr:.2e} to {bounds.max_lr:.2e} ({verdict})")
    return found


def judged(test: RangeTest, optimizer: Any) -> LRBounds:
    """The bounds of a range test; where nothing can be seen for noise or want of steps, the optimizer's usual rate.

    From a curve alone there is only a guess by its ends then, the same for every optimizer.
    """
    bounds = test.bounds()
    if bounds.status not in ("too_noisy", "too_few_points"):
        return bounds
    advice = "Sweep more slowly (longer trials, or a larger `range_test_share`), or use a larger batch."
    if bounds.status == "too_few_points":
        advice = (
            "Give it more steps: longer trials, or larger values of the tuner's `range_test_steps`, "
            "`range_test_min_steps` and `range_test_share`, whichever is the limit."
        )
    usual = fallback(optimizer, STATUSES[bounds.status], status=bounds.status)
    return replace(usual, reason=f"{usual.reason} {advice}")


def _taken_over(trial_id: str, bounds: LRBounds, diary: TrialDiary) -> Found:
    diary.say(f"range test: none, goes on with the bounds of trial {trial_id}")
    return Found(bounds, None, f"trial {trial_id}")


def verdict_on(min_lr: float, max_lr: float, record: TrialRecord | None) -> LRBounds:
    """These bounds with the verdict on them of the record of the trial that found them."""
    if record is not None:
        bounds = LRBounds.from_dict(record.bounds)
        if tuple(bounds) == (min_lr, max_lr):  # else the folder was another trial's before
            return bounds
    reason = "What the trial that found these bounds has recorded of them cannot be read, but for the rates."
    return LRBounds(min_lr, max_lr, "unknown", reason, "low")


def fallback(optimizer: Any, what_happened: str, *, status: str = "failed") -> LRBounds:
    """Bounds when a curve says nothing, or there is none: the optimizer's usual rate, and a 25th of it."""
    rate = usual_rate(optimizer)
    reason = f"{what_happened.rstrip('.')}. The bounds are the optimizer's usual rate and a 25th of it."
    return LRBounds(rate / 25, rate, status, reason, "low")
