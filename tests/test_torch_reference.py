"""Trains as the release trains, whatever the architecture: gradients and Adam steps against PyTorch's own layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mmctr_jax import optimizer
from mmctr_jax.config import parse_config
from mmctr_jax.models import MMCTR
from mmctr_jax.released import params_from_released, released_from_params
from mmctr_jax.step import weighted_bce

torch = pytest.importorskip("torch", reason="the second reference needs PyTorch (optional)")
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy  # noqa: E402
from torch_reference import Reference  # noqa: E402

ITEMS, TAGS, BATCH = 20, 7, 6


@st.composite
def configs(draw):
    heads = draw(st.integers(1, 4))
    max_pool = draw(st.booleans())
    widths = st.lists(st.integers(1, 6), min_size=1, max_size=3)
    return parse_config(
        {
            "data": {"train": "-", "valid": "-", "item_info": "-"},
            "features": {
                "num_items": ITEMS,
                "side": [{"name": "likes_level", "vocab_size": 4}, {"name": "views_level", "vocab_size": 3}],
                "item_features": [
                    {"kind": "tags", "name": "item_tags", "vocab_size": TAGS},
                    {"kind": "embedding", "name": "item_emb_d128", "dim": heads * draw(st.integers(1, 2))},
                ],
            },
            "model": {
                "embedding_dim": heads * draw(st.integers(1, 2)),
                "max_history": draw(st.integers(1, 7)),
                "history_mask": draw(st.sampled_from(["valid", "released"])),
                "project_mm": draw(st.booleans()),
                "transformer": {
                    "layers": draw(st.integers(0, 3)),
                    "heads": heads,
                    "feedforward": draw(st.integers(1, 6)),
                    "dropout": 0.0,
                    "first_k": draw(st.integers(0 if max_pool else 1, 9)),
                    "max_pool": max_pool,
                },
                "dcn": {"cross_layers": draw(st.integers(0, 3)), "deep": draw(widths), "deep_dropout": 0.0},
                "head": draw(widths),
            },
        }
    )


def random_data(config, rng):
    dim, N = config.features.item_features[1].dim, config.model.max_history
    items = {"item_tags": rng.integers(0, TAGS, (ITEMS, 3)), "item_emb_d128": rng.normal(size=(ITEMS, dim))}
    items["item_tags"][[0, 4]], items["item_emb_d128"][0] = 0, 0

    def batch():
        history = rng.integers(1, ITEMS, (BATCH, N))
        for row, length in enumerate(rng.permutation([0, N, *rng.integers(0, N + 1, BATCH - 2)])):
            history[row, : N - length] = 0
        return {
            "history": history,
            "item": rng.integers(1, ITEMS, BATCH),
            "side": rng.integers(0, 3, (BATCH, 2)),
            "label": rng.integers(0, 2, BATCH).astype(np.float64),
            "weight": np.ones(BATCH),
        }

    return items, [batch() for _ in range(5)]


def torch_steps(reference, batches, clip_norm):
    """Losses, gradients of the first step, and the state dict after a step on each batch."""
    adam = torch.optim.Adam(reference.parameters(), lr=5e-4)
    losses, first = [], None
    for batch in batches:
        adam.zero_grad()
        loss = cross_entropy(reference(batch), torch.from_numpy(batch["label"]))
        loss.backward()
        if first is None:
            first = {
                name: np.zeros(p.shape) if p.grad is None else p.grad.numpy().copy()
                for name, p in reference.named_parameters()
            }
        torch.nn.utils.clip_grad_norm_(reference.parameters(), clip_norm)
        adam.step()
        losses.append(loss.item())
    return losses, first, {name: x.numpy().copy() for name, x in reference.state_dict().items()}


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # each example compiles a model: a failing one is shown as it is, not made smaller
)
@given(config=configs(), seed=st.integers(0, 2**32 - 1), clip_norm=st.sampled_from([10.0, 0.05]))
def test_any_architecture_trains_as_the_release_does(config, seed, clip_norm):
    rng = np.random.default_rng(seed)
    items, batches = random_data(config, rng)
    torch.manual_seed(seed % 2**31)
    reference = Reference(config, items).double()
    with torch.no_grad():
        for table in reference.embedding_layer.embedding_layer.embedding_layers.values():
            table.weight[0] = 0
    start = {name: x.numpy().copy() for name, x in reference.state_dict().items()}
    losses, gradients, after = torch_steps(reference, batches, clip_norm)

    with jax.enable_x64(True):
        model = MMCTR(config, jnp.float64)
        items = jax.tree.map(jnp.asarray, items)
        like = jax.eval_shape(lambda: model.init(jax.random.PRNGKey(0), batches[0], items, train=False))
        params = jax.tree.map(jnp.asarray, params_from_released(start, config, like["params"]))

        @jax.jit
        def step(params, opt_state, batch):
            def loss(params):
                logits = model.apply({"params": params}, batch, items, train=True)
                return weighted_bce(logits, batch["label"], batch["weight"])

            value, grads = jax.value_and_grad(loss)(params)
            return value, grads, *optimizer.update(grads, opt_state, params, jnp.asarray(5e-4), clip_norm)[:2]

        opt_state, ours, first = optimizer.init(params), [], None
        for batch in batches:
            value, grads, params, opt_state = step(params, opt_state, batch)
            ours.append(float(value))
            first = grads if first is None else first
        first, params = (jax.tree.map(np.asarray, tree) for tree in (first, params))
    np.testing.assert_allclose(ours, losses, rtol=0, atol=1e-10)
    for name, expected in gradients.items():
        np.testing.assert_allclose(
            released_from_params(first, config)[name], expected, rtol=0, atol=1e-10, err_msg=name
        )
    for name, expected in after.items():
        np.testing.assert_allclose(
            released_from_params(params, config)[name], expected, rtol=0, atol=1e-8, err_msg=name
        )
