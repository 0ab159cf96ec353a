"""Variables, and rates, are read and set as Keras would, to the bit."""

from __future__ import annotations

import math
import subprocess
import sys

import keras
import numpy as np
import pytest

from autolr.optimizers import current_rate, set_rate
from autolr.variables import array_of, assign

IN_TWO_REPLICAS = """
import keras, numpy as np, tensorflow as tf
from autolr.variables import array_of, assign

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    variable = keras.Variable(np.zeros(3))
assign(variable, np.arange(3))
assert array_of(variable).tolist() == [0, 1, 2]
assert [replica.numpy().tolist() for replica in variable.value.values] == [[0, 1, 2]] * 2
"""


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64", "int32", "int64", "uint32", "bool"])
@pytest.mark.parametrize("shape", [(), (3, 2)])
def test_a_variable_gets_what_its_own_assign_would_give_it(dtype, shape):
    ours, keras_own = (keras.Variable(np.zeros(shape), dtype=dtype) for _ in range(2))
    array = np.random.default_rng(0).uniform(0, 99, shape).astype(array_of(ours).dtype)
    numbers = [True] if dtype == "bool" else [3] if "int" in dtype else [3, 0.1, np.float64(0.1), 1e-9, math.inf]
    for value in [array, *([] if shape else numbers)]:
        assign(ours, value)
        keras_own.assign(value)
        found, expected = array_of(ours), np.array(keras.ops.convert_to_numpy(keras_own))
        assert (found.dtype, found.shape) == (expected.dtype, shape)
        assert found.tobytes() == expected.tobytes()


def test_the_array_of_a_variable_is_a_copy():
    variable = keras.Variable(np.ones(5, "float32"))
    array = array_of(variable)
    array += 1  # it may be written to
    np.testing.assert_array_equal(array_of(variable), np.ones(5))
    variable.assign(np.zeros(5))
    np.testing.assert_array_equal(array, np.full(5, 2))


def test_a_class_of_variables_that_assigns_in_its_own_way_does_so():
    class Noting(keras.Variable):
        def assign(self, value):
            self.noted = value
            return super().assign(value)

    variable = Noting(np.zeros(3))
    assign(variable, np.ones(3))
    np.testing.assert_array_equal(variable.noted, array_of(variable))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="elsewhere Keras does it")
def test_tensorflow_is_told_without_what_takes_keras_longer(monkeypatch):
    def slow(*_):
        pytest.fail("Keras's own way was taken")

    variable = keras.Variable(np.zeros(3))
    monkeypatch.setattr(keras.Variable, "_direct_assign", slow)
    monkeypatch.setattr(keras.ops, "convert_to_numpy", slow)
    assign(variable, np.arange(3))
    assert array_of(variable).tolist() == [0, 1, 2]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's strategies")
def test_a_variable_is_set_in_each_replica_of_a_strategy():
    subprocess.run([sys.executable, "-c", IN_TWO_REPLICAS], check=True)  # devices are laid out once in a process


def test_an_optimizer_around_another_is_given_the_rate_itself():
    class Wrapper(keras.optimizers.Optimizer):
        """One with a rate of its own, beside that of another."""

        def __init__(self):
            super().__init__(0.5)
            self.inner_optimizer = keras.optimizers.SGD(0.1)

    wrapper = Wrapper()
    set_rate(wrapper, 0.25)
    assert float(wrapper.learning_rate) == 0.25
    assert float(wrapper.inner_optimizer.learning_rate) == pytest.approx(0.1)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_rate_is_set_as_by_the_optimizers_own_property(wrapped):
    class Halved(keras.optimizers.SGD):
        """An optimizer of the user's own, that does more than Keras's where it is given a rate."""

        @property
        def learning_rate(self):
            return super().learning_rate

        @learning_rate.setter
        def learning_rate(self, rate):
            keras.optimizers.SGD.learning_rate.fset(self, rate / 2)

    for optimizer, expected in ((keras.optimizers.SGD(0.1), 0.25), (Halved(0.1), 0.125)):
        set_rate(keras.optimizers.LossScaleOptimizer(optimizer) if wrapped else optimizer, 0.25)
        assert current_rate(optimizer) == float(optimizer.learning_rate) == expected
