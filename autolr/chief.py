"""A chief that does not wait forever for workers that are gone, once it has no trial left to hand out.

Keras Tuner's chief hears of a worker only when it asks for a trial or has ended one. If a worker is killed and stays
away, its trial stays among the ongoing ones: the chief never ends, and in Hyperband the other workers ask again and
again for a rung that can't be filled. Nor does it end when too many trials have failed in a row: it tells the worker
alone, which then asks no more.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from autolr import compat_tuner

PATIENCE = 3600.0
"""Seconds without a word after which a worker may be given up: as long as Keras Tuner's workers wait for the chief."""
SIGN_SECONDS = 60.0


def is_chief() -> bool:
    """Whether this process is the chief of a search on many machines."""
    return compat_tuner.has_chief() and "chief" in os.environ.get("KERASTUNER_TUNER_ID", "")


@contextlib.contextmanager
def signs_of_life(folder: str, *, every: float = SIGN_SECONDS) -> Iterator[None]:
    """Touch a trial's folder every so many seconds, by which the chief sees that the trial's worker is there.

    In a thread: a range test, an epoch or a user's own code may take hours in which nothing is written.
    """
    over = threading.Event()

    def touch() -> None:
        while not over.wait(every):
            with contextlib.suppress(OSError):  # it may be on a file system that only TensorFlow can write to
                os.utime(folder)

    threading.Thread(target=touch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def last_written(folder: str) -> float:
    """When a folder or a file in it last was, by the clock of the disk; 0 if it can't be seen."""
    try:
        with os.scandir(folder) as files:
            return max([os.stat(folder).st_mtime, *(file.stat().st_mtime for file in files)])
    except OSError:  # the folder, or a file just moved into place
        return 0.0


class WorkerWatch:
    """Notes when each worker was last heard of, and gives up those of which nothing was for too long.

    A worker is heard of when it asks for a trial, ends one, or has touched its trial's folder (`signs_of_life`) or
    written something there. Too long is an hour, or three times the longest trial yet if that is longer. Then another
    worker that asks for a trial gets the lost one's, from its beginning. If the others have left, the chief ends, and
    the trial is left on disk as an unfinished one: the search, started again, trains it.

    When too many trials have failed in a row, the workers are handed no more, and so leave.

    Args:
        oracle: The chief's. Its `create_trial` and `end_trial` are replaced by ones that note who called.
        say: Gets a line about a worker that is waited for or given up.
        clock: Seconds.

    Attributes:
        given_up: The error that too many trials have failed in a row, if they have.
    """

    def __init__(
        self, oracle: Any, *, say: Callable[[str], None] = print, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.oracle, self.say, self.clock = oracle, say, clock
        self.heard: dict[str, float] = {}
        self._written: dict[str, float] = {}  # when a worker's trial last was, by the disk's clock
        self.longest = 0.0
        self._begun: dict[str, float] = {}  # when a worker was handed its trial
        self._lock = threading.RLock()
        self._waiting: threading.Thread | None = None
        self.given_up: RuntimeError | None = None
        self._create, self._end = oracle.create_trial, oracle.end_trial
        oracle.create_trial, oracle.end_trial = self.create_trial, self.end_trial

    def create_trial(self, tuner_id: str) -> Any:
        """Hand out a trial: first that of a worker that is gone."""
        with self._lock:
            if self.given_up is None:
                trial = self._hand_out(tuner_id)
            else:
                trial = compat_tuner.stopped_trial(self.oracle, tuner_id)
        if str(trial.status) == "STOPPED" and self._awaited() and self._waiting is None:
            self._waiting = threading.Thread(target=self._wait, daemon=True)
            self._waiting.start()
        return trial

    def _hand_out(self, tuner_id: str) -> Any:
        self.heard[tuner_id] = self.clock()
        for lost in self._silent(list(self.oracle.ongoing_trials))[:1]:  # the next one that asks gets the next
            trial_id = compat_tuner.hand_out_again(self.oracle, lost)
            self.say(f"Nothing was heard of {lost} for long: {tuner_id} gets its trial {trial_id}.")
        trial = self._create(tuner_id)
        self._begun[tuner_id] = self.clock()
        self._written[tuner_id] = last_written(compat_tuner.trial_folder(self.oracle, trial.trial_id))
        return trial

    def end_trial(self, trial: Any) -> None:
        """End a trial, unless it has ended already: a worker that was given up may come back."""
        with self._lock:
            worker = next(
                (name for name, its in self.oracle.ongoing_trials.items() if its.trial_id == trial.trial_id), ""
            )
            known = self.oracle.trials.get(trial.trial_id)
            if not worker and known is not None and str(known.status) in ("COMPLETED", "FAILED"):
                return
            compat_tuner.hand_out_no_more(self.oracle, trial.trial_id)  # of one that was given up too soon
            now = self.clock()
            self.longest = max(self.longest, now - self._begun.get(worker, now))
            if worker:
                self.heard[worker] = now
            try:
                self._end(trial)
            except compat_tuner.GivenUpError as error:  # a worker that is told of it asks no more, and is waited for
                if self.given_up is None:
                    self.say(f"{str(error).splitlines()[0]} No more trials are handed out, and the search ends.")
                self.given_up = error

    def patience(self) -> float:
        """Seconds of silence after which a worker with a trial is given up."""
        return max(PATIENCE, 3 * self.longest)

    def _silent(self, workers: list[str]) -> list[str]:
        # A worker this chief has not heard of yet had its trial from an earlier one.
        now = self.clock()
        for name, trial in self.oracle.ongoing_trials.items():
            written = last_written(compat_tuner.trial_folder(self.oracle, trial.trial_id))
            if self._written.get(name, written) != written:
                self.heard[name] = now
            self._written[name] = written
        return [name for name in workers if now - self.heard.setdefault(name, now) > self.patience()]

    def _awaited(self) -> list[str]:
        """Those the chief does not end without: at work on a trial, or killed between two."""
        with self._lock:  # workers come and go in other threads
            return sorted({*self.oracle.ongoing_trials, *self.oracle.tuner_ids})

    def _wait(self) -> None:
        """No trials are left to hand out: tell who is waited for, and for how long at most."""
        with self._lock:
            at_work = {name: f"trial {trial.trial_id}" for name, trial in self.oracle.ongoing_trials.items()}
        names = ", ".join(f"{name} ({at_work.get(name, 'between trials')})" for name in self._awaited())
        self.say(
            f"No trials are left to hand out. The chief waits for {names}. If one of them is gone, start a worker "
            f"with its name again; otherwise the chief ends when nothing was heard for {self.patience() / 60:.3g} min."
        )
        while awaited := self._awaited():
            time.sleep(min(5.0, PATIENCE / 10))
            with self._lock:
                if awaited == self._awaited() == self._silent(awaited):
                    trials = ", ".join(trial.trial_id for trial in self.oracle.ongoing_trials.values())
                    left = f" without trial {trials}: run the search again to train what is left" if trials else ""
                    self.say(f"Nothing was heard of {', '.join(awaited)} for long. The chief ends{left}.")
                    # Only here: on disk they are still ongoing, and so go first when the search is taken up again.
                    self.oracle.ongoing_trials.clear()
                    self.oracle.tuner_ids.clear()
