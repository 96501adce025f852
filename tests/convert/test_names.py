"""What follows from names and shapes of published weights, and from what a file records."""

import pytest
import torch

from fusion.config import load_config
from fusion.convert import convert_checkpoint, convert_name, convert_weights
from tests import golden_cases as golden
from tests.convert.test_tool import published_config, published_state, save


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("fusion.blocks.1.attn.proj.bias", "transformers.shared.blocks.1.attention.out.bias"),
        ("davenet.layer6.0.downsample.1.bias", "encoders.audio.net.stages.5.0.shortcut.1.bias"),
        ("video_token_proj.cg.fc.weight", "token_projections.video.0.gate.weight"),
        ("text_proj.weight", "heads.text.weight"),
        ("fusion.norm.weight", None),
        ("davenet.batchnorm1.running_mean", None),
        ("fusion_audio.masking_token", None),
    ],
)
def test_names(published, ours):
    assert convert_name(published) == ours


def test_the_prefix_of_dataparallel_is_dropped():
    weights = {"module.fusion.masking_token": torch.ones(3)}
    assert list(convert_weights(weights)) == ["masking_token"]


def test_weights_of_other_modalities_are_dropped():
    weights = {"audio_proj.weight": torch.ones(2, 3), "text_proj.weight": torch.ones(2, 3)}
    assert list(convert_weights(weights, ["text", "video"])) == ["heads.text.weight"]


def test_an_unknown_weight_is_an_error():
    with pytest.raises(ValueError, match="'clip.visual.proj' belongs to no published EAO"):
        convert_weights({"clip.visual.proj": torch.ones(1)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 5}, r"token_dim \(32\) must be a multiple of num_heads \(5\)"),
        ({"num_heads": 0}, r"token_dim \(32\) must be a multiple of num_heads \(0\)"),
        ({"num_heads": None}, "32 wide.* cannot have heads of 64 .*; add --num-heads"),
        ({"drop": "video_norm_layer.bias"}, "video.1.bias is absent there and 32 in the model"),
        ({"drop": "text_norm_layer.weight"}, "'text_norm_layer.weight' is missing"),
        ({"drop": "davenet.layer6."}, r"DAVEnet has the stages \[1, 2, 3, 4, 5\]"),
        ({"add": "video_proj.extra"}, "heads.video.extra is 1 there and absent in the model"),
        ({"add": "smell_proj.weight"}, "'smell_proj.weight' belongs to no published EAO"),
        ({"add": "\x1b[31mred"}, r"'\\x1b\[31mred' belongs to no published EAO, AVLnet or MCN"),
        ({"add": "module.text_proj.fc.bias"}, "'module.text_proj.fc.bias' belongs to no published"),
        ({"reshape": "audio_proj.fc.bias"}, "project.bias is 1x40 there and 40 in the model"),
        ({"linear": "audio_proj"}, "heads.audio.bias is 40 there and absent in the model"),
        ({"linear": "video_token_proj"}, "some projections are gated and others are linear"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_whole_model_leaves_nothing(change, message, tmp_path):
    case, _ = golden.read_case("eao_tva")
    state = published_state(case, prefix="")
    if "drop" in change:
        state = {k: v for k, v in state.items() if not k.startswith(change["drop"])}
    if "add" in change:
        state[change["add"]] = torch.ones(1)
    if "reshape" in change:
        state[change["reshape"]] = state[change["reshape"]][None]
    if "linear" in change:
        name = change["linear"]
        linear = {k.replace(f"{name}.fc", name): v for k, v in state.items()}
        state = {k: v for k, v in linear.items() if not k.startswith(f"{name}.cg")}
    path = save(tmp_path / "file.pth", state)
    with pytest.raises(ValueError, match=message) as error:
        convert_checkpoint(path, tmp_path / "new" / "out", change.get("num_heads", 4))
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file.pth"]


def test_a_record_that_cannot_be_is_not_believed(tmp_path):
    case, _ = golden.read_case("eao_tva")
    config = published_config(case)
    config["data_loader"]["args"]["dataset_kwargs"]["num_audio_STFT_frames"] = 800
    path = save(tmp_path / "file.pth", published_state(case), config)
    assert "assumed   num_frames 768" in convert_checkpoint(path, tmp_path / "a")
    config["arch"]["args"]["fusion_params"] = case["fusion"] | {"num_heads": 7}
    path = save(tmp_path / "file.pth", published_state(case), config)
    with pytest.raises(ValueError, match="the file records none that fits.*; add --num-heads"):
        convert_checkpoint(path, tmp_path / "b")


def test_names_in_a_file_cannot_steer_the_terminal(tmp_path):
    case, _ = golden.read_case("eao_tva")
    path = tmp_path / "file.pth"
    torch.save({"state_dict": published_state(case), "\x1b[2J": 1, "x" * 1000: 2}, path)
    said = convert_checkpoint(path, tmp_path / "out", num_heads=4)
    assert "\x1b" not in said
    assert max(map(len, said.splitlines())) < 300


@pytest.mark.parametrize(("width", "features"), [(1024, "s3d"), (512, "clip"), (48, None)])
def test_the_width_of_video_says_which_features(width, features, tmp_path):
    case, _ = golden.read_case("eao_tva")
    case["state_dict"]["video_token_proj.fc.weight"][1] = width
    path = save(tmp_path / "file.pth", published_state(case))
    convert_checkpoint(path, tmp_path / "out", num_heads=4)
    assert load_config(tmp_path / "out" / "config.yaml")["data"].get("features") == features


def test_text_512_wide_is_of_clip(tmp_path):
    case, _ = golden.read_case("eao_tva")
    case["state_dict"]["text_token_proj.fc.weight"][1] = 512
    path = save(tmp_path / "file.pth", published_state(case))
    convert_checkpoint(path, tmp_path / "out", num_heads=4)
    encoder = load_config(tmp_path / "out" / "config.yaml")["text_encoder"]
    assert encoder == {"name": "clip", "path": "openai/clip-vit-base-patch32", "max_words": 20}


def test_positions_bound_the_tokens(tmp_path):
    """The published evaluation cuts clips to as many tokens as have a position."""
    case, _ = golden.read_case("eao_positional")
    said = convert_checkpoint(save(tmp_path / "f.pth", published_state(case)), tmp_path / "out", 4)
    config = load_config(tmp_path / "out" / "config.yaml")
    assert config["data"]["max_video_tokens"] == 12
    assert config["text_encoder"]["max_words"] == 20
    assert config["model"]["modalities"]["audio"]["encoder"]["max_tokens"] == 4
    assert "audio tokens after the 4 that have a position are cut off" in said
