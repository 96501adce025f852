import pytest
import torch

from fusion.losses import LOSSES, CombinatorialLoss, nce

NAMES = ("text", "video", "audio")
TERMS = {"t|v": 1.0, "t|a": 0.1, "v|a": 0.1, "t|va": 0.1, "v|ta": 0.1, "a|tv": 0.1}


def embeddings(count=6):
    generator = torch.Generator().manual_seed(0)
    return {
        c: torch.randn(count, 5, generator=generator).requires_grad_()
        for c in ["t", "v", "a", "tv", "ta", "va"]
    }


def presence(count=6, **missing):
    present = {name: torch.ones(count, dtype=torch.bool) for name in NAMES}
    for name, clips in missing.items():
        present[name][clips] = False
    return present


def test_it_is_the_weighted_mean_of_its_terms():
    inputs = embeddings()
    value, terms = CombinatorialLoss(NAMES, TERMS)(inputs, presence())
    expected = sum(TERMS[t] * nce(*(inputs[c] for c in t.split("|"))) for t in TERMS)
    torch.testing.assert_close(value, expected / sum(TERMS.values()))
    assert list(terms) == list(TERMS)


@pytest.mark.parametrize("missing", NAMES)
def test_a_clip_takes_part_in_exactly_the_terms_that_do_not_need_what_it_lacks(missing):
    inputs = embeddings()
    loss = CombinatorialLoss(NAMES, TERMS)
    for term, (left, right) in loss.pairs.items():
        alone = CombinatorialLoss(NAMES, {term: 1.0})
        value, _ = alone(inputs, presence(**{missing: [2]}))
        gradients = torch.autograd.grad(value, (inputs[left], inputs[right]))
        takes_part = [bool(gradient[2].any()) for gradient in gradients]
        needed = missing[0] in left + right
        assert takes_part == [not needed, not needed], term


@pytest.mark.parametrize("missing", NAMES)
def test_kept_a_clip_takes_part_in_each_term_if_it_has_something_on_both_sides(missing):
    inputs = embeddings()
    for term in TERMS:
        alone = CombinatorialLoss(NAMES, {term: 1.0}, keep_incomplete=True)
        left, right = alone.pairs[term]
        value, _ = alone(inputs, presence(**{missing: [2]}))
        gradients = torch.autograd.grad(value, (inputs[left], inputs[right]))
        takes_part = [bool(gradient[2].any()) for gradient in gradients]
        has_both = missing[0] not in (left, right)
        assert takes_part == [has_both, has_both], term


def test_a_term_that_no_clip_can_serve_leaves_sum_and_weights():
    inputs = embeddings()
    value, terms = CombinatorialLoss(NAMES, TERMS)(inputs, presence(audio=slice(None)))
    assert [term for term, value in terms.items() if not value.isnan()] == ["t|v"]
    torch.testing.assert_close(value, nce(inputs["t"], inputs["v"]))


def test_a_batch_that_serves_no_term_gives_a_zero_that_can_be_differentiated():
    inputs = embeddings()
    nothing = presence(text=slice(None), video=slice(None))
    value, terms = CombinatorialLoss(NAMES, TERMS)(inputs, nothing)
    value.backward()
    assert value.item() == 0
    assert all(term.isnan() for term in terms.values())
    assert not inputs["t"].grad.any()


def test_a_weight_of_zero_leaves_the_term_out():
    loss = CombinatorialLoss(NAMES, TERMS | {"t|a": 0})
    assert "t|a" not in loss.pairs
    assert len(loss.pairs) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"terms": {"t|x": 1}}, "unknown modality 'x'"),
        ({"terms": {"tv|va": 1}}, "overlapping combinations: video"),
        ({"terms": {}}, "loss.terms is empty"),
        ({"terms": {"t|v": 0}}, "no term with a weight above 0"),
        ({"terms": {"t|v": -1}}, "'t\\|v' must be at least 0; got -1"),
        ({"terms": {"t|v": 1}, "contrastive": "triplet"}, "'triplet'; choose from"),
        (
            {"terms": {"t|v": 1}, "contrastive": "mms", "margin": 3},
            "loss.margin must be between -2 and 2; got 3",
        ),
        ({"terms": {"t|v": 1}, "temperature": 0}, "loss.temperature must be at least 0.003; got 0"),
    ],
)
def test_wrong_settings_are_explained(arguments, message):
    with pytest.raises(ValueError, match=message):
        CombinatorialLoss(NAMES, **arguments)


@pytest.mark.parametrize("name", ["combinatorial", "mcn"])
def test_training_can_commit_undo_save_and_load_every_loss(name):
    arguments = {"terms": TERMS} if name == "combinatorial" else {"clusters": 3}
    loss, other = (LOSSES[name](NAMES, **arguments) for _ in range(2))
    assert loss.compares_clips
    assert set(loss.combinations) >= {"t", "v", "a"}
    inputs = embeddings() | {"reconstruction": torch.rand(6, 3)}
    value, _ = loss(inputs, presence())
    loss.undo()
    other.load_state_dict(loss.state_dict())
    torch.testing.assert_close(other(inputs, presence())[0], value)
    other.commit()


def test_checkpoints_without_a_state_of_the_loss_still_open():
    CombinatorialLoss(NAMES, TERMS).load_state_dict(None)
