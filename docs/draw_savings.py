"""Draws docs/savings.png: python -m docs.draw_savings"""

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle

from benchmarks import flops
from benchmarks.generate import microlens_lengths
from mmctr_jax.config import default_lengths

LIVE, PADDING, WHOLE = "#2b6cb0", "#e2e8f0", 64
BUCKETS = default_lengths(WHOLE)


def draw_batches(axes, rows: int = 24) -> None:
    """Clicks and padding of the same rows: all padded to 64, and grouped by the length that they need."""
    lengths = microlens_lengths(6 * rows, np.random.default_rng(3))
    batches = [lengths[i::6] for i in range(6)], np.sort(lengths)[::-1].reshape(6, rows)
    for left, groups in zip((0, 80), batches, strict=True):
        for number, group in enumerate(groups):
            width = WHOLE if left == 0 else next(b for b in BUCKETS if b >= group.max())
            top = number * (rows + 5)
            axes.add_patch(Rectangle((left + WHOLE - width, top), width, rows, color=PADDING, lw=0))
            for row, clicks in enumerate(group):
                axes.add_patch(Rectangle((left + WHOLE - clicks, top + row), clicks, 1, color=LIVE, lw=0))
            if left:
                axes.text(left + WHOLE + 3, top + rows / 2, f"{width}", va="center", fontsize=8)
    axes.set(xlim=(-2, 158), ylim=(6 * (rows + 5), -4))
    axes.set_title("Six batches: clicks (blue) and padding", fontsize=10)
    axes.text(WHOLE / 2, 6 * (rows + 5) - 2, "padded to 64", ha="center", va="top", fontsize=9)
    axes.text(80 + WHOLE / 2, 6 * (rows + 5) - 2, "batches of one length", ha="center", va="top", fontsize=9)
    axes.axis("off")


def draw_matrix(axes) -> None:
    """A cross matrix with 9088 rows and columns, and what histories of at most 4 clicks need of it."""
    F, head = flops.width_of_f(64), 384
    start = head + 12 * flops.T
    spans = [(0, head), (start, F - start)]
    axes.add_patch(Rectangle((0, 0), F, F, color=PADDING, lw=0))
    for x, width in spans:
        for y, height in spans:
            axes.add_patch(Rectangle((x, y), width, height, color=LIVE, lw=0))
    for edge in (0, head, *(head + i * flops.T for i in range(1, 18))):
        axes.plot([edge, edge], [0, F], color="white", lw=0.4)
        axes.plot([0, F], [edge, edge], color="white", lw=0.4)
    share = flops.width_of_f(4) ** 2 / F**2
    axes.text(head + 6 * flops.T, F / 2, "columns of the 12 missing\noutputs: zeros meet them", ha="center", fontsize=8)
    axes.set(xlim=(-100, F + 100), ylim=(F + 100, -100), aspect="equal")
    axes.set_title(f"Cross matrix at 4 clicks: {share:.0%} of it is live", fontsize=10)
    axes.set_xlabel("side, target │ last 16 outputs │ pooled", fontsize=8)
    axes.set(xticks=[], yticks=[])


def draw_flops(axes) -> None:
    """Forward MFLOP a sample by length, and their mean over MicroLens-50k's histories."""
    lengths = microlens_lengths(100_000, np.random.default_rng(0))
    needed = np.asarray(BUCKETS)[np.searchsorted(BUCKETS, lengths)]
    bars = {f"{b}": flops.forward(b) for b in BUCKETS}
    shares = {b: (needed == b).mean() for b in BUCKETS}
    bars["mean"] = {name: sum(shares[b] * flops.forward(b)[name] for b in BUCKETS) for name in flops.forward(4)}
    below = np.zeros(len(bars))
    for name, color in (("Transformer", "#ed8936"), ("cross", LIVE), ("deep", "#718096")):
        values = np.array([counted[name] / 1e6 for counted in bars.values()])
        axes.bar(list(bars), values, bottom=below, color=color, label=name)
        below += values
    axes.bar_label(axes.containers[-1], [f"{value:.0f}" for value in below], fontsize=8)
    axes.set_title("MFLOP a sample, forward, by batch length", fontsize=10)
    axes.legend(fontsize=8, frameon=False)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained", width_ratios=[1.1, 1, 1.1])
    draw_batches(axes[0])
    draw_matrix(axes[1])
    draw_flops(axes[2])
    figure.savefig(Path(__file__).with_name("savings.png"), dpi=110)


if __name__ == "__main__":
    main()
