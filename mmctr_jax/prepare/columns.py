"""Which columns of a log and of an item file become what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mmctr_jax.prepare.text_files import TextFormat, format_with

# Columns that prepared files, or the log on its way to them, have of their own.
TAKEN = ("user_id", "item_id", "item_seq", "ID", "label", "weight", "item_tags", "user", "item", "time", "click")
TAKEN += ("item_title", "tags", "text", "earlier_rows", "earlier_click_rate", "item_click_rate")
_BEGINNINGS, _LONGEST = ("click_", "item_seq_", "item_emb_"), 100
_OPTIONS = {
    "numbers": "numeric",
    "hashed": "hash",
    "clicks": "click-features",
    "item_numbers": "item-numeric",
    "item_lists": "tags",
    "item_texts": "text",
}  # fields of `Columns` and `Source` → their options, where these are called otherwise


def option(field: str) -> str:
    """The option, without its dashes, that a field of `Columns` or `Source` comes from."""
    return _OPTIONS.get(field, field.replace("_", "-"))


def name_problem(name: str) -> str | None:
    """Why a feature in prepared files cannot have this name; None: it can."""
    if not 0 < len(name) <= _LONGEST or not name.isprintable() or "/" in name:
        return f"a feature's name is printable, without '/', and at most {_LONGEST} characters long"
    if name == "*" or (name.startswith("^") and name.endswith("$")):
        return "Polars takes such a name for a pattern"
    if name == "params":
        return "Flax has all parameters under that name"
    if name in TAKEN or name.startswith(_BEGINNINGS) or name.endswith("_level"):
        return "prepared files have a column of that name of their own"
    return None


def item_format(items: Path, columns: Columns) -> TextFormat:
    """How the item file is written: as the log, unless only otherwise it has the column of item ids."""
    return format_with(items, columns.text_format, columns.item_key)


@dataclass(frozen=True)
class Columns:
    """Which columns of the log and of the item file hold what."""

    user: str = "user"
    item: str = "item"
    time: str = "time"
    label: str | None = None  # 1 clicked, 0 shown and not clicked; None: every row is a click
    weight: str | None = None  # how much a row counts in the training loss
    side: tuple[str, ...] = ()  # categorical features of the interaction, such as the device
    numbers: tuple[str, ...] = ()  # numeric features of the interaction, such as the price
    lists: tuple[str, ...] = ()  # features with several values each, such as interests
    hashed: tuple[tuple[str, str], ...] = ()  # columns, and how many ids their values are hashed to
    click_features: tuple[str, ...] = ()  # of each click of a history, such as the action; gap: time to the sample
    histories: tuple[tuple[str, str], ...] = ()  # columns and values: interactions that are histories of their own
    labels: tuple[tuple[str, str], ...] = ()  # columns of other labels, and what they count in the loss
    item_key: str = "item"  # in the item file
    tags: str | None = None  # lists, or text with tag_separator between tags
    tag_separator: str | None = None  # None: "|"
    text: tuple[str, ...] = ()  # columns that are joined to the item's text
    item_side: tuple[str, ...] = ()  # categorical features of the items, such as the brand
    item_numbers: tuple[str, ...] = ()  # numeric features of the items, such as the price
    numeric: tuple[str, ...] = ()  # numbers that --levels may name
    ignore: tuple[str, ...] = ("*",)  # columns that no kind is proposed for; *: all
    text_format: TextFormat = TextFormat()  # of files that are not Parquet

    @property
    def named(self) -> list[tuple[str, str]]:
        """Option and column of each feature of the log."""
        found = [("side", name) for name in self.side] + [("numeric", name) for name in self.numbers]
        return (
            found
            + [("lists", name) for name in self.lists]
            + [("hash", name) for name, _ in self.hashed]
            + [("labels", name) for name, _ in self.labels]
        )

    @property
    def of_log(self) -> set[str]:
        """All columns of the log that have a use."""
        used = {self.user, self.item, self.time, self.label, self.weight, *self.click_features}
        return used | {name for _, name in self.named} | {name for name, _ in self.histories}

    @property
    def of_items(self) -> set[str]:
        """All columns of the item file that have a use."""
        return {self.item_key, self.tags, *self.text, *self.item_side, *self.item_numbers}
