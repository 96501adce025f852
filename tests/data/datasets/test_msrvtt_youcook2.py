"""YouCook2 and MSR-VTT in the published layout, made up: what becomes of each kind of entry."""

import pickle

import numpy as np
import pytest
import torch

from fusion.data.datasets.dataset import collate
from fusion.data.datasets.msrvtt_youcook2 import PickledVideos, msrvtt, youcook2
from fusion.data.datasets.protocols import PROTOCOLS, Protocol
from fusion.data.datasets.sampling import fit_video_tokens

WIDTH = 6


def entry(number, **changes):
    rng = np.random.default_rng(number)
    made = {
        "id": f"video{number}",
        "2d": rng.standard_normal((4, WIDTH)).astype(np.float16),
        "3d": rng.standard_normal((7, WIDTH)).astype(np.float16),
        "2d_pooled": rng.standard_normal(WIDTH).astype(np.float32),
        "3d_pooled": rng.standard_normal(WIDTH).astype(np.float32),
        "audio": rng.standard_normal((40, 50)).astype(np.float16),
        "caption": [f"a cat {number}", f"two dogs {number}", f"birds {number}"],
        "eval_caption": f"a cat {number}",
    }
    made |= changes
    return {key: value for key, value in made.items() if value is not None}


def write(path, entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(entries, protocol=2))
    return str(path)


def words(text):
    return torch.tensor([[float(len(word))] for word in text.split()])


def open_test(tmp_path, entries, **settings):
    file = write(tmp_path / "test.pkl", entries)
    return PickledVideos(test=file, **settings).clips("test", words)


def test_a_clip_has_the_features_of_its_entry(tmp_path):
    clip = open_test(tmp_path, [entry(3)], max_audio_frames=30)[0]
    raw = entry(3)
    expected = fit_video_tokens(*(torch.from_numpy(raw[k]).float() for k in ("2d", "3d")), 12)
    assert clip["id"] == "video3"
    assert clip["video"].equal(expected)
    assert clip["audio"].equal(torch.from_numpy(raw["audio"].T[:30]).float())
    assert clip["text"].tolist() == [[1.0], [3.0], [1.0]]


@pytest.mark.parametrize("tokens", [0, 3, 12])
def test_pooled_features_are_read_where_they_are_asked_for(tmp_path, tokens):
    clip = open_test(tmp_path, [entry(0)], max_video_tokens=tokens)[0]
    raw = entry(0)
    if tokens == 0:
        unit = [raw[k] / np.linalg.norm(raw[k]) for k in ("2d_pooled", "3d_pooled")]
        torch.testing.assert_close(clip["video"], torch.from_numpy(np.concatenate(unit))[None])
    assert len(clip["video"]) == {0: 1, 3: 3, 12: 7}[tokens]


def test_youcooks_names_and_its_clips_without_features_of_full_length(tmp_path):
    pooled = {f"{k}d": np.ones(WIDTH, np.float32) for k in (2, 3)}
    full = {f"{k}_full": entry(0)[k] for k in ("2d", "3d")}
    entries = [
        entry(0, **pooled, **full, caption="mix eggs", eval_caption=None),
        entry(1, **pooled, caption="fry them", eval_caption=None),
    ]
    for made in entries:
        made.pop("2d_pooled"), made.pop("3d_pooled")
    clips = open_test(tmp_path, entries)
    assert [len(clip["video"]) for clip in clips] == [7, 0]
    assert [caption.text for caption in clips.captions] == ["mix eggs", "fry them"]
    assert [len(c["video"]) for c in open_test(tmp_path, entries, max_video_tokens=0)] == [1, 1]


def test_a_long_clip_is_cut_into_parts(tmp_path):
    """As published: 0.7 of a part's frames, or it is dropped."""
    entries = [entry(0), entry(1, audio=np.ones((40, 26), np.float16)), entry(2, audio=None)]
    clips = open_test(tmp_path, entries, cut=3, max_video_tokens=2, max_audio_frames=15)
    assert clips.whole == [0, 0, 0, 1, 1, 2]
    assert [len(clip["audio"]) for clip in clips] == [15, 15, 15, 15, 11, 0]
    parts = torch.cat([clips[i]["video"] for i in range(3)])
    whole = open_test(tmp_path, entries, max_video_tokens=6)
    assert parts.equal(whole[0]["video"])
    assert len({clips._text(number) for number in (0, 0)}) == 1
    assert len(clips.captions) == 3


def test_training_takes_one_of_the_captions_by_seed_and_clip(tmp_path):
    file = write(tmp_path / "train.pkl", [entry(n) for n in range(30)])
    clips = PickledVideos(train=file).clips("train", words)

    def drawn(seed):
        clips.set_epoch(seed)
        return [clips._text(i) for i in range(len(clips))]

    assert drawn(1) == drawn(1) != drawn(2)
    assert {text.split()[0] for text in drawn(1)} == {"a", "two", "birds"}


@pytest.mark.parametrize(("kind", "width"), [("s3d", 5), ("clip", 3)])
def test_other_features_lie_beside(tmp_path, kind, width):
    values = np.ones((9, width), np.float32)
    others = [{"id": f"video{n}", kind: values} for n in range(2)]
    beside = write(tmp_path / kind / "test.pkl", others)
    settings = {"beside": {"test": beside}, "features": kind}
    clips = open_test(tmp_path, [entry(0), entry(1)], **settings)
    assert clips[1]["video"].shape == (9, width)
    write(tmp_path / kind / "test.pkl", others[::-1])
    with pytest.raises(ValueError, match=r"entry 0 of .* is 'video1', but that of .* is 'video0'"):
        open_test(tmp_path, [entry(0), entry(1)], **settings)
    write(tmp_path / kind / "test.pkl", others[:1])
    with pytest.raises(
        ValueError, match="has 1 entries, but .* has 2; take two files of one split"
    ):
        open_test(tmp_path, [entry(0), entry(1)], **settings)


BAD = {
    "audio": np.full((40, 50), np.nan, np.float16),
    "2d": np.ones((WIDTH, 4), np.float16),
    "3d": np.array([["a", "b"]]),
    "no rows of 2d": np.zeros((0, WIDTH), np.float16),
    "no frames of audio": np.zeros((40, 0), np.float16),
}


@pytest.mark.parametrize("name", BAD)
def test_features_that_cannot_be_used_are_missing_and_named(tmp_path, caplog, name):
    key = name.split()[-1]
    entries = [entry(n) for n in range(20)] + [entry(20, **{key: BAD[name]})]
    clips = open_test(tmp_path, entries)
    modality = "audio" if key == "audio" else "video"
    assert len(clips) == 21
    assert len(clips[20][modality]) == 0
    assert len(clips[19][modality]) > 0
    assert "1 of 21 clips have features that cannot be used (video20): 1 x " in caplog.text
    assert len(open_test(tmp_path, entries, bad="leave_out")) == 20
    with pytest.raises(ValueError, match=r"more than data.max_bad \(0.01\) allows"):
        open_test(tmp_path, entries, max_bad=0.01)


def test_clips_that_lack_something_go_into_a_batch(tmp_path):
    entries = [entry(0), entry(1, audio=None), entry(2, **{"2d": None})]
    clips = open_test(tmp_path, entries)
    batch = collate([clips[i] for i in range(3)])
    present = {name: flags.tolist() for name, flags in batch.present.items()}
    assert present == {
        "text": [True] * 3,
        "video": [True, True, False],
        "audio": [True, False, True],
    }


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"a": 1}, "is not a list of clips"),
        ([], "is not a list of clips"),
        ([1], "entry 0 is a int, not a dict"),
        ([{"id": "a", "caption": "x"}], "no video features that can be used: none under 2d_full"),
    ],
)
def test_a_file_of_another_layout_is_refused(tmp_path, entries, message):
    with pytest.raises(ValueError, match=message):
        open_test(tmp_path, entries)


@pytest.mark.parametrize("protocol", [name for name, p in PROTOCOLS.items() if p.clips])
def test_a_protocol_is_about_its_own_test_set(tmp_path, protocol):
    with pytest.raises(ValueError, match=rf"f has 3,352 clips, but the protocol {protocol} needs"):
        PROTOCOLS[protocol].check(2 + 3350, "f")
    if not PROTOCOLS[protocol].may_lack:
        with pytest.raises(ValueError, match="has 2 clips, but"):
            open_test(tmp_path, [entry(0), entry(1)], protocol=protocol)


def test_the_published_folders_are_found(tmp_path):
    names = ["msrvtt/resnet/msrvtt_jsfusion_test.pkl", "youcook/resnet/youcook_val.pkl"]
    for name in names:
        write(tmp_path / name, [entry(0, **{"2d_full": entry(0)["2d"]})])
    assert len(msrvtt(str(tmp_path)).clips("test", words)) == 1
    assert len(youcook2(str(tmp_path)).clips("test", words)) == 1
    with pytest.raises(
        ValueError, match=r"msrvtt_train.pkl is missing; data_root must be a folder"
    ):
        msrvtt(str(tmp_path)).clips("train", words)
    with pytest.raises(ValueError, match=r"add data_root=FOLDER; .*msrvtt/clip/msrvtt_train.pkl"):
        msrvtt(features="clip")


def test_avlnets_names_are_found_too(tmp_path):
    write(tmp_path / "youcook_val_audio.pkl", [entry(0)])
    assert len(youcook2(str(tmp_path), protocol="all").clips("test", words)) == 1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"features": "i3d"}, "data.features: unknown 'i3d'; choose from resnet, s3d, clip"),
        ({"protocol": "1k"}, "data.protocol: unknown '1k'; choose from all, msrvtt-1k-A"),
        ({"bad": "zeros"}, "data.bad: unknown 'zeros'"),
        ({"long_clips": "cut"}, "data.long_clips: unknown 'cut'"),
    ],
)
def test_unknown_names_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        PickledVideos(**setting)


def small_full_test(monkeypatch, clips, captions):
    protocol = Protocol("msrvtt-full", "each caption", clips=clips, captions=captions)
    monkeypatch.setitem(PROTOCOLS, "msrvtt-full", protocol)


def test_the_full_test_has_an_item_for_each_caption(tmp_path, monkeypatch):
    entries = [entry(0), entry(1, caption="a bird"), entry(2, caption=["x", "y"], id="video0")]
    small_full_test(monkeypatch, 3, 6)
    clips = open_test(tmp_path, entries, protocol="msrvtt-full", max_audio_frames=30)
    assert len(clips) == 6
    assert clips.shows == [0, 0, 0, 1, 2, 2]  # two entries are two clips whatever their names
    said = [caption.text for caption in clips.captions]
    assert said == ["a cat 0", "two dogs 0", "birds 0", "a bird", "x", "y"]
    assert clips[1]["text"].equal(words("two dogs 0"))
    assert clips[1]["video"].equal(clips[0]["video"])
    assert clips[5]["audio"].equal(open_test(tmp_path, entries, max_audio_frames=30)[2]["audio"])


def test_other_protocols_take_one_caption_of_a_clip(tmp_path):
    clips = open_test(tmp_path, [entry(0), entry(1)])
    assert clips.shows == [0, 1]
    assert [caption.text for caption in clips.captions] == ["a cat 0", "a cat 1"]


def test_parts_of_a_cut_clip_belong_to_each_of_its_captions(tmp_path, monkeypatch):
    small_full_test(monkeypatch, 1, 3)
    settings = {"cut": 2, "max_video_tokens": 2, "max_audio_frames": 15}
    clips = open_test(tmp_path, [entry(0)], protocol="msrvtt-full", **settings)
    assert clips.whole == [0, 0, 1, 1, 2, 2]
    assert clips[3]["text"].equal(words("two dogs 0"))
    assert clips[3]["video"].equal(clips[1]["video"])


def test_a_full_test_that_lacks_captions_is_refused(tmp_path, monkeypatch):
    small_full_test(monkeypatch, 2, 40)
    with pytest.raises(ValueError, match="has 6 captions, but the protocol msrvtt-full needs 40"):
        open_test(tmp_path, [entry(0), entry(1)], protocol="msrvtt-full")


def test_the_full_test_is_a_file_of_its_own(tmp_path):
    with pytest.raises(
        ValueError,
        match=r"full_test.pkl is missing \(there is no folder .*\); .*entry for each of the 2,990",
    ):
        msrvtt(str(tmp_path), protocol="msrvtt-full").clips("test", words)


def test_a_test_file_that_is_missing_is_named_before_training(tmp_path):
    train = write(tmp_path / "train.pkl", [entry(0)])
    source = PickledVideos(train=train, test=str(tmp_path / "none.pkl"))
    with pytest.raises(ValueError, match="none.pkl is missing; check the path"):
        source.extract()
