"""Averaging the weights a model has in the last steps of a cycle."""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from typing import Any

import keras
import numpy as np

from autolr.array_types import IntArray
from autolr.batchnorm import TailStatistics, normalizers_of
from autolr.errors import invalid, is_finite
from autolr.optimizers import leaf_optimizers
from autolr.variables import array_of

# Of a cycle, and batches between two of them: more tell nothing new, since neighbouring steps have nearly the same
# weights, and each is a copy of them all.
SAMPLES, SPACING = 20, 3


class TailAverage:
    """The mean of a model's weights over the last steps of each cycle.

    A cycle ends at `min_lr`, where weights still move about the minimum they are near; their mean lies closer to it
    than any of them. The moving statistics of BatchNormalization become means over these steps alone, too. Other
    weights that are not trained, as counts of steps, stay what they are.

    Args:
        edges: Where cycles begin and end, in batches.
        length: Batches at the end of a cycle that count, though at most half of it: before that the rate is too high.
    """

    def __init__(self, edges: IntArray, length: int) -> None:
        self._due: list[tuple[int, int]] = []  # batches done when weights are sampled, and when that cycle ends
        for begin, end in itertools.pairwise(edges.tolist()):
            tail = min(length, (end - begin) // 2)
            count = max(1, min(SAMPLES, tail // SPACING))
            first = np.linspace(end - tail, end, count, endpoint=False).round().astype(int)
            self._due += [(due, end) for due in first.tolist() if due < end]
        self._passed: int | None = None  # how many of these are behind; None until training tells where it begins
        # Of each variable, those of the first sample: layers may be frozen from one step to the next.
        self._mean: list[tuple[Any, Any]] = []
        self._count = 0
        self._statistics: TailStatistics | None = None

    def sample(self, done: int, model: keras.Model, *, trained: int) -> None:
        """Look at the model, if it is time to.

        Args:
            done: Batches of the plan that are done.
            model: The model in training.
            trained: Batches trained so far: more, where an epoch was longer than planned.
        """
        if self._passed is None:  # training may begin on the very batch at which a sample is due
            self._passed = bisect_left(self._due, done, key=lambda due: due[0])
        passed = bisect_right(self._due, done, key=lambda due: due[0])
        # With several steps per execution, or an epoch shorter than planned, a cycle may be over by then.
        if passed > self._passed and done < self._due[passed - 1][1]:
            if not self._count:
                self._statistics = TailStatistics(model, trained)
            self._add(model)
        self._passed = passed

    def _add(self, model: keras.Model) -> None:
        self._count += 1
        if self._count == 1:
            values = [(it, array_of(it)) for it in averaged_variables(model)]
            self._mean = [(it, value.astype(_gathered_in(value), copy=False)) for it, value in values]
            return
        for variable, mean in self._mean:
            weight = array_of(variable)
            with np.errstate(invalid="ignore"):
                # What stands still is left out: of an infinite constant, as masks are, the difference is no number.
                np.add(mean, (weight - mean) / self._count, out=mean, where=weight != mean)

    def close(self, model: keras.Model, trained: int) -> None:
        """A cycle has ended after so many batches: give the model the mean of its weights, if any were sampled."""
        if self._statistics is not None:
            self._add(model)
            self._statistics.end(trained)
            give_means(self._mean)
            self._statistics.mend()
        self._mean, self._count, self._statistics = [], 0, None


def averaged_variables(model: keras.Model) -> list[Any]:
    """The variables of a model of which a mean means something.

    These are the weights that are trained, and the moving statistics of BatchNormalization, which belong to them. A
    count, a threshold or a code book is a layer's own affair.
    """
    statistics = [
        it for layer in normalizers_of(model) if layer.built for it in (layer.moving_mean, layer.moving_variance)
    ]
    return list({id(it): it for it in [*model.trainable_variables, *statistics]}.values())


def give_means(means: list[tuple[Any, Any]]) -> None:
    """Give variables their means."""
    for variable, mean in means:
        variable.assign(mean)
        if variable.constraint is not None:  # which a mean need not obey, as one of unit norms does not
            variable.assign(variable.constraint(variable))


def _gathered_in(weight: Any) -> Any:
    """The type to gather a mean in: float16 and bfloat16, which NumPy does not know, have too few digits."""
    return np.float32 if weight.dtype.itemsize == 2 else weight.dtype


def check_tail_average(share: float) -> None:
    """Raise `ValueError` unless weights can be averaged over such a share of a training."""
    if not (is_finite(share) and 0 <= share < 1):
        raise invalid(
            "tail_average", "be a share of the training, 0 or more and below 1", share, "The tuners take 0.1."
        )


def averages_itself(optimizer: Any) -> bool:
    """Whether Keras puts an average of its own in the weights' place when training ends (`use_ema=True`)."""
    return any(getattr(part, "use_ema", False) for part in leaf_optimizers(optimizer))
