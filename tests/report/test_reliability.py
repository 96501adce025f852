"""The page of ``fusion reliability-report``, from results as the trials write them."""

import copy
import json
import re

import pytest

from fusion.commands import reliability_report as command
from fusion.commands.reliability_report import reliability_report
from fusion.config import ConfigError
from fusion.report.reliability.page import reliability_page
from fusion.report.reliability.results import read_trials, recoveries

MACHINE = {"cores": 2, "python": "3.11", "torch": "2.15", "system": "Linux", "load": 1.5}
LOSSES = [[1, 2.0], [2, 1.5], [3, 1.0]]
KILL = {"after": 1.0, "step": 2, "redone": 1, "began": True, "left": 0, "recovery": 3.25}
RUN = {"kills": [KILL], "equal": True, "losses": LOSSES, "sha256": {"last": "ab" * 32}}
TRIALS = {
    "kills": {
        **{"processes": 2, "fresh": False, "kills": 1, "runs": 1, "equal": 1},
        **{"processes left": 0, "most steps redone": 1, "job": "tests/tiny.py"},
        "variants": {"plain": {"undisturbed": LOSSES, "runs": [RUN], "sha256": RUN["sha256"]}},
    },
    "launches": {"seen": {"4": {"codes": {"0": 3}, "seconds": [1.0, 2.0, 9.0], "said": []}}},
    "signals": {
        "python, SIGTERM": {
            **{"exit code": 143, "saved": True, "processes left": 0, "lines that say so": 1},
            **{"tracebacks": 0, "of the launcher": 0},
        }
    },
    "restart": {"exit code": 0, "every step once": True},
    "damage": {"injected": 10, "seen": {"went on, equal to the undisturbed run": 9}},
    "hostile": {
        "seen": {
            "<b>a pickle": {"outcome": "refused in one line", "memory": 2**20, "seconds": 0.5}
        },
        "bomb": {
            **{"mib": 8, "bytes": 9000},
            "memory": {"guarded": [[0.0, 0]], "numpy.load": [[0.0, 0], [1.0, 8 * 2**20]]},
        },
    },
    "corrupt": {
        "job": "tests/tiny.py",
        "films": 2,
        "seen": [
            {
                **{"share": share, "clips": 16, "corrupt": corrupt, "named": corrupt},
                **{"clips per second": 50.0, "R@1": {"t->va": 40.0 - share}, "chance": 6.2},
            }
            for share, corrupt in ((0.0, 0), (0.2, 3))
        ],
    },
}  # fmt: skip


def trials(**changes):
    made = copy.deepcopy(TRIALS)
    for name, change in changes.items():
        made[name] |= change
    about = {"words": ["x"], "machine": MACHINE}
    return {name: [{"command": name, **about, **one}] for name, one in made.items()}


def write(folder, found):
    for name, several in found.items():
        for number, one in enumerate(several):
            (folder / f"{name}{number}.json").write_text(json.dumps(one))


def test_the_page_has_all_that_was_tried(tmp_path, capsys):
    write(tmp_path, trials())
    reliability_report(tmp_path)
    page = (tmp_path / "reliability.html").read_text()
    assert "7 trials <span>all as expected" in page
    assert "1 signal (SIGKILL or SIGTERM) at random moments: 1 of 1 run ended with the same" in page
    for text in ("p50 3.2", "143", "0: 3", "2 processes: plain", "numpy.load: 8 MiB", "t → va"):
        assert text in page, text
    assert page.count("<svg") == 5
    assert "&lt;b&gt;a pickle" in page and "<b>a pickle" not in page
    assert not re.search(r'(src|href)="(?!#|data:)', page)
    assert str(tmp_path / "reliability.html") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("kills", {"equal": 0}),
        ("kills", {"processes left": 1}),
        ("kills", {"signal": "SIGTERM"}),  # and a step was redone
        ("kills", {"badly ended": 1}),
        ("launches", {"seen": {"2": {"codes": {"0": 1, "-6": 1}, "seconds": [1.0], "said": []}}}),
        ("restart", {"exit code": 1}),
        ("damage", {"seen": {"WENT ON, DIFFERENT": 1}}),
        ("corrupt", {"seen": [TRIALS["corrupt"]["seen"][1] | {"named": 2}]}),
        ("hostile", {"seen": {"x": {"outcome": "ITS CODE RAN", "memory": 0, "seconds": None}}}),
    ],
)
def test_the_first_line_names_what_was_not_as_expected(name, change):
    assert f"not as expected: {name}<" in reliability_page(trials(**{name: change}))


def test_what_was_not_tried_has_no_section():
    page = reliability_page({"launches": trials()["launches"]})
    assert re.findall("<h2>(.*?)</h2>", page) == ["Launches", "How it was measured"]


def test_a_kill_before_which_nothing_began_again_has_no_time():
    found = trials()["kills"]
    kills = found[0]["variants"]["plain"]["runs"][0]["kills"]
    kills.append({**KILL, "recovery": None})
    assert recoveries(found) == [3.25]


@pytest.mark.parametrize("content", ["{", "[1]", '{"command": "else"}'])
def test_other_files_are_named(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ConfigError, match=r"x\.json"):
        read_trials(tmp_path)


def test_a_result_of_another_version_is_one_line(tmp_path):
    write(tmp_path, {"kills": [{"command": "kills", "machine": MACHINE, "words": []}]})
    with pytest.raises(ConfigError, match="has a result of another version"):
        reliability_report(tmp_path)


def test_without_results_the_trials_run_first(tmp_path, monkeypatch):
    asked = []

    class Done:
        returncode = 0

    def run(words, cwd):
        asked.append(words[2:])
        (tmp_path / "new").mkdir()
        write(tmp_path / "new", trials())
        return Done

    monkeypatch.setattr(command.subprocess, "run", run)
    reliability_report(tmp_path / "new", long=True)
    assert asked == [["all", "--out", str(tmp_path / "new"), "--long"]]
    with pytest.raises(ConfigError, match="has results already"):
        reliability_report(tmp_path / "new", long=True)
    monkeypatch.setattr(command, "TOOL", tmp_path / "none")
    with pytest.raises(ConfigError, match="the trials are no part of the package"):
        reliability_report(tmp_path / "empty")
