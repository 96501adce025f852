"""Answers that are not JSON: films, thumbnails, files of the page, the manual of the API."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from fastapi.responses import FileResponse, Response

from fusion.serve.schemas import Refused
from fusion.serve.service import tag_of

PAGE = Path(__file__).parent / "page"
FOREVER = "private, max-age=31536000, immutable"
OTHER = "application/octet-stream"
TYPES = {  # of the media files that an index may have; a browser is never told that one is a page
    **dict.fromkeys((".mp4", ".m4v"), "video/mp4"),
    **dict.fromkeys((".mpeg", ".mpg", ".vob"), "video/mpeg"),
    **dict.fromkeys((".ts", ".mts", ".m2ts"), "video/mp2t"),
    **dict.fromkeys((".3gp", ".3g2"), "video/3gpp"),
    ".mov": "video/quicktime",
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".mka": "audio/x-matroska",
    ".avi": "video/x-msvideo",
    ".flv": "video/x-flv",
    ".ogv": "video/ogg",
    ".wmv": "video/x-ms-wmv",
    ".asf": "video/x-ms-asf",
    ".gif": "image/gif",
    ".mp3": "audio/mpeg",
    ".m4a": "audio/mp4",
    ".wma": "audio/x-ms-wma",
    **dict.fromkeys((".ogg", ".opus"), "audio/ogg"),
    **dict.fromkeys((".aif", ".aiff"), "audio/aiff"),
    **{f".{name}": f"audio/{name}" for name in ("aac", "flac", "wav", "ac3")},
}
PAGE_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
}

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code { font-family: ui-monospace, monospace; }
h2 { margin-top: 2.5rem; border-top: 1px solid #8886; padding-top: 1rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top; }
tr + tr td { border-top: 1px solid #8883; }
"""


def film_response(path: Path) -> Response:
    """Answer with a media file of the index, in ranges if they are asked for.

    Raises:
        Refused: 404 it is gone, or no regular file any more.
    """
    try:
        status = os.stat(path)
        with open(path, "rb") if stat.S_ISREG(status.st_mode) else _refuse(path):
            pass
    except OSError as error:
        raise Refused(404, f"{path.name} cannot be read now ({error.strerror})") from None
    return FileResponse(
        path,
        media_type=TYPES.get(path.suffix.lower(), OTHER),
        filename=path.name.encode("utf-8", "replace").decode(),
        content_disposition_type="inline",
        stat_result=status,
        headers={"Cache-Control": "private, no-cache"},
    )


def _refuse(path: Path) -> Path:
    raise Refused(404, f"{path.name} is no regular file")


def picture_response(content: bytes, version: str, known: str) -> Response:
    """Answer with a JPEG; with ``version``, its tag, in the address it may be kept for ever."""
    tag = tag_of(content)
    control = FOREVER if version == tag else "private, no-cache"
    headers = {"ETag": f'"{tag}"', "Cache-Control": control}
    if f'"{tag}"' in known or known.strip() == "*":
        return Response(status_code=304, headers=headers)
    return Response(content, media_type="image/jpeg", headers=headers)


def page_response(name: str) -> Response:
    """Answer with a file of the page; Refused (404): there is none of this name."""
    files = {file.name: file for file in PAGE.glob("*") if file.suffix in PAGE_TYPES}
    if name not in files:
        raise Refused(404, f"there is no {name[:100]}")
    kind = PAGE_TYPES[files[name].suffix]
    return FileResponse(files[name], media_type=kind, headers={"Cache-Control": "no-cache"})


def manual_of(openapi: dict[str, Any]) -> str:
    """Write the page that describes an API, of its OpenAPI: no scripts, all text escaped."""
    schemas = openapi.get("components", {}).get("schemas", {})
    routes = [
        _route(method, path, route)
        for path, methods in openapi["paths"].items()
        for method, route in methods.items()
        if method in ("get", "post")
    ]
    shapes = [_shape(name, schema) for name, schema in schemas.items() if "Validation" not in name]
    info = openapi["info"]
    title = escape(f"{info['title']} {info['version']}: the API")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width"><link rel="stylesheet"'
        f' href="/docs.css"></head><body><h1>{title}</h1><p>{escape(info.get("summary", ""))}.'
        ' The page to search is <a href="/">here</a>, this description for programs is'
        f' <a href="/openapi.json">openapi.json</a>.</p>{"".join(routes)}<h1>Answers</h1>'
        f"{''.join(shapes)}</body></html>"
    )


def _route(method: str, path: str, route: dict[str, Any]) -> str:
    rows = [
        (p["name"], _kind(p["schema"]), p.get("required"), p["schema"].get("description", ""))
        for p in route.get("parameters", ())
    ]
    body = route.get("requestBody", {}).get("content", {}).get("multipart/form-data", {})
    rows += _properties(body.get("schema", {}))
    answers = "; ".join(_answers(route.get("responses", {})))
    return (
        f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
        f"<p>{escape(route.get('description', ''))}</p>{_table(rows)}<p>Answers: {answers}.</p>"
    )


def _answers(responses: dict[str, Any]) -> Iterator[str]:
    for status, answer in responses.items():
        content = answer.get("content", {}).get("application/json", {})
        kind = _kind(content.get("schema", {}))
        yield escape(f"{status} {kind}".strip())


def _shape(name: str, schema: dict[str, Any]) -> str:
    text = escape(schema.get("description", ""))
    return (
        f'<h2 id="{escape(name)}"><code>{escape(name)}</code></h2><p>{text}</p>'
        f"{_table(_properties(schema))}"
    )


def _properties(schema: dict[str, Any]) -> list[tuple[str, str, Any, str]]:
    required = schema.get("required", ())
    return [
        (name, _kind(one), name in required, one.get("description", ""))
        for name, one in schema.get("properties", {}).items()
    ]


def _table(rows: list[tuple[str, str, Any, str]]) -> str:
    if not rows:
        return ""
    cells = [
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(kind)}</td>"
        f"<td>{'needed' if needed else ''}</td><td>{escape(text)}</td></tr>"
        for name, kind, needed, text in rows
    ]
    return f"<table>{''.join(cells)}</table>"


def _kind(schema: dict[str, Any]) -> str:
    """Name the type of a value."""
    if "$ref" in schema:
        return str(schema["$ref"].rsplit("/", 1)[-1])
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if "additionalProperties" in schema:
        return f"{_kind(schema['additionalProperties'])} by name"
    if schema.get("format") == "binary":
        return "file"
    return str(schema.get("type", ""))
