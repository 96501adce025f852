"""A frozen text encoder beside a model: the states of each sentence alone, in any batch."""

import pytest
import torch

from fusion.data.captions.table import Caption
from fusion.data.datasets.dataset import ClipSet
from fusion.evaluation.embed import embed
from fusion.models import EAO
from fusion.models.text.language_models import CLIPText, HFText
from fusion.models.text.tower import TextReader, TextTower
from fusion.tokens import Batch, Tokens
from tests.models.test_clip_text import folder as clip_folder  # noqa: F401
from tests.models.test_language_models import save_bert

TEXTS = ["a red star", "...", "left red a star", "star", "a red star", "", "red star", "a"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return HFText(save_bert(tmp_path_factory.mktemp("bert")), max_words=3)


def numbered(encoder, texts=TEXTS):
    return Tokens.pack([TextReader(encoder)(text) for text in texts])


def expected(encoder, texts=TEXTS):
    return Tokens.pack([encoder(text) for text in texts])


def assert_same(found, wanted):
    assert found.host_lengths.tolist() == wanted.host_lengths.tolist()
    assert found.lengths.tolist() == wanted.lengths.tolist()
    torch.testing.assert_close(found.values, wanted.values, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.* have more than 3 tokens")
def test_a_batch_has_the_states_of_each_sentence_alone(bert):
    tower = TextTower(bert)
    for _ in range(2):  # the second time from those that were kept
        assert_same(tower(numbered(bert), CPU), expected(bert))
    assert tower.encoded == 5  # different sentences with words


def test_so_it_is_with_clip(clip_folder):  # noqa: F811
    encoder = CLIPText(str(clip_folder), max_words=4)
    tower = TextTower(encoder)
    assert_same(tower(numbered(encoder), CPU), expected(encoder))
    assert max(len(encoder.read(text)) for text in TEXTS) == 5  # and no token that changes nothing


@pytest.mark.filterwarnings("ignore:.* have more than 3 tokens")
@pytest.mark.parametrize("rows", [0, 1, 3, 4, 5, 7, 100])
def test_what_is_kept_is_bounded_and_right(bert, rows):
    tower = TextTower(bert, rows * 8 * 4)
    orders = [TEXTS, TEXTS[::-1], TEXTS[:3], TEXTS[3:], TEXTS[2:5], ["a"], TEXTS]
    for texts in orders:
        assert_same(tower(numbered(bert, texts), CPU), expected(bert, texts))
        assert len(tower._kept) == rows
        spans = [range(first, first + n) for first, n in tower._places.values()]
        assert len({row for span in spans for row in span}) == sum(map(len, spans)) <= rows


def test_presence_is_known_before_texts_are_encoded(bert):
    batch = Batch(tuple(TEXTS), {"text": numbered(bert)}).to("meta")
    assert batch.inputs["text"].values.device.type == "cpu"  # looked up there
    wanted = [bool(len(bert(text))) for text in TEXTS]
    assert (numbered(bert).host_lengths > 0).tolist() == wanted


def test_a_model_reads_numbered_tokens_beside_a_tower_and_states_as_before(bert):
    torch.manual_seed(0)
    sizes = {"token_dim": 8, "embedding_dim": 8, "num_heads": 2}
    model = EAO({"text": {"dim": 8}, "video": {"dim": 4}}, ["t", "v", "tv"], **sizes).eval()
    before = model.state_dict().keys()
    video = Tokens.pack([torch.randn(2, 4) for _ in TEXTS])
    wanted = model({"text": expected(bert), "video": video})
    tower = TextTower(bert)
    tower.beside(model)
    tower.beside(model)
    found = model({"text": numbered(bert), "video": video})
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert tower.encoded == 5
    torch.testing.assert_close(model({"text": expected(bert), "video": video}), wanted)
    assert model.state_dict().keys() == before
    assert not [p for p in model.parameters() if p is next(bert.model.parameters())]


class SeveralCaptions(ClipSet):
    """Texts of three clips, as ``read`` gives them."""

    shows = (0, 0, 0, 0, 1, 1, 2, 2)

    def __init__(self, read):
        self.captions = [
            Caption(f"film{clip}", 0, 1, t) for clip, t in zip(self.shows, TEXTS, strict=True)
        ]
        self.read = read

    def __getitem__(self, index):
        return self.caption(index) | {"video": torch.full((2, 4), float(self.shows[index]))}

    def caption(self, index):
        return {"id": str(index), "text": self.read(TEXTS[index])}


@pytest.mark.filterwarnings("ignore:.* have more than 3 tokens")
def test_clips_with_several_captions_are_embedded_as_with_states(bert):
    """Evaluation then makes the tokens of a model apart from its forward pass."""
    torch.manual_seed(0)
    sizes = {"token_dim": 8, "embedding_dim": 8, "num_heads": 2}
    model = EAO({"text": {"dim": 8}, "video": {"dim": 4}}, ["t", "v", "tv"], **sizes).eval()
    wanted = embed(model, SeveralCaptions(bert), shows=SeveralCaptions.shows).embeddings
    TextTower(bert).beside(model)
    clips = SeveralCaptions(TextReader(bert))
    found = embed(model, clips, shows=clips.shows).embeddings
    torch.testing.assert_close(dict(found), dict(wanted), rtol=1e-5, atol=1e-6)
