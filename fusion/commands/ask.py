"""Ask a trained model a question about a picture."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

from fusion.config import ConfigError
from fusion.files import write_atomically
from fusion.report.answers import shade
from fusion.report.layout import align
from fusion.tasks.question_answering.ask import Asker, Reply


def ask(given: argparse.Namespace) -> None:
    """Answer, as the command line says."""
    if given.attention and Path(given.attention).suffix.lower() != ".png":
        raise ConfigError(f"--attention {given.attention}: the picture is a PNG; name a .png file")
    reply = Asker(given.run, given.trust)(given.image, given.question, given.top)
    if given.attention:
        write_attention(Path(given.attention), reply)
    if given.json:
        found = [{"answer": a, "probability": p} for a, p in reply.best]
        print(json.dumps(found, ensure_ascii=False))
    else:
        lines = [[answer, f"{100 * share:.1f} %"] for answer, share in reply.best]
        print("\n".join(align(lines, left=1)))


def write_attention(path: Path, reply: Reply) -> None:
    """Write the image, dark where the question did not look, as PNG.

    Raises:
        ConfigError: the model does not look at images with its questions.
    """
    from PIL import Image

    if reply.look is None:
        raise ConfigError(
            f"--attention {path}: this model has no transformer that joins question and image"
        )
    file = io.BytesIO()
    Image.fromarray(shade(reply.image, reply.look)).save(file, format="PNG")
    write_atomically(path, file.getvalue())
