"""What :func:`fusion.load` and :meth:`fusion.Model.encode` promise."""

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import fusion
from fusion.data.media.window import read_audio, read_frames
from fusion.tokens import Tokens
from tests.inference.compare import (
    COMBINATIONS,
    assert_as_evaluation,
    at_one_time,
    by_evaluation,
    equal,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*longer than the model takes:UserWarning")


@pytest.fixture(scope="session")
def film(test_clips):
    return test_clips.folder / test_clips.captions[0].video


def test_it_embeds_clips_as_evaluation_does(model, test_clips):
    clips = test_clips.captions[:12]
    _, expected = by_evaluation(model, test_clips, COMBINATIONS)
    for combination in COMBINATIONS:
        rows = {}
        for place, clip in enumerate(clips):
            given = {"text": clip.text or None}
            given |= dict.fromkeys(("video", "audio"), test_clips.folder / clip.video)
            try:
                rows[place] = model.encode(given, combination, start=clip.start, end=clip.end)
            except ValueError as error:
                assert "has nothing of the combination" in str(error)
        assert len(rows) > 5
        equal(torch.stack(list(rows.values())), F.normalize(expected[combination][[*rows]], dim=-1))


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_it_embeds_a_list_as_evaluation_does(model, test_clips, batch_size):
    assert_as_evaluation(model, at_one_time(test_clips, 1.0, 3.0), COMBINATIONS, batch_size)


def test_a_batch_is_what_its_items_are_alone(model, film):
    given = ["a red star", {"video": film}, {"text": "a bell", "audio": film}, film]
    together = model.encode(given, batch_size=3)
    equal(together, torch.stack([model.encode(one) for one in given]))


def test_embeddings_have_unit_length_and_no_gradient(model, film):
    one, many = model.encode("a red star"), model.encode([film, "a red star"])
    assert one.shape == (8,) and many.shape == (2, 8)
    assert one.dtype == torch.float32 and not one.requires_grad
    equal(many.norm(dim=1), torch.ones(2))


def test_similarity_is_the_cosine(model):
    x, y = model.encode("a red star"), model.encode(["a bell", "a red star"])
    assert model.similarity(x, y).shape == (2,)
    equal(model.similarity(x, x), torch.tensor(1.0))
    assert model.similarity(y, y).shape == (2, 2)


def test_arrays_and_pictures_are_films(model, film):
    frames, samples = read_frames(film, 10, 36, 48), read_audio(film)
    given = {"video": (frames, 10.0), "audio": (torch.from_numpy(samples), 16_000)}
    assert model.similarity(model.encode(given), model.encode(film, "va")) > 0.99
    picture = Image.fromarray(frames[0])
    equal(model.encode(picture), model.encode({"video": (frames[:1], 1.0)}, "v"))
    stereo = np.stack([samples, samples], axis=1)
    equal(model.encode({"audio": (stereo, 16_000)}), model.encode({"audio": (samples, 16_000)}))


def test_finished_tokens_are_taken_as_they_are(model, test_clips):
    clip = test_clips[0]
    tokens = {"text": clip["text"], "video": Tokens.pack([clip["video"]])}
    with torch.no_grad():
        wanted = model.network({n: Tokens.pack([clip[n]]) for n in tokens}, ["tv"])["tv"][0]
    equal(model.encode(tokens), F.normalize(wanted, dim=0))


@pytest.mark.parametrize(("name", "width"), [("text", 8), ("video", 125), ("audio", 40)])
def test_tokens_of_another_width_are_one_line(model, name, width):
    with pytest.raises(ValueError, match=rf"{name} has tokens of width 7, .* takes \(L, {width}\)"):
        model.encode({name: torch.zeros(3, 7)})


def test_an_address_is_downloaded(model, film):
    equal(model.encode(film.as_uri()), model.encode(film))


def test_f21_an_address_that_sends_without_end_is_left(model, film, monkeypatch):
    monkeypatch.setattr("fusion.inference.items.MOST_DOWNLOAD", 1000)
    with pytest.raises(ValueError, match="cannot be read .it has more than 0 MiB; load it first"):
        model.encode(f"file://{film}")


def test_an_address_of_the_web_is_downloaded(model, film):
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    folder = functools.partial(Handler, directory=str(film.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/{film.name}"
        try:
            equal(model.encode(address), model.encode(film))
            with pytest.raises(ValueError, match=r"none\.mp4 cannot be read \(.*none\.mp4"):
                model.encode(address.replace(film.name, "none.mp4"))
        finally:
            server.shutdown()


def test_a_device_that_does_not_change_keeps_the_networks(model):
    maker = model.maker
    model.encode("a red star", device="cpu")
    assert model.maker is maker


def test_a_model_without_text_encoder_takes_tokens(model):
    bare = fusion.Model(model.network, None, model.config, model.recipe, "cpu")
    with pytest.raises(ValueError, match="has no text encoder; give its text as finished tokens"):
        bare.encode("a red star")
    words = model.text_encoder("a red star")
    equal(bare.encode({"text": words}), model.encode("a red star"))


def test_windows_cover_a_film_to_its_end(model, film):
    found = model.encode(film, "va", windows=2.0, step=1.5)
    starts, ends = found.times.T
    equal(starts, torch.arange(len(starts), dtype=torch.float64) * 1.5)
    assert (ends[:-1] - starts[:-1] == 2).all() and 0 < ends[-1] - starts[-1] <= 2
    row = model.encode(film, "va", start=3.0, end=5.0)
    equal(found.embeddings[2], row)
    first, second = model.encode([film, film], windows=4.0)
    equal(first.embeddings, second.embeddings)


def test_a_clip_longer_than_the_model_takes_is_never_cut_silently(model, film):
    with pytest.warns(UserWarning, match=r"is longer than the model takes \(0\.\d s\)"):
        model.encode(film)


def test_unknown_words_are_named(model, caplog):
    model.encode("a zyx star")
    assert "unknown words are left out: zyx" in caplog.text
    with pytest.raises(ValueError, match="the model knows no word of 'zyx'"):
        model.encode("zyx")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nothing.mp4", "there is no file nothing.mp4; check the path"),
        ({"vidio": "a.mp4"}, "has 'vidio', which the model does not embed; did you mean 'video'"),
        ({"text": ["a"], "audio": ["b", "c"]}, "lists of one length; got text 1, audio 2"),
        ({"text": ["a"], "audio": "b"}, "lists of one length; got text 1, audio is no list"),
        ({"text": 3}, "text is int; write a text"),
        ({"video": np.zeros(3)}, r"video is ndarray of shape \(3,\); give a path"),
        (
            {"video": (np.zeros((2, 8, 8)), 10)},
            r"must be \(T, H, W, 3\) uint8 RGB; got \(2, 8, 8\)",
        ),
        ({"audio": (np.zeros(8, int), 10)}, r"must be \(S,\) or \(S, channels\) floats"),
        ({"audio": (np.zeros(8), 0)}, "a rate is above 0; got 0"),
        ([], "the list is empty"),
        ({}, "is an empty dict"),
        ("", "has nothing to embed"),
        (7, "the input is int; give a text, the path of a media file"),
    ],
    ids=str,
)
def test_an_input_that_cannot_be_used_is_one_line(model, given, message):
    with pytest.raises(ValueError, match=message) as caught:
        model.encode(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"combination": "x"}, "names an unknown modality 'x'"),
        ({"combination": ["t"]}, r"a combination is one string, such as 'va'; got \['t'\]"),
        ({"combination": "va"}, "has nothing of the combination 'va'; it has text"),
        ({"combination": ""}, "must name each modality once, and at least one"),
        ({"batch_size": 0}, "batch_size must be a whole number above 0; got 0"),
        ({"batch_size": -1}, "batch_size must be a whole number above 0; got -1"),
        ({"batch_size": 2.5}, "batch_size must be a whole number above 0; got 2.5"),
        ({"start": 2, "end": 1}, "start must be before end"),
        ({"step": 1}, "give windows=SECONDS too"),
        ({"windows": 1, "step": 2}, "step above 0 and at most as long"),
        ({"windows": 1}, "has neither picture nor sound after 0 s"),
    ],
    ids=str,
)
def test_a_wish_that_cannot_be_met_is_one_line(model, wish, message):
    with pytest.raises(ValueError, match=message):
        model.encode("a red star", **wish)


def test_a_model_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="there is no checkpoint at .*nowhere: no such folder"):
        fusion.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no model of this name can be loaded from the Hugging"):
        fusion.load("nobody/nothing")


def test_tokens_may_be_arrays_and_must_be_finite(model, test_clips):
    video = test_clips[0]["video"]
    equal(model.encode({"video": video.double().numpy()}), model.encode({"video": video}))
    with pytest.raises(ValueError, match="the input: video: .* values are not finite"):
        model.encode({"video": video * np.nan})
