"""A trial's record on disk: whole or not at all, strict JSON, and never mistaken for something else."""

from __future__ import annotations

import json
import math
import os
import stat
from types import SimpleNamespace

import pytest

from autolr import RangeTest
from autolr.errors import RecordError
from autolr.files import write_atomically
from autolr.records import FILE_NAME, TrialRecord, holds, in_words, objective_of


def record(**changes) -> TrialRecord:
    values = {
        "trial_id": "0003",
        "values": {"units": 8, "cycle_length": 3, "activation": "relu", "autolr/min_lr": 0.1 + 0.2},
        "bounds": {"min_lr": 0.1 + 0.2, "max_lr": 1.0, "status": "ok", "reason": "fell, rose", "confidence": "high"},
        "schedule": {
            **{"cycle_length": 3, "mult_factor": 1.5, "lr_decay": 0.9, "warmup": 0.1, "edges": [0, 12, 32]},
            **{"epochs": 8, "initial_epoch": 0, "steps_per_epoch": 4, "batches_per_update": 1},
        },
        "range_test": RangeTest([1e-7, 1 / 3, 10], [2.0, math.inf, math.nan], diverged=True, steps_spent=40).to_dict(),
        "source": "range test",
    }
    return TrialRecord(**{**values, **changes})


def refuse_constant(name):
    raise AssertionError(f"{name} is not JSON")


def test_a_record_reads_back_equal(tmp_path):
    record().write(tmp_path)
    assert TrialRecord.read(tmp_path) == record()
    assert TrialRecord.read(str(tmp_path)) == record()
    record(range_test=None).write(tmp_path)
    assert TrialRecord.read(tmp_path).range_test is None


def test_a_training_reads_back_equal_and_older_records_have_none(tmp_path):
    counts = {"fits": 1, "steps": 3, "steps_of_all": 3}
    training = {**counts, "rates": {"step": [1], "lr": [0.1]}, "losses": {"step": [], "loss": []}}
    whole = record(
        training={**training, "epochs": [{"epoch": 1, "step": 3, "logs": {"loss": "nan"}}]},
        optimizer="Adam",
        objective={"name": "val_loss", "direction": "min"},
        warnings=["Mind the gap."],
    )
    whole.write(tmp_path)
    assert TrialRecord.read(tmp_path) == whole
    path = tmp_path / FILE_NAME
    content = json.loads(path.read_text(encoding="utf-8"))
    for name in ("training", "optimizer", "objective", "warnings"):
        del content[name]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert TrialRecord.read(tmp_path) == record()


def test_the_file_is_strict_json_though_the_curve_has_nan_and_infinity(tmp_path):
    record().write(tmp_path)
    text = (tmp_path / FILE_NAME).read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=refuse_constant)["format"] == 1
    curve = RangeTest.from_dict(TrialRecord.read(tmp_path).range_test)
    assert curve == RangeTest([1e-7, 1 / 3, 10], [2.0, math.inf, math.nan], diverged=True, steps_spent=40)


def test_only_the_record_is_left_in_the_folder(tmp_path):
    record().write(tmp_path)
    record(trial_id="0004").write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    assert TrialRecord.read(tmp_path).trial_id == "0004"


@pytest.mark.parametrize("error", [OSError("disk gone"), KeyboardInterrupt()])
def test_a_write_that_fails_at_the_last_moment_leaves_the_old_record_alone(tmp_path, monkeypatch, error):
    record().write(tmp_path)

    def fail(*args):
        raise error

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(type(error)):
        record(trial_id="0004").write(tmp_path)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    assert TrialRecord.read(tmp_path) == record()


def test_values_json_does_not_know_leave_the_old_record_alone(tmp_path):
    record().write(tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        record(bounds={"min_lr": math.nan}).write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    assert TrialRecord.read(tmp_path) == record()


def test_a_folder_that_is_not_there_is_an_oserror(tmp_path):
    with pytest.raises(OSError, match="none"):
        record().write(tmp_path / "none")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '"text"',
        "{}",
        '{"format": 1}',
        '{"format": 1, "trial_id": "0"}',
        '{"format": 2, "trial_id": "0"}',
        '{"trial_id": "0003", "hyperparameters": {}, "metrics": {}}',
        "\x00\x01",
    ],
)
def test_a_file_that_is_no_record_is_named_in_the_error(tmp_path, text):
    (tmp_path / FILE_NAME).write_text(text, encoding="utf-8")
    with pytest.raises(RecordError, match=FILE_NAME):
        TrialRecord.read(tmp_path)


def test_what_a_later_version_has_added_is_passed_over(tmp_path):
    record().write(tmp_path)
    content = json.loads((tmp_path / FILE_NAME).read_text())
    (tmp_path / FILE_NAME).write_text(json.dumps({**content, "added": 1}))
    assert TrialRecord.read(tmp_path) == record()
    (tmp_path / FILE_NAME).write_text(json.dumps({**content, "format": 2}))
    with pytest.raises(RecordError, match=r"^\S+ was written by another version of autolr\.$"):
        TrialRecord.read(tmp_path)


def test_a_truncated_record_is_no_record(tmp_path):
    record().write(tmp_path)
    path = tmp_path / FILE_NAME
    whole = path.read_bytes()
    for length in (1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(RecordError, match="no trial record"):
            TrialRecord.read(tmp_path)


def test_a_file_nested_too_deep_is_no_record(tmp_path):
    (tmp_path / FILE_NAME).write_text("[" * 100_000)
    with pytest.raises(RecordError, match="no trial record"):
        TrialRecord.read(tmp_path)


def test_a_missing_record_says_so(tmp_path):
    with pytest.raises(RecordError, match="does not exist"):
        TrialRecord.read(tmp_path)


def test_a_binary_file_is_no_record(tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecordError, match="no trial record"):
        TrialRecord.read(tmp_path)


def test_a_record_error_is_a_value_error():
    assert issubclass(RecordError, ValueError)


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
def test_others_may_read_a_record_as_they_may_any_other_file(tmp_path):
    # `tempfile.mkstemp` makes files that only their owner can read: a chief's or a colleague's report could not.
    (tmp_path / "plain").write_text("")
    write_atomically(tmp_path / "record", "text")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes["record"] == modes["plain"]


def test_what_a_trial_found_is_no_difference_in_its_values():
    assert holds({"units": 8, "autolr/min_lr": 0.1}, {"units": 8, "autolr/min_lr": 0.2})
    assert holds({"units": 8}, {"units": 8, "autolr/min_lr": 0.2})
    assert not holds({"units": 8}, {"units": 9})
    assert not holds({}, {"units": 8})


def test_what_a_trial_declared_after_its_training_is_no_difference():
    assert holds({"units": 8, "threshold": None}, {"units": 8})
    assert not holds({"units": 8}, {"units": 8, "threshold": None})


def test_several_objectives_have_their_directions_once():
    assert in_words({"name": "loss (min), accuracy (max)", "direction": "min"}) == "loss (min), accuracy (max)"
    assert in_words({"name": "loss", "direction": "min"}) == "loss (min)"


def test_an_objective_without_a_direction_is_none():
    assert objective_of(SimpleNamespace(objective=None)) is None
