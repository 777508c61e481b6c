"""Trains as the release trains, whatever the architecture: gradients and Adam steps against PyTorch's own layers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from architecture import architecture
from golden_files import Golden
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from synthetic import mean_bce, model_of, side_of

from benchmarks import clipped_adam as optimizer
from mmctr_jax.interop.released import params_from_released, released_from_params

torch = pytest.importorskip("torch", reason="the second reference needs PyTorch (optional)")
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy  # noqa: E402

from references.torch_model import Reference  # noqa: E402

ITEMS, TAGS, BATCH = 20, 7, 6


@st.composite
def configs(draw):
    heads = draw(st.integers(1, 4))
    max_pool = draw(st.booleans())
    widths = st.lists(st.integers(1, 6), min_size=1, max_size=3)
    return architecture(
        {
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
            "side": side_of(config, rng.integers(0, 3, (BATCH, 2))),
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


class OurModel:
    """The same of our model, under the same names; compiled once for all clip norms."""

    def __init__(self, config, items):
        self.settings = config.features, config.model
        with jax.enable_x64(True):
            self.items = jax.tree.map(jnp.asarray, items)
        self.model, self.step = model_of(config, jnp.float64), jax.jit(self._step)

    def _step(self, params, opt_state, batch, clip_norm):
        def loss(params):
            logits = self.model.apply({"params": params}, batch, self.items, train=True)
            return mean_bce(logits, batch["label"], batch["weight"])

        value, grads = jax.value_and_grad(loss)(params)
        return value, grads, *optimizer.update(grads, opt_state, params, jnp.asarray(5e-4), clip_norm)[:2]

    def steps(self, start, batches, clip_norm):
        with jax.enable_x64(True):
            init = partial(self.model.init, train=False)
            like = jax.eval_shape(init, jax.random.PRNGKey(0), batches[0], self.items)
            params = jax.tree.map(jnp.asarray, params_from_released(start, *self.settings, like["params"]))
            opt_state, losses, first = jax.jit(optimizer.init)(params), [], None
            for batch in batches:
                value, grads, params, opt_state = self.step(params, opt_state, batch, clip_norm)
                losses.append(float(value))
                first = grads if first is None else first
            first, params = (jax.tree.map(np.asarray, tree) for tree in (first, params))
        return losses, *(released_from_params(p, *self.settings) for p in (first, params))


def check_same_training(config, items, ours, start, batches, clip_norm):
    reference = Reference(config, items).double()
    reference.load_state_dict({name: torch.from_numpy(values.copy()) for name, values in start.items()})
    theirs, ours = torch_steps(reference, batches, clip_norm), ours.steps(start, batches, clip_norm)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=0, atol=1e-10)
    for part, bound in ((1, 1e-10), (2, 1e-8)):
        assert set(ours[part]) == set(theirs[part])
        for name, expected in theirs[part].items():
            np.testing.assert_allclose(ours[part][name], expected, rtol=0, atol=bound, err_msg=name)
    return theirs


@pytest.mark.parametrize("case", ["SA_released", "SB_corrected"])
def test_this_reference_is_the_released_one(case):
    """By the golden numbers; and after steps clipped at 0.05, of which those hold no parameters, ours are its own."""
    golden = Golden(case, "f64")
    file, names = golden.file, [name for name in golden.file.files if name.startswith("param/")]
    with jax.enable_x64(True):
        batches = [jax.tree.map(np.array, golden.batch(i)) for i in range(5)]
    items = {"item_tags": file["table/item_tags"], "item_emb_d128": file["table/item_emb"].astype(np.float64)}
    start = {name.removeprefix("param/"): file[name] for name in names}
    ours = OurModel(golden.config, items)
    for clip_norm, prefix in ((10.0, ""), (0.05, "clip005_")):
        losses, gradients, after = check_same_training(golden.config, items, ours, start, batches, clip_norm)
        np.testing.assert_allclose(losses, file[f"{prefix}losses5"], rtol=0, atol=1e-10)
        for name in start:
            np.testing.assert_allclose(gradients[name], file[f"grad/{name}"], rtol=0, atol=1e-10)
            if not prefix:
                np.testing.assert_allclose(after[name], file[f"after5/{name}"], rtol=0, atol=1e-8)


@pytest.mark.slow
@settings(
    max_examples=5,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # each example compiles a model: a failing one is shown as it is, not made smaller
)
@given(config=configs(), seed=st.integers(0, 2**32 - 1), clip_norm=st.sampled_from([10.0, 0.05]))
def test_any_architecture_trains_as_the_release_does(config, seed, clip_norm):
    items, batches = random_data(config, np.random.default_rng(seed))
    torch.manual_seed(seed % 2**31)
    start = {name: values.double().numpy() for name, values in Reference(config, items).state_dict().items()}
    for name, values in start.items():
        if "embedding_layers" in name:
            values[0] = 0
    check_same_training(config, items, OurModel(config, items), start, batches, clip_norm)
