"""Snapshots on disk, and the two ways to join them in one model."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers import LOSS, Subclassed, assert_same_arrays, compiled, functional, one_weight, sequential

from autolr import AutoLRWarning, SGDRScheduler
from autolr.ensemble import averaged_weights, save_snapshot, snapshot_ensemble, snapshot_paths


@keras.saving.register_keras_serializable("tests")
class Own(keras.Model):
    """A class of the user's own, with BatchNormalization."""

    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.norm, self.top = keras.layers.BatchNormalization(), keras.layers.Dense(units, activation="softmax")

    def call(self, x, training=False):
        return self.top(self.norm(x, training=training))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def several_ends():
    one, two = keras.Input((6,), name="one"), keras.Input((2,), name="two")
    joined = keras.layers.Concatenate()([one, two])
    ends = [keras.layers.Dense(3, name="a")(joined), keras.layers.Dense(1, name="b")(joined)]
    return keras.Model({"one": one, "two": two}, ends)


def trained(model, data, folder, *, epochs=6, **options):
    """A model after three cycles of two epochs, and its weights at the end of each."""
    options = {"cycle_length": 2, "mult_factor": 1, "snapshot_folder": folder, **options}
    ends = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: ends.append(model.get_weights()) if epoch % 2 else None
    )
    schedule = SGDRScheduler(0.001, 0.05, **options)
    model.fit(*data, epochs=epochs, batch_size=16, callbacks=[schedule, note], verbose=0)
    return ends


def predictions(model, x, ends):
    found = []
    for weights in ends:
        model.set_weights(weights)
        found.append(model.predict(x, verbose=0))
    return found


@pytest.mark.parametrize("build", [sequential, functional, Own])
def test_the_ensemble_averages_predictions_and_survives_saving(build, data, tmp_path):
    model = compiled(build())
    ends = trained(model, data, tmp_path / "cycles")
    ensemble = snapshot_ensemble(model, tmp_path / "cycles")
    assert_same_arrays(model.get_weights(), ends[-1])
    x, y = data
    mean = np.mean(predictions(model, x, ends), axis=0)
    np.testing.assert_allclose(ensemble.predict(x, verbose=0), mean, rtol=1e-5, atol=1e-6)
    assert not ensemble.trainable_weights
    loss, accuracy = ensemble.evaluate(x, y, verbose=0)
    assert accuracy == pytest.approx(np.mean(mean.argmax(axis=1) == y))
    assert loss == pytest.approx(-np.log(mean[np.arange(len(y)), y]).mean(), rel=1e-4)
    ensemble.save(tmp_path / "ensemble.keras")
    loaded = keras.models.load_model(tmp_path / "ensemble.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), ensemble.predict(x, verbose=0))


def test_several_inputs_and_outputs(tmp_path):
    model, rng = several_ends(), np.random.default_rng(0)
    model.compile("sgd", ["mse", "mse"])
    x = {"one": rng.normal(size=(32, 6)).astype("float32"), "two": rng.normal(size=(32, 2)).astype("float32")}
    ends = trained(model, (x, [np.ones((32, 3)), np.ones((32, 1))]), tmp_path)
    found = snapshot_ensemble(model, tmp_path).predict(x, verbose=0)
    each = predictions(model, x, ends)
    for at in (0, 1):
        np.testing.assert_allclose(found[at], np.mean([one[at] for one in each], axis=0), rtol=1e-4, atol=1e-6)


def test_an_ensemble_is_evaluated_as_its_model_is(tmp_path):
    inputs = keras.Input((6,))
    ends = {"a": keras.layers.Dense(3)(inputs), "b": keras.layers.Dense(1)(inputs)}
    model = keras.Model(inputs, ends)
    model.compile(
        "sgd",
        loss={"a": "mse", "b": "mae"},
        loss_weights={"a": 1000.0, "b": 1.0},
        metrics={"a": ["mae"]},
        weighted_metrics={"b": ["mse"]},
    )
    x, weight = np.random.default_rng(0).normal(size=(20, 6)), np.arange(20.0)
    y = {"a": np.ones((20, 3)), "b": np.ones((20, 1))}
    model.save_weights(tmp_path / "end.weights.h5")
    wanted = model.evaluate(x, y, sample_weight={"a": weight, "b": weight}, verbose=0, return_dict=True)
    for joined in (
        snapshot_ensemble(model, [tmp_path / "end.weights.h5"]),
        averaged_weights(model, [tmp_path / "end.weights.h5"]),
    ):
        found = joined.evaluate(x, y, sample_weight={"a": weight, "b": weight}, verbose=0, return_dict=True)
        assert found == pytest.approx(wanted, rel=1e-5)


class NotRegistered(keras.layers.Layer):
    def call(self, x):
        return 2 * x


def error_of_mine(y, prediction):
    return keras.ops.mean(prediction, axis=-1)


def test_what_is_not_registered_is_told_of_and_costs_no_ensemble(data, tmp_path):
    x, y = data
    model = keras.Sequential([keras.Input((6,)), NotRegistered(), keras.layers.Dense(3, activation="softmax")])
    compiled(model, metrics=[error_of_mine])
    model.save_weights(tmp_path / "end.weights.h5")
    with pytest.warns(AutoLRWarning, match="error_of_mine"):
        ensemble = snapshot_ensemble(model, [tmp_path / "end.weights.h5"])
    np.testing.assert_allclose(ensemble.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-6)
    loss = model.evaluate(x, y, verbose=0, return_dict=True)["loss"]
    assert ensemble.evaluate(x, y, verbose=0, return_dict=True) == pytest.approx({"loss": loss}, rel=1e-5)


def test_a_snapshot_that_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    model = one_weight()

    def half(path, **options):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model, "save_weights", half)
    with pytest.raises(OSError, match="No space"):
        save_snapshot(model, tmp_path, 1, keep=3)
    assert list(tmp_path.iterdir()) == []


def test_the_last_so_many_are_kept_and_used(data, tmp_path):
    model = compiled(sequential())
    ends = trained(model, data, tmp_path, epochs=8, num_snapshots=3)
    assert [path.name for path in snapshot_paths(tmp_path)] == [f"cycle-000{n}.weights.h5" for n in (2, 3, 4)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in snapshot_paths(tmp_path)]
    single = snapshot_ensemble(model, tmp_path, last=1)
    np.testing.assert_allclose(
        single.predict(data[0], verbose=0), predictions(model, data[0], ends[-1:])[0], rtol=1e-5, atol=1e-6
    )
    chosen = snapshot_ensemble(model, [tmp_path / "cycle-0002.weights.h5", str(tmp_path / "cycle-0004.weights.h5")])
    mean = np.mean(predictions(model, data[0], [ends[1], ends[3]]), axis=0)
    np.testing.assert_allclose(chosen.predict(data[0], verbose=0), mean, rtol=1e-5, atol=1e-6)


def test_a_training_resumed_keeps_what_was_before_and_one_anew_does_not(tmp_path):
    def fit(epochs, initial_epoch=0):
        schedule = SGDRScheduler(0.01, 0.4, cycle_length=1, mult_factor=1, snapshot_folder=tmp_path)
        x = np.ones((8, 1), "float32")
        one_weight().fit(
            x, x, epochs=epochs, initial_epoch=initial_epoch, batch_size=4, verbose=0, callbacks=[schedule]
        )
        return [int(path.name[6:10]) for path in snapshot_paths(tmp_path)]

    assert fit(4) == [1, 2, 3, 4]
    assert fit(4, initial_epoch=2) == [1, 2, 3, 4]
    assert fit(3, initial_epoch=2) == [1, 2, 3]  # the fourth was of a training given up
    assert fit(2) == [1, 2]


@pytest.mark.parametrize("build", [sequential, Own])
def test_averaged_weights_with_statistics_gathered_anew(build, data, tmp_path):
    keras.utils.set_random_seed(1)  # what so little training reaches depends on where it begins
    model = compiled(build())
    ends = trained(model, data, tmp_path)
    averaged = averaged_weights(model, tmp_path, data[0], batch_size=48)  # 48 and 16: weighted by their sizes
    for weight, variable, *each in zip(averaged.get_weights(), averaged.weights, *ends, strict=True):
        if "moving" not in variable.path:
            np.testing.assert_allclose(weight, np.mean(each, axis=0), rtol=1e-5, atol=1e-7)
    batches = [data[0][:48], data[0][48:]]
    norm = next(layer for layer in averaged.layers if isinstance(layer, keras.layers.BatchNormalization))
    seen = batches if isinstance(model, Own) else [averaged.layers[0](batch) for batch in batches]
    for variable, of in ((norm.moving_mean, np.mean), (norm.moving_variance, np.var)):
        parts = [of(keras.ops.convert_to_numpy(part), axis=0) for part in seen]
        expected = (48 * parts[0] + 16 * parts[1]) / 64
        np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), expected, rtol=1e-4, atol=1e-6)
    assert norm.momentum == 0.99
    right = np.mean(np.argmax(averaged.predict(data[0], verbose=0), axis=1) == data[1])
    assert averaged.evaluate(*data, verbose=0)[1] == pytest.approx(right)
    assert right > 0.4  # of three classes
    averaged.save(tmp_path / "averaged.keras")
    loaded = keras.models.load_model(tmp_path / "averaged.keras")
    np.testing.assert_array_equal(loaded.predict(data[0], verbose=0), averaged.predict(data[0], verbose=0))


def test_without_batch_normalization_no_data_are_needed(tmp_path):
    model = one_weight()
    x = np.ones((8, 1), "float32")
    schedule = SGDRScheduler(0.01, 0.4, cycle_length=1, mult_factor=1, snapshot_folder=tmp_path)
    model.fit(x, x, epochs=3, batch_size=4, verbose=0, callbacks=[schedule])
    weights = [averaged_weights(model, [path]).get_weights()[0] for path in snapshot_paths(tmp_path)]
    np.testing.assert_allclose(averaged_weights(model, tmp_path).get_weights()[0], np.mean(weights, axis=0), rtol=1e-6)


def test_statistics_from_a_dataset_are_those_from_arrays(data, tmp_path):
    model = compiled(sequential())
    trained(model, data, tmp_path)

    class InBatches(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return data[0][16 * index : 16 * index + 16], data[1][16 * index : 16 * index + 16]

    found = averaged_weights(model, tmp_path, InBatches()).get_weights()
    assert_same_arrays(found, averaged_weights(model, tmp_path, data[0], batch_size=16).get_weights())


def test_what_is_missing_is_named(data, tmp_path):
    model = compiled(sequential())
    for nothing in (tmp_path, tmp_path / "nowhere", []):
        with pytest.raises(ValueError, match=r"^Argument `snapshots` must .*Received: .*SGDRScheduler"):
            snapshot_ensemble(model, nothing)
    trained(model, data, tmp_path)
    with pytest.raises(ValueError, match=r"^Argument `x` must .*Received: x=None"):
        averaged_weights(model, tmp_path)
    with pytest.raises(ValueError, match=r"^Argument `last` must .*Received: last=0"):
        snapshot_ensemble(model, tmp_path, last=0)
    with pytest.raises(ValueError, match=r"^Argument `model` must be built"):
        snapshot_ensemble(Subclassed(), tmp_path)
    without_config = Subclassed()
    without_config.compile("sgd", LOSS)
    without_config.fit(*data, verbose=0)
    with pytest.raises(ValueError, match=r"^Argument `model` must be of a class that can be made again"):
        snapshot_ensemble(without_config, tmp_path)
    with pytest.raises(ValueError, match=r"^Argument `num_snapshots` must"):
        SGDRScheduler(0.1, 1.0, num_snapshots=0)
