#!/usr/bin/env python3
"""What a longer range test buys a short trial, whose share of steps has no room for bursts.

    python benchmarks/short_trials.py [--models 0 1 2 ...]     # about a minute a model; resumable
    python benchmarks/short_trials.py --table                  # what is there

The models and images of `benchmarks/annealing.py`, which no search is judged on. Each model is tested in several ways,
and trained on each way's bounds as a trial of three epochs, 375 steps, a fifth of which are 75; then it goes on to the
ninth epoch, as the next rung of Hyperband would with its parent's bounds. On two ways' bounds they are also trained as
trials of one and of two epochs, and on those of two others as trials of five and of nine. What brackets of Hyperband
would win by the former two is drawn from all of these. Results go to
`benchmarks/results/short_trials/` as they come, and are not worked out again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from annealing import data, make_model
from documents import fill
from search import FULL, test_error

import autolr
from autolr.files import write_atomically
from autolr.trial_values import TAIL_AVERAGE, WARMUP

Models = Any  # indices of some of them

RESULTS = Path(__file__).parent / "results" / "short_trials"
EPOCHS = (3, 9)  # a trial's, and those of the rung that goes on from it
MODELS = 16
WAYS = {  # steps of the sweep, and of bursts
    "a sweep of 75 steps": (75, 0),
    "a sweep of 40 steps": (40, 0),
    "a sweep of 40 steps, up to three bursts of 24": (40, 72),
    "a sweep of 78 steps, up to three bursts of 24": (78, 72),
    "a sweep of 40 steps, up to five bursts of 24": (40, 120),
}

# Trials of so many epochs, 125 steps each, on the bounds of two of the ways.
SHORTER, SHORTER_WAYS = (1, 2), ("a sweep of 40 steps", "a sweep of 40 steps, up to three bursts of 24")
COMPARED = ("a sweep of 75 steps", "a sweep of 40 steps, up to five bursts of 24")  # a fifth of a trial, and what it is
SHORTER_BUDGET = 2500
# Trials of five and of nine epochs: what a second round of bursts buys, which goes on from the first.
LONGER = (5, 9)
LONGER_WAYS = {
    "a sweep of 40 steps, up to five bursts of 24": (40, 120),
    "the same, then up to three of 48": (40, 192),
}
LONGER_TRIALS = 6  # in a search
# Brackets of Hyperband: the epochs of their rungs, and how many models each has.
BRACKETS = {(1, 3, 9): (9, 3, 1), (2, 9): (5, 2), (3, 9): (5, 2)}
EPOCH_STEPS, BUDGETS, DRAWS = 125, (3000, 4000, 6000), 20_000  # more would be more than the models there are


def work(number: int, images: dict[str, Any]) -> None:
    """What is missing of one model."""
    path = RESULTS / f"{number:02}.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    x, y = images["train"]
    for way, (sweep, bursts) in WAYS.items():
        if way in result:
            continue
        model, chosen = make_model(number)
        test = autolr.range_test(model, x, y, batch_size=FULL["batch"], num_steps=sweep, burst_steps=bursts)
        bounds, errors, start = test.bounds(), [], 0
        for epochs in EPOCHS:
            errors.append(trained_to(epochs, model, bounds, images, start=start))
            start = epochs
        result[way] = {"bounds": bounds.to_dict(), "steps": test.steps_spent, "test_errors": errors}
        result["model"] = chosen
        write_atomically(path, json.dumps(result, indent=1) + "\n")
    for way, (sweep, bursts) in LONGER_WAYS.items():
        longer = result.setdefault("longer", {})
        if way not in longer:
            model, _ = make_model(number)
            test = autolr.range_test(model, x, y, batch_size=FULL["batch"], num_steps=sweep, burst_steps=bursts)
            errors = [trained_to(epochs, make_model(number)[0], test.bounds(), images) for epochs in LONGER]
            longer[way] = {"bounds": test.bounds().to_dict(), "steps": test.steps_spent, "test_errors": errors}
            write_atomically(path, json.dumps(result, indent=1) + "\n")
    for way in SHORTER_WAYS:
        if "shorter" not in result[way]:
            bounds = autolr.LRBounds.from_dict(result[way]["bounds"])
            result[way]["shorter"] = [trained_to(epochs, make_model(number)[0], bounds, images) for epochs in SHORTER]
            write_atomically(path, json.dumps(result, indent=1) + "\n")
    print(number, in_a_line(result), flush=True)


def trained_to(epochs: int, model: Any, bounds: autolr.LRBounds, images: dict[str, Any], *, start: int = 0) -> float:
    """The error after training up to this epoch, as a trial is trained between these bounds."""
    schedule = autolr.SGDRScheduler(
        *bounds, cycle_length=epochs, fit_budget=True, warmup=WARMUP, tail_average=TAIL_AVERAGE, restore_weights=False
    )
    arguments = {"batch_size": FULL["batch"], "epochs": epochs, "initial_epoch": start}
    model.fit(*images["train"], callbacks=[schedule], verbose=0, **arguments)
    scored, labels = images["scored"]
    return test_error(model.predict(scored, batch_size=500, verbose=0), labels)


def in_a_line(result: dict[str, Any]) -> str:
    """The rates found and the errors, in a line."""
    return "; ".join(f"{result[way]['bounds']['max_lr']:.1e} {result[way]['test_errors']}" for way in WAYS)


def recorded() -> list[dict[str, Any]]:
    """What is there, model by model."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]


def table() -> str:
    """What is there, in Markdown."""
    results = recorded()
    results = [result for result in results if set(WAYS) <= set(result)]
    base = next(iter(WAYS))
    columns = " | ".join(
        f"median error after {epochs} epochs, % | mean ÷ that of the first row | standard error" for epochs in EPOCHS
    )
    lines = [f"| range test | models | {columns} |", "|---|---|" + "---|---|---|" * len(EPOCHS)]
    for way in WAYS:
        cells = []
        for rung in range(len(EPOCHS)):
            errors, its = (np.array([result[of]["test_errors"][rung] for result in results]) for of in (way, base))
            ratios = errors / its
            spread = ratios.std(ddof=1) / np.sqrt(len(ratios))
            cells.append(f"{np.median(errors):.2f} | {ratios.mean():.3f} | {spread:.3f}")
        lines.append(f"| {way} | {len(results)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shorter() -> str:
    """Trials of one and of two epochs, and winners of searches drawn from them, in Markdown."""
    results = recorded()
    lines = [
        "| steps of a trial | range test | models | median error, % | mean ÷ that without bursts | standard error | "
        f"worst error, % | winner of {SHORTER_BUDGET:,} steps, % | ÷ that without bursts |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for at, epochs in enumerate(SHORTER):
        errors = {way: np.array([result[way]["shorter"][at] for result in results]) for way in SHORTER_WAYS}
        steps = {
            way: np.array([result[way]["steps"] for result in results]) + EPOCH_STEPS * epochs for way in SHORTER_WAYS
        }
        winners = mean_winners(SHORTER_BUDGET, errors, steps)
        for way in SHORTER_WAYS:
            ratios = errors[way] / errors[SHORTER_WAYS[0]]
            lines.append(
                f"| {EPOCH_STEPS * epochs} | {way} | {len(results)} | {np.median(errors[way]):.2f} "
                f"| {ratios.mean():.3f} | {ratios.std(ddof=1) / np.sqrt(len(ratios)):.3f} | {errors[way].max():.2f} "
                f"| {winners[way]:.2f} | {ratio_of_winners(SHORTER_BUDGET, errors, steps, way)} |"
            )
    return "\n".join(lines)


def longer() -> str:
    """Trials of five and of nine epochs, and winners of searches drawn from them, in Markdown."""
    results = recorded()
    results = [result["longer"] for result in results if set(LONGER_WAYS) <= set(result.get("longer", ()))]
    base = next(iter(LONGER_WAYS))
    lines = [
        "| steps of a trial | range test | models | steps of it, mean | median error, % | mean ÷ that of five bursts "
        f"| standard error | winner of the steps of {LONGER_TRIALS} such trials, % | ÷ that of five bursts |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for at, epochs in enumerate(LONGER):
        trial = EPOCH_STEPS * epochs
        errors = {way: np.array([result[way]["test_errors"][at] for result in results]) for way in LONGER_WAYS}
        tests = {way: np.array([result[way]["steps"] for result in results]) for way in LONGER_WAYS}
        budget = round(LONGER_TRIALS * (trial + tests[base].mean()))
        steps = {way: its + trial for way, its in tests.items()}
        winners = mean_winners(budget, errors, steps)
        for way in LONGER_WAYS:
            ratios = errors[way] / errors[base]
            lines.append(
                f"| {trial:,} | {way} | {len(results)} | {tests[way].mean():.0f} | {np.median(errors[way]):.2f} | "
                f"{ratios.mean():.3f} | {ratios.std(ddof=1) / np.sqrt(len(ratios)):.3f} | {winners[way]:.2f} | "
                f"{ratio_of_winners(budget, errors, steps, way)} |"
            )
    return "\n".join(lines)


def brackets() -> str:
    """Winners of brackets of Hyperband drawn from what is there, by the way its first rung tests, in Markdown."""
    results = recorded()
    lines = [
        "| epochs of the rungs | models in them | range test | steps of the bracket | its winner, % "
        "| ÷ that without bursts | 90th percentile of winners |",
        "|---|---|---|---|---|---|---|",
    ]
    for rungs, sizes in BRACKETS.items():
        ratio = with_standard_error(partial(ratio_of_brackets, results, rungs, sizes), len(results))
        ratios = dict(zip(SHORTER_WAYS, ("-", ratio), strict=True))
        for way in SHORTER_WAYS:
            its = [result[way] for result in results]
            winners = winners_of_brackets(errors_by_rung(results, way, rungs), sizes)
            steps = sizes[0] * np.mean([one["steps"] for one in its])
            steps += sum(
                EPOCH_STEPS * epochs * size for epochs, size in zip(np.diff(rungs, prepend=0), sizes, strict=True)
            )
            lines.append(
                f"| {', '.join(map(str, rungs))} | {', '.join(map(str, sizes))} | {way} | {steps:,.0f} | "
                f"{winners.mean():.2f} | {ratios[way]} | {np.quantile(winners, 0.9):.2f} |"
            )
    return "\n".join(lines)


def errors_by_rung(results: list[Any], way: str, rungs: tuple[int, ...]) -> list[Any]:
    """Test errors of all models after so many epochs."""
    by_epochs: dict[int, Any] = {}
    for epochs, key in ((SHORTER, "shorter"), (EPOCHS, "test_errors")):
        by_epochs |= zip(epochs, np.array([result[way][key] for result in results]).T, strict=True)
    return [by_epochs[epochs] for epochs in rungs]


def ratio_of_brackets(results: list[Any], rungs: tuple[int, ...], sizes: tuple[int, ...], models: Models) -> float:
    """The mean error of the winners with bursts, divided by that without, of some of the models."""
    base, bursts = (
        winners_of_brackets([errors[models] for errors in errors_by_rung(results, way, rungs)], sizes).mean()
        for way in SHORTER_WAYS
    )
    return float(bursts / base)


def winners_of_brackets(errors: list[Any], sizes: tuple[int, ...]) -> Any:
    """Test errors in percent of brackets' winners: which models go on, 1,000 validation images say (`mean_winners`).

    Args:
        errors: All models' in each rung.
        sizes: How many models each rung has.
    """
    rng = make_rng()
    models = random_orders(rng, len(errors[0]))[:, : sizes[0]]
    for its, going_on in zip(errors, (*sizes[1:], 1), strict=True):
        validated = rng.binomial(FULL["validation"], its[models] / 100)
        best = np.argsort(validated, axis=1, kind="stable")[:, :going_on]
        models = np.take_along_axis(models, best, axis=1)
    return errors[-1][models[:, 0]]


def searches() -> str:
    """Winners of searches drawn from what is there, range tests counted, in Markdown."""
    results = recorded()
    errors = {way: np.array([result[way]["test_errors"][0] for result in results]) for way in COMPARED}
    steps = {way: np.array([result[way]["steps"] for result in results]) + EPOCH_STEPS * EPOCHS[0] for way in COMPARED}
    lines = ["| steps of a search | " + " | ".join(f"{way}, %" for way in COMPARED) + " | ratio |", "|---|---|---|---|"]
    for budget in BUDGETS:
        means = list(mean_winners(budget, errors, steps).values())
        ratio = ratio_of_winners(budget, errors, steps, COMPARED[1])
        lines.append(f"| {budget:,} | {means[0]:.2f} | {means[1]:.2f} | {ratio} |")
    return "\n".join(lines)


def ratio_of_winners(budget: int, errors: dict[str, Any], steps: dict[str, Any], way: str) -> str:
    """The mean error of a way's winners, divided by that of the first way, with its standard error."""
    base = next(iter(errors))

    def ratio(models: Models) -> float:
        some = ({name: its[models] for name, its in values.items()} for values in (errors, steps))
        means = mean_winners(budget, *some)
        return means[way] / means[base]

    return "-" if way == base else with_standard_error(ratio, len(errors[base]))


def with_standard_error(statistic: Callable[[Models], float], models: int) -> str:
    """A statistic of all models, and how much it would differ with others: its jackknife standard error.

    However many searches are drawn, they are drawn from these models, each trained once.

    Args:
        statistic: Works it out from the models with these indices.
        models: How many there are.
    """
    without_one = np.array([statistic(np.delete(np.arange(models), one)) for one in range(models)])
    error = np.sqrt((models - 1) / models * np.sum((without_one - without_one.mean()) ** 2))
    return f"{statistic(slice(None)):.3f} ± {error:.3f}"


def mean_winners(budget: int, errors: dict[str, Any], steps: dict[str, Any]) -> dict[str, float]:
    """Mean test error in percent of the winners of searches of so many steps, by the way of testing.

    A search takes the models in random order until its steps are spent. Which is best, 1,000 validation images say, as
    many as `benchmarks/search.py` has: their error is drawn, the models' own errors are those measured.
    """
    rng = make_rng()
    orders = random_orders(rng, len(next(iter(errors.values()))))
    winners = {}
    for way, its in errors.items():
        tried = np.cumsum(steps[way][orders], axis=1) <= budget
        validated = np.where(tried, rng.binomial(FULL["validation"], its[orders] / 100), FULL["validation"] + 1)
        best = np.argmin(validated, axis=1)[:, None]
        winners[way] = float(np.mean(its[np.take_along_axis(orders, best, axis=1)]))
    return winners


def make_rng() -> np.random.RandomState:
    """A generator that draws the same in every version of NumPy, which the newer ones do not promise."""
    return np.random.RandomState(0)


def random_orders(rng: np.random.RandomState, models: int) -> Any:
    """The numbers of so many models in random orders, one in a row."""
    return rng.random_sample((DRAWS, models)).argsort(axis=1)


def tables() -> dict[str, str]:
    """The tables in Markdown, by the commands that make them."""
    command = "python benchmarks/short_trials.py --table"
    return {
        command: table(),
        f"{command} (searches)": searches(),
        f"{command} (shorter)": shorter(),
        f"{command} (brackets)": brackets(),
        f"{command} (longer)": longer(),
    }


def main() -> None:
    """Work out what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, nargs="+", default=list(range(MODELS)), help="numbers (default: 0 to 15)")
    parser.add_argument("--table", action="store_true", help="train nothing, show what is there")
    options = parser.parse_args()
    if not options.table:
        RESULTS.mkdir(parents=True, exist_ok=True)
        images = data()
        for number in options.models:
            work(number, images)
    made = tables()
    print(*made.values(), sep="\n\n")
    fill("bounds.md", made)


if __name__ == "__main__":
    main()
