#!/usr/bin/env python3
"""What a range test costs: a step of the sweep against a plain step of `fit`, and a whole sweep against an epoch.

    python benchmarks/range_test.py [--rounds 5] [--quick]
    python benchmarks/range_test.py --table

The three kinds of `fit` take turns in one process, and each round gives one ratio; the table shows the median and the
range of the rounds. The naive callback does what finders commonly do: assign the rate, read it back, note the logged
loss. All times go to `benchmarks/results/range_test.json`, and the table, made from them, into docs/bounds.md;
`--quick` takes few steps and keeps nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
from documents import fill
from keras import layers

import autolr
from autolr.files import write_atomically

RESULTS = Path(__file__).parent / "results" / "range_test.json"
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


def ratios(found: dict[str, Any], kind: str) -> np.ndarray:
    """Of each round: what a step takes beside a plain one or, for a range test, the whole beside an epoch."""
    plain = np.array(found["seconds"]["plain"])
    return np.array(found["seconds"][kind]) / (plain * EPOCH / found["steps"] if kind == "range_test" else plain)


def shown(values: np.ndarray) -> str:
    """Median and range."""
    return f"{np.median(values):.2f} ({values.min():.2f} to {values.max():.2f})"


def read() -> dict[str, dict[str, Any]]:
    """What is recorded, by model."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))


def table(results: dict[str, dict[str, Any]] | None = None) -> str:
    """In Markdown: median and range of the rounds."""
    lines = [
        "| model | plain step | sweep step / plain step | naive callback's / plain | sweep of 100 steps / epoch |",
        "|---|---|---|---|---|",
    ]
    for name, found in (results or read()).items():
        plain = 1000 * np.median(found["seconds"]["plain"]) / found["steps"]
        columns = " | ".join(shown(ratios(found, kind)) for kind in ("LRFinder", "naive", "range_test"))
        lines.append(f"| {name} | {plain:.2f} ms | {columns} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps, to see that all works")
    parser.add_argument("--table", action="store_true", help="measure nothing, show what is recorded")
    options = parser.parse_args()
    if not options.table:
        models = {"the method's CNN": (method_cnn, 100), "2-layer perceptron": (perceptron, 400)}
        results = {}
        for name, (make, steps) in models.items():
            taken = steps // 10 if options.quick else steps
            results[name] = {"steps": taken, "seconds": measure(make(), taken, options.rounds)}
        if options.quick:
            print(table(results))
            return
        write_atomically(RESULTS, json.dumps(results, indent=1) + "\n")
    print(table())
    fill("bounds.md", {"python benchmarks/range_test.py --table": table()})


if __name__ == "__main__":
    main()
