import itertools
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_it_is_short():
    assert len(README.splitlines()) <= 200


def test_the_first_screen_has_the_two_commands():
    screen = "\n".join(README.splitlines()[:40])
    assert "pip install -e . && accelerate launch tools/train.py configs/eao.yaml" in screen
    assert "pip install -e '.[dev]' && pytest" in screen


def test_the_tree_has_a_line_for_each_folder_of_the_package():
    listed = re.findall(r"^(fusion[\w/]*?)/ +\w", README, re.MULTILINE)
    files = [file for file in (ROOT / "fusion").rglob("*.py") if file.name != "__init__.py"]
    folders = {file.parent for file in files}
    assert sorted(listed) == sorted(str(folder.relative_to(ROOT)) for folder in folders)


def test_the_python_examples_run(tool, tmp_path, monkeypatch):
    from tests.tiny import write_config

    code, _, errors = tool("tools/train.py", write_config(tmp_path, trainer={"epochs": 1}))
    assert code == 0, errors
    monkeypatch.chdir(tmp_path)
    store, python = ((ROOT / f"docs/{page}.md").read_text() for page in ("feature_store", "python"))
    examples = [
        re.findall(r"```python\n(.*?)```", page, re.DOTALL) for page in (README, store, python)
    ]
    assert list(map(len, examples)) == [1, 1, 3]
    names: dict = {}
    for example in itertools.chain(*examples):
        exec(example.replace("runs/eao", str(tmp_path / "run")), names)
    assert names["query"].shape == (1, 8)
    assert names["queries"].shape == (2, 8)
    assert 0 <= names["table"]["t->va"]["R@1"] <= 100
    assert names["rows"].shape == (100, 40)
