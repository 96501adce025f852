"""A run small enough for tests: a tiny corpus that is rendered once, a tiny model, a config."""

import yaml

CONFIG = {
    "seed": 0,
    "data": {"name": "demo", "films": 2},
    "text_encoder": {"name": "word2vec", "dim": 8, "epochs": 1},
    "model": {
        "name": "eao",
        "modalities": {
            "text": {"dim": 8},
            "video": {"dim": 125},
            "audio": {
                "encoder": {
                    "name": "davenet",
                    "version": 1,
                    "num_frames": 64,
                    "widths": [2, 2, 2, 4, 4],
                    "batchnorm_group": 2,
                }
            },
        },
        "combinations": ["t", "v", "a", "tv", "ta", "va"],
        "token_dim": 8,
        "embedding_dim": 8,
        "num_heads": 2,
    },
    "loss": {"name": "combinatorial", "terms": {"t|v": 1, "t|a": 1, "t|va": 1}},
    "trainer": {"epochs": 2, "batch_size": 4, "learning_rate": 0.01, "log_every": 1},
    "evaluation": {"queries_in_report": 0},  # cutting films for a page takes as long as training
}


def write_config(folder, **changes):
    """Write the config, with changes such as ``trainer={"epochs": 1}``, and give its path."""
    config = CONFIG | {"output": str(folder / "run")}
    for key, value in changes.items():
        config[key] = CONFIG.get(key, {}) | value if isinstance(value, dict) else value
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return path
