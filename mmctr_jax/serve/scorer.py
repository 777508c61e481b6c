"""Scores one user's candidates with an exported model, by ONNX Runtime."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmctr_jax.errors import InputError
from mmctr_jax.files import expanded
from mmctr_jax.hashing import hash_id

FORMAT, MANIFEST = 1, "serving.json"

Id = int | str
Ids = Sequence[Id] | np.ndarray


class RequestError(ValueError):
    """A request that cannot be answered: `field`, the part of it that is to blame, and the rest of the sentence."""

    def __init__(self, field: str, reason: str):
        super().__init__(f"{field} {reason}")
        self.field, self.reason = field, reason


_KEYS = {"kind", "step", "num_items", "max_history", "rows_at_once", "side", "arrays", "original_ids"}


def read_manifest(directory: str | Path) -> dict[str, Any]:
    """serving.json of an export. Raises: InputError if there is none that this version can read."""
    path = Path(directory) / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        known = manifest["format"]
        if known == FORMAT and not manifest.keys() >= _KEYS:
            raise KeyError
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
            by_number: Requests are as prepared files: items are named by their numbers even if the export knows their
                original ids, and what is hashed is given as the ids that it becomes.

        Raises:
            InputError: It is no export, is damaged, or ONNX Runtime is not installed.
        """
        if unknown not in ("refuse", "padding"):
            raise InputError(f"unknown is {unknown!r}; it is 'refuse' or 'padding'.")
        directory = expanded(directory)
        self.directory, self.manifest = directory, read_manifest(directory)
        self.num_items: int = self.manifest["num_items"]
        """Items that can be scored, padding item 0 included."""
        self.side: dict[str, dict[str, Any]] = {f["name"]: f for f in self.manifest["side"]}
        """What the model takes of a candidate besides its id: each feature's `kind` and what its values may be."""
        self.clicks: dict[str, dict[str, Any]] = {f["name"]: f for f in self.manifest.get("clicks", [])}
        """What the model takes of each click, likewise."""
        self.labels: list[str] = self.manifest.get("labels", [])
        """What else than a click it has learned to predict (`scores_by_label`)."""
        self.unknown_ids = 0
        self._pads_unknown, self._by_number = unknown == "padding", by_number
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

    def score(
        self,
        history: Ids,
        candidates: Ids,
        side: Mapping[str, Any] | None = None,
        clicks: Mapping[str, Sequence[Any]] | None = None,
    ) -> np.ndarray:
        """Click probabilities of one user's candidates.

        Args:
            history: Item ids that the user clicked, oldest first; may be empty, and of any length.
            candidates: Item ids to score, M of them.
            side: For each side feature one value for all candidates, or M. A value is a whole number, a text or number
                where the feature is hashed, a number or None where it is numeric, and a list where it takes lists.
            clicks: For each feature of the clicks one value for each id in `history`.

        Returns:
            (M,) float32, calibrated if the run was. A candidate's score does not depend on the others.

        Raises:
            RequestError: It names the field and the value that is wrong.
        """
        return self._run(["scores"], history, candidates, side, clicks)[0]

    def scores_by_label(
        self,
        history: Ids,
        candidates: Ids,
        side: Mapping[str, Any] | None = None,
        clicks: Mapping[str, Sequence[Any]] | None = None,
    ) -> dict[str, np.ndarray]:
        """Of each label that the model learned besides the first: (M,) float32 probabilities, not calibrated.

        Arguments and errors as of `score`, whose scores stand under "scores".
        """
        outputs = ["scores", *(f"scores.{name}" for name in self.labels)]
        found = self._run(outputs, history, candidates, side, clicks)
        return dict(zip(["scores", *self.labels], found, strict=True))

    def logits(
        self,
        history: Ids,
        candidates: Ids,
        side: Mapping[str, Any] | None = None,
        clicks: Mapping[str, Sequence[Any]] | None = None,
    ) -> np.ndarray:
        """(M,) float32 logits, not calibrated; otherwise as `score`."""
        return self._run(["logits"], history, candidates, side, clicks)[0]

    def _run(
        self,
        outputs: list[str],
        history: Ids,
        candidates: Ids,
        side: Mapping[str, Any] | None,
        of_clicks: Mapping[str, Any] | None,
    ) -> list[np.ndarray]:
        clicks = self._numbered("history", history)
        kept = np.flatnonzero(clicks)[-self.manifest["max_history"] :]
        items = self._numbered("candidates", candidates, smallest=1)
        feed = {f"side.{name}": values for name, values in self._side(side, len(items)).items()}
        length = next(length for length in self._rows if len(kept) <= length)
        padded = {"history": np.pad(clicks[kept], (length - len(kept), 0))}
        for name, values in self._of_clicks(of_clicks, len(clicks)).items():
            padded[f"clicks.{name}"] = np.pad(values[kept], (length - len(kept), 0))
        session, rows = self._sessions[length], self._rows[length]
        results = [np.empty(len(items), np.float32) for _ in outputs]
        for start in range(0, len(items), rows):
            part = slice(start, start + rows)
            inputs = {name: values[part] for name, values in feed.items()} | {"candidates": items[part]}
            for result, found in zip(results, session.run(outputs, inputs | padded), strict=True):
                result[part] = found
        return results

    def _numbered(self, field: str, ids: Ids, smallest: int = 0) -> np.ndarray:
        """(n,) int32 item numbers. smallest: that is an item's; 0 is padding, which a history may hold."""
        if not _is_list(ids):
            raise RequestError(field, f"is {_shown(ids)}; give a list of item ids.")
        if self.numbers is not None:
            numbers, known = np.array([self._number(id) for id in ids], np.int64), "that of an item"
        else:
            numbers, known = _whole_numbers(ids), f"a number from {smallest} to {self.num_items - 1}"
        numbers = np.where((numbers < self.num_items) & (numbers >= smallest), numbers, -1)
        wrong = np.flatnonzero(numbers < 0)
        if wrong.size and not self._pads_unknown:
            raise RequestError(f"{field}[{wrong[0]}]", f"is {_shown(ids[wrong[0]])}, which is not {known}.")
        self.unknown_ids += wrong.size
        numbers[wrong] = 0
        return numbers.astype(np.int32)

    def _number(self, id: Any) -> int:
        """Of an original id; -1 where no item has it."""
        return self.numbers.get(str(id), -1) if isinstance(id, str | int | np.integer) else -1

    def _side(self, side: Mapping[str, Any] | None, candidates: int) -> dict[str, np.ndarray]:
        """(candidates, …) values of each side feature."""
        values = {}
        for name, feature, given in _named("side", side, self.side, "one value, or one for each candidate"):
            where, listed = f"side.{name}", "length" in feature
            many = _is_list(given) and (not listed or any(_is_list(value) for value in given))
            many = many or (isinstance(given, np.ndarray) and given.ndim == 2)
            if many and len(given) != candidates:
                raise RequestError(where, f"has {len(given)} values, and there are {candidates} candidates.")
            places = [f"{where}[{i}]" for i in range(len(given))] if many else [where]
            read = self._values(feature, given if many else [given], places)
            values[name] = np.broadcast_to(read, (candidates, *read.shape[1:]))
        return values

    def _of_clicks(self, clicks: Mapping[str, Any] | None, count: int) -> dict[str, np.ndarray]:
        """(count,) values of each feature of the clicks."""
        values = {}
        for name, feature, given in _named("clicks", clicks, self.clicks, "one value for each id in history"):
            where = f"clicks.{name}"
            if not _is_list(given) or len(given) != count:
                shown = f"has {len(given)} values" if _is_list(given) else f"is {_shown(given)}"
                raise RequestError(where, f"{shown}; give one for each of the {count} ids in history.")
            values[name] = self._values(feature, given, [f"{where}[{i}]" for i in range(count)])
        return values

    def _values(self, feature: dict[str, Any], given: Sequence[Any], places: list[str]) -> np.ndarray:
        """(given, …) values of a feature, as the graph takes them. Raises: RequestError."""
        kind = feature.get("kind", "categorical")
        if kind == "numeric":
            return _numbers(given, places)
        if "hash" in feature and not self._by_number:
            return _hashed(given, feature["hash"], places)
        if "length" not in feature:
            return _numbered_from_zero(given, feature["vocab_size"], places)
        lists = np.zeros((len(given), feature["length"]), np.int32)
        for row, (value, place) in enumerate(zip(given, places, strict=True)):
            if not _is_list(value):
                raise RequestError(place, f"is {_shown(value)}; give a list of ids.")
            if kind == "items":
                ids = self._numbered(place, value)
                ids = ids[ids != 0][::-1]  # the most recent first
            else:
                ids = _numbered_from_zero(value, feature["vocab_size"], [f"{place}[{i}]" for i in range(len(value))])
                ids = ids[ids != 0]
            ids = ids[: feature["length"]]
            lists[row, : len(ids)] = ids
        return lists


def _named(
    field: str, given: Mapping[str, Any] | None, known: dict[str, dict[str, Any]], advice: str
) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Each feature that the model has, with what a request gives of it. Raises: RequestError."""
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise RequestError(field, f"is {_shown(given)}; give an object of features.")
    for name in given:
        if name not in known:
            raise RequestError(
                f"{field}.{name}", f"is not a feature of the model; it has {', '.join(known) or 'none'}."
            )
    for name, feature in known.items():
        if name not in given:
            raise RequestError(f"{field}.{name}", f"is missing; give {advice}.")
        yield name, feature, given[name]


def _numbered_from_zero(values: Ids, size: int, places: list[str]) -> np.ndarray:
    """(n,) int32 ids below `size`."""
    numbers = _whole_numbers(values)
    wrong = np.flatnonzero((numbers < 0) | (numbers >= size))
    if wrong.size:
        raise RequestError(places[wrong[0]], f"is {_shown(values[wrong[0]])}; its values are 0 to {size - 1}.")
    return numbers.astype(np.int32)


def _numbers(values: Sequence[Any], places: list[str]) -> np.ndarray:
    """(n,) float32; NaN for None."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "iuf":
        found = values.astype(np.float32)
    else:
        for value, place in zip(values, places, strict=True):
            if not (value is None or isinstance(value, int | float | np.number)):
                raise RequestError(place, f"is {_shown(value)}; it must be a number, or null where it is not known.")
        with np.errstate(over="ignore"):
            found = np.array([_as_float(value) for value in values], np.float32)
    wrong = np.flatnonzero(np.isinf(found))
    if wrong.size:
        raise RequestError(places[wrong[0]], f"is {_shown(values[wrong[0]])}, which is infinite in float32.")
    return found


def _as_float(value: Any) -> float:
    try:
        return np.nan if value is None else float(value)
    except OverflowError:
        return np.inf


def _hashed(values: Sequence[Any], size: int, places: list[str]) -> np.ndarray:
    """(n,) int32 ids of texts or whole numbers; 0 for None."""
    ids = np.zeros(len(values), np.int32)
    for i, value in enumerate(values):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, str | int | np.integer):
            raise RequestError(places[i], f"is {_shown(value)}; it must be a text or a whole number.")
        try:
            ids[i] = hash_id(value, size)
        except UnicodeEncodeError:
            raise RequestError(places[i], f"is {_shown(value)}, which is no Unicode text.") from None
    return ids


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
    try:
        text = repr(value)
    except RecursionError:
        return "nested too deep"
    return text if len(text) <= 60 else f"{text[:57]}..."
