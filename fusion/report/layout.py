"""How a result is to be read: its rows and columns, as its task describes them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

FEW = 100  # queries; of fewer than these one is more than a per cent
FORMAT = 1  # of results.json, ranks.npz and cost.json; files without a number are older


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How tables, pages and comparisons read a result; written to its key ``table``."""

    title: str  # heading of its section in a report, such as Retrieval
    row: str  # what one row is called, such as direction
    rows: str  # key of the result that holds the rows, {row: {metric: number}}
    # The metric that methods are compared by: in per cent, the mean over queries of a score from 0
    # to 1. A row may hold its interval as {main}_interval.
    main: str
    columns: Mapping[str, str]  # the other metrics, and their headings
    names: Mapping[
        str, str
    ]  # all rows in order, and what they are in words; a result may lack some
    groups: Mapping[str, Sequence[str]]  # rows by heading, for tables and curves; others are hidden
    compared: Sequence[str] = ()  # columns that a comparison shows
    # Numbers of a row that are equal where rows are comparable, and their headings.
    counts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    # Keys of the result that hold what guessing reaches, and the number of candidates, by name.
    guesses: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"chance": "chance"})
    guessed_among: Mapping[str, int] = dataclasses.field(default_factory=dict)
    tested: str = ""  # how many clips were tested, and what they lack
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)  # what else to know, by name
    key: str = ""  # explains the columns
    ceiling_note: str = ""  # what the ceiling is, sentences
    lead: Sequence[str] = ()  # the row that a report begins with, and a sentence about it
    bars: Sequence[str] = ()  # rows that a report draws as bars
    bars_title: str = ""
    bars_note: str = ""  # a sentence below the bars
    headline: Sequence[str] = ()  # the first of these that a method has stands for it
    headline_title: str = ""  # what these rows are in words
    headline_rule: str = ""  # how the row of a method is chosen
    # Rows that a comparison tests against others of the same method, and what they are in words.
    rivals: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    rivals_title: str = ""
    rivals_rule: str = ""
    pictured: Sequence[str] = ()  # rows in the picture of a comparison, beside the headline
    asked_by_item: Sequence[str] = ()  # rows where each item is a query; in others each clip is one
    asked_by_some: Sequence[str] = ()  # rows where only the items that have a score are queries
    counted_as: str = "queries"  # what the number of the result that is ``counted`` counts

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> Layout:
        """Read the layout of a result or of a comparison."""
        return cls(**result["table"])

    def as_json(self) -> dict[str, Any]:
        """Write it as a dict that JSON does not change."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        if self.counted_as == "queries":  # as results had it before there was a choice
            del values["counted_as"]
        return values

    @property
    def interval(self) -> str:
        """Key of the interval of the main metric."""
        return f"{self.main}_interval"

    @property
    def own_way(self) -> str:
        """Name of the headline of a comparison: ``t->va or t->v+a``."""
        return " or ".join(self.headline)


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)


def number(value: object) -> str:
    """Write a metric: ``81.2``, below 1 with two decimals; a dash if it is no number."""
    if not is_number(value):
        return "\N{EN DASH}"
    return f"{value:.2f}" if 0 < value < 1 else f"{value:,.1f}"


def arrow(row: str) -> str:
    """Write the arrow in the name of a row: ``t → va``."""
    return row.replace("->", " → ")


def say_small(count: int, what: str = "queries") -> str:
    """Say that a test is small: ``only 11 queries: one is 9.1 per cent``; empty from 100 on."""
    return f"only {count} {what}: one is {100 / count:.1f} per cent" if 0 < count < FEW else ""


def size_note(result: Mapping[str, Any]) -> str:
    """Say that the test of a result or of a comparison is small; empty if it is not."""
    # Where captions or questions ask, there are more queries than clips.
    layout = Layout.of(result)
    what = "clips" if layout.asked_by_item or layout.asked_by_some else layout.counted_as
    return say_small(result.get("counted") or 0, what)


def facts_of(result: Mapping[str, Any]) -> dict[str, str]:
    """Write what was tested and how, of a result or of a comparison."""
    layout = Layout.of(result)
    tested = ": ".join(text for text in (result.get("set"), layout.tested) if text)
    facts = {
        "small": size_note(result),
        "set": tested,
        "protocol": result.get("protocol", ""),
        **layout.facts,
    }
    return {name: text for name, text in facts.items() if text}


def align(lines: Sequence[Sequence[str]], left: int = 0) -> list[str]:
    """Write rows of cells as lines, every column as wide as its widest cell.

    The first ``left`` columns begin at their left, the others end at their right.
    """
    widths = [max(len(line[i]) for line in lines if i < len(line)) for i in range(len(lines[0]))]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=False))
        )
        for line in lines
    ]
