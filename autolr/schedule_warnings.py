"""Trainings that a schedule does not fit: for their optimizer, or since they end before the rate has come down."""

from __future__ import annotations

from typing import Any

from autolr.errors import warn
from autolr.optimizers import SEVERAL, against_schedules, several_optimizers
from autolr.sgdr import Schedule

SHORT = 0.75  # of the batches planned: an epoch of fewer has other data than its schedule


def warn_of_optimizer(model: Any) -> None:
    """Warn if a schedule does the optimizer harm, or does not reach all optimizers of the model."""
    if reason := against_schedules(model.optimizer):
        warn(f"{reason} Train at a constant rate.")
    if several_optimizers(model):
        warn(f"{SEVERAL} `SGDRScheduler` sets the rate of the one it is compiled with alone.")


def warn_if_cut_short(schedule: Schedule, epochs: int) -> None:
    """Warn if a training of so many epochs ends within the schedule's first cycle."""
    first = schedule.cycle_length + schedule.warmup  # in whole epochs, as it is no budget's share
    if epochs < first and not schedule.fit_budget:
        warn(
            f"Training ends within the first cycle, after {epochs} of {first:g} epochs, before the learning rate has "
            "come down. Unless another `fit` goes on from there, `fit_budget=True` fits the cycles to the training."
        )


def warn_if_short(trained: int, planned: int) -> bool:
    """Warn if epochs of so few batches do not come to the ends that were laid out for more; whether it was so."""
    if trained >= SHORT * planned:
        return False
    warn(
        f"An epoch had {trained} batches, not the {planned} that its schedule is laid out for, as announced by "
        "`steps_per_epoch` or the length of the data, or as the first epoch had: the learning rate will not come down "
        "at the ends of its cycles. Say how many there are, or leave `steps_per_epoch` out."
    )
    return True
