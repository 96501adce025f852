"""The log-mel spectrogram of AVLnet and EAO, in plain torch.

Equal to librosa 0.8.1 as arXiv:2006.09199 used it; today's defaults of librosa differ by up to
38 dB. Sound of any length is computed block by block.

Shapes: S samples at 16 kHz, T spectrogram frames of 10 ms, 40 mel bands, 201 frequencies.
"""

from __future__ import annotations

import functools
import math
import tempfile

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fusion.data.media import SAMPLE_RATE as RATE

HOP = 160  # samples from one frame to the next
WINDOW = 400  # samples of one frame
NUM_MELS = 40

_HALF = WINDOW // 2
_BLOCK = 2000  # spectrogram frames computed at a time
_LOWEST = 20.0  # hertz
_PRE_EMPHASIS = 0.97
_SMALLEST_POWER = 1e-10
_RANGE = 80.0  # dB; values further below the loudest are raised
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
    """
    if wave.ndim != 1:
        raise ValueError(f"a wave must be mono, of shape (S,); got {tuple(wave.shape)}")
    if len(wave) == 0:
        return torch.zeros(0, NUM_MELS, device=wave.device)
    return _in_blocks(wave, float(wave.float().mean()))


class Spectrogram:
    """Take samples piece by piece and return :func:`log_mel` of all of them.

    A temporary file holds the samples until their mean is known: the spectra of an hour of sound
    would take 1.4 GiB of memory.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by end)
        self._sum, self._count = 0.0, 0

    def push(self, samples: NDArray[np.float32]) -> None:
        """Take (S,) samples at 16 kHz."""
        self._sum += float(samples.sum(dtype=np.float64))
        self._count += len(samples)
        self._file.write(samples.data.cast("B"))

    def end(self) -> Tensor:
        """Return (T, 40) float16."""
        with self._file as file:
            file.flush()
            if not self._count:
                return torch.zeros(0, NUM_MELS, dtype=torch.float16)
            wave = torch.from_numpy(np.memmap(file, np.float32, "c", shape=(self._count,)))
            return _in_blocks(wave, self._sum / self._count, _BLOCK).half()


def _in_blocks(wave: Tensor, mean: float, block: int | None = None) -> Tensor:
    """Compute the (T, 40) spectrogram of (S,) samples, S > 0, ``block`` frames at a time."""
    size = max(len(wave), _HALF + 1)  # reflection needs as many
    num_frames = 1 + size // HOP
    window = torch.hamming_window(WINDOW, periodic=False, device=wave.device)
    block = block or num_frames
    bank = mel_filter_bank().to(wave.device)
    decibel = torch.empty(num_frames, NUM_MELS, device=wave.device)
    for first in range(0, num_frames, block):
        last = min(first + block, num_frames)
        samples = _stretch(wave, mean, size, first * HOP - _HALF, (last - 1) * HOP + _HALF)
        spectrum = torch.stft(
            samples, WINDOW, HOP, window=window, center=False, return_complex=True
        )  # (201, frames)
        power = spectrum.real.square() + spectrum.imag.square()
        decibel[first:last] = 10 * (bank @ power).clamp(min=_SMALLEST_POWER).log10().T
    return decibel.sub_(decibel.max()).clamp_(min=-_RANGE)


def _stretch(wave: Tensor, mean: float, size: int, begin: int, end: int) -> Tensor:
    """Return emphasised samples ``begin`` to ``end``, reflected outside of 0 to ``size``."""
    before, after = max(0, -begin), max(0, end - size)
    parts = [_emphasised(wave, mean, max(begin, 0), min(end, size))]
    if before:
        parts.insert(0, _emphasised(wave, mean, 1, before + 1).flip(0))
    if after:
        parts.append(_emphasised(wave, mean, size - 1 - after, size - 1).flip(0))
    return torch.cat(parts)


def _emphasised(wave: Tensor, mean: float, begin: int, end: int) -> Tensor:
    """Return samples from ``begin`` on, mean removed and pre-emphasised, then silence."""
    samples = wave[max(begin - 1, 0) : end].float() - mean
    emphasised = samples[1:] - _PRE_EMPHASIS * samples[:-1]
    if begin == 0:
        emphasised = torch.cat([samples[:1], emphasised])
    return F.pad(emphasised, (0, end - begin - len(emphasised)))


@functools.cache
def mel_filter_bank() -> Tensor:
    """Return (40, 201) weights: triangles of equal area, evenly spaced on Slaney's mel scale."""
    frequency = torch.linspace(0, RATE / 2, _HALF + 1, dtype=torch.float64)
    mels = torch.linspace(_mel(_LOWEST), _mel(RATE / 2), NUM_MELS + 2, dtype=torch.float64)
    curved = _CORNER * ((mels - _CORNER / _MEL_STEP) * _LOG_STEP).exp()
    edges = torch.where(mels < _CORNER / _MEL_STEP, mels * _MEL_STEP, curved)  # in hertz
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (frequency - low) / (centre - low)
    falling = (high - frequency) / (high - centre)
    triangles = torch.minimum(rising, falling).clamp(min=0)
    return (triangles * 2 / (high - low)).float()


def _mel(hertz: float) -> float:
    if hertz < _CORNER:
        return hertz / _MEL_STEP
    return _CORNER / _MEL_STEP + math.log(hertz / _CORNER) / _LOG_STEP


def spectrogram_range(start: float, end: float) -> tuple[int, int]:
    """Return the first spectrogram frame of a window in seconds, and the one after its last."""
    first, last = ((int(second * RATE) - _HALF) // HOP for second in (start, end))
    return max(0, first), max(0, last)


def spectrogram_seconds(num_frames: int) -> float:
    """Return the duration of the sound that a spectrogram of this length was made of."""
    return (num_frames * HOP + _HALF) / RATE
