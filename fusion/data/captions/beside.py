"""The captions of films in a folder, where a broken caption file costs only its own film."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from fusion.data.captions import formats, table
from fusion.data.captions.guess import Guesses
from fusion.data.captions.match import files_by_video
from fusion.data.captions.rows import find_columns, read_table
from fusion.data.captions.table import Caption, CaptionError, CaptionParser

_WAY_OUT = "; that is more than data.max_bad"  # how a message on a share of bad captions goes on


class Beside(NamedTuple):
    """What is beside the films of a folder."""

    captions: dict[str, list[Caption]]  # of each film that has any
    problems: list[str]  # of the files that are not used; a line for each, with file and place


def captions_beside(folder: Path, videos: Collection[str]) -> Beside:
    """Find captions as :func:`.match.find_captions` does in a folder; no file is an error.

    ``videos`` are names of films, relative to the folder.
    """
    problems: list[str] = []
    files = files_by_video(folder, videos, refuse=lambda error: problems.append(str(error)))
    captions: dict[str, list[Caption]] = {}
    for video, file in files.items():
        parser = CaptionParser()
        read = table.read_csv if file.suffix.lower() == ".csv" else formats.read_subtitles
        try:
            found = read(file, parser, video)
            parser.check()
        except CaptionError as error:
            problems.append(str(error).partition(_WAY_OUT)[0])
        else:
            if found:
                captions[video] = found
    for video in videos:
        if video not in files and (said := _broken_table(folder / video)):
            problems.append(said)
    return Beside(captions, list(dict.fromkeys(problems)))


def _broken_table(film: Path) -> str | None:
    """Say why the csv file named like a film has no captions of it; None: it is about others."""
    file = film.with_suffix(".csv")
    if not file.is_file():
        return None
    try:
        rows = read_table(file, Guesses(), lambda message: None).rows
    except CaptionError as error:
        return str(error)
    found = find_columns(rows[0][1]) if rows else {}
    if not found or "video" in found:
        return None
    missing = [column for column in ("start", "end", "text") if column not in found]
    return f"{file}, line 1: no column {', '.join(missing)} among {', '.join(rows[0][1])}"
