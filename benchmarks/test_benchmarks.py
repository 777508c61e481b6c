"""Benchmarks are run by hand: here, that their parts still run, and that what they count is what is computed."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from benchmarks import gpu, limit, savings, serve
from benchmarks import input as input_benchmark
from benchmarks.generate import made_up_batch, made_up_items
from benchmarks.published import published_config
from mmctr_jax.export.folder import write
from mmctr_jax.serve import Scorer


@pytest.mark.slow
def test_counted_flop_are_those_of_the_compiled_blocks():
    model = SimpleNamespace(config=published_config(), items=jax.device_put(made_up_items()))
    for block in limit.blocks(model, jax.device_put(made_up_batch(2, 1)), 1):
        compiled = block.action.func.lower(*block.action.args).compile().cost_analysis()["flops"]
        assert block.flop == pytest.approx(compiled, rel=0.05), block.name


def test_a_saving_of_a_single_part_is_measured():
    rows = list(savings.target_once(None, 2))
    assert rows and all(np.isfinite([without, with_it]).all() and with_it > 0 for _, _, without, with_it in rows)


@pytest.mark.slow
def test_a_made_up_model_is_exported_and_scores(tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra: serve)")
    predictor = serve.model(published_config(*serve.MATCHING), num_items=500)
    write(tmp_path, predictor, "onnx", "float32")
    scores = Scorer(tmp_path).score(**serve.request(predictor.config, 16, 7))
    assert scores.shape == (7,) and np.isfinite(scores).all() and len(set(scores)) > 1


class _Clock:
    """Time that passes by sleeping alone."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.mark.parametrize(("loading", "waits"), [(0.25, [0, 0, 0, 0]), (1.0, [0, 0, 0, 0]), (1.5, [0, 0.5, 0.5, 0.5])])
def test_a_device_waits_for_what_loading_takes_longer_than_a_step(loading, waits, monkeypatch):
    clock = _Clock()
    monkeypatch.setattr(input_benchmark, "time", clock)

    def batches():
        while True:
            clock.sleep(loading)
            yield 0

    assert input_benchmark.waiting(batches(), step=1.0, steps=4) == waits


def test_what_is_measured_on_a_gpu_is_written_down_and_what_fails_or_takes_long_too(tmp_path):
    parts = (
        gpu.Part("Fine", "-c 'print(6 * 7)'", 60),
        gpu.Part("Broken", "-c 'raise SystemExit(3)'", 60),
        gpu.Part("Slow", "-c 'import time; time.sleep(60)'", 0.1),
    )
    gpu.run(parts, tmp_path / "GPU.md", 60)
    _, fine, broken, slow = (tmp_path / "GPU.md").read_text().split("\n## ")
    assert "\n42\n" in fine and "exit code 3" in broken and "Stopped" in slow


def test_what_comes_after_the_end_is_not_begun(tmp_path):
    gpu.run([gpu.Part("Late", "-c 'print(6 * 7)'", 60)], tmp_path / "GPU.md", -1)
    assert "42\n" not in (tmp_path / "GPU.md").read_text().split("```")[-1]
