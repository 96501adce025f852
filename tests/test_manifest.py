import json
import os
import random

import pytest

from fusion.manifest import (
    DIGEST,
    FORMAT,
    MANIFEST,
    DamagedError,
    NewerError,
    check_files,
    digest_of,
    read_manifest,
    write_manifest,
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "weights").write_bytes(bytes(range(200)))
    (tmp_path / "deep" / "words").write_text("red star")
    write_manifest(tmp_path, {"step": 12, "seed": 0})
    return tmp_path


def flip(path, place, bit):
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def test_a_manifest_describes_every_file(folder):
    manifest = check_files(folder)
    assert manifest["files"].keys() == {"weights", "deep/words"}
    assert manifest["files"]["weights"]["size"] == 200
    assert (manifest["step"], manifest["seed"], manifest["format"]) == (12, 0, FORMAT)
    assert {"fusion", "torch", "python"} <= manifest["versions"].keys()


def test_a_folder_without_a_manifest_has_none(tmp_path):
    assert check_files(tmp_path) is read_manifest(tmp_path) is None


@pytest.mark.parametrize("name", ["weights", "deep/words"])
def test_f07_any_flipped_bit_of_a_file_is_found(folder, name):
    path = folder / name
    for place in range(path.stat().st_size):
        flip(path, place, place % 8)
        with pytest.raises(DamagedError, match=f"{path} is damaged: its SHA-256"):
            check_files(folder)
        flip(path, place, place % 8)
    check_files(folder)


def test_f07_any_flipped_bit_of_the_manifest_is_found(folder):
    path, chosen = folder / MANIFEST, random.Random(0)
    for place in range(path.stat().st_size):
        bit = chosen.randrange(8)
        flip(path, place, bit)
        with pytest.raises((DamagedError, NewerError), match=MANIFEST):
            check_files(folder)
        flip(path, place, bit)
    check_files(folder)


def test_f07_a_file_that_is_cut_short_or_gone_is_named(folder):
    os.truncate(folder / "weights", 150)
    with pytest.raises(DamagedError, match="weights is damaged: 150 bytes, and 200 were written"):
        check_files(folder)
    (folder / "weights").unlink()
    with pytest.raises(DamagedError, match="weights is missing"):
        check_files(folder)


def test_files_are_read_again_only_when_they_have_changed(folder, monkeypatch):
    check_files(folder)
    monkeypatch.setattr("fusion.manifest._compare", lambda *_: "read again")
    check_files(folder)
    os.utime(folder / "weights", ns=(1, 1))
    with pytest.raises(DamagedError, match="read again"):
        check_files(folder)


def test_files_that_someone_added_do_not_matter(folder):
    (folder / "README.md").write_text("mine")
    check_files(folder)


def rewrite(folder, **changes):
    content = json.loads((folder / MANIFEST).read_text()) | changes
    content.pop(DIGEST)
    (folder / MANIFEST).write_text(json.dumps(content | {DIGEST: digest_of(content)}))


def test_a_manifest_of_a_newer_version_is_no_damage(folder):
    rewrite(folder, format=FORMAT + 1)
    with pytest.raises(NewerError, match=f"has format {FORMAT + 1}, and this version of fusion"):
        check_files(folder)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "", "deep"])
def test_f20_a_manifest_names_only_files_of_its_folder(folder, name):
    rewrite(folder, files={name: {"size": 1, "sha256": "0"}})
    with pytest.raises(DamagedError, match="no file of this folder|not a file"):
        check_files(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "5", '{"files": []}', "[" * 100_000, "\x00", '{"files": {}}']
)
def test_f20_whatever_else_a_manifest_may_hold_is_damage(folder, text):
    (folder / MANIFEST).write_text(text)
    with pytest.raises(DamagedError, match="manifest.json is damaged"):
        check_files(folder)


def test_f20_entries_of_the_wrong_kind_are_damage(folder):
    for entry in (5, [], {"size": "a"}, {"size": 200, "sha256": 5}, None):
        rewrite(folder, files={"weights": entry})
        with pytest.raises(DamagedError):
            check_files(folder)
