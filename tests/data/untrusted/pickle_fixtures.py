"""Pickles written for a test, and what is read of them."""

import numpy as np
import pytest

from fusion.data.untrusted.pickle import PickleFileError, load_pickle

SIX = np.arange(6, dtype="f2").reshape(2, 3)


def write(folder, content):
    path = folder / "data.pkl"
    path.write_bytes(content)
    return path


def line_of(path, **options):
    """Load a file that is refused; give the only line that says so."""
    with pytest.raises(PickleFileError) as error:
        load_pickle(path, **options)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message.removeprefix(f"{path}: ")


def assert_same(found, expected):
    assert type(found) is type(expected)
    if isinstance(found, np.ndarray):
        assert found.dtype == expected.dtype and found.flags.writeable
        np.testing.assert_array_equal(found, expected, strict=True)
    elif isinstance(found, dict):
        assert_same(list(found.items()), list(expected.items()))
    elif isinstance(found, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert found == expected
