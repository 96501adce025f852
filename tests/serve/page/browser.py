"""A real browser with the page of a real server, and what it must never do."""

import shutil
import time
from pathlib import Path

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = (360, 800, 1400)  # pixels
HOW = "install both by: pip install playwright; apt-get install chromium"


def find_chromium():
    """Path of a browser that playwright can drive; skips the test without one."""
    pytest.importorskip("playwright.sync_api", reason=f"no playwright; {HOW}")
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip(f"no Chromium; {HOW}")
    return found


class Watch:
    """Keeps a page from going elsewhere, and remembers what it tried and what went wrong."""

    def __init__(self, page, address):
        self.page, self.address = page, address
        self.elsewhere, self.errors, self.expected = [], [], ()
        page.context.route("**/*", self._route)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._hear)

    def _route(self, route):
        if route.request.url.startswith((self.address + "/", "blob:", "data:")):
            route.continue_()
        else:
            self.elsewhere.append(route.request.url)
            route.abort()

    def _hear(self, message):
        if message.type not in ("error", "warning"):
            return
        if not any(words in message.text for words in self.expected):
            self.errors.append(message.text)

    def check(self):
        assert self.elsewhere == []
        assert self.errors == []


def drop(page, path, kind):
    """Drop a file on the page, as a file manager does."""
    _bring(page, path, kind, "dataTransfer", ("dragenter", "dragover", "drop"), "DragEvent")


def paste(page, path, kind):
    _bring(page, path, kind, "clipboardData", ("paste",), "ClipboardEvent")


def _bring(page, path, kind, field, events, made):
    page.evaluate(
        """([bytes, name, type, field, events, made]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], name, {type}));
            for (const event of events) {
              const options = {[field]: data, bubbles: true, cancelable: true};
              document.body.dispatchEvent(new window[made](event, options));
            }
        }""",
        [list(Path(path).read_bytes()), Path(path).name, kind, field, list(events), made],
    )


def until(page, expression, seconds=20):
    """Wait until an expression is true. (What playwright has for it needs eval, which our policy
    forbids.)"""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never true: {expression}"
        page.wait_for_timeout(20)


def fits(page, *boxes):
    """Check that nothing is wider than the screen, nor in the boxes, on a phone and on desks."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        until(page, f"innerWidth === {width}")
        until(page, "document.documentElement.scrollWidth <= innerWidth")
        for box in boxes:
            at = f"document.querySelector('{box}')"
            until(page, f"{at}.scrollWidth <= {at}.clientWidth")
            place = page.locator(box).bounding_box()
            assert place["x"] >= 0 and place["x"] + place["width"] <= width, (box, place, width)


def times_of(page, selector, samples=10, pause=60):
    """Places of a video while it plays, in seconds: every ``pause`` ms."""
    return page.evaluate(
        """async ([selector, samples, pause]) => {
            const times = [];
            for (let i = 0; i < samples; i += 1) {
              times.push(document.querySelector(selector).currentTime);
              await new Promise((done) => setTimeout(done, pause));
            }
            return times;
        }""",
        [selector, samples, pause],
    )


def ask(page, words):
    page.evaluate("document.querySelector('#status').textContent = ''")
    page.fill("#words", words)
    page.press("#words", "Enter")
    until(page, "/hits? in/.test(document.querySelector('#status').textContent)")


def card(page, text):
    return page.locator(".hit").filter(has_text=text).first
