"""Benchmarks are run by hand: here, that their parts still run, and that what they count is what is computed."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from benchmarks import limit, savings
from benchmarks.generate import made_up_batch, made_up_items
from benchmarks.published import published_config


def test_counted_flop_are_those_of_the_compiled_blocks():
    model = SimpleNamespace(config=published_config(), items=jax.device_put(made_up_items()))
    for block in limit.blocks(model, jax.device_put(made_up_batch(2, 1)), 1):
        compiled = block.action.func.lower(*block.action.args).compile().cost_analysis()["flops"]
        assert block.flop == pytest.approx(compiled, rel=0.05), block.name


def test_a_saving_of_a_single_part_is_measured():
    rows = list(savings.target_once(None, 2))
    assert rows and all(np.isfinite([without, with_it]).all() and with_it > 0 for _, _, without, with_it in rows)
