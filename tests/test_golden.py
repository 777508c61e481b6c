"""The same model as the released one: equal to numbers that were made by running it (tests/golden/).

float32: logits within 2e-5, losses within 5e-6, gradients within 1e-4 relative by norm. float64: logits, losses and
gradients within 1e-10, all parameters after five Adam steps within 1e-8. Parameters after steps are judged in float64
only: the true gradient of some attention biases is zero, and Adam turns rounding noise into steps.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from synthetic import mean_bce

from mmctr_jax.config.schema import parse_config
from mmctr_jax.interop.released import params_from_released
from mmctr_jax.models import MMCTR
from mmctr_jax.training import optimizers as optimizer

FOLDER = Path(__file__).parent / "golden"
CASES = [f"S{arch}_{mask}" for arch in "AB" for mask in ("released", "corrected")]


def config_of(settings: dict):
    features = settings["features"]
    return parse_config(
        {
            "data": {"train": "-", "valid": "-", "item_info": "-"},
            "features": {
                "num_items": features["item_id"]["vocab_size"],
                "side": [{"name": n, "vocab_size": features[n]["vocab_size"]} for n in ("likes_level", "views_level")],
                "item_features": [
                    {"kind": "tags", "name": "item_tags", "vocab_size": features["item_tags"]["vocab_size"]},
                    {"kind": "embedding", "name": "item_emb_d128", "dim": features["item_emb_d128"]["embedding_dim"]},
                ],
            },
            "model": {
                "embedding_dim": settings["embedding_dim"],
                "max_history": settings["max_len"],
                "history_mask": {"released": "released", "corrected": "valid"}[settings["variant"]],
                "transformer": {
                    "layers": settings["transformer_layers"],
                    "heads": settings["num_heads"],
                    "feedforward": settings["dim_feedforward"],
                    "dropout": settings["transformer_dropout"],
                    "first_k": settings["first_k_cols"],
                    "max_pool": settings["concat_max_pool"],
                },
                "dcn": {
                    "cross_layers": settings["dcn_cross_layers"],
                    "deep": settings["dcn_hidden_units"],
                    "deep_dropout": settings["net_dropout"],
                },
                "head": settings["mlp_hidden_units"],
            },
        }
    )


class Golden:
    def __init__(self, case: str, precision: str):
        self.file = np.load(FOLDER / f"{case}_{precision}.npz", allow_pickle=False)
        settings = json.loads(str(self.file["config_json"]))
        self.settings, self.config = settings, config_of(settings)
        self.dtype = jnp.float64 if precision == "f64" else jnp.float32
        self.model = MMCTR(self.config, self.dtype)
        self.items = {name: jnp.asarray(self.file[f"table/{key}"]) for name, key in self.TABLES.items()}
        self.value_and_grad = jax.jit(jax.value_and_grad(self._loss))
        self.logits = jax.jit(
            lambda params, batch: self.model.apply({"params": params}, batch, self.items, train=False)
        )

    TABLES = {"item_tags": "item_tags", "item_emb_d128": "item_emb"}

    def params(self, prefix="param"):
        named = {n.removeprefix(f"{prefix}/"): self.file[n] for n in self.file.files if n.startswith(f"{prefix}/")}
        like = jax.eval_shape(lambda: self.model.init(jax.random.PRNGKey(0), self.batch(0), self.items, train=False))
        return jax.tree.map(jnp.asarray, params_from_released(named, self.config, like["params"]))

    def batch(self, i):
        get = lambda name: jnp.asarray(self.file[f"batch{i}/{name}"])  # noqa: E731
        return {
            "history": get("item_seq"),
            "item": get("item_id"),
            "side": jnp.stack([get("likes_level"), get("views_level")], axis=1),
            "label": get("label").astype(self.dtype),
            "weight": jnp.ones(len(get("label")), self.dtype),
        }

    def _loss(self, params, batch):
        logits = self.model.apply({"params": params}, batch, self.items, train=True)
        return mean_bce(logits, batch["label"], batch["weight"])


@pytest.fixture(params=CASES)
def f32(request):
    return Golden(request.param, "f32")


@pytest.fixture(params=CASES)
def f64(request):
    with jax.enable_x64(True):
        yield Golden(request.param, "f64")


def largest(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: np.abs(x - y).max(), a, b)))


def check(what, difference, bound):
    print(f"{what}: {difference:.1e} (bound {bound:.0e})")  # shown by pytest -s
    assert difference <= bound, what


def check_logits(golden, bound):
    logits = [golden.logits(golden.params(), golden.batch(i)) for i in range(5)]
    assert {x.dtype for x in logits} == {jnp.dtype(golden.dtype)}
    check("logits", max(np.abs(x - golden.file[f"eval/logit{i}"]).max() for i, x in enumerate(logits)), bound)


def test_float32_logits_losses_gradients(f32):
    check_logits(f32, 2e-5)
    loss, grads = f32.value_and_grad(f32.params(), f32.batch(0))
    check("loss", abs(float(loss) - float(f32.file["loss0"])), 5e-6)
    expected = f32.params("grad")
    relative = jax.tree.map(lambda g, e: np.linalg.norm(g - e) / np.linalg.norm(e), grads, expected)
    check("gradients, relative", max(jax.tree.leaves(relative)), 1e-4)


def test_float64_logits_losses_gradients_and_adam_steps(f64):
    check_logits(f64, 1e-10)
    loss, grads = f64.value_and_grad(f64.params(), f64.batch(0))
    check("loss", abs(float(loss) - float(f64.file["loss0"])), 1e-10)
    check("gradients", largest(grads, f64.params("grad")), 1e-10)
    for clip_norm, prefix in ((10.0, ""), (0.05, "clip005_")):
        check_adam_steps(f64, clip_norm, prefix)


def check_adam_steps(golden, clip_norm, prefix):
    params = golden.params()
    opt_state = optimizer.init(params)
    update = jax.jit(lambda *args: optimizer.update(*args, golden.settings["lr"] + jnp.zeros(()), clip_norm))
    losses, norms = [], []
    for i in range(5):
        loss, grads = golden.value_and_grad(params, golden.batch(i))
        params, opt_state, norm = update(grads, opt_state, params)
        losses.append(float(loss)), norms.append(float(norm))
    check(f"losses, clipped at {clip_norm}", np.abs(losses - golden.file[f"{prefix}losses5"]).max(), 1e-10)
    check(f"gradient norms, clipped at {clip_norm}", np.abs(norms - golden.file[f"{prefix}gradnorms5"]).max(), 1e-8)
    probabilities = jax.nn.sigmoid(golden.logits(params, golden.batch(0)))
    after = golden.file[f"{prefix}after5_prob0"]
    check(f"probabilities after 5 steps, clipped at {clip_norm}", np.abs(probabilities - after).max(), 1e-8)
    if f"{prefix}after5/mlp.mlp.0.weight" in golden.file.files:
        check("parameters after 5 steps", largest(params, golden.params(f"{prefix}after5")), 1e-8)
