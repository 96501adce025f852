"""What is extracted; a store holds features of one kind only."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusion.data.features.computed import SPECTROGRAM_VERSION
from fusion.data.features.format import Field
from fusion.data.media.film import VERSION
from fusion.data.media.log_mel import HOP, NUM_MELS, RATE
from fusion.data.media.streams import BEST, Tracks
from fusion.data.untrusted.reading import read_json
from fusion.extract.backbone import NONE, Backbone, Source
from fusion.extract.networks import build_backbone
from fusion.extract.transformers_models import SoundBackbone
from fusion.extract.weights import RANDOM
from fusion.files import write_once

AUDIO = "audio"  # the field of spectrograms
NETWORKS = ("2d", "3d", "sound")  # the fields of networks
AnyBackbone = Backbone | SoundBackbone
FILE = "extraction.json"
MEANINGLESS = "the weights are random: these features mean nothing, and are for trying things out"


@dataclasses.dataclass(frozen=True)
class Features:
    """What to extract."""

    features_2d: str = "resnet152.tv_in1k"  # network for single pictures, of timm; or ``none``
    features_3d: str = "resnext101"  # network for motion, one of ``BACKBONES_3D``; or ``none``
    weights_2d: str | Path | None = None  # file of weights; None: the published weights
    weights_3d: str | Path | None = None
    random_weights: bool = False  # where there is no file
    audio: bool = True  # whether to compute spectrograms
    tracks: Tracks = BEST  # which of several tracks to take
    features_sound: str = NONE  # network for sound, ``hf:`` and a model of transformers; or none
    weights_sound: str | Path | None = None

    def build(self) -> dict[str, AnyBackbone]:
        """Build the backbones by field; ValueError if a name or weights are missing."""
        backbones = {}
        for field in NETWORKS:
            file = getattr(self, f"weights_{field}")
            path = Path(file).expanduser() if file else None
            if path and not path.exists():
                raise ValueError(f"--weights-{field} {path}: there is no such file; check the path")
            source = Source(field, path, self.random_weights)
            if backbone := build_backbone(getattr(self, f"features_{field}"), source):
                backbones[field] = backbone
        if not backbones and not self.audio:
            raise ValueError("nothing to extract: no 2D, no 3D features and no sound; choose some")
        return backbones


def fields_of(backbones: Mapping[str, AnyBackbone], audio: bool) -> dict[str, Field]:
    """Describe the fields of the store."""
    fields = {f: Field(b.dim, b.sampling.per_second) for f, b in backbones.items()}
    return fields | ({AUDIO: Field(NUM_MELS, RATE / HOP)} if audio else {})


def describe(
    backbones: Mapping[str, AnyBackbone], audio: bool, tracks: Tracks = BEST
) -> dict[str, Any]:
    """Describe, ready for JSON, all settings that change the values of the features.

    ``decoding`` is the version of the film reader: it differs for few films, see
    :mod:`fusion.extract.verify`.
    """
    settings: dict[str, Any] = {"format": 1, "decoding": VERSION}
    if wishes := tracks.as_settings():
        settings["tracks"] = wishes
    for field, b in backbones.items():
        sampling = dataclasses.asdict(b.sampling)
        settings[field] = {"network": b.name, "weights": b.weights, "sampling": sampling}
    if audio:
        settings[AUDIO] = {"log_mel": SPECTROGRAM_VERSION}
    return json.loads(json.dumps(settings | _warning(backbones)))


def facts_of(backbones: Mapping[str, AnyBackbone]) -> dict[str, Any]:
    """Return the facts that the store keeps of each video about its networks and weights."""
    return {
        "reader": VERSION,
        "networks": {f: b.name for f, b in backbones.items()},
        "weights": {f: b.weights for f, b in backbones.items()},
    } | _warning(backbones)


def _warning(backbones: Mapping[str, AnyBackbone]) -> dict[str, Any]:
    is_random = any(backbone.weights == RANDOM for backbone in backbones.values())
    return {"warning": MEANINGLESS} if is_random else {}


def claim(store: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings into a new store, or check that they are those of an old one.

    Of several processes that start at once, the first one writes. ValueError: the store has other
    settings, or another program made it.
    """
    path = store / FILE
    if not path.exists():
        _check_free(store)
        write_once(path, json.dumps(settings, indent=1) + "\n")
    try:
        found = read_json(path)
        keys = [k for k in {**found, **settings} if k != "decoding"]  # each video has its own
        differ = [k for k in keys if found.get(k) != settings.get(k)]
    except (ValueError, AttributeError):
        raise ValueError(f"{path} is damaged; restore it, or choose another --out") from None
    if differ:
        key = min(differ, key=lambda k: k not in (*NETWORKS, AUDIO))
        theirs, ours = _in_words(found.get(key)), _in_words(settings.get(key))
        empty = not any((store / "shards").glob("*.json"))
        way = "delete it, as it is still empty" if empty else "give the same options as then"
        raise ValueError(
            f"{store} was made with {key}: {theirs}, and not with {ours}; {way}, or give another"
            " --out"
        )


def _check_free(store: Path) -> None:
    """Check that a place is free for a store; other processes may be claiming it right now."""
    if (store / "store.json").exists():
        raise ValueError(f"{store} is not of fusion extract: no {FILE}; choose another --out")
    if store.exists() and not store.is_dir():
        raise ValueError(f"{store} is a file; --out names the folder of the store, choose another")
    others = [p.name for p in store.glob("*") if not p.name.startswith((FILE, "."))]
    if others and not (store / FILE).exists():
        raise ValueError(
            f"{store} has other files, such as {sorted(others)[0]}; name a new or an empty folder"
            " by --out"
        )


def _in_words(setting: Any) -> str:
    if not isinstance(setting, Mapping):
        return "nothing" if setting is None else str(setting)
    values = [f"{v}" if k == "network" else f"{k} {_in_words(v)}" for k, v in setting.items()]
    return "(" + ", ".join(values) + ")"
