"""Steps found in films: streamed or at once, the same; the command and its pictures."""

import json
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from PIL import Image

import fusion
from fusion.commands.localise import format_times
from fusion.data.features import computed
from fusion.data.media.film import Film, Piece
from fusion.data.steps.windows import Windows
from fusion.evaluation.localisation import assign_in_order
from fusion.inference.features import FilmFeatures
from fusion.inference.localising import Localiser
from fusion.inference.streaming import ONLY, FilmStream
from tools.benchmarks.localise import has_both, join_films

STEPS = ["a red star bounces", "a bell plays a tune", "a blue ring spins"]


@pytest.fixture(scope="module")
def film(test_clips, tmp_path_factory):
    """A film of more than a minute, joined."""
    folder = test_clips.folder / "videos"
    films = [path for path in sorted(folder.glob("*.mp4")) if has_both(path)]
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    join_films(films, path, 70)
    return path


@pytest.mark.parametrize(
    "frames",
    [
        0,
        1,
        2,
        computed.BLOCK - 1,
        computed.BLOCK,
        computed.BLOCK + 1,
        computed.BLOCK + 2,
        2 * computed.BLOCK + 1,
    ],
)
@pytest.mark.parametrize("size", [7, 500])
def test_descriptors_of_pieces_are_those_of_the_whole_film_bit_for_bit(frames, size):
    shown = np.random.default_rng(frames).integers(0, 256, (frames, 36, 48, 3), np.uint8)
    rows, parts = computed.DescriptorRows(computed.EXTRACTORS["descriptors"]), {"2d": [], "3d": []}
    for first in range(0, frames, size):
        rows.push(Piece("pictures", shown[first : first + size], 0.0))
        for field, made in rows.take().items():
            parts[field].append(made)
    for field, made in rows.end().items():
        parts[field].append(made)
    whole = computed.EXTRACTORS["descriptors"].compute(shown)
    for field, expected in zip(("2d", "3d"), whole, strict=True):
        found = torch.cat(parts[field]) if parts[field] else expected[:0]
        assert found.equal(expected), field


def test_a_stream_has_the_features_of_the_whole_film(model, film):
    features = model.maker.films
    stream, whole = FilmStream(features, film), features.rows(film)
    steps = 0
    while not stream.ended:
        stream.advance()
        steps += 1
    assert steps > 3
    for field, expected in whole.items():
        found = stream.read(ONLY, field)
        assert found.shape == expected.shape, field
        if field == "audio":  # in blocks, and rounded to float16
            assert (found.float() - expected.float()).abs().max() < 0.07
        else:
            assert found.equal(expected.float()), field
    stream.forget(30.0)
    assert stream.read(ONLY, "2d", 60, 64).equal(whole["2d"][60:64].float())
    assert stream.rows(ONLY, "2d") == len(whole["2d"])


def test_streaming_forgets_pictures_and_scores_as_at_once(model, film, monkeypatch):
    finder = Localiser(model, STEPS)
    most = []
    forget = FilmStream.forget

    def watched(self, second):
        forget(self, second)
        most.append(len(self._rows["3d"]))

    monkeypatch.setattr(FilmStream, "forget", watched)
    streamed = list(finder.stream(film))
    assert max(most) < 30 * 10 / 3  # less than half a minute
    at_once = [vectors for vectors, _ in finder._at_once(film)]
    assert len(streamed) == len(at_once)
    assert [s.start for s in streamed] == list(range(len(streamed)))
    texts = torch.nn.functional.normalize(finder.texts, dim=-1)
    for second, vectors in zip(streamed, at_once, strict=True):
        expected = torch.nn.functional.normalize(vectors["va"], dim=-1) @ texts.T
        assert second.scores == pytest.approx(expected[0].numpy(), abs=1e-4)


def test_seconds_come_out_before_the_film_has_ended(model, film, monkeypatch):
    ended = []
    advance = FilmStream.advance

    def watched(self):
        advance(self)
        ended.append(self.ended)

    monkeypatch.setattr(FilmStream, "advance", watched)
    next(iter(Localiser(model, STEPS).stream(film)))
    assert ended and not any(ended)


@pytest.mark.parametrize("step", [0.01, 0.5, 1.0, 3.0])
def test_windows_are_read_only_where_the_film_was_seen(model, step):
    finder = Localiser(model, STEPS)
    finder.windows = Windows(4.0, 4.0, step)
    for seen in np.arange(0, 12, 0.1):
        ready = finder._ready(SimpleNamespace(ended=False, seen=seen))
        assert all(finder.windows.times(n, np.inf)[1] <= seen for n in range(ready))
    assert ready


def test_steps_are_found_in_order_or_not(model, film):
    finder = Localiser(model, STEPS, window=0.6, step=0.5)
    found = finder.locate(film)
    assert found.seconds.tolist() == assign_in_order(found.scores).tolist()
    assert len(found.scores) == pytest.approx(140, abs=20)
    free = finder.locate(film, in_order=False)
    assert free.seconds.tolist() == found.scores.argmax(axis=0).tolist()
    start, end = found.times()[0]
    assert (start, end) == (found.seconds[0] / 2, found.seconds[0] / 2 + 0.5)


def strip(film, path, kind):
    """Copy a film without its ``audio`` or its ``video``."""
    with av.open(str(film)) as source, av.open(str(path), "w") as target:
        (kept,) = [stream for stream in source.streams if stream.type != kind]
        copy = target.add_stream_from_template(kept)
        for packet in source.demux(kept):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    return path


@pytest.mark.parametrize(("kind", "direction"), [("audio", "t->a"), ("video", "t->v")])
def test_no_time_is_invented_for_a_film_that_lacks_what_is_compared(
    model, test_clips, tmp_path, kind, direction
):
    film = strip(
        next(filter(has_both, sorted((test_clips.folder / "videos").glob("*.mp4")))),
        tmp_path / "film.mp4",
        kind,
    )
    finder = Localiser(model, STEPS, direction)
    found = finder.locate(film)
    assert len(found.scores) > 3 and np.isneginf(found.scores).all()
    assert not any(known for _, known in finder._at_once(film))
    assert found.times() == [None] * len(STEPS)
    assert [line.split()[:2] for line in format_times(found).splitlines()] == [["-", "-"]] * 3
    assert np.isfinite(Localiser(model, STEPS, "t->v+a").locate(film).scores).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": []}, "there is no step to look for"),
        ({"steps": ["a star", " "]}, "or an empty one"),
        ({"direction": "v->t"}, "direction: 'v->t' is not one of t->v, t->a, t->va, t->v"),
        ({"window": 99.0}, "window must be above 0 and at most"),
        ({"step": 0.0}, "step must be above 0 seconds"),
        ({"steps": ["zzzz"]}, "knows no word of 'zzzz'"),
    ],
)
def test_wishes_that_cannot_be_met(model, given, message):
    with pytest.raises(ValueError, match=message):
        Localiser(model, **({"steps": STEPS} | given))


def test_the_command_prints_times_and_draws_them(run, film, tool, tmp_path):
    steps = tmp_path / "steps.txt"
    steps.write_text("a red star bounces\n\na blue ring spins\n")
    for name in ("curves.png", "curves.html"):
        words = [run, film, "--steps", steps, "--picture", tmp_path / name]
        code, output, errors = tool("tools/localise.py", *words)
        assert code == 0, errors
        first, second = output.strip().splitlines()
        assert first.endswith("a red star bounces") and second.endswith("a blue ring spins")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 1000
    page = (tmp_path / "curves.html").read_text()
    assert page.count("data:image/jpeg") == 2 and "a blue ring spins" in page
    code, output, errors = tool("tools/localise.py", run, film, "a bell", "a star", "--json")
    assert code == 0, errors
    found = json.loads(output)
    assert [one["step"] for one in found] == ["a bell", "a star"]
    assert found[0]["end"] <= found[1]["start"]


def test_a_film_has_its_own_subtitles(run, film, tool):
    film.with_suffix(".srt").write_text(
        "1\n00:00:01,000 --> 00:00:02,000\na red star\n\n2\n00:00:03,000 --> 00:00:04,000\na bell\n"
    )
    code, output, errors = tool("tools/localise.py", run, film, "--own-subtitles", "--any-order")
    assert code == 0, errors
    assert [line.split("  ")[-1] for line in output.strip().splitlines()] == [
        "a red star",
        "a bell",
    ]
    film.with_suffix(".srt").unlink()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{run}", "{film}"], "give the steps either as words"),
        (["{run}", "nowhere.mp4", "a star"], "error: nowhere.mp4: no such file"),
        (["{run}", "{film}", "a star", "--picture", "x.gif"], "name a file .png or .html"),
        (["{run}", "{film}", "--own-subtitles"], "error: there are no steps beside"),
        (["{run}", "{film}", "--steps", "nowhere.txt"], "error: nowhere.txt cannot be read"),
    ],
)
def test_mistakes_are_one_line(run, film, tool, words, said):
    given = [word.format(run=run, film=film) for word in words]
    code, _, errors = tool("tools/localise.py", *given)
    assert code == 2
    assert said in errors and "Traceback" not in errors


def test_features_can_be_computed_piece_by_piece(film):
    """What stands behind a stream reads the film once for its sound and once for its pictures."""
    features = FilmFeatures(computed.recipe_of("descriptors"))
    assert [*features.samplings] == ["pictures"]
    fields = {piece.field for piece in Film(film, features.samplings, False).pieces()}
    assert fields == {"pictures"}
    assert fusion.__version__
