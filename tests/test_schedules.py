"""The schedule in the graph gives the rates of the pure function."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from helpers import one_weight

from autolr import SGDRSchedule, sgdr_lr
from autolr.sgdr import Schedule

SCHEDULES = {
    "the method's": {"cycle_length": 3, "mult_factor": 1.5, "lr_decay": 0.9, "steps_per_epoch": 5},
    "equal cycles": {"cycle_length": 2, "mult_factor": 1, "lr_decay": 0.9, "steps_per_epoch": 7},
    "fitted": {"cycle_length": 3, "mult_factor": 1.5, "lr_decay": 0.9, "steps_per_epoch": 5, "total_steps": 100},
    "defaults": {"steps_per_epoch": 3},
    "triangular": {"cycle_length": 2, "mult_factor": 1.5, "steps_per_epoch": 7, "shape": "triangular"},
    "triangular2": {"cycle_length": 2, "mult_factor": 1, "steps_per_epoch": 7, "shape": "triangular2"},
    "one cycle": {"cycle_length": 12, "steps_per_epoch": 7, "shape": "one_cycle"},
    "warm-up": {"cycle_length": 3, "mult_factor": 1.5, "lr_decay": 0.9, "steps_per_epoch": 5, "warmup": 4},
    "equal cycles, warm-up": {"cycle_length": 2, "mult_factor": 1, "steps_per_epoch": 7, "warmup": 3},
    "share of warm-up": {
        "cycle_length": 3,
        "mult_factor": 1.5,
        "lr_decay": 0.9,
        "steps_per_epoch": 5,
        "total_steps": 100,
        "warmup": 0.1,
    },
    "all at once": {"steps_per_epoch": 4, "total_steps": 120, "warmup": 3, "shape": "triangular2", "cycle_length": 5},
}
LONG = {**SCHEDULES, "long": {**SCHEDULES["the method's"], "steps_per_epoch": 469}}
LONG["fractional"] = {"cycle_length": 7, "mult_factor": 1.3, "lr_decay": 0.97, "steps_per_epoch": 391}
LONG["threes"] = {"cycle_length": 1, "mult_factor": 3, "steps_per_epoch": 1}
BOUNDS = {"min_lr": 0.1, "max_lr": 2.0}


def as_number(tensor):
    return float(keras.ops.convert_to_numpy(tensor))


def at(schedule, steps):
    """The rates at many steps at once, in a graph as `fit` makes one."""
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.jit(lambda all_steps: jax.lax.map(schedule, all_steps))(np.asarray(steps, "int32")))
    import tensorflow as tf

    in_graph = tf.function(lambda all_steps: tf.map_fn(schedule, all_steps, fn_output_signature="float32"))
    return in_graph(tf.constant(steps, "int32")).numpy()


def compiled(schedule):
    """A function of steps that gives the same rates as `at`, compiled by XLA once: fast enough for a million."""
    if keras.backend.backend() == "jax":
        return lambda steps: at(schedule, steps)
    import tensorflow as tf

    loop = tf.function(
        lambda all_steps: tf.map_fn(schedule, all_steps, fn_output_signature="float32"), jit_compile=True
    )
    return lambda steps: loop(tf.constant(steps, "int32")).numpy()


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_every_step_has_the_rate_of_the_pure_function(schedule):
    rates = at(SGDRSchedule(**BOUNDS, **schedule), np.arange(145))
    np.testing.assert_allclose(rates, sgdr_lr(np.arange(145), **BOUNDS, **schedule), rtol=1e-5)


@pytest.mark.parametrize("schedule", LONG.values(), ids=LONG)
def test_boundaries_up_to_a_million_steps_agree_eagerly_and_in_a_graph(schedule):
    budget = schedule.get("total_steps")
    cycles = {name: schedule[name] for name in ("cycle_length", "mult_factor", "shape", "warmup") if name in schedule}
    cycles = Schedule(min_lr=0, max_lr=1, fit_budget=budget is not None, **cycles)
    edges = cycles.edges(budget or 10**6, schedule["steps_per_epoch"])
    chosen = edges if len(edges) < 60 else edges[np.linspace(0, len(edges) - 1, 60).astype(int)]
    steps = np.unique(np.concatenate([chosen - 1, chosen, chosen + 1]))
    steps = steps[(steps >= 0) & (steps <= 10**6)]
    in_graph = SGDRSchedule(**BOUNDS, **schedule)
    expected = sgdr_lr(steps, **BOUNDS, **schedule)
    np.testing.assert_allclose(at(in_graph, steps), expected, rtol=2e-5)
    few = slice(None, None, max(1, len(steps) // 12))
    np.testing.assert_allclose([as_number(in_graph(int(s))) for s in steps[few]], expected[few], rtol=2e-5)


def test_its_configuration_is_json_whatever_numbers_it_was_given():
    counts = {name: np.int64(2) for name in ("cycle_length", "warmup", "gradient_accumulation_steps")}
    schedule = SGDRSchedule(np.float32(0.5), np.float64(1), steps_per_epoch=4.0, total_steps=np.int32(40), **counts)
    config = json.loads(json.dumps(schedule.get_config()))
    assert config == schedule.get_config()
    assert SGDRSchedule.from_config(config).get_config() == config


@pytest.mark.parametrize(
    "schedule",
    [
        pytest.param(schedule, id=name, marks=[] if name in ("fractional", "fitted") else pytest.mark.slow)
        for name, schedule in LONG.items()
    ],
)
def test_a_million_steps_agree(schedule):
    steps = np.arange(10**6)
    in_graph, expected = compiled(SGDRSchedule(**BOUNDS, **schedule)), sgdr_lr(steps, **BOUNDS, **schedule)
    for part in np.array_split(steps, 10):
        np.testing.assert_allclose(in_graph(part), expected[part], rtol=5e-5)


def test_late_steps_are_exact():
    # In 32-bit floats, whole numbers above 2 ** 24 cannot be told apart.
    schedule = {"cycle_length": 1, "mult_factor": 1, "steps_per_epoch": 1000}
    in_graph = SGDRSchedule(**BOUNDS, **schedule)
    for step in (10**9, 10**9 + 1, 10**9 + 999):
        expected = sgdr_lr(step % 1000, **BOUNDS, **schedule)
        assert float(keras.ops.convert_to_numpy(in_graph(step))) == pytest.approx(expected, rel=1e-5)


def test_it_trains_at_its_rates_and_survives_its_config():
    schedule = SCHEDULES["the method's"]
    copied = SGDRSchedule.from_config(SGDRSchedule(**BOUNDS, **schedule).get_config())
    model, x, weights = one_weight(copied), np.ones((20, 1), "float32"), [0.0]

    class Note(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            weights.append(self.model.get_weights()[0][0, 0])  # on JAX, only here is the model up to date

    model.fit(x, x, epochs=4, batch_size=4, verbose=0, callbacks=[Note()])
    np.testing.assert_allclose(-np.diff(weights), sgdr_lr(np.arange(20), **BOUNDS, **schedule), atol=1e-5)


@pytest.mark.parametrize("name", ["the method's", "equal cycles", "all at once"])
def test_a_model_compiled_with_it_is_saved_and_loaded(name, tmp_path):
    schedule = SGDRSchedule(**BOUNDS, **SCHEDULES[name])
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(schedule), "mse")
    x = np.ones((20, 1), "float32")
    model.fit(x, x, epochs=2, batch_size=4, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert int(loaded.optimizer.iterations) == 10
    assert as_number(loaded.optimizer.learning_rate) == as_number(schedule(10))
    model.fit(x, x, batch_size=4, verbose=0)
    loaded.fit(x, x, batch_size=4, verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], loaded.get_weights()[0])


def test_under_gradient_accumulation_a_step_is_an_update():
    schedule = SGDRSchedule(0.1, 1.0, steps_per_epoch=2, cycle_length=1, gradient_accumulation_steps=3)
    rates = [as_number(schedule(batch)) for batch in range(12)]
    expected = sgdr_lr(np.arange(12) // 3, min_lr=0.1, max_lr=1.0, steps_per_epoch=2, cycle_length=1)
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("min_lr", -1),
        ("max_lr", 0),
        ("cycle_length", 0),
        ("total_steps", 0),
        ("total_steps", 2.5),
        ("shape", "sine"),
        ("warmup", 1.5),
        ("gradient_accumulation_steps", 0),
    ],
)
def test_bad_arguments_are_refused_at_once(argument, value):
    with pytest.raises(ValueError, match=rf"^Argument `{argument}` must .*Received: "):
        SGDRSchedule(**{**BOUNDS, **SCHEDULES["fitted"], argument: value})


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the flaw is told of on TensorFlow")
def test_the_restart_that_keras_own_schedule_sees_a_step_late():
    """Steps are 32-bit floats there: 100 steps doubled 13 times begin anew at step 819,100 (`docs/schedules.md`)."""
    restart = 100 * (2**13 - 1)
    keras_own = keras.optimizers.schedules.CosineDecayRestarts(1.0, 100)
    assert [round(rate) for rate in at(keras_own, [restart, restart + 1])] == [0, 1]
    ours = SGDRSchedule(0.001, 1.0, steps_per_epoch=100, cycle_length=1, mult_factor=2)
    assert at(ours, [restart - 1, restart]) == pytest.approx([0.001, 1.0], rel=1e-4)


def test_a_vector_of_steps_is_refused():
    schedule = SGDRSchedule(0.01, 0.5, steps_per_epoch=10, cycle_length=2, total_steps=60)
    with pytest.raises(ValueError, match=r"give them all to `autolr\.sgdr_lr`"):
        schedule(np.arange(5))
