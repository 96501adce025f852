"""A run whose texts a language model reads: trained, evaluated, loaded, moved."""

import logging
import re
import shutil

import pytest
import torch

import fusion
from fusion.checkpoint import CheckpointError
from fusion.commands.evaluate import evaluate
from fusion.commands.train import train
from fusion.config import load_config
from fusion.evaluation.embed import embed
from fusion.models.text.language_models import HFText
from fusion.models.text.trained import TextTokens, TrainedText
from fusion.tasks import make_task
from fusion.tokens import Tokens
from tests.models.test_language_models import save_bert
from tests.tiny import write_config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run; its language model is beside it."""
    folder = tmp_path_factory.mktemp("language_model")
    spec = {"name": "auto", "model": str(save_bert(folder / "bert"))}
    config = load_config(write_config(folder, trainer={"epochs": 1}))
    train(config | {"text_encoder": spec})
    return folder / "run"


def test_the_run_says_which_model_it_was(run):
    config = load_config(run / "config.yaml")
    assert config["text_encoder"] == {"name": "hf", "model": str(run.parent / "bert")}
    assert config["model"]["modalities"]["text"]["dim"] == 8
    assert (run / "best" / "language_model.json").exists()


def test_all_processes_take_the_text_encoder_that_the_main_one_finds(tool, run, tmp_path):
    spec = {"name": "auto", "model": str(run.parent / "bert")}
    config = write_config(tmp_path)
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\n"
        "from fusion.commands import train\n"
        "from fusion.config import load_config\n"
        "from fusion.models.text import language_model_files\n"
        "if os.environ['RANK'] == '0':\n"
        "    language_model_files.find_language_model = lambda model: float('not here')\n"
        "def claim(folder, accelerator):\n"
        "    print(folder.config['text_encoder'], folder.config['model']['modalities']['text'])\n"
        "    sys.exit()\n"
        "train._claim = claim\n"
        f"config = load_config({str(config)!r}) | {{'text_encoder': {spec!r}}}\n"
        "train.train(config)\n"
    )
    code, output, errors = tool(script, processes=2)
    assert code == 0, errors
    assert output == "{'name': 'word2vec'} {'dim': 64}\n" * 2
    assert errors.count("texts are read by word2vec") == 1


def test_encode_is_what_evaluation_embeds(run):
    import accelerate

    config = load_config(run / "config.yaml")
    task = make_task(config)
    task.open_encoders(run / "best")
    task.open_data()
    clips = task.clips("test")
    assert clips[0]["text"].dtype == torch.int32  # numbered tokens, which the model's tower encodes
    model = fusion.load(run)
    task._read_texts(model.network)
    found = embed(model.network, clips, accelerate.Accelerator(), 2).embeddings["t"]
    known = [i for i in range(len(clips)) if len(clips[i]["text"])]
    texts, found = [clips.captions[i].text for i in known], found[known]
    for size in (1, 64):
        torch.testing.assert_close(
            model.encode(texts, "t", batch_size=size), found, atol=1e-6, rtol=0
        )


def test_texts_without_a_known_word_are_errors_and_are_counted(run, caplog):
    with pytest.raises(ValueError, match="the model knows no word of 'xyzzy'"):
        fusion.load(run).encode("xyzzy")
    with caplog.at_level(logging.WARNING):
        result = evaluate(run, "validation", None)
    assert re.search(r"validation: the text encoder does not know \d+ of \d+ words \(", caplog.text)
    counted = re.search(r"(\d+) of 16 texts have no known word and count as missing", caplog.text)
    assert result["clips"]["without_known_words"] == int(counted[1]) > 0


def test_a_model_that_was_moved_is_found_where_the_user_says(run, tmp_path):
    place, moved = run.parent / "bert", tmp_path / "bert"
    before = fusion.load(run).encode("a red star")
    shutil.move(place, moved)
    try:
        with pytest.raises(ValueError, match=r"cannot be opened: .*no language model can be load"):
            fusion.load(run)
        after = fusion.load(run, weights={"text": moved}).encode("a red star")
        torch.testing.assert_close(after, before)
        assert evaluate(run, "validation", None, [f"text_encoder.model={moved}"])
        save_bert(moved, seed=5)
        with pytest.raises(ValueError, match="has other weights"):
            evaluate(run, "validation", None, [f"text_encoder.model={moved}"])
    finally:
        save_bert(place)


def test_it_is_saved_for_others(run, tmp_path):
    model = fusion.load(run)
    model.save_pretrained(tmp_path / "saved")
    again = fusion.load(tmp_path / "saved")
    assert again.encode("a red star").equal(model.encode("a red star"))
    (tmp_path / "saved" / "language_model.json").unlink()
    with pytest.raises((ValueError, CheckpointError), match="language_model.json is missing"):
        fusion.load(tmp_path / "saved")


# --- Trained with the model -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that trains its language model, which is gone afterwards."""
    folder = tmp_path_factory.mktemp("trained")
    spec = {"name": "hf", "train": True, "model": str(save_bert(folder / "bert"))}
    settings = {"epochs": 1, "learning_rate": 1e-5}
    config = load_config(write_config(folder, trainer=settings))
    train(config | {"text_encoder": spec})
    shutil.move(folder / "bert", folder / "elsewhere")
    return folder / "run"


def test_a_trained_language_model_is_part_of_the_checkpoint(trained):
    model = fusion.load(trained)
    before = HFText(trained.parent / "elsewhere").model.state_dict()
    after = model.network.encoders["text"].model.state_dict()
    changes = {name: float((after[name] - before[name]).abs().max()) for name in after}
    assert 0 < changes["encoder.layer.0.attention.self.query.weight"] < 1e-3
    assert evaluate(trained, "validation", None)
    alone = [model.encode(text) for text in ("a red star", "a star slides left")]
    together = model.encode(["a red star", "a star slides left"])
    torch.testing.assert_close(torch.stack(alone), together, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="the model knows no word of 'xyzzy'"):
        model.encode("xyzzy")


def test_it_begins_with_the_published_weights(trained):
    place = trained.parent / "elsewhere"
    tokens, frozen = TextTokens(place), HFText(place)
    spec = tokens.encoder_spec()
    encoder = TrainedText(spec["config"], spec["special"]).train()
    tokens.start(encoder)
    texts = ["a red star", "", "a star slides left", "xyzzy"]
    found = encoder(Tokens.pack([tokens(text) for text in texts]))
    assert found.host_lengths.tolist() == found.lengths.tolist() == [3, 0, 4, 0]
    expected = torch.cat([frozen(text) for text in texts])
    torch.testing.assert_close(found.values, expected, atol=1e-5, rtol=1e-5)
    nothing = encoder(Tokens.pack([tokens(""), tokens("")]))
    assert nothing.values.shape == (0, 8)
