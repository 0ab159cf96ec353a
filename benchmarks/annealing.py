#!/usr/bin/env python3
"""How high a trial's rates should begin and how low they should end: trainings on bounds that range tests found.

    python benchmarks/annealing.py [--models 0 1 2 ...] [--variants ...]     # about a minute and a half a model
    python benchmarks/annealing.py --table                                    # what is there

Models are drawn from the example's space, each optimizer in turn. They train on 4,000 images of Fashion-MNIST that
`benchmarks/search.py` does not use, of 14 by 14 pixels, for 9 epochs of 125 steps: one cosine after the tuners'
warm-up, on the bounds of a range test of the tuners' length. They are scored on 10,000 further images of the training
file: nothing here has seen what the searches are judged on. Results go to `benchmarks/results/annealing/` as they come,
and are not worked out again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import keras
import keras_tuner as kt
from documents import fill
from mnist_search import build_model
from search import FULL, shrink, test_error
from task_data import fashion

import autolr
from autolr.budget import RANGE_TEST_SHARE, RANGE_TEST_STEPS, range_test_budget
from autolr.files import write_atomically
from autolr.trial_values import WARMUP

RESULTS = Path(__file__).parent / "results" / "annealing"
PIXELS = 14
OPTIMIZERS = ("sgd", "adam", "rmsprop", "adadelta")
SCORED = 10_000


class Variant(NamedTuple):
    """One way of training on bounds that were found.

    Attributes:
        peak: Highest rate, divided by the `max_lr` found.
        end: Lowest rate, divided by the peak; None for the `min_lr` found, which is 0.26 to 0.5 of `max_lr`.
        tail_average: As in `SGDRScheduler`, and so are the others.
        epochs: Of the whole training.
    """

    peak: float = 1.0
    end: float | None = None
    tail_average: float = 0.0
    cycle_length: int = FULL["epochs"]
    mult_factor: float = 1.0
    epochs: int = FULL["epochs"]


VARIANTS = {
    "max_lr to min_lr": Variant(),
    "max_lr to zero": Variant(end=0),
    "twice max_lr to zero": Variant(peak=2, end=0),
    "max_lr to min_lr, last tenth averaged": Variant(tail_average=0.1),
    "max_lr to min_lr, last fifth averaged": Variant(tail_average=0.2),
    "max_lr to min_lr, last third averaged": Variant(tail_average=1 / 3),
    "max_lr to min_lr, last half averaged": Variant(tail_average=0.5),
    "max_lr to a tenth, last tenth averaged": Variant(end=0.1, tail_average=0.1),
    "twice max_lr to min_lr, last tenth averaged": Variant(peak=2, tail_average=0.1),
    "three cycles of three epochs, tenths averaged": Variant(tail_average=0.1, cycle_length=3),
    "three cycles, each twice as long, tenths averaged": Variant(tail_average=0.1, cycle_length=1, mult_factor=2),
    "nine cycles of an epoch, halves averaged": Variant(tail_average=0.1, cycle_length=1),
    "twice the epochs in one cycle, last tenth averaged": Variant(tail_average=0.1, cycle_length=18, epochs=18),
    "four times the epochs in one cycle, last tenth averaged": Variant(tail_average=0.1, cycle_length=36, epochs=36),
    "four times the epochs in four cycles, averaged likewise": Variant(tail_average=0.1, epochs=36),
}


def data() -> dict[str, Any]:
    """Images for training, for scoring and for validation that no search uses."""
    images = fashion(60_000, 10_000)
    order = np.random.default_rng(0).permutation(60_000)[FULL["train"] + FULL["validation"] :]  # as in `load`
    cuts = np.cumsum([FULL["train"], SCORED, FULL["validation"]])
    parts = zip(("train", "scored", "validation"), np.split(order[: cuts[-1]], cuts[:-1]), strict=True)
    x = shrink(images.x_train, PIXELS)
    return {name: (x[part], images.y_train[part]) for name, part in parts}


def make_model(number: int) -> tuple[keras.Model, dict[str, Any]]:
    """One model of the space, the same at every call, and what was chosen."""
    hp = kt.HyperParameters()
    build_model(hp, (PIXELS, PIXELS, 1), 10)  # declares what there is to choose
    rng = np.random.default_rng(1000 + number)
    chosen = {parameter.name: parameter.random_sample(int(rng.integers(2**31))) for parameter in hp.space}
    chosen["optimizer"] = OPTIMIZERS[number % len(OPTIMIZERS)]
    hp.values.update(chosen)
    keras.utils.set_random_seed(number)
    model = build_model(hp, (PIXELS, PIXELS, 1), 10)
    return model, chosen


def work(number: int, variants: list[str], images: dict[str, Any]) -> None:
    """What is missing of one model."""
    path = RESULTS / f"{number:02}.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    arguments = {"batch_size": FULL["batch"], "epochs": FULL["epochs"]}  # of a trial, for which bounds are found
    x, y = images["train"]
    if not result:
        model, chosen = make_model(number)
        steps = math.ceil(len(x) / FULL["batch"]) * FULL["epochs"]
        sweep, bursts = range_test_budget(steps, share=RANGE_TEST_SHARE, most=RANGE_TEST_STEPS)
        test = autolr.range_test(model, x, y, batch_size=FULL["batch"], num_steps=sweep, burst_steps=bursts)
        result = {"model": chosen, "bounds": test.bounds().to_dict(), "test_errors": {}}
    for name in variants:
        if name in result["test_errors"]:
            continue
        variant = VARIANTS[name]
        high = variant.peak * result["bounds"]["max_lr"]
        low = result["bounds"]["min_lr"] if variant.end is None else variant.end * high
        model, _ = make_model(number)
        schedule = autolr.SGDRScheduler(
            low,
            high,
            fit_budget=True,
            warmup=WARMUP,
            tail_average=variant.tail_average,
            cycle_length=variant.cycle_length,
            mult_factor=variant.mult_factor,
        )
        model.fit(x, y, callbacks=[schedule], verbose=0, **{**arguments, "epochs": variant.epochs})
        scored, labels = images["scored"]
        result["test_errors"][name] = test_error(model.predict(scored, batch_size=500, verbose=0), labels)
        write_atomically(path, json.dumps(result, indent=1) + "\n")
    print(number, result["model"]["optimizer"], result["test_errors"], flush=True)


def table() -> str:
    """What is there, in Markdown."""
    results = [json.loads(path.read_text(encoding="utf-8"))["test_errors"] for path in sorted(RESULTS.glob("*.json"))]
    base = next(iter(VARIANTS))
    lines = [
        f"| rates, and what is averaged | models | median error, % | mean ÷ that of {base} | standard error | worst |",
        "|---|---|---|---|---|---|",
    ]
    for name in VARIANTS:
        pairs = [(errors[name], errors[base]) for errors in results if name in errors and base in errors]
        if len(pairs) > 1:
            ratios = np.array([mine / its for mine, its in pairs])
            lines.append(
                f"| {name} | {len(pairs)} | {np.median([mine for mine, _ in pairs]):.2f} | {ratios.mean():.3f} | "
                f"{ratios.std(ddof=1) / np.sqrt(len(ratios)):.3f} | {ratios.max():.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Work out what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, nargs="+", default=list(range(16)), help="numbers (default: 0 to 15)")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--table", action="store_true", help="train nothing, show what is there")
    options = parser.parse_args()
    if not options.table:
        RESULTS.mkdir(parents=True, exist_ok=True)
        images = data()
        for number in options.models:
            work(number, options.variants, images)
    print(table())
    fill("results.md", {"python benchmarks/annealing.py --table": table()})


if __name__ == "__main__":
    main()
