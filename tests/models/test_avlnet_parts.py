"""What of AVLnet and MCN no golden case has: fusion, sums, missing modalities, who takes part."""

import pytest
import torch

from fusion.losses import CombinatorialLoss, MCNLoss
from fusion.models import MCN, AVLnet
from fusion.tokens import Tokens

MODALITIES = {"text": {"dim": 5, "max_tokens": 2}, "video": {"dim": 6}, "audio": {"dim": 7}}
# Each clip but the first lacks one modality.
LENGTHS = {"text": [2, 1, 2, 0], "video": [2, 1, 0, 3], "audio": [3, 0, 2, 1]}
WIDTH = 8


def inputs(*names):
    generator = torch.Generator().manual_seed(0)
    return {
        name: Tokens.pack(
            [
                torch.randn(length, MODALITIES[name]["dim"], generator=generator).double()
                for length in LENGTHS[name]
            ]
        )
        for name in names or MODALITIES
    }


def build(kind=AVLnet, **options):
    torch.manual_seed(1)
    return kind(MODALITIES, WIDTH, **options).double()


def gated(unit, x):
    return swish(unit.gate, unit.project.weight @ x + unit.project.bias)


def swish(gate, y):
    return y / (1 + torch.exp(-(gate.weight @ y + gate.bias)))


def pooled_by_hand(model, name, clip):
    """One clip's vector of a modality, before any gate; zeros stand for what it lacks."""
    branch, dim = model.branches[name], MODALITIES[name]["dim"]
    tokens = clip if len(clip) else torch.zeros(1, dim).double()
    if name == "video":
        return torch.stack([column.max() for column in tokens.T])
    if name == "audio":
        return sum(tokens) / len(tokens)
    sentence = [*clip, *torch.zeros(2 - len(clip), dim).double()]
    words = [(branch.project.weight @ w + branch.project.bias).clamp(min=0) for w in sentence]
    return torch.stack([column.max() for column in torch.stack(words).T])


def embedded_by_hand(model, name, clip):
    """One clip's embedding of a modality, where it is embedded by itself."""
    branch, x = model.branches[name], pooled_by_hand(model, name, clip)
    x = gated(branch.gate, x)
    return branch.project.weight @ x + branch.project.bias if name == "audio" else x


def for_each_clip(by_hand, model, batch, name):
    clips = batch[name].values.split(LENGTHS[name])
    return torch.stack([by_hand(model, name, clip) for clip in clips])


def test_each_modality_is_embedded_as_published_and_in_training_also_where_it_is_missing():
    model, batch = build().train(), inputs()
    for letter, embedding in model(batch).items():
        name = {"t": "text", "v": "video", "a": "audio"}[letter]
        expected = for_each_clip(embedded_by_hand, model, batch, name)
        torch.testing.assert_close(embedding, expected)


def test_text_and_sound_are_fused_as_published():
    model, batch = build(fuse_text_audio=True).train(), inputs()
    text = for_each_clip(pooled_by_hand, model, batch, "text")
    audio = for_each_clip(pooled_by_hand, model, batch, "audio")
    narrow, join, expected = model.branches["audio"].project, model.join, []
    for words, sound in zip(text, audio, strict=True):  # half as wide as the embedding, no gates
        sound = narrow.weight @ sound + narrow.bias
        assert len(words) == len(sound) == WIDTH // 2
        y = join.project_text.weight @ words + join.project_text.bias
        y = y + join.project_audio.weight @ sound + join.project_audio.bias
        expected.append(swish(join.gate, y))
    outputs = model(batch)
    assert set(outputs) == {"ta", "v"}
    torch.testing.assert_close(outputs["ta"], torch.stack(expected))


def test_a_sum_is_that_of_the_embeddings_of_its_parts():
    model = build(sums=["va", "tva"]).train()
    outputs = model(inputs())
    torch.testing.assert_close(outputs["va"], outputs["v"] + outputs["a"])
    torch.testing.assert_close(outputs["tva"], outputs["t"] + outputs["v"] + outputs["a"])
    assert set(model(inputs(), ["va"])) == {"va"}


def test_in_evaluation_what_a_clip_lacks_is_zero_and_nothing_else_changes():
    model, batch = build(sums=["va"]), inputs()
    trained, outputs = model.train()(batch), model.eval()(batch)
    for letter, name in {"t": "text", "v": "video", "a": "audio"}.items():
        there = batch[name].present
        torch.testing.assert_close(outputs[letter][there], trained[letter][there])
        assert not outputs[letter][~there].any()
        assert trained[letter][~there].any()
    torch.testing.assert_close(outputs["va"][1], outputs["v"][1])  # has no sound
    torch.testing.assert_close(outputs["va"][2], outputs["a"][2])  # has no pictures


def test_in_evaluation_text_and_sound_are_zero_where_either_is_missing():
    outputs = build(fuse_text_audio=True).eval()(inputs())
    assert outputs["ta"].any(dim=1).tolist() == [True, False, True, False]


@pytest.mark.parametrize("kind", [AVLnet, MCN])
def test_a_modality_that_is_left_out_is_missing_in_every_clip(kind):
    model, batch = build(kind).train(), inputs("text", "video")
    silent = Tokens.pack([torch.zeros(0, 7).double()] * 4)
    expected, outputs = model(batch | {"audio": silent}), model(batch)
    assert set(outputs) == set(expected)
    for name, values in outputs.items():
        torch.testing.assert_close(values, expected[name])


def test_mcn_says_in_training_how_well_each_modality_can_be_undone():
    model, batch = build(MCN, reconstruction_dim=3), inputs()
    outputs = model.train()(batch)
    for place, name in enumerate(MODALITIES):
        first, _, last, _ = model.reconstruct[name]
        hidden = (outputs[name[0]] @ first.weight.T + first.bias).clamp(min=0)
        undone = (hidden @ last.weight.T + last.bias).clamp(min=0)
        wanted = for_each_clip(pooled_by_hand, model, batch, name)
        errors = ((undone - wanted) ** 2).sum(dim=1) / wanted.shape[1]
        torch.testing.assert_close(outputs["reconstruction"][:, place], errors)
    assert set(model.eval()(batch)) == set("tva")
    assert set(build(MCN, reconstruction_dim=0).train()(batch)) == set("tva")


def loss_of(kind, presence):
    if kind == "avlnet":
        terms = {"t|v": 1.0, "t|a": 1.0, "v|a": 1.0}
        return CombinatorialLoss(list(MODALITIES), terms, "mms_dot", presence=presence)
    weights = {"cluster_weight": 0, "reconstruction_weight": 0} | {kind: 2.0}
    return MCNLoss(list(MODALITIES), clusters=2, queue_batches=0, presence=presence, **weights)


@pytest.mark.parametrize("kind", ["avlnet", "cluster_weight", "reconstruction_weight"])
@pytest.mark.parametrize("presence", [None, {"audio": "video"}])
def test_a_silent_clip_is_in_terms_of_sound_if_presence_says_so_and_only_then(kind, presence):
    generator = torch.Generator().manual_seed(0)
    outputs = {x: torch.randn(6, WIDTH, generator=generator).requires_grad_() for x in "tva"}
    outputs["reconstruction"] = torch.rand(6, 3, generator=generator).requires_grad_()
    whole = {name: torch.ones(6, dtype=torch.bool) for name in MODALITIES}
    silent = whole | {"audio": torch.arange(6) != 2}
    value, _ = loss_of(kind, presence)(outputs, silent)
    value.backward()
    stays = presence is not None
    assert bool(outputs["a"].grad[2].any()) == stays
    if kind == "reconstruction_weight":
        assert outputs["reconstruction"].grad[2].bool().tolist() == [True, True, stays]
    published, _ = loss_of(kind, None)(outputs, whole)  # whose code has no masks at all
    assert torch.allclose(value, published) == stays


@pytest.mark.parametrize("kind", ["avlnet", "cluster_weight"])
def test_presence_of_an_unknown_modality_is_an_error(kind):
    with pytest.raises(ValueError, match="loss.presence: unknown modality 'smell'; choose from"):
        loss_of(kind, {"smell": "video"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modalities": {"smell": {"dim": 3}}}, "no branch for 'smell'; choose from text, video"),
        ({"modalities": {"text": None, "audio": None}}, "needs two or more of text, video, audio"),
        ({"modalities": {"text": {"max_tokens": 3}}}, "modalities.text needs dim, the width"),
        ({"modalities": {"video": {}}}, "modalities.video needs dim, the width of its features"),
        ({"modalities": {"video": {"dim": 6, "max_token": 3}}}, "video has an unknown key 'max_to"),
        ({"modalities": {"text": None}, "fuse_text_audio": True}, "needs text, video and audio in"),
        ({"embedding_dim": 7, "fuse_text_audio": True}, "an even embedding_dim; got 7"),
        ({"fuse_text_audio": True, "sums": ["va"]}, "sums have no parts where text and sound are"),
        ({"sums": ["vx"]}, "combination 'vx' names an unknown modality 'x'"),
    ],
)
def test_arguments_that_contradict_one_another_are_an_error(change, message):
    modalities = MODALITIES | change.get("modalities", {})
    with pytest.raises(ValueError, match=message):
        AVLnet(**{"embedding_dim": WIDTH} | change | {"modalities": modalities})


def test_a_combination_that_is_not_embedded_is_an_error():
    with pytest.raises(ValueError, match="not embed the combination 'tv'; choose from t, v, a, va"):
        build(sums=["va"])(inputs(), ["t", "tv"])
    with pytest.raises(ValueError, match="not embed the combination 'a'; choose from ta, v"):
        build(fuse_text_audio=True)(inputs(), ["a"])
