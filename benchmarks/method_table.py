#!/usr/bin/env python3
"""The table of the method's source, with several seeds: the same CNN and recipe on the full MNIST.

    python benchmarks/method_table.py --data PATH/TO/mnist.npz [--seeds 0 1 2 3 4] [--arms sgdr constant] [--quick]
    python benchmarks/method_table.py --data PATH/TO/mnist.npz --epochs 28 --arms constant tuner

54,000 images for training, 6,000 for validation, Adadelta, batches of 128, 16 epochs for every arm: the method's first
three cycles, of 3, 5 and 8 epochs; or 28 with the fourth, of 12. Every epoch is tested; which of them counts is decided
on the validation images, by the loss as in the source, or by the accuracy as the tuners do; or it is the last, as the
source's schedule keeps the latest end of a cycle. In 16 epochs layers compute
in bfloat16 and keep float32 weights (Keras's `mixed_bfloat16`), which takes little more than half of the time where the
processor has instructions for it; in 28 they compute in float32. Each training leaves a file in
`benchmarks/results/method_table/` (or `method_table-28/`) and is not run again: the command can be stopped and
repeated, and several may share the seeds. A training of 16 epochs takes ten minutes on one core that has such
instructions, one of 28 fifty minutes on one that has not (with `TF_ENABLE_ONEDNN_OPTS=1`, which TensorFlow sets by
itself on some processors only). `--quick` takes 2,000 images, and writes to `method_table-quick/`. `--table` shows what
is there, with `--seeds` of these alone.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Collection
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
from autolr.cycle_ends import snapshot_paths
from autolr.ensemble import snapshot_ensemble
from autolr.files import write_atomically
from autolr.trial_values import TAIL_AVERAGE, WARMUP

RESULTS = Path(__file__).parent / "results"
PICTURE = Path(__file__).parents[1] / "docs" / "img" / "method_table.png"
PRECISION = {16: "mixed_bfloat16", 28: "float32"}  # by epochs
EPOCHS = 16
SEEDS = range(5)
SNAPSHOTS = 3  # ends of cycles in an ensemble, as many as the tuners keep
METHOD = {"cycle_length": 3, "mult_factor": 1.5, "lr_decay": 0.9}
CYCLES = {  # of the arms that restart
    "sgdr": METHOD,
    "tuner": METHOD,
    "equal": METHOD | {"mult_factor": 1.0},
    "longer": METHOD | {"cycle_length": 4, "mult_factor": 1.0},
}
ARMS = {
    "constant": "constant 1.0, the default at the time",
    "default": "constant 0.001, Keras's default now",
    "sgdr": "range test + SGDR, the method to the letter",
    "tuner": "range test + SGDR as the tuners train: with warm-up and averaged ends of cycles",
    "equal": "as the tuners train, but in five equal cycles",
    "longer": "as the tuners train, but in four equal cycles",
    "plateau": "1.0 and `ReduceLROnPlateau` (halved after an epoch without a better val_loss)",
    "one_cycle": "range test + one-cycle",
}
ENSEMBLE = "the same, ensemble of its last three cycles' ends"
CHOICES = {"val_loss": min, "val_accuracy": max, "the last": None}  # how the epoch that counts is chosen
ENDS = (3, 8, 16)  # epochs that end a cycle
COLOURS = {"sgdr": "#CC79A7", "tuner": "#0072B2", "plateau": "#009E73", "one_cycle": "#D55E00"}  # a panel for each
GREY = "#8A8A8A"  # the constant rate, in each
TITLES = {
    "sgdr": "the method to the letter",
    "tuner": "as the tuners train",
    "plateau": "1.0 and ReduceLROnPlateau",
    "one_cycle": "range test + one-cycle",
}
TICKS = [0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.5, 2, 2.5]


class TestErrors(keras.callbacks.Callback):
    """Test error after each epoch, in percent. It stands behind the schedule, which may average weights there."""

    def __init__(self, data: tuple[np.ndarray, np.ndarray]) -> None:
        super().__init__()
        self.data, self.errors = data, []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Test."""
        self.errors.append(test_error(self.model, self.data))


def test_error(model: keras.Model, data: tuple[np.ndarray, np.ndarray]) -> float:
    """In percent."""
    return round(100 * (1 - model.evaluate(*data, batch_size=1000, verbose=0, return_dict=True)["accuracy"]), 3)


def run(arm: str, seed: int, data: dict[str, tuple[np.ndarray, np.ndarray]], *, epochs: int) -> dict[str, Any]:
    """Train once; what the table says of it."""
    began = time.perf_counter()
    keras.utils.set_random_seed(seed)
    model = method_cnn()
    rate = {"constant": 1.0, "plateau": 1.0}.get(arm, 0.001)
    model.compile(keras.optimizers.Adadelta(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    found: dict[str, Any] = {}
    callbacks: list[keras.callbacks.Callback] = []
    with tempfile.TemporaryDirectory() as folder:
        if arm in (*CYCLES, "one_cycle"):
            test = autolr.range_test(model, *data["train"], batch_size=BATCH)
            bounds = test.bounds()
            found = {"bounds": [bounds.min_lr, bounds.max_lr, bounds.status], "range_test_steps": test.steps_spent}
            how: dict[str, Any] = {"cycle_length": epochs, "shape": "one_cycle"}
            if arm in CYCLES:
                how = {**CYCLES[arm], "snapshot_folder": folder}
            if arm in CYCLES and arm != "sgdr":  # fitted to 16 or 28 epochs, the cycles are the method's own
                how |= {"fit_budget": True, "warmup": WARMUP, "tail_average": TAIL_AVERAGE}
            callbacks = [autolr.SGDRScheduler(bounds.min_lr, bounds.max_lr, restore_weights=False, **how)]
        elif arm == "plateau":
            callbacks = [keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=1)]
        tested = TestErrors(data["test"])
        callbacks.append(tested)
        history = model.fit(
            *data["train"],
            batch_size=BATCH,
            epochs=epochs,
            validation_data=data["validation"],
            verbose=0,
            callbacks=callbacks,
        ).history
        if arm in CYCLES:
            found["ensembles"] = [
                score(snapshot_ensemble(model, folder, last=last), data)
                for last in range(1, len(snapshot_paths(folder)) + 1)
            ]
            found["ensemble"] = found["ensembles"][:SNAPSHOTS][-1]
    found |= {name: history[name] for name in ("val_loss", "val_accuracy")}
    found["test_errors"] = tested.errors
    return {**found, "seconds": round(time.perf_counter() - began)}


def read(folder: Path, seeds: Collection[int] | None = None) -> dict[str, dict[str, dict[str, Any]]]:
    """What is there, by arm, then by seed; of certain seeds, or of all."""
    results: dict[str, dict[str, Any]] = {arm: {} for arm in ARMS}
    for path in sorted(folder.glob("*.json")):
        arm, _, seed = path.stem.rpartition("-")
        if seeds is None or int(seed) in seeds:
            results[arm][seed] = json.loads(path.read_text(encoding="utf-8"))
    return {arm: its for arm, its in results.items() if its}


def table(folder: Path = RESULTS / "method_table", seeds: Collection[int] | None = None) -> str:
    """The table in Markdown: means and standard deviations over seeds, and paired tests."""
    results = read(folder, seeds)
    lines = [
        "| rate | epoch by | seeds | test error, % | ÷ constant 1.0, by val_loss | paired p "
        "| ÷ constant 1.0, likewise | paired p | val_loss | val_accuracy, % | epoch |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for choice in CHOICES:
        constants = [
            {seed: chosen(found, by) for seed, found in results.get("constant", {}).items()}
            for by in ("val_loss", choice)
        ]
        for arm, its in results.items():
            found_by = {seed: chosen(found, choice) for seed, found in its.items()}
            lines.append(row(ARMS[arm], choice, found_by, constants))
            if arm in CYCLES:
                lines.append(row(ENSEMBLE, "-", {seed: found["ensemble"] for seed, found in its.items()}, constants))
    return "\n".join(lines)


def draw(folder: Path) -> None:
    """Test error by epoch, each arm against the constant rate: means over seeds, and how far the seeds are apart."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    results, epochs, ends = read(folder), np.arange(1, EPOCHS + 1), np.array(ENDS)
    figure, grid = pyplot.subplots(2, 2, figsize=(11, 7.5), layout="constrained", sharex=True, sharey=True)
    for arm, ax in zip(COLOURS, grid.flat, strict=True):
        for its, color, name in (("constant", GREY, "constant 1.0"), (arm, COLOURS[arm], "mean of its seeds")):
            errors = np.array([found["test_errors"] for found in results[its].values()])
            ax.plot(epochs, errors.mean(axis=0), color=color, linewidth=2, label=name)
            ax.fill_between(epochs, errors.min(axis=0), errors.max(axis=0), color=color, alpha=0.2, linewidth=0)
        if arm in CYCLES:
            name = "ends of its cycles" + ", averaged" * (arm != "sgdr")
            ax.plot(ends, errors.mean(axis=0)[ends - 1], "D", color=COLOURS[arm], label=name)
            together = np.mean([found["ensemble"]["test_error"] for found in results[arm].values()])
            ax.axhline(together, color=COLOURS[arm], linestyle=":", label="ensemble of these ends")
        ax.set_title(TITLES[arm], fontsize=11)
        ax.set_yscale("log")
        ax.set_xticks(epochs)
        ax.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
        ax.minorticks_off()
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(fontsize=9, frameon=False, loc="upper right")
    figure.supxlabel("epoch", fontsize=10)
    figure.supylabel("test error, %", fontsize=10)
    figure.savefig(PICTURE, dpi=130)
    pyplot.close(figure)


def chosen(found: dict[str, Any], choice: str) -> dict[str, float]:
    """What the chosen epoch of a training is like."""
    best = CHOICES[choice]
    at = found[choice].index(best(found[choice])) if best else len(found["test_errors"]) - 1
    return {
        "epoch": at + 1,
        "test_error": found["test_errors"][at],
        **{name: found[name][at] for name in ("val_loss", "val_accuracy")},
    }


def row(name: str, choice: str, its: dict[str, dict[str, float]], constants: list[dict[str, dict[str, float]]]) -> str:
    """A row of the table, from what its seeds gave and what the constant rate gave for them, chosen in two ways."""
    errors = [found["test_error"] for found in its.values()]
    spread = f" ± {np.std(errors, ddof=1):.3f}" if len(errors) > 1 else ""
    means = {key: np.mean([found[key] for found in its.values()]) for key in next(iter(its.values()))}
    accuracy = f"{100 * means['val_accuracy']:.2f}" if "val_accuracy" in means else "-"  # an ensemble has none ...
    epoch = f"{means['epoch']:.1f}" if "epoch" in means else "-"  # ... and no epoch
    return (
        f"| {name} | {choice} | {len(errors)} | {np.mean(errors):.3f}{spread} | "
        f"{' | '.join(against(its, constant) for constant in constants)} | "
        f"{means['val_loss']:.4f} | {accuracy} | {epoch} |"
    )


def against(its: dict[str, dict[str, float]], constant: dict[str, dict[str, float]]) -> str:
    """The ratio of two means of test errors, and the p of a paired t-test."""
    both = [seed for seed in its if seed in constant]
    ours, theirs = ([found[seed]["test_error"] for seed in both] for found in (its, constant))
    ratio = f"{np.mean(ours) / np.mean(theirs):.2f}" if both else "-"
    p = f"{stats.ttest_rel(ours, theirs).pvalue:.3f}" if len(both) > 1 and ours != theirs else "-"
    return f"{ratio} | {p}"


def main() -> None:
    """Work out what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="MNIST as Keras's `mnist.npz`")
    parser.add_argument("--seeds", type=int, nargs="+", help="(default: to train with, 0 to 4; to show, all)")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--epochs", type=int, choices=PRECISION, default=EPOCHS, help=f"(default: {EPOCHS})")
    parser.add_argument("--quick", action="store_true", help="a small part of the data, to see that all works")
    parser.add_argument("--table", action="store_true", help="train nothing, show what is there")
    options = parser.parse_args()
    longer = "" if options.epochs == EPOCHS else f"-{options.epochs}"
    folder = RESULTS / f"method_table{longer}{'-quick' * options.quick}"
    if not options.table:
        if options.data is None:
            parser.error("--data is needed for training")
        keras.mixed_precision.set_global_policy(PRECISION[options.epochs])
        data = load(options.data, options.quick)
        folder.mkdir(parents=True, exist_ok=True)
        for seed in options.seeds or SEEDS:
            for arm in options.arms:
                path = folder / f"{arm}-{seed}.json"
                if not path.exists():
                    found = run(arm, seed, data, epochs=options.epochs)
                    write_atomically(path, json.dumps(found, indent=1) + "\n")
                    print(f"seed {seed}, {arm}: {chosen(found, 'val_loss')}, {found.get('ensemble')}", flush=True)
    if options.table and options.seeds:
        print(table(folder, options.seeds))
        return
    print(table(folder))
    if not options.quick and options.epochs == EPOCHS:  # of 28 there are too few yet to be shown
        fill("results.md", {"python benchmarks/method_table.py --table": table(folder)})
        draw(folder)


if __name__ == "__main__":
    main()
