#!/usr/bin/env python3
"""Test error of a snapshot ensemble, of averaged weights, and of single models, from the same trainings on MNIST.

    python benchmarks/ensembles.py --data PATH/TO/mnist.npz [--seeds 0 1 2] [--quick]

The method's CNN with Adadelta, trained on 54,000 images for 12 epochs in cosine cycles between the bounds that a
range test finds on it, in four cycles of three epochs (the snapshots). "Single best" is the end of a cycle with the
lowest validation loss; the test set decides nothing.

Each seed's figures go to `benchmarks/results/ensembles.json` when they are known, and those that are there are not
worked out again: the command can be stopped and repeated. `--quick` trains on 2,000 images, tests on 1,000, and writes
to `ensembles-quick.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
from range_test import BATCH, method_cnn

import autolr
from autolr.cycle_ends import snapshot_paths
from autolr.ensemble import averaged_weights, snapshot_ensemble
from autolr.files import write_atomically

RESULTS = Path(__file__).parent / "results"
EPOCHS, CYCLE = 12, 3
HELD_OUT = 0.1


def load(path: Path, quick: bool) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images as floats and labels: `train`, `validation` (the last tenth of the training set) and `test`."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    sizes = {"train": 2000 if quick else None, "test": 1000 if quick else None}
    found = {
        name: (
            arrays[f"x_{name}"][:size, ..., None].astype("float32") / 255,
            arrays[f"y_{name}"][:size].astype("int32"),
        )
        for name, size in sizes.items()
    }
    x, y = found["train"]
    cut = round(len(x) * (1 - HELD_OUT))
    return {"train": (x[:cut], y[:cut]), "validation": (x[cut:], y[cut:]), "test": found["test"]}


def compiled(seed: int) -> keras.Model:
    """A fresh model."""
    keras.utils.set_random_seed(seed)
    model = method_cnn()
    model.compile("adadelta", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def score(model: keras.Model, data: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Validation loss and test error in percent."""
    validation = model.evaluate(*data["validation"], batch_size=1000, verbose=0)
    test = model.evaluate(*data["test"], batch_size=1000, verbose=0)
    return {"val_loss": float(validation[0]), "test_error": round(100 * (1 - float(test[1])), 3)}


def run(seed: int, data: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """All figures of a seed."""
    began = time.perf_counter()
    model = compiled(seed)
    bounds = autolr.range_test(model, *data["train"], batch_size=BATCH).bounds()
    training = {"batch_size": BATCH, "epochs": EPOCHS, "validation_data": data["validation"], "verbose": 0}
    with tempfile.TemporaryDirectory() as folder:
        cycles = autolr.SGDRScheduler(
            bounds.min_lr, bounds.max_lr, cycle_length=CYCLE, mult_factor=1, snapshot_folder=folder
        )
        model.fit(*data["train"], callbacks=[cycles], **training)
        ends = [score(averaged_weights(model, [path]), data) for path in snapshot_paths(folder)]
        found: dict[str, Any] = {
            "bounds": [bounds.min_lr, bounds.max_lr, bounds.status],
            "ends of cycles": ends,
            "single best": min(ends, key=lambda end: end["val_loss"]),
        }
        for last in (3, 4):
            found[f"ensemble of {last}"] = score(snapshot_ensemble(model, folder, last=last), data)
            found[f"averaged weights of {last}"] = score(averaged_weights(model, folder, last=last), data)
    found["seconds"] = round(time.perf_counter() - began)
    return found


def show(results: dict[str, Any]) -> None:
    """Print a table in Markdown."""
    seeds = sorted(results, key=int)
    names = [name for name, value in results[seeds[-1]].items() if isinstance(value, dict)]
    print(f"\n| test error, % | mean | {' | '.join(f'seed {seed}' for seed in seeds)} |")
    print("|---|---|" + "---|" * len(seeds))
    for name in names:
        errors = [results[seed][name]["test_error"] for seed in seeds]
        print(f"| {name} | {np.mean(errors):.3f} | {' | '.join(f'{error:.2f}' for error in errors)} |")


def main() -> None:
    """Work out what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="MNIST as Keras's `mnist.npz`")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    parser.add_argument("--quick", action="store_true", help="a small part of the data, to see that all works")
    options = parser.parse_args()
    path = RESULTS / ("ensembles-quick.json" if options.quick else "ensembles.json")
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    data = load(options.data, options.quick)
    seeds = [str(seed) for seed in options.seeds]
    for seed in seeds:
        if seed not in results:
            results[seed] = run(int(seed), data)
            write_atomically(path, json.dumps(results, indent=1))
            print(f"seed {seed}: {results[seed]['seconds']} s", flush=True)
    show(results)


if __name__ == "__main__":
    main()
