"""Image and sound models of transformers make a store, and `encode` makes the same again."""

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from PIL import Image

from fusion.checkpoint import CheckpointError
from fusion.commands.train import train
from fusion.config import load_config, to_yaml
from fusion.data.features.store import FeatureStore
from fusion.data.media.window import read_audio, read_frames
from fusion.extract.backbone import Source
from fusion.extract.job import extract
from fusion.extract.settings import Features
from fusion.extract.transformers_models import SoundBackbone, image_backbone
from fusion.inference.features import FilmFeatures
from fusion.inference.loading import load
from tests.data.media.films import write_film

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
MIDDLE = SMALL | {"intermediate_size": 16}
WORDS = MIDDLE | {"vocab_size": 50, "max_position_embeddings": 16, "bos_token_id": 0}
SIGHT = MIDDLE | {"image_size": 32, "patch_size": 8}
EDGE, SQUARE = {"shortest_edge": 32}, {"height": 32, "width": 32}
PICTURES = {  # config and processor of each kind
    "clip": lambda: (
        transformers.CLIPConfig(text_config=WORDS | {"eos_token_id": 1}, vision_config=SIGHT),
        transformers.CLIPImageProcessorPil(size=EDGE, crop_size=SQUARE),
    ),
    "siglip": lambda: (
        transformers.SiglipConfig(text_config=WORDS | {"eos_token_id": 1}, vision_config=SIGHT),
        transformers.SiglipImageProcessorPil(size=SQUARE),
    ),
    "dino": lambda: (
        transformers.Dinov2Config(**SMALL, image_size=32, patch_size=8),
        transformers.BitImageProcessorPil(size=EDGE, crop_size=SQUARE),
    ),
}
LISTENERS = {
    "ast": lambda: (
        transformers.ASTConfig(**MIDDLE),
        transformers.ASTFeatureExtractor(),
    ),
    "clap": lambda: (
        transformers.ClapConfig(
            text_config=WORDS | {"eos_token_id": 1, "pad_token_id": 1},
            audio_config={
                **{"patch_embeds_hidden_size": 4, "hidden_size": 8, "depths": [1, 1]},
                **{"num_attention_heads": [1, 1], "num_hidden_layers": 2},
            },
            projection_dim=12,
        ),
        transformers.ClapFeatureExtractor(truncation="rand_trunc"),
    ),
    "wav2vec2": lambda: (
        transformers.Wav2Vec2Config(
            **MIDDLE,
            conv_dim=(8,) * 7,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=2,
        ),
        transformers.Wav2Vec2FeatureExtractor(),
    ),
    "whisper": lambda: (
        transformers.WhisperConfig(
            **{"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 60},
            **{"encoder_attention_heads": 2, "decoder_attention_heads": 2},
            **{"encoder_ffn_dim": 16, "decoder_ffn_dim": 16},
            **{"pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 1},
            decoder_start_token_id=1,
        ),
        transformers.WhisperFeatureExtractor(),
    ),
}
RATES = {"ast": 16_000, "clap": 48_000, "wav2vec2": 16_000, "whisper": 16_000}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder of tiny random models, as transformers saves them."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for name, make in (PICTURES | LISTENERS).items():
        config, processor = make()
        transformers.AutoModel.from_config(config).save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write_film(tmp_path_factory.mktemp("film") / "a.mp4", 3.4)


def features(models, image="dino", sound="wav2vec2", **more):
    return Features(f"hf:{models / image}", "none", features_sound=f"hf:{models / sound}", **more)


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_gives_what_the_model_makes_of_it(models, film, name):
    backbone = image_backbone(f"hf:{models / name}", Source("2d"))
    height, width = backbone.sampling.picture_size(64, 36)
    assert (height, width) == (32, 32)
    picture = read_frames(film, 1, 32, 32)[0]
    made = backbone.compute(torch.from_numpy(picture)[None, None])
    processor = transformers.AutoImageProcessor.from_pretrained(models / name)
    values = processor(Image.fromarray(picture), return_tensors="pt")["pixel_values"]
    model = transformers.AutoModel.from_pretrained(models / name).eval()
    with torch.no_grad():
        call = getattr(model, "get_image_features", model)
        expected = call(pixel_values=values).pooler_output
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LISTENERS)
def test_sound_gives_a_row_each_second(models, film, name):
    backbone = SoundBackbone(f"hf:{models / name}", Source("sound"))
    assert backbone.sampling.rate == RATES[name]
    store = film.parent / f"{name}_store"
    extract([film], store, Features("none", "none", features_sound=f"hf:{models / name}"))
    rows = FeatureStore(store).read("a.mp4", "sound").float()
    assert rows.shape == (4, backbone.dim)
    sound = read_audio(film, RATES[name])
    last = 3 * RATES[name]
    if backbone.sampling.stride == 1:
        torch.testing.assert_close(rows[3:], backbone.compute(sound[last:]), rtol=1e-2, atol=1e-2)
    else:
        torch.testing.assert_close(rows, backbone.compute(sound), rtol=1e-2, atol=1e-2)


def test_a_row_of_a_sequence_is_the_mean_of_its_second(models):
    backbone = SoundBackbone(f"hf:{models / 'whisper'}", Source("sound"))
    sound = np.random.default_rng(0).normal(size=2 * 16_000 + 300).astype(np.float32)
    rows = backbone.compute(sound)
    states = backbone._outputs(sound, 16_000)[0]  # 1500 of 30 seconds
    torch.testing.assert_close(rows[0], states[:50].mean(dim=0))
    torch.testing.assert_close(rows[1], states[50:100].mean(dim=0))
    torch.testing.assert_close(rows[2], states[100])
    exact = SoundBackbone(f"hf:{models / 'wav2vec2'}", Source("sound"))
    assert exact.compute(sound[: 2 * 16_000 + 10]).isfinite().all()
    long = backbone.compute(np.resize(sound, 30 * 16_000))
    assert long.shape == (30, 16)


def test_a_model_encodes_films_with_these_networks(models, tmp_path):
    """Store, training on the further modality, and the same features again from the file."""
    films = [write_film(tmp_path / f"films/{i}.mp4", 2 + i / 4) for i in range(4)]
    store = tmp_path / "store"
    extract([tmp_path / "films"], store, features(models, audio=False))
    lines = "".join(f"{film.name},0,1.5,a red star {i}\n" for i, film in enumerate(films))
    (tmp_path / "c.csv").write_text("video,start,end,text\n" + lines)
    data = dict.fromkeys(("train", "validation", "test"), str(tmp_path / "c.csv"))
    config = {
        "output": str(tmp_path / "run"),
        "data": {"name": "videos", "store": str(store)} | data,
        "text_encoder": {"name": "word2vec", "dim": 3, "epochs": 1},
        "model": {
            "name": "eao",
            "modalities": {"text": {"dim": 3}, "video": {"dim": 16}, "sound": {"dim": 16}},
            "combinations": ["t", "v", "s", "vs"],
            **{"token_dim": 8, "embedding_dim": 8, "num_heads": 2},
        },
        "loss": {"name": "combinatorial", "terms": {"t|v": 1, "t|vs": 1}},
        "trainer": {"epochs": 1, "batch_size": 2, "learning_rate": 0.01},
        "evaluation": {},
    }
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    train(load_config(tmp_path / "config.yaml"))
    model, clip = load(tmp_path / "run"), {"start": 0.0, "end": 1.5}
    read = FeatureStore(store).read
    tokens = {
        "video": F.normalize(read("0.mp4", "2d").float()[:2], dim=1),
        "sound": read("0.mp4", "sound").float()[:2],
    }
    expected = model.encode(tokens, "vs")
    torch.testing.assert_close(model.encode(films[0], "vs", **clip), expected)
    torch.testing.assert_close(
        model.encode({"sound": films[0]}, **clip), model.encode({"sound": tokens["sound"]})
    )


def test_other_weights_are_refused_and_moved_ones_found(models, film, tmp_path):
    store = tmp_path / "store"
    extract([film], store, features(models))
    recipe = FeatureStore(store).recipe()
    assert len(recipe["sound"]["weights"]) == 16
    rows = FilmFeatures(recipe).rows(film)
    for field in ("2d", "sound", "audio"):
        assert rows[field].equal(FeatureStore(store).read("a.mp4", field))
    moved = shutil.copytree(models / "wav2vec2", tmp_path / "moved")
    recipe["sound"]["network"] = "hf:/nowhere/wav2vec2"
    with pytest.raises(ValueError, match="--features-audio: no such model.*from /nowhere/wav2vec2"):
        FilmFeatures(recipe)
    assert FilmFeatures(recipe, weights={"sound": moved}).rows(film)["sound"].equal(rows["sound"])
    torch.manual_seed(1)
    config = transformers.AutoConfig.from_pretrained(moved)
    transformers.AutoModel.from_config(config).save_pretrained(moved)
    with pytest.raises(CheckpointError, match="was trained with features of sound"):
        FilmFeatures(recipe, weights={"sound": moved})


def test_a_pooler_that_was_never_trained_is_left_out(models, tmp_path):
    config = transformers.ViTConfig(**SIGHT)
    transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "vit")
    transformers.ViTImageProcessorPil(size=SQUARE).save_pretrained(tmp_path / "vit")
    first, second = (image_backbone(f"hf:{tmp_path / 'vit'}", Source("2d")) for _ in range(2))
    assert first.weights == second.weights
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        states = first.network.model(pixel_values=x).last_hidden_state
        torch.testing.assert_close(first.network(x), states[:, 0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features_sound": "whisper"}, "--features-audio: unknown whisper; write hf:"),
        ({"features_sound": "hf:dino"}, "dino is no model of sound|no such model"),
        ({"features_2d": "hf:nowhere"}, "--features-2d: no such model of transformers.*nowhere"),
    ],
)
def test_mistakes_are_explained(models, monkeypatch, changes, message):
    monkeypatch.chdir(models)
    with pytest.raises(ValueError, match=message):
        Features(**({"features_2d": "none", "features_3d": "none"} | changes)).build()
