"""tools/extract.py as a user meets it; what it does is tested in tests/extract."""

import sys

import pytest

from fusion.cli.main import call
from fusion.data.features.store import FeatureStore
from tests.data.media.films import write_film
from tests.extract.tiny import use_tiny_networks

EXTRACT = "tools/extract.py"


def test_the_tool_does_it_all(tool, tmp_path):
    films = tmp_path / "films"
    write_film(films / "a.mp4", 2)
    write_film(films / "b/silent.mp4", 1, sound=False)
    (films / "empty.mp4").write_bytes(b"")
    networks = ["--features-2d", "none", "--features-3d", "none"]
    code, output, errors = tool(EXTRACT, films, "--out", tmp_path / "store", *networks)
    assert code == 0, errors
    assert "3 files: 1 ok, 0 partial, 2 failed" in output
    assert "b/silent.mp4: nothing to extract: no sound" in errors
    assert list(FeatureStore(tmp_path / "store").fields) == ["audio"]


def test_help_and_mistakes(tmp_path, monkeypatch, capsys):
    use_tiny_networks(monkeypatch)
    (tmp_path / "empty.mp4").write_bytes(b"")

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["extract.py", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            call("extract")
        return stop.value.code, *capsys.readouterr()

    code, output, _ = run("--help")
    assert code == 0
    assert "python tools/extract.py films/ --out features" in output
    assert all(len(line) <= 100 for line in output.splitlines())
    words = (tmp_path / "empty.mp4", "--out", tmp_path / "store", "--features-2d", "tiny")
    code, output, errors = run(*words)
    assert (code, output) == (2, "")
    assert errors.startswith("error: resnext101 needs its weights: download https://")
    assert run(*words, "--features-3d", "tiny", "--workers", "0")[0] == 2
    code, output, _ = run(*words, "--features-3d", "none", "--no-audio")
    assert code == 1
    assert "1 file: 0 ok, 0 partial, 1 failed" in output
    code, _, errors = run(*words, "--features-3d", "tiny")
    assert code == 2
    assert "was made with 3d: nothing, and not with (tiny, " in errors
    assert "delete it, as it is still empty" in errors
