"""The benchmarks' PyTorch peer is the released model: equal to the golden numbers, and fed what plain loops would."""

import json

import numpy as np
import pytest
from architecture import architecture
from batches import SIDES
from golden_files import CASES, FOLDER, config_of
from synthetic import PUBLISHED

from mmctr_jax.config import load_config
from mmctr_jax.data.cache import Split
from mmctr_jax.errors import InputError
from mmctr_jax.interop.released import names

pytest.importorskip("fuxictr.pytorch.layers", reason="the peer is made of PyTorch (optional) and fuxictr 2.3.7")
import torch

from references.fuxictr_model import Peer, Trainer, make_loader, predict
from references.torch_model import Reference

# The clip norm (default: 10), and how the golden files name what five steps with it lead to.
CLIPS = [({}, ""), ({"clip_norm": 0.05}, "clip005_")]


class Golden:
    """A golden file, the peer with its weights, and its batches, made by the peer's own loader."""

    def __init__(self, case, precision="f64"):
        self.file = np.load(FOLDER / f"{case}_{precision}.npz", allow_pickle=False)
        self.config = config_of(json.loads(str(self.file["config_json"])))
        self.peer = Peer(self.config)
        if precision == "f64":
            self.peer.double()
            # fuxictr casts vectors to float32, which the golden ones survive; the weights they meet are float64 here.
            project = self.peer.embedding_layer.embedding_layer.feature_encoders["item_emb_d128"]
            project.register_forward_pre_hook(lambda _, inputs: inputs[0].double())
        params = {name: torch.from_numpy(values) for name, values in self.named("param").items()}
        self.peer.load_state_dict(params, strict=True)
        items = {"item_tags": self.file["table/item_tags"], "item_emb_d128": self.file["table/item_emb"]}
        self.loader = make_loader(self.split(), items, batch_size=16, length=12, shuffle=False)
        self.batches = list(self.loader)
        for batch in self.batches:
            batch["label"] = batch["label"].to(self.peer.mlp.mlp[0].weight.dtype)

    def named(self, prefix):
        prefix = f"{prefix}/"
        return {name.removeprefix(prefix): self.file[name] for name in self.file.files if name.startswith(prefix)}

    def split(self):
        rows = lambda name: np.concatenate([self.file[f"batch{i}/{name}"] for i in range(5)])  # noqa: E731
        history = rows("item_seq")
        return Split(
            history_values=history[history != 0].astype(np.int32),
            history_offsets=np.concatenate([[0], np.cumsum((history != 0).sum(axis=1))]),
            item=rows("item_id").astype(np.int32),
            side={name: rows(name).astype(np.int32) for name in SIDES},
            label=rows("label").astype(np.uint8),
            fingerprint="",
        )


def close(actual, expected, bound, what=""):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bound, err_msg=what)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("precision", "bound"), [("f64", 1e-10), ("f32", 2e-5)])
def test_golden_logits(case, precision, bound):
    golden = Golden(case, precision)
    logits = torch.logit(torch.from_numpy(predict(golden.peer, golden.loader)).double())
    close(logits, np.concatenate([golden.file[f"eval/logit{i}"] for i in range(5)]), bound)
    for i, batch in enumerate(golden.batches):
        np.testing.assert_array_equal(batch["mask"], golden.file[f"batch{i}/mask"] == 1)
        np.testing.assert_array_equal(batch["item"][:, :-1], golden.file[f"batch{i}/item_seq"])


@pytest.mark.parametrize("case", CASES)
def test_golden_loss_and_gradients(case):
    golden = Golden(case)
    trainer = Trainer(golden.peer, learning_rate=0.0, clip_norm=np.inf)  # leaves weights and gradients as they are
    assert trainer.step(golden.batches[0]) == pytest.approx(float(golden.file["loss0"]), rel=0, abs=1e-10)
    gradients = {name: weights.grad for name, weights in golden.peer.named_parameters()}
    expected = golden.named("grad")
    assert set(gradients) == set(expected)
    for name in expected:
        close(gradients[name], expected[name], 1e-10, name)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("clip", "prefix"), CLIPS)
def test_golden_adam_steps(case, clip, prefix):
    golden = Golden(case)
    trainer = Trainer(golden.peer, **clip)
    close([trainer.step(batch) for batch in golden.batches], golden.file[f"{prefix}losses5"], 1e-10)
    close(predict(golden.peer, golden.batches[:1]), golden.file[f"{prefix}after5_prob0"], 1e-8)
    if not prefix:  # the files hold no parameters after steps clipped at 0.05
        after, expected = golden.peer.state_dict(), golden.named("after5")
        assert set(after) == set(expected)
        for name in expected:
            close(after[name], expected[name], 1e-8, name)


def tiny_config(**model):
    return architecture(
        {
            "features": {
                "num_items": 9,
                "item_features": [
                    {"kind": "tags", "name": "item_tags", "vocab_size": 6},
                    {"kind": "embedding", "name": "vectors", "dim": 4},
                ],
            },
            "model": {
                "embedding_dim": 4,
                "transformer": {"feedforward": 8, "first_k": 6, "dropout": 0.25},
                "dcn": {"deep": [8, 4], "deep_dropout": 0.5},
                "head": [8],
                **model,
            },
        }
    )


def random_split(rng, rows=11):
    """Histories of none, of a few and of too many clicks for a length of 5."""
    lengths = rng.permutation([0, 1, 5, 8, *rng.integers(0, 9, rows - 4)])
    split = Split(
        history_values=rng.integers(1, 9, lengths.sum(), dtype=np.int32),
        history_offsets=np.concatenate([[0], np.cumsum(lengths)]),
        item=rng.integers(1, 9, rows, dtype=np.int32),
        side={name: rng.integers(0, 11, rows, dtype=np.int32) for name in SIDES},
        label=rng.integers(0, 2, rows, dtype=np.uint8),
        fingerprint="",
    )
    items = {"item_tags": rng.integers(0, 6, (9, 3), dtype=np.int32), "vectors": rng.normal(size=(9, 4))}
    return split, items


def test_batches_are_what_plain_loops_give():
    split, items = random_split(np.random.default_rng(0))
    expected = []
    for row in range(split.rows):
        clicks = [int(split.history_values[i]) for i in range(*split.history_offsets[row : row + 2])][-5:]
        ids = [0] * (5 - len(clicks)) + clicks + [int(split.item[row])]
        expected.append(
            {
                "item": torch.tensor(ids),
                "mask": torch.tensor([False] * (5 - len(clicks)) + [True] * len(clicks)),
                **{name: torch.tensor(int(split.side[name][row])) for name in SIDES},
                "label": torch.tensor(float(split.label[row])),
                "item_tags": torch.tensor([[int(tag) for tag in items["item_tags"][i]] for i in ids]),
                "vectors": torch.tensor([[float(x) for x in items["vectors"][i]] for i in ids]),
            }
        )
    batches = list(make_loader(split, items, batch_size=4, length=5, shuffle=False))
    for batch, rows in zip(batches, (expected[:4], expected[4:8], expected[8:]), strict=True):
        assert set(batch) == set(rows[0])
        for name, values in batch.items():
            torch.testing.assert_close(values, torch.stack([row[name] for row in rows]), rtol=0, atol=0)


def test_a_shuffled_epoch_has_every_row_once_and_another_order_next():
    split, items = random_split(np.random.default_rng(1))
    split.side[SIDES[0]] = np.arange(split.rows)  # tells the rows apart
    loader = make_loader(split, items, batch_size=4, length=5, shuffle=True)
    torch.manual_seed(0)
    epochs = [[int(row) for batch in loader for row in batch[SIDES[0]]] for _ in range(2)]
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(split.rows))


@pytest.mark.parametrize("history_mask", ["valid", "released"])
def test_what_the_golden_files_have_not_is_as_in_the_second_reference(history_mask):
    """Fewer positions than outputs are kept; vectors without their linear map."""
    split, items = random_split(np.random.default_rng(4))
    config = tiny_config(
        history_mask=history_mask,
        project_mm=False,
        transformer={"feedforward": 8, "first_k": 7, "dropout": 0.0},
        dcn={"deep": [8, 4], "deep_dropout": 0.0},
    )
    peer, reference = Peer(config), Reference(config, {**items, "vectors": items["vectors"].astype(np.float32)}).eval()
    with torch.no_grad():
        for name, weights in peer.named_parameters():
            weights.normal_(std=0.3)  # by the starting weights embeddings hardly count
            if "embedding_layers" in name:
                weights[0] = 0
    reference.load_state_dict(peer.state_dict())
    loader = make_loader(split, items, batch_size=split.rows, length=5, shuffle=False)
    (batch,) = loader
    history, item = batch["item"][:, :-1], batch["item"][:, -1]
    with torch.no_grad():
        logits = reference(
            {"history": history.numpy(), "item": item.numpy(), "side": {name: batch[name].numpy() for name in SIDES}}
        )
    assert logits.std() > 0.1
    close(predict(peer, loader), torch.sigmoid(logits), 1e-5)


def test_starting_weights_are_the_released():
    """Maps Xavier normal, without bias; embeddings tiny, those of padding zero."""
    torch.manual_seed(0)
    start = Peer(tiny_config()).state_dict()
    for name, weights in start.items():
        if "embedding_layers" in name:
            assert 0.5e-4 < weights[1:].std() < 2e-4, name
            assert not weights[0].any(), name
        if name.endswith("bias") and "norm" not in name:
            assert not weights.any(), name
    cross = start["crossnet.cross_layers.0.weight"]
    assert float(cross.std()) == pytest.approx((2 / sum(cross.shape)) ** 0.5, rel=0.05)


@pytest.mark.parametrize("project_mm", [True, False])
def test_parameters_have_the_released_names(project_mm):
    """Dropout in the deep layers numbers them otherwise; the golden files have none."""
    config = tiny_config(project_mm=project_mm)
    assert set(Peer(config).state_dict()) == set(names(config.features, config.model))


def test_the_published_configuration_has_the_published_number_of_parameters():
    config = load_config(PUBLISHED)
    with torch.device("meta"):  # shapes alone
        peer = Peer(config)
    assert sum(weights.numel() for weights in peer.parameters()) == 267_898_881


def test_dropout_is_as_configured_and_in_training_alone():
    split, items = random_split(np.random.default_rng(2))
    peer = Peer(tiny_config())
    loader = make_loader(split, items, batch_size=split.rows, length=5, shuffle=False)
    rates = {name: module.p for name, module in peer.named_modules() if isinstance(module, torch.nn.Dropout)}
    rates |= {
        name: module.dropout for name, module in peer.named_modules() if isinstance(module, torch.nn.MultiheadAttention)
    }
    assert sum(name.startswith("transformer_encoder.") for name in rates) == 2 * 4  # layers × places
    assert {name: rate for name, rate in rates.items() if not name.startswith("transformer_encoder.")} == {
        "parallel_dnn.mlp.2": 0.5,
        "parallel_dnn.mlp.5": 0.5,
    }
    assert {rate for name, rate in rates.items() if name.startswith("transformer_encoder.")} == {0.25}
    first = predict(peer, loader)
    np.testing.assert_array_equal(predict(peer, loader), first)
    trainer = Trainer(peer, learning_rate=0.0)
    batch = next(iter(loader))
    assert trainer.step(batch) != trainer.step(batch)


def test_rows_without_labels_can_be_predicted():
    split, items = random_split(np.random.default_rng(3))
    peer = Peer(tiny_config())
    loaders = [
        make_loader(rows, items, batch_size=4, length=5, shuffle=False)
        for rows in (split, Split(**{**vars(split), "label": None}))
    ]
    np.testing.assert_array_equal(*[predict(peer, loader) for loader in loaders])


@pytest.mark.parametrize("dcn", [{"cross_dropout": 0.1}, {"batch_norm": True}])
def test_a_part_that_the_release_has_not_is_refused(dcn):
    with pytest.raises(InputError, match=next(iter(dcn))):
        Peer(tiny_config(dcn=dcn))
