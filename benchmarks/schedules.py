#!/usr/bin/env python3
"""What a schedule costs: a training step with it against a bare step of `fit` at a constant rate.

    python benchmarks/schedules.py [--rounds 21] [--only cnn|perceptron] [--quick]
    python benchmarks/schedules.py --table

All kinds of `fit` take turns in one process, in another order each round, and each round gives one ratio to its own
bare `fit`; the table shows the median of the ratios, their quartiles and their range. Two bare models are measured, so
that the ratio of one to the other shows what is noise. The naive callback is the method's: it works out the rate,
assigns it, reads it back and appends it to a list, at the end of every batch. All times go to
`benchmarks/results/schedules.json`, and the tables, made from them, into docs/schedules.md; `--quick` takes few steps
and keeps nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
from documents import fill
from range_test import BATCH, method_cnn, perceptron

import autolr
from autolr.files import write_atomically

RESULTS = Path(__file__).parent / "results" / "schedules.json"
MODELS = {"cnn": (method_cnn, 25), "perceptron": (perceptron, 400)}  # and the steps of a `fit`
ALONE = "`SGDRSchedule`, its operations timed alone and added"
CYCLES = {"cycle_length": 1, "mult_factor": 1.5, "lr_decay": 0.9}
BOUNDS = {"min_lr": 1e-6, "max_lr": 1e-5}  # nothing is learnt, and nothing diverges


class NaiveScheduler(keras.callbacks.Callback):
    """Cosine annealing with warm restarts as the method's source does it."""

    def __init__(self, steps_per_epoch: int) -> None:
        super().__init__()
        self.steps_per_epoch, self.since_restart, self.lrs = steps_per_epoch, 0, []

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Work out, assign, read back."""
        self.since_restart += 1
        done = self.since_restart / self.steps_per_epoch
        rate = BOUNDS["min_lr"] + 0.5 * (BOUNDS["max_lr"] - BOUNDS["min_lr"]) * (1 + math.cos(done * math.pi))
        self.model.optimizer.learning_rate = rate
        self.lrs.append(float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)))


def measure(make: Callable[[], keras.Model], steps: int, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each kind of `fit` in each round, the first of all left out: it traces."""
    rng = np.random.default_rng(0)
    x = rng.random((steps * BATCH, 28, 28, 1), dtype="float32")
    y = rng.integers(0, 10, steps * BATCH)

    def model(rate: float | keras.optimizers.schedules.LearningRateSchedule) -> keras.Model:
        made = make()
        made.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return made

    restarts = keras.optimizers.schedules.CosineDecayRestarts(BOUNDS["max_lr"], steps, t_mul=1.5, m_mul=0.9)
    plain = model(1e-5)
    kinds: dict[str, tuple[keras.Model, Callable[[], list[keras.callbacks.Callback]]]] = {
        "bare": (plain, list),
        "bare, again": (model(1e-5), list),
        "`SGDRSchedule`": (model(autolr.SGDRSchedule(**BOUNDS, **CYCLES, steps_per_epoch=steps)), list),
        "Keras's `CosineDecayRestarts`": (model(restarts), list),
        "`SGDRScheduler`": (plain, lambda: [autolr.SGDRScheduler(**BOUNDS, **CYCLES)]),
        "naive callback": (plain, lambda: [NaiveScheduler(steps)]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for round_number in range(rounds + 1):
        for name in random.Random(round_number).sample([*kinds], len(kinds)):
            trained, callbacks = kinds[name]
            began = time.process_time()
            trained.fit(x, y, batch_size=BATCH, verbose=0, callbacks=callbacks())
            if round_number:
                seconds[name].append(time.process_time() - began)
    return seconds


def microseconds_alone(schedule: keras.optimizers.schedules.LearningRateSchedule, steps: int = 20_000) -> float:
    """CPU time that a schedule's operations take in a graph, per step; the median of eleven rounds.

    A ratio of whole steps can't show a hundredth of one on a busy machine; this can.
    """
    import tensorflow as tf

    @tf.function
    def with_it(n: tf.Tensor) -> tf.Tensor:
        total = 0.0
        for step in tf.range(n):
            total += schedule(step)
        return total

    @tf.function
    def without(n: tf.Tensor) -> tf.Tensor:
        total = 0.0
        for step in tf.range(n):
            total += tf.cast(step, "float32")
        return total

    def seconds(loop: Callable) -> float:
        began = time.process_time()
        loop(tf.constant(steps))
        return time.process_time() - began

    seconds(with_it), seconds(without)  # traced
    return 1e6 * float(np.median([seconds(with_it) - seconds(without) for _ in range(11)])) / steps


def ratios(found: dict[str, Any], kind: str) -> np.ndarray:
    """What a step of a kind takes beside a bare one, in each round."""
    if kind == ALONE:
        bare = 1e6 * np.median(found["seconds"]["bare"]) / found["steps"]
        return np.array([1 + found["microseconds alone"] / bare])
    return np.array(found["seconds"][kind]) / found["seconds"]["bare"]


def read() -> dict[str, dict[str, Any]]:
    """What is recorded, by model."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def table(found: dict[str, Any]) -> str:
    """Of one model, in Markdown."""
    bare = found["seconds"]["bare"]
    what = f"{len(bare)} rounds of {found['steps']} steps, a bare one {1000 * np.median(bare) / found['steps']:.2f} ms"
    lines = [f"| {what} | ÷ bare step, median | quartiles | range |", "|---|---|---|---|"]
    for kind in [*found["seconds"], ALONE]:
        if kind == "bare":
            continue
        low, q1, median, q3, high = np.quantile(ratios(found, kind), [0, 0.25, 0.5, 0.75, 1])
        spread = "- | -" if kind == ALONE else f"{q1:.3f} to {q3:.3f} | {low:.2f} to {high:.2f}"
        lines.append(f"| {kind} | {median:.3f} | {spread} |")
    return "\n".join(lines)


def tables() -> dict[str, str]:
    """Of all models, by the command that stands above each in docs/schedules.md."""
    return {f"python benchmarks/schedules.py --table ({key})": table(found) for key, found in read().items()}


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21, help="(default: 21)")
    parser.add_argument("--only", choices=MODELS, help="one of the two models")
    parser.add_argument("--quick", action="store_true", help="a fifth of the steps, to see that all works")
    parser.add_argument("--table", action="store_true", help="measure nothing, show what is recorded")
    options = parser.parse_args()
    for key, (make, steps) in MODELS.items():
        if options.table or options.only not in (None, key):
            continue
        taken = steps // 5 if options.quick else steps
        found: dict[str, Any] = {"steps": taken, "seconds": measure(make, taken, options.rounds)}
        found["microseconds alone"] = microseconds_alone(autolr.SGDRSchedule(**BOUNDS, **CYCLES, steps_per_epoch=steps))
        if options.quick:
            print(table(found))
        else:
            write_atomically(RESULTS, json.dumps({**read(), key: found}, indent=1) + "\n")
    if not options.quick:
        print("\n\n".join(tables().values()))
        fill("schedules.md", tables())


if __name__ == "__main__":
    main()
