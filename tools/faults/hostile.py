"""Give readers files that want to harm; measure the memory that a bomb takes, with and without."""

import gzip
import json
import os
import pickle
import time
import zipfile

import numpy as np
import psutil
import torch

from fusion.checkpoint import read_tensors
from fusion.config import load_config
from fusion.data.captions.formats import read_caption_file
from fusion.data.media.decode import open_media
from fusion.data.untrusted.npz import read_npy, read_npz
from fusion.data.untrusted.pickle import load_pickle
from fusion.data.untrusted.weight_files import read_weights
from fusion.data.untrusted.word_vectors import read_word_vectors
from fusion.process import memory_at_peak
from fusion.words import visible
from tests.processes import context

LONGEST = 600  # seconds that a reader may take; a limit on those of the processor is lower
POINTS = 300  # of a curve
LOOK = 0.02  # seconds between two measurements of memory
TWICE = b"2\x86"  # of what is on the stack: a pair of it


class Runs:
    """Pickled as a call that makes a file."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.system, (f"touch '{self.mark}'",)


def _npz(path, **arrays):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, make in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as inner:
                make(inner)


def bomb(path, mib):
    """Write an npz of about a thousandth of so many MiB, which it unpacks to."""

    def make(inner):
        header = {"descr": "<f4", "fortran_order": False, "shape": (mib, 2**18)}
        np.lib.format.write_array_header_1_0(inner, header)
        for _ in range(mib):
            inner.write(bytes(2**20))

    _npz(path, features=make)


def _lying(path):
    header = {"descr": "<f4", "fortran_order": False, "shape": (2**40,)}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(64))


def _objects(path, mark):
    np.savez(path, features=np.array([Runs(mark)], dtype=object))


def _features(path):
    return read_npz(path, "features")


def _strangers(path):
    return load_config(path, own=False)


def _media(path):
    with open_media(path) as container:
        return len(container.streams)


CASES = {  # reader, ending, how the file is written
    "pickle that runs a program": (load_pickle, "pkl", lambda p, m: p.write_bytes(
        pickle.dumps(Runs(m)))),
    "pickle that never ends": (load_pickle, "pkl", lambda p, m: p.write_bytes(
        b"\x80\x02})" + TWICE * 60 + b"Ns.")),
    "pickle that crashes Python": (load_pickle, "pkl", lambda p, m: p.write_bytes(
        b"\x80\x02})" + b"\x85" * 200_000 + b"Ns.")),
    "checkpoint (.pth) that runs a program": (read_weights, "pth", lambda p, m: torch.save(
        {"a": Runs(m)}, p)),
    "the same in the old format": (read_weights, "pth", lambda p, m: torch.save(
        {"a": Runs(m)}, p, _use_new_zipfile_serialization=False)),
    "safetensors with a header of 2**60 bytes": (read_tensors, "safetensors", lambda p, m: (
        p.write_bytes((2**60).to_bytes(8, "little") + b"{}"))),
    "npz that runs a program": (_features, "npz", _objects),
    "npz of 1 MiB that unpacks to 1 GiB": (_features, "npz", lambda p, m: bomb(p, 1024)),
    "npy that claims 4 TiB": (read_npy, "npy", lambda p, m: _lying(p)),
    "YAML that makes a Python object": (_strangers, "yaml", lambda p, m: p.write_text(
        f"a: !!python/object/apply:os.system ['touch {m}']")),
    "YAML whose parts repeat themselves": (_strangers, "yaml", lambda p, m: p.write_text(
        "a0: &a0 [x]\n" + "".join(
            f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)))),
    "YAML that reads a secret of the environment": (_strangers, "yaml", lambda p, m: p.write_text(
        "output: ${oc.env:HOME}\n")),
    "JSON nested a million deep": (read_caption_file, "json", lambda p, m: p.write_text(
        "[" * 10**6)),
    "csv of one field of 64 MiB": (read_caption_file, "csv", lambda p, m: p.write_bytes(
        b'"' + b"a" * 2**26)),
    "word vectors of 4 MiB that unpack to 4 GiB": (read_word_vectors, "gz", lambda p, m: (
        p.write_bytes(gzip.compress(bytes(2**26)) * 64))),
    "a pipe in place of a film": (_media, "mp4", lambda p, m: os.mkfifo(p)),
    "a film that is a list of addresses": (_media, "mp4", lambda p, m: p.write_text(
        "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/secret.mp4\n")),
    "a film that is /dev/zero": (_media, "mp4", lambda p, m: p.symlink_to("/dev/zero")),
}  # fmt: skip


def try_hostile(mib, folder):
    """Read every case in a process of its own; then a bomb, guarded and not.

    ``mib``: what the bomb unpacks to.
    """
    seen = {name: _read(name, number, folder) for number, name in enumerate(CASES)}
    for name, one in seen.items():
        print(f"{name}: {one['outcome']}", flush=True)
    path = folder / "bomb.npz"
    bomb(path, mib)
    memory = {who: _watch(who, path) for who in ("guarded", "numpy.load")}
    return {"seen": seen, "bomb": {"mib": mib, "bytes": path.stat().st_size, "memory": memory}}


def _read(name, number, folder):
    _, ending, write = CASES[name]
    path, mark, report = (folder / f"{number}{end}" for end in (f".{ending}", ".ran", ".json"))
    write(path, mark)
    process = context.Process(target=_child, args=(name, path, report))
    process.start()
    process.join(LONGEST)
    if process.exitcode is None:
        process.kill()
        process.join()
        found = {"outcome": f"did not end in {LONGEST} s", "memory": 0}
    elif not report.exists():
        found = {"outcome": f"crashed ({process.exitcode})", "memory": 0}
    else:
        found = json.loads(report.read_text())
    if mark.exists():
        found["outcome"] = "ITS CODE RAN"
    return {"seconds": None, **found}


def _child(name, path, report):
    before, begun = memory_at_peak(), os.times()
    try:
        CASES[name][0](path)
        outcome, said = "read", ""
    except (ValueError, OSError) as error:
        said = str(error)
        outcome = "refused in one line" if "\n" not in said.strip() else "refused in many lines"
    except BaseException as error:
        outcome, said = f"traceback: {type(error).__name__}", str(error)
    said = visible(said.replace(str(path), path.name))[:300]
    grown, spent = memory_at_peak() - before, sum(os.times()[:4]) - sum(begun[:4])
    found = {"outcome": outcome, "said": said, "memory": grown, "seconds": spent}
    report.write_text(json.dumps(found))


def _watch(who, path):
    """Measure the memory of a process that reads a bomb: (seconds, bytes) over those before."""
    process = context.Process(target=_open_bomb, args=(who, path))
    process.start()
    watched, curve = psutil.Process(process.pid), []
    begun = first = None
    while process.is_alive():
        try:
            now = watched.memory_info().rss
        except psutil.NoSuchProcess:
            break
        begun, first = begun or time.monotonic(), first or now
        curve.append((time.monotonic() - begun, max(0, now - first)))
        time.sleep(LOOK)
    process.join()
    each = max(1, len(curve) // POINTS)
    highest = max(curve, key=lambda point: point[1], default=(0.0, 0))
    return sorted({*curve[::each], highest})


def _open_bomb(who, path):
    try:
        if who == "guarded":
            _features(path)
        else:
            np.load(path)["features"].sum()
    except ValueError:
        pass
    time.sleep(0.3)  # what a refusal took is measured too
