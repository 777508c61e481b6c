"""Parameters that only the slow tests take: forms of what the others show."""

import pytest


def slow(*values):
    """A set of parameters for `pytest.mark.parametrize` that `make test` leaves to `make test-slow`."""
    return pytest.param(*values, marks=pytest.mark.slow)


def few(cases, quick):
    """All of a dictionary's values; those not named in `quick` are slow."""
    return [value if name in quick else slow(value) for name, value in cases.items()]
