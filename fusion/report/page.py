"""Self-contained HTML pages, from the templates beside this file."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from fusion.report.layout import arrow, is_number, number

if TYPE_CHECKING:
    from jinja2 import Environment


@functools.cache
def environment() -> Environment:
    """Load the templates; they escape every value that is not Markup."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("fusion.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"arrow": arrow, "number": number}
    made.tests["finite"] = is_number
    return made


def render(template: str, **values: Any) -> Markup:
    """Fill in a template."""
    return Markup(environment().get_template(template).render(values).strip())


def page(title: str, headline: Markup, sections: Mapping[str, str], script: str = "") -> str:
    """Write a page of sections, HTML by heading; ``script`` is the only one that it may run."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    shown = {name: Markup(body) for name, body in sections.items() if body}
    values = {"script": Markup(script), "script_hash": digest, "sections": shown}
    return render("page.html", title=title, headline=headline, **values)
