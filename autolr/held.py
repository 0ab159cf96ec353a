"""What training may move and Keras does not list: `model.variables` has only the variables that layers track."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import deque
from collections.abc import Iterable
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import keras

from autolr import compat
from autolr.errors import library_of
from autolr.random_state import OwnGenerator

CONTAINERS = (list, tuple, set, frozenset, deque)
PLAIN = (int, float, complex, bool, str, bytes, type(None))
MAX_ITEMS = 1000  # items of a container that is looked into: longer ones are data
MAX_OBJECTS = 50_000  # looked at, the nearest first: a model of a hundred layers has some thousands, data any number
# Whose objects are looked into, though their class is Keras's.
OF_KERAS = (
    *(keras.Layer, keras.losses.Loss, keras.metrics.Metric, keras.optimizers.Optimizer),
    *(keras.random.SeedGenerator, keras.utils.PyDataset),
)
NOT_LOOKED_INTO = {
    "keras",
    "tensorflow",
    "tensorflow_probability",
    "jax",
    "jaxlib",
    "numpy",
    "scipy",
    "pandas",
    "builtins",
}


def held_variables(*roots: Any) -> list[Any]:
    """Variables and random generators that objects hold or refer to, deep within lists, functions or objects, too.

    A stateful RNN keeps its states out of Keras's sight, a loss its own variables and seeds, and a model may have a
    plain `tf.Variable` or a `tf.random.Generator` that its `train_step` moves, as its own, as its class's, or as one of
    its module's that the step refers to by name. Data that augment themselves often have a generator of NumPy's or
    Python's. Those that Keras lists are among them; those of another module, `helpers.counter` say, are not, nor those
    that lie behind 50,000 other objects.

    Args:
        *roots: A model, its loss, what it is trained on.
    """
    found: list[Any] = []
    seen: dict[int, Any] = {}  # the objects, too: an identity is another's as soon as one is gone
    waiting = deque(roots)
    while waiting and len(seen) < MAX_OBJECTS:
        it = waiting.popleft()
        # By its type: a module may be lazy, and load itself when it is asked for anything.
        if type(it) in PLAIN or issubclass(type(it), ModuleType) or id(it) in seen:
            continue
        seen[id(it)] = it
        with contextlib.suppress(Exception):  # one that can't be looked into: lazy, a proxy of nothing yet
            kind = type(it)
            if _is_variable(kind):
                found.append(it)
            elif isinstance(it, OwnGenerator.KINDS):
                found.append(OwnGenerator(it))
            elif kind.__name__ == "Generator" and kind.__module__.startswith("tensorflow"):
                found.append(it.state)
            else:
                waiting.extend(_within(it))  # not `+=`, which TensorFlow's lists take for themselves
    return found


def _is_variable(kind: type) -> bool:
    """Keras's, or one of TensorFlow's classes with `assign`, which a distributed one has, too.

    Asked of the class, as a property may raise. A layer of the user's may have an `assign` of quite another meaning.
    """
    of_tensorflow = (it for it in kind.__mro__ if library_of(it) == "tensorflow")
    return issubclass(kind, keras.Variable) or any(hasattr(it, "assign") for it in of_tensorflow)


def _within(it: Any) -> Iterable[Any]:
    """What an object holds."""
    held: Iterable[Any] = ()
    code = isinstance(it, (FunctionType, type))
    library = library_of(it if code else type(it))
    # Python's own functions lead to all threads there are; its plain objects may hold what is the user's.
    strange = library not in NOT_LOOKED_INTO and not (code and library in sys.stdlib_module_names)
    if isinstance(it, (dict, *CONTAINERS)):
        if len(it) <= MAX_ITEMS:
            held = it.values() if isinstance(it, dict) else it
    elif isinstance(it, functools.partial):
        held = it.func, it.args, it.keywords
    elif isinstance(it, MethodType):
        held = it.__self__, it.__func__
    elif isinstance(it, property):
        held = it.fget, it.fset
    elif isinstance(it, (staticmethod, classmethod)):
        held = (it.__func__,)
    elif hasattr(type(it), "python_function"):  # decorated by `tf.function`
        held = (it.python_function,)
    elif isinstance(it, FunctionType):
        held = (
            [*compat.closure_of(it).values(), *_globals_of(it), it.__defaults__, it.__kwdefaults__] if strange else ()
        )
    elif isinstance(it, type):
        held = [*vars(it).values(), *it.__mro__] if strange else ()
    elif strange or isinstance(it, OF_KERAS):
        held = [*_attributes(it).values(), *type(it).__mro__]
    return held


def _globals_of(function: FunctionType) -> list[Any]:
    """What a function, or one within it, refers to of its module by name."""
    names: set[str] = set()
    waiting = [function.__code__]
    while waiting:
        code = waiting.pop()
        names.update(code.co_names)
        waiting += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return [function.__globals__[name] for name in names & function.__globals__.keys()]


def _attributes(it: Any) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    with contextlib.suppress(Exception):  # without any, or one that pretends to be another object and is not ready
        attributes.update(vars(it))
    for kind in type(it).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            with contextlib.suppress(AttributeError):  # not set
                attributes[name] = getattr(it, name)
    return attributes
