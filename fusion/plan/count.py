"""Count what a model needs for a clip, on the meta device: nothing is computed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fusion.models.batchnorm import GroupedBatchNorm, batch_granularity
from fusion.plan.clip import Clip
from fusion.plan.work import Rates, count_calls

FEW = 4  # clips that are counted together; kept bytes are the slope up to twice as many
LOSS_PASSES = 4  # a tile of similarities is computed, again in the backward pass, and used twice


class Counts(NamedTuple):
    """What a model needs; operations are 2 for each multiplication with its addition."""

    parameters: int
    trained: int
    forward_flop: float  # of a clip
    step_flop: float  # of a clip, forward and backward pass
    kept_bytes: float  # of a clip for its backward pass, in float32
    output_values: int  # of a clip, those that ranks exchange
    loss_flop: float  # of a clip, for each clip of the batch that it is compared with
    granularity: int | None  # clips that a chunk is a multiple of; None: it cannot be cut
    moved_bytes: float = 0.0  # of a clip, that the calls of a step read and write, in float32
    moved_once: float = 0.0  # of a chunk, whatever its size, such as weights
    calls: float = 0.0  # of a chunk

    def seconds(self, clips: int, rates: Rates) -> float:
        """Return what a step of so many clips takes, by operations, bytes and calls."""
        moved = clips * self.moved_bytes + self.moved_once
        return (
            clips * self.step_flop / rates.products + moved / rates.moved + self.calls * rates.call
        )


def count(model: nn.Module, loss: Any, clip: Clip) -> Counts:
    """Count a model and its loss, both built on the meta device.

    Every clip is as long as ``clip``, and has every modality.
    """
    granularity = batch_granularity(model.train())
    for norm in model.modules():
        if isinstance(norm, GroupedBatchNorm):
            norm.group = None  # the few clips that are counted are one group
    combinations = getattr(loss, "combinations", None)
    given: dict[str, Any] = {} if combinations is None else {"combinations": combinations}

    def run(clips: int) -> dict[str, Tensor]:
        # Seeds on the CPU, which reads them
        seeds = {"seeds": torch.arange(clips)} if combinations is None else {}
        outputs: dict[str, Tensor] = model(clip.batch(clips), **given, **seeds)
        return {name: rows for name, rows in outputs.items() if rows.is_floating_point()}

    def step(clips: int = FEW) -> None:
        torch.autograd.backward([rows.float().sum() for rows in run(clips).values()])

    with torch.no_grad():
        forward = count_flop(lambda: run(FEW))
        outputs = {name: rows[0].numel() for name, rows in run(1).items()}
    kept = [saved_bytes(lambda n=n: run(n), model.parameters()) for n in (FEW, 2 * FEW)]  # type: ignore[misc]
    (calls, few), (_, more) = (count_calls(lambda n=n: step(n)) for n in (FEW, 2 * FEW))  # type: ignore[misc]
    pairs = _pairs(loss)
    return Counts(
        parameters=sum(p.numel() for p in model.parameters()),
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad),
        forward_flop=forward / FEW,
        step_flop=count_flop(step) / FEW,
        kept_bytes=(kept[1] - kept[0]) / FEW,
        output_values=sum(outputs.values()) if pairs else 0,
        loss_flop=sum(2.0 * LOSS_PASSES * outputs.get(left, 0) for left, _ in pairs),
        granularity=granularity,
        moved_bytes=(more - few) / FEW,
        moved_once=float(2 * few - more),
        calls=float(calls),
    )


def _pairs(loss: Any) -> Collection[tuple[str, str]]:
    """Return the pairs of outputs that a loss compares; none if it compares no clips."""
    if not loss.compares_clips:
        return ()
    pairs: Mapping[str, tuple[str, str]] = getattr(getattr(loss, "pairwise", loss), "pairs", {})
    return pairs.values()


def count_flop(function: Callable[[], object]) -> float:
    """Count the floating-point operations of matrix products and convolutions."""
    from torch.utils.flop_counter import FlopCounterMode  # imports triton, which takes a second

    with FlopCounterMode(display=False) as counter:
        function()
    return float(counter.get_total_flops())


def saved_bytes(function: Callable[[], object], parameters: Iterable[Tensor]) -> int:
    """Sum up what autograd keeps for the backward pass, each storage once, but parameters."""
    own = {p.untyped_storage()._cdata for p in parameters}
    kept: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # held, so that no other gets its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = function()
    size = sum(int(storage.nbytes()) for storage in kept.values())
    del result
    return size
