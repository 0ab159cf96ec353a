"""Tiny models and spies for the tests that train."""

from __future__ import annotations

import keras
import numpy as np

LOSS = "sparse_categorical_crossentropy"


def sequential() -> keras.Model:
    return keras.Sequential([keras.Input((6,)), *noisy_layers(), keras.layers.Dense(3, activation="softmax")])


def functional() -> keras.Model:
    inputs = keras.Input((6,))
    hidden = inputs
    for layer in noisy_layers():
        hidden = layer(hidden)
    hidden = keras.layers.Concatenate()([inputs, hidden])
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(hidden))


class Subclassed(keras.Model):
    """Has no variables until it sees data."""

    def __init__(self):
        super().__init__()
        self.hidden = noisy_layers()
        self.top = keras.layers.Dense(3, activation="softmax")

    def call(self, x, training=False):
        for layer in self.hidden:
            x = layer(x, training=training) if isinstance(layer, keras.layers.Dropout) else layer(x)
        return self.top(x)


def noisy_layers() -> list[keras.layers.Layer]:
    """What makes a model hard to put back: moving statistics and random seeds."""
    return [
        keras.layers.Dense(8, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.3),
    ]


def compiled(model: keras.Model, optimizer=None, **arguments) -> keras.Model:
    """By default with what has a state to be put back, and is traced faster than Adam."""
    if optimizer is None:
        optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    model.compile(optimizer, LOSS, **{"metrics": ["accuracy"], **arguments})
    return model


def plain(optimizer="sgd", **arguments) -> keras.Model:
    """One layer and no metrics: where any model will do, tracing is most of what a test takes."""
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")])
    return compiled(model, optimizer, **{"metrics": [], **arguments})


class TrainsItsLossToo(keras.Sequential):
    """Its optimizer has a variable that is not the model's."""

    def train_step(self, batch):
        import tensorflow as tf

        x, y = batch
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        variables = [*self.trainable_variables, self.loss.weight]
        self.optimizer.apply(tape.gradient(loss, [variable.value for variable in variables]), variables)
        return {"loss": loss}


class WeightedLoss(keras.losses.Loss):
    def __init__(self):
        super().__init__()
        self.weight = keras.Variable([1.0])

    def call(self, y, prediction):
        return keras.losses.sparse_categorical_crossentropy(y, prediction) * self.weight + (self.weight - 2.0) ** 2


def one_weight(learning_rate=0.5, **arguments) -> keras.Model:
    """A model whose weight falls by exactly the learning rate in each step: its loss is its weight."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(learning_rate), lambda y, prediction: prediction, **arguments)
    return model


def state_of(model: keras.Model) -> list[np.ndarray]:
    """Every variable of a model, its optimizer and its metrics."""
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def assert_same_arrays(left, right) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b, strict=True)


def rate_of(model: keras.Model) -> float:
    return float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))


class RateSpy(keras.callbacks.Callback):
    """Notes the optimizer's rate at every step trained, one list for each `fit`; survives Keras Tuner's copying."""

    def __init__(self):
        super().__init__()
        self.fits: list[list[float]] = []

    def __deepcopy__(self, memo):
        return self

    def on_train_begin(self, logs=None):
        self.fits.append([])

    def on_train_batch_end(self, batch, logs=None):
        self.fits[-1].append(rate_of(self.model))
