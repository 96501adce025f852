"""A film whose picture k shows the number k and whose second s sounds like s: what is read is told.

The corners are red and green, below blue and yellow ("RGBY"); the 16 bits of k are cells of a grid
of 6 rows and 8 columns, in rows 1-4 and columns 2-5, white for 1. Second s is a tone of
300 + 100 s hertz.
"""

import numpy as np

CORNERS = {(0, 0): (255, 0, 0), (0, 7): (0, 255, 0), (5, 0): (0, 0, 255), (5, 7): (255, 255, 0)}


def picture(number, cell=20):
    """(6 * cell, 8 * cell, 3)."""
    shown = np.full((6, 8, 3), 60, np.uint8)
    for place, colour in CORNERS.items():
        shown[place] = colour
    for bit in range(16):
        shown[1 + bit // 4, 2 + bit % 4] = 255 * (number >> bit & 1)
    return shown.repeat(cell, 0).repeat(cell, 1)


def number(shown):
    """The number that a picture of any size shows."""
    return sum((_at(shown, 1 + b // 4, 2 + b % 4).mean() > 128) << b for b in range(16))


def corners(shown):
    """Its corners, row by row, such as "RGBY"."""
    colours = {(True, False, False): "R", (False, True, False): "G", (True, True, False): "Y"}
    colours[False, False, True] = "B"
    return "".join(colours.get(tuple((_at(shown, *p) > 128).tolist()), "?") for p in CORNERS)


def _at(shown, row, column):
    height, width, _ = shown.shape
    y, x = int((row + 0.5) / 6 * height), int((column + 0.5) / 8 * width)
    return shown[y - 1 : y + 2, x - 1 : x + 2].astype(float).mean((0, 1))


def tone(seconds, rate=16_000):
    time = np.arange(round(rate * seconds)) / rate
    return 0.5 * np.sin(2 * np.pi * np.cumsum(300 + 100 * np.floor(time)) / rate)


def tones(wave, rate=16_000):
    """The hertz of each whole second, 0 for silence."""
    found = []
    for second in range(round(len(wave) / rate)):
        part = wave[second * rate + rate // 20 : (second + 1) * rate - rate // 20]
        heard = np.abs(np.fft.rfft(part * np.hanning(len(part)), 1 << 16))
        loud = np.abs(part).max() > 1e-2
        found.append(round(int(heard.argmax()) * rate / (1 << 16), -1) if loud else 0)
    return found
