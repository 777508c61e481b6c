"""Small made-up data in the challenge's schema, with something to learn, and the config that fits it."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmctr_jax.config import Config, parse_config
from mmctr_jax.data.items import Items, load_items
from mmctr_jax.models import Model, build_model
from mmctr_jax.runs.summary import Summary
from mmctr_jax.training import step
from mmctr_jax.training.step import summed_bce

PUBLISHED = Path(__file__).parents[1] / "configs" / "microlens_1m.yaml"
"""The published model at its published sizes, all vocabularies stated."""

ITEMS, TAGS, DIM, MAX_HISTORY = 60, 12, 8, 10  # ITEMS and TAGS count their padding id 0


def item_table(rng: np.random.Generator) -> pa.Table:
    tags = [[]] + [list(rng.integers(1, TAGS, rng.integers(0, 4))) for _ in range(ITEMS - 1)]
    tags[1] = [TAGS - 1]  # the largest id is in use
    vectors = rng.normal(size=(ITEMS, DIM)).astype(np.float32)
    vectors[:, 0] = np.arange(ITEMS) % 2 * 2 - 1  # odd or even: what the clicks depend on
    vectors[0] = 0
    return pa.table(
        {
            "item_id": np.arange(ITEMS),
            "item_tags": pa.array(tags, pa.list_(pa.int64())),
            "item_emb_d8": pa.array(list(vectors), pa.list_(pa.float32())),
        }
    )


def samples(rng: np.random.Generator, rows: int) -> pa.Table:
    """Clicks follow the likes level, and whether target and last click are alike (both odd or both even)."""
    histories = [list(rng.integers(1, ITEMS, rng.integers(0, 15))) for _ in range(rows)]
    target = rng.integers(1, ITEMS, rows)
    likes = rng.integers(0, 11, rows)
    alike = np.array([bool(h) and h[-1] % 2 == t % 2 for h, t in zip(histories, target, strict=True)])
    label = (rng.random(rows) < 1 / (1 + np.exp(5 - likes - 2 * alike))).astype(np.int64)
    label[:2] = 0, 1
    return pa.table(
        {
            "user_id": rng.integers(1, 20, rows),
            "item_seq": pa.array(histories, pa.list_(pa.int64())),
            "item_id": target,
            "likes_level": likes,
            "views_level": rng.integers(0, 11, rows),
            "label": label,
        }
    )


def write_dataset(folder: Path, rows: int = 300, seed: int = 0) -> Path:
    """train, valid, test (without labels, with ID), test_labels and item_info .parquet."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(item_table(rng), folder / "item_info.parquet")
    pq.write_table(samples(rng, rows), folder / "train.parquet")
    pq.write_table(samples(rng, 70), folder / "valid.parquet")
    test = samples(rng, 90)
    ids = pa.array(np.arange(test.num_rows))
    pq.write_table(pa.table({"ID": ids, "label": test["label"]}), folder / "test_labels.parquet")
    pq.write_table(test.drop_columns("label").add_column(0, "ID", ids), folder / "test.parquet")
    return folder


def raw_config(data: Path) -> dict:
    """Plain settings of a tiny model on the data set in `data`, as YAML would give them."""
    return {
        "data": {
            **{name: str(data / f"{name}.parquet") for name in ("train", "valid", "test", "item_info")},
            "cache_dir": str(data / "cache"),
        },
        "features": {
            "item_features": [
                {"kind": "tags", "name": "item_tags"},
                {"kind": "embedding", "name": "item_emb_d8", "dim": DIM},
            ]
        },
        "model": {
            "embedding_dim": 4,
            "max_history": MAX_HISTORY,
            "transformer": {"layers": 1, "feedforward": 8, "first_k": 3},
            "dcn": {"cross_layers": 2, "deep": [16, 8]},
            "head": [8],
        },
        "train": {
            "batch_size": 64,
            "eval_batch_size": 32,
            "epochs": 2,
            "learning_rate": 0.01,
            "seed": 1,
            "length_buckets": [],  # one length, so that the many tests that train compile one step
        },
    }


CODES = {"kind": "codes", "name": "codes", "source": "item_emb_d8", "dim": DIM, "levels": 2, "size": 5}
NEIGHBOURS = {"kind": "neighbours", "name": "neighbours", "source": "item_emb_d8", "dim": DIM, "top_k": 3}
SYSTEMS = {
    "din": {"model": {"name": "din", "attention": [8, 4], "deep": [16, 8]}},
    "din_dice": {"model": {"name": "din", "attention": [8, 4], "deep": [16, 8], "activation": "dice"}},
    "without_transformer": {"model": {"name": "without_transformer", "dcn": {"deep": [16, 8]}, "head": [8]}},
    "without_dcn": {
        "model": {
            "name": "without_dcn",
            "transformer": {"layers": 1, "feedforward": 8, "first_k": 3, "target_attention": 1},
            "head": [8],
        }
    },
    "matching": {"model": {"name": "matching", "tower": [8, 4], "attention": 4, "deep": [16, 8]}},
    "similarity": {"model": {"transformer": {"similarity": True}, "dcn": {"similarity_bins": 4}}},
    "codes": {"features": {"item_features": [{"kind": "tags", "name": "item_tags", "vocab_size": TAGS}, CODES]}},
    "neighbours": {
        "features": {
            "item_features": [
                {"kind": "tags", "name": "item_tags", "vocab_size": TAGS},
                {"kind": "embedding", "name": "item_emb_d8", "dim": DIM},
                NEIGHBOURS,
            ]
        }
    },
}
"""Changes to a tiny config: one for each system besides the full model."""


QUICK = {"model": {"name": "without_transformer", "dcn": {"cross_layers": 1, "deep": [4]}, "head": [4]}}
"""The model that is compiled soonest, for what is not about the model; it has dropout, as the tiny one has."""


def merged(base: dict, change: dict) -> dict:
    """`base` with `change` laid over it, section by section; another model keeps only what all models have."""
    result = dict(base)
    model = change.get("model")
    if isinstance(model, dict) and model.get("name", "mmctr") != "mmctr":
        shared = ("embedding_dim", "max_history")
        result["model"] = {key: value for key, value in base.get("model", {}).items() if key in shared}
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def resolved_config(change: dict | None = None) -> Config:
    """A config whose vocabularies are known without any file: for tests of the model alone."""
    raw = raw_config(Path("unused"))
    raw["features"] = {
        "num_items": ITEMS,
        "item_features": [
            {"kind": "tags", "name": "item_tags", "vocab_size": TAGS},
            {"kind": "embedding", "name": "item_emb_d8", "dim": DIM},
        ],
    }
    return parse_config(merged(raw, change or {}))


def config_for(folder: Path, **change: dict) -> Config:
    """The tiny config on the data set in `folder`, with `change` laid over it section by section."""
    return parse_config(merged(raw_config(folder), change))


def mean_bce(logits, label, weight):
    """The loss that a training step descends."""
    return summed_bce(logits, label, weight) / weight.sum()


def summary_of(stopped: str = "1 epochs done", **values) -> Summary:
    """A training's summary, in place of a training. `values` replace those of no interest."""
    default = {"steps": 5, "epochs": 1.0, "best_step": 5, "validation": {}, "samples_per_second": None}
    return Summary.from_json(default | {"seconds": 60.0, "parameters": 1, "stopped": stopped} | values)


def model_of(config: Config, dtype=None) -> Model:
    """The model of a resolved config, in another precision than the config's if that is asked for."""
    return step.model_of(config) if dtype is None else build_model(config.model, config.features, dtype)


def items_of(config: Config, known=None) -> Items:
    """What the config's item_info gives."""
    cache_dir = config.data.cache_dir
    if not Path(cache_dir).is_absolute():
        cache_dir = Path(config.data.item_info).parent / cache_dir
    return load_items(config.data.item_info, config.features, cache_dir, known)


def width_of(config: Config) -> int:
    """D of a config's model."""
    return config.features.item_width(config.model.embedding_dim)


def side_of(config: Config, values_BxS) -> dict:
    """A column for each side feature, as batches have them."""
    return {f.name: values_BxS[:, i] for i, f in enumerate(config.features.side)}
