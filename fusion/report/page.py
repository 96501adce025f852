"""What the pages of a report are made of: the frame, lists of facts, numbers and directions."""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import math
import string
from collections.abc import Mapping, Sequence
from typing import TypeGuard

LETTERS = {"t": "text", "v": "video", "a": "audio"}  # others are shown as they are
NOTHING = "&ndash;"


def page(title: str, headline: str, sections: Sequence[tuple[str, str]], script: str = "") -> str:
    """Put a page together that needs nothing but a browser.

    Args:
        title: plain text.
        headline: HTML that the page begins with.
        sections: heading, plain text, and body, HTML; those without a body are left out.
        script: the only one that the page may run.
    """
    shown = [(html.escape(name), body) for name, body in sections if body]
    return string.Template(read("report.html")).substitute(
        title=html.escape(title),
        style=read("report.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        headline=headline,
        contents=" ".join(f'<a href="#s{i}">{name}</a>' for i, (name, _) in enumerate(shown)),
        sections="\n".join(
            f'<section id="s{i}">\n<h2>{name}</h2>\n{body}\n</section>'
            for i, (name, body) in enumerate(shown)
        ),
    )


def fact_list(facts: Mapping[str, str]) -> str:
    """List plain texts by name."""
    items = "".join(
        f"<div><dt>{html.escape(str(name))}</dt><dd>{html.escape(str(text))}</dd></div>"
        for name, text in facts.items()
    )
    return f'<dl class="facts">{items}</dl>' if items else ""


def arrow(name: str) -> str:
    """Write a direction: ``t->va`` with an arrow."""
    return f'<span class="direction">{html.escape(name).replace("-&gt;", " → ")}</span>'


def side_in_words(side: str) -> str:
    """Say a side of a direction: ``va``, ``v+a`` -> video and audio, video and audio, averaged."""
    fused = [
        " and ".join(LETTERS.get(letter, letter) for letter in part) for part in side.split("+")
    ]
    return fused[0] if len(fused) == 1 else f"{' and '.join(fused)}, averaged"


def number(value: object) -> str:
    """Write a metric as a table wants it: ``81.2``, below 1 with two decimals, a dash for none."""
    if not is_number(value):
        return NOTHING
    return f"{value:.2f}" if 0 < value < 1 else f"{value:,.1f}"


def is_number(value: object) -> TypeGuard[float]:
    """Say whether a value is a number that can be shown."""
    return isinstance(value, int | float) and math.isfinite(value)


def read(name: str) -> str:
    """Read a file that lies beside this one."""
    return importlib.resources.files("fusion.report").joinpath(name).read_text("utf-8")
