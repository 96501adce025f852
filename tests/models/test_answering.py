import math

import pytest
import torch
from torch.testing import assert_close

from fusion.models.answering import FUSIONS, AnswerModel
from fusion.tokens import Tokens

SMALL = {"token_dim": 16, "embedding_dim": 12, "num_heads": 2}
SPECS = {"text": {"dim": 6}, "image": {"encoder": {"name": "cnn", "widths": [8, 16]}}}


def make(num_answers=5, specs=SPECS, **options):
    torch.manual_seed(0)
    return AnswerModel(specs, num_answers, **(SMALL | options)).eval()


def inputs(images=(1, 1, 1), words=(3, 2, 4), side=16):
    torch.manual_seed(1)
    pictures = [torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8) for n in images]
    texts = [torch.randn(n, 6) for n in words]
    return {"text": Tokens.pack(texts), "image": Tokens.pack(pictures)}


@pytest.mark.parametrize(
    ("fusion", "pool"), [*((fusion, "mean") for fusion in FUSIONS), ("transformer", "max")]
)
def test_a_question_is_answered_alone(fusion, pool):
    model, given = make(fusion=fusion, pool=pool), inputs(images=(1, 0, 1))
    scores = model(given)["answers"]
    assert scores.shape == (3, 5)
    for i in range(3):
        alone = model({name: tokens.part(i, i + 1) for name, tokens in given.items()})["answers"]
        assert_close(scores[i : i + 1], alone, atol=1e-5, rtol=0)


def test_the_order_of_words_counts():
    model, given = make(), inputs(images=(1,), words=(4,))
    turned = given | {"text": given["text"].replace(given["text"].values.flip(0))}
    assert not torch.allclose(model(given)["answers"], model(turned)["answers"], atol=1e-4)


@pytest.mark.parametrize("turn", [(2,), (3,)])
def test_the_place_in_the_image_counts(turn):
    """Both axes: whole cells of the feature map change places, which only places can tell."""
    model, given = make(specs=SPECS | {"image": {"encoder": {"name": "cnn", "widths": [8]}}}), {}
    flat = torch.randint(0, 256, (1, 3, 1, 1), dtype=torch.uint8).expand(1, 3, 8, 8).clone()
    flat[:, :, :2, :2] = 255  # a light corner, as wide as a cell and its edge are not
    given = inputs(images=(1,), words=(4,)) | {"image": Tokens.pack([flat])}
    other = given | {"image": Tokens.pack([flat.flip(turn)])}
    assert not torch.allclose(model(given)["answers"], model(other)["answers"], atol=1e-6)
    for encoder in model.eao.encoders.values():
        torch.nn.init.zeros_(encoder.places.project.weight)
        encoder.net[0].weight.data = (encoder.net[0].weight + encoder.net[0].weight.flip(2)) / 2
        encoder.net[0].weight.data = (encoder.net[0].weight + encoder.net[0].weight.flip(3)) / 2
    assert_close(model(given)["answers"], model(other)["answers"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_blocks", [1, 2])
def test_it_looks_where_the_attention_of_the_words_is(num_blocks):
    model, given = make(num_blocks=num_blocks), inputs(images=(1,), words=(3,))
    found = model.look(given)
    # By hand: the tokens side by side, text first, through the blocks.
    tokens = {m: model.eao._tokenize(m, model._ordered(given)[m], 1).values for m in SPECS}
    x, heads = torch.cat([tokens["text"], tokens["image"]]), SMALL["num_heads"]
    for block in model.eao.transformers["shared"].blocks:
        q, k, v = block.attention.qkv(block.norm1(x)).chunk(3, dim=-1)
        maps, mixed = [], []
        for h in range(heads):
            part = slice(h * 16 // heads, (h + 1) * 16 // heads)
            maps.append((q[:, part] @ k[:, part].T / math.sqrt(16 // heads)).softmax(dim=-1))
            mixed.append(maps[-1] @ v[:, part])
        x = x + block.attention.out(torch.cat(mixed, dim=-1))
        x = x + block.mlp(block.norm2(x))
    seen = torch.stack(maps)[:, :3, 3:].mean(dim=(0, 1))
    assert_close(found, seen / seen.sum(), atol=1e-5, rtol=0)


def test_it_looks_nowhere_without_image_question_or_fusion():
    assert make().look(inputs(images=(0,), words=(2,))) is None
    assert make().look(inputs(images=(1,), words=(0,))) is None
    assert make(fusion="late").look(inputs(images=(1,), words=(2,))) is None


def test_late_scores_are_the_mean_of_single_ones():
    model, given = make(fusion="late"), inputs()
    parts = model.eao(model._ordered(given))
    mean = (model.heads["t"](parts["t"]) + model.heads["i"](parts["i"])) / 2
    assert_close(model(given)["answers"], mean)


def test_video_and_sound_answer_with_the_same_head():
    specs = {"text": {"dim": 6}, "video": {"dim": 4}, "audio": {"dim": 3}}
    model = make(specs=specs)
    given = {m: Tokens.pack([torch.randn(2, spec["dim"])]) for m, spec in specs.items()}
    assert model(given)["answers"].shape == (1, 5)
    assert model.num_answers == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "sum"}, "model.fusion: unknown 'sum'; choose from transformer"),
        ({"specs": {}}, "model.modalities is empty"),
        ({"init_std": 0}, "init_std must be above 0, or none; got 0"),
        ({"pool": "sum"}, r"pool must be one of \['mean', 'max'\]; got 'sum'"),
        (
            {"specs": {"text": {"dim": 3}, "image": {"encoder": {"name": "cnn", "widths": [0]}}}},
            "widths must be",
        ),
    ],
)
def test_a_wrong_model_is_explained(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_the_first_weights_follow_from_the_width_if_no_deviation_is_given():
    """Glorot's uniform distribution: variance 2 / (inputs + outputs)."""
    for std in (0.02, None):
        torch.manual_seed(0)
        model = AnswerModel(SPECS, 5, token_dim=64, num_heads=4, init_std=std)
        for layer in model.eao.transformers.modules():
            if isinstance(layer, torch.nn.Linear):
                expected = std or (2 / (layer.in_features + layer.out_features)) ** 0.5
                # Of at least 4,096 draws; the deviation of a deviation is below 1 / sqrt(2 n).
                assert abs(layer.weight.std() / expected - 1) < 5 / (2 * 4096) ** 0.5
                assert not layer.bias.any()


@pytest.mark.parametrize("is_normed", [False, True])
def test_tokens_are_normalised_or_as_they_are_projected(is_normed):
    model = make(token_norm=is_normed, projection="linear")
    words = inputs()["text"]
    tokens = model.eao.tokenize({"text": words})["text"].values
    project = model.eao.token_projections["text"][0]
    expected = words.values @ project.weight.T + project.bias
    if is_normed:
        expected = expected - expected.mean(dim=1, keepdim=True)
        expected = expected / expected.square().mean(dim=1, keepdim=True).sqrt()
    assert_close(tokens, expected, atol=1e-4, rtol=0)
