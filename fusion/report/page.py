"""Pages that need nothing but a browser, from the templates beside this file."""

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
    """Make what renders the templates: all that they are given is escaped, unless it is Markup."""
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
    """Fill a template in; the result is HTML, which other templates do not escape again."""
    return Markup(environment().get_template(template).render(values).strip())


def page(title: str, headline: Markup, sections: Mapping[str, str], script: str = "") -> str:
    """Put a page together.

    Args:
        title: plain text.
        headline: what the page begins with.
        sections: HTML by heading; those without any are left out.
        script: the only one that the page may run.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    shown = {name: Markup(body) for name, body in sections.items() if body}
    values = {"script": Markup(script), "script_hash": digest, "sections": shown}
    return render("page.html", title=title, headline=headline, **values)
