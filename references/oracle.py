"""The forward pass at inference, once more, in plain numpy float64 and written for reading.

It shares no code with the package and takes one sample at a time, so there is no padding to compute around: positions
that may not be seen are left out by indexing, and nothing they hold (a NaN, say) can reach a logit. Equation numbers
are those of arXiv 2505.03543. Shape letters: `B` batch, `N` history length, `K` last outputs kept, `D` item width,
`T` = 2D encoder width, `F` width of the feature vector; and here `A` attended positions, `E` frozen embeddings of an
item. A name that ends in such letters says its shape.
"""

import numpy as np

NORM_EPS = 1e-5
DICE_EPS = 1e-9
SQUARES_EPS = 1e-8


def logits(config, params, batch_stats, items, batch):
    """The logit of every sample of `batch`, float64 of shape (B,)."""
    sample_logit = {"din": din_logit, "matching": matching_logit}.get(config.model.name, mmctr_logit)
    sides = [[batch["side"][f.name][row] for f in config.features.side] for row in range(len(batch["item"]))]
    rows = zip(batch["history"], batch["item"], sides, strict=True)
    return f64([sample_logit(config, params, batch_stats, Sample(config, params, items, *row)) for row in rows])


class Sample:
    """One row of the batch after the embedding layer (Eq. 2-3)."""

    def __init__(self, config, params, items, history, item, side):
        self.real_N = np.asarray(history) != 0
        self.e_target_D = item_vector(config, params, items, item)
        self.e_history_ND = np.stack([item_vector(config, params, items, i) for i in history])
        self.cosines_NE = np.array([item_cosines(config, items, i, item) for i in history])
        tables = [params["embedding"][feature.name] for feature in config.features.side]
        self.e_side = join([lookup(table, i) for table, i in zip(tables, side, strict=True)])


# Eq. 2-3: the embedding layer


def lookup(table, i):
    """Id 0 is padding: zero, whatever the table holds there."""
    return f64(table[i]) if i != 0 else np.zeros(np.shape(table)[1])


def mean_of_present(table, ids):
    """Mean over the ids that are not padding; zero when there is none."""
    present = [i for i in ids if i != 0]
    return sum(lookup(table, i) for i in present) / len(present) if present else lookup(table, 0)


def item_vector(config, params, items, item):
    """e_item = [id, then every item feature in the order of the config]."""
    id_table = params["embedding"][config.features.item]
    parts = [lookup(id_table, item)]
    for feature in config.features.item_features:
        value = items[feature.name][item]
        if feature.kind == "embedding":
            vector = lookup(items[feature.name], item)  # frozen: the table is the items' own
            if config.model.project_mm:
                vector = vector @ f64(params["embedding"][feature.name]["kernel"])
            parts.append(vector)
        elif feature.kind == "categorical":
            parts.append(lookup(params["embedding"][feature.name], value))
        elif feature.kind == "tags":
            parts.append(mean_of_present(params["embedding"][feature.name], value))
        elif feature.kind == "codes":
            parts.append(sum(lookup(params["embedding"][feature.name], code) for code in value))
        elif feature.kind == "neighbours":
            parts.append(mean_of_present(id_table, value))  # neighbours are items: they share the id table
        else:
            raise ValueError(f"unknown kind of item feature: {feature.kind}")
    e_item_D = join(parts)
    return e_item_D if item != 0 else np.zeros(len(e_item_D))


def item_cosines(config, items, click, target):
    """One cosine for every frozen embedding, before any projection; 0 where it is not defined."""
    names = [feature.name for feature in config.features.item_features if feature.kind == "embedding"]
    return [cosine(lookup(items[name], click), lookup(items[name], target)) for name in names]


def cosine(a, b):
    norms = np.sqrt(a @ a) * np.sqrt(b @ b)
    return a @ b / norms if norms > 0 else 0.0


# Eq. 4-6: sequential feature learning


def attended_positions(real_N, history_mask):
    """The positions attended to, kept and pooled (Eq. 5); `released` has real and padding the wrong way round."""
    attended_N = {"valid": real_N, "released": ~real_N}[history_mask].copy()
    if not attended_N.any():
        attended_N[-1] = True  # so that the softmax and the maximum are over something
    return attended_N


def sequence_output(config, params, sample):
    """S_o = [last K outputs, the pooled one, the target attention's] (Eq. 4-6)."""
    options, encoder = config.model.transformer, params.get("encoder", {})  # no layer, no pooling: none
    attended_N = attended_positions(sample.real_N, config.model.history_mask)
    e_attended_AD = sample.e_history_ND[attended_N]

    x_AT = np.stack([join([e_item_D, sample.e_target_D]) for e_item_D in e_attended_AD])
    if options.similarity:
        x_AT = x_AT + sample.cosines_NE[attended_N] @ f64(encoder["similarity"]["kernel"])
    for i in range(options.layers):
        x_AT = encoder_layer(encoder[f"layer_{i}"], x_AT, options.heads)

    parts = [last_outputs(x_AT, attended_N, options.first_k)]
    if options.max_pool:
        parts.append(dense(encoder["pool_proj"], x_AT.max(axis=0)))
    if options.target_attention:
        query_1D = sample.e_target_D[None, :]
        for i in range(options.target_attention):
            query_1D = target_layer(encoder[f"target_layer_{i}"], query_1D, e_attended_AD, options.heads)
        parts.append(query_1D[0])
    return join(parts)


def last_outputs(x_AT, attended_N, first_k):
    """The last K positions, flattened: zero where not attended, and on the left where there is no position at all."""
    outputs = np.zeros((first_k + len(attended_N), x_AT.shape[1]))
    outputs[first_k:][attended_N] = x_AT
    return outputs[len(outputs) - first_k :].reshape(-1)  # not [-K:], which is everything when K is 0


def encoder_layer(layer, x_AT, heads):
    query_AT, key_AT, value_AT = np.split(dense(layer["attention"]["in_proj"], x_AT), 3, axis=-1)
    return post_norm(layer, x_AT, attention(query_AT, key_AT, value_AT, heads))


def target_layer(layer, query_1D, e_attended_AD, heads):
    """The target asks, the history answers: keys and values are the clicked items as they were embedded."""
    key_AD, value_AD = np.split(dense(layer["attention"]["key_value_proj"], e_attended_AD), 2, axis=-1)
    projected_1D = dense(layer["attention"]["query_proj"], query_1D)
    return post_norm(layer, query_1D, attention(projected_1D, key_AD, value_AD, heads))


def attention(query, key, value, heads):
    """Every query over every key it is given; head h has the h-th block of width/heads columns."""
    blocks = []
    for q, k, v in zip(*(np.split(x, heads, axis=-1) for x in (query, key, value)), strict=True):
        scores = q @ k.T / np.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        blocks.append(weights / weights.sum(axis=-1, keepdims=True) @ v)
    return join(blocks)


def post_norm(layer, x, attended):
    """Residual, then LayerNorm, twice: around the attention and around the feed-forward."""
    x = layer_norm(layer["norm1"], x + dense(layer["attention"]["out_proj"], attended))
    return layer_norm(layer["norm2"], x + dense(layer["linear2"], relu(dense(layer["linear1"], x))))


# Eq. 7-8: feature interaction, and Eq. 9-10: prediction


def feature_vector(config, params, sample):
    """f = [side, target, history, similarity histogram if any]."""
    if config.model.name == "without_transformer":
        history = sample.e_history_ND[sample.real_N].sum(axis=0) / max(sample.real_N.sum(), 1)
    else:
        history = sequence_output(config, params, sample)
    parts = [sample.e_side, sample.e_target_D, history]
    if config.model.name != "without_dcn" and config.model.dcn.similarity_bins:
        parts.append(similarity_histogram(sample, config.model.dcn.similarity_bins))
    return join(parts)


def similarity_histogram(sample, bins):
    """For every frozen embedding, the share of the real clicks whose cosine falls in each bin of [-1, 1]."""
    counts = np.zeros((sample.cosines_NE.shape[1], bins))
    for cosines_E in sample.cosines_NE[sample.real_N]:
        for e, value in enumerate(cosines_E):
            # Clipped: a cosine of exactly 1 belongs to the last bin, and rounding can put one just outside [-1, 1].
            counts[e, np.clip(int(np.floor((value + 1) / 2 * bins)), 0, bins - 1)] += 1
    return counts.reshape(-1) / max(sample.real_N.sum(), 1)


def cross_and_deep(config, params, batch_stats, f_F):
    """f_o = [cross network, deep network], in parallel on f (Eq. 7-8)."""
    options = config.model.dcn
    c_F = d = f_F
    for i in range(options.cross_layers):  # c_{l+1} = f * (W_l c_l + b_l) + c_l, W_l of full rank or of less
        x = c_F if options.rank is None else c_F @ f64(params["cross"][f"layer_{i}_narrow"]["kernel"])
        c_F = f_F * dense(params["cross"][f"layer_{i}"], x) + c_F
    for i in range(len(options.deep)):
        d = dense(params["deep"][f"layer_{i}"], d)
        if options.batch_norm:
            d = batch_norm(params["deep"][f"norm_{i}"], batch_stats["deep"][f"norm_{i}"], d)
        d = relu(d)
    return join([c_F, d])


def mmctr_logit(config, params, batch_stats, sample):
    """The full model, and without its Transformer or its DCNv2; the MLP is Eq. 9-10, up to the sigmoid."""
    x = feature_vector(config, params, sample)
    if config.model.name != "without_dcn":
        x = cross_and_deep(config, params, batch_stats, x)
    for i in range(len(config.model.head)):
        x = relu(dense(params["head"][f"layer_{i}"], x))
    return dense(params["head"]["out"], x).item()


# Deep Interest Network, the baseline


def din_logit(config, params, batch_stats, sample):
    e_target_D, pooled_D = sample.e_target_D, np.zeros_like(sample.e_target_D)
    for e_item_D in sample.e_history_ND[sample.real_N]:
        x = join([e_target_D, e_item_D, e_target_D - e_item_D, e_target_D * e_item_D])
        for i in range(len(config.model.attention)):
            x = dense(params["attention"][f"layer_{i}"], x)
            x = din_activation(config, params, batch_stats, "attention", i, x)
        pooled_D = pooled_D + dense(params["attention"]["out"], x).item() * e_item_D  # a plain weight, no softmax

    x = join([sample.e_side, e_target_D, pooled_D])
    for i in range(len(config.model.deep)):
        x = dense(params["deep"][f"layer_{i}"], x)
        if config.model.batch_norm:
            x = batch_norm(params["deep"][f"norm_{i}"], batch_stats["deep"][f"norm_{i}"], x)
        x = din_activation(config, params, batch_stats, "deep", i, x)
    return dense(params["head"]["out"], x).item()


def din_activation(config, params, batch_stats, part, i, x):
    if config.model.activation == "relu":
        return relu(x)
    alpha = f64(params[part][f"dice_{i}"]["alpha"])
    running = batch_stats[part][f"dice_{i}"]["norm"]
    normed = (x - f64(running["mean"])) / np.sqrt(f64(running["var"]) + DICE_EPS)
    p = (1 + np.tanh(normed / 2)) / 2  # the sigmoid, in the form that cannot overflow
    return p * x + alpha * (1 - p) * x


# The matching model


def matching_logit(config, params, batch_stats, sample):
    """[side, target, mean, last, attended click, comparisons, crosses, log of the number of clicks, affinity] → an MLP.

    The crosses: dot product and cosine of each side feature's vector with each of the target's that a table has.
    """
    target, clicks = sample.e_target_D, sample.e_history_ND[sample.real_N]
    nothing = np.zeros_like(target)
    some = len(clicks) > 0
    mean, last, largest = (clicks.mean(axis=0), clicks[-1], clicks.max(axis=0)) if some else (nothing, nothing, nothing)
    attended = attended_click(config, params, sample, clicks) if some else nothing

    user = unit(mlp(params["user"], join([mean, last, largest]), len(config.model.tower) - 1))
    item = unit(mlp(params["item"], target, len(config.model.tower) - 1))
    compared = []
    parts = np.split(np.arange(len(target)), np.cumsum(part_widths(config))[:-1])
    for part in parts:
        for view in (mean, last, attended):
            compared.append(dot_and_cosine(target[part], view[part]))
        each = [dot_and_cosine(target[part], click[part]) for click in clicks]
        compared.append(np.max(each, axis=0) if some else np.zeros(2))
    kinds = [None] + [f.kind for f in config.features.item_features]
    learned = [target[part] for part, kind in zip(parts, kinds, strict=True) if kind not in ("embedding", "neighbours")]
    vectors = sample.e_side.reshape(-1, config.model.embedding_dim)
    crosses = [dot_and_cosine(side, vector) for side in vectors for vector in learned]
    affinity = user @ item / config.model.temperature
    x = [sample.e_side, target, mean, last, attended, *compared, *crosses, f64([np.log(1 + len(clicks)), affinity])]
    x = join(x)
    for i in range(len(config.model.deep)):
        x = relu(dense(params["deep"][f"layer_{i}"], x))
    return dense(params["head"]["out"], x).item()


def attended_click(config, params, sample, clicks):
    """Softmax over query · key / √width and what was learned of recency, whose last entry is the last position's."""
    keys = np.array([dense(params["key"], click) for click in clicks])
    recency_N = f64(params["recency"])[len(params["recency"]) - len(sample.real_N) :]
    scores = keys @ dense(params["query"], sample.e_target_D) / np.sqrt(config.model.attention)
    weights = np.exp(scores + recency_N[sample.real_N])
    return weights / weights.sum() @ clicks


def part_widths(config):
    """The id embedding, and each item feature."""
    width = config.model.embedding_dim
    return [width] + [f.dim if f.kind == "embedding" else width for f in config.features.item_features]


def dot_and_cosine(a, b):
    return f64([a @ b, a @ b / np.sqrt((a @ a) * (b @ b) + SQUARES_EPS)])


def unit(x):
    return x / np.sqrt(x @ x + SQUARES_EPS)


def mlp(layers, x, hidden):
    for i in range(hidden):
        x = relu(dense(layers[f"layer_{i}"], x))
    return dense(layers["out"], x)


# Building blocks


def f64(x):
    return np.asarray(x, dtype=np.float64)


def join(parts):
    """Concatenation of vectors; no vector at all (a config without side features) is an empty one."""
    return np.concatenate(parts, axis=-1) if parts else np.zeros(0)


def dense(layer, x):
    return x @ f64(layer["kernel"]) + f64(layer["bias"])


def relu(x):
    return np.maximum(x, 0)


def layer_norm(layer, x):
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + NORM_EPS) * f64(layer["scale"]) + f64(layer["bias"])


def batch_norm(layer, running, x):
    normed = (x - f64(running["mean"])) / np.sqrt(f64(running["var"]) + NORM_EPS)
    return normed * f64(layer["scale"]) + f64(layer["bias"])
