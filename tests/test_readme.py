import re
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_first_screen_has_the_two_commands():
    screen = "\n".join(README.splitlines()[:40])
    assert "pip install -e . && accelerate launch tools/train.py configs/eao.yaml" in screen
    assert "pip install -e '.[dev]' && pytest" in screen


def test_the_python_example_runs(tool, tmp_path):
    from tests.tiny import write_config

    code, _, errors = tool("tools/train.py", write_config(tmp_path, trainer={"epochs": 1}))
    assert code == 0, errors
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    exec(example.replace("runs/eao", str(tmp_path / "run")), names)
    assert names["query"].shape == (1, 8)


def test_every_file_that_is_named_exists():
    root = Path(__file__).parents[1]
    paths = re.findall(r"`((?:fusion|configs|tools|tests)/[\w/.]+)`", README)
    assert len(paths) > 8
    assert not [path for path in paths if not (root / path).exists()]
