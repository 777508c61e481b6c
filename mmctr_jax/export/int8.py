"""Matrices as 8-bit integers, with a scale for each of their columns; what meets them, with one for each of its rows.

A scale for a whole tensor, as ONNX Runtime's `quantize_dynamic` has it, would make a candidate's score depend on those
that it is scored with.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_SMALLEST = 32  # rows and columns of a matrix that it pays for
# Of a matrix's integers. Processors without VNNI add two products, each with a byte of up to 255, in 16 bits, and cut
# off what is larger: with all 8 bits, the same export would give other scores there.
_LARGEST = 64
_TINY = 1e-30  # in place of the scale of zeros


def quantised(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with int8 matrices in its products, each product's rows independent of each other."""
    graph = model.graph
    arrays = {tensor.name: tensor for tensor in graph.initializer}
    uses = [name for node in graph.node for name in node.input]
    matrices = {}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in arrays:
            tensor = arrays[node.input[1]]
            if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2 and min(tensor.dims) >= _SMALLEST:
                matrices[tensor.name] = numpy_helper.to_array(tensor)
    matrices = {name: matrix for name, matrix in matrices.items() if uses.count(name) == 1}
    if not matrices:
        return model
    constants = {"int8_127": np.float32(127), "int8_tiny": np.float32(_TINY), "int8_zero": np.uint8(128)}
    constants |= {"int8_128": np.float32(128), "int8_last": np.array([-1], np.int64)}
    nodes = []
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in matrices:
            nodes += _product(node, matrices[node.input[1]], constants)
        else:
            nodes.append(node)
    kept = [tensor for tensor in graph.initializer if tensor.name not in matrices]
    kept += [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, graph.name, graph.input, graph.output, kept)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _product(node: onnx.NodeProto, matrix: np.ndarray, constants: dict[str, np.ndarray]) -> list[onnx.NodeProto]:
    """x W by integers: x / its row's scale, rounded; W / its column's; and their product times both scales.

    Before that each row of W is divided by its largest weight, and what meets it multiplied: so a row's scale is that
    of what its inputs contribute, and small inputs with large weights are not rounded away beside large ones.
    """
    x, name, out = node.input[0], node.input[1], node.output[0]
    largest = np.maximum(np.abs(matrix).max(axis=1), _TINY).astype(np.float32)
    matrix = matrix / largest[:, None]
    constants[f"{name}_largest"] = largest
    scale = np.maximum(np.abs(matrix).max(axis=0) / _LARGEST, _TINY).astype(np.float32)
    constants[f"{name}_int8"] = np.clip(np.rint(matrix / scale), -_LARGEST, _LARGEST).astype(np.int8)
    constants[f"{name}_scale"] = scale

    def step(operator: str, *inputs: str, **attributes: int) -> onnx.NodeProto:
        *inputs, output = inputs
        return helper.make_node(operator, inputs, [output], **attributes)

    return [
        step("Mul", x, f"{name}_largest", f"{out}_weighed"),
        step("Abs", f"{out}_weighed", f"{out}_abs"),
        step("ReduceMax", f"{out}_abs", "int8_last", f"{out}_largest", keepdims=1),
        step("Div", f"{out}_largest", "int8_127", f"{out}_wide"),
        step("Max", f"{out}_wide", "int8_tiny", f"{out}_row"),
        step("Div", f"{out}_weighed", f"{out}_row", f"{out}_steps"),
        step("Round", f"{out}_steps", f"{out}_whole"),
        step("Add", f"{out}_whole", "int8_128", f"{out}_shifted"),  # unsigned: what processors multiply fastest
        step("Cast", f"{out}_shifted", f"{out}_bytes", to=TensorProto.UINT8),
        step("MatMulInteger", f"{out}_bytes", f"{name}_int8", "int8_zero", f"{out}_integers"),
        step("Cast", f"{out}_integers", f"{out}_floats", to=TensorProto.FLOAT),
        step("Mul", f"{out}_floats", f"{out}_row", f"{out}_by_row"),
        step("Mul", f"{out}_by_row", f"{name}_scale", out),
    ]
