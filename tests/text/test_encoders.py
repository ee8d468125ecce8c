"""Towers of text against what transformers computes with the same weights, and folders that are not whole."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.text import published
from tests.text.published import GOLDENS
from vidflow.errors import UsageError
from vidflow.tasks.slimming import slim
from vidflow.text import load_encoder, pretrained
from vidflow.text.clip import longer
from vidflow.text.pretrained import ROWS, digest
from vidflow.text.t5 import T5Encoder

TEXTS = published.TEXTS
LENGTH = 40
POSITIONS = "text_model.embeddings.position_embedding.weight"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    return {name: published.folder(name, root / name) for name in published.MODELS}


def _encoder(folders, name, **how):
    return load_encoder(folders[name], **({} if name.startswith("clip") else {"tokens": LENGTH}), **how)


@pytest.mark.parametrize("name", published.MODELS)
def test_embeddings_are_those_of_transformers(folders, name):
    embeddings, mask = _encoder(folders, name).encode(TEXTS)
    golden = published.golden(name)
    assert embeddings.dtype == np.float32 and (mask == golden["mask"]).all()
    difference = np.abs(embeddings - golden["embeddings"])[mask]
    assert difference.max() < 1e-5
    assert (embeddings[~mask] == 0).all()


@pytest.mark.parametrize("name", ["clip", "clip_projection", "clip_both_towers"])
def test_clip_says_the_same_of_a_text_as_a_whole(folders, name):
    np.testing.assert_allclose(_encoder(folders, name).pooled(TEXTS), published.golden(name)["pooled"], atol=1e-5)


def test_only_clip_says_something_of_a_text_as_a_whole(folders):
    with pytest.raises(UsageError, match="Only CLIP"):
        _encoder(folders, "t5").pooled(TEXTS)


def test_neither_the_others_of_a_call_nor_their_order_change_an_embedding(folders):
    encoder = _encoder(folders, "t5")
    texts = [f"{'word ' * (n % 9)}{n}" for n in range(2 * ROWS + 3)]
    together, mask = encoder.encode(texts)
    for row in (0, 40, len(texts) - 1):
        alone, own = encoder.encode([texts[row]])
        assert mask[row].sum() == own.sum()
        np.testing.assert_allclose(together[row][mask[row]], alone[own], atol=1e-5)


def test_a_batch_has_no_more_rows_than_asked_for(folders):
    rows = set()

    def note(following, args, kwargs, context):
        if isinstance(context.module, T5Encoder):
            rows.add(args[0].shape[0])
        return following(*args, **kwargs)

    texts = [str(n) for n in range(41)]
    with nn.intercept_methods(note):
        found, _ = _encoder(folders, "t5", rows=24).encode(texts)
    assert max(rows) == 24
    np.testing.assert_allclose(found, _encoder(folders, "t5").encode(texts)[0], atol=1e-5)


def test_no_text_is_no_row(folders):
    embeddings, mask = _encoder(folders, "t5").encode([])
    assert embeddings.shape == (0, 0, 32) and mask.shape == (0, 0)


def test_half_precision_is_near(folders):
    full, mask = _encoder(folders, "umt5").encode(TEXTS)
    half, _ = _encoder(folders, "umt5", dtype="bfloat16").encode(TEXTS)
    assert 0 < np.abs(half - full)[mask].max() < 0.1 * np.abs(full).max()


@pytest.mark.parametrize(("dtype", "wanted"), [("float32", "highest"), ("bfloat16", None)])
def test_products_of_float32_are_not_rounded_where_they_would_be(folders, dtype, wanted):
    asked = set()

    def note(following, args, kwargs, context):
        asked.add(jax.config.jax_default_matmul_precision)
        return following(*args, **kwargs)

    encoder = _encoder(folders, "t5", dtype=dtype)
    with nn.intercept_methods(note):
        encoder.encode(["a circle"])
    assert asked == {wanted}


def test_a_stretched_table_of_positions_keeps_its_ends_and_lets_texts_be_longer(folders):
    positions = published.tensors("clip")[POSITIONS]
    stretched = longer(positions, 58)
    np.testing.assert_allclose(stretched[::3], positions, atol=1e-6)  # 58 - 1 = 3 (20 - 1)
    np.testing.assert_allclose(stretched[1], (2 * positions[0] + positions[1]) / 3, atol=1e-6)
    encoder = load_encoder(folders["clip"], tokens=58)
    np.testing.assert_array_equal(encoder.params["params"]["position"], stretched)
    _, mask = encoder.encode(["a circle " * 100])
    assert mask.sum() == 58


def test_gradients_reach_every_parameter(folders):
    for name in ("clip_projection", "t5", "umt5"):
        encoder = _encoder(folders, name)
        ids = jax.random.randint(jax.random.key(0), (2, 12), 3, 300)

        def loss(params, encoder=encoder, ids=ids):
            found = encoder.module.apply(params, ids, jnp.arange(12) < jnp.array([[12], [7]]))
            return sum(jnp.square(x).sum() for x in (found if isinstance(found, tuple) else (found,)))

        for path, leaf in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(encoder.params)):
            place = jax.tree_util.keystr(path, simple=True, separator="/")
            assert np.abs(leaf).max() > 0 or place.endswith("key/bias"), (name, place)


def _sharded(folder, shards):
    """The same weights as a large model has them: in several files and an index."""
    whole = load_file(folder / "model.safetensors")
    place = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: whole[name] for name in sorted(whole)[number::shards]}
        save_file(part, folder / file)
        place |= dict.fromkeys(part, file)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
    return folder


def test_shards_are_the_whole(tmp_path, folders):
    shards = load_encoder(_sharded(published.folder("umt5", tmp_path / "umt5"), 3), tokens=LENGTH)
    np.testing.assert_array_equal(shards.encode(TEXTS)[0], _encoder(folders, "umt5").encode(TEXTS)[0])


def _changed(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


FIRST = "encoder.block.0.layer.0.SelfAttention.k.weight"


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda f: _changed(f, lambda t: t.pop(FIRST)), f"no tensor '{FIRST}'"),
        (lambda f: _changed(f, lambda t: t.update({FIRST: t[FIRST][:5]})), r"k.weight' is \(5, 32\) and .*\(32, 32\)"),
        (lambda f: _changed(f, lambda t: t.update({"encoder.more": t[FIRST]})), "hold 'encoder.more'"),
        (lambda f: _changed(f, lambda t: t.update({FIRST: t[FIRST].astype(np.int8)})), "is I8: vidflow reads F32"),
        (lambda f: _cut(f / "model.safetensors"), "not a whole safetensors file"),
        (lambda f: _cut(_sharded(f, 2) / "model-00002-of-00002.safetensors"), "not a whole safetensors file"),
        (lambda f: (_sharded(f, 2) / "model-00002-of-00002.safetensors").unlink(), "00002.safetensors is missing"),
        (lambda f: (f / "model.safetensors").unlink(), "holds neither model.safetensors nor"),
        (lambda f: _indexed(f, {"weight_map": []}), "index.json lists no tensors"),
        (lambda f: (f / "config.json").unlink(), "cannot be read"),
        (lambda f: _told(f, {"relative_attention_num_buckets": 2}), "describes what cannot be built"),
        (lambda f: _told(f, {"vocab_size": "700"}), "a tower with vocabulary='700'"),
        (lambda f: _told(f, {"num_layers": 0}), "a tower with layers=0"),
        (lambda f: _told(f, {"feed_forward_proj": None}), "describes what cannot be built"),
        (lambda f: _told(f, {"vocab_size": 600}), "700 words and the encoder 600"),
        (lambda f: (f / "config.json").write_text('{"model_type": "llama"}'), "of type 'llama': vidflow reads"),
        (lambda f: (f / "config.json").write_text('{"model_type": "t5"}'), "'relu': vidflow reads 'gated-gelu'"),
        (lambda f: (f / "spiece.model").unlink(), "holds no tokenizer"),
    ],
)
def test_a_folder_that_is_not_whole_says_what_is_wrong(tmp_path, spoil, why):
    folder = published.folder("t5", tmp_path / "t5")
    spoil(folder)
    with pytest.raises(UsageError, match=why):
        load_encoder(folder)


@pytest.mark.parametrize("shape", [(5, 32), (1, 32), (20, 20), (640,)])
@pytest.mark.parametrize("tokens", [0, 58])
def test_a_table_of_positions_of_another_shape_is_refused_where_it_is_stretched_too(tmp_path, shape, tokens):
    folder = published.folder("clip", tmp_path / "clip")
    _changed(folder, lambda t: t.update({POSITIONS: np.zeros(shape, np.float32)}))
    with pytest.raises(UsageError, match=r"position_embedding.weight' is .* and config.json asks for \(20, 32\)"):
        load_encoder(folder, tokens=tokens)


@pytest.mark.parametrize("name", ["clip_projection", "clip_both_towers"])
def test_a_projection_that_is_not_there_is_missed(tmp_path, name):
    folder = published.folder(name, tmp_path / name)
    _changed(folder, lambda t: t.pop("text_projection.weight"))
    if name == "clip_projection":  # with which config.json is saved; that of the goldens never was
        _told(folder, {"architectures": ["CLIPTextModelWithProjection"]})
    with pytest.raises(UsageError, match="no tensor 'text_projection.weight'"):
        load_encoder(folder)


def test_an_embedding_under_its_other_name_is_read(tmp_path, folders):
    folder = published.folder("t5", tmp_path / "t5")
    _changed(folder, lambda t: t.update({"encoder.embed_tokens.weight": t.pop("shared.weight")}))
    wanted = _encoder(folders, "t5").encode(TEXTS)[0]
    np.testing.assert_array_equal(load_encoder(folder, tokens=LENGTH).encode(TEXTS)[0], wanted)
    slim(folder, tmp_path / "slim", np.float32)
    np.testing.assert_array_equal(load_encoder(tmp_path / "slim", tokens=LENGTH).encode(TEXTS)[0], wanted)


@pytest.mark.parametrize("change", [{"max_position_embeddings": None}, {"text_config": None}, {"hidden_act": ["a"]}])
def test_values_of_another_kind_in_the_config_of_a_clip_are_refused(tmp_path, change):
    folder = published.folder("clip", tmp_path / "clip")
    _told(folder, change)
    with pytest.raises(UsageError, match="config.json describes"):
        load_encoder(folder, tokens=58)


def _indexed(folder, index):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _told(folder, change):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))


def _cut(file):
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize("dtype", ["float16", "bf16"])
def test_other_precisions_are_refused(folders, dtype):
    with pytest.raises(UsageError, match=f"float32 or bfloat16, not in {dtype}"):
        load_encoder(folders["t5"], dtype=dtype)
    with pytest.raises(UsageError, match=f"float32 or bfloat16, not in {dtype}"):
        digest(folders["t5"], dtype=dtype, tokens=20)


@pytest.mark.parametrize("tokens", [1, -3])
def test_too_few_tokens_are_refused(folders, tokens):
    with pytest.raises(UsageError, match=f"2 tokens or more of a text, not {tokens}"):
        load_encoder(folders["clip"], tokens=tokens)


def test_a_batch_of_no_rows_is_refused(folders):
    with pytest.raises(UsageError, match="one row or more, not -1"):
        load_encoder(folders["t5"], rows=-1)


def test_heads_that_do_not_divide_the_width_are_refused(tmp_path):
    folder = published.folder("clip", tmp_path / "clip")
    _told(folder, {"num_attention_heads": 5})
    with pytest.raises(UsageError, match="describes what cannot be built"):
        load_encoder(folder)


def test_a_digest_tells_apart_all_that_changes_an_embedding(tmp_path, monkeypatch):
    folder = published.folder("t5", tmp_path / "t5")
    how = {"dtype": "float32", "tokens": 20}
    first = digest(folder, **how)
    assert first == digest(published.folder("t5", tmp_path / "again" / "t5"), **how)
    others = [digest(folder, **how | {"tokens": 21}), digest(folder, **how | {"dtype": "bfloat16"})]
    _changed(folder, lambda t: t.update({FIRST: t[FIRST] + 1}))
    others.append(digest(folder, **how))
    (folder / "spiece.model").write_bytes((GOLDENS / "tokenizers" / "umt5" / "spiece.model").read_bytes())
    others.append(digest(folder, **how))
    monkeypatch.setattr(pretrained, "REVISION", pretrained.REVISION + 1)
    others.append(digest(folder, **how))
    assert len({first, *others}) == 6


def test_a_tokenizer_beside_the_encoder_is_found(tmp_path):
    folder = published.folder("t5", tmp_path / "text_encoder_2")
    (tmp_path / "tokenizer_2").mkdir()
    for other in ("vocab.json", "merges.txt"):  # an encoder's own counts more than one beside it
        (tmp_path / "tokenizer_2" / other).write_text("no vocabulary")
    assert load_encoder(folder).encode(["fine"])[1].any()
    for other in (tmp_path / "tokenizer_2").iterdir():
        other.unlink()
    (folder / "spiece.model").rename(tmp_path / "tokenizer_2" / "spiece.model")
    assert load_encoder(folder).encode(["fine"])[1].any()
    slim(folder, tmp_path / "slim", np.float32)  # a copy has it with it
    assert load_encoder(tmp_path / "slim").encode(["fine"])[1].any()
