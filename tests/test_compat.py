"""Every private name that `compat.py` leans on still exists and does what it is used for."""

from __future__ import annotations

import random

import keras
import keras_tuner as kt
import numpy as np
import pytest
from helpers import Subclassed, compiled, sequential

from autolr import compat, compat_tuner

ORACLES = {
    "random": lambda: kt.oracles.RandomSearchOracle("val_loss", max_trials=3),
    "bayesian": lambda: kt.oracles.BayesianOptimizationOracle("val_loss", max_trials=3),
    "grid": lambda: kt.oracles.GridSearchOracle("val_loss", max_trials=3),
    "hyperband": lambda: kt.oracles.HyperbandOracle("val_loss", max_epochs=2),
}


def require(owner, name, used_for):
    title = getattr(owner, "__name__", repr(owner))
    assert hasattr(owner, name), f"{title} has no `{name}` any more. autolr/compat.py uses it to {used_for}."


def test_keras_model_symbolic_build():
    require(keras.Model, "_symbolic_build", "create the variables of an unbuilt model")


def test_the_layer_within_a_wrapper_is_found():
    outer = keras.layers.TimeDistributed(keras.layers.Dense(2))
    assert compat.layers_of(outer) == [outer.layer]


def test_keras_optimizer_learning_rate_source():
    require(keras.optimizers.SGD(), "_learning_rate", "tell a schedule from a number as the rate")


def test_keras_model_compile_config():
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    given = compat.compile_arguments(model)
    assert (given["loss"], given["metrics"]) == ("mse", ["mae"])
    assert compat.compile_arguments(keras.Sequential()) == {}


def test_keras_loss_scale_optimizer_inner_optimizer():
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    require(scaled, "inner_optimizer", "find the optimizer that holds the rate")
    assert not hasattr(keras.optimizers.SGD(), "inner_optimizer"), "autolr takes this for a sign of loss scaling"


def test_keras_global_seed_generator():
    from keras.src.backend.common import global_state

    require(global_state, "get_global_attribute", "find the global seed generator")
    keras.random.uniform((2,))
    assert compat.global_seed_variables(), "Keras keeps its global seed generator somewhere else now"


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="traced by TensorFlow")
def test_keras_training_step_can_be_traced_without_running():
    assert compat.tracer_of_training(compiled(sequential())), "Keras keeps its traced training step somewhere else now"
    assert compat.tracer_of_training(compiled(sequential(), run_eagerly=True)) is None


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras makes data sets of arrays for TensorFlow")
def test_keras_data_set_of_arrays(data):
    from keras.src.trainers import data_adapters, epoch_iterator

    require(epoch_iterator, "EpochIterator", "make the batches of a `fit` once for many")
    require(data_adapters.array_slicing, "train_validation_split", "leave out the share for validation as `fit` does")
    x, y = data
    batches = compat.dataset_of_arrays(x, y, batch_size=10, validation_split=0.5, shuffle=False)
    assert int(batches.cardinality()) == len(list(batches)) == -(-len(x) // 2 // 10)
    np.testing.assert_array_equal(next(iter(batches))[0], x[:10])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="layers of the backend that runs the pipeline")
def test_variables_within_a_pipeline_are_found(data):
    import tensorflow as tf

    noise, generator = keras.layers.GaussianNoise(0.1, seed=1), tf.random.Generator.from_seed(1)
    batches = tf.data.Dataset.from_tensor_slices(data).batch(16).map(lambda x, y: (noise(x, training=True), y))
    both = tf.data.Dataset.zip((batches, batches.map(lambda x, y: x + generator.normal(())))).prefetch(1)
    require(both, "_inputs", "find the data sets that one is made of")
    require(both, "_functions", "find the seeds of layers within a pipeline")
    expected = {id(noise.seed_generator.state.value), id(generator.state)}
    assert {id(variable) for variable in compat.variables_of_dataset(both)} == expected
    assert compat.variables_of_dataset(data) == []


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's own operations")
def test_random_operations_within_traced_functions_are_found():
    import tensorflow as tf

    generator = keras.random.SeedGenerator(1)

    def traced(draw):
        inner = tf.function(draw)
        return tf.function(lambda: inner() + 1.0).get_concrete_function()

    assert compat.draws_in_kernels(traced(lambda: tf.random.normal(())))
    assert compat.draws_in_kernels(traced(lambda: tf.nn.dropout(tf.ones(()), 0.5)))
    assert not compat.draws_in_kernels(traced(lambda: keras.random.normal((), seed=generator)))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's own generator")
def test_tensorflow_global_generator():
    import tensorflow as tf

    tf.random.set_global_generator(tf.random.Generator.from_seed(1))
    message = "TensorFlow keeps its global generator somewhere else now"
    assert any(it is tf.random.get_global_generator().state for it in compat.global_seed_variables()), message


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's own seed counter")
def test_tensorflow_eager_seed_counter():
    from tensorflow.python.eager import context

    require(context, "context", "find TensorFlow's seed counter")
    keras.utils.set_random_seed(1)
    rng = getattr(context.context(), "_rng", None)
    message = "TensorFlow's eager context has no `_rng` after a seed was set; autolr could not repeat the data's order"
    assert isinstance(rng, random.Random), message


@pytest.mark.parametrize("name", ["_try_build", "_build_and_fit_model", "run_trial", "_populate_initial_space"])
def test_keras_tuner_hooks(name):
    require(kt.Tuner, name, "take part in a trial")


def test_keras_tuner_is_worker():
    require(kt.Tuner, "_is_worker", "leave the oracle of a worker alone")


@pytest.mark.parametrize("kind", ORACLES)
@pytest.mark.parametrize("name", ["_compute_values_hash", "populate_space", "get_space", "update_space"])
def test_keras_tuner_oracle(kind, name):
    require(ORACLES[kind](), name, "keep what a trial found out of the search")


def test_symbolic_build_makes_all_variables_without_training(data):
    model = compiled(Subclassed(), "sgd")
    compat.symbolic_build(model, (data[0][:1], data[1][:1]))
    assert len(model.weights) == len(sequential().weights)
    assert model.optimizer.iterations == 0


def test_the_rate_of_an_optimizer_is_seen_for_what_it_is():
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    assert compat.learning_rate_source(keras.optimizers.SGD(schedule)) is schedule
    assert compat.learning_rate_source(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(schedule))) is schedule
    assert isinstance(compat.learning_rate_source(keras.optimizers.SGD(0.1)), keras.Variable)


def test_tensorflows_seed_counter_can_be_put_back():
    keras.utils.set_random_seed(1)
    state = compat.tensorflow_seed_state()
    if state is None:
        pytest.skip("no such counter on this backend")
    import tensorflow as tf

    # Kernels are cached by their seed and keep counting, so that a seed drawn again gives other numbers.
    draws = [tf.random.uniform((4,)).numpy() for _ in range(2)]
    compat.set_tensorflow_seed_state(state)
    again = [tf.random.uniform((4,)).numpy() for _ in range(2)]
    np.testing.assert_array_equal(draws, again)
    assert not np.array_equal(*draws)


@pytest.mark.parametrize("kind", ORACLES)
def test_what_trials_found_makes_no_difference_to_an_oracle(kind):
    oracle = ORACLES[kind]()
    hash_before = oracle._compute_values_hash({"units": 3})
    compat_tuner.ignore_found_values(oracle)
    assert oracle._compute_values_hash({"units": 3, "autolr/min_lr": 0.1}) == hash_before
    assert oracle._compute_values_hash({"units": 4, "autolr/min_lr": 0.1}) != hash_before
