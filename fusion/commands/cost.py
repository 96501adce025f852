"""The cost of a run, for comparisons: parameters, arithmetic, time, memory."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from fusion.data.datasets.dataset import collate
from fusion.process import memory_at_peak
from fusion.report.layout import FORMAT

FEW = 16  # clips whose arithmetic is counted


def describe_cost(
    model: nn.Module,
    clips: Any,
    training_seconds: float | None,
    peak_bytes: int,
    seen: int,
    processes: int,
) -> dict[str, Any]:
    """Describe the cost of a run on its test clips, ready for JSON.

    ``training_seconds`` is None for a run that was interrupted; ``seen`` counts a training clip
    each time that the model sees it; ``processes`` is the number of those that trained.
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


def describe_run(
    model: nn.Module, config: Mapping[str, Any], folder: Path, time: str, processes: int
) -> dict[str, str]:
    """Say what a run was, by name, for its report; ``time`` is what its parts took."""
    parameters = sum(p.numel() for p in model.parameters())
    return {
        "model": f"{config['model']['name']}, {parameters:,} parameters",
        "seed": str(config["seed"]),
        "time": time,
        "batch size": str(config["trainer"]["batch_size"]),
        "processes": str(processes),
        "versions": f"torch {torch.__version__}, Python {platform.python_version()}",
        "config": str(folder / "config.yaml"),
    }


def count_flop(model: nn.Module, clips: Any) -> float:
    """Count the floating-point operations of the forward pass for a clip, a mean over a few."""
    from torch.utils.flop_counter import FlopCounterMode  # imports triton, which takes a second

    few = [clips[i] for i in range(min(FEW, len(clips)))]
    device = next(model.parameters()).device
    batch = collate(few).to(device)
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(batch.inputs)
    return counter.get_total_flops() / len(few)


def peak_memory(accelerator: Accelerator) -> int:
    """Return the peak memory of any process so far, in bytes; call it on all processes.

    On a GPU it is that of tensors. On a CPU it is that of the whole process, with the preparation
    of the data.
    """
    if accelerator.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(accelerator.device)
    else:
        peak = memory_at_peak()
    return max(gather_object([peak]))


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
