"""``torch.compile`` for the parts of a model, each once, for chunks of any number of clips.

By default PyTorch compiles a function again for another number of rows, and after eight times runs
it without a word as it is. Here the number of rows has no value while a part is compiled, so no
code can depend on it.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

import torch
from torch import Tensor, nn

from fusion.models.batchnorm import GroupedBatchNorm
from fusion.models.davenet import DAVEnet
from fusion.models.transformer import GatedProjection


def compile_parts(model: nn.Module, backend: Any = "inductor") -> None:
    """Apply ``torch.compile``, in training only, to DAVEnet and the gated projections of a model.

    Each becomes one graph, equal ones together: it serves the pass without gradient too, whose
    activations are kept until the part ends.

    Args:
        model: is changed. Its ``feature_projections``, if it has some, are those whose inputs are
            features: their inputs never have a gradient, those of other projections always.
        backend: of ``torch.compile``.

    Raises:
        ValueError: the model is on a CPU and there is no C++ compiler.
    """
    import torch._dynamo  # slow to import

    compilers = (os.environ.get("CXX"), "c++", "g++", "clang++", "cl")
    on_cpu = next(model.parameters()).device.type == "cpu" and not torch.cuda.is_available()
    if on_cpu and not any(name and shutil.which(name) for name in compilers):
        raise ValueError(
            "trainer.compile=true needs a C++ compiler on the CPU; install g++ or clang++"
        )
    parts = [part for part in model.modules() if isinstance(part, DAVEnet | GatedProjection)]
    # All parts of a class share their code, which PyTorch compiles only so many times.
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.config.recompile_limit = max(limit, 2 * len(parts))
    reads_data = [*getattr(model, "feature_projections", ())]
    for part in parts:
        derived = isinstance(part, GatedProjection) and all(
            part is not other for other in reads_data
        )
        _compile_in_training(part, backend, derived)


def _compile_in_training(part: nn.Module, backend: Any, derived: bool) -> None:
    """Compile a part; ``derived``: its inputs are computed by other parts, with a gradient."""
    plain = part.forward
    # A graph break would be compiled for the numbers of its frame: an error instead.
    # PyTorch's compiler would choose the layout of a convolution by its number of rows.
    options: Any = {"layout_optimization": False} if backend == "inductor" else None
    grouped = torch.compile(
        lambda x: plain(x.flatten(0, 1)), backend=backend, fullgraph=True, options=options
    )
    norms = [norm for norm in part.modules() if isinstance(norm, GroupedBatchNorm)]
    whole = any(norm.group is None and not norm.frozen for norm in norms)
    group = next((norm.group for norm in norms if norm.group and not norm.frozen), 1)

    def forward(x: Tensor) -> Tensor:
        if not part.training or not len(x):
            return plain(x)
        for norm in norms:
            norm.check(len(x))
        groups = x[None] if whole else x.unflatten(0, (-1, group))
        if derived and not groups.requires_grad:  # in the pass without gradient
            groups = groups.detach().requires_grad_()
        torch._dynamo.decorators.mark_unbacked(groups, int(whole))
        with torch.enable_grad():  # so that one graph serves both passes of the exact step
            y: Tensor = grouped(groups)
        for norm in norms:
            norm.count_found(len(x))
        return y if torch.is_grad_enabled() else y.detach()

    part.forward = forward
