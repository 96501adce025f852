"""Load: how many requests work and wait, and figures of it for Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import fusion
from fusion.serve.schemas import Refused

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
METHODS = ("GET", "HEAD", "POST")


class Turnstile:
    """Lets requests in, and runs their work in threads.

    Args:
        what: waits, for messages: "questions".
        working: requests at a time, and threads.
        waiting: requests in line; one more is refused with status 503.
        retry_after: seconds that a refused client should wait.
    """

    def __init__(self, what: str, working: int, waiting: int, retry_after: int) -> None:
        self.what, self.most, self.retry_after = what, working + waiting, retry_after
        self.inside, self.working = 0, 0
        self._turns = asyncio.Semaphore(working)
        self._threads = ThreadPoolExecutor(working, thread_name_prefix=f"fusion-{what}")

    @property
    def waiting(self) -> int:
        """How many wait in line."""
        return self.inside - self.working

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn; Refused (503): too many wait already."""
        if self.inside >= self.most:
            raise Refused(
                503, f"too many {self.what} at once; ask again", retry_after=self.retry_after
            )
        self.inside += 1
        try:
            async with self._turns:
                self.working += 1
                try:
                    yield
                finally:
                    self.working -= 1
        finally:
            self.inside -= 1

    async def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in a thread. A client that goes away does not stop it."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, work, *arguments)

    def close(self) -> None:
        """Start nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Meters:
    """The figures of one application."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        with_registry: dict[str, Any] = {"registry": self._registry}
        labels = ("method", "route", "status")
        self.requests = Counter(
            "fusion_requests", "Requests that were answered", labels, **with_registry
        )
        self.seconds = Histogram(
            "fusion_request_seconds",
            "Time until the last byte of an answer",
            ("route",),
            buckets=SECONDS,
            **with_registry,
        )
        self.waiting = Gauge(
            "fusion_waiting", "Requests that wait for their turn", ("what",), **with_registry
        )
        self.working = Gauge(
            "fusion_working", "Requests that have their turn", ("what",), **with_registry
        )
        self._films = Gauge("fusion_films", "Films of the index", **with_registry)
        self._clips = Gauge("fusion_clips", "Clips of the index", **with_registry)
        self._up = Gauge("fusion_index_up", "1 if the index can be used", **with_registry)
        about = Gauge(
            "fusion_info", "Version of fusion, which is a label", ("version",), **with_registry
        )
        about.labels(fusion.__version__).set(1)

    def watch(self, turnstile: Any) -> None:
        """Show how many requests wait at a :class:`.Turnstile`, and how many have passed it."""
        self.waiting.labels(turnstile.what).set_function(lambda: turnstile.waiting)
        self.working.labels(turnstile.what).set_function(lambda: turnstile.working)

    def text(self, service: Any) -> bytes:
        """Write all figures; those of the index as it is now."""
        try:
            about = service.about()
            self._films.set(about["films"])
            self._clips.set(about["clips"])
            self._up.set(1)
        except Refused:
            self._up.set(0)
        return generate_latest(self._registry)


class Measured:
    """Counts the requests of an application, and measures their time."""

    def __init__(self, app: ASGIApp, meters: Meters) -> None:
        self.app, self.meters = app, meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, status = time.perf_counter(), "none"  # the client went away

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, note)
        finally:
            # Only what this program names: a label of a client's making would fill the memory.
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in METHODS else "other"
            self.meters.requests.labels(method, route, status).inc()
            self.meters.seconds.labels(route).observe(time.perf_counter() - begin)
