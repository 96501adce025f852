"""Compare the film reader with the ffmpeg program: pictures and sound of whole files.

Both read pictures at 1, 10 and 24 per second, and sound of 16 kHz in one channel. ffmpeg is told to
fill gaps in the sound with silence and to begin at second 0, as the reader does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.data.media import SAMPLE_RATE
from fusion.data.media.decode import MediaError, open_media
from fusion.data.media.film import Film
from fusion.data.media.pictures import Sampling
from fusion.data.media.streams import jumps, tracks_of
from fusion.words import number_of

RATES = (1, 10, 24)  # pictures per second
HEIGHT, WIDTH = 48, 64  # of the compared pictures
LEVELS = 2  # of 255: versions of FFmpeg round differently
LOUDNESS = 2e-3  # of 1: decoders of sound fill in noise, and round
NAMES = {**{f"pictures{fps}": f"pictures at {fps}/s" for fps in RATES}, "audio": "sound"}
TAIL = 512  # samples of the last block of a codec, of which FFmpeg's versions keep more or less
EDGES = 64  # samples: where a gap begins, resamplers ring in different ways
_BLOCK = 2**10  # pictures or samples compared at a time
_PATIENCE = 900  # seconds that ffmpeg may take for an output
_WITHOUT = {"video": "-vn", "audio": "-an"}
_OUTPUTS = {  # ffmpeg's words
    "video": {
        f"pictures{fps}": [
            *("-vf", f"fps={fps},scale={WIDTH}:{HEIGHT}:flags=bicubic"),
            *("-f", "rawvideo", "-pix_fmt", "rgb24"),
        ]
        for fps in RATES
    },
    "audio": {
        "audio": [
            *("-af", "aresample=async=1:first_pts=0", "-ac", "1", "-ar", str(SAMPLE_RATE)),
            *("-f", "f32le", "-c:a", "pcm_f32le"),
        ]
    },
}
_COLUMNS = ("file", "what", "ours", "ffmpeg", "differ", "first at", "most", "the reader says")


@dataclasses.dataclass(frozen=True)
class Row:
    """What was compared of a file: pictures of a rate, or sound.

    Attributes:
        file: path.
        what: see ``NAMES``.
        ours: pictures or samples of the reader.
        theirs: those of ffmpeg.
        differ: those that differ, or that one of them lacks.
        first: second of the first that differs; None: none does.
        most: greatest difference, in levels of 255, or of sound of full scale 1.
        said: problems that the reader names.
    """

    file: str
    what: str
    ours: int
    theirs: int
    differ: int
    first: float | None
    most: float
    said: str


class CheckError(ValueError):
    """The comparison is not possible; one line."""


def find_ffmpeg() -> str:
    """Return the ffmpeg program of imageio-ffmpeg; CheckError: it is not installed."""
    try:
        import imageio_ffmpeg  # type: ignore[import-untyped]

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise CheckError(
            f"there is no ffmpeg to compare with ({error}); pip install imageio-ffmpeg"
        ) from None


def check_media(files: Sequence[str | Path], as_json: bool = False) -> int:
    """Compare files, and print a table of what differs, or all as JSON.

    Returns:
        0: nothing differs; 1: something does, or one of the two reads nothing.

    Raises:
        CheckError: there is no ffmpeg, or no such file.
    """
    program, rows = find_ffmpeg(), []
    paths = [Path(file).expanduser() for file in files]
    for path in paths:
        if not path.is_file():
            raise CheckError(f"{path}: no such file; name media files")
    for path in paths:
        found = compare(path, program)
        if not found:
            print(f"{path}: neither reads it", file=sys.stderr)
        rows += found
    wrong = [row for row in rows if row.differ]
    if as_json:
        print(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
        return int(bool(wrong))
    if wrong:
        print(_table(wrong))
    count = len({row.file for row in wrong})
    print(f"{number_of(len(files), 'file')}: {count} with differences to {Path(program).name}")
    return int(bool(wrong))


def compare(file: Path, program: str) -> list[Row]:
    """Compare what the reader and ffmpeg make of a file."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "ours"), Path(folder, "theirs")
        ours.mkdir()
        theirs.mkdir()
        said = _read(file, ours)
        _convert(file, theirs, program)
        return list(_rows(file, ours, theirs, said))


def _read(file: Path, folder: Path) -> str:
    """Write what the reader makes of a file, a file for each field; return its problems."""
    samplings = {f"pictures{fps}": Sampling(fps, (HEIGHT, WIDTH)) for fps in RATES}
    film = Film(file, samplings, audio=True)
    try:
        for piece in film.pieces():
            with open(folder / piece.field, "ab") as output:
                output.write(np.ascontiguousarray(piece.data).data.cast("B"))
    except MediaError as error:
        return str(error).removeprefix(f"{file}: ")
    return "; ".join([*film.problems, *film.notes])


def _convert(file: Path, folder: Path, program: str) -> None:
    """Write what ffmpeg makes of a file, each output in a run of its own.

    Where time stamps may jump, the other stream is copied into nothing in each run: it makes second
    0 the same for both. (Several outputs that are filtered in one run make ffmpeg 9 wait for ever.)
    """
    kinds, follow = ["video", "audio"], False
    with contextlib.suppress(MediaError), open_media(file) as container:
        kinds, follow = [kind for kind in kinds if tracks_of(container, kind)], jumps(container)
    for kind in kinds:
        command = [program, "-nostdin", "-y", "-v", "quiet", "-threads", "1"]
        command += ["-i", f"file:{file.absolute()}"]
        if follow and len(kinds) > 1:
            command += [_WITHOUT[kind], "-sn", "-dn", "-c", "copy", "-f", "null", "-"]
        for what, words in _OUTPUTS[kind].items():
            output = [_WITHOUT["audio" if kind == "video" else "video"], "-sn", "-dn", *words]
            try:
                subprocess.run(
                    [*command, *output, f"file:{folder / what}"],
                    check=False,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    timeout=_PATIENCE,
                )
            except subprocess.TimeoutExpired:
                raise CheckError(f"{file}: ffmpeg takes longer than {_PATIENCE} s") from None


def _rows(file: Path, ours: Path, theirs: Path, said: str) -> Iterator[Row]:
    for what, name in NAMES.items():
        is_sound = what == "audio"
        shape = (-1,) if is_sound else (-1, HEIGHT * WIDTH * 3)
        mine, other = (_load(folder / what, is_sound).reshape(shape) for folder in (ours, theirs))
        if not len(mine) and not len(other):
            continue
        limit, rate = (LOUDNESS, SAMPLE_RATE) if is_sound else (LEVELS, int(what[8:]))
        wrong, most = _differences(mine, other, limit)
        lacking = abs(len(mine) - len(other))
        if is_sound and len(mine) and len(other):
            wrong = wrong if len(wrong) > EDGES else []
            lacking = lacking if lacking > TAIL else 0
        places = [*wrong[:1], *([min(len(mine), len(other))] if lacking else [])]
        first = min(places) / rate if places else None
        yield Row(str(file), name, len(mine), len(other), len(wrong) + lacking, first, most, said)


def _load(file: Path, is_sound: bool) -> NDArray[Any]:
    kind = np.float32 if is_sound else np.uint8
    if not file.exists() or not file.stat().st_size:
        return np.empty(0, kind)
    return np.memmap(file, kind, "r")


def _differences(ours: NDArray[Any], theirs: NDArray[Any], limit: float) -> tuple[list[int], float]:
    """Return which rows differ by more than a limit, and the greatest difference of all."""
    wrong: list[int] = []
    most, count = 0.0, min(len(ours), len(theirs))
    for begin in range(0, count, _BLOCK):
        mine, other = (
            x[begin : min(begin + _BLOCK, count)].astype(np.float32) for x in (ours, theirs)
        )
        off = np.abs(mine - other).reshape(len(mine), -1).max(axis=1)
        most = max(most, float(off.max()))
        wrong += (begin + np.flatnonzero(~(off <= limit))).tolist()
    return wrong, most


def _table(rows: Sequence[Row]) -> str:
    body = [_COLUMNS]
    for row in rows:
        first = "-" if row.first is None else f"{row.first:.2f} s"
        counts = (f"{row.ours}", f"{row.theirs}", f"{row.differ}")
        body.append((row.file, row.what, *counts, first, f"{row.most:.3g}", row.said))
    widths = [max(map(len, column)) for column in zip(*body, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in body)
