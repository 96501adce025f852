"""Films with classes on the disk: a folder for each class, a table, or the lists of TSM's code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fusion.data.captions.films import Media
from fusion.data.captions.guess import Guesses
from fusion.data.captions.match import ENDINGS
from fusion.data.captions.rows import ALSO, COLUMNS, read_table, read_text
from fusion.data.labelled.film import Found, LabelError, LabelledFilm, is_number
from fusion.files import missing_folder
from fusion.parts import nearest

LISTS = (".txt", ".list")
NAMES = {  # of the columns of a table
    "video": (*COLUMNS["video"], *ALSO["video"]),
    "label": ("label", "class", "category", "action", "target"),
    "start": (*COLUMNS["start"], *ALSO["start"]),
    "end": (*COLUMNS["end"], *ALSO["end"]),
    "split": ("split", "subset"),
    "id": ("id",),
}
SPLIT_NAMES = {  # in tables and as folders
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev", "validate"),
    "test": ("test", "testing"),
}


def read_films(path: Path, classes: Sequence[str] | None = None, root: Path | None = None) -> Found:
    """Read what ``data.train`` and the like name.

    Args:
        path: a folder with a folder of films for each class (Kinetics); a table (csv, tsv), see
            :func:`read_label_table`; or a list (.txt), see :func:`read_list`.
        classes: the names of the classes that the numbers of a list stand for.
        root: folder of the films of a table or list; None: that of the file.

    Raises:
        LabelError, :class:`.CaptionError`: it is missing or cannot be used.
    """
    if path.is_dir():
        return read_folder(path)
    if not path.exists():
        raise LabelError(
            f"{path}: no such file or folder{missing_folder(path)}; name a folder with a folder for"
            " each class, or a csv file with the columns video and label"
        )
    if path.suffix.lower() in LISTS:
        return read_list(path, classes, root)
    return read_label_table(path, root)


def find_splits(folder: Path) -> dict[str, Path]:
    """Find ``train``, ``val`` and the like in a folder, each a folder of classes or a table."""
    found: dict[str, Path] = {}
    for split, names in SPLIT_NAMES.items():
        places = [folder / f"{name}{ending}" for ending in ("", ".csv", ".tsv") for name in names]
        if place := next((p for p in places if p.exists()), None):
            found[split] = place
    if not found:
        raise LabelError(
            f"data.folder: {folder} has no train, val or test{missing_folder(folder / 'x')}; each"
            " is a folder with a folder for each class, or a csv file"
        )
    return found


def read_folder(folder: Path) -> Found:
    """Read ``CLASS/*.mp4`` and the like; the names of the folders are the classes."""
    films = [LabelledFilm(name, name, name.split("/")[0]) for name in Media(folder) if "/" in name]
    if not films:
        raise LabelError(
            f"{folder} has no films in folders; put those of each class into a folder of its name"
        )
    return Found(films, folder, [""] * len(films))


def read_label_table(path: Path, root: Path | None = None) -> Found:
    """Read a table: one line names the columns, each other line is a film or a part of one.

    Columns, in any order and case: ``video`` (a file, relative to the folder of the table or to
    ``root``; an ending such as .mp4 may be missing) and ``label``; optional are ``start`` and
    ``end`` (seconds), ``split`` and ``id``. Encoding and separator: see
    :func:`fusion.data.captions.rows.read_table`.
    """
    guesses = Guesses()
    table = read_table(path, guesses)
    guesses.say()
    if len(table.rows) < 2:
        raise LabelError(f"{path}: has no line below its header; write one for each film")
    columns = _columns(path, table.rows[0][1])
    finder, films, splits = _Finder(root or path.parent), list[LabelledFilm](), list[str]()
    for line, fields in table.rows[1:]:
        where = f"{path}, line {line}"
        row = {c: fields[i].strip() for c, i in columns.items() if i < len(fields)}
        for name in ("video", "label"):
            if not row.get(name):
                raise LabelError(f"{where}: the {name} is empty; write one, or remove the line")
        start, end = (_seconds(where, name, row.get(name, "")) for name in ("start", "end"))
        if end is not None and end <= (start or 0):
            raise LabelError(f"{where}: the film ends at {end:g} s, before it begins; correct it")
        video, begins = finder.name(row["video"]), start or 0.0
        films.append(LabelledFilm(row.get("id", ""), video, row["label"], begins, end))
        splits.append(_split(where, row.get("split", "")))
    return Found(_named(films), finder.folder, splits)


def read_list(path: Path, classes: Sequence[str] | None = None, root: Path | None = None) -> Found:
    """Read a list of TSM's published code: ``path number_of_frames number_of_class`` in each line.

    The paths are films here, relative to ``root`` or the folder of the list; the number of frames
    is not used. Without ``classes`` the numbers are the names of the classes.
    """
    finder, films = _Finder(root or path.parent), list[LabelledFilm]()
    for number, line in enumerate(read_text(path, Guesses()).splitlines(), start=1):
        fields = line.rsplit(maxsplit=2)
        if not fields:
            continue
        if len(fields) != 3 or not all(map(is_number, fields[1:])):
            raise LabelError(
                f"{path}, line {number}: {line.strip()!r} is not PATH FRAMES CLASS, with numbers of"
                " frames and class; correct it, or write a csv file"
            )
        label = fields[2]
        if classes is not None:
            if int(label) >= len(classes):
                raise LabelError(
                    f"{path}, line {number}: class {label}, but data.classes has {len(classes)}"
                    " names, the first of which is number 0"
                )
            label = classes[int(label)]
        films.append(LabelledFilm("", finder.name(fields[0]), label))
    if not films:
        raise LabelError(f"{path}: is empty; write a line for each film")
    return Found(_named(films), finder.folder, [""] * len(films))


class _Finder:
    """Finds films that are named without their ending."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._media = folder, Media(folder)
        self._endings: list[str] = sorted(ENDINGS)

    def name(self, video: str) -> str:
        """Return the name of the file; as given, if there is none."""
        if Path(video).suffix.lower() in ENDINGS or video in self._media:
            return video
        for place, ending in enumerate(self._endings):
            if video + ending in self._media:
                self._endings.insert(0, self._endings.pop(place))  # it is the next one's too
                return video + ending
        return video


def _columns(path: Path, header: Sequence[str]) -> dict[str, int]:
    names = [name.strip().lower().replace(" ", "_") for name in header]
    found = {}
    for column, known in NAMES.items():
        if name := next((name for name in known if name in names), None):
            found[column] = names.index(name)
    for column in ("video", "label"):
        if column not in found:
            hint = nearest(column, names, "the columns are")
            raise LabelError(f"{path}, line 1: there is no column {column!r}{hint}; name it so")
    return found


def _seconds(where: str, name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise LabelError(f"{where}: {name} is {text!r}; it must be seconds, such as 1.5")
    return value


def _split(where: str, text: str) -> str:
    known = {name: split for split, names in SPLIT_NAMES.items() for name in names}
    if text and text.lower() not in known:
        raise LabelError(
            f"{where}: split {text!r} is unknown{nearest(text.lower(), list(SPLIT_NAMES))}"
        )
    return known.get(text.lower(), "")


def _named(films: Sequence[LabelledFilm]) -> list[LabelledFilm]:
    """Name films without id by their file, and part: ``a.mp4``, ``a.mp4#2``."""
    seen: Counter[str] = Counter()
    named = []
    for film in films:
        name = film.id or film.video
        seen[name] += 1
        named.append(film._replace(id=name if seen[name] == 1 else f"{name}#{seen[name]}"))
    return named
