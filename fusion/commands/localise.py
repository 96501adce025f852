"""Find when steps happen in a film, for the terminal and as a picture."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

import fusion
from fusion.commands.search import printed
from fusion.config import ConfigError
from fusion.data.captions.beside import captions_beside
from fusion.data.captions.formats import SUBTITLES, read_caption_file
from fusion.data.captions.guess import decode
from fusion.data.media.decode import MediaError
from fusion.files import missing_folder, write_atomically
from fusion.inference.localising import Localiser, Located
from fusion.report.layout import align
from fusion.report.score_curves import CurveStep, curves_page, curves_png
from fusion.search.films.thumbnails import make_thumbnails
from fusion.words import clock

PICTURES = (".png", ".html")


def localise(given: argparse.Namespace) -> Located:
    """Find the steps, as the command line says, and print their times."""
    film = Path(given.film)
    if given.picture and Path(given.picture).suffix.lower() not in PICTURES:
        raise ConfigError(f"--picture {given.picture}: name a file {' or '.join(PICTURES)}")
    if not film.is_file():
        raise MediaError(f"{film}: no such file{missing_folder(film)}; check the path")
    steps = list(given.words) or read_step_list(given, film)
    model = fusion.load(given.run, trust=given.trust)
    finder = Localiser(model, steps, given.direction, given.window, given.step)
    with tqdm(desc="reading", unit="s", leave=False, disable=not sys.stderr.isatty()) as bar:
        found = finder.locate(film, not given.any_order, lambda _: bar.update())
    if given.json:
        print(json.dumps(as_json(found), indent=1, ensure_ascii=False))
    else:
        print(printed(format_times(found)))
    if given.picture:
        write_picture(Path(given.picture), film, found)
    return found


def read_step_list(given: argparse.Namespace, film: Path) -> list[str]:
    """Read the steps from a text file, from subtitles, or from those beside the film.

    Raises:
        ValueError: there are none; one line.
    """
    if given.own_subtitles:
        beside = captions_beside(film.parent, [film.name])
        texts = [caption.text for caption in beside.captions.get(film.name, ())]
        where = f"beside {film}"
        if beside.problems and not texts:
            where += f" ({beside.problems[0]})"
    else:
        file = Path(given.steps)
        where = f"in {file}"
        if file.suffix.lower() in SUBTITLES:
            texts = [caption.text for caption in read_caption_file(file)]
        else:
            try:
                texts = decode(file.read_bytes())[0].splitlines()
            except OSError as error:
                raise ConfigError(f"{file} cannot be read ({error.strerror or error})") from None
            except ValueError as error:
                raise ConfigError(f"{file}, {error}") from None
    steps = [text.strip() for text in texts if text.strip()]
    if not steps:
        raise ConfigError(f"there are no steps {where}; write one in each line")
    return steps


def format_times(found: Located) -> str:
    """Write a line for each step: its time, its score, and what it is."""
    rows = []
    for text, time, score in zip(found.steps, found.times(), scores_of(found), strict=True):
        shown = "-" if time is None else clock(time[0])
        rows.append([shown, "-" if score is None else f"{score:.3f}", text])
    lines = align([[time, score] for time, score, _ in rows])
    return "\n".join(f"{line}  {row[2]}" for line, row in zip(lines, rows, strict=True))


def scores_of(found: Located) -> list[float | None]:
    """Return the score of each step in its second."""
    return [
        None if t < 0 else float(found.scores[t, k]) for k, t in enumerate(found.seconds.tolist())
    ]


def as_json(found: Located) -> list[dict[str, Any]]:
    """Write the steps with their times, ready for JSON."""
    return [
        {
            "step": text,
            "start": None if time is None else time[0],
            "end": None if time is None else time[1],
            "score": score,
        }
        for text, time, score in zip(found.steps, found.times(), scores_of(found), strict=True)
    ]


def write_picture(path: Path, film: Path, found: Located) -> None:
    """Draw the scores over time, with the second of each step and its picture."""
    steps = curve_steps(film, found)
    if path.suffix.lower() == ".png":
        write_atomically(path, curves_png(steps, found.grid))
    else:
        write_atomically(path, curves_page(film.name, steps, found.grid))


def curve_steps(film: Path, found: Located) -> Sequence[CurveStep]:
    """Put the curve, the second and the picture of each step together."""
    middles = [None if t is None else (t[0] + t[1]) / 2 for t in found.times()]
    wanted = [middle for middle in middles if middle is not None]
    pictures = iter(make_thumbnails(film, wanted))
    return [
        CurveStep(text, found.scores[:, k], middle, (), None if middle is None else next(pictures))
        for k, (text, middle) in enumerate(zip(found.steps, middles, strict=True))
    ]
