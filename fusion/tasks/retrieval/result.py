"""The result of an evaluation of retrieval, and its layout."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fusion.data.features.problems import name_some
from fusion.evaluation.embed import Embedded
from fusion.evaluation.late_fusion import TUNED, plain_name
from fusion.evaluation.metrics import RECALLS, chance, chance_among_captions
from fusion.evaluation.retrieval import CAPTION, EXPECTED
from fusion.modalities import directions
from fusion.report.layout import FORMAT, Layout, arrow, is_number, number
from fusion.words import number_of, words_of

MISSING_RULE = (
    "a clip with no modality on the query or on the gallery side is left out of the ranking of that"
    " direction and counts as a miss in each recall; median and mean rank are over the others; a"
    " clip that lacks only some of the modalities of a side stays in"
)
TIES_RULE = (
    "clips that score alike share the mean of their places: of two that tie for the first place"
    " each has place 1.5, which is no hit in R@1 but one in R@5, and if a model embeds all N clips"
    " alike, each has place (N + 1) / 2; expected recalls if ties are broken at random:"
)
KEY = (
    "R@k: per cent of the queries whose clip is among the first k. Geo. mean: geometric mean of"
    " R@1, R@5 and R@10. {letters}: {names}. va: one embedding of both; v+a: average of"
    " two single embeddings."
)
KEY_OF_TUNED = (
    " (tuned): the scores of single modalities are added in the way that finds most on validation."
)
COLUMNS = {
    **{name: name for name in ("R@5", "R@10", "R@50")},
    **{"MedR": "Median rank", "MeanR": "Mean rank", "GeoMean": "Geo. mean"},
}
TUNED_LATE = f"t->v+a{TUNED}"
LAYOUT = Layout(
    title="Retrieval",
    row="direction",
    rows="directions",
    main="R@1",
    columns=COLUMNS,
    compared=("R@5", "R@10", "MedR"),
    counts={"queries": "queries", "gallery": "candidates"},
    # R@1 of chance is 1 / clips among captions too: the mean share of captions that a clip has.
    guesses={"chance": "chance", "chance, captions": "chance_among_captions"},
    key=KEY,
    ceiling_note="the score of a perfect perceiver of the same modalities; it is below 100 because"
    " different clips can look or sound alike",
    bars_title="R@1 in per cent: each modality alone, then together",
    headline=("t->va", TUNED_LATE, "t->v+a"),
    headline_title="text → video and audio",
    headline_rule="text to video and audio, each method's own way: t->va where the method embeds"
    " va as one, otherwise the late average, tuned on validation where it was tuned",
    rivals_title="Fused against late average",
    rivals_rule="within a method: one embedding of several modalities against the late average of"
    " its own single embeddings",
    pictured=("t->v+a", TUNED_LATE, "t->v", "t->a", "va->t", "v->t", "a->t"),
    names={},
    groups={},
)


def describe_evaluation(
    name: str,
    protocol: str,
    embedded: Embedded,
    table: Mapping[str, Any],
    ceiling: Mapping[str, Any] | None,
    counted: int,
    rescored: Mapping[str, Any] | None = None,
    by_cosine: Mapping[str, Any] | None = None,
    words: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Put the table of a split together with what is needed to read it, ready for JSON.

    ``protocol`` is one sentence, ``embedded`` are the clips in the gallery, ``ceiling`` holds the
    best recalls that can be reached, and recalls are shares of ``counted`` clips.
    ``by_cosine`` is the table by cosine, where the model compares by dot product. ``words`` are
    those that the text encoder knows, see :meth:`.vocabulary.KnownWords.as_json`.
    """
    total, captions = embedded.num_clips, embedded.captions
    clips = {
        "total": total,
        "captions": None if captions is None else len(captions),
        "without_known_words": _count_unknown(embedded) or None,
        "words": words,
        "missing": _count_missing(embedded),
        "rule": MISSING_RULE,
    }
    among = None if captions is None else chance_among_captions(captions.numpy())
    result: dict[str, Any] = {
        "format": FORMAT,
        "set": name,
        "protocol": protocol,
        "gallery": total,
        "counted": counted,
        "clips": {key: value for key, value in clips.items() if value is not None},
        "similarity": embedded.similarity,
        "directions": table,
        "chance": chance(total, counted),
        **({"chance_among_captions": among} if among else {}),
        "ceiling": ceiling or None,
        **_describe_ties(table),
        **({"by_cosine": by_cosine} if by_cosine else {}),
        **({"rescored": rescored} if rescored else {}),
    }
    return result | {"table": retrieval_layout(result).as_json()}


def _describe_ties(table: Mapping[str, Any]) -> dict[str, Any]:
    """Give the expected recalls of the rows in which they differ from the plain ones visibly."""
    names = [f"R@{k}" for k in RECALLS]
    rows = {
        way: row[EXPECTED]
        for way, row in table.items()
        if any(abs(row[name] - row[EXPECTED][name]) >= 0.05 for name in names)
    }
    return {"ties": {"rule": TIES_RULE, "rows": rows}} if rows else {}


def retrieval_layout(result: Mapping[str, Any]) -> Layout:
    """Make the layout of a result of retrieval from its other keys."""
    rows, clips = result.get("directions", {}), result.get("clips", {})
    modalities = clips.get("missing", {})
    letters = {"t": "text", "v": "video", "a": "audio"} | {name[:1]: name for name in modalities}
    ways = list(map(str, directions(modalities))) if modalities else []
    ways += [way for way in rows if way not in ways and way == plain_name(way)]
    every = [row for way in ways for row in (way, way + TUNED) if row == way or row in rows]
    groups: dict[str, list[str]] = {"Text asks": [], "Text is found": [], "Other directions": []}
    for way in every:
        query, _, found = plain_name(way).partition("->")
        kind = 0 if query == "t" else 1 if found == "t" else 2
        list(groups.values())[kind].append(way)
    bars = [way for way in groups["Text asks"] if way in rows]
    bars.sort(key=lambda way: (len(plain_name(way).replace("+", "")), "+" not in way))
    is_tuned = any(way != plain_name(way) for way in rows)
    several = "captions" in clips
    among = {"chance": result.get("gallery"), "chance, captions": clips.get("captions")}
    by_dot = result.get("similarity") == "dot"
    facts = {
        "missing": clips.get("rule", ""),
        "compared": "by dot product, as in training: the lengths of embeddings count" * by_dot,
    }
    return dataclasses.replace(
        LAYOUT,
        tested=_count_in_words(result),
        key=KEY.format(letters=", ".join(letters), names=", ".join(letters.values()))
        + KEY_OF_TUNED * is_tuned,
        facts={name: text for name, text in facts.items() if text},
        names={way: _row_in_words(way, letters) for way in every},
        groups=groups,
        guessed_among={name: count for name, count in among.items() if count is not None},
        headline=[w for w in LAYOUT.headline if w != TUNED_LATE or w in rows],
        rivals=_rivals(rows),
        lead=_lead(rows, letters),
        bars=bars if len(bars) > 1 else [],
        bars_note=_compare_bars(rows, bars),
        asked_by_item=[w for w in every if several and CAPTION[0] in w.partition("->")[0]],
    )


def complete_result(result: dict[str, Any]) -> dict[str, Any]:
    """Give the result of an older version, always one of retrieval, the layout of this version."""
    if "tested" in result.get("table", {}):
        return result
    return result | {"table": retrieval_layout(result).as_json()}


def _count_in_words(result: Mapping[str, Any]) -> str:
    """Write how many clips were tested, and what they lack; empty if that is not known."""
    clips, counted, searched = (result.get(key) for key in ("clips", "counted", "gallery"))
    if not clips:
        return ""
    text = f"{searched or clips['total']:,} clips"
    if "captions" in clips:
        text += f" with {clips['captions']:,} captions"
    if counted and searched not in (None, counted):
        text += f" in the gallery, {counted:,} counted"
    text += "".join(f", {n:,} without {name}" for name, n in clips.get("missing", {}).items())
    said = []
    if unknown := clips.get("without_known_words"):
        texts = number_of(clips.get("captions", clips["total"]), "text")
        said.append(f"{unknown:,} of {texts} have no known word")
    words = clips.get("words") or {}
    if unknown := words.get("unknown_words"):
        named = name_some(words["examples"]["words"])
        said.append(f"{unknown:,} of {number_of(words['words'], 'word')} are unknown: {named}")
    return f"{text} ({'; '.join(said)})" if said else text


def _lead(rows: Mapping[str, Any], letters: Mapping[str, str]) -> Sequence[str]:
    """Choose the direction from text to the most modalities, if possible in one embedding."""
    if not rows:
        return ()
    plain = [way for way in rows if way == plain_name(way)]
    way = max(plain, key=lambda way: (way.startswith("t->"), "+" not in way, len(way)))
    asked, found = (_side_in_words(side, letters) for side in way.split("->"))
    among, score = rows[way].get("gallery"), number(rows[way].get("R@1"))
    return way, (
        f"For {score}\N{NO-BREAK SPACE}% of the queries ({asked}), the right clip comes first"
        f"{f' among {among:,}' if among else ''}, judged by its {found}."
    )


def _compare_bars(rows: Mapping[str, Any], bars: Sequence[str]) -> str:
    """Compare the last bar, all modalities in one embedding, with the others."""
    best = bars[-1] if bars else "+"
    score = rows.get(best, {}).get("R@1")
    if not is_number(score) or "+" in best:
        return ""
    parts = []
    for way in bars[:-1]:
        other = rows[way].get("R@1")
        if is_number(other) and "+" in way:
            parts.append(f"{score - other:+.1f} points against the late average {arrow(way)}")
        elif is_number(other) and other > 0:
            parts.append(f"{score / other:.2f} \N{MULTIPLICATION SIGN} {arrow(way)}")
    return f"{arrow(best)} is {', '.join(parts)}." if parts else ""


def _rivals(rows: Mapping[str, Any]) -> dict[str, list[str]]:
    """Give the late averages of each embedding of several modalities: ``t->va``: ``t->v+a``."""
    late: dict[str, list[str]] = {}
    for row in rows:
        fused = plain_name(row).replace("+", "")
        if fused != plain_name(row) and fused in rows:
            late.setdefault(fused, []).append(row)
    return late


def _row_in_words(row: str, letters: Mapping[str, str]) -> str:
    words = " → ".join(_side_in_words(side, letters) for side in plain_name(row).split("->"))
    return words + ", tuned" * (row != plain_name(row))


def _side_in_words(side: str, letters: Mapping[str, str]) -> str:
    """Write ``va`` as video and audio, ``v+a`` as video and audio, averaged."""
    words = " and ".join(letters.get(x, x) for x in side if x != "+")
    return f"{words}, averaged" if "+" in side else words


def _count_unknown(embedded: Embedded) -> int:
    """Count the texts that count as missing because the text encoder knows none of their words."""
    pairs = zip(embedded.items or (), embedded.present.get(CAPTION, ()), strict=False)
    return sum(bool(words_of(item.text)) for item, is_present in pairs if not is_present)


def _count_missing(embedded: Embedded) -> dict[str, int]:
    """Count the captions that are empty, and the clips that lack another modality."""
    every = torch.arange(len(embedded.ids))
    one = embedded.one_per_clip(every)
    return {
        name: int((~flags[every if name == CAPTION else one]).sum())
        for name, flags in embedded.present.items()
    }
