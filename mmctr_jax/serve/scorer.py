"""Scores one user's candidates with an exported model, by ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmctr_jax.errors import InputError

FORMAT, MANIFEST = 1, "serving.json"

Id = int | str
Ids = Sequence[Id] | np.ndarray


class RequestError(ValueError):
    """A request that cannot be answered: `field`, the part of it that is to blame, and the rest of the sentence."""

    def __init__(self, field: str, reason: str):
        super().__init__(f"{field} {reason}")
        self.field, self.reason = field, reason


def read_manifest(directory: str | Path) -> dict[str, Any]:
    """serving.json of an export. Raises: InputError if there is none that this version can read."""
    path = Path(directory) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        known = manifest["format"]
    except FileNotFoundError:
        raise InputError(
            f"{directory} is not an export (it has no {MANIFEST}); give what mmctr export wrote."
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{path} is damaged; export the model again.") from None
    if known != FORMAT:
        raise InputError(f"{path} has the format {known}, and this version reads {FORMAT}; export the model again.")
    if manifest["kind"] != "onnx":
        raise InputError(
            f"{directory} was exported as {manifest['kind']}; export it with --format onnx to score it here."
        )
    if manifest.get("triton"):
        raise InputError(f"{directory} is a Triton model repository; export without --triton to score it here.")
    return manifest


class Scorer:
    """An exported model, ready to score; safe to use from several threads.

    >>> scorer = Scorer("export/movielens")
    >>> scorer.score(history=[12, 7], candidates=[5, 9, 31], side={"clicks_level": [3, 0, 9]})
    array([0.71, 0.08, 0.45], dtype=float32)
    """

    def __init__(
        self,
        directory: str | Path,
        threads: int | None = None,
        unknown: Literal["refuse", "padding"] = "refuse",
        by_number: bool = False,
    ):
        """Loads what `mmctr export` wrote.

        Args:
            directory: The export.
            threads: Of one request; null: one for each core.
            unknown: What becomes of an item id that the export does not know: an error, or padding, of which
                `unknown_ids` counts how many there were.
            by_number: Items are named by their numbers even if the export knows their original ids.

        Raises:
            InputError: It is no export, is damaged, or ONNX Runtime is not installed.
        """
        self.directory, self.manifest = Path(directory), read_manifest(directory)
        self.num_items: int = self.manifest["num_items"]
        """Items that can be scored, padding item 0 included."""
        self.side: dict[str, int] = {side["name"]: side["vocab_size"] for side in self.manifest["side"]}
        """Side features, and how many values each has."""
        self.unknown_ids = 0
        self._pads_unknown = unknown == "padding"
        self.numbers: dict[str, int] | None = None
        """Item number of each original id, if requests name those."""
        if self.manifest["original_ids"] and not by_number:
            self.numbers = self._read_original_ids()
        self._rows = {int(length): rows for length, rows in self.manifest["rows_at_once"].items()}
        self._sessions = self._open_sessions(threads)

    def _read_original_ids(self) -> dict[str, int]:
        try:
            ids = json.loads((self.directory / "item_ids.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise InputError(
                f"{self.directory / 'item_ids.json'} is missing or damaged; export the model again."
            ) from None
        return {id: number for number, id in enumerate(ids) if id is not None}

    def _open_sessions(self, threads: int | None) -> dict[int, Any]:
        try:
            import onnxruntime
        except ImportError:
            raise InputError("Serving needs ONNX Runtime; install it with: pip install 'mmctr-jax[serve]'") from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        sessions = {}
        # The graphs name these arrays in files; given here, they are in memory once for all graphs.
        self._arrays = {}
        for name, entry in self.manifest["arrays"].items():
            path = self.directory / entry["file"]
            try:
                mapped = np.memmap(path, np.float32, "r", shape=tuple(entry["shape"]))
            except (OSError, ValueError):
                raise InputError(f"{path} is missing or damaged; export the model again.") from None
            self._arrays[name] = onnxruntime.OrtValue.ortvalue_from_numpy(np.asarray(mapped))
            options.add_initializer(name, self._arrays[name])
        for length in self._rows:
            path = self.directory / f"model-{length}.onnx"
            try:
                sessions[length] = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            except Exception as error:  # ONNX Runtime raises several kinds of its own
                raise InputError(
                    f"{path} cannot be loaded ({str(error).splitlines()[0][:200]}); export again."
                ) from None
        return sessions

    def score(self, history: Ids, candidates: Ids, side: Mapping[str, Any] | None = None) -> np.ndarray:
        """Click probabilities of one user's candidates.

        Args:
            history: Item ids that the user clicked, oldest first; may be empty, and of any length.
            candidates: Item ids to score, M of them.
            side: For each side feature one value for all candidates, or M.

        Returns:
            (M,) float32, calibrated if the run was. A candidate's score does not depend on the others.

        Raises:
            RequestError: It names the field and the value that is wrong.
        """
        return self._run("scores", history, candidates, side or {})

    def logits(self, history: Ids, candidates: Ids, side: Mapping[str, Any] | None = None) -> np.ndarray:
        """(M,) float32 logits, not calibrated; otherwise as `score`."""
        return self._run("logits", history, candidates, side or {})

    def _run(self, output: str, history: Ids, candidates: Ids, side: Mapping[str, Any]) -> np.ndarray:
        clicks = self._numbered("history", history)
        clicks = clicks[clicks != 0][-self.manifest["max_history"] :]
        items = self._numbered("candidates", candidates)
        feed = {f"side.{name}": values for name, values in self._side(side, len(items)).items()}
        length = next(length for length in self._rows if len(clicks) <= length)
        padded = np.zeros(length, np.int32)
        padded[length - len(clicks) :] = clicks
        session, rows = self._sessions[length], self._rows[length]
        results = np.empty(len(items), np.float32)
        for start in range(0, len(items), rows):
            part = slice(start, start + rows)
            inputs = {name: values[part] for name, values in feed.items()} | {"candidates": items[part]}
            results[part] = session.run([output], inputs | {"history": padded})[0]
        return results

    def _numbered(self, field: str, ids: Ids) -> np.ndarray:
        """(n,) int32 item numbers."""
        if not _is_list(ids):
            raise RequestError(field, f"is {_shown(ids)}; give a list of item ids.")
        if self.numbers is not None:
            numbers, known = np.array([self.numbers.get(str(id), -1) for id in ids], np.int64), "that of an item"
        else:
            numbers, known = _whole_numbers(ids), f"a number from 0 to {self.num_items - 1}"
        numbers = np.where(numbers < self.num_items, numbers, -1)
        wrong = np.flatnonzero(numbers < 0)
        if wrong.size and not self._pads_unknown:
            raise RequestError(f"{field}[{wrong[0]}]", f"is {_shown(ids[wrong[0]])}, which is not {known}.")
        self.unknown_ids += wrong.size
        numbers[wrong] = 0
        return numbers.astype(np.int32)

    def _side(self, side: Mapping[str, Any], candidates: int) -> dict[str, np.ndarray]:
        if not isinstance(side, Mapping):
            raise RequestError("side", f"is {_shown(side)}; give an object of side features.")
        for name in side:
            if name not in self.side:
                raise RequestError(
                    f"side.{name}", f"is not a feature of the model; it has {', '.join(self.side) or 'none'}."
                )
        values = {}
        for name, size in self.side.items():
            if name not in side:
                raise RequestError(f"side.{name}", "is missing; give one value, or one for each candidate.")
            given, where = side[name], f"side.{name}"
            many = _is_list(given)
            if many and len(given) != candidates:
                raise RequestError(where, f"has {len(given)} values, and there are {candidates} candidates.")
            numbers = _whole_numbers(given if many else [given])
            wrong = np.flatnonzero((numbers < 0) | (numbers >= size))
            if wrong.size:
                value, where = (given[wrong[0]], f"{where}[{wrong[0]}]") if many else (given, where)
                raise RequestError(where, f"is {_shown(value)}; its values are 0 to {size - 1}.")
            values[name] = np.broadcast_to(numbers.astype(np.int32), (candidates,))
        return values


def _is_list(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 1
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _whole_numbers(values: Ids) -> np.ndarray:
    """(n,) int64; -1 for what is no whole number from 0 to 2⁶³ - 1."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        return values.astype(np.int64)
    whole = [type(value) is int or isinstance(value, np.integer) for value in values]
    return np.array([v if w and 0 <= v < 2**63 else -1 for v, w in zip(values, whole, strict=True)], np.int64)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
