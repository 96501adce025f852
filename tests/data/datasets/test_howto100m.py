"""HowTo100M in the published folders, made up: clips as the published rules draw them."""

import json
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fusion.data.datasets.dataset import collate
from fusion.data.datasets.howto100m import HowTo100M, open_captions
from fusion.data.datasets.sampling import fit_video_tokens
from fusion.data.untrusted.npz import read_npz
from fusion.training.sampler import EpochBatchSampler

VIDEOS = ["food/aaa", "food/bbb", "cars/ccc"]
SECONDS = {"food/aaa": 40, "food/bbb": 6, "cars/ccc": 60}


def words(text):
    return torch.tensor([[float(len(word))] for word in text.split()]).reshape(-1, 1)


@pytest.fixture
def root(tmp_path):
    """Three videos: the first talks all the time, the second is short, the third is silent."""
    folder = tmp_path / "data" / "howto"
    rng = np.random.default_rng(0)
    for video, seconds in SECONDS.items():
        name = video.split("/")[1]
        for path in (folder / "features" / video, folder / "audio_features" / video):
            path.mkdir(parents=True)
        for kind, rows in [("2d", seconds), ("3d", int(1.5 * seconds))]:
            values = rng.standard_normal((rows, 2048)).astype(np.float16)
            np.savez(folder / "features" / video / f"{name}_{kind}.npz", features=values)
        values = rng.standard_normal((40, 100 * seconds)).astype(np.float16)
        np.savez(folder / "audio_features" / video / f"{name}_spec.npz", values)
    captions = {
        "aaa": {
            "start": [float(s) for s in range(0, 40, 4)],
            "end": [s + 5.5 for s in range(0, 40, 4)],
            "text": [f"step {n} cut it" for n in range(10)],
        },
        "bbb": {"start": [1.0, 9.0], "end": [3.0, 8.0], "text": ["hello", "never"]},
        "not in the list": {"start": [*range(20)], "end": [*range(1, 21)], "text": ["so"] * 20},
    }
    (folder / "caption.pickle").write_bytes(pickle.dumps(captions))
    (folder / "HowTo100M_1166_videopaths.txt").write_text(
        "path\n" + "".join(f"None/{v}\n" for v in VIDEOS)
    )
    return folder.parent


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FUSION_CACHE", str(tmp_path / "cache"))


def published_clip(root, video, captions, uniform):
    """Write down the published rule once more, with whole arrays."""
    folder, name = root / "howto", video.split("/")[1]
    features = {
        k: torch.tensor(read_npz(folder / "features" / video / f"{name}_{k}.npz", "features"))
        for k in ("2d", "3d")
    }
    mel = read_npz(folder / "audio_features" / video / f"{name}_spec.npz", "arr_0")
    duration = int((mel.shape[1] * 160 + 200) / 16000)
    start = uniform * max(0, duration - 8.0)
    end, said = start + 8.0, []
    audio = start
    if captions:
        for time in (start, end):
            i = max(0, int(np.searchsorted(captions["start"], time)) - 1)
            if captions["start"][i] <= time <= captions["end"][i]:
                first = last = i
                said = captions["text"][i].split()
                while captions["end"][last] - captions["start"][first] < 8.0:
                    before = captions["end"][last] - captions["start"][first - 1] if first else 1e9
                    more = last + 1 < len(captions["end"])
                    after = captions["end"][last + 1] - captions["start"][first] if more else 1e9
                    if before == after == 1e9:
                        break
                    if before <= after:
                        first -= 1
                        said += captions["text"][first].split()
                    else:
                        last += 1
                        said += captions["text"][last].split()
                start, end = captions["start"][first], captions["end"][last]
                audio = start + 4.0
                break
    frame = max(0, (int(audio * 16000) - 200) // 160)
    stop = min(frame + 768, (int((audio + 8.0) * 16000) - 200) // 160)
    stop = stop if said else frame + 768
    cut = [
        features[k][int(start * rate) : int(end * rate) + 1].float()
        for k, rate in (("2d", 1.0), ("3d", 1.5))
    ]
    return {
        "text": words(" ".join(said)),
        "video": fit_video_tokens(*cut, 12),
        "audio": torch.from_numpy(mel[:, frame:stop].T.copy()).float(),
    }


def test_clips_are_drawn_by_the_published_rules(root):
    clips = HowTo100M(str(root)).clips("train", words)
    captions = pickle.loads((root / "howto" / "caption.pickle").read_bytes())
    captions["bbb"] = {key: values[:1] for key, values in captions["bbb"].items()}
    clips.set_epoch(5)
    assert len(clips) == 30
    for index in range(30):
        clip = clips[index]
        video = VIDEOS[index // 10]
        uniform = np.random.default_rng([5, index, 0]).random()
        expected = published_clip(root, video, captions.get(video.split("/")[1]), uniform)
        for name, values in expected.items():
            assert clip[name].equal(values.to(clip[name].dtype)), (index, name)
        kinds = [clip[name].dtype for name in ("text", "video", "audio")]
        assert kinds == [torch.float32, torch.float16, torch.float16]  # as stored
        assert clip["id"].startswith(f"{video}@")
        assert clips.captions[index].video == video


def test_clips_follow_from_seed_epoch_and_place_in_any_process(root):
    clips = HowTo100M(str(root)).clips("train", words)
    clips.set_epoch(1)
    here = [clips[i] for i in range(30)]
    loader = DataLoader(clips, batch_size=None, num_workers=2, multiprocessing_context="fork")
    for mine, theirs in zip(here, loader, strict=True):
        assert mine["id"] == theirs["id"]
        assert mine["video"].equal(theirs["video"])
    clips.set_epoch(2)
    assert [clips[i]["id"] for i in range(30)] != [clip["id"] for clip in here]


def test_the_last_videos_are_for_validation(root):
    source = HowTo100M(str(root), validation_videos=1)
    assert source.splits == ["train", "validation"]
    assert len(source.clips("train", words)) == 20
    validation = source.clips("validation", words)
    assert [clip["id"] for clip in (validation[0], validation[0])] == [validation[0]["id"]] * 2
    assert validation[0]["id"].startswith("cars/ccc@")
    with pytest.raises(ValueError, match="no split 'test'"):
        source.clips("test", words)
    with pytest.raises(ValueError, match=r"validation_videos \(3\) must be less"):
        HowTo100M(str(root), validation_videos=3).clips("train", words)


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-50]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "transposed": lambda path: np.savez(path, features=np.ones((2048, 60), np.float16)),
    "nan": lambda path: np.savez(path, features=np.full((60, 2048), np.nan, np.float16)),
    "one-dimensional": lambda path: np.savez(path, features=np.ones(2048, np.float16)),
    "other name": lambda path: np.savez(path, other=np.ones((60, 2048), np.float16)),
    "objects": lambda path: np.savez(path, features=np.array([{}])),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_features_that_cannot_be_read_are_missing_and_named(root, caplog, damage):
    DAMAGE[damage](root / "howto" / "features" / "food" / "aaa" / "aaa_3d.npz")
    clips = HowTo100M(str(root)).clips("train", words)
    clip = clips[0]
    assert clip["video"].shape == (0, 4096)
    assert len(clip["audio"]) > 0
    assert "food/aaa" in caplog.text
    batch = collate([clips[i] for i in (0, 20)])
    assert batch.present["video"].tolist() == [False, True]


def test_a_clip_without_anything_is_replaced(root):
    for file in (root / "howto").rglob("bbb_*"):
        file.unlink()
    clips = HowTo100M(str(root), captions=str(root / "howto" / "caption.pickle"))
    clips = clips.clips("train", lambda text: words(""))
    assert clips[10]["id"].startswith("cars/ccc@")


def test_too_many_problems_end_the_run(root):
    for file in (root / "howto").rglob("*_2d.npz"):
        file.unlink()
    clips = HowTo100M(str(root)).clips("train", words)
    clips.unreadable._clips[0] = torch.tensor([2000, 99])
    clips[0]
    with pytest.raises(ValueError, match=r"101 of 2002 .* 1 files, .*max_bad \(0.05\) allows"):
        clips[0]


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match="add data_root=FOLDER with howto/caption.pickle"):
        HowTo100M()
    with pytest.raises(ValueError, match=r"caption.pickle is missing .*; it is among the files"):
        HowTo100M(str(tmp_path)).extract()
    with pytest.raises(ValueError, match="data.features: unknown 'i3d'"):
        HowTo100M(str(tmp_path), features="i3d")


def test_captions_are_converted_once(root, tmp_path, caplog):
    path = root / "howto" / "caption.pickle"
    first = open_captions(path)
    assert "converting" in caplog.text
    assert [c.text for c in first.captions("bbb")] == ["hello"]  # the other ends before it begins
    bad = "caption.pickle, video 'bbb', caption 2: end (8.0) is not after start (9.0); correct one"
    assert bad in caplog.text and ": 1 of 32 captions cannot be used (3%); left out" in caplog.text
    caplog.clear()
    open_captions(path)
    assert "converting" not in caplog.text and bad in caplog.text
    with pytest.raises(ValueError, match=r"caption 2: end .*data.max_bad \(0.01\) allows"):
        HowTo100M(str(root), max_bad=0.01).extract()
    as_json = tmp_path / "caption.json"
    as_json.write_text(json.dumps(pickle.loads(path.read_bytes())))
    assert open_captions(as_json).captions("aaa") == first.captions("aaa")
    path.write_bytes(pickle.dumps({"a": {"start": [1.0], "end": [2.0, 3.0], "text": ["x"]}}))
    with pytest.raises(ValueError, match="video 'a': .* must be lists start, end, text of one l"):
        open_captions(path)


def test_clips_of_a_video_keep_together_in_a_batch():
    batches = EpochBatchSampler(35, 10, seed=1, group=5)
    assert len(batches) == 3
    for batch in batches:
        assert [i // 5 for i in batch] == [batch[0] // 5] * 5 + [batch[5] // 5] * 5
        assert batch[:5] == list(range(batch[0], batch[0] + 5))
    halves = [list(EpochBatchSampler(35, 10, 1, rank, 2, group=5)) for rank in range(2)]
    assert [a + b for a, b in zip(*halves, strict=True)] == list(batches)
