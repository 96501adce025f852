"""Names in arrays: every name leads to its row and to no other."""

import numpy as np
import pytest
from hypothesis import given, strategies

from fusion.data.features import name_index
from fusion.data.features.name_index import NameIndex, hash_name, sort_hashes


def index_of(names):
    encoded = [name.encode() for name in names]
    hashes, rows = sort_hashes(np.array([name_index.hash_name(n) for n in encoded], np.uint64))
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return NameIndex(np.frombuffer(b"".join(encoded), np.uint8), ends, hashes, rows, ValueError)


NAMES = strategies.lists(strategies.text(alphabet=strategies.characters(codec="utf-8"), max_size=4))


@given(NAMES, strategies.text(max_size=4), strategies.booleans())
def test_each_name_leads_to_its_first_row(names, other, one_hash):
    with pytest.MonkeyPatch.context() as patch:
        if one_hash:
            patch.setattr(name_index, "hash_name", lambda name: len(name) % 2)
        index = index_of(names)
        assert list(index) == names
        for name in [*names, other]:
            assert index.find(name) == (names.index(name) if name in names else -1)
            assert (name in index) == (name in names)
        repeated = index.first_repeated()
        assert names.count(repeated) > 1 if len(set(names)) < len(names) else repeated is None


def test_what_is_not_text_is_not_there():
    index = index_of(["a", "b"])
    assert 7 not in index and None not in index and "\udcff" not in index


def test_arrays_that_do_not_fit_together_are_refused():
    names, ends = np.frombuffer(b"ab", np.uint8), np.array([0, 1, 2])
    hashes, rows = sort_hashes(np.array([hash_name(b"a"), hash_name(b"b")], np.uint64))
    for wrong in [
        (names[:1], ends, hashes, rows),
        (names, ends[:2], hashes, rows),
        (names, ends[:0], hashes, rows),
        (names, ends, hashes[:1], rows),
        (names, ends, hashes, rows[:1]),
        (names, ends + 1, hashes, rows),
    ]:
        with pytest.raises(ValueError, match="its names do not fit together"):
            NameIndex(*wrong, ValueError)


def test_changed_arrays_never_lead_to_the_row_of_another():
    names = [f"video {number}" for number in range(9)]
    index = index_of(names)
    plain = (index._names, index._ends, index._hashes, index._rows)
    rng = np.random.default_rng(0)
    for _ in range(300):
        arrays = [array.copy() for array in plain]
        changed = arrays[rng.integers(4)]
        changed[rng.integers(len(changed))] = rng.integers(0, 256)
        try:
            damaged = NameIndex(*arrays, ValueError)
        except ValueError as error:
            assert "do not fit together" in str(error)
            continue
        for name in names:
            row = damaged.find(name)
            assert row == -1 or damaged[row] == name
