"""One rule cuts words in every language; the published rule is bit for bit that of before."""

import re
import unicodedata

import pytest

from fusion.data.demo.versions import RECIPES, plan_corpus
from fusion.models.cutting import Published, Unicode
from fusion.words import fold, look_up, published_words, uncut_words, words_of

GIRL = "👧"
CASES = {  # a text, and its words
    "typographic apostrophes": ("don\u2019t o\u02bcclock it\u00b4s", ["don't", "o'clock", "it's"]),
    "quotes are no apostrophes": ("\u2018stop\u2019 'tis dogs'", ["stop", "tis", "dogs"]),
    "decomposed letters": ("Cafe\u0301 au lait", ["Café", "au", "lait"]),
    "an elision": ("l\u2019homme", ["l'homme"]),
    "Hindi keeps its vowel signs": ("हिन्दी में",
        ["हिन्दी", "में"]),
    "Arabic keeps its points": ("كِتاب", ["كِتاب"]),
    "Persian keeps its joiner": ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        ["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"]),
    "Chinese is cut into characters": ("第1个音OK", [*"第1个音", "OK"]),
    "Japanese keeps its voicing": ("か\u3099\uff8a\uff9f", ["が", "\uff8a\uff9f"]),
    "Thai keeps its tones": ("ฉันรัก",
        ["ฉั", "น", "รั", "ก"]),
    "Khmer keeps its stacks": ("កម្ពុ", ["ក", "ម្ពុ"]),
    "Burmese keeps its marks": ("မြန်", ["မြ", "န်"]),
    "an emoji is a word": (f"cool{GIRL}!", ["cool", GIRL]),
    "a skin tone is dropped": ("👍\U0001f3fd ❤\ufe0f", ["👍", "❤"]),
    "a flag is one word": ("\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7",
        ["\U0001f1e9\U0001f1ea", "\U0001f1eb\U0001f1f7"]),
    "a joined emoji is one word": (f"{GIRL}\u200d{GIRL}", [f"{GIRL}\u200d{GIRL}"]),
    "notes around lyrics are no words": ("♪ la la ♫", ["la", "la"]),
    "lines and soft hyphens": ("___ ma\u00adny a_b", ["many", "a_b"]),
    "nothing": ("?! \u2026", []),
}  # fmt: skip


@pytest.mark.parametrize(("text", "words"), CASES.values(), ids=CASES)
def test_words_of_any_language(text, words):
    assert words_of(text) == words
    for form in ("NFC", "NFD"):
        assert words_of(unicodedata.normalize(form, text)) == words


@pytest.mark.parametrize(
    ("text", "vocabulary", "found"),
    [
        ("The Dog", ["the", "dog"], ["the", "dog"]),
        ("The dog", ["The", "the", "Dog"], ["The", "Dog"]),
        ("PARIS paris", ["Paris"], ["Paris", "Paris"]),
        ("nasa Nasa", ["NASA"], ["NASA", "NASA"]),
        ("Straße", ["straße", "strasse"], ["straße"]),
        ("STRASSE Straße", ["strasse"], ["strasse", "strasse"]),
        ("\u0130stanbul", ["istanbul"], ["istanbul"]),
        ("\u039b\u039f\u03a3", ["\u03bb\u03bf\u03c2"], ["\u03bb\u03bf\u03c2"]),  # a final sigma
        ("Café", ["cafe\u0301"], ["cafe\u0301"]),
        ("it's don't", ["it", "'s", "do", "n't", "it's"], ["it's", "do", "n't"]),
        ("it's", ["it", "'s"], ["it", "'s"]),
        ("don't", ["don\u2019t"], ["don\u2019t"]),
        ("L\u2019homme", ["l'", "homme"], ["l'", "homme"]),
        ("l'homme", ["homme"], ["homme"]),
        ("zebra's", ["s"], [None]),
        ("我听到音乐", ["听到", "音乐", "音"], [None, "听到", "音乐"]),
        (f"{GIRL}\u200d❤", [GIRL], [GIRL]),
        ("\uff2f\uff2b", ["OK"], ["OK"]),
    ],
)  # fmt: skip
def test_a_word_is_found_as_the_vocabulary_writes_it(text, vocabulary, found):
    index = {word: number for number, word in enumerate(vocabulary)}
    numbers = [number for _, number in look_up(text, index)]
    assert [None if n is None else vocabulary[n] for n in numbers] == found


def test_folded_words_are_equal_whatever_their_case_and_letters():
    assert fold("CAFE\u0301") == fold("café") == "café"
    assert fold("\u0130") == fold("i") == "i"
    assert all(fold(fold(word)) == fold(word) for word in ("\u01f0", "\u1e9e", "\u0149", "Σ"))


@pytest.mark.parametrize("text", [text for text, _ in CASES.values()])
def test_the_published_rule_is_that_of_before(text):
    expected = re.findall(r"[\w']+", text)
    assert published_words(text) == expected
    assert published_words(" ".join(uncut_words(text))) == expected
    assert bool(uncut_words(text)) == bool(expected)


@pytest.mark.parametrize("text", [text for text, _ in CASES.values()])
def test_uncut_words_lose_nothing_that_the_other_rule_reads(text):
    spoken = [word for word in words_of(text) if any(c.isalnum() for c in word)]
    assert [
        w for w in words_of(" ".join(uncut_words(text))) if any(c.isalnum() for c in w)
    ] == spoken


@pytest.mark.parametrize("version", RECIPES)
def test_the_built_in_corpus_has_the_same_words_by_either_rule(version):
    """So the README's table does not depend on the rule."""
    texts = [scene.text for film in plan_corpus(version=version) for scene in film.scenes]
    assert len(texts) > 1000
    one, other = Published(folds=True), Unicode()
    assert all(one.words(text) == other.words(text) for text in texts)
