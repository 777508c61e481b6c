"""Optimisers: what turns gradients into new parameters. One class each, with optax's arguments and defaults.

A new one is a class here and a line in `mmctr_jax.optimization`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import tree_map_with_path
from pydantic import model_validator

from mmctr_jax.optimization.weight_decay import DecayRate, no_decay
from mmctr_jax.settings import NonNegative, Positive, Rate, Settings

Add = Callable[[jax.Array, jax.Array], jax.Array]
"""How a gradient joins an array of its parameter's shape. The gradient may be that of a narrowed model, and zero
elsewhere (`models.live.add`)."""


class Optimizer(Settings):
    """A subclass says what its steps are, by `direction`, and has that function's arguments as its settings."""

    name: str

    weight_decay: ClassVar[float] = 0.0
    """Where `train.weight_decay` names no rate."""

    def direction(self, decay: optax.GradientTransformation) -> optax.GradientTransformation:
        """From gradients to what the parameters lose, up to the learning rate. decay: adds the decayed weights."""
        raise NotImplementedError

    def init(self, params: Any) -> Any:
        """The optimiser's state before the first step."""
        return self.direction(optax.identity()).init(params)

    def update(
        self,
        grads: Any,
        state: Any,
        params: Any,
        learning_rate: jax.Array,
        add: Add = jnp.add,
        decay_rate: DecayRate = no_decay,
    ) -> tuple[Any, Any]:
        """A step.

        Args:
            grads: The gradient of each parameter, whole or narrowed (`add`).
            state: As `init` or the step before gave it.
            params: The parameters before the step.
            learning_rate: () float.
            add: How a gradient joins an array of its parameter's shape.
            decay_rate: Of each parameter.

        Returns:
            The parameters and the state after the step.
        """
        grads = jax.tree.map(lambda p, g: g if g.shape == p.shape else add(jnp.zeros_like(p), g), params, grads)

        def decayed(path: Any, direction: jax.Array, p: jax.Array) -> jax.Array:
            rate = decay_rate(path, p)
            return direction + rate * p if rate else direction

        decay = optax.stateless(lambda directions, params: tree_map_with_path(decayed, directions, params))
        directions, state = self.direction(decay).update(grads, state, params)
        return jax.tree.map(lambda p, d: p - learning_rate.astype(p.dtype) * d, params, directions), state


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015). The released model's optimiser, and the fastest here.

    It is dense: rows without a gradient keep moving on their momentum. The step is ours, equal to optax's: optax would
    need whole gradients, which at batch 128 costs as much as the rest of a training step.
    """

    name: Literal["adam"] = "adam"
    b1: Rate = 0.9
    """Of the mean of gradients, how much stays from step to step."""
    b2: Rate = 0.999
    """Likewise of the mean of squared gradients."""
    eps: Positive = 1e-8
    """Joins the root of the latter, by which the former is divided."""

    def init(self, params: Any) -> optax.ScaleByAdamState:
        return optax.scale_by_adam().init(params)

    def update(
        self,
        grads: Any,
        state: optax.ScaleByAdamState,
        params: Any,
        learning_rate: jax.Array,
        add: Add = jnp.add,
        decay_rate: DecayRate = no_decay,
    ) -> tuple[Any, optax.ScaleByAdamState]:
        mu = jax.tree.map(lambda m, g: add(self.b1 * m, (1 - self.b1) * g), state.mu, grads)
        nu = jax.tree.map(lambda v, g: add(self.b2 * v, (1 - self.b2) * jnp.square(g)), state.nu, grads)
        count = optax.safe_increment(state.count)

        def step(path: Any, p: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
            rate = learning_rate.astype(p.dtype)
            # One array: GPU programs then update arrays of equal shape in one kernel, as readers of the same thing.
            unbias_2 = 1 - jnp.array([self.b1, self.b2], p.dtype) ** count.astype(p.dtype)
            m_hat, v_hat = m / unbias_2[0], v / unbias_2[1]
            moved = p - rate * m_hat / (jnp.sqrt(v_hat) + self.eps)
            decay = decay_rate(path, p)
            return moved - rate * decay * p if decay else moved

        params = tree_map_with_path(step, params, mu, nu)
        return params, optax.ScaleByAdamState(count, mu, nu)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    name: Literal["adamw"] = "adamw"

    weight_decay: ClassVar[float] = 1e-4


class Adagrad(Optimizer):
    """Adagrad (Duchi et al. 2011): each weight's gradient by the root of the sum of its squares."""

    name: Literal["adagrad"] = "adagrad"
    initial_accumulator_value: NonNegative = 0.1
    """The sum of squares before the first step."""
    eps: Positive = 1e-7
    """Joins the sum of squares."""

    def direction(self, decay: optax.GradientTransformation) -> optax.GradientTransformation:
        return optax.chain(optax.scale_by_rss(self.initial_accumulator_value, self.eps), decay)


class LAMB(Optimizer):
    """LAMB (You et al. 2020): Adam's step of each layer, made as long as its weights, for large batches."""

    name: Literal["lamb"] = "lamb"
    b1: Rate = 0.9
    """Of the mean of gradients, how much stays from step to step."""
    b2: Rate = 0.999
    """Likewise of the mean of squared gradients."""
    eps: Positive = 1e-6
    """Joins the root of the latter, by which the former is divided."""

    def direction(self, decay: optax.GradientTransformation) -> optax.GradientTransformation:
        return optax.chain(optax.scale_by_adam(self.b1, self.b2, self.eps), decay, optax.scale_by_trust_ratio())


class Lion(Optimizer):
    """Lion (Chen et al. 2023): the sign of a momentum. Wants a learning rate 3 to 10 times smaller than Adam's."""

    name: Literal["lion"] = "lion"
    b1: Rate = 0.9
    """Of the momentum, its share in the step; the gradient has the rest."""
    b2: Rate = 0.99
    """Of the momentum, how much stays from step to step."""

    weight_decay: ClassVar[float] = 1e-3

    def direction(self, decay: optax.GradientTransformation) -> optax.GradientTransformation:
        return optax.chain(optax.scale_by_lion(self.b1, self.b2), decay)


class SGD(Optimizer):
    """Stochastic gradient descent (Sutskever et al. 2013)."""

    name: Literal["sgd"] = "sgd"
    momentum: Rate | None = None
    """How much of the last step joins the next; null: none, and nothing is kept for it."""
    nesterov: bool = False
    """Nesterov's momentum, which looks ahead; needs `momentum`."""

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> SGD:
        if self.nesterov and self.momentum is None:
            raise ValueError("train.optimizer.nesterov is a kind of momentum; give train.optimizer.momentum, too")
        return self

    def direction(self, decay: optax.GradientTransformation) -> optax.GradientTransformation:
        momentum = optax.identity() if self.momentum is None else optax.trace(self.momentum, self.nesterov)
        return optax.chain(momentum, decay)
