"""What a request costs: one user, M candidates, by an export; beside the scoring step, and LightGBM on ready features.

python -m benchmarks.run serve [--small] [--requests 100000]
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.extend.core import jaxprs_in_params

from benchmarks.harness import Table
from benchmarks.published import published_config
from mmctr_jax.config import Config
from mmctr_jax.devices.sharding import make_mesh, put_replicated
from mmctr_jax.export.folder import write
from mmctr_jax.export.request import input_shapes, item_arrays, request_function
from mmctr_jax.prediction.predictor import Predictor
from mmctr_jax.serve import Scorer
from mmctr_jax.training.step import init_state, make_narrow, make_predict_step

CANDIDATES = (1, 100, 500, 1000)
MATCHING = ("model={name: matching, max_history: 16}",)


def model(config: Config, num_items: int, tags: int = 5) -> Predictor:
    """A model with fresh weights and made-up items, as a run would give it."""
    rng = np.random.default_rng(0)
    table: dict[str, np.ndarray] = {}
    for f in config.features.item_features:
        table[f.name] = rng.normal(size=(num_items, f.dim)).astype(np.float32) if f.is_vector else None
        if table[f.name] is None:
            table[f.name] = rng.integers(1, 1000, (num_items, tags)).astype(np.int32)
        table[f.name][0] = 0
    features = config.features.resolved(
        {f.column.name: table[f.name] for f in config.features.item_features}, num_items
    )
    config = config.model_copy(update={"features": features})
    mesh = make_mesh(jax.devices()[:1])
    state = init_state(config, put_replicated(table, mesh), mesh)
    unused = dict.fromkeys(("directory", "_calibration", "_score", "_vectors", "_items", "_mesh"))  # by an export
    return Predictor(config, 0, num_items, table, state.params, state.batch_stats, **unused)


def request(config: Config, clicks: int, candidates: int) -> dict[str, Any]:
    """One user's."""
    rng = np.random.default_rng(candidates)
    ids = rng.integers(1, config.features.num_items, clicks + candidates).tolist()
    side = {f.name: rng.integers(0, f.vocab_size, candidates).tolist() for f in config.features.side}
    return {"history": ids[:clicks], "candidates": ids[clicks:], "side": side}


def milliseconds(action, seconds: float = 2.0) -> tuple[float, float]:
    """(median, 99th percentile), after a few calls that do not count."""
    for _ in range(3):
        action()
    taken, end = [], time.perf_counter() + seconds
    while len(taken) < 10 or time.perf_counter() < end:
        start = time.perf_counter()
        action()
        taken.append(1e3 * (time.perf_counter() - start))
    return float(np.median(taken)), float(np.quantile(taken, 0.99))


def cells(times: list[tuple[float, float]]) -> list[str]:
    return [
        f"{median:.2f} (p99 {p99:.2f})" if median < 10 else f"{median:.0f} (p99 {p99:.0f})" for median, p99 in times
    ]


def measure_step(table: Table, name: str, predictor: Predictor, clicks: int) -> None:
    """The scoring step as `mmctr predict` runs it, compiled for each number of candidates, weights cut beforehand."""
    config, mesh = predictor.config, make_mesh(jax.devices()[:1])
    items = put_replicated(predictor.table, mesh)
    params = make_narrow(config, mesh)(predictor.params, items, clicks)
    step, times = make_predict_step(config, mesh), []
    for candidates in CANDIDATES:
        asked = request(config, clicks, candidates)
        batch = {
            "history": np.tile(np.array(asked["history"], np.int32), (candidates, 1)),
            "item": np.array(asked["candidates"], np.int32),
            "side": {name: np.array(values, np.int32) for name, values in asked["side"].items()},
            "weight": np.ones(candidates, np.float32),
        }
        times.append(milliseconds(lambda batch=batch: np.asarray(step(params, predictor.batch_stats, batch, items))))
    table.row(name, "scoring step", clicks, *cells(times))


def measure_scorer(table: Table, name: str, scorer: Scorer, config: Config, clicks: int, what: str) -> None:
    """An export, in Python."""
    times = []
    for candidates in CANDIDATES:
        asked = request(config, clicks, candidates)
        times.append(milliseconds(lambda asked=asked: scorer.score(**asked)))
    table.row(name, what, clicks, *cells(times))


def rates() -> tuple[float, float]:
    """(FLOP, bytes) a second, of ONNX Runtime's products of a matrix of 268 MB with 1,024 vectors, and with one."""
    import onnxruntime  # not above: tests import this file, and neither it nor `graph` is there without the extra

    from mmctr_jax.export.graph import convert

    matrix = jax.numpy.ones((8192, 8192))
    x = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("M"), 8192), np.float32)
    graph = convert(lambda arrays: {"y": arrays["x"] @ matrix}, {"x": x})
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    seconds = []
    for rows in (1024, 1):
        vectors = np.ones((rows, 8192), np.float32)
        seconds.append(milliseconds(lambda vectors=vectors: session.run(None, {"x": vectors}))[0] / 1e3)
    return 2 * 1024 * matrix.size / seconds[0], matrix.nbytes / seconds[1]


def flop_of_products(jaxpr: Any) -> int:
    """Of products of matrices; a multiplication and an addition are two."""
    flop = sum(flop_of_products(inner) for e in jaxpr.eqns for inner in jaxprs_in_params(e.params))
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            sizes, ((summed, _), _) = equation.invars[0].aval.shape, equation.params["dimension_numbers"]
            flop += 2 * equation.outvars[0].aval.size * math.prod(sizes[axis] for axis in summed)
    return flop


def measure_floor(
    table: Table, name: str, predictor: Predictor, folder: Path, clicks: int, per_second: tuple[float, float]
) -> None:
    """What a float32 graph cannot go below: its products alone, or its weights read once, at ONNX Runtime's rates."""
    config, times = predictor.config, []
    params = make_narrow(config, make_mesh(jax.devices()[:1]))(predictor.params, predictor.table, clicks)
    function = request_function(config, params, predictor.batch_stats, clicks, None)
    shapes = input_shapes(config, item_arrays(config, predictor.params, predictor.table, 8), clicks)
    weights = sum(file.stat().st_size for file in folder.glob(f"model-{clicks}.*"))
    for M in CANDIDATES:
        sizes = {"V": predictor.num_items, "M": M}
        arrays = {
            key: jax.ShapeDtypeStruct([sizes.get(str(size), size) for size in x.shape], x.dtype)
            for key, x in shapes.items()
        }
        flop = flop_of_products(jax.jit(function).trace(arrays).jaxpr.jaxpr)
        times.append(f"{1e3 * max(flop / per_second[0], weights / per_second[1]):.2f} ({flop / 1e9:.3g} GFLOP)")
    table.row(name, f"floor of products and {weights / 1e6:,.0f} MB of weights", clicks, *times)


@contextmanager
def served(folder: Path) -> Iterator[tuple[int, int]]:
    """(port, process id) of `mmctr serve` on an export."""
    command = [sys.executable, "-m", "mmctr_jax", "serve", str(folder), "--port", "0", "--no-access-log"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield int(process.stdout.readline().split(";")[0].rpartition(":")[2]), process.pid
        finally:
            process.terminate()


def asker(port: int, config: Config, clicks: int, candidates: int) -> Callable[[], None]:
    """Asks over a connection of its own. Raises: AssertionError if the answer is not 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    body = json.dumps(request(config, clicks, candidates))

    def ask() -> None:
        connection.request("POST", "/v1/score", body)
        response = connection.getresponse()
        assert response.status == 200, response.read()
        response.read()

    return ask


def measure_http(table: Table, name: str, folder: Path, config: Config, clicks: int) -> None:
    """The same over HTTP, one connection."""
    with served(folder) as (port, _):
        times = [milliseconds(asker(port, config, clicks, candidates)) for candidates in CANDIDATES]
    table.row(name, "float32 over HTTP", clicks, *cells(times))


def throughput(port: int, config: Config, connections: int, requests: int) -> tuple[float, list[float]]:
    """(requests a second, milliseconds of each) of 100 candidates each, over so many connections at a time."""

    def one(ask: Callable[[], None]) -> list[float]:
        taken = []
        for _ in range(requests // connections):
            start = time.perf_counter()
            ask()
            taken.append(1e3 * (time.perf_counter() - start))
        return taken

    with ThreadPoolExecutor(connections) as pool:
        start = time.perf_counter()
        taken = list(pool.map(one, [asker(port, config, 16, 100) for _ in range(connections)]))
        return sum(map(len, taken)) / (time.perf_counter() - start), sum(taken, [])


def resident(pid: int) -> float:
    """Megabytes."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def load(folder: Path, config: Config, requests: int) -> None:
    """Prints throughput and the server's memory; any answer but 200 ends it."""
    table = Table("connections", "requests", "requests a second", "median ms", "p99 ms", "server's memory, MB")
    with served(folder) as (port, pid):
        throughput(port, config, 1, 200)
        for connections in (1, 16):
            rate, taken = throughput(port, config, connections, requests // 2)
            times = (f"{np.quantile(taken, q):.1f}" for q in (0.5, 0.99))
            table.row(connections, f"{len(taken):,}", f"{rate:,.0f}", *times, f"{resident(pid):,.0f}")


def measure_lightgbm(table: Table) -> None:
    """500 trees of 31 leaves on 52 features that are there already."""
    try:
        import lightgbm
    except ImportError:
        print("LightGBM is not installed: pip install '.[rivals]'")
        return
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20_000, 52)), rng.integers(0, 2, 20_000)
    trees = lightgbm.LGBMClassifier(n_estimators=500, num_leaves=31, verbose=-1).fit(x, y).booster_
    times = [milliseconds(lambda m=m: trees.predict(x[:m])) for m in CANDIDATES]
    table.row("LightGBM, 500 trees", "features ready-made", "–", *cells(times))


def main(argv: list[str]) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(prog="serve", description=__doc__)
    parser.add_argument("--small", action="store_true", help="without the published model")
    parser.add_argument("--requests", type=int, default=4_000, help="of the test under load (default: 4,000)")
    args = parser.parse_args(argv)
    rate = rates()
    print(f"ONNX Runtime's products: {rate[0] / 1e9:,.0f} GFLOP/s; it reads weights at {rate[1] / 1e9:,.1f} GB/s.")
    print("Milliseconds a request, by candidates M.\n")
    table = Table("model", "by", "clicks", *(f"M = {m:,}" for m in CANDIDATES))
    sizes = {"matching, 19,221 items": (19_221, 16), "matching, 91,718 items": (91_718, 16)}
    for name, (num_items, clicks) in sizes.items():
        predictor = model(published_config(*MATCHING), num_items)
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), predictor, "onnx", "float32")
            start = time.perf_counter()
            scorer = Scorer(folder)
            scorer.score(**request(predictor.config, clicks, 10))
            loaded = time.perf_counter() - start
            measure_step(table, name, predictor, clicks)
            measure_scorer(table, name, scorer, predictor.config, clicks, "float32")
            measure_floor(table, name, predictor, Path(folder), clicks, rate)
            measure_http(table, name, Path(folder), predictor.config, clicks)
    measure_lightgbm(table)
    if not args.small:
        predictor = model(published_config("train.length_buckets=[3, 10]"), 91_718)
        for precision in ("float32", "int8"):
            with tempfile.TemporaryDirectory() as folder:
                write(Path(folder), predictor, "onnx", precision)
                for clicks in (3, 10, 64):
                    scorer = Scorer(folder)
                    measure_scorer(table, "published", scorer, predictor.config, clicks, precision)
                    if precision == "float32":
                        measure_floor(table, "published", predictor, Path(folder), clicks, rate)
        for clicks in (3, 10, 64):
            measure_step(table, "published", predictor, clicks)
    print(f"\nFrom opening the larger matching export to its first answer: {loaded:.2f} s.")
    print("\nThe larger matching model over HTTP, 100 candidates a request.\n")
    predictor = model(published_config(*MATCHING), num_items)
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), predictor, "onnx", "float32")
        load(Path(folder), predictor.config, args.requests)
