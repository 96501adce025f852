"""Questions and pictures read by pre-trained networks: published widths and names, random weights.

Nothing is downloaded: networks are built from their configs.
"""

import json
import logging

import pytest
import safetensors.torch
import torch
import transformers

from fusion.builders import check_config, settle_text_encoder
from fusion.commands.train import train
from fusion.config import load_config
from fusion.models.text.language_model_files import digest_of
from fusion.models.text.language_models import HFText
from fusion.models.text.trained import TextTokens, TrainedText
from fusion.tokens import Tokens
from tests.models.test_language_models import WORDS, save_bert
from tests.tasks.pictures import COLOURS, config_of, write_questions

ASKED = [*WORDS, "what", "colour", "is", "it", *COLOURS]
TINY_BERT = {  # TinyBERT with 4 layers (arXiv:1909.10351)
    "hidden_size": 312,
    "intermediate_size": 1200,
    "num_attention_heads": 12,
    "num_hidden_layers": 4,
}
MINI_LM = {  # all-MiniLM-L6-v2
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_attention_heads": 12,
    "num_hidden_layers": 6,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_questions(tmp_path_factory.mktemp("questions"))


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    """A language model whose tokenizer knows the words of the questions."""
    return save_bert(tmp_path_factory.mktemp("mini"), words=ASKED)


def words_of(folder, output, model, **changes):
    """The overrides of the recipe vqa/easy_vqa_minilm for a tiny model on such a folder."""
    given = {"data_root": folder, "text_encoder.model": model, "text_encoder.sha256": "null"}
    given |= {"trainer.learning_rate": 1e-3, "trainer.epochs": 1} | changes
    words = config_of(folder, output, **given)
    return [word for word in words if not word.startswith("text_encoder.dim")]


@pytest.mark.parametrize("sizes", [TINY_BERT, MINI_LM], ids=["TinyBERT", "MiniLM"])
def test_a_language_model_has_its_published_widths_and_names(sizes):
    said = transformers.BertConfig(vocab_size=30_522, **sizes).to_diff_dict()
    with torch.device("meta"):
        encoder = TrainedText(said, special=2)
    width, inner = sizes["hidden_size"], sizes["intermediate_size"]
    names = dict(encoder.model.named_parameters())
    last = f"encoder.layer.{sizes['num_hidden_layers'] - 1}"
    assert encoder.out_dim == width
    assert names["embeddings.word_embeddings.weight"].shape == (30_522, width)
    assert names["embeddings.position_embeddings.weight"].shape == (512, width)
    assert names[f"{last}.attention.self.query.weight"].shape == (width, width)
    assert names[f"{last}.intermediate.dense.weight"].shape == (inner, width)
    assert names[f"{last}.output.dense.weight"].shape == (width, inner)
    assert not any("pooler" in name for name in names)


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory):
    """TinyBERT as it was published for distillation: below ``bert``, with a layer of 312 to 768."""
    place = save_bert(tmp_path_factory.mktemp("bert"), words=ASKED, **TINY_BERT)
    file = place / "model.safetensors"
    weights = {f"bert.{name}": x for name, x in safetensors.torch.load_file(file).items()}
    more = {"fit_dense.weight": torch.zeros(768, 312), "fit_dense.bias": torch.zeros(768)}
    safetensors.torch.save_file(weights | more, file, {"format": "pt"})
    said = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(said | {"architectures": ["BertForPreTraining"]}))
    return place


def test_published_weights_of_tinybert_are_read_whole(tiny_bert):
    weights = safetensors.torch.load_file(tiny_bert / "model.safetensors")
    name = "encoder.layer.3.attention.self.value.weight"
    frozen, tokens = HFText(tiny_bert), TextTokens(tiny_bert)
    assert frozen.width == 312 and frozen("what colour is it").shape == (4, 312)
    assert frozen.model.get_parameter(name).equal(weights[f"bert.{name}"])
    said = tokens.encoder_spec()
    encoder = TrainedText(said["config"], said["special"])
    tokens.start(encoder)
    assert encoder.model.get_parameter(name).equal(weights[f"bert.{name}"])


@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize("typed", ["768", "null"])
def test_widths_are_those_of_the_encoders_whatever_is_typed(tiny_bert, trains, typed):
    given = [f"text_encoder.model={tiny_bert}", f"text_encoder.train={trains}", "data_root=x"]
    given += [f"model.modalities.text.dim={typed}"]
    given += ["model.modalities.image.encoder.weights=null", "model.token_dim=24"]
    config = settle_text_encoder(load_config("vqa/vqa_v2", given))
    with torch.device("meta"):
        model = check_config(config)["model"]()
    widths = {name: next(p.parameters()).shape for name, p in model.eao.token_projections.items()}
    assert widths == {"text": (24, 312), "image": (24, 2048)}


def test_equal_questions_are_read_once_with_the_same_gradient(mini):
    tokens = TextTokens(mini)
    spec = tokens.encoder_spec()
    encoder = TrainedText(spec["config"], spec["special"])
    tokens.start(encoder)
    encoder.double().train()
    asked = ["is it red", "what colour is it", "", "is it red", "is it", "what colour is it"]
    texts = [tokens(text) for text in asked]
    seen = []
    encoder.model.register_forward_pre_hook(
        lambda module, given, named: seen.append(len(named["input_ids"])), with_kwargs=True
    )
    torch.manual_seed(0)
    weights = torch.randn(sum(len(text) - 2 for text in texts if len(text)), 8).double()

    def gradients(values):
        encoder.zero_grad()
        (values * weights).sum().backward()
        return [p.grad.clone() for p in encoder.parameters()]

    together = encoder(Tokens.pack(texts))
    found = gradients(together.values)
    assert together.host_lengths.tolist() == [3, 4, 0, 3, 2, 4]
    alone = torch.cat([encoder(Tokens.pack([text])).values for text in texts])
    assert seen == [4, *[1] * 5]  # the empty one is a text, too; alone it is not read
    torch.testing.assert_close(together.values, alone)
    torch.testing.assert_close(found, gradients(alone))


def test_the_recipe_trains_the_language_model_slowly_and_says_so(folder, mini, tmp_path, caplog):
    config = load_config("vqa/easy_vqa_minilm", words_of(folder, tmp_path / "run", mini))
    with caplog.at_level(logging.WARNING):
        train(config)
    assert "learning rates: 0.001, and 1e-05 for the pre-trained eao.encoders.text" in caplog.text
    before = HFText(mini).model.state_dict()
    after = safetensors.torch.load_file(tmp_path / "run/best/model.safetensors")
    name = "encoder.layer.0.attention.self.query.weight"
    change = (after[f"eao.encoders.text.model.{name}"] - before[name]).abs().max()
    assert 0 < change < 1e-4  # three steps of at most 1e-5
    assert json.loads((tmp_path / "run/results.json").read_text())["kinds"]["all"]["questions"]


def test_the_recipe_leaves_the_language_model_as_it_is_if_asked(folder, mini, tmp_path, caplog):
    words = words_of(folder, tmp_path / "run", mini, **{"text_encoder.train": "false"})
    with caplog.at_level(logging.WARNING):
        train(load_config("vqa/easy_vqa_minilm", words))
    assert "learning rates" not in caplog.text
    after = safetensors.torch.load_file(tmp_path / "run/best/model.safetensors")
    assert not any("encoders.text" in name for name in after)
    assert after["eao.token_projections.text.0.project.weight"].shape == (16, 8)


@pytest.mark.parametrize("trains", ["true", "false"])
def test_other_weights_than_the_recipe_names_are_one_line(folder, mini, tmp_path, trains):
    sha256 = load_config("vqa/easy_vqa_minilm", ["data_root=x", "text_encoder.model=x"])
    sha256 = sha256["text_encoder"]["sha256"]
    assert len(sha256) == 64
    changes = {"text_encoder.sha256": sha256, "text_encoder.train": trains}
    with pytest.raises(ValueError, match="has other weights .* or than text_encoder.sha256") as no:
        train(load_config("vqa/easy_vqa_minilm", words_of(folder, tmp_path / "x", mini, **changes)))
    assert "\n" not in str(no.value) and digest_of(mini) in str(no.value)
    assert not (tmp_path / "x").exists()


def test_weights_of_a_language_model_that_are_not_whole_are_one_line(mini, folder, tmp_path):
    place = save_bert(tmp_path / "part", words=ASKED)
    file = place / "model.safetensors"
    weights = safetensors.torch.load_file(file)
    del weights["encoder.layer.1.output.dense.weight"]
    safetensors.torch.save_file(weights, file, {"format": "pt"})
    with pytest.raises(ValueError, match="lack encoder.layer.1.output.dense.weight") as caught:
        train(load_config("vqa/easy_vqa_minilm", words_of(folder, tmp_path / "x", place)))
    assert "\n" not in str(caught.value)


NET = "{name: timm, model: resnet18, weights: %s}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no .*net.safetensors; name a file, or null for random weights"),
        ({"conv1.weight": (8, 3, 3, 3)}, "encoder.weights=.*net.safetensors"),
        (b"no weights", "encoder.weights=.*net.safetensors"),
    ],
)
def test_a_wrong_file_of_weights_is_one_line(folder, tmp_path, content, message):
    file = tmp_path / "net.safetensors"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content:
        safetensors.torch.save_file({n: torch.zeros(s) for n, s in content.items()}, file)
    words = config_of(folder, tmp_path / "x", **{"model.modalities.image.encoder": NET % file})
    words = [word for word in words if not word.startswith("model.modalities.image.encoder.wid")]
    with pytest.raises(ValueError, match=message) as caught:
        train(load_config("vqa", words))
    assert "\n" not in str(caught.value)


def test_weights_that_cannot_be_downloaded_say_what_to_name(folder, tmp_path):
    encoder = NET % "pretrained"
    words = config_of(folder, tmp_path / "x", **{"model.modalities.image.encoder": encoder})
    words = [word for word in words if not word.startswith("model.modalities.image.encoder.wid")]
    with pytest.raises(ValueError, match=r"and name it: model.*encoder.weights=FILE$") as caught:
        train(load_config("vqa", words))
    assert "--" not in str(caught.value)
