"""A chief and two workers as processes on 127.0.0.1, one of them killed in the middle of a trial."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from test_dropin_resume import start, stop_at

from autolr.records import TrialRecord
from autolr.search_folder import read_search

EXAMPLE = Path(__file__).parent.parent / "examples" / "distributed_search.sh"
pytestmark = pytest.mark.slow


def free_port():
    with socket.socket() as any_socket:
        any_socket.bind(("127.0.0.1", 0))
        return str(any_socket.getsockname()[1])


def test_all_trials_end_each_once_though_a_worker_is_killed_and_started_again(tmp_path):
    environment = {
        **os.environ,
        "KERASTUNER_ORACLE_IP": "127.0.0.1",
        "KERASTUNER_ORACLE_PORT": free_port(),
        "TRIALS": "4",
    }

    def member(name, *arguments):
        return start(tmp_path, *arguments, env={**environment, "KERASTUNER_TUNER_ID": name})

    members = [member("chief"), member("worker0", "training", "any")]
    try:
        stop_at(members[1], tmp_path, signal.SIGKILL)
        members[1:] = [member("worker0"), member("worker1")]
        outputs = [process.communicate(timeout=400) for process in members]
    finally:
        for process in members:
            process.kill()
    assert [process.returncode for process in members] == [0, 0, 0], outputs
    trials = json.loads(outputs[0][0].splitlines()[-1])  # as the chief has them
    assert [(trial_id, status) for trial_id, status, _ in trials] == [(str(n), "COMPLETED") for n in range(4)]
    for trial_id, _, values in trials:
        assert 0 < values["autolr/min_lr"] < values["autolr/max_lr"]
        assert TrialRecord.read(tmp_path / "p" / f"trial_{trial_id}").values == values
    log = (tmp_path / "log").read_text().splitlines()
    assert sorted(line for line in log if line.startswith("ended")) == [f"ended {n}" for n in range(4)]
    # A process that knows of no chief opens the folder.
    process = start(tmp_path, env={**os.environ, "TRIALS": "4"})
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert json.loads(printed.splitlines()[-1]) == trials


@pytest.mark.parametrize("kind", ["random", "hyperband"])
def test_all_trials_end_though_a_worker_is_killed_and_stays_away(tmp_path, kind):
    environment = {
        **os.environ,
        "KERASTUNER_ORACLE_IP": "127.0.0.1",
        "KERASTUNER_ORACLE_PORT": free_port(),
        "PATIENCE": "8",
        "TUNER": kind,
    }

    def member(name, *arguments):
        return start(tmp_path, *arguments, env={**environment, "KERASTUNER_TUNER_ID": name})

    members = [member("chief"), member("worker0", "training", "any")]
    try:
        stop_at(members[1], tmp_path, signal.SIGKILL)
        members[1] = member("worker1")
        outputs = [process.communicate(timeout=400) for process in members]
    finally:
        for process in members:
            process.kill()
    assert [process.returncode for process in members] == [0, 0], outputs
    assert "Nothing was heard of worker0 for long" in outputs[0][0]
    trials = json.loads(outputs[0][0].splitlines()[-1])
    log = (tmp_path / "log").read_text().splitlines()
    ended = sorted(line.split()[1] for line in log if line.startswith("ended"))
    if kind == "random":
        # When the last of the others left, the chief may not have given up worker0 yet: then its trial is left over.
        assert {status for _, status, _ in trials} <= {"COMPLETED", "RUNNING"}
    assert ended == [trial_id for trial_id, status, _ in trials if status == "COMPLETED"]


@pytest.mark.parametrize("mistake", [{"FAILING": "1"}, {"OBJECTIVE": "los"}])
def test_a_chief_ends_when_the_search_is_given_up_for_failed_trials(tmp_path, mistake):
    environment = {
        **os.environ,
        "KERASTUNER_ORACLE_IP": "127.0.0.1",
        "KERASTUNER_ORACLE_PORT": free_port(),
        "TRIALS": "9",
        **mistake,
    }
    names = ("chief", "worker0", "worker1")
    members = [start(tmp_path, env={**environment, "KERASTUNER_TUNER_ID": name}) for name in names]
    try:
        outputs = [process.communicate(timeout=300) for process in members]
    finally:
        for process in members:
            process.kill()
    assert [process.returncode for process in members] == [1, 0, 0], outputs
    assert "No more trials are handed out" in outputs[0][0]
    assert "consecutive failures exceeded the limit of 3" in outputs[0][1]
    assert any("Perhaps `loss` is meant" in errors for _, errors in outputs[1:]) == ("OBJECTIVE" in mistake)
    search = read_search(tmp_path / "p")
    assert search.state == "failed"
    assert {trial.status for trial in search.trials} == {"FAILED"}
    assert 3 <= len(search.trials) <= 4  # the other worker's may have begun by then


def test_the_example_runs(tmp_path):
    environment = {**os.environ, "PYTHON": sys.executable}
    command = [str(EXAMPLE), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^Trial \d: \S+ to \S+ ", done.stdout, re.MULTILINE)) == 4, done.stdout
