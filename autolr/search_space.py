"""The schedule's hyperparameters in a search space."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from autolr.budget import trial_schedule
from autolr.trial_values import DEFAULTS, chosen

# In epochs, half a decade apart. Cycles are stretched to fit the trial, and a cycle longer than the trial is one
# cosine over all of it: whatever the budget, that plain schedule is in the space, and is what the default gives.
CHOICES: dict[str, list[Any]] = {
    "cycle_length": [1, 3, 10, 30, 100],
    "mult_factor": [1.0, 1.5, 2.0],
    "lr_decay": [0.8, 0.9, 1.0],
}

LEAST_DECAY = 0.1  # below it a restart is none
VALUES_TRIED = 1000  # of a range, which may hold many more


def add_schedule(space: Any, *, may_add: bool) -> list[str]:
    """Add the schedule's hyperparameters to a space, but for those that are there; the names of what was added.

    Args:
        space: `keras_tuner.HyperParameters`.
        may_add: Whether the search takes new ones.

    Raises:
        ValueError: If one that is there can have values that make no schedule.
    """
    for parameter in space.space:
        check_searched(parameter)
    missing = missing_in(space) if may_add else []
    for name in missing:
        space.Choice(name, CHOICES[name], default=DEFAULTS[name])
    return missing


def missing_in(space: Any) -> list[str]:
    """Names of the schedule's hyperparameters that a space has not got."""
    known = {parameter.name for parameter in space.space}
    return [name for name in DEFAULTS if name not in known]


def describe_grid(added: Sequence[str]) -> str:
    """What a grid becomes by the hyperparameters that were added, and how to leave it as it is."""
    return (
        f"The grid gets AutoLR's {', '.join(f'`{name}`' for name in added)}, too: each combination of the others is "
        f"tried with all {math.prod(len(CHOICES[name]) for name in added)} of theirs, many of which are the same in "
        "short trials. To leave the grid as it is, hold them, in the `hyperparameters` of the tuner: "
        f"{', '.join(f'`hp.Fixed({name!r}, {DEFAULTS[name]})`' for name in added)}."
    )


def sum_up_repeated(trials: Iterable[Any]) -> list[str]:
    """What is to be said of a random search in which most trials had the model of an earlier one; nothing of another.

    Keras Tuner would perhaps have ended it when its few models were tried. Of a single model schedules are searched.
    """
    models = [
        {name: value for name, value in chosen(it.hyperparameters.values).items() if name not in DEFAULTS}
        for it in trials
    ]
    repeated = sum(model in models[:number] for number, model in enumerate(models))
    if 2 * repeated <= len(models) or repeated + 1 == len(models):
        return []
    return [
        f"{repeated} of {len(models)} trials had the model of an earlier one, on another schedule: a random search "
        "ends when a small space is used up, and schedules are a part of it now. To have each model once, hold "
        "`cycle_length`, `mult_factor` and `lr_decay` (`hp.Fixed`, in the `hyperparameters` of the tuner)."
    ]


def fading(space: Any) -> list[str]:
    """Hyperparameters taken for `lr_decay` that leave the second cycle a tenth of its peak at most, described.

    Whoever names a rate's decay per step so does not mean the schedule's, and would lose trials without a word.
    """
    return [
        repr(parameter)
        for parameter in space.space
        if parameter.name == "lr_decay" and max(parameter.values) <= LEAST_DECAY
    ]


def declared_twice(space: Any) -> list[str]:
    """Names of the schedule's hyperparameters that are in a space both under a condition and without one.

    A build function that declares one under a condition declares it when that is met first, and so after AutoLR.
    """
    free, bound = ({it.name for it in space.space if bool(it.conditions) == under} for under in (False, True))
    return [name for name in DEFAULTS if name in free & bound]


def check_searched(parameter: Any) -> None:
    """Raise `ValueError` if a hyperparameter of a schedule's name can have a value that no schedule can.

    Args:
        parameter: A `keras_tuner` hyperparameter of any name.
    """
    if parameter.name not in DEFAULTS:
        return
    # Schedules can have a range of values, whole ones for some names: the first few and the last tell both.
    config, values = parameter.get_config(), list(parameter.values)
    tried = [*values[:VALUES_TRIED], values[-1]]
    if "min_value" in config and config["step"] is None:  # then the ends are not among the values
        tried += [config["min_value"], config["max_value"]]
    try:
        for value in tried:
            trial_schedule({**DEFAULTS, parameter.name: value})
    except ValueError as error:
        raise ValueError(
            f"Hyperparameter `{parameter.name}` must only have values that a schedule can have. {error} "
            f"Declared: {parameter!r}."
        ) from None
