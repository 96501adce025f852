"""The restricted unpickler: the only way in which this package opens a pickle.

A pickle is a program that names functions and calls them. These are the rules for it:

1. **Scan first.** All instructions are checked before the first one is followed. Only those for
   plain data are allowed, in checkpoints also those for objects. No length and no memo number may
   exceed the file (CPython gh-115952: 10 bytes could ask for 64 GB).
2. **Exact names.** Nothing is imported. A name is looked up in a short table and gives a
   :class:`StandIn`, never the real function. An unknown name is refused; in a checkpoint it gives a
   :class:`Foreign`, an empty object that ignores all that is done to it.
3. **Arguments before memory.** A stand-in checks its arguments before it makes anything, and takes
   the bytes from a :class:`Budget`: a pickle can repeat a name in two bytes, and so let a short
   file copy one array a thousand times.
4. **Result last.** Readers take from the result only the types that they know.

A file that keeps these rules can still take for ever, or crash Python: by tuples in tuples as a
key, whose hash is computed anew each time. So it is followed in a program with limits first, see
:mod:`fusion.data.untrusted.limited`.
"""

from __future__ import annotations

import functools
import pickle
import pickletools
import re
from collections.abc import Callable, Mapping
from mmap import mmap
from reprlib import repr as short
from typing import Any, BinaryIO, NoReturn

# Limits for checkpoints.
MAX_FOREIGN = 1000  # unknown names; each costs a kilobyte, and published checkpoints have ten
MAX_TUPLES = 20_000  # four for a tensor; Python crashes when it hashes 100,000, one in another


class Refused(ValueError):
    """The file has something that is not read; the message says what."""


def refuse(why: str) -> NoReturn:
    """Stop reading: raise :class:`Refused`."""
    raise Refused(why)


class Budget:
    """A limit for all that the stand-ins of one file of ``size`` bytes make; real files need less.

    Old protocols store bytes as text, which becomes bytes, then an array: three copies of each. An
    item of a set or a dict takes at least a byte of the file.
    """

    def __init__(self, size: int) -> None:
        self._bytes, self._items = 4 * size, size

    def take(self, num_bytes: int = 0, items: int = 0) -> None:
        """Take from the budget before something is made; refuse the file when it is spent."""
        self._bytes -= num_bytes
        self._items -= items
        if self._bytes < 0 or self._items < 0:
            refuse("it takes the same data again and again, to fill the memory")


class StandIn:
    """What a known name gives; a pickle can neither change nor hash it."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __setstate__(self, state: object) -> None:
        refuse("it changes what is no data")


class Function(StandIn):
    """A stand-in that the pickle may call."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *args: object) -> object:
        """Call the function, which checks its arguments."""
        return self._function(*args)


class Foreign:
    """Stands for an object of an unknown class; each unknown name gives a subclass."""

    __slots__ = ()
    name = "an id"  # of the class or function that would have made the object

    def __new__(cls, /, *args: object, **kwargs: object) -> Foreign:
        """Ignore the arguments."""
        return super().__new__(cls)

    def __call__(self, *args: object, **kwargs: object) -> Foreign:
        """Ignore the arguments."""
        return self

    def _ignore(self, *args: object) -> None:
        pass

    __setstate__ = append = extend = add = __setitem__ = _ignore


class Unpickler(pickle.Unpickler):
    """Python's unpickler in C, with stand-ins behind the names. Call :func:`scan` before.

    ``known`` has the stand-in of each ``(module, name)`` that may occur. With ``describe``, every
    other name gives a :class:`Foreign`, listed in ``foreign`` by ``module.name``; else it is
    refused. ``has_names``: whether the pickle named anything at all.
    """

    def __init__(
        self, file: BinaryIO, known: Mapping[tuple[str, str], StandIn], describe: bool = False
    ) -> None:
        super().__init__(file, encoding="latin1")  # the texts of Python 2
        self._known, self._describe = known, describe
        self.foreign: dict[str, type[Foreign]] = {}
        self.has_names = False

    def find_class(self, module: str, name: str) -> Any:
        """Give what stands for a name; the base class would import it."""
        self.has_names = True
        if (module, name) in self._known:
            return self._known[module, name]
        full = f"{module}.{name}"
        if not self._describe:
            refuse(f"it names {short(full)}, which is no data and may run code")
        if full not in self.foreign:
            if len(self.foreign) == MAX_FOREIGN:
                refuse(f"it names more than {MAX_FOREIGN} classes that are not known here")
            self.foreign[full] = type("Foreign", (Foreign,), {"name": full, "__slots__": ()})
        return self.foreign[full]


def printable(value: object, most: int = 80) -> str:
    """Write a value of a file for a terminal: short, and without characters that would steer it."""
    text = value if isinstance(value, str) else short(value)
    text = text if len(text) <= most else f"{text[: most - 1]}\N{HORIZONTAL ELLIPSIS}"
    return text if text.isprintable() else ascii(text)


# --- The scan -------------------------------------------------------------------------------------

_COUNTED = {ord("T"): 4, ord("B"): 4, ord("X"): 4, 0x8B: 4, 0x8D: 8, 0x8E: 8, 0x96: 8}  # bytes
_PLAIN = b"(012NRbadeltsu})]\x85\x86\x87\x88\x89\x8f\x90\x91\x93\x94"  # without an argument
_OBJECTS = b"oQ\x81\x92"
_WITH_ARGUMENT = b"hqK\x80UC\x8a\x8cTBX\x8bJjMGILFSVgcpr"
_STOP, _FRAME, _PUT, _LONG_BINPUT = ord("."), 0x95, ord("p"), ord("r")


@functools.cache
def _instructions(small_numbers: int, small_bytes: int, objects: bool) -> re.Pattern[bytes]:
    """Match a run of short instructions; a loop in Python would be slower than the loading.

    A memo number of ``small_numbers`` decimal digits or ``small_bytes`` bytes cannot be too high.
    """
    no_argument = b"[%b]*" % re.escape(_PLAIN + _OBJECTS * objects)
    counted1 = b"|".join(re.escape(bytes([n])) + b".{%d}" % n for n in range(256))
    counted4 = b"|".join(re.escape(bytes([n])) + b"\0\0\0.{%d}" % n for n in range(256))
    kinds = [
        b"[hqK\x80].",
        b"[UC\x8a\x8c](?:%b)" % counted1,
        b"[TBX\x8b](?:%b)" % counted4,
        b"[Jj].{4}",
        b"M..",
        b"G.{8}",
        b"[ILFSVg%b][^\n]*\n" % (b"P" * objects),
        b"[c%b][^\n]*\n[^\n]*\n" % (b"i" * objects),
        b"p[0-9]{1,%d}\n" % small_numbers,
        b"r.{%d}\0{%d}" % (small_bytes, 4 - small_bytes),
    ]
    run = b"%b(?:(?:%b)%b){0,10000}" % (no_argument, b"|".join(kinds), no_argument)
    return re.compile(run, re.DOTALL)


def scan(content: bytes | mmap, begin: int = 0, objects: bool = False) -> int:
    """Check the instructions of a pickle without following them; return where the pickle ends.

    An instruction must not cross the end of a frame: the unpickler reads frames whole, so it would
    see other instructions than the scan. ``objects``: the pickle is of a checkpoint, so allow the
    instructions for objects and limit tuples. Raises :class:`Refused`, a ValueError for a byte that
    is no instruction, or an EOFError for a pickle that is cut off.
    """
    size = len(content)
    digits, num_bytes = max(1, len(str(size)) - 1), min(4, (size.bit_length() - 1) // 8)
    run: Any = _instructions(digits, max(0, num_bytes), objects).match  # never None
    position, end = begin, size
    while position < size:
        if position == end:
            end = size
        before, position = position, run(content, position, end).end()
        if position == end:
            continue
        start, code = position, content[position]
        if code in _COUNTED:
            data = position + 1 + _COUNTED[code]
            position = data + int.from_bytes(content[position + 1 : data], "little")
        elif code == _FRAME and end == size:
            position += 9
            end = position + int.from_bytes(content[start + 1 : position], "little")
        elif code in (_PUT, _LONG_BINPUT):
            position = _end_of_memo(content, position)
        elif code == _STOP:
            if objects and position - begin > MAX_TUPLES:
                _count_tuples(content[begin : position + 1])
            return position + 1
        elif start == before:
            _refuse_instruction(code, position, objects)
        if position > end or end > size:
            raise EOFError(f"what begins at byte {start} is longer than the file or its frame")
    raise EOFError("the file ends before the pickle does")


def _end_of_memo(content: bytes | mmap, position: int) -> int:
    """Check a high memo number; find the end of its instruction."""
    if content[position] == _LONG_BINPUT:
        end = position + 5
        number = int.from_bytes(content[position + 1 : end], "little")
    else:
        line = content[position + 1 : position + 22].partition(b"\n")
        end = position + 1 + len(line[0]) + 1
        number = int(line[0]) if line[1] else len(content) + 1
    if not 0 <= number <= len(content) and end <= len(content):
        refuse(f"a memo number at byte {position} is higher than a file this long needs")
    return end


def _count_tuples(content: bytes) -> None:
    codes = (code.name for code, _, _ in pickletools.genops(content))
    if sum(name.startswith("TUPLE") for name in codes) > MAX_TUPLES:
        refuse(f"it has more than {MAX_TUPLES:,} tuples; nested, they would crash Python")


def _refuse_instruction(code: int, position: int, objects: bool) -> NoReturn:
    if code in _WITH_ARGUMENT + b"Pi" * objects:
        raise EOFError(f"the instruction at byte {position} is cut off")
    names = [known.name for known in pickletools.opcodes if ord(known.code) == code]
    if not names:
        raise ValueError(f"byte {position}, {code:#x}, is no instruction")
    refuse(f"instruction {names[0]} at byte {position} is not one for plain data")


# --- Files of another kind ------------------------------------------------------------------------

LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # PyTorch before 1.6
_BEGINNINGS = {
    LEGACY_TORCH: "a file of PyTorch; fusion convert reads models",
    b"PK\x03\x04": "a file of PyTorch, or another zip; fusion convert reads models",
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "compressed; unpack it first",
    b"Rar!": "compressed; unpack it first",
    b"7z\xbc\xaf": "compressed; unpack it first",
    b"<": "a web page, which a site shows instead of a download; download it again, in a browser",
}


def kind_of(head: bytes) -> str | None:
    """Say for a message what a file is, by its first 512 bytes; None: a pickle or unknown."""
    if head[4:9] == b"\0\0\0\0{":
        return "a safetensors file"
    for beginning, kind in _BEGINNINGS.items():
        if head.startswith(beginning):
            return kind
    if head[257:262] == b"ustar" and not head.startswith(b"\x80"):
        return "an archive; unpack it with tar -xf and name the file in it"
    if re.match(rb"\d+ \d+\n", head):
        return "one of word vectors; convert it by --out FILE.safetensors"
    return None
