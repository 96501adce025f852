"""Give damaged and hostile bytes to a reader, for some seconds of the processor.

    python -m tests.fuzz READER SECONDS [SEED]
    python -m tests.fuzz all 60

A reader may refuse a file by one of its own errors, with one line that names the file. Anything
else is a crash: it is printed with the number that makes the same bytes again, and the exit code is
1.
"""

import contextlib
import csv
import gzip
import io
import json
import logging
import os
import pickle
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path
from unittest import mock

import numpy as np
import safetensors.numpy
import torch

from fusion.checkpoint import read_tensors
from fusion.config import load_config
from fusion.data.captions.formats import read_caption_file
from fusion.data.features.format import Field
from fusion.data.features.store import FeatureStore, find_damaged_shards
from fusion.data.features.writer import StoreWriter
from fusion.data.untrusted import pickle as pickle_file
from fusion.data.untrusted import torch_file, weight_files
from fusion.data.untrusted.npz import read_arrays, read_npy, read_npz
from fusion.data.untrusted.pickle import load_pickle
from fusion.data.untrusted.weight_files import read_weights
from fusion.data.untrusted.word_vectors import read_word_vectors
from fusion.process import memory_at_peak
from fusion.training.log import read_metrics

MOST = 2**30  # bytes by which the process may grow
EDGES = [
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"{",
    b"[",
    b'"',
    b"\n",
    b"\r",
    b",",
    b"&a *a",
    b"9" * 25,
]
ROWS = [{"video": f"v{i}", "start": i, "end": i + 1, "text": f"a man, {i}"} for i in range(8)]


def saved(write, *arguments, **options):
    file = io.BytesIO()
    write(file, *arguments, **options)
    return file.getvalue()


def table(separator=","):
    text = io.StringIO()
    writer = csv.DictWriter(text, ROWS[0], delimiter=separator)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


FEATURES = np.arange(40, dtype=np.float32).reshape(8, 5)
PLAIN = [
    {"id": f"v{i}", "2d": FEATURES, "where": (i, (1.5, None)), "caption": ["a"]} for i in range(3)
]
VECTORS = b"3 4\n" + b"".join(b"w%d 0.5 1 -2 3e4\n" % i for i in range(3))
WEIGHTS = {"a.weight": torch.ones(4, 3), "b": torch.zeros(2, dtype=torch.int64)}
VTT = b"WEBVTT\n\n00:01.000 --> 00:02.500\n<c>a man</c>\n\nNOTE x\n\n00:03.000 --> 00:04.000\nb\n"
HOWTO = {f"v{i}": {"start": [0, 2], "end": [1, 3], "text": ["a", "b"]} for i in range(3)}
CONFIG = (Path(__file__).parents[1] / "configs" / "eao.yaml").read_bytes()
METRICS = b'{"event": "train", "epoch": 1, "step": 3, "loss": 0.5}\n' * 3

# For each reader: what reads a file, its ending, and whole files of that kind
READERS = {
    "pickle": (load_pickle, ".pkl", [pickle.dumps(PLAIN, p) for p in (0, 2, 4, 5)]),
    "torch": (read_weights, ".pth", [
        saved(lambda f: torch.save(WEIGHTS, f)),
        saved(lambda f: torch.save(WEIGHTS, f, _use_new_zipfile_serialization=False)),
    ]),
    "safetensors": (read_tensors, ".safetensors", [safetensors.numpy.save({"a": FEATURES})]),
    "npz": (lambda path: read_npz(path, "features"), ".npz", [
        saved(np.savez, features=FEATURES), saved(np.savez_compressed, features=FEATURES)]),
    "scores": (read_arrays, ".npz", [
        saved(np.savez_compressed, ids=np.array(["a", "b"]), x=FEATURES)]),
    "npy": (read_npy, ".npy", [saved(np.save, FEATURES)]),
    "csv": (read_caption_file, ".csv", [
        table(), table(";"), table("\t").decode().encode("utf-16")]),
    "json": (read_caption_file, ".json", [json.dumps(x).encode() for x in (ROWS, HOWTO)]),
    "vtt": (read_caption_file, ".vtt", [VTT]),
    "srt": (read_caption_file, ".srt", [b"1\n00:00:01,000 --> 00:00:02,000\n" + b"a man\n\n" * 2]),
    "vectors": (read_word_vectors, ".txt", [VECTORS, VECTORS[4:], gzip.compress(VECTORS)]),
    "config": (lambda path: load_config(path, own=False), ".yaml", [CONFIG]),
    "metrics": (read_metrics, ".jsonl", [METRICS]),
}  # fmt: skip
ALL = (*READERS, "store")


def damage(draw, whole):
    """Change some whole files of one kind into one of 0 to some hundred thousand bytes."""
    data = bytearray(draw.choice(whole))
    for _ in range(draw.choice([1, 1, 2, 8])):
        place, end = sorted(draw.randrange(len(data) + 1) for _ in range(2))
        match draw.randrange(8):
            case 0:  # flip bits
                for at in (
                    draw.randrange(len(data)) for _ in range(draw.choice([1, 9]) * bool(data))
                ):
                    data[at] ^= 1 << draw.randrange(8)
            case 1:
                del data[place:]
            case 2:
                del data[place:end]
            case 3:
                data[place:place] = data[place:end] * draw.choice([1, 2, 50])
            case 4:
                data[place:place] = draw.choice(EDGES) * draw.choice([1, 3, 3000])
            case 5:
                data[place : place + 8] = draw.choice([0, 1, 2**31, 2**63, 2**64 - 1]).to_bytes(
                    8, "little"
                )
            case 6:
                data[place:end] = draw.choice(whole)[place:end]
            case 7:
                data[place:end] = draw.randbytes(min(end - place, 64))
        del data[300_000:]
    return bytes(data)


def is_refusal(error, path):
    """Tell whether an error is one line of a reader, and no accident."""
    kind = type(error)
    is_own = isinstance(error, ValueError | OSError) and kind not in (
        ValueError,
        UnicodeDecodeError,
    )
    named = is_own or str(path) in str(error) or kind is MemoryError
    return (
        isinstance(error, ValueError | OSError | MemoryError) and named and "\n" not in str(error)
    )


def fuzz(name, seconds, seed=0, most=None):
    """Try a reader; return how many files were tried and read, and the crashes."""
    if name == "store":
        return fuzz_store(seconds, seed, most)
    read, ending, whole = READERS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file{ending}"

        def attempt(draw):
            path.write_bytes(damage(draw, whole))
            read(path)

        return repeat(name, attempt, lambda e: is_refusal(e, path), seconds, seed, most)


def fuzz_store(seconds, seed, most):
    """Damage any file of a feature store; what can be read must be what was written, or be said."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, FUSION_CACHE=folder):
        place = Path(folder) / "store"
        with StoreWriter(place, {"2d": Field(5, 1.0)}, "w", shard_bytes=100) as writer:
            for i in range(4):
                writer.add(f"v{i}", {"2d": FEATURES + i}, {"n": i})
        FeatureStore(place)
        kept = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}

        def attempt(draw):
            for path, content in kept.items():
                path.write_bytes(content)
            path = draw.choice(sorted(kept))
            path.write_bytes(damage(draw, [kept[path]]))
            store = FeatureStore(place)
            assert store.fields == {"2d": Field(5, 1.0)}, "other fields"
            find_damaged_shards(store)
            for video in store.videos:
                rows, facts = store.read(video, "2d"), store.facts(video)
                if path.suffix == ".safetensors" and path.parent.name == "shards":
                    continue  # whose content fusion pack --verify compares
                right = torch.from_numpy(FEATURES + int(video[1:])).half()
                assert rows.equal(right) and facts == {"n": int(video[1:])}, "other features"

        return repeat(
            "store", attempt, lambda e: isinstance(e, ValueError | OSError), seconds, seed, most
        )


def repeat(name, attempt, is_refused, seconds, seed, most):
    tried = read = 0
    crashes, end, before = [], time.process_time() + seconds, memory_at_peak()
    while time.process_time() < end and (most is None or tried < most):
        tried += 1
        try:
            attempt(random.Random(f"{name} {seed} {tried}"))
            read += 1
        except Exception as error:
            if not is_refused(error):
                crashes.append((tried, "".join(traceback.format_exception(error)[-3:])))
    grown = memory_at_peak() - before
    if grown > MOST:
        crashes.append((tried, f"it grew by {grown >> 20} MiB"))
    return {"reader": name, "tried": tried, "read": read, "MiB": grown >> 20, "crashes": crashes}


def main(name, seconds, seed=0):
    """Print a line for each reader, and its crashes."""
    failed = False
    logging.disable(logging.WARNING)
    # The program with limits takes ten times as long as such small files; its own tests run it.
    with contextlib.ExitStack() as stack:
        for module in (pickle_file, torch_file, weight_files):
            stack.enter_context(mock.patch.object(module, "follow_elsewhere"))
        for each in ALL if name == "all" else [name]:
            found = fuzz(each, float(seconds), int(seed))
            crashes = found.pop("crashes")
            print(json.dumps(found | {"crashes": len(crashes)}), flush=True)
            for number, crash in crashes[:5]:
                print(f"--- {each} {seed} {number}\n{crash}")
            failed = failed or bool(crashes)
    sys.exit(failed)


if __name__ == "__main__":
    main(*sys.argv[1:])
