"""Small tasks that learning-rate bounds are judged on: data, a compiled model, a batch size and a number of steps.

`dev` tasks are for designing the bounds and the sweep with. `report` tasks are held out: they are trained on once, to
write the table of the docs, and nothing is chosen by looking at them. No task needs a network: the data are generated
here, bundled with scikit-learn, or installed by a Debian package.
"""

from __future__ import annotations

import functools
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import keras
import numpy as np
import sklearn.datasets
from keras import layers, ops

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package `dataset-fashion-mnist` puts its files."""


class Data(NamedTuple):
    """Arrays of one task; the first axis is the example."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray


# ------------------------------------------------------------------------------------------------------------- helpers


def _split(x: np.ndarray, y: np.ndarray, validation: int, rng: np.random.Generator) -> Data:
    """Shuffles the examples and holds the last `validation` of them out."""
    order = rng.permutation(len(x))
    train, val = order[:-validation], order[-validation:]
    return Data(x[train], y[train], x[val], y[val])


def _standardize(x: np.ndarray) -> np.ndarray:
    return ((x - x.mean(axis=0)) / (x.std(axis=0) + 1e-8)).astype("float32")


def _relabel(y: np.ndarray, share: float, classes: int, rng: np.random.Generator) -> np.ndarray:
    """Replaces a share of the labels by another class: what stays uncertain is then the floor of the loss."""
    shift = rng.integers(1, classes, size=len(y))
    return np.where(rng.random(len(y)) < share, (y + shift) % classes, y).astype("int32")


# ---------------------------------------------------------------------------------------------------------------- data


def _read_idx(name: str, header: int) -> np.ndarray:
    path = FASHION_MNIST / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing. Install the data set: apt-get install dataset-fashion-mnist")
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), np.uint8, offset=header)


@functools.cache
def fashion(train: int = 6000, validation: int = 1500) -> Data:
    """The first images of Fashion-MNIST's training and test files, (28, 28, 1) in [0, 1]."""

    def half(stem: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        images = _read_idx(f"{stem}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28, 1)[:count]
        return images.astype("float32") / 255, _read_idx(f"{stem}-labels-idx1-ubyte.gz", 8)[:count].astype("int32")

    return Data(*half("train", train), *half("t10k", validation))


def fashion_rows() -> Data:
    """Fashion-MNIST read as a sequence of 14 pairs of rows."""
    data = fashion()
    return data._replace(x_train=data.x_train.reshape(-1, 14, 56), x_val=data.x_val.reshape(-1, 14, 56))


def fashion_mislabelled() -> Data:
    """Fashion-MNIST with six labels in ten wrong: the loss can fall by an eighth, and does by less."""
    data, rng = fashion(6000, 4000), np.random.default_rng(1)
    return data._replace(y_train=_relabel(data.y_train, 0.6, 10, rng), y_val=_relabel(data.y_val, 0.6, 10, rng))


def fashion_images() -> Data:
    """Fashion-MNIST with the image as its own target."""
    data = fashion()
    return data._replace(y_train=data.x_train.reshape(-1, 784), y_val=data.x_val.reshape(-1, 784))


def fashion_clutter() -> Data:
    """Garments of a random colour, light or dark, shifted, on a coloured background of blobs: 32 x 32 x 3."""
    rng, data = np.random.default_rng(2), fashion()

    def paint(images: np.ndarray) -> np.ndarray:
        count = len(images)
        mask = np.zeros((count, 32, 32, 1), "float32")
        for i, (row, column) in enumerate(rng.integers(0, 5, size=(count, 2))):
            mask[i, row : row + 28, column : column + 28] = images[i]
        blobs = rng.normal(size=(count, 8, 8, 3)).repeat(4, axis=1).repeat(4, axis=2)
        colour = rng.normal(size=(count, 1, 1, 3))
        return (blobs * 0.7 * (1 - mask) + colour * mask + 0.3 * rng.normal(size=blobs.shape)).astype("float32")

    return data._replace(x_train=paint(data.x_train), x_val=paint(data.x_val))


def mnist(path: Path, train: int = 6000, validation: int = 1500) -> Data:
    """The first images of MNIST from an `mnist.npz` with `x_train`, `y_train`, `x_test`, `y_test`."""
    with np.load(path) as file:
        x, y, x_val, y_val = (file[key] for key in ("x_train", "y_train", "x_test", "y_test"))
    images = [(part[:count, ..., None] / 255).astype("float32") for part, count in ((x, train), (x_val, validation))]
    return Data(images[0], y[:train].astype("int32"), images[1], y_val[:validation].astype("int32"))


def digits() -> Data:
    """scikit-learn's 8 x 8 digits as vectors of 64."""
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    return _split((x / 16).astype("float32"), y.astype("int32"), 500, np.random.default_rng(3))


def digits_upscaled() -> Data:
    """The digits drawn at twice the size in a noisy 16 x 16 image."""
    data, rng = digits(), np.random.default_rng(4)

    def draw(x: np.ndarray) -> np.ndarray:
        images = x.reshape(-1, 8, 8, 1).repeat(2, axis=1).repeat(2, axis=2)
        return (images + 0.3 * rng.normal(size=images.shape)).astype("float32")

    return data._replace(x_train=draw(data.x_train), x_val=draw(data.x_val))


def digits_mislabelled() -> Data:
    """The digits with three training labels in ten wrong, the validation labels too."""
    data, rng = digits(), np.random.default_rng(5)
    return data._replace(y_train=_relabel(data.y_train, 0.3, 10, rng), y_val=_relabel(data.y_val, 0.3, 10, rng))


def cancer() -> Data:
    """scikit-learn's breast cancer table, standardised."""
    x, y = sklearn.datasets.load_breast_cancer(return_X_y=True)
    return _split(_standardize(x), y.astype("int32"), 150, np.random.default_rng(6))


def textures(contrast: float = 0.5) -> Data:
    """Ten gratings under noise as strong as they are (32 x 32 x 3); the colour alone does not tell the class."""
    rng = np.random.default_rng(7)
    count = 5500
    y = rng.integers(0, 10, size=count).astype("int32")
    angle = (np.pi * (y % 5) / 5 + 0.1 * rng.normal(size=count))[:, None, None]
    period = (np.where(y < 5, 4.0, 6.0) * (1 + 0.05 * rng.normal(size=count)))[:, None, None]
    rows, columns = np.mgrid[:32, :32]
    phase = rng.uniform(0, 2 * np.pi, size=(count, 1, 1))
    wave = np.sin(2 * np.pi * (rows * np.sin(angle) + columns * np.cos(angle)) / period + phase)[..., None]
    tint = rng.normal(size=(10, 3))[y][:, None, None] * 0.3 + rng.normal(size=(count, 1, 1, 3))
    tint /= np.linalg.norm(tint, axis=-1, keepdims=True)
    light = 0.5 * rng.normal(size=(count, 1, 1, 3))
    x = contrast * np.sqrt(3) * wave * tint + light + 0.5 * rng.normal(size=(count, 32, 32, 3))
    return _split(x.astype("float32"), y, 1500, rng)


def faint() -> Data:
    """Four classes, a direction in 100 dimensions each, and half of the labels wrong: the loss falls by a tenth."""
    rng = np.random.default_rng(8)
    centres = 0.25 * rng.normal(size=(4, 100))
    y = rng.integers(0, 4, size=14000)
    x = centres[y] + rng.normal(size=(len(y), 100))
    return _split(x.astype("float32"), _relabel(y, 0.5, 4, rng), 4000, rng)


def moons() -> Data:
    """Two half-moons with four labels in ten wrong."""
    rng = np.random.default_rng(9)
    x, y = sklearn.datasets.make_moons(6000, noise=0.1, random_state=9)
    return _split(_standardize(x), _relabel(y, 0.4, 2, rng), 3000, rng)


def rings() -> Data:
    """A disc within a ring with a third of the labels wrong."""
    rng = np.random.default_rng(10)
    x, y = sklearn.datasets.make_circles(7000, noise=0.1, factor=0.5, random_state=10)
    return _split(_standardize(x), _relabel(y, 0.33, 2, rng), 3000, rng)


def adding(length: int = 12) -> Data:
    """The adding problem: (length, 2) numbers and marks, the target is the sum of the two numbers marked."""
    rng = np.random.default_rng(11)
    numbers, marks = rng.uniform(size=(7500, length)), np.zeros((7500, length))
    rows = np.arange(7500)
    marks[rows, rng.integers(0, length // 2, size=7500)] = 1
    marks[rows, rng.integers(length // 2, length, size=7500)] = 1
    y = (numbers * marks).sum(axis=1)
    return _split(np.stack([numbers, marks], axis=-1).astype("float32"), y.astype("float32"), 1500, rng)


def highest(length: int = 12, symbols: int = 8) -> Data:
    """Sequences of symbols, each plain or marked: the class is the highest of the three that are marked."""
    rng = np.random.default_rng(12)
    x = rng.integers(0, symbols, size=(7500, length))
    marked = rng.random(x.shape).argsort(axis=1) < 3
    y = np.where(marked, x, 0).max(axis=1)
    return _split((x + symbols * marked).astype("int32"), y.astype("int32"), 1500, rng)


def signals() -> Data:
    """Five shapes of a pulse at a random place in a noisy series of 64 samples."""
    rng = np.random.default_rng(13)
    y = rng.integers(0, 5, size=7500).astype("int32")
    time = np.linspace(-1, 1, 16)
    window = np.hanning(16)
    shapes = np.stack(
        [window, window * np.sin(3 * np.pi * time), window * np.cos(4 * np.pi * time), time, np.sign(time) * window]
    )
    x = 0.6 * rng.normal(size=(len(y), 64, 1))
    for series, start, shape in zip(x, rng.integers(0, 48, size=len(y)), shapes[y], strict=True):
        series[start : start + 16, 0] += shape
    return _split(x.astype("float32"), y, 1500, rng)


def friedman() -> Data:
    """Friedman's first regression (10 inputs, 5 of use), targets standardised."""
    x, y = sklearn.datasets.make_friedman1(7000, noise=1.0, random_state=14)
    return _split(_standardize(x), _standardize(y)[:, None], 2000, np.random.default_rng(14))


def impedance() -> Data:
    """Friedman's second regression with its targets as they come, hundreds large: a loss of some hundred thousands."""
    x, y = sklearn.datasets.make_friedman2(7000, noise=50.0, random_state=15)
    return _split(_standardize(x), y.astype("float32")[:, None], 2000, np.random.default_rng(15))


def waves() -> Data:
    """A regression with two levels of noise, its targets well below one: the loss of a likelihood is negative."""
    rng = np.random.default_rng(16)
    x = rng.uniform(-1, 1, size=(7000, 4))
    noise = 0.01 + 0.1 * (x[:, 1] > 0)
    y = 0.2 * np.sin(3 * x[:, 0]) + 0.1 * x[:, 2] * x[:, 3] + noise * rng.normal(size=len(x))
    return _split(x.astype("float32"), y.astype("float32")[:, None], 2000, rng)


def directions() -> Data:
    """Targets are directions in 8 dimensions that a random two-layer network gives, with noise."""
    rng = np.random.default_rng(17)
    x = rng.normal(size=(7000, 20))
    y = np.tanh(x @ rng.normal(size=(20, 16)) / 3) @ rng.normal(size=(16, 8)) + 0.7 * rng.normal(size=(7000, 8))
    return _split(x.astype("float32"), y.astype("float32"), 2000, rng)


# -------------------------------------------------------------------------------------------------------------- models


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


# -------------------------------------------------------------------------------------------------- losses, optimizers


def gaussian_nll(y_true: keras.KerasTensor, y_pred: keras.KerasTensor) -> keras.KerasTensor:
    """Negative log-likelihood, less its constant, of a normal whose mean and log variance the model gives."""
    mean, log_variance = y_pred[..., :1], y_pred[..., 1:]
    return 0.5 * ops.mean(log_variance + ops.square(y_true - mean) * ops.exp(-log_variance), axis=-1)


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

_CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


# --------------------------------------------------------------------------------------------------------------- tasks


@functools.cache
def _load(make_data: Callable[[], Data]) -> Data:
    return make_data()


@dataclass(frozen=True)
class Task:
    """One thing to train: a data set, a model, an optimizer.

    Attributes:
        split: `"dev"` to design with, `"report"` held out.
        make_data: gives the arrays; the function's name is the data's name.
        make_model: gives an uncompiled model for an input shape and a number of outputs.
        optimizer: a key of `OPTIMIZERS`.
        batch_size: examples in a training step.
        steps: steps of the one cosine cycle that a learning rate is judged by.
        outputs: width of the model's last layer.
        loss: what `compile` takes; softmax cross-entropy from logits by default.
        end_lr: the highest rate of the grid.
    """

    split: Literal["dev", "report"]
    make_data: Callable[[], Data]
    make_model: Callable[[tuple[int, ...], int], keras.Model]
    optimizer: str
    batch_size: int
    steps: int
    outputs: int = 10
    loss: str | Callable = _CROSSENTROPY
    end_lr: float = 10.0

    @property
    def data(self) -> str:
        """Name of the data."""
        return self.make_data.__name__

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.make_model.__name__

    @property
    def name(self) -> str:
        """Name of the task, and of its file."""
        return f"{self.data}_{self.model}_{self.optimizer}_{self.batch_size}"

    @property
    def classifies(self) -> bool:
        """Whether accuracy means anything."""
        return self.loss is _CROSSENTROPY

    def load(self) -> Data:
        """The arrays of `make_data`, made once per process."""
        return _load(self.make_data)

    def build(self, seed: int) -> keras.Model:
        """A fresh compiled model with a plain float learning rate; the same seed gives the same initial weights."""
        keras.utils.set_random_seed(seed)
        model = self.make_model(self.load().x_train.shape[1:], self.outputs)
        model.compile(
            optimizer=OPTIMIZERS[self.optimizer](), loss=self.loss, metrics=["accuracy"] if self.classifies else []
        )
        return model


def _tasks() -> tuple[Task, ...]:
    dev, report = functools.partial(Task, "dev"), functools.partial(Task, "report")
    return (
        dev(digits_upscaled, deep_cnn_he, "momentum", 32, 300),
        dev(textures, deep_cnn_glorot, "adam", 32, 250),
        dev(faint, mlp, "nesterov", 64, 300, outputs=4),
        dev(highest, transformer, "adamw", 32, 300, outputs=8),
        dev(adding, lstm, "rmsprop", 32, 400, outputs=1, loss="mse"),
        dev(friedman, mlp, "nadam", 32, 300, outputs=1, loss="mse"),
        dev(waves, mlp, "adamax", 32, 300, outputs=2, loss=gaussian_nll),
        dev(moons, mlp, "lion", 8, 400, outputs=2),
        report(fashion, deep_cnn_glorot, "nesterov", 32, 300),
        report(fashion, deep_cnn_he, "adam", 32, 300),
        report(fashion, deep_cnn_he, "adadelta", 32, 250, end_lr=100.0),
        report(fashion_clutter, deep_cnn_he, "rmsprop", 32, 250),
        report(fashion_rows, gru, "nadam", 32, 300),
        report(fashion, vit, "lion", 32, 300),
        report(impedance, mlp, "adagrad", 32, 300, outputs=1, loss="mse"),
        report(directions, mlp_tanh, "sgd", 32, 300, outputs=8, loss=keras.losses.CosineSimilarity()),
        report(digits, mlp_bn, "adamax", 32, 300),
        report(fashion, linear, "adamw", 64, 300),
        report(fashion_mislabelled, cnn, "nadam", 64, 300),
        report(rings, mlp, "adagrad", 8, 400, outputs=2),
        report(fashion_images, autoencoder, "adam", 32, 300, outputs=784, loss="mse"),
        report(signals, cnn_1d, "adamax", 32, 300, outputs=5),
        report(digits_mislabelled, mlp_tanh, "momentum", 16, 300),
        report(cancer, linear, "rmsprop", 16, 150, outputs=2),
    )


TASKS = _tasks()


def mnist_task(path: Path) -> Task:
    """A further dev task, for those who have MNIST at hand as `path`."""
    return Task("dev", functools.update_wrapper(functools.partial(mnist, path), mnist), deep_cnn_he, "adagrad", 32, 300)
