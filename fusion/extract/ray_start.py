"""Connect to a Ray cluster, or start a Ray of this machine alone for as long as it is needed."""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any, TextIO

logger = logging.getLogger(__name__)

WORKER = "fusion"  # a resource of Ray, by which a Ray that was started here is known
_PATIENCE = 10.0  # seconds for a cluster to answer
_LONGEST = 28  # letters of a folder in which Ray's sockets have names that fit


@functools.cache
def _private() -> dict[str, str]:
    """Return the environment of a Ray that is for this program alone.

    Ray reads most of it when it is imported: a program that has done so has a Ray as Ray makes it.
    """
    usage = {"RAY_USAGE_STATS_ENABLED": "0"}  # Ray would report to its makers that it is used
    if sys.modules.get("ray") is not None:
        return usage
    return usage | {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's switch for: listen on 127.0.0.1 alone
        "RAY_AUTH_MODE": "token",  # other users of this machine cannot use it
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }


@contextlib.contextmanager
def connected(address: str | None, workers: int) -> Iterator[Any]:
    """Give Ray, connected as :func:`running` says; quiet unless ``FUSION_DEBUG`` is set."""
    with running(address, workers) as ray, contextlib.ExitStack() as stack:
        if not debugging():
            stack.enter_context(contextlib.redirect_stdout(_Filter(sys.stdout)))
            logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        yield ray


@contextlib.contextmanager
def running(address: str | None, workers: int) -> Iterator[Any]:
    """Connect to a cluster, or start a Ray of this machine; end that with the block.

    Args:
        address: of the cluster's head; None: ``RAY_ADDRESS``, else a Ray of this machine alone. If
            this process is connected already, that connection is taken, and stays.
        workers: of a Ray of this machine, which has as many of the resource :data:`WORKER`.

    Raises:
        ValueError: Ray is not installed, or the cluster cannot be reached; one line.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    alone = address == "local"
    if not alone:
        _check_address(address)
    quiet = {} if debugging() else {"RAY_BACKEND_LOG_LEVEL": "fatal"}
    with contextlib.ExitStack() as stack:
        stack.enter_context(_environment((_private() if alone else {}) | quiet))
        ray = _import_ray()
        if not ray.is_initialized():
            options = _local(stack, workers) if alone else {"address": address}
            stack.callback(ray.shutdown)
            _start(ray, options)
        yield ray


def _check_address(address: str) -> None:
    """Raise a ValueError if nothing answers there: Ray would try for many minutes."""
    if "://" in address:
        raise ValueError(
            f"{address} is for Ray's clients; give HOST:PORT of the cluster's head, in a command on"
            " one of its machines"
        )
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ValueError(
            f"there is no Ray at {address} ({error}); give HOST:PORT of the cluster's head, which"
            " ray start --head prints"
        ) from None


def debugging() -> bool:
    """Return whether the user wants to see what Ray says."""
    return bool(os.environ.get("FUSION_DEBUG"))


def _import_ray() -> Any:
    try:
        ray = importlib.import_module("ray")
        importlib.import_module("ray.data")
        importlib.import_module("ray.util.scheduling_strategies")
    except ImportError as error:
        raise ValueError(
            f"--engine ray needs Ray ({error}); install it by: pip install 'fusion[cluster]'"
        ) from None
    return ray


def _local(stack: contextlib.ExitStack, workers: int) -> dict[str, Any]:
    """Say how to start a Ray of this machine; its files are removed when the stack ends."""
    place = tempfile.gettempdir()
    if len(place) > _LONGEST:
        place = "/tmp"
    folder = tempfile.mkdtemp(prefix="ray-", dir=place)
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return {
        "address": "local",
        "num_cpus": workers,
        "resources": {WORKER: workers},
        "include_dashboard": False,
        "_temp_dir": folder,
    }


def _start(ray: Any, options: dict[str, Any]) -> None:
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    logs = {
        "log_to_driver": debugging(),
        "logging_level": logging.INFO if debugging() else logging.CRITICAL,
    }
    try:
        with contextlib.nullcontext() if debugging() else _silence():
            ray.init(**options, **logs)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        words = " ".join(str(error).split())
        way = "; a token may be missing: see docs/cluster.md" if "_temp_dir" not in options else ""
        raise ValueError(f"Ray at {options['address']} cannot be used ({words}){way}") from None
    finally:
        if main and handler is not None:
            signal.signal(signal.SIGTERM, handler)  # Ray's own would end without saving


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Close standard error to what is no Python: Ray would say on which level it logs."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


class _Filter:
    """Standard output without what Ray says of workers that ended: films name these."""

    def __init__(self, output: TextIO) -> None:
        self._output, self._dropped = output, False

    def write(self, text: str) -> int:
        """Write a text, unless Ray says it, or it is the end of such a line."""
        self._dropped = "(raylet)" in text[:20] or (self._dropped and text == "\n")
        if self._dropped:
            logger.debug("%s", text.strip())
            return len(text)
        return self._output.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._output, name)
