"""Word vectors of others as a file that is mapped into memory."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from fusion.data.untrusted.unpickler import kind_of
from fusion.data.untrusted.word_vectors import read_word_vectors


def convert_word_vectors(path: str | Path, out: str | Path) -> str:
    """Convert a file of word vectors, see :mod:`fusion.data.untrusted.word_vectors`.

    Args:
        path: the file.
        out: the file to write, ``….safetensors``; it must not be there yet.

    Returns:
        What was written, in a line.

    Raises:
        ValueError: ``path`` is no such file, or ``out`` is there.
        OSError: ``out`` cannot be written.
    """
    path, out = Path(path).expanduser(), Path(out).expanduser()
    if out.exists():
        raise ValueError(f"{out} exists already; name another file by --out")
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; check the path")
    with open(path, "rb") as file:
        if kind_of(file.read(512)) == "a safetensors file":
            raise ValueError(
                f"{path} is a safetensors file, not word vectors in word2vec's format; if they are"
                " converted already, name it by text_encoder.path"
            )
    index, vectors = read_word_vectors(path)
    words = sorted((word.encode(), number) for word, number in index.items())
    tensors = {
        "vectors": vectors.numpy()[[number for _, number in words]],
        "letters": np.frombuffer(b"".join(word for word, _ in words), np.uint8),
        "ends": np.cumsum([len(word) for word, _ in words], dtype=np.int64),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{out.name}.new-", dir=out.parent) as folder:
        new = Path(folder) / out.name
        try:
            safetensors.numpy.save_file(tensors, new)
        except SafetensorError as error:
            raise OSError(f"{out} cannot be written: {error}") from None
        os.chmod(new, 0o644)
        os.replace(new, out)
    return f"written   {out}: {len(words):,} words, vectors {vectors.shape[1]} wide"
