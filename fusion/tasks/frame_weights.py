"""How an encoder of frames begins: with the weights of a classifier, or of ImageNet."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from fusion.checkpoint import WEIGHTS, CheckpointError, find_checkpoint, read_tensors
from fusion.config import ConfigError
from fusion.data.untrusted.weight_files import find_difference
from fusion.models import TSM
from fusion.models.video.frame_encoder import IMAGENET, TSMEncoder

PREFIXES = ("", "tsm.", "model.")  # before the names of a TSM in a checkpoint


def start_frames(model: nn.Module) -> None:
    """Give the TSM encoders of a model the weights that their config names.

    On the meta device nothing is done.

    Raises:
        ConfigError: there is no such checkpoint, or it is of another network.
    """
    for name, part in model.named_modules():
        if isinstance(part, TSMEncoder) and part.weights and not next(part.parameters()).is_meta:
            key = f"model.modalities.{name.rpartition('.')[2]}.encoder.weights"
            try:
                weights = _read(part)
            except ValueError as error:
                raise ConfigError(f"{key}={part.weights}: {error}") from None
            if different := find_difference(part.tsm.state_dict(), weights):
                raise ConfigError(
                    f"{key}: the TSM of {part.weights} is another network: {different}; make the"
                    " encoder as in its config.yaml"
                )
            part.tsm.load_state_dict(weights)


def _read(part: TSMEncoder) -> dict[str, Tensor]:
    """Read weights under the names of a TSM without its classifier."""
    assert part.weights is not None
    if part.weights == IMAGENET:
        network = TSM(part.network, pretrained=True, **part.options)
        return network.state_dict()
    weights = read_tensors(find_checkpoint(Path(part.weights).expanduser()) / WEIGHTS)
    for prefix in PREFIXES:
        if any(name.startswith(f"{prefix}net.") for name in weights):
            own = {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
            return {n: w for n, w in own.items() if not n.startswith("classifier.")}
    raise CheckpointError("it has no weights of a TSM; name a run of classification")
