"""Start and end the processes of a run, and check that the launcher did what was asked.

``accelerate launch --cpu --num_processes 2`` starts one process and says nothing
(accelerate#2741), and processes that communicate over gloo can abort after a good run.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from types import FrameType

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs, parse_flag_from_env

from fusion.files import num_cores

PRECISIONS = ("no", "fp16", "bf16")
SHARDING = ("DEEPSPEED", "FSDP", "MEGATRON_LM", "XLA")  # the exact step needs the whole model


class LaunchError(RuntimeError):
    """The processes that were started are not those that were asked for; one line."""


class Stopped(Exception):
    """A signal ended the run; its state is saved. ``signal`` is the number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; go on with resume=true")
        self.signal = number


class StopRequest:
    """Records SIGTERM and SIGINT inside its ``with`` block; ``signal`` is the last one, or 0."""

    def __init__(self) -> None:
        self.signal = 0

    def __enter__(self) -> StopRequest:
        numbers = (signal.SIGTERM, signal.SIGINT)
        self._handlers = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number


def make_accelerator(
    mixed_precision: str | bool | None,
    log_folder: str | Path | None,
    num_processes: int | None = None,
) -> Accelerator:
    """Join the processes of this run.

    ``mixed_precision`` is ``no`` (in YAML False), ``fp16``, ``bf16`` or None (as launched).
    TensorBoard's files go to ``log_folder`` (None: nothing is tracked). ``num_processes`` must run
    (None: any number).

    Raises:
        ValueError: the precision is unknown.
        LaunchError: another number of processes runs, or the launcher shards the model.
    """
    has_cuda = torch.cuda.is_available() and not parse_flag_from_env("ACCELERATE_USE_CPU")
    device = "cuda" if has_cuda else "mps" if torch.backends.mps.is_available() else "cpu"
    accelerator = Accelerator(
        cpu=device == "cpu",
        mixed_precision=_precision(mixed_precision, device),
        log_with="tensorboard" if log_folder else None,
        project_dir=str(log_folder) if log_folder else None,
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[
            # The others wait while one process extracts features, which may take hours.
            InitProcessGroupKwargs(timeout=timedelta(hours=12))
        ],
    )
    _check_processes(accelerator, num_processes)
    _check_launch(accelerator)
    if device == "cpu":
        _use_all_cores()
    return accelerator


def end_processes(accelerator: Accelerator) -> None:
    """End the processes of a run in the order that keeps gloo from aborting at exit.

    The caller must have deleted its model, optimizer and loader.
    """
    accelerator.free_memory()
    gc.collect()
    accelerator.end_training()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _precision(wanted: str | bool | None, device: str) -> str:
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION")
    precision = "no" if wanted is False else wanted or launched or "no"
    if precision not in PRECISIONS:
        raise ValueError(
            f"trainer.mixed_precision must be one of {', '.join(PRECISIONS)}; got {precision!r}"
        )
    assert isinstance(precision, str)
    nearest, why = _nearest_precision(precision, device)
    if why and int(os.environ.get("RANK", 0)) == 0:
        _warn(why)
    return nearest


def _nearest_precision(precision: str, device: str) -> tuple[str, str]:
    """Return the nearest precision that a type of device has, and a line if it is another one.

    fp16 becomes full precision on a CPU. bf16 would be no safe choice: on a processor with AMX a
    transformer layer of width 1024 was twice as fast in it, but one of width 64 took three times
    as long, and without AMX and AVX-512 BF16 both are slower.
    """
    if precision == "fp16" and device != "cuda":
        return "no", (
            "fp16 needs a CUDA device and there is none: going on in full precision"
            " (trainer.mixed_precision=bf16 works here; on a CPU it is faster only for widths of"
            " about 512 and more, on a processor with AMX or AVX-512 BF16)"
        )
    if precision != "bf16" or device == "cpu":
        return precision, ""
    if device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return "fp16", "this GPU does not compute in bf16: going on in fp16"
    if device == "mps" and not torch.backends.mps.is_macos_or_newer(14, 0):
        return "no", "bf16 needs macOS 14 or newer: going on in full precision"
    return precision, ""


def _check_processes(accelerator: Accelerator, wanted: int | None) -> None:
    started = accelerator.num_processes
    wanted = wanted or int(os.environ.get("WORLD_SIZE", started))
    command = " ".join(sys.argv)
    if started != wanted:
        raise LaunchError(
            f"{wanted} processes were asked for but {started} started; start them with: torchrun"
            f" --nproc_per_node {wanted} {command}"
        )
    if parse_flag_from_env("ACCELERATE_USE_CPU") and "WORLD_SIZE" not in os.environ:
        _warn(
            "accelerate launch starts one process on a CPU, whatever --num_processes says; for"
            f" more: torchrun --nproc_per_node N {command}"
        )


def _check_launch(accelerator: Accelerator) -> None:
    """Refuse to shard the model; warn that the launcher's gradient accumulation is ignored."""
    if accelerator.distributed_type.value in SHARDING:
        raise LaunchError(
            f"the launcher chose {accelerator.distributed_type.value}, but here every process has"
            " the whole model; run accelerate config again without it"
        )
    steps = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if steps not in ("1", "auto") and accelerator.is_main_process:
        _warn(
            f"gradient_accumulation_steps={steps} of the launcher is ignored: the gradients of"
            f" {steps} small batches do not add up to that of one large batch, because the clips"
            " of a contrastive loss would have only their own small batch as negatives. Set"
            " trainer.batch_size to the whole batch; it is cut into chunks that fit into memory"
            " (trainer.chunk_size), with the same result"
        )


def _use_all_cores() -> None:
    """Divide the cores among the processes, unless the user has set ``OMP_NUM_THREADS``.

    torchrun sets it to 1 and Accelerate to a half of the cores. What the user set is in the
    environment that the launcher itself was started with.
    """
    launched = {"TORCHELASTIC_RUN_ID", "ACCELERATE_MIXED_PRECISION"} & os.environ.keys()
    try:
        parent = psutil.Process().parent()
        chosen = parent is not None and "OMP_NUM_THREADS" in parent.environ()
    except psutil.Error:
        return
    if launched and not chosen:
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        torch.set_num_threads(max(1, num_cores() // processes))


def _warn(message: str) -> None:
    print(message, file=sys.stderr)
