"""Parts of JSON that another program has written, half perhaps, or in a way that nobody expects: never an error."""

from __future__ import annotations

import json
import math
from datetime import datetime
from pathlib import Path
from typing import Any


def read_json(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The object in a file, and what is wrong with it: then the object is empty."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, [f"{path.name} is missing."]
    except (OSError, ValueError, RecursionError) as error:
        return {}, [f"{path.name} cannot be read ({error}): it may be half written."]
    return (content, []) if isinstance(content, dict) else ({}, [f"{path.name} is not Keras Tuner's."])


def as_dict(value: Any) -> dict[str, Any]:
    """A value that should be an object; else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """A value that should be a list; else an empty one."""
    return value if isinstance(value, list) else []


def as_number(value: Any) -> float | None:
    """A value that should be a number; else None."""
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    except OverflowError:  # a whole number that no float can hold
        return math.inf if value > 0 else -math.inf


def as_time(value: Any) -> datetime | None:
    """A value that should be a moment in words; else None."""
    try:
        moment = datetime.fromisoformat(value)
        moment.timestamp()
    except (TypeError, ValueError, OverflowError):  # the last two, too, of a moment that no clock can show
        return None
    return moment
