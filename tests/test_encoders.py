"""Pretrained models as encoders: tiny ones, made here, saved, and loaded as any other would be."""

import json
import os
import pickle
import shutil
import socket
import struct
import sys

import numpy as np
import pytest
from item_folders import contents, missing_in, vectors_of, write_folder

torch = pytest.importorskip("torch", reason="encoders are optional (the extra `embed`)")
transformers = pytest.importorskip("transformers", reason="encoders are optional (the extra `embed`)")
Image = pytest.importorskip("PIL.Image", reason="encoders are optional (the extra `embed`)")

from mmctr_jax.embed import encoders, pretrained, resumable  # noqa: E402
from mmctr_jax.embed.item_file import read_item_file  # noqa: E402
from mmctr_jax.embed.pipeline import embed  # noqa: E402
from mmctr_jax.errors import InputError  # noqa: E402

torch.set_num_threads(1)  # models so small are slower on more

WORDS = ["red", "blue", "green", "cat", "dog", "bird", "runs", "sleeps", "sings", "big", "small", "old", "new"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
LIMIT = 14  # positions of BERT; two fewer tokens are used where a tokenizer states no limit
ITEMS = 23


def save_tokenizer(folder, **options):
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"} | options))


def save_bert(folder):
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=len(VOCABULARY), max_position_embeddings=LIMIT, **TINY)
    transformers.BertModel(config).save_pretrained(folder)
    save_tokenizer(folder, padding_side="left")
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "clip"
    torch.manual_seed(0)
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    text = {"vocab_size": len(words), "max_position_embeddings": 40, "bos_token_id": 52, "eos_token_id": 53}
    vision = {"image_size": 16, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=TINY | text, vision_config=TINY | vision, projection_dim=8)
    transformers.CLIPModel(config).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": words[-2], "eos_token": words[-1], "unk_token": words[-1], "pad_token": words[-1]}
    tokenizer = special | {"tokenizer_class": "CLIPTokenizer", "model_max_length": 40}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    sizes = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    processor = {"image_processor_type": "CLIPImageProcessor"} | sizes
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.fixture
def titles():
    rng = np.random.default_rng(0)
    titles = [" ".join(rng.choice(WORDS, rng.integers(1, 20))) for _ in range(ITEMS)]
    titles[4], titles[9] = None, " "
    return titles


@pytest.fixture
def folder(tmp_path, titles):
    return write_folder(tmp_path / "data", titles)


@pytest.fixture
def pictures(tmp_path):
    """Of every item but the third and fourth; the fifth's is damaged."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(ITEMS):
        if i not in (2, 3):
            pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{1001 + i}.{'png' if i % 2 else 'PNG'}")
    whole = (folder / "1005.PNG").read_bytes()
    (folder / "1005.PNG").write_bytes(whole[: len(whole) // 2])
    (folder / "unrelated.png").write_bytes(b"")
    return folder


def mean_by_hand(model, text, limit=None):
    """Mean over the tokens of one text alone: no batch, no padding, no mask."""
    ids = [2, *[VOCABULARY.index(word) for word in text.split()][:limit], 3]
    with torch.no_grad():
        return model(torch.tensor([ids])).last_hidden_state[0].mean(0).numpy()


def clip_pixels(file):
    mean, deviation = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    pixels = (np.asarray(Image.open(file).convert("RGB")) / 255 - mean) / deviation
    return torch.tensor(pixels.transpose(2, 0, 1)[None], dtype=torch.float32)


# What is computed


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_bert_gives_the_mean_over_a_texts_tokens_however_it_is_batched(bert, folder, titles, batch_size):
    part = encoders.text_part(read_item_file(folder), str(bert), batch_size, download=False)
    model = transformers.BertModel.from_pretrained(bert).eval()
    assert part.vectors.shape == (ITEMS, 16)
    for title, vector in zip(titles, part.vectors, strict=True):
        if title and title.strip():
            np.testing.assert_allclose(vector, mean_by_hand(model, title, LIMIT - 4), atol=1e-5)
        else:
            assert not vector.any()


def test_clip_gives_its_projected_features_of_texts_and_pictures(clip, folder, pictures, titles):
    item_file = read_item_file(folder)
    text = encoders.text_part(item_file, str(clip), 5, download=False)
    image = encoders.image_part(item_file, str(clip), pictures, 5, download=False)
    model = transformers.CLIPModel.from_pretrained(clip).eval()
    with torch.no_grad():
        for row in (0, 5, 6, 22):
            letters = [c for word in titles[row].split() for c in [*word[:-1], word[-1] + "</w>"]]
            vocabulary = json.loads((clip / "vocab.json").read_text())
            ids = torch.tensor([[52, *[vocabulary[c] for c in letters][:38], 53]])
            expected = model.text_projection(model.text_model(input_ids=ids).pooler_output)[0].numpy()
            np.testing.assert_allclose(text.vectors[row], expected, atol=1e-5)
            file = next(pictures.glob(f"{1001 + row}.*"))
            pooled = model.vision_model(pixel_values=clip_pixels(file)).pooler_output
            np.testing.assert_allclose(image.vectors[row], model.visual_projection(pooled)[0].numpy(), atol=1e-5)


def test_other_kinds_of_models(folder, pictures, tmp_path, titles):
    """An encoder with a decoder; a half-precision checkpoint; a vision model whose pooler was never trained."""
    item_file = read_item_file(folder)
    t5 = transformers.T5Config(
        vocab_size=len(VOCABULARY), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    torch.manual_seed(0)
    transformers.T5Model(t5).save_pretrained(tmp_path / "t5")
    save_tokenizer(tmp_path / "t5", model_input_names=["input_ids", "attention_mask"])
    vectors = encoders.text_part(item_file, str(tmp_path / "t5"), 8, download=False).vectors
    model = transformers.T5EncoderModel.from_pretrained(tmp_path / "t5").eval()
    np.testing.assert_allclose(vectors[0], mean_by_hand(model, titles[0]), atol=1e-5)

    bert = transformers.BertConfig(vocab_size=len(VOCABULARY), max_position_embeddings=LIMIT, **TINY)
    transformers.BertModel(bert).to(torch.bfloat16).save_pretrained(tmp_path / "half")
    save_tokenizer(tmp_path / "half")
    vectors = encoders.text_part(item_file, str(tmp_path / "half"), 8, download=False).vectors
    model = transformers.BertModel.from_pretrained(tmp_path / "half").float().eval()
    np.testing.assert_allclose(vectors[0], mean_by_hand(model, titles[0], LIMIT - 4), atol=1e-5)

    vit = transformers.ViTConfig(image_size=16, patch_size=8, **TINY)
    transformers.ViTModel(vit, add_pooling_layer=False).save_pretrained(tmp_path / "vit")
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 16, "width": 16},
        "do_normalize": False,
    }
    (tmp_path / "vit" / "preprocessor_config.json").write_text(json.dumps(processor))
    part = encoders.image_part(item_file, str(tmp_path / "vit"), pictures, 8, download=False)
    model = transformers.ViTModel.from_pretrained(tmp_path / "vit", add_pooling_layer=False).eval()
    pixels = np.asarray(Image.open(next(pictures.glob("1001.*")))).transpose(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = model(torch.tensor(pixels, dtype=torch.float32)).last_hidden_state[0].mean(0)
    np.testing.assert_allclose(part.vectors[0], expected.numpy(), atol=1e-5)
    again = encoders.image_part(item_file, str(tmp_path / "vit"), pictures, 8, download=False)
    assert again.sha256 == part.sha256


def test_texts_and_pictures_become_one_column(bert, clip, folder, pictures, capsys):
    done = embed(folder, str(bert), str(clip), pictures, dim=5)
    assert missing_in(folder) == {3: "image", 4: "image", 5: "text+image", 10: "text"}
    vectors = vectors_of(folder, "item_emb_d5")
    assert not vectors[[0, 5]].any() and np.delete(vectors, [0, 5], axis=0).any(axis=1).all()
    text, image = done["parts"]
    assert (text["width"], text["missing"], image["width"], image["missing"], image["unreadable"]) == (16, 2, 8, 3, 1)
    output = capsys.readouterr().out
    assert "1 pictures cannot be read, the first is" in output and "1005.PNG" in output
    assert "1 items are without any embedding, their vectors are zero: 1005" in output


# Interruptions


@pytest.fixture
def calls(monkeypatch):
    """Batches that went through a text model, as numbers of texts; small chunks."""
    seen, original = [], encoders._text_vectors
    monkeypatch.setattr(resumable, "_CHUNK_BATCHES", 2)

    def counting(model, inputs):
        if len(seen) == counting.stop_at:
            raise KeyboardInterrupt
        seen.append(len(inputs["input_ids"]))
        return original(model, inputs)

    counting.stop_at = None
    monkeypatch.setattr(encoders, "_text_vectors", counting)
    return seen, counting


def test_an_interrupted_encoding_goes_on_to_the_same_bytes(bert, titles, tmp_path, calls):
    seen, encoder = calls
    whole = write_folder(tmp_path / "whole" / "data", titles)
    embed(whole, str(bert), dim=5, batch_size=3)
    assert sum(seen) == ITEMS - 2
    expected = contents(whole)
    parts = write_folder(tmp_path / "parts" / "data", titles)
    untouched = contents(parts)
    for stop_at in (0, 3, 4):  # before anything, in the middle of the second chunk, before the last one
        seen.clear()
        encoder.stop_at = stop_at
        with pytest.raises(KeyboardInterrupt):
            embed(parts, str(bert), dim=5, batch_size=3)
        assert untouched.items() <= contents(parts).items()
    encoder.stop_at = None
    embed(parts, str(bert), dim=5, batch_size=3)
    assert contents(parts) == expected


def test_no_chunk_is_encoded_twice(bert, folder, calls):
    seen, encoder = calls
    encoder.stop_at = 5  # two chunks of two batches are done, half of the third is lost
    with pytest.raises(KeyboardInterrupt):
        embed(folder, str(bert), dim=5, batch_size=3)
    seen.clear()
    encoder.stop_at = None
    embed(folder, str(bert), dim=5, batch_size=3)
    assert sum(seen) == ITEMS - 2 - 12
    seen.clear()
    embed(folder, str(bert), dim=4, whiten=True, l2=["result"], out=folder / "other.parquet")
    assert not seen


def test_killed_between_rows_and_their_count(bert, folder, titles, tmp_path, monkeypatch):
    other = write_folder(tmp_path / "other" / "data", titles)
    expected = np.array(encoders.text_part(read_item_file(other), str(bert), 3, download=False).vectors)
    monkeypatch.setattr(resumable, "_CHUNK_BATCHES", 2)
    counted, original = [], resumable._write_progress

    def killed(*arguments):
        if len(counted) == 2:
            raise KeyboardInterrupt
        counted.append(original(*arguments))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(resumable, "_write_progress", killed)
        encoders.text_part(read_item_file(folder), str(bert), 3, download=False)
    vectors = encoders.text_part(read_item_file(folder), str(bert), 3, download=False).vectors
    assert vectors.tobytes() == expected.tobytes()


@pytest.mark.parametrize("damage", ["text", "weights", "vectors", "count", "all"])
def test_what_does_not_fit_is_encoded_anew(bert, folder, titles, tmp_path, calls, damage):
    seen, _ = calls
    model = save_bert(tmp_path / "bert")
    embed(folder, str(model), dim=5, out=tmp_path / "x.parquet")
    seen.clear()
    (kept,) = (folder / ".embed").iterdir()
    if damage == "text":
        folder = write_folder(tmp_path / "new" / "data", ["old cat", *titles[1:]])
        kept.parent.rename(folder / ".embed")
    elif damage == "weights":
        transformers.BertModel(transformers.BertConfig.from_pretrained(model)).save_pretrained(model)
    elif damage == "vectors":
        os.truncate(kept / "vectors.f32", 100)
    elif damage == "count":
        (kept / "progress.json").write_text("{")
    else:
        os.remove(kept / "vectors.f32")
    embed(folder, str(model), dim=5, out=tmp_path / "y.parquet")
    assert sum(seen) == ITEMS - 2


def test_a_picture_that_changes_is_encoded_anew(clip, folder, pictures):
    before = encoders.image_part(read_item_file(folder), str(clip), pictures, 8, download=False)
    Image.new("RGB", (16, 16), "red").save(pictures / "1001.PNG")
    after = encoders.image_part(read_item_file(folder), str(clip), pictures, 8, download=False)
    changed = (before.vectors != after.vectors).any(axis=1)
    assert changed[0] and not changed[1:].any()


# Refusals


def test_without_download_the_network_is_left_alone(bert, folder, tmp_path, monkeypatch):
    asked = []

    def forbidden(*arguments):
        asked.append(arguments)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    monkeypatch.setattr(socket.socket, "connect", forbidden)
    before = contents(folder)
    for name in ("no-such-model", "nobody/no-such-model"):
        with pytest.raises(InputError, match=f"Model {name} is not on this computer.* --download"):
            embed(folder, text=name)
    with pytest.raises(InputError, match="Model folder ./none does not exist"):
        embed(folder, text="./none")
    assert contents(folder) == before
    repository = tmp_path / "cache" / "models--nobody--some-model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(bert, repository / "snapshots" / ("0" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in (str(bert), "nobody/some-model"):
        embed(folder, text=name, dim=5, out=tmp_path / "out.parquet")
    assert not asked


def rewrite(folder, change):
    """Changes the tensors of a checkpoint; the format is a JSON header and the bytes."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def test_models_that_would_make_vectors_up(folder, tmp_path):
    model = save_bert(tmp_path / "bert")

    def refused(words):
        before = contents(folder)
        with pytest.raises(InputError, match=words):
            embed(folder, text=str(model), dim=5)
        assert contents(folder) == before

    (model / "vocab.txt").write_text("\n".join(VOCABULARY[:5]) + "\n")
    refused("knows no word of any title")
    (model / "vocab.txt").write_text("\n".join([*VOCABULARY[:5], *["x"] * 100, *WORDS]) + "\n")
    refused("cannot encode the titles")
    save_bert(model)
    rewrite(model, lambda tensors: tensors["embeddings.word_embeddings.weight"].fill_(float("nan")))
    refused("NaN or infinite numbers for item 10")
    rewrite(model, lambda tensors: tensors.pop("encoder.layer.1.output.dense.weight"))
    refused("no weights for encoder.layer.1.output.dense.weight")
    (model / "model.safetensors").write_bytes(struct.pack("<Q", 10**9))
    refused("cannot be loaded")
    (model / "config.json").write_text("{}")
    refused("cannot be loaded")


class _Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_nothing_but_tensors_is_unpickled_and_no_code_is_run(folder, tmp_path):
    model = save_bert(tmp_path / "bert")
    (model / "model.safetensors").unlink()
    torch.save({"x": _Bomb(tmp_path / "boom")}, model / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be loaded"):
        embed(folder, text=str(model))
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(_Bomb(tmp_path / "boom")))
    with pytest.raises(InputError, match="cannot be loaded"):
        embed(folder, text=str(model))
    config = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModel": "mine.M"}}
    (model / "config.json").write_text(json.dumps(config))
    (model / "mine.py").write_text(f"open({str(tmp_path / 'boom')!r}, 'w')\n")
    with pytest.raises(InputError, match="cannot be loaded"):
        embed(folder, text=str(model))
    assert not (tmp_path / "boom").exists()


def test_pictures_that_cannot_be_taken(bert, clip, folder, pictures, tmp_path):
    def refused(words, model=clip):
        with pytest.raises(InputError, match=words):
            embed(folder, image=str(model), pictures=pictures, dim=2)

    refused("cannot be loaded", model=bert)  # has no image processor
    (pictures / "1001.jpeg").write_bytes(b"")
    refused("two pictures of one item, 1001.PNG and 1001.jpeg")
    for file in pictures.iterdir():
        file.write_bytes(b"no picture") if file.suffix != ".jpeg" else file.unlink()
    refused("gives no item a vector")
    for file in pictures.iterdir():
        file.unlink()
    refused("has no picture of any item, such as 1001.jpg")
    pictures.rmdir()
    refused("cannot be read")


def test_missing_packages_are_named(folder, bert, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match="pip install torch transformers pillow"):
        pretrained.load(str(bert), "AutoTokenizer", download=False)
