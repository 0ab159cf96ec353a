"""What AutoLR costs a search: time and memory, beside the same search of Keras Tuner's.

    python benchmarks/search_overhead.py            # time, memory, and what reusing bounds would gain
    python benchmarks/search_overhead.py --part time --trials 40

*Time* is a trial of AutoLR's divided by Keras Tuner's own with the range test's steps counted as training: the price of
a step is what a trial on twice the training data takes longer, divided by the steps. The three searches take turns, a
trial each, since a machine's speed changes within minutes. CPU time is the fairer figure on a busy machine, wall time
is given beside it. *Memory* is the growth of the process's resident memory from the 5th to the 30th trial, per trial.
The goal for these ratios is 1.10 or less. *Reuse* repeats one architecture under nine schedules, with `reuse_bounds`
off and on: how much time it saves, and how far apart bounds measured again and again lie.

Each search runs in a process of its own, and its first trial is not measured. Results go to
`benchmarks/results/search_overhead.json`.
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

from autolr.files import write_atomically

RESULTS = Path(__file__).parent / "results" / "search_overhead.json"
EPOCHS, STEPS_PER_EPOCH, VALIDATION_STEPS, BATCH = 8, 56, 8, 32
STEPS = EPOCHS * STEPS_PER_EPOCH  # of a trial
MEMORY_TRIALS, WARM_TRIALS = 30, 5


def main() -> None:
    """Run the parts asked for and write what they measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["time", "memory", "reuse"], action="append")
    parser.add_argument("--trials", type=int, default=20, help="trials of each kind for the time (default 20)")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not 5 <= options.trials <= 40:  # of few trials all is noise, and the space has some 60
        parser.error("--trials must be from 5 to 40")
    if options.job:
        print(json.dumps(search(**json.loads(options.job))))
        return
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for part in options.part or ["time", "memory", "reuse"]:
        results[part] = {"time": measure_time, "memory": measure_memory, "reuse": measure_reuse}[part](options.trials)
        print(part, json.dumps(results[part], indent=1), flush=True)
    write_atomically(RESULTS, json.dumps(results, indent=1) + "\n")


def measure_time(trials: int) -> dict[str, Any]:
    """AutoLR's trials over Keras Tuner's with the range tests' steps counted."""
    kinds: dict[str, dict[str, Any]] = {"plain": {}, "double": {"times_the_data": 2}, "ours": {"auto_lr": True}}
    searches = {kind: start(**options, trials=trials, in_turns=True) for kind, options in kinds.items()}
    order, turns = list(searches), []
    try:
        for process in searches.values():
            read(process)  # the first trial is over
        for _ in range(trials):
            turns.append({kind: next_turn(searches[kind]) for kind in order})
            order.append(order.pop(0))
        tested = {kind: finish(process)["tested"] for kind, process in searches.items()}["ours"]
    finally:
        for process in searches.values():
            process.kill()
    ratios: dict[str, list[float]] = {}
    for clock in ("cpu", "wall"):
        # One price for all: the difference of two trials' times is mostly noise.
        step = statistics.median(turn["double"][clock] - turn["plain"][clock] for turn in turns) / STEPS
        ratios[clock] = [
            turn["ours"][clock] / (turn["plain"][clock] + steps * step)
            for turn, steps in zip(turns, tested, strict=True)
        ]
    medians = {f"{clock}_ratio": statistics.median(values) for clock, values in ratios.items()}
    share = statistics.mean(tested) / STEPS
    return {**medians, "all": ratios, "seconds": turns, "tested": tested, "tested_share": share}


def measure_memory(_: int) -> dict[str, Any]:
    """Growth per trial over Keras Tuner's own."""
    plain, ours = (finish(start(auto_lr=which, trials=MEMORY_TRIALS, epochs=2)) for which in (False, True))
    return {
        "ratio": ours["growth"] / plain["growth"],
        "bytes_per_trial": ours["growth"],
        "keras_tuner_bytes_per_trial": plain["growth"],
    }


def measure_reuse(_: int) -> dict[str, Any]:
    """What sharing bounds saves, and what it shares."""
    off, on = (finish(start(auto_lr=True, trials=9, schedules=True, reuse=which)) for which in (False, True))
    tested = {"off": sum(off["tested"]), "on": sum(on["tested"])}
    measured = off["max_lrs"]
    return {
        "cpu_ratio": on["cpu"] / off["cpu"],
        "steps_saved": (tested["off"] - tested["on"]) / (off["steps"] + tested["off"]),
        "max_lr_measured_again": measured,
        "max_lr_largest_over_smallest": max(measured) / min(measured),
        "best_loss": {"off": off["best"], "on": on["best"]},
    }


def start(**arguments: Any) -> subprocess.Popen[str]:
    """Begin a search in a process of its own."""
    command = [sys.executable, __file__, "--job", json.dumps(arguments)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def next_turn(process: subprocess.Popen[str]) -> dict[str, float]:
    """Let a search that takes turns run its next trial, and read what it took."""
    process.stdin.write("\n")
    process.stdin.flush()
    return read(process)


def read(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next that a search tells."""
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"a search failed: {process.args[-1]}")
    return json.loads(line)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a search's end, and read what it took in all."""
    process.stdin.close()
    return read(process)


def search(
    *,
    trials: int,
    epochs: int = EPOCHS,
    times_the_data: int = 1,
    auto_lr: bool = False,
    schedules: bool = False,
    reuse: bool = False,
    in_turns: bool = False,
) -> dict[str, Any]:
    """Search, and tell what all trials but the first took; in turns, also what each took, waiting for the next turn."""
    import keras
    import keras_tuner as kt
    import numpy as np

    import autolr
    from autolr.records import TrialRecord

    rng = np.random.default_rng(0)
    samples = BATCH * (VALIDATION_STEPS + times_the_data * STEPS_PER_EPOCH)
    y = np.arange(samples) % 8
    x = (np.eye(32)[y] + rng.normal(size=(samples, 32))).astype("float32")
    held_out = BATCH * VALIDATION_STEPS

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
    begun = clocks()
    memory: list[int] = []

    class Marked(kt.RandomSearch):
        def on_trial_end(self, trial: Any) -> None:
            super().on_trial_end(trial)
            memory.append(resident_memory())
            if in_turns:
                print(json.dumps(since(begun)), flush=True)
                sys.stdin.readline()
            if in_turns or len(memory) == 1:
                begun.update(clocks())

    options = {"reuse_bounds": reuse} if auto_lr else {}
    with tempfile.TemporaryDirectory() as folder:
        tuner = (autolr.with_auto_lr(Marked) if auto_lr else Marked)(
            build, "val_loss", max_trials=trials + 1, seed=1, hyperparameters=hp, directory=folder, **options
        )
        validation_data = (x[:held_out], y[:held_out])
        data = {"validation_data": validation_data, "batch_size": BATCH}
        tuner.search(x[held_out:], y[held_out:], **data, epochs=epochs, verbose=0)
        measured = list(tuner.oracle.trials.values())[1:]
        if any(trial.status != "COMPLETED" for trial in measured):
            raise SystemExit("a trial failed")
        records = [TrialRecord.read(tuner.get_trial_dir(trial.trial_id)) for trial in measured] if auto_lr else []
        best = tuner.oracle.get_best_trials(1)[0].score
    return {
        **since(begun),
        "growth": (memory[-1] - memory[WARM_TRIALS]) / (trials - WARM_TRIALS) if trials > WARM_TRIALS else 0,
        "steps": trials * epochs * STEPS_PER_EPOCH,
        "tested": [record.steps_tested or 0 for record in records],
        "max_lrs": [record.bounds["max_lr"] for record in records],
        "best": best,
    }


def clocks() -> dict[str, float]:
    """This process's clocks, in seconds."""
    return {"cpu": time.process_time(), "wall": time.perf_counter()}


def since(begun: dict[str, float]) -> dict[str, float]:
    """Seconds since then, by each clock."""
    return {clock: now - begun[clock] for clock, now in clocks().items()}


def resident_memory() -> int:
    """Bytes of this process in memory now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
