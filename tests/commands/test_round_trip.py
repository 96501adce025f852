"""From published weights and features to a table, by the commands that a user types."""

import numpy as np
import pytest
import torch
from gensim.models import KeyedVectors

from fusion.commands.evaluate import evaluate
from fusion.data.datasets.protocols import PROTOCOLS, Protocol
from fusion.data.media.log_mel import NUM_MELS
from tests import golden_cases as golden
from tests.data.datasets.test_msrvtt_youcook2 import write


@pytest.fixture
def data_root(tmp_path):
    """Two dozen clips and some word vectors, as wide as the golden model takes them."""
    rng, words = np.random.default_rng(0), ["a", "cat", "dog", "runs", "sleeps"]
    case, _ = golden.read_case("eao_tva")
    text, video = case["kwargs"]["text_embed_dim"], case["kwargs"]["video_embed_dim"]
    entries = [
        {
            "id": f"video{n}",
            "2d": rng.standard_normal((30, video // 2)).astype(np.float16),
            "3d": rng.standard_normal((50, video - video // 2)).astype(np.float16),
            "audio": rng.standard_normal((NUM_MELS, 2000)).astype(np.float16),
            "caption": ["a cat", f"{words[n % 4]} {words[n % 5]}", words[n % 3]],
            "eval_caption": f"{words[n % 5]} {words[n % 4]}",
        }
        for n in range(24)
    ]
    root = tmp_path / "data"
    for name in ("jsfusion_test", "full_test"):
        write(root / "msrvtt" / "resnet" / f"msrvtt_{name}.pkl", entries)
    vectors = KeyedVectors(text)
    vectors.add_vectors(words, rng.standard_normal((5, text)).astype(np.float32))
    vectors.save_word2vec_format(str(root / "GoogleNews-vectors-negative300.bin"), binary=True)
    return root


def test_published_weights_are_converted_and_evaluated(tool, tmp_path, data_root, monkeypatch):
    case, _ = golden.read_case("eao_tva")
    published = {f"module.{k}": v for k, v in golden.published_weights(case).items()}
    torch.save({"state_dict": published, "epoch": 15}, tmp_path / "latest_model.pth")
    heads = case["fusion"]["num_heads"]
    out = tmp_path / "weights"
    code, _, errors = tool(
        "tools/convert.py", tmp_path / "latest_model.pth", "--out", out, "--num-heads", heads
    )
    assert code == 0, errors
    config, root = "configs/msrvtt/zero_shot.yaml", f"data_root={data_root}"
    code, output, errors = tool("tools/evaluate.py", out, "--set", config, root)
    assert code == 0, errors
    assert "msrvtt-968-of-1000: as published" in output
    assert "24 clips in the gallery, 1,000 counted" in output
    assert "t->v+a" in output
    with pytest.raises(ValueError, match="has 24 clips, but the protocol msrvtt-1k-A needs 1,"):
        evaluate(out, config, None, [root, "data.protocol=msrvtt-1k-A"])
    small = Protocol("msrvtt-full", "each caption", clips=24, captions=72)
    monkeypatch.setitem(PROTOCOLS, "msrvtt-full", small)
    result = evaluate(out, "configs/msrvtt/zero_shot_full.yaml", None, [root])
    counts = {n: (r["queries"], r["gallery"]) for n, r in result["directions"].items()}
    assert (counts["t->va"], counts["va->t"], counts["v->a"]) == ((72, 24), (24, 72), (24, 24))
    with pytest.raises(ValueError, match=r"qb_norm takes its bank .*msrvtt_train.pkl is missing"):
        evaluate(out, config, None, [root, "evaluation.rescoring=[qb_norm]"])
