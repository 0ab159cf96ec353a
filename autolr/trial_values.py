"""What a trial writes into its hyperparameters, under which names, and the schedule that it makes again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autolr.errors import invalid

DEFAULTS = {"cycle_length": 100, "mult_factor": 2.0, "lr_decay": 1.0}

# Share of a trial's steps in which the rate rises from `min_lr`. What a model trains well at may be too high for its
# first steps, and cost more than them (`docs/schedules.md`).
WARMUP = 0.1

# Share of a trial's steps over which weights are averaged when a cycle ends, at most half of the cycle.
TAIL_AVERAGE = 0.1

PREFIX, TUNER_PREFIX = "autolr/", "tuner/"  # of what is found and what Keras Tuner sets: no choices of the search
PARENT = f"{TUNER_PREFIX}trial_id"  # the trial of Hyperband's rung before
# Of a trial of Hyperband; a bracket has one rung more than its number.
RUNG, BRACKET = f"{TUNER_PREFIX}round", f"{TUNER_PREFIX}bracket"
MIN_LR, MAX_LR, TAIL = f"{PREFIX}min_lr", f"{PREFIX}max_lr", f"{PREFIX}tail_average"

NAMES = {"min_lr": MIN_LR, "max_lr": MAX_LR, "tail_average": TAIL, **{name: name for name in DEFAULTS}}


def without_found(values: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameter values without what the trial has found itself."""
    return {name: value for name, value in values.items() if not name.startswith(PREFIX)}


def chosen(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a search chose, without those found by the trial or set by Keras Tuner for itself."""
    return {name: value for name, value in without_found(values).items() if not name.startswith(TUNER_PREFIX)}


def scheduler_arguments(hp: Any, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the `SGDRScheduler` a trial was trained with: see its `from_hyperparameters`.

    Args:
        hp: `keras_tuner.HyperParameters` of a finished trial.
        overrides: Arguments that take precedence.

    Raises:
        ValueError: If there are no bounds, or `hp` is no `HyperParameters`.
    """
    if not isinstance(getattr(hp, "values", None), Mapping):
        hint = "Take one of `tuner.get_best_hyperparameters()`."
        raise invalid("hp", "be the `HyperParameters` of a finished trial", hp, hint)
    arguments = {argument: hp.values[name] for argument, name in NAMES.items() if name in hp.values}
    missing = {"min_lr", "max_lr"} - {*arguments, *overrides}
    if missing:
        raise ValueError(
            f"Argument `hp` must hold the bounds a trial found, as `{MIN_LR}` and `{MAX_LR}`. "
            f"Received: hp.values={hp.values!r}. Take it from a finished AutoLR search, or pass "
            f"{' and '.join(sorted(missing))}."
        )
    arguments = {"fit_budget": True, **DEFAULTS, **arguments, **overrides}
    # The other shapes begin at `min_lr` as it is.
    warms_up = arguments["fit_budget"] and arguments.get("shape", "cosine") == "cosine"
    return {"warmup": WARMUP if warms_up else 0, "tail_average": TAIL_AVERAGE, **arguments}
