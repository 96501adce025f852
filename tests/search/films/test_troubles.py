"""What may be wrong with films, folders and captions while an index is brought up to date."""

import errno
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from fusion.cli.main import main
from fusion.search.films import embedding, progress
from fusion.search.films.progress import Progress
from fusion.search.index import Index
from tests import processes
from tests.data.media.films import write_film
from tests.search.test_commands import fails, search
from tests.search.test_index import content, index


def names(folder):
    return set(content(folder)[0])


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("a.srt", "1\n00:00:01,000 -> 00:00:02,000\nhello\n", "a.srt: no times such as"),
        ("a.csv", "start,stop\n0,1\n", "a.csv, line 1: no column text among start, stop"),
        ("a.vtt", "", "a.vtt: the file is empty"),
        ("a.csv", b"start,end,text\n\x81\x00\xff", "a.csv"),
    ],
)
def test_a_broken_caption_file_is_named_and_costs_its_film_alone(
    model, films, tmp_path, capsys, file, text, said
):
    (films / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert index(tmp_path / "i", model, films)["new"] == 3
    told = capsys.readouterr().err
    assert told.count(str(films / file)) == 1 and said in told
    assert "the film is cut as one without captions" in told and "data.max_bad" not in told
    clips = content(tmp_path / "i")[1]
    assert {c.text for n, c, _ in clips if n == "a.mp4"} == {""}
    assert {c.text for n, c, _ in clips if n == "more/c.mp4"} == {"a red star", "a star"}


def test_tables_of_other_things_are_no_captions(model, films, tmp_path, capsys):
    (films / "a.csv").write_text("second,height\n1,20\n")
    (films / "silent.csv").write_text("video,start,end,text\na.mp4,0,1,a star\n")
    index(tmp_path / "i", model, films)
    assert ".csv" not in capsys.readouterr().err


def test_films_of_an_unplugged_disk_stay(model, films, tmp_path, capsys):
    index(tmp_path / "i", model, films)
    before = content(tmp_path / "i")
    (films / "more").rename(tmp_path / "unplugged")
    for make in (lambda: None, lambda: (films / "more").mkdir()):
        make()  # the folder is not there; or it is the empty one where a disk was mounted
        counts = index(tmp_path / "i", model, films)
        assert (counts["removed"], counts["missing"]) == (0, 1)
        assert f"1 film of {films / 'more'} cannot be found" in capsys.readouterr().err
        assert content(tmp_path / "i") == before
    (films / "more").rmdir()
    (tmp_path / "unplugged").rename(films / "more")
    assert index(tmp_path / "i", model, films)["same"] == 3
    shutil.rmtree(films / "more")
    assert index(tmp_path / "i", model, films, prune=True)["removed"] == 1
    assert names(tmp_path / "i") == {"a.mp4", "silent.mp4"}


def test_a_film_that_is_deleted_leaves_an_index(model, films, tmp_path):
    write_film(films / "more" / "d.mp4", 1)
    index(tmp_path / "i", model, films)
    (films / "more" / "d.mp4").unlink()
    (films / "a.mp4").unlink()
    assert index(tmp_path / "i", model, films)["removed"] == 2
    assert names(tmp_path / "i") == {"silent.mp4", "more/c.mp4"}


def test_prune_by_itself(model, run, films, tmp_path, capsys):
    index(tmp_path / "i", model, films)
    shutil.rmtree(films / "more")
    (films / "a.mp4").unlink()
    main(["index", str(films / "more"), "--out", str(tmp_path / "i"), "--prune"])
    assert "2 films" in capsys.readouterr().out and names(tmp_path / "i") == {"a.mp4", "silent.mp4"}
    main(["index", "--out", str(tmp_path / "i"), "--prune"])
    assert "1 removed" in capsys.readouterr().out and names(tmp_path / "i") == {"silent.mp4"}
    assert "no such file" in fails(capsys, "index", films / "more", "--out", tmp_path / "i")


def test_hits_in_films_that_are_not_there_are_marked(model, run, films, tmp_path, capsys):
    Index(tmp_path / "i", run).add(films, quiet=True)
    (films / "silent.mp4").unlink()
    found = search(capsys, tmp_path / "i", "a star", "--top", 50)
    assert {Path(h["video"]).name: h["there"] for h in found} == {
        "a.mp4": True,
        "c.mp4": True,
        "silent.mp4": False,
    }
    main(["search", str(tmp_path / "i"), "a star", "--film", "silent"])
    lines = capsys.readouterr().out.splitlines()
    assert lines and all(line.endswith("(the film is not there)") for line in lines)


class Writer:
    """Changes a film each time that it is read, for so many times."""

    def __init__(self, real, path, times):
        self.real, self.path, self.times = real, path, times

    def __call__(self, model, film):
        made = self.real(model, film)
        if film.path == str(self.path) and self.times:
            self.times -= 1
            write_film(self.path, 1 + 0.5 * self.times)
            os.utime(self.path, (1, 100 + self.times))
        return made


def test_a_film_that_changes_while_it_is_read_is_read_again(model, films, tmp_path, monkeypatch):
    index(tmp_path / "i", model, films)
    os.utime(films / "a.mp4", (1, 1))
    monkeypatch.setattr(embedding, "_embed", Writer(embedding._embed, films / "a.mp4", 1))
    assert index(tmp_path / "i", model, films) == {
        "new": 0,
        "changed": 1,
        "same": 2,
        "removed": 0,
        "unreadable": 0,
    }
    monkeypatch.undo()
    index(tmp_path / "fresh", model, films)
    assert content(tmp_path / "i") == content(tmp_path / "fresh")


def test_a_film_that_is_still_written_keeps_what_the_index_has(
    model, films, tmp_path, monkeypatch, capsys
):
    index(tmp_path / "i", model, films)
    before = content(tmp_path / "i")
    os.utime(films / "a.mp4", (1, 1))
    monkeypatch.setattr(embedding, "_embed", Writer(embedding._embed, films / "a.mp4", 9))
    assert index(tmp_path / "i", model, films)["changing"] == 1
    assert f"{films / 'a.mp4'}: it changes while it is read" in capsys.readouterr().err
    assert content(tmp_path / "i") == before
    monkeypatch.undo()
    assert index(tmp_path / "i", model, films)["changed"] == 1  # the next run does it
    index(tmp_path / "fresh", model, films)
    assert content(tmp_path / "i") == content(tmp_path / "fresh")


def test_a_film_that_has_changed_since_it_was_found_has_its_present_state(model, films, tmp_path):
    def embed(todo):
        write_film(films / "silent.mp4", 1)  # after the films were found, before it is read
        os.utime(films / "silent.mp4", (1, 7))
        yield from embedding.embed_films(model, todo)

    index(tmp_path / "i", model, films, embed=embed)
    assert index(tmp_path / "i", model, films)["same"] == 3


def test_unreadable_films_are_tried_again_only_when_they_change(
    model, films, tmp_path, monkeypatch
):
    (films / "broken.mp4").write_bytes(b"no film")
    assert index(tmp_path / "i", model, films)["unreadable"] == 1
    monkeypatch.setattr(embedding, "_embed", None)
    assert index(tmp_path / "i", model, films)["unreadable"] == 0
    monkeypatch.undo()
    write_film(films / "broken.mp4", 1)
    assert index(tmp_path / "i", model, films)["changed"] == 1
    assert content(tmp_path / "i")[0]["broken.mp4"].problem is None


def test_a_film_that_may_not_be_read_keeps_its_clips_and_is_tried_again(
    model, films, tmp_path, monkeypatch, capsys
):
    index(tmp_path / "i", model, films)
    before = content(tmp_path / "i")
    monkeypatch.setattr(embedding.os, "access", lambda path, mode: not path.endswith("a.mp4"))

    def refuse(film):
        raise PermissionError(errno.EACCES, "Permission denied", str(film))

    monkeypatch.setattr(model, "seconds", refuse, raising=False)
    for _ in range(2):
        assert index(tmp_path / "i", model, films)["unreadable"] == 1
        assert "Permission denied" in capsys.readouterr().err
    assert content(tmp_path / "i") == before
    monkeypatch.undo()
    assert index(tmp_path / "i", model, films)["same"] == 3


def test_films_without_a_clip_are_named(model, films, tmp_path, capsys):
    write_film(films / "short.mp4", 0.04, sound=False)
    assert index(tmp_path / "i", model, films)["unreadable"] in (0, 1)
    film = content(tmp_path / "i")[0]["short.mp4"]
    clips = [c for n, c, _ in content(tmp_path / "i")[1] if n == "short.mp4"]
    assert bool(clips) != bool(film.problem)
    assert all(c.has for _, c, _ in content(tmp_path / "i")[1])


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are UTF-8 there")
def test_names_that_are_not_utf_8(model, run, films, tmp_path, capsys):
    odd = os.fsdecode(b"caf\xe9.mp4")
    (films / "a.mp4").rename(films / odd)
    (films / os.fsdecode(b"bad\xff.mp4")).write_bytes(b"no film")
    main(["index", str(films), "--out", str(tmp_path / "i"), "--model", str(run)])
    told = capsys.readouterr()
    assert "4 films" in told.out and "bad\\udcff.mp4" in told.err
    assert index(tmp_path / "i", model, films)["same"] == 4
    found = search(capsys, tmp_path / "i", "a star", "--top", 50)
    assert str(films / odd) in {h["video"] for h in found}
    main(["search", str(tmp_path / "i"), "a star", "--top", "50"])
    assert "caf\\udce9.mp4" in capsys.readouterr().out
    main(["index", "--out", str(tmp_path / "i"), "--duplicates"])
    (films / odd).unlink()
    assert index(tmp_path / "i", model, films)["removed"] == 1


def test_two_links_to_one_film_are_one_film(model, films, tmp_path):
    (films / "again.mp4").symlink_to(films / "a.mp4")
    (films / "more" / "third.mp4").symlink_to("../a.mp4")
    counts = index(tmp_path / "i", model, films)
    assert (counts["new"], counts["links"]) == (3, 2)
    assert names(tmp_path / "i") == {"a.mp4", "silent.mp4", "more/c.mp4"}


def test_a_link_that_leads_nowhere_is_named(model, films, tmp_path, capsys):
    (films / "lost.mp4").symlink_to(tmp_path / "unplugged.mp4")
    index(tmp_path / "i", model, films)
    assert f"{films / 'lost.mp4'}: cannot be read (No such file" in capsys.readouterr().err
    shutil.copy(films / "a.mp4", tmp_path / "unplugged.mp4")
    index(tmp_path / "i", model, films)
    assert content(tmp_path / "i")[0]["lost.mp4"].problem is None


def test_an_interrupt_says_what_is_kept(model, films, tmp_path, monkeypatch, capsys):
    real = embedding._embed

    def stop(model, film):
        if film.path.endswith("c.mp4"):
            raise KeyboardInterrupt
        return real(model, film)

    monkeypatch.setattr(embedding, "_embed", stop)
    with pytest.raises(KeyboardInterrupt, match="interrupted: 1 of 3 films are in the index"):
        index(tmp_path / "i", model, films)
    assert names(tmp_path / "i") == {"a.mp4"}


def test_an_interrupted_command_ends_with_one_line(run, films, tmp_path):
    for number in range(40):
        shutil.copy(films / "a.mp4", films / f"{number}.mp4")
    words, told = [films, "--out", tmp_path / "i", "--model", run], tmp_path / "told"
    process = processes.start("tools/index.py", *words, errors=told)
    database = tmp_path / "i" / "index.sqlite"
    while process.exitcode is None and not database.exists():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    lines = told.read_text().splitlines()
    assert lines[-1].startswith("interrupted") and "Traceback" not in told.read_text()


def test_progress_off_a_screen_is_a_line_from_time_to_time(capsys, monkeypatch):
    now = iter([0.0, 10.0, 10.0, 40.0, 40.0, 40.0, 40.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    shown = Progress(4, 400)
    shown.film(100)
    shown.film(200)
    shown.close()
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "indexing: 2 of 4 films, 3 films/min, 0:13 left"


def test_the_summary_says_all(model, films, tmp_path, capsys, run):
    (films / "again.mp4").symlink_to(films / "a.mp4")
    (films / "broken.mp4").write_bytes(b"no film")
    main(["index", str(films), "--out", str(tmp_path / "i"), "--model", str(run)])
    told = capsys.readouterr().out.splitlines()
    assert told[-1].startswith(f"{tmp_path / 'i'}: 4 films, ")
    assert told[-1].endswith("(4 new, 1 unreadable, 1 linked twice)")
