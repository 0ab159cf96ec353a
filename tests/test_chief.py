"""Workers that go away: what a chief does, on Keras Tuner's real oracles and with a clock of ours."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

import keras_tuner as kt
import pytest

from autolr import chief, compat_tuner
from autolr.chief import PATIENCE, WorkerWatch, is_chief, last_written, signs_of_life


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def oracle_in(folder, kind=kt.oracles.RandomSearchOracle, **arguments):
    space = kt.HyperParameters()
    space.Float("rate", 0, 1)
    made = kind(kt.Objective("loss", "min"), hyperparameters=space, seed=1, **arguments)
    made._set_project_dir(folder, "p")
    return made


@pytest.fixture
def oracle(tmp_path):
    return oracle_in(tmp_path, max_trials=3)


@pytest.fixture
def said():
    return []


@pytest.fixture
def roll(oracle, clock, said):
    return WorkerWatch(oracle, say=said.append, clock=clock)


def as_sent(trial, **changes):
    """A copy, as it comes to the chief from a worker."""
    return kt.engine.trial.Trial.from_state({**trial.get_state(), **changes})


def ended(oracle, trial, loss=1.0):
    oracle.update_trial(trial.trial_id, {"loss": loss})
    oracle.end_trial(as_sent(oracle.get_trial(trial.trial_id), status="COMPLETED"))


def failed(oracle, trial):
    oracle.end_trial(as_sent(trial, status="FAILED", message="boom"))


def test_what_too_many_failures_leave_can_be_taken_up_again(tmp_path):
    oracle = oracle_in(tmp_path, max_trials=6, max_consecutive_failed_trials=2)
    compat_tuner.give_up_afterwards(oracle)
    failed(oracle, oracle.create_trial("a"))
    with pytest.raises(RuntimeError, match=r"consecutive failures exceeded the limit of 2.\nboom"):
        failed(oracle, oracle.create_trial("a"))
    later = oracle_in(tmp_path, max_trials=6, max_consecutive_failed_trials=2)
    later.reload()
    compat_tuner.mend_after_reload(later)
    compat_tuner.give_up_afterwards(later)
    assert [trial.status for trial in later.trials.values()] == ["FAILED", "FAILED"]
    third = later.create_trial("a")
    assert third.trial_id not in oracle.trials
    ended(later, third)
    failed(later, later.create_trial("a"))
    with pytest.raises(RuntimeError, match="consecutive failures"):
        failed(later, later.create_trial("a"))


def test_a_search_whose_folders_were_deleted_can_be_taken_up(oracle, tmp_path):
    compat_tuner.give_up_afterwards(oracle)
    first, second = oracle.create_trial("a"), oracle.create_trial("b")
    ended(oracle, first)
    ended(oracle, second)
    shutil.rmtree(compat_tuner.trial_folder(oracle, first.trial_id))
    later = oracle_in(tmp_path, max_trials=4)
    later.reload()
    assert compat_tuner.mend_after_reload(later) == [first.trial_id]
    compat_tuner.give_up_afterwards(later)
    assert {name: it.status for name, it in later.trials.items()} == {"1": "COMPLETED", "0": "FAILED"}
    third = later.create_trial("a")
    assert third.trial_id == "2", "and not that of another"
    failed(later, third)


def test_the_trial_of_a_lost_worker_goes_to_another(oracle, roll, clock, said):
    lost, other = oracle.create_trial("a"), oracle.create_trial("b")
    ended(oracle, other)
    clock.now += PATIENCE + 1
    again = oracle.create_trial("b")
    assert again.trial_id == lost.trial_id
    assert again.hyperparameters.values == lost.hyperparameters.values
    assert list(oracle.ongoing_trials) == ["b"]
    assert said == [f"Nothing was heard of a for long: b gets its trial {lost.trial_id}."]


def test_a_worker_that_is_merely_slow_keeps_its_trial(oracle, roll, clock):
    slow, quick = oracle.create_trial("a"), oracle.create_trial("b")
    clock.now += PATIENCE - 1
    ended(oracle, quick)
    assert oracle.create_trial("b").trial_id not in (slow.trial_id, quick.trial_id)
    clock.now += 3600  # the other trial took an hour: so long and twice more is not too long
    assert oracle.create_trial("c").status == "STOPPED"
    assert "a" in oracle.ongoing_trials


def test_the_longest_trial_counts_from_its_beginning(oracle, roll, clock):
    """Also where its worker was heard of in between, by what it wrote."""
    long = oracle.create_trial("a")
    record = Path(compat_tuner.trial_folder(oracle, long.trial_id), "autolr.json")
    for epoch in range(1, 6):
        clock.now += 3000
        record.write_text("{}")
        os.utime(record, (epoch, 2e9 + epoch))
        ended(oracle, oracle.create_trial("b")) if epoch == 1 else roll._silent(["a"])
    ended(oracle, long)
    assert roll.longest == 15_000
    assert roll.patience() == 45_000


def test_a_worker_that_writes_is_at_work_however_long_its_first_trial_takes(oracle, roll, clock):
    slow = oracle.create_trial("a")
    record = Path(compat_tuner.trial_folder(oracle, slow.trial_id), "autolr.json")
    for epoch in range(1, 4):
        clock.now += PATIENCE - 1
        record.write_text("{}")
        os.utime(record, (epoch, 2e9 + epoch))  # the disk's clock need not be the chief's
        assert oracle.create_trial(f"b{epoch}").trial_id != slow.trial_id
    clock.now += PATIENCE + 1  # and now it writes no more
    while slow.trial_id != (trial := oracle.create_trial("c")).trial_id:
        assert trial.status == "RUNNING"
        ended(oracle, trial)


@pytest.mark.parametrize("end", [ended, failed])
def test_a_trial_ends_once_though_a_worker_that_was_given_up_comes_back(oracle, roll, clock, end):
    lost = oracle.create_trial("a")
    clock.now += PATIENCE + 1
    end(oracle, oracle.create_trial("b"))
    end(oracle, lost)
    assert oracle.end_order == [lost.trial_id]
    assert oracle.create_trial("a").trial_id != lost.trial_id  # and it is given work again


def test_a_trial_that_a_slow_worker_ends_is_not_handed_out_again(oracle, roll, clock, said):
    slow, lost = oracle.create_trial("a"), oracle.create_trial("b")
    clock.now += PATIENCE + 1
    again = oracle.create_trial("c")
    assert len(said) == 1, "one trial for one worker"
    (other,) = {slow.trial_id, lost.trial_id} - {again.trial_id}
    ended(oracle, oracle.trials[other])
    ended(oracle, again)
    assert oracle.create_trial("d").trial_id not in (slow.trial_id, lost.trial_id)
    assert sorted(oracle.end_order) == sorted([slow.trial_id, lost.trial_id])


def test_a_queued_trial_that_has_ended_after_all_is_not_trained_again(oracle, roll, clock):
    slow = oracle.create_trial("a")
    clock.now += PATIENCE + 1
    compat_tuner.hand_out_again(oracle, "a")
    ended(oracle, slow)
    assert oracle.create_trial("b").trial_id != slow.trial_id
    assert oracle.trials[slow.trial_id].status == "COMPLETED"


@pytest.mark.parametrize("worker", ["a", "b"])
def test_a_trial_trained_again_is_scored_anew(oracle, clock, worker):
    """By a worker of the same name that was started again, or by another; what counts is the last training."""
    compat_tuner.forget_earlier_scores(oracle)
    roll = WorkerWatch(oracle, say=lambda line: None, clock=clock)
    first = oracle.create_trial("a")
    oracle.update_trial(first.trial_id, {"loss": 0.1})  # and is killed before it says that the trial has ended
    roll._silent(["a"])  # it was heard of then
    clock.now += PATIENCE + 1
    again = oracle.create_trial(worker)
    assert again.trial_id == first.trial_id
    assert not again.metrics.exists("loss")
    ended(oracle, again, loss=0.5)
    assert oracle.get_trial(first.trial_id).score == 0.5


def test_a_trial_retried_for_a_score_that_is_no_number_has_that_of_its_second_training(tmp_path):
    oracle = oracle_in(tmp_path, max_trials=1, max_retries_per_trial=1)
    compat_tuner.forget_earlier_scores(oracle)
    compat_tuner.give_up_afterwards(oracle)
    first = oracle.create_trial("a")
    ended(oracle, first, loss=float("nan"))
    again = oracle.create_trial("a")
    assert again.trial_id == first.trial_id
    ended(oracle, again, loss=0.5)
    assert (oracle.trials[first.trial_id].status, oracle.trials[first.trial_id].score) == ("COMPLETED", 0.5)


def test_a_worker_shows_signs_of_life_while_it_writes_nothing(oracle, roll, clock):
    slow = oracle.create_trial("a")
    folder = compat_tuner.trial_folder(oracle, slow.trial_id)
    os.utime(folder, (1, 1))
    for file in os.scandir(folder):
        os.utime(file, (1, 1))
    roll._silent(["a"])
    with signs_of_life(folder, every=0.01):
        deadline = time.monotonic() + 20
        while last_written(folder) == 1 and time.monotonic() < deadline:
            time.sleep(0.01)
    clock.now += PATIENCE + 1
    assert oracle.create_trial("b").trial_id != slow.trial_id
    time.sleep(0.05)
    before = last_written(folder)
    time.sleep(0.1)
    assert last_written(folder) == before, "no longer than it lives"


def test_a_worker_that_comes_back_to_an_unended_trial_gets_another(oracle, roll, clock):
    lost = oracle.create_trial("a")
    clock.now += PATIENCE + 1
    assert oracle.create_trial("b").trial_id == lost.trial_id
    assert oracle.create_trial("a").trial_id != lost.trial_id


def test_hyperband_goes_on_without_the_worker(tmp_path, clock, said):
    oracle = oracle_in(tmp_path, kt.oracles.HyperbandOracle, max_epochs=4, factor=2)
    WorkerWatch(oracle, say=said.append, clock=clock)
    lost = oracle.create_trial("a")
    while (trial := oracle.create_trial("b")).status == "RUNNING":
        ended(oracle, trial)
    assert trial.status == "IDLE"  # nothing to do until the rung is full: Keras Tuner's worker asks again and again
    clock.now += PATIENCE + 1
    assert oracle.create_trial("b").trial_id == lost.trial_id


def test_the_chief_ends_without_a_worker_that_stays_away(oracle, roll, clock, said, monkeypatch):
    monkeypatch.setattr(chief, "PATIENCE", 0.05)
    lost = oracle.create_trial("a")
    while (trial := oracle.create_trial("b")).status != "STOPPED":
        ended(oracle, trial)
    assert said == [
        f"No trials are left to hand out. The chief waits for a (trial {lost.trial_id}). If one of them is gone, start "
        "a worker with its name again; otherwise the chief ends when nothing was heard for 0.000833 min."
    ]
    clock.now += 1
    deadline = time.monotonic() + 30
    while oracle.ongoing_trials and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not oracle.ongoing_trials
    assert not oracle.tuner_ids
    assert f"The chief ends without trial {lost.trial_id}" in said[-1]


def test_the_chief_ends_without_a_worker_that_was_killed_between_two_trials(oracle, roll, clock, said, monkeypatch):
    monkeypatch.setattr(chief, "PATIENCE", 0.05)
    ended(oracle, oracle.create_trial("a"))  # and never asks for another
    while (trial := oracle.create_trial("b")).status != "STOPPED":
        ended(oracle, trial)
    assert "waits for a (between trials)" in said[0]
    clock.now += 1
    deadline = time.monotonic() + 30
    while oracle.tuner_ids and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not oracle.tuner_ids
    assert said[-1] == "Nothing was heard of a for long. The chief ends."


def test_the_trial_left_out_is_trained_when_the_search_is_taken_up_again(oracle, roll, clock, tmp_path, monkeypatch):
    monkeypatch.setattr(chief, "PATIENCE", 0.05)
    lost = oracle.create_trial("a")
    while (trial := oracle.create_trial("b")).status != "STOPPED":
        ended(oracle, trial)
    clock.now += 1
    deadline = time.monotonic() + 30
    while oracle.ongoing_trials and time.monotonic() < deadline:
        time.sleep(0.01)
    later = oracle_in(tmp_path, max_trials=3)
    later.reload()
    compat_tuner.mend_after_reload(later)
    again = later.create_trial("a")
    assert (again.trial_id, again.hyperparameters.values) == (lost.trial_id, lost.hyperparameters.values)
    ended(later, again)
    assert later.create_trial("a").status == "STOPPED"


def test_after_too_many_failures_the_workers_are_told_to_leave_and_the_chief_knows_why(oracle, clock, said):
    compat_tuner.give_up_afterwards(oracle)
    oracle.max_consecutive_failed_trials = 2
    roll = WorkerWatch(oracle, say=said.append, clock=clock)
    other = oracle.create_trial("b")
    failed(oracle, oracle.create_trial("a"))
    assert roll.given_up is None
    failed(oracle, oracle.create_trial("a"))
    assert "limit of 2.\nboom" in str(roll.given_up)
    assert [line for line in said if "No more trials are handed out" in line]
    assert oracle.create_trial("a").status == "STOPPED"
    ended(oracle, other)
    assert oracle.create_trial("b").status == "STOPPED"
    assert not oracle.ongoing_trials
    assert not oracle.tuner_ids
    # As the chief's main thread does, in a function that takes Keras Tuner's lock.
    asked = threading.Thread(target=oracle.get_best_trials, daemon=True)
    other = threading.Thread(target=oracle.update_space, args=(kt.HyperParameters(),), daemon=True)
    for thread in (asked, other):
        thread.start()
        thread.join(20)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"KERASTUNER_TUNER_ID": "chief"}, False),
        ({"KERASTUNER_TUNER_ID": "worker0", "KERASTUNER_ORACLE_IP": "127.0.0.1"}, False),
        ({"KERASTUNER_TUNER_ID": "chief", "KERASTUNER_ORACLE_IP": "127.0.0.1"}, True),
    ],
)
def test_who_is_the_chief(monkeypatch, variables, expected):
    for name in ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert is_chief() is expected


def test_a_worker_that_has_ended_a_trial_was_heard_of(oracle, roll, clock):
    trial = oracle.create_trial("a")
    clock.now = 3000
    ended(oracle, trial)
    clock.now = 9500
    assert roll._silent(["a"]) == []


def test_a_worker_that_wrote_before_anybody_looked_was_heard_of(oracle, roll, clock):
    slow = oracle.create_trial("a")
    record = Path(compat_tuner.trial_folder(oracle, slow.trial_id), "autolr.json")
    clock.now = PATIENCE - 1
    record.write_text("{}")
    os.utime(record, (1, 2e9))
    clock.now = PATIENCE + 1
    assert oracle.create_trial("b").trial_id != slow.trial_id


def test_that_too_many_have_failed_is_said_once(oracle, clock, said):
    compat_tuner.give_up_afterwards(oracle)
    oracle.max_consecutive_failed_trials = 2
    WorkerWatch(oracle, say=said.append, clock=clock)
    trials = [oracle.create_trial(name) for name in "abc"]
    for trial in trials:
        failed(oracle, trial)
    assert len([line for line in said if "No more trials are handed out" in line]) == 1


def test_a_retry_after_too_many_failures_of_the_past_ends_no_search(tmp_path):
    oracle = oracle_in(tmp_path, max_trials=6, max_consecutive_failed_trials=1)
    compat_tuner.give_up_afterwards(oracle)
    with pytest.raises(RuntimeError):
        failed(oracle, oracle.create_trial("a"))
    later = oracle_in(tmp_path, max_trials=6, max_consecutive_failed_trials=1, max_retries_per_trial=1)
    later.reload()
    compat_tuner.mend_after_reload(later)
    compat_tuner.give_up_afterwards(later)
    later.end_trial(as_sent(later.create_trial("a"), status="INVALID"))


def test_a_trial_that_had_ended_is_not_run_again(oracle, tmp_path):
    first = oracle.create_trial("a")
    oracle.update_trial(first.trial_id, {"loss": 1.0})
    done = as_sent(oracle.get_trial(first.trial_id), status="COMPLETED", score=1.0)
    oracle._save_trial(done)  # killed here: it is still among the ongoing ones
    later = oracle_in(tmp_path, max_trials=3)
    later.reload()
    compat_tuner.mend_after_reload(later)
    assert later.create_trial("a").trial_id != first.trial_id


def test_an_oracle_with_a_save_of_its_own_is_left_alone(tmp_path):
    class Own(kt.oracles.RandomSearchOracle):
        def save(self):
            self.saved = True

    oracle = oracle_in(tmp_path, Own, max_trials=1)
    compat_tuner.save_whole(oracle)
    oracle.save()
    assert oracle.saved
