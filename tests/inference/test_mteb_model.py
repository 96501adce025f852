"""A model on a task of mteb of the shape of MSR-VTT's: films, their sound and captions."""

import sys

import numpy as np
import pytest
import torch

import fusion
from fusion.data.media.encode import write_clip
from fusion.data.media.film import read_audio
from fusion.inference import mteb_model
from fusion.inference.mteb_model import MtebModel
from tests.inference.tiny_clip import write_model

mteb = pytest.importorskip("mteb", reason="mteb is not installed: pip install 'fusion[mteb]'")
datasets = pytest.importorskip("datasets")

pytestmark = pytest.mark.filterwarnings("ignore")
TEXTS = ["a red star", "a blue bell spins", "a green ball", "a star slides left", "zyxq"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Five films with sound, whose pictures and sounds differ."""
    folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    films = []
    for number in range(len(TEXTS)):
        noise = rng.integers(0, 256, (36, 64, 3), np.uint8)
        frames = [np.roll(noise, 3 * i, axis=number % 2) for i in range(15)]
        sound = rng.uniform(-0.2, 0.2, 9600) * np.sin(np.arange(9600) * (number + 1) / 9)
        write_clip(folder / f"{number}.mp4", frames, 25, sound.astype("f4"))
        films.append(str(folder / f"{number}.mp4"))
    return films


def task_of(clips, category):
    """A task whose queries and documents have the modalities of a category, such as ``t2va``."""
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
    from mteb.abstasks.task_metadata import TaskMetadata

    names = {"t": "text", "v": "video", "a": "audio"}

    def side(letters):
        columns = {"id": [str(i) for i in range(len(clips))]}
        features = {"id": datasets.Value("string")}
        for name in (names[x] for x in letters):
            values = {"text": TEXTS, "video": clips}.get(name)
            if name == "audio":
                sounds = [read_audio(clip) for clip in clips]
                values = [{"array": sound, "sampling_rate": 16_000} for sound in sounds]
                features[name] = {
                    "array": datasets.Sequence(datasets.Value("float32")),
                    "sampling_rate": datasets.Value("int32"),
                }
            else:
                features[name] = datasets.Value("string")
            columns[name] = values
        rows = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
        return rows.cast_column("video", datasets.Video()) if "v" in letters else rows

    class Task(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=f"Clips{category}",
            description="Generated clips.",
            dataset={"path": "none/none", "revision": "1"},
            type="Any2AnyRetrieval",
            eval_langs=["eng-Latn"],
            eval_splits=["test"],
            main_score="hit_rate_at_1",
            reference=None,
            category=category,
            modalities=[names[x] for x in category.replace("2", "")],
            date=("2020-01-01", "2020-12-31"),
            domains=["Web"],
            task_subtypes=[],
            license="not specified",
            annotations_creators="derived",
            dialect=[],
            sample_creation="created",
            bibtex_citation="",
        )

        def load_data(self, num_proc=None, **_):
            query, document = category.split("2")
            pairs = {str(i): {str(i): 1} for i in range(len(clips))}
            data = RetrievalSplitData(
                queries=side(query),
                corpus=side(document),
                relevant_docs=pairs,
                top_ranked=None,
            )
            self.dataset, self.data_loaded = {"default": {"test": data}}, True

    return Task()


def scores(model, task):
    result = mteb.evaluate(model, task, cache=None, show_progress_bar=False, co2_tracker=False)
    return result.task_results[0].scores["test"][0]


def by_hand(model, clips, category):
    """Cosines of all queries and documents; zeros of a caption without a known word."""

    def embed(letters):
        rows = []
        for text, clip in zip(TEXTS, clips, strict=True):
            item = {"text": text} if letters == "t" else {}
            item |= {"video": clip} if "v" in letters else {}
            item |= {"audio": (read_audio(clip), 16_000)} if "a" in letters else {}
            try:
                rows.append(model.encode(item))
            except ValueError:
                rows.append(torch.zeros_like(model.encode(clip, "v")))
        return torch.stack(rows)

    query, document = map(embed, category.split("2"))
    return query @ document.T


@pytest.mark.parametrize("category", ["t2va", "t2v", "t2a", "va2t", "a2v", "v2a"])
def test_recalls_are_those_of_cosines_by_hand(model, clips, category):
    found = scores(MtebModel(model), task_of(clips, category))
    cosines = by_hand(model, clips, category)
    places = (cosines > cosines.diag()[:, None]).sum(dim=1)
    spread = [i for i in range(len(TEXTS)) if len(set(cosines[i].tolist())) == len(TEXTS)]
    for k in (1, 3):
        hits = sum(int(places[i] < k) for i in spread)  # of a query of zeros mteb takes any
        low, high = hits / len(TEXTS), (hits + len(TEXTS) - len(spread)) / len(TEXTS)
        assert low - 1e-4 <= found[f"hit_rate_at_{k}"] <= high + 1e-4


def test_rows_are_what_encode_gives(model, clips, caplog):
    task = task_of(clips, "t2va")
    task.load_data()
    data = task.dataset["default"]["test"]
    wrapper = MtebModel(model, "mine")
    about = {"task_metadata": task.metadata, "hf_split": "test", "hf_subset": "default"}
    loader = torch.utils.data.DataLoader(data["corpus"])
    found = wrapper.encode(loader, **about, batch_size=2)
    sounds = [(read_audio(clip), 16_000) for clip in clips]
    given = [{"video": c, "audio": s} for c, s in zip(clips, sounds, strict=True)]
    np.testing.assert_allclose(found, model.encode(given), atol=1e-6)
    loader = torch.utils.data.DataLoader(data["queries"])
    found = wrapper.encode(loader, **about)
    np.testing.assert_allclose(found[:4], model.encode(TEXTS[:4]), atol=1e-6)
    assert not found[4].any() and "1 of 5 rows cannot be embedded" in caplog.text
    assert found.dtype == np.float32
    x, y = found[:2], found[2:4]
    np.testing.assert_allclose(wrapper.similarity(x, y).diag(), wrapper.similarity_pairwise(x, y))


def test_films_within_a_data_set_are_read_from_there(model, clips, tmp_path):
    """As on the hub: the bytes of the files are in the table."""
    with open(clips[0], "rb") as file:
        content = file.read()
    rows = datasets.Dataset.from_dict({"id": ["0"], "video": [{"bytes": content, "path": "0.mp4"}]})
    rows = rows.cast_column("video", datasets.Video())
    about = {"task_metadata": None, "hf_split": "test", "hf_subset": "default"}
    found = MtebModel(model).encode(torch.utils.data.DataLoader(rows), **about)
    np.testing.assert_allclose(found[0], model.encode({"video": clips[0]}), atol=1e-6)
    other = rows.rename_column("video", "depth")
    with pytest.raises(ValueError, match="embeds text, video, audio, and this data set has id, de"):
        MtebModel(model).encode(torch.utils.data.DataLoader(other), **about)


def test_what_mteb_knows_of_a_model(model, run):
    meta = MtebModel(run).mteb_model_meta
    assert meta.name == "fusion/run" and meta.revision == model.digest
    assert meta.modalities == ["text", "video", "audio", "image"]
    assert meta.n_parameters == sum(p.numel() for p in model.network.parameters())
    assert MtebModel(model, "mine").mteb_model_meta.name == "fusion/mine"


def test_a_pretrained_model_leaves_out_what_it_does_not_hear(clips, tmp_path):
    name = write_model(tmp_path / "clip")
    wrapper = MtebModel(name)
    assert wrapper.mteb_model_meta.name == "fusion/clip"
    assert scores(wrapper, task_of(clips, "t2v"))["hit_rate_at_5"] == pytest.approx(1)
    assert scores(wrapper, task_of(clips, "t2va")) == scores(wrapper, task_of(clips, "t2v"))


def test_without_mteb_it_is_one_line(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(ValueError, match=r"install it by: pip install 'fusion\[mteb\]'"):
        mteb_model.MtebModel(model)
    assert fusion.Model
