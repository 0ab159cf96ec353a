"""What can be known of the data given to `fit` without training on it."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import GeneratorType
from typing import Any

import keras
import numpy as np

from autolr.errors import in_brief, invalid
from autolr.random_state import python_state, set_python_state

BATCH_SIZE = 32  # Keras's, of arrays


def is_array_data(x: Any) -> bool:
    """Whether the data are arrays or tensors, or a nest of them, which Keras cuts into batches itself.

    Anything else it takes gives batches: data sets of several libraries, of which Keras knows more than are named here.
    """
    return all(it is None or hasattr(it, "shape") or hasattr(it, "__array__") for it in keras.tree.flatten(x))


def as_tensors(data: Any) -> Any:
    """Arrays as TensorFlow's tensors, which Keras takes as they are: of NumPy's it makes a copy for each training.

    Args:
        data: An array, or a nest of them. What is no array of numbers stays as it is; on other backends, all does.
    """
    if keras.backend.backend() != "tensorflow":
        return data

    def as_tensor(it: Any) -> Any:
        numbers = type(it) is np.ndarray and it.dtype.kind in "biuf" and it.dtype.itemsize <= 8
        return keras.ops.convert_to_tensor(it) if numbers else it

    with keras.device("cpu"):  # not into the memory of a GPU, which may be too small
        return keras.tree.map_structure(as_tensor, data)


def num_samples(x: Any) -> int:
    """Length of the first array of a nest; inputs that are optional may be None, and without any there is no sample."""
    given = [part for part in keras.tree.flatten(x) if part is not None]
    return int(_shape(given[0])[0]) if given else 0


def samples_to_train(x: Any, validation_split: float | None = 0.0) -> int:
    """Samples of arrays that `fit` does not set aside for validation."""
    return math.floor(num_samples(x) * (1 - (validation_split or 0.0)))


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


def source_of(x: Any) -> Any:
    """The user's own data, for errors."""
    return x.source if isinstance(x, (Replay, Unannounced)) else x


def _shape(part: Any) -> tuple[Any, ...]:
    """Of an array or a tensor, also a sparse one, which NumPy takes for a scalar; a ragged one has no size for some."""
    shape = part.shape if hasattr(part, "shape") else np.shape(part)
    return tuple(None if size is None else int(size) for size in shape)


def count_steps(
    x: Any, *, batch_size: int | None = None, steps_per_epoch: int | None = None, validation_split: float = 0.0
) -> int | None:
    """Batches in an epoch of `fit` with these arguments, or None if that cannot be known beforehand."""
    if steps_per_epoch:
        return int(steps_per_epoch)
    if is_array_data(x):
        return math.ceil(samples_to_train(x, validation_split) / (batch_size or BATCH_SIZE))
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


@dataclass
class Drawn:
    """What was drawn from a generator and is still to be trained on.

    Attributes:
        batches: The batches, each with the state in which its making left the random generators, if it moved them.
        error: What ended the generator, in words, if an error did: who asks it again hears of its end alone. Not the
            error itself, whose traceback would hold the generator.
        passes: How many trainings have begun to draw; the latest alone goes on.
        lock: Keras reads ahead in another thread, which may live a little longer than its `fit`.
    """

    batches: deque[tuple[Any, bytes | None]] = field(default_factory=deque)
    error: str = ""
    passes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Replay:
    """A generator that remembers what was drawn from it, so that a range test takes no batch away from training.

    Keras takes generators for data, but no other iterators: what it is given are generators of this class's. What a
    test has drawn and this training does not use is the next one's on the same source.

    A source may draw from Python's or NumPy's random generator, which a test puts back. So a batch that comes from
    memory leaves them as it did when it was drawn: else the source would make the remembered batches once more. It may
    also fill the same arrays again and again, so what is remembered is copied.

    Args:
        source: The user's generator, finite or not.
        drawn: What was drawn from it before.
    """

    def __init__(self, source: Iterator[Any], drawn: Drawn | None = None) -> None:
        self.source = source
        self._drawn = drawn or Drawn()

    def first(self) -> Any:
        """The first batch."""
        with self._drawn.lock:
            if not self._drawn.batches:
                self._draw()
            return self._drawn.batches[0][0]

    def end(self) -> None:
        """End what has begun: Keras's thread takes nothing any more."""
        with self._drawn.lock:
            self._drawn.passes += 1

    def _next(self) -> Any:
        if self._drawn.error:
            raise RuntimeError(f"The generator has ended with an error: {self._drawn.error}")
        try:
            return next(self.source)
        except StopIteration:
            raise
        except Exception as error:  # whatever the user's generator raises: it has ended by it
            self._drawn.error = in_brief(error)
            raise

    def _draw(self) -> None:
        before = python_state()
        batch = keras.tree.map_structure(_copied, self._next())
        after = python_state()
        self._drawn.batches.append((batch, None if after == before else after))

    def replay(self) -> Iterator[Any]:
        """From the first batch remembered, and again from there when the source ends; ends what began earlier."""
        with self._drawn.lock:
            self._drawn.passes += 1
            return self._replay(self._drawn.passes)

    def _replay(self, number: int) -> Iterator[Any]:
        at = 0
        while True:
            with self._drawn.lock:
                if number != self._drawn.passes:
                    return
                if at == len(self._drawn.batches):
                    try:
                        self._draw()
                    except StopIteration:
                        if not at:
                            return
                        at = 0
                batch = _taken(self._drawn.batches[at])
            at += 1
            yield batch

    def release(self) -> Iterator[Any]:
        """The whole data from the first batch remembered, each forgotten once it is taken; ends what began earlier."""
        with self._drawn.lock:
            self._drawn.passes += 1
            return self._rest(self._drawn.passes)

    def _rest(self, number: int) -> Iterator[Any]:
        while True:
            with self._drawn.lock:
                if number != self._drawn.passes:
                    return
                try:
                    batch = _taken(self._drawn.batches.popleft()) if self._drawn.batches else self._next()
                except StopIteration:
                    return
            yield batch


def _copied(part: Any) -> Any:
    """An array, a frame or a matrix of its own; a tensor never changes."""
    return part.copy() if callable(getattr(part, "copy", None)) else part


def _taken(drawn: tuple[Any, bytes | None]) -> Any:
    batch, state = drawn
    if state is not None:
        set_python_state(state)
    return batch


class Unannounced(keras.utils.PyDataset):
    """A `PyDataset` that is not told of epochs: at their ends it would shuffle itself, and a test has epochs, too.

    Args:
        source: The user's data.
    """

    def __init__(self, source: keras.utils.PyDataset) -> None:
        names = ("workers", "use_multiprocessing", "max_queue_size")
        super().__init__(**{name: getattr(source, name) for name in names if hasattr(source, name)})
        self.source = source

    @property
    def num_batches(self) -> int | None:
        """As many as there are."""
        batches: int | None = self.source.num_batches
        return batches

    def __getitem__(self, index: int) -> Any:
        """A batch."""
        return self.source[index]


def replayable(x: Any) -> Any:
    """Data that a range test can draw from more than once: a generator is wrapped, anything else can be already."""
    return Replay(x) if isinstance(x, GeneratorType) else x


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


def yields_targets(x: Any) -> bool:
    """Whether what data give, batch by batch, is a tuple of inputs and more; of arrays, never."""
    batch = () if is_array_data(x) else _first(x)
    return isinstance(batch, tuple) and len(batch) > 1


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
