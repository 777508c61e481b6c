import pytest
from synthetic import merged, raw_config, resolved_config, width_of

from mmctr_jax.config import Config, load_config, parse_config, to_yaml
from mmctr_jax.config.differences import Marker, first_difference, marked_fields
from mmctr_jax.data.lengths import possible_training_lengths, scoring_lengths
from mmctr_jax.errors import InputError

MINIMAL = {"data": {"train": "t", "valid": "v", "item_info": "i"}}


CODES = {"kind": "codes", "name": "c", "source": "e", "dim": 3}


def refusal(change):
    with pytest.raises(InputError) as error:
        parse_config(merged(MINIMAL, change), "here")
    return str(error.value)


def test_defaults_are_the_published_model():
    config = parse_config(MINIMAL)
    assert width_of(config) == 256 and config.model.transformer.first_k == 16
    assert (config.train.batch_size, config.train.learning_rate, config.train.clip_norm) == (128, 5e-4, 10.0)
    assert (config.train.patience, config.train.lr_factor, config.train.seed) == (5, 0.1, 20242025)


def test_resolved_config_reads_back_to_itself(tmp_path):
    config = parse_config(raw_config(tmp_path))
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": {"learning_rat": 1}}, ["train.learning_rat", "did you mean train.learning_rate?"]),
        ({"trian": {}}, ["trian", "did you mean train?"]),
        ({"model": {"dcn": {"cros_layers": 2}}}, ["did you mean model.dcn.cross_layers?"]),
        ({"features": {"side": [{"nam": "age", "vocab_size": 3}]}}, ["features.side.0.nam", "features.side.0.name?"]),
        ({"features": {"item_features": [{"kind": "tags", "name": "a", "dim": 2}]}}, ["dim is not a known key"]),
        ({"features": {"item_features": [{"kind": "tag", "name": "a"}]}}, ["'categorical', 'numeric', 'tags'"]),
        ({"train": {"tables": "lazyadam"}}, ["train.tables.optimizer 'lazyadam'", "'adam', 'lazy_adam'"]),
        ({"train": {"tables": {"lr": 1}}}, ["train.tables.lr is not a known key", "optimizer, learning_rate, b1"]),
        ({"train": {"tables": {"optimizer": "sgd", "learning_rate": 0}}}, ["train.tables.learning_rate", "than 0"]),
        ({"train": {"batch_size": "128"}}, ["train.batch_size", "integer", '"128"']),
        ({"train": {"batch_size": 12.5}}, ["train.batch_size", "integer"]),
        ({"train": {"batch_size": 0}}, ["train.batch_size", "greater than or equal to 1"]),
        ({"train": {"epochs": None}}, ["train.epochs", "null"]),
        ({"train": {"learning_rate": float("nan")}}, ["train.learning_rate", "finite"]),
        ({"train": {"precision": "fp16"}}, ["train.precision", "'float32', 'tf32' or 'bfloat16'"]),
        ({"model": {"transformer": {"dropout": 1.0}}}, ["model.transformer.dropout", "less than 1"]),
        ({"model": {"transformer": {"heads": 7}}}, ["model.transformer.heads 7", "512"]),
        ({"model": {"transformer": {"first_k": 0, "max_pool": False}}}, ["first_k 0", "max_pool"]),
        ({"model": {"max_pool": True}}, ["model.max_pool is not a known key"]),
        ({"features": {"side": [{"name": "a", "vocab_size": 3}] * 2}}, ["'a' twice"]),
        ({"features": {"side": [{"name": "label", "vocab_size": 3}]}}, ["'label'"]),
        ({"data": {"train": 3}}, ["data.train", "string"]),
        ({"train": 3}, ["train", "object"]),
        ({"model": {"embedding": 64}}, ["model.embedding is not a known key", "model.embedding_dim?"]),
        ({"features": {"side": [{"name": "a", "vocab_size": 3, "tags": 1}]}}, ["features.side.0.tags is not"]),
        ({"train": {"batch_size": 2**40}}, ["train.batch_size", "1048576"]),
        ({"train": {"learning_rate": 1e-50}}, ["train.learning_rate"]),
        (
            {"model": {"name": "dinn"}},
            ["model.name 'dinn'", "'mmctr', 'without_transformer', 'without_dcn', 'din', 'matching'"],
        ),
        ({"model": 3}, ["model", "object"]),
        ({"model": {"name": None}}, ["model.name is missing"]),
        ({"features": {"item_features": [{"name": "a"}]}}, ["features.item_features.0.kind is missing"]),
        ({"features": {"item_features": [{"kind": "tags", "name": "e"}, CODES]}}, ["'c'", "'e'", "column of ids"]),
        ({"data": {"test_labels": "x"}}, ["data.test_labels", "data.test"]),
        (
            {"model": {"transformer": {"first_k": 0, "max_pool": False, "target_attention": 1}}},
            ["first_k 0", "unread", "layers"],
        ),
        (
            {"model": {"name": "din", "transformer": {"layers": 1}}},
            ["model.transformer is not a known key", "attention"],
        ),
        ({"model": {"name": "without_dcn", "dcn": {}}}, ["model.dcn is not a known key"]),
        ({"model": {"history_maks": "valid"}}, ["did you mean model.history_mask?"]),
        ({"model": {"transformer": {"target_attention": 5}}}, ["model.transformer.target_attention", "4"]),
        ({"model": {"transformer": {"heads": 512, "target_attention": 1}}}, ["heads 512", "item width 256"]),
        (
            {"model": {"transformer": {"similarity": True}}, "features": {"item_features": []}},
            ["model.transformer.similarity", "kind embedding"],
        ),
        (
            {
                "model": {"name": "without_transformer", "dcn": {"similarity_bins": 4}},
                "features": {"item_features": []},
            },
            ["model.dcn.similarity_bins"],
        ),
        ({"features": {"item_features": [CODES, {"kind": "embedding", "name": "e", "dim": 4}]}}, ["'e'", "3 and 4"]),
        ({"features": {"item_features": [CODES | {"levls": 2}]}}, ["did you mean features.item_features.0.levels?"]),
        ({"features": {"item_features": [CODES | {"levels": 0}]}}, ["features.item_features.0.levels"]),
        ({"train": {"length_buckets": [4, 2]}}, ["train.length_buckets [4, 2]", "sort"]),
        ({"train": {"length_buckets": [4, 128]}}, ["128", "model.max_history is 64"]),
        (
            {"model": {"history_mask": "released"}, "train": {"length_buckets": [4]}},
            ["train.length_buckets", "released", "drop one"],
        ),
        ({"features": {"weight": "label"}}, ["features.weight", "'label'", "name another column"]),
    ],
)
def test_a_wrong_setting_is_refused_in_one_sentence(change, words):
    message = refusal(change)
    assert message.startswith("here: ") and "\n" not in message
    for word in words:
        assert word in message


def test_a_missing_section_is_named():
    with pytest.raises(InputError, match="data.item_info is missing"):
        parse_config({"data": {"train": "t", "valid": "v"}})


def write(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return path


HEAD = "data: {train: t, valid: v, item_info: i}\n"


def test_overrides_reach_any_field_and_are_checked(tmp_path):
    path = write(tmp_path, HEAD)
    config = load_config(path, ["train.learning_rate=5e-3", "model.dcn.deep=[8, 4]", "train.eval_every=null"])
    assert (config.train.learning_rate, config.model.dcn.deep, config.train.eval_every) == (5e-3, (8, 4), None)
    config = load_config(path, ["features.side=[{name: age, vocab_size: 9}]"])
    assert config.features.side[0].name == "age"
    for wrong in (
        "train.batch_size=many",
        "train.batchsize=3",
        "train",
        "=3",
        "train.seed.x=3",
        "train.epochs=[",
        "data.train.x=1",
    ):
        with pytest.raises(InputError):
            load_config(path, [wrong])


@pytest.mark.parametrize(("text", "value"), [("5e-4", 5e-4), ("1E-3", 1e-3), ("0.01", 0.01), (".5", 0.5), ("1", 1.0)])
def test_numbers_are_read_as_everyone_writes_them(tmp_path, text, value):
    assert load_config(write(tmp_path, HEAD + f"train: {{learning_rate: {text}}}")).train.learning_rate == value


@pytest.mark.parametrize("text", ["1:30", "1e", "yes", "'1'", ".nan", ".inf", "1.2.3"])
def test_what_is_not_plainly_a_number_is_none(tmp_path, text):
    with pytest.raises(InputError):
        load_config(write(tmp_path, HEAD + f"train: {{learning_rate: {text}, batch_size: {text}}}"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD + "train: {epochs: 1, epochs: 2}", "'epochs' is given twice"),
        (HEAD + "train: [", "line 2"),
        ("just words", "not a mapping"),
        ("- 1\n- 2", "not a mapping"),
        ("", "data is missing"),
        (HEAD + "train: !!python/object/apply:os.getcwd []", "not valid YAML"),
        (HEAD + "train: {seed: 2020-01-01}", "train.seed"),
        ("data: {train: !!binary aGk=, valid: v, item_info: i}", "plain settings"),
    ],
)
def test_a_file_that_is_not_a_config_is_refused(tmp_path, text, words):
    with pytest.raises(InputError) as error:
        load_config(write(tmp_path, text))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere.yaml cannot be read"):
        load_config(tmp_path / "nowhere.yaml")


def test_first_difference_names_the_key():
    a = parse_config(MINIMAL)
    b = parse_config(merged(MINIMAL, {"train": {"epochs": 3}, "model": {"dcn": {"cross_layers": 1}}}))
    assert first_difference(a, a) is None
    assert first_difference(a, b) == "model.dcn.cross_layers: 3 ≠ 1"
    assert first_difference(a, b, ignoring=Marker.FREE_ON_RESUME) == "model.dcn.cross_layers: 3 ≠ 1"


def test_what_may_differ_is_said_at_the_fields():
    files = ["data.train", "data.valid", "data.test", "data.test_labels", "data.item_info", "data.cache_dir"]
    sizes = ["train.eval_batch_size", "train.checkpoint_every", "train.trackers"]
    on_resume = {*files, *sizes, "train.epochs", "train.patience"}
    assert set(marked_fields(Config, Marker.FREE_ON_RESUME)) == on_resume
    assert set(marked_fields(Config, Marker.FREE_IN_COMPARISON)) == {*files, *sizes}
    assert marked_fields(Config, Marker.FIXED_IN_SEARCH) == ["data.valid", "data.test", "data.test_labels"]
    longer = parse_config(merged(MINIMAL, {"train": {"epochs": 3}, "data": {"cache_dir": "elsewhere"}}))
    assert first_difference(parse_config(MINIMAL), longer, ignoring=Marker.FREE_ON_RESUME) is None
    found = first_difference(parse_config(MINIMAL), longer, ignoring=Marker.FREE_IN_COMPARISON)
    assert found == "train.epochs: 100 ≠ 3"


def test_without_a_name_the_model_is_the_full_one_and_each_has_its_own_settings():
    assert parse_config(MINIMAL).model.name == "mmctr"
    din = parse_config(merged(MINIMAL, {"model": {"name": "din", "activation": "dice"}})).model
    assert din.attention == (512, 256) and din.activation == "dice" and din.embedding_dim == 64
    assert not hasattr(din, "transformer")


def test_first_difference_of_two_kinds_of_model_is_their_name():
    din = parse_config(merged(MINIMAL, {"model": {"name": "din"}}))
    assert first_difference(parse_config(MINIMAL), din) == "model.name: mmctr ≠ din"


def write_at(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_a_config_lies_over_its_base(tmp_path):
    """Sections are merged, values and lists replaced; the base's path is relative to the file that names it."""
    write_at(tmp_path / "one.yaml", "data: {train: t, valid: v, item_info: i}\nmodel: {head: [9, 9], max_history: 5}")
    write_at(tmp_path / "sub" / "two.yaml", "base: ../one.yaml\nmodel: {head: [8]}\ntrain: {epochs: 3}")
    three = write_at(tmp_path / "sub" / "three.yaml", "base: two.yaml\ntrain: {epochs: 4}")
    config = load_config(three, ["train.seed=9"])
    assert (config.data.train, config.model.head, config.model.max_history) == ("t", (8,), 5)
    assert (config.train.epochs, config.train.seed) == (4, 9)
    assert load_config(write_at(tmp_path / "whole.yaml", to_yaml(config))) == config


def test_what_is_wrong_is_blamed_on_who_says_it(tmp_path):
    write_at(tmp_path / "base.yaml", "data: {train: t, valid: v, item_info: i}\ntrain: {epochs: two}")
    it = write_at(tmp_path / "it.yaml", "base: base.yaml\ntrain: {seed: 3}")
    with pytest.raises(InputError, match=r"^\S*/base\.yaml: train\.epochs: "):
        load_config(it)
    with pytest.raises(InputError, match=r"^Override train\.batch_size=q: train\.batch_size"):
        load_config(it, ["train.batch_size=q"])
    with pytest.raises(InputError, match=r"^\S*/it\.yaml: train\.seeds is not a known key"):
        load_config(write_at(tmp_path / "it.yaml", "base: base.yaml\ntrain: {seeds: 3, epochs: 1}"))
    with pytest.raises(InputError, match=r"Overrides are a list, such as \['train.epochs=1'\]"):
        load_config(it, "train.epochs=1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base: absent.yaml", "absent.yaml, the base of .*it.yaml, cannot be read"),
        ("base: it.yaml", "leads back to itself"),
        ("base: 3", "base must be the path"),
        ('base: "a\\0b"', "base must be the path"),
        ("base: list.yaml", "not a mapping"),
        ("base: typo.yaml", "train.epoch is not a known key; did you mean train.epochs?"),
    ],
)
def test_a_wrong_base_is_refused(tmp_path, text, words):
    write_at(tmp_path / "list.yaml", "[1, 2]")
    write_at(tmp_path / "typo.yaml", "data: {train: t, valid: v, item_info: i}\ntrain: {epoch: 3}")
    with pytest.raises(InputError, match=words):
        load_config(write_at(tmp_path / "it.yaml", text))


def test_the_lengths_that_batches_are_computed_at():
    def lengths(**change):
        config = resolved_config(change)
        settings = config.model, config.train
        return possible_training_lengths(*settings), scoring_lengths(*settings)

    def model(**settings):
        return {"max_history": 50, **settings}

    auto, short = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 50), {"length_buckets": None}
    assert lengths(model=model(), train=short) == (auto, auto)
    assert lengths(model=model(max_history=3), train=short) == ((1, 2, 3), (1, 2, 3))
    assert lengths(model=model(max_history=8), train=short) == ((1, 2, 3, 4, 6, 8), (1, 2, 3, 4, 6, 8))
    assert lengths(model=model(), train={"length_buckets": [2, 50]}) == ((2, 50), (2, 50))
    assert lengths(model=model(), train={"length_buckets": []}) == ((50,), (50,))
    # As released, padding counts; batch norm's means are taken over batches of all lengths.
    assert lengths(model=model(history_mask="released"), train=short) == ((50,), (50,))
    assert lengths(model=model(dcn={"batch_norm": True}), train=short) == ((50,), auto)
    assert lengths(model={"name": "din", "max_history": 50}, train=short) == ((50,), auto)
    assert lengths(model={"name": "din", "max_history": 50}, train={"length_buckets": [5]}) == ((5, 50), (5, 50))
