"""What README.md and docs/ promise: links, paths, command lines and examples."""

import argparse
import glob
import importlib
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fusion.builders import check_config
from fusion.config import load_config
from fusion.data.datasets.captioned import CaptionedVideos
from fusion.recipes import find_config

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *(ROOT / "configs").glob("*.md"),
    *sorted((ROOT / "docs").rglob("*.md")),
]
TOOLS = sorted((ROOT / "tools").glob("*.py"))
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
STORE = re.findall(r"```python\n(.*?)```", (ROOT / "docs/feature_store.md").read_text(), re.DOTALL)


def name_of(path):
    return str(path.relative_to(ROOT))


def ours(page):
    """Give the text of a page without what tables say of other people's code, or of ours before."""
    lines, theirs = [], False
    for line in page.read_text().splitlines():
        theirs = line.startswith(("| theirs |", "| before |")) or (theirs and line.startswith("|"))
        lines.append(line.split(" | ", 1)[-1] if theirs else line)
    return "\n".join(lines)


def slug(heading):
    """Spell the anchor of a heading as mkdocs and GitHub do."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def broken_links(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        place = page.parent / file if file else page
        headings = re.findall(r"^#+ (.+)$", place.read_text(), re.M) if anchor else []
        if not place.exists() or (anchor and anchor not in map(slug, headings)):
            yield target


def expand(path):
    """Expand the braces of ``configs/{mcn,avlnet}.yaml`` as a shell does."""
    if not (found := re.search(r"\{([^{}]*)\}", path)):
        return [path]
    words = found[1].split(",")
    return [p for word in words for p in expand(path[: found.start()] + word + path[found.end() :])]


def missing_paths(text):
    """List the files and folders that a text names and that are not there."""
    named = re.findall(r"(?<![\w/.$-])(?:fusion|configs|tools|tests|docs)/[\w{},/.*$-]*", text)
    named += set(re.findall(r"`([\w{},/-]+\.yaml)", text)) - {"config.yaml"}  # of a run
    named = [word.rstrip(".,") for word in named if not re.search(r"\$|NAME|ROOM", word)]
    for path in {path for word in named for path in expand(word)}:
        if not any(glob.glob(str(folder / path)) for folder in (ROOT, ROOT / "configs")):
            yield path


def command_lines(text):
    """Let a shell spell out the command lines of a bash block, without running any of them."""
    say = '{ printf "%s\\n" "$@"; echo ---; }'
    stubs = [f"{name}() {say};" for name in ("accelerate", "torchrun", "python")]
    stubs += [f'fusion() {{ set -- "tools/${{1//-/_}}.py" "${{@:2}}"; {say[1:]};']
    stubs += [f"{name}() {{ :; }};" for name in ("pip", "pytest", "mkdocs", "pre-commit", ".")]
    words = subprocess.run(
        [shutil.which("bash"), "-c", "\n".join([*stubs, text])],
        env={"PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.split("\n") for line in words.stdout.split("\n---\n") if line]


def documented_commands():
    """Give the command lines of each file that has some: pages, comments of configs, help texts."""
    for page in PAGES:
        text = page.read_text()
        lines = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
        for python, code in re.findall(r"`(python )?(tools/\w+\.py [^`]+)`", text):
            lines += [f"python {code}"] if python or " --" in code else []
        yield page, lines
    for config in CONFIGS:
        comment = "\n".join(re.findall(r"^# ?(.*)$", config.read_text(), re.M))
        command = r"^ {2}((?:accelerate|fusion|python|torchrun) (?:.*\\\n)*.*)$"
        yield config, re.findall(command, comment, re.M)
    for tool in TOOLS:
        examples = re.search(r'^EXAMPLES = """(.*?)"""', tool.read_text(), re.DOTALL | re.M)
        yield tool, re.findall(r"^ {2}(.*tools/.*)$", examples[1] if examples else "", re.M)


class Parsed(BaseException):
    """Stops a tool once it has read its command line."""


@pytest.fixture
def parse(monkeypatch):
    """Read a command line as the tool does; the tool itself does not run."""

    def stopping(original):
        def stop(*given):
            raise Parsed(original(*given))

        return stop

    parser = argparse.ArgumentParser
    for name in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(parser, name, stopping(getattr(parser, name)))

    def parse(words):
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(Parsed) as parsed:
            runpy.run_path(str(ROOT / words[0]), run_name="__main__")
        return parsed.value.args[0]

    return parse


def test_no_link_is_broken():
    assert len(PAGES) > 20
    broken = [(name_of(page), link) for page in PAGES for link in broken_links(page)]
    assert not broken


def test_every_path_that_is_named_exists():
    missing = [(name_of(page), path) for page in PAGES for path in missing_paths(ours(page))]
    assert not missing


def test_every_command_line_is_accepted_by_its_tool(parse, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    seen, trained = set(), load_config("configs/eao.yaml")  # what the tested checkpoint may be
    for page, lines in documented_commands():
        for words in command_lines("\n".join(lines)) if lines else ():
            place = next((i for i, word in enumerate(words) if word.startswith("tools/")), None)
            if place is None or "--help" in words:
                continue
            try:
                given = parse(words[place:])
                if words[place] == "tools/train.py" and find_config(given.config or "").is_file():
                    check_config(load_config(given.config, given.overrides))
                if words[place] == "tools/evaluate.py" and str(given.set).startswith("configs/"):
                    load_config(given.set, given.overrides, trained)
            except (SystemExit, ValueError) as error:
                said = capsys.readouterr().err or error
                pytest.fail(f"{name_of(page)}: {' '.join(words)}: {said}")
            seen.add(words[place])
    assert seen >= {name_of(tool) for tool in TOOLS}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_shell_scripts_have_no_mistake_of_syntax():
    scripts = {
        page: re.findall(r"^```(?:ba)?sh\n(.*?)^```", page.read_text(), re.DOTALL | re.M)
        for page in PAGES
    }
    assert sum(map(len, scripts.values())) > 50
    text = "\n".join(f"{{ :\n{one}\n}}" for its in scripts.values() for one in its)
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_name_of_the_package_can_be_imported():
    text = "\n".join(map(ours, PAGES))
    names = set(re.findall(r"(?:^::: |`)(fusion(?:\.\w+)+)", text, re.M))
    assert len(names) > 30
    for name in names:
        module, _, last = name.rpartition(".")
        if not hasattr(importlib.import_module(module), last):
            importlib.import_module(name)


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert not [page for page in pages if f": {page}\n" not in navigation]


def test_the_store_of_own_features_can_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(STORE[0], {})
    (tmp_path / "t.csv").write_text("video,start,end,text\nbeach,2,5,a dog\n")
    source = CaptionedVideos(test="t.csv", store="features")
    clip = source.clips("test", lambda text: torch.ones(2, 3))[0]
    assert {name: tuple(clip[name].shape) for name in ("video", "audio")} == {
        "video": (4, 512), "audio": (300, 40),
    }  # fmt: skip
    assert source.describe("test").endswith("features of my network (features)")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "Sentence,video_path\nhello,beach.mp4\n"),
        ("a.csv", "text,video,start,end\nhello,beach.mp4,,\n"),
        ("a.json", '[{"video_id": "beach", "Caption": "hello"}]'),
        ("a.json", '{"beach": {"start": [1], "end": [2], "text": ["hello"]}}'),
        ("folder/beach.en.srt", "1\n00:00:01,000 --> 00:00:02,000\nhello\n"),
        ("folder/beach.csv", "start,end,text\n1,2,hello\n"),
    ],
)
def test_caption_files_are_read_in_all_the_ways_that_are_listed(
    tmp_path, monkeypatch, name, content
):
    monkeypatch.chdir(tmp_path)
    exec(STORE[0], {})
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    place = "folder" if "/" in name else name
    source = CaptionedVideos(test=place, store="features")
    (caption,) = source.clips("test", lambda text: torch.ones(2, 3)).captions
    assert (caption.video, caption.text) == ("beach.mp4", "hello")
