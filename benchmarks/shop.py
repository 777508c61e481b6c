"""A made-up shop with every kind of column, and what each column is worth: AUC with it and without."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.harness import Table
from mmctr_jax.commands import prepare
from mmctr_jax.config import Config, load_config
from mmctr_jax.console import start_logging
from mmctr_jax.devices.compilation import keep_compiled_programs
from mmctr_jax.prediction.predict import predict
from mmctr_jax.training.loop import train
from mmctr_jax.training.metrics import evaluate

CATEGORIES = ("shoes", "books", "tea", "lamps", "bikes", "games", "plants", "hats")
COMES_WITH = {"bikes": "hats", "tea": "books", "plants": "lamps", "games": "tea"}
"""What is bought → what is wanted next."""
PREPARE = ("--label", "clicked", "--labels", "liked=0.3", "--click-features", "action,gap", "--histories", "action=buy")
"""The options of `mmctr prepare interactions` that nobody could guess; all other columns are proposed."""


def write_shop(
    folder: Path, users: int = 2000, days: int = 1, shown: int = 30, items: int = 400, seed: int = 1
) -> float:
    """Writes items.csv and day1.csv, day2.csv, … of what was shown to users, and what they did.

    Returns: the AUC of the probabilities that clicks are drawn by: what a model of all that there is to know has.

    A user has two interests, a budget and a device. An item is clicked for its category, a price within the budget, a
    category that comes with what was bought, or because it is like the last click, if that was not long ago.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    category = rng.integers(0, len(CATEGORIES), items)
    price = np.round(rng.lognormal(3, 0.8, items), 2)
    brand = rng.integers(0, 25, items)
    quality = rng.normal(0, 0.5, 25)[brand]
    labels = [f"{'new' if a < 0.5 else 'old'}|{'sale' if b < 0.3 else 'full'}" for a, b in rng.random((items, 2))]
    names = [f"{CATEGORIES[c]} number {i} of brand {b}" for i, (c, b) in enumerate(zip(category, brand, strict=True))]
    table = {
        "item": [f"i{i:04}" for i in range(items)],
        "name": names,
        "category": [CATEGORIES[c] for c in category],
        "brand": [f"brand {b}" for b in brand],
        "price": [None if rng.random() < 0.05 else p for p in price],
        "labels": labels,
    }
    pl.DataFrame(table).write_csv(folder / "items.csv")
    comes_with = {CATEGORIES.index(a): CATEGORIES.index(b) for a, b in COMES_WITH.items()}
    interests = np.array([rng.choice(len(CATEGORIES), 2, replace=False) for _ in range(users)])
    budget = rng.lognormal(3, 0.8, users)
    phone = rng.random(users) < 0.6
    city = rng.integers(0, 12, users)
    last, wanted = np.full((users, 2), -1.0), np.full(users, -1)
    logits, clicks = [], []
    for day in range(1, days + 1):
        rows = []
        for user in range(users):
            clock = np.sort(rng.integers(0, 86_400, shown))
            for second, item in zip(clock, rng.integers(0, items, shown), strict=True):
                now, c = (day - 1) * 86_400 + int(second), category[item]
                recent = last[user, 0] == c and now - last[user, 1] < 7200
                logit = -2.6 + 1.6 * (c in interests[user]) + 1.2 * recent + 2.0 * (wanted[user] == c) + quality[item]
                logit += 1.0 * (phone[user] and c in (5, 7)) - 1.2 * abs(np.log(price[item] / budget[user]))
                logit += 0.8 * (city[user] % len(CATEGORIES) == c)
                clicked = rng.random() < 1 / (1 + np.exp(-logit))
                logits.append(logit)
                clicks.append(clicked)
                action = "none"
                if clicked:
                    action = rng.choice(["view", "like", "buy"], p=[0.7, 0.2, 0.1])
                    last[user] = c, now
                    if action == "buy" and c in comes_with:
                        wanted[user] = comes_with[c]
                rows.append((user, item, now, int(clicked), action))
        user, item, now, clicked, action = (np.array(column) for column in zip(*rows, strict=True))
        known = rng.random(users) < 0.9
        log = {
            "user": [f"u{u}" for u in user],
            "item": [f"i{i:04}" for i in item],
            "time": [str(np.datetime64("2026-01-01") + np.timedelta64(int(t), "s")) for t in now],
            "clicked": clicked,
            "liked": (action == "like").astype(int),
            "action": action,
            "device": np.where(phone[user], "phone", "desk"),
            "city": [f"city {c}" for c in city[user]],
            "interests": ["|".join(CATEGORIES[i] for i in interests[u]) for u in user],
            "budget": [round(float(budget[u]), 2) if known[u] else None for u in user],
        }
        pl.DataFrame(log).write_csv(folder / f"day{day}.csv")
    return evaluate(np.array(clicks), np.array(logits, np.float32))["auc"]


def without(config: Config, column: str) -> Config:
    """The config without a feature."""
    features = config.features
    left = {
        place: tuple(f for f in getattr(features, place) if f.name != column)
        for place in ("side", "clicks", "item_features")
    }
    return config.model_copy(update={"features": features.model_copy(update=left)})


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run shop", description=__doc__)
    parser.add_argument("--out", type=Path, help="only write the shop's files there")
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--days", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args(argv)
    if args.out:
        print(f"The probabilities that clicks are drawn by have AUC {write_shop(args.out, args.users, args.days):.4f}.")
        return
    start_logging(quiet=True)
    keep_compiled_programs()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        best = write_shop(folder, args.users, args.days)
        log, items = folder / "day1.csv", folder / "items.csv"
        arguments = ["interactions", log, "--items", items, *PREPARE, "--split", "user", "--out", folder / "shop"]
        prepare.main([str(argument) for argument in arguments])
        overrides = ["train.length_buckets=[]", f"data.cache_dir={folder / 'cache'}"]
        config = load_config(folder / "shop" / "shop.yaml", overrides)
        features = config.features
        columns = [f.name for f in features.side + features.clicks + features.item_features]
        table = Table("left out", "test AUC", "± over seeds", "less by")
        table.row("(the probabilities that clicks are drawn by, all rows)", f"{best:.4f}", "", "")
        whole = None
        for column in [None, *columns]:
            changed = config if column is None else without(config, column)
            found = []
            for seed in range(1, args.seeds + 1):
                run = folder / f"run {column} {seed}"
                train(changed.model_copy(update={"train": config.train.model_copy(update={"seed": seed})}), run)
                found.append(predict(run, None, run / "scores.parquet")["metrics"]["auc"])
            whole = np.mean(found) if whole is None else whole
            table.row(
                column or "nothing", f"{np.mean(found):.4f}", f"{np.std(found):.4f}", f"{whole - np.mean(found):+.4f}"
            )
