"""Tables and a picture of the searches that `benchmarks/search.py` has run.

Errors are test errors in percent. The winner of a search is chosen by its validation error, among the trials that fit
into the budget: the steps of the shortest of the compared searches with the same data, tuner and seed. Of Hyperband,
"median trial", "near the best" and "wasted" are of the trials that came to the last epoch.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from documents import fill
from search_arms import ARMS, TUNERS

SHOWN = {"search": "--table", "search-28": "--pixels 28 --table"}  # folders of results.md, and the options for each
PICTURE = Path(__file__).parents[1] / "docs" / "img" / "searches.png"
RIVALS = ("cosine", "constant")
MAIN = ("autolr", *RIVALS, "default")
NAMES = {"mnist": "MNIST", "fashion": "Fashion-MNIST"}
SHARE = "share of its steps until its final error is reached"
OWN = "share of them that the rival itself takes"
RELATIVE = "autolr's steps ÷ those that the rival itself takes"
WINNER = "error of the winner"
TOGETHER = "error of autolr's three best trials together"
SNAPSHOTS = "error of the winner's snapshot ensemble"
WASTED = "share of autolr's trials wasted"
GOALS = {SHARE: "0.33", WINNER: "0.9", SNAPSHOTS: "0.8", WASTED: "0.05"}
ENSEMBLE_OF = 3  # trials; fixed before any was measured
LOOKS: dict[str, dict[str, Any]] = {
    "autolr": {"color": "#D55E00", "linewidth": 3, "zorder": 4},
    "together": {"color": "#D55E00", "linewidth": 2, "linestyle": ":", "zorder": 4},
    "cosine": {"color": "#0072B2", "linewidth": 1.3},
    "constant": {"color": "#009E73", "linewidth": 1.3, "linestyle": "--"},
    "default": {"color": "#777777", "linewidth": 1.3, "linestyle": "-."},
}
TICKS = {"mnist": [2, 2.5, 3, 3.5, 4, 5, 6, 8, 10, 15, 20, 30], "fashion": [14, 15, 16, 17, 18, 20, 22, 25, 30, 35]}

Search = dict[str, Any]
Groups = dict[tuple[str, str, int], dict[str, Search]]  # by data, tuner and seed, then by arm


def show(folder: Path) -> None:
    """Print the tables; unless they were quick ones, put them into `docs/results.md`, too."""
    groups = read(folder)
    if not groups:
        print(f"No searches in {folder} yet.")
        return
    made = tables(groups, SHOWN.get(folder.name, "--table"))
    print("\n\n".join(f"{command}\n\n{table}" for command, table in made.items()))
    if folder.name == "search":
        draw(groups)
    if folder.name in SHOWN:
        fill("results.md", made)


def tables(groups: Groups, options: str) -> dict[str, str]:
    """The tables in Markdown, by the commands that make them."""
    command = f"python benchmarks/search.py {options}"
    made = {
        f"{command} (arms)": arms_table(groups, MAIN),
        f"{command} (goals)": goals_table(groups),
        f"{command} (kinds)": kinds_table(groups),
        f"{command} (together)": together_table(groups),
    }
    parts = [arm for arm in ARMS if arm not in MAIN]
    if any(set(parts) & set(group) for group in groups.values()):
        made[f"{command} (parts)"] = arms_table(groups, ["autolr", *parts])
    return made


def read(folder: Path) -> Groups:
    """The searches in a folder."""
    groups: Groups = defaultdict(dict)
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


def ensemble_so_far(search: Search, most: int = ENSEMBLE_OF) -> np.ndarray:
    """After each trial, the test error of the best trials' averaged predictions, of all if there are fewer."""
    return np.array([errors[:most][-1] for errors in search["ensembles"]])


def compare(group: dict[str, Search]) -> list[dict[str, Any]]:
    """What the tables say of each arm of a group."""
    budget = budget_of(group)
    within = {arm: max(1, int(np.sum(search["ends"] <= budget))) for arm, search in group.items()}
    errors = {arm: errors_of_whole_trials(search["trials"][: within[arm]]) for arm, search in group.items()}
    best = min(np.min(values, initial=100.0) for values in errors.values())
    return [
        {
            "arm": arm,
            "data": search["data"],
            "tuner": search["tuner"],
            "winner": best_so_far(search)[within[arm] - 1],
            "winner's validation": min(trial["validation_error"] for trial in search["trials"][: within[arm]]),
            "ensemble": ensemble_so_far(search)[within[arm] - 1],
            "median trial": np.median(errors[arm]),
            "near": np.mean(errors[arm] <= 1.1 * best),
            "wasted": np.mean(errors[arm] > 2 * best),
            "trials": within[arm],
        }
        for arm, search in group.items()
    ]


def errors_of_whole_trials(trials: list[dict[str, Any]]) -> np.ndarray:
    """Test errors of the trials that no rung of Hyperband has ended before their last epoch."""
    epochs = [trial["values"].get("tuner/epochs", np.inf) for trial in trials]
    return np.array([trial["test_error"] for trial, its in zip(trials, epochs, strict=True) if its == max(epochs)])


def arms_table(groups: Groups, arms: Sequence[str]) -> str:
    """One row for each arm on each data set with each tuner, where there are others to compare; medians over seeds."""
    compared = [{arm: group[arm] for arm in arms if arm in group} for group in groups.values()]
    rows = [row for group in compared if len(group) > 1 for row in compare(group)]
    columns = "winner, % | best 3 together, % | median trial, % | near the best | wasted | trials"
    lines = [f"| data | tuner | rate | seeds | {columns} |", "|---|---|---|---|---|---|---|---|---|---|"]
    for data, tuner in sorted({(row["data"], row["tuner"]) for row in rows}, reverse=True):
        for arm in arms:
            its = [row for row in rows if (row["arm"], row["data"], row["tuner"]) == (arm, data, tuner)]
            if its:
                winners = [row["winner"] for row in its]
                means = {name: np.mean([row[name] for row in its]) for name in ("near", "wasted", "trials")}
                lines.append(
                    f"| {NAMES[data]} | {TUNERS[tuner]} | {ARMS[arm]} | {len(its)} | "
                    f"{np.median(winners):.2f} ({min(winners):.2f} to {max(winners):.2f}) | "
                    f"{np.median([row['ensemble'] for row in its]):.2f} | "
                    f"{np.median([row['median trial'] for row in its]):.2f} | {means['near']:.0%} | "
                    f"{means['wasted']:.0%} | {means['trials']:.1f} |"
                )
    return "\n".join(lines)


def against_rival(group: dict[str, Search]) -> dict[str, float]:
    """What is claimed of autolr, as ratios to the better of the two arms that search the rate, by the claim's name."""
    ours = group["autolr"]
    rows = {row["arm"]: row for row in compare(main_arms_of(group))}
    rival = min((rows[arm] for arm in RIVALS), key=lambda row: row["winner"])
    seen = min((rows[arm] for arm in RIVALS), key=lambda row: row["winner's validation"])
    theirs = group[rival["arm"]]
    spent = theirs["ends"][rival["trials"] - 1]

    def share(errors: np.ndarray) -> float:
        reached = reached_by(errors, rival["winner"])
        return np.inf if reached is None else float(ours["ends"][reached] / spent)

    until_then = share(best_so_far(ours))
    own = float(theirs["ends"][reached_by(best_so_far(theirs), rival["winner"])] / spent)
    alone = ensemble_so_far(ours, 1)[rows["autolr"]["trials"] - 1]
    together = min(rows[arm]["ensemble"] for arm in RIVALS)
    return {
        SHARE: until_then,
        "the same, by autolr's three best trials together": share(ensemble_so_far(ours)),
        OWN: own,
        RELATIVE: until_then / own,
        WINNER: rows["autolr"]["winner"] / rival["winner"],
        "the same, the better rival chosen by validation error, not by test error": rows["autolr"]["winner"]
        / seen["winner"],
        SNAPSHOTS: alone / rival["winner"],
        TOGETHER: rows["autolr"]["ensemble"] / rival["winner"],
        "the same against its three best trials together": rows["autolr"]["ensemble"] / together,
        WASTED: rows["autolr"]["wasted"],
    }


def reached_by(errors: np.ndarray, goal: float) -> int | None:
    """The first trial after which the error is so low; the winner may be a worse one later."""
    reached = np.flatnonzero(errors <= goal)
    return int(reached[0]) if len(reached) else None


def resampled(claims: dict[tuple[str, int], list[float]]) -> tuple[float, float]:
    """Between which medians 95 in 100 lie, if data sets and seeds, whose searches begin alike, are drawn again."""
    rng, values = np.random.default_rng(0), list(claims.values())
    draws = rng.integers(len(values), size=(2000, len(values)))
    medians = [np.median(np.concatenate([values[one] for one in draw])) for draw in draws]
    low, high = np.quantile(medians, [0.025, 0.975], method="nearest")
    return float(low), float(high)


def whole(groups: Groups) -> Groups:
    """The groups that have autolr and both rivals."""
    return {key: group for key, group in groups.items() if {"autolr", *RIVALS} <= set(group)}


def main_arms_of(group: dict[str, Search]) -> dict[str, Search]:
    """Those that are compared with each other."""
    return {arm: group[arm] for arm in MAIN if arm in group}


def goals_table(groups: Groups) -> str:
    """The claims, medians over all searches."""
    by_key = {key: against_rival(group) for key, group in whole(groups).items()}
    claims = list(by_key.values())
    lines = [
        "| autolr against the better of the two searched rates | goal | median | 95 % of medians | quartiles | range "
        "| searches |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in claims[0] if claims else ():
        its = [claim[name] for claim in claims]
        alike: dict[tuple[str, int], list[float]] = defaultdict(list)
        for (data, _, seed), claim in by_key.items():
            alike[data, seed].append(claim[name])
        between = " to ".join(map(in_words, resampled(alike)))
        at = np.quantile(its, [0, 0.25, 0.75, 1], method="nearest")  # the nearest: some are infinite
        least, low, high, most = map(in_words, at)
        goal = GOALS.get(name, "-")
        lines.append(
            f"| {name} | {goal} | {in_words(np.median(its))} | {between} | {low} to {high} | {least} to {most} "
            f"| {len(its)} |"
        )
    return "\n".join(lines)


def kinds_table(groups: Groups) -> str:
    """The claims on winners and steps by tuner and by data set, medians over their searches."""
    claims = {key: against_rival(group) for key, group in whole(groups).items()}
    lines = [
        f"| searches | {WINNER} | {TOGETHER} | {SHARE} | {RELATIVE} | the least | how many | of which in a third "
        "| after more steps than its | never |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for kind, name in {**TUNERS, **NAMES}.items():
        found = [claim for key, claim in claims.items() if kind in key[:2]]
        if found:
            its = {name: [claim[name] for claim in found] for name in (WINNER, TOGETHER, SHARE, RELATIVE)}
            medians = " | ".join(in_words(np.median(values)) for values in its.values())
            shares = np.array(its[SHARE])
            early, late, never = (np.sum(where) for where in (shares <= 1 / 3, shares > 1, np.isinf(shares)))
            lines.append(
                f"| {name} | {medians} | {in_words(min(shares))} | {len(shares)} | {early} | {late - never} | {never} |"
            )
    return "\n".join(lines)


def together_table(groups: Groups) -> str:
    """Ensembles of the best trial, of the two best, and so on; medians over all searches."""
    found = [ratios for group in whole(groups).values() for ratios in ratios_of_ensembles(group)]
    kinds = [name for data, name in NAMES.items() if any(ratios["data"] == data for ratios in found)]
    columns = ["best trials together", "autolr's ÷ its winner", *(f"the same on {name}" for name in kinds)]
    columns += ["autolr's ÷ the better rival's winner", "the rivals' better ÷ the better rival's winner", "searches"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for most in sorted({ratios["together"] for ratios in found}):
        its = [ratios for ratios in found if ratios["together"] == most]
        values = [[ratios["own"] for ratios in its]]
        values += [[ratios["own"] for ratios in its if NAMES[ratios["data"]] == name] for name in kinds]
        values += [[ratios[name] for ratios in its] for name in ("to rival", "rivals")]
        medians = map(np.median, values)
        lines.append(f"| {most} | {' | '.join(map(in_words, medians))} | {len(its)} |")
    return "\n".join(lines)


def ratios_of_ensembles(group: dict[str, Search]) -> Iterator[dict[str, Any]]:
    """Those of so many best trials, autolr's beside its own winner's error and that of the better rival's."""
    rows = {row["arm"]: row for row in compare(main_arms_of(group))}
    rival = min(rows[arm]["winner"] for arm in RIVALS)
    for most in range(1, len(group["autolr"]["ensembles"][rows["autolr"]["trials"] - 1]) + 1):
        errors = {arm: ensemble_so_far(group[arm], most)[row["trials"] - 1] for arm, row in rows.items()}
        yield {
            "data": rows["autolr"]["data"],
            "together": most,
            "own": errors["autolr"] / rows["autolr"]["winner"],
            "to rival": errors["autolr"] / rival,
            "rivals": min(errors[arm] for arm in RIVALS) / rival,
        }


def in_words(ratio: float) -> str:
    """A ratio, or that it is never reached."""
    return "never" if np.isinf(ratio) else f"{ratio:.2f}"


def draw(groups: Groups) -> None:
    """The winner's error against the steps spent, median over seeds, a panel for each data set and tuner."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = sorted({data for data, _, _ in groups}, reverse=True)
    columns = [tuner for tuner in TUNERS if any(tuner == its for _, its, _ in groups)]
    size = (1 + 4.2 * len(columns), 0.8 + 3.2 * len(rows))
    figure, axes = pyplot.subplots(len(rows), len(columns), figsize=size, squeeze=False, layout="constrained")
    for (row, column), ax in np.ndenumerate(axes):
        data, tuner = rows[row], columns[column]
        its = [group for key, group in groups.items() if key[:2] == (data, tuner)]
        its = [{arm: group[arm] for arm in MAIN if arm in group} for group in its]
        for arm in MAIN:
            searches = [(group[arm], budget_of(group)) for group in its if arm in group]
            if searches:
                ax.step(*stairs(searches, best_so_far), where="post", label=ARMS[arm], **LOOKS[arm])
            if searches and arm == "autolr":
                name = "autolr, best three trials together"
                ax.step(*stairs(searches, ensemble_so_far), where="post", label=name, **LOOKS["together"])
        for line in ax.lines:
            line.set(marker="o", markersize=2 + 1.5 * line.get_linewidth(), markevery=[-1])  # as in the table
        ax.set_title(f"{NAMES[data]}, {TUNERS[tuner]}")
        ax.set_yscale("log")
        ax.set_yticks(TICKS[data], [f"{tick:g}" for tick in TICKS[data]])
        ax.minorticks_off()
        low, high = ax.dataLim.intervaly
        ax.set_ylim(low / 1.04, high * 1.04)  # ticks must not widen it
        ax.grid(axis="y", color="#DDDDDD", linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
    for ax in axes[-1]:
        ax.set_xlabel("optimizer steps, range tests included")
    for ax in axes[:, 0]:
        ax.set_ylabel("test error, %")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(PICTURE, dpi=130)
    pyplot.close(figure)


def stairs(
    searches: Sequence[tuple[Search, int]], errors_of: Callable[[Search], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Medians over searches, each with its budget, trial by trial: steps by which so many have ended, and the error.

    Trial by trial because range tests differ in length: between two searches' ends of the same trial the median of what
    they have by then would jump back and forth. The last value is that of the table, and lasts until the budget ends.
    """
    within = min(int(np.sum(search["ends"] <= budget)) for search, budget in searches)
    steps = np.median([[*search["ends"][:within], budget] for search, budget in searches], axis=0)
    errors = np.median([errors_of(search)[:within] for search, _ in searches], axis=0)
    return steps, np.append(errors, errors[-1])
