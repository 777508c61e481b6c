# ruff: noqa: E501 (the text is as XLA writes it)
"""A program's text is read as it is meant: a small one, written by hand, whose numbers are plain to see."""

import pytest

from benchmarks.program_text import Program

TEXT = """
HloModule jit_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%cut_computation (w: f32[100,10]) -> bf16[20,10] {
  %w = f32[100,10]{1,0} parameter(0)
  %cut = f32[20,10]{1,0} slice(%w), slice={[80:100], [0:10]}
  ROOT %half = bf16[20,10]{1,0} convert(%cut), metadata={op_name="jit(step)/convert"}
}

%product_computation (a: f32[8,20], b: f32[20,10]) -> f32[8,10] {
  %a = f32[8,20]{1,0} parameter(0)
  %b = f32[20,10]{1,0} parameter(1)
  ROOT %dot.1 = f32[8,10]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}, operand_precision={highest,highest}
}

%update_computation (m: f32[100,10], g: f32[20,10], p: f32[100,10]) -> (f32[100,10], f32[100,10]) {
  %m = f32[100,10]{1,0} parameter(0)
  %g = f32[20,10]{1,0} parameter(1)
  %zero = f32[] constant(0)
  %wide = f32[100,10]{1,0} pad(%g, %zero), padding=80_0x0_0
  %new_m = f32[100,10]{1,0} add(%m, %wide), metadata={op_name="jit(step)/optimizer/add"}
  %p = f32[100,10]{1,0} parameter(2)
  %new_p = f32[100,10]{1,0} subtract(%p, %new_m)
  ROOT %both = (f32[100,10]{1,0}, f32[100,10]{1,0}) tuple(%new_m, %new_p)
}

%rows_computation (t: f32[1000,10], ids: s32[4,1], rows: f32[4,10]) -> f32[1000,10] {
  %t = f32[1000,10]{1,0} parameter(0)
  %ids = s32[4,1]{1,0} parameter(1)
  %rows = f32[4,10]{1,0} parameter(2)
  ROOT %scattered = f32[1000,10]{1,0} scatter(%t, %ids, %rows), update_window_dims={1}, to_apply=%add
}

%block_computation (x.1: f32[1000,10], y.1: f32[5,10]) -> f32[1000,10] {
  %x.1 = f32[1000,10]{1,0} parameter(0)
  %y.1 = f32[5,10]{1,0} parameter(1)
  %at = s32[] constant(0)
  ROOT %put = f32[1000,10]{1,0} dynamic-update-slice(%x.1, %y.1, %at, %at)
}

ENTRY %main (params: f32[100,10], moments: f32[100,10], x: f32[8,20], ids: s32[4,1], table: f32[1000,10]) -> f32[100,10] {
  %params = f32[100,10]{1,0} parameter(0), metadata={op_name="state.params[\\'w\\']"}
  %moments = f32[100,10]{1,0} parameter(1), metadata={op_name="state.opt_state.mu[\\'w\\']"}
  %x = f32[8,20]{1,0} parameter(2), metadata={op_name="batch"}
  %ids = s32[4,1]{1,0} parameter(3), metadata={op_name="batch"}
  %table = f32[1000,10]{1,0} parameter(4), metadata={op_name="state.opt_state.mu[\\'t\\']"}
  %cut = bf16[20,10]{1,0} fusion(%params), kind=kLoop, calls=%cut_computation
  %product = f32[8,10]{1,0} fusion(%x, %cut), kind=kCustom, calls=%product_computation
  %blas = (bf16[8,8]{1,0}, s8[4096]{0}) custom-call(%x, %x), custom_call_target="__cublas$lt$matmul", backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["1"]},"precision_config":{"operand_precision":["DEFAULT","DEFAULT"]}}}
  %all-reduce-start = f32[20,10]{1,0} all-reduce-start(%product), to_apply=%add
  %rows = f32[1000,10]{1,0} fusion(%table, %ids, %product), kind=kInput, calls=%rows_computation
  %all-reduce-done = f32[20,10]{1,0} all-reduce-done(%all-reduce-start)
  %block = f32[1000,10]{1,0} fusion(%rows, %product), kind=kLoop, calls=%block_computation
  %waited = f32[20,10]{1,0} all-reduce(%product), to_apply=%add
  %update = (f32[100,10]{1,0}, f32[100,10]{1,0}) fusion(%moments, %all-reduce-done, %params), kind=kLoop, calls=%update_computation
  ROOT %result = f32[100,10]{1,0} get-tuple-element(%update), index=0
}
"""


@pytest.fixture(scope="module")
def program():
    return Program(TEXT)


@pytest.fixture(scope="module")
def kernels(program):
    return {kernel.name: kernel for kernel in program.kernels}


def test_kernels_are_what_is_launched(program):
    assert [kernel.name for kernel in program.kernels] == ["cut", "product", "blas", "rows", "block", "update"]


def test_of_what_is_cut_the_cut_counts(kernels):
    assert (kernels["cut"].read, kernels["cut"].written) == (20 * 10 * 4, 20 * 10 * 2)


def test_of_what_is_updated_in_place_the_update_counts(kernels):
    assert (kernels["rows"].read, kernels["rows"].written) == (4 * 4 + 4 * 10 * 4, 4 * 10 * 4)
    assert (kernels["block"].read, kernels["block"].written) == (5 * 10 * 4, 5 * 10 * 4)


def test_a_small_gradient_that_a_pass_widens_counts_as_it_is(kernels):
    assert (kernels["update"].read, kernels["update"].written) == (2 * 4000 + 800, 2 * 4000)


def test_products_by_precision(kernels):
    assert [(p.flop, p.precision) for p in kernels["product"].products] == [(2 * 8 * 20 * 10, "float32")]
    assert [(p.flop, p.precision) for p in kernels["blas"].products] == [(2 * 8 * 20 * 8, "tf32")]
    assert kernels["blas"].written == 8 * 8 * 2  # without cuBLAS' own room


def test_kernels_that_only_convert_weights_are_found(kernels):
    assert [name for name, kernel in kernels.items() if kernel.only_moves_weights] == ["cut"]


def test_kernels_know_the_scope_that_they_come_from(kernels):
    assert [name for name, kernel in kernels.items() if kernel.within("optimizer")] == ["update"]


def test_a_collective_runs_beside_what_comes_before_its_end(program):
    beside = [[kernel.name for kernel in exchange.beside] for exchange in program.exchanges]
    assert [(e.kind, e.nbytes) for e in program.exchanges] == [("all-reduce", 320), ("all-reduce", 320)]
    assert beside == [["rows"], []]


def test_a_loops_body_counts_as_often_as_it_runs():
    body = "%body (z: f32[]) -> f32[] {\n  %z = f32[] parameter(0)\n  ROOT %twice = f32[] add(%z, %z)\n}\n\nENTRY"
    loop = '  %loop = f32[] while(%x), condition=%add, body=%body, backend_config={"known_trip_count":{"n":"5"}}\n  %update ='
    program = Program(TEXT.replace("ENTRY", body).replace("  %update =", loop))
    assert {kernel.name: kernel.times for kernel in program.kernels}["twice"] == 5
