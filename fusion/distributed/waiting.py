"""Waiting for another process for as long as it takes, with a message, at the launcher's store.

A collective would end the run after its timeout, which is minutes. Rendering, converting and
extracting may take hours.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Iterator

from fusion.distributed.exchange import CommunicationError, find_store
from fusion.distributed.place import rank, world_size

PATIENCE = 30.0  # seconds until the first message
REPEAT = 600.0  # seconds from one message to the next
LONGEST_NAP = 0.5  # seconds between two looks
FAILED, DONE = b"failed", b"done"

_numbers = itertools.count()  # of meetings so far, the same on all ranks


@contextlib.contextmanager
def first_then_others(what: str, first: int) -> Iterator[None]:
    """Run the block on rank ``first``, and on this rank once that has ended.

    Raises:
        CommunicationError: the block failed there.
    """
    key = f"first/{next(_numbers)}/{first}"
    if world_size() == 1:
        yield
    elif rank() == first:
        outcome = FAILED
        try:
            yield
            outcome = DONE
        finally:
            find_store().set(key, outcome)
    else:
        if _wait_for(key, f"process {first}: {what}") != DONE:
            raise CommunicationError(f"process {first} failed ({what}); see its message")
        yield


def meet(what: str) -> None:
    """Wait until every rank has called this."""
    if world_size() == 1:
        return
    key, store = f"meet/{next(_numbers)}", find_store()
    if store.add(f"{key}/count", 1) == world_size():
        store.set(f"{key}/done", DONE)
    _wait_for(f"{key}/done", f"the other processes: {what}")


def _wait_for(key: str, whom: str) -> bytes:
    # Looked up again and again: a wait of the store that times out prints warnings of its own.
    store, begun, nap, says_at = find_store(), time.monotonic(), 0.001, PATIENCE
    while not store.check([key]):
        time.sleep(nap)
        nap = min(2 * nap, LONGEST_NAP)
        waited = time.monotonic() - begun
        if waited >= says_at:
            says_at += REPEAT
            print(
                f"process {rank()} waits for {whom} ({waited / 60:.1f} minutes)",
                file=sys.stderr,
                flush=True,
            )
    outcome: bytes = store.get(key)
    return outcome
