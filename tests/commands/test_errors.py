"""How a command ends."""

import time

import pytest

from fusion.commands.errors import run
from fusion.config import ConfigError


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
