"""Where arrays live. The one place that decides it: batches split over the devices, everything else on each of them,
or with `train.sharding: fsdp` large arrays split, too.

This is what pmap does, in the form pmap itself has become: jit over a mesh with named shardings. XLA sees global
arrays, so a loss over the batch is the global one and the gradients' exchange follows from it.
"""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mmctr_jax.config import Config
from mmctr_jax.data.share import Share
from mmctr_jax.devices.hosts import all_devices
from mmctr_jax.features import Features


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The devices (default: all, of all processes) along one axis, `data`. Raises: InputError if JAX finds none."""
    devices = all_devices() if devices is None else devices
    # Not jax.make_mesh, which may reorder devices: rows must lie in the order of the processes that read them.
    return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole of an array on each device."""
    return NamedSharding(mesh, P())


def split_rows(mesh: Mesh) -> NamedSharding:
    """An array's first axis in equal parts over the devices."""
    return NamedSharding(mesh, P("data"))


_SPLIT_FROM = 2**14  # numbers; exchanging less costs more than keeping it


def placed(shape: tuple[int, ...], mesh: Mesh, sharding: str) -> NamedSharding:
    """Where a parameter, moment or item table of this shape lives.

    With fsdp, large ones are split along the first of their longest axes that the devices divide.
    """
    if sharding == "fsdp" and math.prod(shape) >= _SPLIT_FROM:
        for axis in sorted(range(len(shape)), key=lambda axis: -shape[axis]):
            if shape[axis] % mesh.size == 0:
                return NamedSharding(mesh, P(*[None] * axis, "data"))
    return replicated(mesh)


_ROWS_OF = 512  # any 2ⁿ ≤ 512 devices divide it


def _filling(rows: int, sharding: str) -> int:
    """Rows to add to a table of so many: with fsdp a large one is filled up, so that devices have equal parts of it."""
    return -rows % _ROWS_OF if sharding == "fsdp" and rows > 8 * _ROWS_OF else 0


def filled(params: Any, sharding: str) -> Any:
    """A model's parameters as they are kept: the embedding tables with rows of zeros added, which no id names."""

    def fill(x: Any) -> Any:
        filling = 0 if isinstance(x, dict) else _filling(x.shape[0], sharding)
        return jnp.pad(x, ((0, filling), (0, 0))) if filling else x

    return params | {"embedding": {name: fill(x) for name, x in params["embedding"].items()}}


def unfilled(params: Any, features: Features) -> Any:
    """The inverse of `filled`: the parameters as the model has them."""
    sizes = features.table_sizes
    tables = {name: x[: sizes[name]] if name in sizes else x for name, x in params["embedding"].items()}
    return params | {"embedding": tables}


def rows_for_items(items: int) -> int:
    """Rows of the item table on the devices: up to a sixteenth more than items, where these are many.

    So programs stay the same, and compiled, while items come in. A multiple of 512, so that devices have equal parts.
    """
    step = max(_ROWS_OF, 1 << items.bit_length() >> 5)
    return items + (-items % step if items > 8 * _ROWS_OF else 0)


def put_items(items: dict[str, np.ndarray], mesh: Mesh, config: Config) -> dict[str, jax.Array]:
    """The item table on the devices, of which each reads its part; every process must hold the same values."""

    def put(values: np.ndarray) -> jax.Array:
        rows = rows_for_items(len(values))
        shape = (rows, *values.shape[1:])

        def part(index: tuple[slice, ...]) -> np.ndarray:
            found = values[index]
            filling = len(range(rows)[index[0]]) - len(found)
            return np.pad(found, [(0, filling)] + [(0, 0)] * (found.ndim - 1)) if filling else found

        return jax.make_array_from_callback(shape, placed(shape, mesh, config.train.sharding), part)

    return {name: put(values) for name, values in items.items()}


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's rows of a batch → the global batch, split over all devices."""
    sharding = split_rows(mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)  # all arrays in one call, in half the time
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(sharding, rows), batch)


def on_devices(batches: Iterable[dict[str, np.ndarray]], mesh: Mesh) -> Iterator[dict[str, jax.Array]]:
    """The same batches on the devices, each on its way there while the one before it is at work."""
    ahead = None
    for batch in batches:
        arriving = put_batch(batch, mesh)
        if ahead is not None:
            yield ahead
        ahead = arriving
    if ahead is not None:
        yield ahead


def put_replicated(tree: Any, mesh: Mesh) -> Any:
    """The same arrays on every device; every process must hold the same values."""
    return jax.device_put(tree, replicated(mesh))


def memory_per_device() -> int:
    """Bytes that a device's arrays may take; of a CPU, all of the machine's memory."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit") or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def share() -> Share:
    """The rows of each global batch that this process reads."""
    return Share(jax.process_index(), jax.process_count(), jax.device_count())
