"""The report of a run: one HTML file with tables, curves and a gallery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fusion.files import write_atomically
from fusion.report.gallery import GalleryItem, make_gallery
from fusion.report.layout import Layout, facts_of, size_note
from fusion.report.missing import TITLE, missing_section
from fusion.report.page import page, render
from fusion.report.plots import bar_chart, learning_curves

PAGE_BYTES = 6_000_000  # a page that would be larger leaves players out

# The page works without it, and its policy (page.html) allows no other script.
PLAY_WHEN_OPENED = (
    'addEventListener("toggle", ({target: t}) => { const film = t.querySelector("video"); '
    "if (film) t.open ? film.play() : film.pause(); }, true);"
)


def write_report(
    path: str | Path,
    *,
    title: str,
    results: Sequence[Mapping[str, Any]],
    metrics: Sequence[Mapping[str, Any]],
    gallery: Sequence[GalleryItem],
    facts: Mapping[str, str],
    gallery_note: str = "",
    further: Mapping[str, Markup] | None = None,
    page_bytes: int = PAGE_BYTES,
) -> None:
    """Write the report of a run as one file that needs only a browser.

    Args:
        path: file to write; appears whole or not at all.
        title: what was run.
        results: one evaluation each, as in ``results.json``; the first makes the headline.
        metrics: rows of ``metrics.jsonl``.
        gallery: examples with their clips, such as queries and what they found.
        facts: what else to know of the run (config, seed, time, versions), by name.
        gallery_note: how these examples were chosen.
        further: sections of the task, by heading.
        page_bytes: players are left out of the gallery where the page would be larger.
    """
    layout = Layout.of(results[0]) if results else None
    charts = learning_curves(metrics, layout)
    sections = {f"{r['table']['title']}: {r.get('set', 'results')}": _result(r) for r in results}
    sections[TITLE] = missing_section(results[0].get("missing") if results else None)
    sections |= further or {}
    sections["Learning curves"] = render("charts.html", charts=charts)
    about = {"This run": render("facts.html", facts=facts)}
    first = headline(results[0]) if results else Markup("<h1>Not evaluated</h1>")
    used = len(page(title, first, sections | about, PLAY_WHEN_OPENED).encode())
    sections["Gallery"] = make_gallery(gallery, page_bytes - used - 1000, gallery_note)
    write_atomically(path, page(title, first, sections | about, PLAY_WHEN_OPENED))


def headline(result: Mapping[str, Any]) -> Markup:
    """Write the main number of a result, beside chance and ceiling."""
    return render("headline.html", **_numbers_of(result))


def _result(result: Mapping[str, Any]) -> Markup:
    bars = bar_chart(result) if Layout.of(result).bars else ""
    return render("result.html", facts=facts_of(result), chart=bars, **_numbers_of(result))


def _numbers_of(result: Mapping[str, Any]) -> dict[str, Any]:
    layout = Layout.of(result)
    guesses = {name: result[key] for name, key in layout.guesses.items() if result.get(key)}
    values = {"layout": layout, "rows": result.get(layout.rows, {}), "guesses": guesses}
    values |= {"ceilings": result.get("ceiling") or {}, "ties": result.get("ties")}
    values["late"] = result.get("late_fusion")
    return values | {"small": size_note(result)}
