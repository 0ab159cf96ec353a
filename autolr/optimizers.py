"""What AutoLR needs to know of an optimizer, and one like it whose rate a callback can set."""

from __future__ import annotations

import inspect
import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras

from autolr import compat
from autolr.errors import LIBRARIES, is_finite, library_of, shown
from autolr.variables import array_of, assign


def scope_of(model: Any) -> AbstractContextManager[Any]:
    """Where variables must be made to fit those of the model: on TensorFlow, its distribution strategy."""
    strategy = getattr(model, "distribute_strategy", None)
    return nullcontext() if strategy is None else strategy.scope()


def leaf_optimizers(optimizer: Any) -> list[Any]:
    """The optimizers that hold a learning rate: one, or several for a `MultiOptimizer`."""
    if compat.optimizer_is_scaled(optimizer):
        return leaf_optimizers(optimizer.inner_optimizer)
    return list(optimizer.optimizers) if compat.is_multi_optimizer(optimizer) else [optimizer]


def _first(optimizer: Any) -> Any:
    """The first of several optimizers; a `MultiOptimizer` that is not built has none yet."""
    return next(iter(leaf_optimizers(optimizer)), optimizer)


def name_of(optimizer: Any) -> str:
    """The optimizer's class, or those of several, without a wrapper that scales the loss."""
    return (
        " + ".join(dict.fromkeys(type(part).__name__ for part in leaf_optimizers(optimizer)))
        or type(optimizer).__name__
    )


def takes_a_number(optimizer: Any) -> bool:
    """Whether a callback can set the optimizer's rate: not if it has a schedule, a callable, or several rates."""
    return isinstance(compat.learning_rate_source(optimizer), keras.Variable)


def check_assignable_rate(model: keras.Model) -> None:
    """Raise `ValueError` unless a callback can set the model's learning rate."""
    if takes_a_number(model.optimizer):
        return
    scaled = compat.optimizer_is_scaled(model.optimizer)
    if compat.is_multi_optimizer(model.optimizer.inner_optimizer if scaled else model.optimizer):
        raise ValueError(
            "The model must be compiled with a single optimizer for a callback to set its learning rate. Received: "
            f"optimizer={shown(model.optimizer)}. `autolr.range_test` and the tuners take several, too: they scale all "
            "rates alike."
        )
    raise ValueError(
        "The model must be compiled with a number as its learning rate for a callback to set it. Received: "
        f"learning_rate={shown(compat.learning_rate_source(model.optimizer))}. Compile with a float, or without "
        "`learning_rate`."
    )


def batches_per_update(optimizer: Any) -> int:
    """Batches that one optimizer update takes: more than one under gradient accumulation."""
    return math.lcm(*(int(part.gradient_accumulation_steps or 1) for part in leaf_optimizers(optimizer)))


def current_rate(optimizer: Any) -> float:
    """The rate of the next update; for a `MultiOptimizer`, of the first of its optimizers."""
    return float(array_of(_first(optimizer).learning_rate))


def set_rate(optimizer: Any, rate: float) -> None:
    """Give an optimizer a rate, as assigning to its `learning_rate` does, but quicker."""
    # Not where that does more: a class with such a property of its own may do as it likes.
    is_kerass = type(optimizer).learning_rate is keras.optimizers.Optimizer.learning_rate
    variable = optimizer.learning_rate if is_kerass else None
    if isinstance(variable, keras.Variable):
        assign(variable, rate)
    else:
        optimizer.learning_rate = rate


def default_rate(optimizer: Any) -> float:
    """The rate an optimizer of this class has when none is given; for a `MultiOptimizer`, that of its first."""
    parameter = inspect.signature(type(_first(optimizer)).__init__).parameters.get("learning_rate")
    rate: Any = parameter.default if parameter is not None else None
    return float(rate) if is_finite(rate) and rate > 0 else 0.001


def usual_rate(optimizer: Any) -> float:
    """A rate to fall back on: the default of the optimizer's class, but 1.0 for Adadelta, as in its paper.

    Keras's own default is a thousandth of that and hardly trains (`docs/results.md`, the method's table).
    """
    return 1.0 if isinstance(_first(optimizer), keras.optimizers.Adadelta) else default_rate(optimizer)


def has_rate(optimizer: Any, rate: float) -> bool:
    """Whether the rate of the next update is this one, as far as the digits of its type tell."""
    dtype = keras.backend.standardize_dtype(_first(optimizer).learning_rate.dtype)
    digits = 2 if dtype.endswith("float16") else 6
    smallest = 6e-8 if dtype == "float16" else 1e-37  # rates near it have hardly a digit
    return math.isclose(current_rate(optimizer), rate, rel_tol=10.0**-digits, abs_tol=smallest)


FOR_A_CONSTANT_RATE = {
    "Ftrl": "Keras's Ftrl computes the weights anew in each step, in proportion to the learning rate of that step: a "
    "rate that changes scales them all, and a range test or a schedule does harm.",
    "ScheduleFreeAdamW": "Keras's ScheduleFreeAdamW is made for a constant rate: it averages the weights itself, in "
    "place of a schedule.",
}


def against_schedules(optimizer: Any) -> str:
    """Why an optimizer is for constant rates only; nothing if it is not."""
    classes = (
        kind for part in leaf_optimizers(optimizer) for kind in type(part).__mro__ if library_of(kind) == "keras"
    )
    return next((FOR_A_CONSTANT_RATE[it.__name__] for it in classes if it.__name__ in FOR_A_CONSTANT_RATE), "")


SEVERAL = (
    "The model has optimizers of its own beside the one it is compiled with, and one range test cannot find bounds for "
    "several."
)


def several_optimizers(model: keras.Model) -> bool:
    """Whether the model has optimizers of its own beside the one it was compiled with, as a GAN has.

    The compiled one is a dummy then, and no single curve could tell of several. Models inside the model are not
    looked into: a pretrained part may bring an optimizer that is never used.
    """
    compiled = _compiled_with(model)
    return any(value not in compiled for value in _held_by(model))


KEPT = (
    "The model also stores its optimizer in an attribute of its own, or refers to it in a method, and its rate is a "
    "schedule or a callable. AutoLR cannot put another optimizer in its place: the model would not use it."
)


def keeps_its_optimizer(model: keras.Model) -> bool:
    """Whether the model has a reference of its own to the optimizer that it was compiled with.

    A `train_step` of the user's may use that one: if a copy took the optimizer's place, it would never train.
    """
    compiled = _compiled_with(model)
    return any(value in compiled for value in _held_by(model))


def _compiled_with(model: keras.Model) -> list[Any]:
    """The optimizer that the model was compiled with, and those within it."""
    inner = getattr(model.optimizer, "inner_optimizer", None)
    return [model.optimizer, inner, *leaf_optimizers(model.optimizer)]


# Methods that only make or compile a model.
MAKING = ("__init__", "compile", "build", "get_config", "from_config")


def _held_by(model: keras.Model) -> list[Any]:
    """Optimizers that a model has under names of its own: attributes, and what its class's methods refer to around it.

    Attributes may be lists or dictionaries of them. Methods that only make or compile the model do not count.
    """
    # TensorFlow notes the attributes once more, in ones of its own that begin so.
    held = [it for name, it in vars(model).items() if name != "optimizer" and not name.startswith("_self_")]
    classes = (it for it in type(model).__mro__ if library_of(it) not in LIBRARIES)
    methods = (it for kind in classes for name, it in vars(kind).items() if name not in MAKING)
    referred = [it for method in methods for it in compat.closure_of(method).values()]
    found = [*(value for it in held for value in _shallow(it)), *referred]
    # By its type: a module that is asked for its class may be lazy, and load itself.
    return [value for value in found if issubclass(type(value), keras.optimizers.Optimizer)]


def _shallow(attribute: Any) -> list[Any]:
    if isinstance(attribute, dict):
        return list(attribute.values())
    return list(attribute) if isinstance(attribute, (list, tuple)) else [attribute]


def with_number_as_rate(optimizer: Any, rate: float = 0.001) -> Any:
    """An optimizer like this one, unbuilt, whose learning rate is a number.

    Args:
        optimizer: Any Keras optimizer. The optimizers of a `MultiOptimizer` get a common rate, that of the first;
            the others keep their ratio to it.
        rate: The rate to begin with.
    """
    if compat.is_multi_optimizer(optimizer):
        return compat.multi_optimizer_in_step(optimizer, with_number_as_rate)
    config = compat.config_without_rate(optimizer)
    if compat.optimizer_is_scaled(optimizer):
        return type(optimizer)(**{**config, "inner_optimizer": with_number_as_rate(optimizer.inner_optimizer, rate)})
    copy = type(optimizer).from_config({**config, "learning_rate": rate})
    _check_copy(copy, optimizer)
    compat.copy_weight_decay_exclusions(optimizer, copy)
    return copy


def _check_copy(copy: Any, optimizer: Any) -> None:
    """Raise `ValueError` if an argument of the optimizer is not in its config, so that the copy has its default."""
    for name in inspect.signature(type(optimizer).__init__).parameters.keys() - {"self", "learning_rate", "name"}:
        its, copied = (getattr(it, name, None) for it in (optimizer, copy))
        if isinstance(its, int | float | str) and its != copied:
            raise ValueError(
                f"The config of the optimizer `{type(optimizer).__name__}` must hold all of its arguments, since a "
                f"learning rate that is a schedule is replaced in a copy. Received: {name}={its!r}, which a copy has "
                f"as {copied!r}. Let its `get_config` return `{name}`, too, or compile with a number as the rate."
            )


def copy_with_number_as_rate(optimizer: Any) -> Any:
    """An optimizer like this one whose rate is a number; if it is built, with its step count and slots."""
    copy = with_number_as_rate(optimizer)
    if trained := compat.variables_trained_by(optimizer):
        copy.build(trained)
        _hand_over_state(optimizer, copy)
    return copy


def begin_anew(optimizer: Any) -> None:
    """Put the step count and the slots of a built optimizer back to what they begin with; not those of several."""
    if trained := compat.variables_trained_by(optimizer):
        fresh = with_number_as_rate(optimizer)
        fresh.build(trained)
        _hand_over_state(fresh, optimizer)


def _hand_over_state(optimizer: Any, to: Any) -> None:
    """Give an optimizer the step count and the slots of another that is built alike."""

    def state_of(it: Any) -> list[Any]:
        rates = [compat.learning_rate_source(part) for part in leaf_optimizers(it)]
        return [variable for variable in it.variables if all(variable is not rate for rate in rates)]

    for its, own in zip(state_of(to), state_of(optimizer), strict=True):
        its.assign(own)


def iterations_of(optimizer: Any) -> int:
    """Updates the optimizer has done; 0 for one that does not count them, as a `MultiOptimizer` may not."""
    # Not `int(...)` alone: under a distribution strategy the value is one of several.
    return int(keras.ops.convert_to_numpy(getattr(optimizer, "iterations", 0)))


def updates_and_scale(optimizer: Any) -> tuple[int, float]:
    """Updates the optimizer has done, and the loss scale, which each update that it skips has halved: 1 without one."""
    return iterations_of(optimizer), compat.loss_scale(optimizer)


def batches_trained(model: keras.Model, announced: int, *, since: tuple[int, float]) -> int:
    """Batches of an epoch that were trained, where Keras announces several executed as one.

    The last execution of an epoch is announced as a whole one, also where the data ended within it.

    Args:
        model: The model in training.
        announced: The number of the last batch that Keras has called back with, from 1.
        since: What `updates_and_scale` said of its optimizer when the epoch began.
    """
    execution = int(model.steps_per_execution or 1)
    if execution == 1 or batches_per_update(model.optimizer) > 1:
        return announced
    updates, scale = updates_and_scale(model.optimizer)
    skipped = round(math.log2(since[1] / scale)) if 0 < scale < since[1] else 0
    done = updates - since[0] + skipped
    return done if announced - execution < done < announced else announced
