"""Random generators, those that a program shares and the user's own, noted and put back."""

from __future__ import annotations

import contextlib
import copy
import pickle
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autolr import compat
from autolr.variables import array_of


def python_state() -> bytes:
    """The state of Python's and NumPy's generators, to be compared and put back."""
    return pickle.dumps((random.getstate(), np.random.get_state()))


def set_python_state(state: bytes) -> None:
    """Put back what `python_state` returned."""
    of_python, of_numpy = pickle.loads(state)
    random.setstate(of_python)
    np.random.set_state(of_numpy)


@dataclass(frozen=True)
class RandomState:
    """The state of Python's, NumPy's and TensorFlow's generators at one moment."""

    python: bytes
    tensorflow: Any

    @classmethod
    def now(cls) -> RandomState:
        """Note the states."""
        return cls(python_state(), compat.tensorflow_seed_state())

    def restore(self, *, kernels: bool = True) -> None:
        """Put them back; without `kernels`, TensorFlow's own only if a seed was drawn since."""
        set_python_state(self.python)
        compat.set_tensorflow_seed_state(self.tensorflow, kernels=kernels)


class OwnGenerator:
    """A random generator of Python's or NumPy's that is the user's own, noted and put back as variables are.

    Attributes:
        generator: A `random.Random`, `numpy.random.Generator` or `numpy.random.RandomState`.
    """

    KINDS = (random.Random, np.random.Generator, np.random.RandomState)

    def __init__(self, generator: Any) -> None:
        self.generator = generator

    def state(self) -> Any:
        """Its state, a copy."""
        if isinstance(self.generator, random.Random):
            return self.generator.getstate()
        if isinstance(self.generator, np.random.RandomState):
            return self.generator.get_state()
        return copy.deepcopy(self.generator.bit_generator.state)

    def assign(self, state: Any) -> None:
        """Put back what `state` returned."""
        if isinstance(self.generator, random.Random):
            self.generator.setstate(state)
        elif isinstance(self.generator, np.random.RandomState):
            self.generator.set_state(state)
        else:
            self.generator.bit_generator.state = state


@contextlib.contextmanager
def random_state_kept(variables: Sequence[Any] = ()) -> Iterator[None]:
    """What is drawn from the random generators meanwhile will be drawn again.

    Args:
        variables: What else is to be as it was, as the seeds of layers that data pass through.
    """
    state, values = RandomState.now(), noted(variables)
    try:
        yield
    finally:
        try:
            for variable, value in values:
                variable.assign(value)
        finally:
            state.restore()


def noted(variables: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Variables, and generators of the user's own, with their values.

    Those that can't be read, as those of some types and strategies, are left out.
    """
    values = []
    for variable in variables:
        with contextlib.suppress(Exception):
            own = isinstance(variable, OwnGenerator)
            values.append((variable, variable.state() if own else array_of(variable)))
    return values
