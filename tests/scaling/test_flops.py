"""The FLOP formula against what XLA counts in the unrolled program."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from vidflow.models.conditioning import Conditioning
from vidflow.models.design import DIT, MOVIE_GEN
from vidflow.models.dit import VideoTransformer
from vidflow.models.sizes import Size
from vidflow.scaling import flops
from vidflow.text.byte_encoder import ByteEncoder


def counted(module, *inputs):
    params = nn.unbox(jax.eval_shape(module.init, jax.random.key(0), *inputs))
    return jax.jit(module.apply).lower(params, *inputs).cost_analysis()["flops"]


@pytest.mark.parametrize(
    "design",
    [
        MOVIE_GEN,
        DIT._replace(text="cross_attention"),
        MOVIE_GEN._replace(text="in_context", time="in_context"),
        MOVIE_GEN._replace(time="cross_attention", positions="rotary", qk_norm=True),
    ],
)
def test_transformer_forward(design):
    size = Size(layers=1, width=256, heads=4, feed_forward=512)  # one layer: XLA counts the body of a loop once
    module = VideoTransformer(size, patch=(1, 2, 2), positions=(8, 8, 8), design=design)
    latents = jnp.zeros((1, 4, 16, 16, 4))
    text = Conditioning(jnp.zeros((1, 32, 64)), jnp.ones((1, 32), jnp.int32))
    formula = flops.transformer_forward(size, tokens=256, text_tokens=32, text_width=64, features=16, design=design)
    # The rest, about 3%, is norms, softmax and other element-wise work, which the formula leaves out.
    assert formula == pytest.approx(counted(module, latents, jnp.zeros(1), text), rel=0.05)


def test_transformer_forward_is_linear_in_layers_but_for_the_ends():
    def forward(layers):
        size = Size(layers, 256, 4, 512)
        return flops.transformer_forward(size, tokens=256, text_tokens=32, text_width=64, features=16)

    assert forward(3) - forward(2) == forward(2) - forward(1)


def test_byte_encoder_forward():
    module = ByteEncoder(width=128, layers=2, heads=4, length=64, stride=4)
    formula = flops.byte_encoder_forward(width=128, layers=2, length=64, stride=4)
    assert formula == pytest.approx(counted(module, jnp.ones((1, 64), jnp.int32)), rel=0.05)
