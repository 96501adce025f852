"""Which words of a data set a text encoder knows: counted and named before training."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fusion.data.features.problems import NAMED, name_some
from fusion.words import UNICODE, number_of, words_of


@dataclasses.dataclass(frozen=True)
class KnownWords:
    """The words of some texts.

    ``texts`` are how many have words; ``lost`` how often each of them occurs whose words are all
    unknown; ``words`` how many different words there are; ``unknown`` those that are not known, the
    most frequent first; ``most`` the known words of a text that are read, None if that is not said;
    ``cut`` how many texts have more.
    """

    texts: int
    lost: Mapping[str, int]
    words: int
    unknown: Sequence[str]
    most: int | None = None
    cut: int = 0

    @property
    def num_lost(self) -> int:
        """How many texts have words, but no known one."""
        return sum(self.lost.values())

    def describe(self) -> str:
        """Say it in one line; empty if no text has a word."""
        if not self.words:
            return ""
        if not self.unknown:
            all_words = f"{number_of(self.words, 'word')} of {number_of(self.texts, 'text')}"
            return "; ".join(filter(None, (f"all {all_words} are known", self._say_cut())))
        said = (
            f"the text encoder does not know {len(self.unknown):,} of"
            f" {number_of(self.words, 'word')} ({name_some(self.unknown)}); {self.num_lost:,} of"
            f" {number_of(self.texts, 'text')} have no known word"
        )
        if self.lost:
            said += f" and count as missing ({name_some(list(self.lost))})"
        return "; ".join(filter(None, (said, self._say_cut())))

    def check(self, split: str, most: float) -> None:
        """Raise ValueError if more than the share ``most`` of the texts hold no known word."""
        if self.num_lost > most * self.texts:
            raise ValueError(
                f"{split}: {self.describe()}; that is more than max_unknown ({most:g}) allows: take"
                " a text encoder of this language (text_encoder.name=hf text_encoder.model=FOLDER,"
                " or word2vec_file with text_encoder.path=FILE), let its words be cut for any"
                f" language (text_encoder.tokenizer={UNICODE}), or go on by max_unknown=1"
            )

    def as_json(self) -> dict[str, Any]:
        """Write the counts, and a few of the unknown words and texts."""
        return {
            "texts": self.texts,
            "texts_without_known_words": self.num_lost,
            "words": self.words,
            "unknown_words": len(self.unknown),
            "examples": {"words": [*self.unknown[:NAMED]], "texts": [*self.lost][:NAMED]},
        }

    def _say_cut(self) -> str:
        if not self.cut:
            return ""
        return (
            f"{self.cut:,} of {number_of(self.texts, 'text')} have more than {self.most} known"
            " words, so their end is cut off; text_encoder.max_words is the limit"
        )


def count_words(texts: Iterable[str], encoder: Any) -> KnownWords | None:
    """Count the words of texts that a text encoder knows; None if it cannot say.

    Word vectors say how they cut a text (``look_up``); of another encoder ``unknown_words`` is
    asked for each word by itself.
    """
    cut, most = getattr(encoder, "look_up", None), None
    if cut is not None:
        most = encoder.max_words
    elif (find := getattr(encoder, "unknown_words", None)) is not None:
        cut = _ask_each_word(find)
    else:
        return None
    words: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    lost: dict[str, int] = {}
    total = many = 0
    for text, times in Counter(texts).items():
        found = cut(text)
        known = sum(number is not None for _, number in found)
        words.update(dict.fromkeys((word for word, _ in found), times))
        unknown.update(dict.fromkeys((w for w, number in found if number is None), times))
        total += times * bool(found)
        many += times * (most is not None and known > most)
        if found and not known:
            lost[text] = times
    names = [word for word, _ in unknown.most_common()]
    return KnownWords(total, lost, len(words), names, most, many)


def _ask_each_word(find: Callable[[str], Sequence[str]]) -> Callable[[str], Any]:
    known: dict[str, int | None] = {}

    def cut(text: str) -> list[tuple[str, int | None]]:
        words = words_of(text)
        for word in words:
            if word not in known:
                known[word] = None if find(word) else 0
        return [(word, known[word]) for word in words]

    return cut
