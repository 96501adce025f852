"""``fusion.load("clip:FOLDER")``: a pre-trained model of picture and text, against the model
called by hand."""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from PIL import Image

import fusion
from fusion.data.media.decode import MediaError
from fusion.data.media.film import read_frames
from fusion.inference import clip_model
from fusion.inference.clip_model import ClipModel
from tests.data.media.films import write_film
from tests.inference.tiny_clip import SIDE, write_model

KINDS = ["clip", "siglip"]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {kind: write_model(folder / kind, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def model(names):
    return fusion.load(names["clip"])


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write_film(tmp_path_factory.mktemp("film") / "a.mp4", 5.2)


def by_hand(name, pictures, texts):
    """What transformers makes of PIL pictures and of texts: unit vectors."""
    folder = name.removeprefix("clip:")
    network = transformers.AutoModel.from_pretrained(folder).eval()
    pictures = transformers.AutoImageProcessor.from_pretrained(folder)(
        [Image.fromarray(one) for one in pictures], return_tensors="pt"
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    padding = "max_length" if "siglip" in name else True
    texts = tokenizer(texts, padding=padding, max_length=12, truncation=True, return_tensors="pt")
    with torch.no_grad():
        seen = network.get_image_features(**pictures).pooler_output
        said = network.get_text_features(**texts).pooler_output
    return F.normalize(seen, dim=-1), F.normalize(said, dim=-1)


@pytest.mark.parametrize("kind", KINDS)
def test_cosines_are_those_of_the_model_called_by_hand(names, film, kind):
    model, texts = fusion.load(names[kind]), ["a red star", "a dog barks", "a"]
    pictures = read_frames(film, 1, 36, 64)  # a picture a second, of the film's own size
    seen, said = by_hand(names[kind], pictures, texts)
    expected = F.normalize(seen[1:4].mean(dim=0), dim=-1) @ said.T
    clip = model.encode(film, start=1, end=4)
    found = model.similarity(clip, model.encode(texts))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    whole = model.encode({"video": film}, "v")
    torch.testing.assert_close(whole, F.normalize(seen.mean(dim=0), dim=-1), rtol=0, atol=1e-5)


def test_a_picture_is_a_film_of_one_picture(model, names, film):
    picture = read_frames(film, 1, 50, 40)[2]
    seen, _ = by_hand(names["clip"], picture[None], ["a"])
    found = model.encode(Image.fromarray(picture))
    torch.testing.assert_close(found, seen[0], rtol=0, atol=1e-5)


def test_a_clip_between_two_pictures_is_the_nearest(model, film):
    seconds = model.encode(film, windows=1.0)
    assert seconds.times[:2].tolist() == [[0, 1], [1, 2]]
    short = model.encode([film, film], start=2.1, end=2.3)
    torch.testing.assert_close(short[0], seconds.embeddings[2])
    near = model.encode(film, start=2.6, end=2.9)
    torch.testing.assert_close(near, seconds.embeddings[3])


def test_each_second_of_a_film_is_embedded_once(names, film, monkeypatch):
    model, calls = fusion.load(names["clip"]), []
    real = ClipModel._embed_pictures
    monkeypatch.setattr(
        ClipModel, "_embed_pictures", lambda self, x: calls.append(len(x)) or real(self, x)
    )
    clips = [(start / 4, start / 4 + 2, "") for start in range(13)]
    made = model.embed_film(film, clips)
    model.encode(film, start=1, end=2)
    assert sum(calls) == 5 and model.seconds(film) == pytest.approx(5.2, abs=0.1)
    assert made.vectors["v"].shape == (13, 12) and made.has == ["v"] * 13
    assert not made.vectors["t"].any() and not made.notes


def test_captions_are_embedded_and_long_ones_are_counted(model, film, caplog):
    long = "a red star " * 9
    made = model.embed_film(film, [(0, 1, "a dog"), (1, 2, " "), (2, 3, long)])
    assert made.has == ["tv", "v", "tv"] and made.notes == {"cut": 1}
    expected = model.encode(["a dog", long])
    np.testing.assert_allclose(made.vectors["t"][[0, 2]], expected, atol=1e-6)
    assert not made.vectors["t"][1].any() and "cut off after 12 tokens" in caplog.text


def test_a_batch_is_what_its_items_are_alone(model, film, monkeypatch):
    given = ["a red star", "a", {"video": film}, "a dog barks"]
    together = model.encode(given, progress=False, batch_size=2)
    alone = torch.stack([model.encode(one) for one in given])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
    assert together.dtype == torch.float32 and not together.requires_grad
    monkeypatch.setattr(clip_model, "BATCH", 2)
    again = ClipModel(model.name).encode(given)
    torch.testing.assert_close(again, together, rtol=0, atol=1e-6)


def test_the_digest_is_of_the_weights(names, model, tmp_path):
    assert model.digest == fusion.load(names["clip"]).digest
    assert model.digest != fusion.load(write_model(tmp_path / "other", seed=1)).digest
    assert ClipModel(names["clip"], frames_per_second=2).digest == f"{model.digest}@2"


def test_what_it_cannot_embed_is_one_line(model, film, tmp_path):
    sound = write_film(tmp_path / "sound.mp4", 1, picture=False)
    cases = {
        "has 'audio', which the model does not embed; choose from text, video": {"audio": film},
        "no picture": sound,
        "has text and picture, and clip:": {"text": "a", "video": film},
        "takes no finished tokens": {"video": np.zeros((3, 8), np.float32)},
        "has nothing to embed": {"text": " "},
    }
    for said, given in cases.items():
        with pytest.raises(ValueError, match=said) as error:
            model.encode(given)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="does not embed 'va'; choose a combination of t, v"):
        model.encode(film, "va")
    with pytest.raises(ValueError, match="nothing to embed of the combination 't'; it has video"):
        model.encode(film, "t")
    with pytest.raises(ValueError, match="nothing to embed from 9 s"):
        model.encode(film, start=9)
    with pytest.raises(MediaError, match="no picture"):
        model.embed_film(sound, [(0, 1, "")])
    assert model.encode({"text": "a", "video": film}, "t").shape == (12,)


def broken(names, tmp_path, kind="clip"):
    shutil.copytree(names[kind].removeprefix("clip:"), tmp_path / "m")
    return tmp_path / "m"


def fails(place):
    with pytest.raises(ValueError) as error:
        fusion.load(f"clip:{place}")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_incomplete_folders_are_one_line(names, tmp_path):
    assert f"there is no folder {tmp_path}/no" in fails(tmp_path / "no")
    assert "there is no folder (empty)" in fails("")
    assert "no model can be loaded" in fails("me/nowhere")  # of the hub; tests are offline
    folder = broken(names, tmp_path)
    (folder / "preprocessor_config.json").unlink()
    assert "no image processor can be loaded" in fails(folder)
    shutil.rmtree(folder)
    for file in broken(names, tmp_path).glob("tokenizer*"):
        file.unlink()
    assert "has no tokenizer; add tokenizer.json" in fails(folder)
    shutil.rmtree(folder)
    (broken(names, tmp_path) / "model.safetensors").unlink()
    assert "no model can be loaded" in fails(folder)


def test_models_that_do_not_embed_both_are_one_line(names, tmp_path):
    folder = broken(names, tmp_path)
    text = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=50
    )
    for config in (
        transformers.Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2),
        text,
    ):
        transformers.AutoModel.from_config(config).save_pretrained(folder)
        assert "without get_text_features; choose one that embeds texts and" in fails(folder)


def test_a_model_that_lacks_weights_is_refused(names, tmp_path):
    import safetensors.torch

    folder = broken(names, tmp_path)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights.pop("text_projection.weight")
    safetensors.torch.save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert "lacks the weight text_projection.weight; choose a complete model" in fails(folder)


def test_no_code_of_a_folder_is_run(names, tmp_path):
    folder = broken(names, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModel": "own.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\n")
    assert "no model can be loaded" in fails(folder)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_sentence_transformers_is_read(names, model, tmp_path):
    shutil.copytree(names["clip"].removeprefix("clip:"), tmp_path / "st" / "0_CLIPModel")
    found = fusion.load(f"clip:{tmp_path / 'st'}")
    torch.testing.assert_close(found.encode("a dog"), model.encode("a dog"))


def test_pictures_have_their_own_size(names, tmp_path, monkeypatch):
    model = fusion.load(names["clip"])
    film, seen = write_film(tmp_path / "b.mp4", 1.2, size=(64, 36)), []
    monkeypatch.setattr(model, "_pictures", _record(model._pictures, seen))
    model.encode(film)
    assert seen == [(64, 36, 3)] and min(seen[0][:2]) > SIDE
    monkeypatch.setattr(clip_model, "LARGEST", 18)
    model.encode(write_film(tmp_path / "c.mp4", 1.2, size=(64, 36)))
    assert seen[1] == (32, 18, 3)


def _record(real, seen):
    def call(pictures, **options):
        seen.extend(one.shape for one in pictures)
        return real(pictures, **options)

    return call
