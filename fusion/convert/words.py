"""Word vectors of others as a file that is mapped into memory."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from safetensors import SafetensorError

from fusion.models.word_file import write_word_vectors


def convert_word_vectors(path: str | Path, out: str | Path) -> str:
    """Convert a file in word2vec's format, see :mod:`fusion.models.word_file`.

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
        if file.read(9)[8:] == b"{":
            raise ValueError(
                f"{path} is a safetensors file, not word vectors in word2vec's format; if they are"
                " converted already, name it by text_encoder.path"
            )
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{out.name}.new-", dir=out.parent) as folder:
        try:
            count, width = write_word_vectors(path, Path(folder) / out.name)
        except SafetensorError as error:
            raise OSError(f"{out} cannot be written: {error}") from None
        os.chmod(Path(folder) / out.name, 0o644)
        os.replace(Path(folder) / out.name, out)
    return f"written   {out}: {count:,} words, vectors {width} wide"
