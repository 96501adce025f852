import pytest
import torch

from fusion.tokens import Batch, Tokens, pick, place

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


def test_f14_what_is_no_number_in_the_padding_is_dropped():
    padded, mask = Tokens.pack(CLIPS).pad()
    poisoned = padded.masked_fill(~mask[..., None], torch.nan)
    tokens = Tokens.unpad(poisoned, torch.tensor([3, 0, 1]))
    assert tokens.values.equal(Tokens.pack(CLIPS).values)
    assert tokens.pad()[0].equal(padded)


def test_a_clip_without_tokens_lacks_the_modality():
    assert Tokens.pack(CLIPS).present.tolist() == [True, False, True]


def test_a_stand_in_is_given_to_clips_without_tokens_alone():
    token = torch.tensor([7.0, 8.0], requires_grad=True)
    tokens = Tokens.pack(CLIPS)
    filled = tokens.fill_missing(token)
    assert filled.values.tolist() == [[3, 3], [3, 3], [3, 3], [7, 8], [1, 1]]
    assert filled.lengths.tolist() == filled.host_lengths.tolist() == [3, 1, 1]
    filled.values.sum().backward()
    assert token.grad.tolist() == [1, 1]
    assert filled.fill_missing(token) is filled


def test_placing_and_picking_pass_gradients_where_they_came_from():
    values, places = torch.randn(3, 2, dtype=torch.float64), torch.tensor([0, 2, 3])
    placed = place(values, places, 5)
    assert placed[places].equal(values)
    assert not placed[[1, 4]].any()
    assert pick(placed, places).equal(values)
    assert torch.autograd.gradcheck(lambda v: place(v, places, 5), values.requires_grad_())
    rows = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: pick(v, places), rows)


def test_shapes_follow_without_asking_the_device():
    tokens = Tokens.pack(CLIPS).to("meta")  # which knows shapes, and no number
    assert tokens.pad()[0].shape == (3, 3, 2)
    assert tokens.fill_missing(torch.zeros(2, device="meta")).values.shape == (5, 2)


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


def test_a_batch_moves_as_a_whole():
    batch = Batch(("x", "y", "z"), {"text": Tokens.pack(CLIPS)}).to("meta")
    assert batch.inputs["text"].values.is_meta
    assert batch.present["text"].is_meta
    assert batch.ids == ("x", "y", "z")


def test_chunks_hold_the_clips_in_order():
    batch = Batch(("x", "y", "z"), {"text": Tokens.pack(CLIPS)})
    chunks = batch.chunks(2)
    assert [chunk.ids for chunk in chunks] == [("x", "y"), ("z",)]
    assert [chunk.inputs["text"].lengths.tolist() for chunk in chunks] == [[3, 0], [1]]
    assert [chunk.inputs["text"].values[:, 0].tolist() for chunk in chunks] == [[3, 3, 3], [1]]
    assert chunks[1].inputs["text"].longest == 1
    assert [chunk.targets for chunk in chunks] == [{}, {}]


def test_targets_go_along_with_their_clips():
    targets = {"label": torch.tensor([4, 5, 6]), "answers": [["a"], [], ["b", "c"]]}
    batch = Batch(("x", "y", "z"), {"text": Tokens.pack(CLIPS)}, targets=targets)
    first, second = batch.chunks(2)
    assert first.targets["label"].tolist() == [4, 5] and second.targets["label"].tolist() == [6]
    assert second.targets["answers"] == [["b", "c"]]
    moved = batch.to("meta")
    assert moved.targets["label"].is_meta and moved.targets["answers"] == targets["answers"]


def test_features_travel_in_float16_and_become_float32_on_the_device():
    rows = [torch.ones(2, 3).half(), torch.ones(1, 3).half()]
    tokens = Tokens.pack([rows[0], torch.zeros(0, 3), rows[1]])  # an absent one is float32
    assert tokens.values.dtype == torch.float16
    batch = Batch(("a", "b", "c"), {"video": tokens})
    assert batch.chunks(2)[0].inputs["video"].values.dtype == torch.float16
    moved = batch.to("cpu").inputs["video"]
    assert moved.values.dtype == torch.float32
    assert moved.values.equal(tokens.values.float())
    assert Tokens.pack([torch.zeros(0, 3), torch.zeros(0, 3)]).values.shape == (0, 3)


def test_numbered_tokens_of_texts_stay_in_the_memory_of_the_cpu():
    tokens = Tokens.pack([torch.ones(2, 2, dtype=torch.int32)]).to("meta")
    assert tokens.values.device.type == "cpu"
    assert tokens.lengths.device.type == "meta"
