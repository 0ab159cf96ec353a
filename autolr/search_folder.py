"""A Keras Tuner project folder as it lies on disk: finished or running, whole or not.

Neither Keras nor TensorFlow is needed. A search that is running is read while it writes, one that was killed may have
left half a file behind, and one that never ran under autolr has no records: nothing in such a folder is an error but
that there is no search in it at all. What could not be read is said in `problems`.
"""

from __future__ import annotations

import itertools
import math
import os
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from autolr.errors import RecordError
from autolr.json_parts import as_dict, as_list, as_number, as_time, read_json
from autolr.records import FILE_NAME, STOPPED, TrialRecord, holds, in_words
from autolr.trial_values import PREFIX

UNREADABLE = "UNREADABLE"  # beside Keras Tuner's own RUNNING, COMPLETED, INVALID and FAILED

# A search says nothing while a trial trains. It counts as interrupted after this long, or, where trials take longer,
# after the longest trial three times over.
PATIENCE_SECONDS = 600.0
FEWEST_POINTS = 12  # of a training's loss by step, to say whether it fell


class Tuner(Protocol):
    """A Keras Tuner tuner, of which only its folder is wanted."""

    @property
    def project_dir(self) -> str:
        """Its folder, `directory/project_name`."""


Source = str | os.PathLike[str] | Tuner


@dataclass(frozen=True)
class Trial:
    """One trial, as far as it can be read.

    Attributes:
        trial_id: Keras Tuner's name of the trial.
        status: Keras Tuner's status, or `UNREADABLE`.
        score: Value of the objective, None without one.
        message: Keras Tuner's message: the traceback of a failure.
        values: Hyperparameter values, what was found by the trial (`autolr/…`) and Keras Tuner's (`tuner/…`) included.
        metrics: Value of each metric in the epoch of the best objective, of several executions the mean.
        directions: "min" or "max" of each metric.
        record: What autolr recorded, None without a usable record.
        problems: What is missing or broken, in sentences.
    """

    trial_id: str
    status: str = UNREADABLE
    score: float | None = None
    message: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    directions: Mapping[str, str] = field(default_factory=dict)
    record: TrialRecord | None = None
    problems: tuple[str, ...] = ()

    @property
    def bounds_status(self) -> str:
        """Status of the bounds found, "" without a record."""
        return str(self.record.bounds["status"]) if self.record else ""

    @property
    def bounds_in_words(self) -> str:
        """Whether the bounds can be trusted: "ok", "a guess" (of low confidence), or their status; "" without any."""
        if self.bounds_status != "ok" or self.record is None:
            return self.bounds_status.replace("_", " ")
        return "a guess" if self.record.bounds["confidence"] == "low" else "ok"

    @property
    def needs_a_look(self) -> bool:
        """Whether something is wrong with this trial, its range test or its files."""
        bad = self.status in ("FAILED", "INVALID", UNREADABLE)
        return bad or bool(self.problems) or self.bounds_status not in ("", "ok")

    @property
    def steps_tested(self) -> int:
        """Optimizer steps its range tests took."""
        if self.record is None:
            return 0
        if self.record.steps_tested is not None:
            return self.record.steps_tested
        return int(self.record.range_test["steps_spent"]) if self.record.range_test else 0

    @property
    def steps_trained(self) -> int | None:
        """Optimizer steps of its trainings; None if unknown.

        As run, if a training is on record. Of a trial that is completed without one, as planned, for one execution:
        how many there were Keras Tuner does not write down. Of others none: they were cut off in their first epoch,
        or within seconds.
        """
        if self.record is None:
            return None
        training = self.record.training
        if training is not None:
            return int(training["steps_of_all"])
        return self.steps_planned if self.status == "COMPLETED" else 0

    @property
    def steps_planned(self) -> int | None:
        """Optimizer steps from the trial's first epoch to its last, if that can be known."""
        if self.record is None or not (schedule := self.record.schedule)["steps_per_epoch"]:
            return None
        own = schedule["edges"][-1] - schedule["initial_epoch"] * schedule["steps_per_epoch"]
        return max(0, int(own)) // int(schedule["batches_per_update"])


@dataclass(frozen=True)
class Search:
    """A search, as far as it can be read.

    Attributes:
        name: Name of its folder.
        state: "finished", "running", "interrupted" (a trial is under way, but the search was cut off, or nothing has
            been written for long), "failed" (its last trials failed) or "empty" (no trial yet).
        objective: Name of the objective, from a trial's record. Keras Tuner does not write it down: without such a
            record it is the metric that the scores are the best values of, "score" if there is none, and "objective"
            without scores.
        direction: "min" or "max".
        trials: In the order in which they began.
        ongoing: Trial under way by tuner: one, or one for each worker.
        started: When the search began, None if unknown.
        last_write: When something in the folder was last written, in seconds since the epoch.
        problems: What is missing or broken, in sentences.
    """

    name: str
    state: str
    objective: str
    direction: str
    trials: tuple[Trial, ...]
    ongoing: Mapping[str, str]
    started: datetime | None
    last_write: float
    problems: tuple[str, ...]

    @cached_property
    def ranked(self) -> list[Trial]:
        """The completed trials with a score, best first."""
        completed = [trial for trial in self.trials if trial.status == "COMPLETED"]
        scored = [trial for trial in completed if trial.score is not None and not math.isnan(trial.score)]
        return sorted(scored, key=lambda trial: trial.score or 0.0, reverse=self.direction == "max")

    @cached_property
    def best(self) -> Trial | None:
        """The completed trial with the best finite score."""
        return next((trial for trial in self.ranked if math.isfinite(trial.score or 0.0)), None)


def find_project(directory: Source) -> Path:
    """The project folder of a search: that of a tuner, `directory` itself, or the only search in it.

    Raises:
        RecordError: If there is no search, or more than one.
    """
    where: Any = getattr(directory, "project_dir", directory)
    try:
        folder = Path(where)
    except TypeError:
        raise RecordError(
            f"A search is given as its tuner or its folder, a path. Received: {directory!r}, which is neither."
        ) from None
    if not folder.is_dir():
        kind = "no folder but a file" if folder.exists() else "no folder that exists"
        raise RecordError(f"{str(directory)!r} is {kind}. Give the folder that Keras Tuner wrote.")
    if _is_project(folder):
        return folder
    projects = sorted(child for child in folder.iterdir() if child.is_dir() and _is_project(child))
    if len(projects) == 1:
        return projects[0]
    if projects:
        names = ", ".join(repr(project.name) for project in projects)
        raise RecordError(f"{str(directory)!r} holds more than one search. Name one of them: {names}.")
    raise RecordError(
        f"{str(directory)!r} is no search: it holds neither oracle.json nor trial_* folders. Give the folder that "
        "Keras Tuner wrote, `directory/project_name` in the arguments of the tuner."
    )


def read_search(directory: Source) -> Search:
    """Read a search.

    Raises:
        RecordError: If there is no search in `directory`, or more than one.
    """
    folder = find_project(directory)
    oracle, problems = read_json(folder / "oracle.json")
    order = [str(name) for name in as_list(oracle.get("start_order"))]
    found = {path.name.removeprefix("trial_"): path for path in folder.glob("trial_*") if path.is_dir()}
    names = [name for name in order if name in found] + sorted(set(found) - set(order))
    assisted = any((path / FILE_NAME).exists() for path in found.values())
    trials = tuple(_read_trial(found[name], name, assisted=assisted) for name in names)
    if gone := [name for name in order if name not in found]:
        problems.append(f"The folders of these trials are missing: {', '.join(gone)}.")
    known = _objective(trials)
    if known is None:
        problems.append("The objective is not known; lower scores are taken to be better.")
    objective, direction = known or ("score", "min")
    scored = [trial.record for trial in trials if trial.record and trial.status == "COMPLETED"]
    scored_by = {in_words(it.objective) for it in scored if it.objective}
    if len(scored_by) > 1:
        problems.append(f"Trials were scored by different objectives: {', '.join(sorted(scored_by))}.")
    display = as_dict(oracle.get("display"))
    # A trial that has just ended may still be listed: Keras Tuner saves before it crosses it out.
    running = {trial.trial_id for trial in trials if trial.status == "RUNNING"}
    ongoing = {str(tuner): str(name) for tuner, name in as_dict(oracle.get("ongoing_trials")).items()}
    # A worker shows that it is alive by its trial's folder itself.
    last_write = _last_write([*folder.glob("*.json"), *folder.glob("trial_*"), *folder.glob("trial_*/*")])
    silence = time.time() - last_write
    stopped = (folder / STOPPED).exists()
    error = read_json(folder / STOPPED)[0].get("error")
    if stopped and error:
        problems.append(f"The search was ended by an error: {error}")
    return Search(
        name=folder.resolve().name,
        state=_state(
            trials, patient=not stopped and silence < _patience(display, found), bears_failures=assisted and not error
        ),
        objective=objective,
        direction=direction,
        trials=trials,
        ongoing={tuner: name for tuner, name in ongoing.items() if name in running},
        started=as_time(display.get("search_start")),
        last_write=last_write,
        problems=tuple(problems),
    )


def _learned_nothing(record: TrialRecord) -> bool:
    """Whether the loss of a fresh model's only training ended no lower than it began, as far as noise lets one see."""
    losses = [float(loss) for loss in (record.training or {}).get("losses", {}).get("loss", [])]
    goes_on = record.source != "range test" or record.ways > 1 or record.schedule["initial_epoch"]
    if goes_on or len(losses) < FEWEST_POINTS or not all(map(math.isfinite, losses)):
        return False
    third = len(losses) // 3
    first, last = statistics.fmean(losses[:third]), statistics.fmean(losses[-third:])
    noise = statistics.median(abs(later - loss) for loss, later in itertools.pairwise(losses))
    # A quick fall is in the first points alone, a slow one beyond two standard errors of the means of many: that of a
    # point is about the median difference of two.
    fell_soon = statistics.fmean(losses[:3]) - last > noise
    return not fell_soon and first - last <= 2 * noise * math.sqrt(2 / third)


def _is_project(folder: Path) -> bool:
    try:
        return (folder / "oracle.json").is_file() or any(folder.glob("trial_*/trial.json"))
    except PermissionError:  # another's
        return False


def _read_trial(folder: Path, name: str, *, assisted: bool) -> Trial:
    """A trial of a search in which others have a record of autolr (`assisted`), or none has."""
    state, problems = read_json(folder / "trial.json")
    values = as_dict(as_dict(state.get("hyperparameters")).get("values"))
    metrics, directions = _metrics(as_dict(as_dict(state.get("metrics")).get("metrics")))
    record = None
    try:
        record = TrialRecord.read(folder)
        recorded = record.values
        if state.get("status") == "RUNNING":  # Keras Tuner has written down none of those that it has declared itself
            recorded = {name: value for name, value in recorded.items() if name in values}
        if values and not holds(values, recorded):
            record = None
            problems.append("The record of autolr in its folder belongs to other hyperparameter values: it is stale.")
    except (RecordError, RecursionError) as error:  # the latter of nonsense nested very deep
        # The folder's own path says nothing to whom the report is sent.
        why = str(error).replace(f"{folder}{os.sep}", "")
        # One that has just begun has none yet; those of plain Keras Tuner never have.
        if state.get("status") != "RUNNING" and (assisted or any(key.startswith(PREFIX) for key in values)):
            problems.append(why)
    if state.get("status") == "COMPLETED" and record is not None and _learned_nothing(record):
        problems.append(
            "No fall of its loss can be seen in training. Perhaps the bounds are too low or too high for this model, "
            "or it cannot learn: compare the trials of its kind."
        )
    return Trial(
        trial_id=name,
        status=str(state.get("status") or UNREADABLE),
        score=as_number(state.get("score")),
        message=str(state.get("message") or ""),
        values=values,
        metrics=metrics,
        directions=directions,
        record=record,
        problems=tuple(problems),
    )


def _metrics(configs: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, str]]:
    """Value and direction of each metric: Keras Tuner keeps that of each execution's epoch of the best objective."""
    best, directions = {}, {}
    for name, config in configs.items():
        direction = as_dict(config).get("direction")
        means = []
        for observation in as_list(as_dict(config).get("observations")):
            values = [
                number
                for value in as_list(as_dict(observation).get("value"))
                if (number := as_number(value)) is not None
            ]
            if values:
                means.append(sum(values) / len(values))
        if real := [mean for mean in means if not math.isnan(mean)]:
            best[name] = max(real) if direction == "max" else min(real)
            directions[name] = "max" if direction == "max" else "min"
    return best, directions


def _objective(trials: Sequence[Trial]) -> tuple[str, str] | None:
    """What the records say; else the metric that every score is the best value of, validation metrics first, if any."""
    recorded = next((trial.record.objective for trial in trials if trial.record and trial.record.objective), None)
    if recorded:
        return recorded["name"], recorded["direction"]
    scored = [trial for trial in trials if trial.score is not None and math.isfinite(trial.score)]
    if not scored:
        return "objective", "min"
    candidates = [
        name
        for name in scored[0].metrics
        if all(math.isclose(trial.metrics.get(name, math.nan), trial.score or 0.0, rel_tol=1e-9) for trial in scored)
    ]
    if not candidates:
        return None
    name = min(candidates, key=lambda name: not name.startswith("val_"))
    return name, scored[0].directions[name]


def _state(trials: Sequence[Trial], *, patient: bool, bears_failures: bool) -> str:
    """What a search is, by its trials and whether it would have been noted if it had been given up for them."""
    ended = [trial.status for trial in trials if trial.status not in ("RUNNING", "INVALID")]  # INVALID: to be retried
    pending = len(ended) < len(trials)
    if patient and (pending or not trials):
        return "running"
    if not trials:
        return "empty"
    # By default Keras Tuner gives up at the third failure in a row; by itself it does not write down that this one has
    # failed.
    in_a_row = ended[-2:] == ["FAILED"] * 2 and (pending or ended[-3:-2] == ["FAILED"])
    if (in_a_row and not bears_failures) or set(ended) == {"FAILED"}:
        return "failed"
    return "interrupted" if pending else "finished"


def _patience(display: Mapping[str, Any], folders: Mapping[str, Path]) -> float:
    """Three times as long as the longest trial: until the next began, or it wrote last, as before a pause.

    Args:
        display: Keras Tuner's notes of when trials began.
        folders: The trials' folders, by name.
    """
    times = {str(name): as_time(moment) for name, moment in as_dict(display.get("trial_start")).items()}
    begun = sorted((moment.timestamp(), name) for name, moment in times.items() if moment)
    lengths = [
        min(end, _last_write(folders[name].glob("*"))) - start
        for (start, name), (end, _) in itertools.pairwise([*begun, (math.inf, "")])
        if name in folders
    ]
    return max([PATIENCE_SECONDS, *(3 * length for length in lengths)])


def _last_write(paths: Iterable[Path]) -> float:
    written = [0.0]
    for path in paths:
        try:
            written.append(path.stat().st_mtime)
        except OSError:  # gone in the meantime: a search is writing
            continue
    return max(written)
