"""A JAX function → an ONNX graph, primitive by primitive of its jaxpr.

No library does it for our models yet (jax2onnx 0.17 gives graphs that ONNX Runtime refuses), and they need some forty
primitives. What is not among them is named. Sizes may be symbols: then they are computed where the graph runs.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import onnx
from jax.extend.core import ClosedJaxpr, Literal
from onnx import helper, numpy_helper

from mmctr_jax.errors import InputError

OPSET, IR_VERSION = 21, 10

Arrays = dict[str, jax.ShapeDtypeStruct]
"""Input name → its shape, whose sizes may be symbols of `jax.export.symbolic_shape`, and its type."""


def convert(function: Callable[[dict], dict], inputs: Arrays) -> onnx.ModelProto:
    """The graph of a function from arrays by name to arrays by name.

    Arrays that the function closes over become initializers.
    Raises: InputError, naming it, for a primitive that has no conversion.
    """
    outputs: list[str] = []

    def flat(*arrays):
        results = function(dict(zip(inputs, arrays, strict=True)))
        outputs[:] = results
        return list(results.values())

    traced = jax.jit(flat).trace(*inputs.values())
    graph = _Graph(inputs)
    for name, value in zip(outputs, graph.closed(traced.jaxpr, list(inputs)), strict=True):
        graph.node("Identity", value, name=name)
    nodes, used = _live(graph.nodes, outputs)
    described = [_info(name, spec) for name, spec in inputs.items()]
    results = [_info(name, spec) for name, spec in zip(outputs, traced.jaxpr.out_avals, strict=True)]
    initializers = [tensor for name, tensor in graph.initializers.items() if name in used]
    return helper.make_model(
        helper.make_graph(nodes, "mmctr", described, results, initializers),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )


def _live(nodes: list[onnx.NodeProto], outputs: list[str]) -> tuple[list[onnx.NodeProto], set[str]]:
    """The nodes that outputs need, and the names of all values that these use."""
    used, kept = set(outputs), []
    for node in reversed(nodes):
        if used.intersection(node.output):
            used.update(node.input)
            kept.append(node)
    return kept[::-1], used


def _info(name: str, spec: Any) -> onnx.ValueInfoProto:
    sizes = [size if isinstance(size, int) else str(size) for size in spec.shape]
    return helper.make_tensor_value_info(name, _type(spec.dtype), sizes)


def _type(dtype: Any) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


class _Graph:
    """The graph as it grows. Values are known by their names."""

    def __init__(self, inputs: Arrays):
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self._names: dict[Any, str] = {}  # of constants, by their contents or identity
        self._kept: list[Any] = []  # arrays whose identity is such a key
        self._sizes: dict[str, str] = {}  # of symbols, by their text
        self._expanded: dict[str, tuple[str, list[Any]]] = {}  # what was broadcast: as it was before, and its sizes
        self._inputs = inputs

    # Building blocks

    def node(self, operator: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """A node with one output; its name."""
        name = name or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, array: Any) -> str:
        """An initializer. An array that is given twice is kept once."""
        small = np.ndim(array) < 2 and np.size(array) <= 64
        values = np.asarray(array)
        key = (values.dtype.str, values.shape, values.tobytes()) if small else id(array)
        if key not in self._names:
            self._names[key] = f"c{len(self._names)}"
            self._kept.append(array)
            self.initializers[self._names[key]] = numpy_helper.from_array(values, self._names[key])
        return self._names[key]

    def integers(self, *values: int) -> str:
        """An int64 vector."""
        return self.constant(np.array(values, np.int64))

    def size(self, size: Any) -> str:
        """An int64 vector of one: a size, which may be an expression of symbols."""
        if isinstance(size, int):
            return self.integers(size)
        text = str(size)
        if text not in self._sizes:
            self._sizes[text] = self._expression(ast.parse(text, mode="eval").body)
        return self._sizes[text]

    def _expression(self, tree: ast.AST) -> str:
        match tree:
            case ast.Constant(value=int(value)):
                return self.integers(value)
            case ast.Name(id=symbol):
                for name, spec in self._inputs.items():
                    for axis, size in enumerate(spec.shape):
                        if str(size) == symbol:
                            return self.node("Shape", name, start=axis, end=axis + 1)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.node("Neg", self._expression(operand))
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() as operator, right=right):
                names = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul"}
                return self.node(names[type(operator)], self._expression(left), self._expression(right))
            case ast.Call(func=ast.Name(id="max" | "min" as name), args=[left, right]):
                return self.node(name.capitalize(), self._expression(left), self._expression(right))
        raise InputError(
            f"The size {ast.unparse(tree)} has no form in ONNX that is known here; the model cannot be exported."
        )

    def shape(self, sizes: Sequence[Any]) -> str:
        """An int64 vector of sizes."""
        if all(isinstance(size, int) for size in sizes):
            return self.integers(*sizes)
        return self.node("Concat", *(self.size(size) for size in sizes), axis=0)

    def reshape(self, x: str, sizes: Sequence[Any]) -> str:
        return self.node("Reshape", x, self.shape(sizes), allowzero=1)

    def expand(self, x: str, before: list[Any], sizes: Sequence[Any]) -> str:
        """`x`, of as many axes, some of them of size 1, broadcast to `sizes`."""
        name = self.node("Expand", x, self.shape(sizes))
        self._expanded[name] = x, before
        return name

    def operands(self, equation: Any, names: Sequence[str]) -> Sequence[str]:
        """Those of an operator that broadcasts: as before they were expanded, if together they have all sizes."""
        shapes = [atom.aval.shape for atom in equation.invars]
        before = [self._expanded.get(name, (name, shape)) for name, shape in zip(names, shapes, strict=True)]
        sizes = [[str(size) for size in shape] for _, shape in before]
        result = [str(size) for size in equation.outvars[0].aval.shape]
        whole = all(any(s[axis : axis + 1] == [size] for s in sizes) for axis, size in enumerate(result))
        return [name for name, _ in before] if whole else names

    def cast(self, x: str, dtype: Any) -> str:
        return self.node("Cast", x, to=_type(dtype))

    # jaxprs

    def closed(self, closed: ClosedJaxpr, inputs: list[str]) -> list[str]:
        """The values of a jaxpr's results."""
        return self.jaxpr(closed.jaxpr, [self.constant(array) for array in closed.consts], inputs)

    def jaxpr(self, jaxpr: Any, constants: list[str], inputs: list[str]) -> list[str]:
        values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True))

        def read(atom):
            return self.constant(np.asarray(atom.val, atom.aval.dtype)) if isinstance(atom, Literal) else values[atom]

        for equation in jaxpr.eqns:
            primitive = equation.primitive.name
            names = [read(atom) for atom in equation.invars]
            if primitive in _INNER:
                inner = equation.params[_INNER[primitive]]
                results = self.closed(inner, names) if hasattr(inner, "consts") else self.jaxpr(inner, [], names)
            elif primitive in _CONVERSIONS:
                results = _CONVERSIONS[primitive](self, equation, *names)
                results = [results] if isinstance(results, str) else results
            else:
                raise InputError(f"{primitive} has no conversion to ONNX; the model cannot be exported in this format.")
            values |= zip(equation.outvars, results, strict=True)
        return [read(atom) for atom in jaxpr.outvars]


_INNER = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr"}
"""Primitives that call a jaxpr, and the parameter that has it."""


def _plain(operator: str) -> Callable:
    return lambda graph, equation, *names: graph.node(operator, *names)


def _elementwise(operator: str) -> Callable:
    return lambda graph, equation, *names: graph.node(operator, *graph.operands(equation, names))


def _reduction(operator: str) -> Callable:
    def convert(graph, equation, x):
        axes = equation.params["axes"]
        if not axes:
            return x
        logical = equation.invars[0].aval.dtype == bool
        x = graph.cast(x, np.int32) if logical else x
        x = graph.node(operator, x, graph.integers(*axes), keepdims=0)
        return graph.cast(x, bool) if logical else x

    return convert


def _logical(boolean: str) -> Callable:
    def convert(graph, equation, *names):
        if equation.invars[0].aval.dtype != bool:
            raise InputError(f"{equation.primitive.name} of integers has no conversion to ONNX.")
        return graph.node(boolean, *graph.operands(equation, names))

    return convert


def _not_equal(graph, equation, *names):
    return graph.node("Not", graph.node("Equal", *graph.operands(equation, names)))


def _select(graph, equation, *names):
    if len(names) != 3 or equation.invars[0].aval.dtype != bool:
        raise InputError("select_n of more than two cases has no conversion to ONNX.")
    which, where_false, where_true = graph.operands(equation, names)
    return graph.node("Where", which, where_true, where_false)


def _convert_type(graph, equation, x):
    return graph.cast(x, equation.params["new_dtype"])


def _integer_pow(graph, equation, x):
    dtype = equation.invars[0].aval.dtype
    return graph.node("Pow", x, graph.constant(np.asarray(equation.params["y"], dtype)))


def _square(graph, equation, x):
    return graph.node("Mul", x, x)


def _rsqrt(graph, equation, x):
    return graph.node("Reciprocal", graph.node("Sqrt", x))


def _log1p(graph, equation, x):
    return graph.node("Log", graph.node("Add", x, graph.constant(np.ones((), equation.invars[0].aval.dtype))))


def _clamp(graph, equation, low, x, high):
    return graph.node("Min", graph.node("Max", x, low), high)


def _broadcast(graph, equation, x, *_):
    """First the axes where they belong, of size 1 between, then the sizes."""
    sizes, places = equation.params["shape"], equation.params["broadcast_dimensions"]
    before = equation.invars[0].aval.shape
    aligned = [1] * len(sizes)
    for size, place in zip(before, places, strict=True):
        aligned[place] = size
    if list(before) != aligned:
        missing = [axis for axis in range(len(sizes)) if axis not in places]
        x = graph.node("Unsqueeze", x, graph.integers(*missing))
    same = all(str(a) == str(b) for a, b in zip(aligned, sizes, strict=True))
    return x if same else graph.expand(x, aligned, sizes)


def _reshape(graph, equation, x, *_):
    return graph.reshape(x, equation.params["new_sizes"])


def _squeeze(graph, equation, x):
    return graph.node("Squeeze", x, graph.integers(*equation.params["dimensions"]))


def _expand_dims(graph, equation, x):
    return graph.node("Unsqueeze", x, graph.integers(*equation.params["dimensions"]))


def _transpose(graph, equation, x):
    return graph.node("Transpose", x, perm=list(equation.params["permutation"]))


def _concatenate(graph, equation, *names):
    return graph.node("Concat", *names, axis=equation.params["dimension"])


def _stack(graph, equation, *names):
    axis = equation.params["axis"]
    return graph.node("Concat", *(graph.node("Unsqueeze", name, graph.integers(axis)) for name in names), axis=axis)


def _split(graph, equation, x):
    names = [f"v{len(graph.nodes)}_{i}" for i in range(len(equation.outvars))]
    sizes = graph.integers(*equation.params["sizes"])
    graph.nodes.append(helper.make_node("Split", [x, sizes], names, axis=equation.params["axis"]))
    return names


def _slice(graph, equation, x):
    starts, ends, steps = (equation.params[name] for name in ("start_indices", "limit_indices", "strides"))
    axes = range(len(starts))
    rest = [graph.integers(*axes), graph.integers(*(steps or [1] * len(starts)))]
    return graph.node("Slice", x, graph.shape(starts), graph.shape(ends), *rest)


def _pad(graph, equation, x, value):
    config = equation.params["padding_config"]
    if any(inner for _, _, inner in config):
        raise InputError("pad between elements has no conversion to ONNX.")
    sizes = [low for low, _, _ in config] + [high for _, high, _ in config]
    return graph.node("Pad", x, graph.shape(sizes), value)


def _iota(graph, equation, *_):
    sizes, axis, dtype = (equation.params[name] for name in ("shape", "dimension", "dtype"))
    zero, one = graph.constant(np.int64(0)), graph.constant(np.int64(1))
    count = graph.node("Squeeze", graph.size(sizes[axis]), graph.integers(0))
    line = graph.cast(graph.node("Range", zero, count, one), dtype)
    line = graph.reshape(line, [size if i == axis else 1 for i, size in enumerate(sizes)])
    return line if len(sizes) == 1 else graph.node("Expand", line, graph.shape(sizes))


def _dim_as_value(graph, equation):
    size = graph.node("Squeeze", graph.size(equation.params["dim"]), graph.integers(0))
    return graph.cast(size, equation.outvars[0].aval.dtype)


def _argmax(graph, equation, x):
    (axis,) = equation.params["axes"]
    if equation.invars[0].aval.dtype == bool:
        x = graph.cast(x, np.int32)
    return graph.cast(graph.node("ArgMax", x, axis=axis, keepdims=0), equation.params["index_dtype"])


def _dot(graph, equation, a, b):
    (a_sum, b_sum), (a_batch, b_batch) = equation.params["dimension_numbers"]
    shapes = [atom.aval.shape for atom in equation.invars]
    a_rest, b_rest = (
        [axis for axis in range(len(shape)) if axis not in used]
        for shape, used in zip(shapes, ((*a_sum, *a_batch), (*b_sum, *b_batch)), strict=True)
    )
    if not a_batch and len(b_rest) == 1 and tuple(a_sum) == (len(shapes[0]) - 1,):
        return graph.node("MatMul", a, _in_order(graph, b, [*b_sum, *b_rest]))
    if len(a_sum) == len(a_rest) == len(b_rest) == 1:
        ones = [i for i, axis in enumerate(a_batch) if shapes[0][axis] == 1]  # such as a single head
        a = _in_order(graph, a, [*a_batch, *a_rest, *a_sum], [a_batch[i] for i in ones])
        b = _in_order(graph, b, [*b_batch, *b_sum, *b_rest], [b_batch[i] for i in ones])
        product = graph.node("MatMul", a, b)
        return graph.node("Unsqueeze", product, graph.integers(*ones)) if ones else product
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    left, right = ([next(letters) for _ in shape] for shape in shapes)
    for i, j in [*zip(a_sum, b_sum, strict=True), *zip(a_batch, b_batch, strict=True)]:
        right[j] = left[i]
    out = [*(left[i] for i in (*a_batch, *a_rest)), *(right[j] for j in b_rest)]
    return graph.node("Einsum", a, b, equation=f"{''.join(left)},{''.join(right)}->{''.join(out)}")


def _in_order(graph, x, order, left_out=()):
    """The axes in this order, without some of size 1: to move those, too, would copy the array."""
    x = graph.node("Squeeze", x, graph.integers(*left_out)) if left_out else x
    kept = [axis for axis in order if axis not in left_out]
    moved = [sorted(kept).index(axis) for axis in kept]
    return x if moved == sorted(moved) else graph.node("Transpose", x, perm=moved)


def _gather(graph, equation, x, indices):
    """Rows of a table, `table[ids]`, or part of one axis, as in `x[:, 0]`. Ids must be in range: none is clipped."""
    table, ids = (atom.aval.shape for atom in equation.invars)
    numbers, sizes, last = equation.params["dimension_numbers"], equation.params["slice_sizes"], len(ids) - 1
    (axis,) = numbers.start_index_map if len(numbers.start_index_map) == 1 else (None,)
    whole = axis is not None and all(str(sizes[i]) == str(table[i]) for i in range(len(table)) if i != axis)
    collapsed, after = tuple(numbers.collapsed_slice_dims), tuple(numbers.offset_dims)
    if whole and axis == 0 and collapsed == (0,) and after == tuple(range(last, last + len(table) - 1)):
        return graph.node("Gather", x, graph.node("Squeeze", indices, graph.integers(last)), axis=0)
    if whole and last == 0 and after == tuple(range(len(after))):
        start = graph.cast(indices, np.int64)
        end = graph.node("Add", start, graph.size(sizes[axis]))
        x = graph.node("Slice", x, start, end, graph.integers(axis))
        return graph.node("Squeeze", x, graph.integers(axis)) if collapsed else x
    raise InputError(f"gather ({numbers}) has no conversion to ONNX; the model cannot be exported in this format.")


_CONVERSIONS: dict[str, Callable] = {
    "add": _elementwise("Add"),
    "add_any": _elementwise("Add"),
    "sub": _elementwise("Sub"),
    "mul": _elementwise("Mul"),
    "div": _elementwise("Div"),
    "neg": _plain("Neg"),
    "max": _elementwise("Max"),
    "min": _elementwise("Min"),
    "exp": _plain("Exp"),
    "log": _plain("Log"),
    "log1p": _log1p,
    "sqrt": _plain("Sqrt"),
    "rsqrt": _rsqrt,
    "tanh": _plain("Tanh"),
    "logistic": _plain("Sigmoid"),
    "floor": _plain("Floor"),
    "abs": _plain("Abs"),
    "sign": _plain("Sign"),
    "square": _square,
    "integer_pow": _integer_pow,
    "eq": _elementwise("Equal"),
    "ne": _not_equal,
    "lt": _elementwise("Less"),
    "le": _elementwise("LessOrEqual"),
    "gt": _elementwise("Greater"),
    "ge": _elementwise("GreaterOrEqual"),
    "and": _logical("And"),
    "or": _logical("Or"),
    "not": _logical("Not"),
    "select_n": _select,
    "convert_element_type": _convert_type,
    "stop_gradient": _plain("Identity"),
    "copy": _plain("Identity"),
    "clamp": _clamp,
    "reduce_sum": _reduction("ReduceSum"),
    "reduce_max": _reduction("ReduceMax"),
    "reduce_min": _reduction("ReduceMin"),
    "reduce_or": _reduction("ReduceMax"),
    "reduce_and": _reduction("ReduceMin"),
    "argmax": _argmax,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "expand_dims": _expand_dims,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "stack": _stack,
    "split": _split,
    "slice": _slice,
    "pad": _pad,
    "iota": _iota,
    "dim_as_value": _dim_as_value,
    "dot_general": _dot,
    "gather": _gather,
}
