"""Rows of a film; and a run that is stopped in any way, or meets a full disk, goes on."""

import json
import os
import shutil
import signal
import sys
import time

import numpy as np
import pytest
import torch

from fusion.data.features.store import FeatureStore
from fusion.data.features.writer import StoreWriter
from fusion.data.media.film import Piece
from fusion.data.media.pictures import Sampling
from fusion.extract import outcomes
from fusion.extract.backbone import Backbone, Source
from fusion.extract.films import FilmRows
from fusion.extract.job import extract
from tests.extract.tiny import TINY, content, use_tiny_networks
from tests.processes import context


def slowly_extract(films, store, begun):
    """Extract in a process that can be killed; slowly, and with a shard for every film."""
    use_tiny_networks(pytest.MonkeyPatch())  # in this process for good
    push, add = FilmRows.push, StoreWriter.add

    def slowly(self, piece):
        push(self, piece)
        begun.set()
        time.sleep(0.05)

    def add_and_flush(self, *words):
        add(self, *words)
        self.flush()

    FilmRows.push, StoreWriter.add = slowly, add_and_flush
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    extract([films], store, TINY)


def num_shards(store):
    return len(list(store.glob("shards/*.json")))


def test_f25_a_run_killed_at_any_moment_ends_like_one_that_was_not(done, films, tmp_path):
    """First within the first film; then each time after one more of the four is in the store."""
    store = tmp_path / "store"
    for written, seconds in enumerate((0, 0.01, 0.07)):
        begun = context.Event()
        process = context.Process(target=slowly_extract, args=(films, store, begun))
        process.start()
        assert begun.wait(60)
        while process.is_alive() and num_shards(store) < written:
            time.sleep(0.002)
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert written <= num_shards(store) < 4  # so there was more to do
    assert extract([films], store, TINY) == done[1]
    assert content(store) == content(done[0])
    assert not list(store.rglob("*.new-*"))


def extract_and_wait(films, store, added):
    """Extract in a process that waits after the first film, to be asked to stop."""
    use_tiny_networks(pytest.MonkeyPatch())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stderr = open(store.parent / "said", "w")  # noqa: SIM115
    add = StoreWriter.add

    def add_and_wait(self, *words):
        add(self, *words)
        added.set()
        time.sleep(20)

    StoreWriter.add = add_and_wait
    try:
        extract([films], store, TINY)
    except KeyboardInterrupt:
        sys.stderr.flush()
        os._exit(130)


def extract_with_a_limit(films, folder):
    """Extract in a process whose files cannot grow, and note the error."""
    import resource

    use_tiny_networks(pytest.MonkeyPatch())
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
    try:
        extract([films / "a.mp4"], folder / "store", TINY)
    except OSError as error:
        (folder / "said").write_text(str(error))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_stop_saves_what_is_done(films, tmp_path, number):
    """Without a shard for every film: what is done would be lost by a kill."""
    store, added = tmp_path / "store", context.Event()
    process = context.Process(target=extract_and_wait, args=(films, store, added))
    process.start()
    assert added.wait(60)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == 128 + number
    said = (tmp_path / "said").read_text()
    assert "stopped: 0 of 6 files are done; the same command goes on from there" in said
    assert list(FeatureStore(store).videos) == ["a.mp4"]


def test_f08_a_full_disk_is_one_line_and_what_is_finished_is_whole(films, tmp_path):
    pytest.importorskip("resource", reason="no limits here")
    process = context.Process(target=extract_with_a_limit, args=(films, tmp_path))
    process.start()
    process.join()
    said = (tmp_path / "said").read_text()
    assert (
        "store: writing failed (File too large); the videos in the store are complete: make room"
        in said
    )
    assert extract([films / "a.mp4"], tmp_path / "store", TINY).usable == 1


def test_two_processes_share_the_files_and_the_last_one_reports(
    done, films, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    first = extract([films], tmp_path / "store", TINY)
    assert not first.complete and first.exit_code == 0
    assert [line.problems for line in first.files if line.video == "a.mp4"] == [("not done yet",)]
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("RANK", "0")
    assert extract([films], tmp_path / "store", TINY) == done[1]
    assert "6 files: 4 ok" in capsys.readouterr().out
    assert content(tmp_path / "store") == content(done[0])
    names = {path.name.partition("-")[0] for path in (tmp_path / "store/shards").glob("*.json")}
    assert names == {"rank0", "rank1"}


def test_a_place_among_processes_that_cannot_be_is_refused(films, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(ValueError, match="RANK counts from 0 .*; got 2 of 2"):
        extract([films], tmp_path / "store", TINY)


def test_a_process_alone_goes_on_where_two_were(done, films, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        patch.setenv("RANK", "1")
        extract([films], tmp_path / "store", TINY)
    assert extract([films], tmp_path / "store", TINY) == done[1]
    assert content(tmp_path / "store") == content(done[0])
    assert [path.name for path in (tmp_path / "store/notes").iterdir()] == ["rank0.json"]


def test_of_two_processes_that_end_at_once_the_last_report_is_complete(done, tmp_path, monkeypatch):
    """The other one writes its note after this one has looked, and has reported before that."""
    store = tmp_path / "store"
    shutil.copytree(done[0], store)
    shutil.rmtree(store / "notes")
    outcomes.note_failures(store, 0, {})
    write = outcomes._write

    def write_late(store, found):
        write(store, found)
        outcomes.note_failures(store, 1, {"empty.mp4": "empty"})

    monkeypatch.setattr(outcomes, "_write", write_late)
    assert outcomes.collect_outcomes(store, ["a.mp4", "empty.mp4"], 2).complete
    assert json.loads((store / "report.json").read_text())["complete"]


# From pieces of a film to rows.


class Look(torch.nn.Module):
    """First, last and mean value of a window; remembers how much it was shown at a time."""

    def __init__(self, most=1000):
        super().__init__()
        self.most, self.sizes = most, []

    def forward(self, x):
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.sizes.append(len(x))
        return torch.stack([x[:, 0, 0, 0, 0], x[:, 0, -1, 0, 0], x.mean((1, 2, 3, 4))], 1)


def frames(count, size=(4, 6)):
    """Picture i is of level i + 1."""
    levels = 1 + np.arange(count, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(levels, (count, *size, 3)).copy()


def rows_of(count, window, stride, pieces=7, network=None, mean=0.0):
    sampling = Sampling(10, 4, frames=window, stride=stride)
    backbone = Backbone(
        "look", network or Look(), sampling, 3, (mean,) * 3, (1.0,) * 3, Source("3d")
    )
    rows = FilmRows({"3d": backbone})
    for start in range(0, count, pieces):
        rows.push(Piece("3d", frames(count)[start : start + pieces], 0.0))
    return rows.end()["3d"]


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 32, 100])
@pytest.mark.parametrize(("window", "stride"), [(16, 16), (32, 10), (2, 2), (16, 15)])
def test_there_is_a_row_for_every_step_that_has_begun(count, window, stride):
    rows = rows_of(count, window, stride)
    assert rows.shape == (-(-count // stride), 3) and rows.dtype == torch.float16
    for k, (first, last, mean) in enumerate(rows.tolist()):
        levels = [i + 1 if i < count else 0 for i in range(k * stride, k * stride + window)]
        assert (first, last) == (levels[0], levels[-1])
        assert mean == pytest.approx(np.mean(levels), rel=1e-3)


def test_what_is_behind_the_end_is_black_before_the_mean_is_subtracted():
    """As published: the filling is black, not of the mean colour."""
    assert rows_of(17, 16, 16, mean=100.0)[1, 1] == -100


def test_how_pieces_come_changes_nothing():
    assert torch.equal(rows_of(50, 8, 4, pieces=1), rows_of(50, 8, 4, pieces=50))


def test_where_memory_runs_out_less_is_computed_at_a_time():
    small, large = Look(most=3), Look()
    assert torch.equal(rows_of(90, 2, 1, network=small), rows_of(90, 2, 1, network=large))
    assert large.sizes == [90]
    assert small.sizes[:2] == [2, 2] and max(small.sizes) == 2


def test_other_errors_of_a_network_are_errors():
    class Broken(torch.nn.Module):
        def forward(self, x):
            raise RuntimeError("wrong shape")

    with pytest.raises(RuntimeError, match="wrong shape"):
        rows_of(9, 2, 1, network=Broken())


def test_what_is_not_there_has_no_rows():
    rows = FilmRows({}).end()
    assert rows["audio"].shape == (0, 40)
