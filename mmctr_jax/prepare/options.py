"""The choices of a preparation, which are the same for every kind of source."""

from __future__ import annotations

from dataclasses import dataclass

from mmctr_jax.errors import InputError

_TAKEN = ("item_id", "item", "item_title", "item_tags", "tags", "text", "item_click_rate")


@dataclass(frozen=True)
class Options:
    """The choices of a preparation; each is an option of `mmctr prepare` and recorded in the manifest."""

    split: str  # user, time or last; see split.split_log
    valid: float = 0.1  # share of users (user, last) or of clicks (time)
    test: float = 0.1
    history: int = 64  # earlier clicks that a sample keeps, the most recent ones
    min_history: int | None = None  # earlier clicks that a sample needs; None: see least_history
    clicks: str | None = None  # which are samples: "all", or "new", a user's first on each item; None: see only_new
    per_user: int | None = None  # samples kept of each user and split, the most recent ones; None: all
    negatives: int | None = 3  # sampled non-clicks per click; None: the log's own
    alpha: float = 0.75  # negatives are drawn by popularity ** alpha; 0: uniformly among items clicked in training
    min_item_clicks: int = 0  # items with fewer clicks in training are dropped everywhere
    min_value_count: int = 1  # tags on fewer training items, and side values in fewer training rows, become unknown
    levels: tuple[str, ...] = ()  # numeric item columns, or "clicks", that become a level of the target
    bins: int = 10  # levels per column, from 1; 0 is unknown
    seed: int = 20242025  # of the choice of users and negatives
    since: float | None = None  # samples are interactions from this time on, of histories that go farther back

    @property
    def only_new(self) -> bool:
        """Whether a user's later clicks on the same item are no samples; without a choice, where negatives are sampled.

        Sampled negatives are never items of the user's history, so a target from there would be known as a click by
        that alone.
        """
        return self.clicks == "new" if self.clicks else self.negatives is not None

    @property
    def least_history(self) -> int:
        """How many earlier clicks a sample needs; without a choice, one where negatives are sampled.

        Where the log says what was shown, users without a click were shown something, too, and will be.
        """
        if self.min_history is None:
            return 0 if self.negatives is None else 1
        return self.min_history

    def __post_init__(self):
        """Raises: InputError for a value that makes no sense."""
        shares = self.valid, self.test
        if not all(0 < share <= 1 for share in shares) or (self.split != "last" and sum(shares) >= 1):
            raise InputError(
                f"--valid {self.valid:g} and --test {self.test:g}: give shares above 0 that leave some for training."
            )
        bounds = {"history": (1, 2**31 - 1), "min_history": (0, 2**31 - 1), "per_user": (1, 2**31 - 1)}
        bounds |= {"negatives": (1, 1000), "min_item_clicks": (0, 2**31 - 1), "min_value_count": (1, 2**31 - 1)}
        bounds |= {"bins": (2, 256), "seed": (0, 2**31 - 1), "alpha": (0, 10)}
        for name, (least, most) in bounds.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise InputError(f"--{name.replace('_', '-')} is {value}; it must be from {least} to {most}.")
        for name in self.levels:
            if name in _TAKEN or name.endswith("_level") or self.levels.count(name) > 1:
                raise InputError(f"--levels {name}: name each column once, and none that item_feature has of its own.")
