"""Real processes killed in the middle of a search: started again, it ends with every trial once."""

from __future__ import annotations

import collections
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autolr.records import TrialRecord

SCRIPT = Path(__file__).parent / "crash_search.py"
MOMENTS = [
    pytest.param("training", "0", signal.SIGKILL, id="kill in the very first trial"),
    pytest.param("range test", "0", signal.SIGKILL, id="kill in the first range test", marks=pytest.mark.slow),
    pytest.param("range test", "1", signal.SIGKILL, id="kill in a range test", marks=pytest.mark.slow),
    pytest.param("training", "1", signal.SIGKILL, id="kill in training", marks=pytest.mark.slow),
    pytest.param("ended", "1", signal.SIGKILL, id="kill between trials", marks=pytest.mark.slow),
    pytest.param("created", "2", signal.SIGKILL, id="kill before a trial", marks=pytest.mark.slow),
    pytest.param("range test", "1", signal.SIGINT, id="Ctrl-C in a range test", marks=pytest.mark.slow),
    pytest.param("training", "1", signal.SIGINT, id="Ctrl-C in training", marks=pytest.mark.slow),
]


def start(directory, *arguments, **options):
    command = [sys.executable, str(SCRIPT), str(directory), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def stop_at(process, directory, with_signal, seconds=240):
    """Wait until the search has come to where it waits, and end it."""
    deadline = time.monotonic() + seconds
    while not (directory / "reached").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(with_signal)
    process.communicate(timeout=60)
    assert process.returncode != 0


def chosen(values):
    return {name: value for name, value in values.items() if not name.startswith("autolr/")}


@pytest.mark.parametrize(("phase", "trial", "with_signal"), MOMENTS)
def test_a_search_that_was_killed_ends_with_every_trial_once(tmp_path, phase, trial, with_signal):
    stop_at(start(tmp_path, phase, trial), tmp_path, with_signal)
    before = {path.parent.name: json.loads(path.read_text()) for path in tmp_path.glob("p/trial_*/trial.json")}
    again = start(tmp_path)
    printed, errors = again.communicate(timeout=240)
    assert again.returncode == 0, errors
    trials = json.loads(printed.splitlines()[-1])
    assert [(trial_id, status) for trial_id, status, _ in trials] == [(str(n), "COMPLETED") for n in range(3)]
    for trial_id, _, values in trials:
        record = TrialRecord.read(tmp_path / "p" / f"trial_{trial_id}")
        assert record.values == values  # the bounds in use are those of the record, found for these values
        if f"trial_{trial_id}" in before:  # nor was another trial put in its place
            assert chosen(values) == chosen(before[f"trial_{trial_id}"]["hyperparameters"]["values"])
    trained = collections.Counter((tmp_path / "log").read_text().splitlines())
    for number in range(3):
        twice = str(number) == trial and phase == "training"
        assert trained[f"training {number}"] == 1 + twice
    assert not list(tmp_path.glob("p/**/.*-*"))  # no half-written files are left


@pytest.mark.slow
def test_a_search_killed_in_a_later_rung_of_hyperband_goes_on_with_the_parents_bounds(tmp_path):
    environment = {**os.environ, "TUNER": "hyperband"}
    stop_at(start(tmp_path, "later rung", "any", env=environment), tmp_path, signal.SIGKILL)
    again = start(tmp_path, env=environment)
    printed, errors = again.communicate(timeout=400)
    assert again.returncode == 0, errors
    trials = {trial_id: values for trial_id, status, values in json.loads(printed.splitlines()[-1])}
    later = {trial_id: values for trial_id, values in trials.items() if values.get("tuner/trial_id")}
    assert later
    for values in later.values():
        parent = trials[values["tuner/trial_id"]]
        assert (values["autolr/min_lr"], values["autolr/max_lr"]) == (parent["autolr/min_lr"], parent["autolr/max_lr"])
    log = (tmp_path / "log").read_text().splitlines()
    trained = collections.Counter(line.split()[-1] for line in log if line.startswith(("training", "later rung")))
    assert max(trained.values()) <= 2
    assert sum(count == 2 for count in trained.values()) == 1  # the one that was killed
    ranges = collections.Counter(line.split()[-1] for line in log if line.startswith("range test"))
    assert ranges
    assert not set(ranges) & set(later)  # no test of their own
