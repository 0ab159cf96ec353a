"""The picture of a training as it ran: its learning rate above its loss, on one axis of epochs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from autolr.charts import Chart, Scale, padded, thinned
from autolr.records import TrialRecord
from autolr.sgdr import Schedule

MOST_CYCLES = 100  # that can be told apart in a chart this wide
_LOG_FROM = 8.0  # a loss that falls by more is drawn on its logarithm
_RATE_PANEL, _LOSS_PANEL = (34, 112), (150, 252)  # top and bottom


def planned_schedule(record: TrialRecord) -> Schedule:
    """What is needed of a trial's schedule to draw it on its edges."""
    return Schedule(
        min_lr=record.bounds["min_lr"],
        max_lr=record.bounds["max_lr"],
        lr_decay=record.schedule["lr_decay"],
        warmup=record.schedule["warmup"],
        fit_budget=True,  # as trials' are; only then may warm-up be a share
    )


def planned_line(record: TrialRecord) -> tuple[Any, Any]:
    """Epochs and rates of the schedule as planned, corners included, of at most `MOST_CYCLES` cycles."""
    edges = np.array(record.schedule["edges"])
    count = len(edges) - 1
    parts = itertools.pairwise([0, *edges] if edges[0] else edges)  # warm-up first
    inner = [np.linspace(a, b, 6 + 300 // count) for a, b in parts]
    # Just before an edge the rate is at its lowest, on it at its peak: both corners are drawn.
    steps = np.concatenate([np.append(part[:-1], part[-1] - 1e-6) for part in inner])
    return steps / record.per_epoch, planned_schedule(record).rates(steps, edges)


def best_epoch(record: TrialRecord | None, objective: str, direction: str) -> tuple[int, float] | None:
    """The epoch, from 1, in which the objective was best, and its value then; None if no epoch reports it."""
    epochs = record.epochs if record else []
    values = {e["epoch"]: float(e["logs"][objective]) for e in epochs if objective in e["logs"]}
    finite = {epoch: value for epoch, value in values.items() if math.isfinite(value)}
    if not finite:
        return None
    epoch = (max if direction == "max" else min)(finite, key=lambda e: finite[e])
    return epoch, finite[epoch]


def training_chart(record: TrialRecord) -> Chart | None:
    """Rate above loss; the rate alone if there is no finite loss; None if nothing was recorded."""
    training = record.training
    if training is None or not training["rates"]["lr"]:
        return None
    epoch_at = _epochs_by_step(record)
    last = epoch_at([training["steps"]])[0]
    planned_end = record.schedule["edges"][-1] / record.per_epoch
    x = Scale(record.schedule["initial_epoch"], max(last, planned_end), Chart.LEFT, Chart.RIGHT)
    loss = _loss_panel(training, x, epoch_at)
    rates = _rate_panel(record, x, epoch_at, unfinished=last < planned_end * (1 - 1e-9), alone=loss is None)
    if loss is None:
        return rates
    loss.label = f"{rates.label} Below it, the loss."
    loss.above = rates
    return loss


def _rate_panel(
    record: TrialRecord, x: Scale, epoch_at: Callable[[Sequence[float]], Any], *, unfinished: bool, alone: bool
) -> Chart:
    assert record.training is not None
    steps, rates = record.training["rates"]["step"], [float(lr) for lr in record.training["rates"]["lr"]]
    top, bottom = (Chart.TOP, Chart.BOTTOM) if alone else _RATE_PANEL
    highest = max(*rates, record.bounds["max_lr"])
    chart = Chart(
        f"Training as run: the learning rate over {record.training['steps']} steps, "
        f"between {min(rates):.1e} and {max(rates):.1e}.",
        x,
        Scale(0, highest * 1.06, bottom, top),
        x_name="epoch",
        y_name="learning rate",
        top=top,
        bottom=bottom,
    )
    if unfinished and len(record.schedule["edges"]) - 1 <= MOST_CYCLES:
        epochs, planned = planned_line(record)
        ahead = epochs >= epoch_at([steps[-1]])[0]
        chart.line("plan", epochs[ahead], planned[ahead])
    # A step's rate held from its beginning: the point of step n lies where n - 1 had ended.
    chart.line("smooth", epoch_at([step - 1 for step in steps]), rates)
    return chart


def _loss_panel(training: dict[str, Any], x: Scale, epoch_at: Callable[[Sequence[float]], Any]) -> Chart | None:
    losses = np.array([float(loss) for loss in training["losses"]["loss"]])
    judged = [(e["epoch"], float(e["logs"]["val_loss"])) for e in training["epochs"] if "val_loss" in e["logs"]]
    every = np.array([*losses, *(loss for _, loss in judged)])
    finite = every[np.isfinite(every)]
    if not len(finite):
        return None
    low, high = float(finite.min()), float(finite.max())
    top, bottom = _LOSS_PANEL
    log = low > 0 and high > _LOG_FROM * low
    limits = (low / 1.15, high * 1.15) if log else padded(low, high)
    chart = Chart("", x, Scale(*limits, bottom, top, log=log), x_name="epoch", y_name="loss", top=top, bottom=bottom)
    some = thinned(len(losses), 250)
    epochs = epoch_at(np.array(training["losses"]["step"])[some])
    chart.dots("loss raw", epochs, losses[some])
    # What is drawn on its logarithm is smoothed there: else one high loss would lift a whole stretch of low ones.
    with np.errstate(invalid="ignore"):  # of minus infinity there is no logarithm
        smoothed = np.exp(_smoothed(np.log(losses[some]))) if log else _smoothed(losses[some])
    chart.line("smooth", epochs, smoothed)
    if judged:
        chart.line("val", *zip(*judged, strict=True))
        if len(judged) <= 40:
            chart.dots("val dot", *zip(*judged, strict=True))
    return chart


def _smoothed(losses: Any) -> Any:
    """The mean of each loss and those next to it, over a thirtieth of them all; not-a-number spreads."""
    if not len(losses):
        return losses
    reach = len(losses) // 60
    return np.convolve(np.pad(losses, reach, mode="edge"), np.full(2 * reach + 1, 1 / (2 * reach + 1)), "valid")


def _epochs_by_step(record: TrialRecord) -> Callable[[Sequence[float]], Any]:
    """Turns steps of the training into epochs, also where no epoch had the same number of them."""
    assert record.training is not None
    start = record.schedule["initial_epoch"]
    ends = [(0, start), *((epoch["step"], epoch["epoch"]) for epoch in record.training["epochs"])]
    steps, epochs = (np.array(column, dtype=float) for column in zip(*ends, strict=True))
    per_epoch = record.schedule["steps_per_epoch"] or record.training["steps"] or 1
    if len(ends) > 1:
        per_epoch = steps[-1] / max(1, epochs[-1] - start)

    def epoch_at(of: Sequence[float]) -> Any:
        beyond = np.maximum(0, np.array(of) - steps[-1]) / per_epoch  # of an epoch that has not ended
        return np.interp(of, steps, epochs) + beyond

    return epoch_at
