"""The loader: every row once an epoch, in an order of seed and epoch alone, at a position that is one number."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from batches import SIDES, make_split
from hypothesis import given, settings
from hypothesis import strategies as st

from mmctr_jax.config import TrainConfig
from mmctr_jax.data.cache import Split
from mmctr_jax.data.lengths import training_lengths
from mmctr_jax.data.loader import (
    batches_per_epoch,
    eval_batches,
    history_lengths,
    longest_first,
    pad_histories,
    train_batches,
)
from mmctr_jax.data.share import Share
from mmctr_jax.models.mmctr import MMCTRSettings

LENGTHS = (2, 4, 8)


def batches(split, **options):
    return list(train_batches(split, **{"batch_size": 8, "lengths": (5,), "seed": 3, "epochs": 2, **options}))


def rows_of(some_batches):
    return [int(i) - 1 for b in some_batches for i in b["item"][b["weight"] > 0]]


def same(a, b):
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in leaves)


@given(st.integers(1, 40), st.integers(1, 17), st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_every_row_exactly_once_an_epoch(rows, batch_size, epochs):
    taken = batches(make_split(rows), batch_size=batch_size, epochs=epochs)
    per_epoch = batches_per_epoch(rows, batch_size)
    assert len(taken) == per_epoch * epochs
    for epoch in range(epochs):
        assert sorted(rows_of(taken[epoch * per_epoch : (epoch + 1) * per_epoch])) == list(range(rows))


def test_a_batch_holds_what_its_rows_hold():
    split = make_split(30)
    for batch in batches(split):
        for at in np.flatnonzero(batch["weight"]):
            row = batch["item"][at] - 1
            clicks = split.history_values[split.history_offsets[row] : split.history_offsets[row + 1]][-5:]
            assert batch["history"][at].tolist() == [0] * (5 - len(clicks)) + clicks.tolist()
            assert [batch["side"][name][at] for name in SIDES] == [row, row % 7]
            assert batch["label"][at] == row % 2


def test_rows_have_the_weights_of_their_file():
    split = replace(make_split(20), weight=np.arange(1, 21, dtype=np.float32) / 4)
    for batch in batches(split):
        real = batch["item"] > 0
        assert (batch["weight"][real] == batch["item"][real] / 4).all() and not batch["weight"][~real].any()


def test_the_last_batch_is_filled_up_with_rows_of_weight_0():
    last = batches(make_split(10), epochs=1)[-1]
    assert last["weight"].tolist() == [1, 1] + [0] * 6
    assert not last["item"][2:].any() and not last["history"][2:].any()


def test_order_depends_on_seed_and_epoch_alone():
    split = make_split(50)
    assert same(batches(split), batches(split))
    assert rows_of(batches(split, seed=3)) != rows_of(batches(split, seed=4))
    first, second = batches(split)[:7], batches(split)[7:]
    assert rows_of(first) != rows_of(second)
    assert rows_of(batches(split, batch_size=5)) == rows_of(batches(split))


@pytest.mark.parametrize("lengths", [(5,), LENGTHS])
@pytest.mark.parametrize("start", [0, 1, 3, 4, 7, 8])
def test_position_is_the_number_of_batches_taken(start, lengths):
    split = make_split(30)
    assert same(batches(split, start=start, lengths=lengths), batches(split, lengths=lengths)[start:])


@pytest.mark.parametrize(("count", "devices", "batch_size"), [(2, 2, 8), (2, 4, 8), (4, 8, 10), (2, 8, 7)])
def test_processes_share_each_global_batch(count, devices, batch_size):
    """And pad it to the same length, whoever has the longest history."""
    split, lengths = make_split(30), LENGTHS
    whole = batches(split, lengths=lengths, batch_size=batch_size, share=Share(0, 1, devices))
    shares = [Share(i, count, devices) for i in range(count)]
    parts = [batches(split, lengths=lengths, batch_size=batch_size, share=share) for share in shares]
    joined = [jax.tree.map(lambda *rows: np.concatenate(rows), *some) for some in zip(*parts, strict=True)]
    assert same(whole, joined)
    assert all(len(b["item"]) % devices == 0 for b in whole)
    alone = batches(split, lengths=lengths, batch_size=batch_size)
    assert rows_of(whole) == rows_of(alone)  # filling changes no batch's rows


def test_a_batch_is_as_long_as_its_longest_history_needs():
    split = make_split(200)
    clicks = history_lengths(split)
    taken = batches(split, lengths=LENGTHS)
    assert {b["history"].shape[1] for b in taken} == set(LENGTHS)
    for batch in taken:
        rows = batch["item"][batch["weight"] > 0] - 1
        assert batch["history"].shape[1] == min(n for n in LENGTHS if n >= clicks[rows].max())
        assert ((batch["history"] != 0).sum(axis=1)[: len(rows)] == clicks[rows]).all()


def test_rows_of_one_length_come_together_and_each_once_an_epoch():
    """Mixed are only the partial batch and those where two lengths meet; the others hold random rows of one."""
    split = make_split(203)
    needs = np.searchsorted(LENGTHS, history_lengths(split))
    epochs = [batches(split, lengths=LENGTHS, epochs=2)[i : i + 26] for i in (0, 26)]
    for taken in epochs:
        assert sorted(rows_of(taken)) == list(range(203))
        mixed = [b for b in taken[:-1] if len(set(needs[b["item"] - 1])) > 1]
        assert len(mixed) <= len(LENGTHS) - 1
        assert (taken[-1]["weight"] > 0).sum() == 3
        order = [b["history"].shape[1] for b in taken]
        assert order != sorted(order) and order != sorted(order, reverse=True)
    together = [{frozenset(b["item"].tolist()) for b in taken} for taken in epochs]
    assert not together[0] & together[1]  # other rows meet in each epoch


def test_from_the_longest_history_to_the_shortest():
    split = make_split(50)
    order = longest_first(split)
    assert sorted(order) == list(range(50)) and (np.diff(history_lengths(split)[order]) <= 0).all()
    taken = list(eval_batches(split, order, batch_size=8, lengths=LENGTHS))
    assert [b["history"].shape[1] for b in taken] == sorted((b["history"].shape[1] for b in taken), reverse=True)


def test_scoring_reads_rows_in_the_order_asked_for():
    split = make_split(30)
    order = np.random.default_rng(0).permutation(30)
    taken = list(eval_batches(split, order, batch_size=8, lengths=(5,), share=Share(0, 1, 3)))
    assert rows_of(taken) == order.tolist()


@given(st.lists(st.lists(st.integers(1, 99), max_size=7), min_size=1, max_size=6), st.integers(1, 9))
@settings(deadline=None)
def test_padding_keeps_the_most_recent_clicks_at_the_right(histories, length):
    split = make_split(1)
    flat = np.array([i for h in histories for i in h], np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(h) for h in histories])])
    split = Split(flat, offsets, split.item, split.side, None, "")
    expected = [[0] * (length - len(h[-length:])) + h[-length:] for h in histories]
    assert pad_histories(split, np.arange(len(histories)), length).tolist() == expected


def lengths_of(clicks, **train) -> tuple[int, ...]:
    """Those of a model of 16 clicks, trained in batches of 4."""
    return training_lengths(MMCTRSettings(max_history=16), TrainConfig(batch_size=4, **train), clicks)


@given(st.lists(st.integers(0, 700), min_size=8, max_size=8))
@settings(max_examples=50, deadline=None)
def test_lengths_are_compiled_where_they_save_enough_padding(rows):
    """An epoch's batches × clicks that each chosen length saves, counted row by row, against 128."""
    lengths = np.repeat([1, 2, 3, 4, 6, 8, 12, 16], rows)
    chosen = lengths_of(lengths)
    assert chosen[-1] == 16
    for length, before in zip(chosen[:-1], (0, *chosen), strict=False):
        longer = {1: 2, 2: 3, 3: 4, 4: 6, 6: 8, 8: 12, 12: 16}[length]
        saved = sum(longer - length for n in lengths if before < n <= length) / 4
        assert saved >= 128, (length, saved)


@pytest.mark.parametrize(
    ("rows", "chosen"),
    [
        ({1: 512}, (1, 16)),
        ({1: 511}, (4, 16)),  # 127.75 batches: too few for the step of 1 click from 1, 2 or 3, not for that of 2 from 4
        ({4: 256}, (4, 16)),
        ({3: 255, 4: 1}, (4, 16)),
        ({12: 127}, (16,)),
        ({12: 128}, (12, 16)),
        ({16: 10_000}, (16,)),
    ],
)
def test_chosen_lengths_by_hand(rows, chosen):
    lengths = np.concatenate([np.full(n, length) for length, n in rows.items()])
    assert lengths_of(lengths) == chosen


def test_named_lengths_are_all_compiled():
    clicks = np.ones(3, np.int64)
    assert lengths_of(clicks, length_buckets=(2, 8)) == (2, 8, 16)
    assert lengths_of(clicks, length_buckets=()) == (16,)
