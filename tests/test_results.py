"""The tables in the documents are those that the recorded results give, and no others."""

from __future__ import annotations

import json
from pathlib import Path

import annealing
import documents
import method_table
import numpy as np
import pytest
import search
import search_results

ROOT = Path(__file__).parents[1]


def shown(command):
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    begin, end = documents.place_of(text, command)
    return text[begin:end].strip()


def test_the_tables_of_searches_are_those_of_the_results():
    groups = search_results.read(ROOT / "benchmarks" / "results" / "search")
    assert groups
    for command, table in search_results.tables(groups).items():
        assert shown(command) == table


@pytest.mark.parametrize("benchmark", [annealing, method_table], ids=lambda module: module.__name__)
def test_the_table_of_a_benchmark_is_that_of_its_results(benchmark):
    assert shown(f"python benchmarks/{benchmark.__name__}.py --table") == benchmark.table()


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
    table = search_results.goals_table(groups)
    # 12 is reached by autolr's first trial, after 120 of 200 steps; its winner has half of that error.
    assert "| share of its steps until its final error is reached | 0.33 | 0.60 |" in table
    assert "| error of the winner | 0.9 | 0.50 |" in table
    # By validation error the better rival would be the other one.
    assert "chosen by validation error, not by test error | - | 0.40 |" in table


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
