"""Extraction on Ray: two workers, of which one is killed, make the store that one process makes."""

import contextlib
import os
import sys
import tempfile
import time
from importlib.util import find_spec
from subprocess import DEVNULL, PIPE, Popen
from types import SimpleNamespace

import psutil
import pytest
import torch

from fusion.data.features.writer import StoreWriter
from fusion.extract import ray_cluster, ray_films
from fusion.extract.decoder_pool import Task
from fusion.extract.job import extract
from fusion.extract.ray_cluster import Answer, Cluster, compute_films
from tests.extract.ray_workers import Shout, TinyFilms
from tests.extract.tiny import TINY, content
from tests.processes import ROOT

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray: pip install 'fusion[cluster]'"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),  # of Ray's own settings
]
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
    """It has the first film, which so comes last. The failures of two films are the same, too."""
    mark = films / "a.mp4.kill"
    mark.touch()
    report = extract([films], tmp_path / "store", TINY, cluster=TWO)
    assert not mark.exists()  # so a worker was killed
    assert report == done[1]
    assert files_of(tmp_path / "store") == files_of(done[0])
    assert "raylet" not in capsys.readouterr().out


def test_a_film_for_which_ray_has_no_answer_fails_and_others_do_not(films, tmp_path, monkeypatch):
    def answers(cluster, tasks, make, arguments):
        yield Answer(problem="each of 3 workers ended")
        yield Answer(make(*arguments)(tasks[1]))

    monkeypatch.setattr(ray_films, "compute_films", answers)
    two = [films / "a.mp4", films / "blind.mp4"]
    lost, other = extract(two, tmp_path / "store", TINY, cluster=TWO).files
    assert (lost.state, lost.problems) == ("failed", ("each of 3 workers ended",))
    assert other.state == "ok"


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


def test_a_film_that_ends_every_worker_is_given_up_and_errors_are_one_line(
    local_ray, tmp_path, monkeypatch
):
    names = ("lost", "there", "deadly", "after", "bad")
    tasks = {name: Task(name, tmp_path / name) for name in names}
    for name in names[1:]:
        tasks[name].path.touch()
    with pytest.raises(ValueError, match="no weights here") as error:
        list(compute_films(ONE, [tasks["there"]], Shout, ["broken"]))
    assert str(error.value) == "no weights here"
    threads = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    torch.set_num_threads(3)  # on which the last bits of a convolution depend
    try:
        with contextlib.closing(compute_films(ONE, list(tasks.values()), Shout, ["!"])) as answers:
            assert next(answers).problem.endswith("must have the films under the same path")
            assert next(answers) == Answer(("THERE!", 3, "5"))
            assert next(answers).problem.startswith("each of 3 workers ended while it had this")
            assert next(answers).value[0] == "AFTER!"
            with pytest.raises(KeyError, match="a bug"):
                next(answers)
    finally:
        torch.set_num_threads(threads)


def test_a_worker_with_other_weights_is_refused():
    with pytest.raises(ValueError, match="a worker has other settings of decoding: .*, and not 0"):
        TinyFilms(TINY, {"format": 1, "decoding": 0}, 60.0)


@pytest.mark.parametrize(
    ("gpus", "asked", "expected"),
    [
        (0, None, {"num_cpus": 4, "min_size": 1, "max_size": 9}),  # 4 threads, as here
        (0, 3, {"num_cpus": 4, "min_size": 3, "max_size": 3}),
        (2, None, {"num_gpus": 1.0, "min_size": 1, "max_size": 9}),
        (2, 2, {"num_gpus": 1.0, "min_size": 2, "max_size": 2}),
        (2, 3, {"num_gpus": 0.5, "min_size": 3, "max_size": 3}),  # a part of one GPU, never of two
        (1, 20, {"num_gpus": 1 / 20, "min_size": 9, "max_size": 9}),  # there are 9 films
    ],
)
def test_a_worker_of_a_cluster_has_a_gpu_or_the_cores_of_its_threads(
    monkeypatch, gpus, asked, expected
):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    there = {"CPU": 64.0, "GPU": float(gpus)}
    data = SimpleNamespace(ActorPoolStrategy=SimpleNamespace)
    ray = SimpleNamespace(cluster_resources=lambda: there, data=data)
    found = ray_cluster._resources(ray, Cluster("head:6379", asked), 9)
    pool = vars(found.pop("compute"))
    assert pool.pop("max_tasks_in_flight_per_actor") == 1
    if size := pool.pop("size", None):
        pool = {"min_size": size, "max_size": size}
    assert found | pool == expected


def test_what_cannot_be_asked_of_ray_is_said(films, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"^ray://head:1 is for Ray's clients; give HOST:PORT"):
        extract([films], tmp_path / "store", TINY, cluster=Cluster("ray://head:1"))
    for address in ("127.0.0.1:1", "head", "127.0.0.1:99999"):
        with pytest.raises(ValueError, match=f"^there is no Ray at {address} .*give HOST:PORT"):
            extract([films], tmp_path / "store", TINY, cluster=Cluster(address))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"install it by: pip install 'fusion\[cluster\]'$"):
        extract([films], tmp_path / "store", TINY, cluster=TWO)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="divides the films itself; unset RANK and WORLD_SIZE"):
        extract([films], tmp_path / "store", TINY, cluster=TWO)


def test_a_ray_of_this_machine_is_private_and_leaves_nothing(films, tmp_path):
    words = ["extract", films, "--out", tmp_path / "store", "--features-2d", "none"]
    words += ["--features-3d", "none", "--engine", "ray", "--workers", "1"]
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
        psutil.wait_procs(family.values(), timeout=60)
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
