"""TSM against numbers of the published code, through the conversion of its checkpoints."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from fusion.convert.tsm import convert_tsm_name, convert_tsm_weights, detect_tsm
from fusion.models.tsm import TSM, shift, temporal_pool
from tests.golden_cases import GOLDEN, weight

CASE = json.loads((GOLDEN / "tsm.json").read_text())
NUMBERS = np.load(GOLDEN / "tsm.npz")
SMALL = sorted(CASE["cases"])
ROUNDING = 1e-5  # of the largest number: sums of some thousands of products in float32
# Its gradients are 30,000, others 30 to 70: the published logits are 6e-4 from those of float64.
ILL_CONDITIONED = {"tsm_non_local": 100}


def number(name):
    return torch.from_numpy(NUMBERS[name])


def our_name(published):
    return convert_tsm_name(published.removeprefix("module."))


def close(ours, published, tolerance=ROUNDING):
    """Compare; the tolerance is in units of the largest published number."""
    worst = (ours - published).abs().max().item() / published.abs().max().item()
    assert worst <= tolerance


def weights_of(names):
    return {k: torch.as_tensor(weight(k, shape, CASE["seed"])) for k, shape in names.items()}


def build(published, **changes):
    """Build what a state dict is of, with its weights, as the conversion does."""
    names = {name.removeprefix("module."): list(w.shape) for name, w in published.items()}
    section = detect_tsm(names).model | changes
    del section["name"]
    model = TSM(**section)
    model.load_state_dict(convert_tsm_weights(published))
    return model


def case_model(name, **changes):
    return build(weights_of(CASE["cases"][name]["state_dict"]), **changes)


@pytest.mark.parametrize("place", range(len(CASE["shift"])))
def test_shift_and_its_gradient(place):
    setting = CASE["shift"][place]
    sizes = (setting["clips"], setting["frames"])
    x = number(f"shift.{place}.x").unflatten(0, sizes).requires_grad_()
    y = shift(x, setting["div"])
    (dx,) = torch.autograd.grad(y, x, number(f"shift.{place}.dy").unflatten(0, sizes))
    assert y.flatten(0, 1).equal(number(f"shift.{place}.y"))
    assert dx.flatten(0, 1).equal(number(f"shift.{place}.dx"))


def test_temporal_pool():
    sizes = tuple(CASE["temporal_pool"].values())
    y = temporal_pool(number("temporal_pool.x").unflatten(0, sizes))
    assert y.flatten(0, 1).equal(number("temporal_pool.y"))


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_small_networks_in_evaluation(name):
    model, means = case_model(name).eval(), []
    for blocks in model.net.stages():  # none of the cases has attention after a last block
        blocks[-1].register_forward_hook(lambda *args: means.append(args[-1].mean(dim=(2, 3))))
    close(model(number("frames")), number(f"{name}.eval.logits"))
    assert len(means) == 4
    for stage, mean in enumerate(means):
        close(mean, number(f"{name}.eval.layer{stage + 1}.mean"))


@pytest.mark.parametrize(("dtype", "saves"), [(torch.float32, False), (torch.float64, True)])
@pytest.mark.parametrize("name", SMALL)
def test_small_networks_in_training(name, dtype, saves):
    case = CASE["cases"][name]
    scale = ILL_CONDITIONED.get(name, 1)
    model = case_model(name, dropout=0.0, checkpointing=saves).to(dtype).train()
    logits = model(number("frames").to(dtype))
    loss = F.cross_entropy(logits, number("labels"))
    loss.backward()
    close(logits.detach(), number(f"{name}.train.logits"), scale * ROUNDING)
    published_loss = NUMBERS[f"{name}.train.loss"].item()
    assert loss.item() == pytest.approx(published_loss, rel=scale * ROUNDING)
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    for published, norm in case["grad_norm"].items():
        ours = parameters[our_name(published)].grad.norm().item()
        assert ours == pytest.approx(norm, rel=1e-4 * scale), published
    for published, expected in case["buffer_after"].items():
        ours = buffers[our_name(published)]
        found = [ours.sum().item(), ours.norm().item()]
        assert found == pytest.approx(list(expected), rel=ROUNDING), published


@pytest.mark.parametrize("name", SMALL)
def test_the_shifted_convolutions_are_the_published_ones(name):
    model, shifted = case_model(name), CASE["cases"][name]["shifted"]
    found = {n.removesuffix(".shift") for n, _ in model.named_modules() if n.endswith(".shift")}
    assert found == {convert_tsm_name(n).removesuffix(".weight") for n in shifted}
    assert len(model.shifts) == (5 if name == "tsm_block_place" else 0)


@torch.no_grad()
def test_resnet50_names_shapes_and_logits():
    case = CASE["resnet50"]
    model = build(weights_of(case["state_dict"])).eval()
    assert len(model.state_dict()) == case["tensors"]
    x = np.random.default_rng(8).standard_normal((1, 8, 3, 64, 64)).astype(np.float32)
    close(model(torch.from_numpy(x)), number("resnet50.eval.logits"))


@pytest.mark.parametrize("kind", ["tsm", "tsn"])
def test_resnet50_has_the_parameters_and_flop_of_the_plain_network(kind):
    case = CASE["resnet50"]
    with torch.device("meta"):
        model = TSM("resnet50", case["num_class"], shift=kind == "tsm").eval()
        assert sum(p.numel() for p in model.parameters()) == case[f"parameters_{kind}"]
        for frames in (8, 16):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                model(torch.empty(1, frames, 3, 224, 224))
            assert counter.get_total_flops() == case[f"flop_{frames}_frames_{kind}"]


def test_resnet101_shifts_every_second_block():
    case = CASE["resnet101"]
    with torch.device("meta"):
        model = TSM("resnet101", case["num_class"])
    assert len(model.state_dict()) == case["tensors"]
    found = [n.removesuffix(".shift") for n, _ in model.named_modules() if n.endswith(".shift")]
    names = [n.removeprefix("module.").removesuffix(".weight") for n in case["shifted"]]
    assert found == [convert_tsm_name(f"{n}.weight").removesuffix(".weight") for n in names]


@torch.no_grad()
def test_online_mobilenet():
    case = CASE["online"]
    model = build(weights_of(case["state_dict"])).eval()
    assert model.causal
    x = np.random.default_rng(9).standard_normal((5, 3, 64, 64)).astype(np.float32)
    frames, published = torch.from_numpy(x), number("online.logits")
    stream = model.stream()
    close(torch.cat([stream.step(frame[None]) for frame in frames]), published)
    close(model.frame_logits(frames[None])[0], published)
    caches = [list(cache.shape[1:]) for cache in stream.frames.caches.values()]
    assert caches == case["caches"]
    numbered = [block for stage in model.net.stages() for block in stage]
    shifted = [i for i, b in enumerate(numbered) if hasattr(getattr(b, "conv_pw", None), "shift")]
    assert shifted == case["blocks_with_shift"]
