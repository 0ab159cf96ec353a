"""Data sets of the tasks: generated here, bundled with scikit-learn, or installed by a Debian package.

Each function takes no network and gives the same arrays every time.
"""

from __future__ import annotations

import functools
import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sklearn.datasets

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package `dataset-fashion-mnist` puts its files."""


class Data(NamedTuple):
    """Arrays of one task; the first axis is the example."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_val: np.ndarray
    y_val: np.ndarray


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


def _scattered(images: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Each image at a random place of an empty square of `size` pixels a side."""
    squares = np.zeros((len(images), size, size, 1), "float32")
    height = images.shape[1]
    for square, image, (row, column) in zip(
        squares, images, rng.integers(0, size - height + 1, size=(len(images), 2)), strict=True
    ):
        square[row : row + height, column : column + height] = image
    return squares


def fashion_clutter() -> Data:
    """Garments of a random colour, light or dark, shifted, on a coloured background of blobs: 32 x 32 x 3."""
    rng, data = np.random.default_rng(2), fashion()

    def paint(images: np.ndarray) -> np.ndarray:
        count, mask = len(images), _scattered(images, 32, rng)
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


def fashion_scenes() -> Data:
    """A light or dark garment anywhere on coloured stripes of about its own contrast: 40 x 40 x 3."""
    rng, data = np.random.default_rng(20), fashion()

    def place(images: np.ndarray) -> np.ndarray:
        count, mask = len(images), _scattered(images, 40, rng)
        rows, columns = np.mgrid[:40, :40]
        angle = rng.uniform(0, np.pi, size=(count, 1, 1))
        wave = np.sin((rows * np.sin(angle) + columns * np.cos(angle)) * rng.uniform(0.3, 1.2, size=(count, 1, 1)))
        stripes = wave[..., None] * rng.normal(size=(count, 1, 1, 3))
        tone = rng.choice([-1.0, 1.0], size=(count, 1, 1, 1)) + 0.3 * rng.normal(size=(count, 1, 1, 3))
        return (0.7 * stripes * (1 - mask) + tone * mask + 0.2 * rng.normal(size=stripes.shape)).astype("float32")

    return data._replace(x_train=place(data.x_train), x_val=place(data.x_val))


def fashion_faded() -> Data:
    """Fashion-MNIST under noise twice as strong as its contrast, with half of the labels wrong."""
    rng, data = np.random.default_rng(21), fashion(6000, 4000)

    def fade(x: np.ndarray) -> np.ndarray:
        return (x + 2 * rng.normal(size=x.shape)).astype("float32")

    return Data(
        fade(data.x_train), _relabel(data.y_train, 0.5, 10, rng), fade(data.x_val), _relabel(data.y_val, 0.5, 10, rng)
    )


def fashion_columns() -> Data:
    """Fashion-MNIST read from left to right, four columns at a time."""
    data = fashion()

    def columns(x: np.ndarray) -> np.ndarray:
        return x.reshape(-1, 28, 28).transpose(0, 2, 1).reshape(-1, 7, 112)

    return data._replace(x_train=columns(data.x_train), x_val=columns(data.x_val))


def attributes() -> Data:
    """Fashion-MNIST with four attributes as targets: upper body, shoe, long sleeves, in one piece."""
    data = fashion()
    of_class = np.zeros((10, 4), "float32")
    for attribute, classes in enumerate([(0, 2, 3, 4, 6), (5, 7, 9), (2, 3, 4, 6), (1, 3, 8)]):
        of_class[list(classes), attribute] = 1
    return data._replace(y_train=of_class[data.y_train], y_val=of_class[data.y_val])


def digits_images() -> Data:
    """The digits with the image as its own target."""
    data = digits()
    return data._replace(y_train=data.x_train, y_val=data.x_val)


def wine() -> Data:
    """scikit-learn's wine table, standardised."""
    x, y = sklearn.datasets.load_wine(return_X_y=True)
    return _split(_standardize(x), y.astype("int32"), 50, np.random.default_rng(22))


def angles() -> Data:
    """Friedman's third regression (an arc tangent), targets standardised."""
    x, y = sklearn.datasets.make_friedman3(7000, noise=0.1, random_state=23)
    return _split(_standardize(x), _standardize(y)[:, None], 2000, np.random.default_rng(23))


def counts() -> Data:
    """Counts whose mean depends on eight inputs, some of them together."""
    rng = np.random.default_rng(24)
    x = rng.normal(size=(7000, 8))
    mean = np.exp(0.5 + 0.5 * x[:, 0] - 0.4 * np.abs(x[:, 1]) + 0.3 * x[:, 2] * x[:, 3])
    return _split(x.astype("float32"), rng.poisson(mean).astype("float32")[:, None], 2000, rng)


def spirals() -> Data:
    """Three arms of a spiral with three labels in ten wrong."""
    rng = np.random.default_rng(25)
    y = rng.integers(0, 3, size=7000)
    radius = rng.uniform(0.1, 1, size=len(y))
    angle = 2 * np.pi * y / 3 + 4 * radius + 0.2 * rng.normal(size=len(y))
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return _split(_standardize(x), _relabel(y, 0.3, 3, rng), 3000, rng)


def repeats(length: int = 10, symbols: int = 10) -> Data:
    """Sequences of symbols: the class is how often the first comes again, 0 to 3."""
    rng = np.random.default_rng(26)
    x = rng.integers(0, symbols, size=(7500, length))
    again = rng.random((7500, length)) < rng.choice([0.0, 0.1, 0.2, 0.3], size=(7500, 1))
    x = np.where(again, x[:, :1], x)
    y = np.minimum((x[:, 1:] == x[:, :1]).sum(axis=1), 3)
    return _split(x.astype("int32"), y.astype("int32"), 1500, rng)


def fashion_small() -> Data:
    """Fashion-MNIST at half its resolution: 14 x 14, every pixel the mean of four."""
    data = fashion()

    def halve(x: np.ndarray) -> np.ndarray:
        return x.reshape(-1, 14, 2, 14, 2, 1).mean(axis=(2, 4))

    return data._replace(x_train=halve(data.x_train), x_val=halve(data.x_val))


def fashion_inverted() -> Data:
    """Garments at a random place of 32 x 32 pixels, half of them dark on light, under noise."""
    rng, data = np.random.default_rng(30), fashion()

    def invert(images: np.ndarray) -> np.ndarray:
        x = _scattered(images, 32, rng) - 0.3
        sign = rng.choice([-1.0, 1.0], size=(len(x), 1, 1, 1))
        return (sign * x + 0.1 * rng.normal(size=x.shape)).astype("float32")

    return data._replace(x_train=invert(data.x_train), x_val=invert(data.x_val))


def fashion_outlines() -> Data:
    """Only the outlines of the garments: the size of the image's gradient."""
    data = fashion()

    def outline(x: np.ndarray) -> np.ndarray:
        rows, columns = np.gradient(x[..., 0], axis=(1, 2))
        return np.hypot(rows, columns)[..., None].astype("float32")

    return data._replace(x_train=outline(data.x_train), x_val=outline(data.x_val))


def fashion_tinted() -> Data:
    """Garments of any colour on a ground of any colour: 28 x 28 x 3, two labels in ten wrong."""
    rng, data = np.random.default_rng(31), fashion()

    def tint(x: np.ndarray) -> np.ndarray:
        garment, ground = rng.normal(size=(2, len(x), 1, 1, 3))
        return (x * garment + (1 - x) * ground).astype("float32")

    return Data(
        tint(data.x_train), _relabel(data.y_train, 0.2, 10, rng), tint(data.x_val), _relabel(data.y_val, 0.2, 10, rng)
    )


def fashion_cleaned() -> Data:
    """Noisy garments; the target is the clean image."""
    rng, data = np.random.default_rng(32), fashion_images()

    def soil(x: np.ndarray) -> np.ndarray:
        return (x + 0.5 * rng.normal(size=x.shape)).astype("float32")

    return data._replace(x_train=soil(data.x_train), x_val=soil(data.x_val))


def tones() -> Data:
    """Six pitches in a noisy series of 96 samples, each with a random phase and a random onset."""
    rng = np.random.default_rng(33)
    y = rng.integers(0, 6, size=7500).astype("int32")
    time = np.arange(96)
    onset, phase = rng.integers(0, 48, size=(len(y), 1)), rng.uniform(0, 2 * np.pi, size=(len(y), 1))
    pitch = (0.08 * 1.25**y * (1 + 0.02 * rng.normal(size=len(y))))[:, None]
    x = np.where(time >= onset, np.sin(2 * np.pi * pitch * time + phase), 0) + 0.8 * rng.normal(size=(len(y), 96))
    return _split(x[..., None].astype("float32"), y, 1500, rng)


def majority(length: int = 11, symbols: int = 6) -> Data:
    """Sequences of symbols: the class is the one that comes most often, the lower of two."""
    rng = np.random.default_rng(34)
    x = rng.integers(0, symbols, size=(7500, length))
    y = (x[..., None] == np.arange(symbols)).sum(axis=1).argmax(axis=1)
    return _split(x.astype("int32"), y.astype("int32"), 1500, rng)


def recall(length: int = 10, symbols: int = 6) -> Data:
    """Sequences of symbols, one of them marked: the class is the one after it."""
    rng = np.random.default_rng(35)
    symbol = rng.integers(0, symbols, size=(7500, length))
    place = rng.integers(0, length - 1, size=7500)
    x = np.concatenate([np.eye(symbols)[symbol], (np.arange(length) == place[:, None])[..., None]], axis=-1)
    return _split(x.astype("float32"), symbol[np.arange(7500), place + 1].astype("int32"), 1500, rng)


def surface() -> Data:
    """A smooth surface of three inputs, its targets about 50 and noisy."""
    rng = np.random.default_rng(36)
    x = rng.uniform(-2, 2, size=(7000, 3))
    y = 50 + 5 * np.sin(2 * x[:, 0]) * np.cos(x[:, 1]) + 3 * x[:, 2] ** 2 + rng.normal(size=len(x))
    return _split(x.astype("float32"), y.astype("float32")[:, None], 2000, rng)


def outliers() -> Data:
    """A regression in 12 dimensions whose noise has heavy tails."""
    rng = np.random.default_rng(37)
    x = rng.normal(size=(7000, 12))
    y = np.abs(x @ rng.normal(size=12)) + x[:, 0] * x[:, 1] + rng.standard_t(1.5, size=len(x))
    return _split(x.astype("float32"), y.astype("float32")[:, None], 2000, rng)


def iris() -> Data:
    """scikit-learn's iris table, standardised."""
    x, y = sklearn.datasets.load_iris(return_X_y=True)
    return _split(_standardize(x), y.astype("int32"), 50, np.random.default_rng(38))


def checkers() -> Data:
    """The fields of a 4 x 4 chequerboard, a quarter of the labels wrong."""
    rng = np.random.default_rng(39)
    x = rng.uniform(0, 4, size=(8000, 2))
    y = np.floor(x).sum(axis=1).astype("int32") % 2
    return _split(_standardize(x), _relabel(y, 0.25, 2, rng), 3000, rng)


def clouds() -> Data:
    """Six overlapping clouds in 30 dimensions, each of three clusters."""
    rng = np.random.default_rng(40)
    centres, y = 0.6 * rng.normal(size=(6, 3, 30)), rng.integers(0, 6, size=7500)
    x = centres[y, rng.integers(0, 3, size=7500)] + rng.normal(size=(7500, 30))
    return _split(x.astype("float32"), y.astype("int32"), 1500, rng)
