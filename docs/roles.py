"""Griffe extension: docstrings as Markdown.

``:class:`X``` becomes a link to X where a page has it, and an aligned table becomes a code block.
"""

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:mod|class|func|meth|data|attr):`[~.]?([\w.]+)`")
ALIGNED = re.compile(r"^\S.*\S {3,}\S")


class Roles(griffe.Extension):
    """Rewrite each docstring when griffe finds it."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring:
            paragraphs = obj.docstring.value.split("\n\n")
            obj.docstring.value = "\n\n".join(map(_markdown, paragraphs))


def _markdown(paragraph: str) -> str:
    if sum(1 for line in paragraph.splitlines() if ALIGNED.match(line)) > 1:
        return f"```text\n{paragraph}\n```"
    return ROLE.sub(_link, paragraph).replace("``", "`")


def _link(role: re.Match[str]) -> str:
    return f'<autoref identifier="{role[1]}" optional>`{role[1]}`</autoref>'
