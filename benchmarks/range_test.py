#!/usr/bin/env python3
"""What a range test costs: a step of the sweep against a plain step of `fit`, and a whole sweep against an epoch.

    python benchmarks/range_test.py [--rounds 7]

The three kinds of `fit` take turns in one process, and each round gives one ratio; the table shows the median and the
range of the rounds. The naive callback does what finders commonly do: assign the rate, read it back, note the logged
loss.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
from keras import layers

import autolr

BATCH = 128
EPOCH = 469  # steps of 60,000 images


class NaiveFinder(keras.callbacks.Callback):
    """Assigns the rate and reads it back."""

    def __init__(self, rates: np.ndarray) -> None:
        super().__init__()
        self.rates, self.lrs, self.losses = rates, [], []

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Assign."""
        self.model.optimizer.learning_rate = self.rates[batch]

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Read."""
        self.lrs.append(float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)))
        self.losses.append(logs["loss"])


def method_cnn() -> keras.Model:
    """The CNN of the method's source; its probabilities are float32 whatever the dtype policy."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu", kernel_initializer="he_uniform"),
            layers.Conv2D(64, 3, activation="relu", kernel_initializer="he_uniform"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(128, activation="relu", kernel_initializer="he_uniform"),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax", kernel_initializer="glorot_normal", dtype="float32"),
        ]
    )


def perceptron() -> keras.Model:
    """A 2-layer perceptron, whose steps are so short that everything shows."""
    return keras.Sequential(
        [keras.Input((28, 28, 1)), layers.Flatten(), layers.Dense(128, "relu"), layers.Dense(10, "softmax")]
    )


def measure(model: keras.Model, steps: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each kind of `fit` in each round, the first of all left out: it traces."""
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    rng = np.random.default_rng(0)
    x = rng.random((steps * BATCH, 28, 28, 1), dtype="float32")
    y = rng.integers(0, 10, steps * BATCH)
    rates = np.geomspace(1e-9, 1e-8, steps)  # nothing diverges, so that all kinds take all steps

    def fit(callback: keras.callbacks.Callback | None) -> None:
        model.fit(x, y, batch_size=BATCH, verbose=0, callbacks=[callback] if callback else [])

    def finder() -> keras.callbacks.Callback:
        return autolr.LRFinder(start_lr=1e-9, end_lr=1e-8, num_steps=steps, restore=False)

    kinds: dict[str, Callable[[], None]] = {
        "plain": lambda: fit(None),
        "LRFinder": lambda: fit(finder()),
        "naive": lambda: fit(NaiveFinder(rates)),
        "range_test": lambda: autolr.range_test(
            model, x, y, batch_size=BATCH, start_lr=1e-9, end_lr=1e-8, num_steps=min(100, steps), burst_steps=0
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for round_number in range(rounds + 1):
        for name, run in kinds.items():
            began = time.perf_counter()
            run()
            if round_number:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def shown(ratios: np.ndarray) -> str:
    """Median and range."""
    return f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="(default: 7)")
    rounds = parser.parse_args().rounds
    print(f"Median and range of {rounds} rounds, batches of {BATCH}.\n")
    print("| model | plain step | sweep step / plain step | naive callback's / plain | sweep of 100 steps / epoch |")
    print("|---|---|---|---|---|")
    for name, make, steps in (("the method's CNN", method_cnn, 100), ("2-layer perceptron", perceptron, 400)):
        seconds = {kind: np.array(s) for kind, s in measure(make(), steps, rounds).items()}
        plain = seconds["plain"]
        epoch = plain * EPOCH / steps
        print(
            f"| {name} | {1000 * np.median(plain) / steps:.2f} ms | {shown(seconds['LRFinder'] / plain)} | "
            f"{shown(seconds['naive'] / plain)} | {shown(seconds['range_test'] / epoch)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
