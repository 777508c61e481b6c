"""The released model once more, built of PyTorch's own layers from the contract, under the released names.

For what the golden files cannot hold: gradients and Adam steps of any architecture.
"""

import torch
from torch import nn


class Named(nn.Module):
    """A place for modules, so that parameters get their released names."""

    def __init__(self, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)


def mlp(width, widths, dropout=0.0, outputs=None):
    layers = []
    for out in widths:
        layers += [nn.Linear(width, out), nn.ReLU()] + ([nn.Dropout(dropout)] if dropout else [])
        width = out
    return nn.Sequential(*layers, *([nn.Linear(width, outputs)] if outputs else []))


class Reference(nn.Module):
    """`config` is the project's, of the full model with one tags and one embedding feature."""

    def __init__(self, config, items):
        super().__init__()
        self.config, features, model = config, config.features, config.model
        self.tags, self.vectors = features.item_features
        self.items = {name: torch.from_numpy(values) for name, values in items.items()}
        E = model.embedding_dim
        sizes = {side.name: side.vocab_size for side in features.side}
        sizes |= {features.item: features.num_items, self.tags.name: self.tags.vocab_size}
        tables = {name: nn.Embedding(size, E, padding_idx=0) for name, size in sizes.items()}
        encoders = {self.vectors.name: nn.Linear(self.vectors.dim, self.vectors.dim, bias=False)}
        self.embedding_layer = Named(
            embedding_layer=Named(
                embedding_layers=nn.ModuleDict(tables),
                feature_encoders=nn.ModuleDict(encoders if model.project_mm else {}),
            )
        )
        T, options = 2 * features.item_width(E), model.transformer
        layers = [
            nn.TransformerEncoderLayer(T, options.heads, options.feedforward, dropout=0.0, batch_first=True)
            for _ in range(options.layers)
        ]
        self.transformer_encoder = Named(transformer_encoder=Named(layers=nn.ModuleList(layers)))
        if options.max_pool:
            self.transformer_encoder.out_linear = nn.Linear(T, T)
        F = len(features.side) * E + features.item_width(E) + (options.first_k + options.max_pool) * T
        self.crossnet = Named(cross_layers=nn.ModuleList(nn.Linear(F, F) for _ in range(model.dcn.cross_layers)))
        self.parallel_dnn = Named(mlp=mlp(F, model.dcn.deep, model.dcn.deep_dropout))
        self.mlp = Named(mlp=mlp(F + (model.dcn.deep or (F,))[-1], model.head, outputs=1))

    def item(self, ids):
        embedding = self.embedding_layer.embedding_layer
        tables = embedding.embedding_layers
        tags, vectors = self.items[self.tags.name][ids].long(), self.items[self.vectors.name][ids]
        counts = (tags != 0).sum(dim=-1, keepdim=True).clamp(min=1)
        pooled = tables[self.tags.name](tags).sum(dim=-2) / counts
        if self.config.model.project_mm:
            vectors = embedding.feature_encoders[self.vectors.name](vectors)
        return torch.cat([tables[self.config.features.item](ids), pooled, vectors], dim=-1)

    def forward(self, batch):
        model, options = self.config.model, self.config.model.transformer
        history = torch.from_numpy(batch["history"]).long()
        target = self.item(torch.from_numpy(batch["item"]).long())
        N = history.shape[1]
        ignored = (history == 0) if model.history_mask == "valid" else (history != 0)
        ignored[:, -1] &= ~ignored.all(dim=1)
        x = torch.cat([self.item(history), target[:, None].expand(-1, N, -1)], dim=-1)
        for layer in self.transformer_encoder.transformer_encoder.layers:
            x = layer(x, src_key_padding_mask=ignored)
        kept = x.masked_fill(ignored[..., None], 0)
        padded = nn.functional.pad(kept, (0, 0, max(options.first_k - N, 0), 0))
        parts = [padded[:, padded.shape[1] - options.first_k :].flatten(start_dim=1)]
        if options.max_pool:
            pooled = x.masked_fill(ignored[..., None], -torch.inf).amax(dim=1)
            parts.append(self.transformer_encoder.out_linear(pooled))
        tables = self.embedding_layer.embedding_layer.embedding_layers
        sides = [tables[f.name](torch.from_numpy(batch["side"][f.name]).long()) for f in self.config.features.side]
        f = torch.cat([*sides, target, *parts], dim=-1)
        c = f
        for cross in self.crossnet.cross_layers:
            c = f * cross(c) + c
        return self.mlp.mlp(torch.cat([c, self.parallel_dnn.mlp(f)], dim=-1))[:, 0]
