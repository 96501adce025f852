"""What a word is, in every language, and how many things are named.

Two rules cut a text into words. ``published`` is that of the published code, bit for bit: runs of
letters, digits, ``_`` and ``'``. ``unicode`` is for any language:

* A text is brought to Unicode NFC. Typographic apostrophes become ``'``, which belongs to a word
  only between two letters. Invisible signs (soft hyphen, directions, variants) are dropped.
* Combining marks belong to their letter (Devanagari, Arabic, decomposed accents).
* Scripts without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Javanese) are cut into the
  longest words that a vocabulary has, from left to right; without a vocabulary, and where it has
  none, into characters, each with its marks.
* An emoji is a word, without its skin tone; a flag or a joined sequence is one emoji. Other
  symbols, such as the notes around lyrics, are none.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping

PUBLISHED, UNICODE = "published", "unicode"  # the rules
LONGEST = 12  # characters of a word in a script without spaces
Found = list[tuple[str, int | None]]  # words, and their numbers in a vocabulary, None: unknown

_ASCII = re.compile(r"\w+(?:'\w+)*", re.ASCII)
_JOINERS = "\u200c\u200d"  # inside words of Persian and Hindi, and between the parts of an emoji
_SIGNS: dict[int, str | None] = dict.fromkeys(map(ord, "\u2019\u2018\u02bc\uff07\u00b4`"), "'")
_INVISIBLE = [(0xAD, 0xAD), (0x200E, 0x200F), (0x202A, 0x202E), (0x2060, 0x2069), (0x20E3, 0x20E3)]
_INVISIBLE += [(0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0x1F3FB, 0x1F3FF), (0xE0100, 0xE01EF)]
_SIGNS |= {sign: None for first, last in _INVISIBLE for sign in range(first, last + 1)}
# Letters and marks of scripts without spaces; their digits and punctuation are as in others.
_DENSE = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ecf\u0edc-\u0edf"  # Thai, Lao
    "\u1000-\u103f\u1050-\u108f\u109a-\u109d\ua9e0-\ua9ef\uaa60-\uaa7f"  # Burmese
    "\u1780-\u17d3\u17d7\u17dc\u17dd"  # Khmer
    "\u1950-\u19cf\u1a20-\u1a7f\ua980-\ua9c0"  # Tai, Javanese
    "\u2e80-\u2fdf\u3005\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003fffd"  # Chinese
    "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Japanese
)
_STACKED = "\u17d2\u1039"  # in Khmer and Burmese the next letter belongs to the same character
_VOICED = "\uff9e\uff9f"  # marks of half-width kana, which Unicode calls letters
_FLAG = "\U0001f1e6-\U0001f1ff"
_EMOJI = (
    "\u231a\u231b\u23e9-\u23fa\u2600-\u2668\u2670-\u2775\u2794-\u27bf\u2b05-\u2b55"
    "\U0001f000-\U0001f1e5\U0001f200-\U0001faff"
)


def published_words(text: str) -> list[str]:
    """Cut a text as the published code does: runs of letters, digits, ``_`` and ``'``."""
    return re.findall(r"[\w']+", text)


def uncut_words(text: str) -> list[str]:
    """Cut a text at spaces and punctuation, so that either rule can cut the parts further.

    By the rule ``published`` the parts have the words that the text has, and are none without any.
    """
    if text.isascii():
        return published_words(text)
    return [part for part in _patterns()["uncut"].findall(text) if published_words(part)]


def words_of(text: str) -> list[str]:
    """Cut a text into words by the rule ``unicode``, without a vocabulary."""
    return [word for run in _runs(text) for word in _characters(run)]


def fold(word: str) -> str:
    """Write words that differ only in case, or in composed and decomposed letters, in one way."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", word).casefold())
    return folded.replace("i\u0307", "i")  # of the Turkish capital


def look_up(text: str, vocabulary: Mapping[str, int]) -> Found:
    """Find the words of a text in a vocabulary, by the rule ``unicode``.

    A word is looked up as it is written, then in lower case, folded, with a capital and in
    capitals, so the vocabulary may be cased or not. A word that is not there is cut at its
    apostrophes and joiners, as the vocabularies of GloVe (``do n't``, ``it 's``) and fastText
    (``l' homme``) have it.
    """
    found: Found = []
    for run in _runs(text):
        find = _find_longest if _patterns()["dense"].match(run) else _find_word
        found += find(run, vocabulary)
    return found


def number_of(count: int, what: str) -> str:
    """Write a number of things: ``1 video``, ``2 videos``."""
    return f"{count} {what}{'s' * (count != 1)}"


def _runs(text: str) -> list[str]:
    """Cut a text into words, and runs of scripts without spaces."""
    if text.isascii():
        runs: Iterable[str] = _ASCII.findall(text.replace("`", "'"))
    else:
        plain = unicodedata.normalize("NFC", text).translate(_SIGNS)
        runs = _patterns()["run"].findall(plain)
    return [run for run in runs if run.strip("_'")]


@functools.cache
def _patterns() -> dict[str, re.Pattern[str]]:
    marks = "".join(map(chr, filter(_is_mark, range(0x300, 0x20000))))
    letter = rf"(?:[^\W{_DENSE}]|[{marks}])"
    emoji = rf"[{_FLAG}]{{2}}|[{_EMOJI}](?:\u200d[{_EMOJI}])*"
    dense = rf"[{_DENSE}][{_DENSE}{marks}]*"
    word = rf"[^\W{_DENSE}]{letter}*(?:['{_JOINERS}]{letter}+)*"
    own = rf"[{marks}{_VOICED}]"
    return {
        "run": re.compile(rf"{dense}|{word}|{emoji}"),
        "dense": re.compile(f"[{_DENSE}]"),
        "uncut": re.compile(rf"[\w'{marks}{_JOINERS}{''.join(map(chr, _SIGNS))}]+"),
        "character": re.compile(rf".{own}*(?:(?<=[{_STACKED}]).{own}*)*", re.DOTALL),
    }


def _is_mark(code: int) -> bool:
    return unicodedata.category(chr(code)).startswith("M")


def _characters(run: str) -> list[str]:
    """Cut a run of a script without spaces into characters; another is one word."""
    if run.isascii() or not _patterns()["dense"].match(run):
        return [run]
    characters: list[str] = _patterns()["character"].findall(run)
    return characters


def _find_longest(run: str, vocabulary: Mapping[str, int]) -> Found:
    characters = _characters(run)
    found: Found = []
    first = 0
    while first < len(characters):
        last = min(first + LONGEST, len(characters))
        while (number := vocabulary.get("".join(characters[first:last]))) is None:
            if last == first + 1:
                break
            last -= 1
        found.append(("".join(characters[first:last]), number))
        first = last
    return found


def _find_word(word: str, vocabulary: Mapping[str, int]) -> Found:
    if (number := _find(word, vocabulary)) is not None:
        return [(word, number)]
    for parts in _cuts(word):
        numbers = [_find(part, vocabulary) for part in parts]
        if None not in numbers:
            return list(zip(parts, numbers, strict=True))
    pieces = [(part, _find(part, vocabulary)) for part in re.split(f"['{_JOINERS}]", word)]
    # A letter or two, such as the s of a genitive, do not make an unknown word known.
    known = [p for p in pieces if p[1] is not None and (len(p[0]) > 2 or not p[0].isalnum())]
    return known if known and len(pieces) > 1 else [(word, None)]


def _cuts(word: str) -> Iterator[list[str]]:
    """Give the ways in which vocabularies cut a word at apostrophes."""
    first, *rest = word.split("'")
    if not rest:
        return
    if word.lower().endswith("n't") and len(word) > 3:
        yield [word[:-3], word[-3:]]
    yield [first, *(f"'{part}" for part in rest)]
    yield [*(f"{part}'" for part in (first, *rest[:-1])), rest[-1]]
    yield [first, *rest]


def _find(word: str, vocabulary: Mapping[str, int]) -> int | None:
    for spelling in _spellings(word):
        if (number := vocabulary.get(spelling)) is not None:
            return number
    return None


def _spellings(word: str) -> Iterator[str]:
    """Give the ways in which a vocabulary may write a word, the likeliest first."""
    yield word
    cased = [word.lower(), fold(word), word.capitalize(), word.upper()]
    yield from (other for other in cased if other != word)
    for other in (word, word.lower()):
        if "'" in other:
            yield other.replace("'", "\u2019")
        if not other.isascii():
            yield unicodedata.normalize("NFD", other)
            yield unicodedata.normalize("NFKC", other)  # letters of full width
            yield re.sub(f"[{_JOINERS}]", "", other)


def clock(second: float) -> str:
    """Write a time: ``1:02``, ``1:00:02``."""
    minutes, seconds = divmod(round(second), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


_KEPT = "\n\t\u200c\u200d"  # lines, and what joins letters in some languages


class OneLineError(ValueError):
    """An error whose message is one line, whatever is in the names and values that it repeats."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(line for line in message.splitlines() if line.strip()))


def visible(text: str) -> str:
    r"""Write characters that would steer a terminal as ``\x1b``: names come from files of others.

    They are control characters, and those that turn the direction of writing.
    """
    if text.isprintable():
        return text
    return "".join(
        ascii(c)[1:-1] if c not in _KEPT and unicodedata.category(c) in ("Cc", "Cf") else c
        for c in text
    )
