#!/usr/bin/env python3
"""All costs at a glance: one table, in docs/results.md, of what the other benchmarks have measured.

    python benchmarks/costs.py

It measures nothing: `range_test.py`, `schedules.py` and `search_overhead.py` do, and leave their times in
`benchmarks/results/`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import range_test
import schedules
from documents import fill

OVERHEAD = Path(__file__).parent / "results" / "search_overhead.json"
CNN, PERCEPTRON = "the method's CNN", "2-layer perceptron"


def quartiles(ratios: list[float]) -> str:
    """The median, and the quartiles in brackets."""
    q1, median, q3 = np.quantile(ratios, [0.25, 0.5, 0.75])
    return f"{median:.3f} ({q1:.3f} to {q3:.3f})"


def table() -> str:
    """Markdown, medians first, in brackets quartiles, for range tests the range of the rounds."""
    sweeps, steps = range_test.read(), schedules.read()
    overhead = json.loads(OVERHEAD.read_text(encoding="utf-8"))

    def sweep(model: str, kind: str) -> str:
        return range_test.shown(range_test.ratios(sweeps[model], kind))

    def schedule(key: str, kind: str) -> str:
        ratios = schedules.ratios(steps[key], kind)
        return f"{np.median(ratios):.3f}" if kind == schedules.ALONE else quartiles(ratios)

    def search(clock: str) -> str:
        return quartiles(overhead["time"]["all"][clock])

    epoch = "an epoch of 60,000 images"
    rows = [
        (f"a step of the sweep, {CNN}", "a plain step", sweep(CNN, "LRFinder"), "range_test.py"),
        (f"a step of the sweep, {PERCEPTRON}", "a plain step", sweep(PERCEPTRON, "LRFinder"), "range_test.py"),
        (f"a sweep of 100 steps, {CNN}", epoch, sweep(CNN, "range_test"), "range_test.py"),
        *(
            (f"a step with {kind}, {model}", "a bare step", schedule(key, kind), "schedules.py")
            for key, model in (("cnn", CNN), ("perceptron", PERCEPTRON))
            for kind in ("`SGDRSchedule`", schedules.ALONE, "`SGDRScheduler`")
            if (key, kind) != ("cnn", schedules.ALONE)
        ),
        (
            "CPU time of a search with autolr, tiny models",
            "Keras Tuner's own search, range tests' steps counted as training",
            search("cpu"),
            "search_overhead.py",
        ),
        ("its wall time", "the same", search("wall"), "search_overhead.py"),
        (
            "memory a trial adds, over 25 trials",
            "what Keras Tuner's own search adds",
            f"{overhead['memory']['ratio']:.2f}",
            "search_overhead.py",
        ),
    ]
    lines = ["| what | divided by | median | measured by |", "|---|---|---|---|"]
    lines += [f"| {what} | {by} | {ratio} | `benchmarks/{script}` |" for what, by, ratio, script in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
    fill("results.md", {"python benchmarks/costs.py": table()})
