"""The numbers of tests/golden, made by running the released model, and our model with their weights."""

import json
from functools import cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from architecture import architecture
from compiling import AS_FOR_USERS
from synthetic import mean_bce, model_of

from mmctr_jax.interop.released import params_from_released

FOLDER = Path(__file__).parent / "golden"
CASES = [f"S{arch}_{mask}" for arch in "AB" for mask in ("released", "corrected")]


def config_of(settings: dict):
    features = settings["features"]
    return architecture(
        {
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
        self.model = model_of(self.config, self.dtype)
        self.items = {name: jnp.asarray(self.file[f"table/{key}"]) for name, key in self.TABLES.items()}
        self.value_and_grad = jax.jit(jax.value_and_grad(self._loss), compiler_options=AS_FOR_USERS)
        self.logits = jax.jit(
            lambda params, batch: self.model.apply({"params": params}, batch, self.items, train=False),
            compiler_options=AS_FOR_USERS,
        )

    TABLES = {"item_tags": "item_tags", "item_emb_d128": "item_emb"}

    def params(self, prefix="param"):
        named = {n.removeprefix(f"{prefix}/"): self.file[n] for n in self.file.files if n.startswith(f"{prefix}/")}
        return jax.tree.map(
            jnp.asarray, params_from_released(named, self.config.features, self.config.model, self._like["params"])
        )

    @cached_property
    def _like(self):
        return jax.eval_shape(lambda: self.model.init(jax.random.PRNGKey(0), self.batch(0), self.items, train=False))

    def batch(self, i):
        get = lambda name: jnp.asarray(self.file[f"batch{i}/{name}"])  # noqa: E731
        return {
            "history": get("item_seq"),
            "item": get("item_id"),
            "side": {name: get(name) for name in ("likes_level", "views_level")},
            "label": get("label").astype(self.dtype),
            "weight": jnp.ones(len(get("label")), self.dtype),
        }

    def _loss(self, params, batch):
        logits = self.model.apply({"params": params}, batch, self.items, train=True)
        return mean_bce(logits, batch["label"], batch["weight"])
