"""Files that are whole or not there, and numbers that strict JSON can hold."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path


def is_remote(path: str) -> bool:
    """Whether a path is on a file system that only TensorFlow can read and write, as Keras Tuner does."""
    return "://" in path


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Where to write a file that takes the place of `path` when it is whole: no reader or crash sees half of it.

    What a link leads to is replaced, not the link, and a device or a pipe is written to.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    named, target = path, Path(os.path.realpath(path))
    path = target if target.parent.is_dir() else path
    # A name of its own, as another process may write there, too; with the ending, by which Keras knows the format. Not
    # by `tempfile`, whose files only their owner may read: reports are made by others, too.
    aside = path.with_name(f".{uuid.uuid4().hex}-{named.name}")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def check_space(folder: Path, needed: int) -> None:
    """Raise an `OSError` if a disk has no room for so many bytes: HDF5 crashes where it fills up while it writes."""
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def strict(number: float) -> float | str:
    """A number for strict JSON, which knows no NaN or infinity: those become the strings "nan", "inf" and "-inf"."""
    return number if math.isfinite(number) else str(number)
