"""A file that crashes, hangs or eats memory costs that file only."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from fusion.data.media.film import Film, Piece
from fusion.data.media.pictures import Sampling
from fusion.extract import decoder_pool
from fusion.extract.decoder_pool import COMMAND, DecoderPool, End, Failed, Task
from fusion.extract.worker import read_message, write_message
from tests.conftest import ROOT
from tests.data.media.films import write_film

SAMPLINGS = {"2d": Sampling(5, 24), "3d": Sampling(10, 16, crop=16, frames=8, stride=8)}
BAD = (sys.executable, "-P", "-m", "tests.extract.bad_worker")


def test_an_empty_piece_comes_through_as_it_is():
    stream = io.BytesIO()
    write_message(stream, {"kind": "piece"}, np.zeros((0, 40), np.float32))
    write_message(stream, {"kind": "end"})
    stream.seek(0)
    values, data = read_message(stream)
    assert values["kind"] == "piece" and data.shape == (0, 40)
    assert read_message(stream) == ({"kind": "end"}, None)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4", 6)


def link(film, folder, names):
    """Have the film under several names."""
    for name in names:
        os.link(film, folder / name)
    return [Task(name, folder / name) for name in names]


def run(tasks, count=1, time_limit=20.0, pause=0.0):
    pieces, ends = {}, {}
    for number, (task, event) in enumerate(
        DecoderPool(SAMPLINGS, True, count, time_limit).decode(tasks)
    ):
        if isinstance(event, Piece):
            pieces.setdefault((task.name, event.field), []).append(event.data)
            time.sleep(pause if number == 1 else 0)
        else:
            assert task.name not in ends
            ends[task.name] = event
    return {key: np.concatenate(data) for key, data in pieces.items()}, ends


def workers():
    return [p for p in psutil.Process().children() if "worker" in " ".join(p.cmdline())]


@pytest.mark.parametrize("count", [1, 3])
def test_what_comes_from_other_processes_is_what_a_film_gives_here(film, tmp_path, count):
    tasks = link(film, tmp_path, ["a.mp4", "b.mp4", "c.mp4", "d.mp4"])
    pieces, ends = run(tasks, count)
    expected: dict = {}
    here = Film(film, SAMPLINGS, True)
    for piece in here.pieces():
        expected.setdefault(piece.field, []).append(piece.data)
    for task in tasks:
        for field, data in expected.items():
            np.testing.assert_array_equal(pieces[task.name, field], np.concatenate(data))
        state = task.path.stat()
        assert ends[task.name] == End(here.seconds, (), state.st_size, int(state.st_mtime))
    assert not workers()


def test_whatever_happens_costs_the_file_that_it_happens_to(film, tmp_path, monkeypatch):
    monkeypatch.setattr(decoder_pool, "COMMAND", BAD)
    names = ["1.mp4", "crash.mp4", "2.mp4", "hang.mp4", "greedy.mp4", "strange.mp4", "chatty.mp4"]
    tasks = link(film, tmp_path, [*names, "3.mp4"])
    shutil.copy(film, tmp_path / "growing.mp4")
    tasks += [Task(name, tmp_path / name) for name in ("growing.mp4", "gone.mp4")]
    pieces, ends = run(tasks, 2, time_limit=1.0)
    assert {n for n, end in ends.items() if isinstance(end, End)} == {
        "1.mp4", "2.mp4", "chatty.mp4", "3.mp4",
    }  # fmt: skip
    assert "crash.mp4: ends the program that decodes it (SIGABRT)" in ends["crash.mp4"].problem
    assert "hang.mp4: hangs (nothing came for 1 s after " in ends["hang.mp4"].problem
    assert "raise --time-limit" in ends["hang.mp4"].problem
    assert "greedy.mp4: needs more than half of this machine's memory" in ends["greedy.mp4"].problem
    assert "strange.mp4: cannot be read (KeyError" in ends["strange.mp4"].problem
    assert "growing.mp4: it changed while it was read" in ends["growing.mp4"].problem
    assert "gone.mp4: cannot be read (No such file" in ends["gone.mp4"].problem
    assert all("\n" not in e.problem for e in ends.values() if isinstance(e, Failed))
    np.testing.assert_array_equal(pieces["3.mp4", "2d"], pieces["1.mp4", "2d"])


def test_f24_a_process_that_is_halted_is_replaced(film, tmp_path):
    tasks = link(film, tmp_path, ["a.mp4", "b.mp4"])
    events = DecoderPool(SAMPLINGS, True, 1, 1.0).decode(tasks)
    next(events)
    os.kill(workers()[0].pid, signal.SIGSTOP)
    ends = [(task.name, event) for task, event in events if not isinstance(event, Piece)]
    assert [name for name, _ in ends] == ["a.mp4", "b.mp4"]
    assert isinstance(ends[0][1], Failed) and isinstance(ends[1][1], End)


def test_the_time_that_the_caller_takes_does_not_count(film, tmp_path):
    pieces, ends = run(link(film, tmp_path, ["a.mp4"]), time_limit=0.7, pause=0.9)
    assert len(pieces) == 3
    assert isinstance(ends["a.mp4"], End)


def test_f24_a_file_that_comes_too_slowly_is_given_up(film, monkeypatch):
    monkeypatch.setattr(decoder_pool, "_SLOWEST", 0.01)
    process = object.__new__(decoder_pool._Worker)
    process.task, process.ready = Task("a", film), True
    process.silent, process.waited, process.seconds = 0.0, 0.0, 50.0
    assert process.wait(0.5, 1.0) is None
    process.silent = 0.0
    process.waited = 1.2
    assert process.wait(0.5, 1.0) == "50.0 s of it took 2 s"


def test_processes_that_do_not_start_are_an_error(film, tmp_path, monkeypatch):
    monkeypatch.setattr(decoder_pool, "COMMAND", (sys.executable, "-c", "raise SystemExit(3)"))
    with pytest.raises(OSError, match="does not start; to see why, run: "):
        run(link(film, tmp_path, ["a.mp4"]))


def test_a_process_ends_with_the_one_that_started_it(film, tmp_path):
    hanging = tmp_path / "hang.mp4"
    os.link(film, hanging)
    task = f'{{"path": "{hanging}", "samplings": {{}}, "audio": true, "tracks": {{}}}}\n'
    with subprocess.Popen(
        BAD, cwd=ROOT, stdin=-1, stdout=-1, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as process:
        process.stdin.write(task.encode())
        process.stdin.flush()
        assert process.stdout.read(10)
        time.sleep(0.3)
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(timeout=10) == 0


def test_leaving_early_leaves_no_process(film, tmp_path):
    events = DecoderPool(SAMPLINGS, True, 2, 20.0).decode(link(film, tmp_path, ["a.mp4", "b.mp4"]))
    next(events)
    assert len(workers()) == 2
    events.close()
    assert not workers()


def test_impossible_numbers_are_refused():
    with pytest.raises(ValueError, match="workers must be at least 1 and the time limit above 0"):
        DecoderPool(SAMPLINGS, True, 0, 1.0)
    with pytest.raises(ValueError, match="got 1, 0"):
        DecoderPool(SAMPLINGS, True, 1, 0)


def test_the_command_of_the_processes_needs_no_torch():
    code = "import sys, fusion.extract.worker; print('torch' in sys.modules)"
    done = subprocess.run([COMMAND[0], "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
