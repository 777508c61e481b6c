import pytest
from synthetic import merged, raw_config

from mmctr_jax.config import first_difference, load_config, parse_config, to_yaml
from mmctr_jax.errors import InputError

MINIMAL = {"data": {"train": "t", "valid": "v", "item_info": "i"}}


def refusal(change):
    with pytest.raises(InputError) as error:
        parse_config(merged(MINIMAL, change), "here")
    return str(error.value)


def test_defaults_are_the_published_model():
    config = parse_config(MINIMAL)
    assert config.item_width == 256 and config.model.transformer.first_k == 16
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
        ({"features": {"item_features": [{"kind": "tag", "name": "a"}]}}, ["'categorical', 'tags', 'embedding'"]),
        ({"train": {"batch_size": "128"}}, ["train.batch_size", "integer", '"128"']),
        ({"train": {"batch_size": 12.5}}, ["train.batch_size", "integer"]),
        ({"train": {"batch_size": 0}}, ["train.batch_size", "greater than or equal to 1"]),
        ({"train": {"epochs": None}}, ["train.epochs", "null"]),
        ({"train": {"learning_rate": float("nan")}}, ["train.learning_rate", "finite"]),
        ({"train": {"precision": "fp16"}}, ["train.precision", "'float32' or 'bfloat16'"]),
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


@pytest.mark.parametrize("text", ["012", "1:30", "0x10", "1_", "yes", "'1'", ".nan", ".inf", "1.2.3"])
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
    assert first_difference(a, b, ignore=("model.dcn.cross_layers", "train.epochs")) is None
