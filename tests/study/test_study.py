"""A study of a tiny model, from the command to the page, and what a stop leaves."""

import argparse
import itertools
import json
import os
import subprocess

import numpy as np
import pytest
import yaml

from fusion.commands.study import study
from fusion.config import ConfigError
from fusion.study.jobs import Job, jobs_of, run_jobs
from fusion.study.page import write_study
from fusion.study.plan import Plan, spread_out, subsets
from fusion.study.result import Study, direction_of
from fusion.study.words import conclusions
from tests.processes import start
from tests.tiny import write_config


def made(scores, clips=400, seeds=2):
    """A study of two terms whose recalls are given: for t|v, t|a and both, by direction."""
    plan = Plan("eao", ["t|v", "t|a"], "x", seeds=list(range(seeds)))
    settings = subsets(plan.terms)
    found, valid = {}, {}
    for name, values in scores.items():
        hits = np.zeros((3, seeds, clips), bool)
        for i, value in enumerate(values):
            hits[i, :, : round((value or 0) * clips)] = True
        found[name], valid[name] = hits, np.array([v is not None for v in values])
    return Study(plan, settings, found, valid, np.array([10.0, 5.0, 12.0]), "all", 0.2)


def test_conclusions_name_the_best_and_what_is_enough():
    # subsets() are t|a, t|v, both
    said = conclusions(made({"t->v": [None, 0.5, 0.5025], "t->va": [None, None, 0.8]}))
    assert said[0] == "To find films by words (t → va), t|v, t|a is best: 80.0."
    assert "t|v, t|a is best: 50.2. t|v is enough: 50.0" in said[1]
    said = conclusions(made({"t->v": [None, 0.5, 0.6]}))
    assert said[0] == "To find pictures by words (t → v), t|v, t|a is best: 60.0."
    assert "t|a helps t → v (+10.0)." in said


def test_weights_have_no_effects_of_in_and_out(tmp_path):
    plan = Plan("eao", ["t|v", "t|a"], "x", seeds=[0])
    settings = spread_out(plan.terms, [0, 0.1, 1], 5)
    hits = np.zeros((5, 1, 10), bool)
    study = Study(plan, settings, {"t->v": hits}, {"t->v": np.ones(5, bool)}, np.ones(5), "p", 1)
    assert study.effects() == {} and study.halves() is None
    write_study(study, tmp_path)
    assert "Main effects" not in (tmp_path / "study.html").read_text()


def test_another_config_has_other_folders():
    plan = Plan("eao", ["t|v", "t|a"], "x", ["data.films=3"], [0])
    first = jobs_of(plan, subsets(plan.terms))[0].folder
    assert first == jobs_of(plan, subsets(plan.terms))[0].folder
    plan.overrides[0] = "data.films=4"
    assert first != jobs_of(plan, subsets(plan.terms))[0].folder


def test_the_front_leaves_out_what_is_dearer_and_worse():
    assert made({"t->v": [0.2, 0.5, 0.4]}).front("t->v") == [1]
    assert made({"t->v": [0.2, 0.5, 0.6]}).front("t->v") == [1, 2]


def test_the_page_has_every_setting_and_is_escaped(tmp_path):
    said = write_study(made({"t->v": [None, 0.5, 0.6], "t->va": [None, None, 0.8]}), tmp_path)
    page = (tmp_path / "study.html").read_text()
    assert "t|v, t|a" in page and "60.0 [" in page and page.count("<svg") == 3
    numbers = json.loads((tmp_path / "study.json").read_text())
    assert numbers["R@1"]["t->v"][0] is None
    assert numbers["R@1"]["t->v"][2]["value"] == pytest.approx(60)
    assert numbers["conclusions"] == said


def test_directions_are_read():
    assert str(direction_of("t->v+a")) == "t->v+a"


class Forked:
    """A training in a process that has imported torch, for one that starts anew."""

    def __init__(self, words, stdout, env, **_):
        assert words[1:4] == ["-m", "fusion", "train"]
        self.process = start("tools/train.py", *words[4:], errors=stdout.name, **env)

    def poll(self):
        """Give the exit code; None while it runs."""
        return self.process.exitcode

    returncode = property(poll)


def arguments(file, **changes):
    given = {"study": str(file), "overrides": [], "at_once": 2, "weights": None, "budget": None}
    return argparse.Namespace(**given | {"dry_run": False} | changes)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A study file of two terms and one seed."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config = write_config(tmp_path, trainer={"epochs": 1})
    values = {"config": str(config), "terms": ["t|v", "t|va"], "seeds": [0]}
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump(values | {"output": str(tmp_path / "study")}))
    return file


def test_a_study_trains_what_is_left_and_writes_its_page(tiny, tmp_path, capsys, monkeypatch):
    kinds = itertools.chain([subprocess.Popen], itertools.repeat(Forked))  # the first as in use
    monkeypatch.setattr("fusion.study.jobs.subprocess.Popen", lambda *w, **k: next(kinds)(*w, **k))
    study(arguments(tiny))
    out = capsys.readouterr().out
    assert "3 settings x 1 seeds: 3 trainings are left; after the first one" in out
    assert f"page      {tmp_path / 'study' / 'study.html'}" in out
    numbers = json.loads((tmp_path / "study" / "study.json").read_text())
    assert numbers["settings"] == ["t|va", "t|v", "t|v, t|va"]
    assert numbers["R@1"]["t->va"][1] is None  # t|v alone trains no sound
    assert numbers["R@1"]["t->v"][1] is not None
    done = {f: f.stat().st_mtime_ns for f in (tmp_path / "study").rglob("results.json")}
    assert len(done) == 3
    next(iter(done)).unlink()  # one was stopped before its end
    study(arguments(tiny, dry_run=True))
    out = capsys.readouterr().out
    assert "1 trainings are left, about" in out and out.count("done  ") == 2
    study(arguments(tiny))
    again = {f: f.stat().st_mtime_ns for f in (tmp_path / "study").rglob("results.json")}
    assert again.keys() == done.keys() and sum(again[f] != done[f] for f in done) == 1


def test_a_mistake_is_found_before_the_first_training(tmp_path, capsys):
    file = tmp_path / "s.yaml"
    text = f"config: msrvtt/finetune\nterms: [t|v, t|a]\noutput: {tmp_path}/study\n"
    file.write_text(text)
    with pytest.raises(ConfigError, match="msrvtt/finetune begins with weights below data_root"):
        study(arguments(file, dry_run=True))
    assert capsys.readouterr().out.count("left  ") == 6
    with pytest.raises(ConfigError, match="init: there is no checkpoint at .*/weights/everything"):
        study(arguments(file, overrides=[f"data_root={tmp_path}"]))
    assert os.listdir(tmp_path) == ["s.yaml"]


def test_a_training_that_fails_is_named_with_its_log(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("fusion.study.jobs.subprocess.Popen", Forked)
    plan = Plan("eao", ["t|v", "t|a"], str(tmp_path / "x"), ["data.films=-1"], [0])
    jobs = jobs_of(plan, subsets(plan.terms)[:1])
    with pytest.raises(ConfigError, match=r"a training failed \(.*films.*\); see .*t~a-0.log"):
        run_jobs(plan, jobs, 1, 0)
    assert not jobs[0].is_done


def test_a_stop_ends_the_trainings(tmp_path, monkeypatch):
    plan = Plan("eao", ["t|v", "t|a"], str(tmp_path / "x"), [], [0])
    started = []

    class Process:
        returncode = None

        def __init__(self, *_, **options):
            started.append(self)
            self.ended = False
            self.environment = options["env"]

        def poll(self):
            raise KeyboardInterrupt

        def terminate(self):
            self.ended = True

        def wait(self):
            assert self.ended

    monkeypatch.setattr("fusion.study.jobs.subprocess.Popen", Process)
    with pytest.raises(KeyboardInterrupt):
        run_jobs(plan, jobs_of(plan, subsets(plan.terms)), 2, 2)
    assert [p.ended for p in started] == [True, True]
    assert [p.environment["CUDA_VISIBLE_DEVICES"] for p in started] == ["0", "1"]


def test_a_damaged_result_is_not_done(tmp_path):
    job = Job(subsets(["t|v", "t|a"])[0], 0, tmp_path)
    (tmp_path / "results.json").write_text("{")
    assert not job.is_done and os.listdir(tmp_path) == ["results.json"]
