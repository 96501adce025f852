"""Write a model into a folder: its checkpoint, what is known of it, and a model card."""

from __future__ import annotations

import contextlib
import importlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from fusion.checkpoint import CONFIG, RECIPE, WEIGHTS, save_checkpoint, seal_checkpoint
from fusion.files import replace_folder
from fusion.inference.card import CARD, COST, RESULTS, write_card
from fusion.manifest import MANIFEST
from fusion.models.text.encoders import VECTORS, VOCABULARY

# Files of a saved model. Of an earlier one they are removed, the weights first.
FILES = (WEIGHTS, MANIFEST, CONFIG, RECIPE, RESULTS, COST, CARD, VECTORS, VOCABULARY)


def save_model(
    folder: Path,
    name: str,
    network: nn.Module,
    text_encoder: Any,
    config: Mapping[str, Any],
    recipe: Mapping[str, Any] | None,
    facts: Mapping[str, Any],
    modalities: Sequence[str],
    combinations: Sequence[str],
) -> None:
    """Write what :func:`fusion.load` reads, and a card; see :func:`.card.write_card`."""
    with _replace_model(folder) as new:
        save_checkpoint(new, network, config, text_encoder, recipe)
        seal_checkpoint(new, network)  # before the card, which people edit
        for file, content in facts.items():
            (new / file).write_text(json.dumps(content, indent=1), encoding="utf-8")
        write_card(new, name, config, recipe, facts, modalities, combinations)


@contextlib.contextmanager
def _replace_model(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to write a model into, which takes the place of that in ``folder``.

    A folder that does not exist appears whole. Of one that does, other files stay, such as the
    checkpoints of a run. There the weights are the first to go and the last to come, so that a
    process that dies leaves no mixture of two models.
    """
    if not folder.exists():
        with replace_folder(folder) as new:
            yield new
        return
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as temporary:
        yield Path(temporary)
        for file in FILES:
            (folder / file).unlink(missing_ok=True)
        for made in sorted(Path(temporary).iterdir(), key=lambda file: file.name == WEIGHTS):
            if made.is_dir():  # a tokenizer
                shutil.rmtree(folder / made.name, ignore_errors=True)
            made.replace(folder / made.name)


def publish(
    save: Callable[[Path, str], None],
    repo_id: str,
    private: bool | None,
    token: str | bool | None,
    options: Mapping[str, Any],
) -> str:
    """Upload what ``save`` writes into a folder, under a name on the hub; return the commit."""
    api: Any = importlib.import_module("huggingface_hub").HfApi(token=token)  # slow to import
    name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder), name)
        about = {"delete_patterns": [*FILES], **options}
        address: str = api.upload_folder(repo_id=name, folder_path=folder, **about)
    return address
