#!/usr/bin/env python3
"""What bursts buy, and how they are best spent: the evidence behind the defaults of `autolr.range_test`.

    python benchmarks/bursts.py                 # about 25 minutes on one core, resumable; then the table
    python benchmarks/bursts.py --score-only    # the table of what is recorded

On the dev tasks that there were when the rule was designed, for three seeds: plain sweeps of several lengths, and the
losses of 64 steps at each rate of a dense grid. From these, every way of spending a budget is played through without
training again, by the functions that `range_test` itself calls. Rates are rounded to the grid's quarter decades.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from bounds import RESULTS as BOUNDS
from bounds import regret

import autolr
from autolr.bursts import ROUNDS, Burst, Round, confirm, next_burst
from autolr.curve import noise_of
from autolr.files import write_atomically

RESULTS = Path(__file__).parent / "results" / "bursts"
DESIGNED_WITH = 24  # the first dev tasks; the others were held out then
SEEDS, STEPS = (0, 1, 2), 64
SWEEPS = (30, 40, 60, 80, 100)
START_LR, END_LR = 1e-7, 10.0  # the defaults of `range_test`
WAYS: tuple[tuple[int, tuple[Round, ...]], ...] = (
    *((sweep, ()) for sweep in SWEEPS),
    (40, (Round(10, 3),)),
    (60, (Round(10, 3),)),
    (40, (Round(24, 3),)),
    (40, (Round(24, 5),)),
    (40, ROUNDS),
    (100, (Round(16, 5),)),
    (100, (Round(24, 3),)),
    (100, (Round(24, 5),)),
    (100, (Round(48, 5),)),
    (100, (Round(64, 5),)),
    (100, (Round(16, 5), Round(32, 3))),
    (100, ROUNDS),
    (100, (Round(32, 5), Round(64, 3))),
)


def record(folder: Path) -> None:
    """One JSON file a dev task, skipping what is there."""
    import keras
    from record_grids import Trainer, grid_rates
    from tasks import TASKS

    folder.mkdir(parents=True, exist_ok=True)
    for task in [task for task in TASKS if task.split == "dev"][:DESIGNED_WITH]:
        path = folder / f"{task.name}.json"
        if path.exists():
            continue
        trainer, seeds = Trainer(task), []
        for seed in SEEDS:
            sweeps, runs = {}, {}
            for steps in SWEEPS:
                lrs = np.geomspace(START_LR, END_LR, steps)
                losses = trainer.run(seed, lrs)
                sweeps[steps] = {"lrs": lrs[: len(losses)].tolist(), "losses": losses.tolist()}
            for lr in grid_rates(task.end_lr):
                runs[f"{lr:.6g}"] = trainer.run(seed, np.full(STEPS, lr)).tolist()
            seeds.append({"sweeps": sweeps, "runs": runs})
        write_atomically(path, json.dumps(seeds))
        keras.backend.clear_session()
        print(task.name, flush=True)


def play(seed: dict, sweep: int, rounds: tuple[Round, ...]) -> tuple[float, int]:
    """The rate that is found in one way, and the steps it takes."""
    curve = autolr.RangeTest(**seed["sweeps"][str(sweep)])
    bounds, untrained, spent = curve.bounds(), curve.untrained_losses(), len(curve)
    rates = np.log10([float(rate) for rate in seed["runs"]])
    runs = list(seed["runs"].values())
    # Everything is moved to the grid: the centre first, and at the end the result moves back by as much.
    nearest = float(10 ** rates[np.abs(rates - np.log10(bounds.max_lr)).argmin()])
    bursts: list[Burst] = []
    options = {"steps_left": 10**6, "within": (START_LR, END_LR), "rounds": rounds, "noise": noise_of(untrained)}
    while found := next_burst(nearest, bursts, **options):
        lr, steps = found
        losses = runs[int(np.abs(rates - np.log10(lr)).argmin())][:steps]
        bursts.append(Burst.of(lr, losses, untrained, steps=steps, noise=noise_of(untrained)))
        spent += len(losses)
    moved = bounds.max_lr / nearest if bursts else 1.0
    return confirm(bounds, bursts, noise=noise_of(untrained)).max_lr * moved, spent


def table(folder: Path) -> str:
    """Markdown: a row for each way."""
    tasks = [
        (json.loads(path.read_text()), json.loads((BOUNDS / "dev" / path.name).read_text())["grid"])
        for path in sorted(folder.glob("*.json"))
    ]
    lines = [
        f"{len(tasks)} dev tasks, {len(SEEDS)} seeds each.",
        "",
        "| sweep | bursts | mean regret | median | 90th percentile | worst | steps, mean | steps, most |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for sweep, rounds in WAYS:
        played = [(play(seed, sweep, rounds), grid) for seeds, grid in tasks for seed in seeds]
        r = np.array([regret(grid, rate) for (rate, _), grid in played])
        steps = [spent for (_, spent), _ in played]
        bursts = ", then ".join(f"up to {most} of {steps}" for steps, most in rounds) or "none"
        quality = f"{r.mean():.3f} | {np.median(r):.3f} | {np.quantile(r, 0.9):.3f} | {r.max():.2f}"
        lines.append(f"| {sweep} | {bursts} | {quality} | {np.mean(steps):.0f} | {max(steps)} |")
    return "\n".join(lines)


def main() -> int:
    """Record what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "traces", help="folder of recordings (default: %(default)s)"
    )
    parser.add_argument("--score-only", action="store_true", help="record nothing")
    options = parser.parse_args()
    if not options.score_only:
        record(options.out)
    if not any(options.out.glob("*.json")):
        print("Nothing is recorded yet: run without --score-only first.", file=sys.stderr)
        return 1
    text = table(options.out)
    write_atomically(RESULTS / "table.md", text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
