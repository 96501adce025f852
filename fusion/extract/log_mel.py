"""The log-mel spectrogram of sound of any length, in little memory.

:func:`fusion.data.media.log_mel.log_mel` holds the spectra of the whole sound at once, 1.4 GiB for
an hour; here the samples wait in a temporary file for their mean, and are read block by block.

Shapes: S samples at 16 kHz, T spectrogram frames of 10 ms, 40 mel bands.
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusion.data.media.log_mel import HOP, NUM_MELS, WINDOW, mel_filter_bank

# As in fusion.data.media.log_mel; a test holds the two together.
_PRE_EMPHASIS = 0.97
_SMALLEST_POWER = 1e-10
_RANGE = 80.0  # dB below the loudest value
_BLOCK = 2000  # frames at a time
_HALF = WINDOW // 2


class Spectrogram:
    """Takes samples piece by piece, gives the spectrogram of all."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by end)
        self._sum, self._count = 0.0, 0

    def push(self, samples: NDArray[np.float32]) -> None:
        """Take (S,) samples at 16 kHz."""
        self._sum += float(samples.sum(dtype=np.float64))
        self._count += len(samples)
        self._file.write(samples.data.cast("B"))

    def end(self) -> Tensor:
        """Return (T, 40) float16, see :func:`fusion.data.media.log_mel.log_mel`."""
        with self._file as file:
            file.flush()
            if not self._count:
                return torch.zeros(0, NUM_MELS, dtype=torch.float16)
            wave = np.memmap(file, np.float32, "r", shape=(self._count,))
            mean = self._sum / self._count
            return log_mel_in_blocks(wave, mean).half()


def log_mel_in_blocks(wave: NDArray[Any], mean: float, block: int = _BLOCK) -> Tensor:
    """Compute what ``log_mel`` does, ``block`` frames at a time.

    Args:
        wave: (S,) float32, S > 0; may lie in a file.
        mean: of the wave.
        block: frames.

    Returns:
        (1 + max(S, 201) // 160, 40) float32.
    """
    num_frames = 1 + max(len(wave), _HALF + 1) // HOP
    window = torch.hamming_window(WINDOW, periodic=False)
    bank = mel_filter_bank()
    decibel = torch.empty(num_frames, NUM_MELS)
    for first in range(0, num_frames, block):
        last = min(first + block, num_frames)
        begin, end = first * HOP - _HALF, (last - 1) * HOP + _HALF
        samples = torch.from_numpy(_stretch(wave, mean, begin, end))
        spectrum = torch.stft(
            samples, WINDOW, HOP, window=window, center=False, return_complex=True
        )  # (201, frames)
        power = spectrum.real.square() + spectrum.imag.square()
        decibel[first:last] = 10 * (bank @ power).clamp(min=_SMALLEST_POWER).log10().T
    return decibel.sub_(decibel.max()).clamp_(min=-_RANGE)


def _stretch(wave: NDArray[Any], mean: float, begin: int, end: int) -> NDArray[np.float32]:
    """Return samples ``begin`` to ``end``, emphasised; what lies outside is reflected."""
    size = max(len(wave), _HALF + 1)
    before, after = max(0, -begin), max(0, end - size)
    parts = [_emphasised(wave, mean, max(begin, 0), min(end, size))]
    if before:
        parts.insert(0, _emphasised(wave, mean, 1, before + 1)[::-1])
    if after:
        parts.append(_emphasised(wave, mean, size - 1 - after, size - 1)[::-1])
    return np.concatenate(parts)


def _emphasised(wave: NDArray[Any], mean: float, begin: int, end: int) -> NDArray[np.float32]:
    """Return samples from ``begin`` on with their mean removed and pre-emphasis, then silence."""
    samples = wave[max(begin - 1, 0) : end].astype(np.float32) - np.float32(mean)
    emphasised = samples[1:] - np.float32(_PRE_EMPHASIS) * samples[:-1]
    if begin == 0:
        emphasised = np.concatenate([samples[:1], emphasised])
    return np.pad(emphasised, (0, end - begin - len(emphasised)))
