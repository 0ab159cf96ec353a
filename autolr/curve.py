"""The recorded curve of a range test: a frozen value that can be kept, compared, judged and drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from autolr.array_types import FloatArray
from autolr.bounds import find_bounds
from autolr.bursts import Burst, confirm
from autolr.errors import check_count, check_numbers, invalid
from autolr.files import strict
from autolr.trough import batch_noise
from autolr.verdicts import STATUSES, LRBounds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STRAYED = 20.0  # standard deviations of a batch's loss: an untrained model's hardly ever is so far from the others
FINE = 10  # points in a decade of rates; a coarser sweep sees each rate too briefly for its trough to be trusted


@dataclass(frozen=True, eq=False, repr=False)
class RangeTest:
    """What a learning-rate range test recorded.

    Attributes:
        lrs: Learning rate of each recorded step, rising. Shape `(num_steps,)`.
        losses: Loss of that step's batch alone (not a running mean), before the step's update. Shape `(num_steps,)`.
            The last ones may be infinite or NaN.
        diverged: Whether the sweep ended by itself because the loss diverged.
        steps_spent: Optimizer steps the test took in all, those of its bursts included. Defaults to the number of
            rates.
        bursts: Short trainings at single rates that confirmed or mended what the sweep suggests, each a named tuple
            `(lr, change, steps)`. `change` is the mean loss after the burst's first third, less that of the untrained
            model: negative if it learned, infinite if it diverged.
        normalized: Whether BatchNormalization follows at least every second layer that has weights, so that `max_lr` is
            doubled once bursts have seen it learn at a settled pace.

    Raises:
        ValueError: If `lrs` and `losses` are not one-dimensional, equally long and of numbers, `steps_spent` is no
            whole number of 0 or more, or a burst is no triple of numbers.

    Example:
    >>> curve = RangeTest(lrs=[0.001, 0.01, 0.1], losses=[2.3, 1.9, 4.0])
    >>> RangeTest.from_dict(curve.to_dict()) == curve
    True
    """

    lrs: FloatArray
    losses: FloatArray
    diverged: bool = False
    steps_spent: int = 0
    bursts: tuple[Burst, ...] = ()
    normalized: bool = False

    def __post_init__(self) -> None:
        for name in ("lrs", "losses"):
            array = np.array(check_numbers(name, getattr(self, name)))
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if self.lrs.ndim != 1 or self.lrs.shape != self.losses.shape:
            raise ValueError(
                "Arguments `lrs` and `losses` must be one-dimensional and equally long. "
                f"Received: shapes {self.lrs.shape} and {self.losses.shape}. Give one of each for every step."
            )
        object.__setattr__(self, "diverged", bool(self.diverged))
        spent = check_count("steps_spent", self.steps_spent, least=0, hint="0 counts a step for each rate.")
        object.__setattr__(self, "steps_spent", spent or len(self.lrs))
        try:
            bursts = tuple(Burst(float(lr), float(change), int(steps)) for lr, change, steps in self.bursts)
        except (TypeError, ValueError, OverflowError):
            hint = "Leave them out of a sweep without any."
            raise invalid("bursts", "be triples of numbers, `(lr, change, steps)`", self.bursts, hint) from None
        object.__setattr__(self, "bursts", bursts)
        object.__setattr__(self, "normalized", bool(self.normalized))

    def __len__(self) -> int:
        return len(self.lrs)

    def __repr__(self) -> str:
        span = f" from {self.lrs[0]:.1e} to {self.lrs[-1]:.1e}" if len(self) else ""
        end = ", diverged" if self.diverged else ""
        return f"<RangeTest: {len(self)} rates{span}{end}; {len(self.bursts)} bursts; {self.steps_spent} steps in all>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RangeTest):
            return NotImplemented
        return (
            np.array_equal(self.lrs, other.lrs)
            and np.array_equal(self.losses, other.losses, equal_nan=True)
            and (self.diverged, self.steps_spent) == (other.diverged, other.steps_spent)
            and (self.bursts, self.normalized) == (other.bursts, other.normalized)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # By `__init__`, so that the arrays of a copy can't be written to either.
        return type(self), tuple(getattr(self, field.name) for field in fields(self))

    __hash__ = None  # type: ignore[assignment] # arrays have no hash; mypy wants a method here

    def bounds(self, **options: Any) -> LRBounds:
        """The bounds on this curve: `find_bounds(self.lrs, self.losses, **options)`, mended by its bursts if any.

        Without bursts, `confidence` is `"low"` if a decade of rates has fewer than 10 points.
        """
        bounds = find_bounds(self.lrs, self.losses, **options)
        if not self.bursts:
            return as_a_guess(bounds) if bounds.confidence != "low" and self._is_coarse() else bounds
        return confirm(
            bounds,
            self.bursts,
            noise=noise_of(self._losses_far_below(bounds)),
            normalized=self.normalized,
            highest=float(self.lrs[-1]),
        )

    def _is_coarse(self) -> bool:
        return len(self) - 1 < FINE * math.log10(self.lrs[-1] / self.lrs[0])

    def untrained_losses(self) -> FloatArray:
        """The losses at the sweep's first rates, too low to change anything: all far below those of the bounds."""
        return self._losses_far_below(find_bounds(self.lrs, self.losses))

    def burst_losses(self) -> list[float]:
        """The loss that each burst came to, where that of the untrained model is the level; infinite if it diverged."""
        level = float(np.mean(self.untrained_losses())) if self.bursts else 0.0
        return [level + burst.change for burst in self.bursts]

    def _losses_far_below(self, bounds: LRBounds) -> FloatArray:
        losses = self.losses[: max(3, int(np.sum(self.lrs < bounds.max_lr / 100)))]
        if not np.all(np.isfinite(losses)):
            return losses
        # Of bounds that are far too high, a hundredth may have trained the model, or torn it apart.
        strayed = np.abs(losses - np.median(losses[:5])) > STRAYED * batch_noise(losses)
        return losses[: max(3, int(np.argmax(strayed)))] if strayed.any() else losses

    def to_dict(self) -> dict[str, Any]:
        """Plain values for strict JSON, which knows no NaN or infinity: those become the strings "nan" and "inf"."""
        return {
            "lrs": [float(rate) for rate in self.lrs],
            "losses": [strict(float(loss)) for loss in self.losses],
            "diverged": self.diverged,
            "steps_spent": self.steps_spent,
            "bursts": [[burst.lr, strict(float(burst.change)), burst.steps] for burst in self.bursts],
            "normalized": self.normalized,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RangeTest:
        """The curve that `to_dict` was called on.

        Raises:
            ValueError: If a value is missing, or none that a `RangeTest` takes.
        """
        if not isinstance(values, Mapping):
            raise invalid("values", "be a mapping", values, "Give what `to_dict` returns.")
        required = ("lrs", "losses", "diverged", "steps_spent", "bursts")
        missing = [name for name in required if name not in values]
        if missing:
            raise invalid("values", f"have {', '.join(missing)}", sorted(values), "Give what `to_dict` returns.")
        # Older records have not noted `normalized`.
        return cls(**{name: values[name] for name in (*required, "normalized") if name in values})

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the curve with its bounds: `plot_range_test(self, ax=ax)`."""
        from autolr.plots import plot_range_test  # needs matplotlib, and sits above this file

        return plot_range_test(self, ax=ax)


def noise_of(untrained: FloatArray) -> float:
    """Standard deviation of an untrained model's batch losses: what a fall within it may be, and of rounding at least.

    Args:
        untrained: Losses of the model at rates too low to change anything.
    """
    rounding = 10 * np.finfo(np.float32).eps * abs(np.mean(untrained))
    return max(batch_noise(untrained), float(rounding))


def as_a_guess(bounds: LRBounds) -> LRBounds:
    """Bounds that a sweep of few points suggests: of 40, a tenth has a regret of 0.33 or more (`docs/bounds.md`)."""
    doubt = (
        f"Take the bounds for a guess all the same: a decade of rates has fewer than {FINE} points. Sweep more slowly "
        "(`num_steps`; in a tuner, longer trials or a larger `range_test_share`)."
    )
    return replace(bounds, confidence="low", reason=f"{STATUSES[bounds.status]} {doubt}")
