"""From a file as the published training saves it to a checkpoint that gives the golden numbers."""

import runpy
import sys
import types
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
import yaml

from fusion.builders import check_config
from fusion.checkpoint import load_checkpoint, load_weights, read_tensors
from fusion.config import choose, load_config
from fusion.convert import convert_checkpoint, convert_word_vectors
from fusion.models import MODELS
from fusion.models.text.encoders import WordVectorFile
from tests import golden_cases as golden
from tests.conftest import ROOT

TOOL = "tools/convert.py"
CASES = golden.case_names("eao_")
LONG_AUDIO = golden.case_names("eao_long_audio_")
PUBLISHED_WORDS = {"name": "word2vec_file", "tokenizer": "published", "max_words": 20}
TEXT_VIDEO = "EverythingAtOnceModel_TV_Only"


def published_config(case):
    """What the published training saves with a model, as far as it says something."""
    frames = 1024 if case["inputs"] == "inputs_long.npz" else 256
    data = {"dataset_name": "HowTo100M", "num_audio_STFT_frames": frames}
    return OrderedDict(
        arch={"type": case["model"], "args": {**case["kwargs"], "fusion_params": case["fusion"]}},
        data_loader={"type": "FeatureDataloader", "args": {"dataset_kwargs": data}},
    )


def published_state(case, prefix="module."):
    weights = golden.published_weights(case)
    if case["model"] == "TransformerPerModalityModel":  # two names of one module
        second = [name for name in weights if name.startswith("fusion.")]
        weights |= {name: weights[name.replace("fusion.", "fusion_text.")] for name in second}
    state = OrderedDict((prefix + name, tensor) for name, tensor in weights.items())
    state._metadata = OrderedDict(version=1)
    return state


def save(path, state, config="foreign", arch="DataParallel", **options):
    """Write a published checkpoint, with an object whose class is gone afterwards."""
    module = types.ModuleType("parse_config")
    module.ConfigParser = type("ConfigParser", (), {"__module__": "parse_config"})
    sys.modules["parse_config"] = module
    parser = module.ConfigParser()
    parser.config = {"lr": 5e-5}
    optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 5e-5}]}
    content = {"arch": arch, "epoch": 15, "state_dict": state, "optimizer": optimizer}
    content |= {"parser": parser, "config": parser if config == "foreign" else config}
    torch.save(content, path, **options)
    del sys.modules["parse_config"]
    return path


@pytest.fixture
def tva(tmp_path):
    """The paper's model as a published file."""
    case, _ = golden.read_case("eao_tva")
    return save(tmp_path / "latest_model.pth", published_state(case), published_config(case))


def load(folder, **audio):
    """Load a converted model, with changes to what no weight depends on."""
    section = load_config(folder / "config.yaml")["model"]
    section["modalities"].get("audio", {"encoder": {}})["encoder"].update(audio)
    model = choose("model", section, MODELS)()
    load_weights(model, folder)
    return model.eval()


def deviation(name, model):
    """The largest difference to a golden embedding."""
    case, expected = golden.read_case(name)
    combinations = golden.combinations_of(expected, "eval")
    assert set(combinations) <= set(model.combinations)
    with torch.no_grad():
        embeddings = model(golden.read_inputs(case, model.modalities), combinations)
    worst = 0.0
    for combination, embedding in embeddings.items():
        published = torch.from_numpy(expected[f"eval.{golden.published_embedding(combination)}"])
        if len(combination) == 1 or name == "eao_cls_token":
            published = F.normalize(published, dim=-1)  # saved as it left its head
        worst = max(worst, (embedding - published).abs().max().item())
    return worst


def test_the_cases_are_all_there():
    assert len(CASES) == 17
    assert len(LONG_AUDIO) == 4


@pytest.mark.parametrize("name", ["eao_tva", "eao_positional", "eao_text_video", *LONG_AUDIO])
def test_a_file_with_its_config_gives_the_golden_embeddings(name, tmp_path):
    case, _ = golden.read_case(name)
    path = save(tmp_path / "file.pth", published_state(case), published_config(case))
    said = convert_checkpoint(path, tmp_path / "out")
    assert deviation(name, load(tmp_path / "out")) < 1e-5
    assert "assumed" not in said


@pytest.mark.parametrize("name", CASES)
def test_names_and_shapes_alone_give_the_variant(name, tmp_path):
    case, _ = golden.read_case(name)
    arch = case["model"] if case["model"] == TEXT_VIDEO else "DataParallel"
    path = save(tmp_path / "file.pth", published_state(case), "foreign", arch)
    said = convert_checkpoint(path, tmp_path / "out", num_heads=4)
    section = load_config(tmp_path / "out" / "config.yaml")["model"]
    unseen = golden.modalities_of(case).get("audio", {"encoder": {}})["encoder"]
    keys = ("num_frames", "max_tokens", "long_clips")
    audio = {key: unseen[key] for key in keys if key in unseen}
    worst = deviation(name, load(tmp_path / "out", **audio))
    print(f"{name}: {worst:.1e}")
    assert worst < 1e-5
    assert ("num_frames 768 (as in the published pre-training)" in said) == bool(unseen)
    if unseen:
        assert section["modalities"]["audio"]["encoder"]["num_frames"] == 768


def test_what_is_found_is_said(tva, tmp_path):
    said = convert_checkpoint(tva, tmp_path / "out")
    for words in [
        "found     text: dim 20\n",
        "found     video: dim 48\n",
        "found     audio: encoder.name davenet, encoder.version 2, encoder.widths [8, ",
        "found     eao: combinations ['t', 'v', 'a', 'tv', 'ta', 'va'], token_dim 32,"
        " embedding_dim 40, num_blocks 1, num_heads 4, mlp_ratio 1.0, projection gated,"
        " shared_head False, cls_token False",
        "fusion.norm, davenet.batchnorm1 (7 weights): the published model never uses them",
        "arch, epoch, optimizer, parser, config: not part of the model",
        "ignored   parse_config.ConfigParser",
        "num_heads 4 (the file's arch.args.fusion_params.num_heads)",
        "131,056 parameters",
        "word vectors 20 wide are needed",
    ]:
        assert words in said, words


def test_the_config_is_one_that_trains_and_evaluates(tva, tmp_path):
    convert_checkpoint(tva, tmp_path / "out")
    config = load_config(tmp_path / "out" / "config.yaml", ["data_root=x", "data.root=x"])
    builders = check_config(config)
    loss = builders["loss"](modalities=["text", "video", "audio"])
    assert loss.weights == {"t|v": 1} | dict.fromkeys(["t|a", "v|a", "t|va", "v|ta", "a|tv"], 0.1)
    assert config["data"]["name"] == "msrvtt"
    assert config["text_encoder"] == {"path": None, **PUBLISHED_WORDS}


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("eao_text_video", ["t|v"]),
        ("eao_transformer_per_modality", ["t|v", "t|a", "v|a"]),
    ],
)
def test_the_loss_has_the_terms_that_the_model_can_serve(name, terms, tmp_path):
    case, _ = golden.read_case(name)
    path = save(tmp_path / "file.pth", published_state(case), published_config(case))
    convert_checkpoint(path, tmp_path / "out")
    assert list(load_config(tmp_path / "out" / "config.yaml")["loss"]["terms"]) == terms


def test_audio_that_was_never_trained_is_dropped(tmp_path):
    """On several GPUs the published training saves DataParallel for the name of the model."""
    case, _ = golden.read_case("eao_text_video")
    state = published_state(case)
    state["module.audio_norm_layer.weight"].fill_(1)
    state["module.audio_norm_layer.bias"].fill_(0)
    said = convert_checkpoint(save(tmp_path / "a.pth", state), tmp_path / "a", num_heads=4)
    assert "audio was never trained" in said
    assert deviation("eao_text_video", load(tmp_path / "a")) < 1e-5
    named = {"arch": {"type": "EverythingAtOnceModel"}}
    said = convert_checkpoint(save(tmp_path / "b.pth", state, named), tmp_path / "b", num_heads=4)
    assert "found     audio: encoder.name davenet" in said
    for name in ("weight", "bias"):  # nothing was trained
        state[f"module.text_norm_layer.{name}"] = state[f"module.audio_norm_layer.{name}"].clone()
    said = convert_checkpoint(save(tmp_path / "c.pth", state), tmp_path / "c", num_heads=4)
    assert "found     audio: encoder.name davenet" in said


@pytest.mark.parametrize("kind", ["old format", "parameters", "bare", "half precision"])
def test_other_ways_to_save_a_model(kind, tmp_path):
    case, _ = golden.read_case("eao_tva")
    state, path = published_state(case, prefix=""), tmp_path / "file.pth"
    if kind == "old format":
        save(path, state, _use_new_zipfile_serialization=False)
    elif kind == "parameters":
        parameters = {
            k: torch.nn.Parameter(v, requires_grad=v.is_floating_point()) for k, v in state.items()
        }
        save(path, parameters)
    elif kind == "bare":
        torch.save(state, path)
    else:
        save(path, {k: v.half() if v.is_floating_point() else v for k, v in state.items()})
    convert_checkpoint(path, tmp_path / "out", num_heads=4)
    tensors = read_tensors(tmp_path / "out" / "model.safetensors").values()
    assert {tensor.dtype for tensor in tensors} == {torch.float32, torch.int64}
    model = load(tmp_path / "out", num_frames=256)
    assert deviation("eao_tva", model) < (1e-5 if kind != "half precision" else 2e-3)


def test_weights_that_share_data_are_written_apart(tmp_path, monkeypatch):
    """Some versions of safetensors refuse tensors that share data."""
    written = {}
    keep = lambda folder, model, *_: written.update(model.state_dict())  # noqa: E731
    monkeypatch.setattr("fusion.convert.checkpoints.save_checkpoint", keep)
    case, _ = golden.read_case("eao_tva")
    state = published_state(case)
    names = [f"module.text_norm_layer.{name}" for name in ("weight", "bias")]
    both = torch.stack([state[name] for name in names])
    state |= dict(zip(names, both, strict=True))
    convert_checkpoint(save(tmp_path / "file.pth", state), tmp_path / "out", num_heads=4)
    places = {tensor.untyped_storage().data_ptr() for tensor in written.values()}
    assert len(places) == len(written)
    for name, ours in zip(names, ("weight", "bias"), strict=True):
        assert written[f"token_projections.text.1.{ours}"].equal(state[name])


def write_word2vec(path, width):
    lines = [f"{word} {' '.join(['1'] * width)}\n" for word in ("red", "star")]
    path.write_text(f"2 {width}\n{''.join(lines)}")
    return str(path)


def test_word_vectors_make_the_checkpoint_whole(tva, tmp_path):
    vectors = write_word2vec(tmp_path / "vectors.txt", 20)
    said = convert_checkpoint(tva, tmp_path / "out", word_vectors=vectors)
    assert f"text      word2vec_file, {vectors}" in said
    model, words, config = load_checkpoint(tmp_path / "out")
    assert words("a red star").shape == (2, 20)
    assert config["text_encoder"] == {"path": vectors, **PUBLISHED_WORDS}
    assert deviation("eao_tva", model) < 1e-5
    vectors = write_word2vec(tmp_path / "wide.txt", 21)
    with pytest.raises(ValueError, match="word vectors of width 21, but the model takes 20"):
        convert_checkpoint(tva, tmp_path / "b", word_vectors=vectors)
    assert not (tmp_path / "b").exists()


def test_word_vectors_are_converted(tmp_path):
    vectors, out = write_word2vec(tmp_path / "vectors.txt", 3), tmp_path / "new" / "v.safetensors"
    assert convert_word_vectors(vectors, out) == f"written   {out}: 2 words, vectors 3 wide"
    assert WordVectorFile(out)("a red star").equal(torch.ones(2, 3))
    assert [path.name for path in out.parent.iterdir()] == ["v.safetensors"]
    with pytest.raises(ValueError, match="exists already"):
        convert_word_vectors(vectors, out)
    (tmp_path / "no.txt").write_text("no vectors")
    with pytest.raises(ValueError, match="holds no word vectors"):
        convert_word_vectors(tmp_path / "no.txt", tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="there is no such file"):
        convert_word_vectors(tmp_path / "nowhere.txt", tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="is a safetensors file, not word vectors in word2vec's"):
        convert_word_vectors(out, tmp_path / "b.safetensors")
    assert not list(tmp_path.glob("b.*"))


def test_the_command_converts_and_says_so(tva, tmp_path, tool):
    (tmp_path / "out").mkdir()  # empty, so it may be there
    code, output, errors = tool(TOOL, tva, "--out", tmp_path / "out", "--num-heads", "8")
    assert code == 0, errors
    assert "131,056 parameters" in output
    assert yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["model"]["num_heads"] == 8
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "config.yaml",
        "manifest.json",
        "model.safetensors",
    ]


def test_a_mistake_is_one_line(tmp_path, monkeypatch, capsys):
    missing = tmp_path / "nowhere.pth"
    monkeypatch.setattr("sys.argv", ["convert.py", str(missing), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / TOOL), run_name="__main__")
    output, errors = capsys.readouterr()
    assert (end.value.code, output) == (2, "")
    assert errors == f"error: {missing}: No such file or directory; check the path\n"


def test_a_folder_with_something_in_it_is_refused(tva, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    for out in [tmp_path / "out", tmp_path / "out" / "mine.txt"]:
        with pytest.raises(ValueError, match="exists already and is not empty"):
            convert_checkpoint(tva, out)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
