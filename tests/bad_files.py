"""Small tables of samples and of items, and all that may be wrong with them: the table, and words of the error."""

import pyarrow as pa
from synthetic import ITEMS

HISTORIES = [[3, 1, 4], [], [1, 5, 9, 2, 6], [53]]


def sample_table(**changes) -> pa.Table:
    columns = {
        "user_id": [1, 2, 3, 4],
        "item_seq": pa.array(HISTORIES, pa.list_(pa.int64())),
        "item_id": [7, 8, 9, 10],
        "likes_level": [0, 1, 2, 10],
        "views_level": [3, 3, 3, 3],
        "label": [0, 1, 1, 0],
    }
    columns |= changes
    return pa.table({name: values for name, values in columns.items() if values is not None})


BAD_SAMPLES = {
    "missing column": (sample_table(views_level=None), ["column views_level is missing", "item_seq"]),
    "missing label": (sample_table(label=None), ["column label is missing"]),
    "text ids": (sample_table(item_id=["a", "b", "c", "d"]), ["column item_id has type string", "integer"]),
    "float ids": (sample_table(item_id=[7.0, 8.0, 9.0, 10.0]), ["column item_id has type double"]),
    "scalar history": (sample_table(item_seq=[1, 2, 3, 4]), ["column item_seq has type int64", "lists of integers"]),
    "history of floats": (sample_table(item_seq=pa.array([[1.0]] * 4)), ["column item_seq has type list"]),
    "text labels": (sample_table(label=["0", "1", "1", "0"]), ["column label has type string"]),
    "unknown target": (sample_table(item_id=[7, 8, ITEMS, 10]), ["column item_id, row 2", f"id {ITEMS}"]),
    "negative target": (sample_table(item_id=[7, -8, 9, 10]), ["column item_id, row 1", "id -8"]),
    "padding as target": (sample_table(item_id=[7, 8, 9, 0]), ["column item_id, row 3", "padding"]),
    "unknown history id": (
        sample_table(item_seq=pa.array([[1], [], [2, 60], [3]])),
        ["column item_seq, row 2", "id 60"],
    ),
    "negative history id": (
        sample_table(item_seq=pa.array([[1], [], [2], [3, -1]])),
        ["column item_seq, row 3", "id -1"],
    ),
    "id beyond 2³¹": (sample_table(item_id=[7, 8, 2**40, 10]), ["row 2", str(2**40)]),
    "id beyond 2⁶³": (
        sample_table(item_id=pa.array([7, 8, 2**63 + 5, 10], pa.uint64())),
        ["row 2", "id 9223372036854775807"],
    ),
    "level beyond vocabulary": (
        sample_table(likes_level=[0, 11, 1, 1]),
        ["column likes_level, row 1", "id 11", "vocab_size"],
    ),
    "label 2": (sample_table(label=[0, 1, 2, 0]), ["column label, row 2", "label 2"]),
    "label 1.5": (sample_table(label=[0, 1, 1.5, 0]), ["column label, row 2", "label 1.5"]),
    "label NaN": (sample_table(label=[0, 1, float("nan"), 0]), ["column label, row 2", "nan"]),
    "null target": (sample_table(item_id=[7, None, 9, 10]), ["column item_id, row 1", "null"]),
    "null history": (sample_table(item_seq=pa.array([[1], None, [2], [3]])), ["column item_seq, row 1", "null"]),
    "null in history": (
        sample_table(item_seq=pa.array([[1], [], [2, None], [3]])),
        ["column item_seq, row 2", "null inside"],
    ),
    "null level": (sample_table(views_level=[3, 3, 3, None]), ["column views_level, row 3", "null"]),
    "null label": (sample_table(label=[0, 1, None, 0]), ["column label, row 2", "null"]),
    "no rows": (sample_table().slice(0, 0), ["has no rows"]),
}
"""The table, and words of the error."""

TAGS = [[], [3], [5, 1], [], [2, 2, 4]]
VECTORS = [[0, 0], [0.5, -1], [2, 3], [4, 5], [6, 7]]


def item_table(**changes) -> pa.Table:
    columns = {
        "item_id": [0, 1, 2, 3, 4],
        "item_tags": pa.array(TAGS, pa.list_(pa.int64())),
        "vector": pa.array(VECTORS, pa.list_(pa.float64())),
        "category": [0, 2, 1, 1, 3],
    }
    columns |= changes
    return pa.table({name: values for name, values in columns.items() if values is not None})


BAD_ITEMS = {
    "duplicate ids": (item_table(item_id=[0, 1, 2, 2, 4]), {}, ["item 2 stands in rows 2 and 3"]),
    "missing id": (item_table(item_id=[0, 1, 2, 3, 5]), {}, ["no row for item 4", "largest id is 5"]),
    "negative id": (item_table(item_id=[0, 1, 2, 3, -4]), {}, ["-4"]),
    "null id": (item_table(item_id=[0, 1, 2, 3, None]), {}, ["item_id, row 4", "null"]),
    "padding with a vector": (
        item_table(vector=pa.array([[1.0, 0.0], *VECTORS[1:]])),
        {},
        ["item 0 is padding", "vector"],
    ),
    "NaN": (item_table(vector=pa.array([*VECTORS[:4], [1.0, float("nan")]])), {}, ["vector, row 4", "NaN"]),
    "infinite": (item_table(vector=pa.array([*VECTORS[:4], [1.0, float("inf")]])), {}, ["vector, row 4", "infinite"]),
    "infinite in float32": (
        item_table(vector=pa.array([*VECTORS[:4], [1.0, 1e300]])),
        {},
        ["vector, row 4", "float32"],
    ),
    "null vector": (item_table(vector=pa.array([*VECTORS[:4], None])), {}, ["vector, row 4", "null"]),
    "null in a vector": (item_table(vector=pa.array([*VECTORS[:4], [1.0, None]])), {}, ["vector, row 4", "null"]),
    "short vector": (
        item_table(vector=pa.array([*VECTORS[:4], [1.0]])),
        {},
        ["vector, row 4", "1 numbers", "dim is 2"],
    ),
    "missing column": (item_table(category=None), {}, ["column category is missing"]),
    "tag column of text": (item_table(item_tags=pa.array([["a"]] * 5)), {}, ["item_tags has type"]),
    "negative tag": (item_table(item_tags=pa.array([[], [1], [-2], [], []])), {}, ["item_tags, row 2", "-2"]),
    "no rows": (item_table().slice(0, 0), {}, ["no rows"]),
    "another number of items": (item_table(), {"num_items": 6}, ["5 items", "num_items is 6"]),
    "tag beyond vocabulary": (
        item_table(),
        {"item_features": [{"kind": "tags", "name": "item_tags", "vocab_size": 4}]},
        ["item_tags, row 2", "id 5", "0 … 3"],
    ),
}
"""The table, changes to `features`, and words of the error."""
