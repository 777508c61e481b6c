"""What the program for a GPU must not lose, at reduced sizes; compiled from the card's description, no card needed."""

import json

import pytest

from benchmarks import flops, gpu_program
from benchmarks.cards import CARDS
from benchmarks.harness import in_new_process
from benchmarks.program_text import Program
from benchmarks.published import published_config
from benchmarks.scaling import SMALL

# As a user's process has it, and not as the tests' own.
ENVIRONMENT = {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
ENVIRONMENT |= {"JAX_ENABLE_COMPILATION_CACHE": "0"}
FEW_LAYERS = "model.transformer.layers=1", "model.dcn.cross_layers=1"  # compiled sooner
LENGTH = 2  # of the 4 clicks that reach the cross network: parameters are narrowed


def report(card: str) -> None:
    """Prints what the tests look at."""
    gpu_program.find_tools()
    config = published_config("train.batch_size=64", *SMALL, *FEW_LAYERS)
    compiled = gpu_program.compile_for(CARDS[card], 1, config, LENGTH)
    program = Program(compiled.text)
    found = {
        "launches": gpu_program.launches(program),
        "update": gpu_program.update_bytes(program),
        "floor": flops.adam_bytes(compiled.parameters, compiled.live),
    }
    print(json.dumps(found))


@pytest.fixture(scope="module")
def found():
    try:
        gpu_program.find_tools()
    except SystemExit as error:
        pytest.skip(str(error))
    return json.loads(in_new_process(report, "H100", **ENVIRONMENT))


def test_the_optimiser_is_one_pass_over_parameters_and_moments(found):
    """Narrowed gradients included; what counts is the traffic of a card's memory."""
    assert found["floor"] <= found["update"] <= 1.05 * found["floor"]


def test_a_step_is_few_kernels(found):
    """150 at these sizes. When each array had an update and norms of its own, it was 246."""
    assert found["launches"] <= 155
