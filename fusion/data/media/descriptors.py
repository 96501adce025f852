"""Descriptors of appearance and of motion, computed from frames without trained weights.

They replace the features of pretrained backbones ("2D" and "3D") where none is configured. They
measure colours, brightness, edges, where these are, and how they change; they recognise no objects.

Frames are expected at ``FRAMES_PER_SECOND``, best at ``FRAME_HEIGHT`` x ``FRAME_WIDTH``; they give
2 rows of appearance and 10 / 3 rows of motion per second. Nearly all numbers are within -1 to 1.

Shapes: T frames, R rows (time steps), N frames described, H height, W width. The functions below
take maps (N, H, W) of frames, or of changes from each to the next, and return maps or (N, columns).
Lengths are in halves of the picture's height from its middle, y downwards. "The salient" are the
pixels much more colourful than the rest of their frame, see :func:`_saliency`.
"""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray

FRAMES_PER_SECOND = 10
FRAME_HEIGHT, FRAME_WIDTH = 36, 48
APPEARANCE_FRAMES = 5  # a row of appearance describes the middle one of so many frames
MOTION_FRAMES = 3  # a row of motion averages the changes from so many frames to their next

HUES, ORIENTATIONS, GRID, RINGS, DIRECTIONS = 12, 8, 3, 6, 8
TURNS = range(2, 8)  # parts of a turn
APPEARANCE_DIM = HUES + 4 + 3 * GRID**2 + ORIENTATIONS + 6 + RINGS + 2 * len(TURNS)
MOTION_DIM = 3 * GRID**2 + DIRECTIONS + 9 + 6

_EPSILON = 1e-6
_BLOCK = 10 * MOTION_FRAMES  # frames described at a time; their maps fit into the CPU's cache


def appearance(frames: np.ndarray) -> np.ndarray:
    """Describe every ``APPEARANCE_FRAMES``-th frame.

    Columns, in this order:
        12  hues of the salient: shares of 12 hues from red over yellow, green, blue to pink
        4   mean and greatest chroma (max - min of red, green, blue), mean and spread of brightness
        27  red - green, yellow - blue and brightness, less their means, in a 3 x 3 grid
        8   directions of edges: shares of 8 directions within half a turn
        6   the salient: centre x, centre y, radius, side of a square of its area, compactness
            (1 for a disc, less for all else), length of its outline (in radii, divided by 20)
        6   the salient: shares of its mass within 0.4, 0.4-0.8, ... 1.6-2 and beyond 2 radii
        6   the salient: how well its mass repeats after 1/2, 1/3, ... 1/7 of a turn
        6   the salient: how well the directions of its outline do

    Args:
        frames: (T, H, W, 3) uint8 RGB; T may be 0. Another shape or type is a ValueError.

    Returns:
        (R, ``APPEARANCE_DIM``) float32, R = T / ``APPEARANCE_FRAMES`` rounded up.
    """
    _check(frames)
    starts = np.arange(0, len(frames), APPEARANCE_FRAMES)
    chosen = frames[np.minimum(starts + APPEARANCE_FRAMES // 2, len(frames) - 1)]
    rows = [_appearance(chosen[i : i + _BLOCK]) for i in range(0, len(chosen), _BLOCK)]
    return np.concatenate(rows) if rows else np.zeros((0, APPEARANCE_DIM), np.float32)


def _appearance(frames: Array) -> Array:
    red, green, blue = _channels(frames)
    chroma, brightness = _chroma(red, green, blue), (red + green + blue) / 3
    opponents = (red - green, (red + green) / 2 - blue, brightness)
    salient = _saliency(chroma)
    blocks = [
        _hue_shares(red - green / 2 - blue / 2, (green - blue) * math.sqrt(0.75), salient),
        np.stack([_mean(chroma), chroma.max((1, 2)), _mean(brightness), brightness.std((1, 2))], 1),
        *[_grid_means(x - _mean(x)[:, None, None]) for x in opponents],
        _edge_shares(brightness),
        _outline(salient),
    ]
    return np.concatenate(blocks, axis=1, dtype=np.float32)


def motion(frames: np.ndarray) -> np.ndarray:
    """Describe the change of the picture in every ``MOTION_FRAMES`` frames.

    Columns, in this order:
        18  flow rightwards and flow downwards of brightness along its gradient, in a 3 x 3 grid
        9   root mean square change of brightness, in a 3 x 3 grid
        8   directions of the flow: shares of 8 directions from right over down, times the change
        9   the salient: speed of its centre to the right, left, down, up; growth and loss of its
            mass; growth and loss of its radius; change of brightness there
        6   the salient: flow rightwards and downwards, expansion, turn and its absolute value, the
            least-squares fit to its change of brightness; the residual of the fit

    Flow and speed are in lengths per second, turns in radians per second, growth in parts per
    second. All are averages over a step.

    Args:
        frames: (T, H, W, 3) uint8 RGB; T may be 0. Another shape or type is a ValueError.

    Returns:
        (R, ``MOTION_DIM``) float32, R = (T - 1) / ``MOTION_FRAMES`` rounded up; a single frame
        gives one row of zeros.
    """
    _check(frames)
    if len(frames) < 2:
        return np.zeros((len(frames), MOTION_DIM), np.float32)
    starts = range(0, len(frames) - 1, _BLOCK)
    return np.concatenate([_motion(frames[i : i + _BLOCK + 1]) for i in starts])


def _motion(frames: Array) -> Array:
    red, green, blue = _channels(frames)
    salient = _saliency(_chroma(red, green, blue))
    brightness = (red + green + blue) / 3
    change = np.diff(brightness, axis=0)[:, 1:-1, 1:-1]  # (T - 1, H - 2, W - 2), as all below
    across, down = _gradient((brightness[1:] + brightness[:-1]) / 2)
    weight = (salient[1:] + salient[:-1])[:, 1:-1, 1:-1]
    blocks = [
        _grid_flow(change, across, down),
        np.sqrt(_grid_means(change**2)),
        _direction_shares(change, across, down),
        _salient_change(salient, change, weight),
        _similarity(change, across, down, weight),
    ]
    changes = np.concatenate(blocks, axis=1, dtype=np.float32)
    starts = np.arange(0, len(changes), MOTION_FRAMES)
    counts = np.diff(np.append(starts, len(changes))).astype(np.float32)
    return np.add.reduceat(changes, starts, axis=0) / counts[:, None]


def _check(frames: Array) -> None:
    shape, kind = frames.shape, frames.dtype
    if len(shape) != 4 or shape[-1] != 3 or min(shape[1:3]) < 8 or kind != np.uint8:
        raise ValueError(f"frames must be (T, H >= 8, W >= 8, 3) uint8; got {shape} {kind}")


def _channels(frames: Array) -> Array:
    """Split (N, H, W, 3) uint8 into red, green, blue from 0 to 1: (3, N, H, W)."""
    planes = np.ascontiguousarray(np.moveaxis(frames, -1, 0))
    return planes * np.float32(1 / 255)


def _chroma(red: Array, green: Array, blue: Array) -> Array:
    high = np.maximum(np.maximum(red, green), blue)
    return high - np.minimum(np.minimum(red, green), blue)


def _saliency(chroma: Array) -> Array:
    """Weigh pixels much more colourful than the mean of their frame: from 0 to the difference."""
    mean = _mean(chroma)[:, None, None]
    excess = chroma.max(axis=(1, 2), keepdims=True) - mean + _EPSILON
    return excess * np.clip((chroma - mean) / (0.2 * excess) - 1.75, 0, 1)


def _gradient(x: Array) -> tuple[Array, Array]:
    """Slopes to the right and downwards, per pixel, without the frame's border."""
    return (x[:, 1:-1, 2:] - x[:, 1:-1, :-2]) / 2, (x[:, 2:, 1:-1] - x[:, :-2, 1:-1]) / 2


def _places(height: int, width: int) -> tuple[Array, Array]:
    """Coordinates of pixels: x (1, W), y (H, 1)."""
    x = (np.arange(width, dtype=np.float32) - (width - 1) / 2) * (2 / height)
    y = (np.arange(height, dtype=np.float32) - (height - 1) / 2) * (2 / height)
    return x[None], y[:, None]


def _mean(x: Array) -> Array:
    return x.mean(axis=(1, 2))


def _grid_means(x: Array) -> Array:
    thirds = [np.arange(size) * GRID // size == np.arange(GRID)[:, None] for size in x.shape[1:]]
    rows, columns = ((t / t.sum(axis=1, keepdims=True)).astype(np.float32) for t in thirds)
    return (rows @ x @ columns.T).reshape(len(x), -1)


def _shares(x: Array) -> Array:
    return x / (x.sum(axis=-1, keepdims=True) + _EPSILON)


def _hue_shares(x: Array, y: Array, salient: Array) -> Array:
    """Distribute the salient over the hues; a hue between two of them counts for both."""
    there = np.nonzero(salient)
    position = np.arctan2(y[there], x[there]) * (HUES / (2 * math.pi)) % HUES
    lower = position.astype(int)
    part = position - lower
    bins = [there[0] * HUES + (lower + i) % HUES for i in (0, 1)]
    weights = [salient[there] * (1 - part), salient[there] * part]
    counts = np.bincount(np.concatenate(bins), np.concatenate(weights), len(x) * HUES)
    return _shares(counts.reshape(len(x), HUES))


def _edge_shares(brightness: Array) -> Array:
    """Distribute squared slopes, times cos(2 x angle) where positive, over directions."""
    across, down = _gradient(brightness)
    angles = [math.pi * i / ORIENTATIONS for i in range(ORIENTATIONS)]
    power = across**2 + down**2
    along = [(math.cos(a) * across + math.sin(a) * down) ** 2 - power / 2 for a in angles]
    return _shares(np.stack([_mean(np.maximum(x, 0)) for x in along], axis=1))


def _moments(salient: Array) -> tuple[Array, Array, Array, Array]:
    """Mean, centre x, centre y and radius (root mean square distance from the centre)."""
    x, y = _places(*salient.shape[1:])
    mass = _mean(salient) + _EPSILON
    centre_x, centre_y = _mean(salient * x) / mass, _mean(salient * y) / mass
    spread = _mean(salient * (x**2 + y**2)) / mass - centre_x**2 - centre_y**2
    return mass, centre_x, centre_y, np.sqrt(np.maximum(spread, 0) + 1e-4)


def _outline(salient: Array) -> Array:
    height, width = salient.shape[1:]
    _, centre_x, centre_y, radius = _moments(salient)
    solid = salient / (salient.max(axis=(1, 2), keepdims=True) + _EPSILON)
    area = solid.sum(axis=(1, 2)) * (2 / height) ** 2
    across, down = _gradient(solid)
    slope = across + 1j * down
    length = np.abs(slope).sum(axis=(1, 2)) * (2 / height) / radius
    compactness = area / (2 * np.pi * radius**2)
    sizes = [centre_x, centre_y, radius, np.sqrt(area) / 2, compactness, length / 20]

    x, y = _places(height, width)
    place = x - centre_x[:, None, None] + 1j * (y - centre_y[:, None, None])
    place /= radius[:, None, None]
    distance = np.abs(place)
    ring = np.minimum(distance / 0.4, RINGS - 1).astype(int)
    shares = _shares(np.stack([_mean(solid * (ring == i)) for i in range(RINGS)], 1))
    whole = _repeats(solid * (distance < 2), place)
    edges = _repeats(np.abs(slope), slope / (np.abs(slope) + _EPSILON))
    return np.concatenate([np.stack(sizes, axis=1), shares, whole, edges], axis=1)


def _repeats(weight: Array, place: Array) -> Array:
    """Return how well weights at complex places repeat after 1/2, 1/3, ... of a turn, 0 to 1."""
    distance, power, limit, columns = np.abs(place), place, np.abs(place), []
    for _ in TURNS:
        power, limit = power * place, limit * distance
        total = np.abs(np.einsum("nhw,nhw->n", weight, power))
        columns.append(total / (np.einsum("nhw,nhw->n", weight, limit) + _EPSILON))
    return np.stack(columns, axis=1)


def _grid_flow(change: Array, across: Array, down: Array) -> Array:
    power = _grid_means(across**2 + down**2) / 2 + 1e-4
    flow = [-_grid_means(change * slope) / power for slope in (across, down)]
    return np.concatenate(flow, axis=1) * (2 / change.shape[1] * FRAMES_PER_SECOND)


def _direction_shares(change: Array, across: Array, down: Array) -> Array:
    angles = [2 * math.pi * i / DIRECTIONS for i in range(DIRECTIONS // 2)]
    across, down = -change * across, -change * down
    along = [math.cos(a) * across + math.sin(a) * down for a in angles]
    ahead = [_mean(np.maximum(x, 0)) for x in along]
    back = [a - _mean(x) for a, x in zip(ahead, along, strict=True)]
    total = 10 * np.sqrt(_mean(change**2))[:, None]
    return _shares(np.stack(ahead + back, axis=1)) * total


def _salient_change(salient: Array, change: Array, weight: Array) -> Array:
    mass, x, y, radius = _moments(salient)
    # Where the salient appears or vanishes, its speed has no meaning.
    steady = np.minimum(mass[1:], mass[:-1]) / np.maximum(mass[1:], mass[:-1])
    speeds = [np.diff(x) * steady, np.diff(y) * steady]
    growths = [np.diff(np.log(mass + 1e-3)), np.diff(np.log(radius)) * steady]
    signed = np.stack(speeds + growths, axis=1)  # (N, 4)
    halves = np.stack([np.maximum(signed, 0), np.maximum(-signed, 0)], axis=2)
    there = np.sqrt(_mean(weight * change**2) / (_mean(weight) + 1e-4))
    flat = halves.reshape(len(signed), -1) * (FRAMES_PER_SECOND / 2)
    return np.concatenate([np.clip(flat, 0, 2), 5 * there[:, None]], axis=1)


def _similarity(change: Array, across: Array, down: Array, weight: Array) -> Array:
    """Fit flow, expansion and turn of the salient to its change, by least squares."""
    count, height, width = change.shape
    x, y = _places(height + 2, width + 2)
    x, y = x[:, 1:-1], y[1:-1]
    mass = _mean(weight)[:, None, None] + _EPSILON
    x = x - _mean(weight * x)[:, None, None] / mass
    y = y - _mean(weight * y)[:, None, None] / mass
    root = np.sqrt(weight)
    columns = [across, down, x * across + y * down, x * down - y * across]
    causes = np.stack([c * root for c in columns], axis=1).reshape(count, 4, -1)
    effect = (change * root).reshape(count, -1, 1)
    normal = causes @ causes.transpose(0, 2, 1) + 1e-3 * np.eye(4, dtype=np.float32)
    joint = causes @ effect  # (N, 4, 1)
    motion = -np.linalg.solve(normal, joint)[:, :, 0]  # in pixels per frame
    rest = (effect**2).sum(axis=1) + (motion * joint[:, :, 0]).sum(axis=1, keepdims=True)
    rest /= weight.sum(axis=(1, 2))[:, None] + 1e-2
    values = np.clip(motion * (2 / (height + 2) * FRAMES_PER_SECOND), -3, 3)
    unexplained = 5 * np.sqrt(np.maximum(rest, 0))
    return np.concatenate([values, np.abs(values[:, 3:]), unexplained], axis=1)
