"""Word vectors that others have made: word2vec's formats, GloVe's text, and our converted files.

What is read grows with the file, never with the sizes that its first line claims.
"""

from __future__ import annotations

import bisect
import gzip
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_WIDTH = 10_000  # of a vector; published ones have 50 to 1,000
MAX_LINE = 400_000  # bytes of a word and its numbers as text
MAX_WORD = 10_000  # bytes of a word before binary numbers
MAX_TIMES_LARGER = 50  # than a compressed file; GoogleNews' vectors are 2.4 times larger


class MappedWords(Mapping[str, int]):
    """The number of each word, found by binary search in a sorted list that stays on the disk.

    ``letters`` (uint8) has all words in UTF-8, end to end, sorted by bytes; ``ends`` (V,) int64
    where each word ends.
    """

    def __init__(self, letters: NDArray[Any], ends: NDArray[Any]) -> None:
        self.letters, self.ends = letters, ends
        self._known: dict[str, int | None] = {}  # words that were looked up before

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[str]:
        return (self._word(i).decode() for i in range(len(self)))

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and self._find(word) is not None

    def __getitem__(self, word: str) -> int:
        if (number := self._find(word)) is None:
            raise KeyError(word)
        return number

    def _find(self, word: str) -> int | None:
        if word not in self._known:
            wanted = word.encode()
            place = bisect.bisect_left(range(len(self)), wanted, key=self._word)
            found = place < len(self) and self._word(place) == wanted
            self._known[word] = place if found else None
        return self._known[word]

    def _word(self, number: int) -> bytes:
        start = int(self.ends[number - 1]) if number else 0
        return self.letters[start : int(self.ends[number])].tobytes()


def read_word_vectors(path: Path, limit: int | None = None) -> tuple[Mapping[str, int], Tensor]:
    """Read the number of each word, and the vectors (V, D) float32.

    Formats: the ``.safetensors`` of fusion convert, mapped into memory; word2vec's binary
    ``.bin``; or text, a line for each word, with the first line of word2vec or without it (GloVe).
    Binary and text may be compressed (``.gz``), and only the first ``limit`` words may be read.

    Raises:
        ValueError: the file is damaged or of another kind.
    """
    try:
        return _open_mapped(path) if path.suffix == ".safetensors" else _read(path, limit)
    except MemoryError:
        raise
    except Exception as error:  # of many kinds: the bytes may come from anybody
        reason = " ".join(str(error).split()) or type(error).__name__
        if path.suffix == ".safetensors":
            raise ValueError(
                f"{path} holds no word vectors ({reason}); make it by fusion convert"
                " FILE.bin --out FILE.safetensors"
            ) from None
        raise ValueError(
            f"{path} is not in word2vec's format, or is damaged ({reason}); download it again"
        ) from None


def _open_mapped(path: Path) -> tuple[MappedWords, Tensor]:
    tensors = safetensors.torch.load_file(path)  # mapped, not read
    vectors, letters, ends = (tensors[name] for name in ("vectors", "letters", "ends"))
    if [vectors.dim(), letters.dim(), ends.dim()] != [2, 1, 1] or len(vectors) != len(ends):
        raise ValueError(f"{len(ends)} words have vectors of the shape {tuple(vectors.shape)}")
    return MappedWords(letters.numpy(), ends.numpy()), vectors


def _read(path: Path, limit: int | None) -> tuple[dict[str, int], Tensor]:
    packed = path.suffix == ".gz"
    kind = Path(path.stem).suffix if packed else path.suffix
    binary = kind == ".bin" or (packed and kind not in (".txt", ".vec"))
    left = path.stat().st_size * MAX_TIMES_LARGER
    index: dict[str, int] = {}
    numbers = bytearray()
    with gzip.open(path) if packed else open(path, "rb") as file:
        count, width = _read_sizes(file, binary)
        wanted = [n for n in (count, limit) if n is not None]
        rows = (_binary_rows if binary else _text_rows)(file, width)
        done = 0
        for word, vector in itertools.islice(rows, min(wanted) if wanted else None):
            done += 1
            if (left := left - len(word) - len(vector)) < 0:
                raise ValueError(f"it unpacks to more than {MAX_TIMES_LARGER} times its size")
            if index.setdefault(word.decode(), len(index)) == len(numbers) // (4 * width):
                numbers += vector  # where a word comes twice, its first vector counts
    if count is not None and done < min(wanted):
        raise EOFError(f"it ends after {done} of {count} words")
    return index, torch.frombuffer(numbers, dtype=torch.float32).view(-1, width)


def _read_sizes(file: Any, binary: bool) -> tuple[int | None, int]:
    """Read the number of words, None if it is not given (GloVe), and the width of vectors."""
    first = file.readline(MAX_LINE)
    if header := re.fullmatch(rb"\s*(\d{1,18})\s+(\d{1,18})\s*", first):
        count, width = int(header[1]), int(header[2])
    elif binary:
        raise ValueError("its first line does not say how many words there are and how wide")
    else:
        count, width = None, len(first.split()) - 1
        file.seek(0)
    if not 1 <= width <= MAX_WIDTH:
        raise ValueError(f"vectors {width} wide; 1 to {MAX_WIDTH} are read")
    return count, width


def _binary_rows(file: Any, width: int) -> Iterator[tuple[bytes, bytes]]:
    """Give each word and its vector: the word, a space, float32 numbers, perhaps a new line."""
    size, buffer, start = 4 * width, b"", 0
    while True:
        space = buffer.find(b" ", start)
        end = space + 1 + size
        if space >= 0 and end <= len(buffer):
            yield buffer[start:space].lstrip(b"\n"), buffer[space + 1 : end]
            start = end
            continue
        if len(buffer) - start > MAX_WORD + size:
            raise ValueError(f"a word is longer than {MAX_WORD} bytes")
        if not (more := file.read(1 << 20)):
            return
        buffer, start = buffer[start:] + more, 0


def _text_rows(file: Any, width: int) -> Iterator[tuple[bytes, bytes]]:
    """Give each word and its vector; GloVe has words with spaces in them."""
    for line in iter(lambda: file.readline(MAX_LINE), b""):
        word, *numbers = line.rstrip().rsplit(b" ", width)
        if len(numbers) != width:
            raise ValueError(f"a line has {len(numbers)} numbers instead of {width}")
        yield word, np.array([float(number) for number in numbers], np.float32).tobytes()
