"""The ends of a search's cycles as one model."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest

import autolr


def build(hp):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(hp.Choice("units", [4, 8])), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    hp.Fixed("cycle_length", 1)
    hp.Fixed("mult_factor", 1.0)
    hp.Fixed("lr_decay", 1.0)
    return model


def tuner(folder, *, max_trials=1, **options):
    return autolr.RandomSearch(
        build,
        objective="val_loss",
        max_trials=max_trials,
        seed=1,
        directory=str(folder),
        project_name="search",
        **options,
    )


@pytest.fixture
def data():
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    return x, x.sum(axis=1)


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
    for path in paths:
        member.load_weights(path)
        predictions.append(member.predict(x, verbose=0))
    np.testing.assert_allclose(ensemble.predict(x, verbose=0), np.mean(predictions, axis=0), rtol=1e-5, atol=1e-6)
    assert not np.allclose(predictions[0], predictions[-1])


def test_an_ensemble_of_several_trials_counts_each_the_same(tmp_path, data):
    x, y = data
    search = tuner(tmp_path, max_trials=2)
    search.search(x, y, validation_split=0.25, epochs=3, batch_size=8, verbose=0)
    predictions = []
    for trial, model in zip(search.oracle.get_best_trials(2), search.get_best_models(2), strict=True):
        folder = tmp_path / "search" / f"trial_{trial.trial_id}" / "cycles"
        predictions.append(autolr.snapshot_ensemble(model, folder).predict(x, verbose=0))
    assert len({trial.hyperparameters.get("units") for trial in search.oracle.get_best_trials(2)}) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        ensemble = search.get_best_ensemble(num_trials=2)
    np.testing.assert_allclose(ensemble.predict(x, verbose=0), np.mean(predictions, axis=0), rtol=1e-5, atol=1e-6)
    ensemble.save(tmp_path / "best.keras")
    loaded = keras.models.load_model(tmp_path / "best.keras")
    assert loaded.evaluate(x, y, verbose=0) == ensemble.evaluate(x, y, verbose=0)
    assert np.array_equal(search.get_best_ensemble(num_trials=9).predict(x, verbose=0), ensemble.predict(x, verbose=0))


@pytest.mark.parametrize("num_trials", [0, -1])
def test_an_ensemble_of_no_trials_is_refused(tmp_path, num_trials):
    with pytest.raises(ValueError, match=f"Received: num_trials={num_trials}"):
        tuner(tmp_path).get_best_ensemble(num_trials=num_trials)


def test_without_snapshots_the_error_says_so(tmp_path, data):
    search = tuner(tmp_path, num_snapshots=0)
    search.search(*data, validation_split=0.25, epochs=1, batch_size=8, verbose=0)
    with pytest.raises(ValueError, match="num_snapshots"):
        search.get_best_ensemble()
