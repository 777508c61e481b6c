"""The service over HTTP: an ASGI application on an exported model.

POST /v1/score                     {"history": […], "candidates": […], "side": {…}, "clicks": {…}} → {"scores": […]}
                                   {"requests": [{…}, …]} → {"results": [{"scores": […]}, …]}
GET /                              a page to try it
GET /metrics                       for Prometheus
/v2/…                              the Open Inference Protocol (`open_inference`)
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import orjson
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from mmctr_jax import __version__
from mmctr_jax.serve import open_inference
from mmctr_jax.serve.open_inference import parse
from mmctr_jax.serve.scorer import RequestError, Scorer

access_log = logging.getLogger("mmctr_jax.serve.access")

_FIELDS = ("history", "candidates", "side", "clicks")
_JSON, _BINARY, _TEXT, _HTML = "application/json", "application/octet-stream", "text/plain; version=0.0.4", "text/html"
_LATENCIES = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


@dataclass(frozen=True)
class Limits:
    """What a request may be."""

    body_bytes: int = 4 * 2**20
    candidates: int = 10_000  # of all its users together
    seconds: float = 10.0  # that it may take, waiting included


@dataclass(frozen=True)
class Response:
    """What is sent."""

    status: int
    body: bytes
    content_type: str = _JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Refused(Exception):
    """A request that is answered with an error status and a sentence."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class Metrics:
    """Counts for Prometheus."""

    def __init__(self, registry: CollectorRegistry):
        self.registry = registry
        self.requests = Counter("mmctr_requests", "Requests answered", ["path", "status"], registry=registry)
        self.errors = Counter("mmctr_errors", "Requests answered with an error", ["path"], registry=registry)
        self.candidates = Counter("mmctr_candidates", "Candidates scored", registry=registry)
        self.unknown = Counter("mmctr_unknown_ids", "Item ids that the model does not know", registry=registry)
        self.seconds = Histogram(
            "mmctr_request_seconds", "From request to response", ["path"], buckets=_LATENCIES, registry=registry
        )


class Service:
    """The ASGI application."""

    def __init__(
        self,
        load: Callable[[], Scorer],
        name: str = "mmctr",
        limits: Limits = Limits(),
        threads: int = 2,
    ):
        """Opens the export, by `load`, which is called again at every reload.

        Args:
            load: Opens the export.
            name: Of the model, in the Open Inference Protocol.
            limits: What a request may be.
            threads: Requests that are scored at a time.
        """
        self.name, self.limits, self._load = name, limits, load
        self.scorer, self._told = load(), 0
        self.ready = True
        """False while it drains: health checks say so, and requests are still answered."""
        self.example: dict[str, Any] = {}
        """What the page offers to try (`serve.example`)."""
        self.metrics = Metrics(CollectorRegistry())
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="score")
        self._routes: dict[tuple[str, str], Callable[[bytes, dict[str, str]], Awaitable[Response]]] = {
            ("GET", "/"): self._page,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/v1/example"): self._example,
            ("POST", "/v1/score"): self._score,
            ("GET", "/v2"): self._server,
            ("GET", "/v2/health/live"): self._live,
            ("GET", "/v2/health/ready"): self._ready,
            ("GET", f"/v2/models/{name}"): self._model,
            ("GET", f"/v2/models/{name}/ready"): self._ready,
            ("POST", f"/v2/models/{name}/infer"): self._infer,
        }

    def reload(self) -> None:
        """Opens the export anew. Requests at work end with the old one; where the new one is no good, all do."""
        self.scorer, self._told = self._load(), 0

    # ASGI

    async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        """One HTTP request, or the server's start and end."""
        if scope["type"] == "lifespan":
            return await self._lifespan(receive, send)
        if scope["type"] == "websocket":
            await receive()
            return await send({"type": "websocket.close"})  # which refuses it: 403
        start, path = time.perf_counter(), scope["path"].rstrip("/") or "/"
        try:
            path = self._without_version(path)
            handler = self._route(scope["method"], path)
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            body = await self._in_time(self._body(receive, headers), start, 408, "did not come whole")
            response = await self._in_time(handler(body, headers), start, 503, "was not answered")
        except RequestError as error:
            response = _error(400, str(error))
        except Refused as error:
            response = _error(error.status, str(error))
        except _Disconnected:
            return None
        except Exception:
            logging.getLogger(__name__).exception("a request failed")
            response = _error(500, "The request failed; the server's log says why.")
        headers = [(b"content-type", response.content_type.encode()), (b"content-length", b"%d" % len(response.body))]
        await send({"type": "http.response.start", "status": response.status, "headers": [*headers, *response.headers]})
        await send({"type": "http.response.body", "body": response.body if scope["method"] != "HEAD" else b""})
        self._record(scope, path, response.status, time.perf_counter() - start)
        return None

    async def _in_time(self, work: Awaitable[Any], start: float, status: int, what: str) -> Any:
        try:
            return await asyncio.wait_for(work, start + self.limits.seconds - time.perf_counter())
        except TimeoutError:
            raise Refused(
                status, f"The request {what} within {self.limits.seconds:g} s; send fewer candidates."
            ) from None

    async def _lifespan(self, receive: Callable, send: Callable) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                self._threads.shutdown(wait=False)
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    def _without_version(self, path: str) -> str:
        """The path of the model that is served, where this names its version. Raises: Refused for another one."""
        if not path.startswith(f"/v2/models/{self.name}/versions/"):
            return path
        version, _, rest = path.removeprefix(f"/v2/models/{self.name}/versions/").partition("/")
        if version != str(self.scorer.manifest["step"]):
            raise Refused(404, f"Version {version} is not served; {self.scorer.manifest['step']} is.")
        return f"/v2/models/{self.name}/{rest}".rstrip("/")

    def _route(self, method: str, path: str) -> Callable[[bytes, dict[str, str]], Awaitable[Response]]:
        if handler := self._routes.get(("GET" if method == "HEAD" else method, path)):
            return handler
        allowed = sorted(m for m, p in self._routes if p == path)
        if allowed:
            raise Refused(405, f"{method} {path} is not served; use {' or '.join(allowed)}.")
        raise Refused(404, f"{path} is not served; POST /v1/score scores, and /v2/models/{self.name} is the model.")

    async def _body(self, receive: Callable, headers: dict[str, str]) -> bytes:
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Disconnected
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.limits.body_bytes:
                raise Refused(413, f"The body is longer than {self.limits.body_bytes:,} bytes; send fewer candidates.")
            if not message.get("more_body"):
                return b"".join(parts)

    def _record(self, scope: dict[str, Any], path: str, status: int, seconds: float) -> None:
        known = path if any(path == p for _, p in self._routes) else "other"
        self.metrics.requests.labels(known, str(status)).inc()
        if status >= 400:
            self.metrics.errors.labels(known).inc()
        self.metrics.seconds.labels(known).observe(seconds)
        if access_log.isEnabledFor(logging.INFO):
            client = (scope.get("client") or ("",))[0]
            entry = {"time": time.time(), "client": client, "method": scope["method"], "path": path, "status": status}
            access_log.info(json.dumps(entry | {"ms": round(seconds * 1e3, 3)}))

    # What is answered

    async def _score(self, body: bytes, headers: dict[str, str]) -> Response:
        request = parse(body)
        many = "requests" in request
        requests = request["requests"] if many else [request]
        if not isinstance(requests, list) or not all(isinstance(one, dict) for one in requests):
            raise RequestError("requests", "must be a list of objects, one for each user.")
        for i, one in enumerate(requests):
            where = f"requests[{i}]." if many else ""
            for field in one:
                if field not in _FIELDS:
                    raise RequestError(f"{where}{field}", f"is not known; a request has {', '.join(_FIELDS)}.")
            for field in ("history", "candidates"):
                if not isinstance(one.get(field), list):
                    raise RequestError(f"{where}{field}", "must be a list of item ids.")
        if many and len(request) > 1:
            raise RequestError("requests", "stands beside other fields; give it alone.")
        results = []
        for i, scores in enumerate(
            await self._scores([tuple(one.get(field) for field in _FIELDS) for one in requests])
        ):
            if isinstance(scores, RequestError):
                raise RequestError(f"requests[{i}].{scores.field}", scores.reason) if many else scores
            first = scores.pop("scores")
            results.append({"scores": first} | ({"labels": scores} if scores else {}))
        answer = {"results": results} if many else results[0]
        return Response(200, orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY))

    async def _scores(self, requests: list[tuple]) -> list[dict[str, np.ndarray] | RequestError]:
        count = sum(len(candidates) for _, candidates, *_ in requests)
        if count > self.limits.candidates:
            raise Refused(
                413, f"There are {count:,} candidates, and {self.limits.candidates:,} are allowed; split them."
            )
        scorer = self.scorer  # one for the whole request, whatever is loaded meanwhile

        def score() -> list[dict[str, np.ndarray] | RequestError]:
            results: list[dict[str, np.ndarray] | RequestError] = []
            for request in requests:
                try:
                    results.append(scorer.scores_by_label(*request))
                except RequestError as error:
                    results.append(error)
            return results

        results = await asyncio.get_running_loop().run_in_executor(self._threads, score)
        scored = zip(requests, results, strict=True)
        self.metrics.candidates.inc(sum(len(one[1]) for one, found in scored if not isinstance(found, RequestError)))
        if scorer is self.scorer:  # here, in one thread: so each is counted once
            self.metrics.unknown.inc(scorer.unknown_ids - self._told)
            self._told = scorer.unknown_ids
        return results

    async def _infer(self, body: bytes, headers: dict[str, str]) -> Response:
        request, inputs = open_inference.read_request(body, headers.get(open_inference.HEADER_LENGTH))
        for field in ("history", "candidates"):
            if field not in inputs:
                raise RequestError(f"inputs.{field}", "is missing.")
        clicks = {name: inputs.pop(name) for name in self.scorer.clicks if name in inputs}
        history, candidates = inputs.pop("history"), inputs.pop("candidates")
        listed = {name for name, feature in self.scorer.side.items() if "length" in feature}
        side = {name: values if name in listed else _alone(values) for name, values in inputs.items()}
        (scores,) = await self._scores([(history, candidates, side, clicks)])
        if isinstance(scores, RequestError):
            raise scores
        content, length = open_inference.answer(self.name, self.scorer, request, scores["scores"])
        if length is None:
            return Response(200, content)
        return Response(200, content, _BINARY, ((open_inference.HEADER_LENGTH.encode(), length.encode()),))

    async def _server(self, body: bytes, headers: dict[str, str]) -> Response:
        return _json(200, {"name": "mmctr", "version": __version__, "extensions": ["binary_tensor_data"]})

    async def _live(self, body: bytes, headers: dict[str, str]) -> Response:
        return _json(200, {"live": True})

    async def _ready(self, body: bytes, headers: dict[str, str]) -> Response:
        return _json(200 if self.ready else 503, {"name": self.name, "ready": self.ready})

    async def _model(self, body: bytes, headers: dict[str, str]) -> Response:
        return _json(200, open_inference.metadata(self.name, self.scorer))

    async def _metrics(self, body: bytes, headers: dict[str, str]) -> Response:
        registry = self.metrics.registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:  # one of several workers: what all of them counted
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return Response(200, generate_latest(registry), _TEXT)

    async def _example(self, body: bytes, headers: dict[str, str]) -> Response:
        clicks: dict[str, list] = {name: [] for name in self.scorer.clicks}
        return _json(200, {"clicks": clicks} | self.example | {"model": f"/v2/models/{self.name}"})

    async def _page(self, body: bytes, headers: dict[str, str]) -> Response:
        return Response(200, files("mmctr_jax.serve").joinpath("page.html").read_bytes(), _HTML)


class _Disconnected(Exception):
    """The client went away."""


def _alone(values: Any) -> Any:
    """A side feature's tensor of one value is that of all candidates."""
    return values[0] if len(values) == 1 else values


def _json(status: int, content: Any) -> Response:
    return Response(status, orjson.dumps(content))


def _error(status: int, message: str) -> Response:
    return _json(status, {"error": message})
