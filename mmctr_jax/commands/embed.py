"""mmctr embed DIR [--text SOURCE] [--image SOURCE --pictures FOLDER] [--dim 128] [--out FILE]"""

import argparse

from mmctr_jax import interrupt
from mmctr_jax.files import expanded
from mmctr_jax.remote import place_here


def main(arguments: list[str]) -> int:
    """Runs `mmctr embed`; returns its exit code."""
    parser = _parser()
    args = parser.parse_args(arguments)

    with interrupt.deferred():
        from mmctr_jax.console import log
        from mmctr_jax.embed.pipeline import embed
        from mmctr_jax.embed.precomputed import file_and_column

    def is_model(source: str | None) -> bool:
        return source not in (None, "tfidf") and file_and_column(source) is None

    if args.pictures and not is_model(args.image):
        parser.error("--pictures is for a model, and --image names none")
    if (args.batch_size or args.download) and not (is_model(args.text) or is_model(args.image)):
        parser.error("--batch-size and --download are for models, and none is named")
    args.batch_size = args.batch_size or 64
    try:
        embed(**vars(args))
    except KeyboardInterrupt:
        log.info("Interrupted. To continue, run the same command again.")
        return interrupt.EXIT_CODE
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mmctr embed",
        description="Item vectors from titles and pictures: item_emb_d{dim} in DIR/item_info.parquet.",
        epilog="What a model has encoded is kept in DIR/.embed: after an interruption the same command continues from "
        "there, and other options of the PCA encode nothing again. The folder is safe to delete.",
    )
    parser.add_argument("folder", metavar="DIR", type=expanded, help="with item_feature.parquet and item_info.parquet")
    parser.add_argument(
        "--text",
        metavar="tfidf|FILE|MODEL",
        help="tfidf (the default without --image); FILE.npy, with --rows-of; FILE.parquet[:COLUMN] with item "
        "or item_id; or a transformers model, by folder or hub name",
    )
    parser.add_argument("--image", metavar="FILE|MODEL", help="likewise")
    parser.add_argument(
        "--pictures", metavar="FOLDER", type=expanded, help="ITEM.jpg, .jpeg, .png or .webp, for a model"
    )
    rows_of = "whose row is whose in a .npy: the item file or a .npy of ids in its order, or item_feature"
    parser.add_argument("--rows-of", metavar="FILE|item_feature", help=rows_of)
    parser.add_argument("--dim", type=_positive, default=128, help="of the vectors (default: 128)")
    parser.add_argument("--whiten", action="store_true", help="scale every component to unit variance")
    parser.add_argument(
        "--l2",
        nargs="+",
        choices=["parts", "result"],
        default=[],
        help="unit length: of each part before the PCA, of the result, or both",
    )
    parser.add_argument("--batch-size", type=_positive, help="of an encoder (default: 64)")
    parser.add_argument("--download", action="store_true", help="let a model come from the Hugging Face hub")
    parser.add_argument("--out", metavar="FILE", type=place_here, help="write item_info there instead of into DIR")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value
