"""Draws docs/architecture.png: python docs/draw_architecture.py"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

INPUT, LEARNED, OUTPUT = "#e8eef7", "#fdf1dc", "#e3f2e1"


def main() -> None:
    figure, axes = plt.subplots(figsize=(12.5, 6.2))
    axes.set(xlim=(0, 125), ylim=(0, 62))
    axes.axis("off")

    def box(x, y, w, h, title, text="", color=LEARNED):
        axes.add_patch(FancyBboxPatch((x, y), w, h, "round,pad=0,rounding_size=1", fc=color, ec="0.35"))
        axes.text(
            x + w / 2, y + h / 2 + (1.6 if text else 0), title, ha="center", va="center", fontsize=10, weight="bold"
        )
        if text:
            axes.text(x + w / 2, y + h / 2 - 1.8, text, ha="center", va="center", fontsize=8.2, linespacing=1.35)
        return x, y, w, h

    def arrow(start, end, label="", dy=1.2):
        axes.add_patch(
            FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color="0.25", shrinkA=0, shrinkB=0)
        )
        if label:
            axes.text((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + dy, label, ha="center", fontsize=8)

    box(1, 47, 20, 11, "history", "clicked item ids,\noldest first, N ≤ 64", INPUT)
    box(1, 28, 20, 11, "target item", "one item id", INPUT)
    box(1, 9, 20, 11, "side features", "e.g. popularity level", INPUT)

    box(28, 28, 22, 30, "item embedding", "", LEARNED)
    axes.texts[-1].set_y(54.5)
    axes.text(
        39,
        42,
        "item id → 64\n‖\nmean of tags → 64\n‖\nfrozen multimodal\nvector → Linear → 128\n\n"
        "D = 256, one set of tables\nfor history and target",
        ha="center",
        va="center",
        fontsize=8.6,
        linespacing=1.3,
    )
    box(28, 9, 22, 11, "side embedding", "64 each")

    box(57, 45, 24, 13, "Transformer", "on [click ‖ target], T = 512\n2 post-norm layers")
    box(57, 26.5, 24, 13, "sequence S_o", "last K = 16 outputs\n‖ max-pool → Linear")
    box(57, 8, 24, 12, "features f", "[side ‖ target ‖ S_o]\nF = 9088")

    box(88, 36, 21, 13, "cross network", "3 × full F × F\nc₀ ⊙ (W c + b) + c")
    box(88, 13, 21, 13, "deep network", "1024, 512, 256\nReLU, dropout")
    box(113, 22, 11, 18, "MLP", "64, 32 → 1\nsigmoid\n= click\nprobability", OUTPUT)
    axes.texts[-2].set_y(36.5)
    axes.texts[-1].set_y(29)

    for y in (52.5, 33.5):
        arrow((21, y), (28, y))
    arrow((21, 14.5), (28, 14.5))
    arrow((50, 52.5), (57, 52.5), "Eq. 4")
    axes.plot([50, 53.5, 53.5], [33.5, 33.5, 49], color="0.25", lw=1.2)
    arrow((53.5, 49), (57, 49))
    axes.plot([53.5, 53.5], [33.5, 17], color="0.25", lw=1.2)
    arrow((53.5, 17), (57, 17))
    arrow((50, 12), (57, 12))
    arrow((69, 45), (69, 39.5))
    axes.text(70, 41.6, "Eq. 5–6", fontsize=8)
    arrow((69, 26.5), (69, 20))
    axes.plot([81, 84.5, 84.5], [14, 14, 42.5], color="0.25", lw=1.2)
    arrow((84.5, 42.5), (88, 42.5))
    arrow((84.5, 19.5), (88, 19.5))
    axes.text(84, 10.2, "Eq. 7–8", fontsize=8, ha="center")
    axes.plot([109, 111, 111], [42.5, 42.5, 33], color="0.25", lw=1.2)
    arrow((111, 33), (113, 33))
    axes.plot([109, 111, 111], [19.5, 19.5, 29], color="0.25", lw=1.2)
    arrow((111, 29), (113, 29))
    axes.text(118.5, 19.6, "Eq. 9–10", fontsize=8, ha="center")
    axes.text(1, 2.2, "Sizes are the published ones; all are settings.  ‖ joins vectors.", fontsize=8.5, color="0.3")
    figure.savefig(Path(__file__).with_name("architecture.png"), dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
