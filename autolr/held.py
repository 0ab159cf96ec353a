"""Variables that training may move and Keras does not list: `model.variables` has only those that layers track."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable
from types import FunctionType, MethodType
from typing import Any

import keras

from autolr import compat

CONTAINERS = (list, tuple, set, frozenset)
MAX_ITEMS = 1000  # items of a container that is looked into: longer ones are data
# Whose objects are looked into, though their class is Keras's.
OF_KERAS = (keras.Layer, keras.losses.Loss, keras.metrics.Metric, keras.random.SeedGenerator, keras.utils.PyDataset)
LIBRARIES = {"keras", "tensorflow", "tensorflow_probability", "jax", "jaxlib", "numpy", "scipy", "pandas", "builtins"}


def held_variables(*roots: Any) -> list[Any]:
    """Variables that objects have as attributes, also deep within lists, dictionaries, closures or objects of the user.

    A stateful RNN keeps its states out of Keras's sight, a loss its own variables and seeds, and a model may have a
    plain `tf.Variable` or a `tf.random.Generator` that its `train_step` moves. Those that Keras lists are among them.

    Args:
        *roots: A model, its loss, what it is trained on.
    """
    found: list[Any] = []
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        it = waiting.pop()
        if id(it) in seen:
            continue
        seen.add(id(it))
        kind = type(it)
        if hasattr(kind, "assign") and hasattr(kind, "dtype"):  # asked of the class: a property may raise
            found.append(it)
        elif kind.__name__ == "Generator" and kind.__module__.startswith("tensorflow"):
            found.append(it.state)
        else:
            waiting += _within(it)
    return found


def _within(it: Any) -> Iterable[Any]:
    """What an object holds."""
    if isinstance(it, (dict, *CONTAINERS)):
        values: Iterable[Any] = it.values() if isinstance(it, dict) else it
        return values if len(it) <= MAX_ITEMS else ()
    if isinstance(it, functools.partial):
        return [it.func, it.args, it.keywords]
    if isinstance(it, MethodType):
        return [it.__self__]
    strange = _library(it if isinstance(it, (FunctionType, type)) else type(it)) not in LIBRARIES
    if isinstance(it, FunctionType):
        return compat.closure_of(it).values() if strange else ()
    looked_into = not isinstance(it, type) and (strange or isinstance(it, OF_KERAS))
    return list(_attributes(it).values()) if looked_into else ()


def _attributes(it: Any) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    with contextlib.suppress(Exception):  # without any, or one that pretends to be another object and is not ready
        attributes = vars(it)
    return attributes


def _library(it: Any) -> str:
    return str(getattr(it, "__module__", None)).split(".")[0]
