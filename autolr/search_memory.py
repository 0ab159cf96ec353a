"""What the trials of one search have in common: the user's choices, and what was found and said before."""

from __future__ import annotations

import contextlib
import weakref
from dataclasses import dataclass, field
from typing import Any

from autolr.curve import RangeTest
from autolr.data import Replay, replayable
from autolr.errors import warn
from autolr.progress import Lines
from autolr.verdicts import LRBounds


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
        found: By what a range test depends on, the trial that ran it and what it found.
        progress: What the search shows.
        streams: The generators trained on, by identity: what a range test has drawn from one is still to be trained on.
        lengths: The data trained on, by identity, and how many batches their longest epoch had.
        guesses: By trial that ran a range test, whether its bounds were a guess for want of steps.
    """

    warned: set[str] = field(default_factory=set)
    found: dict[str, tuple[str, LRBounds]] = field(default_factory=dict)
    progress: Lines = field(default_factory=Lines)
    streams: dict[int, Replay] = field(default_factory=dict)
    lengths: dict[int, tuple[weakref.ref[Any], int]] = field(default_factory=dict)
    guesses: dict[str, bool] = field(default_factory=dict)

    def replayable(self, x: Any) -> Any:
        """Data that a range test can draw from more than once; the same for every trial."""
        if id(x) in self.streams:  # each `Replay` keeps its generator, so no other object takes over its identity
            return self.streams[id(x)]
        data = replayable(x)
        if isinstance(data, Replay):
            self.streams[id(x)] = data
        return data

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

    def note_test(self, trial_id: str, test: RangeTest, bounds: LRBounds) -> None:
        """A trial has run a range test, which gave these bounds."""
        is_guess = bounds.confidence == "low" and not test.bursts
        self.guesses[trial_id] = self.guesses.get(trial_id, False) or is_guess

    def warn_once(self, topic: str, text: str) -> None:
        """Warn, unless the search has been warned of this before."""
        if topic not in self.warned:
            self.warned.add(topic)
            warn(text)
