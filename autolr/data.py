"""What can be known of the data given to `fit` without training on it."""

from __future__ import annotations

import math
from types import GeneratorType
from typing import Any

import keras
import numpy as np

from autolr.errors import invalid
from autolr.replay import Replay, source_of

BATCH_SIZE = 32  # Keras's, of arrays


def is_array_data(x: Any) -> bool:
    """Whether the data are arrays or tensors, or a nest of them, which Keras cuts into batches itself.

    Anything else it takes gives batches: data sets of several libraries, of which Keras knows more than are named here.
    A `PyDataset` may have a `shape` of its own, that of its images say.
    """
    if isinstance(x, keras.utils.PyDataset):
        return False
    return all(it is None or hasattr(it, "shape") or hasattr(it, "__array__") for it in keras.tree.flatten(x))


def num_samples(x: Any) -> int:
    """Length of the first array of a nest; inputs that are optional may be None, and without any there is no sample."""
    given = [part for part in keras.tree.flatten(x) if part is not None]
    return int(_shape(given[0])[0]) if given else 0


def samples_to_train(x: Any, validation_split: float | None = 0.0) -> int:
    """Samples of arrays that `fit` does not set aside for validation."""
    return _left_by(validation_split, num_samples(x))


def _left_by(validation_split: float | None, samples: int) -> int:
    return math.floor(samples * (1 - (validation_split or 0.0)))


def is_empty(x: Any) -> bool:
    """Whether data that are arrays hold no sample at all, or there is no array."""
    if not is_array_data(x):
        return False
    given = [part for part in keras.tree.flatten(x) if part is not None]
    return not given or any(_shape(part)[:1] == (0,) for part in given)


def without_samples(x: Any) -> ValueError:
    """The error for data without a sample, which names the user's own."""
    source = source_of(x)
    used_up = (
        "A generator can be drawn from once: pass a `tf.data.Dataset` or a `PyDataset`, of which each trial has all."
    )
    hint = used_up if isinstance(source, GeneratorType) else "Pass training data; perhaps everything was filtered out."
    return invalid("x", "hold at least one sample", source, hint)


def _shape(part: Any) -> tuple[Any, ...]:
    """Of an array or a tensor, also a sparse one, which NumPy takes for a scalar; a ragged one has no size for some."""
    shape = part.shape if hasattr(part, "shape") else np.shape(part)
    return tuple(None if size is None else int(size) for size in shape)


def count_batches(
    x: Any, *, batch_size: int | None = None, steps_per_epoch: int | None = None, validation_split: float = 0.0
) -> int | None:
    """Batches in an epoch of `fit` with these arguments, or None if that cannot be known beforehand."""
    if steps_per_epoch:
        return int(steps_per_epoch)
    samples = _num_texts(x)  # before arrays: NumPy's own texts have a shape
    if samples is None and is_array_data(x):
        samples = num_samples(x)
    if samples is not None:
        return math.ceil(_left_by(validation_split, samples) / (batch_size or BATCH_SIZE))
    if isinstance(x, keras.utils.PyDataset):
        batches = x.num_batches
        return None if batches is None else int(batches)
    if hasattr(x, "cardinality"):
        batches = _cardinality(x)
        return batches if batches > 0 else None
    try:
        return len(x)
    except TypeError:  # a `DataLoader` has the method, but not always the number
        return None


def _num_texts(x: Any) -> int | None:
    """Length of the first list of texts in a nest of plain lists, which models with a `fit` of their own take.

    Such as KerasHub's; other parts of the nest may be arrays.
    """
    if not isinstance(x, (list, tuple, dict)) or not x:
        return None
    parts = x.values() if isinstance(x, dict) else x
    first = next(iter(parts))
    if isinstance(first, (str, bytes)):
        return None if isinstance(x, dict) else len(x)
    if isinstance(first, (int, float)):  # numbers, perhaps very many
        return None
    return next((texts for texts in map(_num_texts, parts) if texts is not None), None)


def is_endless(x: Any) -> bool:
    """Whether data are known never to end, as of a `tf.data.Dataset` that is repeated."""
    if isinstance(x, keras.utils.PyDataset):
        return x.num_batches is None
    return hasattr(x, "cardinality") and _cardinality(x) == -1  # `tf.data.INFINITE_CARDINALITY`


def _cardinality(x: Any) -> int:
    """Batches of a `tf.data.Dataset`, or of one that a strategy has distributed, which has a number for a method."""
    return int(x.cardinality() if callable(x.cardinality) else x.cardinality)


def holding_nan(**arrays: Any) -> list[str]:
    """Which of these arrays, or nests of them, hold not-a-numbers; data that come in batches are not read."""

    def holds(part: Any) -> bool:
        array = np.asarray(part)
        return array.dtype.kind == "f" and array.size > 0 and bool(np.isnan(np.min(array)))  # one pass, and no copy

    return [
        name
        for name, x in arrays.items()
        if x is not None and is_array_data(x) and any(map(holds, keras.tree.flatten(x)))
    ]


def first_batch(x: Any, y: Any = None, sample_weight: Any = None, *, batch_size: int | None = None) -> Any:
    """Shapes and types of a batch, as `x`, `(x, y)` or `(x, y, sample_weight)`, in symbolic tensors.

    Args:
        x: What `fit` takes as `x`; no generator, but `replayable` of one, so that nothing is lost.
        y: What it takes as `y`.
        sample_weight: What it takes as `sample_weight`.
        batch_size: What it takes as `batch_size`: some layers need to know how many samples there will be.
    """
    if is_array_data(x):
        parts = (x, y) if sample_weight is None else (x, y, sample_weight)
        size = min(batch_size or BATCH_SIZE, num_samples(x))
        return keras.tree.map_structure(lambda part: None if part is None else _symbol(part, size), parts)
    try:
        batch = _first(x)
    except StopIteration:
        raise without_samples(x) from None
    return keras.tree.map_structure(lambda part: None if part is None else _symbol(part), batch)


def spec_of(data: keras.utils.PyDataset) -> list[tuple[tuple[int | None, ...], str]]:
    """Shapes and types of the batches, None for a size that varies: texts may be padded to the longest in each."""
    batches = [keras.tree.flatten(data[at]) for at in range(1 if data.num_batches == 1 else 2)]
    spec = []
    for parts in zip(*batches, strict=False):
        if parts[0] is not None:
            first, *others = map(_symbol, parts)
            sizes = [
                size if all(size in it.shape[at : at + 1] for it in others) else None
                for at, size in enumerate(first.shape)
            ]
            spec.append((tuple(sizes), first.dtype))
    return spec


def yields_targets(x: Any) -> bool:
    """Whether data that come in batches give inputs and more: in a tuple, or in a list, which Keras takes for one."""
    batch = _first(x)
    return isinstance(batch, (tuple, list)) and len(batch) > 1


def _first(x: Any) -> Any:
    if isinstance(x, keras.utils.PyDataset):
        return x[0]
    return x.first() if isinstance(x, Replay) else next(iter(x))


def _symbol(part: Any, size: int | None = None) -> keras.KerasTensor:
    if not hasattr(part, "dtype"):
        part = np.asarray(part)
    shape = _shape(part)
    # NumPy holds texts as objects, or in types of its own for each length.
    text = isinstance(part, np.ndarray) and part.dtype.kind in "OSU"
    dtype = "string" if text else keras.backend.standardize_dtype(part.dtype)
    return keras.KerasTensor(shape if size is None else (size, *shape[1:]), dtype)
