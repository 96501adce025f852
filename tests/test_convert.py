import pytest
import torch

from fusion.convert import convert_eao_name, convert_eao_weights


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
    assert convert_eao_name(published) == ours


def test_the_prefix_of_dataparallel_is_dropped():
    weights = {"module.fusion.masking_token": torch.ones(3)}
    assert list(convert_eao_weights(weights)) == ["masking_token"]


def test_weights_of_other_modalities_are_dropped():
    weights = {"audio_proj.weight": torch.ones(2, 3), "text_proj.weight": torch.ones(2, 3)}
    assert list(convert_eao_weights(weights, ["text", "video"])) == ["heads.text.weight"]


def test_an_unknown_weight_is_an_error():
    with pytest.raises(ValueError, match="'clip.visual.proj' belongs to no published EAO model"):
        convert_eao_weights({"clip.visual.proj": torch.ones(1)})
