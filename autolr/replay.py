"""Data that a range test draws from and training has whole all the same: generators, and data told of epochs."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import GeneratorType
from typing import Any

import keras

from autolr.errors import in_brief
from autolr.random_state import python_state, set_python_state


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

    def __deepcopy__(self, memo: dict[int, Any]) -> Drawn:
        """The same: a copy of a tuner has the same generators, too, which cannot be copied."""
        return self


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


def source_of(x: Any) -> Any:
    """The user's own data, for errors."""
    return x.source if isinstance(x, (Replay, Unannounced)) else x
