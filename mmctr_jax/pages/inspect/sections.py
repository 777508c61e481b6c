"""The numbers → the page. Nothing is computed here."""

from __future__ import annotations

from typing import Any

from mmctr_jax.pages.html import beside, count, decimal, folded, notes, page, paragraph, percent, section, table
from mmctr_jax.pages.inspect import pictures
from mmctr_jax.pages.inspect.label_auc import POSITION


def render(found: dict[str, Any]) -> str:
    """The whole page, from what `measure` returns with `warnings` added."""
    sections = (_warnings, _splits, _histories, _popularity, _levels, _aucs, _drift, _repeats, _vectors, _tags)
    return page(f"Data: {found['name']}", *(part(found) for part in sections))


def _one_digit(value: float | None) -> str:
    return decimal(value, 1)


def _warnings(found: dict[str, Any]) -> str:
    if not found["warnings"]:
        return section("Warnings", paragraph("Nothing to warn about."))
    return section(f"Warnings ({len(found['warnings'])})", notes(w["text"] for w in found["warnings"]))


def _splits(found: dict[str, Any]) -> str:
    splits = found["splits"]
    lines = [
        ("rows", "rows", count),
        ("label mean", "label_mean", decimal),
        ("users", "users", count),
        ("rows a user", "rows_per_user", _one_digit),
        ("items as target", "items", count),
        ("items in histories", "items_in_histories", count),
        ("users unseen in train", "unseen_users", percent),
        ("rows with such a user", "unseen_user_rows", percent),
        ("target items unseen in train", "unseen_items", percent),
        ("rows with such a target", "unseen_item_rows", percent),
    ]
    return section(
        "Splits",
        table(["", *splits], [[text, *(show(s.get(key)) for s in splits.values())] for text, key, show in lines]),
        paragraph("An item is seen in train if it is a target there or stands in a history there."),
    )


def _histories(found: dict[str, Any]) -> str:
    histories = found["histories"]
    lines = [("mean", "mean", _one_digit), ("median", "p50", _one_digit), ("90 % are up to", "p90", _one_digit)]
    lines += [("99 % are up to", "p99", _one_digit), ("longest", "max", count), ("empty", "empty", percent)]
    lengths = [[text, *(show(h[key]) for h in histories.values())] for text, key, show in lines]
    bins = max((h["bins"] for h in histories.values()), key=len)
    rows_by_bin = [
        [f"up to {b['up_to']}", *(count(h["bins"][i]["rows"] if i < len(h["bins"]) else 0) for h in histories.values())]
        for i, b in enumerate(bins)
    ]
    padding = [
        [
            f"{p['length']}" + (" (the config's)" if p["configured"] else ""),
            percent(p["cut"]),
            percent(p["padding"]),
            percent(p["bucketed"]),
        ]
        for p in found["padding"]
    ]
    return section(
        "Histories",
        beside(pictures.length_histogram(histories), table(["clicks in the history", *histories], lengths)),
        folded("Rows by length", table(["clicks", *histories], rows_by_bin)),
        table(["padded to", "histories cut", "padding", "with buckets"], padding, "What padding costs in train"),
        paragraph(
            "Padding is the share of all positions that holds no click. With buckets, a row is padded to the first of "
            "1, 2, 3, 4, 6, 8, 12, 16, … that holds it; shown is what is left of the positions then."
        ),
    )


def _popularity(found: dict[str, Any]) -> str:
    popularity = found["popularity"]
    points = [[count(p["rank"]), count(p["clicks"]), count(p["rows"])] for p in popularity["curve"]]
    return section(
        "Popularity",
        paragraph(
            f"{count(popularity['items'])} items have {count(popularity['clicks'])} clicks in train. The top 1 % of "
            f"them hold {percent(popularity['top_1_percent'])} of the clicks, the top 10 % hold "
            f"{percent(popularity['top_10_percent'])}; {count(popularity['without_click'])} items have none."
        ),
        beside(pictures.popularity_curve(popularity)),
        folded("The curve's numbers", table(["rank", "clicks (label 1)", "rows as target"], points)),
    )


def _levels(found: dict[str, Any]) -> str:
    if not found["levels"]:
        return ""
    means = {name: s["label_mean"] for name, s in found["splits"].items() if s["label_mean"] is not None}
    parts = [beside(*(pictures.level_means(level, means) for level in found["levels"]))]
    for level in found["levels"]:
        headers = ["value"]
        for name in found["splits"]:
            headers += [f"{name}: rows", "label mean"] if name in means else [f"{name}: rows"]
        rows = []
        for entry in level["values"]:
            cells = [f"{entry['value']}" + (f" {entry['name']}" if entry["name"] else "")]
            for name, split in entry["splits"].items():
                cells += [count(split["rows"]), decimal(split["label_mean"])][: 2 if name in means else 1]
            rows.append(cells)
        left = level["distinct"] - len(rows)
        title = level["feature"] + (f": the most frequent values, {count(left)} more are left out" if left else "")
        parts.append(folded(title, table(headers, rows)))
    return section("Side features against the label", *parts)


def _aucs(found: dict[str, Any]) -> str:
    records, splits = found["label_auc"], list(found["splits"])
    labelled = [name for name in splits if name in records[0]]
    rows = [[r["feature"], *(decimal(r[name]["auc"]) for name in labelled)] for r in records]
    sizes = ", ".join(f"{count(n)} rows of {name}" for name, n in found["sample"]["rows"].items())
    every = next(r["every"] for r in records if r["feature"] == POSITION)
    orders = ", ".join(
        f"{'parts of the file' if n == 0 else f'remainder by {n}'} in {name}" for name, n in every.items()
    )
    return section(
        "What a single feature says of the label",
        paragraph(
            "Each value of a feature (numbers in up to 32 quantile bins) stands for its smoothed label mean: within "
            "train cross-fitted over two random halves, in valid and test as train has it. Below 0.5 within train, "
            "labels are balanced within each value, such as a positive and a negative for each click of a user. All "
            f"rows are counted; cosines and the next section are of a random sample: {sizes}. The order of the rows is "
            f"cross-fitted in each split, its strongest pattern shown ({orders})."
        ),
        beside(pictures.auc_chart(records, labelled), table(["AUC", *labelled], rows)),
    )


def _drift(found: dict[str, Any]) -> str:
    parts = [
        paragraph(
            "A gradient-boosted classifier learns to tell the rows of a split from those of train; AUC 0.5 means that "
            "it cannot. It sees the features above but for ids and row order; a user's rows are in one fold of three."
        )
    ]
    parts.append(beside(*(pictures.drift_means(d, name) for name, d in found["drift"].items())))
    for name, drift in found["drift"].items():
        rows = [
            [f["feature"], decimal(f["drop"]), decimal(f["means"]["train"]), decimal(f["means"][name])]
            for f in drift["features"]
        ]
        title = f"{name} against train: AUC {decimal(drift['auc'])}"
        parts.append(table(["feature", "AUC lost without", "mean in train", f"mean in {name}"], rows, title))
    return section("Drift between splits", *parts)


def _repeats(found: dict[str, Any]) -> str:
    own = []
    for name, f in found["target_in_history"].items():
        of_0, of_1 = f.get("share_of_label", (None, None))
        cells = [percent(f["share"]), percent(of_0), percent(of_1)]
        own.append([name, *cells, decimal(f.get("label_mean")), decimal(f.get("label_mean_of_others"))])
    by = found["repeats"]["by"]
    headers = ["split", "of all rows", "of label 0", "of label 1", "label mean", "of the others"]
    records = [(r["split"], r) for r in found["repeats"]["within"]]
    records += [(f"{r['split']}, in {r['of']}", r) for r in found["repeats"]["across"]]
    repeats = [
        [where, *map(count, (r["rows"], r["repeated"])), percent(r["repeated_share"]), count(r["contradicting"])]
        for where, r in records
    ]
    return section(
        "Rows that repeat, contradict, or hold their answer",
        table(headers, own, "The target stands in its own history"),
        table(["rows of", "rows", "repeated", "share", "with the other label"], repeats, "Equal rows"),
        paragraph(f"Rows are equal if {', '.join(by[:-1])} and {by[-1]} are."),
    )


def _vectors(found: dict[str, Any]) -> str:
    if not found["embeddings"]:
        return ""
    rows = []
    for e in found["embeddings"]:
        norm = e["norm"] or dict.fromkeys(("mean", "deviation", "min", "max"))
        cells = [count(e["items"]), count(e["dim"]), f"{decimal(norm['mean'])} ± {decimal(norm['deviation'])}"]
        cells += [f"{decimal(norm['min'])} – {decimal(norm['max'])}", count(e["zero"]), count(e["equal"])]
        cells += [count(e["equal_groups"]), count(e["largest_group"]), count(e["constant_dims"])]
        rows.append([e["feature"], *cells])
    headers = ["feature", "items", "width", "norm", "norms from – to", "zero vectors", "equal vectors", "in groups"]
    headers += ["largest group", "constant dimensions"]
    zero = [
        paragraph(f"Items with a zero vector in {e['feature']}, the first: {', '.join(map(str, e['zero_items']))}.")
        for e in found["embeddings"]
        if e["zero"]
    ]
    drawn = [pictures.norm_histogram(e) for e in found["embeddings"] if e["norm"]]
    return section("Vectors", beside(*drawn), table(headers, rows), *zero)


def _tags(found: dict[str, Any]) -> str:
    if not found["tags"]:
        return ""
    headers = ["feature", "items", "without any", "ids an item", "different ids", "used once"]
    rows = [
        [
            t["feature"],
            *map(count, (t["items"], t["without"])),
            decimal(t["mean_per_item"]),
            *map(count, (t["used"], t["used_once"])),
        ]
        for t in found["tags"]
    ]
    drawn = [pictures.tags_per_item(t) for t in found["tags"] if t["kind"] == "tags"]
    parts = []
    for t in found["tags"]:
        used = [
            [f"{m['id']}" + (f" {m['name']}" if m["name"] else ""), count(m["items"]), percent(m["share"])]
            for m in t["most_used"]
        ]
        parts.append(folded(f"{t['feature']}: most used", table(["id", "items", "share"], used)))
    return section("Tags and categories", beside(*drawn), table(headers, rows), *parts)
