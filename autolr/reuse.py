"""Which trainings would measure the same bounds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from autolr.optimizers import parts

# What a trial's schedule, the found bounds and the budget are called: none of them is there yet in a range test.
SCHEDULE = ("cycle_length", "mult_factor", "lr_decay")
NOT_MEASURED = ("autolr/", "tuner/")


def compiled_setup(model: Any, arguments: Mapping[str, Any]) -> str:
    """What of one model's training a range test depends on and a `HyperModel.fit` may change between two `fit`s.

    Args:
        model: A compiled model.
        arguments: The arguments of its `fit`.
    """
    variables = [[list(v.shape), str(v.dtype), bool(v.trainable)] for v in getattr(model, "variables", ())]
    return _text([_optimizer(model.optimizer), variables, arguments.get("batch_size")])


def measured_setup(model: Any, arguments: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Everything a range test depends on, within one call of `search` with its data.

    Args:
        model: A compiled model.
        arguments: The arguments of its `fit`.
        values: The trial's hyperparameter values.

    Returns:
        Text that is equal for two trainings only if the same range test would be run for both: same values but for
        the schedule's, same architecture, optimizer, batch size and steps.
    """
    chosen = {k: v for k, v in values.items() if k not in SCHEDULE and not k.startswith(NOT_MEASURED)}
    budget = {name: arguments.get(name) for name in ("steps_per_epoch", "validation_split", "class_weight")}
    try:
        architecture = model.get_config()
    except NotImplementedError:  # a subclass of `Model` without one: its values and variables tell
        architecture = type(model).__qualname__
    return _text([chosen, budget, architecture, compiled_setup(model, arguments)])


def _optimizer(optimizer: Any) -> list[Any]:
    # Rates are what the test is about, and Keras numbers the names.
    ignored = ("learning_rate", "name")
    return [
        [type(part).__qualname__, {k: v for k, v in part.get_config().items() if k not in ignored}]
        for part in parts(optimizer)
    ]


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=lambda it: getattr(it, "__qualname__", type(it).__qualname__))
