"""AUC on items that training never saw, with and without id dropout: a fifth of the items held out of real data."""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.harness import Table
from mmctr_jax.config import load_config
from mmctr_jax.console import start_logging
from mmctr_jax.data.labels import read_labels
from mmctr_jax.data.parquet import part_files
from mmctr_jax.prediction.predictor import Predictor
from mmctr_jax.training.loop import train
from mmctr_jax.training.metrics import auc

HELD_OUT = 0.2


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run new_items")
    parser.add_argument("--config", default="configs/microlens_5k.yaml")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.0, 0.2])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args(argv)
    start_logging(quiet=True)
    print(f"{args.config}, {args.epochs} epochs, {HELD_OUT:.0%} of the items held out\n")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        config = load_config(args.config)
        data = _split(config, folder)
        table = Table("id_dropout", "seed", "AUC, target held out", "AUC, target known")
        for rate in args.rates:
            for seed in range(1, args.seeds + 1):
                changed = config.model_copy(
                    update={
                        "data": config.data.model_copy(update=data),
                        "model": config.model.model_copy(update={"id_dropout": rate}),
                        "train": config.train.model_copy(update={"epochs": args.epochs, "seed": seed}),
                    }
                )
                run = folder / f"run_{rate}_{seed}"
                train(changed, run)
                predictor = Predictor.load(run, folder / "all_items.parquet")
                found = []
                for name in ("held_out", "known"):
                    file = folder / f"{name}.parquet"
                    found.append(auc(read_labels(part_files(file), "label", None), predictor.logits(file)))
                table.row(f"{rate:g}", seed, *(f"{value:.4f}" for value in found))


def _split(config, folder: Path) -> dict[str, str]:
    """Writes the data with the held-out items numbered last; training and validation have nothing of them."""
    features = config.features
    items = pq.read_table(config.data.item_info).sort_by(features.item)
    number = items.num_rows - 1 if items[features.item][0].as_py() == 0 else items.num_rows
    order = np.random.default_rng(0).permutation(number) + 1
    trained = number - int(HELD_OUT * number)
    new_id = np.zeros(number + 1, np.int64)
    new_id[order] = np.arange(1, number + 1)

    def renumbered(table: pa.Table) -> pa.Table:
        target = table.column_names.index(features.item)
        return table.set_column(target, features.item, pa.array(new_id[table[features.item].to_numpy()]))

    everything = renumbered(items).sort_by(features.item)
    pq.write_table(everything, folder / "all_items.parquet")
    pq.write_table(everything.filter(pc.less_equal(everything[features.item], trained)), folder / "items.parquet")
    held_out, known = [], []
    for split in ("train", "valid", "test"):
        table = pq.read_table(getattr(config.data, split))
        if features.label not in table.column_names:
            labels = pq.read_table(config.data.test_labels)[features.label]
            table = table.append_column(features.label, labels)
        table = renumbered(table)
        histories = [[int(new_id[i]) for i in h if i] for h in table[features.history].to_pylist()]
        at = table.column_names.index(features.history)
        whole = table.set_column(at, features.history, pa.array(histories, pa.list_(pa.int64())))
        short = pa.array([[i for i in h if i <= trained] for h in histories], pa.list_(pa.int64()))
        is_known = pc.less_equal(table[features.item], trained)
        keep = [n for n in whole.column_names if n != "ID"]
        held_out.append(whole.filter(pc.invert(is_known)).select(keep))
        if split == "test":
            known.append(whole.filter(is_known).select(keep))
        else:
            pq.write_table(whole.set_column(at, features.history, short).filter(is_known), folder / f"{split}.parquet")
    for name, tables in (("held_out", held_out), ("known", known)):
        rows = pa.concat_tables([t.select(sorted(t.column_names)) for t in tables], promote_options="permissive")
        pq.write_table(rows, folder / f"{name}.parquet")
        print(f"{name}: {rows.num_rows:,} rows")
    names = {name: str(folder / f"{name}.parquet") for name in ("train", "valid")}
    return names | {"item_info": str(folder / "items.parquet"), "test": None, "test_labels": None}
