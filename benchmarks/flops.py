"""What the published model costs, counted: FLOP (a multiplication and an addition are two) and bytes."""

N, K, D, T, E = 64, 16, 256, 512, 64
FEEDFORWARD, LAYERS, CROSS, DEEP, HEAD = 256, 2, 3, (1024, 512, 256), (64, 32)


def width_of_f(length: int) -> int:
    """Columns of f that can be other than zero where no history is longer."""
    return 2 * E + D + (min(length, K) + 1) * T


def forward(length: int) -> dict[str, float]:
    """FLOP per sample, by block, of matrix products alone; histories padded to `length`."""
    F = width_of_f(length)
    layer = 2 * length * (3 * T * T + T * T + 2 * T * FEEDFORWARD) + 4 * length**2 * T
    once = 2 * (length - 1) * D * 3 * T  # the target's half, computed at one position instead of all
    widths = (F, *DEEP)
    head = (F + DEEP[-1], *HEAD, 1)
    return {
        "embedding": 2 * (length + 1) * 128 * 128,
        "Transformer": LAYERS * layer - once + 2 * T * T,
        "cross": CROSS * 2 * F * F,
        "deep": sum(2 * a * b for a, b in zip(widths, widths[1:], strict=False)),
        "head": sum(2 * a * b for a, b in zip(head, head[1:], strict=False)),
    }


def step(length: int, batch: int) -> float:
    """FLOP of a training step: the backward pass costs two forward ones."""
    return 3 * batch * sum(forward(length).values())


def adam_bytes(parameters: int, live: int) -> int:
    """Read and written: parameters and two moments, and the gradients of those that are live, read."""
    return 24 * parameters + 4 * live
