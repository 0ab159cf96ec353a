"""Whether somebody looks, and the line that shows them a range test outside a search."""

from __future__ import annotations

import sys
from typing import Any

from autolr.errors import invalid


def is_terminal(stream: Any) -> bool:
    """Whether what is written there is shown on a terminal; None and objects that can only be written to are none."""
    return hasattr(stream, "isatty") and bool(stream.isatty())


class Line:
    """A line on a terminal that is written over again and again; elsewhere, a line for each text.

    Args:
        verbose: As for `fit`: 0 for nothing, 1 or 2 for what is said, "auto" for that on a terminal only.
    """

    def __init__(self, verbose: Any) -> None:
        if verbose not in ("auto", 0, 1, 2):
            raise invalid("verbose", "be 'auto', 0, 1 or 2", verbose, "0 says nothing.")
        self._one_line = is_terminal(sys.stdout)
        self._says = bool(verbose) and (verbose != "auto" or self._one_line)
        self._begun = False

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *error: object) -> None:
        """End the line: what was told last stays."""
        if self._begun:
            print(flush=True)

    def say(self, text: str) -> None:
        """Tell what happens, in place of what was told before."""
        if self._says:
            before, after = ("\r\x1b[2K", "") if self._one_line else ("", "\n")
            print(f"{before}AutoLR | {text}", end=after, flush=True)
            self._begun = self._one_line
