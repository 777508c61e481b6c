"""Configs made at random: accepted, and then written and read back as they are, or refused in one sentence.

Never another exception, and never more time or memory than a sentence takes.
"""

import copy
import resource
import tempfile
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import CODES, NEIGHBOURS, SYSTEMS, merged, raw_config

from mmctr_jax.config import Config, load_config, to_yaml
from mmctr_jax.errors import InputError

SCALE = 1  # more finds more


def examples(number: int) -> settings:
    return settings(max_examples=SCALE * number, deadline=None, database=None, suppress_health_check=list(HealthCheck))


HEAD = "data: {train: t, valid: v, item_info: i}\n"


def load(text: str | bytes, overrides: list[str] | tuple[str, ...] = ()) -> Config | str:
    """The config, having made sure that it survives writing and reading; or the sentence that refuses it."""
    with tempfile.TemporaryDirectory(prefix="hostile_") as folder:
        file = Path(folder) / "c.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        try:
            config = load_config(file, overrides)
        except InputError as error:
            message = str(error)
            assert message.isprintable() and 10 < len(message) < 2000 and message.endswith((".", "?")), message
            return message
        file.write_text(to_yaml(config))
        assert load_config(file) == config
        return config


# Values that are not what was expected: of other types, too large, looking like another type, ...
ODD_TEXT = ["", "5e-4", "012", "1:30", "0x10", "1_000", ".5", "1.", "yes", "null", "~", "2020-01-01"]
ODD_TEXT += ["a\nb", "\x00", "ü", "\ud800", "\u2028", "\x1b[31m", "x" * 5000]
ODD_TEXT += ["- a", "a: b", "# a", "&a", "*a", "!!int 3", "'", '"', "\t", "="]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 20),
    st.sampled_from([2**31 - 1, 2**31, 2**63, 2**64, -(2**63), 10**400, -1]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(ODD_TEXT),
    st.binary(max_size=4),
    st.dates(),
)
ANYTHING = st.recursive(
    SCALARS, lambda x: st.lists(x, max_size=4) | st.dictionaries(SCALARS, x, max_size=3), max_leaves=8
)
WHOLE = [
    merged(raw_config(Path("data")), change)
    for change in [
        {"features": {"side": [{"name": "age", "vocab_size": 3}], "item_features": [CODES, NEIGHBOURS]}},
        *SYSTEMS.values(),
    ]
]


def places(raw, path=()) -> list[tuple]:
    """Where the values of nested mappings and lists stand."""
    inner = raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ()
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


@st.composite
def mutated(draw) -> dict:
    """A valid config with up to three changes: a value replaced, a key misspelt, dropped or added."""
    raw = copy.deepcopy(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(0, 3))):
        *section, key = draw(st.sampled_from(places(raw)[1:]))
        inside = raw
        for part in section:
            inside = inside[part]
        change = draw(st.sampled_from(["replace", "replace", "misspell", "drop", "add"]))
        if change == "replace" or isinstance(inside, list):
            inside[key] = draw(ANYTHING)
        elif change == "add":
            inside[draw(st.sampled_from([f"{key}s", "name", "kind", "base", *ODD_TEXT]))] = draw(ANYTHING)
        else:
            value = inside.pop(key)
            if change == "misspell":
                inside[str(key)[:-1] + draw(st.characters())] = value
        if not raw:
            break
    return raw


@examples(300)
@given(mutated())
def test_a_mutated_config_is_accepted_whole_or_refused(raw):
    load(yaml.safe_dump(raw, allow_unicode=True))


TAGS = "int float bool null str binary timestamp set omap pairs seq map merge value python/object:os.system"
TOKENS = [
    "a",
    "1",
    ": ",
    ":",
    "- ",
    ", ",
    "\n",
    "\n  ",
    "\t",
    "[",
    "]",
    "{",
    "}",
    "&a ",
    "*a",
    "<<: ",
    "? ",
    "| ",
    "> ",
]
TOKENS += ["%YAML 1.1", "---", "...", "#", "'", '"', "\\", "\\ud800", "\x00", "\ufeff", "\x85", "1e999", ".nan", "~"]
TOKENS += ["data", "train", "seed", "features", "side", "base", "2020-13-45", "=", "! ", "!a "]
TOKENS += [f"!!{tag} " for tag in TAGS.split()]


@examples(300)
@given(st.lists(st.sampled_from(TOKENS), max_size=20).map("".join) | st.text(max_size=50))
def test_any_text_is_a_config_or_is_refused(text):
    load(text)
    load(HEAD + "train: {seed: " + text + "}")


@examples(100)
@given(st.binary(max_size=50))
def test_bytes_are_refused(data):
    assert isinstance(load(data), str)


KEYS = [".".join(map(str, place)) for raw in WHOLE for place in places(raw) if place]


@examples(200)
@given(
    st.lists(
        st.builds(
            "{}{}{}".format,
            st.sampled_from([*KEYS, "", ".", "..", "data.", ".data", "data.train.x", "base", "a\nb", "a" * 3000]),
            st.sampled_from(["=", "=", "=", "", "==", " = "]),
            st.lists(st.sampled_from(TOKENS), max_size=4).map("".join) | st.sampled_from(ODD_TEXT),
        )
        | st.text(max_size=10),
        max_size=3,
    )
)
def test_any_override_is_taken_or_refused(overrides):
    load(yaml.safe_dump(WHOLE[0]), overrides)


def doubling(levels: int, last: str) -> str:
    """Each line stands for ten of the line before."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join([HEAD, *lines, last.format(f"*a{levels - 1}")])


def doubling_keys(levels: int) -> str:
    lines = [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, levels)]
    return "\n".join([HEAD, "a0: &a0 {k: v}", *lines])


BOMBS = {
    "a billion laughs": doubling(9, ""),
    "in a setting": doubling(9, "train: {}"),
    "in merged keys": doubling_keys(9),
    "of long text": HEAD + "a: &a " + "x" * 100_000 + "\ntrain: [" + "*a, " * 10_000 + "]",
    "a list in itself": HEAD + "train: &a [*a]",
    "a mapping in itself": HEAD + "train: &a {epochs: *a}",
    "a key in itself": HEAD + "? &a [*a]\n: 1",
    "deep lists": HEAD + "train: " + "[" * 100_000,
    "deep mappings": HEAD + "train: " + "{a: " * 250 + "1" + "}" * 250,
    "a number of a million digits": HEAD + "train: {seed: " + "9" * 1_000_000 + "}",
    "a long file": HEAD + "# no end" * 1_000_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_would_take_all_time_or_memory_is_refused(name):
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert isinstance(load(BOMBS[name]), str)
    assert time.monotonic() - started < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 2**10  # KiB


def test_aliases_are_taken():
    config = load("data: {train: &f t, valid: *f, item_info: i}\nmodel: {dcn: {deep: &w [8, 4]}, head: *w}")
    assert (config.data.valid, config.model.dcn.deep, config.model.head) == ("t", (8, 4), (8, 4))


@pytest.mark.parametrize(
    "base", ["c.yaml", "./../{}/c.yaml", ".", "..", "missing.yaml", "", "~", "[c.yaml]", "loop.yaml"]
)
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_base_that_is_none_is_refused(tmp_path, base, quote):
    (tmp_path / "c.yaml").write_text(HEAD + f"base: {quote}{base.format(tmp_path.name)}{quote}")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    with pytest.raises(InputError, match="c.yaml"):
        load_config(tmp_path / "c.yaml")


@examples(50)
@given(ANYTHING)
def test_any_base_is_refused(base):
    assert isinstance(load(yaml.safe_dump({"base": base}, allow_unicode=True) + HEAD), str)


def test_bases_in_a_ring_are_refused(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.yaml").write_text(f"base: {(i + 1) % 5}.yaml")
    with pytest.raises(InputError, match="leads back to itself"):
        load_config(tmp_path / "0.yaml")


@pytest.mark.parametrize("text", ODD_TEXT[1:12])
def test_text_that_looks_like_another_type_stays_text(text):
    """A file may be called 5e-4; the resolved config must say so, too."""
    assert load(f"data: {{train: '{text}', valid: v, item_info: i}}").data.train == text
