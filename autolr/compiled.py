"""Compiling a model for `evaluate` as another one is."""

from __future__ import annotations

import inspect
from typing import Any

import keras

from autolr import compat
from autolr.errors import in_brief, library_of, warn


def compiled_like(model: keras.Model, other: keras.Model) -> keras.Model:
    """Compile for `evaluate`; a model like this is not trained any further, so its optimizer does not matter."""
    given = compat.compile_arguments(model)
    if not given:
        return other
    lost: list[str] = []
    loss = given.get("loss")  # not `model.loss`, whose names Keras sorts: `evaluate` keeps the order
    arguments = {
        "loss": loss,
        "loss_weights": given.get("loss_weights"),
        "metrics": _for_ends(other, _metrics(given.get("metrics"), lost)),
        "weighted_metrics": _for_ends(other, _metrics(given.get("weighted_metrics"), lost)),
    }
    if not _compile(other, {name: value for name, value in arguments.items() if value is not None}):
        return other
    if lost:
        warn(
            f"Compiled without the metrics {', '.join(lost)}, which Keras cannot make again from their configs. "
            "Decorate them with `keras.saving.register_keras_serializable`, or compile the result with them."
        )
    if unknown := [_name_of(it) for it in keras.tree.flatten(loss) if _is_unregistered(it)]:
        warn(
            f"Compiled with the loss {', '.join(unknown)}, which Keras does not know by name: once saved, the model "
            "loads with `compile=False`, or with the loss in `custom_objects`. Decorate it with "
            "`keras.saving.register_keras_serializable` to load it wherever it is imported."
        )
    return other


def _is_unregistered(loss: Any) -> bool:
    """Whether a loss is the user's own, and Keras would not find it in another process."""
    if loss is None or isinstance(loss, str):
        return False
    kind = loss if hasattr(loss, "__qualname__") else type(loss)
    return library_of(kind) != "keras" and ">" not in str(keras.saving.get_registered_name(kind))


def _name_of(loss: Any) -> str:
    """A function's or a class's own name, of an object that of its class."""
    return str(getattr(loss, "__name__", type(loss).__name__))


def _compile(model: keras.Model, arguments: dict[str, Any]) -> bool:
    """Compile a model, whose class may have a `compile` of its own; warn of what that is not told.

    Returns:
        Whether it could be compiled.
    """
    if type(model).compile is keras.Model.compile:
        model.compile("sgd", **arguments)
        return True
    kind = type(model).__name__
    try:
        model.compile(optimizer="sgd", **arguments)
    except Exception as error:  # whatever the user's own raises
        model.compiled = False
        warn(f"The result is not compiled, since `compile` of `{kind}` fails ({in_brief(error)}). Compile it yourself.")
        return False
    own = inspect.signature(model.compile).parameters
    named = {name for name, it in own.items() if it.kind not in (it.VAR_POSITIONAL, it.VAR_KEYWORD)}
    if unknown := named - inspect.signature(keras.Model.compile).parameters.keys():
        warn(
            f"Compiled with the defaults of {', '.join(sorted(unknown))}, which only `compile` of `{kind}` knows. "
            "Compile the result to evaluate it with others."
        )
    return True


def _metrics(given: Any, lost: list[str], *, within: bool = False) -> Any:
    """New metrics like those given, in their structure; notes the names of those that cannot be made again."""
    if isinstance(given, (list, tuple)):
        parts = [_metrics(part, lost, within=True) for part in given]
        # The place of a lost one stays in the outer list, which may have one entry for each output.
        return [part for part in parts if part != []] if within else parts
    if isinstance(given, dict):
        return {name: _metrics(part, lost, within=True) for name, part in given.items()}
    try:
        return keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(given))
    except Exception:  # whatever the user's classes raise
        lost.append(getattr(given, "name", None) or _name_of(given))
        return []


def _for_ends(model: keras.Model, metrics: Any) -> Any:
    """Metrics as Keras takes them for this model: for a single output, before Keras 3.13, a plain list without gaps."""
    single = len(getattr(model, "outputs", None) or ()) == 1
    return keras.tree.flatten(metrics) if single and isinstance(metrics, list) else metrics
