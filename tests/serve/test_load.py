"""Many requests at once: bounded work, nothing lost, and an event loop that stays free."""

import asyncio
import threading
from collections import Counter

import httpx
import pytest

from fusion.commands.serve import raise_limit_of_files
from fusion.serve.app import Settings, create_app
from fusion.serve.load import Turnstile
from fusion.serve.schemas import Refused
from tests.serve.conftest import HOME, serving
from tests.serve.loops import run_async

FEW = Settings(questions=(2, 3))


def play(index, settings, story):
    """Run an ``async def story(client, app)``."""

    async def run():
        app = create_app(index, settings)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url=HOME) as client,
        ):
            return await story(client, app)

    return run_async(run())


@pytest.fixture
def held(index, monkeypatch):
    """Hold all questions until the event is set; ``inside`` counts those that work."""

    class Held:
        go, inside, most = threading.Event(), 0, 0

    lock, nearest = threading.Lock(), index.nearest

    def wait(*arguments):
        with lock:
            Held.inside += 1
            Held.most = max(Held.most, Held.inside)
        Held.go.wait(300)  # a busy machine may take long to send all questions
        with lock:
            Held.inside -= 1
        return nearest(*arguments)

    monkeypatch.setattr(index, "nearest", wait)
    yield Held
    Held.go.set()


def test_beyond_a_bound_questions_are_sent_away_and_none_is_lost(index, held):
    async def story(client, app):
        asked = [asyncio.create_task(client.get("/api/search?q=star")) for _ in range(20)]
        async with asyncio.timeout(200):
            while app.state.questions.inside < 5 or held.inside < 2:
                await asyncio.sleep(0.01)
        figures = (await client.get("/metrics")).text
        held.go.set()
        return await asyncio.gather(*asked), figures

    answers, figures = play(index, FEW, story)
    assert Counter(answer.status_code for answer in answers) == {200: 5, 503: 15}
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.headers["Retry-After"] == "1"
    assert refused.json() == {"error": "too many questions at once; ask again"}
    assert held.most == 2
    assert 'fusion_waiting{what="questions"} 3.0' in figures
    assert 'fusion_working{what="questions"} 2.0' in figures


def test_other_requests_are_answered_while_questions_wait(index, held):
    async def story(client, app):
        asked = [asyncio.create_task(client.get("/api/search?q=star")) for _ in range(5)]
        while held.inside < 2:
            await asyncio.sleep(0.01)
        others = [await client.get(path) for path in ("/healthz", "/films/1", "/thumbnails/1")]
        held.go.set()
        return others, await asyncio.gather(*asked)

    others, _ = play(index, FEW, story)
    assert [answer.status_code for answer in others] == [200, 200, 200]


def test_questions_are_answered_while_uploads_wait(index, films, monkeypatch):
    go = threading.Event()

    async def story(client, app):
        decoder = app.state.decoder
        sound = decoder.sound
        monkeypatch.setattr(decoder, "sound", lambda path: go.wait(20) and sound(path))
        content = (films / "a.mp4").read_bytes()
        ask = {"url": "/api/search", "files": {"audio": content}}
        asked = [asyncio.create_task(client.post(**ask)) for _ in range(4)]
        while app.state.uploads.working < 1:
            await asyncio.sleep(0.01)
        words = await client.get("/api/search?q=star")
        go.set()
        return words, await asyncio.gather(*asked)

    words, answers = play(index, Settings(uploads=(1, 1)), story)
    assert words.status_code == 200
    assert Counter(answer.status_code for answer in answers) == {200: 2, 503: 2}


def test_a_turn_is_given_back_when_a_client_leaves():
    async def story():
        turnstile = Turnstile("questions", 1, 1, retry_after=1)

        async def hold():
            async with turnstile.turn():
                await asyncio.sleep(60)

        tasks = [asyncio.create_task(hold()) for _ in range(2)]
        await asyncio.sleep(0.01)
        assert (turnstile.working, turnstile.waiting) == (1, 1)
        with pytest.raises(Refused, match="too many questions"):
            await hold()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (turnstile.inside, turnstile.working) == (0, 0)
        async with turnstile.turn():
            return True

    assert run_async(story())


def test_a_thousand_questions_at_once_are_all_answered(index):
    raise_limit_of_files()

    async def ask(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"GET /api/search?q=star HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        status = (await reader.readline()).split()[1]
        body = (await reader.read()).partition(b"\r\n\r\n")[2]
        writer.close()
        return status, b'"hits"' in body or b'"error"' in body

    async def ask_all(port):
        return await asyncio.gather(*(ask(port) for _ in range(1000)))

    with serving(index, Settings(questions=(2, 64))) as address:
        answers = Counter(run_async(ask_all(int(address.rpartition(":")[2]))))
        assert httpx.get(f"{address}/healthz").status_code == 200
    assert set(answers) <= {(b"200", True), (b"503", True)}
    assert answers.total() == 1000 and answers[b"200", True] >= 66
