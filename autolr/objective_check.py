"""Checks after each epoch that the objective is reported, in place of failing three trials for it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

import keras
import keras_tuner as kt

from autolr.errors import invalid, warn

NONE = "default_objective"  # what Keras Tuner calls one that was not given


class ObjectiveCheck(keras.callbacks.Callback):
    """Ends a search for a value that its training does not report.

    Keras Tuner looks for it when a trial has ended, takes the trial for a failed one, and goes on to the next.

    Args:
        objective: The search's, or several in one.
        noted: Gives the names of values that were noted for the trial in another way, as a tuner's `on_epoch_end` may
            do by `oracle.update_trial`.
        fails_trial: Whether only the trial fails, as one of a worker must: a chief is not told of a search's end, and
            would wait for it. Three trials that fail so end the search.

    Raises:
        keras_tuner.errors.FatalValueError: At the end of an epoch without it; no other trial is begun. With
            `fails_trial` a `FailedTrialError`, after a warning that says the same.
    """

    def __init__(
        self,
        objective: kt.Objective,
        *,
        noted: Callable[[], Iterable[str]] = tuple,
        fails_trial: bool = False,
    ) -> None:
        super().__init__()
        self._objective, self._noted = objective, noted
        self._fails_trial = fails_trial

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Look; other callbacks have added what they report by now."""
        reported = sorted(logs or {})
        if self._objective.has_value(reported):
            return
        known = [*reported, *self._noted()]  # only then: a worker asks its chief
        if self._objective.has_value(known):
            return
        theirs = [name for name in reported if name != "learning_rate"]  # which the schedule adds
        there = f"be a value that training reports ({', '.join(theirs)})"
        wanted = getattr(self._objective, "objectives", [self._objective])
        name = next(each.name for each in wanted if each.name not in known)
        if name == NONE:
            hint = "Pass one to the tuner, or return the value to minimize from a `HyperModel.fit` of your own."
            self._fail(invalid("objective", there, None, hint))
        if name.startswith("val_") and name.removeprefix("val_") in reported:
            hint = "Pass `validation_data` or `validation_split` to `search`."
        else:
            close = difflib.get_close_matches(name, reported, n=1)
            hint = f"Perhaps `{close[0]}` is meant." if close else "Name one of these."
        self._fail(invalid("objective", there, name, hint))

    def _fail(self, error: ValueError) -> NoReturn:
        if self._fails_trial:
            warn(str(error))  # Keras Tuner does not tell why a worker's trial has failed
            raise kt.errors.FailedTrialError(str(error))
        raise kt.errors.FatalValueError(str(error))
