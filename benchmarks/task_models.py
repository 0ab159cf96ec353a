"""Models, losses and optimizers of the tasks: small, and of every kind that people tune."""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras
from keras import layers, ops


def _deep_cnn(shape: tuple[int, ...], outputs: int, initializer: str) -> keras.Model:
    """Three blocks of two convolutions, nothing that normalises: the kind whose loss hardly moves in a short sweep."""
    stack: list[layers.Layer] = [keras.Input(shape)]
    for filters in (8, 16, 32):
        for _ in range(2):
            stack.append(layers.Conv2D(filters, 3, padding="same", activation="relu", kernel_initializer=initializer))
        stack.append(layers.MaxPooling2D())
    stack += [
        layers.Flatten(),
        layers.Dense(64, activation="relu", kernel_initializer=initializer),
        layers.Dense(outputs),
    ]
    return keras.Sequential(stack)


def deep_cnn_he(shape: tuple[int, ...], outputs: int) -> keras.Model:
    """Six ReLU convolutions initialised for ReLU."""
    return _deep_cnn(shape, outputs, "he_uniform")


def deep_cnn_glorot(shape: tuple[int, ...], outputs: int) -> keras.Model:
    """Six ReLU convolutions with Keras's default initialisation, too small for their depth."""
    return _deep_cnn(shape, outputs, "glorot_uniform")


def deeper_cnn(shape: tuple[int, ...], outputs: int) -> keras.Model:
    """Eight ReLU convolutions in four blocks that halve the image by their strides."""
    stack: list[layers.Layer] = [keras.Input(shape)]
    for filters in (8, 16, 32, 48):
        for strides in (1, 2):
            stack.append(
                layers.Conv2D(filters, 3, strides, padding="same", activation="relu", kernel_initializer="he_normal")
            )
    return keras.Sequential([*stack, layers.Flatten(), layers.Dense(outputs)])


def residual(shape: tuple[int, ...], outputs: int) -> keras.Model:
    """Three residual blocks with BatchNorm, each halving the image."""
    image = keras.Input(shape)
    x = layers.Conv2D(8, 3, padding="same")(image)
    for filters in (8, 16, 32):
        inner = layers.ReLU()(layers.BatchNormalization()(x))
        inner = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(inner)
        inner = layers.ReLU()(layers.BatchNormalization()(inner))
        inner = layers.Conv2D(filters, 3, padding="same")(inner)
        x = layers.Add()([layers.Conv2D(filters, 1, strides=2)(x), inner])
    return keras.Model(image, layers.Dense(outputs)(layers.GlobalAveragePooling2D()(x)))


def cnn(shape: tuple[int, ...], outputs: int) -> keras.Model:
    """Two strided convolutions and dropout."""
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.Conv2D(32, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.25),
            layers.Dense(64, activation="relu"),
            layers.Dense(outputs),
        ]
    )


def cnn_bn(shape: tuple[int, ...], outputs: int) -> keras.Model:
    """Three strided convolutions with BatchNorm."""
    stack: list[layers.Layer] = [keras.Input(shape)]
    for filters in (16, 32, 32):
        convolution = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)
        stack += [convolution, layers.BatchNormalization(), layers.ReLU()]
    return keras.Sequential([*stack, layers.Flatten(), layers.Dense(outputs)])


def cnn_1d(shape: tuple[int, ...], outputs: int) -> keras.Model:
    """Two convolutions over time."""
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv1D(16, 7, activation="relu"),
            layers.MaxPooling1D(2),
            layers.Conv1D(32, 5, activation="relu"),
            layers.GlobalMaxPooling1D(),
            layers.Dense(outputs),
        ]
    )


def cnn_1d_bn(shape: tuple[int, ...], outputs: int) -> keras.Model:
    """Two convolutions over time with BatchNorm."""
    stack: list[layers.Layer] = [keras.Input(shape)]
    for filters in (16, 32):
        convolution = layers.Conv1D(filters, 5, padding="same", use_bias=False)
        stack += [convolution, layers.BatchNormalization(), layers.ReLU(), layers.MaxPooling1D(2)]
    return keras.Sequential([*stack, layers.GlobalAveragePooling1D(), layers.Dense(outputs)])


def linear(shape: tuple[int, ...], outputs: int) -> keras.Model:
    """Softmax regression."""
    return keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(outputs)])


def mlp(shape: tuple[int, ...], outputs: int) -> keras.Model:
    """Two hidden layers."""
    hidden = [layers.Dense(64, activation="relu") for _ in range(2)]
    return keras.Sequential([keras.Input(shape), layers.Flatten(), *hidden, layers.Dense(outputs)])


def mlp_bn(shape: tuple[int, ...], outputs: int) -> keras.Model:
    """Three hidden layers with BatchNorm."""
    blocks = [(layers.Dense(64, use_bias=False), layers.BatchNormalization(), layers.ReLU()) for _ in range(3)]
    return keras.Sequential(
        [keras.Input(shape), *(layer for block in blocks for layer in block), layers.Dense(outputs)]
    )


def mlp_tanh(shape: tuple[int, ...], outputs: int) -> keras.Model:
    """Eight tanh layers."""
    hidden = [layers.Dense(48, activation="tanh") for _ in range(8)]
    return keras.Sequential([keras.Input(shape), *hidden, layers.Dense(outputs)])


def autoencoder(shape: tuple[int, ...], outputs: int) -> keras.Model:
    """A bottleneck of 16."""
    widths = (128, 16, 128)
    hidden = [layers.Dense(width, activation="relu") for width in widths]
    return keras.Sequential([keras.Input(shape), layers.Flatten(), *hidden, layers.Dense(outputs)])


def lstm(shape: tuple[int, ...], outputs: int) -> keras.Model:
    """One LSTM; unrolled, which is faster on a CPU."""
    return keras.Sequential([keras.Input(shape), layers.LSTM(32, unroll=True), layers.Dense(outputs)])


def gru(shape: tuple[int, ...], outputs: int) -> keras.Model:
    """One GRU; unrolled, which is faster on a CPU."""
    return keras.Sequential([keras.Input(shape), layers.GRU(48, unroll=True), layers.Dense(outputs)])


def _attend(x: keras.KerasTensor, heads: int, width: int) -> keras.KerasTensor:
    """One pre-norm transformer block."""
    normed = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(heads, width // heads)(normed, normed)])
    hidden = layers.Dense(2 * width, activation="gelu")(layers.LayerNormalization()(x))
    return layers.Add()([x, layers.Dense(width)(hidden)])


class _Positions(layers.Layer):
    """Adds a learned vector to each place of the sequence."""

    def build(self, input_shape: tuple[int, ...]) -> None:
        self.table = self.add_weight(shape=input_shape[1:], initializer=keras.initializers.RandomNormal(stddev=0.5))

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return x + self.table


def transformer(shape: tuple[int, ...], outputs: int) -> keras.Model:
    """Two blocks over embedded symbols."""
    symbols = keras.Input(shape, dtype="int32")
    x = _Positions()(layers.Embedding(16, 32)(symbols))
    for _ in range(2):
        x = _attend(x, heads=2, width=32)
    return keras.Model(symbols, layers.Dense(outputs)(layers.GlobalAveragePooling1D()(x)))


def vit(shape: tuple[int, ...], outputs: int) -> keras.Model:
    """Two blocks over 16 patches of 7 x 7."""
    image = keras.Input(shape)
    patches = layers.Reshape((-1, 32))(layers.Conv2D(32, 7, strides=7)(image))
    x = _Positions()(patches)
    for _ in range(2):
        x = _attend(x, heads=2, width=32)
    return keras.Model(image, layers.Dense(outputs)(layers.GlobalAveragePooling1D()(x)))


def gaussian_nll(y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
    """Negative log-likelihood, less its constant, of a normal whose mean and log variance the model gives."""
    mean, log_variance = y_pred[..., :1], y_pred[..., 1:]
    return 0.5 * ops.mean(log_variance + ops.square(y_true - mean) * ops.exp(-log_variance), axis=-1)


def poisson_nll(y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
    """Negative log-likelihood, less its constant, of a Poisson count whose log mean the model gives."""
    return ops.mean(ops.exp(y_pred) - y_true * y_pred, axis=-1)


OPTIMIZERS: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
    "sgd": keras.optimizers.SGD,
    "momentum": functools.partial(keras.optimizers.SGD, momentum=0.9),
    "nesterov": functools.partial(keras.optimizers.SGD, momentum=0.9, nesterov=True),
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "nadam": keras.optimizers.Nadam,
    "adamax": keras.optimizers.Adamax,
    "rmsprop": keras.optimizers.RMSprop,
    "adagrad": keras.optimizers.Adagrad,
    "adadelta": keras.optimizers.Adadelta,
    "lion": keras.optimizers.Lion,
}

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
PER_LABEL = keras.losses.BinaryCrossentropy(from_logits=True)
