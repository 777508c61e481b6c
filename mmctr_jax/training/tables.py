"""Embedding tables that a step reads and writes by rows (`train.tables`), apart from the rest of the state.

Their rows enter the model as a small table of those that the batch names, which is all that has a gradient. A table
that is split over devices by rows is stepped where its rows are: what the devices exchange are the batch's rows and
their gradients.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from mmctr_jax.config import Config
from mmctr_jax.devices.sharding import placed, replicated
from mmctr_jax.models import Model
from mmctr_jax.optimization import rows as by_row
from mmctr_jax.optimization.rows import RowAdam, Rows
from mmctr_jax.runs.state import TrainState

Tables = dict[str, jax.Array]

_ROWS_AT_ONCE = 2**13  # that are caught up with: each takes some hundred numbers, of the steps that momentum lasts


class RowTables:
    """The tables of a config with `train.tables`, in states of its training.

    In `opt_state`: `rest`, the state of `train.optimizer`, which steps all other weights; `tables`, what is kept of
    each row; and, where rows that no batch names lag behind, `learning_rate`, that of the tables' last step.
    """

    def __init__(self, config: Config, mesh: Mesh):
        self.optimizer, self.mesh, self.ema = config.train.tables, mesh, config.train.ema
        self.sizes, self.sharding = config.features.table_sizes, config.train.sharding
        self.decay = config.train.table_decay
        own = self.optimizer.learning_rate
        self.rate = 1.0 if own is None else own / config.train.learning_rate

    def init(self, params: Any, optimizer_init: Any) -> dict[str, Any]:
        """`opt_state` before the first step. optimizer_init: of the weights that are in no table."""
        tables, rest = self.apart(params)

        def kept(table: jax.Array) -> Tables:
            return {"seen": jnp.zeros(len(table), jnp.int32)} | self.optimizer.init(table)

        tables = {name: kept(table) for name, table in tables.items()}
        return self._opt_state(optimizer_init(rest), tables, jnp.zeros((), jnp.float32))

    def _opt_state(self, rest: Any, tables: dict[str, Tables], learning_rate: jax.Array) -> dict[str, Any]:
        lag = self.decay or self.ema or isinstance(self.optimizer, RowAdam)
        rate = {"learning_rate": learning_rate} if lag else {}
        return {"rest": rest, "tables": {"embedding": tables}} | rate

    def apart(self, tree: Any) -> tuple[Tables, Any]:
        """A tree of parameters → its tables by name, and the same tree without them."""
        embedding = tree["embedding"]
        rest = {name: x for name, x in embedding.items() if name not in self.sizes}
        tables = {name: x for name, x in embedding.items() if name in self.sizes}
        return tables, {name: x for name, x in tree.items() if name != "embedding"} | {"embedding": rest}

    @staticmethod
    def with_rows(params: Any, tables: Tables) -> Any:
        """Parameters with these tables in place of their own, if any."""
        return params | {"embedding": params["embedding"] | tables}

    def named(self, model: Model, variables: Any, batch: Any, items: Any, key: jax.Array) -> Tables:
        """The ids of each table that the model looks up in a training step: (U,) each, see `optimization.rows.named`.

        The model is traced for these alone; what does not lead to them is no part of the program.
        """
        collections = ["batch_stats", "losses", "lookups"]
        _, found = model.apply(variables, batch, items, train=True, rngs={"dropout": key}, mutable=collections)
        every = {name: [jnp.zeros(1, jnp.int32)] for name in self.sizes}
        for lookup in found["lookups"]["embedding"]["ids"]:
            for name, ids in lookup.items():
                every[name].append(jax.lax.with_sharding_constraint(ids.ravel(), replicated(self.mesh)))
        return {name: by_row.named(jnp.concatenate(ids), self.sizes[name]) for name, ids in every.items()}

    def read(self, state: TrainState, ids: Tables) -> Tables:
        """(U, E) of each table the rows `ids`, as of the last step, on every device."""

        def read(table: Rows, ids_U: jax.Array) -> jax.Array:
            return self._caught_up(by_row.rows_at(table, ids_U), state, None).value

        def read_part(table: Rows, ids_U: jax.Array) -> jax.Array:
            ids_U = _in_part(table, ids_U)
            rows_UxE = jnp.where((ids_U < len(table.value))[:, None], read(table, ids_U), 0)
            return jax.lax.psum(rows_UxE, "data")

        found = {}
        for name, table in self._tables(state).items():
            alone = table.replace(average=None)
            run = self._on_parts(read_part, alone, P()) if self._is_split(table) else read
            found[name] = run(alone, ids[name])
        return found

    def without(self, state: TrainState) -> TrainState:
        """The state of all other weights."""
        averaged = None if state.averaged is None else self.apart(state.averaged)[1]
        rest = state.opt_state["rest"]
        return state.replace(params=self.apart(state.params)[1], averaged=averaged, opt_state=rest)

    def step(
        self, state: TrainState, ids: Tables, grads: Tables, learning_rate: jax.Array, rest: TrainState
    ) -> TrainState:
        """The state after a step.

        Args:
            state: Before it.
            ids: (U,) of each table, what `named` says.
            grads: (U, E) of each table's rows `ids`, on every device.
            learning_rate: () float32.
            rest: The state of all other weights (`without`), after the step.
        """
        rate, step = learning_rate * self.rate, state.step + 1

        def stepped(table: Rows, ids_U: jax.Array, grads_UxE: jax.Array) -> Rows:
            rows = self._caught_up(by_row.rows_at(table, ids_U), state, self.ema)
            rows = by_row.stepped(rows, grads_UxE, step, self.optimizer, rate, self.decay, self.ema)
            return by_row.with_rows(table, ids_U, rows)

        def step_part(table: Rows, ids_U: jax.Array, grads_UxE: jax.Array) -> Rows:
            return stepped(table, _in_part(table, ids_U), grads_UxE)

        tables = {}
        for name, table in self._tables(state).items():
            run = self._on_parts(step_part, table, P("data")) if self._is_split(table) else stepped
            tables[name] = run(table, ids[name], grads[name])
        return self._with_tables(rest, tables, rate)

    def caught_up(self, state: TrainState) -> TrainState:
        """The state with all rows as of its last step."""

        def one(row: Rows) -> Rows:
            row = self._caught_up(jax.tree.map(lambda x: x[None], row), state, self.ema)
            return jax.tree.map(lambda x: x[0], row)

        def whole(table: Rows) -> Rows:
            return jax.lax.map(one, table, batch_size=min(_ROWS_AT_ONCE, len(table.value)))

        tables = {
            name: (self._on_parts(whole, table, P("data")) if self._is_split(table) else whole)(table)
            for name, table in self._tables(state).items()
        }
        return self._with_tables(self.without(state), tables, state.opt_state.get("learning_rate"))

    def _with_tables(self, rest: TrainState, tables: dict[str, Rows], rate: jax.Array | None) -> TrainState:
        """The inverse of `without`."""
        kept = {name: {"seen": table.seen, **table.kept} for name, table in tables.items()}
        params = self.with_rows(rest.params, {name: table.value for name, table in tables.items()})
        averaged = rest.averaged
        if averaged is not None:
            averaged = self.with_rows(averaged, {name: table.average for name, table in tables.items()})
        return rest.replace(params=params, averaged=averaged, opt_state=self._opt_state(rest.opt_state, kept, rate))

    def _caught_up(self, rows: Rows, state: TrainState, ema: float | None) -> Rows:
        rate = state.opt_state.get("learning_rate", jnp.zeros(()))
        return by_row.caught_up(rows, state.step, self.optimizer, rate, self.decay, ema)

    def _tables(self, state: TrainState) -> dict[str, Rows]:
        def rows(name: str, kept: Tables) -> Rows:
            average = state.averaged["embedding"][name] if self.ema else None
            kept = dict(kept)
            return Rows(state.params["embedding"][name], average, kept.pop("seen"), kept)

        return {name: rows(name, kept) for name, kept in state.opt_state["tables"]["embedding"].items()}

    def _is_split(self, table: Rows) -> bool:
        return placed(table.value.shape, self.mesh, self.sharding).spec[:1] == ("data",)

    def _on_parts(self, run: Any, table: Rows, out: P) -> Any:
        """`run(table, …)` on each device with its part of the table."""
        places = jax.tree.map(lambda x: P("data"), table)

        def on_parts(table: Rows, *rows: jax.Array) -> Any:
            specs = (places, *[P()] * len(rows))
            return jax.shard_map(run, mesh=self.mesh, in_specs=specs, out_specs=out, check_vma=False)(table, *rows)

        return on_parts


def since_step_0(opt_state: Any) -> Any:
    """`opt_state` of a training whose rows are all as of its last step, for one whose steps count from 0 again."""
    if not (isinstance(opt_state, dict) and "tables" in opt_state):
        return opt_state
    tables = opt_state["tables"]["embedding"].items()
    tables = {name: kept | {"seen": jnp.zeros_like(kept["seen"])} for name, kept in tables}
    return opt_state | {"tables": {"embedding": tables}}


def _in_part(table: Rows, ids_U: jax.Array) -> jax.Array:
    """Where ids are in this device's part of a table; beyond its end, all different, where they are not."""
    part = len(table.value)
    ids_U = ids_U - jax.lax.axis_index("data") * part
    return jnp.where((ids_U >= 0) & (ids_U < part), ids_U, part + jnp.arange(len(ids_U), dtype=ids_U.dtype))
