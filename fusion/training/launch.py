"""Start and end the processes of a run, and check that the launcher did what was asked.

``accelerate launch --cpu --num_processes 2`` starts one process and says nothing
(accelerate#2741), and processes that communicate over gloo can abort after a good run.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import FrameType

import psutil
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs, parse_flag_from_env

from fusion.distributed import TIMEOUT_MINUTES, first_then_others, launched_as
from fusion.files import num_cores
from fusion.signals import STOPS, end_soon_after_parent, end_with_parent

ORPHAN_SECONDS = 600.0  # to save, after the launcher has ended
PRECISIONS = ("no", "fp16", "bf16")
AUTO = "auto"  # bf16 where the device has it, else full precision
SHARDING = ("DEEPSPEED", "FSDP", "MEGATRON_LM", "XLA")  # the exact step needs the whole model


class LaunchError(RuntimeError):
    """The processes that were started are not those that were asked for; one line."""


class Stopped(Exception):
    """A signal ended the run; ``signal`` is its number. ``saved``: a run can go on."""

    def __init__(self, number: int, saved: bool = True) -> None:
        way = "; go on with resume=true" if saved else ""
        super().__init__(f"stopped by {signal.Signals(number).name}{way}")
        self.signal = number


class StopRequest:
    """Records what asks to stop inside its ``with`` block; ``signal`` is the last one, or 0.

    That is SIGTERM, SIGINT and SIGHUP, but no SIGHUP under ``nohup``.
    """

    def __init__(self) -> None:
        self.signal = 0

    def __enter__(self) -> StopRequest:
        self._handlers = {
            number: signal.signal(number, self._note)
            for number in STOPS
            if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN
        }
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number


@contextlib.contextmanager
def stops_raise() -> Iterator[None]:
    """Raise :class:`Stopped` at SIGTERM and SIGHUP within the block, as Python does at SIGINT."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number, saved=False)

    before = {}
    if threading.current_thread() is threading.main_thread():  # no other may set handlers
        for number in STOPS:
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_lost_process(error: BaseException) -> bool:
    """Return whether an error means that another process of this run has ended."""
    lost = isinstance(error, dist.DistError) or "gloo/transport" in str(error)
    return lost and isinstance(error, RuntimeError)


def launch_name() -> str:
    """Name the program that launched this process, which is the same for its restarts."""
    try:
        parent = psutil.Process().parent()
        return f"{parent.pid} {parent.create_time()}" if parent else ""
    except psutil.Error:
        return ""


def is_restart_of(file: Path) -> bool:
    """Return whether torchrun restarted this process (``--max_restarts``) after an earlier one.

    That is so if the earlier one has written its :func:`launch_name` into a file.
    """
    if not int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0):
        return False
    try:
        return file.read_text() == launch_name() != ""
    except OSError:
        return False


def launched() -> psutil.Process | None:
    """Return the launcher of this process, torchrun or ``accelerate launch``; None: there is none.

    A launcher sets variables for the processes that it starts, and has none itself.
    """
    mine = {"TORCHELASTIC_RUN_ID", "ACCELERATE_MIXED_PRECISION"} & os.environ.keys()
    try:
        parent = psutil.Process().parent()
        return parent if parent and mine - parent.environ().keys() else None
    except psutil.Error:
        return None


def make_accelerator(
    mixed_precision: str | bool | None,
    log_folder: str | Path | None,
    num_processes: int | None = None,
    timeout_minutes: float = TIMEOUT_MINUTES,
) -> Accelerator:
    """Join the processes of this run.

    ``mixed_precision`` is ``no`` (in YAML False), ``fp16``, ``bf16``, ``auto`` (bf16 on a GPU that
    computes in it, else ``no``, whatever was launched) or None (as launched).
    TensorBoard's files go to ``log_folder`` (None: nothing is tracked). ``num_processes`` must run
    (None: any number). A collective that takes longer than ``timeout_minutes`` ends the run; for
    work that takes longer see :func:`main_first`.

    Raises:
        ValueError: the precision is unknown.
        LaunchError: another number of processes runs, or the launcher shards or compiles the model.
    """
    if launched():
        end_with_parent(signal.SIGTERM)  # else `accelerate launch`, told to stop, leaves an orphan
        end_soon_after_parent(ORPHAN_SECONDS)
    has_cuda = torch.cuda.is_available() and not parse_flag_from_env("ACCELERATE_USE_CPU")
    if has_cuda:
        _let_segments_grow()
    device = "cuda" if has_cuda else "mps" if torch.backends.mps.is_available() else "cpu"
    timeout = timedelta(minutes=timeout_minutes)
    _meet_after_restart("nccl" if has_cuda else "gloo", timeout)
    accelerator = Accelerator(
        cpu=device == "cpu",
        mixed_precision=_precision(mixed_precision, device),
        log_with="tensorboard" if log_folder else None,
        project_dir=str(log_folder) if log_folder else None,
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timeout)],
    )
    _check_processes(accelerator, num_processes)
    _check_launch(accelerator)
    _use_all_cores()  # also with a GPU: what is prepared and ranked on the CPU should not wait
    return accelerator


def main_first(accelerator: Accelerator, what: str) -> contextlib.AbstractContextManager[None]:
    """Run a block on the main process of each machine, then on the others, which find its results.

    They wait for as long as it takes, and say for ``what``.
    """
    first = accelerator.process_index - accelerator.local_process_index
    return first_then_others(what, first)


def end_processes(accelerator: Accelerator) -> None:
    """End the processes of a run in the order that keeps gloo from aborting at exit.

    The caller must have deleted its model, optimizer and loader.
    """
    accelerator.free_memory()
    gc.collect()
    accelerator.end_training()
    if dist.is_initialized():
        dist.destroy_process_group()


def _meet_after_restart(backend: str, timeout: timedelta) -> None:
    """Let processes that torchrun has restarted meet where the ones before have left no addresses.

    With its static rendezvous torch 2.14 keeps those, and the new processes wait for dead ones.
    """
    restart = int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0)
    rank, count = launched_as()
    own = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not restart or not own or count == 1 or dist.is_initialized():
        return
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, count, is_master=False, timeout=timeout)
    place = dist.PrefixStore(f"restart {restart}", store)
    dist.init_process_group(backend, store=place, rank=rank, world_size=count, timeout=timeout)


def _precision(wanted: str | bool | None, device: str) -> str:
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION") or "no"
    precision = "no" if wanted is False else wanted or launched
    if precision == AUTO:
        has = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16" if has else "no"
        if launched not in ("no", precision):
            warn(
                f"mixed_precision={launched} of the launcher is ignored: trainer.mixed_precision="
                f"auto means {precision} here; set trainer.mixed_precision={launched}, or null for"
                " what the launcher says"
            )
    if precision not in PRECISIONS:
        raise ValueError(
            f"trainer.mixed_precision must be one of {', '.join((*PRECISIONS, AUTO))}, or null;"
            f" got {precision!r}"
        )
    assert isinstance(precision, str)
    nearest, why = _nearest_precision(precision, device)
    if why:
        warn(why)
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
        warn(
            "accelerate launch starts one process on a CPU, whatever --num_processes says; for"
            f" more: torchrun --nproc_per_node N {command}"
        )


def _check_launch(accelerator: Accelerator) -> None:
    """Refuse what does not fit the exact step; warn that gradient accumulation is ignored."""
    if accelerator.distributed_type.value in SHARDING:
        raise LaunchError(
            f"the launcher chose {accelerator.distributed_type.value}, but here every process has"
            " the whole model; run accelerate config again without it"
        )
    backend = os.environ.get("ACCELERATE_DYNAMO_BACKEND", "no").lower()
    if backend != "no":
        raise LaunchError(
            f"the launcher chose dynamo_backend={backend}, which compiles the model again for each"
            " new number of clips; launch without it (--dynamo_backend no) and set"
            " trainer.compile=true, which compiles each part once"
        )
    steps = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if steps not in ("1", "auto") and accelerator.is_main_process:
        warn(
            f"gradient_accumulation_steps={steps} of the launcher is ignored: the gradients of"
            f" {steps} small batches do not add up to that of one large batch, because the clips"
            " of a contrastive loss would have only their own small batch as negatives. Set"
            " trainer.batch_size to the whole batch; it is cut into chunks that fit into memory"
            " (trainer.chunk_size), with the same result"
        )


def _let_segments_grow() -> None:
    """Let blocks of memory grow: chunks differ in size, and would leave holes that none fits into.

    Only Linux has it, it must be before the first allocation, and what the user has set counts.
    """
    names = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
    if sys.platform == "linux" and not any(os.environ.get(name) for name in names):
        os.environ.update(dict.fromkeys(names, "expandable_segments:True"))  # of newer, older torch


def _use_all_cores() -> None:
    """Divide the cores among the processes, unless the user has set ``OMP_NUM_THREADS``.

    torchrun sets it to 1 and Accelerate to a half of the cores. What the user set is in the
    environment that the launcher itself was started with.
    """
    try:
        launcher = launched()
        chosen = launcher is not None and "OMP_NUM_THREADS" in launcher.environ()
    except psutil.Error:
        return
    if launcher and not chosen:
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        torch.set_num_threads(max(1, num_cores() // processes))


def warn(message: str) -> None:
    """Print a line for the user, in the first of several processes only."""
    if int(os.environ.get("RANK") or 0) == 0:
        print(message, file=sys.stderr, flush=True)
