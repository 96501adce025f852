"""Serve an index of films."""

from __future__ import annotations

import argparse

import fusion
from fusion.commands.search import _model_of
from fusion.search.storage import SearchError, Storage


def serve(given: argparse.Namespace) -> None:
    """Serve until Ctrl-C."""
    Storage(given.index).close()  # a wrong path is found first
    place = given.model or _model_of(given.index)
    if place is None:
        raise SearchError(f"{given.index} does not say where its model is; name it: --model RUN")
    import uvicorn

    from fusion.serve.app import create_app
    from fusion.serve.today import Today

    app = create_app(Today(given.index, fusion.load(place, trust=given.trust)))
    print(f"http://{given.host}:{given.port}", flush=True)
    uvicorn.run(app, host=given.host, port=given.port, log_level="warning")
