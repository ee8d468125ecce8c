"""An autoencoder whose picture is shared between devices, row by row."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from vidflow.autoencoders.causal3d import WAN, CausalAutoencoder
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
    rows = NamedSharding(whole_mesh({"data": 1, "fsdp": 1, "sequence": 8, "tensor": 1}), P(None, None, "sequence"))
    for function, x in ((encode, video), (decode, z)):
        shared = jax.jit(function, out_shardings=rows)
        got = shared(params, jax.device_put(x, rows))
        np.testing.assert_allclose(got, function(params, x), atol=1e-5)
        text = shared.lower(params, jax.device_put(x, rows)).compile().as_text()
        assert "collective-permute" in text  # the rows beside those of a device
        print(name, {op: text.count(f" {op}(") for op in ("collective-permute", "all-gather", "all-reduce")})
