"""The schedule in the graph gives the rates of the pure function."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers import one_weight

from autolr import SGDRSchedule, sgdr_lr

SCHEDULES = {
    "the method's": {"cycle_length": 3, "mult_factor": 1.5, "lr_decay": 0.9, "steps_per_epoch": 5},
    "equal cycles": {"cycle_length": 2, "mult_factor": 1, "lr_decay": 0.9, "steps_per_epoch": 7},
    "fitted": {"cycle_length": 3, "mult_factor": 1.5, "lr_decay": 0.9, "steps_per_epoch": 5, "total_steps": 100},
    "defaults": {"steps_per_epoch": 3},
}
BOUNDS = {"min_lr": 0.1, "max_lr": 2.0}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_every_step_has_the_rate_of_the_pure_function(schedule):
    in_graph = SGDRSchedule(**BOUNDS, **schedule)
    rates = [float(keras.ops.convert_to_numpy(in_graph(step))) for step in range(145)]
    np.testing.assert_allclose(rates, sgdr_lr(np.arange(145), **BOUNDS, **schedule), rtol=1e-5)


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
    model, weights = one_weight(copied), [0.0]
    x = np.ones((20, 1), "float32")
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs=None: weights.append(model.get_weights()[0][0, 0])
    )
    model.fit(x, x, epochs=4, batch_size=4, verbose=0, callbacks=[note])
    np.testing.assert_allclose(-np.diff(weights), sgdr_lr(np.arange(20), **BOUNDS, **schedule), atol=1e-5)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("min_lr", -1), ("max_lr", 0), ("cycle_length", 0), ("total_steps", 0), ("total_steps", 2.5)],
)
def test_bad_arguments_are_refused_at_once(argument, value):
    # BUG: `total_steps=2.5` is cut to 2, where `sgdr_lr` refuses it.
    with pytest.raises(ValueError, match=rf"^Argument `{argument}` must .*Received: "):
        SGDRSchedule(**{**BOUNDS, **SCHEDULES["fitted"], argument: value})
