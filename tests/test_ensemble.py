"""Snapshots on disk, and the two ways to join them in one model."""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections import OrderedDict
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import LOSS, Subclassed, assert_same_arrays, compiled, functional, one_weight, sequential

from autolr import AutoLRWarning, SGDRScheduler
from autolr.cycle_ends import drop_snapshots, save_snapshot, snapshot_paths
from autolr.ensemble import average, averaged_weights, snapshot_ensemble
from autolr.files import written_aside


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


def test_an_input_may_be_missing_or_sparse_as_in_the_model(tmp_path):
    given = keras.Input((6,), name="given", sparse=True)
    extra = keras.Input((6,), name="extra", optional=True)

    class Sum(keras.layers.Layer):
        def call(self, one, other=None):
            return one if other is None else one + other

    normal = keras.layers.BatchNormalization()(Sum()(keras.layers.Dense(6)(given), extra))
    model = keras.Model({"given": given, "extra": extra}, keras.layers.Dense(1)(normal))
    model.compile("sgd", "mse")
    x = {"given": np.ones((24, 6), "float32"), "extra": None}
    schedule = SGDRScheduler(0.001, 0.05, cycle_length=1, mult_factor=1, snapshot_folder=tmp_path)
    model.fit(x, np.zeros(24), epochs=2, callbacks=[schedule], verbose=0)
    ensemble = snapshot_ensemble(model, tmp_path)
    assert ensemble.predict(x, verbose=0).shape == (24, 1)
    assert ensemble.input["given"].sparse
    assert averaged_weights(model, tmp_path, x).predict(x, verbose=0).shape == (24, 1)


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


def of_texts(output_mode):
    layer = keras.layers.TextVectorization(output_mode=output_mode)
    layer.adapt(["red green", "blue", "green"])
    inputs = keras.Input((), dtype="string")
    return keras.Model(inputs, keras.layers.Dense(2)(layer(inputs))), tf.constant(["green", "blue red"])


def of_texts_with_given_words():
    inputs = keras.Input((1,), dtype="string")
    layer = keras.layers.StringLookup(vocabulary=["red", "blue"], output_mode="one_hot")
    return keras.Model(inputs, keras.layers.Dense(2)(layer(inputs))), tf.constant([["red"], ["green"]])


def of_numbers():
    layer = keras.layers.IntegerLookup(output_mode="one_hot")
    layer.adapt([1, 5, 9])
    inputs = keras.Input((1,), dtype="int64")
    return keras.Model(inputs, keras.layers.Dense(2)(layer(inputs))), tf.constant([[5], [7]])


LOOKUPS = {
    "texts": lambda: of_texts("multi_hot"),
    "how rare they are": lambda: of_texts("tf_idf"),
    "given words": of_texts_with_given_words,
    "numbers": of_numbers,
}


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="texts need TensorFlow in the graph")
@pytest.mark.parametrize("kind", LOOKUPS)
def test_adapted_layers_look_up_what_they_were_adapted_to(kind, tmp_path):
    model, x = LOOKUPS[kind]()
    save_snapshot(model, tmp_path, 1, keep=5)
    for made in (snapshot_ensemble(model, tmp_path), averaged_weights(model, tmp_path)):
        np.testing.assert_allclose(made.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-6)


def test_a_model_with_a_lambda_is_told_what_to_do(tmp_path):
    layer = keras.layers.Lambda(lambda x: 2 * x)
    with contextlib.suppress(ValueError):
        keras.layers.Lambda.from_config(layer.get_config())
        pytest.skip("this Keras makes them again without a question")
    model = keras.Sequential([keras.Input((6,)), layer])
    save_snapshot(model, tmp_path, 1, keep=5)
    with pytest.raises(
        ValueError, match=r"^Argument `model` must .*Received: .*`Lambda` layer, use a layer of your own"
    ):
        snapshot_ensemble(model, tmp_path)


@pytest.mark.parametrize("build", [sequential, pytest.param(functional, marks=pytest.mark.slow), Own])
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


def test_predictions_are_averaged_in_their_own_precision(tmp_path):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        head = keras.layers.Dense(1, dtype="float32", bias_initializer=keras.initializers.Constant(1e5))
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4), head])
        x = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
        save_snapshot(model, tmp_path, 1, keep=1)
        ensemble = snapshot_ensemble(model, tmp_path)
        assert ensemble.predict(x, verbose=0).dtype == np.float32
        np.testing.assert_array_equal(ensemble.predict(x, verbose=0), model.predict(x, verbose=0))
    finally:
        keras.config.set_dtype_policy(policy)


def test_predictions_in_half_precision_are_averaged_in_single(tmp_path):
    head = keras.layers.Dense(1, dtype="mixed_float16", bias_initializer=keras.initializers.Constant(30000))
    model = keras.Sequential([keras.Input((6,)), head])
    for cycle in (1, 2, 3):
        save_snapshot(model, tmp_path, cycle, keep=3)
    x = np.zeros((2, 6), "float32")
    np.testing.assert_array_equal(snapshot_ensemble(model, tmp_path).predict(x, verbose=0), 30000)


def test_several_inputs_and_outputs(tmp_path):
    model, rng = several_ends(), np.random.default_rng(0)
    model.compile("sgd", ["mse", "mse"])
    x = {"one": rng.normal(size=(32, 6)).astype("float32"), "two": rng.normal(size=(32, 2)).astype("float32")}
    ends = trained(model, (x, [np.ones((32, 3)), np.ones((32, 1))]), tmp_path)
    found = snapshot_ensemble(model, tmp_path).predict(x, verbose=0)
    each = predictions(model, x, ends)
    for at in (0, 1):
        np.testing.assert_allclose(found[at], np.mean([one[at] for one in each], axis=0), rtol=1e-4, atol=1e-6)


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


@pytest.mark.parametrize("build", [sequential, pytest.param(Own, marks=pytest.mark.slow)])
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


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of tf.data")
def test_data_without_end_are_refused(data, tmp_path):
    model = compiled(sequential())
    trained(model, data, tmp_path)
    with pytest.raises(ValueError, match=r"`x` must end, .*Leave out `repeat\(\)`"):
        averaged_weights(model, tmp_path, tf.data.Dataset.from_tensor_slices(data).batch(16).repeat())


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
        @property
        def num_batches(self):  # in place of a length, as Keras allows
            return 4

        def __getitem__(self, index):
            return data[0][16 * index : 16 * index + 16], data[1][16 * index : 16 * index + 16]

    found = averaged_weights(model, tmp_path, InBatches()).get_weights()
    assert_same_arrays(found, averaged_weights(model, tmp_path, data[0], batch_size=16).get_weights())


def test_what_is_missing_is_named(data, tmp_path):
    model = compiled(sequential())
    for nothing in (tmp_path, tmp_path / "nowhere", [], None, 3, [None], b"folder"):
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
    with pytest.raises(ValueError, match=r"^Argument `model` must be such that it can be made again"):
        snapshot_ensemble(without_config, tmp_path)
    with pytest.raises(ValueError, match=r"^Argument `num_snapshots` must"):
        SGDRScheduler(0.1, 1.0, num_snapshots=0)
    for nowhere in ("", 3):  # an empty name would be the working directory, whose snapshots a training removes
        with pytest.raises(ValueError, match=r"^Argument `snapshot_folder` must .*Received: snapshot_folder="):
            SGDRScheduler(0.1, 1.0, snapshot_folder=nowhere)


def test_an_input_may_be_an_output_too(tmp_path):
    inputs = keras.Input((6,), name="features")
    model = keras.Model(inputs, [inputs, keras.layers.Dense(1, name="answer")(inputs)])
    model.compile("sgd", [None, "mse"])
    x = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    ensemble = own_end(model, tmp_path)
    assert_same_arrays(ensemble.predict(x, verbose=0), model.predict(x, verbose=0))


def my_metric(y, prediction):
    return keras.ops.mean(keras.ops.abs(y - prediction), axis=-1)


def one_layer(**arguments):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", **arguments)
    return model


def own_end(model, folder, join=snapshot_ensemble):
    """The ensemble of the one snapshot of a model as it is, which has to give what the model gives."""
    path = folder / "now.weights.h5"
    model.save_weights(path)
    return join(model, [path])


def assert_evaluates_alike(ensemble, model, x, y, **options):
    expected = model.evaluate(x, y, verbose=0, return_dict=True, **options)
    found = ensemble.evaluate(x, y, verbose=0, return_dict=True, **options)
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, rel=1e-5)
    listed = model.evaluate(x, y, verbose=0, **options)
    assert ensemble.evaluate(x, y, verbose=0, **options) == pytest.approx(listed, rel=1e-5)


@pytest.mark.parametrize("batch_size", [0, -1, 1.5])
def test_a_batch_size_that_is_none_is_refused(batch_size, data, tmp_path):
    with pytest.raises(ValueError, match=r"`batch_size` must be .*Received: batch_size="):
        averaged_weights(one_weight(), tmp_path, data[0], batch_size=batch_size)


@pytest.mark.parametrize("join", [snapshot_ensemble, averaged_weights])
def test_the_weights_of_losses_survive(join, tmp_path):
    model = several_ends()
    model.compile("sgd", ["mse", "mse"], loss_weights=[1.0, 0.001])
    x = {"one": np.ones((8, 6), "float32"), "two": np.ones((8, 2), "float32")}
    assert_evaluates_alike(own_end(model, tmp_path, join), model, x, [np.ones((8, 3)), np.full((8, 1), 90.0)])


@pytest.mark.parametrize("kind", [list, pytest.param(tuple, marks=pytest.mark.slow)])
@pytest.mark.parametrize("join", [snapshot_ensemble, averaged_weights])
def test_weighted_metrics_survive(join, kind, tmp_path):
    mean = keras.metrics.MeanAbsoluteError(name="mean")
    model = one_layer(metrics=[mean, "mse"], weighted_metrics=kind(("mae", keras.losses.huber)))
    x, y, weights = np.ones((8, 2), "float32"), np.arange(8.0)[:, None], np.arange(8.0)
    try:
        model.evaluate(x, y, verbose=0)
    except ValueError:
        assert kind is tuple
        pytest.skip("Keras itself refuses a tuple of metrics.")
    joined = own_end(model, tmp_path, join)
    assert_evaluates_alike(joined, model, x, y, sample_weight=weights)


@pytest.mark.parametrize("metrics", [["mae", my_metric], [["mae", my_metric]], [lambda y, p: y - p, "mae"]])
def test_metrics_that_cannot_be_made_again_are_left_out_and_named(metrics, tmp_path):
    model = one_layer(metrics=metrics, weighted_metrics=[my_metric, "mse"])
    with pytest.warns(AutoLRWarning, match=r"without the metrics .+, my_metric, which"):
        ensemble = own_end(model, tmp_path)
    found = ensemble.evaluate(np.ones((8, 2), "float32"), np.ones((8, 1)), verbose=0, return_dict=True)
    assert set(found) == {"loss", "mae", "mse"}


@pytest.mark.parametrize("metrics", [[my_metric, "mae"], {"a": [my_metric], "b": [my_metric, "mae"]}])
def test_a_metric_left_out_moves_no_other_to_another_output(metrics, tmp_path):
    model = several_ends()
    model.compile("sgd", ["mse", "mse"], metrics=metrics)
    x = {"one": np.ones((8, 6), "float32"), "two": np.ones((8, 2), "float32")}
    with pytest.warns(AutoLRWarning, match="my_metric"):
        ensemble = own_end(model, tmp_path)
    found = ensemble.evaluate(x, [np.ones((8, 3)), np.ones((8, 1))], verbose=0, return_dict=True)
    assert [name for name in found if "loss" not in name] == ["b_mae"]


def test_two_processes_may_write_the_same_snapshot(tmp_path, monkeypatch):
    model, other = one_layer(), one_layer()
    save_weights = model.save_weights

    def save_while_another_does(path, **options):
        save_weights(path, **options)
        save_snapshot(other, tmp_path, 1, keep=3)

    monkeypatch.setattr(model, "save_weights", save_while_another_does)
    save_snapshot(model, tmp_path, 1, keep=3)
    assert [path.name for path in tmp_path.iterdir()] == ["cycle-0001.weights.h5"]
    other.load_weights(tmp_path / "cycle-0001.weights.h5")
    assert_same_arrays(other.get_weights(), model.get_weights())


def test_what_another_process_has_removed_is_not_missed(tmp_path, monkeypatch):
    gone = [tmp_path / f"cycle-000{cycle}.weights.h5" for cycle in (1, 2)]
    monkeypatch.setattr("autolr.cycle_ends.snapshot_paths", lambda folder: gone)
    save_snapshot(one_layer(), tmp_path, 3, keep=1)
    drop_snapshots(tmp_path, after=0)


def test_what_a_kill_left_half_written_goes_with_the_snapshots_of_that_training(tmp_path):
    killed = written_aside(tmp_path / "cycle-0001.weights.h5")
    killed.__enter__().write_bytes(b"half")
    drop_snapshots(tmp_path, after=1)
    assert len(list(tmp_path.iterdir())) == 1, "another process may be writing it"
    drop_snapshots(tmp_path, after=0)
    assert not list(tmp_path.iterdir())


def test_snapshots_that_cannot_be_removed_do_not_end_the_training(tmp_path, monkeypatch):
    save_snapshot(one_layer(), tmp_path, 1, keep=3)

    def refuse(path, **options):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.warns(AutoLRWarning, match=r"could not be removed from .*Permission denied.*Training goes on"):
        drop_snapshots(tmp_path, after=0)


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    model = one_layer()

    def fail(path, **options):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(model, "save_weights", fail)
    with pytest.raises(OSError, match="No space"):
        save_snapshot(model, tmp_path, 1, keep=3)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_not_begun_on(tmp_path, monkeypatch):
    """HDF5 crashes the process where a disk fills up while it writes."""
    model = one_layer()
    room = shutil.disk_usage(tmp_path)._replace(free=2000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: room)
    monkeypatch.setattr(model, "save_weights", lambda path: pytest.fail("began to write"))
    with pytest.raises(OSError, match="No space left on device"):
        save_snapshot(model, tmp_path, 1, keep=3)


def test_room_is_needed_for_the_slots_of_the_optimizer_too(tmp_path, monkeypatch):
    model = keras.Sequential([keras.Input((1000,)), keras.layers.Dense(1000)])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    room = shutil.disk_usage(tmp_path)._replace(free=8_000_000)  # of 4 MB of weights, and 8 of slots
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: room)
    with pytest.raises(OSError, match="No space left on device"):
        save_snapshot(model, tmp_path, 1, keep=3)
    monkeypatch.undo()
    save_snapshot(model, tmp_path, 1, keep=3)
    (path,) = tmp_path.iterdir()
    assert 12_000_000 < path.stat().st_size < 13_000_000


class NotRegistered(keras.layers.Layer):
    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor, self.inner = factor, keras.layers.Dense(3)

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x) * self.factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def in_sequential():
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(4), NotRegistered(2.0)])


def in_functional():
    inputs, layer = keras.Input((6,)), NotRegistered(3.0)
    return keras.Model(inputs, keras.layers.Concatenate()([layer(inputs), layer(inputs * 2)]))


def in_models_within():
    inputs = keras.Input((6,))
    return keras.Model(inputs, in_sequential()(keras.layers.Concatenate()([in_functional()(inputs), inputs])[:, :6]))


def built_by_its_data():
    model = keras.Sequential([NotRegistered(2.0), keras.layers.Dense(2)])
    model(np.ones((2, 6), "float32"))
    return model


@pytest.mark.parametrize("build", [in_sequential, in_functional, in_models_within, built_by_its_data])
@pytest.mark.parametrize("join", [snapshot_ensemble, averaged_weights])
def test_layers_that_are_not_registered_are_cloned(join, build, tmp_path):
    model, x = build(), np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    joined = own_end(model, tmp_path, join)
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(joined.predict(x, verbose=0), expected, rtol=1e-5, atol=1e-6)
    assert all(mine is not its for mine in model.weights for its in joined.weights)


@keras.saving.register_keras_serializable("tests")
class OwnEnds(keras.Model):
    """A class of the user's own that returns a dictionary, not in the order of its keys."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.one, self.two = keras.layers.Dense(1), keras.layers.Dense(1)

    def call(self, x):
        return {"b": self.one(x), "a": self.two(x)}


def named_ends(kind, **names):
    inputs = keras.Input((2,))
    return keras.Model(inputs, kind((end, keras.layers.Dense(1, name=name)(inputs)) for end, name in names.items()))


@pytest.mark.parametrize(
    "build",
    [
        OwnEnds,
        lambda: named_ends(dict, b="a", a="b"),
        *(
            pytest.param(lambda kind=kind, names=names: named_ends(kind, **names), marks=pytest.mark.slow)
            for kind in (dict, OrderedDict)
            for names in ({"b": "b", "a": "a"}, {"b": "x", "a": "y"})
        ),
    ],
)
@pytest.mark.parametrize(
    "loss",
    [
        ["mse", "mae"],
        {"b": "mae", "a": "mse"},
        *(pytest.param(loss, marks=pytest.mark.slow) for loss in ("mse", {"a": "mse", "b": "mae"})),
    ],
)
def test_ends_with_names_keep_their_order(build, loss, tmp_path):
    keras.utils.set_random_seed(1)
    model = build()
    x, y = np.ones((4, 2), "float32"), {"a": np.full((4, 1), 3.0), "b": np.zeros((4, 1))}
    weights = {"a": 1.0, "b": 5.0} if isinstance(loss, dict) else None
    model.compile("sgd", loss, loss_weights=weights, metrics={"b": ["mae"]})
    try:
        model.evaluate(x, y, verbose=0)
    except KeyError:
        pytest.skip("Keras itself refuses these losses for these ends.")
    assert_evaluates_alike(own_end(model, tmp_path), model, x, y)


def test_bfloat16_weights_are_averaged(tmp_path):
    """NumPy does not count them among its floats."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, dtype="bfloat16")])
    for cycle, weight in enumerate((10.0, 20.0), start=1):
        model.set_weights([np.full((1, 1), weight)])
        save_snapshot(model, tmp_path, cycle, keep=2)
    (weight,) = averaged_weights(model, tmp_path).get_weights()
    assert float(weight[0, 0]) == 15


def test_an_average_obeys_the_constraints_of_its_weights(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, kernel_constraint="unit_norm")])
    rng = np.random.default_rng(0)
    for cycle in (1, 2):
        kernel = rng.normal(size=(3, 2))
        model.set_weights([kernel / np.linalg.norm(kernel, axis=0), np.zeros(2)])
        save_snapshot(model, tmp_path, cycle, keep=2)
    kernel = averaged_weights(model, tmp_path).get_weights()[0]
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1, rtol=1e-5)


def test_adapters_are_averaged_though_files_hold_them_within_the_kernels(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), keras.layers.Dense(1)])
    model.layers[0].enable_lora(2)
    model.compile("sgd", "mse")
    kernels = []
    for cycle in (1, 2):
        model.layers[0].lora_kernel_b.assign(np.full((2, 2), cycle, "float32"))
        kernels.append(np.array(model.layers[0].kernel))
        save_snapshot(model, tmp_path, cycle, keep=2)
    averaged = averaged_weights(model, tmp_path)
    np.testing.assert_allclose(np.array(averaged.layers[0].kernel), np.mean(kernels, axis=0), rtol=1e-5)
    assert not np.allclose(*kernels)


def test_kernels_of_whole_numbers_have_no_mean(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="top")])
    model.quantize("int8")
    model.layers[0].enable_lora(2)
    model.compile("sgd", "mse")
    for cycle in (1, 2):
        save_snapshot(model, tmp_path, cycle, keep=2)
    with pytest.raises(ValueError, match=r"^Argument `model` must have no quantized layers with LoRA.*top"):
        averaged_weights(model, tmp_path)


def test_statistics_need_a_sample(data, tmp_path):
    model = compiled(Own())
    trained(model, data, tmp_path, epochs=2)
    with pytest.raises(ValueError, match=r"^Argument `x` must hold at least one sample"):
        averaged_weights(model, tmp_path, data[0][:0])


@keras.saving.register_keras_serializable("tests")
class TakesTwo(keras.Model):
    def call(self, x):
        return keras.ops.concatenate(keras.tree.flatten(x), axis=-1)


@pytest.mark.parametrize("nest", [list, lambda pair: dict(zip("ab", pair, strict=True))])
def test_a_class_of_ones_own_with_several_inputs_is_refused(nest, tmp_path):
    model = TakesTwo()
    model(nest([np.ones((2, 3)), np.ones((2, 4))]))
    save_snapshot(model, tmp_path, 1, keep=1)
    with pytest.raises(ValueError, match=r"^Argument `model` must take one input"):
        snapshot_ensemble(model, tmp_path)


def test_an_ensemble_leaves_a_layer_trainable_that_is_also_within_a_frozen_one():
    inputs, within = keras.Input((3,)), keras.Input((3,))
    shared = keras.layers.Dense(3)
    frozen = keras.Model(within, shared(within))
    model = keras.Model(inputs, frozen(shared(inputs)))
    frozen.trainable = False
    shared.trainable = True
    average([model, keras.models.clone_model(model)], name="both")
    assert shared.trainable
    assert not frozen.trainable


def zeal(y, prediction):
    return keras.ops.mean((y - prediction) ** 2, axis=-1)


class Zeal(keras.losses.Loss):
    def call(self, y, prediction):
        return zeal(y, prediction)


@keras.saving.register_keras_serializable("tests")
def known(y, prediction):
    return zeal(y, prediction)


@pytest.mark.parametrize(
    ("loss", "told"),
    [("mse", None), (keras.losses.Huber(), None), (known, None), (zeal, "zeal"), (Zeal(), "Zeal"), ([zeal], "zeal")],
)
def test_a_loss_that_keras_would_not_find_again_is_named(tmp_path, loss, told):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", loss)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        own_end(model, tmp_path).save(tmp_path / "ensemble.keras")
    said = [str(it.message) for it in caught if "with the loss" in str(it.message)]
    assert len(said) == (told is not None)
    assert told is None or f"with the loss {told}, " in said[0]
    assert keras.saving.load_model(tmp_path / "ensemble.keras", compile=False).count_params() == 3


class Scored:
    """A callable without a config."""

    def __call__(self, y, prediction):
        return keras.ops.mean(keras.ops.square(y - prediction), axis=-1)


@pytest.mark.parametrize("loss", [Scored(), partial(keras.losses.huber, delta=0.1)])
@pytest.mark.parametrize("join", [snapshot_ensemble, averaged_weights])
def test_what_was_compiled_need_not_be_such_that_keras_can_write_it_down(join, loss, tmp_path):
    schedule = keras.optimizers.schedules.LearningRateSchedule  # one of the user's own, without a config
    model = one_layer()
    own = type("Own", (schedule,), {"__call__": lambda self, step: 0.1})()
    model.compile(keras.optimizers.SGD(own), loss, metrics=["mae"])
    x, y = np.ones((8, 2), "float32"), np.ones((8, 1), "float32")
    with pytest.warns(AutoLRWarning, match="which Keras does not know by name"):
        joined = own_end(model, tmp_path, join)
    assert_evaluates_alike(joined, model, x, y)


def test_a_metric_that_cannot_be_written_down_is_left_out_and_named(tmp_path):
    model = one_layer(metrics=["mae", partial(keras.losses.huber, delta=0.1), Scored()])
    with pytest.warns(AutoLRWarning, match="without the metrics partial, Scored, which"):
        ensemble = own_end(model, tmp_path)
    assert set(ensemble.evaluate(np.ones((8, 2)), np.ones((8, 1)), verbose=0, return_dict=True)) == {"loss", "mae"}


@keras.saving.register_keras_serializable("tests")
class CompiledItsOwnWay(Own):
    def compile(self, optimizer, alpha):
        super().compile(optimizer, "mse")
        self.alpha = alpha


@keras.saving.register_keras_serializable("tests")
class CompiledAlike(Own):
    def compile(self, optimizer, loss):
        super().compile(optimizer, loss)


@keras.saving.register_keras_serializable("tests")
class CompiledWithMore(Own):
    def compile(self, optimizer, loss="mse", beta=0.5, **options):
        super().compile(optimizer, loss, **options)


@keras.saving.register_keras_serializable("tests")
class CompiledByItsRate(Own):
    def compile(self, learning_rate=0.1, **options):
        super().compile(keras.optimizers.SGD(learning_rate), "mse", **options)


@pytest.mark.parametrize(
    ("kind", "arguments", "said"),
    [
        (CompiledItsOwnWay, {"alpha": 2.0}, "not compiled, since `compile` of `CompiledItsOwnWay` fails"),
        (CompiledByItsRate, {"learning_rate": 0.1}, "not compiled, since `compile` of `CompiledByItsRate` fails"),
        (CompiledAlike, {"loss": "mse"}, ""),
        (CompiledWithMore, {"beta": 0.1}, "with the defaults of beta, which only `compile` of `CompiledWithMore`"),
    ],
)
def test_a_compile_of_the_users_own_is_called_with_what_it_is_known_to_take(kind, arguments, said, tmp_path):
    x, model = np.ones((8, 4), "float32"), kind()
    model.compile(**({} if kind is CompiledByItsRate else {"optimizer": "sgd"}), **arguments)
    model(x)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        averaged = own_end(model, tmp_path, lambda model, paths: averaged_weights(model, paths, x))
    assert averaged.compiled == ("not compiled" not in said)
    assert [said in str(it.message) for it in caught if it.category is AutoLRWarning] == [True] * bool(said)


def test_statistics_come_from_batches_in_lists_as_fit_takes_them(tmp_path):
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.BatchNormalization()(inputs)))
    model.compile("sgd", "mse")
    x, y = np.random.default_rng(0).normal(size=(32, 2)).astype("float32"), np.ones((32, 1), "float32")

    class Lists(keras.utils.PyDataset):
        num_batches = 2

        def __getitem__(self, index):
            return [x[index * 16 : index * 16 + 16], y[index * 16 : index * 16 + 16]]

    by_lists, by_arrays = (
        own_end(model, tmp_path, lambda model, paths, given=given: averaged_weights(model, paths, given, batch_size=16))
        for given in (Lists(), x)
    )
    assert_same_arrays(by_lists.get_weights(), by_arrays.get_weights())
