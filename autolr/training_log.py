"""A training as it ran, for the trial's record: the learning rate and the loss by step, and each epoch's logs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras

from autolr.errors import in_brief, warn
from autolr.files import strict
from autolr.optimizers import batches_per_update, batches_trained, current_rate, updates_and_scale

POINTS = 300  # of each line, about: more cannot be told apart on a page
# A point costs a small model a tenth of a step, so short trainings have one at every fifth step; more often where these
# would be too few, or few in an epoch, whose last steps make no whole point.
FEWEST, FEWEST_IN_EPOCH = 60, 4
SAVE_SECONDS = 5.0  # between two writes while training runs, so that short epochs do not pay for the disk
_MOST_CORNERS = 200  # of a schedule, kept whatever else is thinned


class TrainingLog(keras.callbacks.Callback):
    """Notes a training and hands it on as plain values, at the ends of epochs and of the training.

    Most steps cost a comparison. Keras hands over its running mean of the loss, from which the mean of the steps
    since the last point follows; the rate is the optimizer's own, read where a point falls and at the ends of the
    schedule's cycles.

    Args:
        schedule: What `autolr.budget.plan` says.
        save: Called with the training so far: `TrialRecord.training`.
        fits: How often `fit` was called in this trial, this time included.
        note_epoch: Called with the batches of each epoch that was not cut short, if it is not None.
    """

    def __init__(
        self,
        schedule: Mapping[str, Any],
        save: Callable[[dict[str, Any]], None],
        *,
        fits: int = 1,
        note_epoch: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__()
        self._save, self._fits, self._note_length = save, fits, note_epoch
        per_epoch, start = schedule["steps_per_epoch"], schedule["initial_epoch"]
        total = (per_epoch or 0) * (schedule["epochs"] - start)
        # In batches; of data of unknown size it is doubled as they come.
        self._every = max(1, round(total / POINTS), min(5, total // FEWEST, (per_epoch or 0) // FEWEST_IN_EPOCH))
        edges = [edge - start * per_epoch for edge in (0, *schedule["edges"])] if per_epoch else []
        # Numbers of the batches, from 1, that end one cycle and begin the next.
        self._corners = {edge + n for edge in edges for n in (0, 1)} if 2 * len(edges) <= _MOST_CORNERS else {1}
        self._cycle_ends = {edge // (per_epoch or 1) for edge in schedule["edges"]}  # numbers of epochs
        self._done = self._before = 0  # batches trained, and those of earlier epochs
        self._due, self._per_update = self._every, 1
        self._rates: list[tuple[int, float]] = []
        self._losses: list[tuple[int, float]] = []
        self._epochs: list[dict[str, Any]] = []
        self._saved = time.monotonic()
        self._works = True

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Begin a new mean, as Keras does."""
        self._per_update = batches_per_update(self.model.optimizer)
        self._before, self._counted, self._sum = self._done, 0, 0.0
        self._most = self.params.get("steps") or sys.maxsize
        self._since = updates_and_scale(self.model.optimizer)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Note the rate, and the loss since the last point, where a point falls."""
        # Of several batches in an execution the last ones may not be there.
        done = self._done = self._before + min(batch + 1, self._most)
        if done >= self._due or done in self._corners:
            self._guarded(self._note, done, logs or {})

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Note the epoch's logs; write, if the last time was a while ago."""
        announced = self._done - self._before
        if announced < self._most:  # else all were trained
            self._done = self._before + batches_trained(self.model, announced, since=self._since)
        exact = self._per_update == 1 or int(self.model.steps_per_execution or 1) == 1  # what the optimizer counts
        if self._note_length is not None and exact and not self.model.stop_training:  # by a callback, in mid-epoch
            self._note_length(self._done - self._before)
        self._guarded(self._note_epoch, epoch, logs or {})
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self._hand_on()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Write."""
        self._hand_on()

    def _guarded(self, note: Callable[..., None], *arguments: Any) -> None:
        """No training shall fail because of what is noted of it."""
        if self._works:
            try:
                note(*arguments)
            except Exception as error:  # a full disk, a metric of a strange kind: the training is worth more
                self._works = False
                warn(f"The training is no longer recorded ({in_brief(error)}). It goes on.")

    def _note(self, done: int, logs: Mapping[str, Any]) -> None:
        self._rates.append((done, current_rate(self.model.optimizer)))
        if done < self._due:
            return
        # The last batch of an epoch may be a small one, and the mean does not tell how small.
        if done - self._before != self.params.get("steps"):
            if "loss" in logs:
                count = done - self._before
                total = float(logs["loss"]) * count
                self._losses.append((done, (total - self._sum) / (count - self._counted)))
                self._counted, self._sum = count, total
            self._due = done + self._every
        self._thin()

    def _note_epoch(self, epoch: int, logs: Mapping[str, Any]) -> None:
        for points in (self._rates, self._losses):
            if points and points[-1][0] > self._done:  # of an execution that outlasted the data
                points[-1] = (self._done, points[-1][1])
        numbers = {str(name): number for name, value in logs.items() if (number := _number(value)) is not None}
        if not self._counted and self._done >= self._due and "loss" in numbers:  # an epoch shorter than a point
            self._losses.append((self._done, float(numbers["loss"])))
        if self._counted or self._done >= self._due:  # the last steps of an epoch that make no whole point are left out
            self._due = self._done + self._every
        self._thin()
        # Steps are counted from 1, also where an epoch is shorter than the first.
        self._epochs.append({"epoch": epoch + 1, "step": max(1, self._steps_done()), "logs": numbers})

    def _thin(self) -> None:
        """Make two points one if there are too many; a training step of the user's own may report rates and no loss."""
        if len(self._losses) < 2 * POINTS and len(self._rates) - len(self._corners) < 4 * POINTS:
            return
        pairs = zip(self._losses[::2], self._losses[1::2], strict=False)
        self._losses = [(later, (a + b) / 2) for (_, a), (later, b) in pairs]
        corners = [point for point in self._rates if point[0] in self._corners]
        others = [point for point in self._rates if point[0] not in self._corners]
        self._rates = sorted(corners + others[1::2])
        self._every *= 2

    def _updates(self, batches: int) -> int:
        """The number of the update that a batch belongs to."""
        return -(-batches // self._per_update)

    def _steps_done(self) -> int:
        """Updates so far: batches that are too few for one wait for the next `fit`."""
        return self._done // self._per_update

    def _hand_on(self) -> None:
        self._guarded(lambda: self._save(self._training()))
        self._saved = time.monotonic()

    def rates(self) -> dict[int, float]:
        """The rates noted so far, by optimizer step."""
        return {self._updates(batch): rate for batch, rate in self._rates}

    def _training(self) -> dict[str, Any]:
        steps = self._steps_done()
        losses = {self._updates(batch): loss for batch, loss in self._losses}
        return {
            "fits": self._fits,
            "steps": steps,
            "rates": _line("lr", _until(steps, self.rates())),
            "losses": _line("loss", _until(steps, losses)),
            "epochs": self._thinned(),
        }

    def _thinned(self) -> list[dict[str, Any]]:
        """About so many epochs, evenly, the first and the last among them, and the latest that end a cycle."""
        epochs, last = self._epochs, len(self._epochs) - 1
        if last < POINTS:
            return list(epochs)
        even = {round(k * last / (POINTS - 1)) for k in range(POINTS)}
        ends = [place for place, epoch in enumerate(epochs) if epoch["epoch"] in self._cycle_ends][-POINTS:]
        return [epochs[place] for place in sorted(even.union(ends))]


def _until(last: int, points: Mapping[int, float]) -> dict[int, float]:
    """The points of updates that were made: batches at the end may have been too few for another."""
    return {step: value for step, value in points.items() if step <= last}


def _line(name: str, points: Mapping[int, float]) -> dict[str, list[Any]]:
    return {"step": list(points), name: [_number(value) for value in points.values()]}


def _number(value: Any) -> float | str | None:
    """A number with six digits, for strict JSON; None for what is no number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return strict(float(f"{number:.6g}"))
