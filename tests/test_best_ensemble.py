"""The ends of a search's cycles as one model."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace

import keras
import keras_tuner as kt
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import autolr
from autolr.best_ends import best_ends, near_the_best, one_of_each_chain
from autolr.cycle_ends import cycle_of, snapshot_paths
from autolr.records import TrialRecord

BOUNDS = {"min_lr": 1e-3, "max_lr": 4e-3, "status": "ok", "reason": "It fell.", "confidence": "high"}
SCHEDULE = {"lr_decay": 1.0, "warmup": 0.1, "initial_epoch": 0, "steps_per_epoch": 10, "batches_per_update": 1}
UNTRAINED = {
    "fits": 1,
    "steps": 0,
    "steps_of_all": 0,
    "rates": {"step": [], "lr": []},
    "losses": {"step": [], "loss": []},
}


def write_record(folder, *, edges, epochs, **changes):
    """A trial's record, of cycles with these edges and of these epochs."""
    values = {"bounds": BOUNDS, "schedule": {**SCHEDULE, "edges": edges}, "training": {**UNTRAINED, "epochs": epochs}}
    TrialRecord(
        **{"trial_id": "0", "values": {}, "range_test": None, "source": "range test", **values, **changes}
    ).write(folder)


def build(hp):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(hp.Choice("units", [4, 8])), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    hp.Fixed("cycle_length", 1)
    hp.Fixed("mult_factor", 1.0)
    hp.Fixed("lr_decay", 1.0)
    return model


def tuner(folder, *, max_trials=1, build=build, **options):
    keras.utils.set_random_seed(1)
    return autolr.RandomSearch(
        build,
        objective="val_loss",
        max_trials=max_trials,
        seed=1,
        directory=str(folder),
        project_name="search",
        **options,
    )


def build_or_fail(hp):
    """A classifier whose weights are not finite if `dead`: it predicts NaN, which Keras takes for the first class."""
    start = keras.initializers.Constant(np.nan) if hp.Boolean("dead") else "glorot_uniform"
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax", kernel_initializer=start)])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 4)).astype("float32")
    return x, x.sum(axis=1) + 3 * rng.normal(size=64)  # so noisy that no end of a cycle is much worse than another


@pytest.mark.filterwarnings("ignore::autolr.AutoLRWarning")
def test_a_trial_that_diverged_is_left_out_of_the_ensemble(tmp_path, data):
    x, y = data
    held = kt.HyperParameters()
    for name, value in {"cycle_length": 1, "mult_factor": 1.0, "lr_decay": 1.0}.items():
        held.Fixed(name, value)
    search = autolr.GridSearch(build_or_fail, "val_accuracy", hyperparameters=held, directory=tmp_path)
    search.search(x, (y > 0).astype("int32"), validation_split=0.25, epochs=2, batch_size=8, verbose=0)
    trials = search.oracle.trials.values()
    assert {trial.status for trial in trials} == {"COMPLETED"}, "the first class is a prediction, too"
    (dead,) = (trial for trial in trials if trial.hyperparameters.values["dead"])
    with pytest.warns(autolr.AutoLRWarning, match=f"Trial {dead.trial_id} is left out of the ensemble"):
        ensemble = search.get_best_ensemble(num_trials=2)
    assert np.isfinite(ensemble.predict(x, verbose=0)).all()
    dead.score = 1.0  # the best
    search.oracle.trials = {dead.trial_id: dead}
    with pytest.raises(ValueError, match="none of these trials are finite"):
        search.get_best_ensemble()


def test_the_best_ensemble_averages_the_ends_of_the_best_trials_cycles(tmp_path, data):
    x, y = data
    search = tuner(tmp_path)
    with pytest.raises(ValueError, match="search"):
        search.get_best_ensemble()
    search.search(x, y, validation_split=0.25, epochs=3, batch_size=8, verbose=0)
    ensemble = search.get_best_ensemble()
    trial = search.oracle.get_best_trials(1)[0]
    paths = sorted((tmp_path / "search" / f"trial_{trial.trial_id}").rglob("cycle-*.weights.h5"))
    assert len(paths) == 3  # cycles of one epoch
    member = search.get_best_models()[0]
    predictions = []
    folder = tmp_path / "search" / f"trial_{trial.trial_id}"
    ends = best_ends(folder, folder / "cycles")
    assert len(ends) > 1
    for path in ends:
        member.load_weights(path)
        predictions.append(member.predict(x, verbose=0))
    np.testing.assert_allclose(ensemble.predict(x, verbose=0), np.mean(predictions, axis=0), rtol=1e-5, atol=1e-6)
    assert not np.allclose(predictions[0], predictions[-1])


def test_snapshots_hold_the_averages_that_are_validated(tmp_path, data):
    def build(hp):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(use_ema=True, ema_momentum=0.9), "mse")
        return model

    x, y = data
    search = tuner(tmp_path, build=build)
    log, swap = keras.callbacks.CSVLogger(tmp_path / "log.csv"), keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    search.search(x, y, validation_data=(x, y), epochs=1, batch_size=8, callbacks=[log, swap], verbose=0)
    score = search.oracle.get_best_trials()[0].score
    assert search.get_best_ensemble().evaluate(x, y, verbose=0) == pytest.approx(score, rel=1e-5)
    assert "learning_rate" in (tmp_path / "log.csv").read_text(), "the schedule is in front of all others"


def inside(share):
    """A build function with a layer from outside, as is usual for what is adapted or trained beforehand."""

    def build_around(hp):
        model = keras.Sequential([keras.Input((4,)), share, keras.layers.Dense(hp.Choice("units", [4, 8]))])
        model.add(keras.layers.Dense(1))
        model.compile("sgd", "mse")
        hp.Fixed("cycle_length", 1)
        hp.Fixed("mult_factor", 1.0)
        hp.Fixed("lr_decay", 1.0)
        return model

    return build_around


def mean_of_ends(search, trial, x):
    """What the ends of a trial's cycles predict in the mean, one after the other."""
    folder = Path(search.get_trial_dir(trial.trial_id))
    predictions = []
    for path in best_ends(folder, folder / "cycles"):
        model = search.load_model(trial)
        model.load_weights(path)
        predictions.append(model.predict(x, verbose=0))
    return np.mean(predictions, axis=0)


def adapted(data):
    layer = keras.layers.Normalization()
    layer.adapt(data[0])
    return layer


def frozen_base(data):
    base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="relu")])
    base.trainable = False
    return base


def trained_base(data):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])


@pytest.mark.parametrize(
    ("share", "num_trials"),
    [
        (trained_base, 2),
        pytest.param(adapted, 2, marks=pytest.mark.slow),
        *(pytest.param(share, 1, marks=pytest.mark.slow) for share in (adapted, trained_base, frozen_base)),
    ],
)
def test_layers_that_models_have_in_common_are_each_ones_own_in_an_ensemble(tmp_path, data, share, num_trials):
    x, y = data
    keras.utils.set_random_seed(2)
    search = tuner(tmp_path, max_trials=2, build=inside(share(data)))
    search.search(x, y, validation_split=0.25, epochs=2, batch_size=8, verbose=0)
    ensemble = search.get_best_ensemble(num_trials)
    trials = [mean_of_ends(search, trial, x) for trial in search.oracle.get_best_trials(num_trials)]
    found = ensemble.predict(x, verbose=0)
    np.testing.assert_allclose(found, np.mean(trials, axis=0), rtol=1e-4, atol=1e-5)
    ensemble.save(tmp_path / "ensemble.keras")
    again = keras.saving.load_model(tmp_path / "ensemble.keras")
    np.testing.assert_allclose(again.predict(x, verbose=0), found, rtol=1e-6)


class Scaled(keras.Layer):
    """With a number that is in no config, and no weight."""

    factor = 1.0

    def call(self, x):
        return self.factor * x


def scaled(data):
    layer = Scaled()
    layer.factor = 5.0
    return layer


def scaled_dense(data):
    return keras.Sequential([keras.Input((4,)), scaled(data), keras.layers.Dense(3, trainable=False)])


@pytest.mark.parametrize(
    ("share", "warned"), [pytest.param(scaled, False, marks=pytest.mark.slow), (scaled_dense, True)]
)
def test_what_no_copy_can_have_stays_in_an_ensemble(tmp_path, data, share, warned):
    x, y = data
    search = tuner(tmp_path, build=inside(share(data)))
    search.search(x, y, validation_split=0.25, epochs=2, batch_size=8, verbose=0)
    (tmp_path / "search" / "trial_0" / "autolr.json").unlink()  # without it both ends are kept, whatever their losses
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", autolr.AutoLRWarning)
        found = search.get_best_ensemble().predict(x, verbose=0)
    assert any("layers in common" in str(warning.message) for warning in caught) == warned
    expected = mean_of_ends(search, search.oracle.get_best_trials(1)[0], x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_trials", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_ensemble_leaves_layers_from_outside_trainable(tmp_path, data, num_trials):
    x, y = data
    base = trained_base(data)
    search = tuner(tmp_path, max_trials=num_trials, build=inside(base), num_snapshots=0)
    search.search(x, y, validation_split=0.25, epochs=2, batch_size=8, verbose=0)
    ensemble = search.get_best_ensemble(num_trials)
    assert not ensemble.trainable_variables
    assert base.trainable
    assert len(search.hypermodel.build(search.get_best_hyperparameters()[0]).trainable_variables) == 6


@pytest.mark.slow
def test_a_vocabulary_from_outside_is_saved_with_an_ensemble(tmp_path):
    texts = np.array(["good film", "bad film", "good plot", "bad plot"] * 16)[:, None]
    words = keras.layers.TextVectorization(output_mode="multi_hot")
    words.adapt(texts)

    def of_texts(hp):
        model = keras.Sequential([keras.Input((1,), dtype="string"), words, keras.layers.Dense(hp.Choice("n", [2, 3]))])
        model.add(keras.layers.Dense(1))
        model.compile("sgd", "mse")
        return model

    search = tuner(tmp_path, max_trials=2, build=of_texts)
    y = np.char.startswith(texts[:, 0], "good").astype("float32")
    search.search(tf.constant(texts), y, validation_data=(tf.constant(texts), y), epochs=2, verbose=0)
    ensemble = search.get_best_ensemble(2)
    ensemble.save(tmp_path / "ensemble.keras")
    again = keras.saving.load_model(tmp_path / "ensemble.keras")
    np.testing.assert_allclose(again.predict(tf.constant(texts)), ensemble.predict(tf.constant(texts)), rtol=1e-6)


def test_an_ensemble_of_several_trials_counts_each_the_same(tmp_path, data):
    x, y = data
    search = tuner(tmp_path, max_trials=2)
    search.search(x, y, validation_split=0.25, epochs=2, batch_size=8, verbose=0)
    predictions = []
    for trial, model in zip(search.oracle.get_best_trials(2), search.get_best_models(2), strict=True):
        folder = tmp_path / "search" / f"trial_{trial.trial_id}"
        predictions.append(autolr.snapshot_ensemble(model, best_ends(folder, folder / "cycles")).predict(x, verbose=0))
    assert len({trial.hyperparameters.get("units") for trial in search.oracle.get_best_trials(2)}) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        ensemble = search.get_best_ensemble(num_trials=2)
    np.testing.assert_allclose(ensemble.predict(x, verbose=0), np.mean(predictions, axis=0), rtol=1e-5, atol=1e-6)
    ensemble.save(tmp_path / "best.keras")
    loaded = keras.models.load_model(tmp_path / "best.keras")
    assert loaded.evaluate(x, y, verbose=0) == ensemble.evaluate(x, y, verbose=0)
    assert np.array_equal(search.get_best_ensemble(num_trials=9).predict(x, verbose=0), ensemble.predict(x, verbose=0))


def of_words(hp):
    layer = keras.layers.TextVectorization(output_mode="multi_hot")
    layer.adapt(["red green", "blue"])
    inputs = keras.Input((), dtype="string")
    return keras.Model(inputs, keras.layers.Dense(1)(layer(inputs))), np.array(["red", "green blue"] * 32)


def of_a_function(hp):
    layers = [keras.Input((4,)), keras.layers.Lambda(lambda x: 2 * x), keras.layers.Dense(1)]
    return keras.Sequential(layers), np.ones((64, 4), "float32")


@pytest.mark.parametrize("make", [of_words, pytest.param(of_a_function, marks=pytest.mark.slow)])
def test_members_are_what_the_build_function_makes_of_them(tmp_path, data, make):
    def build(hp):
        model = make(hp)[0]
        model.compile("sgd", "mse")
        return model

    hp = kt.HyperParameters()
    for name in ("cycle_length", "mult_factor", "lr_decay"):
        hp.Fixed(name, 1)
    x, y = tf.constant(make(None)[1]), data[1]
    search = tuner(tmp_path, build=build, hyperparameters=hp)
    search.search(x, y, epochs=2, validation_data=(x, y), batch_size=8, verbose=0)
    member, predictions = search.get_best_models()[0], []
    folder = tmp_path / "search" / "trial_0"
    for path in best_ends(folder, folder / "cycles"):
        member.load_weights(path)
        predictions.append(member.predict(x, verbose=0))
    assert len(predictions) == 2
    ensemble = search.get_best_ensemble()
    np.testing.assert_allclose(ensemble.predict(x, verbose=0), np.mean(predictions, axis=0), rtol=1e-5, atol=1e-6)
    assert np.isfinite(ensemble.evaluate(x, y, verbose=0))


@pytest.mark.parametrize("num_trials", [0, -1, 1.5, "2", None])
def test_an_ensemble_of_no_trials_is_refused(tmp_path, num_trials):
    with pytest.raises(ValueError, match=f"whole number. Received: num_trials={num_trials!r}"):
        tuner(tmp_path).get_best_ensemble(num_trials)


def predictions_of_best_model(search, x):
    return search.get_best_models()[0].predict(x, verbose=0)


def test_a_trial_without_snapshots_counts_with_its_best_epoch(tmp_path, data):
    search = tuner(tmp_path, num_snapshots=0)
    search.search(*data, validation_split=0.25, epochs=2, batch_size=8, verbose=0)
    together = search.get_best_ensemble(num_trials=2).predict(data[0], verbose=0)
    np.testing.assert_array_equal(together, predictions_of_best_model(search, data[0]))


@pytest.mark.parametrize(
    "options", [{"num_snapshots": 0}, pytest.param({"rate_callbacks": "keep"}, marks=pytest.mark.slow)]
)
def test_snapshots_of_a_training_that_was_interrupted_do_not_count(tmp_path, data, options):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    fit = {"validation_split": 0.25, "epochs": 4, "batch_size": 8, "verbose": 0}
    with pytest.raises(KeyboardInterrupt):
        tuner(tmp_path).search(*data, **fit, callbacks=[Interrupt()])
    assert snapshot_paths(tmp_path / "search" / "trial_0" / "cycles")
    search = tuner(tmp_path, **options)
    search.search(*data, **fit, callbacks=[keras.callbacks.ReduceLROnPlateau()])
    assert snapshot_paths(tmp_path / "search" / "trial_0" / "cycles") == []
    together = search.get_best_ensemble().predict(data[0], verbose=0)
    np.testing.assert_array_equal(together, predictions_of_best_model(search, data[0]))


def test_a_trial_stopped_within_its_first_cycle_counts_with_its_best_epoch(tmp_path, data):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    hp = kt.HyperParameters()
    hp.Fixed("cycle_length", 100)
    search = tuner(tmp_path, hyperparameters=hp)
    search.search(*data, validation_split=0.25, epochs=9, batch_size=8, verbose=0, callbacks=[Stop()])
    together = search.get_best_ensemble().predict(data[0], verbose=0)
    np.testing.assert_array_equal(together, predictions_of_best_model(search, data[0]))


def test_trials_that_have_failed_are_left_out(tmp_path, data):
    class FailAtFirst(keras.callbacks.Callback):
        failed = False

        def on_epoch_begin(self, epoch, logs=None):
            if not FailAtFirst.failed:
                FailAtFirst.failed = True
                raise RuntimeError("of the user's own")

    search = tuner(tmp_path, max_trials=2)
    search.search(*data, validation_split=0.25, epochs=2, batch_size=8, verbose=0, callbacks=[FailAtFirst()])
    assert sorted(trial.status for trial in search.oracle.trials.values()) == ["COMPLETED", "FAILED"]
    both, best = (search.get_best_ensemble(num_trials=n).predict(data[0], verbose=0) for n in (2, 1))
    np.testing.assert_array_equal(both, best)


def test_ends_of_cycles_that_are_much_worse_are_left_out(tmp_path):
    """Targets far from zero: after the first cycle the model is thousands of times worse than at the end."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 4)).astype("float32")
    y = 100 * x.sum(axis=1) + 1000
    search = tuner(tmp_path)
    search.search(x, y, validation_split=0.25, epochs=3, batch_size=16, verbose=0)
    folder = tmp_path / "search" / "trial_0"
    assert len(snapshot_paths(folder / "cycles")) == 3
    losses = [float(epoch["logs"]["val_loss"]) for epoch in TrialRecord.read(folder).training["epochs"]]
    kept = [n for n, loss in enumerate(losses, start=1) if loss <= 1.1 * min(losses)]
    assert 1 not in kept
    assert [cycle_of(path) for path in best_ends(folder, folder / "cycles")] == kept
    model, ensemble = search.get_best_models()[0], search.get_best_ensemble()
    assert ensemble.evaluate(x, y, verbose=0) < 2 * model.evaluate(x, y, verbose=0)
    assert [cycle_of(path) for path in best_ends(folder, folder / "cycles", last=2)] == [n for n in kept if n > 1]
    (folder / "autolr.json").unlink()
    assert len(best_ends(folder, folder / "cycles")) == 3


@pytest.mark.parametrize(
    ("direction", "scores", "kept"),
    [
        ("min", [2.0, 3.9, 4.1], 2),
        ("min", [0.0, 1.0], 2),
        ("min", [-2.0, 1.0], 2),
        ("max", [0.9, 0.1], 2),
        ("min", [], 0),
    ],
)
def test_trials_that_are_much_worse_are_left_out(direction, scores, kept):
    trials = [SimpleNamespace(score=score) for score in scores]
    assert near_the_best(trials, kt.Objective("val_loss", direction)) == trials[:kept]


@given(st.permutations(range(9)))
def test_of_trials_that_go_on_from_each_other_the_best_counts(order):
    parents = {0: None, 1: None, 2: 0, 3: 2, 4: 1, 5: None, 6: None, 7: 6, 8: None}
    chains = [{0, 2, 3}, {1, 4}, {5}, {6, 7}, {8}]
    found = one_of_each_chain(order, parents)
    assert found == sorted((min(chain, key=order.index) for chain in chains), key=order.index)


def test_the_best_trials_of_hyperband_are_different_models(tmp_path, data):
    def build(hp):
        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(hp.Choice("units", [2, 3, 4, 5])), keras.layers.Dense(1)]
        )
        model.compile("sgd", "mse")
        return model

    x, y = data
    search = autolr.Hyperband(build, "val_loss", max_epochs=2, factor=2, directory=tmp_path)
    search.search(x, y, validation_split=0.25, batch_size=8, verbose=0)
    trials = search.oracle.trials
    names = [trial.trial_id for trial in search.oracle.get_best_trials(len(trials))]
    parents = {name: trial.hyperparameters.values.get("tuner/trial_id") for name, trial in trials.items()}
    distinct = one_of_each_chain(names, parents)
    assert len(distinct) < len(names)
    predicted = [mean_of_ends(search, trials[name], x) for name in distinct]
    found = search.get_best_ensemble(num_trials=len(names)).predict(x, verbose=0)
    np.testing.assert_allclose(found, np.mean(predicted, axis=0), rtol=1e-4, atol=1e-5)


def test_of_several_objectives_a_score_of_twice_the_best_means_nothing():
    """Keras Tuner subtracts what is to be maximized, so that nearly equal trials may score 0.05 and 0.11."""
    both = [kt.Objective("val_loss", "min"), kt.Objective("auc", "max")]
    objective = kt.oracles.RandomSearchOracle(objective=both).objective
    trials = [SimpleNamespace(score=0.05), SimpleNamespace(score=0.11)]
    assert near_the_best(trials, objective) == trials


class KeepsNothing(kt.HyperModel):
    """Its `fit` does not pass on the callbacks, one of which saves the weights."""

    def build(self, hp):
        return build(hp)

    def fit(self, hp, model, *args, callbacks=None, **kwargs):
        return model.fit(*args, **kwargs)


def test_an_ensemble_needs_no_checkpoint_but_its_absence_is_told(tmp_path, data):
    x, y = data
    search = tuner(tmp_path, build=KeepsNothing())
    with pytest.warns(autolr.AutoLRWarning, match="kept no weights for `get_best_models`.*pass the `callbacks`"):
        search.search(x, y, validation_split=0.25, epochs=2, batch_size=8, verbose=0)
    assert search.get_best_ensemble().predict(x[:4], verbose=0).shape == (4, 1)


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        ([0.5, 0.21, 0.2], [2, 3]),
        ([0.21, 0.2, 0.21], [1, 2, 3]),
        ([0.2, 0.3, 0.4], [1]),
        (["nan", 0.21, 0.2], [2, 3]),
        (["nan", "nan", "nan"], [1, 2, 3]),
        ([-1.0, -3.0, -9.0], [1, 2, 3]),
        ([5.0, 0.0, 0.0], [2, 3]),
        (["inf", 2.1, 2.0], [2, 3]),
    ],
)
@pytest.mark.parametrize("name", ["val_loss", "loss"])
def test_which_ends_are_left_out(tmp_path, losses, kept, name):
    epochs = [{"epoch": 2 * n, "step": 20 * n, "logs": {name: loss}} for n, loss in enumerate(losses, start=1)]
    write_record(tmp_path, edges=[0, 20, 40, 60], epochs=epochs)
    for n in (1, 2, 3):
        (tmp_path / f"cycle-{n:04d}.weights.h5").touch()
    assert [cycle_of(path) for path in best_ends(tmp_path, tmp_path)] == kept


@pytest.mark.parametrize(
    ("objective", "kept"),
    [
        (("val_accuracy", "max"), [2, 3]),  # errors of 0.3, 0.1 and 0.105
        (("val_error", "min"), [1]),
        (("val_count", "max"), [1, 2]),  # no share: the loss decides
        (("val_other", "max"), [1, 2]),  # not reported in each
        (("elsewhere", "min"), [1, 2]),
        (None, [1, 2]),
    ],
)
def test_the_objective_decides_which_ends_are_left_out(tmp_path, objective, kept):
    logs = {
        "val_loss": [0.2, 0.21, 0.4],  # too sure of itself in the end
        "val_accuracy": [0.7, 0.9, 0.895],
        "val_error": [1.0, 2.0, 3.0],
        "val_count": [1.0, 2.0, 9.0],
    }
    epochs = [
        {"epoch": n, "step": 10 * n, "logs": {name: values[n - 1] for name, values in logs.items()}} for n in (1, 2, 3)
    ]
    epochs[0]["logs"]["val_other"] = 0.9
    named = objective and dict(zip(("name", "direction"), objective, strict=True))
    write_record(tmp_path, edges=[0, 10, 20, 30], epochs=epochs, objective=named)
    for n in (1, 2, 3):
        (tmp_path / f"cycle-{n:04d}.weights.h5").touch()
    assert [cycle_of(path) for path in best_ends(tmp_path, tmp_path)] == kept


@pytest.mark.parametrize(
    "damage",
    [
        {"schedule": None},
        {"schedule": {"steps_per_epoch": 10}},
        {"schedule": {"edges": [0, 10**400], "steps_per_epoch": 0.1}},
        {"training": {"epochs": None}},
        {"training": {"epochs": [{"epoch": 1, "logs": {"val_loss": 10**400}}]}},
        {"training": []},
    ],
)
def test_a_damaged_record_leaves_all_ends_in(tmp_path, damage):
    # The first end is so much worse that a record that can be read leaves it out.
    epochs = [{"epoch": n, "step": 10 * n, "logs": {"val_loss": loss}} for n, loss in ((1, 9.0), (2, 1.0))]
    write_record(tmp_path, edges=[0, 10, 20], epochs=epochs)
    assert TrialRecord.read(tmp_path)
    write_record(tmp_path, edges=[0, 10, 20], epochs=epochs, **damage)
    for n in (1, 2):
        (tmp_path / f"cycle-{n:04d}.weights.h5").touch()
    assert [cycle_of(path) for path in best_ends(tmp_path, tmp_path)] == [1, 2]


def test_an_end_of_which_nothing_is_known_changes_nothing_for_the_others(tmp_path):
    logs = [{"loss": 1.0, "val_loss": 3.0}, {"loss": 0.9, "val_loss": 1.0}]
    epochs = [{"epoch": n, "step": 10 * n, "logs": its} for n, its in zip((1, 3), logs, strict=True)]
    write_record(tmp_path, edges=[0, 10, 20, 30], epochs=epochs)
    for n in (1, 2, 3):
        (tmp_path / f"cycle-{n:04d}.weights.h5").touch()
    assert [cycle_of(path) for path in best_ends(tmp_path, tmp_path)] == [2, 3]


def not_registered(y, prediction):
    return keras.ops.mean(keras.ops.abs(y - prediction), axis=-1)


def test_a_saved_ensemble_loads_without_what_its_members_were_compiled_with(tmp_path, data):
    def build_with_own(hp):
        model = build(hp)
        rate = autolr.SGDRSchedule(0.001, 0.01, steps_per_epoch=6)
        model.compile(
            keras.optimizers.SGD(rate), lambda y, p: keras.ops.mean((y - p) ** 2, axis=-1), metrics=[not_registered]
        )
        return model

    search = tuner(tmp_path, build=build_with_own)
    search.search(*data, validation_split=0.25, epochs=2, batch_size=8, verbose=0)
    with pytest.warns(autolr.AutoLRWarning, match="Compiled without the metrics not_registered"):
        ensemble = search.get_best_ensemble()
    ensemble.save(tmp_path / "ensemble.keras")
    loaded = keras.models.load_model(tmp_path / "ensemble.keras", compile=False)
    np.testing.assert_array_equal(loaded.predict(data[0], verbose=0), ensemble.predict(data[0], verbose=0))


def shared_head(a, b):
    head = keras.layers.Dense(1)
    return [head(a), head(b)]


def states(a, b):
    return keras.layers.GRU(1, return_state=True)(keras.layers.Reshape((4, 1))(keras.layers.Add()([a, b])))


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [shared_head, states])
def test_outputs_of_one_layer_are_averaged_each(tmp_path, data, outputs):
    def build_outputs(hp):
        a, b = keras.Input((4,)), keras.Input((4,))
        model = keras.Model([a, b], outputs(a, b))
        model.compile("sgd", ["mse", "mse"])
        return model

    x, y = data
    search = tuner(tmp_path, build=build_outputs)
    search.search([x, x[::-1]], [y, y], validation_split=0.25, epochs=2, batch_size=8, verbose=0)
    ensemble = search.get_best_ensemble()
    assert [each.shape for each in ensemble.predict([x, x], verbose=0)] == [(64, 1)] * 2
    assert np.isfinite(ensemble.evaluate([x, x], [y, y], verbose=0)).all()


@pytest.mark.parametrize("last", [0, -1])
def test_an_ensemble_of_no_snapshots_is_refused(tmp_path, last):
    with pytest.raises(ValueError, match=f"Received: last={last}"):
        tuner(tmp_path).get_best_ensemble(last=last)


def test_losses_of_validation_and_of_training_are_not_compared(tmp_path):
    """With `validation_freq=2`: by the training loss all three are alike."""
    logs = [{"loss": 1.0}, {"loss": 0.9, "val_loss": 3.0}, {"loss": 0.8}]
    epochs = [{"epoch": n, "step": 10 * n, "logs": its} for n, its in enumerate(logs, start=1)]
    schedule = {"edges": [0, 10, 20, 30], "steps_per_epoch": 10}
    TrialRecord("0", {}, {}, schedule, None, "range test", {"epochs": epochs}).write(tmp_path)
    for n in (1, 2, 3):
        (tmp_path / f"cycle-{n:04d}.weights.h5").touch()
    assert [cycle_of(path) for path in best_ends(tmp_path, tmp_path)] == [1, 2, 3]
