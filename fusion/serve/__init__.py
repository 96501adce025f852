"""Search an index of films in a browser and over HTTP: a page, an API, its client."""

from fusion.serve.client import Client

__all__ = ["Client"]
