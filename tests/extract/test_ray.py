"""Extraction on Ray: two workers, of which one is killed, make the store that one process makes."""

import contextlib
import os
import shutil
import sys
import tempfile
import time
from subprocess import DEVNULL, PIPE, Popen

import psutil
import pytest
import torch

from fusion.data.features.writer import StoreWriter
from fusion.extract import ray_films
from fusion.extract.decoder_pool import Task
from fusion.extract.job import extract
from fusion.extract.ray_cluster import Answer, Cluster, compute_films
from tests.extract.ray_workers import Shout, Threads, TinyFilms
from tests.extract.tiny import TINY, content
from tests.processes import ROOT

pytest.importorskip("ray", reason="Ray is not installed: pip install 'fusion[cluster]'")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # of its own settings
ONE, TWO = Cluster(workers=1), Cluster(workers=2)


@pytest.fixture(autouse=True)
def tiny_workers(monkeypatch):
    monkeypatch.setattr(ray_films, "Films", TinyFilms)


def files_of(store):
    """Every file of a store but locks, by name, as bytes."""
    return {
        file.relative_to(store).as_posix(): file.read_bytes()
        for file in store.rglob("*")
        if file.is_file() and not file.name.startswith(".")
    }


def test_where_a_worker_is_killed_every_file_of_the_store_is_the_same(
    local_ray, done, films, tmp_path, capsys
):
    """Among the films are two that cannot be read: their failures are the same, too."""
    marks = [films / "a.mp4.kill", films / "b/long.mp4.kill"]
    for mark in marks:
        mark.touch()
    report = extract([films], tmp_path / "store", TINY, cluster=TWO)
    assert not any(mark.exists() for mark in marks)  # so both workers were killed
    assert report == done[1]
    assert files_of(tmp_path / "store") == files_of(done[0])
    assert "raylet" not in capsys.readouterr().out


def test_a_film_that_ends_every_worker_fails_and_others_do_not(local_ray, films, tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    shutil.copy(films / "a.mp4", folder / "a deadly film.mp4")
    shutil.copy(films / "a.mp4", folder / "b.mp4")
    report = extract([folder], tmp_path / "store", TINY, cluster=TWO)
    deadly, other = report.files
    assert deadly.state == "failed" and other.state == "ok"
    assert deadly.problems[0].startswith("each of 3 workers ended while it had this film")


def test_a_run_that_is_stopped_keeps_what_is_done_and_goes_on(
    local_ray, done, films, tmp_path, monkeypatch
):
    add = StoreWriter.add

    def add_one(self, *words):
        add(self, *words)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "add", add_one)
        with pytest.raises(KeyboardInterrupt):
            extract([films], tmp_path / "store", TINY, cluster=TWO)
    assert list(content(tmp_path / "store")) == ["a.mp4"]
    assert extract([films], tmp_path / "store", TINY) == done[1]  # without Ray, which may go on too
    assert content(tmp_path / "store") == content(done[0])


def test_a_worker_says_what_is_wrong_in_one_line(local_ray, tmp_path):
    there, lost, bad = (Task(name, tmp_path / name) for name in ("there", "lost", "bad"))
    there.path.touch()
    bad.path.touch()
    with pytest.raises(ValueError, match="no weights here") as error:
        list(compute_films(ONE, [there], Shout, ["broken"]))
    assert str(error.value) == "no weights here"
    answers = compute_films(ONE, [lost, there, bad], Shout, ["!"])
    assert next(answers).problem.endswith("; all machines must have the films under the same path")
    assert next(answers) == Answer("THERE!")
    with pytest.raises(KeyError, match="a bug"):
        next(answers)


def test_a_worker_with_other_weights_is_refused():
    with pytest.raises(ValueError, match="a worker has other settings of decoding: .*, and not 0"):
        TinyFilms(TINY, {"format": 1, "decoding": 0}, 60.0)


def test_workers_compute_with_as_many_threads_as_this_process(local_ray, tmp_path, monkeypatch):
    """The last bits of a convolution depend on it."""
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        (answer,) = compute_films(ONE, [Task("a", tmp_path)], Threads, [])
    finally:
        torch.set_num_threads(before)
    assert answer.value == (3, "5")


def test_what_cannot_be_asked_of_ray_is_said(films, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"^ray://head:1 is for Ray's clients; give HOST:PORT"):
        extract([films], tmp_path / "store", TINY, cluster=Cluster("ray://head:1"))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"install it by: pip install 'fusion\[cluster\]'$"):
        extract([films], tmp_path / "store", TINY, cluster=TWO)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="divides the films itself; unset RANK and WORLD_SIZE"):
        extract([films], tmp_path / "store", TINY, cluster=TWO)


def test_a_ray_of_this_machine_is_private_and_leaves_nothing(films, tmp_path):
    words = ["extract", films, "--out", tmp_path / "store", "--features-2d", "none"]
    words += ["--features-3d", "none", "--engine", "ray", "--workers", "2"]
    command = [sys.executable, "-m", "fusion", *map(str, words)]
    with tempfile.TemporaryDirectory() as folder:  # of a name that is short enough for sockets
        place = {**os.environ, "TMPDIR": folder}
        place.pop("RAY_ADDRESS", None)
        program = Popen(command, cwd=ROOT, env=place, stdout=PIPE, stderr=DEVNULL, text=True)
        listening, family = watch(program)
        assert program.returncode == 0
        assert "6 files: 3 ok, 0 partial, 3 failed" in program.stdout.read()
        assert len(family) > 5  # so Ray's own processes are among them
        assert listening and listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
        psutil.wait_procs(family.values(), timeout=10)
        assert not [process for process in family.values() if process.is_running()]
        assert not [name for name in os.listdir(folder) if name.startswith("ray-")]


def watch(program):
    """Until a program ends: the addresses on which it and its children listen, and the children."""
    listening, family = set(), {}
    while program.poll() is None:
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(program.pid).children(recursive=True):
                family[process.pid] = process
                with contextlib.suppress(psutil.Error):
                    places = process.net_connections()
                    listening |= {place.laddr.ip for place in places if place.status == "LISTEN"}
        time.sleep(0.2)
    return listening, family
