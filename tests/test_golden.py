"""The same model as the released one: equal to numbers that were made by running it (tests/golden/).

float32: logits within 2e-5, losses within 5e-6, gradients within 1e-4 relative by norm. float64: logits, losses and
gradients within 1e-10, all parameters after five Adam steps within 1e-8. Parameters after steps are judged in float64
only: the true gradient of some attention biases is zero, and Adam turns rounding noise into steps.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import AS_FOR_USERS
from golden_files import CASES, Golden

from benchmarks import clipped_adam as optimizer


@pytest.fixture(params=CASES)
def f32(request):
    return Golden(request.param, "f32")


@pytest.fixture(params=CASES)
def f64(request):
    with jax.enable_x64(True):
        yield Golden(request.param, "f64")


def largest(a, b):
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: np.abs(x - y).max(), a, b)))


def check(what, difference, bound):
    print(f"{what}: {difference:.1e} (bound {bound:.0e})")  # shown by pytest -s
    assert difference <= bound, what


def check_logits(golden, bound):
    params = golden.params()
    logits = [golden.logits(params, golden.batch(i)) for i in range(5)]
    assert {x.dtype for x in logits} == {jnp.dtype(golden.dtype)}
    check("logits", max(np.abs(x - golden.file[f"eval/logit{i}"]).max() for i, x in enumerate(logits)), bound)


def test_float32_logits_losses_gradients(f32):
    check_logits(f32, 2e-5)
    loss, grads = f32.value_and_grad(f32.params(), f32.batch(0))
    check("loss", abs(float(loss) - float(f32.file["loss0"])), 5e-6)
    expected = f32.params("grad")
    relative = jax.tree.map(lambda g, e: np.linalg.norm(g - e) / np.linalg.norm(e), grads, expected)
    check("gradients, relative", max(jax.tree.leaves(relative)), 1e-4)


def test_float64_logits_losses_gradients_and_adam_steps(f64):
    check_logits(f64, 1e-10)
    loss, grads = f64.value_and_grad(f64.params(), f64.batch(0))
    check("loss", abs(float(loss) - float(f64.file["loss0"])), 1e-10)
    check("gradients", largest(grads, f64.params("grad")), 1e-10)
    rate = f64.settings["lr"] + jnp.zeros(())
    update = jax.jit(
        lambda grads, state, params, clip_norm: optimizer.update(grads, state, params, rate, clip_norm),
        compiler_options=AS_FOR_USERS,
    )
    for clip_norm, prefix in ((10.0, ""), (0.05, "clip005_")):
        check_adam_steps(f64, update, clip_norm, prefix)


def check_adam_steps(golden, update, clip_norm, prefix):
    params = golden.params()
    opt_state = jax.jit(optimizer.init)(params)
    losses, norms = [], []
    for i in range(5):
        loss, grads = golden.value_and_grad(params, golden.batch(i))
        params, opt_state, norm = update(grads, opt_state, params, clip_norm)
        losses.append(float(loss)), norms.append(float(norm))
    check(f"losses, clipped at {clip_norm}", np.abs(losses - golden.file[f"{prefix}losses5"]).max(), 1e-10)
    check(f"gradient norms, clipped at {clip_norm}", np.abs(norms - golden.file[f"{prefix}gradnorms5"]).max(), 1e-8)
    probabilities = jax.nn.sigmoid(golden.logits(params, golden.batch(0)))
    after = golden.file[f"{prefix}after5_prob0"]
    check(f"probabilities after 5 steps, clipped at {clip_norm}", np.abs(probabilities - after).max(), 1e-8)
    if f"{prefix}after5/mlp.mlp.0.weight" in golden.file.files:
        check("parameters after 5 steps", largest(params, golden.params(f"{prefix}after5")), 1e-8)
