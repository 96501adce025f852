"""How a command ends."""

import logging
import os
import signal
import sys
import time

import pytest

from fusion.commands.errors import run
from fusion.config import ConfigError
from fusion.signals import STOPS


def fail():
    raise ConfigError("trainer.epoch is unknown")


@pytest.mark.parametrize("rank", ["0", "1"])
def test_the_first_process_speaks_and_the_others_wait_to_be_ended(rank, monkeypatch, capsys):
    """At the first one that ends, the launcher kills all others, spoken or not."""
    waits = []
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setattr(time, "sleep", waits.append)
    with pytest.raises(SystemExit) as end:
        run(fail)
    assert end.value.code == 2
    # One that nobody has ended by then found what the first one did not.
    assert capsys.readouterr().err == "error: trainer.epoch is unknown\n"
    assert len(waits) == int(rank)
    assert all(seconds > 10 for seconds in waits)


NAME = "a\x1b[2J\x9b31m\u202egpj.exe\x07"


def test_names_do_not_steer_the_terminal(capsys):
    def fail_with_a_name():
        logging.getLogger("fusion").warning("%s is odd", NAME)
        raise ConfigError(f"{NAME} is no film; naïve 映画\u200c stay")

    with pytest.raises(SystemExit):
        run(fail_with_a_name)
    said = capsys.readouterr().err
    assert not {"\x1b", "\x9b", "\u202e", "\x07"} & set(said)
    assert "\\x1b[2J\\x9b31m\\u202egpj.exe\\x07 is no film; naïve 映画\u200c stay" in said


def test_what_logging_prints_by_itself_does_not_steer_it_either():
    run(lambda: None)
    record = logging.LogRecord("fusion", logging.WARNING, "", 1, "%s is odd", (NAME,), None)
    assert logging.lastResort.format(record) == ("a\\x1b[2J\\x9b31m\\u202egpj.exe\\x07 is odd")


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_f02_a_signal_is_one_line_of_the_first_process(rank, number, monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", rank)
    before = {stop: signal.getsignal(stop) for stop in STOPS}
    try:
        with pytest.raises(SystemExit) as end:
            run(lambda: signal.raise_signal(number))
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # a second one is late
    finally:
        for stop, handler in before.items():
            signal.signal(stop, handler)
    assert end.value.code == 128 + number
    assert capsys.readouterr().err == (f"stopped by {number.name}\n" if rank == "0" else "")


def test_f04_a_lost_process_is_one_line(capsys):
    def lose():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer")

    with pytest.raises(SystemExit) as end:
        run(lose)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: another process of this run has ended (")
    assert said.endswith("; go on with resume=true\n")


@pytest.mark.parametrize("lines", [1, 10_000])  # less and more than the buffer of a stream
@pytest.mark.parametrize("leave", [0, 1])  # by sys.exit
def test_a_program_that_reads_no_further_ends_the_command_in_silence(
    lines, leave, monkeypatch, capsys
):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as output, pytest.raises(SystemExit) as end:
        monkeypatch.setattr(sys, "stdout", output)
        run(lambda: (print("a\n" * lines), leave and sys.exit(leave)))
    assert end.value.code == 128 + signal.SIGPIPE
    assert not capsys.readouterr().err


def fail_to_reach_a_worker():
    raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("has_output", [True, False])
def test_another_broken_pipe_is_said(has_output, monkeypatch, capsys, tmp_path):
    with (tmp_path / "out").open("w") as output, pytest.raises(SystemExit) as end:
        monkeypatch.setattr(sys, "stdout", output if has_output else None)
        run(fail_to_reach_a_worker)
    assert end.value.code == 2
    assert "Broken pipe" in capsys.readouterr().err


def test_a_command_without_output_succeeds(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # as where a shell was told to close it
    run(lambda: print("a"))
