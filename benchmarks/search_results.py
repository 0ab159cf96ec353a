"""Tables and a picture of the searches that `benchmarks/search.py` has run.

Errors are test errors in percent. The winner of a search is chosen by its validation error, among the trials that fit
into the budget: the steps of the shortest of the compared searches with the same data, tuner and seed.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from search_arms import ARMS, TUNERS

PICTURE = Path(__file__).parents[1] / "docs" / "img" / "searches.png"
RIVALS = ("cosine", "constant")
MAIN = ("autolr", *RIVALS, "default")
NAMES = {"mnist": "MNIST", "fashion": "Fashion-MNIST"}
COLOURS = {"autolr": "#D55E00", "cosine": "#0072B2", "constant": "#56B4E9", "default": "#999999"}

Search = dict[str, Any]


def show(folder: Path) -> None:
    """Print the tables, and draw the picture if the searches are whole ones."""
    groups = read(folder)
    if not groups:
        print(f"No searches in {folder} yet.")
        return
    rows = [row for group in groups.values() for row in compare(group)]
    print_arms(rows, MAIN)
    print_goals(groups)
    print_arms(rows, [arm for arm in ARMS if arm == "autolr" or arm not in MAIN])
    if folder.name == "search":
        draw(groups)
        print(f"\nDrawn: {PICTURE.name}")


def read(folder: Path) -> dict[tuple[str, str, int], dict[str, Search]]:
    """The searches by data, tuner and seed, then by arm."""
    groups: dict[tuple[str, str, int], dict[str, Search]] = defaultdict(dict)
    for path in sorted(folder.glob("*.json")):
        search = json.loads(path.read_text(encoding="utf-8"))
        search["ends"] = np.cumsum([trial["steps"] for trial in search["trials"]])
        groups[search["data"], search["tuner"], search["seed"]][search["arm"]] = search
    return dict(sorted(groups.items()))


def budget_of(group: dict[str, Search]) -> int:
    """Steps that every search of the group has made."""
    return min(int(search["ends"][-1]) for search in group.values())


def best_so_far(search: Search) -> np.ndarray:
    """After each trial, the test error of the one with the lowest validation error yet."""
    validation = np.array([trial["validation_error"] for trial in search["trials"]])
    winners = [int(np.argmin(validation[: n + 1])) for n in range(len(validation))]
    return np.array([search["trials"][winner]["test_error"] for winner in winners])


def compare(group: dict[str, Search]) -> list[dict[str, Any]]:
    """What the tables say of each arm of a group."""
    budget = budget_of(group)
    within = {arm: search["trials"][: max(1, np.sum(search["ends"] <= budget))] for arm, search in group.items()}
    errors = {arm: np.array([trial["test_error"] for trial in trials]) for arm, trials in within.items()}
    best = min(values.min() for values in errors.values())
    return [
        {
            "arm": arm,
            "data": search["data"],
            "tuner": search["tuner"],
            "winner": best_so_far(search)[len(within[arm]) - 1],
            "median trial": np.median(errors[arm]),
            "near": np.mean(errors[arm] <= 1.1 * best),
            "wasted": np.mean(errors[arm] > 2 * best),
            "trials": len(within[arm]),
        }
        for arm, search in group.items()
    ]


def print_arms(rows: list[dict[str, Any]], arms: Any) -> None:
    """One row for each arm on each data set with each tuner; medians over seeds."""
    print("\n| data | tuner | rate | seeds | winner, % | median trial, % | near the best | wasted | trials |")
    print("|---|---|---|---|---|---|---|---|---|")
    for data, tuner in sorted({(row["data"], row["tuner"]) for row in rows}, reverse=True):
        for arm in arms:
            its = [row for row in rows if (row["arm"], row["data"], row["tuner"]) == (arm, data, tuner)]
            if its:
                winners = [row["winner"] for row in its]
                means = {name: np.mean([row[name] for row in its]) for name in ("near", "wasted", "trials")}
                print(
                    f"| {NAMES[data]} | {TUNERS[tuner]} | {ARMS[arm]} | {len(its)} | "
                    f"{np.median(winners):.2f} ({min(winners):.2f} to {max(winners):.2f}) | "
                    f"{np.median([row['median trial'] for row in its]):.2f} | {means['near']:.0%} | "
                    f"{means['wasted']:.0%} | {means['trials']:.1f} |"
                )


def print_goals(groups: dict[tuple[str, str, int], dict[str, Search]]) -> None:
    """The claims, as ratios to the better of the two arms that search the rate; medians over all searches."""
    shares, ratios, ensembles = [], [], []
    for group in groups.values():
        if not {"autolr", *RIVALS} <= set(group):
            continue
        rows = {row["arm"]: row for row in compare({arm: group[arm] for arm in MAIN if arm in group})}
        rival = min((rows[arm] for arm in RIVALS), key=lambda row: row["winner"])
        reached = np.flatnonzero(best_so_far(group["autolr"]) <= rival["winner"])
        spent = group[rival["arm"]]["ends"][rival["trials"] - 1]
        shares.append(group["autolr"]["ends"][reached[0]] / spent if len(reached) else np.inf)
        ratios.append(rows["autolr"]["winner"] / rival["winner"])
        ensembles.append(group["autolr"]["ensemble_test_error"] / rival["winner"])
    if not ratios:
        return
    print("\n| autolr against the better of the two searched rates | goal | median | range | searches |")
    print("|---|---|---|---|---|")
    for name, goal, values in (
        ("share of its steps until its final error is reached", "0.33", shares),
        ("error of the winner", "0.9", ratios),
        ("error of the winner's snapshot ensemble", "0.8", ensembles),
    ):
        worst = "never" if np.isinf(max(values)) else f"{max(values):.2f}"
        middle = "never" if np.isinf(np.median(values)) else f"{np.median(values):.2f}"
        print(f"| {name} | {goal} | {middle} | {min(values):.2f} to {worst} | {len(values)} |")


def draw(groups: dict[tuple[str, str, int], dict[str, Search]]) -> None:
    """The winner's error against the steps spent, median over seeds, a panel for each data set and tuner."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = sorted({(data, tuner) for data, tuner, _ in groups}, key=lambda it: (list(TUNERS).index(it[1]), it[0]))
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(1 + 4.2 * len(panels), 3.8), squeeze=False, layout="constrained"
    )
    for ax, (data, tuner) in zip(axes[0], panels, strict=True):
        its = [group for key, group in groups.items() if key[:2] == (data, tuner)]
        for arm in MAIN:
            searches = [group[arm] for group in its if arm in group]
            if searches:
                grid = np.arange(0, max(int(search["ends"][-1]) for search in searches) + 1, 25)
                curves = [stairs(search, grid) for search in searches]
                ax.plot(grid, np.median(curves, axis=0), color=COLOURS[arm], label=ARMS[arm], drawstyle="steps-post")
        ax.set(xlabel="optimizer steps, range tests included", title=f"{NAMES[data]}, {TUNERS[tuner]}", yscale="log")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("{x:g}")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("test error of the best trial so far, %")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(PICTURE, dpi=130)
    pyplot.close(figure)


def stairs(search: Search, grid: np.ndarray) -> np.ndarray:
    """The error of the best trial so far at each step of a grid; NaN before the first trial has ended."""
    done = np.searchsorted(search["ends"], grid, side="right")
    return np.concatenate([[np.nan], best_so_far(search)])[done]
