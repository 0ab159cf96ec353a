"""Everything training changes in a model, noted and put back bit for bit."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from autolr import compat
from autolr.optimizers import scope_of


@dataclass(frozen=True)
class Snapshot:
    """The state of a model, its optimizer, its metrics and the random generators at one moment.

    Weights alone are not enough: BatchNorm's statistics, the seeds of dropout, the states of a stateful RNN, the
    optimizer's slots and step count, metrics, and the generators of Python, NumPy and TensorFlow all move when a model
    trains.

    Example:
    ```python
    before = Snapshot.of(model)
    model.fit(x, y)
    before.restore()
    ```
    """

    model: Any
    values: list[tuple[Any, Any]]
    attributes: dict[str, Any]
    random_states: tuple[Any, Any, Any]

    @classmethod
    def of(cls, model: Any) -> Snapshot:
        """Note the state of a built model; builds its optimizer if that has not been done.

        Args:
            model: A compiled Keras model whose variables exist.

        Raises:
            ValueError: If the model is not built: weights that do not exist yet could not be put back.
        """
        if not model.built:
            raise ValueError(
                f"Model {model.name!r} must be built before its state can be noted. "
                "Received: a model whose variables do not exist yet. "
                "Call it on a batch of data first, or use `autolr.range_test`, which builds it."
            )
        if not model.optimizer.built:
            with scope_of(model):
                model.optimizer.build(model.trainable_variables)
        variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
        variables += compat.global_seed_variables()
        values = {id(variable): (variable, _copy(variable)) for variable in variables}
        for variable in compat.unlisted_state(model):
            if id(variable) not in values:
                with contextlib.suppress(Exception):  # one that can't be read, as those of some types and strategies
                    values[id(variable)] = variable, _copy(variable)
        return cls(
            model,
            list(values.values()),
            {name: getattr(model, name, None) for name in ("history", "stop_training")},
            _random_states(),
        )

    def restore(self) -> None:
        """Put everything back as it was."""
        self.model.reset_metrics()  # those created since then start from zero
        for variable, value in self.values:
            variable.assign(value)
        for name, value in self.attributes.items():
            setattr(self.model, name, value)
        _set_random_states(self.random_states)


@contextlib.contextmanager
def undrawn() -> Iterator[None]:
    """What is drawn from the random generators meanwhile will be drawn again."""
    states = _random_states()
    try:
        yield
    finally:
        _set_random_states(states)


def _random_states() -> tuple[Any, Any, Any]:
    return random.getstate(), np.random.get_state(), compat.tensorflow_seed_state()


def _set_random_states(states: tuple[Any, Any, Any]) -> None:
    python_state, numpy_state, tensorflow_state = states
    random.setstate(python_state)
    np.random.set_state(numpy_state)
    compat.set_tensorflow_seed_state(tensorflow_state)


def _copy(variable: Any) -> np.ndarray[Any, Any]:
    """Its value; a copy, since on a CPU a backend may hand out a view of the memory the next step writes to."""
    return np.array(keras.ops.convert_to_numpy(variable))
