"""A Triton model repository of an export: a model for each graph, with its configuration."""

from __future__ import annotations

import os
from pathlib import Path

import onnx

_TYPES = {onnx.TensorProto.INT32: "TYPE_INT32", onnx.TensorProto.FLOAT: "TYPE_FP32"}


def arrange(folder: Path, name: str) -> None:
    """Moves an export's graphs to NAME-LENGTH/1/model.onnx, each with the files it needs and a config.pbtxt."""
    for path in sorted(folder.glob("model-*.onnx")):
        model = onnx.load_model(str(path), load_external_data=False)
        home = folder / path.stem.replace("model", name, 1)
        (home / "1").mkdir(parents=True)
        (home / "config.pbtxt").write_text(_config(home.name, model))
        locations = (e.value for t in model.graph.initializer for e in t.external_data if e.key == "location")
        for file in set(locations):
            os.link(folder / file, home / "1" / file)
        path.rename(home / "1" / "model.onnx")
    for path in (*folder.glob("*.bin"), *folder.glob("*.weights")):
        path.unlink()  # each model has its own link


def _config(name: str, model: onnx.ModelProto) -> str:
    lines = [f'name: "{name}"', 'platform: "onnxruntime_onnx"', "max_batch_size: 0"]
    for kind, values in (("input", model.graph.input), ("output", model.graph.output)):
        for value in values:
            tensor = value.type.tensor_type
            dims = ", ".join(str(d.dim_value) if d.HasField("dim_value") else "-1" for d in tensor.shape.dim)
            lines.append(f'{kind} {{ name: "{value.name}" data_type: {_TYPES[tensor.elem_type]} dims: [{dims}] }}')
    return "\n".join(lines) + "\n"
