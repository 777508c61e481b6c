"""The released design once more, in PyTorch on fuxictr's layers: what ours is measured against.

Released are the model, its padding mask and parameter names; item features gathered on the host, so that every batch
carries them for every click; the loss on probabilities; Adam as PyTorch has it. Shape letters: `mmctr_jax`.
"""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
from fuxictr.pytorch.layers import CrossNetV2, FeatureEmbedding, MLP_Block
from torch import nn
from torch.utils.data import DataLoader

from mmctr_jax.config import Config
from mmctr_jax.data.cache import Split
from mmctr_jax.data.loader import pad_histories
from mmctr_jax.errors import InputError
from mmctr_jax.interop.released import check_released_has
from mmctr_jax.models.transformer import TransformerSettings

Batch = dict[str, torch.Tensor]
"""item (B, N + 1) int64, the target last; mask (B, N) bool, true where a click is; side (B, S) int64; label (B,)
float32, absent where the split has none; and by item feature: tags (B, N + 1, L) int64, vectors (B, N + 1, dim)
float32."""


class Collator:
    """Row numbers → `Batch`. Pads histories with zeros on the left, and looks every item's features up."""

    def __init__(self, split: Split, item_tables: dict[str, np.ndarray], length: int):
        self.split, self.length = split, length
        self.tables = {
            name: np.ascontiguousarray(table, np.float32 if table.dtype.kind == "f" else np.int64)
            for name, table in item_tables.items()
        }

    def __call__(self, rows: list[int]) -> Batch:
        split, rows = self.split, np.asarray(rows)
        history_BxN = pad_histories(split, rows, self.length)
        items = np.concatenate([history_BxN, split.item[rows, None]], axis=1).astype(np.int64)
        batch = {
            "item": items,
            "mask": history_BxN != 0,
        }
        batch |= {name: values[rows].astype(np.int64) for name, values in split.side.items()}
        batch |= {name: table.take(items, axis=0) for name, table in self.tables.items()}
        if split.label is not None:
            batch["label"] = split.label[rows].astype(np.float32)
        return {name: torch.from_numpy(values) for name, values in batch.items()}


def make_loader(
    split: Split, item_tables: dict[str, np.ndarray], *, batch_size: int, length: int, shuffle: bool
) -> DataLoader:
    """Batches of every row once, the last one as large as what is left. `length` is N; `item_tables` are
    `mmctr_jax.data.items.ItemTable`; PyTorch's global seed decides the order of shuffled rows."""
    collator = Collator(split, item_tables, length)
    # In this process: where cores are few, workers cost more, each batch crossing between processes.
    return DataLoader(range(split.rows), batch_size, shuffle, collate_fn=collator)


class Encoder(nn.Module):
    """Sequential feature learning, Eq. 4–6: (B, N, T) and the loader's mask (B, N) → S_o."""

    def __init__(self, T: int, options: TransformerSettings, history_mask: str):
        super().__init__()
        self.first_k, self.history_mask = options.first_k, history_mask
        layer = nn.TransformerEncoderLayer(T, options.heads, options.feedforward, options.dropout, batch_first=True)
        # PyTorch refuses nested tensors for an odd number of heads anyway, such as the published one; and warns.
        self.transformer_encoder = nn.TransformerEncoder(layer, options.layers, enable_nested_tensor=False)
        self.out_linear = nn.Linear(T, T) if options.max_pool else None

    def forward(self, x_BxNxT: torch.Tensor, mask_BxN: torch.Tensor) -> torch.Tensor:
        # Inverted in the release: clicks are ignored, padding is attended to (docs/models.md, "The padding mask").
        ignored_BxN = (mask_BxN != 0) if self.history_mask == "released" else (mask_BxN == 0)
        ignored_BxN[:, -1] &= ~ignored_BxN.all(dim=1)  # attention to nothing would be NaN
        outputs_BxNxT = self.transformer_encoder(x_BxNxT, src_key_padding_mask=ignored_BxN)
        ignored_BxNx1 = ignored_BxN[..., None]
        kept = outputs_BxNxT.masked_fill(ignored_BxNx1, 0.0)
        N, K = kept.shape[1], self.first_k
        kept = nn.functional.pad(kept, (0, 0, max(K - N, 0), 0))
        parts = [kept[:, kept.shape[1] - K :].flatten(start_dim=1)]
        if self.out_linear is not None:
            pooled = outputs_BxNxT.masked_fill(ignored_BxNx1, -torch.inf).max(dim=1).values
            parts.append(self.out_linear(pooled))
        return torch.cat(parts, dim=-1)


def _feature_map(config: Config) -> SimpleNamespace:
    """All that FeatureEmbedding reads of fuxictr's FeatureMap, which is otherwise read from files."""
    features = config.features
    tags, vectors = features.item_features

    def ids(kind: str, size: int) -> dict:
        return {"type": kind, "vocab_size": size, "padding_idx": 0}

    specs = {side.name: ids("categorical", side.vocab_size) for side in features.side}
    specs[features.item] = ids("categorical", features.num_items)
    specs[tags.name] = ids("sequence", tags.vocab_size) | {"feature_encoder": "layers.MaskedAveragePooling()"}
    # fuxictr gives vectors a bias-free linear map where no other encoder is named.
    as_it_is = {} if config.model.project_mm else {"feature_encoder": "nn.Identity()"}
    specs[vectors.name] = {"type": "embedding", "embedding_dim": vectors.dim} | as_it_is
    return SimpleNamespace(features=specs)


class Peer(nn.Module):
    """`config`: resolved, of the full model, with one tags and one embedding feature in this order.

    Raises: InputError for parts that the release has not.
    """

    def __init__(self, config: Config):
        super().__init__()
        check_released_has(config.features, config.model)
        model, features, dcn = config.model, config.features, config.model.dcn
        if dcn.cross_dropout:
            raise InputError("model.dcn.cross_dropout: the released model has none; set it to 0.")
        self.sides = [side.name for side in features.side]
        self.item, self.item_features = features.item, [f.name for f in features.item_features]
        initializer = partial(nn.init.normal_, std=model.embedding_init_std)
        self.embedding_layer = FeatureEmbedding(_feature_map(config), model.embedding_dim, initializer)
        D = features.item_width(model.embedding_dim)
        T = 2 * D
        F = len(self.sides) * model.embedding_dim + D + (model.transformer.first_k + model.transformer.max_pool) * T
        self.transformer_encoder = Encoder(T, model.transformer, model.history_mask)
        self.crossnet = CrossNetV2(F, dcn.cross_layers)
        self.parallel_dnn = MLP_Block(F, list(dcn.deep), dropout_rates=dcn.deep_dropout)
        deep = dcn.deep[-1] if dcn.deep else F
        self.mlp = MLP_Block(F + deep, list(model.head), output_dim=1, output_activation="sigmoid")
        # As released, which is no more than sane: embeddings above; attention and norms have PyTorch's own start, and
        # so have attention's output maps, of a subclass of Linear; encoder layers begin as copies of one.
        for module in self.modules():
            if type(module) is nn.Linear:
                nn.init.xavier_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, batch: Batch) -> torch.Tensor:
        """→ probabilities (B,)."""
        B, N = batch["mask"].shape
        items = {self.item: batch["item"]} | {name: batch[name] for name in self.item_features}
        # fuxictr's layers have one axis of items; its pooling reduces the next one.
        flat = {name: values.flatten(end_dim=1) for name, values in items.items()}
        items_BxN1xD = self.embedding_layer(flat, flatten_emb=True).unflatten(0, (B, N + 1))
        history_BxNxD, target_BxD = items_BxN1xD[:, :-1], items_BxN1xD[:, -1]
        pairs_BxNxT = torch.cat([history_BxNxD, target_BxD[:, None].expand(-1, N, -1)], dim=-1)
        history_features = self.transformer_encoder(pairs_BxNxT, batch["mask"])
        levels = {name: batch[name] for name in self.sides}
        sides = self.embedding_layer(levels, flatten_emb=True)
        f_BxF = torch.cat([sides, target_BxD, history_features], dim=-1)
        return self.mlp(torch.cat([self.crossnet(f_BxF), self.parallel_dnn(f_BxF)], dim=-1))[:, 0]


def _on_its_device(peer: Peer, batch: Batch) -> Batch:
    device = next(peer.parameters()).device
    return {name: values.to(device) for name, values in batch.items()}


class Trainer:
    """The released training step."""

    def __init__(self, peer: Peer, learning_rate: float = 5e-4, clip_norm: float = 10.0):
        self.peer, self.clip_norm = peer, clip_norm
        self.optimizer = torch.optim.Adam(peer.parameters(), lr=learning_rate)

    def step(self, batch: Batch) -> float:
        """One update; → the batch's mean loss before it, read at once, so the host waits for the device."""
        self.peer.train()
        batch = _on_its_device(self.peer, batch)
        self.optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy(self.peer(batch), batch["label"])
        loss.backward()
        nn.utils.clip_grad_norm_(self.peer.parameters(), self.clip_norm)
        self.optimizer.step()
        return loss.item()


@torch.no_grad()
def predict(peer: Peer, loader: DataLoader) -> np.ndarray:
    """(rows,) probabilities, in the loader's order: the rows' own if it does not shuffle."""
    peer.eval()
    return np.concatenate([peer(_on_its_device(peer, batch)).cpu().numpy() for batch in loader])
