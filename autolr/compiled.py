"""Compiling a model for `evaluate` as another one is."""

from __future__ import annotations

from typing import Any

import keras

from autolr.errors import library_of, warn


def compiled_like(model: keras.Model, other: keras.Model) -> keras.Model:
    """Compile for `evaluate`; a model like this is not trained any further, so its optimizer does not matter."""
    config = model.get_compile_config() if model.compiled else None
    if not config:
        return other
    lost: list[str] = []
    loss = model.loss
    if isinstance(loss, dict):  # Keras sorts its keys; `evaluate` gives the losses in the order given to `compile`
        loss = {name: loss[name] for name in config.get("loss", loss)}
    other.compile(
        "sgd",
        loss=loss,
        loss_weights=keras.saving.deserialize_keras_object(config.get("loss_weights")),
        metrics=_for_ends(other, _metrics(config.get("metrics"), lost)),
        weighted_metrics=_for_ends(other, _metrics(config.get("weighted_metrics"), lost)),
    )
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


def _metrics(config: Any, lost: list[str], *, within: bool = False) -> Any:
    """New metrics from a config, in its structure; notes the names of those that cannot be made again."""
    if isinstance(config, dict) and config.get("class_name") == "__tuple__":
        config = config["config"]["value"]
    if isinstance(config, (list, tuple)):
        parts = [_metrics(part, lost, within=True) for part in config]
        # The place of a lost one stays in the outer list, which may have one entry for each output.
        return [part for part in parts if part != []] if within else parts
    if isinstance(config, dict) and "class_name" not in config:
        return {name: _metrics(part, lost, within=True) for name, part in config.items()}
    try:
        return keras.saving.deserialize_keras_object(config)
    except (TypeError, ValueError):
        inner = config["config"]  # of a function its name
        lost.append(inner if isinstance(inner, str) else inner.get("name", config["class_name"]))
        return []


def _for_ends(model: keras.Model, metrics: Any) -> Any:
    """Metrics as Keras takes them for this model: for a single output, before Keras 3.13, a plain list without gaps."""
    single = len(getattr(model, "outputs", None) or ()) == 1
    return keras.tree.flatten(metrics) if single and isinstance(metrics, list) else metrics
