"""Starting and ending the processes of a run, and noticing when the launch went wrong.

``accelerate launch --cpu --num_processes 2`` starts one process without a word (accelerate#2741),
and processes that talk over gloo can abort after a good run. Both are dealt with here.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import psutil
import torch
import yaml
from accelerate import Accelerator
from accelerate.commands.config.config_args import default_yaml_config_file
from accelerate.utils import (
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    parse_flag_from_env,
)

PRECISIONS = ("no", "fp16", "bf16")
CUT_MODELS = ("DEEPSPEED", "FSDP", "MEGATRON_LM", "XLA")  # ways to spread a run, not known here


class LaunchError(RuntimeError):
    """The processes that were started are not those that were asked for; one line."""


def make_accelerator(
    mixed_precision: str | bool | None, log_folder: str | Path | None
) -> Accelerator:
    """Join the processes of this run.

    Args:
        mixed_precision: ``no`` (which YAML reads as False), ``fp16`` or ``bf16``; what the
            launcher says if None.
        log_folder: where TensorBoard's files go; nothing is tracked if None.

    Raises:
        ValueError: the precision is unknown.
        LaunchError: fewer processes run than were asked for.
    """
    has_cuda = torch.cuda.is_available() and not parse_flag_from_env("ACCELERATE_USE_CPU")
    on_cpu = not has_cuda and not torch.backends.mps.is_available()
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision=_precision(mixed_precision, has_cuda),
        log_with="tensorboard" if log_folder else None,
        project_dir=str(log_folder) if log_folder else None,
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[
            # The others wait while one process extracts features, which may take hours.
            InitProcessGroupKwargs(timeout=timedelta(hours=12)),
        ],
    )
    _check_processes(accelerator.num_processes)
    _check_launch(accelerator)
    if on_cpu:
        _use_all_cores()
    return accelerator


def end_processes(accelerator: Accelerator) -> None:
    """Take a run's processes apart in the order that keeps gloo from aborting at exit.

    The caller must hold no model, optimizer or loader any more: they go first.
    """
    accelerator.free_memory()
    gc.collect()
    accelerator.end_training()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def any_rank(flag: bool, device: torch.device) -> bool:
    """Say whether the flag is set on any rank, the same answer on all."""
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return flag
    shared = torch.tensor(float(flag), device=device)
    torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
    return bool(shared.item())


def _precision(wanted: str | bool | None, has_cuda: bool) -> str:
    precision = (
        "no" if wanted is False else wanted or os.environ.get("ACCELERATE_MIXED_PRECISION") or "no"
    )
    if precision not in PRECISIONS:
        raise ValueError(
            f"trainer.mixed_precision must be one of {', '.join(PRECISIONS)}; got {precision!r}"
        )
    assert isinstance(precision, str)
    if precision == "fp16" and not has_cuda:
        if int(os.environ.get("RANK", 0)) == 0:
            print(
                "fp16 needs a CUDA device and there is none: going on in full precision"
                " (trainer.mixed_precision=bf16 works here)",
                file=sys.stderr,
            )
        return "no"
    return precision


def _check_launch(accelerator: Accelerator) -> None:
    """Refuse, or leave out with a warning, what a launcher was told and a run does not do.

    Raises:
        LaunchError: a way of spreading the model that the exact step does not know.
    """
    if accelerator.distributed_type.value in CUT_MODELS:
        raise LaunchError(
            f"the launcher chose {accelerator.distributed_type.value}, but here every process has"
            " the whole model; run accelerate config again without it"
        )
    steps = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS") or _launch_options(
        _words_of_parent()
    ).get("gradient_accumulation_steps", "1")
    if steps != "1" and accelerator.is_main_process:
        print(
            f"gradient_accumulation_steps={steps} of the launcher is left out: adding up the"
            f" gradients of {steps} small batches is not a batch {steps} times as large, as the"
            " clips of a contrastive loss would have only their own small batch as negatives. Ask"
            " for the whole batch by trainer.batch_size; it is cut into chunks that fit into"
            " memory (trainer.chunk_size), with the same result",
            file=sys.stderr,
        )


def _use_all_cores() -> None:
    """Share the cores out among the processes, unless the user has set ``OMP_NUM_THREADS``.

    Both launchers set it to 1, which halves the speed on two cores. What the user has set is in the
    environment that the launcher itself was started with.
    """
    try:
        parent = psutil.Process().parent()
        launched = parent is not None and _is_launcher(parent.cmdline())
        chosen = parent is not None and "OMP_NUM_THREADS" in parent.environ()
    except psutil.Error:
        return
    if launched and not chosen:
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        allowed = getattr(os, "sched_getaffinity", None)  # not on every platform
        cores = len(allowed(0)) if allowed else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // processes))


def _is_launcher(words: Sequence[str]) -> bool:
    torch_launches = any(
        Path(word).name == "torchrun" or word == "torch.distributed.run" for word in words
    )
    return torch_launches or any(_launches(word, words[:i]) for i, word in enumerate(words))


def _check_processes(started: int) -> None:
    wanted = int(os.environ.get("WORLD_SIZE", 0)) or _asked_of_accelerate()
    if started != wanted:
        command = " ".join(sys.argv)
        raise LaunchError(
            f"{wanted} processes were asked for but {started} started: accelerate launch does so"
            f" without a GPU. Start them with: torchrun --nproc_per_node {wanted} {command}"
        )


def _asked_of_accelerate() -> int:
    """Read from the command line of the parent process how many processes it was to start."""
    return _processes_of_launch(_words_of_parent())


def _words_of_parent() -> list[str]:
    try:
        parent = psutil.Process().parent()
        return parent.cmdline() if parent else []
    except psutil.Error:
        return []


def _processes_of_launch(words: Sequence[str]) -> int:
    """Read the number of processes from the words of a command; 1 if it launches nothing."""
    options = _launch_options(words)
    if "num_processes" in options:
        return int(options["num_processes"])
    if not any(_launches(word, words[:i]) for i, word in enumerate(words)):
        return 1
    file = Path(options.get("config_file", default_yaml_config_file))
    config = yaml.safe_load(file.read_text()) if file.is_file() else None
    return int((config or {}).get("num_processes", 1)) if (config or {}).get("use_cpu") else 1


def _launch_options(words: Sequence[str]) -> dict[str, str]:
    """Read what `accelerate launch` was told before the name of the script."""
    start = next((i for i, word in enumerate(words) if _launches(word, words[:i])), None)
    if start is None:
        return {}
    arguments = words[start + 1 :]
    options: dict[str, str] = {}
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if word.endswith(".py"):
            break  # what follows belongs to the script
        key, _, value = word.lstrip("-").replace("-", "_").partition("=")
        options[key] = value or following
    return options


def _launches(word: str, before: Sequence[str]) -> bool:
    if Path(word).name == "accelerate-launch" or word == "accelerate.commands.launch":
        return True
    if Path(word).parts[-2:] == ("commands", "launch.py"):
        return True
    return word == "launch" and any("accelerate" in Path(other).name for other in before)
