"""Which requests are refused, and the headers of every answer."""

import pytest

from fusion.serve.security import HEADERS, hosts_of

WORD = "star"


@pytest.mark.parametrize("path", ["/", "/api/about", "/films/1", "/nothing", "/docs", "/metrics"])
def test_every_answer_has_the_headers_of_security(client, path):
    headers = client.get(path).headers
    for name, value in HEADERS.items():
        assert headers[name] == value
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_a_name_that_is_not_ours_is_refused(client, host):
    for path in ("/", "/api/about", "/films/1"):
        assert client.get(path, headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8765", "127.0.0.1:9", "[::1]:8765"])
def test_the_names_of_this_machine_are_ours(client, host):
    assert client.get("/api/about", headers={"Host": host}).status_code == 200


def test_the_host_option_says_which_names_are_ours():
    assert hosts_of("192.168.1.5")("192.168.1.5") and not hosts_of("192.168.1.5")("192.168.1.6")
    assert hosts_of("0.0.0.0")("192.168.1.6") and hosts_of("::")("fe80::1")
    assert not hosts_of("0.0.0.0")("evil.example")
    assert hosts_of("films.lan")("films.lan")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
    ],
)
def test_f31_pages_of_other_sites_cannot_ask(client, headers):
    given = {"words": (None, WORD)}
    assert client.post("/api/search", files=given, headers=headers).status_code == 403
    assert client.get("/api/search?q=star", headers=headers).status_code == 403
    assert client.get("/films/1", headers=headers).status_code == 403


def test_our_own_page_and_programs_can_ask(client):
    given = {"words": (None, WORD)}
    ours = {"Origin": "http://127.0.0.1", "Sec-Fetch-Site": "same-origin"}
    for headers in ({}, ours, {"Sec-Fetch-Site": "none"}):
        answer = client.post("/api/search", files=given, headers=headers)
        assert answer.status_code == 200 and answer.json()["hits"]


def test_a_link_on_another_site_may_lead_to_the_page(client):
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200
