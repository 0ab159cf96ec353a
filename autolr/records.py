"""What a trial found, as one JSON file in the trial's folder.

Standard library only: reading a search needs no Keras.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autolr.errors import RecordError

FILE_NAME = "autolr.json"
FORMAT = 1


@dataclass(frozen=True)
class TrialRecord:
    """A trial's range test, bounds and schedule.

    Attributes:
        trial_id: Keras Tuner's name of the trial.
        values: The trial's hyperparameter values. A record belongs to these, not to the folder it lies in: after a
            kill during the very first trial, Keras Tuner gives the same folder to other values.
        bounds: `LRBounds.to_dict()`.
        schedule: `cycle_length`, `mult_factor`, `lr_decay`, and as planned: `epochs`, `initial_epoch`,
            `steps_per_epoch` (None if unknown) and `edges`, the steps on which cycles begin and the last one ends.
        range_test: `RangeTest.to_dict()`, or None if there was no test in this trial.
        source: Where the bounds come from, in words: "range test", "trial 0003", or "fallback: ...".
    """

    trial_id: str
    values: dict[str, Any]
    bounds: dict[str, Any]
    schedule: dict[str, Any]
    range_test: dict[str, Any] | None
    source: str

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write to `autolr.json` in a trial's folder, whole or not at all.

        Raises:
            OSError: If it cannot be written; then what was there is still there.
        """
        text = json.dumps({"format": FORMAT, **asdict(self)}, allow_nan=False, indent=1)
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
            return cls(**content)
        except FileNotFoundError:
            raise RecordError(f"{path} does not exist: no range test was recorded for this trial.") from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise RecordError(f"{path} is no trial record of autolr: {error}") from error


def write_atomically(path: Path, text: str) -> None:
    """Write a file aside and move it into place, so that a reader or a crash never sees half of it."""
    # Not `tempfile`, whose files only their owner may read: reports are made by others, too.
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def same_values(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str) -> bool:
    """Whether two trials' hyperparameter values are the same, but for what the trials found themselves."""

    def chosen(values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if not name.startswith(prefix)}

    return chosen(a) == chosen(b)
