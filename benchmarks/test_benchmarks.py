"""Benchmarks are run by hand: here, that their parts still run, and that what they count is what is computed."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from benchmarks import limit, savings
from benchmarks.published import made_up_batch, made_up_items, published_config


def test_counted_flop_are_those_of_the_compiled_blocks():
    ours = SimpleNamespace(config=published_config(), items=jax.device_put(made_up_items()))
    batch = jax.device_put(made_up_batch(2, 1))
    for name, flop, _, _, action in limit._blocks(ours, batch, 1):
        compiled = action.func.lower(*action.args).compile().cost_analysis()["flops"]
        assert flop == pytest.approx(compiled, rel=0.05), name


@pytest.mark.parametrize("measure", [savings.target_once, savings.items_once])
def test_savings_of_single_parts_are_measured(measure):
    rows = list(measure(None, 2))
    assert rows and all(np.isfinite([without, with_it]).all() and with_it > 0 for _, _, without, with_it in rows)
