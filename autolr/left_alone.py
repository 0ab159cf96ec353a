"""Models that train without AutoLR, and why."""

from __future__ import annotations

import keras

from autolr.optimizers import (
    KEPT,
    SEVERAL,
    against_schedules,
    keeps_its_optimizer,
    several_optimizers,
    takes_a_number,
)


def reason_to_leave_alone(model: keras.Model) -> tuple[str, str] | None:
    """Why no schedule can be laid over a compiled model's rate, as a topic and a warning; None if one can."""
    if several_optimizers(model):
        return "several", f"{SEVERAL} It trains without AutoLR, at the rates its optimizers have."
    if keeps_its_optimizer(model) and not takes_a_number(model.optimizer):
        return (
            "kept",
            f"{KEPT} The trial trains without AutoLR, on the schedule it is compiled with. For AutoLR, compile "
            "with a number, or use `self.optimizer`.",
        )
    if reason := against_schedules(model.optimizer):
        return "constant", f"{reason} The trial trains without AutoLR, at the rate it is compiled with."
    return None
