"""What is said of one trial, and written down."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from autolr.curve import RangeTest
from autolr.files import is_remote
from autolr.records import FILE_NAME, TrialRecord
from autolr.search_memory import SearchMemory
from autolr.verdicts import LRBounds


class Found(NamedTuple):
    """The bounds of a trial, the test that found them if it was its own, and where they come from in words."""

    bounds: LRBounds
    test: RangeTest | None
    source: str


class TrialDiary:
    """The lines and warnings about a trial, and its record on disk.

    Args:
        trial: The `keras_tuner` trial.
        folder: Where its record goes.
        search: What the trials share: each thing is warned of once in a search.
        objective: The search's, for the record.
    """

    def __init__(self, trial: Any, folder: str, search: SearchMemory, objective: dict[str, str] | None) -> None:
        self.trial, self.search = trial, search
        self._folder, self._objective = folder, objective
        self._warned: list[str] = []  # what this trial was warned of, said or not
        self._record: TrialRecord | None = None
        self._steps_before = 0  # of the trainings before the latest
        self._tests: list[RangeTest] = []

    @property
    def is_remote(self) -> bool:
        """Whether the trial's folder is on a file system that only TensorFlow can write to."""
        return is_remote(self._folder)

    def say(self, text: str) -> None:
        """One line about a phase of the trial."""
        self.search.progress.say(str(self.trial.trial_id), text)

    def warn(self, topic: str, text: str) -> None:
        """Warn once in the search; the trial's record has it in any case, if there is one."""
        if text not in self._warned:
            self._warned.append(text)
        self.search.warn_once(topic, text)

    def begin(self, found: Found, schedule: dict[str, Any], *, optimizer: str, earlier: list[dict[str, Any]]) -> None:
        """A training is about to begin.

        Args:
            found: Its bounds.
            schedule: As planned; see `TrialRecord`.
            optimizer: The name of its optimizer's class.
            earlier: See `TrialRecord`.
        """
        training = self._record.training if self._record else None
        self._steps_before = training["steps_of_all"] if training else 0
        if found.test is not None and all(found.test is not test for test in self._tests):
            self._tests.append(found.test)
        self._write(
            TrialRecord(
                trial_id=str(self.trial.trial_id),
                values=dict(self.trial.hyperparameters.values),
                bounds=found.bounds.to_dict(),
                schedule=schedule,
                range_test=found.test.to_dict() if found.test else None,
                source=found.source,
                training=training,
                optimizer=optimizer,
                objective=self._objective,
                warnings=list(self._warned),
                ways=1 + len(earlier),
                earlier=earlier,
                steps_tested=sum(test.steps_spent for test in self._tests),
            )
        )

    def forget(self) -> None:
        """Take back the record: that of a training that was cut off, or does not go as it says."""
        self._record, self._tests = None, []
        with contextlib.suppress(OSError):
            (Path(self._folder) / FILE_NAME).unlink(missing_ok=True)

    def keep_training(self, training: dict[str, Any]) -> None:
        """Note how far the training is; see `TrialRecord`."""
        if self._record is not None:
            # A user's `HyperModel.fit` may have declared another hyperparameter since.
            values = dict(self.trial.hyperparameters.values)
            training = {**training, "steps_of_all": self._steps_before + training["steps"]}
            self._write(replace(self._record, values=values, training=training, warnings=list(self._warned)))

    def _write(self, record: TrialRecord) -> None:
        self._record = record
        try:
            if self.is_remote:
                raise OSError(f"{self._folder} is no local folder")
            record.write(self._folder)
        except (OSError, TypeError, ValueError) as error:
            self.warn(
                "record",
                f"What AutoLR noted of trial {self.trial.trial_id} could not be written ({error}). The trial goes on.",
            )
