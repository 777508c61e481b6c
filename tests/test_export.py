"""An export scores as the run does, whatever the model, and says so before it is there."""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batches import make_batch, make_items, randomised
from marks import few
from scipy.special import expit, logit
from synthetic import ITEMS, MAX_HISTORY, SYSTEMS, merged, raw_config, resolved_config, write_dataset

from mmctr_jax import cli
from mmctr_jax.config import parse_config
from mmctr_jax.devices.sharding import make_mesh
from mmctr_jax.errors import InputError
from mmctr_jax.prediction import calibration
from mmctr_jax.prediction.predict import predict
from mmctr_jax.training.loop import train
from mmctr_jax.training.step import init_state, make_narrow, make_predict_step

onnx = pytest.importorskip("onnx", reason="needs ONNX: pip install '.[serve]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install '.[serve]'")

from mmctr_jax.export import folder as folder_module  # noqa: E402
from mmctr_jax.export.folder import export  # noqa: E402
from mmctr_jax.export.graph import convert  # noqa: E402
from mmctr_jax.export.int8 import quantised  # noqa: E402
from mmctr_jax.export.request import input_shapes, item_arrays, request_function  # noqa: E402
from mmctr_jax.serve import RequestError, Scorer  # noqa: E402

MODELS = {
    "mmctr": {},
    **SYSTEMS,
    "released mask": {"model": {"history_mask": "released"}},
    "low rank, batch norm": {"model": {"dcn": {"rank": 2, "batch_norm": True}}},
    "few outputs": {"model": {"transformer": {"first_k": 2, "max_pool": False, "target_attention": 2}}},
}


QUICK = "mmctr", "matching", "similarity", "codes", "low rank, batch norm"


@pytest.mark.parametrize("change", few(MODELS, QUICK), ids=MODELS)
def test_a_graph_gives_what_the_scoring_step_gives(change):
    """One history and several candidates, at the lengths that take different paths; an empty history among them."""
    config, rng = resolved_config(change), np.random.default_rng(0)
    items, mesh = make_items(rng), make_mesh(jax.devices()[:1])
    state = init_state(config, items, mesh)
    params = randomised(state.params, rng)
    arrays = item_arrays(config, params, items, ITEMS)
    for length in (MAX_HISTORY,) if config.model.sees_padding else (2, MAX_HISTORY):
        enough = make_narrow(config, mesh)(params, items, length)
        shapes = input_shapes(config, arrays, length)
        graph = convert(request_function(config, enough, state.batch_stats, length, None), shapes)
        onnx.checker.check_model(graph)
        session = onnxruntime.InferenceSession(graph.SerializeToString())
        step = make_predict_step(config, mesh)
        for clicks in (0, 1, length):
            batch = make_batch(rng, [clicks] * 5, length)
            batch["history"][:] = batch["history"][0]
            request = {"history": batch["history"][0], "candidates": batch["item"]}
            request |= {f"side.{name}": values for name, values in batch["side"].items()}
            logits, scores = session.run(["logits", "scores"], arrays | request)
            np.testing.assert_allclose(logits, step(enough, state.batch_stats, batch, items), rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(scores, expit(logits), atol=1e-6)
            for name, wrong in (("candidates", -1), ("candidates", ITEMS), ("history", -1), ("history", ITEMS)):
                ids = request[name].copy()
                ids[-1] = wrong
                (found,) = session.run(["scores"], arrays | request | {name: ids})
                assert np.isnan(found[-1]) and np.isnan(found[0]) == (name == "history")


@pytest.mark.parametrize("kind", calibration.KINDS)
def test_scores_of_a_graph_are_calibrated(kind):
    rng, config = np.random.default_rng(0), resolved_config(SYSTEMS["matching"])
    logits = rng.normal(0, 3, 2000)
    fitted = calibration.fit(kind, 1, (rng.random(2000) < expit(logits / 2 - 1)).astype(int), logits)
    items, mesh = make_items(rng), make_mesh(jax.devices()[:1])
    params = jax.tree.map(lambda x: 3 * x, randomised(init_state(config, items, mesh).params, rng))
    arrays = item_arrays(config, params, items, ITEMS)
    function = request_function(config, params, {}, MAX_HISTORY, fitted)
    session = onnxruntime.InferenceSession(
        convert(function, input_shapes(config, arrays, MAX_HISTORY)).SerializeToString()
    )
    batch = make_batch(rng, [3] * 200)
    request = {"history": batch["history"][0], "candidates": batch["item"]}
    request |= {f"side.{name}": values for name, values in batch["side"].items()}
    logits, scores = session.run(["logits", "scores"], arrays | request)
    assert np.ptp(logits) > 1
    np.testing.assert_allclose(scores, expit(fitted.apply(logits)), atol=1e-5)


PRODUCTS = ("bqhd,bkhd->bhqk", "bhqk,bkhd->bqhd", "bn,bne->be", "bd,bnd->bn", "bnd,dk->bnk", "bd,kd->bk", "bij,bij->b")


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("product", PRODUCTS)
def test_products_of_any_axes_are_numpys(product, heads):
    """b is a symbol, and h may be 1, as with one attention head, where nothing is copied."""
    rng = np.random.default_rng(0)
    sizes = {"b": 3, "h": heads, "d": 4, "e": 2, "i": 2, "j": 3} | dict.fromkeys("nqk", 5)
    arrays = {
        name: rng.normal(size=[sizes[axis] for axis in axes]).astype(np.float32)
        for name, axes in zip("xy", product.partition("->")[0].split(","), strict=True)
    }
    (b,) = jax.export.symbolic_shape("b")
    specs = {
        name: jax.ShapeDtypeStruct(
            [b if size == 3 and axis == 0 else size for axis, size in enumerate(x.shape)], x.dtype
        )
        for name, x in arrays.items()
    }
    graph = convert(lambda of: {"z": jnp.einsum(product, of["x"], of["y"])}, specs)
    (found,) = onnxruntime.InferenceSession(graph.SerializeToString()).run(None, arrays)
    np.testing.assert_allclose(found, np.einsum(product, arrays["x"], arrays["y"]), rtol=1e-5, atol=1e-6)


BROADCASTS = {  # of x (M, 3), y (3,), m (M,) bool
    "by one": lambda a: a["x"] + a["y"],
    "outer": lambda a: a["x"][:, :, None] * a["y"],
    "both from a smaller one": lambda a: jnp.broadcast_to(a["y"], (4, 3)) + jnp.broadcast_to(-3 * a["y"], (4, 3)),
    "one and its own square": lambda a: (
        jnp.broadcast_to(a["y"] ** 2, a["x"].shape) - jnp.broadcast_to(a["y"], a["x"].shape)
    ),
    "a choice": lambda a: jnp.where(a["m"][:, None], a["x"], 0.0),
    "a choice of vectors": lambda a: jnp.where(a["m"][:, None], a["y"], -a["y"]),
    "a choice of scalars": lambda a: jnp.where(jnp.broadcast_to(a["m"][:, None], a["x"].shape), 1.0, 2.0),
    "a comparison": lambda a: (a["x"] != a["y"]) & (a["m"][:, None] | (a["y"] > 0)),
    "a sum of what was broadcast": lambda a: jnp.broadcast_to(a["y"], (4, 3)).sum(axis=0),
}


@pytest.mark.parametrize("name", BROADCASTS)
def test_broadcasts_have_the_sizes_and_values_of_numpys(name):
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(4, 3)), "y": rng.normal(size=3)}
    arrays = {name: x.astype(np.float32) for name, x in arrays.items()} | {"m": np.array([True, False, True, True])}
    (rows,) = jax.export.symbolic_shape("M")
    specs = {n: jax.ShapeDtypeStruct((rows, *x.shape[1:]) if n != "y" else x.shape, x.dtype) for n, x in arrays.items()}
    graph = convert(lambda of: {"z": BROADCASTS[name](of), "size": sum(x.sum() for x in of.values())}, specs)
    found = onnxruntime.InferenceSession(graph.SerializeToString()).run(["z"], arrays)[0]
    np.testing.assert_allclose(found, BROADCASTS[name](arrays), rtol=1e-6)


def test_what_cannot_be_converted_is_named():
    with pytest.raises(InputError, match="fft has no conversion"):
        convert(lambda arrays: {"y": jnp.fft.fft(arrays["x"]).real}, {"x": jax.ShapeDtypeStruct((4,), jnp.float32)})


def test_integer_products_are_near_and_independent_of_their_companions():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(64, 48)).astype(np.float32)
    shapes = {"x": jax.ShapeDtypeStruct((*jax.export.symbolic_shape("M"), 64), jnp.float32)}
    model = quantised(convert(lambda arrays: {"y": arrays["x"] @ jnp.asarray(matrix)}, shapes))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    x = rng.normal(size=(40, 64)).astype(np.float32) * 10.0 ** rng.integers(-3, 4, (40, 1))
    x[3] = 0
    x = x.astype(np.float32)
    (together,) = session.run(None, {"x": x})
    size = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(matrix, axis=0)
    assert (np.abs(together - x @ matrix) <= 0.01 * size).all() and not together[3].any()
    assert any(node.op_type == "MatMulInteger" for node in model.graph.node)
    for row in range(40):
        np.testing.assert_array_equal(session.run(None, {"x": x[row : row + 1]})[0][0], together[row])


def test_small_inputs_with_large_weights_are_not_rounded_away_beside_large_ones():
    """As small embeddings beside logits are: columns whose sizes differ by 10⁴, and contribute alike."""
    rng = np.random.default_rng(0)
    size = 10.0 ** rng.integers(-2, 3, 64)
    matrix = (rng.normal(size=(64, 48)) / size[:, None]).astype(np.float32)
    shapes = {"x": jax.ShapeDtypeStruct((*jax.export.symbolic_shape("M"), 64), jnp.float32)}
    model = quantised(convert(lambda arrays: {"y": arrays["x"] @ jnp.asarray(matrix)}, shapes))
    x = (rng.normal(size=(40, 64)) * size).astype(np.float32)
    (found,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    exact = x.astype(np.float64) @ matrix
    assert np.abs(found - exact).max() <= 0.05 * exact.std()


def trained(folder, change):
    """A run directory and its data."""
    data = write_dataset(folder / "data")
    config = merged(merged(raw_config(data), change), {"train": {"epochs": 1, "length_buckets": [2, 5]}})
    train(parse_config(config), folder / "run")
    vocabulary = {"id": np.arange(1, ITEMS), "value": [f"film {i}" for i in range(1, ITEMS)]}
    (data / "vocabularies").mkdir()
    pq.write_table(pa.table(vocabulary), data / "vocabularies" / "item_id.parquet")
    return folder / "run", data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Of a model with one graph."""
    return trained(tmp_path_factory.mktemp("matching"), SYSTEMS["matching"])


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Of a model with a graph for each length."""
    return trained(tmp_path_factory.mktemp("mmctr"), {})


@pytest.fixture
def either(request):
    """One of the two, by name."""
    return request.getfixturevalue(request.param)


BOTH = pytest.mark.parametrize("either", ["run", "several"], indirect=True)


def requests_of(data):
    table = pq.read_table(data / "test.parquet").to_pylist()
    return [
        (row["item_seq"], [row["item_id"]], {name: row[name] for name in ("likes_level", "views_level")})
        for row in table
    ]


@BOTH
@pytest.mark.parametrize("kind", ["onnx", "stablehlo"])
def test_an_export_scores_a_files_rows_as_predict_does(either, tmp_path, kind):
    directory, data = either
    manifest = export(directory, tmp_path / "export", kind)
    predict(directory, None, tmp_path / "scores.parquet")
    expected = pq.read_table(tmp_path / "scores.parquet")["score"].to_numpy()
    assert manifest["self_check"]["logit"] <= 1e-4 and manifest["self_check"]["rows"] == 70
    if kind == "stablehlo":
        with pytest.raises(InputError, match="--format onnx"):
            Scorer(tmp_path / "export")
        return
    scorer = Scorer(tmp_path / "export")
    scores = [scorer.score(*request)[0] for request in requests_of(data)]
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    history, _, side = requests_of(data)[0]
    many = scorer.score(history, list(range(1, ITEMS)), side)
    alone = [scorer.score(np.array(history), [item], side)[0] for item in range(1, ITEMS)]
    np.testing.assert_allclose(many, alone, atol=1e-6)
    assert scorer.score([0, *history, 0], [3], side) == scorer.score(history, [3], side)


ALONE = """
import sys
for name in ("mmctr_jax", "flax", "onnx" if {jax} else "jax"):
    sys.modules[name] = None
import json, numpy as np
from pathlib import Path
folder = Path({folder!r})
manifest = json.loads((folder / "serving.json").read_text())
arrays = {{n: np.fromfile(folder / a["file"], np.float32).reshape(a["shape"]) for n, a in manifest["arrays"].items()}}
length = max(map(int, manifest["rows_at_once"]))
history = np.zeros(length, np.int32)
history[-2:] = 4, 7
request = {{"history": history, "candidates": np.array([1, 2, 3], np.int32)}}
request |= {{f"side.{{s['name']}}": np.array([1, 2, 3], np.int32) for s in manifest["side"]}}
if {jax}:
    import jax
    model = jax.export.deserialize((folder / f"model-{{length}}.stablehlo").read_bytes())
    weights = np.load(folder / f"model-{{length}}.npz")
    print(np.asarray(model.call([weights[n] for n in weights.files], arrays | request)["scores"]).tolist())
else:
    import onnxruntime
    print(onnxruntime.InferenceSession(folder / f"model-{{length}}.onnx").run(["scores"], request)[0].tolist())
"""


def test_an_export_needs_neither_this_package_nor_the_other_runtime(run, tmp_path):
    directory, _ = run
    answers = []
    for kind in ("onnx", "stablehlo"):
        export(directory, tmp_path / kind, kind)
        program = ALONE.format(folder=str(tmp_path / kind), jax=kind == "stablehlo")
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        answers.append(json.loads(result.stdout))
    np.testing.assert_allclose(*answers, atol=1e-6)
    side = {"likes_level": [1, 2, 3], "views_level": [1, 2, 3]}
    np.testing.assert_allclose(Scorer(tmp_path / "onnx").score([4, 7], [1, 2, 3], side), answers[0], atol=1e-6)


def test_a_triton_repository_is_as_triton_wants_it(several, tmp_path):
    directory, data = several
    export(directory, tmp_path / "plain")
    export(directory, tmp_path / "triton", triton="films")
    scorer = Scorer(tmp_path / "plain")
    lengths = sorted(scorer._rows)
    assert sorted(path.name for path in (tmp_path / "triton").iterdir() if path.is_dir()) == sorted(
        f"films-{length}" for length in lengths
    )
    for length in lengths:
        home = tmp_path / "triton" / f"films-{length}"
        history = np.zeros(length, np.int32)
        history[-2:] = 4, 7
        feed = {"history": history, "candidates": np.array([1, 2], np.int32)}
        feed |= {f"side.{name}": np.array([1, 2], np.int32) for name in scorer.side}
        (scores,) = onnxruntime.InferenceSession(home / "1" / "model.onnx").run(["scores"], feed)
        expected = scorer.score([4, 7], [1, 2], dict.fromkeys(scorer.side, [1, 2]))
        np.testing.assert_allclose(scores, expected, atol=1e-6)
        schema = pytest.importorskip(
            "tritonclient.grpc.model_config_pb2", reason="needs pip install 'tritonclient[grpc]'"
        )
        from google.protobuf import text_format

        config = text_format.Parse((home / "config.pbtxt").read_text(), schema.ModelConfig())
        dims = {value.name: list(value.dims) for value in (*config.input, *config.output)}
        assert config.name == home.name and dims["history"] == [length] and dims["scores"] == [-1]
        assert dims.keys() == {*feed, "scores", "logits"}
    with pytest.raises(InputError, match="export without --triton"):
        Scorer(tmp_path / "triton")
    with pytest.raises(InputError, match="leave out --original-ids"):
        export(directory, tmp_path / "x", original_ids=True, triton="films")


@BOTH
def test_new_items_join_an_export_without_new_graphs(either, tmp_path, capsys):
    directory, data = either
    out = tmp_path / "export"
    export(directory, out)
    weights = {path.name: path.stat().st_ino for path in out.glob("*.weights")}
    table = pq.read_table(data / "item_info.parquet")
    rows = [*table.to_pylist(), {**table.to_pylist()[7], "item_id": ITEMS}]
    pq.write_table(pa.Table.from_pylist(rows, table.schema), tmp_path / "newer.parquet")
    with pytest.raises(
        RequestError, match=f"candidates\\[0\\] is {ITEMS}, which is not a number from 1 to {ITEMS - 1}"
    ):
        Scorer(out).score([1], [ITEMS], {"likes_level": 1, "views_level": 2})
    export(directory, out, item_info=tmp_path / "newer.parquet")
    assert "its graphs are kept" in capsys.readouterr().out
    assert {path.name: path.stat().st_ino for path in out.glob("*.weights")} == weights
    rows = {"item_seq": pa.array([[1, ITEMS, 2]], pa.list_(pa.int64())), "item_id": [ITEMS]}
    pq.write_table(pa.table(rows | {"likes_level": [1], "views_level": [2]}), tmp_path / "rows.parquet")
    predict(directory, tmp_path / "rows.parquet", tmp_path / "o.parquet", item_info=tmp_path / "newer.parquet")
    expected = pq.read_table(tmp_path / "o.parquet")["score"].to_numpy()
    side = {"likes_level": 1, "views_level": 2}
    np.testing.assert_allclose(Scorer(out).score([1, ITEMS, 2], [ITEMS], side), expected, atol=1e-6)


def test_original_ids_are_those_of_the_log(run, tmp_path):
    directory, _ = run
    export(directory, tmp_path / "numbers")
    export(directory, tmp_path / "names", original_ids=True)
    side = {"likes_level": 1, "views_level": 2}
    named = Scorer(tmp_path / "names").score(["film 4", "film 7"], ["film 1", "film 2"], side)
    np.testing.assert_array_equal(named, Scorer(tmp_path / "numbers").score([4, 7], [1, 2], side))
    with pytest.raises(RequestError, match="history\\[0\\] is 'film 999', which is not that of an item"):
        Scorer(tmp_path / "names").score(["film 999"], ["film 1"], side)
    nested = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(RequestError, match="candidates\\[0\\] is .*, which is not that of an item"):
        Scorer(tmp_path / "names").score([], [nested], side)
    padded = Scorer(tmp_path / "names", unknown="padding")
    np.testing.assert_array_equal(padded.score(["film 4", "no", "film 7"], ["film 1", "film 2"], side), named)
    assert padded.unknown_ids == 1


def test_an_int8_export_keeps_what_it_cost_and_scores_candidates_alone(run, tmp_path):
    directory, data = run
    manifest = export(directory, tmp_path / "export", precision="int8")
    assert manifest["self_check"].keys() >= {"auc", "exported_auc", "score"}
    scorer, (history, _, side) = Scorer(tmp_path / "export"), requests_of(data)[0]
    many = scorer.score(history, list(range(1, ITEMS)), side)
    for item in range(1, ITEMS):
        assert abs(scorer.score(history, [item], side)[0] - many[item - 1]) <= 1e-6


def test_a_damaged_export_is_mended_by_exporting_again(run, tmp_path, capsys):
    directory, data = run
    export(directory, tmp_path / "export")
    before = Scorer(tmp_path / "export").score(*requests_of(data)[0])
    for damage in (lambda file: file.unlink(), lambda file: file.write_bytes(b"\0" * file.stat().st_size)):
        for file in sorted((tmp_path / "export").glob("model-*")):
            damage(file)
            export(directory, tmp_path / "export")
            assert "its graphs are kept" not in capsys.readouterr().out
            np.testing.assert_array_equal(Scorer(tmp_path / "export").score(*requests_of(data)[0]), before)


def test_a_run_in_bfloat16_is_exported_in_float32(run, tmp_path):
    """Its weights are float32 in any case; here they are the same as those of the other export."""
    directory, data = run
    shutil.copytree(directory, tmp_path / "run")
    config = (tmp_path / "run" / "config.yaml").read_text()
    (tmp_path / "run" / "config.yaml").write_text(config.replace("precision: float32", "precision: bfloat16"))
    export(directory, tmp_path / "float32")
    export(tmp_path / "run", tmp_path / "bfloat16")
    request = requests_of(data)[0]
    scores = [Scorer(tmp_path / name).score(*request) for name in ("float32", "bfloat16")]
    np.testing.assert_array_equal(*scores)


def test_calibration_is_part_of_an_export(run, tmp_path):
    directory, data = run
    fitted = calibration.Calibration("platt", 1, 0.5, 0.25)
    export(directory, tmp_path / "plain")
    try:
        step = json.loads((tmp_path / "plain" / "serving.json").read_text())["step"]
        text = json.dumps(asdict(fitted) | {"step": step})
        calibration.path(directory).write_text(text)
        export(directory, tmp_path / "calibrated")
    finally:
        calibration.path(directory).unlink()
    for request in requests_of(data)[:5]:
        plain, calibrated = (Scorer(tmp_path / name).score(*request) for name in ("plain", "calibrated"))
        np.testing.assert_allclose(logit(calibrated), 0.5 * logit(plain) + 0.25, atol=1e-5)


def test_an_export_that_differs_from_the_run_is_not_kept(run, tmp_path, monkeypatch):
    directory, _ = run
    export(directory, tmp_path / "export")
    before = (tmp_path / "export" / "serving.json").read_bytes()
    wrong = item_arrays(*_arguments(directory))
    monkeypatch.setattr(folder_module, "item_arrays", lambda *_: {name: 2 * array for name, array in wrong.items()})
    with pytest.raises(InputError, match="The self-check failed"):
        export(directory, tmp_path / "export")
    assert (tmp_path / "export" / "serving.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def _arguments(directory):
    from mmctr_jax.prediction.predictor import Predictor

    predictor = Predictor.load(directory)
    return predictor.config, predictor.params, predictor.table, predictor.num_items


def test_what_cannot_be_exported_is_refused(run, tmp_path, capsys):
    directory, _ = run
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep")

    def refused(*arguments):
        with pytest.raises(SystemExit) as error:
            cli.run("export", [str(argument) for argument in arguments])
        assert error.value.code == 2
        return capsys.readouterr().err

    assert "is not an export" in refused(directory, "--out", tmp_path / "mine")
    assert "is not a run directory" in refused(tmp_path / "mine", "--out", tmp_path / "x")
    stablehlo = ("--format", "stablehlo", "--precision", "int8")
    assert "StableHLO is exported in float32" in refused(directory, "--out", tmp_path / "x", *stablehlo)
    assert "--triton 'a b/c': a model's name is of letters" in refused(
        directory, "--out", tmp_path / "x", "--triton", "a b/c"
    )
    assert (tmp_path / "mine" / "letter.txt").read_text() == "keep" and not (tmp_path / "x").exists()


def test_an_export_by_a_link_is_put_where_it_leads_to(run, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for _ in range(2):
        export(run[0], tmp_path / "link")
        assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "serving.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


BAD_REQUESTS = [
    ({"history": "12"}, "history is '12'; give a list of item ids."),
    ({"history": [[1], 2]}, "history[0] is [1], which is"),
    ({"history": [1, -1]}, f"history[1] is -1, which is not a number from 0 to {ITEMS - 1}."),
    ({"history": [True]}, "history[0] is True, which is"),
    ({"history": [1.5]}, "history[0] is 1.5, which is"),
    ({"candidates": [2**70]}, "candidates[0] is 1180591620717411303424, which is"),
    ({"candidates": ["3"]}, "candidates[0] is '3', which is"),
    ({"candidates": [1, 0]}, f"candidates[1] is 0, which is not a number from 1 to {ITEMS - 1}."),
    ({"candidates": [1, None]}, "candidates[1] is None, which is"),
    ({"side": {"likes_level": 1}}, "side.views_level is missing; give one value, or one for each candidate."),
    ({"side": {"likes_level": 1, "views_level": 11}}, "side.views_level is 11; its values are 0 to 10."),
    ({"side": {"likes_level": [1, 2], "views_level": 1}}, "side.likes_level has 2 values, and there are 1 candidates."),
    ({"side": {"likes_level": ["1"], "views_level": 1}}, "side.likes_level[0] is '1'; its values are 0 to 10."),
    ({"side": {"likes_level": 1, "views_level": 1, "age": 3}}, "side.age is not a feature of the model; it has"),
    ({"side": [1, 2]}, "side is [1, 2]; give an object of features."),
]


@pytest.fixture(scope="module")
def scorer(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("scorer") / "export"
    export(run[0], out)
    return Scorer(out)


@pytest.mark.parametrize(("change", "sentence"), BAD_REQUESTS, ids=[sentence[:40] for _, sentence in BAD_REQUESTS])
def test_a_wrong_request_is_told_what_is_wrong(scorer, change, sentence):
    request = {"history": [1], "candidates": [2], "side": {"likes_level": 1, "views_level": 1}} | change
    with pytest.raises(RequestError) as error:
        scorer.score(**request)
    assert str(error.value).startswith(sentence)


def test_no_candidates_have_no_scores(scorer):
    assert scorer.score([], [], {"likes_level": 1, "views_level": 1}).shape == (0,)


def test_a_damaged_export_is_refused(run, tmp_path):
    export(run[0], tmp_path / "export")
    for file, part in (("item_vectors.bin", b"123"), ("serving.json", b"{"), ("model-*.onnx", b"no graph")):
        path = next((tmp_path / "export").glob(file))
        whole = path.read_bytes()
        path.write_bytes(part)
        with pytest.raises(InputError, match="again"):
            Scorer(tmp_path / "export")
        path.write_bytes(whole)
    with pytest.raises(InputError, match="is not an export"):
        Scorer(tmp_path)
