"""`LRBounds`: the learning rates a range test suggests, with a verdict on the curve and advice in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from autolr.errors import invalid, is_finite

MIN_POINTS = 10  # finite losses, to be judged

STATUSES: Mapping[str, str] = {
    "ok": "The loss fell and rose again, and both stand out from its noise.",
    "never_fell": "The loss rose at high rates but did not fall before.",
    "small_fall": "At no rate did the loss fall by more than its own noise.",
    "flat": "The loss did not change at all.",
    "never_diverged": "The loss fell and had not risen again when the sweep ended.",
    "diverged_at_once": "The loss rose near the start of the sweep, without a fall before.",
    "too_few_points": "There are too few finite losses to judge.",
    "non_finite": f"Fewer than {MIN_POINTS} losses are finite, and others are not.",
    "too_noisy": "Neither a fall nor a rise of the loss stands out from its noise.",
}

ADVICE = {
    "ok": "Use the bounds.",
    "never_fell": "max_lr is a guess from the rate at which the loss leaves its level: about an 18th of that, or "
    "less or more where there was a faint fall. Sweep more slowly (`num_steps`; in a tuner, longer trials or a larger "
    "`range_test_share`), or use a larger batch. A model that is already trained looks like this, too: it has little "
    "left to fall.",
    "small_fall": "The bounds are those of the rate that did best in short trainings, or of the lowest tried if none "
    "helped. A model that is already trained looks like this; so do very noisy labels, where a larger batch helps, and "
    "deep models that begin to learn late, where normalisation or another initialisation does (`he_normal` for ReLU).",
    "flat": "The bounds are the middle of the sweep. Check that the model has trainable weights and that the "
    "losses are per batch, and try higher rates (`end_lr` of `range_test`).",
    "never_diverged": "The bounds may be low: bursts would tell (`burst_steps` of `range_test`; in a tuner, longer "
    "trials). If the sweep ended below a rate of 10, let it go on: `end_lr` of `range_test`, or more `epochs` where an "
    "`LRFinder` was cut short.",
    "diverged_at_once": "The bounds are near the lowest rates tried and may still be too high. Check the data for NaN, "
    "bring inputs and targets to a scale of one or so, or lower the first rate (`start_lr` of `range_test`; a tuner's "
    "is fixed).",
    "too_few_points": f"The bounds are a guess, not a finding. Record at least {MIN_POINTS} steps.",
    "non_finite": "The bounds stay below the first non-finite loss. If that is the sweep's first, no rate helps, and "
    "the bounds mean nothing: check the data and the loss for NaN. If not, bring inputs and "
    "targets to a scale of one or so, or lower the first rate (`start_lr` of `range_test`; a tuner's is fixed).",
    "too_noisy": "The bounds are a guess: max_lr is an 18th of the sweep's last rate. Sweep more slowly "
    "(`num_steps`; in a tuner, longer trials or a larger `range_test_share`), or use a larger batch.",
}

# What to fall back on without a sweep: Adam's usual rate and a quarter of it.
DEFAULT_BOUNDS = (2.5e-4, 1e-3)


@dataclass(frozen=True, slots=True)
class LRBounds:
    """The learning rates a range test suggests, and how far to trust them.

    Unpacks as two numbers: `min_lr, max_lr = find_bounds(lrs, losses)`. Both are always finite, positive and
    `min_lr < max_lr`, whatever the status.

    Attributes:
        min_lr: Lower bound.
        max_lr: Upper bound: where a cosine cycle starts.
        status: `"ok"`: the bounds were read off the curve, or bursts lowered the loss by more than its noise.
            `"never_diverged"`: read off the curve, but perhaps too low. With any other they are a fallback, as `reason`
            says: `"never_fell"`, `"diverged_at_once"`, `"too_noisy"`, `"flat"`, `"non_finite"`, `"too_few_points"`, and
            `"small_fall"`, which is said after bursts only. In a search it may also be `"failed"`: the range test
            raised an error; or, in a trial that goes on with another's bounds, `"unknown"`: that one's record cannot be
            read.
        reason: In words, what the curve looks like and what to do.
        confidence: `"high"`: the fall and the rise both stand out from the noise by at least 4.5 standard errors.
            `"medium"`: one of them by 3 to 4.5 only, or there is no rise. `"low"`: there is no usable trough and the
            bounds are a fallback, or, in a `RangeTest`, a decade of rates has fewer than 10 points. After bursts:
            `"high"` if rounds of all lengths found the same rate best, `"medium"` otherwise, `"low"` if the loss hardly
            fell.

    Raises:
        ValueError: If the rates are not finite, positive and `min_lr < max_lr`.
    """

    min_lr: float
    max_lr: float
    status: str
    reason: str
    confidence: str

    def __post_init__(self) -> None:
        if not (is_finite(self.min_lr) and is_finite(self.max_lr) and 0 < self.min_lr < self.max_lr):
            swapped = is_finite(self.min_lr) and is_finite(self.max_lr) and 0 < self.max_lr < self.min_lr
            hint = "Are the two swapped?" if swapped else "Give two learning rates, as 0.001 and 0.004."
            raise ValueError(
                "Arguments `min_lr` and `max_lr` must be finite and positive, and `min_lr` the smaller one. "
                f"Received: min_lr={self.min_lr!r}, max_lr={self.max_lr!r}. {hint}"
            )
        for name in ("min_lr", "max_lr"):  # Python's own numbers: JSON knows none of NumPy's
            object.__setattr__(self, name, float(getattr(self, name)))

    def __iter__(self) -> Iterator[float]:
        yield self.min_lr
        yield self.max_lr

    @property
    def ok(self) -> bool:
        """Whether the status is `"ok"`."""
        return self.status == "ok"

    def to_dict(self) -> dict[str, Any]:
        """This value as a JSON-serialisable dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LRBounds:
        """The value `to_dict` was called on.

        Raises:
            ValueError: If a value is missing, of another type or out of its range, or there is one too many.
        """
        names = [field.name for field in fields(cls)]
        complete = isinstance(data, Mapping) and set(data) == set(names)
        if not complete or not all(isinstance(data[name], str) for name in names[2:]):
            constraint = f"have {', '.join(names)}, the last three of them texts"
            raise invalid("data", constraint, data, "Give what `to_dict` returns.")
        return cls(**data)
