"""What a program compiled for a GPU says of itself: kernels, bytes, products, collectives. HLO text in, numbers out.

Bytes are those that kernels must move: of an array of which a kernel takes slices or rows, these; of one that is
updated in place, the update. Everything counts as memory traffic, though small arrays may stay in the card's cache.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

_LINE = re.compile(r"^\s+(ROOT )?%(?P<name>[\w.\-]+) = (?P<type>.*?) (?P<opcode>[a-z][a-z0-9\-]*)\((?P<rest>.*)$")
_ARRAY = re.compile(r"([a-z]+\d*\w*)\[([\d,]*)\]")
_NAME = re.compile(r"%([\w.\-]+)")
_BYTES = {"pred": 1, "token": 0}

_NO_WORK = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id"}
_NO_WORK |= {"replica-id", "opt-barrier"}
_EXCHANGES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")
_MOVES = {"parameter", "constant", "bitcast", "copy", "convert", "transpose", "reshape", "slice", "dynamic-slice"}
_MOVES |= {"pad", "dynamic-update-slice", "concatenate", "broadcast", "tuple", "get-tuple-element"}


@dataclass(frozen=True)
class Array:
    """A type and a shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        bits = re.search(r"\d+", self.dtype)
        return self.size * _BYTES.get(self.dtype, int(bits[0]) // 8 if bits else 0)


@dataclass(frozen=True)
class Instruction:
    """A line of a computation."""

    name: str
    arrays: tuple[Array, ...]
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)

    @property
    def size(self) -> int:
        return sum(array.size for array in self.arrays)

    @property
    def source(self) -> str:
        """Where the JAX program asked for it, such as `jit(train_step)/optimizer/mul`; of a parameter, its name."""
        match = re.search(r'op_name="([^"]*)"', self.attributes)
        return match[1].replace("\\", "") if match else ""

    def numbers(self, attribute: str) -> list[int]:
        """Of an attribute such as `lhs_contracting_dims={1}`."""
        match = re.search(rf'{attribute}"?[=:][{{\[]([\d,"]*)[}}\]]', self.attributes)
        return [int(n) for n in re.findall(r"\d+", match[1])] if match else []


Computation = dict[str, Instruction]


@dataclass(frozen=True)
class Product:
    """A matrix product within a kernel."""

    flop: int
    precision: str
    """float32, which only the cores' ordinary units compute; tf32 or bfloat16, on tensor cores."""


@dataclass(frozen=True)
class Kernel:
    """What is launched at once."""

    name: str
    sources: frozenset[str]
    read: int
    """Bytes."""
    written: int
    products: tuple[Product, ...]
    only_moves_weights: bool
    """Whether all that it does is to cut, convert or arrange parameters."""
    times: int = 1
    """How often a step launches it."""

    @property
    def nbytes(self) -> int:
        return self.read + self.written

    def within(self, scope: str) -> bool:
        """Whether it does anything that the JAX program asked for in a `jax.named_scope` of that name."""
        return any(f"/{scope}/" in f"{source}/" for source in self.sources)


@dataclass(frozen=True)
class Exchange:
    """A collective operation."""

    kind: str
    nbytes: int
    """Of the whole arrays: what is reduced or scattered, or the gathered result."""
    beside: tuple[Kernel, ...]
    """Kernels that run between its start and its end."""


class Program:
    """A compiled program, from its text (`compiled.as_text()`)."""

    def __init__(self, text: str):
        self.computations, self.entry = _parse(text)

    @cached_property
    def kernels(self) -> list[Kernel]:
        """In the order in which they are launched."""
        return [item for item in self._schedule if isinstance(item, Kernel)]

    @cached_property
    def exchanges(self) -> list[Exchange]:
        """In the order in which they start."""
        found: list[Exchange] = []
        for i, item in enumerate(self._schedule):
            if isinstance(item, Instruction) and (kind := self._kind(item)):
                beside = self._until_done(item, i) if item.opcode.endswith("-start") else []
                found.append(Exchange(kind, self._bytes_exchanged(item, kind), tuple(beside)))
        return found

    def _until_done(self, start: Instruction, at: int) -> list[Kernel]:
        """The kernels between a collective's start, number `at` of the schedule, and its end."""
        beside: list[Kernel] = []
        for later in self._schedule[at + 1 :]:
            if isinstance(later, Kernel):
                beside.append(later)
            elif start.name in later.operands:
                break
        return beside

    @cached_property
    def _schedule(self) -> list[Kernel | Instruction]:
        """Kernels, and as instructions, starts and ends of collectives; what loops and calls do, in their place."""
        return list(self._walk(self.computations[self.entry], 1))

    def _walk(self, computation: Computation, times: int) -> Iterator[Kernel | Instruction]:
        for instruction in computation.values():
            if instruction.opcode in _NO_WORK:
                continue
            if self._kind(instruction) or instruction.opcode.endswith("-done"):
                yield instruction
            elif instruction.opcode in ("while", "call", "conditional"):
                trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', instruction.attributes)
                for called in self._called(instruction):
                    yield from self._walk(called, times * (int(trips[1]) if trips else 1))
            else:
                yield self._kernel(instruction, computation, times)

    def _called(self, instruction: Instruction) -> list[Computation]:
        names = re.findall(r"(?:calls|body|to_apply|branch_computations)=\{?%([\w.\-]+)", instruction.attributes)
        return [self.computations[name] for name in names]

    def _kind(self, instruction: Instruction) -> str | None:
        """Of the collective that an instruction is or starts, if it does."""
        opcodes = [instruction.opcode]
        if instruction.opcode == "async-start":
            opcodes = [inner.opcode for called in self._called(instruction) for inner in called.values()]
        kinds = [opcode.removesuffix("-start") for opcode in opcodes]
        return next((kind for kind in kinds if kind in _EXCHANGES), None)

    def _bytes_exchanged(self, instruction: Instruction, kind: str) -> int:
        computation = next(c for c in self.computations.values() if c.get(instruction.name) is instruction)
        given = sum(computation[name].nbytes for name in instruction.operands)
        if kind != "all-gather":
            return given
        # The start of a gather holds both what is given and what is gathered.
        return instruction.nbytes - (given if instruction.opcode.endswith("-start") else 0)

    def _kernel(self, instruction: Instruction, computation: Computation, times: int) -> Kernel:
        inner = self._called(instruction) if instruction.opcode == "fusion" else []
        all_inner = [i for c in self._nested(instruction) for i in c.values()]
        if inner:
            read, written = _moved(inner[0])
        else:
            read = sum(computation[name].nbytes for name in dict.fromkeys(instruction.operands))
            written = sum(array.nbytes for array in instruction.arrays if array.dtype != "s8")  # s8: room for cuBLAS
        products = [_product(i, c) for c in self._nested(instruction) for i in c.values() if i.opcode == "dot"]
        if "gemm_backend_config" in instruction.attributes or "$matmul" in instruction.attributes:
            products.append(_product(instruction, computation))
        of_weights = any(_origin(name, computation).source.startswith("state.params") for name in instruction.operands)
        moves = {i.opcode for i in all_inner} if inner else {instruction.opcode}
        return Kernel(
            instruction.name,
            frozenset(i.source for i in (instruction, *all_inner) if i.opcode != "parameter"),
            read,
            written,
            tuple(products),
            of_weights and moves <= (_MOVES | {"add"} if "pad" in moves else _MOVES),  # padded parts are added up
            times,
        )

    def _nested(self, instruction: Instruction) -> Iterator[Computation]:
        for computation in self._called(instruction) if instruction.opcode == "fusion" else []:
            yield computation
            for inner in computation.values():
                yield from self._nested(inner)


def _parse(text: str) -> tuple[dict[str, Computation], str]:
    computations: dict[str, Computation] = {}
    current: Computation = {}
    entry = ""
    for line in text.splitlines():
        if line.startswith(("%", "ENTRY")) and line.endswith("{"):
            name = _NAME.search(line)[1]
            current = computations[name] = {}
            if line.startswith("ENTRY"):
                entry = name
        elif match := _LINE.match(line):
            inside, attributes = _balanced(match["rest"])
            operands = () if match["opcode"] in ("parameter", "constant") else tuple(_NAME.findall(inside))
            arrays = tuple(Array(t, tuple(int(n) for n in s.split(",") if n)) for t, s in _ARRAY.findall(match["type"]))
            root = match[1] is not None
            current[match["name"]] = Instruction(match["name"], arrays, match["opcode"], operands, attributes, root)
    return computations, entry


def _balanced(rest: str) -> tuple[str, str]:
    """What stands before the bracket that closes, and behind it."""
    depth = 1
    for i, character in enumerate(rest):
        depth += (character == "(") - (character == ")")
        if not depth:
            return rest[:i], rest[i + 1 :]
    return rest, ""


def _origin(name: str, computation: Computation) -> Instruction:
    """The instruction whose result this is, seen through what only names it anew."""
    instruction = computation[name]
    while instruction.opcode in ("bitcast", "get-tuple-element") and instruction.operands:
        instruction = computation[instruction.operands[0]]
    return instruction


def _results(computation: Computation) -> list[Instruction]:
    root = next(i for i in computation.values() if i.is_root)
    return [computation[name] for name in root.operands] if root.opcode == "tuple" else [root]


def _moved(computation: Computation) -> tuple[int, int]:
    """Bytes that a fusion reads and writes."""
    wanted = dict.fromkeys(computation, 0.0)  # elements
    written = 0
    for result in _results(computation):
        in_place = _update_in_place(_origin(result.name, computation), computation)
        written += in_place.nbytes if in_place else result.nbytes
        wanted[result.name] += in_place.size if in_place else result.size
    for instruction in reversed(computation.values()):
        for i, name in enumerate(instruction.operands):
            operand = computation[name]
            elements = _wanted_of(instruction, i, operand, wanted[instruction.name], computation)
            wanted[name] = min(operand.size, wanted[name] + elements)
    parameters = [i for i in computation.values() if i.opcode == "parameter"]
    read = sum(i.nbytes * wanted[i.name] / i.size for i in parameters if i.size)
    return round(read), written


def _update_in_place(instruction: Instruction, computation: Computation) -> Instruction | None:
    """What a result puts into an array that it was given, if that is what it does."""
    at = {"dynamic-update-slice": 1, "scatter": -1}.get(instruction.opcode)
    if at is None or _origin(instruction.operands[0], computation).opcode != "parameter":
        return None
    return computation[instruction.operands[at]]


def _wanted_of(user: Instruction, i: int, operand: Instruction, wanted: float, computation: Computation) -> float:
    """How many elements of its operand number i an instruction takes, of which `wanted` elements are needed."""
    if not wanted:
        return 0
    match user.opcode:
        case "dot" | "fusion" | "custom-call" | "sort":
            return operand.size
        case "slice" | "dynamic-slice" | "gather":
            return wanted if i == 0 else operand.size
        case "dynamic-update-slice" | "scatter":
            if i == 0:
                return 0 if _update_in_place(user, computation) else wanted
            return operand.size
        case "tuple":
            return 0  # its operands are the results, which are counted already
        case "pad" | "broadcast":
            return min(operand.size, wanted)
        case _:
            return wanted / max(user.arrays[0].size, 1) * operand.size


def _product(instruction: Instruction, computation: Computation) -> Product:
    left, right = (computation[name].arrays[0] for name in instruction.operands[:2])
    contracted = instruction.numbers("lhs_contracting_dims") or instruction.numbers("lhs_contracting_dimensions")
    flop = 2 * instruction.arrays[0].size * math.prod(left.shape[axis] for axis in contracted)
    if {left.dtype, right.dtype} & {"f32", "f64"}:
        rounded = "highest" not in instruction.attributes.lower() or "algorithm=dot_tf32" in instruction.attributes
        return Product(flop, "tf32" if rounded else "float32")
    return Product(flop, "bfloat16")
