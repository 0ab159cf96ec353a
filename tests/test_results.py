"""The tables in the documents are those that the recorded results give, and no others."""

from __future__ import annotations

import json
from pathlib import Path

import annealing
import batchnorm
import bounds
import costs
import cycle_ends
import documents
import method_table
import numpy as np
import pytest
import range_test
import schedules
import search
import search_results
import short_trials

ROOT = Path(__file__).parents[1]


def shown(command, page="results.md"):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    begin, end = documents.place_of(text, command)
    return text[begin:end].strip()


@pytest.mark.parametrize(("folder", "options"), search_results.SHOWN.items())
def test_the_tables_of_searches_are_those_of_the_results(folder, options):
    groups = search_results.read(ROOT / "benchmarks" / "results" / folder)
    assert groups
    for command, table in search_results.tables(groups, options).items():
        assert shown(command) == table


@pytest.mark.parametrize("benchmark", [annealing, cycle_ends, method_table], ids=lambda module: module.__name__)
def test_the_table_of_a_benchmark_is_that_of_its_results(benchmark):
    assert shown(f"python benchmarks/{benchmark.__name__}.py --table") == benchmark.table()


def test_the_tables_of_short_trials_are_those_of_the_results():
    for command, table in short_trials.tables().items():
        assert shown(command, "bounds.md") == table


def test_the_winner_of_a_bracket_is_the_best_of_those_that_every_rung_let_through():
    first, last = np.array([1.0, 2.0, 50.0, 60.0]), np.array([40.0, 30.0, 0.0, 0.0])
    assert set(short_trials.winners_of_brackets([first, last], (4, 2))) == {30.0}
    assert set(short_trials.winners_of_brackets([first, last], (4, 4))) == {0.0}
    assert set(short_trials.winners_of_brackets([first, last], (1, 1))) == {40.0, 30.0, 0.0}


def test_the_tables_of_costs_are_those_of_the_times_measured():
    assert shown("python benchmarks/range_test.py --table", "bounds.md") == range_test.table()
    tables = schedules.tables()
    assert len(tables) == 2
    for command, table in tables.items():
        assert shown(command, "schedules.md") == table
    assert shown("python benchmarks/costs.py") == costs.table()


def test_the_table_of_statistics_is_that_of_the_losses_measured():
    assert shown("python benchmarks/batchnorm.py", "schedules.md") == batchnorm.table()


def test_the_tables_of_bounds_are_those_of_the_range_tests_recorded():
    rules, *by_task = bounds.tables(*bounds.score(bounds.RESULTS / "live", bounds.RESULTS)).split("\n\n")
    for page in ("bounds.md", "results.md"):
        assert shown("python benchmarks/bounds.py", page) == rules
    page = (ROOT / "docs" / "bounds.md").read_text(encoding="utf-8")
    assert all(table in page for table in by_task)
    dev = bounds.RESULTS / "dev"
    rules, *_ = bounds.tables(*bounds.score(dev / "live", dev)).split("\n\n")
    assert shown("python benchmarks/bounds.py --split dev --seeds 2", "bounds.md") == rules
    factors = bounds.factors_table(dev / "live", dev)
    assert shown("python benchmarks/bounds.py --split dev --seeds 2 (factors)", "bounds.md") == factors


def test_the_table_of_bursts_is_the_one_that_was_made():
    made = (ROOT / "benchmarks" / "results" / "bursts" / "table.md").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "bounds.md").read_text(encoding="utf-8")
    assert f"<!-- made by: python benchmarks/bursts.py -->\n{made}" in page


def test_regret_with_fresh_statistics_worked_out_by_hand():
    """Rates 1e-3, 1e-2 and 1e-1: stale statistics make the last look best, fresh ones the one in the middle."""
    stale, fresh = [2.0, 1.5, 1.0], [2.0, 1.0, 1.5]
    rates = (1e-3, 1e-2, 1e-1)
    grid = [
        {"lr": lr, "val_loss": [old], "val_loss_gathered": [new]}
        for lr, old, new in zip(rates, stale, fresh, strict=True)
    ]
    assert bounds.regret(grid, 1e-2) == pytest.approx(0.5)
    assert bounds.regret(bounds.with_fresh_statistics(grid), 1e-2) == pytest.approx(0)
    without = [{"lr": point["lr"], "val_loss": point["val_loss"]} for point in grid]
    assert bounds.with_fresh_statistics(without) == without


def test_the_cost_of_a_step_worked_out_by_hand():
    """Plain steps of 1 and 2 s; a sweep of 2 steps takes 3 s each, and the whole test 4.69 s."""
    seconds = {"plain": [2, 4], "LRFinder": [6, 6], "naive": [2, 2], "range_test": [4.69, 4.69]}
    row = range_test.table({"a model": {"steps": 2, "seconds": seconds}}).splitlines()[-1]
    assert row == "| a model | 1500.00 ms | 2.25 (1.50 to 3.00) | 0.75 (0.50 to 1.00) | 0.01 (0.01 to 0.01) |"
    found = {"steps": 2, "seconds": {"bare": [2, 4], "naive callback": [3, 3]}, "microseconds alone": 150_000}
    assert schedules.table(found).splitlines()[2:] == [
        "| naive callback | 1.125 | 0.938 to 1.312 | 0.75 to 1.50 |",
        f"| {schedules.ALONE} | 1.100 | - | - |",
    ]


def trial(validation_error, test_error, steps=100):
    return {"values": {}, "validation_error": validation_error, "test_error": test_error, "steps": steps}


def test_a_comparison_worked_out_by_hand(tmp_path):
    """The rival's two trials take 200 steps; of autolr's three, one fits a budget of 200 with its range test."""
    searches = {
        "autolr": [trial(9, 8, 120), trial(5, 6, 70), trial(4, 4, 120)],
        "cosine": [trial(20, 21), trial(10, 12)],
        "constant": [trial(9, 15), trial(30, 40)],
    }
    for arm, trials in searches.items():
        ensembles = [[trial["test_error"] for trial in trials[:n]] for n in range(1, len(trials) + 1)]
        search = {"data": "mnist", "tuner": "random", "arm": arm, "seed": 0, "trials": trials, "ensembles": ensembles}
        (tmp_path / f"mnist-random-{arm}-0.json").write_text(json.dumps(search))
    groups = search_results.read(tmp_path)
    (group,) = groups.values()
    assert search_results.budget_of(group) == 200
    rows = {row["arm"]: row for row in search_results.compare(group)}
    assert (rows["autolr"]["trials"], rows["autolr"]["winner"], rows["autolr"]["median trial"]) == (2, 6, 7)
    assert (rows["cosine"]["winner"], rows["constant"]["winner"]) == (12, 15)
    assert rows["constant"]["wasted"] == 1  # both are more than twice as bad as the best trial within the budget, 6
    assert rows["autolr"]["near"] == 0.5
    steps, errors = search_results.stairs([(group["autolr"], 200)], search_results.best_so_far)
    assert (steps.tolist(), errors.tolist()) == ([120, 190, 200], [8, 6, 6])  # the curve ends with the table's value
    table = search_results.goals_table(groups)
    # 12 is reached by autolr's first trial, after 120 of 200 steps; its winner has half of that error.
    assert "| share of its steps until its final error is reached | 0.33 | 0.60 |" in table
    assert "| error of the winner | 0.9 | 0.50 |" in table
    # By validation error the better rival would be the other one.
    assert "chosen by validation error, not by test error | - | 0.40 |" in table
    # The rival has its final error with its last trial.
    assert "| share of them that the rival itself takes | - | 1.00 | 1.00 to 1.00 |" in table
    kinds = search_results.kinds_table(groups)
    for kind in ("RandomSearch", "MNIST"):
        assert f"| {kind} | 0.50 | 0.50 | 0.60 | 0.60 | 0.60 | 1 | 0 | 0 | 0 |" in kinds
    assert len(kinds.splitlines()) == 4
    # Of autolr's two trials within the budget the first is worse than the winner; the rivals' first ensembles have 15.
    together = search_results.together_table(groups).splitlines()
    assert together[2:] == ["| 1 | 1.33 | 1.33 | 0.67 | 1.25 | 1 |", "| 2 | 1.00 | 1.00 | 0.50 | 1.00 | 1 |"]


def test_medians_are_drawn_again_by_what_belongs_together():
    assert search_results.resampled({("mnist", seed): [float(seed)] * 3 for seed in range(2)}) == (0.0, 1.0)
    assert search_results.resampled({("mnist", 0): [1.0, np.inf, 3.0]}) == (3.0, 3.0)


def test_a_standard_error_over_models_is_that_of_their_mean():
    """For a mean the jackknife gives the textbook's: the standard deviation over the root of how many there are."""
    values = np.array([1.0, 2.0, 4.0, 7.0])
    said = short_trials.with_standard_error(lambda models: float(values[models].mean()), 4)
    assert said == f"3.500 ± {values.std(ddof=1) / 2:.3f}"


def test_a_table_takes_the_place_of_an_older_one_and_nothing_else(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("Before.\n\n<!-- made by: it -->\n| old |\n|---|\n\nAfter.\n")
    monkeypatch.setattr(documents, "PAGES", tmp_path)
    documents.fill("page.md", {"it": "| new |\n|---|\n| 1 |"})
    assert page.read_text() == "Before.\n\n<!-- made by: it -->\n| new |\n|---|\n| 1 |\n\nAfter.\n"
    with pytest.raises(ValueError, match="no comment"):
        documents.fill("page.md", {"another": ""})


def test_an_ensemble_of_trials_takes_the_best_by_validation():
    trials = [trial(9, 0), trial(5, 0), trial(7, 0)]
    y = np.array([0, 1])
    right, wrong = np.array([[0.9, 0.1], [0.1, 0.9]]), np.array([[0.25, 0.75], [0.75, 0.25]])
    errors = search.ensembles(trials, [wrong, right, wrong], y)
    assert errors == [[100.0], [0.0, 0.0], [0.0, 0.0, 100.0]]
    trials[2]["values"]["tuner/trial_id"] = "0001"  # the same model, trained further
    assert search.ensembles(trials, [wrong, right, wrong], y) == [[100.0], [0.0, 0.0], [0.0, 0.0]]
