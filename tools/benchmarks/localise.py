"""Finding steps in a film of hours, made by joining films; and assigning steps to seconds."""

import multiprocessing
import tempfile
import time
from pathlib import Path

import av
import numpy as np

import fusion
from fusion.data.demo import demo_corpus
from fusion.evaluation.localisation import align, assign_in_order
from fusion.inference.localising import Localiser
from fusion.process import memory_at_peak

SECONDS, STEPS = 10_000, 30  # of an assignment


def run(arguments, device):
    """Join films to films of some hours, find steps in each, and time assignments."""
    result = {"assignment": time_assignments(arguments.repeats)}
    films = sorted((demo_corpus(size=arguments.films) / "videos").glob("test_*.mp4"))
    films = [film for film in films if has_both(film)]
    with tempfile.TemporaryDirectory() as folder:
        for hours in arguments.hours:
            path = Path(folder) / f"{hours:g}.mp4"
            join_films(films, path, 3600 * hours)
            with multiprocessing.get_context("spawn").Pool(1) as pool:  # memory of its own
                result[f"{hours:g}_hours"] = pool.apply(localise, (arguments.run, str(path)))
                pool.close()
                pool.join()
            path.unlink()
    return result


def time_assignments(repeats):
    """Time the assignment in order and the alignment of random scores, the best of some rounds."""
    scores = np.random.default_rng(0).normal(size=(SECONDS, STEPS)).astype(np.float32)
    times = {}
    for name, way in {
        "in_order": lambda: assign_in_order(scores),
        "aligned": lambda: align(scores, range(STEPS)),
    }.items():
        rounds = []
        for _ in range(repeats):
            start = time.perf_counter()
            way()
            rounds.append(time.perf_counter() - start)
        times[f"{name}_seconds"] = min(rounds)
    return {"seconds": SECONDS, "steps": STEPS, **times}


def localise(run, film):
    """Find steps in a film; return times, and the memory before and at the peak."""
    steps = ["a red star bounces", "a bell plays a rising tune", "a blue ring spins"]
    finder = Localiser(fusion.load(run), steps)
    before = memory_at_peak() / 2**20
    start, cpu = time.perf_counter(), time.process_time()
    first, count = None, 0
    for _ in finder.stream(film):
        first = first or time.perf_counter() - start
        count += 1
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "windows": count,
        "seconds": seconds,
        "seconds_per_hour": 3600 * seconds / count,
        "cpu_seconds_per_hour": 3600 * cpu / count,
        "first_after_seconds": first,
        "mib_before": before,
        "mib_at_peak": memory_at_peak() / 2**20,
    }


def has_both(path):
    """Tell whether a film has picture and sound."""
    with av.open(str(path)) as film:
        return bool(film.streams.video and film.streams.audio)


def join_films(films, path, seconds):
    """Join films of one kind to one that lasts ``seconds`` or a little more, without new coding."""
    with av.open(str(path), "w") as output:
        streams, offset, last = {}, 0.0, {}
        while offset < seconds:
            for film in films:
                with av.open(str(film)) as source:
                    if not streams:
                        kinds = (source.streams.video[0], source.streams.audio[0])
                        streams = {s.type: output.add_stream_from_template(s) for s in kinds}
                    ends = [offset]
                    for packet in source.demux():
                        if packet.dts is None:
                            continue
                        shift = round(offset / packet.time_base)
                        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                        kind = packet.stream.type
                        if packet.dts <= last.get(kind, -(2**62)):
                            continue  # sound that the encoder puts before the beginning
                        last[kind] = packet.dts
                        lasts = packet.duration or 0
                        ends.append(float((packet.pts + lasts) * packet.time_base))
                        packet.stream = streams[kind]
                        output.mux(packet)
                offset = max(ends)
                if offset >= seconds:
                    return
