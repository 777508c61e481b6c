"""Released weights in and out: every tensor accounted for, bit for bit."""

import hashlib
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from golden_files import Golden
from marks import slow

from mmctr_jax.commands.convert import main
from mmctr_jax.config import load_config
from mmctr_jax.errors import InputError
from mmctr_jax.interop import convert
from mmctr_jax.prediction.predict import predict
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.training.loop import train


class Released:
    """A golden case as its user has it: a checkpoint file, a config file, item and sample rows."""

    def __init__(self, folder, case="SA_corrected"):
        self.folder, self.golden = folder, Golden(case, "f32")
        file = self.golden.file
        names = [name.removeprefix("param/") for name in file.files if name.startswith("param/")]
        self.state_dict = {name: file[f"param/{name}"] for name in names}
        raw = yaml.safe_load(self.golden.config.model_dump_json())
        item_info = {"item_id": np.arange(50), "item_tags": list(file["table/item_tags"])}
        item_info["item_emb_d128"] = list(file["table/item_emb"])
        pq.write_table(pa.table(item_info), folder / "item_info.parquet")
        keys = ("user_id", "item_id", "item_seq", "likes_level", "views_level", "label")
        rows = {key: list(file[f"batch0/{key}"].astype(np.int64)) for key in keys}
        pq.write_table(pa.table(rows), folder / "rows.parquet")
        raw["data"] = {"item_info": str(folder / "item_info.parquet"), "cache_dir": str(folder / "cache")}
        raw["data"] |= {"train": str(folder / "rows.parquet"), "valid": str(folder / "rows.parquet")}
        self.config = folder / "config.yaml"
        self.config.write_text(yaml.safe_dump(raw))
        self.checkpoint, self.run = folder / "released.model", folder / "run"

    def save(self, **changes):
        torch = pytest.importorskip("torch", reason="converting needs PyTorch (optional)")
        tensors = {name: torch.from_numpy(values) for name, values in self.state_dict.items()}
        tensors = {name: value for name, value in (tensors | changes).items() if value is not None}
        torch.save(tensors, self.checkpoint)
        return torch

    def convert(self):
        return convert.torch_to_jax(self.checkpoint, load_config(self.config), self.run)


@pytest.fixture
def released(tmp_path):
    return Released(tmp_path)


@pytest.mark.parametrize("case", ["SA_released", slow("SB_corrected")])
def test_predict_scores_with_released_weights_as_the_release_does(tmp_path, case):
    released = Released(tmp_path, case)
    released.save()
    weights = released.convert()
    assert weights == sum(x.size for x in released.state_dict.values())
    result = predict(released.run, tmp_path / "rows.parquet", tmp_path / "scores.parquet")
    scores = pq.read_table(tmp_path / "scores.parquet")["score"].to_numpy()
    np.testing.assert_allclose(scores, released.golden.file["eval/prob0"].ravel(), rtol=0, atol=5e-6)
    assert result["metrics"]


def test_there_and_back_is_bit_exact(released, monkeypatch):
    torch = released.save()
    monkeypatch.chdir(released.folder)
    run = lambda *args: main(list(args))  # noqa: E731
    assert run("torch-to-jax", "released.model", "--config", "config.yaml", "--out", "run", "train.seed=5") == 0
    assert run("jax-to-torch", "run", "--out", "back.model") == 0
    back = torch.load(released.folder / "back.model", weights_only=True)
    assert set(back) == set(released.state_dict)
    for name, values in released.state_dict.items():
        assert back[name].dtype == torch.float32 and back[name].is_contiguous()
        assert back[name].numpy().tobytes() == values.tobytes(), name


def test_deep_layers_built_with_dropout_are_numbered_otherwise_and_found_too(released):
    layers = {"parallel_dnn.mlp.2": "parallel_dnn.mlp.3", "parallel_dnn.mlp.4": "parallel_dnn.mlp.6"}
    released.save()
    released.convert()
    for old, new in reversed(layers.items()):
        for part in ("weight", "bias"):
            if f"{old}.{part}" in released.state_dict:
                released.state_dict[f"{new}.{part}"] = released.state_dict.pop(f"{old}.{part}")
    torch = released.save()
    with_dropout = load_config(released.config, ["model.dcn.deep_dropout=0.2"])
    convert.torch_to_jax(released.checkpoint, with_dropout, released.folder / "run2")
    convert.jax_to_torch(released.folder / "run2", released.folder / "back.model")
    assert set(torch.load(released.folder / "back.model", weights_only=True)) == set(released.state_dict)
    # With a config that has none, too; and they go out under the names they came in with.
    convert.torch_to_jax(released.checkpoint, load_config(released.config), released.folder / "run3")
    convert.jax_to_torch(released.folder / "run3", released.folder / "back3.model")
    assert set(torch.load(released.folder / "back3.model", weights_only=True)) == set(released.state_dict)


@pytest.mark.slow
def test_weights_trained_here_go_out_and_come_back(released):
    torch = released.save()
    config = load_config(released.config, ["train.epochs=1", "train.eval_batch_size=16"])
    train(config, released.run)
    convert.jax_to_torch(released.run, released.folder / "ours.model")
    ours = torch.load(released.folder / "ours.model", weights_only=True)
    assert {n: x.shape for n, x in ours.items()} == {n: x.shape for n, x in released.state_dict.items()}
    convert.torch_to_jax(released.folder / "ours.model", config, released.folder / "run2")
    scores = []
    for run in ("run", "run2"):
        predict(released.folder / run, released.folder / "rows.parquet", released.folder / f"{run}.parquet")
        scores.append(pq.read_table(released.folder / f"{run}.parquet")["score"].to_numpy())
    assert np.array_equal(*scores)


def changed(released, torch):
    head = released.state_dict["mlp.mlp.0.weight"]
    return [
        ({"mlp.mlp.0.weight": None}, ["missing", "mlp.mlp.0.weight"]),
        ({"stranger": torch.zeros(2)}, ["no place", "stranger"]),
        (
            {"mlp.mlp.0.weight": torch.from_numpy(head.T.copy())},
            ["mlp.mlp.0.weight", str(head.T.shape), str(head.shape)],
        ),
        ({"mlp.mlp.0.weight": torch.zeros(head.shape, dtype=torch.float64)}, ["mlp.mlp.0.weight", "float64"]),
        ({"epoch": 3}, ["epoch is no tensor"]),
        ({"mlp.mlp.0.weight": torch.from_numpy(head).to_sparse()}, ["mlp.mlp.0.weight", "sparse"]),
        ({"mlp.mlp.0.weight": torch.from_numpy(head).to_sparse_csr()}, ["mlp.mlp.0.weight", "sparse"]),
        ({"mlp.mlp.0.weight": torch.zeros(head.shape, device="meta")}, ["mlp.mlp.0.weight", "no values"]),
        ({"mlp.mlp.0.weight": torch.full(head.shape, torch.nan)}, ["mlp.mlp.0.weight", "not finite"]),
    ]


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_a_tensor_missing_superfluous_or_misshapen_is_named(released):
    torch = released.save()
    for changes, words in changed(released, torch):
        released.save(**changes)
        with pytest.raises(InputError) as error:
            released.convert()
        assert all(word in str(error.value) for word in words), str(error.value)
        assert not released.run.exists()


def test_parameters_that_still_want_gradients_are_taken(released):
    torch = released.save()
    torch.save(
        {n: torch.nn.Parameter(torch.from_numpy(x)) for n, x in released.state_dict.items()}, released.checkpoint
    )
    assert released.convert()


def test_the_run_that_is_read_is_not_written_over(released):
    released.save()
    released.convert()
    for out in (released.run / "items.npz", released.run, released.folder / "absent" / "out.model"):
        with pytest.raises(InputError, match="Output"):
            convert.jax_to_torch(released.run, out)
    assert predict(released.run, released.folder / "rows.parquet", released.folder / "s.csv")["rows"] == 16


def test_nothing_but_tensors_is_unpickled(released):
    torch = released.save()

    class Trap:
        def __reduce__(self):
            return exec, ("raise SystemExit('the trap went off')",)

    for content in ({"mlp.mlp.0.weight": Trap()}, [1, 2], {}):
        torch.save(content, released.checkpoint)
        with pytest.raises(InputError, match="released.model"):
            released.convert()
    released.checkpoint.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="not a file of tensors"):
        released.convert()
    released.checkpoint.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        released.convert()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.transformer.target_attention=1", "target_attention"),
        ("model.dcn.batch_norm=true", "batch_norm"),
        ("model.transformer.similarity=true", "similarity"),
        ("model={name: din}", "din"),
        ("features.item_hash=9", "item_hash"),
        ("features.item_rows=9", "item_rows"),
    ],
)
def test_a_model_that_the_release_does_not_have_is_refused(released, override, words):
    released.save()
    with pytest.raises(InputError, match=words):
        convert.torch_to_jax(released.checkpoint, load_config(released.config, [override]), released.run)
    assert not released.run.exists()


def test_converted_weights_are_no_training_to_go_on_with(released):
    released.save()
    released.convert()
    recorded = RunDirectory(released.run).read_metadata()["converted"]["sha256"]
    assert recorded == hashlib.sha256(released.checkpoint.read_bytes()).hexdigest()
    with pytest.raises(InputError, match="converted weights"):
        train(load_config(released.config), released.run, resume=True)
    with pytest.raises(InputError, match="exists"):
        released.convert()


def test_without_pytorch_one_sentence_says_what_to_install(released, monkeypatch):
    released.checkpoint.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match="pip install torch"):
        released.convert()
    with pytest.raises(InputError, match="pip install torch"):
        convert.jax_to_torch(released.run, released.folder / "out.model")
