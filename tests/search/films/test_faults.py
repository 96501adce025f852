"""Kills, full disks, read-only folders and several processes: the index is never lost."""

import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from fusion.search.database import SearchError
from fusion.search.index import Index
from fusion.search.storage import Storage
from tests import processes
from tests.data.media.films import write_film
from tests.search.test_index import content, index

ROOT = Path(__file__).parents[3]


def start(run, folder, films):
    """Start a writer; return it, once its model is loaded, and the file of what it prints."""
    pipe = folder.with_name("pipe")
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    process = processes.start("tests/search/films/writer.py", run, folder, films, output=pipe)
    lines = os.fdopen(os.open(pipe, os.O_RDONLY))  # waits for the writer
    assert lines.readline() == "ready\n"
    return process, lines


class Folder:
    """A folder of films that come, change and go."""

    def __init__(self, folder, sources, seed):
        self.folder, self.sources, self.rng = folder, sources, random.Random(seed)
        self.count = 0
        folder.mkdir()
        self.add(len(sources))

    def films(self):
        return sorted(self.folder.iterdir())

    def add(self, count):
        for _ in range(count):
            source = self.rng.choice(self.sources)
            shutil.copy(source, self.folder / f"{self.count:03}{source.suffix}")
            self.count += 1

    def change(self):
        """Add, remove, rename and change some films."""
        self.add(self.rng.randint(1, 4))
        for film in self.rng.sample(self.films(), 2):
            film.unlink()
        for film in self.rng.sample(self.films(), 2):
            shutil.copy(self.rng.choice(self.sources), film)
        moved = self.rng.choice(self.films())
        moved.rename(moved.with_stem(f"{moved.stem}m"))


def kill_at_random(run, model, films, folder, kills, seed):
    """Kill writers at random times; return for each the seconds of work that were lost.

    After each kill the index can be searched; at the end it is that of a run without kills.
    """
    rng, lost = random.Random(seed), []
    process, lines = start(run, folder, films.folder)
    began = time.monotonic()
    assert lines.read().endswith("done\n")
    whole = time.monotonic() - began
    for _ in range(kills):
        films.change()
        process, lines = start(run, folder, films.folder)
        last = [time.monotonic()]
        reader = threading.Thread(
            target=lambda p=lines, s=last: [s.append(time.monotonic()) for _ in p]
        )
        reader.start()
        time.sleep(rng.uniform(0, 0.7 * whole))
        process.kill()
        killed = time.monotonic()
        process.join()
        ended = process.exitcode != 0
        reader.join()
        lost.append(killed - max(t for t in last if t <= killed) if ended else 0.0)
        check_readable(folder, model)
    index(folder, model, films.folder)
    index(folder.with_name("fresh"), model, films.folder)
    assert content(folder) == content(folder.with_name("fresh"))
    return lost


def check_readable(folder, model):
    known, clips = content(folder)
    assert {name for name, *_ in clips} <= set(known)
    query = model.encode("a star").numpy()
    assert len(Index(folder, model).nearest(query, k=5)) == min(5, len(clips))


@pytest.fixture
def sources(films, tmp_path):
    for number in range(4):
        write_film(tmp_path / "sources" / f"{number}.mp4", 0.8 + 0.3 * number, sound=number != 2)
    return sorted((tmp_path / "sources").iterdir())


@pytest.mark.timeout(300)
def test_kills_at_random_times_leave_an_index_that_goes_on(run, model, sources, tmp_path):
    films = Folder(tmp_path / "coming", sources, seed=3)
    lost = kill_at_random(run, model, films, tmp_path / "i", kills=3, seed=3)
    assert len(lost) == 3 and max(lost) < 60


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills(run, model, sources, tmp_path):
    films = Folder(tmp_path / "coming", sources, seed=20)
    films.add(20)
    lost = kill_at_random(run, model, films, tmp_path / "i", kills=20, seed=20)
    print(f"20 kills; seconds lost: at most {max(lost):.2f}, all {sum(lost):.2f}")
    assert sum(seconds > 0 for seconds in lost) >= 10 and max(lost) < 60


def run_command(script, *words):
    """Run a script in a process that has imported torch."""
    code, _, errors = processes.run(script, *words)
    return subprocess.CompletedProcess(words, code, stderr=errors)


def one_line(done):
    """The only line of a command that failed."""
    assert done.returncode == 2
    (line,) = [text for text in done.stderr.splitlines() if "unknown words" not in text]
    return line


@pytest.mark.parametrize("size", [40_000, 60_000])
def test_files_that_cannot_grow_keep_what_is_there(run, model, films, tmp_path, size):
    index(tmp_path / "i", model, films)
    before = content(tmp_path / "i")
    for number in range(15):
        shutil.copy(films / "a.mp4", films / f"{number}.mp4")
    words = (films, "--out", tmp_path / "i", "--model", run)
    said = one_line(run_command("tests/search/films/limited.py", size, *words))
    assert "cannot be written" in said and "make room there" in said
    known, clips = content(tmp_path / "i")
    assert set(before[0]) <= set(known) and set(map(str, before[1])) <= set(map(str, clips))
    check_readable(tmp_path / "i", model)
    index(tmp_path / "i", model, films)
    index(tmp_path / "fresh", model, films)
    assert content(tmp_path / "i") == content(tmp_path / "fresh")


@pytest.fixture
def tiny_disk(tmp_path):
    """A small file system; only root can make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_goes_on_with_room(run, model, films, tiny_disk, tmp_path):
    place = tiny_disk / "i"
    index(place, model, films)
    for number in range(30):
        shutil.copy(films / "a.mp4", films / f"{number}.mp4")
    filler = tiny_disk / "filler"
    free = shutil.disk_usage(tiny_disk).free
    filler.write_bytes(bytes(max(0, free - 60_000)))
    said = one_line(run_command("tools/index.py", films, "--out", place, "--model", run))
    assert str(place) in said and "make room there" in said
    check_readable(place, model)
    filler.unlink()
    index(place, model, films)
    index(tmp_path / "fresh", model, films)
    assert content(place) == content(tmp_path / "fresh")


@pytest.fixture
def open_folder():
    """A folder that every user can enter."""
    with tempfile.TemporaryDirectory(prefix="fusion-test-", dir="/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def as_nobody():
    """Run a command as a user without rights; skip where that is impossible."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "HOME": "/nonexistent", "TMPDIR": "/tmp"}
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    if os.geteuid() or shutil.which("setpriv") is None:
        pytest.skip("another user can only be taken by root, with setpriv")
    look = [*nobody, sys.executable, "-c", "import fusion.config"]
    if subprocess.run(look, env=env, capture_output=True, cwd="/tmp").returncode:
        pytest.skip("another user may not read the packages of this environment")

    def run(*words):
        command = [*nobody, sys.executable, "-m", "fusion", *map(str, words)]
        return subprocess.run(command, env=env, capture_output=True, text=True, cwd="/tmp")

    return run


def test_an_index_that_cannot_be_written_is_searched(as_nobody, run, model, films, open_folder):
    shutil.copytree(run, open_folder / "run")
    shutil.copytree(films, open_folder / "films")
    Index(open_folder / "i", open_folder / "run").add(open_folder / "films", quiet=True)
    subprocess.run(["chmod", "-R", "a+rX,go-w", str(open_folder)], check=True)
    done = as_nobody("search", open_folder / "i", "a star")
    assert done.returncode == 0 and "a.mp4" in done.stdout, done.stderr
    said = one_line(as_nobody("index", open_folder / "films", "--out", open_folder / "i"))
    assert str(open_folder / "i") in said and "cannot be written" in said


def test_a_second_writer_ends_at_once(run, model, films, tmp_path):
    index(tmp_path / "i", model, films)
    with contextlib.closing(Storage(tmp_path / "i", write=True)):
        began = time.monotonic()
        with pytest.raises(SearchError, match="another process is writing"):
            Index(tmp_path / "i", model).add(films)
        assert time.monotonic() - began < 20  # it does not wait
        words = (films, "--out", tmp_path / "i", "--model", "no/model")
        said = one_line(run_command("tools/index.py", *words))
        assert "another process is writing" in said  # before a model is looked for


def test_a_reader_searches_while_a_writer_adds_removes_and_compacts(model, films, tmp_path):
    folder = tmp_path / "i"
    index(folder, model, films)
    found, stop, problems = Index(folder, model), threading.Event(), []
    query = model.encode("a star").numpy()

    def read():
        while not stop.is_set():
            try:
                hits = found.nearest(query, k=100)
                assert len({hit.id for hit in hits}) == len(hits) and hits
                assert all(-1.001 <= hit.score <= 1.001 for hit in hits)
            except Exception as error:
                problems.append(repr(error))
                return

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for round_ in range(5):
        shutil.copy(films / "a.mp4", films / "b.mp4")
        index(folder, model, films)
        (films / "b.mp4").unlink()
        for name in ("a.mp4", "silent.mp4"):
            os.utime(films / name, (1, round_ + 1))
        index(folder, model, films)
    stop.set()
    for reader in readers:
        reader.join()
    assert not problems
    assert found.about()["films"] == 3
