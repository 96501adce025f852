"""Each mistake of a user ends in one line that shows value, place and way out."""

import errno

import pytest

from fusion.checkpoint import load_weights
from fusion.commands import errors as command
from fusion.commands.evaluate import evaluate
from fusion.commands.train import train
from fusion.config import load_config
from fusion.data.demo import corpus
from tests.tiny import CONFIG, write_config

AUDIO = CONFIG["model"]["modalities"]["audio"]
NARROW = AUDIO | {"encoder": AUDIO["encoder"] | {"num_frames": 65}}


def line_of(capsys, call):
    """Run a command that fails; give its only line."""
    with pytest.raises(SystemExit) as exit_info:
        command.run(call)
    assert exit_info.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainer": {"epoch": 6}}, "trainer.epoch is unknown; did you mean 'epochs'"),
        ({"trainer": {"epochs": "six"}}, "trainer.epochs must be a whole number; got 'six'"),
        ({"modle": {}}, "modle is unknown; did you mean 'model'"),
        ({"model": {"name": "eoa"}}, "model.name: unknown 'eoa'; did you mean 'eao'"),
        ({"loss": {"name": "mms"}}, "loss.name: unknown 'mms'; choose from combinatorial"),
        ({"data": {"name": "kinetics"}}, "data.name: unknown 'kinetics'; choose from demo, vid"),
        ({"text_encoder": {"name": "bert"}}, "text_encoder.name: unknown 'bert'"),
        ({"model": {"num_heads": 3}}, "token_dim (8) must be a multiple of num_heads (3)"),
        ({"loss": {"terms": {"t|x": 1}}}, "term 't|x': combination 'x' names an unknown modality"),
        ({"loss": {"terms": {"tv|v": 1}}}, "term 'tv|v' pairs overlapping combinations: video"),
        ({"loss": {"terms": {"t|tva": 1}}}, "overlapping combinations: text"),
        ({"model": {"combinations": ["t", "v", "a"]}}, "loss.terms needs the combination 'va'"),
        ({"trainer": {"batch_size": 998}}, "trainer.batch_size (998) must be between 1 and"),
        ({"trainer": {"mixed_precision": "fp8"}}, "fp16, bf16, auto, or null; got 'fp8'"),
        ({"trainer": {"optimizer": "adm"}}, "trainer.optimizer: unknown 'adm'"),
        ({"data": {"films": 0}}, "data.films is 0; choose 1 to 870"),
        ({"data": {"version": 7}}, "data.version is 7; choose from 2, 3"),
        ({"data": {"neighbours": 0}}, "data.neighbours must be at least 1; got 0"),
        ({"data": {"neighbour": 8}}, "data.neighbour is unknown; did you mean 'neighbours'?"),
        ({"data": {"neighbours": "all"}}, "data.neighbours"),
        ({"data": {"neighbours": 1.5}}, "data.neighbours"),
        ({"trainer": {"epochs": 0}}, "trainer.epochs must be at least 1; got 0"),
        ({"trainer": {"best": "R@1"}}, "trainer.best: 'R@1' is not evaluated"),
        ({"evaluation": {"batch_size": 0}}, "evaluation.batch_size must be at least 1; got 0"),
        ({"overwrite": True, "resume": True}, "contradict each other"),
        ({"model": {"modalities": {"text": {"dim": 9}, "video": {"dim": 125}, "audio": AUDIO}}},
         "model.modalities.text.dim is 9, but the data are 8 wide"),
        ({"model": {"modalities": {"text": {"dim": 8}, "video": {"dim": 125}, "audio": NARROW}}},
         "num_frames (65) must be a multiple of 16"),
    ],
)  # fmt: skip
def test_configs(tmp_path, capsys, changes, message):
    path = write_config(tmp_path, **changes)
    assert message in line_of(capsys, lambda: train(load_config(path)))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("video,start,end\na.mp4,0,1", "line 1: no column text among video, start, end"),
        ("video,start,end,text\na.mp4,2,1,x", "line 2: end (1) is not after start (2)"),
        ("video,start,end,text\nnone.mp4,0,1,x", "none.mp4: no such file"),
        ("video,start,end,text\nbroken.mp4,0,1,x", "broken.mp4: no media file, or truncated"),
    ],
)
def test_caption_and_media_files(tmp_path, capsys, rows, message):
    (tmp_path / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42 and then nothing")
    (tmp_path / "captions.csv").write_text(rows)
    data = {name: str(tmp_path / "captions.csv") for name in ("train", "validation")}
    path = tmp_path / "c.yaml"
    text = write_config(tmp_path).read_text()
    begin = text.index("data:")
    end = text.index("evaluation:") if text.index("evaluation:") > begin else text.index("loss:")
    path.write_text(text[:begin] + f"data: {{name: videos, {_inline(data)}}}\n" + text[end:])
    assert message in line_of(capsys, lambda: train(load_config(path)))


def _inline(data):
    return ", ".join(f"{key}: {value}" for key, value in data.items())


def test_no_space_for_the_corpus(tmp_path, capsys, monkeypatch):
    def full(film, folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("FUSION_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(corpus, "write_film", full)
    monkeypatch.setattr(corpus, "num_cores", lambda: 1)
    line = line_of(capsys, lambda: train(load_config(write_config(tmp_path))))
    assert "no space" in line
    assert "FUSION_CACHE" in line
    assert not list((tmp_path / "cache").glob("demo-v*[0-9]"))


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_no_checkpoint(tmp_path, capsys, path):
    assert "there is no checkpoint" in line_of(
        capsys, lambda: evaluate(tmp_path / path, None, None)
    )


def test_weights_of_nothing(tmp_path, capsys):
    assert "is missing" in line_of(capsys, lambda: load_weights(None, tmp_path))


def test_a_traceback_is_there_for_those_who_ask(monkeypatch):
    def fail():
        raise ValueError("a mistake")

    monkeypatch.setenv("FUSION_DEBUG", "1")
    with pytest.raises(ValueError, match="a mistake"):
        command.run(fail)
