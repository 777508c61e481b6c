"""Trainings and scorings of equal models share their compiled programs, within a process, as repeated calls of one do.

Without this most of the tests' time would go into tracing and loading the same few programs again. Between processes
JAX's own cache does it. What a program is made of is the config but for its data and for what only steers the run.
"""

import functools
from typing import Any

import jax
from pydantic import BaseModel

from mmctr_jax.interop import convert
from mmctr_jax.training import loop, scoring

_STEERING = {"epochs", "eval_every", "checkpoint_every", "patience", "learning_rate", "lr_factor", "min_learning_rate"}
_SHAPES = {"length_buckets", "batch_size", "eval_batch_size"}  # by which jax.jit compiles anew by itself


def share_programs() -> None:
    """From now on, for all of the process."""
    loop.make_train_step = _shared(loop.make_train_step)
    scoring.make_predict_step = _shared(scoring.make_predict_step)
    scoring.make_narrow = _shared(scoring.make_narrow)
    loop.init_state = convert.init_state = _shared_state(loop.init_state)


def _key(argument: Any, *more: str) -> Any:
    if isinstance(argument, BaseModel):
        return argument.model_dump_json(exclude={"data": True, "train": _STEERING | _SHAPES | set(more)})
    if isinstance(argument, dict):
        return tuple((name, x.shape, str(x.dtype)) for name, x in argument.items())
    return argument


def _shared(make):
    made: dict[Any, Any] = {}

    @functools.wraps(make)
    def once(*arguments):
        key = tuple(_key(argument, "seed") for argument in arguments)
        if key not in made:
            made[key] = make(*arguments)
        return made[key]

    return once


def _shared_state(init_state):
    """A fresh state for each caller, as steps take theirs apart."""
    made: dict[Any, Any] = {}

    @functools.wraps(init_state)
    def once(*arguments):
        key = tuple(map(_key, arguments))
        if key not in made:
            state = init_state(*arguments)
            made[key] = jax.device_get(state), jax.tree.map(lambda x: x.sharding, state)
        return jax.device_put(*made[key])

    return once
