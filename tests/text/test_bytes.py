"""Text as bytes, and the encoder over them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.modules import apply, init
from vidflow.errors import UsageError
from vidflow.text import byte_tokens
from vidflow.text.byte_encoder import ByteEncoder


def test_bytes_follow_a_start_token_and_padding_fills_up():
    ids = byte_tokens.tokenize(["ab", ""], 5)
    np.testing.assert_array_equal(ids, [[1, 2 + ord("a"), 2 + ord("b"), 0, 0], [1, 0, 0, 0, 0]])
    assert byte_tokens.tokenize(["é漢"], 8)[0, 1:6].tolist() == [2 + b for b in "é漢".encode()]
    assert ids.max() < byte_tokens.VOCABULARY


def test_half_a_surrogate_pair_is_refused():
    with pytest.raises(UsageError, match="surrogate pair at character 2"):
        byte_tokens.tokenize(["a \ud800"], 8)


def test_a_text_that_does_not_fit_is_refused_and_named():
    assert byte_tokens.tokenize(["abcd"], 5).shape == (1, 5)
    with pytest.raises(UsageError, match=r"'abcde.*5 bytes and the model reads 4"):
        byte_tokens.tokenize(["a", "abcde"], 5)


def tokens_of(*texts, length=16):
    return jnp.asarray(byte_tokens.tokenize(texts, length))


def encoder():
    module = ByteEncoder(width=16, layers=2, heads=4, length=16, stride=4)
    ids = tokens_of("hello", "")
    return module, init(module, ids)


def test_tokens_cover_their_bytes_and_the_empty_text_has_one():
    module, params = encoder()
    tokens, segment = apply(module, params, tokens_of("", "abc", "abcd", "hello wor"))
    assert tokens.shape == (4, 4, 16)
    np.testing.assert_array_equal(segment, [[1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]])


def test_every_byte_of_a_text_reaches_every_token_of_it():
    module, params = encoder()
    one = tokens_of("abcdefghij")
    tokens = apply(module, params, one)[0]
    for place in range(10):
        changed = one.at[0, 1 + place].set(2 + ord("#"))
        difference = np.abs(np.asarray(apply(module, params, changed)[0] - tokens)).max(axis=-1)[0]
        assert (difference[:3] > 1e-6).all(), place


def test_padding_beyond_the_text_does_not_change_it():
    module, params = encoder()
    short = tokens_of("abc", length=8)
    long = tokens_of("abc")
    np.testing.assert_allclose(apply(module, params, short)[0][:, :1], apply(module, params, long)[0][:, :1], atol=1e-5)


def test_gradients_reach_the_encoder():
    module, params = encoder()
    ids = tokens_of("a red star")
    gradient = jax.jit(jax.grad(lambda p: jnp.square(module.apply(p, ids)[0][:, 0, :3]).sum()))(params)
    assert all(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient))
