"""The models and batches that are measured."""

import torch

from fusion.losses import CombinatorialLoss
from fusion.models import EAO
from fusion.tokens import Tokens

TEXT_TOKENS, VIDEO_TOKENS, AUDIO_TOKENS = 20, 12, 12  # as published
FRAMES = 768  # of a spectrogram: 12 tokens of DAVEnet version 2
BANDS = 40
TERMS = {"t|v": 1.0, "t|a": 0.1, "v|a": 0.1, "t|va": 0.1, "v|ta": 0.1, "a|tv": 0.1}
WIDTHS = {"paper": 4096, "small": 1024, "tiny": 128}  # of tokens


def make_model(size, davenet, device, batchnorm_group=None):
    """Build EAO in the published size (arXiv:2112.04446), or a quarter as wide."""
    width = WIDTHS[size]
    share = 4096 // width
    widths = [w // share for w in (128, 128, 256, 512, 1024, 2048, 4096)]
    encoder = {"name": "davenet", "version": 2, "num_frames": FRAMES, "widths": widths}
    encoder["batchnorm_group"] = batchnorm_group
    modalities = {
        "text": {"dim": 300},
        "video": {"dim": 4096},
        "audio": {"encoder": encoder} if davenet else {"dim": width},
    }
    with torch.device("meta"):
        model = EAO(
            modalities,
            ["t", "v", "a", "tv", "ta", "va"],
            token_dim=width,
            embedding_dim=width * 3 // 2,
            num_heads=width // 64,
        )
    if device.type == "meta":
        return model.train()
    model = model.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                parameter.normal_(std=fan_in**-0.5, generator=generator)
            else:
                parameter.fill_(1.0 if "norm" in name or "bn" in name else 0.0)
                parameter.add_(torch.randn(parameter.shape, device=device) * 0.02)
        for name, buffer in model.named_buffers():
            buffer.fill_(1 if name.endswith("running_var") else 0)
    return model.train()


def make_loss():
    """Build the six terms of the paper."""
    return CombinatorialLoss(("text", "video", "audio"), TERMS)


def make_inputs(size, davenet, batch, fill, device):
    """Draw a batch; ``fill`` is the share of the text tokens that is used."""
    generator = torch.Generator().manual_seed(1)
    words = spread_lengths(batch, fill)
    audio = (FRAMES, BANDS) if davenet else (AUDIO_TOKENS, WIDTHS[size])
    inputs = {
        "text": Tokens.pack([torch.randn(n, 300, generator=generator) for n in words]),
        "video": _full(batch, VIDEO_TOKENS, 4096, generator),
        "audio": _full(batch, *audio, generator),
    }
    return {name: tokens.to(device) for name, tokens in inputs.items()}


def spread_lengths(batch, fill):
    """Spread the lengths of texts evenly around their mean; one has all tokens."""
    mean = fill * TEXT_TOKENS
    reach = min(mean - 1, TEXT_TOKENS - mean)
    lengths = torch.linspace(mean - reach, mean + reach, batch).round().int().tolist()
    return [*lengths[:-1], TEXT_TOKENS]


def _full(batch, length, width, generator):
    values = torch.randn(batch * length, width, generator=generator)
    lengths = torch.full((batch,), length)
    return Tokens(values, lengths, lengths)
