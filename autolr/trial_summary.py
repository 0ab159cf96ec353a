"""One trial's bounds and schedule in a line of words, for the summary of a search."""

from __future__ import annotations

import os
from typing import Any

from autolr.budget import describe
from autolr.errors import RecordError
from autolr.records import TrialRecord
from autolr.trial_values import MAX_LR, MIN_LR


def summarise(trial: Any, folder: str | os.PathLike[str]) -> str:
    """The bounds of a trial, the verdict on them, the schedule, and whether it ended early.

    Args:
        trial: The `keras_tuner` trial.
        folder: The trial's, with its record.
    """
    values = trial.hyperparameters.values
    if MIN_LR not in values:
        return "no bounds recorded" if trial.status == "COMPLETED" else f"{trial.status.lower()}, no bounds recorded"
    ended = "" if trial.status == "COMPLETED" else f"{trial.status.lower()}, "
    found = f"{values[MIN_LR]:.2e} to {values[MAX_LR]:.2e}"
    try:
        record = TrialRecord.read(folder)
    except RecordError as error:
        return f"{ended}{found}; {error}"
    verdict = f"{record.bounds['status']}, {record.bounds['confidence']} confidence, from {record.source}"
    before = "".join(f"{its['min_lr']:.2e} to {its['max_lr']:.2e} and then " for its in record.earlier)
    return f"{ended}{before}{found} ({verdict}); {describe(record.schedule)}{_cut_short(record)}"


def _cut_short(record: TrialRecord) -> str:
    """What there is to add of a training that ended before its last epoch."""
    epochs, planned = record.epochs, record.schedule["edges"][-1] // record.per_epoch
    return f", ended after epoch {epochs[-1]['epoch']} of {planned}" if epochs and epochs[-1]["epoch"] < planned else ""
