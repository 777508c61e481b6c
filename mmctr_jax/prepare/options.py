"""The choices of a preparation, the same for every source."""

from __future__ import annotations

from dataclasses import dataclass

from mmctr_jax.errors import InputError


@dataclass(frozen=True)
class Options:
    """Every field is an option of `python -m mmctr_jax.prepare`, recorded in the manifest."""

    split: str  # user, time or last; see split.split_log
    valid: float = 0.1  # share of users (user, last) or of clicks (time)
    test: float = 0.1
    history: int = 64  # the most recent clicks that a sample keeps
    min_history: int = 1  # a sample has at least so many earlier clicks
    clicks: str | None = (
        None  # samples are "all" clicks or only "new" ones, of items that the user had not clicked before
    )
    per_user: int | None = None  # only the most recent so many samples of each user and split; None: all
    negatives: int | None = 3  # sampled non-clicks a click; None: the log's own
    alpha: float = 0.75  # negatives are drawn by popularity ** alpha; 0: uniformly among items clicked in training
    min_item_clicks: int = 0  # items with fewer clicks in training are dropped everywhere
    min_value_count: int = 1  # tags on fewer training items, and side values in fewer training rows, become unknown
    levels: tuple[str, ...] = ()  # numeric item columns, or "clicks", that become a level of the target
    bins: int = 10  # levels a column has; 0 is unknown
    seed: int = 20242025  # of the choice of users and negatives

    @property
    def only_new(self) -> bool:
        """Unless told otherwise, where negatives are sampled: as these are never clicked, a target from the user's own
        history would be known for a click by that alone."""
        return self.clicks == "new" if self.clicks else self.negatives is not None

    def __post_init__(self):
        shares = self.valid, self.test
        if not all(0 < share <= 1 for share in shares) or (self.split != "last" and sum(shares) >= 1):
            raise InputError(
                f"--valid {self.valid:g} and --test {self.test:g}: give shares above 0 that leave some for training."
            )
        at_least = {"history": 1, "min_history": 0, "per_user": 1, "negatives": 1, "min_item_clicks": 0}
        for name, least in (at_least | {"min_value_count": 1, "bins": 2, "seed": 0, "alpha": 0}).items():
            value = getattr(self, name)
            if value is not None and not least <= value < 2**31:
                raise InputError(f"--{name.replace('_', '-')} is {value}; it must be at least {least}.")
