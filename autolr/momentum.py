"""Momentum that a callback can change between two steps."""

from __future__ import annotations

import math
from typing import Any

import keras

from autolr.errors import invalid, is_finite, warn
from autolr.optimizers import leaf_optimizers, scope_of
from autolr.variables import assign

MOST_TIMES = 10  # that momentum is taken over again in one training: the step is traced anew each time
NAMES = ("momentum", "beta_1")  # of SGD, RMSprop and Muon; of Adam and its kin


def check_momentum(momentum: Any) -> None:
    """Raise `ValueError` unless it is what momentum can move between: two numbers, or None."""
    if momentum is None:
        return
    pair = momentum if isinstance(momentum, (tuple, list)) and len(momentum) == 2 else (math.nan, math.nan)
    if not (is_finite(pair[0]) and is_finite(pair[1]) and 0 <= pair[0] <= pair[1] < 1):
        raise invalid("momentum", "be two numbers in [0, 1), the smaller first, or None", momentum, "Try (0.85, 0.95).")


class _Momentum(keras.Variable):
    """A variable where Keras expects a number: `if self.momentum != 0` must be decided while tracing."""

    own: float  # the optimizer's

    def __ne__(self, other: object) -> bool:
        return True

    def __gt__(self, other: object) -> bool:
        return True


class CycledMomentum:
    """Takes over the momentum of a model's optimizer until it is given back.

    Keras reads momentum as a number when it traces the training step, so that a number assigned later changes nothing.
    A variable in its place is read at every step. It is not one of the optimizer's own variables: checkpoints saved
    meanwhile look as ever, and hold the optimizer's own momentum. The training step is traced anew for it, and once
    more afterwards. Of a training that is interrupted Keras tells nobody: then the next one gives it back as it begins.
    If that was one within this training, as a callback's, it is taken over once more.

    Args:
        model: A compiled model. An optimizer without momentum, or with one of 0, is left alone, and any on JAX: there a
            traced step sees the optimizer's own variables and nothing else.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model: Any = model
        self._taken: list[tuple[Any, str, Any, _Momentum]] = []
        if keras.backend.backend() == "jax":
            warn("On the JAX backend a one-cycle schedule moves the learning rate alone, not the momentum.")
        else:
            self._take_over()
        self._has_any, self._times = bool(self._taken), 0

    def _take_over(self) -> None:
        model = self._model
        with scope_of(model):
            for part in leaf_optimizers(model.optimizer):
                for name in NAMES:
                    value: Any = getattr(part, name, None)
                    if isinstance(value, _Momentum):  # of a training that was interrupted
                        value = value.own
                    if _is_number(value) and value > 0:
                        variable = _Momentum(float(value), trainable=False, dtype="float32")
                        variable.own = value
                        self._taken.append((part, name, value, variable))
        for part, name, _, variable in self._taken:
            # Past `__setattr__`, which would make it one of the optimizer's variables.
            vars(part)[name] = variable
            vars(part)["get_config"] = _config_with(part, {it[1]: it[2] for it in self._taken if it[0] is part})
        self._retrace()
        if self._taken:
            # What Keras calls first in `fit` and `train_on_batch`, and not again while they run.
            vars(model)["make_train_function"] = self._begin_another

    def assign(self, value: float) -> None:
        """Set the momentum of the next step."""
        if self._has_any and not self._taken:  # it was given back to a training within this one
            self._times += 1
            if self._times <= MOST_TIMES:
                self._take_over()
            if self._times == MOST_TIMES:
                warn(
                    "A callback trains the model, too, or has its step traced anew, again and again. Each time the "
                    "momentum is handed to it, and back: from here on it stays where it is, and the rate moves alone."
                )
        for *_, variable in self._taken:
            assign(variable, value)

    def give_back(self) -> None:
        """Give the optimizer its own momentum again."""
        for part, name, value, _ in self._taken:
            vars(part)[name] = value
            vars(part).pop("get_config", None)
        self._retrace()
        self._taken = []

    def _begin_another(self, force: bool = False) -> Any:
        """Another training begins, and nothing was given back: the last one was interrupted."""
        self.give_back()
        return self._model.make_train_function(force=force)

    def _retrace(self) -> None:
        if self._taken:
            vars(self._model).pop("make_train_function", None)
            self._model.make_train_function(force=True)


def _is_number(value: Any) -> bool:
    """Whether it is a number of whatever type, a scalar of NumPy's or a tensor say."""
    if isinstance(value, keras.Variable):
        return False
    return is_finite(value) or (keras.ops.is_tensor(value) and value.shape == ())


def _config_with(optimizer: Any, values: dict[str, float]) -> Any:
    original = type(optimizer).get_config

    def get_config() -> dict[str, Any]:
        return {**original(optimizer), **values}

    return get_config
