"""The log-mel spectrogram of AVLnet and EAO, in plain torch.

Equal to librosa 0.8.1 as arXiv:2006.09199 used it; librosa's defaults of today differ by up to
38 dB.

Shapes: S samples at 16 kHz, T spectrogram frames of 10 ms, 40 mel bands, 201 frequencies.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

RATE = 16_000  # samples per second
HOP = 160  # samples from one frame to the next
WINDOW = 400  # samples of one frame
NUM_MELS = 40

_LOWEST = 20.0  # hertz
_PRE_EMPHASIS = 0.97
_SMALLEST_POWER = 1e-10
_RANGE = 80.0  # dB below the loudest value that are told apart
_MEL_STEP = 200 / 3  # hertz per mel, up to the corner
_CORNER = 1000.0  # hertz; above it the scale is logarithmic
_LOG_STEP = math.log(6.4) / 27  # per mel, above the corner


def log_mel(wave: Tensor) -> Tensor:
    """Compute the spectrogram of a sound in dB below its loudest value.

    Mean removed, pre-emphasis 0.97, symmetric Hamming windows of 25 ms, centred with reflection,
    power, 40 Slaney mel bands from 20 Hz to 8 kHz. Silence is 0 dB throughout, as published.

    Args:
        wave: (S,) samples at 16 kHz of any scale; fewer than 201 are padded with silence.

    Returns:
        (1 + max(S, 201) // 160, 40) float32 within [-80, 0]; (0, 40) for no samples.

    Raises:
        ValueError: another shape.
    """
    if wave.ndim != 1:
        raise ValueError(f"a wave must be mono, of shape (S,); got {tuple(wave.shape)}")
    if len(wave) == 0:
        return torch.zeros(0, NUM_MELS, device=wave.device)
    wave = wave.float() - wave.float().mean()
    wave = torch.cat([wave[:1], wave[1:] - _PRE_EMPHASIS * wave[:-1]])
    wave = F.pad(wave, (0, max(0, WINDOW // 2 + 1 - len(wave))))  # reflection needs as many
    window = torch.hamming_window(WINDOW, periodic=False, device=wave.device)
    spectrum = torch.stft(
        wave, WINDOW, HOP, window=window, center=True, pad_mode="reflect", return_complex=True
    )  # (201, T)
    power = spectrum.real.square() + spectrum.imag.square()
    mel = mel_filter_bank().to(wave.device) @ power  # (40, T)
    decibel = 10 * mel.clamp(min=_SMALLEST_POWER).log10()
    decibel = decibel - decibel.max()
    return decibel.clamp(min=-_RANGE).T.contiguous()  # (T, 40)


@functools.cache
def mel_filter_bank() -> Tensor:
    """Return the (40, 201) weights of the mel bands: triangles of equal area, after Slaney.

    Edges are evenly spaced from 20 Hz to 8 kHz on the mel scale of Slaney's Auditory Toolbox.
    """
    frequency = torch.linspace(0, RATE / 2, WINDOW // 2 + 1, dtype=torch.float64)
    edges = torch.linspace(_mel(_LOWEST), _mel(RATE / 2), NUM_MELS + 2, dtype=torch.float64)
    edges = _hertz(edges)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (frequency - low) / (centre - low)
    falling = (high - frequency) / (high - centre)
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return (triangles * 2 / (high - low)).float()


def _mel(hertz: float) -> float:
    if hertz < _CORNER:
        return hertz / _MEL_STEP
    return _CORNER / _MEL_STEP + math.log(hertz / _CORNER) / _LOG_STEP


def _hertz(mel: Tensor) -> Tensor:
    corner = _CORNER / _MEL_STEP
    curved = _CORNER * ((mel - corner) * _LOG_STEP).exp()
    return torch.where(mel < corner, mel * _MEL_STEP, curved)


def spectrogram_range(start: float, end: float) -> tuple[int, int]:
    """Return the first spectrogram frame of a window and the one after its last.

    Args:
        start: seconds.
        end: seconds.
    """
    return max(0, _spectrogram_frame(start)), max(0, _spectrogram_frame(end))


def spectrogram_seconds(num_frames: int) -> float:
    """Return the duration of the sound that a spectrogram of this length was made of."""
    return (num_frames * HOP + WINDOW // 2) / RATE


def _spectrogram_frame(seconds: float) -> int:
    return (int(seconds * RATE) - WINDOW // 2) // HOP
