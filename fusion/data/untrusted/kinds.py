"""What a file is, by its first bytes: for messages about a file of the wrong kind."""

import re

LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # PyTorch before 1.6
_BEGINNINGS = {
    LEGACY_TORCH: "a file of PyTorch; tools/convert.py reads models",
    b"PK\x03\x04": "a file of PyTorch, or another zip; tools/convert.py reads models",
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "compressed; unpack it first",
    b"Rar!": "compressed; unpack it first",
    b"7z\xbc\xaf": "compressed; unpack it first",
    b"<": "a web page, which a site shows instead of a download; download it again, in a browser",
}


def kind_of(head: bytes) -> str | None:
    """Say what a file is.

    Args:
        head: its first 512 bytes.

    Returns:
        For people: ``a NumPy array``, and what to do. None for a pickle or an unknown kind.
    """
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
