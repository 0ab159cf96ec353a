"""What the report says of a search and of each trial, as plain values and charts for its templates."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from autolr.bounds import smooth_losses
from autolr.charts import Chart, Scale, box, loss_limits, padded, thinned
from autolr.curve import RangeTest
from autolr.cycles import cycle_lengths
from autolr.search_folder import Search, Trial
from autolr.training_chart import MOST_CYCLES, best_epoch, planned_line, planned_schedule, training_chart
from autolr.trial_values import PREFIX, TUNER_PREFIX, chosen

NOTHING = "\u2013"  # a dash, where there is no value
_MAX_DOTS, _MAX_CORNERS = 250, 120  # of a curve; more cannot be told apart in a chart this wide


def rate(x: float) -> str:
    """A learning rate: always in the same form, so that a column of them can be compared."""
    mantissa, exponent = f"{x:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def number(x: float | None) -> str:
    """A score or metric."""
    return NOTHING if x is None else f"{x:.5g}"


def value(x: Any) -> str:
    """A hyperparameter's value; 0.1 + 0.2 is shown as 0.3."""
    return f"{x:.6g}" if isinstance(x, float) else str(x)


@dataclass
class Overview:
    """The search at a glance."""

    search: Search

    @cached_property
    def counts(self) -> dict[str, int]:
        """Trials by Keras Tuner's status, in lower case."""
        names = [trial.status.lower() for trial in self.search.trials]
        return {name: names.count(name) for name in dict.fromkeys(names)}

    @cached_property
    def suspects(self) -> list[Trial]:
        """Trials that need a look."""
        return [trial for trial in self.search.trials if trial.needs_a_look]

    @cached_property
    def guesses(self) -> int:
        """How many of the others have bounds of low confidence."""
        return sum(trial.bounds_in_words == "a guess" and not trial.needs_a_look for trial in self.search.trials)

    @cached_property
    def steps(self) -> tuple[int, int]:
        """Optimizer steps of range tests and of trainings, of the trials where both are known."""
        known = [(trial.steps_tested, trial.steps_trained) for trial in self.search.trials]
        return sum(a for a, b in known if b is not None), sum(b for _, b in known if b is not None)

    @cached_property
    def recorded(self) -> int:
        """Number of trials with a usable record."""
        return sum(trial.record is not None for trial in self.search.trials)

    @cached_property
    def warnings(self) -> list[str]:
        """What was warned of in several trials: a matter of the search, not of each of them."""
        records = (trial.record for trial in self.search.trials if trial.record)
        seen = Counter(text for record in records for text in dict.fromkeys(record.warnings))  # in their order
        return [text for text, times in seen.items() if times > 1]

    @cached_property
    def columns(self) -> list[str]:
        """Hyperparameters that differ between trials."""
        seen: dict[str, list[Any]] = {}
        for trial in self.search.trials:
            for name, x in chosen(trial.values).items():
                seen.setdefault(name, []).append(x)
        return [name for name, xs in seen.items() if any(x != xs[0] for x in xs)]

    @cached_property
    def progress(self) -> Chart | None:
        """Objective by trial, with the best so far."""
        found = [
            (place, trial)
            for place, trial in enumerate(self.search.trials)  # from 0, as Keras Tuner names them
            if trial.score is not None and math.isfinite(trial.score)
        ]
        if not found:
            return None
        sign = 1 if self.search.direction == "max" else -1
        scores = np.array([trial.score for _, trial in found], dtype=float)
        best = np.maximum.accumulate(sign * scores) * sign
        # One diverged trial must not flatten the others: what is far below the lower quartile is drawn at the edge.
        good, quartile = float(np.max(sign * scores)), float(np.quantile(sign * scores, 0.25))
        worst = float(np.min(sign * scores))
        worst = max(worst, good - 3 * (good - quartile)) if quartile < good else worst
        low, high = padded(*sorted((sign * worst, sign * good)))
        if self.search.direction == "max" and scores.min() >= 0 and good <= 1:  # as an accuracy
            high = min(high, 1.0)
        chart = Chart(
            f"{self.search.objective} of each trial, and the best so far.",
            *box((-0.5, len(self.search.trials) - 0.5), (low, high)),
            x_name="trial",
            y_name=self.search.objective,
        )
        corners: list[tuple[float, float]] = []
        for (place, _), y in zip(found, best, strict=True):
            corners += [(place, corners[-1][1] if corners else y), (place, y)]
        corners.append((len(self.search.trials) - 0.5, float(best[-1])))
        chart.line("best", *zip(*corners, strict=True))
        for place, trial in found:
            off = sign * (trial.score or 0.0) < worst
            kind = "winner" if trial is self.search.best else "off" if off else "trial"
            title = f"Trial {trial.trial_id}: {number(trial.score)}" + " (off the scale)" * off
            chart.links.append((chart.x(place), chart.y(trial.score or 0.0), kind, "#" + anchor(trial), title))
        chart.x_ticks = _whole(chart.x)
        return chart

    @cached_property
    def ranges(self) -> Chart | None:
        """Bounds by trial."""
        found = [(place, trial) for place, trial in enumerate(self.search.trials) if trial.record]
        if not found:
            return None
        pairs = [(trial.record.bounds["min_lr"], trial.record.bounds["max_lr"]) for _, trial in found if trial.record]
        low, high = min(low for low, _ in pairs), max(high for _, high in pairs)
        chart = Chart(
            "Learning rates between which each trial was trained.",
            *box((-0.5, len(self.search.trials) - 0.5), (low / 2, high * 2), log_y=True),
            x_name="trial",
            y_name="bounds of the learning rate",
        )
        many = " many" * (len(self.search.trials) > 40)  # then thick lines would run together
        for (place, trial), (low, high) in zip(found, pairs, strict=True):
            at, kind = chart.x(place), ("span" if trial.bounds_in_words == "ok" else "span guess") + many
            chart.paths.append((kind, f"M{at:g} {chart.y(low):g}V{chart.y(high):g}"))
        chart.x_ticks = _whole(chart.x)
        return chart


def _whole(scale: Scale) -> list[tuple[float, str]]:
    return [(at, text) for at, text in scale.ticks(8) if text.isdigit()]


def anchor(trial: Trial) -> str:
    """The name of a trial's part within the page."""
    return "trial-" + re.sub(r"[^\w.-]", "_", trial.trial_id)


@dataclass
class TrialView:
    """One trial on the page."""

    trial: Trial
    overview: Overview

    @property
    def search(self) -> Search:
        """The search it is of."""
        return self.overview.search

    @cached_property
    def is_best(self) -> bool:
        """Whether it is the winner."""
        return self.trial is self.search.best

    @cached_property
    def lists(self) -> list[tuple[str, dict[str, Any]]]:
        """Values and metrics, by whose they are."""
        values = self.trial.values
        metrics = {name: x for name, x in self.trial.metrics.items() if name != "learning_rate"}  # Keras logs it, too
        return [
            ("Hyperparameters", chosen(values)),
            ("Metrics, in the best epoch", metrics),
            ("Found by autolr", {name: x for name, x in values.items() if name.startswith(PREFIX)}),
            ("Set by Keras Tuner", {name: x for name, x in values.items() if name.startswith(TUNER_PREFIX)}),
        ]

    @cached_property
    def words(self) -> str:
        """What a filter finds the trial by, beside what is in its row: all it chose, as name=value."""
        return " ".join(f"{name}={value(x)}" for name, x in chosen(self.trial.values).items())

    @cached_property
    def cycles(self) -> list[float]:
        """Lengths of its cycles, in epochs."""
        if self.trial.record is None:
            return []
        schedule = self.trial.record.schedule
        return cycle_lengths(schedule["edges"], schedule["steps_per_epoch"])

    @cached_property
    def _test(self) -> RangeTest | None:
        record = self.trial.record
        return RangeTest.from_dict(record.range_test) if record and record.range_test else None

    @cached_property
    def _curve(self) -> tuple[Any, Any, Any] | None:
        """Rates, losses and smoothed losses of the range test."""
        if self._test is None or not np.isfinite(self._test.losses).any():
            return None
        return self._test.lrs, self._test.losses, smooth_losses(self._test.lrs, self._test.losses)

    @cached_property
    def spark(self) -> list[tuple[str, str]]:
        """Paths of the small curve: bounds and smoothed loss, on 120 by 32 pixels."""
        if self._curve is None or self.trial.record is None:
            return []
        rates, losses, smooth = self._curve
        x, y = self._scales(rates, losses, smooth, (1, 119), (30, 2))
        low, high = x(self.trial.record.bounds["min_lr"]), x(self.trial.record.bounds["max_lr"])
        keep = [k for k in thinned(len(rates), 48) if np.isfinite(smooth[k])]
        line = "L".join(f"{x(rates[k]):g} {y(smooth[k]):g}" for k in keep)
        return [("range", f"M{low:g} 0H{high:g}V32H{low:g}z"), ("smooth", f"M{line}" if keep else "")]

    @staticmethod
    def _scales(
        rates: Any, losses: Any, smooth: Any, x: tuple[int, int], y: tuple[int, int], *, lowest: float = math.inf
    ) -> tuple[Scale, Scale]:
        low, high = loss_limits(losses, smooth)
        return Scale(rates[0], rates[-1], *x, log=True), Scale(*padded(min(low, lowest), high), *y)

    @cached_property
    def _bursts(self) -> list[tuple[float, float]]:
        """Rate and loss of each burst; an infinite loss if it diverged."""
        if self._test is None:
            return []
        return [(burst.lr, loss) for burst, loss in zip(self._test.bursts, self._test.burst_losses(), strict=True)]

    @cached_property
    def range_test(self) -> Chart | None:
        """The range test: losses, smoothed loss, bounds."""
        if self._curve is None or self.trial.record is None:
            return None
        rates, losses, smooth = self._curve
        bounds = self.trial.record.bounds
        lowest = min((loss for _, loss in self._bursts if math.isfinite(loss)), default=math.inf)
        sides = (Chart.LEFT, Chart.RIGHT), (Chart.BOTTOM, Chart.TOP)
        x, y = self._scales(rates, losses, smooth, *sides, lowest=lowest)
        chart = Chart(
            f"Range test: loss by learning rate. The bounds are {rate(bounds['min_lr'])} and {rate(bounds['max_lr'])}.",
            x,
            y,
            x_name="learning rate",
            y_name="batch loss",
        )
        chart.band("range", bounds["min_lr"], bounds["max_lr"])
        some = thinned(len(rates), _MAX_DOTS)
        chart.dots("raw", rates[some], losses[some])
        some = thinned(len(rates), _MAX_CORNERS)
        chart.line("smooth", rates[some], smooth[some])
        for lr, loss in self._bursts:
            if loss <= y.high:
                chart.paths.append(("burst", f"M{x(lr):g} {y(loss) - 4.5:g}l4.5 4.5-4.5 4.5-4.5-4.5z"))
            else:
                chart.paths.append(("burst gone", f"M{x(lr) - 4:g} {chart.TOP - 4:g}l8 8m0-8l-8 8"))
        chart.upright("low", bounds["min_lr"])
        chart.upright("high", bounds["max_lr"])
        # Each label on the outer side of its line.
        at = [chart.x(bounds["min_lr"]), chart.x(bounds["max_lr"])]
        chart.texts.append((at[0] - 5, chart.TOP - 6, "end", rate(bounds["min_lr"])))
        chart.texts.append((at[1] + 5, chart.TOP - 6, "start", rate(bounds["max_lr"])))
        return chart

    @cached_property
    def schedule(self) -> Chart | None:
        """The learning rate through training, as planned."""
        if self.trial.record is None:
            return None
        bounds, plan = self.trial.record.bounds, self.trial.record.schedule
        edges, per_epoch = np.array(plan["edges"]), self.trial.record.per_epoch
        cycles = len(edges) - 1
        starts = np.array([0, *edges[1:-1]])  # warm-up is part of the first
        rates = planned_schedule(self.trial.record).rates
        peaks = rates(edges[:-1], edges)
        chart = Chart(
            f"Schedule: {cycles} cosine cycle{'s' * (cycles > 1)} from {rate(bounds['max_lr'])} to "
            f"{rate(bounds['min_lr'])}.",
            *box((0, float(edges[-1]) / per_epoch), (0, bounds["max_lr"] * 1.06)),
            x_name="epoch",
            y_name="learning rate",
        )
        if start := plan["initial_epoch"]:
            chart.band("before", 0, start)
        if cycles <= MOST_CYCLES:
            chart.line("smooth", *planned_line(self.trial.record))
            chart.dots("peak", starts / per_epoch, rates(starts, edges))
        else:  # they would run together: their peaks, and what each falls to
            some = thinned(cycles, _MAX_CORNERS)
            chart.line("smooth", edges[some] / per_epoch, peaks[some])
            chart.line("smooth", edges[some] / per_epoch, np.full(len(some), bounds["min_lr"]))
        return chart

    @cached_property
    def training(self) -> Chart | None:
        """The learning rate and the loss through training, as run."""
        return training_chart(self.trial.record) if self.trial.record else None

    @cached_property
    def best_epoch(self) -> tuple[int, float] | None:
        """The epoch in which the objective was best, and its value then."""
        return best_epoch(self.trial.record, self.search.objective, self.search.direction)

    @cached_property
    def warnings(self) -> list[str]:
        """What autolr warned of in this trial alone, but for the verdict on the bounds, which is told anyway."""
        record = self.trial.record
        if record is None:
            return []
        told = self.overview.warnings
        return [text for text in record.warnings if record.bounds["reason"] not in text and text not in told]
