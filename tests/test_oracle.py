"""Equal to an independent forward pass in plain numpy (references/oracle.py), for models of any shape, in float64.

The oracle is itself held against the numbers made by running the reference.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from architecture import architecture
from golden_files import CASES, Golden
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from synthetic import model_of, side_of

from mmctr_jax.models import MODELS
from references import oracle

ITEMS, TAGS = 30, 9


@pytest.mark.parametrize("case", CASES)
def test_the_oracle_gives_the_reference_logits(case):
    golden = Golden(case, "f64")
    items = {name: golden.file[f"table/{key}"] for name, key in golden.TABLES.items()}
    with jax.enable_x64(True):
        params, batch = (jax.tree.map(np.asarray, tree) for tree in (golden.params(), golden.batch(0)))
    logits = oracle.logits(golden.config, params, {}, items, batch)
    np.testing.assert_allclose(logits, golden.file["eval/logit0"].ravel(), rtol=0, atol=1e-10)


widths = st.lists(st.integers(1, 6), max_size=2)
transformers = st.fixed_dictionaries(
    {
        "layers": st.integers(0, 3),
        "heads": st.integers(1, 4),
        "feedforward": st.integers(1, 5),
        "first_k": st.integers(1, 10),
        "max_pool": st.booleans(),
        "similarity": st.booleans(),
        "target_attention": st.integers(0, 4),
    }
)
dcns = st.fixed_dictionaries(
    {
        "cross_layers": st.integers(0, 3),
        "rank": st.none() | st.integers(1, 4),
        "deep": widths,
        "batch_norm": st.booleans(),
        "similarity_bins": st.integers(0, 5),
    }
)
masks = st.sampled_from(["valid", "released"])
MODEL_FIELDS = {
    "mmctr": {"history_mask": masks, "transformer": transformers, "dcn": dcns, "head": widths},
    "without_transformer": {"dcn": dcns, "head": widths},
    "without_dcn": {"history_mask": masks, "transformer": transformers, "head": widths},
    "din": {
        "attention": widths,
        "deep": widths,
        "activation": st.sampled_from(["relu", "dice"]),
        "batch_norm": st.booleans(),
    },
    "matching": {
        "tower": st.lists(st.integers(1, 6), min_size=1, max_size=3),
        "attention": st.integers(1, 4),
        "temperature": st.floats(0.1, 1),
        "deep": widths,
    },
}


@st.composite
def configs(draw, name):
    """Item widths are multiples of the number of heads; K = 0 where the max-pool keeps the history."""
    model = {key: draw(values) for key, values in MODEL_FIELDS[name].items()}
    model |= {"name": name, "max_history": draw(st.integers(1, 8)), "project_mm": draw(st.booleans())}
    heads = model["transformer"]["heads"] if "transformer" in model else 1
    model["embedding_dim"] = heads * draw(st.integers(1, 4))
    text, picture = (heads * draw(st.integers(1, 3)) for _ in range(2))
    source = {"source": "text", "dim": text}
    known = [
        {"kind": "tags", "name": "item_tags", "vocab_size": TAGS},
        {"kind": "categorical", "name": "category", "vocab_size": 5},
        {"kind": "embedding", "name": "text", "dim": text},
        {"kind": "embedding", "name": "picture", "dim": picture},
        {"kind": "codes", "name": "codes", "levels": draw(st.integers(1, 3)), "size": 3, **source},
        {"kind": "neighbours", "name": "neighbours", "top_k": 2, **source},
    ]
    features = draw(st.lists(st.sampled_from(known), unique_by=lambda f: f["name"]))
    if not any(f["kind"] == "embedding" for f in features):
        for section, off in (("transformer", {"similarity": False}), ("dcn", {"similarity_bins": 0})):
            if section in model:
                model[section] |= off
    if "transformer" in model and model["transformer"]["max_pool"] and draw(st.booleans()):
        model["transformer"]["first_k"] = 0
    sides = [{"name": "likes_level", "vocab_size": 4}, {"name": "age", "vocab_size": 3}]
    return architecture(
        {
            "features": {"num_items": ITEMS, "side": sides[: draw(st.integers(0, 2))], "item_features": features},
            "model": model,
        }
    )


def random_items(config, rng):
    items = {}
    for f in config.features.item_features:
        if f.kind == "embedding":
            items[f.name] = rng.normal(size=(ITEMS, f.dim))
            items[f.name][3] = 0  # an item without a vector
        elif f.kind == "categorical":
            items[f.name] = rng.integers(0, f.vocab_size, ITEMS)
        else:
            width = {"tags": 3, "codes": getattr(f, "levels", 0), "neighbours": 2}[f.kind]
            high = {"tags": TAGS, "codes": f.table_size, "neighbours": ITEMS}[f.kind]
            holes = rng.integers(0, 2, (ITEMS, width))  # anywhere
            items[f.name] = rng.integers(0, high, (ITEMS, width)) * holes
        items[f.name][0] = 0
    return items


def random_batch(config, rng):
    N = config.model.max_history
    lengths = [0, 1, N // 2, N - 1, N]
    history = np.zeros((len(lengths), N), np.int32)
    for row, length in enumerate(lengths):
        history[row, N - length :] = rng.integers(1, ITEMS, length)
    return {
        "history": history,
        "item": rng.integers(1, ITEMS, len(lengths)).astype(np.int32),
        "side": side_of(config, rng.integers(0, 3, (len(lengths), len(config.features.side))).astype(np.int32)),
        "weight": np.ones(len(lengths)),
    }


def random_variables(model, items, batch, rng):
    """Every weight of order 1, padding rows included: the model must not read them."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.PRNGKey(0), batch, items, train=False))

    def draw(path, x):
        values = rng.normal(0, 0.5, x.shape)
        return np.abs(values) + 0.1 if path[-1].key == "var" else values

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.mark.parametrize("name", MODELS)
@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # each example compiles a model: a failing one is shown as it is, not made smaller
)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_any_model_equals_the_oracle(name, data, seed):
    config, rng = data.draw(configs(name)), np.random.default_rng(seed)
    items, batch = random_items(config, rng), random_batch(config, rng)
    with jax.enable_x64(True):
        model = model_of(config, jnp.float64)
        variables = random_variables(model, items, batch, rng)
        logits = np.asarray(jax.jit(model.apply, static_argnames="train")(variables, batch, items, train=False))
    expected = oracle.logits(config, variables["params"], variables.get("batch_stats", {}), items, batch)
    np.testing.assert_allclose(logits, expected, rtol=1e-9, atol=1e-9)
