"""Ask a server of ``fusion serve`` from Python."""

from __future__ import annotations


class Client:
    """Not written yet."""
