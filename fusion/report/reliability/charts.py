"""The charts of the page: kills on loss curves, recovery, memory under a bomb, corrupt clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from fusion.report.plots import CYCLE, INK, QUIET, ROOM, STYLE, new_figure, to_svg
from fusion.report.reliability.results import Trial
from fusion.words import number_of

MIB = 2**20


def kill_chart(title: str, variant: Trial) -> Markup:
    """Draw the undisturbed loss, that of every killed run, the kills, and the difference."""
    import matplotlib

    whole = dict(map(tuple, variant["undisturbed"]))
    with matplotlib.rc_context(STYLE):
        figure = new_figure(820, 340, layout="constrained")
        loss, difference = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        loss.plot([*whole], [*whole.values()], color=ROOM, linewidth=6, label="undisturbed")
        for number, run in enumerate(variant["runs"]):
            steps = dict(map(tuple, run["losses"]))
            colour = CYCLE[number % len(CYCLE)]
            name = f"run {number + 1}, {number_of(len(run['kills']), 'kill')}"
            loss.plot([*steps], [*steps.values()], color=colour, linewidth=1.2, label=name)
            gaps = [steps[step] - whole.get(step, np.nan) for step in steps]
            difference.plot([*steps], gaps, color=colour, linewidth=1.5)
            for kill in run["kills"]:
                look = {"color": colour, "linewidth": 1, "linestyle": (0, (2, 2))}
                loss.axvline(kill["step"], **look)
                loss.plot(kill["step"], 1.02, "v", color=colour, clip_on=False,
                          transform=loss.get_xaxis_transform())  # fmt: skip
        loss.set_ylabel("loss")
        difference.set_ylabel("difference")
        difference.set_xlabel("step", loc="right")
        if not any(np.any(np.nan_to_num(line.get_ydata())) for line in difference.lines):
            difference.set_ylim(-1, 1)
            difference.set_yticks([0])
        figure.legend(loc="outside lower left", ncols=3)
        return to_svg(figure, f"{title}: loss over steps, with kills")


def recovery_chart(times: Mapping[str, Sequence[float]]) -> Markup:
    """Draw the seconds to the first new step after each kill, with p50 and p95, by launch."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = new_figure(820, 60 + 52 * len(times), layout="constrained")
        axes = figure.subplots()
        for place, (name, seconds) in enumerate(times.items()):
            spread = place + 0.16 * np.cos(np.arange(len(seconds)) * 2.4)
            axes.scatter(seconds, spread, 16, color=CYCLE[place % len(CYCLE)], label=name)
            for share, text in ((50, "p50"), (95, "p95")):
                at = float(np.percentile(seconds, share))
                axes.plot([at, at], [place - 0.36, place + 0.36], color=INK, linewidth=1.4)
                axes.annotate(f"{text} {at:.1f}", (at, place - 0.38), size=9, ha="center",
                              va="bottom", color=QUIET)  # fmt: skip
        axes.set_ylim(len(times) - 0.4, -0.75)
        axes.set_yticks(range(len(times)), [*times], color=INK)
        axes.set_xlim(left=0)
        axes.set_xlabel("seconds", loc="right")
        axes.grid(axis="x")
        axes.tick_params(length=0)
        return to_svg(figure, "seconds from a start to the first new step")


def bomb_chart(bomb: Trial) -> Markup:
    """Draw the memory of a process that reads a bomb, guarded and by ``numpy.load``."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = new_figure(820, 260, layout="constrained")
        axes = figure.subplots()
        for place, (name, curve) in enumerate(bomb["memory"].items()):
            seconds, size = np.asarray(curve, dtype=float).reshape(-1, 2).T
            highest = size.max(initial=0.0) / MIB
            label = f"{name}: {highest:,.0f} MiB"
            axes.plot(seconds, size / MIB, color=CYCLE[place], label=label, linewidth=1.6)
        axes.set_ylabel("MiB")
        axes.set_xlabel("seconds", loc="right")
        axes.grid(axis="y")
        axes.set_ylim(bottom=0)
        figure.legend(loc="outside lower left", ncols=2)
        return to_svg(figure, "memory of a process that reads a bomb")


def corrupt_charts(trial: Trial) -> list[tuple[str, Markup]]:
    """Draw speed and R@1 over the share of clips that cannot be read."""
    seen = trial["seen"]
    shares = [100 * one["share"] for one in seen]
    speed = {"training": [one["clips per second"] for one in seen]}
    names = sorted({name for one in seen for name in one["R@1"]})
    shown = [name for name in ("t->v", "t->va", "v->t") if name in names] or names[:3]
    found = {name: [one["R@1"].get(name) for one in seen] for name in shown}
    found |= {"chance": [one["chance"] for one in seen]}
    return [
        ("Clips per second", _over_shares("clips per second", shares, speed)),
        ("R@1 (%) of a test without damage", _over_shares("R@1", shares, found)),
    ]


def _over_shares(
    title: str, shares: Sequence[float], curves: Mapping[str, Sequence[Any]]
) -> Markup:
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = new_figure(400, 270, layout="constrained")
        axes = figure.subplots()
        for place, (name, values) in enumerate(curves.items()):
            look = {"color": QUIET, "linestyle": ":"} if name == "chance" else {}
            look = {"color": CYCLE[place % len(CYCLE)], "marker": "o", "markersize": 4} | look
            axes.plot(shares, values, label=name.replace("->", " → "), **look)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("% of the training clips", loc="right")
        axes.grid(axis="y")
        figure.legend(loc="outside lower left", ncols=4)
        return to_svg(figure, f"{title} over the share of clips that cannot be read")
