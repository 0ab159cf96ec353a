"""Warnings and errors, and the checks of arguments that raise them."""

from __future__ import annotations

import inspect
import math
import warnings
from typing import Any

import numpy as np

from autolr.array_types import FloatArray

MAX_EXACT_INT = 2**53  # up to here a float holds every whole number
LIBRARIES = {"autolr", "keras", "keras_tuner", "tensorboard", "tensorflow"}
MAX_SHOWN = 300  # characters of a value in a message, whose end says what to try


class AutoLRWarning(UserWarning):
    """A warning about learning rates. Nothing is interrupted by it."""


def warn(text: str) -> None:
    """Warn, and show the line of the innermost call that is neither autolr's nor one of Keras's libraries'.

    Frames of libraries would not help the reader.
    """
    modules = [str(frame.frame.f_globals.get("__name__", "")) for frame in inspect.stack(context=0)]
    # This function's own frame is the first, and has level 1.
    levels = (level for level, name in enumerate(modules, start=1) if name.partition(".")[0] not in LIBRARIES)
    warnings.warn(text, AutoLRWarning, stacklevel=next(levels, 1))


def library_of(it: Any) -> str:
    """The package that a class, a function or a method is of; "None" if it does not say."""
    return str(getattr(it, "__module__", None)).partition(".")[0]


class RecordError(ValueError):
    """A folder that should hold a search, or a file that should hold a trial's record, does not."""


def invalid(argument: str, constraint: str, received: Any, hint: str) -> ValueError:
    """A `ValueError` in Keras's grammar: argument, constraint, what was received, what to try.

    Args:
        argument: Name of the argument.
        constraint: What it must be, to follow "must".
        received: The value that is not.
        hint: What to try, a whole sentence.

    Returns:
        The error, to be raised by the caller.

    Example:
    >>> str(invalid("num_steps", "be a positive integer", 0, "The default is 100."))
    'Argument `num_steps` must be a positive integer. Received: num_steps=0. The default is 100.'
    """
    return ValueError(f"Argument `{argument}` must {constraint}. Received: {argument}={shown(received)}. {hint}")


def shown(value: Any) -> str:
    """A value in a message: of a long one the beginning, since the message's end says what to try."""
    return _shortened(repr(value))


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def in_brief(error: BaseException) -> str:
    """An error's class and message; of TensorFlow's the sentence that says what was wrong, without its graph."""
    lines = [line.strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith("[[")]
    text = lines[-1] if lines and lines[0] == "Graph execution error:" else str(error)
    return f"{type(error).__name__}: {_shortened(text)}"


def is_finite(value: Any) -> bool:
    """Whether a value is a finite number: not text or None, which in comparisons would be errors, and not True."""
    try:
        return not isinstance(value, bool | np.bool_) and math.isfinite(value)
    except (TypeError, ValueError, OverflowError):
        return False


def is_count(value: Any, *, least: int = 1) -> bool:
    """Whether a value is a whole number of so much at least, of whatever type, and not absurdly large."""
    return is_finite(value) and least <= value <= MAX_EXACT_INT and value == int(value)


def check_count(argument: str, value: Any, unit: str = "", *, hint: str, least: int = 1) -> int:
    """An argument that counts something, as an integer.

    Args:
        argument: Its name.
        value: What was received.
        unit: What it counts, if its name does not tell.
        hint: What to try, a whole sentence.
        least: What it must be at least.

    Raises:
        ValueError: If it is not a whole number, or less.
    """
    if not is_count(value, least=least):
        number = "a positive whole number" if least == 1 else f"a whole number, {least} or more"
        raise invalid(argument, f"be {number}{f' of {unit}' if unit else ''}", value, hint)
    return int(value)


def check_optional_count(argument: str, value: Any, *, hint: str) -> int | None:
    """Like `check_count`, for an argument that may be None."""
    return None if value is None else check_count(argument, value, hint=hint)


def check_numbers(argument: str, values: Any) -> FloatArray:
    """An argument that is a list of numbers, as an array of floats; NaN where it is masked, which was not seen.

    Raises:
        ValueError: If it holds anything but real numbers.
    """
    try:
        given: Any = np.ma.asarray(values)
        if np.iscomplexobj(given):
            raise TypeError("complex")
        return np.ma.filled(given.astype(float), np.nan)
    except (TypeError, ValueError, OverflowError):
        raise invalid(argument, "be a list or an array of numbers", values, "Give one value per step.") from None
