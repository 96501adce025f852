import pytest
import torch

from fusion.checkpoint import (
    CheckpointError,
    find_checkpoint,
    load_checkpoint,
    load_weights,
    read_state,
    save_checkpoint,
)
from fusion.config import choose, load_config, to_yaml
from fusion.models import MODELS, WordVectors
from fusion.process import memory_at_peak
from tests.tiny import write_config


@pytest.fixture
def saved(tmp_path):
    config = load_config(write_config(tmp_path))
    model = choose("model", config["model"], MODELS)()
    encoder = WordVectors(["red", "star's", "\u00fcber"], torch.arange(24.0).reshape(3, 8), 5)
    (tmp_path / "run" / "best").mkdir(parents=True)
    save_checkpoint(tmp_path / "run" / "best", model, config, encoder)
    return tmp_path / "run", model, encoder, config


def test_a_model_comes_back_with_its_words_and_config(saved):
    run, model, encoder, config = saved
    loaded, words, loaded_config = load_checkpoint(run)
    assert loaded_config == config
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert loaded.state_dict()[name].equal(tensor)
    sentence = "\u00fcber unknown red star's"
    assert words(sentence).equal(encoder(sentence))
    assert words(sentence).shape == (3, 8)
    assert words.max_words == 5


def test_a_run_means_its_best_checkpoint(saved):
    assert find_checkpoint(saved[0]) == find_checkpoint(saved[0] / "best") == saved[0] / "best"


def test_a_truncated_file_is_explained(saved):
    path = saved[0] / "best" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="model.safetensors is damaged"):
        load_checkpoint(saved[0])


def test_a_damaged_word_file_is_explained(saved):
    (saved[0] / "best" / "word_vectors.safetensors").write_bytes(b"short")
    with pytest.raises(ValueError, match="best has no word vectors that can be read"):
        load_checkpoint(saved[0])


def test_another_architecture_is_explained(saved):
    run, _, _, config = saved
    wider = choose("model", config["model"] | {"token_dim": 12}, MODELS)()
    with pytest.raises(
        CheckpointError,
        match="another architecture: heads.audio.project.weight is 8x8 there and 8x12",
    ):
        load_weights(wider, run / "best")


def test_no_checkpoint_is_explained(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        load_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"neither model.safetensors nor best/"):
        load_checkpoint(tmp_path)


class Hostile:
    def __reduce__(self):
        return (print, ("this file was executed",))


def test_a_hostile_state_is_not_executed(tmp_path, capsys):
    torch.save({"optimizer": Hostile()}, tmp_path / "trainer.pt")
    with pytest.raises(CheckpointError, match=r"trainer.pt is damaged"):
        read_state(tmp_path / "trainer.pt")
    assert "executed" not in capsys.readouterr().out


def test_f21_a_config_that_asks_for_more_weights_than_there_are_is_refused_before_they_are_made(
    saved,
):
    run, _, _, config = saved
    config["model"]["token_dim"] = 60_000
    (run / "best" / "config.yaml").write_text(to_yaml(config))
    before = memory_at_peak()
    with pytest.raises(CheckpointError, match=r"asks for [0-9,]{14,} numbers, and its model.saf"):
        load_checkpoint(run)
    assert memory_at_peak() - before < 2**27
