"""Published files of AVLnet and MCN: to a folder that gives the golden numbers."""

from pathlib import Path

import pytest
import torch

from fusion.checkpoint import load_weights
from fusion.config import choose, load_config
from fusion.convert import convert_checkpoint
from fusion.models import MODELS
from tests import golden_cases as golden
from tests.models.test_avlnet import avlnet, mcn

OURS = {"avlnet": avlnet, "mcn": mcn}
RECIPES = Path(__file__).parents[2] / "configs/howto100m"


def load(folder):
    section = load_config(folder / "config.yaml")["model"]
    section["modalities"]["audio"]["encoder"]["num_frames"] = 256
    model = choose("model", section, MODELS)()
    load_weights(model, folder)
    return model.eval()


def check_pretraining(config, recipe):
    """Hold the config of a converted model against the recipe of its pre-training."""
    published = load_config(RECIPES / f"{recipe}.yaml", ["data_root=x"])
    audio = [c["model"]["modalities"]["audio"]["encoder"] for c in (config, published)]
    assert audio[0]["num_frames"] == audio[1]["num_frames"]
    assert config["model"]["mean_over_padding"] is True
    assert published["model"].get("mean_over_padding", True) is True  # MCN's default
    assert config["data"]["max_video_tokens"] == published["data"]["max_video_tokens"] == 0
    assert config["loss"]["presence"] == published["loss"]["presence"]
    for key in ("epochs", "batch_size", "learning_rate", "schedule"):
        assert config["trainer"][key] == published["trainer"][key]


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_published_file_gives_the_golden_numbers(name, prefix, tmp_path):
    case, _ = golden.read_case(name)
    state = {prefix + k: v for k, v in golden.published_weights(case).items()}
    torch.save(state, tmp_path / "file.pth")
    said = convert_checkpoint(tmp_path / "file.pth", tmp_path / "out")
    assert "embedding_dim 40" in said
    assert "dropped   DAVEnet.batchnorm1" in said
    _, _, model, inputs, _ = OURS[name]()
    expected, got = model.eval()(inputs), load(tmp_path / "out")
    if name == "avlnet":  # what weights do not show: how EAO's authors fed it
        got.branches["video"].normalize, got.branches["video"].max_tokens = True, 12
    else:
        whole = torch.from_numpy(golden.read_case("mcn")[1]["in.audio"])
        net = got.branches["audio"].encoder.net
        net.register_forward_pre_hook(lambda module, arguments: (whole,))
    outputs = got(inputs)
    for combination in expected:
        torch.testing.assert_close(outputs[combination], expected[combination], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "said", "recipe"),
    [
        ({}, "found     text: ", "avlnet_text"),
        ({"drop": "text"}, "found     avlnet: embedding_dim 40", "avlnet"),
        ({"fuse": True}, "fuse_text_audio True", "avlnet_text_fused"),
    ],
)
def test_the_variant_is_seen_in_the_weights(change, said, recipe, tmp_path):
    case, _ = golden.read_case("avlnet")
    state = golden.published_weights(case)
    if "drop" in change:
        state = {k: v for k, v in state.items() if "text" not in k}
    if "fuse" in change:
        state = {k: v for k, v in state.items() if "GU_text" not in k}
        halves = ("DAVEnet_projection.", "text_pooling_caption.")
        state = {k: v[:20] if k.startswith(halves) else v for k, v in state.items()}
        for part, shape in {"fc_audio": 20, "fc_text": 20, "cg.fc": 40}.items():
            state[f"GU_audio_text.{part}.weight"] = torch.randn(40, shape)
            state[f"GU_audio_text.{part}.bias"] = torch.randn(40)
    torch.save(state, tmp_path / "file.pth")
    report = convert_checkpoint(tmp_path / "file.pth", tmp_path / "out")
    assert said in report
    assert ("found     text: " in report) == (recipe != "avlnet")
    assert ("fuse_text_audio True" in report) == ("fuse" in change)
    assert ("GU_audio" in report) == ("fuse" in change)  # its gate is there and never read
    model = load(tmp_path / "out")
    config = load_config(tmp_path / "out" / "config.yaml")
    assert {c for term in config["loss"]["terms"] for c in term.split("|")} <= {*model.combinations}
    check_pretraining(config, recipe)
    assert ("avlnet_eao.yaml" in report) == (recipe == "avlnet_text")


def test_mcn_has_the_config_that_it_was_pre_trained_with(tmp_path):
    case, _ = golden.read_case("mcn")
    torch.save(golden.published_weights(case), tmp_path / "file.pth")
    report = convert_checkpoint(tmp_path / "file.pth", tmp_path / "out")
    assert "assumed   mean_over_padding True (as in the published pre-training)" in report
    assert "assumed   one video token, the maximum over time, each kind of features" in report
    check_pretraining(load_config(tmp_path / "out" / "config.yaml"), "mcn")


def test_a_file_that_is_no_whole_model_is_one_line(tmp_path):
    case, _ = golden.read_case("mcn")
    state = golden.published_weights(case)
    del state["recon_a.0.weight"]
    torch.save(state, tmp_path / "file.pth")
    with pytest.raises(ValueError, match="reconstruct.audio.0.weight is absent there"):
        convert_checkpoint(tmp_path / "file.pth", tmp_path / "out")
    state["smell.weight"] = torch.ones(1)
    torch.save(state, tmp_path / "file.pth")
    with pytest.raises(ValueError, match="'smell.weight' belongs to no published EAO"):
        convert_checkpoint(tmp_path / "file.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()
