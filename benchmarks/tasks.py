"""Small tasks that learning-rate bounds are judged on: data, a compiled model, a batch size and a number of steps.

`dev` tasks are for designing the bounds and the sweep with. `report` tasks are held out: they are trained on once, to
write the table of the docs, and nothing is chosen by looking at them. Those that have been looked at become `dev`
tasks, and new ones take their place.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import keras
from task_data import (
    Data,
    adding,
    angles,
    attributes,
    cancer,
    checkers,
    clouds,
    counts,
    digits,
    digits_images,
    digits_mislabelled,
    digits_upscaled,
    directions,
    faint,
    fashion,
    fashion_cleaned,
    fashion_clutter,
    fashion_columns,
    fashion_faded,
    fashion_images,
    fashion_inverted,
    fashion_mislabelled,
    fashion_outlines,
    fashion_rows,
    fashion_scenes,
    fashion_small,
    fashion_tinted,
    friedman,
    highest,
    impedance,
    iris,
    majority,
    mnist,
    moons,
    outliers,
    recall,
    repeats,
    rings,
    signals,
    spirals,
    surface,
    textures,
    tones,
    waves,
    wine,
)
from task_models import (
    CROSSENTROPY,
    OPTIMIZERS,
    PER_LABEL,
    autoencoder,
    cnn,
    cnn_1d,
    cnn_1d_bn,
    cnn_bn,
    deep_cnn_glorot,
    deep_cnn_he,
    deeper_cnn,
    gaussian_nll,
    gru,
    linear,
    lstm,
    mlp,
    mlp_bn,
    mlp_tanh,
    poisson_nll,
    residual,
    transformer,
    vit,
)


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
    loss: str | Callable = CROSSENTROPY
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
        return self.loss is CROSSENTROPY

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
        dev(fashion, deep_cnn_glorot, "nesterov", 32, 300),
        dev(fashion, deep_cnn_he, "adam", 32, 300),
        dev(fashion, deep_cnn_he, "adadelta", 32, 250, end_lr=100.0),
        dev(fashion_clutter, deep_cnn_he, "rmsprop", 32, 250),
        dev(fashion_rows, gru, "nadam", 32, 300),
        dev(fashion, vit, "lion", 32, 300),
        dev(impedance, mlp, "adagrad", 32, 300, outputs=1, loss="mse"),
        dev(directions, mlp_tanh, "sgd", 32, 300, outputs=8, loss=keras.losses.CosineSimilarity()),
        dev(digits, mlp_bn, "adamax", 32, 300),
        dev(fashion, linear, "adamw", 64, 300),
        dev(fashion_mislabelled, cnn, "nadam", 64, 300),
        dev(rings, mlp, "adagrad", 8, 400, outputs=2),
        dev(fashion_images, autoencoder, "adam", 32, 300, outputs=784, loss="mse"),
        dev(signals, cnn_1d, "adamax", 32, 300, outputs=5),
        dev(digits_mislabelled, mlp_tanh, "momentum", 16, 300),
        dev(cancer, linear, "rmsprop", 16, 150, outputs=2),
        dev(fashion, deep_cnn_he, "sgd", 32, 300),
        dev(fashion, deep_cnn_glorot, "adam", 64, 300),
        dev(fashion, deeper_cnn, "rmsprop", 32, 300),
        dev(fashion_scenes, deep_cnn_he, "momentum", 32, 300),
        dev(fashion, residual, "nesterov", 32, 300),
        dev(fashion, vit, "adamw", 32, 300),
        dev(fashion_faded, mlp, "adamax", 64, 300),
        dev(fashion_columns, lstm, "adagrad", 32, 300),
        dev(attributes, residual, "adadelta", 32, 300, outputs=4, loss=PER_LABEL, end_lr=100.0),
        dev(repeats, transformer, "nadam", 32, 300, outputs=4),
        dev(angles, mlp_bn, "rmsprop", 32, 300, outputs=1, loss="mse"),
        dev(counts, mlp, "adam", 32, 300, outputs=1, loss=poisson_nll),
        dev(spirals, mlp, "momentum", 16, 400, outputs=3),
        dev(digits_images, autoencoder, "adamw", 32, 300, outputs=64, loss="mse"),
        dev(wine, linear, "lion", 16, 150, outputs=3),
        dev(fashion, residual, "rmsprop", 32, 300),
        dev(digits, mlp_bn, "momentum", 32, 300),
        dev(fashion, cnn_bn, "adam", 32, 300),
        dev(friedman, mlp_bn, "adamw", 32, 300, outputs=1, loss="mse"),
        dev(signals, cnn_1d_bn, "nadam", 32, 300, outputs=5),
        dev(textures, residual, "momentum", 32, 250),
        dev(impedance, mlp_bn, "adam", 32, 300, outputs=1, loss="mse"),
        dev(fashion_clutter, residual, "sgd", 32, 250),
        # Begin to learn late, if at all: what the longest bursts were designed with.
        dev(fashion, deep_cnn_glorot, "momentum", 32, 300),
        dev(textures, deep_cnn_he, "momentum", 32, 250),
        dev(fashion_scenes, deep_cnn_glorot, "adam", 32, 300),
        dev(fashion_clutter, deep_cnn_glorot, "nesterov", 32, 300),
        dev(digits_upscaled, deep_cnn_glorot, "momentum", 32, 300),
        dev(textures, deeper_cnn, "sgd", 32, 250),
        dev(fashion_faded, deep_cnn_glorot, "rmsprop", 32, 300),
        dev(fashion, deep_cnn_glorot, "adagrad", 32, 300),
        dev(digits_upscaled, deep_cnn_glorot, "nadam", 32, 300),
        dev(fashion_mislabelled, deep_cnn_glorot, "momentum", 32, 300),
        dev(fashion_scenes, deeper_cnn, "adamax", 32, 300),
        dev(fashion_clutter, deeper_cnn, "momentum", 32, 300),
        report(fashion, deep_cnn_he, "nadam", 64, 300),
        report(fashion_outlines, deep_cnn_glorot, "momentum", 32, 300),
        report(fashion_inverted, deep_cnn_he, "adagrad", 32, 300),
        report(fashion_inverted, deeper_cnn, "adam", 32, 300),
        report(fashion_small, cnn_bn, "sgd", 32, 300),
        report(fashion_tinted, residual, "adam", 32, 300),
        report(clouds, mlp_bn, "nadam", 32, 300, outputs=6),
        report(tones, cnn_1d_bn, "adamw", 32, 300, outputs=6),
        report(tones, cnn_1d, "momentum", 32, 300, outputs=6),
        report(majority, transformer, "adam", 32, 300, outputs=6),
        report(fashion, vit, "adamax", 64, 300),
        report(recall, lstm, "adam", 32, 400, outputs=6),
        report(surface, mlp_tanh, "adamw", 32, 300, outputs=1, loss="mse"),
        report(outliers, mlp, "rmsprop", 32, 300, outputs=1, loss="mae"),
        report(checkers, mlp, "adadelta", 16, 400, outputs=2, end_lr=100.0),
        report(fashion_cleaned, autoencoder, "nadam", 32, 300, outputs=784, loss="mse"),
        report(iris, linear, "sgd", 16, 150, outputs=3),
    )


TASKS = _tasks()


def mnist_task(path: Path) -> Task:
    """A further dev task, for those who have MNIST at hand as `path`."""
    return Task("dev", functools.update_wrapper(functools.partial(mnist, path), mnist), deep_cnn_he, "adagrad", 32, 300)
