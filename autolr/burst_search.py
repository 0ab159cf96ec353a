"""Bursts around what a sweep suggests, one after the other, until enough has been seen or the steps are spent."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from autolr.array_types import FloatArray
from autolr.burst_recorder import BurstRecorder, Paused
from autolr.bursts import ALL_ROUNDS, ROUNDS, Burst, Round, gathers_pace, may_go_on, next_burst
from autolr.curve import RangeTest, noise_of
from autolr.divergence import NOISE_FACTOR
from autolr.recorder import LossRecorder


class BurstSearch:
    """Trains at the rates that `next_burst` asks for, and keeps what it will ask for again.

    A burst goes on where a shorter one at its rate has paused, or has the same end if that one diverged. It sees the
    batches that it would have seen from the beginning.

    Args:
        sweep: What is to be confirmed.
        train: Trains the untouched model with a recorder as its callback.
        steps: Optimizer steps that the bursts may take.
        end_lr: The last rate that the sweep would have come to.
        may_pause: Whether a burst of so many steps can go on later.
    """

    def __init__(
        self,
        sweep: RangeTest,
        train: Callable[[LossRecorder], RangeTest],
        *,
        steps: int,
        end_lr: float,
        may_pause: Callable[[int], bool],
    ) -> None:
        self._sweep, self._train, self._may_pause = sweep, train, may_pause
        self._steps_left, self._spent = steps, 0
        self._bounds, self._untrained = sweep.bounds(), sweep.untrained_losses()
        # Above a rate that diverged nothing is to be sought; where nothing did, the best may lie beyond the sweep.
        self._highest = end_lr if sweep.diverged else math.inf
        self._bursts: list[Burst] = []
        self._paused: list[Paused] = []

    def run(self) -> RangeTest:
        """The sweep with its bursts; without any if it saw nothing that they could be compared with."""
        untrained = self._untrained
        if self._bounds.status in ("flat", "non_finite") or len(untrained) < 3 or not np.all(np.isfinite(untrained)):
            return self._sweep
        self._noise = noise_of(untrained)
        test = self._run(ROUNDS)
        # Longer ones only for a model that begins to learn late, the longest only where it has not begun yet.
        if test.bounds().status == "small_fall" or gathers_pace(self._bursts, noise=self._noise):
            test = self._run(ALL_ROUNDS[:-1])
        if test.bounds().status == "small_fall":
            test = self._run(ALL_ROUNDS)
        return test

    def _run(self, rounds: Sequence[Round]) -> RangeTest:
        while found := next_burst(
            self._bounds.max_lr,
            self._bursts,
            steps_left=self._steps_left,
            highest=self._highest,
            rounds=rounds,
            noise=self._noise,
            cost=self._cost,
        ):
            self._try(*found)
        return replace(self._sweep, steps_spent=self._sweep.steps_spent + self._spent, bursts=tuple(self._bursts))

    def _try(self, rate: float, steps: int) -> None:
        if self._has_diverged(rate):
            self._bursts.append(Burst(rate, math.inf, steps))
            return
        begun = self._begun(rate)
        recorder = BurstRecorder(rate, steps, begun=begun, pausing=self._may_pause(steps))
        burst = self._train(recorder)
        self._spent += burst.steps_spent
        self._steps_left -= burst.steps_spent
        if len(burst.losses) < steps and not (burst.diverged or self._came_apart(burst.losses)):
            self._steps_left = 0  # something else ends trainings, and would the next
            return
        self._bursts.append(Burst.of(rate, burst.losses, self._untrained, steps=steps, noise=self._noise))
        held = [it for it in (*self._paused, recorder.paused) if it is not None and it is not begun]
        self._paused = [it for it in held if may_go_on(it.rate, len(it.losses), self._bursts, noise=self._noise)]

    def _came_apart(self, losses: FloatArray) -> bool:
        """Whether a burst that something else ended, as a callback that watches the loss, was ended for its rate."""
        risen = losses[-1] - np.mean(self._untrained)
        return not np.all(np.isfinite(losses)) or bool(risen > NOISE_FACTOR * self._noise)

    def _cost(self, rate: float, steps: int) -> int:
        """Steps that a burst takes."""
        if self._has_diverged(rate):
            return 0
        begun = self._begun(rate)
        return steps - len(begun.losses) if begun else steps

    def _begun(self, rate: float) -> Paused | None:
        return next((it for it in self._paused if math.isclose(it.rate, rate)), None)

    def _has_diverged(self, rate: float) -> bool:
        return any(burst.change == math.inf and math.isclose(burst.lr, rate) for burst in self._bursts)
