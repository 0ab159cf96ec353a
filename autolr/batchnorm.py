"""The moving statistics of BatchNormalization, which lag behind the weights they belong to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from autolr import compat
from autolr.data import num_samples
from autolr.kept import attributes_kept
from autolr.variables import array_of

FEWEST_BATCHES = 4  # of fewer, the last may be a single example


class TailStatistics:
    """What BatchNormalization's statistics are over the last batches alone.

    A moving statistic forgets at `1 - momentum` a batch, by default 1 %: after a short training it is still made of the
    statistics of weights long gone, of the initial ones even, and the validation loss is up to several times what the
    weights are worth (`benchmarks/batchnorm.py`). But each batch moves it by `1 - momentum` of what they differ by, so
    the mean of the batches' own statistics is that of the moving ones, and what these have moved by in all, divided
    by `1 - momentum` and the number of batches.

    Args:
        model: The model in training.
        done: Batches trained so far.
    """

    def __init__(self, model: keras.Model, done: int) -> None:
        self._done = done
        calls = compat.calls_of_layers(model)
        self._before = [
            (layer.momentum, variable, keras.ops.convert_to_numpy(variable), lowest)
            for layer in normalizers_of(model)
            # One that sees each batch twice forgets twice as fast: only where it is known to see it once.
            if layer.built and 0 < layer.momentum < 1 and calls[id(layer)] == 1 and _forgets_by_momentum(layer)
            for variable, lowest in ((layer.moving_mean, -np.inf), (layer.moving_variance, 0.0))
        ]
        self._lags: list[tuple[Any, Any, float]] = []

    def end(self, done: int) -> None:
        """The last batch has been trained on.

        Args:
            done: Batches trained by now; after too few, nothing is mended.
        """
        batches = done - self._done
        for momentum, variable, before, lowest in self._before if batches >= FEWEST_BATCHES else ():
            moved = keras.ops.convert_to_numpy(variable) - before
            # Half a batch less, as the mean of the moving ones counts both the first and the last.
            self._lags.append((variable, moved * (1 / (1 - momentum) - 0.5) / batches, lowest))

    def mend(self) -> None:
        """Where the variables are the means of the moving statistics, make them those of the batches' own."""
        for variable, lag, lowest in self._lags:
            # Rounding must not make a variance of nothing, as of a channel that is dead, a negative one.
            variable.assign(np.maximum(keras.ops.convert_to_numpy(variable) + lag, lowest))


def gather_statistics(model: keras.Model, batches: Iterable[Any]) -> int:
    """Make the moving statistics those of the weights as they are: means over all batches, each weighted by its size.

    Of a layer that is called several times in a batch, later calls weigh more.

    Args:
        model: The model; its other weights are put back, only seeds of layers such as dropout move on.
        batches: Its inputs, batch by batch.

    Returns:
        How many samples there were; without any, the statistics are what they were.
    """
    normalizers = normalizers_of(model)
    theirs = {id(weight) for layer in normalizers for weight in layer.non_trainable_weights}
    others = [(it, array_of(it)) for it in model.weights if id(it) not in theirs]
    seen = 0
    with attributes_kept(normalizers, "momentum"):
        for batch in batches:
            size = num_samples(batch)
            for layer in normalizers:
                layer.momentum = seen / (seen + size)  # 0 for the first: nothing is left of what was there
            model(batch, training=True)
            seen += size
    for weight, before in others:  # counts, code books, spectral norms: a layer may move its own when it is called
        weight.assign(before)
    return seen


def _forgets_by_momentum(layer: Any) -> bool:
    """Whether both moving statistics move by `1 - momentum`: with `renorm`, a moving deviation decides the variance."""
    is_kerass = type(layer).call is keras.layers.BatchNormalization.call
    return is_kerass and not getattr(layer, "renorm", False)


def normalizers_of(model: keras.Model) -> list[Any]:
    """The BatchNormalization layers of a model, at whatever depth."""
    return [layer for layer in all_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]


def moving_statistics(model: keras.Model) -> dict[int, list[Any]]:
    """The moving statistics of each BatchNormalization layer, by `id`."""
    return {
        id(layer): [keras.ops.convert_to_numpy(it) for it in (layer.moving_mean, layer.moving_variance)]
        for layer in normalizers_of(model)
        if layer.built
    }


def is_normalized(model: keras.Model, before: dict[int, list[Any]]) -> bool:
    """Whether BatchNormalization, with the statistics of the batch, follows most of the weights that training changes.

    Counted: at least one such layer to two kernels, as the last layer and some dense ones have none. Not one in front
    of all kernels, which normalizes the inputs; nor one that is frozen or called with `training=False`: it normalizes
    by its moving statistics, which then stay what they are.

    Args:
        model: The model, after training for a while.
        before: Its moving statistics before that.
    """
    now, layers, begun = moving_statistics(model), 0, False
    for layer in all_layers(model):
        if begun and isinstance(layer, keras.layers.BatchNormalization):
            pairs = zip(now.get(id(layer), []), before.get(id(layer), []), strict=False)
            layers += any(not np.array_equal(new, old) for new, old in pairs)
        begun = begun or (not compat.layers_of(layer) and any(map(_is_kernel, layer.trainable_variables)))
    return 0 < sum(map(_is_kernel, model.trainable_variables)) <= 2 * layers


def _is_kernel(variable: Any) -> bool:
    return len(variable.shape) > 1


def all_layers(model: Any) -> list[Any]:
    """The layers of a model, and those within them, models or layers, each once; outer ones before those within."""
    found: dict[int, Any] = {}
    for layer in compat.layers_of(model):
        for it in (layer, *all_layers(layer)):
            found.pop(id(it), None)  # one that is also elsewhere, on its own
            found[id(it)] = it
    return list(found.values())
