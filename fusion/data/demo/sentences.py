"""The attributes of a scene, three visible and three audible ones, and sentences about them.

Each wording has a word that no other value uses, so a bag of words tells all values apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

WORDINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "shape": {
        "circle": ("circle", "disc", "ball"),
        "square": ("square", "box", "block"),
        "triangle": ("triangle", "wedge", "pyramid"),
        "star": ("star", "asterisk", "starfish"),
        "ring": ("ring", "hoop", "donut"),
        "cross": ("cross", "plus", "crucifix"),
    },
    "colour": {
        "red": ("red", "crimson", "scarlet"),
        "yellow": ("yellow", "golden", "lemon"),
        "green": ("green", "emerald", "grassy"),
        "cyan": ("cyan", "turquoise", "teal"),
        "blue": ("blue", "navy", "cobalt"),
        "pink": ("pink", "magenta", "fuchsia"),
    },
    "motion": {
        "left": ("slides left", "glides to the left", "travels leftwards"),
        "right": ("slides right", "glides to the right", "travels rightwards"),
        "bounces": ("bounces", "hops", "bobs"),
        "spins": ("spins", "rotates", "twirls"),
        "grows": ("grows", "expands", "gets bigger"),
        "blinks": ("blinks", "flashes", "flickers"),
    },
    "timbre": {
        "flute": ("flute", "whistle", "recorder"),
        "trumpet": ("trumpet", "horn", "bugle"),
        "bell": ("bell", "chime", "glockenspiel"),
        "guitar": ("guitar", "lute", "banjo"),
    },
    "rhythm": {
        "even": ("steadily", "evenly", "in regular beats"),
        "swinging": ("with a swing", "limping along", "in dotted notes"),
        "held": ("slowly", "unhurriedly", "in drawn-out tones"),
    },
    "contour": {
        "rising": ("rising", "climbing", "ascending"),
        "falling": ("falling", "sinking", "descending"),
        "zigzag": ("zigzag", "seesaw", "jumpy"),
    },
}

ATTRIBUTES = {attribute: tuple(wordings) for attribute, wordings in WORDINGS.items()}
VISIBLE = {attribute: ATTRIBUTES[attribute] for attribute in ("shape", "colour", "motion")}
AUDIBLE = {attribute: ATTRIBUTES[attribute] for attribute in ("timbre", "rhythm", "contour")}

PLACE_WORDS = {
    "indoors": ("indoors", "inside", "in a room"),
    "outdoors": ("outdoors", "outside", "in a field"),
}

OPENINGS = ("", "", "", "so", "okay", "now", "um", "well", "next", "you see", "look", "there")
THINGS = ("thing", "object", "something")
APPEARS = ("appears", "is there", "shows itself")
PLAYERS = ("someone", "music", "an instrument")
TUNES = ("tune", "melody", "line", "figure")
PLAYS = ("plays", "plays us", "sounds", "gives")
SEEN_FIRST = ("{seen} while {heard}", "{seen} and {heard}", "{seen} as {heard}", "{seen}, {heard}")
HEARD_FIRST = ("{heard} while {seen}", "{heard} and {seen}", "as {heard} {seen}", "{heard}, {seen}")


def write_sentence(
    values: Mapping[str, str], unsaid: Sequence[str], rng: np.random.Generator
) -> str:
    """Describe a scene, given the value of each attribute, in one sentence of random wording."""
    said = {
        attribute: "" if attribute in unsaid else _pick(WORDINGS[attribute][value], rng)
        for attribute, value in values.items()
    }
    pattern = _pick(SEEN_FIRST + HEARD_FIRST, rng)
    noun = said["shape"] or _pick(THINGS, rng)
    subject = _with_article(f"{said['colour']} {noun}".strip(), rng)
    seen = f"{subject} {said['motion'] or _pick(APPEARS, rng)}"
    body = pattern.format(seen=seen, heard=_heard(said, rng))
    return f"{_pick(OPENINGS, rng)} {body}".strip()


def add_place(sentence: str, place: str, rng: np.random.Generator) -> str:
    """Say before or after a sentence where it happens."""
    words = _pick(PLACE_WORDS[place], rng)
    return f"{words} {sentence}" if rng.random() < 0.5 else f"{sentence} {words}"


def _heard(said: Mapping[str, str], rng: np.random.Generator) -> str:
    player = _with_article(said["timbre"], rng) if said["timbre"] else _pick(PLAYERS, rng)
    tune = _with_article(f"{said['contour']} {_pick(TUNES, rng)}".strip(), rng)
    clause = f"{player} {_pick(PLAYS, rng)} {tune}"
    if not said["rhythm"]:
        return clause
    return f"{said['rhythm']} {clause}" if rng.random() < 0.15 else f"{clause} {said['rhythm']}"


def _with_article(noun: str, rng: np.random.Generator) -> str:
    if noun == "something":
        return noun
    article = _pick(("a", "a", "the", "this", "one"), rng)
    return f"{'an' if article == 'a' and noun[0] in 'aeiou' else article} {noun}"


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
