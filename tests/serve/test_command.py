"""The command: it starts, says where it is, and ends; each mistake is one line."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from fusion.cli.main import main
from fusion.commands.serve import open_socket
from fusion.search.storage import SearchError
from fusion.serve import Client
from tests.processes import ROOT


def fails(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main(["serve", *map(str, words)])
    error = capsys.readouterr().err.strip()
    assert stop.value.code == 2
    return error


@pytest.fixture(scope="module")
def servers(index):
    """Start servers as a user does; a list of each process and the line that it printed."""
    started = []

    def start():
        command = [sys.executable, "-m", "fusion", "serve", str(index.folder), "--port", "0"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=ROOT, **pipes)
        started.append((process, process.stdout.readline().strip()))
        return started[-1]

    yield started, start
    for process, _ in started:
        process.kill()
        process.wait()


@pytest.fixture
def server(servers):
    """A server that runs: tests may come in any order, and one of them ends it."""
    started, start = servers
    return started[-1] if started and started[-1][0].poll() is None else start()


def test_it_prints_one_line_and_answers_at_once(server):
    _, line = server
    assert line.startswith("http://127.0.0.1:")
    assert Client(line).search("star zqwx", k=1)[0].score


def test_it_listens_on_this_machine_alone(server):
    port = int(server[1].rpartition(":")[2])
    with pytest.raises(OSError), socket.socket() as tried:
        tried.connect(("127.0.0.2", port))


def test_ctrl_c_ends_it_even_while_a_film_is_sent(server):
    process, line = server
    with socket.create_connection(("127.0.0.1", int(line.rpartition(":")[2]))) as slow:
        slow.sendall(b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n")
        slow.sendall(b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n")
        time.sleep(0.3)
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=30)
        assert time.monotonic() - begin < 10
    assert process.returncode == 0
    assert out == "" and "Traceback" not in errors
    assert "zqwx" not in errors  # questions of users do not come into a log


def test_answers_are_sent_at_once():
    """Of a socket whose protocol has no name, asyncio leaves Nagle's algorithm on: 40 ms more."""
    with open_socket("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_a_port_in_use_names_another_one(capsys, index):
    with open_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        error = fails(capsys, index.folder, "--port", port)
    assert error.startswith(f"error: port {port} of 127.0.0.1 cannot be used (address already in")
    other = int(error.rpartition("--port ")[2])
    assert other != port
    open_socket("127.0.0.1", other).close()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["nothing.index"], "there is no index at nothing.index; make one by: fusion index"),
        (["{}", "--port", "99999"], "--port must be from 0 to 65535"),
        (["{}", "--host", "no.such.name.invalid"], "there is no address no.such.name.invalid"),
        (["{}", "--host", "192.0.2.1"], "port 8765 of 192.0.2.1 cannot be used"),
        (["{}", "--in", "q", "--port", "0"], "unknown modality 'q'"),
        (["{}", "--model", "nothing", "--port", "0"], "nothing"),
        (["{}", "--questions", "nowhere", "--port", "0"], "there is no checkpoint at nowhere"),
        (["{}", "--upload-seconds", "0"], "a number of seconds above 0"),
    ],
)
def test_a_mistake_is_one_line(capsys, index, words, error):
    found = fails(capsys, *(word.format(index.folder) for word in words))
    assert error in found.splitlines()[-1]


def test_a_broken_index_is_one_line(capsys, tmp_path):
    (tmp_path / "index.sqlite").write_bytes(b"no database" * 999)
    error = fails(capsys, tmp_path)
    assert str(tmp_path) in error and len(error.splitlines()) == 1


def test_a_missing_extra_is_one_line(capsys, index, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "uvicorn" else find(n))
    error = fails(capsys, index.folder)
    assert error == "error: there is no uvicorn; install it by: pip install 'fusion[serve]'"


def test_a_port_of_root_is_one_line():
    if hasattr(os, "geteuid") and os.geteuid():
        with pytest.raises(SearchError, match="port 80 needs the rights of root"):
            open_socket("127.0.0.1", 80)
