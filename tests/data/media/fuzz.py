"""Read random, truncated, bit-flipped and spliced files; run as a program, as FFmpeg may crash.

    python -m tests.data.media.fuzz SEED COUNT FILES...

Each file is read whole and in a window. Only a MediaError is allowed, or no memory. It prints how
many files and bytes were read, the slowest, and by how much more memory the process grew than for
the undamaged files, which are read first: what the imports and the decoders need is not counted.
"""

import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from fusion.data.media.decode import MediaError
from fusion.data.media.film import Film
from fusion.data.media.pictures import Sampling
from fusion.data.media.window import read_audio, read_frames
from fusion.process import memory_at_peak

MEMORY = 6 * 2**30  # bytes of addresses
PIECE = 2**26  # bytes of a part of a film
BLOCK = 2**16


def random_bytes(draw, files):
    """The beginning of a file, then anything."""
    data = draw.choice(files)
    head = data[: draw.choice([0, 4, 12, 64, 512, 4096])]
    return head + draw.randbytes(draw.randint(1, BLOCK))


def truncated(draw, files):
    data = draw.choice(files)
    first, last = sorted((draw.randrange(len(data)), draw.randrange(len(data) + 1)))
    return data[:last] if draw.random() < 0.7 else data[first:]


def flipped(draw, files):
    data = bytearray(draw.choice(files))
    reach = draw.choice([256, 4096, len(data)])  # often in the head
    for _ in range(draw.choice([1, 3, 20, 200])):
        place = draw.randrange(min(reach, len(data)))
        data[place] ^= 1 << draw.randrange(8)
    return bytes(data)


def spliced(draw, files):
    parts = []
    for _ in range(draw.randint(2, 4)):
        data = draw.choice(files)
        first, last = sorted((draw.randrange(len(data)), draw.randrange(len(data))))
        parts.append(data[first * (draw.random() < 0.7) : last])
    return b"".join(parts)


def blanked(draw, files):
    data = bytearray(draw.choice(files))
    for _ in range(draw.randint(1, 5)):
        first, length = draw.randrange(len(data)), draw.randint(1, 3000)
        rest = len(data[first : first + length])
        data[first : first + length] = bytes([draw.choice([0, 255])]) * rest
    return bytes(data)


KINDS = (random_bytes, truncated, flipped, spliced, blanked)


def read(path, draw):
    """Read a file in every way; return whether it could be opened."""
    film = Film(path, {"2d": Sampling(2, 32), "3d": Sampling(12, (24, 32))}, True)
    start = draw.uniform(0, 8)
    try:
        for piece in film.pieces():
            assert piece.data.nbytes < PIECE
        read_frames(path, 5, 24, 32, start, start + 0.5)
        read_audio(path, 16_000, start, start + 0.5)
    except (MediaError, MemoryError):
        return False
    return True


def main(seed, count, files):
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    contents = [Path(file).read_bytes() for file in files]
    endings = sorted({Path(file).suffix for file in files})
    for file in files:
        assert read(Path(file), random.Random(seed)), f"{file} is undamaged, and cannot be read"
    before = memory_at_peak()
    opened = size = 0
    slowest = (0.0, "")
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            draw = random.Random(f"{seed} {number}")
            kind = KINDS[number % len(KINDS)]
            data = kind(draw, contents)
            path = Path(folder, f"film{draw.choice(endings)}")
            path.write_bytes(data)
            print(f"{seed} {number} {kind.__name__} {path.suffix}", file=sys.stderr, flush=True)
            begin = time.process_time()
            opened += read(path, draw)
            slowest = max(slowest, (time.process_time() - begin, f"{number} {kind.__name__}"))
            size += len(data)
    found = {"files": count, "opened": opened, "bytes": size, "slowest": slowest}
    print(json.dumps(found | {"before": before, "grown": memory_at_peak() - before}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
