"""Text encoders spread over devices by the rule table say what they say on one."""

from functools import partial

import jax
import numpy as np
import pytest

from tests.text import published
from vidflow.parallel import rules
from vidflow.parallel.mesh import make_mesh
from vidflow.text import load_encoder


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("t5", {"fsdp": 4, "tensor": 2}),
        ("clip_projection", {"fsdp": 2, "tensor": 4}),
        ("umt5", {"data": 2, "fsdp": 4}),
    ],
)
def test_a_tower_over_devices_is_the_tower(tmp_path, name, shape):
    folder, mesh = published.folder(name, tmp_path / name), make_mesh(**shape)
    with rules.in_force():
        spread = load_encoder(folder, rows=32, place=partial(rules.shardings, mesh=mesh))
        with jax.set_mesh(mesh):
            embeddings, mask = spread.encode(published.TEXTS)
    kernel = spread.params["params"]["layers"]["up"]["kernel"]
    assert kernel.addressable_shards[0].data.size == kernel.size // (shape["fsdp"] * shape.get("tensor", 1))
    alone, _ = load_encoder(folder).encode(published.TEXTS)
    np.testing.assert_allclose(embeddings[mask], alone[mask], atol=1e-5 * np.abs(alone).max())


def test_devices_that_are_no_power_of_two_share_the_texts(tmp_path):
    folder, mesh = published.folder("byt5", tmp_path / "byt5"), make_mesh(data=3, devices=jax.devices()[:3])
    texts = [str(n) for n in range(65)]
    with rules.in_force():
        spread = load_encoder(folder, rows=96, place=partial(rules.shardings, mesh=mesh))
        with jax.set_mesh(mesh):
            embeddings, mask = spread.encode(texts)
    alone, _ = load_encoder(folder).encode(texts)
    np.testing.assert_allclose(embeddings[mask], alone[mask], atol=1e-5 * np.abs(alone).max())
