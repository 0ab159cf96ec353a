"""`docs/compatibility.md` says what the cases do: the quick ones are run by default, the others with `-m slow`."""

from __future__ import annotations

import pytest
from compatibility import TABLE, row, run
from compatibility_cases import CASES, GONE


def lines():
    return [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]


def test_the_table_has_a_line_for_each_case_and_no_other():
    written = [line.split(" | ")[0] for line in lines() if not line.startswith("| case |")]
    for name in GONE:  # this Keras is older than the one the table was made on
        written.remove(f"| `{name}`")
    assert written == [row(case, "", "").split(" | ")[0] for case in CASES]


def test_no_line_of_the_table_says_that_a_search_fails_or_that_training_differs():
    assert not [line for line in lines() if "fails: " in line or line.endswith("| NO |")]


@pytest.mark.parametrize("case", [pytest.param(c, marks=[] if c.quick else pytest.mark.slow, id=str(c)) for c in CASES])
def test_a_case_does_what_its_line_says(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # for what the user's callbacks write
    assert row(case, *run(case, tmp_path)) in lines()
