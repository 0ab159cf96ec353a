"""A search as one HTML page that needs no network; making it needs neither Keras nor TensorFlow.

Numbers first, pictures second: `report_views` and `charts` make plain values and geometry, `templates/` draws them.
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
import re
import time
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

import autolr
from autolr.files import write_atomically
from autolr.report_views import Overview, TrialView, anchor, number, rate, value
from autolr.search_folder import Search, Source, read_search


def write_report(directory: Source, path: str | os.PathLike[str]) -> Path:
    """Write the report of a search: one HTML file that opens from disk.

    The search may be finished, running, failed or interrupted, and of any Keras Tuner tuner: what is missing is said
    in the report.

    Args:
        directory: The folder of the search, `directory/project_name` in the arguments of the tuner; the folder above
            it, if it holds one search only; or the tuner.
        path: The file to write. One that exists is replaced.

    Returns:
        The path of the file.

    Raises:
        ValueError: If there is no search in `directory`, or more than one.
        FileNotFoundError: If the folder of `path` does not exist.
        IsADirectoryError: If `path` is a folder.

    Example:
    ```python
    autolr.write_report("runs/mnist", "report.html")
    ```
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"Argument `path` must be in a folder that exists. Received: path={str(path)!r}. Make the folder first."
        )
    if path.is_dir():
        raise IsADirectoryError(
            f"Argument `path` must name a file. Received: path={str(path)!r}, a folder. Add a name, 'report.html' say."
        )
    write_atomically(path, render(read_search(directory)))
    return path


def render(search: Search, *, version: str = "") -> str:
    """The report as HTML.

    Args:
        search: The search.
        version: For a page that is served: it asks for `version` every other second and loads again when the answer
            is no longer this.
    """
    environment = _environment()
    script, style = (environment.get_template(name).render() for name in ("report.js", "report.css"))
    overview = Overview(search)
    page: str = environment.get_template("report.html.j2").render(
        search=search,
        overview=overview,
        trials=[TrialView(trial, overview) for trial in search.trials],
        version=version,
        now=datetime.now(),
        silence=_length(time.time() - search.last_write),
        autolr_version=autolr.__version__,
        script=script,
        style=style,
        script_hash=_hash(script),
        style_hash=_hash(style),
    )
    # Names of files that are not UTF-8, in an error's message say.
    return page.encode("utf-8", "backslashreplace").decode("utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("autolr"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(rate=rate, number=number, value=value, literal=literal, coded=coded, anchor=anchor)
    return environment


def _hash(source: str) -> str:
    """What a content security policy names a script by: then no other script can run, escaped or not."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def literal(x: Any) -> str:
    """A value as Python code."""
    return repr(x) if not isinstance(x, float) or math.isfinite(x) else f'float("{x}")'


def coded(text: str) -> Markup:
    """A sentence whose names in backticks are set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _length(seconds: float) -> str:
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' * (count > 1)}"
    return "less than a minute"
