"""The Open Inference Protocol, version 2, as Triton and KServe speak it over HTTP, with its binary tensors.

https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import orjson

from mmctr_jax.serve.scorer import RequestError, Scorer

HEADER_LENGTH = "inference-header-content-length"
_TYPES = {"INT64": "<i8", "INT32": "<i4", "UINT64": "<u8", "UINT32": "<u4", "INT16": "<i2", "UINT8": "u1", "INT8": "i1"}
_TYPES |= {"FP32": "<f4", "FP64": "<f8"}
_MOST_ROWS = 1_000_000  # of a tensor, which may have rows of nothing
_OUTPUT = {"name": "scores", "datatype": "FP32", "shape": [-1]}


def metadata(name: str, scorer: Scorer) -> dict[str, Any]:
    """Of a model: its inputs and outputs."""
    ids = "BYTES" if scorer.manifest["original_ids"] else "INT64"
    inputs = [{"name": field, "datatype": ids, "shape": [-1]} for field in ("history", "candidates")]
    for feature in (*scorer.side.values(), *scorer.clicks.values()):
        of_kind = {"numeric": "FP32", "items": ids}.get(feature.get("kind"), "INT64")
        datatype, shape = "BYTES" if "hash" in feature else of_kind, [-1, -1] if "length" in feature else [-1]
        inputs.append({"name": feature["name"], "datatype": datatype, "shape": shape})
    version = str(scorer.manifest["step"])
    return {"name": name, "versions": [version], "platform": "onnx", "inputs": inputs, "outputs": [_OUTPUT]}


def read_request(body: bytes, header_length: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The JSON of a request, and the inputs by name. Raises: RequestError."""
    length = len(body)
    if header_length is not None:
        digits = header_length.isascii() and header_length.isdigit() and len(header_length) < 20
        if not digits or int(header_length) > len(body):
            raise RequestError(
                "Inference-Header-Content-Length", f"is {header_length[:40]!r} and the body has {len(body)} bytes."
            )
        length = int(header_length)
    request, binary = parse(body[:length]), memoryview(body)[length:]
    outputs = request.get("outputs", [])
    if not isinstance(outputs, list) or not all(isinstance(tensor, dict) for tensor in outputs):
        raise RequestError("outputs", "must be a list of tensors.")
    if other := [tensor.get("name") for tensor in outputs if tensor.get("name") != "scores"]:
        raise RequestError(
            "outputs", f"asks for {str(other[0])[:40]!r}; there is scores (/v1/score gives other labels)."
        )
    tensors = request.get("inputs")
    if not isinstance(tensors, list) or not all(isinstance(tensor, dict) for tensor in tensors):
        raise RequestError("inputs", "must be a list of tensors.")
    inputs = {}
    for tensor in tensors:
        name = tensor.get("name")
        if not isinstance(name, str) or name in inputs:
            raise RequestError("inputs", f"has a tensor with the name {name!r}; names are text, and each stands once.")
        parameters = tensor.get("parameters") or {}
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if size is None:
            values = tensor.get("data")
            if not isinstance(values, list):
                raise RequestError(f"inputs.{name}", "has no list as data.")
        else:
            if type(size) is not int or not 0 <= size <= len(binary):
                raise RequestError(f"inputs.{name}", f"says binary_data_size {size!r}; {len(binary)} bytes are left.")
            values, binary = _from_bytes(name, tensor.get("datatype"), bytes(binary[:size])), binary[size:]
        values = _flat(values)
        _check_shape(name, tensor.get("shape"), values)
        inputs[name] = _rows(values, tensor.get("shape"))
    return request, inputs


def parse(body: bytes) -> dict[str, Any]:
    """A JSON object. Raises: RequestError."""
    try:
        parsed = orjson.loads(body)
    except ValueError as error:
        raise RequestError("The body", f"is not JSON: {error}.") from None
    if not isinstance(parsed, dict):
        raise RequestError("The body", f"is a JSON {type(parsed).__name__}; give an object.")
    return parsed


def _flat(values: Any) -> Any:
    """One row of a tensor that has one, [[…]] → […]."""
    return values[0] if len(values) == 1 and isinstance(values[0], list) else values


def _check_shape(name: str, shape: Any, values: Any) -> None:
    """Raises: RequestError where a shape is not that of flat data."""
    if shape is None or any(isinstance(value, list) for value in values):
        return
    sizes = shape if isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape) else None
    if sizes is None or math.prod(sizes) != len(values):
        raise RequestError(f"inputs.{name}", f"has the shape {shape!r} and {len(values)} values.")


def _rows(values: Any, shape: Any) -> Any:
    """The rows of a tensor whose shape says that it has several, and whose data are flat."""
    if not (isinstance(shape, list) and len(shape) == 2 and all(type(size) is int for size in shape)):
        return values
    rows, width = shape
    if not 2 <= rows <= _MOST_ROWS or rows * width != len(values) or any(isinstance(value, list) for value in values):
        return values
    return [list(values[row * width : (row + 1) * width]) for row in range(rows)]


def _from_bytes(name: str, datatype: Any, data: bytes) -> Any:
    if datatype == "BYTES":
        texts, at = [], 0
        while at < len(data):
            (size,) = struct.unpack_from("<I", data, at) if at + 4 <= len(data) else (len(data),)
            if at + 4 + size > len(data):
                raise RequestError(f"inputs.{name}", "has BYTES that end in the middle of an element.")
            texts.append(data[at + 4 : at + 4 + size].decode("utf-8", "replace"))
            at += 4 + size
        return texts
    if not isinstance(datatype, str) or datatype not in _TYPES:
        raise RequestError(f"inputs.{name}", f"has the datatype {datatype!r}; use one of {', '.join(_TYPES)} or BYTES.")
    dtype = np.dtype(_TYPES[datatype])
    if len(data) % dtype.itemsize:
        raise RequestError(f"inputs.{name}", f"has {len(data)} bytes, no whole number of {datatype}.")
    return np.frombuffer(data, dtype)


def answer(name: str, scorer: Scorer, request: dict[str, Any], scores: np.ndarray) -> tuple[bytes, str | None]:
    """The body of a response, and its Inference-Header-Content-Length where scores follow as binary."""
    outputs = request.get("outputs") or []
    asked = next((o for o in outputs if isinstance(o, dict) and o.get("name") == "scores"), {})
    parameters = [p for p in (asked.get("parameters"), request.get("parameters")) if isinstance(p, dict)]
    binary = any(p.get("binary_data") or p.get("binary_data_output") for p in parameters)
    tensor: dict[str, Any] = _OUTPUT | {"shape": [len(scores)]}
    data = scores.astype("<f4").tobytes() if binary else b""
    tensor |= {"parameters": {"binary_data_size": len(data)}} if binary else {"data": scores.tolist()}
    response = {"model_name": name, "model_version": str(scorer.manifest["step"]), "outputs": [tensor]}
    if isinstance(request.get("id"), str):
        response["id"] = request["id"]
    head = orjson.dumps(response)
    return head + data, str(len(head)) if binary else None
