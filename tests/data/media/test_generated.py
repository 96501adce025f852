"""Films in every container, codec and situation are read as ffmpeg reads them, whole and in parts.

All combinations are tried with ``-m slow``; otherwise those of the first codecs of a container, and
few situations of containers that FFmpeg reads by the code of another one, or that are rare.
"""

import contextlib
import random

import numpy as np
import pytest

from fusion.commands.check_media import compare
from fusion.data.media.decode import MediaError
from fusion.data.media.film import Film
from fusion.data.media.pictures import Sampling
from fusion.data.media.window import read_audio, read_frames
from tests.data.media.generated import CODECS, Maker, combinations

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="pip install imageio-ffmpeg")

ALIKE = ("mov", "m4a", "nut")  # the first two are mp4, too
FEW = [
    (container, number, situation)
    for container, number, situation in combinations(first_codecs_only=True)
    if container not in ALIKE or situation in ("plain", "turned", "damaged")
]
REST = [case for case in combinations() if case not in FEW]
CASES = [*FEW, *(pytest.param(case, marks=pytest.mark.slow) for case in REST)]
WINDOWS = 3  # of each film
SIZE = (48, 64)


@pytest.fixture(scope="module")
def maker(tmp_path_factory):
    return Maker(imageio_ffmpeg.get_ffmpeg_exe(), tmp_path_factory.mktemp("generated"))


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(map(str, case)))
def case(request):
    """A film; the tests of one film come together, so that one worker makes it."""
    return request.param


def may_differ(row, container, situation):
    """What versions of FFmpeg, or we on purpose, read in another way."""
    short = row.what == "pictures at 1/s" and (row.ours, row.theirs) == (1, 0)
    # Damage that is noticed is filled in by each version of FFmpeg in its own way
    conceals = situation in ("cut", "damaged") and row.differ <= 0.1 * row.theirs + 2000
    edge = (container, situation) == ("mp4", "gap") and row.differ < 256  # Opus
    return short or conceals or edge


def test_a_film_is_read_as_ffmpeg_reads_it(maker, case):
    container, _, situation = case
    path = maker.make(*case)
    rows = compare(path, maker.program)
    if not rows:  # ffmpeg cannot open it either
        assert situation == "damaged"
        return
    assert [r for r in rows if r.differ and not may_differ(r, container, situation)] == []


def test_a_window_equals_that_part_of_the_whole_film(maker, case):
    path = maker.make(*case)
    draw = random.Random("{} {} {}".format(*case))
    fps = draw.choice([1, 5, 10, 24])
    film, parts = Film(path, {"2d": Sampling(fps, SIZE)}, True), {"2d": [], "audio": []}
    with contextlib.suppress(MediaError):  # it cannot be opened
        for piece in film.pieces():
            parts[piece.field].append(piece.data)
    shown = np.concatenate([np.zeros((0, *SIZE, 3), np.uint8), *parts["2d"]])
    wave = np.concatenate([np.zeros(0, np.float32), *parts["audio"]])
    for _ in range(WINDOWS if film.seconds else 0):
        start = round(draw.uniform(0, film.seconds * 1.05), 2)
        end = round(start + draw.uniform(0.05, 1.5), 2)
        first, last = round(start * 16_000), round(end * 16_000)
        np.testing.assert_array_equal(read_audio(path, 16_000, start, end), wave[first:last])
        window = read_frames(path, fps, *SIZE, start, end)
        first, last = int(round(start * fps, 6)), int(np.ceil(round(end * fps, 6)))
        expected = shown[first : max(last, first + 1)]
        np.testing.assert_array_equal(window[: len(expected)], expected)
        assert len(window) <= max(len(expected), 1)  # at the end never empty


def test_there_are_films_of_every_container():
    assert {container for container, *_ in FEW} == set(CODECS)
    assert len(CODECS) == 17
