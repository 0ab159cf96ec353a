"""Everything training changes in a model, noted and put back bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from autolr import compat
from autolr.held import held_variables
from autolr.optimizers import scope_of
from autolr.random_state import OwnGenerator, RandomState, noted
from autolr.variables import array_of, assign


@dataclass(frozen=True)
class ModelState:
    """The state of a model, its optimizer, its metrics and the random generators at one moment.

    Weights alone are not enough: BatchNorm's statistics, the seeds of dropout, the states of a stateful RNN, the
    variables of a loss, the optimizer's slots and step count, metrics, the seeds of layers that data pass through, and
    the generators of Python, NumPy and TensorFlow all move when a model trains.

    Example:
    ```python
    before = ModelState.of(model)
    model.fit(x, y)
    before.restore()
    ```
    """

    model: Any
    values: list[tuple[Any, Any]]
    attributes: dict[str, Any]
    random_state: RandomState

    @classmethod
    def of(cls, model: Any, data: Any = None, *, build_optimizer: bool = True) -> ModelState:
        """Note the state of a built model; builds its optimizer if that has not been done.

        Args:
            model: A compiled Keras model whose variables exist.
            data: What it is trained on, whose own seeds are noted, too.
            build_optimizer: Whether to build its optimizer, for what the model trains. Else slots that it gets later
                are not put back.

        Raises:
            ValueError: If the model is not built: weights that do not exist yet could not be put back.
        """
        if not model.built:
            raise ValueError(
                f"Model {model.name!r} must be built before its state can be noted. "
                "Received: a model whose variables do not exist yet. "
                "Call it on a batch of data first, or use `autolr.range_test`, which builds it."
            )
        if build_optimizer and not model.optimizer.built:
            with scope_of(model):
                model.optimizer.build(model.trainable_variables)
        variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
        variables += compat.global_seed_variables()
        listed = {id(variable): variable for variable in variables}
        held = {id(it): it for it in [*held_variables(model, model.loss), *variables_of_data(data)]}
        values = [(variable, array_of(variable)) for variable in listed.values()]
        return cls(
            model,
            [*values, *noted([variable for key, variable in held.items() if key not in listed])],
            {name: getattr(model, name, None) for name in ("history", "stop_training")},
            RandomState.now(),
        )

    def restore(self, *, kernels: bool = True) -> None:
        """Put everything back as it was, and all that can be if something can't.

        Args:
            kernels: Whether random operations of TensorFlow's own begin anew, too, which takes a while: `prepare` tells
                whether a training has any.
        """
        try:
            self.model.reset_metrics()  # those created since then start from zero
        finally:
            try:
                self.assign()
            finally:
                for name, value in self.attributes.items():
                    setattr(self.model, name, value)
                self.random_state.restore(kernels=kernels)

    def without(self, variables: Sequence[Any]) -> ModelState:
        """The same, but for these variables and generators."""
        left_out = {id(_itself(it)) for it in variables}
        return replace(self, values=[pair for pair in self.values if id(_itself(pair[0])) not in left_out])

    def assign(self) -> None:
        """Put the variables alone back, and the user's own generators; those that can be if one can't."""
        errors: list[Exception] = []
        for variable, value in self.values:
            try:
                assign(variable, value)
            except Exception as error:  # whatever a variable's class raises: the others are put back first
                errors.append(error)
        if errors:
            raise errors[0]


def _itself(it: Any) -> Any:
    """What a Keras variable, or a generator of the user's, stands for: data refer to that."""
    if isinstance(it, OwnGenerator):
        return it.generator
    return it.value if isinstance(it, keras.Variable) else it


def variables_of_data(data: Any) -> list[Any]:
    """Variables that drawing batches moves, as the seeds of layers that images pass through on their way."""
    return [*compat.variables_of_dataset(data), *held_variables(data)]
