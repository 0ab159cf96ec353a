"""Turns the documents' `math` fences into MathML when the site is built: browsers draw it without a script.

Code hosts draw the same fences by themselves.
"""

from __future__ import annotations

from typing import Any


def to_mathml(source: str, *_: Any, **__: Any) -> str:
    """An equation in LaTeX as a block of MathML; the other arguments are what a fence may have."""
    from latex2mathml.converter import convert

    return f'<div style="margin: 1em 0">{convert(source.strip(), display="block")}</div>'


def on_config(config: Any) -> Any:
    """Called by MkDocs once it has read `mkdocs.yml`."""
    fences = config.mdx_configs.setdefault("pymdownx.superfences", {}).setdefault("custom_fences", [])
    fences.append({"name": "math", "class": "math", "format": to_mathml})
    return config
