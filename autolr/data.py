"""What can be known of the data given to `fit` without training on it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np


def is_array_data(x: Any) -> bool:
    """Whether the data are arrays or tensors, or a nest of them, which Keras cuts into batches itself."""
    return not _is_dataset(x) and not isinstance(x, keras.utils.PyDataset) and not hasattr(x, "__next__")


def _is_dataset(x: Any) -> bool:
    return hasattr(x, "element_spec") or hasattr(x, "dataset")  # tf.data, distributed or not; torch's DataLoader


def num_samples(x: Any) -> int:
    """Length of the first array of a nest."""
    return int(np.shape(keras.tree.flatten(x)[0])[0])


def count_steps(
    x: Any, *, batch_size: int | None = None, steps_per_epoch: int | None = None, validation_split: float = 0.0
) -> int | None:
    """Batches in an epoch of `fit` with these arguments, or None if that cannot be known beforehand."""
    if steps_per_epoch:
        return int(steps_per_epoch)
    if is_array_data(x):
        training = num_samples(x)
        if validation_split:
            training = math.floor(training * (1 - validation_split))
        return math.ceil(training / (batch_size or 32))
    if isinstance(x, keras.utils.PyDataset):
        batches = x.num_batches
        return None if batches is None else int(batches)
    if hasattr(x, "cardinality"):
        batches = int(x.cardinality())
        return batches if batches > 0 else None
    return len(x) if hasattr(x, "__len__") else None


class Rewindable:
    """An iterator that remembers what was drawn from it, so that a range test takes no batch away from training.

    Args:
        source: Any iterator of batches, finite or not.
    """

    def __init__(self, source: Iterator[Any]) -> None:
        self._source, self._drawn, self._at = source, [], 0  # type: tuple[Iterator[Any], list[Any], int]

    def __iter__(self) -> Rewindable:
        return self

    def __next__(self) -> Any:
        if self._at == len(self._drawn):
            self._drawn.append(next(self._source))
        self._at += 1
        return self._drawn[self._at - 1]

    def rewind(self) -> None:
        """Begin again with the first batch drawn."""
        self._at = 0

    def release(self) -> Iterator[Any]:
        """The whole data from the first batch drawn, remembered no longer."""
        return itertools.chain(self._drawn, self._source)


def first_batch(x: Any, y: Any = None, sample_weight: Any = None) -> tuple[Any, Any]:
    """One batch to learn shapes and types from, and the data again, none of it lost.

    Args:
        x: What `fit` takes as `x`.
        y: What it takes as `y`.
        sample_weight: What it takes as `sample_weight`.

    Returns:
        The batch as `x`, `(x, y)` or `(x, y, sample_weight)`, and what to pass on as `x`: the same object, but for
        an iterator that cannot be rewound, whose first batch had to be drawn and is put in front again.
    """
    if is_array_data(x):
        parts = (x, y) if sample_weight is None else (x, y, sample_weight)
        return keras.tree.map_structure(lambda array: np.asarray(array[:1]), parts), x
    if isinstance(x, keras.utils.PyDataset):
        return _as_arrays(x[0]), x
    if isinstance(x, Rewindable):
        batch = next(x)
        x.rewind()
        return _as_arrays(batch), x
    if hasattr(x, "__next__"):
        batch = next(x)
        return _as_arrays(batch), itertools.chain([batch], x)
    return _as_arrays(next(iter(x))), x


def _as_arrays(batch: Any) -> Any:
    return keras.tree.map_structure(lambda part: part if part is None else keras.ops.convert_to_numpy(part), batch)
