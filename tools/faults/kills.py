"""Kill runs at random moments, go on, and compare with the undisturbed run."""

import math
import random
import shutil
import signal
import statistics
import time

from fusion.config import flatten, load_config
from tools.faults.runs import (
    PAUSE,
    TRAIN,
    Launch,
    first_new_step,
    import_once,
    log_of,
    result_of,
    saved_step,
    steps,
)

WORKERS = "trainer.num_workers=1"
CHUNKS = "trainer.chunk_size={chunk}"
BF16 = "trainer.mixed_precision=bf16"
VARIANTS = {  # what the runs have that the plain one has not
    "plain": (),
    "workers": (WORKERS,),
    "chunks": (CHUNKS,),
    "bf16": (BF16,),
    "all": (WORKERS, CHUNKS, BF16),
}
GROUP = "batchnorm_group"  # a chunk must be a multiple of it


def try_kills(config, overrides, processes, times, variants, seed, fresh, number, folder):
    """Kill runs of some variants so many times, and count those that ended as if undisturbed.

    Args:
        config: what is trained; it must log each step.
        overrides: changes to it.
        processes: of a run.
        times: kills, shared among the variants.
        variants: keys of ``VARIANTS``.
        seed: of the moments.
        fresh: whether processes import PyTorch themselves, as from a command line.
        number: of the signal; after another one than SIGKILL, no step may have to be redone.
        folder: for the runs.
    """
    chosen, found = random.Random(seed), {}
    chunk = choose_chunk(load_config(config, overrides), processes)
    if not fresh:
        import_once()
    for turn, name in enumerate(variants):
        share = times // len(variants) + (turn < times % len(variants))
        changes = (change.format(chunk=chunk) for change in VARIANTS[name])
        words = [TRAIN, str(config), *overrides, *changes]
        place = folder / name
        place.mkdir()
        found[name] = _try_variant(words, processes, share, chosen, fresh, number, place)
        print(f"{name}: {_say(found[name])}", flush=True)
    kills = [kill for one in found.values() for run in one["runs"] for kill in run["kills"]]
    runs = [run for one in found.values() for run in one["runs"]]
    times = [kill["recovery"] for kill in kills if kill["recovery"] is not None]
    return {
        "processes": processes,
        "fresh": fresh,
        "signal": number.name,
        "kills": len(kills),
        "runs": len(runs),
        "equal": sum(run["equal"] for run in runs),
        "most steps redone": max((kill["redone"] for kill in kills), default=0),
        "processes left": sum(kill["left"] for kill in kills),
        "badly ended": sum(_is_badly_ended(kill, number) for kill in kills),
        "recovery p50": percentile(times, 50),
        "recovery p95": percentile(times, 95),
        "variants": found,
    }


def _is_badly_ended(kill, number):
    """Return whether a run that had begun to train ended as if it had not got the signal."""
    good = -number if number == signal.SIGKILL else 128 + number
    return kill["began"] and any(code != good for code in kill["codes"])


def choose_chunk(config, processes):
    """Choose half of the clips of a process, or a little less: whole groups of BatchNorm."""
    sizes = [v for key, v in flatten(config).items() if key.endswith(GROUP) and v]
    group = math.lcm(*sizes)
    return max(group, config["trainer"]["batch_size"] // processes // 2 // group * group)


def percentile(values, share):
    """Return a percentile; None of nothing."""
    if len(values) < 2:
        return values[0] if values else None
    return statistics.quantiles(values, n=100, method="inclusive")[share - 1]


def _say(variant):
    kills = [kill for run in variant["runs"] for kill in run["kills"]]
    equal = sum(run["equal"] for run in variant["runs"])
    return (
        f"{len(kills)} kills, {equal} of {len(variant['runs'])} runs equal to the undisturbed one"
    )


def _try_variant(words, processes, times, chosen, fresh, number, folder):
    """Train undisturbed, then with kills, in as many runs as they need."""
    run, errors = folder / "whole", folder / "errors"
    launch = Launch([*words, f"output={run}"], processes, errors, fresh)
    ready, first = None, {}
    while not launch.has_ended():
        if not first and (logged := steps(run)):
            first, ready = logged[0], time.monotonic() - launch.begun
        time.sleep(PAUSE)
    launch.finish()
    whole = time.monotonic() - launch.begun
    expected, runs, left = result_of(run), [], times
    while left:
        place = folder / f"run{len(runs)}"
        # One third of training: a run needs some launches, and not too many, to come to its end.
        span = ready + (whole - ready) / 3
        again = [*words, "resume=true"]
        kills = _disturb(again, processes, left, span, chosen, fresh, number, place)
        if not kills:  # it ended before the moment, so it shows nothing
            shutil.rmtree(place)
            continue
        left -= len(kills)
        seen = result_of(place)
        runs.append(
            {
                "kills": kills,
                "equal": all(seen[key] == expected[key] for key in ("hex", "sha256")),
                "losses": list(seen["losses"].items()),
                "sha256": seen["sha256"],
            }
        )
    return {
        "undisturbed": list(expected["losses"].items()),
        "sha256": expected["sha256"],
        "seconds": whole,
        "seconds to the first step": ready,
        "runs": runs,
    }  # fmt: skip


def _disturb(words, processes, times, span, chosen, fresh, number, run):
    """Train with at most so many kills, each at a random moment of the first ``span`` seconds."""
    kills = []
    errors = run.with_name(f"{run.name}.errors")
    while True:
        done, log = saved_step(run), log_of(run)
        launch = Launch([*words, f"output={run}"], processes, errors, fresh)
        moment = chosen.uniform(0, span) if len(kills) < times else float("inf")
        recovery, rewritten = None, log is None
        while not launch.has_ended() and time.monotonic() - launch.begun < moment:
            if recovery is None:
                rewritten, is_new = first_new_step(run, done, rewritten or log_of(run) != log)
                recovery = time.monotonic() - launch.begun if is_new else None
            time.sleep(PAUSE)
        if kills and recovery is not None and not kills[-1]["recovery"]:
            kills[-1]["recovery"] = recovery
        if launch.has_ended():
            launch.finish()
            return kills
        gone = launch.kill(number)
        logged = steps(run)
        step, saved = logged[-1]["step"] if logged else 0, saved_step(run)
        kills.append({
            "after": moment,
            "step": step,
            "redone": max(0, step - saved),
            "began": recovery is not None,
            "left": gone,
            "codes": launch.codes() if processes == 1 or not fresh else [],  # of torchrun it is 1
            "recovery": None,
        })  # fmt: skip
