"""JAX as we need it, whatever flags a shell or a notebook has set: only within our own calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import jax


@contextmanager
def plain_jax() -> Iterator[None]:
    """Within it (also as a decorator) JAX has its defaults for types, promotion and random keys, in this thread.

    64-bit types would double every table, other keys would draw other numbers than a resumed run has begun with, and
    stricter promotion refuses what our libraries do. Afterwards the flags are what they were.
    """
    with ExitStack() as stack:
        for setting, value in (
            (jax.enable_x64, False),
            (jax.numpy_dtype_promotion, "standard"),
            (jax.numpy_rank_promotion, "allow"),
            (jax.default_prng_impl, "threefry2x32"),
            (jax.enable_custom_prng, False),
            (jax.debug_nans, False),  # a NaN is told of by what it is in
            (jax.debug_infs, False),
            (jax.transfer_guard, "allow"),
            (jax.legacy_prng_key, "allow"),
        ):
            stack.enter_context(setting(value))
        yield
