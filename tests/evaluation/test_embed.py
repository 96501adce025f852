"""Clips are embedded once and texts once, on any number of processes, in whatever memory."""

import dataclasses
import os
import signal
import weakref

import pytest
import torch

from fusion.evaluation.embed import Embedded, SharedRows, embed, keep, store
from fusion.evaluation.retrieval import rank_directions
from fusion.models import MCN
from fusion.tokens import Tokens
from tests.evaluation.gallery import SHOWS, Captioned, make_model

COMBINATIONS = ["t", "v", "a", "tv", "ta", "va"]


def make_mcn():
    torch.manual_seed(0)
    modalities = {"text": {"dim": 6}, "video": {"dim": 5}, "audio": {"dim": 4}}
    return MCN(modalities, 8).eval()


def check_same(found, expected):
    assert found.ids == expected.ids and list(found.embeddings) == list(expected.embeddings)
    for combination, rows in expected.embeddings.items():
        torch.testing.assert_close(found.embeddings[combination], rows, rtol=1e-5, atol=1e-6)
    assert list(found.present) == list(expected.present)
    assert all(found.present[name].equal(flags) for name, flags in expected.present.items())


@pytest.mark.parametrize("make", [make_model, make_mcn])
def test_captions_of_a_clip_share_what_is_not_text(make):
    each = embed(make(), Captioned(), batch_size=3)
    clips = Captioned()
    found = embed(make(), clips, batch_size=3, shows=SHOWS)
    check_same(found, each)
    assert sorted(clips.read) == [0, 2, 3, 7, 8, 9]  # the first item of each clip
    sizes = {c: len(rows) for c, rows in found.embeddings.rows.items()}
    assert all(size == (11 if "t" in c else 6) for c, size in sizes.items())


def test_encoders_see_each_clip_once():
    model, seen = make_model(), []
    tokenize = model._tokenize
    model._tokenize = lambda m, x, n: seen.append((m, n)) or tokenize(m, x, n)
    embed(model, Captioned(), batch_size=100, shows=SHOWS)
    assert sorted(seen) == [("audio", 6), ("text", 11), ("video", 6)]


def test_only_what_is_asked_for_is_embedded():
    found = embed(make_model(), Captioned(), shows=SHOWS, combinations=["va", "t"])
    assert list(found.embeddings) == ["va", "t"]


def test_without_several_captions_every_item_is_read():
    clips = Captioned(range(5))
    found = embed(make_model(), clips, batch_size=2, shows=range(5))
    assert clips.read == list(range(5)) and not isinstance(found.embeddings, SharedRows)


class Stopped(Captioned):
    """A scheduler asks all processes to stop, also those that read."""

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGTERM)
        return super().__getitem__(index)


def test_f02_a_signal_to_processes_that_read_is_left_to_the_one_that_saves():
    expected = embed(make_model(), Captioned(), batch_size=3)
    check_same(embed(make_model(), Stopped(), batch_size=3, workers=1), expected)


@pytest.mark.parametrize("shows", [None, SHOWS])
def test_memory_that_runs_out_halves_what_is_embedded_at_a_time(shows, capsys):
    model, expected = make_model(), embed(make_model(), Captioned())
    embed_tokens = model.embed_tokens

    def scarce(tokens, *rest):
        if next(iter(tokens.values())).num_clips > 2:
            raise torch.OutOfMemoryError("out of memory")
        return embed_tokens(tokens, *rest)

    model.embed_tokens = scarce
    check_same(embed(model, Captioned(), batch_size=8, shows=shows), expected)
    assert "2 c" in capsys.readouterr().err


@pytest.mark.parametrize("shows", [None, SHOWS])
def test_of_what_was_embedded_no_batch_is_kept(shows):
    model, kept = make_model(), []
    call = model.embed_tokens if shows else model.forward

    def watch(*words):
        assert all(own() is None for own in kept[:-2])  # clips and captions of the batch before
        found = call(*words)
        kept.append(weakref.ref(next(iter(found.values()))))
        return found

    if shows:
        model.embed_tokens = watch
    else:
        model.forward = watch
    embed(model, Captioned(), batch_size=3, shows=shows)
    assert len(kept) > 3


def test_a_single_item_that_does_not_fit_is_an_error():
    model = make_model()

    def scarce(*_):
        raise torch.OutOfMemoryError("out of memory")

    model.embed_tokens = scarce
    with pytest.raises(torch.OutOfMemoryError):
        embed(model, Captioned(), batch_size=4)


def test_large_embeddings_are_in_a_file_that_is_gone(monkeypatch, tmp_path):
    monkeypatch.setattr(store, "IN_MEMORY", 0.0)
    monkeypatch.setattr(store.tempfile, "tempdir", str(tmp_path))
    found = embed(make_model(), Captioned(), batch_size=3, shows=SHOWS)
    assert list(tmp_path.iterdir()) == []
    check_same(found, embed(make_model(), Captioned(), batch_size=3))


def test_f08_a_full_disk_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(store, "IN_MEMORY", 0.0)
    monkeypatch.setattr(store.tempfile, "tempdir", str(tmp_path))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match="the embeddings take 0.0 GiB, and .* set TMPDIR"):
        embed(make_model(), Captioned(), shows=SHOWS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("processes", [2, 5])
@pytest.mark.parametrize("machines", ["one", "several"])
def test_f10_processes_share_the_work_and_all_get_the_result(tool, tmp_path, processes, machines):
    """Several machines: with folders for temporary files of their own. 5 have 5 batches."""
    if machines == "several":
        for rank in range(1, processes):
            (tmp_path / f"tmp{rank}").mkdir()
    code, _, errors = tool("tests/evaluation/gallery.py", tmp_path, processes=processes)
    assert code == 0, errors
    clips = Captioned()
    whole = embed(make_model(), clips, batch_size=3, shows=SHOWS)
    alone = rank_directions(dataclasses.replace(whole, shows=torch.tensor(SHOWS)))
    for rank in range(processes):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert found["left"] == [] and found["ids"] == whole.ids
        assert all(found["embeddings"][c].equal(whole.embeddings[c]) for c in COMBINATIONS)
        assert all(found["present"][m].equal(flags) for m, flags in whole.present.items())
        assert list(found["places"]) == list(alone) and len(alone) == 18
        for way, places in found["places"].items():
            for mine, theirs in zip(places, alone[way].places, strict=True):
                assert mine.tolist() == theirs.tolist(), way


def test_what_is_kept_is_not_copied():
    rows = {"t": torch.randn(4, 3), "v": torch.randn(2, 3)}
    shared = SharedRows(rows, {"v": torch.tensor([0, 0, 1, 1])})
    flags = {name: torch.ones(4, dtype=torch.bool) for name in ("text", "video")}
    embedded = Embedded(tuple("abcd"), shared, flags)
    kept = keep(embedded, torch.tensor([True, False, True, True]))
    assert kept.embeddings.rows["t"] is rows["t"] and kept.ids == ("a", "c", "d")
    assert kept.embeddings["t"].equal(rows["t"][[0, 2, 3]])
    assert kept.embeddings["v"].equal(rows["v"][[0, 1, 1]])
    assert keep(embedded, torch.ones(4, dtype=torch.bool)) is embedded
    units = dataclasses.replace(kept, similarity="dot").by_cosine().embeddings
    torch.testing.assert_close(units["v"].norm(dim=1), torch.ones(3))
    assert len(units.rows["v"]) == 2


def test_clips_are_taken_by_number_any_number_of_times():
    clips = [torch.randn(n, 2) for n in (2, 0, 3)]
    chosen = [2, 2, 1, 0, 2]
    found, expected = Tokens.pack(clips).select(torch.tensor(chosen)), [clips[i] for i in chosen]
    assert found.values.equal(torch.cat(expected))
    assert found.host_lengths.tolist() == [len(x) for x in expected]
    joined = Tokens.join([Tokens.pack(clips), Tokens.pack(clips[:1])])
    assert joined.values.equal(torch.cat([*clips, clips[0]])) and joined.num_clips == 4
