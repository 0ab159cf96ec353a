"""Puts the tables that the benchmarks make into the pages that show them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from autolr.files import write_atomically

PAGES = Path(__file__).parents[1] / "docs"


def fill(page: str, tables: Mapping[str, str]) -> None:
    """Replace tables of a page of `docs/` by newer ones.

    Args:
        page: Its file name.
        tables: By the command that makes a table, as it stands above it in `<!-- made by: COMMAND -->`, its Markdown.

    Raises:
        ValueError: If the page has no such comment.
    """
    path = PAGES / page
    text = path.read_text(encoding="utf-8")
    for command, table in tables.items():
        begin, end = place_of(text, command)
        text = text[:begin] + table.strip() + "\n" + text[end:]
    write_atomically(path, text)


def place_of(text: str, command: str) -> tuple[int, int]:
    """Where the table that a command makes begins and ends in a page: after its comment, until an empty line."""
    comment = f"<!-- made by: {command} -->\n"
    at = text.find(comment)
    if at < 0:
        raise ValueError(f"The page has no comment {comment.strip()!r}.")
    begin = at + len(comment)
    end = text.find("\n\n", begin - 1)
    return begin, len(text) if end < 0 else end + 1
