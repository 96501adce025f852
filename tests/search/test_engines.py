"""All engines give the answers of a search by hand."""

import contextlib
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusion.search.engines import exact, ivf, server
from fusion.search.engines.choice import prepare
from fusion.search.index import Index
from fusion.search.storage import Storage
from tests.search.synthetic import put, slow, unit

HAS = st.sampled_from(["v", "a", "t", "va", "tv", "tva"])
FILMS = st.dictionaries(st.sampled_from(["a", "b", "ab", "c"]), st.lists(HAS, max_size=9))
WITHIN = st.sampled_from([(), ("v",), ("a", "v"), ("v", "a", "tva"), ("t",)])
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # SQLite need not wait for a disk
URL = "http://localhost:6333"


@pytest.fixture
def engine(request, monkeypatch):
    """An engine that does also for small indexes what it does for large ones, missing nothing."""
    monkeypatch.setattr(exact, "BLOCK", 3)
    monkeypatch.setattr(os, "fsync", lambda file: None)  # nobody pulls the plug
    if request.param == "faiss":
        pytest.importorskip("faiss")
        for name, value in [("EXACT", 0), ("FEW", 0), ("RECALL", 2.0)]:  # it looks into all lists
            monkeypatch.setattr(ivf, name, value)
    if request.param == "qdrant":
        client = pytest.importorskip("qdrant_client").QdrantClient(":memory:")
        monkeypatch.setattr(server, "FEW", 0)
        monkeypatch.setattr(client, "close", lambda: None)
        monkeypatch.setattr(server, "connect", lambda url: client)
    return request.param


every_engine = pytest.mark.parametrize("engine", ["exact", "faiss", "qdrant"], indirect=True)


def ready(folder, engine):
    """Prepare an index for an engine."""
    with contextlib.closing(Storage(folder, write=True)) as storage:
        prepare(storage, engine, URL if engine == "qdrant" else None, quiet=True)


def agree(hits, expected, count):
    """Compare hits with all that could be found; nearly equal ones in any order."""
    assert len(hits) == min(count, len(expected))
    assert [h.id for h in sorted(hits, key=lambda h: (-h.calibrated, h.id))] == [h.id for h in hits]
    by_hand = {number: values for number, *values in expected}
    for hit, (_, _, there) in zip(hits, expected, strict=False):
        dot, calibrated = by_hand.pop(hit.id)
        assert (hit.score, hit.calibrated) == pytest.approx((dot, calibrated), abs=1e-6)
        assert hit.calibrated == pytest.approx(there, abs=1e-6)


@every_engine
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:Local mode performs exact")
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    first=FILMS,
    later=FILMS,
    last=FILMS,
    gone=st.sets(st.sampled_from(["a", "b", "ab", "c"])),
    within=WITHIN,
    name=st.sampled_from(["", "a", "ab", "c"]),
    count=st.integers(1, 12),
    distinct=st.sampled_from([None, 2]),
    seed=st.integers(0, 99),
)
def test_answers_are_those_of_a_search_by_hand(
    engine, first, later, last, gone, within, name, count, distinct, seed
):
    with tempfile.TemporaryDirectory(dir=MEMORY) as path:
        folder = put(Path(path) / "i", first, seed, distinct=distinct)
        ready(folder, engine)
        put(folder, later, seed + 1, gone=gone, distinct=distinct)
        ready(folder, engine)
        put(folder, last, seed + 2, distinct=distinct)  # the engine does not know these
        query = unit(np.random.default_rng(seed), 1, 8)[0]
        index = Index(folder)
        if index.about()["clips"]:
            hits = index.nearest(query, count, within, name or None)
            agree(hits, slow(folder, query, within or ("v", "a", "va"), name), count)
        index.close()


@every_engine
def test_a_clip_is_not_near_itself_but_its_copies_are(engine, tmp_path):
    folder = put(tmp_path / "i", {"a": ["va"] * 6, "b": ["va", "v"]}, distinct=1)
    ready(folder, engine)
    assert [hit.id for hit in Index(folder).near(3, k=4)] == [1, 2, 4, 5]


@every_engine
def test_several_threads_get_the_answers_of_one(engine, tmp_path):
    folder = put(tmp_path / "i", {"a": ["va", "v"] * 99, "b": ["a", "va"] * 99}, width=16)
    ready(folder, engine)
    index = Index(folder)
    queries = unit(np.random.default_rng(1), 60, 16)
    expected = [index.nearest(query) for query in queries]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(index.nearest, queries)) == expected
    for query, hits in zip(queries[:9], expected, strict=False):
        agree(hits, slow(folder, query, ("v", "a", "va")), 10)
