"""The model card: what a model embeds, how it was made and measured, in Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusion.config import to_yaml
from fusion.data.untrusted.reading import read_json
from fusion.extract.transformers_models import PREFIX
from fusion.report.tables import format_table

CARD, RESULTS, COST = "README.md", "results.json", "cost.json"


def write_card(
    folder: Path,
    name: str,
    config: Mapping[str, Any],
    recipe: Mapping[str, Any] | None,
    facts: Mapping[str, Any],
    modalities: Sequence[str],
    combinations: Sequence[str],
) -> None:
    """Write ``README.md`` into the folder of a model; it names no absolute path of this machine.

    Args:
        folder: where to write.
        name: of the model, as :func:`fusion.load` takes it.
        config: that it was trained with.
        recipe: of its features; None: not known.
        facts: what :func:`read_facts` found.
        modalities: what the model embeds.
        combinations: those that it was trained with.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined  # slow to import

    environment = Environment(
        loader=PackageLoader("fusion.inference"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    result = facts.get(RESULTS)
    shown = {k: v for k, v in config.items() if k not in ("output", "resume", "trust")}
    text = environment.get_template("card.md").render(
        name=name,
        model=config["model"]["name"],
        modalities=modalities,
        combinations=combinations,
        table=format_table(result) if result else "",
        result=result,
        cost=facts.get(COST),
        recipe=json.dumps(without_paths(recipe), indent=1) if recipe else "",
        config=to_yaml(without_paths(shown)),
    )
    (folder / CARD).write_text(text, encoding="utf-8")


def without_paths(value: Any) -> Any:
    """Copy plain values; of absolute paths of this machine the last name remains."""
    if isinstance(value, Mapping):
        return {key: without_paths(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(one) for one in value]
    if not isinstance(value, str):
        return value
    kind = PREFIX if value.startswith(PREFIX) else ""  # a model of transformers in a folder
    path = Path(value.removeprefix(kind))
    return kind + path.name if path.is_absolute() or path.parts[:1] == ("~",) else value


def read_facts(checkpoint: Path) -> dict[str, Any]:
    """Read what is known of a model beside its weights: its result and its cost, by file.

    They lie in the folder of a checkpoint that was saved by itself. Those of a run are of its best
    checkpoint.
    """
    of_run = [checkpoint.parent] if checkpoint.name in ("best", "best.old") else []
    facts = {}
    for file in (RESULTS, COST):
        for folder in (checkpoint, *of_run):
            if (folder / file).exists():
                facts[file] = read_json(folder / file)
                break
    return facts
