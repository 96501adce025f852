"""Samples of a scene: an instrument plays a figure, with background noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

SAMPLE_RATE = 16_000
LOWEST_NOTE = (60, 63)  # MIDI numbers; 69 is 440 Hz
PENTATONIC = (0, 2, 4, 7, 9)  # semitones above the lowest note
TEMPO = (0.93, 1.07)
LOUDNESS = (0.12, 0.35)  # of the loudest note; 1 is full scale
SIGNAL_TO_NOISE_DB = (18.0, 35.0)

AMBIENCE = (0.02, 0.035)  # level of a place, root mean square
GUSTS = (0.3, 0.8)  # per second
RUMBLE, LOUDER = 24, 1.4  # samples; level, as low sounds seem less loud


@dataclasses.dataclass(frozen=True)
class Instrument:
    """The sound of a note."""

    ratios: tuple[float, ...]  # frequencies of its partials as multiples of the note's
    levels: tuple[float, ...]  # their amplitudes
    attack: float  # seconds until the note has its full level
    decay: float = 0.0  # per second; 0 sustains the note
    bright_decay: float = 0.0  # per second and partial: higher partials decay faster
    vibrato: float = 0.0  # depth at 5.5 Hz, as a share of the frequency
    breath: float = 0.0  # level of the noise that comes with the note


INSTRUMENTS = {
    "flute": Instrument((1, 2, 3), (1, 0.2, 0.05), 0.05, vibrato=0.008, breath=0.06),
    "trumpet": Instrument(
        tuple(range(1, 11)), (0.5, 0.8, 1, 0.9, 0.75, 0.6, 0.45, 0.35, 0.25, 0.2), 0.03
    ),
    "bell": Instrument((1, 2.76, 5.4, 8.93), (1, 0.7, 0.5, 0.3), 0.002, 3.5, 1.5),
    "guitar": Instrument(tuple(range(1, 9)), tuple(1 / k for k in range(1, 9)), 0.004, 4.0, 1.2),
}

# Seconds from note to note, and scale steps above the lowest note. Both repeat until the scene
# ends, so a part of the scene is enough to recognise them.
RHYTHMS = {"even": (0.2,), "swinging": (0.32, 0.11), "held": (0.5,)}
CONTOURS = {"rising": (0, 2, 4, 6, 8), "falling": (8, 6, 4, 2, 0), "zigzag": (0, 8)}


def render_sounds(
    values: Mapping[str, str], num_samples: int, rng: np.random.Generator, place: str = ""
) -> np.ndarray:
    """Play a scene: (num_samples,) float32, -1 to 1.

    ``rng`` draws all that is neither attribute nor place. Outdoors the wind hisses, indoors a
    machine rumbles.
    """
    onsets = draw_onsets(values["rhythm"], num_samples / SAMPLE_RATE, rng).tolist()
    pitches = draw_pitches(values["contour"], len(onsets) - 1, rng).tolist()
    instrument = INSTRUMENTS[values["timbre"]]
    wave = np.zeros(num_samples, np.float32)
    for start, end, pitch in zip(onsets[:-1], onsets[1:], pitches, strict=True):
        note = play_note(instrument, 440 * 2 ** ((pitch - 69) / 12), end - start, rng)
        first = int(start * SAMPLE_RATE)
        wave[first : first + len(note)] += note[: num_samples - first]
    wave *= np.float32(rng.uniform(*LOUDNESS) / max(np.abs(wave).max(), 1e-6))
    if place:
        wave += AMBIENCES[place](num_samples, rng) * np.float32(rng.uniform(*AMBIENCE))
    else:
        level = np.sqrt(np.mean(wave**2)) * 10 ** (-rng.uniform(*SIGNAL_TO_NOISE_DB) / 20)
        wave += np.float32(level) * rng.standard_normal(num_samples, np.float32)
    return np.clip(wave, -1, 1)


def _hiss(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Noise that is louder the higher its frequency; it swells and fades."""
    noise = np.diff(rng.standard_normal(num_samples + 1, np.float32)) / np.float32(2**0.5)
    turns = rng.uniform(*GUSTS) * np.arange(num_samples, dtype=np.float32) / SAMPLE_RATE
    return noise * (1 + 0.3 * np.sin(2 * np.pi * (turns + np.float32(rng.random()))))


def _rumble(num_samples: int, rng: np.random.Generator) -> np.ndarray:
    """Noise below about 400 Hz."""
    noise = rng.standard_normal(num_samples + 2 * RUMBLE, np.float32)
    total = noise.astype(np.float64)
    for _ in range(2):  # running means
        total = np.cumsum(total)
        total = (total[RUMBLE:] - total[:-RUMBLE]) / RUMBLE
    return (LOUDER * total / total.std()).astype(np.float32)


AMBIENCES = {"outdoors": _hiss, "indoors": _rumble}


def draw_onsets(rhythm: str, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Draw when notes start, in seconds; the last value is where the last note ends."""
    steps = np.resize(RHYTHMS[rhythm], 40) * rng.uniform(*TEMPO)
    steps *= rng.uniform(0.95, 1.05, len(steps))
    onsets = np.append(0, np.cumsum(steps)) + rng.uniform(0.02, 0.2)
    return onsets[onsets < seconds]


def draw_pitches(contour: str, num_notes: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the notes of a scene on a pentatonic scale, as MIDI numbers."""
    steps = np.resize(CONTOURS[contour], num_notes)
    octaves, degrees = np.divmod(steps, len(PENTATONIC))
    return rng.uniform(*LOWEST_NOTE) + 12 * octaves + np.take(PENTATONIC, degrees)


def play_note(
    instrument: Instrument, frequency: float, seconds: float, rng: np.random.Generator
) -> np.ndarray:
    """Play one note: (samples,) float32. Its release overlaps the next note."""
    release = 0.04
    time = np.arange(int((seconds + release) * SAMPLE_RATE), dtype=np.float32) / SAMPLE_RATE
    phase = 2 * np.pi * frequency * time
    if instrument.vibrato:
        wobble = 2 * np.pi * 5.5
        phase -= frequency * instrument.vibrato * 2 * np.pi / wobble * np.cos(wobble * time)
    note = np.zeros_like(time)
    for number, (ratio, level) in enumerate(zip(instrument.ratios, instrument.levels, strict=True)):
        if ratio * frequency < SAMPLE_RATE / 2:
            partial = np.float32(level) * np.sin(np.float32(ratio) * phase)
            fading = instrument.decay + number * instrument.bright_decay
            note += partial * np.exp(np.float32(-fading) * time) if fading else partial
    if instrument.breath:
        note += np.float32(instrument.breath) * rng.standard_normal(len(time), np.float32)
    ends = np.minimum(time / instrument.attack, (time[-1] - time) / release)
    return note * np.clip(ends, 0, 1)
