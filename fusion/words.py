"""What a word is, the same wherever text is cut, and how many things are named."""

import re


def words_of(sentence: str) -> list[str]:
    """Split a sentence as the published code does: runs of letters, digits, ``_`` and ``'``."""
    return re.findall(r"[\w']+", sentence)


def number_of(count: int, what: str) -> str:
    """Write a number of things: ``1 video``, ``2 videos``."""
    return f"{count} {what}{'s' * (count != 1)}"
