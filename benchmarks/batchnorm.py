#!/usr/bin/env python3
"""What the moving statistics of BatchNormalization cost a short training, and what is left of that after averaging.

    python benchmarks/batchnorm.py            # about ten minutes, resumable; then the table
    python benchmarks/batchnorm.py --table    # of what is recorded

The dev tasks with BatchNormalization, each trained for two epochs on one cosine between bounds from a range test: as
Keras leaves the model, with averaged ends (`tail_average`, a tenth), and each with its statistics gathered anew from
the training data, which is what the weights are worth.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from documents import fill

import autolr
from autolr.batchnorm import gather_statistics, normalizers_of
from autolr.files import write_atomically
from autolr.trial_values import TAIL_AVERAGE, WARMUP

RESULTS = Path(__file__).parent / "results" / "batchnorm.json"
EPOCHS, SEEDS = 2, (0, 1, 2)
WAYS = {"plain": 0.0, "averaged": TAIL_AVERAGE}


def train(task: object, seed: int) -> dict[str, list[float]]:
    """Validation loss in each way: as trained, and with statistics gathered anew."""
    from record_grids import in_batches

    data = task.load()
    low, high = autolr.range_test(task.build(seed), data.x_train, data.y_train, batch_size=task.batch_size).bounds()
    losses = {}
    for way, share in WAYS.items():
        model = task.build(seed)
        schedule = autolr.SGDRScheduler(
            low, high, cycle_length=EPOCHS, fit_budget=True, warmup=WARMUP, tail_average=share
        )
        model.fit(
            data.x_train, data.y_train, batch_size=task.batch_size, epochs=EPOCHS, callbacks=[schedule], verbose=0
        )
        as_trained = model.evaluate(data.x_val, data.y_val, batch_size=500, verbose=0, return_dict=True)["loss"]
        gather_statistics(model, in_batches(data.x_train))
        gathered = model.evaluate(data.x_val, data.y_val, batch_size=500, verbose=0, return_dict=True)["loss"]
        losses[way] = [as_trained, gathered]
    return losses


def record() -> None:
    """What is missing."""
    import keras
    from tasks import TASKS

    recorded = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for task in TASKS:
        if task.split != "dev" or not normalizers_of(task.build(0)) or task.name in recorded:
            continue
        steps = EPOCHS * -(-len(task.load().x_train) // task.batch_size)
        recorded[task.name] = {"steps": steps, "losses": [train(task, seed) for seed in SEEDS]}
        write_atomically(RESULTS, json.dumps(recorded, indent=1) + "\n")
        keras.backend.clear_session()
        print(task.name, flush=True)


def table() -> str:
    """Markdown: a row for each task, losses divided by what the plainly trained weights are worth."""
    lines = [
        "| task | steps | moving statistics | averaged ends | averaged ends, gathered anew |",
        "|---|---|---|---|---|",
    ]
    ratios = []
    for name, trained in sorted(json.loads(RESULTS.read_text()).items()):
        losses = {way: np.array([seed[way] for seed in trained["losses"]]) for way in WAYS}
        shown = losses["plain"][:, 0], losses["averaged"][:, 0], losses["averaged"][:, 1]
        row = [float(np.median(loss / losses["plain"][:, 1])) for loss in shown]
        ratios.append(row)
        lines.append(f"| {name} | {trained['steps']} | " + " | ".join(f"{ratio:.2f}" for ratio in row) + " |")
    lines.append("| median | | " + " | ".join(f"{value:.2f}" for value in np.median(ratios, axis=0)) + " |")
    return "\n".join(lines)


def main() -> int:
    """Record what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="record nothing")
    if not parser.parse_args().table:
        record()
    if not RESULTS.exists():
        print("Nothing is recorded yet: run without --table first.", file=sys.stderr)
        return 1
    print(table())
    fill("schedules.md", {"python benchmarks/batchnorm.py": table()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
