"""What all command-line tools do alike: one line for a mistake, the right exit code."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable

from fusion.config import ConfigError
from fusion.training.launch import LaunchError
from fusion.training.memory import OutOfMemory, is_out_of_memory
from fusion.training.stop import Stopped

MISTAKE = 2  # exit code
LAST_WORDS = 20.0  # seconds in which the first process of a machine says what all have found


def run(command: Callable[[], object]) -> None:
    """Call a command; end the program with one line and an exit code if it fails.

    ``FUSION_DEBUG=1`` in the environment shows the traceback instead.
    """
    if os.environ.get("FUSION_DEBUG"):
        command()
        return
    try:
        command()
    except Stopped as stop:
        _end(str(stop), 128 + stop.signal)
    except KeyboardInterrupt:
        _end("interrupted", 128 + signal.SIGINT)
    except (ConfigError, LaunchError, OutOfMemory) as error:  # all find it; one says it
        if os.environ.get("LOCAL_RANK", "0") != "0":
            _wait_to_be_ended()
        _end(f"error: {_one_line(error)}")
    except (ValueError, FloatingPointError, OSError) as error:
        _end(f"error: {_one_line(error)}")
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        _end(
            "error: out of memory outside of the steps of training, which take fewer clips by"
            " themselves; what was saved is whole: lower evaluation.batch_size and go on with"
            f" resume=true, or use tools/evaluate.py ({_one_line(error)})"
        )


def _wait_to_be_ended() -> None:
    """Let the first process speak: when one ends, the launcher kills the others, spoken or not.

    Whoever is still there afterwards found something that the first one did not, and says it.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(LAST_WORDS)


def _one_line(error: Exception) -> str:
    text = str(error).strip()
    if text.startswith("Caught "):  # in a process that loads data, with its traceback
        text = text.splitlines()[-1].partition(": ")[2]
    return " ".join(text.split()) or type(error).__name__


def _end(message: str, code: int = MISTAKE) -> None:
    print(message, file=sys.stderr, flush=True)
    sys.exit(code)
