"""What a pickle makes is limited by the length of its file."""

import collections
import io
import pickle
import tracemalloc
import zipfile
from struct import pack

import numpy as np
import pytest
import torch

from fusion.data.untrusted.pickle import load_pickle
from tests.data.untrusted.pickle_fixtures import line_of, write

RECONSTRUCT = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntC\x01btR"
DTYPE = b"cnumpy\ndtype\n(V%b\nI00\nI01\ntR"


def storage(count=15_000, zipped=False, compressed=False, as_text=False, change=None):
    """Call for what pickling a tensor writes, or what torch.save does in its newer format."""
    file = io.BytesIO()
    numbers = torch.storage.TypedStorage(
        wrap_storage=torch.zeros(count).untyped_storage(), dtype=torch.float32, _internal=True
    )
    torch.save(numbers, file, _use_new_zipfile_serialization=zipped)
    content = change(file.getvalue()) if change else file.getvalue()
    if compressed:
        with zipfile.ZipFile(file) as archive:
            records = {name: archive.read(name) for name in archive.namelist()}
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, record in records.items():
                archive.writestr(name, record)
        content = file.getvalue()
    if as_text:
        content = content.decode("latin-1").encode()
        return b"X" + pack("<I", len(content)) + content
    size = pack("<I", len(content))
    return b"ctorch.storage\n_load_from_bytes\nB%b%b\x85R" % (size, content)


def text(length):
    return b"X" + pack("<I", length) + b"a" * length


def numbers(end=b""):
    """A list of some thousands; it is memoised under 1, and so is everything that is repeated."""
    return b"]q\x01(" + b"".join(b"M" + pack("<H", i) + end for i in range(9000)) + b"e0"


def repeated(first, call, arguments):
    """Call for the same arguments 300 times."""
    return b"\x80\x02" + first + call + b"q\x02](" + (b"h\x02" + arguments) * 300 + b"e."


LATIN = text(60_000) + b"q\x010Vlatin1\nq\x040"
BYTES = LATIN + b"c_codecs\nencode\nh\x01h\x04\x86Rq\x010"
OF_BIG_ENDIANS = DTYPE % b"f4" + b"(I3\nV>\nNNNI-1\nI-1\nI0\ntbq\x030"
TYPES = DTYPE % b"S60000" + b"(I3\nV|\nNNNI60000\nI1\nI0\ntbq\x030"
ORDERED = b"ccollections\nOrderedDict\n"
REPEATED = {
    "encode": (LATIN, b"c_codecs\nencode\n", b"h\x01h\x04\x86R"),
    "bytearray of text": (LATIN, b"cbuiltins\nbytearray\n", b"h\x01h\x04\x86R"),
    "bytearray of bytes": (BYTES, b"cbuiltins\nbytearray\n", b"h\x01\x85R"),
    "set": (numbers(), b"cbuiltins\nset\n", b"h\x01\x85R"),
    "frozenset": (numbers(), b"c__builtin__\nfrozenset\n", b"h\x01\x85R"),
    "OrderedDict": (numbers(b"N\x86"), ORDERED, b"h\x01\x85R"),
    "OrderedDict's attributes": (text(9) + b"0}q\x01(" + b"".join(
        b"V%d\nN" % i for i in range(9000)) + b"u0", ORDERED, b")Rh\x01b"),
    "scalar": (BYTES + TYPES, b"cnumpy._core.multiarray\nscalar\n", b"h\x03h\x01\x86R"),
    "scalar of Python 2": (LATIN + TYPES, b"cnumpy.core.multiarray\nscalar\n", b"h\x03h\x01\x86R"),
    "storage of Python 2": (
        storage(as_text=True) + b"q\x010", b"ctorch.storage\n_load_from_bytes\n", b"h\x01\x85R",
    ),
    "array": (
        BYTES + OF_BIG_ENDIANS,
        b"cnumpy._core.multiarray\n_reconstruct\n",
        b"(cnumpy\nndarray\n(I0\ntVb\ntR(I1\n(I15000\nth\x03I00\nh\x01tb",
    ),
    "tensor": (storage(15_000) + b"q\x010", b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"(h\x01I0\n(I15000\nt(I1\ntI00\nNtR"),
}  # fmt: skip


@pytest.mark.parametrize("name", REPEATED)
def test_what_a_file_has_once_is_not_copied_again_and_again(tmp_path, name):
    content = repeated(*REPEATED[name])
    line_of(write(tmp_path, content))  # warms what is cached
    tracemalloc.start()
    try:
        line = line_of(write(tmp_path, content))
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    attributes = "it changes an OrderedDict" in line and name.endswith("attributes")
    assert attributes or "it takes the same data again and again" in line


@pytest.mark.parametrize("protocol", range(3))
def test_files_that_are_nothing_but_numbers_may_be_copied_as_often_as_they_need(tmp_path, protocol):
    """Bytes of old protocols are text, bytes, a storage and an array, one after the other."""
    value = [torch.zeros(9000), np.zeros(9000, ">f4"), bytearray(9000), set(range(9000))]
    value += [np.bytes_(b"a" * 9000), frozenset([None]), collections.OrderedDict.fromkeys("abc")]
    for part in value:
        load_pickle(write(tmp_path, pickle.dumps([part, part], protocol)))


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 10**6, "zipped": True, "compressed": True},
        {"zipped": True},
        {"change": lambda content: content[:-1]},
        {"change": lambda content: content + b"more"},
        {"change": lambda content: content[:-60_008] + b"\0" + content[-60_007:]},
        {"change": lambda content: content.replace(b"Float", b"Quant")},
        {"change": lambda content: content.replace(b"q\x03M\x98", b"q\x03M\x99")},
        {"change": lambda content: content.replace(b"Ntq", b")tq")},
        {"change": lambda content: content[:20] + b"N0" * 99 + content[20:]},
    ],
)  # fmt: skip
def test_storages_that_are_not_what_pickling_writes_are_refused(tmp_path, changes):
    """One that was compressed has 4 MB in the memory and 5 kB in the file."""
    path = write(tmp_path, b"\x80\x03" + storage(**changes) + b".")
    tracemalloc.start()
    try:
        assert "a tensor's numbers are not what torch saves" in line_of(path)
        assert tracemalloc.get_traced_memory()[1] < 2_500_000
    finally:
        tracemalloc.stop()


def test_the_storage_that_is_changed_above_is_one(tmp_path):
    assert "it holds Storage" in line_of(write(tmp_path, b"\x80\x03" + storage() + b"."))
