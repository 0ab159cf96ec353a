"""What the trials of one search have in common: the user's choices, and what was found and said before."""

from __future__ import annotations

import contextlib
import weakref
from dataclasses import dataclass, field
from types import GeneratorType
from typing import Any

from autolr.curve import RangeTest
from autolr.errors import warn
from autolr.progress import Lines
from autolr.replay import Drawn, Replay
from autolr.verdicts import LRBounds

GUESS = "a guess"
MOST_NAMED = 5  # trials in a summary


def _named(trials: list[str]) -> str:
    more = f" and {len(trials) - MOST_NAMED} more" if len(trials) > MOST_NAMED else ""
    return f"trial{'s' * (len(trials) > 1)} {', '.join(trials[:MOST_NAMED])}{more}"


@dataclass(frozen=True)
class Options:
    """What the user of a tuner may choose: see `autolr.AutoLRMixin`."""

    range_test_share: float
    range_test_steps: int
    range_test_min_steps: int
    rate_callbacks: str
    reuse_bounds: bool
    num_snapshots: int
    tail_average: float


@dataclass
class SearchMemory:
    """What the trials of one search share.

    Attributes:
        warned: What the search has been warned of, so that each thing is said once.
        shared: By what a range test depends on, the trial that ran one, what it found, and the steps it could have had.
        progress: What the search shows.
        streams: The generators trained on, as long as they live, and what range tests have drawn from them.
        lengths: The data trained on, by identity, and how many batches their longest epoch had.
        verdicts: By trial that ran a range test, the status of its bounds; nothing if that is `"ok"`, and `GUESS`
            whatever it is if they are a guess for want of steps.
        unassisted: Trials that AutoLR could not help.
    """

    warned: set[str] = field(default_factory=set)
    shared: dict[str, tuple[str, LRBounds, int]] = field(default_factory=dict)
    progress: Lines = field(default_factory=Lines)
    streams: weakref.WeakKeyDictionary[Any, Drawn] = field(default_factory=weakref.WeakKeyDictionary)
    lengths: dict[int, tuple[weakref.ref[Any], int]] = field(default_factory=dict)
    verdicts: dict[str, str] = field(default_factory=dict)
    unassisted: list[str] = field(default_factory=list)

    def replayable(self, x: Any) -> Any:
        """Data that a range test can draw from more than once, with what earlier ones have drawn."""
        return Replay(x, self.streams.setdefault(x, Drawn())) if isinstance(x, GeneratorType) else x

    def note_epoch(self, data: Any, batches: int) -> None:
        """An epoch of these data has ended, after so many batches."""
        with contextlib.suppress(TypeError):  # some types have no weak references, and are not kept alive for this
            self.lengths[id(data)] = weakref.ref(data), max(batches, self.batches_in_epoch(data) or 0)

    def batches_in_epoch(self, data: Any) -> int | None:
        """How many batches an epoch of these data has had in an earlier training; None before there was one.

        What Keras cannot know of a pipeline that filters, or reads files, every trial but the first can.
        """
        reference, batches = self.lengths.get(id(data), (None, None))
        return batches if reference is not None and reference() is data else None

    def note_test(self, trial_id: str, test: RangeTest | None, bounds: LRBounds) -> None:
        """A trial has run a range test, or tried to, which gave these bounds."""
        verdict = "" if bounds.ok else bounds.status
        if test is not None and not test.bursts and bounds.confidence == "low":
            verdict = GUESS
        if verdict == "small_fall" and trial_id in self.verdicts:  # as of weights that an earlier `fit` has trained
            verdict = ""
        self.verdicts[trial_id] = verdict or self.verdicts.get(trial_id, "")

    def forget(self, trial_id: str) -> None:
        """A trial has failed, and has no score that a rate could be to blame for; if it is tried again, that counts."""
        self.verdicts.pop(trial_id, None)
        if trial_id in self.unassisted:
            self.unassisted.remove(trial_id)

    def note_unassisted(self, trial_id: str) -> None:
        """A trial trains at the rate its model is compiled with, since AutoLR could not help it."""
        if trial_id not in self.unassisted:
            self.unassisted.append(trial_id)

    def summaries(self) -> list[str]:
        """What is to be said when the search has ended: how many trials had bounds in doubt, or none."""
        tested, said = len(self.verdicts), []
        doubtful: dict[str, list[str]] = {}
        for trial_id, verdict in self.verdicts.items():
            if verdict:
                doubtful.setdefault(verdict, []).append(trial_id)
        guesses = doubtful.pop(GUESS, [])
        if guesses:
            said.append(
                f"{len(guesses)} of {tested} range tests were too short for more than a guess, so luck had a part in "
                "how well these trials did. Give trials more steps, by more epochs or smaller batches: by default, one "
                "of 112 has room to try single rates (in a first rung of Hyperband of which the best go on, one of "
                "249). Less than the default of `range_test_min_steps` or `range_test_steps` may be too little, too."
            )
        if doubtful:
            statuses = "; ".join(f"{status}: {_named(trials)}" for status, trials in sorted(doubtful.items()))
            said.append(
                f"{sum(map(len, doubtful.values()))} of {tested} range tests found no bounds beyond doubt, so poor "
                f"scores of these trials may be the rate's fault ({statuses}). Each one's record says what to do."
            )
        if self.unassisted:
            said.append(
                f"{len(self.unassisted)} trial{'s' * (len(self.unassisted) > 1)} trained without AutoLR, for a reason "
                f"given above: {_named(self.unassisted)}."
            )
        return said

    def warn_once(self, topic: str, text: str) -> None:
        """Warn, unless the search has been warned of this before."""
        if self.note_topic(topic):
            warn(text)

    def note_topic(self, topic: str) -> bool:
        """Note that the search is told of this; whether it is for the first time."""
        is_first = topic not in self.warned
        self.warned.add(topic)
        return is_first
