"""CLIP's text tokens, of a small model with random weights, against the published steps."""

import json

import pytest
import torch

from fusion.models.text.language_models import CLIPText

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Save a small CLIP whose tokenizer knows single letters."""
    path = tmp_path_factory.mktemp("clip")
    letters = "abcdefghijklmnopqrstuvwxyz'"
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    (path / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(
        str(path / "vocab.json"), str(path / "merges.txt"), model_max_length=40
    )
    tokenizer.save_pretrained(path)
    config = transformers.CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        projection_dim=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=40,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
    )
    torch.manual_seed(0)
    transformers.CLIPTextModelWithProjection(config).save_pretrained(path)
    return path


def test_tokens_are_those_between_beginning_and_end(folder):
    encoder = CLIPText(str(folder))
    tokens = encoder("a red, star!")
    assert tokens.shape == (8, 8)
    inputs = encoder.tokenizer("a red star", return_tensors="pt")
    assert inputs["input_ids"].shape == (1, 10)
    whole = encoder.model(**inputs)
    last = encoder.model.text_projection(whole.last_hidden_state)[0]
    torch.testing.assert_close(last[-1], whole.text_embeds[0])  # where CLIP itself reads
    torch.testing.assert_close(tokens, last[1:-1])
    assert encoder("...").shape == (0, 8)
    cut_off = CLIPText(str(folder), max_words=3)("a red star")
    ids = torch.cat([inputs["input_ids"][:, :4], inputs["input_ids"][:, -1:]], dim=1)
    last = encoder.model.text_projection(encoder.model(input_ids=ids).last_hidden_state)[0]
    assert cut_off.equal(last[1:-1])
    torch.testing.assert_close(cut_off, tokens[:3])  # of another length, so rounded otherwise
    assert len(CLIPText(str(folder), max_words=99)("a" * 100)) == 38


def test_a_checkpoint_says_which_model_it_was(folder, tmp_path):
    CLIPText(str(folder), max_words=5).save(tmp_path)
    again = CLIPText.load(tmp_path)
    assert again.arguments == {"path": str(folder), "max_words": 5}
    assert again.max_words == 5


def test_a_model_that_is_not_there_is_explained(tmp_path):
    with pytest.raises(ValueError, match="cannot be loaded from .*; download openai/clip-vit"):
        CLIPText(str(tmp_path))
    with pytest.raises(
        ValueError,
        match="has no clip_text.json, which names the text encoder .* text_encoder.path=",
    ):
        CLIPText.load(tmp_path)
