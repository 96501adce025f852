"""AVLnet and MCN against the numbers of the published models, and what they promise."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fusion.config import load_config
from fusion.convert import convert_name, convert_weights
from fusion.losses import CombinatorialLoss, MCNLoss
from fusion.losses.clusters import assign
from fusion.models import MCN, AVLnet
from fusion.tokens import Tokens
from tests import golden_cases as golden

MODALITIES = ["text", "video", "audio"]
RECIPE = Path(__file__).parents[2] / "configs/howto100m/avlnet_eao.yaml"


def modalities_of(case, num_frames):
    kwargs, davenet = case["kwargs"], case["davenet"]
    encoder = {"name": "davenet", "version": 1, "num_frames": num_frames}
    return {
        "text": {"dim": kwargs["we_dim"], "max_tokens": 20},
        "video": {"dim": kwargs["video_dim"]},
        "audio": {"encoder": encoder | {"widths": davenet["widths"]}},
    }


def avlnet():
    case, expected = golden.read_case("avlnet")
    recipe = load_config(RECIPE)["model"]
    modalities = modalities_of(case, 256)
    modalities["video"]["max_tokens"] = recipe["modalities"]["video"]["max_tokens"]
    options = {name: recipe[name] for name in set(recipe) - {"name", "modalities", "embedding_dim"}}
    model = AVLnet(modalities, case["kwargs"]["embd_dim"], **options)
    model.load_state_dict(convert_weights(golden.published_weights(case)))
    inputs = golden.read_inputs(case, MODALITIES)
    loss = CombinatorialLoss(MODALITIES, {"t|v": 1.0, "t|a": 1.0, "v|a": 1.0})
    return case, expected, model, inputs, loss


def mcn_inputs(expected):
    arrays = {k: torch.from_numpy(expected[f"in.{k}"]) for k in ("video", "audio", "text")}
    ones, words = torch.ones(16, dtype=torch.int64), torch.full((16,), 20)
    frames = torch.from_numpy(expected["in.nframes"])
    return {
        "text": Tokens.unpad(arrays["text"], words),
        "video": Tokens(arrays["video"], ones, ones),
        "audio": Tokens.unpad(arrays["audio"].mT.contiguous(), frames),
    }


def mcn():
    case, expected = golden.read_case("mcn")
    kwargs = case["kwargs"]
    model = MCN(modalities_of(case, 256), kwargs["embd_dim"], kwargs["recon_size"])
    model.load_state_dict(convert_weights(golden.published_weights(case)))
    loss = MCNLoss(
        MODALITIES,
        margin=case["margin"],
        clusters=case["clusters"],
        queue_batches=3,
        queue_stride=1,
        every=1,
        cluster_weight=case["cluster_weight"],
        reconstruction_weight=case["reconstruction_weight"],
    )
    queue = torch.from_numpy(expected["queue"])
    centroids = torch.from_numpy(expected["centroids_before"])
    valid = torch.ones(len(queue), dtype=torch.bool)
    empty = torch.zeros((), dtype=torch.int64)
    loss.load_state_dict(
        {
            "step": 1,
            "batches": 3,
            "queue": queue,
            "valid": valid,
            "centroids": centroids,
            "empty": empty,
        }
    )
    # Here what comes after the end of the sound is not zeros, but never was it in a real batch.
    whole = torch.from_numpy(expected["in.audio"])
    net = model.branches["audio"].encoder.net
    net.register_forward_pre_hook(lambda module, arguments: (whole,))
    return case, expected, model, mcn_inputs(expected), loss


def check_gradients(case, expected, model):
    gradients = {name: p.grad for name, p in model.named_parameters()}
    seen = 0
    for name in case["state_dict"]:
        ours, key = convert_name(name), f"grad_norm.{name}"
        if key in expected and ours is not None:
            norm = gradients[ours].norm().numpy()
            np.testing.assert_allclose(norm, expected[key], rtol=1e-4, err_msg=name)
            seen += 1
    return seen


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_avlnet_is_the_published_one(mode):
    case, expected, model, inputs, loss = avlnet()
    model.train(mode == "train")
    outputs = model(inputs)
    for letter, name in golden.NAMES.items():
        published = torch.from_numpy(expected[f"{mode}.{name}_embed"])
        torch.testing.assert_close(outputs[letter], published, atol=1e-5, rtol=1e-5)
    value, terms = loss(outputs, {m: inputs[m].present for m in MODALITIES})
    assert value.item() == pytest.approx(float(expected[f"{mode}.loss"]), rel=1e-5)
    for term, name in {"t|v": "tv", "t|a": "ta", "v|a": "va"}.items():
        assert terms[term].item() == pytest.approx(float(expected[f"{mode}.loss.{name}"]), rel=1e-5)
    if mode == "train":
        value.backward()
        assert check_gradients(case, expected, model) == 79
        for name in case["state_dict"]:
            ours = convert_name(name)
            if f"buffer_after.{name}" in expected and ours is not None:
                buffer = model.state_dict()[ours].numpy()
                np.testing.assert_allclose(buffer, expected[f"buffer_after.{name}"], atol=1e-6)


def test_mcn_embeds_as_published():
    _, expected, model, inputs, _ = mcn()
    outputs = model.eval()(inputs)
    for letter, name in golden.NAMES.items():
        published = torch.from_numpy(expected[f"eval.{name}"])
        torch.testing.assert_close(outputs[letter], published, atol=1e-5, rtol=1e-5)
    scores = outputs["t"] @ (outputs["v"] + outputs["a"]).T
    published = torch.from_numpy(expected["eval.text_to_video_audio"])
    torch.testing.assert_close(scores, published, atol=1e-4, rtol=1e-5)


def test_mcn_learns_as_published():
    case, expected, model, inputs, loss = mcn()
    outputs = model.train()(inputs)
    for letter, name in golden.NAMES.items():
        published = torch.from_numpy(expected[f"train.{name}"])
        torch.testing.assert_close(outputs[letter], published, atol=1e-5, rtol=1e-5)
    error = outputs["reconstruction"].sum(dim=1).detach().numpy()
    np.testing.assert_allclose(error, expected["train.reconstruction_error"], rtol=1e-5)
    value, terms = loss(outputs, {m: inputs[m].present for m in MODALITIES})
    pairs = sum(terms[term].item() for term in ("t|v", "t|a", "v|a"))
    assert pairs == pytest.approx(float(expected["train.pairwise_loss"]), rel=1e-5)
    for term in ("cluster", "reconstruction"):
        assert terms[term].item() == pytest.approx(float(expected[f"train.{term}_loss"]), rel=1e-5)
    assert value.item() == pytest.approx(float(expected["train.loss"]), rel=1e-5)
    value.backward()
    assert check_gradients(case, expected, model) == 91
    loss.commit()
    centroids = loss.state_dict()["centroids"]
    np.testing.assert_allclose(centroids.numpy(), expected["train.centroids"], atol=1e-5)
    fused = torch.stack([outputs[letter].detach() for letter in golden.NAMES]).mean(dim=0)
    np.testing.assert_allclose(fused.numpy(), expected["train.fused"], atol=1e-5)
    labels = assign(torch.cat([torch.from_numpy(expected["queue"]), fused]), centroids)
    np.testing.assert_array_equal(labels.numpy(), expected["train.labels"])
