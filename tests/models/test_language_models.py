"""Language models of transformers as text encoders: tiny ones, with random weights, made here."""

import json
import pickle
import shutil

import huggingface_hub
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from fusion.builders import settle_text_encoder
from fusion.config import ConfigError
from fusion.models.text.language_model_files import default_text_encoder, language_model_width
from fusion.models.text.language_models import CLIPText, HFText
from fusion.models.text.trained import TextTokens, read_tokens
from tests.tiny import CONFIG

transformers = pytest.importorskip("transformers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "star", "slides", "left", "##s", "."]


def save_tokenizer(path, template="[CLS] $A [SEP]", words=WORDS):
    """Save a tokenizer of a few words; it knows no others."""
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [(word, WORDS.index(word)) for word in ("[CLS]", "[SEP]") if word in template]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=special
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(path)


def save_bert(path, seed=0, words=WORDS, **changes):
    """Save a BERT, of width 8 unless ``changes`` say another, with random weights."""
    save_tokenizer(path, words=words)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
    sizes |= {"num_hidden_layers": 2, "vocab_size": len(words)} | changes
    config = transformers.BertConfig(**sizes)
    torch.manual_seed(seed)
    transformers.BertModel(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("bert"))


def test_tokens_are_the_states_of_all_but_special_tokens(folder):
    encoder = HFText(folder)
    ids = torch.tensor([[WORDS.index(w) for w in ["[CLS]", "a", "red", "star", "##s", "[SEP]"]]])
    model = transformers.BertModel.from_pretrained(folder).eval()
    expected = model(ids).last_hidden_state[0, 1:-1]
    torch.testing.assert_close(encoder("a red stars"), expected)
    assert encoder.width == 8
    assert encoder("...").shape == encoder("").shape == (0, 8)


def test_unknown_words_are_left_out_and_named(folder):
    encoder = HFText(folder)
    assert encoder("a xyzzy star").shape == (2, 8)
    assert encoder.unknown_words("a xyzzy star") == ["xyzzy"]
    assert encoder.unknown_words("a star") == []
    assert encoder("xyzzy").shape == (0, 8)


def test_later_tokens_are_cut_off_with_a_warning(folder):
    encoder = HFText(folder, max_words=2)
    with pytest.warns(UserWarning, match="1 of 2 texts have more than 2 tokens"):
        long, short = encoder.encode(["a red star", "a star"])
    assert len(long) == len(short) == 2
    torch.testing.assert_close(long, HFText(folder, max_words=2)("a red"))


def test_a_tokenizer_in_python_cuts_and_warns(tmp_path):
    transformers.CanineTokenizer().save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="1 of 3 texts have more than 5 tokens"):
        ids, kept, _ = read_tokens(TextTokens(tmp_path).tokenizer, ["stars", "starry", "a"], 5)
    assert ids[0][1:-1] == [ord(letter) for letter in "stars"]
    assert [sum(text) for text in kept] == [5, 5, 1]


def test_a_batch_gives_what_each_text_gives_alone(folder):
    encoder = HFText(folder)
    texts = ["a red star slides left", "star", "", "a red star", "left red a", "star"] * 30
    for text, states in zip(texts, encoder.encode(texts), strict=True):
        torch.testing.assert_close(states, encoder(text), rtol=1e-5, atol=1e-6)


def test_prepared_texts_are_not_encoded_again(folder, monkeypatch):
    encoder = HFText(folder)
    expected = encoder("a red star")
    encoder.prepare(["a red star", "star", "a red star"])
    monkeypatch.setattr(encoder, "states", None)
    torch.testing.assert_close(encoder("a red star"), expected)
    encoder.prepare(["star"])


def test_what_needs_too_much_memory_is_not_kept(folder, monkeypatch, caplog):
    monkeypatch.setattr("fusion.models.text.language_models.AHEAD", 1)
    monkeypatch.setattr("fusion.models.text.language_models.KEPT", 31)  # bytes; a token has 32
    encoder = HFText(folder)
    encoder.prepare(["a", "star", "red"])
    assert "2 of 3 texts are not encoded ahead" in caplog.text
    assert len(encoder._kept) == 1
    assert encoder("red").shape == (1, 8)


def test_a_data_loading_process_gets_the_states_and_not_the_model(folder, monkeypatch):
    encoder = HFText(folder)
    encoder.prepare(["a red star"])
    sent = pickle.dumps(encoder)
    assert len(sent) < 3000
    again = pickle.loads(sent)
    assert again("a red star").equal(encoder("a red star"))
    assert not {"model", "tokenizer"} & again.__dict__.keys()
    torch.testing.assert_close(again("red star"), encoder("red star"))


def test_a_checkpoint_knows_whether_it_is_the_same_model(folder, tmp_path):
    place, moved, checkpoint = tmp_path / "place", tmp_path / "moved", tmp_path / "checkpoint"
    shutil.copytree(folder, place)
    checkpoint.mkdir()
    encoder = HFText(place, max_words=3)
    encoder.save(checkpoint)
    again = HFText.load(checkpoint)
    assert again.arguments == encoder.arguments
    assert again("a red star").equal(encoder("a red star"))
    place.rename(moved)
    with pytest.raises(ValueError, match=r"cannot be opened: .*no language model .*place \(.*name"):
        HFText.load(checkpoint)
    assert HFText.load(checkpoint, moved)("a red star").equal(encoder("a red star"))
    save_bert(moved, seed=1)
    with pytest.raises(ValueError, match="moved has other weights .* than the model was trained"):
        HFText.load(checkpoint, moved)
    with pytest.raises(ValueError, match=r"has no language_model.json.*add text_encoder.model="):
        HFText.load(tmp_path)


def test_t5_and_clip_are_read_by_their_text_encoders(tmp_path):
    save_tokenizer(tmp_path / "t5", template="$A [SEP]")
    config = transformers.T5Config(
        vocab_size=len(WORDS), d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2
    )
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    assert HFText(tmp_path / "t5")("a red star").shape == (3, 8)
    transformers.T5EncoderModel(config).save_pretrained(tmp_path / "t5")
    assert HFText(tmp_path / "t5")("a red star").shape == (3, 8)

    save_tokenizer(tmp_path / "clip")
    sizes = {"hidden_size": 16, "intermediate_size": 8, "num_attention_heads": 2}
    sizes |= {"num_hidden_layers": 1}
    ends = {"bos_token_id": 2, "eos_token_id": 3}
    config = transformers.CLIPConfig(
        text_config={**sizes, **ends, "vocab_size": len(WORDS)},
        vision_config={**sizes, "image_size": 32},
    )
    transformers.CLIPModel(config).save_pretrained(tmp_path / "clip")
    assert HFText(tmp_path / "clip")("a red star").shape == (3, 16)


def test_a_model_that_cannot_be_used_is_explained(folder, tmp_path):
    with pytest.raises(ValueError, match="which language model[?] add text_encoder.model=FOLDER"):
        HFText()
    with pytest.raises(ValueError, match=r"loaded from nothing/here \(.*; name a folder as"):
        HFText("nothing/here")
    with pytest.raises(ValueError, match="it has no weights"):
        HFText(tmp_path)
    shutil.copytree(folder, tmp_path / "part")
    file = tmp_path / "part" / "model.safetensors"
    weights = transformers.BertModel.from_pretrained(folder).state_dict()
    del weights["encoder.layer.1.output.dense.weight"]
    from safetensors.torch import save_file

    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"lack encoder.layer.1.output.dense.weight \(and 0 more"):
        HFText(tmp_path / "part").encode(["a"])


OPENERS = {
    "frozen": lambda place: HFText(place).encode(["a"]),
    "trained": lambda place: TextTokens(place).encoder_spec(),
    "weights": lambda place: TextTokens(place).start(None),
    "clip": lambda place: CLIPText(str(place)),
    "width": language_model_width,
}


@pytest.mark.parametrize("opener", OPENERS.values(), ids=OPENERS)
def test_no_code_of_a_model_runs(folder, tmp_path, monkeypatch, opener):
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    place, ran = tmp_path / "evil", tmp_path / "ran"
    shutil.copytree(folder, place)
    (place / "evil.py").write_text(f"open({str(ran)!r}, 'w')\n")
    part = "evil.Part"
    names = {"AutoConfig": part, "AutoModel": part, "AutoTokenizer": [part, part]}
    for file in ("config.json", "tokenizer_config.json"):
        said = json.loads((place / file).read_text())
        said |= {"auto_map": names, "model_type": "evil", "tokenizer_class": "Evil"}
        (place / file).write_text(json.dumps(said))
    with pytest.raises(ValueError, match=r"be loaded from .*contains custom code") as caught:
        opener(place)
    assert "\n" not in str(caught.value) and not ran.exists()


def test_a_model_of_the_hub_is_looked_up_in_the_cache_first(folder, monkeypatch):
    asked = []

    def download(name, local_files_only, allow_patterns):
        asked.append(local_files_only)
        if local_files_only:
            raise OSError("not in the cache")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    encoder = HFText("someone/bert")
    assert asked == [True, False]
    assert encoder.path == "someone/bert"


def test_the_default_is_a_language_model_where_it_can_be_had(folder, monkeypatch, caplog):
    assert default_text_encoder(folder) == {"name": "hf", "model": str(folder)}
    assert not caplog.records
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: 1 / 0)
    assert default_text_encoder() == {"name": "word2vec"}
    assert len(caplog.messages) == 1
    assert "knows the words of the training captions alone" in caplog.text
    assert "all-MiniLM-L6-v2 (division by zero); name a folder" in caplog.text


def test_a_config_gets_its_text_encoder_and_width(folder, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: 1 / 0)
    text = {"name": "auto", "model": str(folder)}
    settled = settle_text_encoder({**CONFIG, "text_encoder": text})
    assert settled["text_encoder"] == {"name": "hf", "model": str(folder)}
    assert settled["model"]["modalities"]["text"] == {"dim": 8}
    settled = settle_text_encoder({**CONFIG, "text_encoder": {"name": "auto"}})
    assert settled["text_encoder"] == {"name": "word2vec"}
    assert settled["model"]["modalities"]["text"] == {"dim": 64}
    assert settle_text_encoder(CONFIG) == CONFIG
    assert settle_text_encoder({**CONFIG, "text_encoder": None})["text_encoder"] is None
    with pytest.raises(ConfigError, match="text_encoder.modell is unknown; did you mean 'model'"):
        settle_text_encoder({**CONFIG, "text_encoder": {"name": "auto", "modell": 3}})
