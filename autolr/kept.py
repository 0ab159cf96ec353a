"""Attributes as they were, whatever happens in between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def attributes_kept(objects: Iterable[Any], *names: str) -> Iterator[None]:
    """Give each object its attributes back at the end, in order; one that it has not got becomes None."""
    kept = [(it, name, getattr(it, name, None)) for it in objects for name in names]
    try:
        yield
    finally:
        for it, name, value in kept:
            setattr(it, name, value)
