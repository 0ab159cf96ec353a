"""What a trial found, as one JSON file in the trial's folder, and how its search ended, as one in the search's.

Reading a search needs neither Keras nor TensorFlow.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from autolr.errors import RecordError
from autolr.files import strict, write_atomically
from autolr.record_check import check_record
from autolr.trial_values import without_found

FILE_NAME = "autolr.json"
STOPPED = "stopped.json"  # in a search's folder, from when it was cut off until it goes on
FORMAT = 1


@dataclass(frozen=True)
class TrialRecord:
    """A trial's range test, bounds, schedule and training.

    What later versions have added has a default, so that older records can be read.

    Attributes:
        trial_id: Keras Tuner's name of the trial.
        values: The trial's hyperparameter values. A record belongs to these, not to the folder it lies in: after a
            kill during the very first trial, Keras Tuner gives the same folder to other values.
        bounds: `LRBounds.to_dict()`.
        schedule: `cycle_length`, `mult_factor`, `lr_decay`, `warmup`, and as planned: `epochs`, `initial_epoch`,
            `steps_per_epoch` (None if unknown) and `edges`, the steps on which cycles begin and the last one ends. Its
            steps are batches, `batches_per_update` of which make an optimizer's step under gradient accumulation. Of
            several trainings it is the last one's, as are the bounds.
        range_test: `RangeTest.to_dict()`, or None if there was no test in this trial.
        source: Where the bounds come from, in words: "range test", "trial 0003" or "fallback".
        training: The training as run, of several the last, None before it has begun. `rates` (`step`, `lr`): the
            optimizer's rate at some 300 of its steps and at the ends of cycles; `losses` (`step`, `loss`): the mean
            loss of the steps since the last point; `epochs`: for each its number (`epoch`, from 1), the `step` that
            it ended with, and its `logs`; `steps`: how many there were; `fits`: how often `fit` was called;
            `steps_of_all`: how many steps all of these had. Steps are optimizer updates of this `fit`, counted from 1.
            Numbers are as in `RangeTest.to_dict()`: not-a-number and the infinities are the strings "nan", "inf" and
            "-inf".
        optimizer: Name of the optimizer's class, "" if unknown.
        objective: `name` and `direction` ("min" or "max") of the search's objective, None if unknown.
        warnings: What AutoLR warned of in this trial, also where an earlier trial had said it already.
        ways: In how many ways it was trained one after the other, each with bounds of its own, as when a
            `HyperModel.fit` calls `fit` on a frozen model and again on all of it.
        earlier: The bounds of the other ways, in their order, as `bounds`; none in older records.
        steps_tested: Optimizer steps of all range tests in this trial, None in older records: then those of the one.
    """

    trial_id: str
    values: dict[str, Any]
    bounds: dict[str, Any]
    schedule: dict[str, Any]
    range_test: dict[str, Any] | None
    source: str
    training: dict[str, Any] | None = None
    optimizer: str = ""
    objective: dict[str, str] | None = None
    warnings: list[str] = field(default_factory=list)
    ways: int = 1
    earlier: list[dict[str, Any]] = field(default_factory=list)
    steps_tested: int | None = None

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """Those of the training, none before it has begun."""
        return self.training["epochs"] if self.training else []

    @property
    def per_epoch(self) -> int:
        """What to divide `schedule["edges"]` by for epochs: 1 where they are epochs, since the steps are not known."""
        return self.schedule["steps_per_epoch"] or 1

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write to `autolr.json` in a trial's folder, whole or not at all.

        Raises:
            OSError: If it cannot be written; then what was there is still there.
        """
        content = {"format": FORMAT, **asdict(self), "values": _strict(self.values)}
        text = json.dumps(content, allow_nan=False, indent=1)
        write_atomically(Path(folder) / FILE_NAME, text)

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> TrialRecord:
        """Read the record in a trial's folder.

        Raises:
            RecordError: If there is none, or the file is not one.
        """
        path = Path(folder) / FILE_NAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("format") != FORMAT:
                raise RecordError(f"{path} was written by another version of autolr.")
            # A later version may have added to it.
            record = cls(**{name: content[name] for name in content.keys() & cls.__dataclass_fields__.keys()})
            check_record(record)
            return record
        except RecordError:
            raise
        except FileNotFoundError:
            raise RecordError(f"{path} does not exist: no range test was recorded for this trial.") from None
        except (OSError, ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
            raise RecordError(f"{path} is no trial record of autolr: {error}") from error


def record_in(folder: str | os.PathLike[str]) -> TrialRecord | None:
    """A trial's record; None if it is gone, damaged, or in a folder that only TensorFlow can read."""
    try:
        return TrialRecord.read(folder)
    except RecordError:
        return None


def objective_of(oracle: Any) -> dict[str, str] | None:
    """Name and direction of what a Keras Tuner oracle ranks by, as in a record; None if it has none of its own.

    Of several, which Keras Tuner adds up, each has its direction in the name.
    """
    objective = getattr(oracle, "objective", None)
    name, direction = (str(getattr(objective, part, "")) for part in ("name", "direction"))
    if several := getattr(objective, "objectives", None):
        name = ", ".join(f"{it.name} ({it.direction})" for it in several)
    return {"name": name, "direction": direction} if direction in ("min", "max") else None


def in_words(objective: Mapping[str, str]) -> str:
    """An objective with its direction, for readers; several have theirs already."""
    name, direction = objective["name"], f"({objective['direction']})"
    return name if name.endswith(("(min)", "(max)")) else f"{name} {direction}"


def note_stop(folder: str | os.PathLike[str], error: str = "") -> None:
    """Note in a search's folder that it was cut off just now, by Ctrl-C or this error, where that can be written."""
    with contextlib.suppress(OSError):
        content = {"stopped": datetime.now().isoformat(), "error": error}
        write_atomically(Path(folder) / STOPPED, json.dumps(content))


def note_start(folder: str | os.PathLike[str]) -> None:
    """Forget that a search was cut off: it goes on."""
    with contextlib.suppress(OSError):
        (Path(folder) / STOPPED).unlink(missing_ok=True)


def holds(values: Mapping[str, Any], recorded: Mapping[str, Any]) -> bool:
    """Whether a trial's hyperparameter values hold those of a record, but for what the trial found itself.

    They may be more: a `HyperModel.fit` can declare another after its training.
    """
    missing = object()
    own = _strict(values)
    return all(own.get(name, missing) == value for name, value in _strict(without_found(recorded)).items())


def _strict(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: strict(value) if isinstance(value, float) else value for name, value in values.items()}
