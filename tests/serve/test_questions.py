"""From uploads to questions: of models with networks, of other models, of models without sound."""

import threading
import types

import numpy as np
import pytest
import torch

from fusion.data.media.window import read_audio
from fusion.extract.settings import describe
from fusion.inference.clips import ClipMaker
from fusion.inference.features import FilmFeatures
from fusion.serve.decoding import LimitedDecoder, Limits
from fusion.serve.questions import RATE, Media
from fusion.serve.schemas import Refused
from tests.extract.tiny import tiny_backbones, use_tiny_networks
from tests.serve.test_uploads import picture


@pytest.fixture(scope="module")
def decoder():
    made = LimitedDecoder(Limits())
    yield made
    made.close()


def test_networks_make_the_same_features_of_an_upload(decoder, films, monkeypatch):
    use_tiny_networks(monkeypatch)
    features = FilmFeatures(describe(tiny_backbones(), audio=True))
    expected = features.rows(films / "a.mp4")
    features._kept.clear()
    features.readings[films / "a.mp4"] = decoder
    found = features.rows(films / "a.mp4")
    assert found.keys() == expected.keys() == {"2d", "3d", "audio"}
    for field, rows in expected.items():
        assert len(rows) and rows.equal(found[field]), field


def test_only_the_film_of_a_stranger_is_read_elsewhere(decoder, films, model, monkeypatch):
    asked = []
    pieces = decoder.pieces
    monkeypatch.setattr(decoder, "pieces", lambda path, *a: asked.append(path) or pieces(path, *a))
    maker = ClipMaker(model.modalities, {}, {}, None, model.recipe, torch.device("cpu"), None)
    with maker.reading(films / "a.mp4", decoder):
        maker.films.rows(films / "silent.mp4")
    maker.films._kept.clear()
    maker.films.rows(films / "a.mp4")
    assert asked == [films / "a.mp4"]


def other_model(modalities=("text", "video", "audio"), **more):
    """A model that is none of ours: it has no maker, and reads films by itself."""
    return types.SimpleNamespace(modalities=modalities, **more)


def test_another_model_gets_pictures_and_sound_as_arrays(decoder, films):
    media = Media(other_model(frames_per_second=5.0), decoder)
    with media.read("a dog", {"video": films / "a.mp4"}, 0.5, 1.0) as question:
        frames, rate = question.parts["video"]
        assert (frames.shape, rate) == ((10, 360, 640, 3), 5.0)
        np.testing.assert_array_equal(question.parts["audio"][0], read_audio(films / "a.mp4"))
        assert question.parts["audio"][1] == RATE
        assert (question.parts["text"], question.start, question.end) == ("a dog", 0.5, 1.0)


def test_a_model_without_sound_gets_pictures_alone(decoder, films, tmp_path):
    (tmp_path / "a.png").write_bytes(picture())
    media = Media(other_model(("text", "video")), decoder)
    with media.read("", {"video": films / "a.mp4"}, 0.0, None) as question:
        assert list(question.parts) == ["video"]
    with media.read("", {"picture": tmp_path / "a.png"}, 0.0, None) as question:
        assert question.parts["video"][0].shape[0] == 1
    with pytest.raises(Refused, match="does not embed audio, so it takes no audio") as caught:
        media.read("", {"audio": films / "a.mp4"}, 0.0, None).__enter__()
    assert caught.value.status == 422


def test_a_model_of_texts_alone_takes_no_files(decoder, films):
    media = Media(other_model(("text",)), decoder)
    for part in ("audio", "picture", "video"):
        with pytest.raises(Refused, match="embed"):
            media.read("", {part: films / "a.mp4"}, 0.0, None).__enter__()


def test_uploads_of_several_threads_do_not_mix(decoder, films, model):
    media, found = Media(model, decoder), {}

    def read(name):
        with media.read("", {"video": films / name}, 0.0, 0.5) as question:
            found[name] = model.encode(question.parts, "v", end=0.5)

    threads = [threading.Thread(target=read, args=(name,)) for name in ("a.mp4", "silent.mp4")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, vector in found.items():
        torch.testing.assert_close(vector, model.encode(films / name, "v", end=0.5))
