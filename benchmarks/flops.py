"""What the published model costs, counted: FLOP (a multiplication and an addition are two) and bytes."""

from mmctr_jax.models.attention import POSITIONS_A_COLUMN

N, K, D, T, E = 64, 16, 256, 512, 64
FEEDFORWARD, LAYERS, CROSS, DEEP, HEAD = 256, 2, 3, (1024, 512, 256), (64, 32)


def width_of_f(length: int) -> int:
    """Columns of f that can be other than zero where no history is longer."""
    return 2 * E + D + (min(length, K) + 1) * T


def attention(length: int, batch: int) -> tuple[float, float]:
    """FLOP per sample of attention in the first layer, where half of each position is the target, and in another."""
    if batch * length < POSITIONS_A_COLUMN * T:
        layer = 2 * length * (3 * T * T + T * T) + 4 * length**2 * T
        return layer - 2 * (length - 1) * D * 3 * T, layer  # the target's half at one position instead of all
    first = 2 * length * (D * D + D * T + D) + 4 * length**2 * D + 2 * D * (D + T) + 2 * T * T * (D + T) / batch
    return first, 2 * length * (2 * T * T + T) + 4 * length**2 * T + 4 * T**3 / batch


def forward(length: int, batch: int = 1) -> dict[str, float]:
    """FLOP per sample, by block, of matrix products alone; a batch of histories padded to `length`."""
    F = width_of_f(length)
    first, other = attention(length, batch)
    widths = (F, *DEEP)
    head = (F + DEEP[-1], *HEAD, 1)
    return {
        "embedding": 2 * (length + 1) * 128 * 128,
        "Transformer": first + (LAYERS - 1) * other + LAYERS * 4 * length * T * FEEDFORWARD + 2 * T * T,
        "cross": CROSS * 2 * F * F,
        "deep": sum(2 * a * b for a, b in zip(widths, widths[1:], strict=False)),
        "head": sum(2 * a * b for a, b in zip(head, head[1:], strict=False)),
    }


def step(length: int, batch: int) -> float:
    """FLOP of a training step: the backward pass costs two forward ones."""
    return 3 * batch * sum(forward(length, batch).values())


def adam_bytes(parameters: int, live: int) -> int:
    """Read and written: parameters and two moments, and the gradients of those that are live, read."""
    return 24 * parameters + 4 * live
