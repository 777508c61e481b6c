"""Optimisers of embedding tables that read and write the rows that a batch names, and no others.

What dense steps do to a row without a gradient has a closed form: momentum carries it on, weight decay shrinks it, and
its moving average follows. So such a row is left where it is, and caught up with when it is next read. All but lazy
Adam therefore train as their dense forms do.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from pydantic import model_validator

from mmctr_jax.settings import Positive, Rate, Settings

_LONGEST = 2000  # steps of momentum; each is a number for each row of a batch


class RowOptimizer(Settings):
    """A subclass says what rows lose in a step, and what it keeps for each of them."""

    optimizer: str
    learning_rate: Positive | None = None
    """Of the tables. null: `train.learning_rate`. The schedule multiplies either."""

    def init(self, table_VxE: jax.Array) -> dict[str, jax.Array]:
        """What is kept of each row's gradients before the first step; arrays of V rows."""
        return {}

    def step(
        self, grads_UxE: jax.Array, kept: dict[str, jax.Array], step: jax.Array, learning_rate: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """What U rows lose by their gradients (U, E), and what is then kept of them.

        kept: as of the step before. step: () int32, the number of this one, from 1. learning_rate: () float32.
        """
        raise NotImplementedError

    def waited(self, kept: dict[str, jax.Array], n_Ux1: jax.Array) -> dict[str, jax.Array]:
        """What is kept of rows after n more steps without a gradient."""
        return kept

    def carried(self, kept: dict[str, jax.Array], seen_U: jax.Array) -> Carried | None:
        """How steps without a gradient move rows after step `seen`; None where they do not."""
        return None


class Carried(NamedTuple):
    """Momentum: in its i-th step without a gradient a row loses direction · shares[i − 1], times the learning rate."""

    direction_UxE: jax.Array
    shares_UxJ: jax.Array
    """Of steps 1 … J; what follows is too little to count."""


class _Adam(RowOptimizer):
    """What the two forms of Adam have in common."""

    b1: Rate = 0.9
    """Of the mean of gradients, how much stays from step to step."""
    b2: Rate = 0.999
    """Likewise of the mean of squared gradients."""
    eps: Positive = 1e-8
    """Joins the root of the latter, by which the former is divided."""

    def _moments(self, grads_UxE: jax.Array, kept: dict[str, jax.Array]) -> dict[str, jax.Array]:
        mu = self.b1 * kept["mu"] + (1 - self.b1) * grads_UxE
        return {"mu": mu, "nu": self.b2 * kept["nu"] + (1 - self.b2) * jnp.square(grads_UxE)}

    def _direction(self, kept: dict[str, jax.Array], steps_Ux1: jax.Array) -> jax.Array:
        """By moments whose bias is that of so many steps."""
        m_hat, v_hat = (kept[name] / -jnp.expm1(steps_Ux1 * _log(b)) for name, b in (("mu", self.b1), ("nu", self.b2)))
        return m_hat / (jnp.sqrt(v_hat) + self.eps)


class RowAdam(_Adam):
    """Adam, its momentum caught up with: the steps of the dense one, of which single rows need only their own.

    Equal but for `eps` in the steps without a gradient, which counts where gradients are no larger than it.
    """

    optimizer: Literal["adam"] = "adam"

    @model_validator(mode="after")
    def _momentum_ends(self) -> RowAdam:
        if self.b1 and not (self.b2 and self._log_ratio < 0 and self._steps_carried <= _LONGEST):
            raise ValueError(
                f"train.tables: momentum of b1 {self.b1} and b2 {self.b2} carries a row on for more than "
                f"{_LONGEST:,} steps, which cannot be caught up with; lower b1"
            )
        return self

    @property
    def _log_ratio(self) -> float:
        """Of a step without a gradient to the one before, but for their bias."""
        return math.log(self.b1) - math.log(self.b2) / 2

    @property
    def _steps_carried(self) -> int:
        """After which a step is a millionth of the first."""
        return math.ceil(math.log(1e-6) / self._log_ratio)

    def init(self, table_VxE: jax.Array) -> dict[str, jax.Array]:
        zeros = jnp.zeros_like(table_VxE)
        return {"mu": zeros, "nu": jnp.copy(zeros)}

    def step(
        self, grads_UxE: jax.Array, kept: dict[str, jax.Array], step: jax.Array, learning_rate: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        kept = self._moments(grads_UxE, kept)
        return learning_rate * self._direction(kept, step.astype(grads_UxE.dtype)), kept

    def waited(self, kept: dict[str, jax.Array], n_Ux1: jax.Array) -> dict[str, jax.Array]:
        return {"mu": kept["mu"] * self.b1**n_Ux1, "nu": kept["nu"] * self.b2**n_Ux1}

    def carried(self, kept: dict[str, jax.Array], seen_U: jax.Array) -> Carried | None:
        if not self.b1:
            return None
        seen = jnp.maximum(seen_U, 1)[:, None].astype(kept["mu"].dtype)  # of no consequence before a row's first step
        i = np.arange(1, self._steps_carried + 1)

        def unbias(b: float) -> jax.Array:
            """1 - b to the power of seen + i, over that of seen; without an exponential of each."""
            ratio = jnp.asarray(1 - b**i, seen.dtype) / -jnp.expm1(seen * _log(b))
            return 1 + ratio * b**seen

        shares = jnp.asarray(np.exp(i * self._log_ratio), seen.dtype)
        return Carried(self._direction(kept, seen), shares * jnp.sqrt(unbias(self.b2)) / unbias(self.b1))


class LazyAdam(_Adam):
    """Adam in which a row's momentum waits while no batch names it.

    Bias is corrected by each row's own number of steps, so that a row's first step is as long as the learning rate
    whenever it comes. With all rows in every batch it is Adam.
    """

    optimizer: Literal["lazy_adam"] = "lazy_adam"

    def init(self, table_VxE: jax.Array) -> dict[str, jax.Array]:
        zeros = jnp.zeros_like(table_VxE)
        return {"mu": zeros, "nu": jnp.copy(zeros), "count": jnp.zeros(len(table_VxE), jnp.int32)}

    def step(
        self, grads_UxE: jax.Array, kept: dict[str, jax.Array], step: jax.Array, learning_rate: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        count = kept["count"] + 1
        kept = self._moments(grads_UxE, kept)
        return learning_rate * self._direction(kept, count[:, None].astype(grads_UxE.dtype)), kept | {"count": count}


class RowwiseAdagrad(RowOptimizer):
    """Adagrad with one number for each row: the sum, over its steps, of its gradient's mean square.

    4 bytes a row where Adam keeps 8 for each of its numbers. As in FBGEMM (`EXACT_ROWWISE_ADAGRAD`). Steps get shorter
    from the first on, so it wants a higher learning rate than Adam.
    """

    optimizer: Literal["rowwise_adagrad"] = "rowwise_adagrad"
    eps: Positive = 1e-8
    """Joins the root of the sum, by which the gradient is divided."""

    def init(self, table_VxE: jax.Array) -> dict[str, jax.Array]:
        return {"squares": jnp.zeros(len(table_VxE), table_VxE.dtype)}

    def step(
        self, grads_UxE: jax.Array, kept: dict[str, jax.Array], step: jax.Array, learning_rate: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        squares = kept["squares"] + jnp.square(grads_UxE).mean(axis=1)
        return learning_rate * grads_UxE / (jnp.sqrt(squares) + self.eps)[:, None], {"squares": squares}


class RowSGD(RowOptimizer):
    """Stochastic gradient descent: nothing is kept."""

    optimizer: Literal["sgd"] = "sgd"

    def step(
        self, grads_UxE: jax.Array, kept: dict[str, jax.Array], step: jax.Array, learning_rate: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        return learning_rate * grads_UxE, {}


@struct.dataclass
class Rows:
    """Rows of a table, or all of them, with all that is kept of each."""

    value: jax.Array
    """(U, E) as of step `seen`."""
    average: jax.Array | None
    """(U, E) the moving average of its values (`train.ema`), as of step `seen`."""
    seen: jax.Array
    """(U,) int32: the last step that was done to the row, or was caught up with."""
    kept: dict[str, jax.Array]
    """What the optimiser keeps; arrays of U rows."""


def named(ids: jax.Array, size: int) -> jax.Array:
    """(U,) int32 the different ones of ids below `size`, rising; filled up with numbers from `size` on, all different.

    U depends on shapes alone. Costs a sort of the ids.
    """
    ids, most = ids.ravel(), min(ids.size, size)
    ids = jnp.unique(ids, size=most, fill_value=size)
    return jnp.where(ids < size, ids, size + jnp.arange(most, dtype=ids.dtype))


def rows_at(table: Rows, ids_U: jax.Array) -> Rows:
    """The rows `ids_U` of a table; any row for an id that the table does not have."""
    return jax.tree.map(lambda x: x.at[ids_U].get(mode="clip"), table)


def with_rows(table: Rows, ids_U: jax.Array, rows: Rows) -> Rows:
    """The table with `rows` at `ids_U`, no two alike; those that it does not have are left out."""
    return jax.tree.map(lambda x, new: x.at[ids_U].set(new, mode="drop", unique_indices=True), table, rows)


def caught_up(
    rows: Rows, step: jax.Array, optimizer: RowOptimizer, learning_rate: jax.Array, decay: float, ema: float | None
) -> Rows:
    """The rows as of `step`, none of the steps since `seen` having named them.

    Args:
        rows: As of `seen`, which is not after `step`.
        step: () int32: steps done.
        optimizer: Of the tables.
        learning_rate: () float32: of the steps to catch up with.
        decay: The rate of decoupled weight decay.
        ema: `train.ema`.
    """
    n = (step - rows.seen)[:, None].astype(rows.value.dtype)  # steps to catch up with
    log_q = jnp.log1p(-learning_rate * decay)  # of what weight decay leaves of a row in a step
    carried = optimizer.carried(rows.kept, rows.seen)
    value, average = rows.value * jnp.exp(n * log_q), rows.average
    if carried is not None:
        i = jnp.arange(1, carried.shares_UxJ.shape[1] + 1, dtype=n.dtype)
        shares = jnp.where(i <= n, carried.shares_UxJ, 0)
        shrunk = jnp.exp(jnp.maximum(n - i, 0) * log_q) if decay else 1
        lost = (shares * shrunk).sum(axis=1, keepdims=True)
        value -= learning_rate * lost * carried.direction_UxE
    if average is not None:
        # Adam's kind of mean, (1 - d)/(1 - dᵗ) Σ dᵗ⁻ᵏ pₖ; n of its t values are those of the steps to catch up with.
        log_d = math.log(ema)
        new = jnp.exp(log_q) * _sum_of_products(n, log_q, log_d) * rows.value
        if carried is not None:
            lost = (shares * _sum_of_products(jnp.maximum(n - i + 1, 1), log_q, log_d)).sum(axis=1, keepdims=True)
            new -= learning_rate * lost * carried.direction_UxE
        before = jnp.exp(n * log_d) * -jnp.expm1(rows.seen[:, None] * log_d) * average
        total = -jnp.expm1(jnp.maximum(step, 1) * log_d)  # of no consequence at step 0
        average = jnp.where(n > 0, (before + (1 - ema) * new) / total, average)
    return Rows(value, average, _seen(rows, step), optimizer.waited(rows.kept, n))


def _sum_of_products(n: jax.Array, log_q: jax.Array, log_d: float) -> jax.Array:
    """Σ dⁿ⁻¹⁻ᵏ qᵏ over k = 0 … n − 1, in a way that float32 bears, however near q and d are."""
    gap = -jnp.abs(log_q - log_d)
    ratio = jnp.where(gap == 0, n, jnp.expm1(n * gap) / jnp.where(gap == 0, 1, jnp.expm1(gap)))
    return jnp.exp((n - 1) * jnp.maximum(log_q, log_d)) * ratio


def _log(share: float) -> float:
    return math.log(share) if share else -math.inf


def stepped(
    rows: Rows,
    grads_UxE: jax.Array,
    step: jax.Array,
    optimizer: RowOptimizer,
    learning_rate: jax.Array,
    decay: float,
    ema: float | None,
) -> Rows:
    """The rows after the step that is number `step`, from 1, with their gradients in it.

    rows: as of the step before (`caught_up`). decay: the rate of decoupled weight decay. learning_rate: () float32.
    """
    lost, kept = optimizer.step(grads_UxE, rows.kept, step, learning_rate)
    value, average = rows.value * (1 - learning_rate * decay) - lost, rows.average
    if average is not None:
        average += average_share(step, ema) * (value - average)
    return Rows(value, average, _seen(rows, step), kept)


def _seen(rows: Rows, step: jax.Array) -> jax.Array:
    """`step` for each row, in a way that needs `seen` read before it is written: XLA would else copy all of it."""
    return jnp.maximum(rows.seen, step)


def average_share(steps: jax.Array, decay: float) -> jax.Array:
    """() float32: the weight of the newest of so many values in their moving average, the first of which weighs all.

    (1 − decay) over 1 − decay^steps, the sum of the weights so far, in a way that float32 bears.
    """
    return (1 - decay) / -jnp.expm1(steps * math.log(decay))
