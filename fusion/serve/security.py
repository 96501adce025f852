"""What every request must fulfil and every answer has: hosts, origins, headers of security.

* A page of another name that leads to this machine (DNS rebinding) is refused by its Host header.
* A page of another site cannot send questions: browsers say where a request comes from.
* The answers may load nothing from elsewhere, and cannot be put into other pages.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL = ("localhost", "127.0.0.1", "::1")
POLICY = (
    "default-src 'self'; img-src 'self' blob:; media-src 'self' blob:; object-src 'none';"
    " base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


def hosts_of(host: str) -> Callable[[str], bool]:
    """Return which names in a Host header are those of a server that listens at ``host``.

    A server that listens at all addresses has the names of this machine, and is also known by any
    number: a page of another site has a name, so this is no way in for it.
    """
    bound = host.strip("[]").lower()
    known = {*LOCAL, bound}
    everywhere = bound in ("", "0.0.0.0", "::")
    if everywhere:
        known |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        known.discard("")
    return lambda name: name in known or (everywhere and _is_number(name))


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """Refuses requests of other sites, and adds the headers of security.

    Args:
        app: that is guarded.
        is_ours: see :func:`hosts_of`.
    """

    def __init__(self, app: ASGIApp, is_ours: Callable[[str], bool]) -> None:
        self.app, self.is_ours = app, is_ours

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if scope["path"].startswith("/api/"):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        wrong = self._wrong(scope)
        if wrong is None:
            await self.app(scope, receive, send_guarded)
            return
        status, problem = wrong
        body = json.dumps({"error": problem}).encode()
        start = {"type": "http.response.start", "status": status}
        kind = (b"content-type", b"application/json")
        length = (b"content-length", str(len(body)).encode())
        await send_guarded(start | {"headers": [kind, length, (b"connection", b"close")]})
        await send({"type": "http.response.body", "body": body})

    def _wrong(self, scope: Scope) -> tuple[int, str] | None:
        """Return the status and the problem of a request that is refused."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        name = _name(hosts[0]) if len(hosts) == 1 else None
        if name is None or not self.is_ours(name):
            shown = ", ".join(hosts)[:100] or "none"
            return 400, f"this server does not have the name {shown}; see fusion serve --host"
        if scope["path"] in ("/", "/docs") and scope["method"] == "GET":
            return None  # a link on another page may lead here
        site = headers.get("sec-fetch-site", "none")
        origin = headers.get("origin")
        if site not in ("same-origin", "none"):
            return 403, "pages of other sites may not use this server"
        if origin is not None and _place(origin) != hosts[0].lower():
            return 403, "pages of other sites may not use this server"
        return None


def _place(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:  # such as http://[
        return None


def _name(host: str) -> str | None:
    """Return the name in a Host header, without its port; None: it has none."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
