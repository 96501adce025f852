"""Serve an index of films on this machine, until it is stopped."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import logging
import os
import socket
from typing import Any

import fusion
from fusion.commands.search import place_of_model
from fusion.search.index import Index
from fusion.search.storage import SearchError

PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")  # of the extra
MANY_FILES = 8192  # that are open at a time: each client needs one, or two
BACKLOG = 2048  # clients that may wait to be accepted
LAST_WORDS = 3  # seconds that answers may take after Ctrl-C


def serve(given: argparse.Namespace) -> None:
    """Serve until Ctrl-C, as the command line says.

    Raises:
        ValueError: the index, a model or the address cannot be used; one line.
    """
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise SearchError(f"there is no {missing[0]}; install it by: pip install 'fusion[serve]'")
    Index(given.index, engine=given.engine, url=given.url).close()  # a wrong path is found first
    with contextlib.closing(open_socket(given.host, given.port)) as listening:
        model = fusion.load(given.model or place_of_model(given.index), trust=given.trust)
        app = _application(given, model, open_asker(given))
        raise_limit_of_files()
        print(address_of(listening), flush=True)
        run_server(app, listening)


def open_asker(given: argparse.Namespace) -> Any:
    """Open the model that answers questions about pictures; None: there is none."""
    if not given.questions:
        return None
    from fusion.tasks.question_answering.ask import Asker

    return Asker(given.questions, given.trust)


def _application(given: argparse.Namespace, model: Any, asker: Any) -> Any:
    from fusion.serve.app import Settings, create_app
    from fusion.serve.decoding import Limits
    from fusion.serve.schemas import Refused

    settings = Settings(
        host=given.host,
        upload_bytes=round(given.upload_mb * 2**20),
        decoding=Limits(seconds=given.upload_seconds),
        within=[part.strip() for part in given.within.split(",") if part.strip()],
    )
    try:
        return create_app(Index(given.index, model, given.engine, given.url), settings, asker)
    except Refused as error:
        raise SearchError(error.error) from None


def open_socket(host: str, port: int) -> socket.socket:
    """Listen at an address; SearchError: it is taken, or is not of this machine."""
    bare = host.strip("[]")
    kind = socket.AF_INET6 if ":" in bare else socket.AF_INET
    try:
        return _listen(bare, port, kind)
    except PermissionError:
        reason = f"port {port} needs the rights of root"
    except OverflowError:
        reason = f"{port} is no port"
    except OSError as error:
        if not error.errno or error.errno < 0:  # of the look-up of a name
            raise SearchError(f"--host: there is no address {host} of this machine") from None
        words = (error.strerror or str(error)).lower()
        reason = f"port {port} of {host} cannot be used ({words})"
    raise SearchError(f"{reason}; name another one: --port {free_port(bare, kind)}") from None


def _listen(host: str, port: int, kind: int) -> socket.socket:
    """Do what ``socket.create_server`` does, for TCP by name.

    Without its name asyncio leaves Nagle's algorithm on, and each answer takes 40 ms more.
    """
    listening = socket.socket(kind, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere it would share the port with another program
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


def free_port(host: str, kind: int) -> int:
    """Return a port that is free now."""
    with contextlib.suppress(OSError), socket.socket(kind) as tried:
        tried.bind((host, 0))
        return int(tried.getsockname()[1])
    return 8765


def address_of(listening: socket.socket) -> str:
    """Write the address of a server as a browser takes it."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def raise_limit_of_files() -> None:
    """Allow this process as many open files as a thousand clients need, if the system does."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # not on every platform
        import resource

        now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = MANY_FILES if most == resource.RLIM_INFINITY else min(MANY_FILES, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(now, wanted), most))


def run_server(app: Any, listening: socket.socket) -> None:
    """Serve at a socket until SIGINT (Ctrl-C) or SIGTERM; both end it in a few seconds."""
    import uvicorn

    # The answers name unknown words; questions of users do not belong into a log.
    logging.getLogger("fusion.inference").setLevel(logging.ERROR)
    logging.getLogger("uvicorn.error").addFilter(_is_no_end)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=LAST_WORDS,
        ws="none",
    )
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again when all has ended
        uvicorn.Server(config).run(sockets=[listening])


def _is_no_end(record: logging.LogRecord) -> bool:
    """Keep out of the log that the end of the server ends answers, such as films that play."""
    kind = record.exc_info[0] if isinstance(record.exc_info, tuple) else None
    ended = kind is not None and issubclass(kind, asyncio.CancelledError)
    return not ended and "running task(s)" not in str(record.msg)
