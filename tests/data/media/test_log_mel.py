from pathlib import Path

import numpy as np
import pytest
import torch

from fusion.data.media import log_mel as spectrogram
from fusion.data.media.log_mel import RATE, Spectrogram, log_mel, mel_filter_bank
from tests.data.media.films import tone

GOLDEN = Path(__file__).parents[2] / "golden"
SIGNALS = ["tone", "noise", "chirp", "silence", "short", "halfsilent"]
TOLERANCE = 5e-3  # dB; the largest deviation seen is 2.3e-3, of the chirp


def golden(signal):
    """A wave (S,) and its spectrogram (T, 40), made with librosa 0.8.1."""
    with np.load(GOLDEN / "log_mel_librosa081.npz") as file:
        wave, expected = file[f"wave_{signal}"], file[f"log_mel_{signal}"]
    return torch.from_numpy(wave), torch.from_numpy(expected.T)


@pytest.mark.parametrize("signal", SIGNALS)
def test_f32_spectrogram_equals_librosa_081(signal):
    wave, expected = golden(signal)
    actual = log_mel(wave)
    assert actual.dtype == torch.float32 and actual.is_contiguous()
    torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE)


def test_spectrogram_equals_the_published_one():
    with np.load(GOLDEN / "log_mel.npz") as file:
        wave, expected = torch.from_numpy(file["wave"]), torch.from_numpy(file["log_mel"].T)
    torch.testing.assert_close(log_mel(wave), expected, rtol=0, atol=1e-3)


def test_filter_bank_equals_librosa_081():
    with np.load(GOLDEN / "log_mel_librosa081.npz") as file:
        expected = torch.from_numpy(file["mel_filter_bank"])
    torch.testing.assert_close(mel_filter_bank(), expected, rtol=0, atol=1e-8)


def test_f32_the_golden_signals_tell_a_periodic_window_apart(monkeypatch):
    """Control: the tolerance above is tight enough to notice the mistake of today's librosa."""
    original = torch.hamming_window
    monkeypatch.setattr(
        spectrogram.torch,
        "hamming_window",
        lambda size, periodic, device: original(size, periodic=True, device=device),
    )
    wave, expected = golden("tone")
    assert (log_mel(wave) - expected).abs().max() > 1


@pytest.mark.parametrize(
    ("samples", "frames"), [(1, 2), (200, 2), (201, 2), (320, 3), (16_000, 101)]
)
def test_any_sound_has_a_frame_per_10_ms(samples, frames):
    spectrum = log_mel(torch.randn(samples))
    assert spectrum.shape == (frames, 40)
    assert spectrum.isfinite().all()
    assert spectrum.max() == 0 and spectrum.min() >= -80


def test_no_sound_has_no_frame():
    assert log_mel(torch.zeros(0)).shape == (0, 40)


def test_loudness_and_offset_do_not_matter():
    wave, _ = golden("noise")
    torch.testing.assert_close(log_mel(0.1 * wave + 0.5), log_mel(wave), rtol=0, atol=0.05)


def test_stereo_is_refused():
    with pytest.raises(ValueError, match=r"must be mono, of shape \(S,\); got \(2, 500\)"):
        log_mel(torch.zeros(2, 500))


@pytest.mark.parametrize("samples", [1, 200, 201, 399, 401, 1600, 16_001, 160 * 300 + 199])
@pytest.mark.parametrize("block", [7, 100, 2000])
def test_a_spectrogram_in_blocks_is_that_of_the_whole(samples, block):
    wave = np.random.default_rng(samples).normal(0.05, 0.1, samples).astype(np.float32)
    expected = log_mel(torch.from_numpy(wave))
    mean = float(wave.mean(dtype=np.float64))
    found = spectrogram._in_blocks(torch.from_numpy(wave), mean, block)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_sound_comes_in_pieces_and_silence_is_silence():
    wave, whole = tone(3), Spectrogram()
    for start in range(0, len(wave), 7001):
        whole.push(wave[start : start + 7001])
    torch.testing.assert_close(
        whole.end(), log_mel(torch.from_numpy(wave)).half(), rtol=0, atol=0.07
    )
    silent = Spectrogram()
    silent.push(np.zeros(RATE, np.float32))
    assert (silent.end() == 0).all()
