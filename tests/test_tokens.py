import pytest
import torch

from fusion.tokens import Batch, Tokens

CLIPS = [torch.full((n, 2), float(n)) for n in (3, 0, 1)]


def test_packing_and_padding_are_inverse():
    tokens = Tokens.pack(CLIPS)
    padded, mask = tokens.pad()
    assert padded.shape == (3, 3, 2)
    assert mask.sum(dim=1).tolist() == [3, 0, 1]
    assert padded[~mask].eq(0).all()
    again = Tokens.unpad(padded, tokens.lengths)
    assert again.values.equal(tokens.values)
    assert again.longest == tokens.longest == 3


def test_clip_and_position_of_each_token():
    tokens = Tokens.pack(CLIPS)
    assert tokens.clip.tolist() == [0, 0, 0, 2]
    assert tokens.position.tolist() == [0, 1, 2, 0]
    assert tokens.present.tolist() == [True, False, True]


@pytest.mark.parametrize("length", [1, 3, 7])
def test_padding_to_a_given_length_cuts_or_fills(length):
    padded, mask = Tokens.pack(CLIPS).pad(length)
    assert padded.shape == (3, length, 2)
    assert mask.sum(dim=1).tolist() == [min(length, n) for n in (3, 0, 1)]


def test_padding_passes_gradients_to_the_tokens_alone():
    values = Tokens.pack(CLIPS).values.requires_grad_()
    padded, _ = Tokens.pack(CLIPS).replace(values).pad(2)
    padded.sum().backward()
    assert values.grad[:, 0].tolist() == [1, 1, 0, 1]  # the third token was cut off


def test_select_keeps_clips_in_the_given_order():
    chosen = Tokens.pack(CLIPS).select([2, 0])
    assert chosen.lengths.tolist() == [1, 3]
    assert chosen.values[0].tolist() == [1, 1]


def test_a_batch_moves_as_a_whole():
    batch = Batch(("x", "y", "z"), {"text": Tokens.pack(CLIPS)}).to("meta")
    assert batch.inputs["text"].values.is_meta
    assert batch.present["text"].is_meta
    assert batch.ids == ("x", "y", "z")
