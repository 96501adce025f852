"""Measure ``fusion serve`` over loopback: latency, a thousand questions at once, hostile uploads.

    python -m tools.benchmarks.serve films.index --film films/a.mp4

It starts a server of its own, on a free port. The last line of the output is JSON.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import psutil

from fusion.commands.serve import raise_limit_of_files
from fusion.serve import Client
from fusion.serve.client import ServeError


@contextlib.contextmanager
def serving(index):
    """Start a server; yields its process and its address."""
    command = [sys.executable, "-m", "fusion", "serve", index, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield psutil.Process(process.pid), process.stdout.readline().strip()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


class Watch:
    """Greatest resident memory of a server, and of the programs that it starts, in megabytes."""

    def __init__(self, process):
        self.process, self.server, self.decoders, self.stopped = process, 0, 0, threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)

    def look(self):
        """Look again and again, until it is stopped."""
        while not self.stopped.wait(0.02):
            with contextlib.suppress(psutil.Error):
                self.server = max(self.server, self.process.memory_info().rss / 2**20)
                for child in self.process.children():
                    with contextlib.suppress(psutil.Error):
                        if "fusion.serve.decoder" in child.cmdline():  # no copy of the server yet
                            self.decoders = max(self.decoders, child.memory_info().rss / 2**20)

    def __enter__(self):
        self.before = self.process.memory_info().rss / 2**20
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()
        self.after = self.process.memory_info().rss / 2**20

    def figures(self):
        """Return what was seen."""
        return {
            "MB before": round(self.before),
            "MB peak": round(self.server),
            "MB after": round(self.after),
            "MB peak of a decoder": round(self.decoders),
        }


async def ask(port, path="/api/search?q=star"):
    """Ask one question over a connection of its own: status, and seconds."""
    begin = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    status = (await reader.readline()).split()[1].decode()
    await reader.read()
    writer.close()
    return status, time.perf_counter() - begin


def latency(address, words, count):
    """Ask one question after the other, each of other words: seconds."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"))
    seconds = []
    for number in range(count):
        question = "+".join(words[(number + i) % len(words)] for i in range(1 + number % 4))
        begin = time.perf_counter()
        connection.request("GET", f"/api/search?q={question}+{number}&top=20")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        seconds.append(time.perf_counter() - begin)
    return {f"p{p} ms": round(1000 * float(np.percentile(seconds, p)), 1) for p in (50, 95)}


def at_once(port, count):
    """Ask many questions at once: numbers by status, and seconds until the last answer."""

    async def all_of_them():
        return await asyncio.gather(*(ask(port) for _ in range(count)), return_exceptions=True)

    begin = time.perf_counter()
    answers = asyncio.run(all_of_them())
    statuses = Counter(a[0] if isinstance(a, tuple) else type(a).__name__ for a in answers)
    return {"statuses": dict(statuses), "seconds": round(time.perf_counter() - begin, 2)}


def hostile(film, folder):
    """Write hostile files; yields their names, what they are given as, and their places."""
    content = Path(film).read_bytes()
    size = (60_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    check = zlib.crc32(b"IHDR" + size).to_bytes(4, "big")
    bomb = b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR" + size + check
    files = {
        "page.mp4": b"<html><script>fetch('http://127.0.0.1:1/')</script>",
        "drawing.png": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        "print.png": b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) run\n",
        "archive.mp4": b"PK\x03\x04" + bytes(9999),
        "list.m3u8": b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/a.ts\n",
        "local.m3u8": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        "list.txt": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "noise.mp4": np.random.default_rng(0).bytes(10**6),
        "empty.mp4": b"",
        "half.mp4": content[: len(content) // 2],
        "flipped.mp4": bytes(b ^ (i % 97 == 0) for i, b in enumerate(content)),
        "bomb.png": bomb + zlib.compress(bytes(10**7)),
        "large.mp4": bytes(210 * 2**20),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
        for part in ("video", "picture") if name.endswith((".mp4", ".png")) else ("video", "audio"):
            yield name, part, folder / name


def attack(address, film, folder):
    """Upload hostile files one after the other: status by file and part."""
    client, statuses = Client(address), {}
    for name, part, place in hostile(film, folder):
        try:
            client.search(**{part: place})
            statuses[f"{name} as {part}"] = 200
        except ServeError as error:
            statuses[f"{name} as {part}"] = error.status
    return {"statuses": statuses, "number": len(statuses)}


def main():
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index")
    parser.add_argument("--film", required=True, help="a film to make damaged ones of")
    parser.add_argument("--words", default="a,red,star,blue,bell", help="known words, with commas")
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--at-once", type=int, default=1000)
    given = parser.parse_args()
    raise_limit_of_files()
    found = {}
    with serving(given.index) as (process, address), tempfile.TemporaryDirectory() as folder:
        port = int(address.rpartition(":")[2])
        latency(address, given.words.split(","), 20)
        found["one after the other"] = latency(address, given.words.split(","), given.questions)
        with Watch(process) as watch:
            found["at once"] = at_once(port, given.at_once)
        found["at once"] |= watch.figures()
        with Watch(process) as watch:
            found["hostile"] = attack(address, given.film, Path(folder))
        found["hostile"] |= watch.figures()
        found["healthz"] = asyncio.run(ask(port, "/healthz"))[0]
    for name, figures in found.items():
        print(f"{name}: {json.dumps(figures, indent=1)}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
