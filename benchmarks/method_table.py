#!/usr/bin/env python3
"""The table of the method's source, with several seeds: the same CNN and recipe on the full MNIST.

    python benchmarks/method_table.py --data PATH/TO/mnist.npz [--seeds 0 1 2 3 4] [--arms sgdr constant] [--quick]

54,000 images for training, 6,000 for validation, Adadelta, batches of 128, 8 epochs for every arm: two cycles of the
method's, 3 and 5 epochs long, and as many as its constant rate needed for its best. The epoch is chosen by its
validation loss, and its weights are tested. Each training leaves a file in `benchmarks/results/method_table/` and is
not run again: the command can be stopped and repeated. An epoch takes a minute on one core. `--quick` takes 2,000
images, and writes to `method_table-quick/`. `--table` shows what is there.
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
from documents import fill
from ensembles import load, score
from range_test import BATCH, method_cnn
from scipy import stats

import autolr
from autolr.budget import TAIL_AVERAGE, WARMUP
from autolr.ensemble import snapshot_ensemble
from autolr.records import write_atomically

RESULTS = Path(__file__).parent / "results"
EPOCHS = 8
METHOD = {"cycle_length": 3, "mult_factor": 1.5, "lr_decay": 0.9}
ARMS = {
    "constant": "constant 1.0, the default at the time",
    "default": "constant 0.001, Keras's default now",
    "sgdr": "range test + SGDR, the method to the letter",
    "tuner": "range test + SGDR as the tuners train: with warm-up and averaged ends of cycles",
    "plateau": "1.0 and `ReduceLROnPlateau` (halved after an epoch without a better val_loss)",
    "one_cycle": "range test + one-cycle",
}
CYCLED = ("sgdr", "tuner")
ENSEMBLE = "the same, ensemble of both cycles' ends"


def run(arm: str, seed: int, data: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """Train once; what the table says of it."""
    began = time.perf_counter()
    keras.utils.set_random_seed(seed)
    model = method_cnn()
    rate = {"constant": 1.0, "plateau": 1.0}.get(arm, 0.001)
    model.compile(keras.optimizers.Adadelta(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    found: dict[str, Any] = {}
    callbacks: list[keras.callbacks.Callback] = []
    with tempfile.TemporaryDirectory() as folder:
        if arm in (*CYCLED, "one_cycle"):
            test = autolr.range_test(model, *data["train"], batch_size=BATCH)
            bounds = test.bounds()
            found = {"bounds": [bounds.min_lr, bounds.max_lr, bounds.status], "range_test_steps": test.steps_spent}
            how: dict[str, Any] = {"cycle_length": EPOCHS, "shape": "one_cycle"}
            if arm in CYCLED:
                how = {**METHOD, "snapshot_folder": folder}
            if arm == "tuner":  # fitted to 8 epochs, the cycles are the method's own, of 3 and 5
                how |= {"fit_budget": True, "warmup": WARMUP, "tail_average": TAIL_AVERAGE}
            callbacks = [autolr.SGDRScheduler(bounds.min_lr, bounds.max_lr, restore_weights=False, **how)]
        elif arm == "plateau":
            callbacks = [keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=1)]
        best = Path(folder) / "best.weights.h5"
        callbacks.append(keras.callbacks.ModelCheckpoint(best, "val_loss", save_best_only=True, save_weights_only=True))
        history = model.fit(
            *data["train"],
            batch_size=BATCH,
            epochs=EPOCHS,
            validation_data=data["validation"],
            verbose=0,
            callbacks=callbacks,
        ).history
        if arm in CYCLED:
            found["ensemble"] = score(snapshot_ensemble(model, folder), data)
        model.load_weights(best)
        found |= score(model, data)
    at = int(np.argmin(history["val_loss"]))
    found |= {
        "best_epoch": at + 1,
        "best_val_accuracy": max(history["val_accuracy"]),
        "val_losses": history["val_loss"],
    }
    return {**found, "seconds": round(time.perf_counter() - began)}


def table(folder: Path = RESULTS / "method_table") -> str:
    """The table in Markdown: means and standard deviations over seeds, and paired tests."""
    results: dict[str, dict[str, Any]] = {}  # by seed, then by arm
    for path in sorted(folder.glob("*.json")):
        arm, _, number = path.stem.rpartition("-")
        results.setdefault(number, {})[arm] = json.loads(path.read_text(encoding="utf-8"))
    rows: list[tuple[str, dict[str, dict[str, Any]]]] = []
    for arm, name in ARMS.items():
        its = {seed: arms[arm] for seed, arms in results.items() if arm in arms}
        rows.append((name, its))
        if arm in CYCLED:
            rows.append((ENSEMBLE, {seed: found["ensemble"] for seed, found in its.items()}))
    constant = rows[0][1]
    lines = [
        "| rate | seeds | test error, % | ÷ constant 1.0 | paired p | val_loss | best val. accuracy, % | best epoch |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, its in rows:
        if not its:
            continue
        errors = np.array([found["test_error"] for found in its.values()])
        losses = np.array([found["val_loss"] for found in its.values()])
        spread = f" ± {errors.std(ddof=1):.3f}" if len(errors) > 1 else ""
        both = [seed for seed in its if seed in constant]
        ours, theirs = ([table[seed]["test_error"] for seed in both] for table in (its, constant))
        ratio = f"{np.mean(ours) / np.mean(theirs):.2f}" if both else "-"
        p = f"{stats.ttest_rel(ours, theirs).pvalue:.3f}" if len(both) > 1 and ours != theirs else "-"
        best = [found for found in its.values() if "best_epoch" in found]  # an ensemble has none
        accuracy = f"{np.mean([100 * found['best_val_accuracy'] for found in best]):.2f}" if best else "-"
        epoch = f"{np.mean([found['best_epoch'] for found in best]):.1f}" if best else "-"
        lines.append(
            f"| {name} | {len(errors)} | {errors.mean():.3f}{spread} | {ratio} | {p} | {losses.mean():.4f} | "
            f"{accuracy} | {epoch} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Work out what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="MNIST as Keras's `mnist.npz`")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="(default: 0 to 4)")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--quick", action="store_true", help="a small part of the data, to see that all works")
    parser.add_argument("--table", action="store_true", help="train nothing, show what is there")
    options = parser.parse_args()
    folder = RESULTS / f"method_table{'-quick' * options.quick}"
    if not options.table:
        if options.data is None:
            parser.error("--data is needed for training")
        data = load(options.data, options.quick)
        folder.mkdir(parents=True, exist_ok=True)
        for seed in options.seeds:
            for arm in options.arms:
                path = folder / f"{arm}-{seed}.json"
                if not path.exists():
                    found = run(arm, seed, data)
                    write_atomically(path, json.dumps(found, indent=1) + "\n")
                    print(f"seed {seed}, {arm}: {found['test_error']} %", flush=True)
    print(table(folder))
    if not options.quick:
        fill("results.md", {"python benchmarks/method_table.py --table": table(folder)})


if __name__ == "__main__":
    main()
