"""A batch in chunks against the same batch whole: loss, gradients, running statistics, memory."""

import weakref

import pytest
import torch
from accelerate import Accelerator

from fusion.losses import CombinatorialLoss
from fusion.models import EAO
from fusion.models.batchnorm import one_update
from fusion.tokens import Batch, Tokens
from fusion.training.gradcache import accumulate, backward_in_chunks

NAMES = ("text", "video", "audio")
TERMS = {"t|v": 1.0, "t|a": 0.5, "v|a": 0.5, "t|va": 1.0, "v|ta": 0.1, "a|tv": 0.1}
COUNT, GROUP = 12, 2
LACKING = {
    "nothing": {},
    "some": {"text": [0, 5], "video": [1], "audio": [2, 3]},
    "a whole chunk": {"audio": [0, 1, 2, 3]},
    "a whole modality": {"audio": range(COUNT)},
}


def make_batch(lacking, dtype):
    generator = torch.Generator().manual_seed(0)
    widths, longest = {"text": 6, "video": 7, "audio": 40}, {"text": 5, "video": 4, "audio": 32}
    clips = {}
    for name in NAMES:
        lengths = torch.randint(1, longest[name] + 1, (COUNT,), generator=generator)
        lengths[list(lacking.get(name, []))] = 0
        clips[name] = [
            torch.randn(n, widths[name], generator=generator, dtype=dtype) for n in lengths.tolist()
        ]
    inputs = {name: Tokens.pack(each) for name, each in clips.items()}
    return Batch(tuple(map(str, range(COUNT))), inputs)


def make_model(dtype, group=GROUP, frozen=False):
    torch.manual_seed(0)
    encoder = {"name": "davenet", "version": 1, "num_frames": 32, "widths": [4, 4, 4, 8, 8]}
    encoder |= {"batchnorm_group": group, "batchnorm_frozen": frozen}
    modalities = {"text": {"dim": 6}, "video": {"dim": 7}, "audio": {"encoder": encoder}}
    model = EAO(modalities, ["t", "v", "a", "tv", "ta", "va"], 16, 10, num_heads=2)
    return model.to(dtype).train()


def run(size, lacking="nothing", dtype=torch.float64, accelerator=None, **changes):
    model, batch = make_model(dtype, **changes), make_batch(LACKING[lacking], dtype)
    loss = CombinatorialLoss(NAMES, TERMS)
    with one_update(model):
        value, terms = backward_in_chunks(
            accelerator or Accelerator(cpu=True),
            model,
            lambda clips: model(clips.inputs, loss.combinations, skip_incomplete=True),
            loss,
            batch.chunks(size),
        )
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return value, terms, gradients, dict(model.named_buffers())


def largest_difference(ours, theirs):
    return max(
        ((ours[k] - theirs[k]).norm() / theirs[k].norm().clamp(min=1e-12)).item()
        for k in theirs
        if theirs[k].is_floating_point() and theirs[k].norm() > 1e-9
    )


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("frozen", [False, True], ids=["groups", "frozen"])
@pytest.mark.parametrize("lacking", LACKING)
def test_chunks_change_nothing(lacking, frozen, dtype, allowed):
    value, terms, gradients, buffers = run(8, lacking, dtype, frozen=frozen)
    whole, whole_terms, expected, whole_buffers = run(COUNT, lacking, dtype, frozen=frozen)
    torch.testing.assert_close(value, whole, rtol=allowed, atol=0)
    torch.testing.assert_close(terms, whole_terms, rtol=allowed, atol=0, equal_nan=True)
    assert gradients.keys() == expected.keys()
    assert largest_difference(gradients, expected) < allowed
    assert largest_difference(buffers, whole_buffers) < allowed


def test_plain_batchnorm_would_fail_that():
    _, _, gradients, _ = run(4, group=None)
    _, _, expected, _ = run(COUNT, group=None)
    assert largest_difference(gradients, expected) > 0.01


def test_accumulating_the_losses_of_chunks_would_fail_that():
    model, batch = make_model(torch.float64), make_batch({}, torch.float64)
    loss = CombinatorialLoss(NAMES, TERMS)
    for chunk in batch.chunks(4):
        (loss(model(chunk.inputs), chunk.present)[0] / 3).backward()
    naive = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    _, _, expected, _ = run(COUNT)
    assert largest_difference(naive, {n: expected[n] for n in naive}) > 0.1


def test_a_chunk_that_cuts_a_group_is_refused():
    with pytest.raises(ValueError, match="3 clips cannot be cut into groups of 2"):
        run(3)


def test_a_mean_over_clips_is_embedded_once_and_adds_up():
    model, batch = make_model(torch.float64), make_batch({}, torch.float64)
    calls = []

    def embed(clips):
        calls.append(len(clips.ids))
        return model(clips.inputs, ["t", "va"])

    def loss(outputs, present):
        value = (outputs["t"] * outputs["va"]).sum(dim=1).exp().mean()
        return value, {"product": value}

    results = []
    for size in (COUNT, 8):
        model.zero_grad()
        value, terms = accumulate(Accelerator(cpu=True), embed, loss, batch.chunks(size))
        torch.testing.assert_close(terms["product"], value)
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        results.append((value, gradients))
    torch.testing.assert_close(results[1], results[0], rtol=1e-10, atol=1e-14)
    assert calls == [12, 8, 4]


class Scaling:
    """An accelerator in fp16: its gradients are times a scale until the end of the step."""

    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    device = torch.device("cpu")

    def backward(self, loss):
        self.scaler.scale(loss).backward()


def test_a_scale_is_in_the_gradient_once():
    expected = run(COUNT)[2]
    scaled = run(4, accelerator=Scaling())[2]
    assert largest_difference({n: g / 1024 for n, g in scaled.items()}, expected) < 1e-10


def test_bfloat16_goes_through_chunks():
    """As exact as bfloat16 is: the products of chunks may be rounded in another order."""
    expected = run(COUNT, dtype=torch.float32)[2]
    with torch.autocast("cpu", torch.bfloat16):
        whole, cut = (run(size, dtype=torch.float32)[2] for size in (COUNT, 4))

    def distance(ours, theirs):
        difference = sum((ours[n] - theirs[n]).square().sum() for n in theirs)
        return (difference / sum(g.square().sum() for g in theirs.values())).sqrt().item()

    assert distance(cut, whole) < 0.2 * distance(whole, expected) + 1e-3


def test_the_embeddings_of_all_chunks_are_gone_when_they_are_embedded_again():
    model, batch = make_model(torch.float64), make_batch({}, torch.float64)
    leaves, alive = [], []

    def embed(clips):
        alive.append([leaf() is not None for leaf in leaves])
        return model(clips.inputs, ["t", "v"])

    def loss(outputs, present):
        leaves.extend(weakref.ref(leaf) for leaf in outputs.values())
        return (outputs["t"] * outputs["v"]).sum().square(), {}

    backward_in_chunks(Accelerator(cpu=True), model, embed, loss, batch.chunks(4))
    assert alive == [[]] * 3 + [[False, False]] * 3


def test_the_largest_chunk_comes_first():
    model, batch = make_model(torch.float64), make_batch({}, torch.float64)
    chunks, seen = batch.chunks(4), []

    def embed(clips):
        seen.append(clips.ids[0])
        return model(clips.inputs, ["t", "v"])

    def loss(outputs, present):
        return (outputs["t"] * outputs["v"]).sum().square(), {}

    backward_in_chunks(Accelerator(cpu=True), model, embed, loss, chunks)
    sizes = {c.ids[0]: sum(t.values.numel() for t in c.inputs.values()) for c in chunks}
    expected = sorted(sizes, key=sizes.get, reverse=True)
    assert expected != [c.ids[0] for c in chunks]
    assert seen == [*expected, *expected]


def test_outputs_without_a_gradient_go_through_chunks():
    model, batch = make_model(torch.float64), make_batch({}, torch.float64)

    def embed(clips):
        outputs = model(clips.inputs, ["t", "v"])
        return outputs | {"v": outputs["v"].detach(), "number": torch.arange(len(clips.ids))}

    def loss(outputs, present):
        return (outputs["t"] * outputs["v"] * outputs["number"][:, None]).sum(), {}

    value, _ = backward_in_chunks(
        Accelerator(cpu=True), model, embed, loss, batch.chunks(COUNT // 2)
    )
    assert value.isfinite()
    assert any(p.grad is not None and p.grad.any() for p in model.parameters())
