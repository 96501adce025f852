"""How the VQA challenge writes answers in one way, and what many answers are worth.

The rules are those of the official evaluation (github.com/GT-Vision-Lab/VQA), also where they
surprise: tests compare each of them with its results.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence

ENOUGH = 3  # people who must give an answer for it to count as fully right

_SIGNS = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
_MOST_FULL_STOPS = 32  # the official code passes a flag where re.sub takes the number of changes
_NUMBER_WORDS = "zero one two three four five six seven eight nine ten"
_NUMBERS = {"none": "0"} | {word: str(n) for n, word in enumerate(_NUMBER_WORDS.split())}
_ARTICLES = ("a", "an", "the")
# Each is found where it lacks one of its apostrophes. "I'm" and the like are not found: the
# official table has them with a capital, and looks them up in lower case.
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't
    mightn't've must've mustn't needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
    shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
    someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
    what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
    why's won't would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll you're
    you've
"""
_APOSTROPHES = {
    whole[:place] + whole[place + 1 :]: whole
    for whole in _CONTRACTIONS.split()
    for place, letter in enumerate(whole)
    if letter == "'"
} | {"somebody'd": "somebodyd"}  # the only one that loses its apostrophe


def strip(answer: str) -> str:
    """Make spaces of tabs and line ends, and drop the space around: done even if all agree."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


@functools.lru_cache(maxsize=2**16)
def normalise(answer: str) -> str:
    """Write an answer as the official evaluation compares it; empty if nothing is left of it.

    In this order:

    * space around the answer falls away;
    * each of ``_SIGNS`` falls away if it is beside a space anywhere in the answer, or if the answer
      has a comma between two digits; otherwise it becomes a space. Others, such as a colon, stay;
    * a full stop falls away unless a digit follows;
    * capitals become small letters, and ``none``, ``zero``, ``one`` to ``ten`` become digits;
    * articles fall away, and contractions without an apostrophe get it back;
    * words are separated by one space.
    """
    text = strip(answer)
    in_number = _COMMA_IN_NUMBER.search(text)
    kept = text
    for sign in _SIGNS:
        falls = in_number or f"{sign} " in text or f" {sign}" in text
        kept = kept.replace(sign, "" if falls else " ")
    words = _FULL_STOP.sub("", kept, count=_MOST_FULL_STOPS).lower().split()
    numbered = [_NUMBERS.get(word, word) for word in words]
    return " ".join(_APOSTROPHES.get(w, w) for w in numbered if w not in _ARTICLES)


def soft_scores(answers: Sequence[str]) -> dict[str, float]:
    """Score the distinct answers of several people to one question, as targets of training.

    An answer of n people has min(n / 3, 1); where fewer than three answered, the share of those
    who gave it, so a single answer has 1. Answers are normalised, most frequent first; one of
    articles alone, of which nothing is left, stays as it is, in lower case.

    Returns:
        For each answer its score in (0, 1]; nothing without answers.
    """
    counts = Counter(map(answer_name, filter(None, map(strip, answers))))
    enough = min(ENOUGH, counts.total())
    return {answer: min(count / enough, 1.0) for answer, count in counts.most_common()}


def answer_name(answer: str) -> str:
    """Name an answer in a vocabulary: normalised, or in lower case where nothing would be left."""
    return normalise(answer) or strip(answer).lower()
