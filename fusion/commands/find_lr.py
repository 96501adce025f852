"""Recommend learning rates by a range test on the config's own data, model, loss and batches."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusion.commands.job import Job
from fusion.config import ConfigError
from fusion.files import write_atomically
from fusion.report.rate_plot import rates_picture
from fusion.training.optim import check_parts, part_of
from fusion.training.rate_choice import SAFE, Curve, middle, read_curve
from fusion.training.rate_test import HIGHEST, LOWEST, REST, RangeTest, Rates, growing_rates

FORMAT = 1  # of the JSON
ENCODERS = "encoders"  # whose parts are tested by default
STEPS, FEWEST_STEPS, REPETITIONS = 100, 30, 3
WHOLE, OTHERS = "whole model", "the rest"  # names of curves


def find_lr(
    config: Mapping[str, Any],
    parts: Sequence[str] | None = None,
    steps: int | None = None,
    repetitions: int | None = None,
    out: str | None = None,
) -> None:
    """Test learning rates, print a table, write ``rates.svg`` and ``rates.json``.

    Args:
        config: see :func:`fusion.config.load_config`.
        parts: beginnings of parameters' names; None: those of ``trainer.part_learning_rates``, else
            each encoder; none: the whole model alone.
        steps: of a run; None: 100, fewer in a short training.
        repetitions: on different batches; None: 3, fewer in a short training.
        out: folder; None: that of the run with ``-rates`` at its end.

    Raises:
        ValueError: the config, the data or the parts cannot be used, or no rate lowers the loss.
    """
    job = Job(config, None)
    try:
        job.settle()
        start = job.initial()
        job.open_data(start)
        job.fit()
        train_set = job.task.clips("train")
        job.build(start)
        result = Search(job, train_set, parts, steps, repetitions).run()
        if job.accelerator.is_main_process:
            _write(result, Path(out or f"{str(config['output']).rstrip('/')}-rates"))
    finally:
        job.close()


class Search:
    """The runs of a range test: first the whole model, then part after part."""

    def __init__(
        self,
        job: Job,
        train_set: Any,
        parts: Sequence[str] | None,
        steps: int | None,
        repetitions: int | None,
    ) -> None:
        trained = [n for n, p in job.model.named_parameters() if p.requires_grad]
        chosen = _default_parts(job, trained) if parts is None else [*parts]
        check_parts(chosen, trained, "--parts")
        rate = job.settings.learning_rate
        rates = dict.fromkeys(chosen, rate) if chosen else None
        # The test sets all rates itself. No schedule, and no checkpoint to choose.
        settings = dataclasses.replace(job.settings, part_learning_rates=rates)
        trainer = job.make_trainer(train_set, settings)
        has_rest = any(not part_of(name, chosen) for name in trained)
        self.parts = [*chosen, *([REST] if has_rest else [])]
        if steps is None:
            steps = min(STEPS, max(FEWEST_STEPS, trainer.steps // 4))
        self.rates = growing_rates(steps)
        curves = 1 + (len(self.parts) if chosen else 0)
        once = 2 * curves * (steps + 1)  # steps: a run and its control for each curve
        self.repetitions = repetitions or max(1, min(REPETITIONS, trainer.steps // once))
        self.test = RangeTest(trainer, once * self.repetitions)
        self.has_parts, self.seed, self.job = bool(chosen), job.config["seed"], job

    def run(self) -> dict[str, Any]:
        """Make all runs; return the result, ready for JSON."""
        try:
            whole = self._test(WHOLE, None, dict.fromkeys(self.parts, 0.0))
            if whole["recommended"] is None:
                raise ConfigError(
                    f"no learning rate from {LOWEST:g} to {HIGHEST:g} lowers the loss in"
                    f" {len(self.rates)} steps; check the data and the loss, or give more --steps"
                )
            fixed = dict.fromkeys(self.parts, whole["recommended"])
            rows = [self._test(p or OTHERS, p, fixed) for p in self.parts] if self.has_parts else []
        finally:
            self.test.close()
        found = {row["part"]: row["recommended"] for row in rows}
        main = found.pop(REST, None) or whole["recommended"]
        for row in rows:
            if row["recommended"] is None:  # the part hardly matters to the loss
                safe = row["diverges"] / SAFE if row["diverges"] else main
                row |= {"recommended": min(safe, main), "note": "no gain seen"}
                found |= {row["part"]: row["recommended"]} if row["part"] else {}
        return {
            "format": FORMAT,
            "seed": self.seed,
            "steps": len(self.rates),
            "repetitions": self.repetitions,
            "batch_size": self.job.settings.batch_size,
            "optimizer": self.job.settings.optimizer,
            "rates": self.rates,
            "parts": [whole, *rows],
            "set": _overrides(main, found, self.job.settings.rate_factor != 1),
        }

    def _test(self, name: str, part: str | None, fixed: Rates) -> dict[str, Any]:
        """Let the rate of a part grow (None: of all), while the others' stay ``fixed``."""
        tested = self.parts if part is None else [part]
        still = {**fixed, **dict.fromkeys(tested, 0.0)}
        growing = [{**fixed, **dict.fromkeys(tested, rate)} for rate in self.rates]
        curves: list[Curve] = []
        for repetition in range(self.repetitions):
            control = self.test.run(repetition, [still] * len(self.rates))
            losses = self.test.run(repetition, growing, control)
            curves.append(read_curve(self.rates, losses, control))
        return {
            "name": name,
            "part": part,
            "recommended": middle([curve.recommended for curve in curves]),
            "diverges": middle([curve.diverges for curve in curves]),
            "each": [curve.recommended for curve in curves],
            "gains": [curve.gain for curve in curves],
        }


def _default_parts(job: Job, trained: Sequence[str]) -> list[str]:
    """Take the parts that the config names, or each encoder."""
    if job.settings.part_rates:
        return [*job.settings.part_rates]
    words = [name.split(".") for name in trained if ENCODERS in name.split(".")]
    return [*dict.fromkeys(".".join(parts[: parts.index(ENCODERS) + 2]) for parts in words)]


def _overrides(main: float, parts: Rates, are_scaled: bool) -> list[str]:
    """Write the keys of a config; rates that are found for this batch must not be scaled to it."""
    words = [f"trainer.learning_rate={main:.1e}"]
    if parts:
        rates = ", ".join(f"{part}: {rate:.1e}" for part, rate in parts.items())
        words.append(f"'trainer.part_learning_rates={{{rates}}}'")
    if are_scaled:
        words.append("trainer.learning_rate_batch=null")
    return words


def format_rates(result: Mapping[str, Any]) -> str:
    """Write the table of a result for a terminal."""
    rows = [("part", "recommended", "diverges at", "")]
    for row in result["parts"]:
        diverges = f"{row['diverges']:.1e}" if row["diverges"] else f"above {HIGHEST:g}"
        rows.append((row["name"], f"{row['recommended']:.1e}", diverges, row.get("note", "")))
    width = 2 + max(len(name) for name, *_ in rows)
    lines = [f"{n:<{width}}{r:>11}  {d:>11}  {note}".rstrip() for n, r, d, note in rows]
    return "\n".join(lines)


def _write(result: Mapping[str, Any], folder: Path) -> None:
    write_atomically(folder / "rates.json", json.dumps(result, indent=1))
    write_atomically(folder / "rates.svg", rates_picture(result))
    print(
        f"{format_rates(result)}\n\n{' '.join(result['set'])}\n\n"
        f"picture   {folder / 'rates.svg'}\nnumbers   {folder / 'rates.json'}"
    )
