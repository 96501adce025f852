"""Launch whole runs, one after the other, and count how they end."""

import collections
import subprocess
import sys
import time

from tools.faults.runs import PATIENCE, TORCHRUN, TRAIN


def try_launches(config, overrides, processes, times, folder):
    """Launch so many runs by torchrun, for each number of processes; count their exit codes."""
    found = {}
    for count in processes:
        codes, seconds, said = collections.Counter(), [], []
        for number in range(times):
            output = f"output={folder / f'{count}-{number}'}"
            words = [*TORCHRUN, str(count), TRAIN, str(config), *overrides, output]
            begun = time.monotonic()
            ended = subprocess.run(
                [sys.executable, *words], capture_output=True, text=True, timeout=PATIENCE
            )
            seconds.append(time.monotonic() - begun)
            codes[str(ended.returncode)] += 1
            if ended.returncode:
                said.append(ended.stderr[-1000:])
            print(f"{count} processes, launch {number + 1}: {ended.returncode}", flush=True)
        found[str(count)] = {"codes": codes, "seconds": seconds, "said": said}
    return {"times": times, "seen": found}
