"""Two processes that wait for each other, for long and too long.

    torchrun --nproc_per_node 2 tests/training/waits.py

Ends with an error if one does not wait, or waits for ever.
"""

import sys
import time
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[2]))

from fusion.distributed import Agreement, CommunicationError, first_then_others, meet, waiting

waiting.PATIENCE = 0.2


def main():
    # The collectives' timeout is shorter than what the main process works here.
    dist.init_process_group("gloo", timeout=timedelta(seconds=0.5))
    rank, seen = dist.get_rank(), Path(sys.argv[1])
    with first_then_others("cooking", 0):
        if rank == 0:
            time.sleep(0.8)
            seen.touch()
        assert seen.exists()
    for number in range(2):
        if rank == number:
            time.sleep(0.3)
            seen.with_suffix(f".{number}").touch()
        meet("eating")
        assert seen.with_suffix(f".{number}").exists()
    try:
        with first_then_others("washing", 0):
            assert rank == 0
            raise KeyError("no water")
    except (KeyError, CommunicationError) as error:
        assert rank == 0 or str(error) == "process 0 failed (washing); see its message", error
    agreement = Agreement(timeout_minutes=0.5 / 60)
    assert agreement.gather(rank + 5) == [5, 6]
    if rank == 1:  # it hangs
        while not seen.with_suffix(".done").exists():
            time.sleep(0.05)
    else:
        begun = time.monotonic()
        try:
            agreement.gather(0)
        except CommunicationError as error:
            assert "longer than trainer.timeout_minutes" in str(error), error
        else:
            raise AssertionError("it did not wait")
        assert time.monotonic() - begun >= 0.4
        seen.with_suffix(".done").touch()


if __name__ == "__main__":
    main()
