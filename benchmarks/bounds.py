#!/usr/bin/env python3
"""How good is the rate that a range test finds? Live, on held-out tasks, beside other tools' rules.

    python benchmarks/record_grids.py --split report    # once: how well each rate of a dense grid trains
    python benchmarks/bounds.py                         # range tests on fresh models, scored; resumable

For each task and seed a fresh model is tested by `autolr.range_test`: once with its defaults, and once as a plain sweep
of 100 steps from 1e-6 to 10, on which our rule and those of other tools are judged alike. The regret of a rate is read
off the task's grid: 0 = trains as well as the best rate, 1 = as badly as the grid's lowest. A rule that raises
scores 1.
Models with BatchNormalization are judged twice: as trained, and with statistics gathered anew (`record_grids.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from peers import PEERS

import autolr
from autolr.bursts import LATE_ROUNDS, ROUNDS
from autolr.files import write_atomically

RESULTS = Path(__file__).parent / "results" / "bounds"
SHORTER = {steps: f"autolr.range_test, without bursts of {steps} steps or more" for steps, _ in LATE_ROUNDS}
NOT_RAISED = "autolr.range_test, not raised for BatchNormalization"
BRIEF = f"BatchNormalization, bursts of {ROUNDS[0].steps} steps alone"
FACTORS = [0.5, 1, 1.4, 2, 2.5, 3.2]
PLAIN = {"start_lr": 1e-6, "end_lr": 10.0, "num_steps": 100}


def regret(grid: list[dict], rate: float) -> float:
    """How much worse a rate trains than the grid's best, as a share of what training achieves."""
    at = np.log10([point["lr"] for point in grid])
    loss = np.array([np.mean(point["val_loss"]) for point in grid])
    untrained = loss[0]
    loss = np.where(np.isfinite(loss), np.minimum(loss, untrained + 0.5 * abs(untrained)), 1.5 * abs(untrained))
    return float((np.interp(np.log10(rate), at, loss) - loss.min()) / (untrained - loss.min()))


def with_fresh_statistics(grid: list[dict]) -> list[dict]:
    """A grid in whose losses BatchNormalization has the statistics of the weights, where that was recorded."""
    return [{**point, "val_loss": point.get("val_loss_gathered", point["val_loss"])} for point in grid]


def test_live(task: object, seed: int) -> dict:
    """Both range tests on one fresh model; it is put back in between."""
    data, model = task.load(), task.build(seed)
    found = {}
    for name, options in (("default", {}), ("plain", PLAIN)):
        began = time.perf_counter()
        test = autolr.range_test(model, data.x_train, data.y_train, batch_size=task.batch_size, **options)
        found[name] = {**test.to_dict(), "seconds": time.perf_counter() - began}
    return {"seed": seed, **found}


def record(tasks: list, seeds: int, folder: Path) -> None:
    """One JSON file a task, skipping what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        path = folder / f"{task.name}.json"
        done = json.loads(path.read_text()) if path.exists() else []
        for seed in range(len(done), seeds):
            began = time.perf_counter()
            done.append(test_live(task, seed))
            write_atomically(path, json.dumps(done))
            print(f"{task.name} seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)


def suggested(rule: Callable, curve: dict) -> float | None:
    """A rule's rate for a recorded curve, None if it has none."""
    losses = np.array([float(loss) for loss in curve["losses"]])
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            rate = float(rule(np.array(curve["lrs"]), losses))
    except (ValueError, IndexError, TypeError):
        return None
    return rate if np.isfinite(rate) and rate > 0 else None


def without_bursts_of(steps: int, test: autolr.RangeTest) -> autolr.LRBounds:
    """The bounds that a range test would have found without bursts so long or longer."""
    return replace(test, bursts=tuple(burst for burst in test.bursts if burst.steps < steps)).bounds()


def score(folder: Path, grids: Path) -> tuple[dict[str, list[tuple[float, float]]], list[dict]]:
    """Regrets by rule over all tasks and seeds, as trained and with fresh statistics, and a row for each task."""
    rules = {"autolr.find_bounds": lambda lrs, losses: autolr.find_bounds(lrs, losses).max_lr, **PEERS}
    names = ("autolr.range_test", NOT_RAISED, *SHORTER.values(), *rules)
    regrets: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    rows = []
    for path in sorted(folder.glob("*.json")):
        grid = json.loads((grids / path.name).read_text())["grid"]
        runs = json.loads(path.read_text())
        tests = [autolr.RangeTest.from_dict(run["default"]) for run in runs]
        found = [test.bounds() for test in tests]

        def both(rate: float | None, grid: list[dict] = grid) -> tuple[float, float]:
            return (1.0, 1.0) if rate is None else (regret(grid, rate), regret(with_fresh_statistics(grid), rate))

        ours = [both(bounds.max_lr) for bounds in found]
        regrets["autolr.range_test"] += ours
        regrets[NOT_RAISED] += [both(replace(test, normalized=False).bounds().max_lr) for test in tests]
        for steps, name in SHORTER.items():
            regrets[name] += [both(without_bursts_of(steps, test).max_lr) for test in tests]
        for name, rule in rules.items():
            regrets[name] += [both(suggested(rule, run["plain"])) for run in runs]
        rows.append(
            {
                "task": path.stem,
                "regrets": [as_trained for as_trained, _ in ours],
                "fresh": [fresh for _, fresh in ours],
                "spread": float(np.std(np.log10([bounds.max_lr for bounds in found]))),
                "steps": [test.steps_spent for test in tests],
                "statuses": [bounds.status for bounds in found],
                "max_lrs": [bounds.max_lr for bounds in found],
                "confidences": [bounds.confidence for bounds in found],
                "best": min(grid, key=lambda point: np.mean(point["val_loss"]))["lr"],
            }
        )
    return regrets, rows


def tables(regrets: dict[str, list[tuple[float, float]]], rows: list[dict]) -> str:
    """Markdown for the docs."""
    lines = [
        "| rule | mean | median | 90th percentile | worst | mean, with fresh statistics | worst of these |",
        "|---|---|---|---|---|---|---|",
    ]
    found = {name: np.array(pairs).T for name, pairs in regrets.items()}
    for name, (r, fresh) in sorted(found.items(), key=lambda item: item[1][0].mean()):
        lines.append(
            f"| {name} | {r.mean():.3f} | {np.median(r):.3f} | {np.quantile(r, 0.9):.3f} | {r.max():.3f} | "
            f"{fresh.mean():.3f} | {fresh.max():.3f} |"
        )
    lines += ["", "| task | best rate | rates found | regret | with fresh statistics | steps | status |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in rows:
        found = ", ".join(f"{rate:.1e}" for rate in row["max_lrs"])
        scored = ", ".join(f"{r:.3f}" for r in row["regrets"])
        fresh = ", ".join(f"{r:.3f}" for r in row["fresh"]) if row["fresh"] != row["regrets"] else ""
        steps, statuses = ", ".join(map(str, row["steps"])), ", ".join(sorted(set(row["statuses"])))
        lines.append(f"| {row['task']} | {row['best']:.1e} | {found} | {scored} | {fresh} | {steps} | {statuses} |")
    spread = np.median([row["spread"] for row in rows])
    lines += ["", f"Spread of log10(`max_lr`) between seeds of one task, median: {spread:.3f}.", ""]
    lines += ["| confidence | range tests | mean | median | 90th percentile | worst |", "|---|---|---|---|---|---|"]
    for confidence in ("high", "medium", "low"):
        r = np.array(
            [r for row in rows for r, it in zip(row["fresh"], row["confidences"], strict=True) if it == confidence]
        )
        if len(r):
            lines.append(
                f"| {confidence} | {len(r)} | {r.mean():.3f} | {np.median(r):.3f} | {np.quantile(r, 0.9):.3f} | "
                f"{r.max():.3f} |"
            )
    return "\n".join(lines)


def factors_table(folder: Path, grids: Path) -> str:
    """Mean regrets, with fresh statistics, if the rates found were higher or lower, by kind of model, in Markdown."""
    regrets: dict[str, list[list[float]]] = {}
    for path in sorted(folder.glob("*.json")):
        grid = with_fresh_statistics(json.loads((grids / path.name).read_text())["grid"])
        for run in json.loads(path.read_text()):
            test = autolr.RangeTest.from_dict(run["default"])
            found = {
                kind_of(path.stem, test): replace(test, normalized=False).bounds(),
                **({BRIEF: without_bursts_of(ROUNDS[1].steps, test)} if test.normalized else {}),
            }
            for kind, bounds in found.items():
                regrets.setdefault(kind, []).append([regret(grid, bounds.max_lr * factor) for factor in FACTORS])
    lines = [
        f"| models | range tests | {' | '.join(f'{factor:g} times' for factor in FACTORS)} | better by 2 |",
        f"|---|---|{'---|' * len(FACTORS)}---|",
    ]
    for kind in sorted(regrets):
        each = np.array(regrets[kind])
        means = " | ".join(f"{mean:.3f}" for mean in each.mean(axis=0))
        better = np.sum(each[:, FACTORS.index(2)] < each[:, FACTORS.index(1)])
        lines.append(f"| {kind} | {len(each)} | {means} | {better} |")
    return "\n".join(lines)


def kind_of(name: str, test: autolr.RangeTest) -> str:
    """What a task's model has of normalisation."""
    if test.normalized:
        return "BatchNormalization"
    return "LayerNormalization" if any(it in name for it in ("vit", "transformer")) else "neither"


def main() -> int:
    """Record what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--split", choices=("report", "dev"), default="report", help="(default: report, the held-out tasks)"
    )
    parser.add_argument("--seeds", type=int, default=3, help="fresh models a task (default: 3)")
    parser.add_argument("--task", action="append", help="only this task; may be repeated")
    parser.add_argument("--out", type=Path, help="folder for the curves (default: live/ beside the grids)")
    parser.add_argument("--score-only", action="store_true", help="record nothing, print the tables of what there is")
    options = parser.parse_args()
    grids = RESULTS / "dev" if options.split == "dev" else RESULTS
    folder = options.out or grids / "live"
    if not options.score_only:
        from tasks import TASKS

        chosen = [t for t in TASKS if t.split == options.split and (grids / f"{t.name}.json").exists()]
        record([t for t in chosen if not options.task or t.name in options.task], options.seeds, folder)
    regrets, rows = score(folder, grids)
    if not rows:
        print("No curves recorded, or no grids: run benchmarks/record_grids.py first.", file=sys.stderr)
        return 1
    text = f"{tables(regrets, rows)}\n\n{factors_table(folder, grids)}"
    (folder / "tables.md").write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
