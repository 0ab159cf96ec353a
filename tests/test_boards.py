"""What a trial leaves for TensorBoard, read back with TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path

import keras
import keras_tuner as kt
import pytest

import autolr
from autolr.records import TrialRecord

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
pytestmark = [
    pytest.mark.filterwarnings("ignore::autolr.AutoLRWarning"),
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras Tuner logs hparams on TensorFlow alone"),
]


def build(hp):
    hp.Choice("units", [4, 8])
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def search(tmp_path, data, **options):
    hp = kt.HyperParameters()
    for name, value in {"units": 4, "cycle_length": 1, "mult_factor": 1.0, "lr_decay": 0.9}.items():
        if options.get("allow_new_entries", True) or name == "units":
            hp.Fixed(name, value)
    tuner = autolr.RandomSearch(
        build, "val_loss", max_trials=1, seed=1, directory=tmp_path / "runs", hyperparameters=hp, **options
    )
    board = keras.callbacks.TensorBoard(tmp_path / "logs", write_graph=False)
    tuner.search(*data, epochs=2, batch_size=4, validation_split=0.25, verbose=0, callbacks=[board])
    (trial_id,) = tuner.oracle.start_order
    return TrialRecord.read(tuner.get_trial_dir(trial_id)), tmp_path / "logs" / trial_id


def events(folder: Path):
    """The one file of events that TensorBoard would read there."""
    assert len(list(folder.glob("events.out.*"))) == 1
    return event_accumulator.EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()


def rates(folder: Path):
    from tensorboard.util import tensor_util

    found = events(folder / "train")
    assert "epoch_loss" in found.Tags()["tensors"], "beside what Keras writes"
    return {event.step: float(tensor_util.make_ndarray(event.tensor_proto)) for event in found.Tensors("learning_rate")}


def hparams(folder: Path):
    from tensorboard.plugins.hparams import metadata

    content = events(folder).PluginTagToContent("hparams")[metadata.SESSION_START_INFO_TAG]
    logged = metadata.parse_session_start_info_plugin_data(content).hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in logged.items()}


def test_the_rate_is_there_by_step_and_bounds_and_schedule_as_hparams(tmp_path, data):
    record, folder = search(tmp_path, data)
    recorded = dict(zip(record.training["rates"]["step"], record.training["rates"]["lr"], strict=True))
    assert list(recorded) == list(range(1, 25))
    assert rates(folder / "execution0") == pytest.approx(recorded, rel=1e-5)
    assert hparams(folder / "execution0") == {
        "units": 4,
        "cycle_length": 1,
        "mult_factor": 1.0,
        "lr_decay": 0.9,
        "autolr/min_lr": pytest.approx(record.bounds["min_lr"]),
        "autolr/max_lr": pytest.approx(record.bounds["max_lr"]),
        "autolr/bounds": record.bounds["status"],
        "autolr/cycles": 2,
    }


def test_every_execution_has_its_own_and_a_schedule_out_of_the_space_is_logged_too(tmp_path, data):
    record, folder = search(tmp_path, data, executions_per_trial=2, allow_new_entries=False)
    for name in ("execution0", "execution1"):
        assert len(rates(folder / name)) == 24
        logged = hparams(folder / name)
        assert logged["cycle_length"] == record.schedule["cycle_length"]
        assert logged["units"] == 4


def test_a_later_rung_goes_on_where_its_parents_steps_ended(tmp_path, data):
    tuner = autolr.Hyperband(
        build,
        "val_loss",
        max_epochs=2,
        factor=2,
        directory=tmp_path / "runs",
    )
    board = keras.callbacks.TensorBoard(tmp_path / "logs", write_graph=False)
    tuner.search(*data, batch_size=4, validation_split=0.25, verbose=0, callbacks=[board])
    later = [trial for trial in tuner.oracle.trials.values() if "tuner/trial_id" in trial.hyperparameters.values]
    assert later
    for trial in later:
        parent = tuner.oracle.get_trial(trial.hyperparameters.values["tuner/trial_id"])
        per_epoch = TrialRecord.read(tuner.get_trial_dir(trial.trial_id)).schedule["steps_per_epoch"]
        before = per_epoch * (parent.best_step + 1)  # the checkpoint is that of the best epoch
        assert min(rates(tmp_path / "logs" / trial.trial_id / "execution0")) > before > 0


def test_a_board_that_cannot_be_written_to_fails_no_trial(tmp_path, data, monkeypatch):
    def fail(board):
        raise OSError("no room")

    monkeypatch.setattr("autolr.compat.train_writer", fail)
    with pytest.warns(autolr.AutoLRWarning, match=r"no longer shown in TensorBoard \(OSError: no room\)"):
        record, _ = search(tmp_path, data)
    assert record.training["steps"] == 24
