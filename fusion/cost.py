"""What a run costs, for comparisons: parameters, arithmetic, time, memory."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fusion.data.collate import collate
from fusion.data.source import ClipSet

FEW = 16  # clips that arithmetic is counted on


def describe_cost(
    model: nn.Module, clips: ClipSet, training_seconds: float | None, peak_bytes: int, seen: int
) -> dict[str, Any]:
    """Put the cost of a run together, ready for JSON.

    Args:
        model: on its device.
        clips: those of the test.
        training_seconds: None where the run was interrupted, so that nobody knows.
        peak_bytes: see :func:`peak_memory`.
        seen: training clips, each as often as it was seen.
    """
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "gflop_per_clip": count_flop(model, clips) / 1e9,
        "training_seconds": training_seconds,
        "peak_memory_bytes": peak_bytes,
        "training_clips": seen,
        "device": _device_name(next(model.parameters()).device),
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


def peak_memory(device: torch.device) -> int:
    """Give the most memory so far, in bytes: of tensors on a GPU, of the process without one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
