"""What a word is, the same wherever text is cut."""

import re


def words_of(sentence: str) -> list[str]:
    """Split a sentence as the published code does: runs of letters, digits, ``_`` and ``'``."""
    return re.findall(r"[\w']+", sentence)
