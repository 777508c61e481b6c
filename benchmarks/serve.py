"""What a request costs: one user, M candidates, by an export; beside the scoring step, and LightGBM on ready features.

python -m benchmarks.run serve [--small]
"""

from __future__ import annotations

import argparse
import http.client
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.harness import Table
from benchmarks.published import published_config
from mmctr_jax.config import Config
from mmctr_jax.devices.sharding import make_mesh, put_replicated
from mmctr_jax.export.folder import write
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
    return Predictor(config, 0, num_items, table, state.params, state.batch_stats, lambda *_: None)


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


def measure_http(table: Table, name: str, folder: Path, config: Config, clicks: int) -> None:
    """The same over HTTP, one connection."""
    import uvicorn

    from mmctr_jax.serve.http import Service

    service = uvicorn.Config(Service(lambda: Scorer(folder)), port=0, log_config=None, access_log=False)
    server = uvicorn.Server(service)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    connection, times = http.client.HTTPConnection("127.0.0.1", port), []
    for candidates in CANDIDATES:
        body = json.dumps(request(config, clicks, candidates))

        def ask(body=body):
            connection.request("POST", "/v1/score", body)
            response = connection.getresponse()
            assert response.status == 200, response.read()
            response.read()

        times.append(milliseconds(ask))
    table.row(name, "float32 over HTTP", clicks, *cells(times))
    server.should_exit = True
    thread.join()


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
    args = parser.parse_args(argv)
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
        for clicks in (3, 10, 64):
            measure_step(table, "published", predictor, clicks)
    print(f"\nFrom opening the larger matching export to its first answer: {loaded:.2f} s.")
