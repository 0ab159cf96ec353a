"""Which trainings would measure the same bounds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import partial
from hashlib import sha256
from types import CodeType, FunctionType, MethodType
from typing import Any

import keras
import numpy as np

from autolr import compat
from autolr.data import count_batches, is_array_data, spec_of
from autolr.fit import training_arguments
from autolr.model_state import variables_of_data
from autolr.optimizers import leaf_optimizers
from autolr.random_state import random_state_kept
from autolr.trial_values import DEFAULTS, chosen


def compiled_setup(model: Any, arguments: Mapping[str, Any]) -> str:
    """What of one model's training a range test depends on and a `HyperModel.fit` may change between two `fit`s.

    Args:
        model: A compiled model.
        arguments: The arguments of its `fit`.
    """
    variables = [[list(v.shape), str(v.dtype), bool(v.trainable)] for v in getattr(model, "variables", ())]
    fit = {name: value for name, value in training_arguments(arguments).items() if value is not None}
    if isinstance(weights := fit.get("class_weight"), Mapping):
        fit["class_weight"] = {label: float(weight) for label, weight in weights.items()}
    data = [_shapes(fit.pop(name, None)) for name in ("x", "y", "sample_weight")]
    return _text([_optimizer(model.optimizer), _loss(model), variables, fit, data])


def measured_setup(model: Any, arguments: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Everything a range test depends on, within one call of `search` with its data.

    Args:
        model: A compiled model.
        arguments: The arguments of its `fit`.
        values: The trial's hyperparameter values.

    Returns:
        Text that is equal for two trainings only if range tests would see the same in both, as far as one can tell:
        same values but for the schedule's, same architecture, loss, optimizer, batch size and steps in an epoch.
    """
    # The schedule begins after a range test.
    choices = {name: value for name, value in chosen(values).items() if name not in DEFAULTS}
    try:
        architecture = model.get_config()
    except NotImplementedError:  # a subclass of `Model` without one: its values and variables tell
        architecture = type(model).__qualname__
    return _text([choices, architecture, compiled_setup(model, arguments)])


def _optimizer(optimizer: Any) -> list[Any]:
    # Rates are what the test is about, and Keras numbers the names.
    ignored = ("learning_rate", "name")
    return [
        [type(part).__qualname__, {k: v for k, v in part.get_config().items() if k not in ignored}]
        for part in leaf_optimizers(optimizer)
    ]


def _loss(model: Any) -> list[Any]:
    try:
        compiled = model.get_compile_config() or {}
    except Exception:  # something in it cannot be written down
        compiled = {}
    return [compiled.get("loss_weights"), _told_apart(model.loss)]


def _told_apart(it: Any, depth: int = 8) -> Any:
    """What tells a loss from another of its name: a function's code and what it refers to, an object's own values.

    What is no number, text, array, function, loss or callable object is known by its type alone, and so is what lies
    deep within. What a function reads of its module is known by name.
    """
    if isinstance(it, np.generic):
        it = it.item()
    if it is None or isinstance(it, (bool, int, float, str)):
        return it
    within: Iterable[Any] | None = None
    if isinstance(it, Mapping):
        within = it.items()
    elif isinstance(it, (list, tuple)):
        within = it
    elif isinstance(it, partial):
        within = it.func, it.args, it.keywords
    elif isinstance(it, MethodType):
        within = it.__func__, it.__self__
    elif isinstance(it, FunctionType):
        within = it.__code__, *compat.closure_of(it).values(), it.__defaults__, it.__kwdefaults__
    elif isinstance(it, CodeType):
        within = it.co_name, it.co_code.hex(), it.co_names, it.co_consts
    elif keras.ops.is_tensor(it) or isinstance(it, np.ndarray):
        array = keras.ops.convert_to_numpy(it)
        within = array.shape, sha256(array.tobytes()).hexdigest()
    elif callable(it) and hasattr(it, "__dict__") and not isinstance(it, (type, keras.Layer)):
        own = [(name, value) for name, value in vars(it).items() if name != "name"]  # which Keras numbers
        within = own, getattr(type(it), "call", None), type(it).__call__
    name = type(it).__qualname__
    return name if within is None or depth == 0 else [name, *(_told_apart(part, depth - 1) for part in within)]


def _shapes(data: Any) -> Any:
    """What arrays or batches look like, and how many there are; the numbers in them could not be told apart cheaply."""
    if data is None:
        return None
    if is_array_data(data):
        return [[list(np.shape(part)), str(getattr(part, "dtype", ""))] for part in keras.tree.flatten(data)]
    batch: Any = repr(getattr(data, "element_spec", ""))
    if isinstance(data, keras.utils.PyDataset):
        with random_state_kept(variables_of_data(data)):
            batch = repr(spec_of(data))
    return [type(data).__qualname__, count_batches(data), batch]


def _text(value: Any) -> str:
    return json.dumps(_plain(value), default=lambda it: getattr(it, "__qualname__", type(it).__qualname__))


def _plain(value: Any) -> Any:
    """With mappings as sorted pairs: a config's keys may be NumPy's, or of several types, which JSON does not take."""
    if isinstance(value, Mapping):
        return sorted(([str(key), _plain(part)] for key, part in value.items()), key=lambda pair: pair[0])
    if isinstance(value, np.generic):
        return value.item()
    return [_plain(part) for part in value] if isinstance(value, (list, tuple)) else value
