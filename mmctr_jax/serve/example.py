"""What the page of the service offers to try: users, candidates and titles of a prepared folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mmctr_jax.errors import InputError
from mmctr_jax.serve.scorer import Scorer

_USERS, _CANDIDATES = 50, 200


def example(folder: Path, scorer: Scorer) -> dict[str, Any]:
    """Users' histories and candidates of the validation rows, numbered as the export is, and titles by id.

    What a row says besides its item is offered with the user or with the candidate: with the one it goes with more.

    Raises: InputError if the folder is not a prepared one, or is of other columns.
    """
    try:
        rows = pl.read_parquet(folder / "valid.parquet")
        titles = pl.read_parquet(folder / "item_feature.parquet", columns=["item_id", "item_title"])
        users = rows.unique("user_id", maintain_order=True)
        histories = users["item_seq"].cast(pl.List(pl.Int64)).to_list()
        of_clicks = {name: users[name].to_list() for name in scorer.clicks}
        targets = rows.unique("item_id", maintain_order=True).filter(pl.col("item_id") < scorer.num_items)
        of_users = [name for name, feature in scorer.side.items() if _is_of_users(rows, name, feature)]
        side = {name: (users if name in of_users else targets)[name].to_list() for name in scorer.side}
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{folder} gives no example ({str(error).splitlines()[0]}); name a prepared folder.") from None
    name_of = {number: name for name, number in scorer.numbers.items()} if scorer.numbers else {}
    chosen = np.unique(np.linspace(0, len(targets) - 1, min(_CANDIDATES, len(targets))).astype(int))
    title_of = dict(zip(titles["item_id"].to_list(), titles["item_title"].to_list(), strict=True))
    kept = [[at for at, id in enumerate(history) if 0 < id < scorer.num_items] for history in histories]
    longest = sorted(range(len(kept)), key=lambda user: len(kept[user]), reverse=True)[: 4 * _USERS : 4]
    clicks = {name: [[values[user][at] for at in kept[user]] for user in longest] for name, values in of_clicks.items()}
    kept = [[histories[user][at] for at in kept[user]] for user in longest]
    candidates = targets["item_id"].to_list()
    for name, feature in scorer.side.items():
        if feature.get("kind") == "items":
            side[name] = [[name_of.get(id, id) for id in ids if 0 < id < scorer.num_items] for ids in side[name]]
    shown = {id for history in kept for id in history} | set(candidates)
    return {
        "users": [[name_of.get(id, id) for id in history] for history in kept],
        "candidates": [name_of.get(candidates[i], candidates[i]) for i in chosen],
        "side": {name: [values[i] for i in chosen] for name, values in side.items() if name not in of_users},
        "side_of_users": {name: [side[name][user] for user in longest] for name in of_users},
        "clicks": clicks,
        "titles": {str(name_of.get(id, id)): title_of.get(id) or str(id) for id in shown},
    }


def _is_of_users(rows: pl.DataFrame, name: str, feature: dict[str, Any]) -> bool:
    """Whether the rows of one user are more alike in a column than the rows of one item."""
    keys = ("user_id", "item_id")
    if feature.get("kind") == "numeric":
        value = pl.col(name).cast(pl.Float64).fill_nan(None)
        user, item = (rows.select((value - value.mean().over(key)).pow(2).mean()).item() or 0.0 for key in keys)
    else:
        user, item = (len(set(zip(rows[key], map(str, rows[name].to_list()), strict=True))) for key in keys)
    return user < item
