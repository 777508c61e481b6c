"""The service over HTTP: what it answers, what it refuses, and what signals and new exports do to it."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from types import SimpleNamespace
from unittest.mock import ANY

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import ITEMS, SYSTEMS, merged, raw_config, write_dataset

from mmctr_jax.config import parse_config
from mmctr_jax.errors import InputError
from mmctr_jax.training.loop import train

pytest.importorskip("onnxruntime", reason="needs what serving needs: pip install '.[serve]'")
pytest.importorskip("uvicorn", reason="needs what serving needs: pip install '.[serve]'")

from browser import launched

from mmctr_jax.export.folder import export
from mmctr_jax.serve import Scorer
from mmctr_jax.serve.example import example
from mmctr_jax.serve.http import Limits, Service

REQUEST = {"history": [4, 7], "candidates": [1, 2, 3], "side": {"likes_level": [1, 2, 3], "views_level": 5}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of one model: the second has another seed."""
    folder = tmp_path_factory.mktemp("serve")
    data = write_dataset(folder / "data")
    for seed in (1, 2):
        change = merged(SYSTEMS["matching"], {"train": {"epochs": 1, "seed": seed}})
        train(parse_config(merged(raw_config(data), change)), folder / f"run{seed}")
    return folder


@pytest.fixture(scope="module")
def exported(runs):
    export(runs / "run1", runs / "export")
    return runs / "export"


@pytest.fixture(scope="module")
def service(exported):
    limits = Limits(body_bytes=20_000, candidates=100, seconds=10)
    return Service(lambda: Scorer(exported), "films", limits)


def answer(service, method, path, body=b"", headers=()):
    """(status, headers, body) of one request, without a server."""
    sent, parts = [], [body[:10], body[10:]]  # in two parts, as a socket may give them

    async def receive():
        part = parts.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message):
        sent.append(message)

    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": "http", "method": method, "path": path, "headers": raw, "client": ("test", 1)}
    asyncio.run(service(scope, receive, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    return sent[0]["status"], {k.decode(): v.decode() for k, v in sent[0]["headers"]}, sent[1]["body"]


def post(service, request, path="/v1/score"):
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    status, _, content = answer(service, "POST", path, body)
    return status, json.loads(content)


def test_scores_are_the_scorers(service, exported):
    expected = Scorer(exported).score(**REQUEST)
    status, content = post(service, REQUEST)
    assert status == 200
    np.testing.assert_allclose(content["scores"], expected, rtol=1e-6)
    other = REQUEST | {"history": []}
    status, content = post(service, {"requests": [REQUEST, other]})
    assert status == 200
    found = [result["scores"] for result in content["results"]]
    np.testing.assert_allclose(found, [expected, Scorer(exported).score(**other)], rtol=1e-6)


REFUSED = [
    (b"{", 400, "The body is not JSON"),
    (b"[1]", 400, "The body is a JSON list; give an object."),
    ({"history": [1]}, 400, "candidates must be a list of item ids."),
    (REQUEST | {"history": 5}, 400, "history must be a list of item ids."),
    (REQUEST | {"clicked": []}, 400, "clicked is not known; a request has history, candidates, side, clicks."),
    (REQUEST | {"candidates": [ITEMS]}, 400, f"candidates[0] is {ITEMS}, which is not"),
    (REQUEST | {"side": 3}, 400, "side is 3; give an object of features."),
    ({"requests": {}}, 400, "requests must be a list of objects"),
    ({"requests": [REQUEST, {"history": []}]}, 400, "requests[1].candidates must be a list"),
    ({"requests": [REQUEST, REQUEST | {"history": [-1]}]}, 400, "requests[1].history[0] is -1, which is not"),
    (REQUEST | {"candidates": [1] * 101}, 413, "There are 101 candidates, and 100 are allowed"),
    (b" " * 30_000, 413, "The body is longer than 20,000 bytes"),
    (b'{"history": ' + b"[" * 1000 + b"]" * 1000 + b', "candidates": [1]}', 400, "history[0] is "),
]


@pytest.mark.parametrize(("request_", "status", "sentence"), REFUSED, ids=[s[:30] for _, _, s in REFUSED])
def test_a_wrong_request_is_answered_with_one_sentence(service, request_, status, sentence):
    got, content = post(service, request_)
    assert got == status and content["error"].startswith(sentence) and "\n" not in content["error"]


def test_paths_and_methods_that_are_not_served(service):
    assert answer(service, "GET", "/nothing")[0] == 404
    status, _, body = answer(service, "GET", "/v1/score")
    assert status == 405 and json.loads(body)["error"] == "GET /v1/score is not served; use POST."
    assert answer(service, "GET", "/v2/models/films/versions/99")[0] == 404


def test_a_request_that_takes_too_long_is_given_up(exported):
    service = Service(lambda: Scorer(exported), limits=Limits(seconds=0.05))
    service.scorer.scores_by_label = lambda *_: time.sleep(0.5)
    status, content = post(service, REQUEST)
    assert status == 503 and "was not answered within 0.05 s" in content["error"]


def test_a_body_that_does_not_come_is_given_up(exported):
    service, sent = Service(lambda: Scorer(exported), limits=Limits(seconds=0.05)), []

    async def receive():
        await asyncio.sleep(5)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/score", "headers": [], "client": ("test", 1)}
    asyncio.run(service(scope, receive, send))
    assert sent[0]["status"] == 408 and b"did not come whole within 0.05 s" in sent[1]["body"]


def test_a_websocket_is_refused(service):
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    asyncio.run(service({"type": "websocket", "path": "/", "headers": []}, receive, send))
    assert sent == [{"type": "websocket.close"}]


def test_the_open_inference_protocol(service, exported):
    expected = Scorer(exported).score(**REQUEST)

    def infer(tensors, **more):
        return post(service, {"inputs": tensors, **more}, "/v2/models/films/infer")

    tensors = [
        {"name": "history", "datatype": "INT64", "shape": [1, 2], "data": [[4, 7]]},
        {"name": "candidates", "datatype": "INT64", "shape": [3], "data": [1, 2, 3]},
        {"name": "likes_level", "datatype": "INT64", "shape": [3], "data": [1, 2, 3]},
        {"name": "views_level", "datatype": "INT64", "shape": [1], "data": [5]},
    ]
    status, content = infer(tensors, id="a")
    assert status == 200 and content["id"] == "a" and content["model_name"] == "films"
    (output,) = content["outputs"]
    assert output["name"] == "scores" and output["datatype"] == "FP32" and output["shape"] == [3]
    np.testing.assert_allclose(output["data"], expected, rtol=1e-6)
    assert infer(tensors[1:])[1]["error"] == "inputs.history is missing."
    assert infer("x")[0] == 400 and infer([{"name": 3}])[0] == 400
    assert infer([*tensors[:3], {"name": "views_level"}])[1]["error"] == "inputs.views_level has no list as data."
    for shape in ([7], [-1], 3, [1, 2]):
        status, content = infer([*tensors[:3], tensors[3] | {"shape": shape}])
        assert status == 400 and content["error"] == f"inputs.views_level has the shape {shape} and 1 values."
    for shape in ([2, 0], [10**9, 0]):  # a tensor with rows of nothing
        assert infer([tensors[0] | {"shape": shape, "data": []}, *tensors[1:]])[0] in (200, 400)
    assert infer(tensors, outputs=5)[1]["error"] == "outputs must be a list of tensors."
    assert infer(tensors, outputs=[{"name": "scores"}])[0] == 200
    assert infer(tensors, outputs=[{"name": "liked"}])[1]["error"].startswith(
        "outputs asks for 'liked'; there is scores"
    )
    assert infer(tensors, outputs=["scores"])[1]["error"] == "outputs must be a list of tensors."
    body = json.dumps({"inputs": tensors}).encode()
    for length in ("\u00b2", "9" * 4500):
        headers = [("inference-header-content-length", length)]
        refused = answer(service, "POST", "/v2/models/films/infer", body, headers)
        assert refused[0] == 400 and b"Inference-Header-Content-Length" in refused[2]
    step = Scorer(exported).manifest["step"]
    status, _, body = answer(service, "GET", f"/v2/models/films/versions/{step}")
    model = json.loads(body)
    assert status == 200 and [i["name"] for i in model["inputs"]] == [
        "history",
        "candidates",
        "likes_level",
        "views_level",
    ]
    for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/films/ready"):
        assert answer(service, "GET", path)[0] == 200
    service.ready = False
    try:
        assert answer(service, "GET", "/v2/health/ready")[0] == 503
        assert answer(service, "GET", "/v2/health/live")[0] == 200
    finally:
        service.ready = True


def test_prometheus_can_read_the_metrics(service):
    from prometheus_client.parser import text_string_to_metric_families

    def counts():
        _, headers, body = answer(service, "GET", "/metrics")
        assert headers["content-type"].startswith("text/plain")
        families = text_string_to_metric_families(body.decode())
        return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}

    before = counts()
    post(service, REQUEST)
    post(service, b"{")
    post(service, {"requests": [REQUEST, REQUEST | {"side": {}}]})
    step = service.scorer.manifest["step"]
    answer(service, "GET", f"/v2/models/films/versions/{step}/ready")
    after = counts()

    def grown(*name):
        return after[name] - before.get(name, 0)

    assert grown("mmctr_candidates_total") == 6
    assert [grown("mmctr_requests_total", "/v1/score", status) for status in ("200", "400")] == [1, 2]
    assert grown("mmctr_errors_total", "/v1/score") == 2
    assert grown("mmctr_request_seconds_count", "/v1/score") == 3
    assert grown("mmctr_requests_total", "/v2/models/films/ready", "200") == 1


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
fields = ["history", "candidates", "side", "requests", "inputs", "outputs", "id", "parameters"]
bodies = st.dictionaries(st.sampled_from(fields) | st.text(max_size=5), values | st.just(REQUEST["side"]), max_size=5)
tensors = st.fixed_dictionaries(
    {"name": st.sampled_from(["history", "candidates", "likes_level", "views_level"]) | values},
    optional={
        "datatype": st.sampled_from(["INT64", "BYTES", "FP32"]) | values,
        "data": st.lists(st.integers(-3, ITEMS + 3), max_size=4) | values,
        "shape": values,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-2, 40) | values}) | values,
    },
)


@settings(max_examples=300, deadline=None)
@given(
    path=st.sampled_from(["/v1/score", "/v2/models/films/infer"]),
    body=bodies | st.fixed_dictionaries({"inputs": st.lists(tensors, max_size=5)}),
    rest=st.binary(max_size=40),
    cut=st.none() | st.integers(-5, 60),
)
def test_no_body_whatever_crashes_it(service, path, body, rest, cut):
    text = json.dumps(body).encode()
    length = [("inference-header-content-length", str(len(text) + (cut or 0)))] if cut is not None else []
    status, _, content = answer(service, "POST", path, text + rest * bool(length), length)
    assert status in (200, 400, 413), content
    if status != 200:
        assert json.loads(content)["error"]


@pytest.fixture
def server(runs, tmp_path):
    """(url, process, folder) of a server in a process of its own, which may be exported to anew."""
    export(runs / "run1", tmp_path / "export")
    program = [sys.executable, "-m", "mmctr_jax", "serve", tmp_path / "export", "--port", "0", "--name", "films"]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(program, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield _url(tmp_path / "log", process), process, tmp_path
    finally:
        process.kill()
        process.wait()


def _url(log, process):
    for _ in range(300):
        text = log.read_text()
        if "Serving" in text:
            return text.split(" at ")[1].split(";")[0]
        assert process.poll() is None, text
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def fetch(url, request=None):
    body = None if request is None else json.dumps(request).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=30) as response:
        return json.loads(response.read())


def test_a_new_export_is_served_without_a_dropped_request_and_a_signal_ends_it_in_peace(server, runs):
    url, process, folder = server
    found = dict.fromkeys(range(2))
    failed, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            try:
                fetch(f"{url}/v1/score", REQUEST)
            except Exception as error:
                failed.append(error)

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    found[0] = fetch(f"{url}/v1/score", REQUEST)["scores"]
    export(runs / "run2", folder / "export")
    expected = Scorer(folder / "export").score(**REQUEST)
    for _ in range(100):
        found[1] = fetch(f"{url}/v1/score", REQUEST)["scores"]
        if found[1] != found[0]:
            break
        time.sleep(0.1)
    np.testing.assert_allclose(found[1], expected, rtol=1e-6)
    (folder / "export" / "serving.json").write_text("{")
    os.kill(process.pid, signal.SIGHUP)
    for _ in range(100):
        if "so the old one still is" in (folder / "log").read_text():
            break
        time.sleep(0.1)
    assert fetch(f"{url}/v1/score", REQUEST)["scores"] == found[1]
    stop.set()
    for asker in askers:
        asker.join()
    assert not failed
    process.terminate()
    assert process.wait(30) == 0
    lines = (folder / "log").read_text().splitlines()
    assert lines[-1] == "Stopped." and "Traceback" not in "".join(lines)
    entry = json.loads(next(line for line in lines if line.startswith("{")))
    assert entry["path"] == "/v1/score" and entry["status"] == 200 and entry["ms"] > 0


@pytest.mark.slow
def test_several_workers_share_a_port_and_their_metrics(exported, tmp_path):
    program = [sys.executable, "-m", "mmctr_jax", "serve", exported, "--port", "0", "--workers", "2"]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(program, stdout=log, stderr=subprocess.STDOUT)
    try:
        url = _url(tmp_path / "log", process)
        expected = Scorer(exported).score(**REQUEST)
        for _ in range(20):
            np.testing.assert_allclose(fetch(f"{url}/v1/score", REQUEST)["scores"], expected, rtol=1e-6)
        with urllib.request.urlopen(f"{url}/metrics", timeout=30) as response:
            assert "mmctr_candidates_total 60.0" in response.read().decode()
        os.kill(process.pid, signal.SIGHUP)
        for _ in range(200):
            if (tmp_path / "log").read_text().count("anew: step") == 2:  # by each worker
                break
            time.sleep(0.1)
        np.testing.assert_allclose(fetch(f"{url}/v1/score", REQUEST)["scores"], expected, rtol=1e-6)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    text = (tmp_path / "log").read_text()
    assert text.splitlines()[-1] == "Stopped." and "Traceback" not in text


def test_a_client_that_others_wrote(server):
    client_module = pytest.importorskip("tritonclient.http", reason="needs pip install 'tritonclient[http]'")
    url, _, folder = server
    client = client_module.InferenceServerClient(url.removeprefix("http://"))
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("films")
    assert [i["name"] for i in client.get_model_metadata("films")["inputs"]][:2] == ["history", "candidates"]
    expected = Scorer(folder / "export").score(**REQUEST)
    values = {"history": [4, 7], "candidates": [1, 2, 3], "likes_level": [1, 2, 3], "views_level": [5]}
    for binary in (True, False):
        inputs = [client_module.InferInput(name, [len(data)], "INT64") for name, data in values.items()]
        for tensor, data in zip(inputs, values.values(), strict=True):
            tensor.set_data_from_numpy(np.array(data), binary_data=binary)
        outputs = [client_module.InferRequestedOutput("scores", binary_data=binary)]
        scores = client.infer("films", inputs, outputs=outputs).as_numpy("scores")
        np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_the_page_ranks_candidates(server):
    url, _, folder = server
    with launched() as browser:
        page = browser.new_page(viewport={"width": 420, "height": 900})
        problems = []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(url, wait_until="networkidle")
        page.get_by_label("Item ids, oldest first").fill("4, 7")
        page.get_by_label("Candidate ids").fill("1 2 3")
        page.get_by_role("button", name="Rank them").click()
        page.wait_for_selector("#ranked tr")
        shown = [row.inner_text().split("\t") for row in page.locator("#ranked tr").all()]
        scores = Scorer(folder / "export").score([4, 7], [1, 2, 3], {"likes_level": 0, "views_level": 0})
        best = sorted(zip(scores, (1, 2, 3), strict=True), reverse=True)
        assert [row[0].strip() for row in shown] == [f"item {item}" for _, item in best]
        assert [row[1].strip() for row in shown] == [f"{score:.3f}" for score, _ in best]
        page.get_by_label("Candidate ids").fill(str(ITEMS))
        page.get_by_role("button", name="Rank them").click()
        page.wait_for_selector("#error:not(:empty)")
        assert page.locator("#error").inner_text().startswith(f"candidates[0] is {ITEMS}")
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert [problem for problem in problems if "400" not in problem] == []


def test_the_example_offers_what_goes_with_users_and_what_goes_with_items(tmp_path):
    """User 7 has rated more and more, user 8 has not yet; 2 is the dear one."""
    rows = {
        "user_id": [7, 7, 7, 8, 8],
        "item_id": [1, 2, 3, 1, 2],
        "item_seq": [[5], [5], [5, 1], [6], [6]],
        "earlier_rows": [40.0, 41.0, 42.0, 1.0, None],
        "price": [1.0, 9.0, float("nan"), 1.5, 9.5],
        "city": [2, 2, 2, 4, 4],
        "likes_level": [3, 0, 1, 3, 0],
        "seen": [[6], [6], [6, 5], [5], [5]],
    }
    pl.DataFrame(rows).write_parquet(tmp_path / "valid.parquet")
    titles = {"item_id": list(range(7)), "item_title": ["", "one", None, "three", "four", "five", "six"]}
    pl.DataFrame(titles).write_parquet(tmp_path / "item_feature.parquet")
    kinds = {"earlier_rows": "numeric", "price": "numeric", "city": "", "likes_level": "", "seen": "items"}
    shown = example(
        tmp_path,
        SimpleNamespace(
            num_items=7,
            numbers={f"film {number}": number for number in range(1, 7)},
            side={name: {"name": name, "kind": kind} for name, kind in kinds.items()},
            clicks={},
        ),
    )
    assert shown["users"] == [["film 5"]] and shown["candidates"] == ["film 1", "film 2", "film 3"]
    assert shown["side_of_users"] == {"earlier_rows": [40.0], "city": [2], "seen": [["film 6"]]}
    assert shown["side"]["likes_level"] == [3, 0, 1] and shown["side"]["price"] == [1.0, 9.0, ANY]
    assert set(shown["side"]) == {"likes_level", "price"}
    assert shown["titles"] == {"film 1": "one", "film 2": "2", "film 3": "three", "film 5": "five"}


def test_what_cannot_be_served_is_refused(exported, tmp_path, capsys):
    from mmctr_jax import cli

    def refused(*arguments):
        with pytest.raises(SystemExit) as error:
            cli.run("serve", [str(argument) for argument in arguments])
        assert error.value.code == 2
        return capsys.readouterr().err

    assert "is not an export" in refused(tmp_path)
    assert "gives no example" in refused(exported, "--port", "0", "--example", tmp_path)
    assert "cannot be bound" in refused(exported, "--host", "203.0.113.7")
    assert "--timeout" in refused(exported, "--timeout", "nan")
    shutil.copytree(exported, tmp_path / "half")
    (tmp_path / "half" / "serving.json").write_text('{"format": 1}')
    assert "serving.json is damaged; export the model again" in refused(tmp_path / "half")


def test_a_reload_that_fails_keeps_the_old_export(exported, tmp_path):
    scorers = [Scorer(exported)]

    def load():
        if not scorers:
            raise InputError("no export")
        return scorers.pop()

    service = Service(load)
    with pytest.raises(InputError):
        service.reload()
    assert post(service, REQUEST)[0] == 200
