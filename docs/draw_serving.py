"""Draws docs/serving.png: python docs/draw_serving.py"""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

ITEM_TEXT = "every item's id embedding,\ntags and frozen vectors\nthrough their maps,\nin one table of V rows"
CANDIDATE_TEXT = (
    "attention to the n keys,\ndot products and cosines,\nthe item's side of the affinity,\nMLP → logit → probability"
)
ITEM, USER, CANDIDATE = "#e3f2e1", "#e8eef7", "#fdf1dc"


def main() -> None:
    figure = Figure(figsize=(11, 4.4))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 110), ylim=(0, 44))
    axes.axis("off")

    def box(x, y, w, h, title, text, color):
        axes.add_patch(FancyBboxPatch((x, y), w, h, "round,pad=0,rounding_size=1", fc=color, ec="0.35"))
        axes.text(x + w / 2, y + h - 2.2, title, ha="center", va="center", fontsize=10, weight="bold")
        axes.text(x + w / 2, y + (h - 3.4) / 2, text, ha="center", va="center", fontsize=8.8, linespacing=1.4)

    def arrow(start, end):
        axes.add_patch(
            FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color="0.25", shrinkA=0, shrinkB=0)
        )

    for x, title in ((3, "once an export"), (34, "once a request"), (73, "each candidate")):
        axes.text(x, 41, title, fontsize=11, style="italic", color="0.3")
    box(
        3,
        12,
        22,
        22,
        "item vectors",
        "every item's id embedding,\ntags and frozen vectors\nthrough their maps,\nin one table of V rows",
        ITEM,
    )
    box(
        34,
        24,
        30,
        14,
        "history (n clicks)",
        "mean, last and largest click,\nkeys, squared norms,\nthe user's side of the affinity",
        USER,
    )
    box(34, 4, 30, 14, "candidates (M ids)", "M rows of the table,\nM rows of side embeddings", USER)
    box(73, 7, 33, 31, "M rows", CANDIDATE_TEXT, CANDIDATE)
    arrow((25, 27), (34, 31))
    arrow((25, 19), (34, 11))
    arrow((64, 31), (73, 27))
    arrow((64, 11), (73, 17))
    figure.savefig(Path(__file__).with_name("serving.png"), dpi=110)


if __name__ == "__main__":
    main()
