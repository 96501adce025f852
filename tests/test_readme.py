import itertools
import re
import shutil
from pathlib import Path

import numpy as np

from fusion.builders import check_config
from fusion.checkpoint import save_checkpoint
from fusion.data.features.format import Field
from fusion.data.features.writer import StoreWriter
from tests.tiny import CONFIG

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_it_is_short():
    assert len(README.splitlines()) <= 200


def test_the_first_screen_has_the_two_commands():
    screen = "\n".join(README.splitlines()[:40])
    assert "pip install -e . && accelerate launch tools/train.py configs/eao.yaml" in screen
    assert "pip install -e '.[dev]' && pytest" in screen


def test_the_tree_has_a_line_for_each_folder_of_the_package():
    tree = (ROOT / "docs/code.md").read_text()
    listed = re.findall(r"^(fusion[\w/]*?)/ +\w", tree, re.MULTILINE)
    files = [file for file in (ROOT / "fusion").rglob("*.py") if file.name != "__init__.py"]
    folders = {file.parent for file in files}
    assert sorted(listed) == sorted(str(folder.relative_to(ROOT)) for folder in folders)


def test_the_python_examples_run(once, tmp_path, monkeypatch):
    shutil.copytree(once.tiny_run(), tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    store, python = ((ROOT / f"docs/{page}.md").read_text() for page in ("feature_store", "python"))
    examples = [
        re.findall(r"```python\n(.*?)```", page, re.DOTALL) for page in (README, store, python)
    ]
    assert list(map(len, examples)) == [1, 1, 3]
    names: dict = {}
    for example in itertools.chain(*examples):
        exec(example.replace("runs/eao", str(tmp_path / "run")), names)
    assert names["query"].shape == (8,)
    assert 0 <= names["table"]["t->va"]["R@1"] <= 100
    assert names["rows"].shape == (100, 40)


def test_the_python_examples_know_clips_with_several_captions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fields = {"3d": Field(width=125, per_second=1.0), "audio": Field(width=40, per_second=100.0)}
    with StoreWriter("features", fields, name="own") as writer:
        for number, video in enumerate("ab"):
            generator = np.random.default_rng(number)
            writer.add(
                video, {"3d": generator.random((9, 125)), "audio": generator.random((900, 40))}
            )
    lines = [f"{video},1,5,{text}" for video in "ab" for text in ("a dog", "a cat", "a dog runs")]
    Path("t.csv").write_text("\n".join(["video,start,end,text", *lines]))
    config = CONFIG | {"output": "runs/eao", "data": {"name": "videos", "test": "t.csv"}}
    config["data"] |= {"store": "features"}
    build, best = check_config(config), Path("runs/eao/best")
    best.mkdir(parents=True)
    sentences = ["a dog runs", "a cat sits"] * 9
    text_encoder = build["text_encoder"](sentences=sentences, seed=0)
    save_checkpoint(best, build["model"](), config, text_encoder)
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.DOTALL)
    names: dict = {}
    exec(examples[1], names)
    counts = {way: (row["queries"], row["gallery"]) for way, row in names["table"].items()}
    assert counts["t->va"] == (6, 2)
    assert counts["va->t"] == (2, 6)
    assert counts["v->a"] == (2, 2)
