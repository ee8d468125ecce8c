"""An autoencoder whose picture is shared between devices, row by row."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidflow.autoencoders.causal3d import WAN, CausalAutoencoder
from vidflow.autoencoders.patches import by_rows
from vidflow.autoencoders.tae import TemporalAutoencoder
from vidflow.parallel.mesh import whole_mesh

MODELS = {
    "tae": TemporalAutoencoder(widths=(8, 8), strides=((2, 2),), blocks=1, channels=3, groups=4),
    "wan": CausalAutoencoder(WAN._replace(widths=(8, 8), strides=(2,), up_strides=(2,), blocks=1, channels=3)),
}


@pytest.mark.parametrize("name", MODELS)
def test_parts_of_a_picture_on_eight_devices_are_the_whole(name):
    module = MODELS[name]
    params = nn.unbox(jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 1, 8, 8, 3))))
    video = jax.random.uniform(jax.random.key(1), (1, 3, 64, 16, 3), minval=-1)
    encode = jax.jit(lambda params, video: module.apply(params, video, method="encode").mean)
    decode = jax.jit(lambda params, z: module.apply(params, z, 3, method="decode"))
    z = encode(params, video)
    mesh = whole_mesh({"data": 1, "fsdp": 1, "sequence": 8, "tensor": 1})
    for function, x in ((encode, video), (decode, z)):
        shared = by_rows(function, mesh)
        np.testing.assert_allclose(shared(params, x), function(params, x), atol=1e-5)
        assert "collective-permute" in shared.lower(params, x).compile().as_text()  # the rows beside those of a device
        assert len(shared(params, x).addressable_shards) == 8
