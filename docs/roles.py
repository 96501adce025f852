"""Griffe extension: turn ``:class:`X``` in a docstring into a link to X, where a page has it."""

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:mod|class|func|meth|data|attr):`[~.]?([\w.]+)`")


class Roles(griffe.Extension):
    """Rewrite the docstrings as griffe finds them."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite one docstring; a name without a page stays plain code."""
        if obj.docstring:
            obj.docstring.value = ROLE.sub(_link, obj.docstring.value).replace("``", "`")


def _link(role: re.Match[str]) -> str:
    name = role[1]
    return f'<autoref identifier="{name}" optional>`{name}`</autoref>'
