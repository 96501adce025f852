"""Read weights by name from files of others, and compare them with those of a network."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fusion.data.untrusted.limited import follow_elsewhere
from fusion.data.untrusted.reading import open_file
from fusion.data.untrusted.torch_file import Stored, TorchFile
from fusion.data.untrusted.unpickler import Foreign, Refused, printable

COUNTER = "num_batches_tracked"  # of BatchNorm; missing in files older than PyTorch 0.4.1
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state", "model")

Weight = TypeVar("Weight")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read weights by name from a file of safetensors or PyTorch; no code in it is ever run.

    Other objects beside the weights, such as a ``Namespace`` of options, are read past.

    Raises:
        ValueError: there is no such file, or it holds something else; one line.
    """
    path = Path(path)
    try:
        with open_file(path) as file:
            size = file.seek(0, io.SEEK_END)
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        follow_elsewhere(path, size, "torch")
        with warnings.catch_warnings(action="ignore"):  # of damaged bytes, for a programmer
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Refused as error:
        raise ValueError(f"{path} is refused, {error}; download it again") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error})") from None
    except Exception as error:  # both libraries raise many kinds, with pages of advice
        if called := re.search(r"GLOBAL (\S+)", str(error)):
            with contextlib.suppress(ValueError):
                return _read_past_objects(path)
            reason = f"it asks for {called[1]}, which is refused as it could run code"
        else:
            reason = f"damaged, or of another kind: {type(error).__name__}"
        raise ValueError(f"{path} is no file of weights ({reason})") from None
    try:
        return weights_by_name(content, Tensor)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the shape of each weight of a safetensors file, and none of the weights.

    Nothing is returned for a file that cannot be read: whoever reads it says why.
    """
    try:
        with open_file(path) as file, safetensors.safe_open(path, "pt") as opened:
            del file  # it is an ordinary file
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError):
        return {}


def reason_of(error: Exception) -> str:
    """Say why a file of PyTorch cannot be read, without its advice to run the file's code."""
    text = str(error).strip()
    if "weights_only" in text or "Weights only" in text:
        called = re.search(r"GLOBAL (\S+)", text)
        asks = f"it asks for {printable(called[1])}, which" if called else "it has something that"
        return f"{asks} is refused as it could run code"
    return (text or type(error).__name__).splitlines()[0][:200]


def _read_past_objects(path: Path) -> dict[str, Tensor]:
    """Read the weights of a file with objects beside them, whose code is not run."""
    file = TorchFile(path)
    return {n: file.read(w) for n, w in weights_by_name(file.content, Stored).items()}


def weights_by_name(content: Any, kind: type[Weight]) -> dict[str, Weight]:
    """Take the weights, of type ``kind``, out of what a training saved.

    They may lie inside another dict, such as ``state_dict``, and all names may begin with
    ``module.``, which DataParallel adds. ValueError: something else was saved.
    """
    for name in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not content:
        what = "an empty dict" if content == {} else f"an object of {_type_of(content)}"
        raise ValueError(f"it holds {what}, not weights by name; save the model's state_dict()")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, kind):
            raise ValueError(
                f"{printable(name)} is no weight but of {_type_of(value)}; only tensors by name are"
                " read"
            )
    parallel = all(name.startswith("module.") for name in content)
    return {name.removeprefix("module.") if parallel else name: v for name, v in content.items()}


def find_difference(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str | None:
    """Say how the first weight differs from the model's ``own`` in shape or kind of number.

    None: all fit the model.
    """
    pairs = {n: (_describe(weights.get(n)), _describe(own.get(n))) for n in {**own, **weights}}
    wrong = sorted(name for name, (theirs, ours) in pairs.items() if theirs != ours)
    if not wrong:
        return None
    theirs, ours = pairs[wrong[0]]
    more = f" ({len(wrong) - 1} more differ)" if len(wrong) > 1 else ""
    return f"{wrong[0]} is {theirs} there and {ours} in the model{more}"


def _describe(weight: Tensor | None) -> str:
    if weight is None:
        return "absent"
    shape = "x".join(map(str, weight.shape)) or "a scalar"
    return shape if weight.is_floating_point() else f"{shape} ({weight.dtype})"


def _type_of(value: Any) -> str:
    return printable(value.name) if isinstance(value, Foreign) else type(value).__name__
