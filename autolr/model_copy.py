"""Models made again with layers and weights of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from autolr import compat
from autolr.batchnorm import all_layers
from autolr.errors import in_brief, invalid, library_of, warn
from autolr.kept import attributes_kept


def with_own_layers(loaded: Sequence[tuple[keras.Model, Path]]) -> list[keras.Model]:
    """Models that have no layer in common; where they had one, copies.

    A layer that a build function takes from outside, adapted or trained before, is in every model it builds. Such a
    layer's weights are the last model's, and Keras saves it once, but looks for it in each model.

    Args:
        loaded: Models, each with the file of the weights it is to have.
    """
    found = Counter(id(layer) for model, _ in loaded for layer in all_layers(model) if _is_saved(layer))
    return [
        _copy(model, path) if any(found[id(layer)] > 1 for layer in all_layers(model)) else model
        for model, path in loaded
    ]


def _is_saved(layer: keras.Layer) -> bool:
    """Whether a layer has what is saved with a model."""
    return bool(layer.weights) or hasattr(layer, "get_vocabulary")


def _copy(model: keras.Model, path: Path) -> keras.Model:
    """A copy with the weights in a file; the model itself, with a warning, if there can be none that predicts alike."""
    model.load_weights(path)  # those of what is common to others are another's
    try:
        copy = copy_with_weights(model, path)
        inputs = _some_inputs(model)
        expected, found = (keras.tree.flatten(it(inputs, training=False)) for it in (model, copy))
        alike = all(np.allclose(*map(keras.ops.convert_to_numpy, pair)) for pair in zip(expected, found, strict=True))
        why = "A copy predicts something else: its layers have what neither their configs nor their weights tell."
    except Exception as error:  # whatever the user's classes raise: the model itself still predicts
        alike, why = False, f"One cannot be copied ({in_brief(error)})."
    if alike:
        return copy
    warn(f"Models of the ensemble have layers in common, so it may be wrong, and not load when saved. {why}")
    return model


def _some_inputs(model: keras.Model) -> Any:
    def some(tensor: Any) -> Any:
        shape = [2, *(size or 3 for size in tensor.shape[1:])]
        if tensor.dtype == "string":
            return keras.ops.convert_to_tensor(np.full(shape, "a b"))
        values = np.random.default_rng(0).random(shape)
        return keras.ops.convert_to_tensor(values.astype(tensor.dtype) if "int" not in tensor.dtype else values > 0.5)

    return keras.tree.map_structure(some, inputs_like(model))


def copy_with_weights(model: keras.Model, path: Path) -> keras.Model:
    """A model like this one, with the weights in a file."""
    copy = _like(model)
    copy.load_weights(path)
    return copy


def _like(model: keras.Model) -> keras.Model:
    """A model like this one, with layers of its own.

    Raises:
        ValueError: If it has not been built, or its config is not enough.
    """
    if not model.built:
        raise invalid("model", "be built", model, "Call it on a batch of data first.")
    try:
        own = library_of(type(model)) != "keras"
        copy = type(model).from_config(model.get_config()) if own else _clone(model)
        _copy_vocabularies(model, copy)
    except (TypeError, ValueError, NotImplementedError) as error:  # what Keras raises where a config is not enough
        hint = (
            "Let `get_config`, of the model's class and of its layers', return the arguments of `__init__`, and "
            "decorate layers and functions of your own with `keras.saving.register_keras_serializable`. In place of a "
            "`Lambda` layer, use a layer of your own. `get_best_ensemble` of a tuner needs none of this."
        )
        raise invalid("model", "be such that it can be made again from its config", model, hint) from error
    if not copy.built:
        copy(inputs_like(model))
    return copy


def _clone(model: keras.Model) -> keras.Model:
    """A Sequential or functional model anew, layer by layer, so that its layers need not be registered."""
    compiled = [part for part in (model, *all_layers(model)) if getattr(part, "compiled", False)]
    # Keras would make inputs that have to be there, and are dense.
    special = not isinstance(model, keras.Sequential) and any(map(compat.input_options, model.inputs))
    with attributes_kept(compiled, "compiled"):
        for part in compiled:
            part.compiled = False  # else Keras compiles the clone, too, and fails at functions it cannot find by name
        return keras.models.clone_model(model, inputs_like(model) if special else None, recursive=True)


def _copy_vocabularies(model: keras.Model, copy: keras.Model) -> None:
    """Give layers that look up texts or numbers the words they were adapted to, which no weights and no config hold."""
    # Another layer may make those within it only when it is built, which the copy need not be yet.
    for layer, other in zip(_adapted(model), _adapted(copy), strict=True):
        words = layer.get_vocabulary(include_special_tokens=False)
        # How rare each is is a weight, of the right size only when the words are known.
        rarities = {"idf_weights": [1.0] * len(words)} if layer.get_config()["output_mode"] == "tf_idf" else {}
        if words:
            other.set_vocabulary(words, **rarities)


def _adapted(model: keras.Model) -> list[Any]:
    """The layers of a model that look something up in what they are adapted to."""
    lookups = (layer for layer in all_layers(model) if hasattr(layer, "get_vocabulary"))
    return [layer for layer in lookups if layer.get_config().get("vocabulary") is None]


def inputs_like(model: keras.Model) -> Any:
    """Symbolic inputs such as the model takes, of any batch size.

    Raises:
        ValueError: If it is of a class of the user's own and takes several.
    """
    if isinstance(model, keras.Sequential):
        tensors = model.inputs[0]
    elif getattr(model, "inputs", None):
        tensors = model.input
    else:  # a class of the user's own knows the shapes it was built with
        shapes = list(model.get_build_config().values())
        if len(shapes) != 1 or not all(size is None or isinstance(size, int) for size in shapes[0]):
            hint = "Make it a functional model, with `keras.Model(inputs, outputs)`."
            raise invalid("model", "take one input, if it is of a class of your own", model, hint)
        return keras.Input(batch_shape=(None, *shapes[0][1:]), dtype=model.input_dtype)

    def like(tensor: Any) -> Any:
        shape = (None, *tensor.shape[1:])
        return keras.Input(batch_shape=shape, dtype=tensor.dtype, name=tensor.name, **compat.input_options(tensor))

    return keras.tree.map_structure(like, tensors)
