#!/usr/bin/env python3
"""Does autolr pay? Whole searches with and without it, at equal numbers of optimizer steps.

    python benchmarks/search.py                                   # everything: many hours
    python benchmarks/search.py --data fashion --tuners random --arms autolr cosine --seeds 0 1
    python benchmarks/search.py --table                           # what is there so far, and docs/img/searches.png
    python benchmarks/search.py --pixels 28 --arms autolr cosine constant

A search tries CNN variants with four optimizers, on 4,000 images for training and 1,000 for validation; the test
images decide nothing. A trial is 9 epochs of 125 steps. Images are shrunk to 14 by 14 pixels, a quarter of the
arithmetic; `--pixels 28` leaves them as they are. Each search runs in a process of its own and leaves a file in
`benchmarks/results/search/` (or `search-28/`); searches that are there are not run again, so the command can be stopped
and repeated.
`--quick` makes tiny searches, to see that all works, in `benchmarks/results/search-quick/`.

MNIST is the sample of `examples/data`, Fashion-MNIST comes from Debian's package `dataset-fashion-mnist`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

RESULTS = Path(__file__).parent / "results"
SAMPLE = Path(__file__).parents[1] / "examples" / "data" / "mnist_sample.npz"
FULL = {"train": 4000, "validation": 1000, "test": 10_000, "batch": 32, "epochs": 9, "trials": 8}
QUICK = {"train": 256, "validation": 64, "test": 200, "batch": 32, "epochs": 3, "trials": 2}
MAIN_ARMS = ["autolr", "cosine", "constant", "default"]
PART_ARMS = ["one_cycle", "held", "unfitted", "cold", "unaveraged", "wide"]
MOST_IN_ENSEMBLE = 5


def load(name: str, sizes: dict[str, int], pixels: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images and labels for training, validation and test."""
    from task_data import fashion

    if name == "fashion":
        data = fashion(60_000, 10_000)
        arrays = {"train": (data.x_train, data.y_train), "test": (data.x_val, data.y_val)}
    else:
        with np.load(SAMPLE, allow_pickle=False) as file:
            arrays = {
                part: (file[f"x_{part}"][..., None].astype("float32") / 255, file[f"y_{part}"].astype("int32"))
                for part in ("train", "test")
            }
    order = np.random.default_rng(0).permutation(len(arrays["train"][0]))
    train, held_out = order[: sizes["train"]], order[sizes["train"] :][: sizes["validation"]]
    parts = {
        "train": [array[train] for array in arrays["train"]],
        "validation": [array[held_out] for array in arrays["train"]],
        "test": [array[: sizes["test"]] for array in arrays["test"]],
    }
    return {part: (shrink(x, pixels), y) for part, (x, y) in parts.items()}


def shrink(images: np.ndarray, pixels: int) -> np.ndarray:
    """Images of so many pixels each way, every pixel the mean of those it takes the place of."""
    by = images.shape[1] // pixels
    return images.reshape(len(images), pixels, by, pixels, by, 1).mean(axis=(2, 4))


def run(job: dict[str, Any]) -> dict[str, Any]:
    """One search, and the test error of every trial's best epoch."""
    import keras
    from search_arms import make_tuner

    import autolr
    from autolr.best_ends import best_ends
    from autolr.trial import SNAPSHOTS

    sizes = QUICK if job["quick"] else FULL
    data = load(job["data"], sizes, job["pixels"])
    keras.utils.set_random_seed(job["seed"])
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tuner, spent = make_tuner(
            job["arm"],
            job["tuner"],
            trials=sizes["trials"],
            epochs=sizes["epochs"],
            steps_per_epoch=-(-sizes["train"] // sizes["batch"]),
            pixels=job["pixels"],
            seed=job["seed"],
            folder=Path(folder),
        )
        tuner.search(
            *data["train"],
            validation_data=data["validation"],
            batch_size=sizes["batch"],
            epochs=sizes["epochs"],
            verbose=0,
        )
        seconds = time.perf_counter() - began
        x, y = data["test"]
        trials, predictions = [], []
        for number in tuner.oracle.start_order:
            trial = tuner.oracle.trials[number]
            scored = trial.score is not None
            model = tuner.load_model(trial) if scored else None
            predicted = model.predict(x, batch_size=500, verbose=0) if scored else np.zeros((len(x), 10), "float32")
            trials.append(
                {
                    "values": trial.hyperparameters.values,
                    "status": trial.status,
                    "steps": spent.get(trial.trial_id, 0),
                    "validation_error": round(100 * (1 - trial.score), 3) if scored else 100.0,
                    "test_error": test_error(predicted, y) if scored else 100.0,
                }
            )
            its = Path(tuner.get_trial_dir(trial.trial_id))
            if scored and (ends := best_ends(its, its / SNAPSHOTS)):
                predicted = autolr.snapshot_ensemble(model, ends).predict(x, batch_size=500, verbose=0)
            predictions.append(predicted)
    return {**job, "seconds": round(seconds), "trials": trials, "ensembles": ensembles(trials, predictions, y)}


def ensembles(trials: list[dict[str, Any]], predictions: list[np.ndarray], y: np.ndarray) -> list[list[float]]:
    """After each trial, the test errors of the best 1 to 5 trials' averaged predictions, chosen by validation error.

    A trial of autolr gives the average of its cycles' best ends, what `get_best_ensemble(num_trials=...)` does; one of
    a rival its best epoch. Of trials of Hyperband that go on from each other, the best counts, as there.
    """
    from autolr.best_ends import one_of_each_chain

    parents = {
        i: int(its) if (its := trial["values"].get("tuner/trial_id")) else None for i, trial in enumerate(trials)
    }
    validation = np.array([trial["validation_error"] for trial in trials])
    errors = []
    for ended in range(1, len(trials) + 1):
        best = one_of_each_chain(np.argsort(validation[:ended], kind="stable").tolist(), parents)[:MOST_IN_ENSEMBLE]
        sums = np.cumsum([predictions[i] for i in best], axis=0)
        errors.append([test_error(total, y) for total in sums])
    return errors


def test_error(predicted: np.ndarray, y: np.ndarray) -> float:
    """In percent."""
    return round(100 * float(np.mean(predicted.argmax(axis=1) != y)), 3)


def main() -> None:
    """Run what is missing, and say how far it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=["mnist", "fashion"], default=["mnist", "fashion"])
    parser.add_argument("--tuners", nargs="+", default=["random", "bayesian", "hyperband"])
    parser.add_argument("--arms", nargs="+", default=[*MAIN_ARMS, *PART_ARMS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--pixels", type=int, choices=[14, 28], default=14, help="size of the images (default: 14)")
    parser.add_argument("--quick", action="store_true", help="tiny searches, to see that all works")
    parser.add_argument("--table", action="store_true", help="only the tables and the picture, of what is there")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(run(json.loads(options.job))))
        return
    kind = "-quick" if options.quick else "" if options.pixels == 14 else f"-{options.pixels}"
    folder = RESULTS / f"search{kind}"
    if not options.table:
        folder.mkdir(parents=True, exist_ok=True)
        # Seeds outermost: stopped early, every arm has been run equally often.
        jobs = [
            {"data": data, "tuner": tuner, "arm": arm, "seed": seed, "pixels": options.pixels, "quick": options.quick}
            for seed in options.seeds
            for tuner in options.tuners
            for data in options.data
            for arm in options.arms
            if tuner == "random" or arm in MAIN_ARMS  # one tuner is enough to see what the parts buy
        ]
        for number, job in enumerate(jobs, 1):
            path = folder / f"{job['data']}-{job['tuner']}-{job['arm']}-{job['seed']}.json"
            if not path.exists():
                search_in_a_process(job, path)
                print(f"{number} of {len(jobs)}: {path.stem}", flush=True)
    from search_results import show

    show(folder)


def search_in_a_process(job: dict[str, Any], path: Path) -> None:
    """Memory that Keras keeps of its models goes when the process does."""
    from autolr.files import write_atomically

    command = [sys.executable, __file__, "--job", json.dumps(job)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    write_atomically(path, json.dumps(json.loads(done.stdout.splitlines()[-1]), indent=1) + "\n")


if __name__ == "__main__":
    main()
