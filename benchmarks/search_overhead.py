"""What AutoLR costs a search: time and memory, beside the same search of Keras Tuner's.

    python benchmarks/search_overhead.py            # time, memory, and what reusing bounds would gain
    python benchmarks/search_overhead.py --part time --repeats 5

*Time* is an AutoLR search divided by what Keras Tuner's needs for as many steps: its own search, and the range tests'
steps at the price of a training step, which is measured as the difference of searches of E and 2E epochs. CPU time is
the fairer figure on a busy machine, wall time is given beside it. *Memory* is the growth of the process's resident
memory from the 5th to the 30th trial, per trial. *Reuse* repeats one architecture under nine schedules, with
`reuse_bounds` off and on: how much time it saves, and how far apart bounds measured again and again lie. The goal for
the two ratios is 1.10 or less.

Each search runs in a process of its own. Results go to `benchmarks/results/search_overhead.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "search_overhead.json"
TIME_EPOCHS, TIME_TRIALS, MEMORY_TRIALS, WARM_TRIALS = 8, 4, 30, 5


def main() -> None:
    """Run the parts asked for and write what they measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["time", "memory", "reuse"], action="append")
    parser.add_argument("--repeats", type=int, default=3, help="searches of each kind for the time (default 3)")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(search(**json.loads(options.job))))
        return
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for part in options.part or ["time", "memory", "reuse"]:
        results[part] = {"time": measure_time, "memory": measure_memory, "reuse": measure_reuse}[part](options.repeats)
        print(part, json.dumps(results[part], indent=1), flush=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def measure_time(repeats: int) -> dict[str, Any]:
    """AutoLR's search over Keras Tuner's with the range tests' steps counted."""
    ratios: dict[str, list[float]] = {"cpu": [], "wall": []}
    for _ in range(repeats):
        plain = job(auto_lr=False, trials=TIME_TRIALS, epochs=TIME_EPOCHS)
        double = job(auto_lr=False, trials=TIME_TRIALS, epochs=2 * TIME_EPOCHS)
        ours = job(auto_lr=True, trials=TIME_TRIALS, epochs=TIME_EPOCHS)
        for clock, values in ratios.items():
            step = max(0.0, double[clock] - plain[clock]) / (double["steps"] - plain["steps"])
            values.append(ours[clock] / (plain[clock] + ours["tested"] * step))
    medians = {f"{clock}_ratio": statistics.median(values) for clock, values in ratios.items()}
    return {**medians, "all": ratios, "tested_share": ours["tested"] / ours["steps"]}


def measure_memory(_: int) -> dict[str, Any]:
    """Growth per trial over Keras Tuner's own."""
    plain, ours = (job(auto_lr=which, trials=MEMORY_TRIALS, epochs=2) for which in (False, True))
    return {
        "ratio": ours["growth"] / plain["growth"],
        "bytes_per_trial": ours["growth"],
        "keras_tuner_bytes_per_trial": plain["growth"],
    }


def measure_reuse(_: int) -> dict[str, Any]:
    """What sharing bounds saves, and what it shares."""
    off, on = (job(auto_lr=True, trials=9, epochs=TIME_EPOCHS, schedules=True, reuse=which) for which in (False, True))
    measured = off["max_lrs"]
    return {
        "cpu_ratio": on["cpu"] / off["cpu"],
        "steps_saved": (off["tested"] - on["tested"]) / (off["steps"] + off["tested"]),
        "max_lr_measured_again": measured,
        "max_lr_largest_over_smallest": max(measured) / min(measured),
        "best_loss": {"off": off["best"], "on": on["best"]},
    }


def job(**arguments: Any) -> dict[str, Any]:
    """A search in a process of its own."""
    command = [sys.executable, __file__, "--job", json.dumps(arguments)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def search(*, auto_lr: bool, trials: int, epochs: int, schedules: bool = False, reuse: bool = False) -> dict[str, Any]:
    """Search, after one trial that is not measured, and tell what it took."""
    import keras
    import keras_tuner as kt
    import numpy as np

    import autolr
    from autolr.records import TrialRecord

    rng = np.random.default_rng(0)
    y = np.arange(2048) % 8
    x = (np.eye(32)[y] + rng.normal(size=(2048, 32))).astype("float32")

    def build(hp: Any) -> Any:
        units = 64 if schedules else hp.Int("units", 40, 99)
        layers = [
            keras.layers.Dense(units, "relu"),
            keras.layers.Dense(units, "relu"),
            keras.layers.Dense(8, "softmax"),
        ]
        model = keras.Sequential([keras.Input((32,)), *layers])
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    hp = kt.HyperParameters()
    if not schedules:
        for name, value in {"cycle_length": 2, "mult_factor": 1.5, "lr_decay": 0.9}.items():
            hp.Fixed(name, value)
    marks: list[tuple[float, float, int]] = []

    class Marked(kt.RandomSearch):
        def on_trial_end(self, trial: Any) -> None:
            super().on_trial_end(trial)
            marks.append((time.process_time(), time.perf_counter(), resident_memory()))

    options = {"reuse_bounds": reuse} if auto_lr else {}
    with tempfile.TemporaryDirectory() as folder:
        tuner = (autolr.with_auto_lr(Marked) if auto_lr else Marked)(
            build, "val_loss", max_trials=trials + 1, seed=1, hyperparameters=hp, directory=folder, **options
        )
        tuner.search(x, y, validation_split=0.125, epochs=epochs, batch_size=32, verbose=0)
        measured = list(tuner.oracle.trials.values())[1:]
        records = [TrialRecord.read(tuner.get_trial_dir(trial.trial_id)) for trial in measured] if auto_lr else []
        best = tuner.oracle.get_best_trials(1)[0].score
    # From the end of the trial that is not measured.
    return {
        "cpu": marks[-1][0] - marks[0][0],
        "wall": marks[-1][1] - marks[0][1],
        "growth": (marks[-1][2] - marks[WARM_TRIALS][2]) / (trials - WARM_TRIALS) if trials > WARM_TRIALS else 0,
        "steps": trials * epochs * 56,
        "tested": sum(record.range_test["steps_spent"] for record in records if record.range_test),
        "max_lrs": [record.bounds["max_lr"] for record in records],
        "best": best,
    }


def resident_memory() -> int:
    """Bytes of this process in memory now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
