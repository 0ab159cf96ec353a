#!/usr/bin/env python3
"""Which ends of a trial's cycles should its ensemble average? Trainings on bounds that range tests found.

    python benchmarks/cycle_ends.py [--models 0 1 2 ...] [--plans ...]     # about a minute and a half a model
    python benchmarks/cycle_ends.py --table                                # what is there

The models, the images they train on and those they are scored on are those of `benchmarks/annealing.py`, which no
search is judged on; so are the bounds, which are read from its results. A further thousand images stand for a trial's
validation. Each training keeps its last three ends, as the tuners do, with averaged weights. Results go to
`benchmarks/results/cycle_ends/` as they come, and are not worked out again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
from typing import Any, NamedTuple

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from annealing import RESULTS, data, make_model
from documents import fill
from search import FULL, test_error

import autolr
from autolr.best_ends import near_the_least
from autolr.cycle_ends import snapshot_paths
from autolr.files import write_atomically
from autolr.trial_values import TAIL_AVERAGE, WARMUP

OURS = RESULTS.parent / "cycle_ends"
KEPT = 3  # ends, as many as the tuners keep


class Plan(NamedTuple):
    """Cycles of a training, stretched to its epochs; see `SGDRScheduler`."""

    cycle_length: int
    mult_factor: float
    lr_decay: float = 1.0
    epochs: int = FULL["epochs"]


PLANS = {
    "9 epochs, cycles from 1, each twice as long": Plan(1, 2.0),
    "9 epochs, cycles from 1, each 1.5 times as long": Plan(1, 1.5, 0.9),
    "9 epochs, cycles from 3, each 1.5 times as long": Plan(3, 1.5, 0.9),
    "9 epochs, three equal cycles": Plan(3, 1.0),
    "36 epochs, four equal cycles": Plan(9, 1.0, epochs=36),
    "36 epochs, cycles from 5, each twice as long": Plan(5, 2.0, epochs=36),
}


def train(number: int, plan: Plan, images: dict[str, Any]) -> dict[str, Any]:
    """How good each end is, alone and averaged with others: errors in percent."""
    found = json.loads((RESULTS / f"{number:02}.json").read_text(encoding="utf-8"))["bounds"]
    model, _ = make_model(number)
    with tempfile.TemporaryDirectory() as folder:
        schedule = autolr.SGDRScheduler(
            found["min_lr"],
            found["max_lr"],
            fit_budget=True,
            warmup=WARMUP,
            tail_average=TAIL_AVERAGE,
            snapshot_folder=folder,
            num_snapshots=KEPT,
            restore_weights=False,
            **{name: value for name, value in plan._asdict().items() if name != "epochs"},
        )
        x, y = images["train"]
        model.fit(x, y, batch_size=FULL["batch"], epochs=plan.epochs, callbacks=[schedule], verbose=0)
        ends = []
        for path in snapshot_paths(folder):
            model.load_weights(path)
            ends.append(
                [model.predict(images[part][0], batch_size=500, verbose=0) for part in ("validation", "scored")]
            )
    labels = [images[part][1] for part in ("validation", "scored")]
    sure = [np.maximum(validated[np.arange(len(labels[0])), labels[0]], 1e-7) for validated, _ in ends]
    several = [
        members for count in range(1, len(ends) + 1) for members in itertools.combinations(range(len(ends)), count)
    ]
    return {
        "val_errors": [test_error(validated, labels[0]) for validated, _ in ends],
        "val_losses": [float(-np.mean(np.log(of_labels))) for of_labels in sure],
        "test_errors": {
            name_of(members): test_error(sum(ends[member][1] for member in members), labels[1]) for members in several
        },
    }


def name_of(members: Any) -> str:
    """An ensemble of these ends: their numbers, from 0."""
    return " ".join(map(str, members))


def kept(values: list[float], within: float) -> str:
    """The ensemble of the ends whose value is within so many times the least."""
    return name_of(np.flatnonzero(near_the_least(values, within=within)))


RULES = {
    "all": lambda its: name_of(range(len(its["val_errors"]))),
    "loss within twice the least": lambda its: kept(its["val_losses"], 2.0),
    "loss within a tenth of the least": lambda its: kept(its["val_losses"], 1.1),
    "error within a tenth of the least": lambda its: kept(its["val_errors"], 1.1),
    "error within a fifth of the least": lambda its: kept(its["val_errors"], 1.2),
}


def table() -> str:
    """What is there, in Markdown."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(OURS.glob("*.json"))]
    lines = [
        f"| cycles | models | the last end alone, median error, % | {' | '.join(f'{rule} ÷ it' for rule in RULES)} |",
        "|---|---|---|" + "---|" * len(RULES),
    ]
    for plan in PLANS:
        its = [result[plan] for result in results if plan in result]
        if len(its) > 1:
            alone = np.array([one["test_errors"][name_of([len(one["val_errors"]) - 1])] for one in its])
            ratios = [np.array([one["test_errors"][rule(one)] for one in its]) / alone for rule in RULES.values()]
            errors = [ratio.std(ddof=1) / np.sqrt(len(ratio)) for ratio in ratios]
            shown = [f"{ratio.mean():.3f} ± {error:.3f}" for ratio, error in zip(ratios, errors, strict=True)]
            lines.append(f"| {plan} | {len(its)} | {np.median(alone):.2f} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> None:
    """Work out what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, nargs="+", default=list(range(16)), help="numbers (default: 0 to 15)")
    parser.add_argument("--plans", nargs="+", choices=PLANS, default=list(PLANS), metavar="NAME")
    parser.add_argument("--table", action="store_true", help="train nothing, show what is there")
    options = parser.parse_args()
    if not options.table:
        OURS.mkdir(parents=True, exist_ok=True)
        images = data()
        for number, plan in itertools.product(options.models, options.plans):
            path = OURS / f"{number:02}.json"
            result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            if plan not in result:
                result[plan] = train(number, PLANS[plan], images)
                write_atomically(path, json.dumps(result, indent=1) + "\n")
                print(number, plan, result[plan], flush=True)
    print(table())
    fill("results.md", {"python benchmarks/cycle_ends.py --table": table()})


if __name__ == "__main__":
    main()
