"""MiningYouTube (arXiv:1906.01012): a label for every second or frame of a film."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fusion.data.captions.table import CaptionParser
from fusion.data.steps.annotation import NO_ANNOTATION, Notes, StepCaption, StepError
from fusion.data.untrusted.npz import read_npy
from fusion.data.untrusted.reading import read_json
from fusion.files import missing_folder

CLASSES, STEPS = ("mapping.txt", "classes.txt"), ("steps.json", "step.json")
LABELS = ("ground_truth", "groundTruth", "annotations", "anno", ".")


def read_classes(file: Path) -> dict[str, str]:
    """Read a list of classes, a line each: ``7 crack egg``, or ``crack_egg`` alone.

    Returns the names by number and by themselves, underscores as spaces.

    Raises:
        StepError: the file cannot be read or is empty.
    """
    names: dict[str, str] = {}
    for number, line in enumerate(filter(None, map(str.strip, _read(file)))):
        first, _, rest = line.partition(" ")
        key, name = (first, rest.strip()) if first.isdigit() and rest else (str(number), line)
        spoken = name.replace("_", " ").strip()
        names |= {key: spoken, name: spoken}
    if not names:
        raise StepError(f"{file}: no classes; write one in each line, such as: 7 crack egg")
    return names


def read_mining_youtube(
    folder: Path,
    max_bad: float,
    notes: Notes,
    rate: float = 1.0,
    background: str = "background",
) -> list[StepCaption]:
    """Read the labels of films.

    The folder has either a list of classes (``mapping.txt``, see :func:`read_classes`) and for each
    film a text file with a label, name or number, in each line; or, as the data sets of MCN and EAO
    read them, ``steps.json`` (the steps of each film by its name) and for each film a ``.npy`` file
    (T, K) of 0 and 1. These files are in ``ground_truth`` or ``annotations``, or beside the list.

    The steps of a film are those that occur in it, in the order in which they occur first.

    Args:
        folder: of the annotations.
        max_bad: the share of lines with an unknown label that is accepted; each counts as
            background.
        notes: what is wrong is added to it.
        rate: labels per second of film.
        background: the class that is no step.

    Raises:
        StepError or :class:`.CaptionError`: a file cannot be read, or too many lines.
    """
    if not rate > 0:
        raise StepError(f"data.rate is {rate:g}; it is the labels per second, and above 0")
    parser = CaptionParser(max_bad)
    films = _films_of(folder, parser, background, notes)
    captions: list[StepCaption] = []
    for video, labels in films:
        its = list(_captions(video, labels, rate))
        if not its:
            notes.add(NO_ANNOTATION, video)
        captions += its
    parser.check()
    if not captions:
        raise StepError(f"{folder}: no film has a step; is {background!r} the background?")
    return captions


def _films_of(
    folder: Path, parser: CaptionParser, background: str, notes: Notes
) -> Iterator[tuple[str, Sequence[Sequence[str]]]]:
    """Yield the name of each film, and for each label the steps at that time."""
    places = [folder / name for name in LABELS if (folder / name).is_dir()]
    if listed := next((folder / n for n in STEPS if (folder / n).is_file()), None):
        yield from _matrices(listed, places, parser, notes)
        return
    file = next((folder / name for name in CLASSES if (folder / name).is_file()), None)
    if file is None:
        raise StepError(
            f"{folder} has neither {CLASSES[0]} (classes, one in each line) nor {STEPS[0]} (the"
            " steps of each film)"
        )
    classes = read_classes(file)
    empty = background.replace("_", " ")
    found = {f.stem: f for place in places for f in sorted(place.glob("*.txt")) if f != file}
    if not found:
        raise StepError(f"{folder}: no labels of films; name their files VIDEO.txt")
    for video, labels in found.items():
        spoken: list[list[str]] = []
        for line, label in enumerate(_read(labels), start=1):
            name = classes.get(label.strip())
            parser.total += 1
            if name is None:
                parser.total -= 1  # refuse counts it
                parser.refuse(f"{labels}, line {line}: {label!r} is not in {file.name}")
            spoken.append([] if name in (None, empty) else [str(name)])
        yield video, spoken


def _matrices(
    listed: Path, places: Sequence[Path], parser: CaptionParser, notes: Notes
) -> Iterator[tuple[str, Sequence[Sequence[str]]]]:
    try:
        steps = read_json(listed)
    except (OSError, ValueError) as error:
        raise StepError(f"{listed} cannot be read ({error}); it names the steps of films") from None
    if not (isinstance(steps, dict) and all(isinstance(names, list) for names in steps.values())):
        raise StepError(f'{listed} must name the steps of each film, as {{"film": ["stir", …]}}')
    for video, names in steps.items():
        file = next((f for p in places if (f := p / f"{video}.npy").is_file()), None)
        if file is None:
            notes.add(NO_ANNOTATION, video)
            continue
        try:
            marks = read_npy(file)
        except (OSError, ValueError) as error:
            parser.refuse(f"{file} cannot be read ({error})")
            continue
        if marks.ndim != 2 or marks.shape[1] != len(names):
            parser.refuse(f"{file}: {list(marks.shape)} is not seconds x {len(names)} steps")
            continue
        parser.total += 1
        yield video, [[str(names[k]) for k in np.flatnonzero(row)] for row in marks]


def _captions(video: str, labels: Sequence[Sequence[str]], rate: float) -> Iterator[StepCaption]:
    steps = tuple(dict.fromkeys(name for names in labels for name in names))
    for number, name in enumerate(steps):
        marks = np.array([name in names for names in labels] + [False])
        edges = np.flatnonzero(np.diff(marks.astype(np.int8), prepend=0))
        for start, end in edges.reshape(-1, 2).tolist():
            yield StepCaption(video, start / rate, end / rate, name, number, steps)


def _read(file: Path) -> list[str]:
    try:
        return file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StepError(f"{file} cannot be read ({error}){missing_folder(file)}") from None
