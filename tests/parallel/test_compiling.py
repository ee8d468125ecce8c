"""Programs are compiled with options that the installed compiler knows."""

import jax
import pytest

from vidflow.parallel import compiling


def test_a_cpu_has_its_own():
    (device, *_) = jax.devices("cpu")
    assert compiling.options(device) == compiling.ON_CPU
    product = jax.jit(lambda x: x @ x, compiler_options=compiling.options(device))
    assert "ynn_fusion" not in product.lower(jax.numpy.ones((256, 256))).compile().as_text()


@pytest.mark.parametrize("unknown", [{"xla_cpu_no_such_option": "1"}, dict.fromkeys(compiling.ON_CPU, "NO_SUCH_VALUE")])
def test_what_the_compiler_does_not_know_is_left_out(unknown, monkeypatch):
    monkeypatch.setattr(compiling, "ON_CPU", unknown)
    assert compiling.options(jax.devices("cpu")[0]) == {}
