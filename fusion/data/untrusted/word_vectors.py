"""Word vectors that others have made: of word2vec, GloVe, fastText, and our converted files.

What is read grows with the file, never with the sizes that its first line claims.
"""

from __future__ import annotations

import bisect
import gzip
import itertools
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusion.data.untrusted.reading import open_file
from fusion.data.untrusted.unpickler import kind_of

logger = logging.getLogger(__name__)

MAX_WIDTH = 10_000  # of a vector; published ones have 50 to 1,000
MAX_LINE = 400_000  # bytes of a word and its numbers as text
MAX_WORD = 10_000  # bytes of a word before binary numbers
MAX_KNOWN = 1_000_000  # words whose places are kept
SAMPLE, LINES = 1 << 18, 50  # bytes and lines by which a format is recognised
STEP, RESERVE = 1 << 26, 1 << 28  # bytes of vectors after which memory is checked; that is left
MAX_TIMES_LARGER = 50  # than a compressed file; GoogleNews' vectors are 2.4 times larger

GZIP, MARK, SAFETENSORS = b"\x1f\x8b", b"\xef\xbb\xbf", "a safetensors file"
OTHERS = {  # what files begin with that are taken for word vectors
    b"\xba\x16\x4f\x2f": "it is a model of fastText; take the file .vec beside it",
    b"version https://git-lfs": "it is a pointer of Git LFS: the file itself was not downloaded",
}


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
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[word] = place if found else None
        return self._known[word]

    def _word(self, number: int) -> bytes:
        start = int(self.ends[number - 1]) if number else 0
        return self.letters[start : int(self.ends[number])].tobytes()


class NoVectorsError(ValueError):
    """A file of another kind."""


class Format(NamedTuple):
    """How the words and vectors of a file are written."""

    binary: bool
    words: int | None  # how many, as the first line says; None: it is a word and its vector (GloVe)
    width: int


def read_word_vectors(path: Path, limit: int | None = None) -> tuple[Mapping[str, int], Tensor]:
    """Read the number of each word, and the vectors (V, D) float32.

    Formats, told apart by their content and not by the name of the file: the safetensors of fusion
    convert, mapped into memory; word2vec's binary; or text, a line for each word, with the first
    line of word2vec and fastText (``.vec``), or without it (GloVe). Binary and text may be
    compressed (gzip), and only the first ``limit`` words may be read.

    Raises:
        ValueError: the file is of another kind, is damaged, or needs more memory than there is.
    """
    try:
        with open_file(path) as file:
            head = file.read(512)
        return _open_mapped(path) if kind_of(head) == SAFETENSORS else _read(path, head, limit)
    except MemoryError:
        raise
    except NoVectorsError as error:
        raise ValueError(
            f"{path} holds no word vectors ({error}); give a file of word2vec (text or binary),"
            " GloVe or fastText (.vec), plain or .gz, or what fusion convert made of one"
        ) from None
    except Exception as error:  # of many kinds: the bytes may come from anybody
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is damaged ({reason}); download it again") from None


def _open_mapped(path: Path) -> tuple[MappedWords, Tensor]:
    try:
        tensors = safetensors.torch.load_file(path)  # mapped, not read
        vectors, letters, ends = (tensors[name] for name in ("vectors", "letters", "ends"))
    except (KeyError, safetensors.SafetensorError) as error:
        raise NoVectorsError(f"its safetensors are others: {error}") from None
    if [vectors.dim(), letters.dim(), ends.dim()] != [2, 1, 1] or len(vectors) != len(ends):
        raise ValueError(f"{len(ends)} words have vectors of the shape {tuple(vectors.shape)}")
    return MappedWords(letters.numpy(), ends.numpy()), vectors


def _read(path: Path, head: bytes, limit: int | None) -> tuple[dict[str, int], Tensor]:
    packed = head.startswith(GZIP)
    left = path.stat().st_size * (MAX_TIMES_LARGER if packed else 1)
    index: dict[str, int] = {}
    numbers = bytearray()
    checked = 0  # bytes for which there was memory
    with gzip.open(path) if packed else open(path, "rb") as file:
        format_, first = _recognise(file.read(SAMPLE))
        file.seek(first)
        count, width = format_.words, format_.width
        wanted = min([n for n in (count, limit) if n is not None], default=None)
        rows = _binary_rows(file, width) if format_.binary else _text_rows(file, width, count)
        done = 0
        for word, vector in itertools.islice(rows, wanted):
            done += 1
            if packed and (left := left - len(word) - len(vector)) < 0:
                raise ValueError(f"it unpacks to more than {MAX_TIMES_LARGER} times its size")
            # A word that is no UTF-8, as word2vec cuts long ones, is never looked up.
            text = word.decode(errors="replace")
            if index.setdefault(text, len(index)) == len(numbers) // (4 * width):
                numbers += vector  # where a word comes twice, its first vector counts
            if len(numbers) - checked > STEP:
                checked = len(numbers)
                _check_memory(path, len(index))
    if wanted is not None and done < wanted:
        if format_.binary or not done:
            raise EOFError(f"it ends after {done} of {count} words")
        logger.warning(
            f"{path}: its first line says {count:,} words, and it has {done:,}; they are read"
        )
    return index, torch.frombuffer(numbers, dtype=torch.float32).view(-1, width)


def _check_memory(path: Path, words: int) -> None:
    if psutil.virtual_memory().available < RESERVE:
        raise NoVectorsError(
            f"after {words:,} words there is no memory left: add text_encoder.limit={words // 2},"
            " or map it into memory by fusion convert FILE --out FILE.safetensors"
        )


def _recognise(sample: bytes) -> tuple[Format, int]:
    """Recognise a format by the first bytes of a file; return also where the words begin."""
    first = len(MARK) if sample.startswith(MARK) else 0
    line, _, rest = sample[first:].partition(b"\n")
    header = re.fullmatch(rb"\s*(\d{1,18})\s+(\d{1,18})\s*", line)
    whole = len(sample) < SAMPLE
    if header and not _width_of(rest, whole) == 1 != int(header[2]):
        count, width = int(header[1]), int(header[2])
        if not 1 <= width <= MAX_WIDTH:
            raise NoVectorsError(f"vectors {width} wide; 1 to {MAX_WIDTH} are read")
        # A word may have a control character, but lines of words and numbers are text.
        odd = re.search(rb"[\x00-\x08\x0e-\x1f]", rest) or not _is_utf_8(rest)
        binary = _width_of(rest, whole) != width and bool(odd)
        return Format(binary, count, width), first + len(line) + 1
    if not (found := _width_of(sample[first:], whole)):
        raise NoVectorsError(_describe_other(sample))
    return Format(binary=False, words=None, width=found), first


def _describe_other(sample: bytes) -> str:
    known = next((what for start, what in OTHERS.items() if sample.startswith(start)), None)
    kind = "a pickle" if sample.startswith(b"\x80") else kind_of(sample[:512])
    if not sample:
        known = "it is empty"
    return known or (f"it is {kind}" if kind else "its lines are not each a word and numbers")


def _width_of(sample: bytes, whole: bool) -> int:
    """Count the numbers behind the word of most lines of a text; 0: there are none.

    ``whole``: the last line is complete.
    """
    lines = sample.split(b"\n")[:LINES]
    if not whole and len(lines) < LINES:
        lines.pop()
    widths: Counter[int] = Counter()
    for fields in map(bytes.split, lines):
        if 2 <= len(fields) <= MAX_WIDTH + 1 and all(map(_is_number, fields[1:])):
            widths[len(fields) - 1] += 1
    return widths.most_common(1)[0][0] if widths else 0


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _is_utf_8(sample: bytes) -> bool:
    try:
        sample[:-4].decode()  # the last letter may be cut
    except UnicodeDecodeError as error:
        return error.end >= len(sample) - 4
    return True


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


def _text_rows(file: Any, width: int, count: int | None) -> Iterator[tuple[bytes, bytes]]:
    """Give each word and its vector; GloVe has words with spaces in them, and blank ones."""
    for done, line in enumerate(iter(lambda: file.readline(MAX_LINE), b"")):
        word, *numbers = line.rstrip().rsplit(None, width) or [b""]
        if not word:
            continue  # an empty line
        if len(numbers) == width - 1 and line[:1].isspace():
            word, numbers = b" ", [word, *numbers]
        if len(numbers) != width:
            raise ValueError(f"a line has {len(numbers)} numbers instead of {width}")
        if count is not None and done + 1 < count and not line.endswith(b"\n"):
            raise EOFError(f"it ends in line {done + 2}, in the middle of {count} words")
        yield word, np.array([float(number) for number in numbers], np.float32).tobytes()
