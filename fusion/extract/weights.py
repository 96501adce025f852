"""Weights of backbones: from files, from the caches and servers of timm and torch, or random."""

from __future__ import annotations

import hashlib
import importlib
import socket
import sys
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusion.data.untrusted.weight_files import COUNTER, find_difference, read_weights

RANDOM = "random"  # in place of a hash
_SEED = 0
_PATIENCE = 3.0  # seconds for a server to answer


def load_backbone_weights(
    network: nn.Module, name: str, path: str | Path, unused: Sequence[str]
) -> None:
    """Read the weights of ``network``, the network ``name``, from a file.

    ``unused`` are modules that are only in the file: the classifier. ValueError: a weight is
    missing, unknown or of another shape.
    """
    weights, own = read_weights(path), network.state_dict()
    translate = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if translate and not own.keys() <= weights.keys():
        weights = translate(weights, network)  # timm's, from the names of the original code
    weights = {k: v for k, v in weights.items() if not k.startswith(tuple(f"{u}." for u in unused))}
    weights = {k: v for k, v in own.items() if k.endswith(COUNTER)} | weights
    if different := find_difference(own, weights):
        raise ValueError(f"{path} is not of {name}: {different}")
    network.load_state_dict(weights)


def name_weights(network: nn.Module) -> str:
    """Return the beginning of a SHA-256 of the names, shapes, types and values of all weights."""
    digest = hashlib.sha256()
    for name, weight in sorted(network.state_dict().items()):
        if not name.endswith(COUNTER):
            digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}\n".encode())
            digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def random_network(build: Callable[[], nn.Module], pictures: Tensor) -> nn.Module:
    """Build a network with random weights, the same every time.

    BatchNorm takes its statistics from ``pictures``, see :func:`blots`: otherwise the features of
    deep networks are 0, or too large for float16.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = build()
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if norms:
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = None  # the plain mean over batches
        with torch.no_grad():
            network.train()(pictures)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return network.eval()


def blots(shape: Sequence[int], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Make an input of random blots, about as smooth as pictures, the same every time.

    ``shape`` is (B, 3, T, H, W) or (B, 3, H, W); values of 0 to 255 minus ``mean``, over ``std``.
    """
    coarse = [1, *(max(1, size // 32) for size in shape[3:])] if len(shape) == 5 else [4, 4]
    generator = torch.Generator().manual_seed(_SEED)
    values = 255 * torch.rand(*shape[:2], *coarse, generator=generator)
    values = F.interpolate(values, size=tuple(shape[2:]))
    colours = (1, 3, *[1] * (len(shape) - 2))
    return (values - torch.tensor(mean).view(colours)) / torch.tensor(std).view(colours)


def fetch(url: str) -> Path:
    """Find published weights in torch's cache or download them; ConnectionError if it fails."""
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlsplit(url).path).name
    if not cached.exists() and not reachable(url):
        raise ConnectionError(f"{urlsplit(url).hostname} cannot be reached")
    try:
        torch.hub.load_state_dict_from_url(
            url, map_location="cpu", check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:  # a broken connection, a wrong hash
        reason = " ".join(str(error).split())
        raise ConnectionError(f"the download of {url} failed: {reason}") from None
    return cached


def reachable(url: str) -> bool:
    """Return whether a server answers; with a proxy, assume that it does."""
    address = urlsplit(url)
    if urllib.request.getproxies().get(address.scheme):
        return True
    try:
        port = address.port or {"http": 80}.get(address.scheme, 443)
        socket.create_connection((address.hostname or "", port), _PATIENCE).close()
    except OSError:
        return False
    return True


def hub_file(repository: str) -> str | None:
    """Find the weights of a repository of the Hugging Face hub in the cache."""
    hub: Any = importlib.import_module("huggingface_hub.file_download")
    found = hub.try_to_load_from_cache(repository, "model.safetensors")
    return found if isinstance(found, str) else None
