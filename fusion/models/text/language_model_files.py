"""Where language models are: a folder, the cache of the Hugging Face hub, or the hub itself."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

PUBLISHED_CLIP = "openai/clip-vit-base-patch32"
MINI_LM = "sentence-transformers/all-MiniLM-L6-v2"  # 22 M parameters, 90 MB, D = 384

# A model runs no code of its folder, and nothing asks for it on the standard input.
NO_CODE: dict[str, Any] = {"trust_remote_code": False}

_FILES = ["*.json", "*.txt", "*.model"]  # of a model on the hub, and its weights:
_WEIGHTS = ["*.safetensors", "*.bin"]  # the second only where there are none of the first


def find_language_model(model: str | Path) -> Path:
    """Return the folder of a model: a folder itself, or one of the hub, cached or downloaded.

    Raises:
        ValueError: there is none; one line.
    """
    import huggingface_hub  # slow to import

    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder.resolve()
    problem: Exception = OSError("there is no such folder")
    name = str(model)
    if name.count("/") <= 1 and not name.startswith((".", "~", "/")):
        for is_offline in (True, False):  # the cache does not change by itself
            for weights in _WEIGHTS:
                options: dict[str, Any] = {"allow_patterns": [*_FILES, weights]}
                try:
                    found = huggingface_hub.snapshot_download(
                        name, local_files_only=is_offline, **options
                    )
                except Exception as error:  # of the hub and of the connection
                    problem = error
                    break
                if any(Path(found).glob(weights)):
                    return Path(found)
    raise ValueError(not_loaded(model, problem))


def open_pretrained(kind: Any, folder: str | Path, **options: Any) -> Any:
    """Open a part of the model in a folder by a class of transformers; ValueError: one line."""
    try:
        return kind.from_pretrained(folder, **NO_CODE, **options)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(not_loaded(folder, error)) from None


def default_text_encoder(model: str | Path = MINI_LM) -> dict[str, Any]:
    """Return the section ``text_encoder`` of a config for texts that nothing else is known of.

    It is the language model, if it is a folder, is in the cache or can be downloaded. If not, it is
    word2vec, which learns from the training captions; a warning says what that lacks.
    """
    try:
        find_language_model(model)
    except ValueError as error:
        logger.warning(
            "texts are read by word2vec, which knows the words of the training captions alone and"
            " no meaning that they do not show: %s",
            error,
        )
        return {"name": "word2vec"}
    return {"name": "hf", "model": str(model)}


def language_model_width(model: str | Path) -> int:
    """Return the width D of a language model from its config; ValueError: there is none."""
    from transformers import AutoConfig  # slow to import

    config = open_pretrained(AutoConfig, find_language_model(model))
    return int((getattr(config, "text_config", None) or config).hidden_size)


def digest_of(folder: Path) -> str:
    """Return the SHA-256 of the weights of a folder; of several files, that of theirs."""
    files = next((f for pattern in _WEIGHTS if (f := sorted(folder.glob(pattern)))), [])
    if not files:
        raise ValueError(not_loaded(folder, OSError("it has no weights")))
    digests = []
    for path in files:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def has_weights(folder: Path) -> bool:
    """Return whether a folder has the weights of a model."""
    return any(any(folder.glob(pattern)) for pattern in _WEIGHTS)


def check_digest(folder: Path, wanted: str | None) -> str:
    """Return :func:`digest_of` a folder; ValueError: another one is ``wanted``."""
    found = digest_of(folder)
    if wanted not in (None, found):
        raise ValueError(
            f"text_encoder.model: {folder} has other weights (SHA-256 {found}) than the model was"
            f" trained with, or than text_encoder.sha256 names ({wanted}); name a folder of the"
            " same weights"
        )
    return found


def not_loaded(model: object, error: Exception) -> str:
    """Say in a line that a language model cannot be loaded."""
    return (
        f"text_encoder.model: no language model can be loaded from {model} ({first_line(error)});"
        f" name a folder as transformers saves it, or a model of the Hugging Face hub such as"
        f" {MINI_LM}"
    )


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its kind."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
