"""A loss whose products are float32, forwards and backwards, whatever networks use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fusion.arithmetic import full_precision, set_tf32, tf32_is_allowed
from fusion.interfaces import Loss, Named, Result


class InFullPrecision(Loss):
    """Another loss, computed without autocast and without TF32.

    The backward pass of the loss lies between two marks in the graph, which forbid TF32 and allow
    it again: the backward pass of the model is as fast as its forward pass.
    """

    def __init__(self, loss: Loss) -> None:
        self.loss, self.compares_clips = loss, loss.compares_clips
        self._allowed = tf32_is_allowed()
        self.commit = loss.commit  # type: ignore[method-assign]
        self.state_dict = loss.state_dict  # type: ignore[method-assign]
        self.load_state_dict = loss.load_state_dict  # type: ignore[method-assign]

    def __call__(self, outputs: Named, present: Named, /, *targets: Mapping[str, Any]) -> Result:
        """Compute the loss."""
        self._allowed = tf32_is_allowed()
        differ = [n for n, x in outputs.items() if x.requires_grad]
        if differ:
            marked = _Mark.apply(self._allowed, *(outputs[name] for name in differ))
            outputs = {**outputs, **dict(zip(differ, marked, strict=True))}
        device = next((x.device.type for x in outputs.values()), "cpu")
        with full_precision(device):
            value, terms = self.loss(outputs, present, *targets)
        if value.requires_grad:
            (value,) = _Mark.apply(False, value)
        return value, terms

    def undo(self) -> None:
        """Undo a call; an error may have ended its backward pass between the marks."""
        set_tf32(self._allowed)
        self.loss.undo()


class _Mark(torch.autograd.Function):
    """Does nothing forwards; its backward pass allows TF32 from there on, or forbids it."""

    @staticmethod
    def forward(ctx: Any, allowed: bool, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.allowed = allowed
        ctx.set_materialize_grads(False)  # an output that no loss reads stays without gradient
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        set_tf32(ctx.allowed)
        return None, *gradients
