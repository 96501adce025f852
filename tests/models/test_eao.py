"""What the method promises, whatever the weights."""

import pytest
import torch

from fusion.losses import CombinatorialLoss
from fusion.models import EAO, compile_parts
from fusion.tokens import Tokens

LENGTHS = {"text": [3, 5, 0, 2], "video": [4, 0, 2, 1], "audio": [40, 64, 9, 0]}
WIDTHS = {"text": 6, "video": 7, "audio": 40}
COMBINATIONS = ["t", "v", "a", "tv", "ta", "va", "tva"]
ENCODER = {"name": "davenet", "version": 1, "num_frames": 64, "widths": [4, 4, 4, 8, 8]}


def build(**changes):
    torch.manual_seed(0)
    modalities = {"text": {"dim": 6}, "video": {"dim": 7}, "audio": {"encoder": ENCODER}}
    arguments = {"modalities": modalities, "combinations": COMBINATIONS, "token_dim": 16}
    arguments |= {"embedding_dim": 10, "num_heads": 2} | changes
    return EAO(**arguments).eval()


def clips(lengths=LENGTHS):
    generator = torch.Generator().manual_seed(1)
    return {
        m: [torch.randn(n, WIDTHS[m], generator=generator) for n in lengths[m]] for m in lengths
    }


def batch(features):
    return {modality: Tokens.pack(sequences) for modality, sequences in features.items()}


@pytest.fixture(scope="module")
def model():
    return build()


def test_embeddings_of_single_modalities_have_unit_norm(model):
    embeddings = model(batch(clips()))
    for letter in "tva":
        torch.testing.assert_close(embeddings[letter].norm(dim=1), torch.ones(4))
    assert (embeddings["tva"].norm(dim=1) < 1).all()  # an average of different unit vectors


@pytest.mark.parametrize("modality", ["text", "video"])
def test_f14_padding_never_reaches_an_embedding(model, modality):
    inputs = batch(clips())
    plain = model(inputs)
    longer = clips()  # a fifth clip, longer than all: the others are padded to its length
    for m, sequences in longer.items():
        sequences.append(torch.ones(30 if m == modality else 1, WIDTHS[m]))
    padded = model(batch(longer))
    for combination in COMBINATIONS:
        torch.testing.assert_close(padded[combination][:4], plain[combination], rtol=0, atol=1e-6)


SIX = {"t|v": 1.0, "t|a": 0.5, "v|a": 0.5, "t|va": 1.0, "v|ta": 0.1, "a|tv": 0.1}


def loss_and_gradients(model, skip_incomplete, inputs, keep_incomplete=False):
    model.zero_grad()
    loss = CombinatorialLoss(model.modalities, SIX, keep_incomplete=keep_incomplete)
    embeddings = model(inputs, loss.combinations, skip_incomplete)
    value, _ = loss(embeddings, {m: tokens.present for m, tokens in inputs.items()})
    value.backward()
    gradients = {
        n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for n, p in model.named_parameters()
    }
    return embeddings, value.detach(), gradients


@pytest.mark.parametrize("keep", [False, True])
def test_the_masking_token_learns_if_the_loss_keeps_incomplete_clips(keep):
    _, _, gradients = loss_and_gradients(build(), False, batch(clips()), keep)
    assert bool(gradients["masking_token"].any()) == keep


@pytest.mark.parametrize("changes", [{}, {"num_blocks": 2}, {"num_blocks": 0}], ids=str)
def test_clips_that_no_term_reads_can_be_left_out(changes):
    model = build(**changes).train()
    for encoder in model.encoders.values():
        encoder.eval()
    some, value, gradients = loss_and_gradients(model, True, batch(clips()))
    all_clips, expected, expected_gradients = loss_and_gradients(model, False, batch(clips()))
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-4, atol=1e-6)
    for combination, embedding in some.items():
        complete = [
            all(LENGTHS[m][clip] for m in LENGTHS if m[0] in combination) for clip in range(4)
        ]
        torch.testing.assert_close(embedding[complete], all_clips[combination][complete])
        assert not embedding[[not c for c in complete]].any()


def test_what_is_left_out_is_not_computed(monkeypatch):
    rows = {}
    for skip_incomplete in (True, False):
        model = build()
        mlp = model.transformers["shared"].blocks[0].mlp[0]
        mlp.register_forward_hook(lambda m, x, y, key=skip_incomplete: rows.update({key: len(y)}))
        model(batch(clips()), ["t", "v", "tv"], skip_incomplete)
    assert rows[False] == (3 + 5 + 1 + 2) * 2 + (4 + 1 + 2 + 1) * 2  # 1: the masking token
    assert rows[True] == (3 + 5 + 2) + (4 + 2 + 1) + (3 + 4) + (2 + 1)


@pytest.mark.slow
def test_compiled_parts_give_the_same_numbers():
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph

    model, plain = build().train(), build().train()
    compile_parts(model, backend)
    for lengths in (LENGTHS, {m: [1, *n] for m, n in LENGTHS.items()}):
        (embeddings, value, gradients), expected = (
            loss_and_gradients(m, True, batch(clips(lengths))) for m in (model, plain)
        )
        torch.testing.assert_close(embeddings, expected[0])
        torch.testing.assert_close((value, gradients), expected[1:])
    count = len(compiled)
    assert count
    assert model.state_dict().keys() == plain.state_dict().keys()
    model.eval()(batch(clips()))
    assert len(compiled) == count  # not in evaluation


@pytest.mark.parametrize("gone", ["text", "video", "audio"])
def test_f17_a_batch_without_a_modality_trains_the_others(gone):
    model = build().train()
    inputs = batch(clips() | {gone: [torch.zeros(0, WIDTHS[gone])] * 4})
    _, value, gradients = loss_and_gradients(model, True, inputs)
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert not gradients[f"heads.{gone}.project.weight"].any()


@pytest.mark.parametrize("skip_incomplete", [True, False])
def test_a_step_never_asks_the_device_for_a_number(skip_incomplete):
    model = build().to("meta").train()  # meta tensors have shapes and no numbers to ask for
    inputs = {m: tokens.to("meta") for m, tokens in batch(clips()).items()}
    _, value, _ = loss_and_gradients(model, skip_incomplete, inputs)
    assert value.is_meta


@pytest.mark.parametrize("modality", ["text", "video", "audio"])
def test_a_modality_does_not_leak_into_combinations_without_it(model, modality):
    features = clips()
    before = model(batch(features))
    features[modality] = [values + 1 for values in features[modality]]
    after = model(batch(features))
    for combination in COMBINATIONS:
        same = after[combination].equal(before[combination])
        assert same == (modality[0] not in combination), combination


def test_clips_do_not_see_each_other(model):
    together = model(batch(clips()))
    for clip in range(4):
        alone = model({m: tokens.part(clip, clip + 1) for m, tokens in batch(clips()).items()})
        for combination in COMBINATIONS:
            torch.testing.assert_close(
                alone[combination][0], together[combination][clip], rtol=0, atol=1e-6
            )


def test_the_order_of_words_does_not_matter_without_positions(model):
    features = clips()
    before = model(batch(features), ["t"])["t"]
    features["text"] = [words.flip(0) for words in features["text"]]
    torch.testing.assert_close(model(batch(features), ["t"])["t"], before)


def test_the_order_of_words_matters_with_positions():
    modalities = {"text": {"dim": 6, "max_tokens": 5}}
    model = build(modalities=modalities, combinations=["t"], positional=True)
    features = {"text": clips()["text"]}
    before = model(batch(features))["t"]
    features["text"] = [words.flip(0) for words in features["text"]]
    assert not torch.allclose(model(batch(features))["t"], before)


def test_a_modality_may_be_left_out_of_the_inputs(model):
    inputs = batch(clips())
    without = {m: tokens for m, tokens in inputs.items() if m != "audio"}
    empty = inputs | {"audio": Tokens.pack([torch.zeros(0, 40)] * 4)}
    for combination in COMBINATIONS:
        torch.testing.assert_close(
            model(without)[combination], model(empty)[combination], rtol=0, atol=1e-6
        )


def test_only_what_is_asked_for_is_computed(model):
    embeddings = model({"text": batch(clips())["text"]}, ["t"])
    assert list(embeddings) == ["t"]


def test_f17_missing_modalities_are_seen_as_the_masking_token():
    model = build()
    inputs = batch(clips())
    before = model(inputs)
    with torch.no_grad():
        model.masking_token += 1
    after = model(inputs)
    for combination in COMBINATIONS:
        changed = (after[combination] != before[combination]).any(dim=1).tolist()
        lacking = [
            any(LENGTHS[m][clip] == 0 for m in LENGTHS if m[0] in combination) for clip in range(4)
        ]
        assert changed == lacking, combination


def test_four_modalities_under_other_names():
    names = {"depth": 3, "speech": 4, "image": 5, "pose": 6}
    model = EAO({n: {"dim": d} for n, d in names.items()}, ["d", "sip", "dsip"], 8, 4, num_heads=2)
    embeddings = model({n: Tokens.pack([torch.randn(2, d)] * 3) for n, d in names.items()})
    assert {c: tuple(e.shape) for c, e in embeddings.items()} == {
        "d": (3, 4),
        "ips": (3, 4),
        "dips": (3, 4),
    }


def test_spectrograms_longer_than_configured_are_cut(model):
    features = clips()
    cut = model(batch(features), ["a"])["a"]
    features["audio"][1] = torch.cat([features["audio"][1], torch.ones(500, 40)])
    torch.testing.assert_close(model(batch(features), ["a"])["a"], cut, rtol=0, atol=1e-6)


TEXT = {"text": {"dim": 6}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_dim": 18, "num_heads": 4}, "token_dim \\(18\\) must be a multiple of num_heads"),
        ({"combinations": ["t", "x"]}, "unknown modality 'x'"),
        ({"combinations": []}, "model.combinations is empty"),
        ({"combinations": ["t", "v"]}, "modality 'audio' is in no combination"),
        ({"num_blocks": -1}, "num_blocks must be at least 0, no transformer; got -1"),
        ({"projection": "mlp"}, "projection must be one of \\['gated', 'linear'\\]; got 'mlp'"),
        ({"cls_token": True}, "cls_token needs shared_head"),
        ({"transformer_per_modality": True}, "cannot embed the combination 'tv'"),
        ({"positional": True}, "need model.modalities.text.max_tokens"),
        ({"modalities": {"text": {}}, "combinations": ["t"]}, "text needs either dim or encoder"),
        ({"modalities": {"text": {"dims": 6}}, "combinations": ["t"]}, "unknown key 'dims'"),
        (
            {"modalities": {"audio": {"encoder": {"name": "net"}}}, "combinations": ["a"]},
            "audio.encoder.name: unknown 'net'; did you mean 'davenet'",
        ),
        (
            {
                "modalities": {"audio": {"encoder": ENCODER | {"num_frames": 70}}},
                "combinations": "a",
            },
            "num_frames \\(70\\) must be a multiple of 16",
        ),
        (
            {"modalities": {"audio": {"encoder": ENCODER | {"widths": [4]}}}, "combinations": "a"},
            "version 1 needs 5 widths; got \\[4\\]",
        ),
        (
            {"modalities": {"audio": {"encoder": ENCODER | {"frames": 1}}}, "combinations": "a"},
            "audio.encoder: .*unexpected keyword argument 'frames'",
        ),
    ],
)
def test_wrong_settings_are_explained(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_more_tokens_than_positions_is_explained():
    modalities = {"text": {"dim": 6, "max_tokens": 4}}
    model = build(modalities=modalities, combinations=["t"], positional=True)
    with pytest.raises(ValueError, match="5 text tokens, but there are positions for 4"):
        model({"text": batch(clips())["text"]})


def test_a_final_norm_adds_its_weights_and_changes_nothing_else():
    """So models and checkpoints from before stay as they were."""
    plain, normed = build().state_dict(), build(final_norm=True).state_dict()
    added = ["transformers.shared.final_norm.weight", "transformers.shared.final_norm.bias"]
    assert [name for name in normed if name not in plain] == added
    assert all(torch.equal(normed[name], tensor) for name, tensor in plain.items())
    build(final_norm=False).load_state_dict(plain)


def test_a_final_norm_takes_away_what_is_added_to_every_value_of_a_token():
    one = batch(clips({"text": [1], "video": [0], "audio": [0]}))
    for final_norm in (True, False):
        model = build(final_norm=final_norm)
        before = model(one, ["t"])["t"]
        with torch.no_grad():
            for name in ("attention.out", "mlp.2"):
                model.get_submodule(f"transformers.shared.blocks.0.{name}").bias += 3.0
        after = model(one, ["t"])["t"]  # each value of the token is larger by the same number
        assert torch.allclose(before, after, atol=1e-5) == final_norm


def test_without_blocks_there_is_nothing_more_to_normalise():
    plain, normed = (build(num_blocks=0, final_norm=flag) for flag in (False, True))
    assert plain.state_dict().keys() == normed.state_dict().keys()
    inputs = batch(clips())
    for combination, embedding in normed(inputs).items():
        assert torch.equal(embedding, plain(inputs)[combination])
