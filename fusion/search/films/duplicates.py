"""Which films of an index are the same, wholly or in part.

Films of the same bytes are found by their files. Copies that were encoded again or trimmed are
found by their clips: see :mod:`.alike` for what is seen, and :mod:`.loudness` for what is heard. A
picture that shows nothing and a silence tell nothing, so black films are not all the same film.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fusion.search.films.alike import Clips, Pairs, find_pairs
from fusion.search.films.loudness import SAME, compare, loudness
from fusion.search.storage import Storage

WHOLE = 0.8  # share of a film that is in others; of a trimmed copy the ends are missing
FEWEST = 3  # clips that two films must have in common, if the rest differs
ENOUGH = 0.5  # share of two films' overlap whose clips are alike, where the picture decides
_BLOCK = 1 << 20  # bytes read at a time
_PARTNERS = 8  # films whose sound is compared with that of a film: those with the most clips alike
_LISTEN = 15.0  # seconds of sound that are compared at the beginning, in the middle, at the end


class Part(NamedTuple):
    """A film, or a part of it, that is somewhere else too."""

    video: str  # path
    start: float  # seconds
    end: float
    whole: bool  # it is nearly the whole film


class Group(NamedTuple):
    """Films, or parts of films, that are the same."""

    kind: str  # "same bytes", "copies" of whole films, or "parts"
    parts: list[Part]
    score: float  # mean cosine of the clips; 1 for the same bytes


class _Film(NamedTuple):
    path: str
    seconds: float


class _Stretch(NamedTuple):
    """A part of a film that another one has too."""

    film: int
    start: float
    end: float


_Link = tuple[_Stretch, _Stretch, float]  # what two films have in common, and its mean cosine


def find_duplicates(storage: Storage, quiet: bool = False) -> list[Group]:
    """Find films that are the same, wholly or in part; the largest groups first.

    Args:
        storage: a reader of an index.
        quiet: show no progress.
    """
    rows = storage.select("SELECT id, path, seconds FROM films ORDER BY path").fetchall()
    films = {number: _Film(path, seconds) for number, path, seconds in rows}
    equal = _same_bytes(films)
    groups = [
        Group("same bytes", [Part(films[n].path, 0.0, films[n].seconds, True) for n in its], 1.0)
        for its in equal
    ]
    clips = Clips.of(storage)
    chosen = ~np.isin(clips.films, [number for its in equal for number in its[1:]])
    links = _links(clips, find_pairs(storage, clips, chosen, quiet), films)
    groups += [_describe(its, films) for its in _joined(list(links))]
    return sorted(groups, key=lambda group: (-len(group.parts), group.parts[0].video))


def _same_bytes(films: Mapping[int, _Film]) -> list[list[int]]:
    """Group films whose files have the same content; only files of one size are read."""
    sizes: dict[int, list[int]] = defaultdict(list)
    for number, film in films.items():
        if os.path.isfile(film.path):
            sizes[os.path.getsize(film.path)].append(number)
    contents: dict[bytes, list[int]] = defaultdict(list)
    for numbers in sizes.values():
        for number in numbers if len(numbers) > 1 else ():
            digest = hashlib.blake2b()
            with open(films[number].path, "rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
            contents[digest.digest()].append(number)
    return [numbers for numbers in contents.values() if len(numbers) > 1]


def _links(clips: Clips, pairs: Pairs, films: Mapping[int, _Film]) -> Iterator[_Link]:
    """Yield what two films have in common, for each pair of films."""
    first, second = clips.films[pairs.first], clips.films[pairs.second]
    turned = first > second
    one = np.where(turned, pairs.second, pairs.first)
    other = np.where(turned, pairs.first, pairs.second)
    numbers = np.stack([clips.films[one], clips.films[other]], axis=1)
    both, which = np.unique(numbers, axis=0, return_inverse=True)
    order = np.argsort(which.reshape(-1), kind="stable")
    counts = np.bincount(which.reshape(-1), minlength=len(both))
    ends = np.cumsum(counts)
    partners: Counter[int] = Counter()
    looks = np.bincount(which.reshape(-1), pairs.seen, minlength=len(both))
    for place in np.lexsort((-counts, -looks)):
        names = (int(both[place, 0]), int(both[place, 1]))
        if max(partners[n] for n in names) >= _PARTNERS:
            continue
        every = order[ends[place] - counts[place] : ends[place]]
        for mine, seen in ((every[pairs.seen[every]], True), (every, False)):
            if not len(mine):
                continue
            times = clips.times[one[mine]], clips.times[other[mine]]
            span = _Span.of(names, films, times)
            if not seen and span.share < ENOUGH:
                continue
            partners[names[0]], partners[names[1]] = (partners[n] + 1 for n in names)
            if (found := _common(names, films, span, seen)) is not None:
                yield (*found, float(pairs.cosines[mine].mean()))
                break


class _Span(NamedTuple):
    """What two films may have in common, in seconds of the first one."""

    whole: tuple[float, float]  # all that overlaps
    alike: tuple[float, float]  # from the middle of the first to that of the last clip alike
    edges: tuple[float, float]  # of what is alike, as well as clips tell them
    clips: int  # of either film that are alike
    share: float  # of what overlaps, that is in clips that are alike
    shift: float  # seconds: of the first film minus of the second
    most: float  # seconds by which the shift may be wrong

    @classmethod
    def of(
        cls,
        names: tuple[int, int],
        films: Mapping[int, _Film],
        times: tuple[NDArray[np.float64], NDArray[np.float64]],
    ) -> _Span:
        """Find the shift in time that most pairs of clips have; their times are (P, 2) each."""
        most = float(np.median(np.diff(times[0], axis=1)))
        shifts = times[0].mean(axis=1) - times[1].mean(axis=1)
        near = np.abs(shifts[:, None] - shifts[None, :512]) <= most / 2
        mine = np.abs(shifts - shifts[near.sum(axis=0).argmax()]) <= most / 2
        shift = float(np.median(shifts[mine]))
        first, second = (films[name].seconds for name in names)
        whole = max(0.0, shift), min(first, second + shift)
        ours = times[0][mine]
        middles = ours.mean(axis=1)
        alike = float(middles.min()), float(middles.max())
        begin, end = alike[0] - most / 4, alike[1] + most / 4  # between two clips
        edges = begin if ours[:, 0].min() > 0 else 0.0, end if ours[:, 1].max() < first else first
        covered = np.zeros(1 + math.ceil(first), bool)  # by second
        for start, end in ours:
            covered[int(start) : math.ceil(end)] = True
        share = covered.sum() / max(1.0, whole[1] - whole[0])
        clips = min(len(np.unique(t[mine, 0])) for t in times)
        return cls(whole, alike, edges, clips, float(share), shift, most)


def _common(
    names: tuple[int, int], films: Mapping[int, _Film], span: _Span, seen: bool
) -> tuple[_Stretch, _Stretch] | None:
    """Return what two films have in common: all that overlaps, or else the clips that are alike."""
    for all_of_it, (start, end) in ((True, span.whole), (False, span.alike)):
        if end <= start or not (all_of_it or span.clips >= FEWEST):
            continue  # among all that two films show, one picture and one sound are often alike
        same, shift = _same_sound(names, films, (start, end), span)
        enough = same is None and seen and (span.share >= ENOUGH or not all_of_it)
        if same or enough:
            first, second = (films[name].seconds for name in names)
            start, end = (0.0, first) if all_of_it else span.edges
            start, end = max(start, shift, 0.0), min(end, second + shift)
            return (
                _Stretch(names[0], start, end),
                _Stretch(names[1], start - shift, end - shift),
            )
    return None


def _same_sound(
    names: tuple[int, int],
    films: Mapping[int, _Film],
    times: tuple[float, float],
    span: _Span,
) -> tuple[bool | None, float]:
    """Compare the sound of two films at some times of the first; None: it tells nothing.

    Returns also the shift in time between them, which the sound tells better than clips do.
    """
    first, second = (Path(films[name].path) for name in names)
    (start, end), shift = times, span.shift
    starts = {start, max(start, (start + end - _LISTEN) / 2), max(start, end - _LISTEN)}
    found: bool | None = None
    for begin in sorted(starts):
        stop = min(end, begin + _LISTEN)
        x = loudness(first, begin, stop)
        y = loudness(second, begin - shift, stop - shift)
        if x is None or y is None:
            continue
        value, better = compare(x, y, span.most)
        if value < SAME:
            return False, shift
        shift, found = shift + better, True
    return found, shift


def _joined(links: Sequence[_Link]) -> list[list[_Link]]:
    """Group links by the parts of films that they share."""
    parent = list(range(len(links)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    by_film: dict[int, list[tuple[_Stretch, int]]] = defaultdict(list)
    for number, link in enumerate(links):
        for stretch in link[:2]:
            for other, before in by_film[stretch.film]:
                if _overlap(stretch, other):
                    parent[root(number)] = root(before)
            by_film[stretch.film].append((stretch, number))
    groups: dict[int, list[_Link]] = defaultdict(list)
    for number, link in enumerate(links):
        groups[root(number)].append(link)
    return list(groups.values())


def _overlap(one: _Stretch, other: _Stretch) -> bool:
    """Whether two stretches of a film share most of the longer one."""
    shared = min(one.end, other.end) - max(one.start, other.start)
    return shared >= 0.7 * max(one.end - one.start, other.end - other.start)


def _describe(links: Sequence[_Link], films: Mapping[int, _Film]) -> Group:
    """Make a group of the links of some films."""
    spans: dict[int, list[list[float]]] = defaultdict(list)
    for stretch in sorted(stretch for link in links for stretch in link[:2]):
        its = spans[stretch.film]
        if its and stretch.start <= its[-1][1]:
            its[-1][1] = max(its[-1][1], stretch.end)
        else:
            its.append([stretch.start, stretch.end])
    parts = [
        Part(films[n].path, start, end, end - start >= WHOLE * films[n].seconds)
        for n, its in spans.items()
        for start, end in its
    ]
    kind = "copies" if all(part.whole for part in parts) else "parts"
    parts.sort(key=lambda part: part.video)
    return Group(kind, parts, float(np.mean([link[2] for link in links])))
