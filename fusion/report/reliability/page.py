"""The page of ``fusion reliability-report``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

from fusion.report.page import page, render
from fusion.report.reliability import charts
from fusion.report.reliability.results import Trial, is_as_expected, kills_of, recoveries
from fusion.words import number_of

MIB = 2**20
TITLE = "Reliability"


def reliability_page(trials: Mapping[str, Sequence[Trial]]) -> str:
    """Write the page; sections of what was not tried are left out."""
    sections = {
        "Kills": _kills(trials.get("kills", ())),
        "Recovery": _recovery(trials.get("kills", ())),
        "Launches": _launches(trials.get("launches", ())),
        "Signals": _signals([*trials.get("signals", ()), *trials.get("restart", ())]),
        "Damaged checkpoints": _damage(trials.get("damage", ())),
        "Files that want to harm": _hostile(trials.get("hostile", ())),
        "Memory under a bomb": _bombs(trials.get("hostile", ())),
        "Clips that cannot be read": _corrupt(trials.get("corrupt", ())),
        "How it was measured": _facts(trials),
    }
    return page(TITLE, _headline(trials), sections)


def _headline(trials: Mapping[str, Sequence[Trial]]) -> Markup:
    every = [(command, trial) for command, several in trials.items() for trial in several]
    bad = [command for command, trial in every if not is_as_expected(command, trial)]
    count = number_of(len(every), "trial")
    said = f"not as expected: {', '.join(bad)}" if bad else "all as expected"
    kills = sum(trial["kills"] for trial in trials.get("kills", ()))
    runs = sum(trial["runs"] for trial in trials.get("kills", ()))
    equal = sum(trial["equal"] for trial in trials.get("kills", ()))
    lead = (
        f"{number_of(kills, 'signal')} (SIGKILL or SIGTERM) at random moments: {equal} of"
        f" {number_of(runs, 'run')} ended"
        " with the same losses to the last bit and the same SHA-256 of all weights as the"
        " undisturbed run."
        if kills
        else ""
    )
    return Markup('<h1>{} <span>{}</span></h1><p class="lead">{}</p>').format(count, said, lead)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]], note: str = "") -> Markup:
    cells = [[str(cell) for cell in row] for row in rows]
    return render("methods.html", head=head, groups=[("", cells)], notes=[note] if note else [])


def _wide(title: str, chart: Markup) -> Markup:
    figure = '<figure class="chart wide"><figcaption>{}</figcaption>{}</figure>'
    return Markup(figure).format(title, chart)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _launch(trial: Trial) -> str:
    fresh = ", new processes" if trial.get("fresh") else ""
    signal = "" if trial.get("signal", "SIGKILL") == "SIGKILL" else f", {trial['signal']}"
    return f"{_processes(trial['processes'])}{fresh}{signal}"


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def _kills(trials: Sequence[Trial]) -> Markup:
    rows: list[list[object]] = []
    drawn = Markup()
    for trial in trials:
        for name, variant in trial["variants"].items():
            kills, title = kills_of(variant), f"{_launch(trial)}: {name}"
            equal = sum(run["equal"] for run in variant["runs"])
            redone = max((kill["redone"] for kill in kills), default=0)
            left = sum(kill["left"] for kill in kills)
            row = [title, len(kills), len(variant["runs"]), equal, redone, left]
            rows.append([*row, variant["sha256"]["last"][:12]])
            drawn += _wide(title, charts.kill_chart(title, variant))
    if not rows:
        return Markup()
    head = ("", "kills", "runs", "equal", "most steps redone", "processes left", "SHA-256")
    note = (
        "Equal: the same losses to the last bit, and the same SHA-256 of all weights of last and"
        " best, as the undisturbed run. In the charts a triangle is a kill; the lower trace is the"
        " loss minus that of the undisturbed run at the same step."
    )
    return _table(head, rows, note) + drawn


def _recovery(trials: Sequence[Trial]) -> Markup:
    of_launch: dict[str, list[float]] = {}
    for trial in trials:
        of_launch.setdefault(_launch(trial), []).extend(recoveries([trial]))
    known = {name: times for name, times in of_launch.items() if times}
    if not known:
        return Markup()
    note = (
        "Seconds from the start after a kill to the first new step. Unless it says new processes,"
        " they were copied from one that has imported PyTorch: the time of the imports comes on"
        " top."
    )
    return Markup('<p class="note">{}</p>{}').format(
        note, _wide("Seconds to the first new step", charts.recovery_chart(known))
    )


def _launches(trials: Sequence[Trial]) -> Markup:
    rows = [
        [
            _processes(int(count)),
            sum(one["codes"].values()),
            ", ".join(f"{code}: {number}" for code, number in sorted(one["codes"].items())),
            _seconds(sorted(one["seconds"])[len(one["seconds"]) // 2]),
        ]
        for trial in trials
        for count, one in trial["seen"].items()
    ]
    head = ("", "launches", "exit codes: how often", "median s")
    return _table(head, rows, "Whole runs, one after the other, by torchrun.") if rows else Markup()


def _signals(trials: Sequence[Trial]) -> Markup:
    rows: list[list[object]] = []
    for trial in trials:
        if trial["command"] == "restart":
            once = "every step once" if trial["every step once"] else "STEPS LOST"
            rows.append(["SIGKILL to a rank, --max_restarts 1", trial["exit code"], once, "-", "-"])
            continue
        for name, one in trial.items():
            if isinstance(one, Mapping) and "saved" in one:
                saved = "saved" if one["saved"] else "NOT SAVED"
                own = one["tracebacks"] - one["of the launcher"]
                rows.append([name, one["exit code"], saved, one["processes left"], own])
    head = ("", "exit code", "state", "processes left", "tracebacks of ours")
    note = "torchrun ends with 1 and a traceback of its own when it is told to stop."
    return _table(head, rows, note) if rows else Markup()


def _damage(trials: Sequence[Trial]) -> Markup:
    rows = [
        [outcome, count, trial["injected"]]
        for trial in trials
        for outcome, count in trial["seen"].items()
    ]
    note = "A random file of the newest checkpoint has a flipped bit, is cut short or gone."
    return _table(("seen", "times", "of"), rows, note) if rows else Markup()


def _hostile(trials: Sequence[Trial]) -> Markup:
    rows = [
        [name, one["outcome"], f"{one['memory'] / MIB:.0f}", _seconds(one["seconds"])]
        for trial in trials
        for name, one in trial["seen"].items()
    ]
    note = "Each file was read in a process of its own."
    return (
        _table(("file", "outcome", "MiB taken", "s of the processor"), rows, note)
        if rows
        else Markup()
    )


def _bombs(trials: Sequence[Trial]) -> Markup:
    drawn = Markup()
    for trial in trials:
        bomb = trial["bomb"]
        size = f"{bomb['bytes'] / MIB:.1f} MiB that unpack to {bomb['mib']:,} MiB"
        drawn += _wide(f"A file of {size}", charts.bomb_chart(bomb))
    return drawn


def _corrupt(trials: Sequence[Trial]) -> Markup:
    drawn = Markup()
    for trial in trials:
        seen = trial["seen"]
        head = ("share", "corrupt", "of", "clips/s", "t → va R@1", "chance")
        rows = [
            [
                f"{one['share']:.0%}",
                one["corrupt"],
                one["clips"],
                f"{one['clips per second']:.0f}",
                f"{one['R@1'].get('t->va', float('nan')):.1f}",
                f"{one['chance']:.1f}",
            ]
            for one in seen
        ]
        note = f"{trial['job']}, {trial['films']} films: all features of these clips are NaN."
        drawn += render("charts.html", charts=charts.corrupt_charts(trial))
        drawn += _table(head, rows, note)
    return drawn


def _facts(trials: Mapping[str, Sequence[Trial]]) -> Markup:
    every = [trial for several in trials.values() for trial in several]
    machines = {
        f"{one['system']}, {number_of(one['cores'], 'core')}, Python {one['python']}, PyTorch"
        f" {one['torch']}"
        for one in (trial["machine"] for trial in every)
    }
    loads = [trial["machine"]["load"] for trial in every if trial["machine"]["load"] is not None]
    facts: dict[str, object] = {"machine": sorted(machines)}
    if loads:
        facts["load"] = f"{min(loads):.1f} to {max(loads):.1f} processes that wanted a core"
    commands = [f"python tools/reliability.py {' '.join(trial['words'])}" for trial in every]
    return render("facts.html", facts=facts | {"commands": commands})
