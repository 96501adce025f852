"""Train every subset of the terms of a loss, and say which to pull together."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from fusion.builders import check_config
from fusion.commands.initial import read_training_config
from fusion.files import num_cores
from fusion.study.jobs import estimate, jobs_of, run_jobs, seconds_of
from fusion.study.page import write_study
from fusion.study.plan import overrides_of, read_plan
from fusion.study.result import read_study
from fusion.tasks import complete_result


def study(given: argparse.Namespace) -> None:
    """Run a study, as the command line says."""
    chosen = {"weights": given.weights, "budget": given.budget}
    changes = [f"{key}={value}" for key, value in chosen.items() if value]
    plan = read_plan(given.study, [*given.overrides, *changes])
    settings = plan.settings()
    devices = torch.cuda.device_count()
    at_once = given.at_once or devices or num_cores()
    jobs = jobs_of(plan, settings)
    print(
        f"{len(settings)} settings x {len(plan.seeds)} seeds: {estimate(jobs, at_once, seconds_of)}"
    )
    if given.dry_run:
        for job in jobs:
            state = "done" if job.is_done else "left"
            print(f"{state}  {job.setting.label(plan.terms)}, seed {job.seed}")
    first = [job for job in jobs if not job.is_done][:1]
    for job in first:  # a mistake is found at once, and not in the log of a training
        check_config(
            read_training_config(plan.config, overrides_of(plan, job.setting, job.seed, job.folder))
        )
    if given.dry_run:
        return
    run_jobs(plan, first, 1, devices)  # it makes the corpus and its features, and gives an estimate
    if first:
        print(estimate(jobs, at_once, seconds_of))
    run_jobs(plan, jobs, at_once, devices)
    folder = Path(plan.output)
    for line in write_study(read_study(plan, settings, jobs, complete_result), folder):
        print(f"* {line}")
    print(f"\npage      {folder / 'study.html'}\nnumbers   {folder / 'study.json'}")
