"""Graphs as files: weights in a file of their own, and item arrays in files that all graphs share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto
from onnx.external_data_helper import convert_model_to_external_data

Shapes = dict[str, tuple[int, ...]]
"""Item array → its shape."""


def save(model: onnx.ModelProto, arrays: Shapes, path: Path) -> None:
    """Writes a graph, its weights beside it. Of its inputs, those named in `arrays` become arrays of NAME.bin."""
    inputs = [value for value in model.graph.input if value.name not in arrays]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    weights = path.with_suffix(".weights").name
    convert_model_to_external_data(model, location=weights, size_threshold=4096)
    model.graph.initializer.extend(_reference(name, shape) for name, shape in arrays.items())
    onnx.save_model(model, str(path))
    if path.with_suffix(".weights").exists():  # not where all tensors are small
        path.with_suffix(".weights").chmod(0o644)  # ONNX makes it the owner's alone


def resize(path: Path, arrays: Shapes, out: Path) -> None:
    """Writes a graph anew for item arrays of other lengths; its weights stay where they are."""
    model = onnx.load_model(str(path), load_external_data=False)
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in arrays]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, *(_reference(name, shape) for name, shape in arrays.items())])
    out.write_bytes(model.SerializeToString())


def _reference(name: str, shape: tuple[int, ...]) -> TensorProto:
    tensor = TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", f"{name}.bin"), ("offset", 0), ("length", 4 * int(np.prod(shape)))):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
