"""Vectors of texts without a model: TF-IDF, reduced by a truncated SVD (latent semantic analysis)."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from mmctr_jax.console import log
from mmctr_jax.embed.item_file import ItemFile
from mmctr_jax.embed.parts import Part
from mmctr_jax.errors import InputError

_SEED = 20242025
# Chinese and Japanese are written without spaces: each character is a word. In other scripts a word is letters and
# digits, with the accents and vowel signs that combine with them (Indic), joined by apostrophes or hyphens.
_SIGNS, _MARKS = "\u3040-\u30ff\u3400-\u9fff", "\u0300-\u036f\u0900-\u0dff"
_LETTERS = rf"(?:[^\W{_SIGNS}]|[{_MARKS}])+"
WORDS = rf"[{_SIGNS}]|{_LETTERS}(?:['’-]{_LETTERS})*"


def tfidf_part(item_file: ItemFile, dim: int) -> Part:
    """Vectors of the titles. Words, their weights and the SVD are those of the training items' titles alone.

    A title none of whose words is known counts as no text.

    Args:
      dim: width of the fused vectors; the part is at most twice as wide.
    Raises: InputError if there is nothing to learn words from.
    """
    texts = item_file.texts()
    fitted = [text for text, training in zip(texts, item_file.training, strict=True) if training and text]
    counted, vectorizer = _count_words(fitted, dim)
    if counted is None or min(counted.shape) < 2:
        raise InputError(
            f"{item_file.files[0]}: the titles of the training items are too few for TF-IDF "
            f"({len(fitted)} texts); name another source with --text."
        )
    width = min(2 * dim, min(counted.shape) - 1)  # more than fusion can keep; less than ARPACK can give
    with np.errstate(invalid="ignore", divide="ignore"):  # shares of no variance at all, where all titles are alike
        svd = TruncatedSVD(width, algorithm="arpack", random_state=_SEED).fit(counted)
    kept = float(np.nan_to_num(svd.explained_variance_ratio_, posinf=0).sum())
    words = len(vectorizer.vocabulary_)
    log.info(f"TF-IDF: {words:,} words of {len(fitted):,} titles, reduced to {width} ({kept:.1%} of the variance).")
    weights = vectorizer.transform(texts)
    vectors = svd.transform(weights).astype(np.float32)
    unknown = int(((weights.getnnz(axis=1) == 0) & np.array([bool(text) for text in texts])).sum())
    if unknown:
        log.info(
            f"TF-IDF: {unknown:,} titles have no word that the vocabulary knows; these items count as without text."
        )
    sha256 = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
    return Part("text", "tfidf", vectors, sha256, {"words": words, "svd_explained_variance": kept})


def _count_words(texts: list[str], dim: int):
    """(texts, words) sparse TF-IDF and its vectorizer. Words of a single text are left out if enough others remain."""
    for min_df in (2, 1):
        vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=min_df, token_pattern=WORDS)
        try:
            counted = vectorizer.fit_transform(texts)
        except ValueError:  # no word is left
            continue
        if min_df == 1 or counted.shape[1] > dim:
            return counted, vectorizer
    return None, None
