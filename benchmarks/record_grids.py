"""Record, for every task, what each learning rate of a dense grid leads to, and plain sweeps from fresh models.

    python benchmarks/record_grids.py --split dev
    python benchmarks/record_grids.py --task fashion_deep_cnn_he_adam_32

One JSON file a task, a finished one is skipped: interrupt and start again at will. The grid holds the validation loss
after one cosine cycle from the rate down to a 25th of it, for two seeds (of models with BatchNormalization also with
statistics gathered anew, as `val_loss_gathered`); the sweeps are exponential, with the loss of
each batch, for three seeds. The files have the format of recorded range tests everywhere in this project.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from tasks import TASKS, Task, mnist_task

from autolr.batchnorm import gather_statistics, normalizers_of
from autolr.files import write_atomically

GRID_SEEDS = (0, 1)
SWEEP_SEEDS = (0, 1, 2)
SWEEPS = ((100, 1e-6), (300, 1e-7))
"""Steps and first rate of each sweep; all end at `SWEEP_END`."""
SWEEP_END = 10.0
GRID_START = 1e-5
PER_DECADE = 4
LOWEST_SHARE = 1 / 25
DIVERGED = 1e9
"""The validation loss of a run whose loss stopped being a finite number."""

RESULTS = Path(__file__).parent / "results" / "bounds"


class Trainer:
    """Trains one traced model again and again: from a seed's initial weights, with a list of rates.

    A whole run is one graph call, so a step costs what its arithmetic costs; `fit` would trace each fresh model anew.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        data = task.load()
        self.train, self.val = [(tf.constant(x), tf.constant(y)) for x, y in (data[:2], data[2:])]
        self.model = task.build(0)
        self.model.optimizer.build(self.model.trainable_variables)
        self._fresh_optimizer = [variable.numpy() for variable in self.model.optimizer.variables]
        self._fresh_weights: dict[int, list[np.ndarray]] = {}

    def reset(self, seed: int) -> None:
        """Puts the weights a fresh model of this seed would have, and an optimizer that has seen nothing."""
        if seed not in self._fresh_weights:
            self._fresh_weights[seed] = [variable.numpy() for variable in self.task.build(seed).variables]
        pairs = [
            (self.model.variables, self._fresh_weights[seed]),
            (self.model.optimizer.variables, self._fresh_optimizer),
        ]
        for variables, values in pairs:
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)

    def run(self, seed: int, lrs: np.ndarray) -> np.ndarray:
        """Trains from the seed's initial weights, a step for each rate.

        Returns:
            The loss of each step's batch before the step; cut after the first that is not finite.
        """
        self.reset(seed)
        losses, done = self._loop(tf.constant(lrs, tf.float32), tf.constant(self._batches(seed, len(lrs))), *self.train)
        return losses.numpy()[: int(done)]

    def _batches(self, seed: int, steps: int) -> np.ndarray:
        """Indices of the examples of each step: every epoch is a new permutation, its short last batch left out."""
        rng, size, count = np.random.default_rng(seed), self.task.batch_size, len(self.train[0])
        per_epoch = count // size
        epochs = [rng.permutation(count)[: per_epoch * size] for _ in range(-(-steps // per_epoch))]
        return np.concatenate(epochs).reshape(-1, size)[:steps]

    @tf.function(reduce_retracing=True)
    def _loop(self, lrs: tf.Tensor, batches: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        def body(
            step: tf.Tensor, finite: tf.Tensor, losses: tf.TensorArray
        ) -> tuple[tf.Tensor, tf.Tensor, tf.TensorArray]:
            self.model.optimizer.learning_rate = lrs[step]
            inputs, targets = tf.gather(x, batches[step]), tf.gather(y, batches[step])
            with tf.GradientTape() as tape:
                loss = self.model.compute_loss(x=inputs, y=targets, y_pred=self.model(inputs, training=True))
            variables = self.model.trainable_variables
            self.model.optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
            return step + 1, tf.math.is_finite(loss), losses.write(step, loss)

        def go_on(step: tf.Tensor, finite: tf.Tensor, losses: tf.TensorArray) -> tf.Tensor:
            return finite & (step < len_lrs)

        len_lrs = tf.shape(lrs)[0]
        losses = tf.TensorArray(tf.float32, size=len_lrs, element_shape=())
        done, _, losses = tf.while_loop(go_on, body, (0, True, losses))
        return losses.stack(), done

    def evaluate(self) -> tuple[float, float]:
        """Validation loss and accuracy (0 for a regression) of the weights as they are."""
        loss, accuracy = (float(value) for value in self._evaluate(*self.val))
        return (loss if np.isfinite(loss) else DIVERGED), accuracy

    @tf.function
    def _evaluate(self, x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        predicted = self.model(x, training=False)
        loss = self.model.compute_loss(x=x, y=y, y_pred=predicted)
        if not self.task.classifies:
            return loss, tf.constant(0.0)
        return loss, tf.reduce_mean(tf.cast(tf.argmax(predicted, -1, tf.int32) == y, tf.float32))


def in_batches(x: Any) -> Iterator[Any]:
    """The examples, 500 at a time."""
    return (x[start : start + 500] for start in range(0, len(x), 500))


def cosine_cycle(lr: float, steps: int) -> np.ndarray:
    """Rates of one cosine cycle from `lr` to a 25th of it, shape `(steps,)`."""
    fraction = np.arange(steps) / steps
    return lr * (LOWEST_SHARE + (1 - LOWEST_SHARE) * 0.5 * (1 + np.cos(np.pi * fraction)))


def sweeps(trainer: Trainer) -> Iterator[dict]:
    """Plain sweeps of freshly initialised models: the rates and the loss of each batch."""
    for seed in SWEEP_SEEDS:
        for steps, start in SWEEPS:
            lrs = np.geomspace(start, SWEEP_END, steps)
            losses = trainer.run(seed, lrs)
            yield {
                "seed": seed,
                "lrs": [float(f"{lr:.6g}") for lr in lrs[: len(losses)]],
                "losses": [float(f"{loss:.6g}") for loss in losses],
                "steps": steps,
            }


def grid_rates(end: float) -> np.ndarray:
    """Rates evenly spaced in log from `GRID_START` to `end`."""
    return np.geomspace(GRID_START, end, 1 + round(PER_DECADE * np.log10(end / GRID_START)))


def grid(trainer: Trainer) -> Iterator[dict]:
    """What a cycle from each rate of the grid ends with, a value for each seed."""
    task = trainer.task
    for lr in grid_rates(task.end_lr):
        results, gathered = [], []
        for seed in GRID_SEEDS:
            losses = trainer.run(seed, cosine_cycle(lr, task.steps))
            diverged = not np.isfinite(losses[-1])
            results.append((DIVERGED, 0.0) if diverged else trainer.evaluate())
            if normalizers_of(trainer.model):
                gather_statistics(trainer.model, in_batches(trainer.train[0]))
                gathered.append(DIVERGED if diverged else trainer.evaluate()[0])
        val_loss, val_acc = zip(*results, strict=True)
        point = {
            "lr": float(f"{lr:.6g}"),
            "val_loss": [round(v, 6) for v in val_loss],
            "val_acc": [round(v, 5) for v in val_acc],
        }
        yield {**point, "val_loss_gathered": [round(v, 6) for v in gathered]} if gathered else point


def record(task: Task) -> dict:
    """Everything recorded of one task, in the format of one file."""
    trainer = Trainer(task)
    return {
        "data": task.data,
        "model": task.model,
        "optimizer": task.optimizer,
        "batch": task.batch_size,
        "curves": list(sweeps(trainer)),
        "grid": list(grid(trainer)),
    }


def summary(recorded: dict) -> str:
    """Untrained loss, best rate and loss, and how far the two seeds are apart there."""
    points = recorded["grid"]
    best = min(points, key=lambda point: np.mean(point["val_loss"]))
    spread = abs(best["val_loss"][0] - best["val_loss"][1])
    untrained, loss = np.mean(points[0]["val_loss"]), np.mean(best["val_loss"])
    return f"untrained {untrained:.4g}, best {loss:.4g} at {best['lr']:.3g}, seeds {spread:.2g} apart"


def parse_args() -> argparse.Namespace:
    """The command line, with `tasks`: those to choose from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=("dev", "report", "all"), default="all")
    parser.add_argument("--task", metavar="NAME", help="only the task of this name")
    parser.add_argument(
        "--out", type=Path, default=RESULTS, metavar="DIR", help="dev tasks go to DIR/dev (default: %(default)s)"
    )
    parser.add_argument("--mnist", type=Path, metavar="PATH", help="an mnist.npz; adds a dev task")
    args = parser.parse_args()
    args.tasks = [*TASKS, *([mnist_task(args.mnist)] if args.mnist else [])]
    if args.task and args.task not in (names := [task.name for task in args.tasks]):
        parser.error(f"--task must be one of {', '.join(names)}. Received: {args.task}")
    return args


def main() -> None:
    """Records what is not recorded yet."""
    args = parse_args()
    # One thread an operation: these models are too small to gain from more, and runs repeat exactly.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    for task in args.tasks:
        path = (args.out / "dev" if task.split == "dev" else args.out) / f"{task.name}.json"
        if path.exists() or (args.task or task.name) != task.name or args.split not in ("all", task.split):
            continue
        started = time.perf_counter()
        recorded = record(task)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(recorded))
        keras.backend.clear_session()
        print(f"{task.name:48s} {time.perf_counter() - started:5.0f} s  {summary(recorded)}", flush=True)


if __name__ == "__main__":
    main()
