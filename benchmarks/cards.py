"""GPUs as their makers describe them: enough for XLA to compile for one that is not there, and for a model of its time.

The compiler reads a `GpuTargetConfigProto`; openxla/xla keeps such descriptions of many cards, whose numbers these are.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """A GPU; rates are peaks."""

    name: str
    """As the card calls itself."""
    capability: int
    """Major compute capability."""
    cores: int
    """Streaming multiprocessors."""
    fpus: int
    """Float units of each."""
    clock: float
    """GHz."""
    shared_memory: int
    """Bytes a multiprocessor has."""
    cache: int
    """Bytes of its second level."""
    memory: int
    """Bytes."""
    bandwidth: float
    """Bytes/s to and from memory."""
    link: float
    """Bytes/s to the other cards of a host, each way."""
    tensor_flop: float
    """FLOP/s of bfloat16 products; those of TF32 have half of it."""

    def flop_rate(self, precision: str) -> float:
        """FLOP/s of products in `float32`, `tf32` or `bfloat16`."""
        ordinary = 2 * self.cores * self.fpus * self.clock * 1e9
        return {"float32": ordinary, "tf32": self.tensor_flop / 2, "bfloat16": self.tensor_flop}[precision]

    @property
    def target(self) -> str:
        """The description that XLA reads."""
        extension = "ACCELERATED_FEATURES" if self.capability >= 9 else "NONE"
        return f"""
            gpu_device_info {{
              threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
              thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
              block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
              registers_per_core_limit: 65536 registers_per_block_limit: 65536
              shared_memory_per_block: 49152 shared_memory_per_core: {self.shared_memory}
              shared_memory_per_block_optin: {self.shared_memory - 1024}
              core_count: {self.cores} fpus_per_core: {self.fpus} clock_rate_ghz: {self.clock}
              l2_cache_size: {self.cache} device_memory_size: {self.memory} memory_bandwidth: {self.bandwidth:.0f}
              cuda_compute_capability {{ major: {self.capability} feature_extension: {extension} }}
            }}
            platform_name: "CUDA"
            dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
            device_description_str: "{self.name}"
        """


CARDS = {
    "A100": Card(
        *("NVIDIA A100-SXM4-80GB", 8, 108, 64, 1.41, 167_936, 41_943_040, 85_100_068_864),
        *(2.039e12, 300e9, 312e12),
    ),
    "H100": Card(
        *("NVIDIA H100 80GB HBM3", 9, 132, 128, 1.98, 233_472, 52_428_800, 84_942_979_072),
        *(3.352e12, 450e9, 989e12),
    ),
    "H200": Card(
        *("NVIDIA H200 141GB HBM3e", 9, 132, 128, 1.98, 233_472, 52_428_800, 151_397_597_184),
        *(4.8e12, 450e9, 989e12),
    ),
    "B200": Card(
        *("NVIDIA B200", 10, 148, 128, 1.965, 233_472, 132_644_864, 191_514_411_008),
        *(7.672e12, 900e9, 2250e12),
    ),
}
