"""Follow a pickle without obeying it: plain data are made, everything else is only described.

A pickle is a program that names classes and functions and calls them. Here its instructions are
taken one by one (Python's ``pickletools`` decodes them and does nothing else). Those for plain data
are followed. A class or function is a :class:`Name`, two texts that nobody looks up; what a call
would have made is what the reader of the file says, or else a :class:`Foreign`.

Nothing is imported, called or allocated because a pickle says so: what it costs is proportional to
its length.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

Key = str | bytes | int | float | None


class Name(NamedTuple):
    """What a pickle calls a class or a function."""

    module: str
    name: str

    def __str__(self) -> str:
        """Write it with a dot."""
        return f"{self.module}.{self.name}"


class Foreign:
    """Stands where an object would be.

    Attributes:
        name: of the class or function that would have made it.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


def printable(text: str) -> str:
    """Make a text from a file fit for a terminal: short, and without what would steer it."""
    short = text if len(text) <= 80 else f"{text[:79]}\N{HORIZONTAL ELLIPSIS}"
    return short if short.isprintable() else ascii(short)


class Pickle:
    """What a pickle holds.

    Lists, dicts, tuples, texts, bytes and numbers are what they are. A set is a list, and a dict
    has no other keys than texts, bytes and numbers: hashing anything else is for the file to abuse.

    Args:
        file: to read from, up to the end of the pickle and not further.
        make: given a name and the arguments of a call, what to put there; ``NotImplemented`` for a
            :class:`Foreign`.
        load: the same, given a persistent id.

    Attributes:
        content: the value.
        names: of all classes and functions that the pickle mentions, in its order.

    Raises:
        Exception: of many kinds, if the file is damaged or no pickle.
    """

    def __init__(
        self,
        file: Any,
        make: Callable[[Name, tuple[Any, ...]], Any] = lambda name, arguments: NotImplemented,
        load: Callable[[Any], Any] = lambda identity: NotImplemented,
    ) -> None:
        self.names: dict[str, None] = {}
        self._make, self._load = make, load
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stack under each mark
        self._memo: dict[int, Any] = {}
        for instruction, argument, _ in pickletools.genops(file):
            self._follow(instruction.name, argument)
        self.content = self._stack.pop()

    def _follow(self, name: str, argument: Any) -> None:
        """Follow one instruction that makes, keeps or fetches plain data."""
        if name in _WITH_VALUE:
            self._push(argument)
        elif name in _FIXED:
            self._push(_FIXED[name])
        elif name in _NEW:
            self._push(_NEW[name]())
        elif name in _OF_MARKED:
            self._push(_OF_MARKED[name](self._pop_marked()))
        elif name in _OF_LAST:
            self._push(self._pop_last(_OF_LAST[name]))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self._push(self._memo[argument])
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = self._pop_last(1) if name == "APPEND" else self._pop_marked()
            if type(self._stack[-1]) is list:
                self._stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._pop_last(2) if name == "SETITEM" else self._pop_marked()
            if type(self._stack[-1]) is dict:
                self._stack[-1].update(_pairs(items))
        else:
            self._follow_rare(name, argument)

    def _follow_rare(self, name: str, argument: Any) -> None:
        """Follow one instruction about the stack or about objects."""
        if name == "MARK":
            self._below.append(self._stack)
            self._stack = []
        elif name == "POP" and self._stack:
            self._stack.pop()
        elif name in ("POP", "POP_MARK"):
            self._pop_marked()
        elif name == "DUP":
            self._push(self._stack[-1])
        elif name == "BUILD":
            self._stack.pop()  # the state of an object, which is not there
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            words = argument.split(" ", 1) if name == "GLOBAL" else self._pop_last(2)
            self._push(self._name(*words))
        elif name in ("REDUCE", "NEWOBJ"):
            self._push(self._called(*self._pop_last(2)))
        elif name == "NEWOBJ_EX":
            kind, arguments, _ = self._pop_last(3)
            self._push(self._called(kind, arguments))
        elif name == "INST":
            arguments = tuple(self._pop_marked())
            self._push(self._called(self._name(*argument.split(" ", 1)), arguments))
        elif name == "OBJ":
            kind, *items = self._pop_marked()
            self._push(self._called(kind, tuple(items)))
        elif name in ("BINPERSID", "PERSID"):
            loaded = self._load(self._stack.pop() if name == "BINPERSID" else argument)
            self._push(Foreign("an id") if loaded is NotImplemented else loaded)
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"instruction {name} is not known here")

    def _name(self, module: Any, name: Any) -> Name:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ValueError("a name is no text")
        found = Name(module, name)
        self.names[str(found)] = None
        return found

    def _called(self, kind: Any, arguments: Any) -> Any:
        if type(kind) is not Name or not isinstance(arguments, tuple):
            return Foreign("an unnamed object")
        made = self._make(kind, arguments)
        return Foreign(str(kind)) if made is NotImplemented else made

    def _push(self, value: Any) -> None:
        self._stack.append(value)  # looked up now: what made the value may have changed the stack

    def _pop_marked(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _pop_last(self, count: int) -> tuple[Any, ...]:
        items = tuple(self._stack[-count:])
        del self._stack[-count:]
        return items


def _pairs(items: Iterable[Any]) -> Iterator[tuple[Key, Any]]:
    each = iter(items)
    for key, value in zip(each, each, strict=True):
        if key is None or type(key) in (str, bytes, int, float, bool):
            yield key, value


_WITH_VALUE = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
_FIXED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NEW = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple, "EMPTY_SET": list}
_OF_MARKED: dict[str, Callable[[list[Any]], Any]] = {
    "LIST": list,
    "TUPLE": tuple,
    "FROZENSET": list,
    "DICT": lambda items: dict(_pairs(items)),
}
_OF_LAST = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
