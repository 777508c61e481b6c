"""What the page says is so, each warning comes with its defect and with nothing else, and a browser can read it."""

import collections
import json
import math
import re
import statistics
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from browser import assert_readable, fits, opened
from sklearn.metrics import roc_auc_score

from mmctr_jax import formats
from mmctr_jax.commands.inspect import main
from mmctr_jax.errors import InputError
from mmctr_jax.features.summaries import NormHistogram, Norms
from mmctr_jax.pages.inspect.folder import read_folder
from mmctr_jax.pages.inspect.label_auc import Auc, auc_of_counts, cross_fitted, transferred
from mmctr_jax.pages.inspect.numbers import LengthBin, measure, rounded
from mmctr_jax.pages.inspect.page import inspect, to_json
from mmctr_jax.pages.inspect.row_features import BINS, CLICKS, Feature, first_half, row_features, samples
from mmctr_jax.pages.inspect.rows import read_rows
from mmctr_jax.pages.inspect.warn import find_warnings

ITEMS, DIM = 80, 4  # the padding item counts
ROWS = {"train": 1000, "valid": 400, "test": 400}


def clean(seed=0):
    """Columns of each file, as lists and arrays: clicks that follow the likes level a little, and nothing amiss."""
    rng = np.random.default_rng(seed)
    data = {}
    for split, rows in ROWS.items():
        item = rng.integers(1, ITEMS, rows)
        history = [list(rng.permutation(np.delete(np.arange(1, ITEMS), t - 1))[: rng.integers(1, 13)]) for t in item]
        likes = rng.integers(0, 5, rows)
        data[split] = {
            "user_id": rng.integers(1, 500, rows),
            "item_seq": history,
            "item_id": item,
            "likes_level": likes,
            "views_level": rng.integers(0, 5, rows),
            "label": (rng.random(rows) < 0.3 + 0.1 * likes).astype(int),
        }
    tags = [[], *(list(rng.choice(np.arange(1, 10), rng.integers(0, 4), replace=False)) for _ in range(1, ITEMS))]
    vectors = rng.normal(size=(ITEMS, DIM))
    vectors[0] = 0
    data["item_info"] = {"item_id": np.arange(ITEMS), "item_tags": tags, "item_emb_d4": list(vectors)}
    return data


def write(folder, data):
    """The files of the challenge's schema: labels of test in a file of their own."""
    folder.mkdir(exist_ok=True)
    lists = {"item_seq": pa.list_(pa.int64()), "item_tags": pa.list_(pa.int64()), "item_emb_d4": pa.list_(pa.float32())}
    for name, columns in data.items():
        table = pa.table({key: pa.array(values, lists.get(key)) for key, values in columns.items()})
        if name == "test" and "label" in columns:
            ids = pa.array(np.arange(table.num_rows))
            pq.write_table(pa.table({"ID": ids, "label": table["label"]}), folder / "test_labels.parquet")
            table = table.drop_columns("label").add_column(0, "ID", ids)
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


def measured(folder, data=None):
    return measure(read_folder(write(folder, data) if data else folder, None))


@pytest.fixture(scope="module")
def inspected(tmp_path_factory):
    """(folder of clean data, folder of its page, what was found, warnings)."""
    folder = write(tmp_path_factory.mktemp("inspect") / "clean", clean())
    out = folder.parent / "out" / "deep"
    return folder, out, *inspect(folder, None, out)


# Warnings ------------------------------------------------------------------------------------------------------------


def leak(data, rng):
    for split in ROWS:
        data[split]["views_level"] = 1 + data[split]["label"]


def order(data, rng):
    data["train"]["label"] = np.arange(ROWS["train"]) % 4 == 0  # one positive, three negatives, and so on
    for split in ("valid", "test"):
        data[split]["label"] = rng.permutation(np.arange(ROWS[split]) % 4 == 0)


def reversed_in_valid(data, rng):
    data["valid"]["likes_level"] = 4 - data["valid"]["likes_level"]


def shifted(data, rng):
    data["valid"]["views_level"] = rng.integers(2, 7, ROWS["valid"])


def own_history(data, rng):
    for row in range(20):
        data["valid"]["item_seq"][row][0] = data["valid"]["item_id"][row]


def copied(data, rng):
    for column in data["train"]:
        data["valid"][column][:10] = data["train"][column][:10]


def contradicting(data, rng):
    for column in data["train"]:
        data["train"][column][:4] = data["train"][column][4:8]
    data["train"]["label"][:4] = 1 - data["train"]["label"][4:8]


def contradicting_across(data, rng):
    for column in data["test"]:
        data["test"][column][:1] = data["valid"][column][:1]
    data["test"]["label"][0] = 1 - data["valid"]["label"][0]


def repeated(data, rng):
    for column in data["train"]:
        data["train"][column][:15] = data["train"][column][15:30]


def other_mean(data, rng):
    data["test"]["label"][: ROWS["test"] // 2] = 1


def new_items(data, rng):
    """More than a quarter of validation's targets are among five items that training is made to never meet."""
    for column in ("item_seq", "item_id"):
        data["train"][column] = [
            [1 + i % 74 for i in value] if column == "item_seq" else 1 + value % 74 for value in data["train"][column]
        ]
    own = [
        target in history for history, target in zip(*(data["train"][c] for c in ("item_seq", "item_id")), strict=True)
    ]
    for row in np.flatnonzero(own):
        history = data["train"]["item_seq"][row]
        data["train"]["item_seq"][row] = [i for i in history if i != data["train"]["item_id"][row]] or [75]
    for row in range(0, ROWS["valid"], 4):
        new = 75 + row // 4 % 5
        data["valid"]["item_id"][row] = new
        data["valid"]["item_seq"][row] = [i if i != new else 1 for i in data["valid"]["item_seq"][row]]


def without_vectors(data, rng):
    for item in (3, 7):
        data["item_info"]["item_emb_d4"][item] = np.zeros(DIM)


def shared_vectors(data, rng):
    for item in range(10, 15):
        data["item_info"]["item_emb_d4"][item] = data["item_info"]["item_emb_d4"][9]


def constant_side(data, rng):
    data["valid"]["views_level"][:] = 2
    data["train"]["views_level"][:] = 2
    data["test"]["views_level"][:] = 2


def constant_dimension(data, rng):
    for vector in data["item_info"]["item_emb_d4"][1:]:
        vector[2] = 0.5


def constant_tags(data, rng):
    data["item_info"]["item_tags"] = [[]] + [[5, 2], [2, 5]] * (ITEMS // 2 - 1) + [[5, 2]]


DEFECTS = {  # defect → the check that finds it, its number (None: not an exact one), what the sentences say
    leak: ("alone", 1.0, ["views_level (AUC 1.000 in train, 1.000 in valid, 1.000 in test)"]),
    order: ("alone", 1.0, ["The order of the rows gives the label away (AUC 1.000 in train"]),
    reversed_in_valid: ("gaps", None, ["likes_level predicts the label with AUC 0.6"]),
    shifted: ("drift", None, ["rows of valid from rows of train with AUC 0.", "most by views_level"]),
    own_history: ("in_history", 20 / 400, ["In 5.0 % of the rows of valid"]),
    copied: ("repeats", 10 / 400, ["valid that stand in train too (same user, history and target): 10 (2.5 %)"]),
    contradicting: ("repeats", 8 / 1000, ["train that stand in train with the other label: 8 (0.8 %)"]),
    contradicting_across: (
        "repeats",
        1 / 400,
        ["test that stand in valid too (same user, history and target): 1 (0.2 %)"],
    ),
    repeated: ("repeats", 15 / 1000, ["train that repeat another row of it: 15 (1.5 %)"]),
    other_mean: ("labels", None, ["and 0.7", "in test"]),
    new_items: ("unseen", None, ["of the rows of valid have a target that training never sees"]),
    without_vectors: ("vectors", 2 / 79, ["2 of 79 items (2.5 %) have a zero vector in item_emb_d4 (first: 3, 7)"]),
    shared_vectors: ("vectors", 6 / 79, ["6 of 79 items (7.6 %) share their vector in item_emb_d4"]),
    constant_side: ("constant", 2, ["Column views_level is 2 in every row of train"]),
    constant_dimension: ("constant", 1, ["1 of the 4 dimensions of item_emb_d4"]),
    constant_tags: ("constant", 2, ["Column item_tags is the same in all items"]),
}


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda f: f.__name__)
def test_a_defect_brings_its_warning_and_no_other(tmp_path, defect):
    check, number, words = DEFECTS[defect]
    data = clean()
    defect(data, np.random.default_rng(1))
    warnings = find_warnings(measured(tmp_path / "data", data))
    assert {w.check for w in warnings} == {check}, warnings
    assert number is None or warnings[0].number == pytest.approx(number, rel=1e-5)
    assert all(word in warnings[0].text for word in words), warnings[0].text


def test_clean_data_brings_none(inspected):
    _, out, _, warnings = inspected
    assert warnings == [] and "Nothing to warn about." in (out / "inspect.html").read_text()


def test_a_few_rows_at_random_raise_no_alarm(tmp_path):
    for seed in range(4):
        data = clean(seed + 10)
        for split, rows in (("train", 50), ("valid", 12), ("test", 12)):
            data[split] = {name: values[:rows] for name, values in data[split].items()}
            data[split]["label"] = np.random.default_rng(seed).permutation(np.arange(rows) % 2)
        checks = {w.check for w in find_warnings(measured(tmp_path / str(seed), data))}
        assert not checks & {"alone", "gaps", "drift", "labels"}


# Numbers, against loops ----------------------------------------------------------------------------------------------


def crowded(seed):
    """So few users, items and clicks that rows repeat, contradict and hold their targets."""
    rng = np.random.default_rng(seed)
    data = {}
    for split, rows in (("train", 60), ("valid", 40), ("test", 30)):
        data[split] = {
            "user_id": rng.integers(1, 3 if split == "train" else 4, rows),
            "item_seq": [list(rng.integers(0, 5, rng.integers(0, 3))) for _ in range(rows)],  # 0: padding in between
            "item_id": rng.integers(1, 4 if split == "train" else 6, rows),
            "likes_level": rng.integers(0, 3, rows),
            "label": rng.integers(0, 2, rows),
        }
    tags = [[], [1, 2], [2], [], [2, 3], [3, 3]]
    vectors = [[0, 0], [3, 4], [-0.0, 0], [0, 2], [0, 0], [-0.0, 2]]
    data["item_info"] = {"item_id": np.arange(6), "item_tags": tags, "item_emb_d4": vectors}
    return data


def oracle_rows(data, split):
    """[(user, history, target, label)] of plain values."""
    columns = data[split]
    histories = [tuple(int(i) for i in history if i) for history in columns["item_seq"]]
    plain = [[int(v) for v in columns[name]] for name in ("user_id", "item_id", "label")]
    return list(zip(plain[0], histories, plain[1], plain[2], strict=True))


def share(flags):
    flags = list(flags)
    return pytest.approx(sum(flags) / len(flags), rel=1e-5) if flags else None


@pytest.mark.parametrize("seed", range(3))
def test_every_count_is_what_a_loop_counts(tmp_path, seed):
    data = crowded(seed)
    found = measured(tmp_path / "data", data)
    rows = {split: oracle_rows(data, split) for split in ("train", "valid", "test")}
    seen_items = {r[2] for r in rows["train"]} | {i for r in rows["train"] for i in r[1]}
    seen_users = {r[0] for r in rows["train"]}
    for split, mine in rows.items():
        s = found.splits[split]
        assert s.rows == len(mine) and s.label_mean == share(r[3] for r in mine)
        assert s.users == len({r[0] for r in mine}) and s.items == len({r[2] for r in mine})
        assert s.items_in_histories == len({i for r in mine for i in r[1]})
        assert s.rows_per_user == pytest.approx(len(mine) / s.users, rel=1e-5)
        assert s.unseen_items == share(i not in seen_items for i in {r[2] for r in mine})
        assert s.unseen_item_rows == share(r[2] not in seen_items for r in mine)
        assert s.unseen_users == share(u not in seen_users for u in {r[0] for r in mine})
        assert s.unseen_user_rows == share(r[0] not in seen_users for r in mine)
        own = found.target_in_history[split]
        inside = [r for r in mine if r[2] in r[1]]
        assert own.rows == len(inside) > 0 and own.share == share(r in inside for r in mine)
        assert own.share_of_label == [share(r[2] in r[1] for r in mine if r[3] == label) for label in (0, 1)]
        assert own.label_mean == share(r[3] for r in inside)
        assert own.label_mean_of_others == share(r[3] for r in mine if r not in inside)
        lengths = [len(r[1]) for r in mine]
        h = found.histories[split]
        assert (h.max, h.empty) == (max(lengths), share(n == 0 for n in lengths))
        assert h.mean == pytest.approx(statistics.mean(lengths), rel=1e-5) and h.p50 == statistics.median(lengths)
        assert [b.rows for b in h.bins] == [lengths.count(b.up_to) for b in h.bins]
        for entry in found.levels[0].values:
            labels = [r[3] for r, v in zip(mine, data[split]["likes_level"], strict=True) if v == entry.value]
            assert vars(entry.splits[split]) == {"rows": len(labels), "label_mean": share(labels)}

    key = lambda r: r[:3]  # noqa: E731
    for record in found.repeats.within:
        mine = rows[record.split]
        assert record.repeated == len(mine) - len(set(map(key, mine)))
        assert record.contradicting == sum(any(key(r) == key(q) and r[3] != q[3] for q in mine) for r in mine) > 0
    assert [(r.split, r.of) for r in found.repeats.across] == [
        ("valid", "train"),
        ("test", "train"),
        ("test", "valid"),
    ]
    for record in found.repeats.across:
        mine, other = rows[record.split], rows[record.of]
        assert record.repeated == sum(any(key(r) == key(q) for q in other) for r in mine) > 0
        assert record.contradicting == sum(any(key(r) == key(q) and r[3] != q[3] for q in other) for r in mine)

    clicks = collections.Counter(r[2] for r in rows["train"] if r[3])
    targets = collections.Counter(r[2] for r in rows["train"])
    curve = found.popularity.curve
    assert [p.clicks for p in curve] == sorted((clicks[i] for i in range(1, 6)), reverse=True)
    assert [p.rows for p in curve] == sorted((targets[i] for i in range(1, 6)), reverse=True)
    assert found.popularity.without_click == 2
    assert found.popularity.top_1_percent == pytest.approx(max(clicks.values()) / clicks.total(), rel=1e-5)

    vectors = found.embeddings[0]
    assert (vectors.zero, vectors.zero_items) == (2, [2, 4])
    assert (vectors.equal, vectors.equal_groups, vectors.largest_group) == (2, 1, 2)
    assert (vectors.norm.mean, vectors.norm.min, vectors.norm.max) == (3, 2, 5)
    assert sum(vectors.norm.histogram.items) == 3
    tags = found.tags[0]
    assert (tags.without, tags.used, tags.used_once, tags.per_item) == (1, 3, 1, [1, 1, 3])
    assert [(m.id, m.items) for m in tags.most_used] == [(2, 3), (3, 3), (1, 1)]


def test_padding_is_counted_as_a_loader_would_lay_it_out(tmp_path):
    data = clean()
    rng = np.random.default_rng(5)
    lengths = rng.integers(0, 41, ROWS["train"])
    data["train"]["item_seq"] = [list(rng.integers(1, ITEMS, n)) for n in lengths]
    found = measured(tmp_path / "data", data).padding
    assert [p.length for p in found] == [8, 16, 32, 40]
    for p in found:
        n = p.length
        clicks = sum(min(k, n) for k in lengths)
        buckets = [b for b in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96) if b < n] + [n]
        laid_out = sum(min(b for b in buckets if b >= min(k, n)) for k in lengths)
        assert p.cut == share(k > n for k in lengths)
        assert p.padding == pytest.approx(1 - clicks / (n * len(lengths)), rel=1e-4)
        assert p.bucketed == pytest.approx(laid_out / (n * len(lengths)), rel=1e-5)


def test_rows_have_one_number_if_user_history_and_target_are_equal(tmp_path):
    data = crowded(7)
    data["train"]["item_seq"][:4] = [[1, 2], [2, 1], [1], [1, 0]]  # order counts, padding does not
    for name in ("user_id", "item_id"):
        data["train"][name][:4] = 1
    folder = read_folder(write(tmp_path / "data", data), None)
    rows = {name: read_rows(s, folder.users[name]) for name, s in folder.splits.items()}
    numbers = np.concatenate([r["key"] for r in rows.values()])
    keys = [r[:3] for split in rows for r in oracle_rows(data, split)]
    assert len(set(zip(keys, numbers.tolist(), strict=True))) == len(set(keys)) == len(set(numbers.tolist()))
    assert numbers[2] == numbers[3] != numbers[0] != numbers[1]


def test_clicks_of_the_target_are_those_of_the_half_without_the_row_and_cosines_are_of_the_mean(tmp_path):
    data = clean()
    folder = read_folder(write(tmp_path / "data", data), None)
    rows = {name: read_rows(s, folder.users[name]) for name, s in folder.splits.items()}
    features = {f.name: f for f in row_features(folder, rows, samples(rows))}
    train, valid = oracle_rows(data, "train"), oracle_rows(data, "valid")
    halves = first_half(len(train)).tolist()
    assert 400 < sum(halves) < 600
    for row in range(0, 400, 37):
        others = [r for r, half in zip(train, halves, strict=True) if half != halves[row]]
        assert train[row] not in others
        assert features[CLICKS].values["train"][row] == sum(r[2] == train[row][2] and r[3] for r in others)
        assert features[CLICKS].values["valid"][row] == sum(r[2] == valid[row][2] and r[3] for r in others)
        _, history, target, _ = valid[row]
        vectors = np.array(data["item_info"]["item_emb_d4"])
        mean = vectors[list(history)].mean(axis=0)
        cosine = mean @ vectors[target] / np.linalg.norm(mean) / np.linalg.norm(vectors[target])
        assert features["cosine with history: item_emb_d4"].values["valid"][row] == pytest.approx(cosine, abs=1e-5)


def test_rows_of_training_do_not_give_themselves_away_by_their_own_click(tmp_path):
    """Few items with many rows each: an item's clicks without the row's own would tell the row's label, and split."""
    data = clean()
    for split, rows in ROWS.items():
        data[split]["item_id"] = np.random.default_rng(rows).integers(1, 9, rows)
        data[split]["item_seq"] = [[9 + i % 30] for i in range(rows)]
    found = measured(tmp_path / "data", data)
    clicks = next(r for r in found.label_auc if r.feature == CLICKS)
    assert clicks.train.auc < 0.55 and found.drift["valid"].auc < 0.55


def test_a_user_is_not_known_again_by_its_other_rows(tmp_path):
    """Other users in each split, each with a number of its own: no drift, though numbers known by heart tell all."""
    data = clean()
    rng = np.random.default_rng(3)
    for first, (split, rows) in zip((1, 101, 201), ROWS.items(), strict=True):
        user = rng.integers(0, 100, rows)
        data[split]["user_id"] = first + user
        data[split]["likes_level"] = rng.integers(0, 10_000, 100)[user]
    assert measured(tmp_path / "data", data).drift["valid"].auc < 0.62


# AUC -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_auc_by_counts_is_auc_by_rows(seed):
    rng = np.random.default_rng(seed)
    codes, labels = rng.integers(0, 12, 300), rng.integers(0, 2, 300)
    scores = rng.integers(0, 6, 12) / 7  # ties between codes too
    positives, negatives = np.bincount(codes[labels == 1], minlength=12), np.bincount(codes[labels == 0], minlength=12)
    assert auc_of_counts(scores, positives, negatives) == pytest.approx(roc_auc_score(labels, scores[codes]), abs=1e-12)
    assert auc_of_counts(scores, positives, np.zeros(12, int)) is None


def test_single_features_are_worth_what_they_know():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 4000)
    noise, leak_ = rng.integers(0, 1000, 4000), labels + 2 * rng.integers(0, 50, 4000)
    assert (
        abs(cross_fitted(noise, labels) - 0.5) < 0.04
    )  # a thousand values, four rows each: nothing is learned by heart
    assert cross_fitted(leak_, labels) == 1 and transferred(leak_, labels, leak_[:100], labels[:100]) == 1
    assert transferred(leak_, labels, leak_[:100] + 1000, labels[:100]) == 0.5  # values that training does not know
    assert transferred(leak_, labels, leak_, 1 - labels) == 0


def test_the_standard_error_is_the_spread_of_scores_that_know_nothing():
    rng = np.random.default_rng(0)
    labels = np.repeat([1, 0], (20, 30))
    areas = [roc_auc_score(labels, rng.random(50)) for _ in range(400)]
    assert Auc(0.5, 20, 30).error() == pytest.approx(np.std(areas), rel=0.15)


def test_numbers_fall_into_ordered_quantile_bins_and_values_unknown_to_training_into_none():
    rng = np.random.default_rng(0)
    train = rng.normal(size=5000)
    train[:100] = np.nan
    codes = Feature("x", {"train": train, "valid": np.array([-99.0, 99.0, np.nan])}, numeric=True).codes()
    assert (codes["train"][:100] == 0).all() and codes["valid"].tolist() == [1, BINS, 0]
    known = train[100:]
    assert (np.diff(codes["train"][100:][np.argsort(known)]) >= 0).all()
    assert np.ptp(np.bincount(codes["train"][100:])[1:]) <= 2  # equally full
    few = Feature("n", {"train": np.array([3, 9, 3]), "valid": np.array([9, 1, 3])}, numeric=False).codes()
    assert few["train"].tolist() == [1, 2, 1] and few["valid"].tolist() == [2, 0, 1]


# Files ---------------------------------------------------------------------------------------------------------------


def test_the_page_shows_the_numbers_of_the_json(inspected):
    _, out, inspection, warnings = inspected
    found = json.loads((out / "inspect.json").read_text(), parse_constant=pytest.fail)
    assert (out / "inspect.json").read_text() == to_json(inspection, warnings)

    def numbers(value):
        if isinstance(value, dict):
            return [n for v in value.values() for n in numbers(v)]
        if isinstance(value, list):
            return [n for v in value for n in numbers(v)]
        return [value] if isinstance(value, (int, float)) else []

    assert all(n == float(f"{n:.6g}") for n in numbers(found) if isinstance(n, float))
    known = {"–"}
    for n in numbers(found):
        known |= {formats.decimal(n), formats.decimal(n, 1), formats.percent(n), formats.count(n)}
    html = (out / "inspect.html").read_text()
    cells = re.findall(r"<td>([^<]*)</td>", html)
    parts = [part for cell in cells for part in re.split(r" ± |, | – ", cell)]
    shown = [part for part in parts if re.fullmatch(r"[\d.,-]+( %)?|–", part)]
    assert len(shown) > 300 and set(shown) <= known
    assert "1,000" in shown and found["splits"]["train"]["rows"] == 1000


def test_what_is_no_number_is_null():
    norms = Norms(math.nan, math.inf, np.float64(2 / 3), 7, NormHistogram([1 / 3], [2]))
    assert rounded({"a": [norms]}) == {"a": [Norms(None, None, 0.666667, 7, NormHistogram([0.333333], [2]))]}


def test_the_same_data_gives_the_same_bytes_whatever_files_hold_it(inspected, tmp_path):
    """Part files, fixed-size lists padded on the left, narrow integers, doubles: again, and the same."""
    folder, out, *_ = inspected
    other = tmp_path / "clean"
    other.mkdir()
    for name in ("train", "valid", "test", "test_labels", "item_info"):
        table = pq.read_table(folder / f"{name}.parquet")
        for column, kind, width in (
            ("item_seq", pa.int32(), 12),
            ("item_tags", pa.int16(), 3),
            ("item_emb_d4", pa.float64(), DIM),
        ):
            if column in table.column_names:
                lists = [[0] * (width - len(v)) + v for v in table[column].to_pylist()]
                fixed = pa.array(lists, pa.list_(kind, width))
                table = table.set_column(table.column_names.index(column), column, fixed)
        if "user_id" in table.column_names and name == "test":
            table = table.set_column(table.column_names.index("user_id"), "user_id", table["user_id"].cast(pa.int16()))
        (other / f"{name}.parquet").mkdir()
        for part, start in enumerate(range(0, table.num_rows, 300)):
            pq.write_table(table.slice(start, 300), other / f"{name}.parquet" / f"{part}.parquet")
    inspect(other, None, tmp_path / "out")
    for name in ("inspect.json", "inspect.html"):
        assert (tmp_path / "out" / name).read_bytes() == (out / name).read_bytes()


def test_what_is_not_there_is_left_out(tmp_path):
    data = clean()
    del data["test"]["label"]
    found = measured(tmp_path / "unlabelled", data)
    assert found.splits["test"].label_mean is None and found.drift["test"].auc is not None
    assert all(record.test is None for record in found.label_auc)
    assert found.repeats.across[1].contradicting is None and find_warnings(found) == []
    del data["test"]
    for name in ("likes_level", "views_level", "user_id"):
        for split in ("train", "valid"):
            del data[split][name]
    del data["item_info"]["item_tags"], data["item_info"]["item_emb_d4"]
    found, warnings = inspect(write(tmp_path / "bare", data), None, tmp_path / "bare")
    assert list(found.splits) == ["train", "valid"] and found.levels == found.tags == found.embeddings == []
    assert found.splits["train"].users is None and warnings == []


def test_labels_of_one_class_and_empty_histories_have_no_auc_but_a_page(tmp_path):
    data = clean()
    data["valid"] = {name: values[:1] for name, values in data["valid"].items()}
    data["train"]["item_seq"] = [[] for _ in data["train"]["item_seq"]]
    found, warnings = inspect(write(tmp_path / "data", data), None, tmp_path)
    assert all(record.valid.auc is None for record in found.label_auc)
    assert found.histories["train"].bins == [LengthBin(up_to=0, rows=1000), LengthBin(up_to=1, rows=0)]
    assert any(f"is {label} in every row of valid" in str(warnings) for label in (0, 1))


def test_the_config_says_which_columns(inspected, tmp_path):
    """Named, or the one that prepare wrote, moved or not; what is derived is looked at by its source."""
    folder, *_ = inspected
    codes = {"kind": "codes", "name": "codes", "source": "item_emb_d4", "dim": DIM, "levels": 2, "size": 5}
    raw = {
        "data": {"train": "elsewhere", "valid": "elsewhere", "item_info": "elsewhere"},
        "features": {"side": [{"name": "views_level", "vocab_size": 5}], "item_features": [codes]},
        "model": {"max_history": 7},
    }
    (tmp_path / "some.yaml").write_text(yaml.safe_dump(raw))
    found, _ = inspect(folder, tmp_path / "some.yaml", tmp_path)
    assert [level.feature for level in found.levels] == ["views_level"]
    assert [e.feature for e in found.embeddings] == ["item_emb_d4"] and found.tags == []
    assert [(p.length, p.configured) for p in found.padding] == [(7, True), (8, False), (12, False)]
    own = write(tmp_path / "own", clean())
    (own / "manifest.json").write_text(json.dumps({"format": 1, "folder": "where/it/was"}))
    (own / "was.yaml").write_text(yaml.safe_dump(raw))
    assert [f.name for f in read_folder(own, None).features.side] == ["views_level"]
    raw["features"]["side"][0]["vocab_size"] = 3
    (own / "was.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(InputError, match="views_level.*the config's vocab_size allows ids 0 … 2"):
        inspect(own, None, tmp_path / "out")


def test_what_is_refused_is_refused_before_anything_is_written(inspected, tmp_path):
    folder, *_ = inspected
    (tmp_path / "file").write_text("")
    cases = [
        (tmp_path / "absent", tmp_path / "out", "absent is not a folder"),
        (tmp_path, tmp_path / "out", "train.parquet does not exist"),
        (folder, tmp_path / "file", "file cannot be written: Not a directory; name another folder with --out"),
        (folder, tmp_path / "file" / "out", "cannot be written"),
    ]
    data = clean()
    del data["valid"]["item_seq"]
    cases.append((write(tmp_path / "no_history", data), tmp_path / "out", "column item_seq is missing"))
    data = clean()
    data["train"]["item_id"][3] = ITEMS
    cases.append((write(tmp_path / "unknown_item", data), tmp_path / "out", "item_id, row 3: id 80; item_info has ids"))
    no_list = write(tmp_path / "no_list", clean())
    pq.write_table(pa.table({"item_id": range(ITEMS), "item_emb": np.ones(ITEMS)}), no_list / "item_info.parquet")
    cases.append((no_list, tmp_path / "out", "item_emb has type double; item_emb… must be lists of floats"))
    data = write(tmp_path / "labels", clean())
    labels = pq.read_table(data / "test_labels.parquet")
    pq.write_table(labels.set_column(0, "ID", pa.array(np.arange(400)[::-1])), data / "test_labels.parquet")
    cases.append((data, tmp_path / "out", "its ID column is not that of the scored file"))
    data = write(tmp_path / "fewer_labels", clean())
    pq.write_table(labels.slice(1), data / "test_labels.parquet")
    cases.append((data, tmp_path / "out", "399 labels for 400 rows"))
    for source, out, words in cases:
        with pytest.raises(InputError, match=words):
            inspect(source, None, out)
    assert not (tmp_path / "out").exists() and (tmp_path / "file").read_text() == ""


def test_the_command_prints_warnings_and_where_the_page_is(tmp_path, monkeypatch, capsys):
    data = clean()
    own_history(data, None)
    folder = write(tmp_path / "data", data)
    (folder / "inspect.html").write_text("an earlier one")
    monkeypatch.setattr(sys, "argv", ["inspect", str(folder)])
    assert main(sys.argv[1:]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("Warning: ")] == [
        "Warning: " + w["text"] for w in json.loads((folder / "inspect.json").read_text())["warnings"]
    ]
    assert str(folder / "inspect.html") in lines[-1] and "5.0 %" in (folder / "inspect.html").read_text()


# In a browser --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_page_is_readable_in_a_browser_at_the_width_of_a_phone_and_of_a_desk(tmp_path):
    """With names that would like to be markup, or wider than any screen."""
    data = clean()
    hostile = "<script>document.title='broken'</script>$" + "w" * 200
    for split in ROWS:
        data[split][hostile] = data[split].pop("views_level")
    folder = write(tmp_path / "data", data)
    (folder / "vocabularies").mkdir()
    names = {"id": range(1, 10), "value": [hostile, *"bcdefghi"], "count": [1] * 9}
    pq.write_table(pa.table({k: list(v) for k, v in names.items()}), folder / "vocabularies" / "item_tags.parquet")
    item_features = [{"kind": "tags", "name": "item_tags"}, {"kind": "embedding", "name": "item_emb_d4", "dim": DIM}]
    raw = {
        "data": {"train": "t", "valid": "v", "item_info": "i"},
        "features": {"side": [{"name": hostile, "vocab_size": 5}], "item_features": item_features},
    }
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(raw))
    inspect(folder, tmp_path / "data.yaml", tmp_path / "out")
    with opened(tmp_path / "out" / "inspect.html", (390, 1280)) as pages:
        for opened_page, problems in pages:
            assert problems == [] and opened_page.title() == "Data: data"
            assert_readable(opened_page, images=7, headings=10)
            opened_page.locator("summary", has_text="most used").click()
            assert opened_page.get_by_text("document.title='broken'").first.is_visible()
            assert fits(opened_page)
