"""The report of a run: one HTML file with tables, curves and a gallery, which opens offline."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusion.files import write_atomically
from fusion.report.curves import learning_curves
from fusion.report.gallery import GalleryQuery, make_gallery
from fusion.report.page import (
    NOTHING,
    arrow,
    fact_list,
    is_number,
    number,
    page,
    side_in_words,
)

PAGE_BYTES = 6_000_000  # what a page may have before it leaves players out
COLUMNS = ("R@5", "R@10", "R@50", "MedR", "MeanR", "GeoMean")
HEADINGS = {"MedR": "Median rank", "MeanR": "Mean rank", "GeoMean": "Geo. mean"}
KEY = (
    "R@k: per cent of the queries whose clip is among the first k. Geo. mean: geometric mean of "
    "R@1, R@5 and R@10. Interval: 95 %, by bootstrap over queries. t, v, a: text, video, audio. "
    "va: one embedding of both; v+a: average of two single embeddings."
)
CEILING_KEY = (
    " Small figures, and the mark on the bar: the ceiling, what a perfect perceiver of the same "
    "modalities would score; below 100 because different clips can look or sound alike."
)

# The one script of the page; its policy (report.html) allows no other. Works without it, too.
PLAY_WHEN_OPENED = (
    'addEventListener("toggle", ({target: t}) => { const film = t.querySelector("video"); '
    "if (film) t.open ? film.play() : film.pause(); }, true);"
)

Numbers = Mapping[str, Any]


def write_report(
    path: str | Path,
    *,
    title: str,
    results: Sequence[Mapping[str, Any]],
    metrics: Sequence[Mapping[str, Any]],
    gallery: Sequence[GalleryQuery],
    facts: Mapping[str, str],
    gallery_note: str = "",
    page_bytes: int = PAGE_BYTES,
) -> None:
    """Write the report of a run as one file that needs nothing but a browser.

    Args:
        path: file to write; appears whole or not at all.
        title: what was run.
        results: one evaluation each, as ``tools/evaluate.py --json`` writes it; the first one
            makes the headline.
        metrics: rows of the run's ``metrics.jsonl``; may be empty.
        gallery: queries to show with the clips they found; may be empty.
        facts: what else to know of the run (config, seed, time, versions), by name.
        gallery_note: how these queries were chosen, such as ``gallery.EVENLY_CHOSEN``.
        page_bytes: players are left out of the gallery where the page would be larger.
    """
    sections = [(f"Retrieval: {r.get('set', 'results')}", _retrieval(r)) for r in results]
    if curves := learning_curves(metrics):
        sections.append(("Learning curves", f'<div class="charts">{curves}</div>'))
    first = headline(results[0]) if results else "<h1>Not evaluated</h1>"
    used = len(
        page(title, first, [*sections, ("This run", fact_list(facts))], PLAY_WHEN_OPENED).encode()
    )
    sections.append(("Gallery", make_gallery(gallery, page_bytes - used - 1000, gallery_note)))
    sections.append(("This run", fact_list(facts)))
    write_atomically(path, page(title, first, sections, PLAY_WHEN_OPENED))


def headline(result: Mapping[str, Any]) -> str:
    """Say in one number how good the model is, beside chance and ceiling.

    The direction is the one from text to the fused embedding of most modalities.
    """
    directions: Mapping[str, Numbers] = result.get("directions", {})
    if not directions:
        return "<h1>No direction was evaluated</h1>"
    name = max(directions, key=lambda d: (d.startswith("t->"), "+" not in d, len(d)))
    score = directions[name].get("R@1")
    sentence = _in_words(name, directions[name])
    limit = _ceiling(result, name).get("R@1")
    chance = number(result.get("chance", {}).get("R@1"))
    if share := _share(score, limit):
        sentence += (
            f" <b>{share}</b> of what a perfect perceiver could reach ({number(limit)}&nbsp;%);"
            f" chance {chance}&nbsp;%."
        )
    else:
        sentence += f" Chance is {chance}&nbsp;%."
    return (
        f'<h1>{arrow(name)} R@1 <span>{number(score)} %</span></h1><p class="lead">{sentence}</p>'
    )


def _in_words(name: str, numbers: Numbers) -> str:
    query, _, found = name.partition("->")
    gallery = numbers.get("gallery")
    among = f" among {gallery:,}" if isinstance(gallery, int) else ""
    asked, judged = html.escape(side_in_words(query)), html.escape(side_in_words(found))
    return (
        f"For {number(numbers.get('R@1'))}&nbsp;% of the queries ({asked}) the right clip comes "
        f"first{among}, judged by its {judged}."
    )


def _retrieval(result: Mapping[str, Any]) -> str:
    directions: Mapping[str, Numbers] = result.get("directions", {})
    clips = result.get("clips", {})
    missing = ", ".join(
        f"{number:,} without {name}" for name, number in clips.get("missing", {}).items()
    )
    lines = {
        "Protocol": result.get("protocol", ""),
        "Gallery": f"{result['gallery']:,} clips" if "gallery" in result else "",
        "Missing": f"of {clips.get('total', 0):,} clips, {missing}" if missing else "",
        "Counted": clips.get("rule", ""),
    }
    facts = fact_list({name: text for name, text in lines.items() if text})
    return f"{facts}\n{_bars(result)}\n{_table(result, directions)}" if directions else facts


def _bars(result: Mapping[str, Any]) -> str:
    """Compare what text finds in single modalities, in their average, and in both at once."""
    directions = result["directions"]
    names = [name for name in directions if _group(name) == 0]
    names.sort(key=lambda name: (len(name.replace("+", "")), "+" not in name))
    if len(names) < 2:
        return ""
    rows = "".join(
        f'<div class="name">{arrow(name)}'
        f"<small>{html.escape(side_in_words(name[3:]))}</small></div>"
        f"{_bar(directions[name], _ceiling(result, name), whisker=True)}"
        f'<div class="value">{number(directions[name].get("R@1"))}'
        f"{_small(_ceiling(result, name).get('R@1'), 'of ')}</div>"
        for name in names
    )
    return (
        '<figure class="bars"><figcaption>R@1 in per cent: each modality alone, then together'
        f'</figcaption><div class="rows">{rows}</div>'
        f'<p class="note">{_comparison(directions, names)}</p></figure>'
    )


def _comparison(directions: Mapping[str, Numbers], names: Sequence[str]) -> str:
    best, score = names[-1], directions[names[-1]].get("R@1")
    if not is_number(score) or "+" in best:
        return ""
    parts = []
    for name in names[:-1]:
        other = directions[name].get("R@1")
        if is_number(other) and "+" in name:
            parts.append(f"{score - other:+.1f} points against the late average {arrow(name)}")
        elif is_number(other) and other > 0:
            parts.append(f"{score / other:.2f} &times; {arrow(name)}")
    return f"{arrow(best)} is {', '.join(parts)}." if parts else ""


def _table(result: Mapping[str, Any], directions: Mapping[str, Numbers]) -> str:
    ceilings = result.get("ceiling")
    share = '<th scope="col">of ceiling</th>' if ceilings else ""
    head = "".join(f'<th scope="col">{HEADINGS.get(name, name)}</th>' for name in COLUMNS)
    width = len(COLUMNS) + (5 if ceilings else 4)
    body = []
    for group, label in enumerate(["Text asks", "Text is found", "Other directions"]):
        names = [name for name in directions if _group(name) == group]
        if names:
            rows = "".join(_row(name, directions[name], result) for name in names)
            label = f'<tr class="group"><th colspan="{width}" scope="rowgroup">{label}</th></tr>'
            body.append(f"<tbody>{label}{rows}</tbody>")
    return (
        '<div class="scroll" role="region" tabindex="0" aria-label="results"><table><thead><tr>'
        '<th scope="col">Direction</th>'
        f'<th scope="col">R@1, %</th><th scope="col">95 % interval</th>{share}{head}'
        f'<th scope="col">Candidates</th></tr></thead>{"".join(body)}{_chance_row(result)}'
        "</table></div>"
        f'<p class="note">{KEY}{CEILING_KEY if ceilings else ""}</p>'
    )


def _row(name: str, numbers: Numbers, result: Mapping[str, Any]) -> str:
    ceiling = _ceiling(result, name)
    interval = numbers.get("R@1_interval")
    between = f"{number(interval[0])} &ndash; {number(interval[1])}" if interval else NOTHING
    share = f"<td>{_share(numbers.get('R@1'), ceiling.get('R@1')) or NOTHING}</td>"
    cells = "".join(f"<td>{number(numbers.get(c))}{_small(ceiling.get(c))}</td>" for c in COLUMNS)
    return (
        f'<tr><th scope="row">{arrow(name)}</th>'
        f'<td class="first"><b>{number(numbers.get("R@1"))}</b>{_small(ceiling.get("R@1"))}'
        f"{_bar(numbers, ceiling)}</td><td>{between}</td>"
        f"{share if result.get('ceiling') else ''}{cells}"
        f"<td>{numbers.get('gallery', NOTHING)}</td></tr>"
    )


def _chance_row(result: Mapping[str, Any]) -> str:
    guesses = [("chance", "chance", result.get("gallery", ""))]
    captions = result.get("clips", {}).get("captions", "")
    guesses.append(("chance, captions", "chance_among_captions", captions))
    share = "<td></td>" if result.get("ceiling") else ""
    rows = ""
    for name, key, candidates in guesses:
        if chance := result.get(key):
            cells = "".join(f"<td>{number(chance.get(c))}</td>" for c in COLUMNS)
            rows += (
                f'<tr><th scope="row">{name}</th><td class="first">{number(chance.get("R@1"))}'
                f"</td><td></td>{share}{cells}<td>{candidates}</td></tr>"
            )
    return f'<tbody class="chance">{rows}</tbody>' if rows else ""


def _bar(numbers: Numbers, ceiling: Numbers, *, whisker: bool = False) -> str:
    """Draw R@1 as a bar from 0 to 100, with a mark at its ceiling."""
    score, limit, interval = numbers.get("R@1"), ceiling.get("R@1"), numbers.get("R@1_interval")
    parts = []
    if is_number(limit):
        parts.append(f'<i class="room" style="width:{limit:.1f}%"></i>')
    if is_number(score):
        parts.append(f'<i class="fill" style="width:{score:.1f}%"></i>')
    if whisker and interval:
        low, high = interval
        parts.append(f'<i class="whisker" style="left:{low:.1f}%;width:{high - low:.1f}%"></i>')
    return f'<div class="bar" aria-hidden="true">{"".join(parts)}</div>'


def _group(name: str) -> int:
    query, _, found = name.partition("->")
    return 0 if query == "t" else 1 if found == "t" else 2


def _ceiling(result: Mapping[str, Any], name: str) -> Numbers:
    return (result.get("ceiling") or {}).get(name, {})


def _share(score: object, ceiling: object) -> str:
    if not is_number(score) or not is_number(ceiling) or not ceiling:
        return ""
    return f"{100 * score / ceiling:.0f}&nbsp;%"


def _small(value: object, before: str = "") -> str:
    return f"<small>{before}{number(value)}</small>" if is_number(value) else ""
