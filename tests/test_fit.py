"""The trainings of a range test see the batches that Keras's own `fit` would give them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers import compiled, sequential

from autolr.fit import Fit
from autolr.random_state import RandomState
from autolr.sweep import range_test

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="on JAX each training makes its own batches, and its steps differ"
)

X, Y = np.arange(40, dtype="float32").reshape(20, 2), np.arange(20) % 2


class Watched(keras.Model):
    """Trains nothing and notes what each step is given."""

    def train_step(self, data):
        self.seen.append(keras.tree.map_structure(np.array, data))
        return {"loss": 0.0}


def watched():
    model = Watched()
    model.seen = []
    model.compile("sgd", "mse", run_eagerly=True)
    model.built = True
    return model


def batches_of(train):
    """What each step of two epochs is given, as one long list of arrays."""
    model = watched()
    train(model)
    return [part for batch in model.seen for part in keras.tree.flatten(batch)]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"batch_size": 6},
        {"validation_split": 0.25, "batch_size": 4},
        {"validation_split": 0.25, "validation_data": (X, Y)},
        {"steps_per_epoch": 4},
        {"shuffle": False},
        {"shuffle": "batch", "batch_size": 4},
        {"class_weight": {0: 1.0, 1: 3.0}},
        {"sample_weight": np.linspace(0, 1, 20), "batch_size": 7},
    ],
    ids=lambda arguments: " ".join(arguments) or "defaults",
)
@pytest.mark.parametrize(
    "x", [X, {"a": X, "b": X[:, 0]}, keras.ops.convert_to_tensor(X)], ids=["array", "dictionary", "tensor"]
)
def test_batches_of_arrays_are_those_of_fit_again_and_again(x, arguments):
    keras.utils.set_random_seed(7)
    before = RandomState.now()
    expected = batches_of(lambda model: model.fit(x, Y, epochs=2, validation_freq=9, verbose=0, **arguments))
    model = watched()
    fit = Fit.on(model, x, Y, **arguments)
    for _ in range(2):
        model.seen.clear()
        before.restore()
        fit(keras.callbacks.Callback(), epochs=2)
        seen = [part for batch in model.seen for part in keras.tree.flatten(batch)]
        assert len(seen) == len(expected)
        for one, other in zip(seen, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.fixture
def few_steps():
    keras.config.set_max_steps_per_epoch(2)
    yield
    keras.config.set_max_steps_per_epoch(None)


@pytest.mark.usefixtures("few_steps")
@pytest.mark.filterwarnings("ignore:Limiting steps_per_epoch")
def test_batches_are_those_of_fit_where_keras_is_told_to_take_few_steps():
    assert {len(part) for part in batches_of(lambda model: model.fit(X, Y, verbose=0))} == {10}
    assert {
        len(part) for part in batches_of(lambda model: Fit.on(model, X, Y)(keras.callbacks.Callback(), epochs=1))
    } == {10}


def test_a_fit_of_the_model_alone_is_given_the_arrays_as_they_are():
    model, given = compiled(sequential()), []
    kerass = model.fit

    def fit(x, y, **arguments):
        given.append((x, y))
        return kerass(x, y, **arguments)

    model.fit = fit
    x, y = np.zeros((16, 6), "float32"), np.zeros(16, int)
    Fit.on(model, x, y)(keras.callbacks.Callback(), epochs=1)
    assert given[0][0] is x
    assert given[0][1] is y


def test_a_range_test_makes_its_batches_once(monkeypatch, data):
    from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter

    made, original = [], ArrayDataAdapter.get_tf_dataset
    monkeypatch.setattr(ArrayDataAdapter, "get_tf_dataset", lambda self: made.append(self) or original(self))
    test = range_test(compiled(sequential()), *data, batch_size=8)
    assert len(test.bursts) > 2
    assert len(made) == 1
