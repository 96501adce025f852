"""From files to a store and a report, as a user meets it."""

import json
import multiprocessing
import os
import shutil
import signal
import sys
import time

import numpy as np
import pytest
import torch

from fusion.data.captions import read_captions
from fusion.data.media import read_audio
from fusion.data.spectrogram import log_mel
from fusion.data.store import FeatureStore
from fusion.data.store_writer import StoreWriter
from fusion.extract import job, work
from fusion.extract import report as reports
from fusion.extract.decoding import Film
from fusion.extract.job import extract
from fusion.extract.networks_2d import BACKBONES_2D
from fusion.extract.settings import Features
from tests.extract.films import content, tiny_2d, tiny_backbones, use_tiny_networks, write_film
from tools.extract import main

TINY = Features("tiny", "tiny")
EXTRACT = "tools/extract.py"

with_fork = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="no fork here"
)


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch):
    use_tiny_networks(monkeypatch)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Six films, good and bad."""
    folder = tmp_path_factory.mktemp("films")
    write_film(folder / "a.mp4", 3)
    write_film(folder / "b/long.mp4", 9, fps=10)
    write_film(folder / "b/silent.mp4", 2, sound=False)
    write_film(folder / "blind.mp4", 2, picture=False)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "half.mp4").write_bytes((folder / "a.mp4").read_bytes()[:4000])
    return folder


@pytest.fixture(scope="module")
def done(films, tmp_path_factory):
    """Everything extracted once, undisturbed: the store and the report."""
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_networks(patch)
        store = tmp_path_factory.mktemp("done") / "store"
        return store, extract([films], store, TINY)


def test_a_store_has_the_rows_that_rates_and_durations_lead_to(done, films):
    store = FeatureStore(done[0])
    assert {n: (f.width, f.per_second) for n, f in store.fields.items()} == {
        "2d": (6, 1.0), "3d": (6, 1.5), "audio": (40, 100.0),
    }  # fmt: skip
    assert list(store.videos) == ["a.mp4", "b/long.mp4", "b/silent.mp4", "blind.mp4"]
    rows = {v: [store.rows(v, field) for field in store.fields] for v in store.videos}
    assert rows == {
        "a.mp4": [3, 5, 301], "b/long.mp4": [9, 14, 901],
        "b/silent.mp4": [2, 3, 0], "blind.mp4": [0, 0, 201],
    }  # fmt: skip
    expected = log_mel(torch.from_numpy(read_audio(films / "a.mp4"))).half()
    torch.testing.assert_close(store.read("a.mp4", "audio"), expected, rtol=0, atol=0.07)
    assert not list(done[0].rglob("*.new-*"))


def test_features_are_those_of_the_pictures(done, films):
    """As they leave the network: nothing is normalised."""
    backbone = tiny_backbones()["2d"]
    pieces = [p.data for p in Film(films / "a.mp4", {"2d": backbone.sampling}, False).pieces()]
    expected = backbone.compute(torch.from_numpy(np.concatenate(pieces))[:, None]).half()
    assert torch.equal(FeatureStore(done[0]).read("a.mp4", "2d"), expected)


def test_facts_say_where_features_come_from(done, films):
    facts = FeatureStore(done[0]).facts("b/silent.mp4")
    state = (films / "b/silent.mp4").stat()
    assert facts["duration"] == pytest.approx(2.0, abs=0.05)
    assert (facts["size"], facts["mtime"]) == (state.st_size, int(state.st_mtime))
    assert facts["networks"] == {"2d": "tiny", "3d": "tiny"}
    assert facts["weights"].keys() == {"2d", "3d"}
    assert facts["problems"] == ["no sound"]
    assert "warning" not in facts


def test_the_report_names_every_file_and_what_came_out_of_it(done):
    store, report = done
    assert (report.usable, report.exit_code, report.complete) == (4, 0, True)
    written = json.loads((store / "report.json").read_text())
    lines = {line["video"]: line for line in written["files"]}
    assert {v: line["state"] for v, line in lines.items()} == {
        "a.mp4": "ok", "b/long.mp4": "ok", "b/silent.mp4": "ok", "blind.mp4": "ok",
        "empty.mp4": "failed", "half.mp4": "failed",
    }  # fmt: skip
    assert lines["a.mp4"]["rows"] == {"2d": 3, "3d": 5, "audio": 301}
    assert lines["empty.mp4"]["problems"][0].startswith("empty (")  # and no path of this machine
    assert str(store.parent) not in (store / "report.json").read_text()
    text = (store / "report.txt").read_text()
    assert "6 files: 4 whole, 0 in part, 2 not" in text
    for line in lines.values():
        assert line["video"] in text


def test_work_that_is_done_is_not_done_again(done, films, capsys, monkeypatch):
    before = content(done[0])
    shards = sorted((done[0] / "shards").iterdir())

    def refuse(self, path, samplings, audio):
        raise AssertionError

    monkeypatch.setattr(work.FilmRows, "push", refuse)
    report = extract([films], done[0], TINY)
    assert "4 of 6 files are done already" in capsys.readouterr().err
    assert report == done[1]
    assert content(done[0]) == before
    assert sorted((done[0] / "shards").iterdir()) == shards


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (Features("other", "tiny"), r"was made with 2d: \(tiny, .*\), and not with \(other, "),
        (Features("none", "tiny"), r"was made with 2d: \(tiny, .*\), and not with nothing"),
        (Features("tiny", "tiny", audio=False), r"was made with audio: \(log_mel 1\), and not"),
    ],
)
def test_other_settings_than_those_of_the_store_are_refused(
    done, films, monkeypatch, features, message
):
    monkeypatch.setitem(BACKBONES_2D, "other", tiny_2d)
    before = content(done[0])
    with pytest.raises(ValueError, match=message) as error:
        extract([films], done[0], features)
    assert "another --out" in str(error.value) and "\n" not in str(error.value)
    assert content(done[0]) == before


def test_a_store_of_other_origin_is_refused(films, tmp_path):
    with StoreWriter(tmp_path, {"2d": job.fields_of({}, True)["audio"]}, "other"):
        pass
    with pytest.raises(ValueError, match="was not made here: it has no extraction.json"):
        extract([films], tmp_path, TINY)


def test_a_file_that_has_changed_since_is_named_and_its_features_are_kept(tmp_path, capsys):
    write_film(tmp_path / "films/a.mp4", 1)
    extract([tmp_path / "films"], tmp_path / "store", TINY)
    before = content(tmp_path / "store")
    write_film(tmp_path / "films/a.mp4", 2)
    report = extract([tmp_path / "films"], tmp_path / "store", TINY)
    assert content(tmp_path / "store") == before
    (line,) = report.lines
    assert line.problems[-1].startswith("changed since: another file had this name")


def test_where_nothing_can_be_used_the_exit_code_is_1(films, tmp_path, monkeypatch):
    bad = [films / "empty.mp4", films / "half.mp4"]
    report = extract(bad, tmp_path / "store", TINY)
    assert (report.usable, report.exit_code) == (0, 1)
    monkeypatch.setenv("WORLD_SIZE", "2")  # an error would have a launcher stop the other one
    assert extract(bad, tmp_path / "store", TINY).exit_code == 0


def test_features_that_are_not_finite_cost_the_film(films, tmp_path, monkeypatch):
    class Broken(torch.nn.Module):
        def forward(self, x):
            return torch.full((len(x), 6), torch.nan)

    def broken(name, source):
        backbone = tiny_2d(name, source)
        backbone.network = Broken()
        return backbone

    monkeypatch.setitem(BACKBONES_2D, "broken", broken)
    report = extract([films], tmp_path / "store", Features("broken", "none"))
    states = {line.video: line for line in report.lines}
    assert states["a.mp4"].state == "failed"
    assert "must be finite" in states["a.mp4"].problems[0]
    assert states["blind.mp4"].state == "ok"


def test_sound_can_be_left_out(films, tmp_path):
    features = Features("none", "tiny", audio=False)
    report = extract([films / "a.mp4", films / "blind.mp4"], tmp_path / "store", features)
    assert list(FeatureStore(tmp_path / "store").fields) == ["3d"]
    assert [(line.state, line.problems) for line in report.lines] == [
        ("ok", ()),
        ("failed", ("nothing to extract: no picture; check the file",)),
    ]


def test_random_weights_are_said_loudly_everywhere(films, tmp_path, capsys):
    features = Features("tiny", "none", random_weights=True)
    extract([films / "a.mp4"], tmp_path / "store", features)
    assert "!!! the weights are random: these features mean nothing" in capsys.readouterr().err
    facts = FeatureStore(tmp_path / "store").facts("a.mp4")
    assert facts["warning"].startswith("the weights are random")
    assert facts["weights"] == {"2d": "random"}
    assert "warning" in json.loads((tmp_path / "store/extraction.json").read_text())


def test_two_processes_share_the_files_and_the_last_one_reports(
    done, films, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    first = extract([films], tmp_path / "store", TINY)
    assert not first.complete and first.exit_code == 0
    assert [line.problems for line in first.lines if line.video == "a.mp4"] == [("not done yet",)]
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("RANK", "0")
    assert extract([films], tmp_path / "store", TINY) == done[1]
    assert "6 files: 4 whole" in capsys.readouterr().out
    assert content(tmp_path / "store") == content(done[0])
    names = {path.name.partition("-")[0] for path in (tmp_path / "store/shards").glob("*.json")}
    assert names == {"rank0", "rank1"}


def test_a_process_alone_goes_on_where_two_were(done, films, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        patch.setenv("RANK", "1")
        extract([films], tmp_path / "store", TINY)
    assert extract([films], tmp_path / "store", TINY) == done[1]
    assert content(tmp_path / "store") == content(done[0])
    assert [path.name for path in (tmp_path / "store/notes").iterdir()] == ["rank0.json"]


def test_of_two_processes_that_end_at_once_the_last_report_is_complete(done, tmp_path, monkeypatch):
    """The other one writes its note after this one has looked, and has reported before that."""
    store = tmp_path / "store"
    shutil.copytree(done[0], store)
    shutil.rmtree(store / "notes")
    reports.note(store, 0, {})
    write = reports._write

    def write_late(store, found):
        write(store, found)
        reports.note(store, 1, {"empty.mp4": "empty"})

    monkeypatch.setattr(reports, "_write", write_late)
    assert reports.make_report(store, ["a.mp4", "empty.mp4"], 2).complete
    assert json.loads((store / "report.json").read_text())["complete"]


def in_a_fork(films, store):
    """Extract in a process that can be killed; slowly, and with a shard for every film."""
    push, add = work.FilmRows.push, StoreWriter.add

    def slowly(self, piece):
        time.sleep(0.02)
        push(self, piece)

    def add_and_flush(self, *words):
        add(self, *words)
        self.flush()

    work.FilmRows.push, StoreWriter.add = slowly, add_and_flush
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    extract([films], store, TINY)


@with_fork
def test_a_run_killed_at_any_moment_ends_like_one_that_was_not(done, films, tmp_path):
    context, store = multiprocessing.get_context("fork"), tmp_path / "store"
    for seconds in (0.4, 0.6, 0.8):
        process = context.Process(target=in_a_fork, args=(films, store))
        process.start()
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert extract([films], store, TINY) == done[1]
    assert content(store) == content(done[0])
    assert not list(store.rglob("*.new-*"))


@with_fork
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_stop_saves_what_is_done(films, tmp_path, number):
    """Without a shard for every film: what is done would be lost by a kill."""

    context, store = multiprocessing.get_context("fork"), tmp_path / "store"
    added = context.Event()

    def slow_work():
        sys.stderr = open(tmp_path / "said", "w")  # noqa: SIM115
        add = StoreWriter.add

        def add_and_wait(self, *words):
            add(self, *words)
            added.set()
            time.sleep(20)

        StoreWriter.add = add_and_wait
        try:
            extract([films], store, TINY)
        except KeyboardInterrupt:
            sys.stderr.flush()
            os._exit(130)

    process = context.Process(target=slow_work)
    process.start()
    assert added.wait(20)
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == 128 + number
    said = (tmp_path / "said").read_text()
    assert "stopped: 0 of 6 files are done; the same command goes on from there" in said
    assert list(FeatureStore(store).videos) == ["a.mp4"]


@with_fork
def test_a_full_disk_is_one_line_and_what_is_finished_is_whole(films, tmp_path):
    resource = pytest.importorskip("resource", reason="no limits here")

    def limited():
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
        try:
            extract([films / "a.mp4"], tmp_path / "store", TINY)
        except OSError as error:
            (tmp_path / "said").write_text(str(error))

    process = multiprocessing.get_context("fork").Process(target=limited)
    process.start()
    process.join()
    said = (tmp_path / "said").read_text()
    assert "store: writing failed (File too large); what is finished is whole: make room" in said
    assert extract([films / "a.mp4"], tmp_path / "store", TINY).usable == 1


def test_a_film_that_needs_too_much_memory_costs_that_film(films, tmp_path, monkeypatch):
    class Greedy(torch.nn.Module):
        def forward(self, x):
            raise torch.OutOfMemoryError("CUDA out of memory")

    def greedy(name, source):
        backbone = tiny_2d(name, source)
        backbone.network = Greedy()
        return backbone

    monkeypatch.setitem(BACKBONES_2D, "greedy", greedy)
    report = extract([films], tmp_path / "store", Features("greedy", "none"))
    lines = {line.video: line for line in report.lines}
    assert lines["a.mp4"].problems == ("no memory for its pictures; make them smaller",)
    assert lines["blind.mp4"].state == "ok"


def test_files_may_be_called_anything(tmp_path, capsys):
    names = [
        "with space.mp4",
        "new\nline.mp4",
        "\N{SNOWMAN}.mp4",
        "-x.mp4",
        "a:b.mp4",
        "\udcff.mp4",
    ]
    first = write_film(tmp_path / "films" / names[0], 0.5)
    for name in names[1:]:
        shutil.copy(first, tmp_path / "films" / name)
    report = extract([tmp_path / "films"], tmp_path / "store", Features("tiny", "none"))
    failed = {line.video: line.problems for line in report.lines if line.state == "failed"}
    assert failed == {"\udcff.mp4": ("its name is not UTF-8; rename it",)}
    assert len(report.lines) == len(names)
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(names) + 2


def test_captions_are_written_for_the_videos_in_the_store(films, tmp_path, capsys):
    (tmp_path / "captions.csv").write_text(
        "video,start,end,text\n"
        'a.mp4,0.5,1.25,"a dog, jumping"\n'
        "long,1,2,by a short name\n"
        "empty.mp4,0,1,of a bad file\n"
        "other.mp4,0,1,of nothing\n"
    )
    extract([films], tmp_path / "store", TINY, captions=tmp_path / "captions.csv")
    written = read_captions(tmp_path / "store/captions.csv")
    assert [(c.video, c.start, c.end, c.text) for c in written] == [
        ("a.mp4", 0.5, 1.25, "a dog, jumping"),
        ("b/long.mp4", 1.0, 2.0, "by a short name"),
    ]
    said = capsys.readouterr().err
    assert "captions.csv: 2 captions of 2 videos" in said
    assert "2 captions belong to no video in the store (empty.mp4, other.mp4)" in said
    assert "2 videos in the store have none (b/silent.mp4, blind.mp4)" in said


def test_subtitle_files_are_found_beside_the_films(films, tmp_path, capsys):
    shutil.copytree(films, tmp_path / "films")
    cue = "WEBVTT\n\n00:00:01.000 --> 00:00:02.500\nhello\n"
    for name in ("a.en.vtt", "b/long.mp4.vtt", "empty.vtt", "b/stranger.vtt"):
        (tmp_path / "films" / name).write_text(cue)
    store = tmp_path / "store"
    extract([tmp_path / "films"], store, TINY, captions=tmp_path / "films")
    assert [c.video for c in read_captions(store / "captions.csv")] == ["a.mp4", "b/long.mp4"]
    assert "2 subtitle files belong to no video in the store" in capsys.readouterr().err


def test_a_wrong_caption_file_is_said_before_the_work(films, tmp_path):
    (tmp_path / "captions.csv").write_text("video,start,end\n")
    with pytest.raises(ValueError, match="no column text"):
        extract([films], tmp_path / "store", TINY, captions=tmp_path / "captions.csv")
    assert not (tmp_path / "store").exists()


def test_the_tool_does_it_all(films, tool, tmp_path):
    networks = ["--features-2d", "none", "--features-3d", "none"]
    code, output, errors = tool(EXTRACT, films, "--out", tmp_path / "store", *networks)
    assert code == 0, errors
    assert "6 files: 3 whole, 0 in part, 3 not" in output
    assert "b/silent.mp4: nothing to extract: no sound" in errors
    assert list(FeatureStore(tmp_path / "store").fields) == ["audio"]


def test_help_and_mistakes(films, tmp_path, monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["extract.py", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, *capsys.readouterr()

    code, output, _ = run("--help")
    assert code == 0
    assert "python tools/extract.py films/ --out features" in output
    assert all(len(line) <= 100 for line in output.splitlines())
    words = (films / "empty.mp4", "--out", tmp_path / "store", "--features-2d", "tiny")
    code, output, errors = run(*words)
    assert (code, output) == (2, "")
    assert errors.startswith("error: resnext101 needs its weights: download https://")
    assert run(*words, "--features-3d", "tiny", "--workers", "0")[0] == 2
    code, output, _ = run(*words, "--features-3d", "none", "--no-audio")
    assert code == 1
    assert "1 files: 0 whole, 0 in part, 1 not" in output
    code, _, errors = run(*words, "--features-3d", "tiny")
    assert code == 2
    assert "was made with 3d: nothing, and not with (tiny, " in errors
    assert "delete it, as it is still empty" in errors
