"""The moving statistics of BatchNormalization, which lag behind the weights they belong to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras

from autolr import compat

FEWEST_BATCHES = 4  # of fewer, the last may be a single example


class TailStatistics:
    """What BatchNormalization's statistics are over the last batches alone.

    A moving statistic forgets at `1 - momentum` a batch, by default 1 %: after a short training it is still made of the
    statistics of weights long gone, of the initial ones even, and the validation loss is many times what the weights
    are worth. But of a value from before, exactly `momentum ** batches` is left: it can be taken out.

    Args:
        model: The model in training.
        done: Batches trained so far.
    """

    def __init__(self, model: keras.Model, done: int) -> None:
        self._done = done
        self._before = [
            (layer.momentum, variable, keras.ops.convert_to_numpy(variable))
            for layer in normalizers_of(model)
            if 0 < layer.momentum < 1
            for variable in (layer.moving_mean, layer.moving_variance)
        ]

    def since(self, done: int) -> list[tuple[Any, Any]]:
        """Each variable with its value over the batches since; none after too few of them.

        Args:
            done: Batches trained by now.
        """
        batches = done - self._done
        if batches < FEWEST_BATCHES:
            return []
        values = []
        for momentum, variable, before in self._before:
            left = momentum**batches
            values.append((variable, (keras.ops.convert_to_numpy(variable) - left * before) / (1 - left)))
        return values


def normalizers_of(model: keras.Model) -> list[Any]:
    """The BatchNormalization layers of a model that see each batch once, at whatever depth."""
    calls = compat.calls_of_layers(model)
    return [
        layer
        for layer in all_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.built and calls.get(id(layer), 1) == 1
    ]


def all_layers(model: Any) -> Iterator[Any]:
    """The layers of a model, and those within them."""
    for layer in getattr(model, "layers", ()):
        yield layer
        yield from all_layers(layer)
