"""The only file that touches names Keras Tuner does not promise to keep, each with why; `compat.py` has Keras's.

`tests/test_compat.py` and `tests/test_dropin_compat.py` fail with a clear message when one of them is gone.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any

import keras_tuner as kt
from keras_tuner.engine.trial import Trial

from autolr import compat
from autolr.errors import library_of
from autolr.files import is_remote, written_aside
from autolr.trial_values import PARENT, without_found

if TYPE_CHECKING:
    # The mixin goes in front of any tuner class; to a type checker it looks like the most general one.
    from keras_tuner import Tuner as _Tuner
else:
    _Tuner = object


def ignore_found_values(oracle: Any) -> None:
    """Teach an oracle that what a trial found is no choice of the search.

    `autolr/…` values must neither make two equal trials look different (`_compute_values_hash`, which Hyperband's
    oracle overrides for its own `tuner/…` values in the same way) nor be copied by grid search into the next
    combination (`populate_space`). A later Hyperband rung, which names its parent, does keep its parent's bounds.
    """

    def hash_choices(self: Any, values: dict[str, Any]) -> str:
        return str(type(self)._compute_values_hash(self, without_found(values)))

    def populate_with_choices(self: Any, trial_id: str) -> dict[str, Any]:
        response: dict[str, Any] = type(self).populate_space(self, trial_id)
        values = response.get("values")
        if values and PARENT not in values:
            response["values"] = without_found(values)
        return response

    # Methods, not functions that know this oracle: those of a deep copy are its own.
    oracle._compute_values_hash = MethodType(hash_choices, oracle)
    oracle.populate_space = MethodType(populate_with_choices, oracle)


class TunerSeams(_Tuner):
    """Keras Tuner's seams for subclasses, whose names begin with an underscore, under names of ours.

    AutoKeras overrides the same ones, so Keras Tuner keeps them (its comments say so for the first two).
    """

    def _populate_initial_space(self) -> None:  # the space is known now, and not yet searched
        super()._populate_initial_space()
        self._autolr_complete_space()

    def _build_and_fit_model(self, trial: Any, *args: Any, **kwargs: Any) -> Any:  # once for each execution
        with self._autolr_assisting(trial):
            return super()._build_and_fit_model(trial, *args, **kwargs)

    def _try_build(self, hp: Any) -> Any:  # the only place that sees every model between its build and its fit
        model = self._autolr_try_build_later_rung(hp) if hp.values.get(PARENT) else super()._try_build(hp)
        self._autolr_on_model_built(hp, model)
        return model

    def _autolr_try_build_later_rung(self, hp: Any) -> Any:
        # Keras Tuner loads a parent's checkpoint before the optimizer has its variables; AutoLR does so after, but for
        # a model with several optimizers, of which it warns. Not for each trial: Python forgets then which warnings of
        # others it has shown.
        with compat.optimizer_may_be_left_out():
            return super()._try_build(hp)

    _autolr_writes_to = ""  # while the tuner's own file is written

    def save(self) -> None:
        """Save as Keras Tuner does; a kill leaves no half of the tuner's own file, which it could not take up again."""

        def save_to(path: str) -> None:
            self._autolr_writes_to = path
            try:
                super(TunerSeams, self).save()
            finally:
                self._autolr_writes_to = ""

        _write_whole(self._get_tuner_fname(), save_to)

    def _get_tuner_fname(self) -> str:
        if self._autolr_writes_to:
            return self._autolr_writes_to
        # Whether this file exists is how Keras Tuner knows that a search is there to go on with. A process without a
        # chief looks for its own, and would begin anew over what a chief has left.
        name = str(super()._get_tuner_fname())
        if not is_remote(name) and not has_chief() and not os.path.exists(name):
            files = sorted(os.listdir(self.project_dir))
            chiefs = [file for file in files if re.fullmatch(r"(?!\.).*chief.*\.json", file)]
            return os.path.join(self.project_dir, chiefs[0]) if chiefs else name
        return name

    # What the seams are for; `AutoLRMixin` says it, and a class that does not is a mistake to be loud about.

    def _autolr_complete_space(self) -> None:
        """Add to the search space what the build function has not declared."""
        raise NotImplementedError  # abstract: without `AutoLRMixin`'s, nothing would be done here

    def _autolr_assisting(self, trial: Any) -> contextlib.AbstractContextManager[None]:
        """While models of a trial are built and fitted."""
        raise NotImplementedError  # abstract: without `AutoLRMixin`'s, nothing would be done here

    def _autolr_on_model_built(self, hp: Any, model: Any) -> None:
        """Called with each model Keras Tuner builds, for whatever it is built."""
        raise NotImplementedError  # abstract: without `AutoLRMixin`'s, nothing would be done here


def overrides(it: Any, *names: str) -> bool:
    """Whether a tuner or a hypermodel has a method of one of these names that is the user's, of a class or its own.

    Keras Tuner's own check of `run_trial` takes the mixin's for the user's doing.
    """
    classes = [kind for kind in type(it).__mro__ if library_of(kind) not in ("keras_tuner", "autolr", "builtins")]
    return any(name in vars(owner) for name in names for owner in (it, *classes))


def scores_by_fit(tuner: Any) -> bool:
    """Whether a trial's score is among what its model's `fit` reports: a user's own methods may take any other."""
    return not (overrides(tuner, "run_trial", "_build_and_fit_model") or overrides(tuner.hypermodel, "fit"))


def has_chief() -> bool:
    """Whether this process is part of a search on many machines, by Keras Tuner's environment variables."""
    return "KERASTUNER_ORACLE_IP" in os.environ


def is_worker(tuner: Any) -> bool:
    """Whether the tuner's oracle is only a line to the chief's."""
    return bool(tuner._is_worker())


def is_saved(tuner: Any) -> bool:
    """Whether a search was written down already; of a folder that only TensorFlow can read, it is not known."""
    return Path(tuner._get_tuner_fname()).exists()


def best_completed_trials(oracle: Any, most: int = 2**31 - 1) -> list[Any]:
    """The best of the trials that have ended with a score: if these are too few, Keras Tuner adds the others.

    All by default; a worker has to ask for a number that its line to the chief can carry.
    """
    return [trial for trial in oracle.get_best_trials(most) if trial.status == "COMPLETED"]


def checkpoint_of(tuner: Any, trial_id: str) -> str:
    """File of a trial's best weights and optimizer state."""
    return str(tuner._get_checkpoint_fname(trial_id))


def may_have_weights(tuner: Any, trial_id: str) -> bool:
    """Whether a trial's best weights were saved; of a folder that only TensorFlow can read, it is not known."""
    path = checkpoint_of(tuner, trial_id)
    return is_remote(path) or Path(path).exists()


def build_again(tuner: Any, trial: Any) -> Any:
    """A trial's model with the weights it is built with: Keras Tuner's `load_model` before it loads any."""
    return tuner._try_build(trial.hyperparameters)


@contextlib.contextmanager
def silent_display(oracle: Any) -> Iterator[None]:
    """Have Keras Tuner's own display print nothing, and note when trials begin, for a report.

    With `verbose=0` it would not even do that. A worker's oracle has no display.
    """
    display: Any = getattr(oracle, "_display", None)
    names = [name for name in ("on_trial_begin", "on_trial_end") if hasattr(display, name)]

    def unheard(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            asked = display.verbose
            # Not at the end, where it would clear what a notebook shows.
            display.verbose = 1 if method.__name__ == "on_trial_begin" else asked
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    return method(*args)
            finally:
                display.verbose = asked

        return call

    for name in names:
        setattr(display, name, unheard(getattr(display, name)))
    try:
        yield
    finally:
        for name in names:
            delattr(display, name)


def mend_after_reload(oracle: Any) -> list[str]:
    """Undo what a kill between two writes of Keras Tuner leaves behind, and what a folder that was deleted does.

    A trial is written before the oracle that knows of it: one that is running and on no list would never be run, and
    yet count. A trial is taken off the ongoing ones only after the oracle is written, and on reloading all of those are
    queued to be run again: one that has ended must not be. Trials that have ended and are on no list are none of these:
    somebody has given them to the oracle to learn from.

    The next trial's name is the number of trials: where one is missing, another's would be given again and again, and
    its result be lost. One that failed takes its place.

    Returns:
        The trials that are missing.
    """
    started = set(oracle.start_order)
    for trial_id, trial in list(oracle.trials.items()):
        if trial_id not in started and trial.status == "RUNNING":
            del oracle.trials[trial_id]
    missing = sorted(started.difference(oracle.trials)) if oracle.trials else []
    there = [oracle.trials[trial_id] for trial_id in started if trial_id in oracle.trials]
    ended = {trial.trial_id for trial in there if trial.status in ("COMPLETED", "FAILED")}
    for trial_id in missing:
        message = "Its folder was gone when the search was taken up again."
        oracle.trials[trial_id] = Trial(oracle.get_space(), trial_id, "FAILED", message)
    # What comes next may fail without being one too many in a row.
    oracle.end_order = [it for it in oracle.end_order if it not in missing] + sorted(ended.difference(oracle.end_order))
    oracle._retry_queue = [it for it in oracle._retry_queue if it not in ended.union(missing)]
    if hasattr(oracle, "_populate_next"):  # a grid
        _find_place_in_grid(oracle, [trial_id for trial_id in oracle.start_order if trial_id not in missing])
    return missing


def _find_place_in_grid(oracle: Any, trial_ids: list[str]) -> None:
    """Tell a grid where it was: it does not save the order of its trials, nor of which ones the next are still due."""
    values = {trial_id: oracle.trials[trial_id].hyperparameters.values for trial_id in trial_ids}

    def compare(one: str, other: str) -> int:
        return int(oracle._compare(values[one], values[other]))

    with contextlib.suppress(KeyError):  # of a hyperparameter that some of them don't have
        in_order = sorted(trial_ids, key=functools.cmp_to_key(compare))
        for trial_id in in_order:
            oracle._ordered_ids.insert(trial_id)
        oracle._populate_next = list(trial_ids)


def forget_earlier_scores(oracle: Any) -> None:
    """Have an oracle hand out each trial without metrics.

    One that is handed out again may have some, of a training whose end was cut off or whose score was no number: Keras
    Tuner would keep them, and leave those of the training to come out.
    """

    def create_trial(self: Any, tuner_id: str) -> Any:
        trial = type(self).create_trial(self, tuner_id)
        trial.metrics = type(trial.metrics)()
        return trial

    oracle.create_trial = MethodType(create_trial, oracle)


def hand_out_again(oracle: Any, worker: str) -> str:
    """Take an ongoing trial from its worker, and put it where trials wait that were cut off; returns its id.

    What Keras Tuner does with all of them when a search is taken up again.
    """
    trial_id = str(oracle.ongoing_trials.pop(worker).trial_id)
    oracle.tuner_ids.discard(worker)
    oracle._retry_queue.append(trial_id)
    return trial_id


def hand_out_no_more(oracle: Any, trial_id: str) -> None:
    """Take a trial out of those that wait to be handed out again: it has ended."""
    oracle._retry_queue = [waiting for waiting in oracle._retry_queue if waiting != trial_id]


def trial_folder(oracle: Any, trial_id: str) -> str:
    """Where Keras Tuner keeps a trial; it need not be there yet."""
    return os.path.join(oracle._project_dir, f"trial_{trial_id}")


class GivenUpError(RuntimeError):
    """Too many trials have failed in a row; Keras Tuner raises a plain `RuntimeError`."""


def give_up_afterwards(oracle: Any) -> None:
    """Have an oracle judge whether too many trials have failed in a row when the last one's end is written down.

    Keras Tuner does so before, when that trial is still a running one on disk, and inside a lock that is not released
    then, without which a chief cannot end. It also counts failures in a row of the past: if they were written down, a
    search that is taken up again could not end a trial any more. Here the latest ones count.
    """

    def end_trial(self: Any, *args: Any, **kwargs: Any) -> None:
        ended = len(self.end_order)
        type(self).end_trial(self, *args, **kwargs)
        if len(self.end_order) == ended:  # it will be retried
            return
        there = [it for it in reversed(self.end_order) if it in self.trials]
        failed = list(itertools.takewhile(lambda it: self.trials[it].status == "FAILED", there))
        most = self.max_consecutive_failed_trials
        if failed and len(failed) >= most:
            message = self.trials[failed[0]].message or ""
            raise GivenUpError(f"Number of consecutive failures exceeded the limit of {most}.\n{message}")

    oracle._check_consecutive_failures = MethodType(lambda self: None, oracle)
    oracle.end_trial = MethodType(end_trial, oracle)


def stopped_trial(oracle: Any, worker: str) -> Any:
    """What an oracle answers a worker for which there is no trial any more."""
    oracle.tuner_ids.discard(worker)
    return Trial(hyperparameters=oracle.get_space(), trial_id="", status="STOPPED")


def _write_whole(path: str, write_to: Callable[[str], Any]) -> None:
    """Write a file aside and move it into place; on a remote file system, where it is."""
    if is_remote(path):
        write_to(path)
        return
    with written_aside(Path(path)) as aside:
        write_to(str(aside))


def save_whole(oracle: Any) -> None:
    """Make the oracle write its files aside and move them into place: a kill would leave half of one otherwise.

    Keras Tuner opens the file itself for writing, and cannot take up a search whose `oracle.json` is cut short.
    Files of remote file systems are left to it, and so is an oracle with a `save` of its own.
    """

    def save(self: Any) -> None:
        _write_whole(self._get_oracle_fname(), super(kt.Oracle, self).save)

    def save_trial(self: Any, trial: Any) -> None:
        _write_whole(os.path.join(self._get_trial_dir(trial.trial_id), "trial.json"), trial.save)

    if type(oracle).save is kt.Oracle.save:
        # Methods, so that those of a deep copy are its own.
        oracle.save = MethodType(save, oracle)
        oracle._save_trial = MethodType(save_trial, oracle)
