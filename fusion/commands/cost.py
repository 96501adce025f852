"""What a run costs, for comparisons: parameters, arithmetic, time, memory."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fusion.data.datasets.collate import collate
from fusion.data.datasets.source import ClipSet
from fusion.report.layout import FORMAT

FEW = 16  # clips that arithmetic is counted on


def describe_cost(
    model: nn.Module,
    clips: ClipSet,
    training_seconds: float | None,
    peak_bytes: int,
    seen: int,
    processes: int,
) -> dict[str, Any]:
    """Put the cost of a run together, ready for JSON.

    Args:
        model: on its device.
        clips: those of the test.
        training_seconds: with the validation and the checkpoints of each epoch; None where the run
            was interrupted, so that nobody knows.
        peak_bytes: see :func:`peak_memory`.
        seen: training clips, each as often as it was seen.
        processes: that trained; ``threads`` are what each of them computes with on the CPU.
    """
    return {
        "format": FORMAT,
        "parameters": sum(p.numel() for p in model.parameters()),
        "gflop_per_clip": count_flop(model, clips) / 1e9,
        "training_seconds": training_seconds,
        "peak_memory_bytes": peak_bytes,
        "training_clips": seen,
        "device": _device_name(next(model.parameters()).device),
        "processes": processes,
        "threads": torch.get_num_threads(),
    }


def count_flop(model: nn.Module, clips: ClipSet) -> float:
    """Count the arithmetic of embedding a clip in every combination; a mean over the first few."""
    few = [clips[i] for i in range(min(FEW, len(clips)))]
    device = next(model.parameters()).device
    batch = collate(few).to(device)
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(batch.inputs)
    return counter.get_total_flops() / len(few)


def peak_memory(accelerator: Accelerator) -> int:
    """Give the most memory that any process has had so far, in bytes; to be called on all.

    It is that of tensors on a GPU; without one that of the process in its whole life, so with what
    preparing the data took.
    """
    return max(gather_object([_peak_of_process(accelerator.device)]))


def _peak_of_process(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"cpu: {models[0] if models else platform.processor() or platform.machine()}"
