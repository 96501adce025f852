"""``tools/pack.py verify`` finds what is damaged, and says so by its exit code."""

import runpy
import sys
from pathlib import Path

import pytest

from fusion.commands.pack import verify
from fusion.data.captions.index import write_caption_store
from fusion.data.captions.table import Caption
from fusion.data.features.format import Field
from fusion.data.features.writer import StoreWriter
from tests.data.features.store_fixtures import names, shards, write

TOOL = Path(__file__).parents[2] / "tools" / "pack.py"


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def test_a_damaged_shard_is_named_with_its_videos(tmp_path, capsys):
    write(tmp_path, names(30))
    verify(str(tmp_path))
    assert f"{tmp_path}: 30 videos in " in capsys.readouterr().out
    shard = shards(tmp_path)[2]
    flip_a_bit(shard)
    with pytest.raises(ValueError, match=r": 1 of \d+ shards damaged; see the lines above"):
        verify(str(tmp_path))
    said = capsys.readouterr().out
    assert f"{shard.name} is damaged" in said and "(videos: v0" in said and "undamaged" not in said


def test_a_caption_store_is_checked_too(tmp_path, capsys):
    write_caption_store(tmp_path / "store", [("a", [Caption("a", 0.0, 1.0, "a cat sits")])])
    verify(str(tmp_path / "store"))
    assert "1 caption, undamaged" in capsys.readouterr().out
    flip_a_bit(tmp_path / "store" / "texts.txt")
    with pytest.raises(ValueError, match="damaged caption store, texts.txt has changed"):
        verify(str(tmp_path / "store"))


def test_an_empty_store_is_not_called_undamaged(tmp_path):
    with StoreWriter(tmp_path / "store", {"audio": Field(40, 100.0)}, "empty"):
        pass
    with pytest.raises(ValueError, match="the store is empty; fill it by the command"):
        verify(str(tmp_path / "store"))


def test_the_tool_verifies_and_asks_for_out_only_to_pack(tmp_path, monkeypatch, capsys):
    def tool(*arguments):
        monkeypatch.setattr(sys, "argv", ["pack.py", *map(str, arguments)])
        runpy.run_path(str(TOOL), run_name="__main__")

    write(tmp_path, names(3))
    tool("verify", tmp_path)
    shards(tmp_path)[0].unlink()
    with pytest.raises(SystemExit, match="2"):
        tool("verify", tmp_path)
    said = capsys.readouterr()
    assert "is missing; remove" in said.out and said.err.splitlines()[-1].startswith("error: ")
    with pytest.raises(SystemExit):
        tool("pickle", tmp_path)
    assert "are required: --out" in capsys.readouterr().err
