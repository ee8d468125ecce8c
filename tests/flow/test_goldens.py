"""Paths, targets, steps and samplers against flow-matching and diffusers (see make_goldens.py), in float64."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidflow.flow import ddpm, multistep, paths, solvers, targets

GOLDENS = json.loads(Path(__file__).with_name("goldens.json").read_text())
PATHS = {
    "linear": paths.linear(0.0),
    "cosine": paths.cosine(),
    "polynomial": paths.polynomial(1.5),
    "variance_preserving": paths.variance_preserving(),
}
SOLVERS = {
    "euler": lambda path: solvers.euler(),
    "ddim": multistep.ddim,
    "dpm_solver": multistep.dpm_solver,
    "unipc": multistep.unipc,
}


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", PATHS)
def test_paths_and_targets_are_those_of_flow_matching(name):
    known, path = GOLDENS["flow_matching"], PATHS[name]
    t, x0, x1 = (jnp.asarray(known[key]) for key in ("t", "x0", "x1"))
    rows = {key: np.asarray(value) for key, value in known["paths"][name].items()}
    for key in ("alpha", "sigma", "alpha_dot", "sigma_dot"):
        np.testing.assert_allclose(getattr(path, key)(t), rows[key], rtol=1e-6, atol=1e-6)
    x = paths.interpolate(path, x1, x0, t)
    np.testing.assert_allclose(x, rows["x"], rtol=1e-6)
    velocity, noise, data = targets.velocity(), targets.noise(), targets.data()
    v = targets.value(velocity, path, x1, x0, t)
    np.testing.assert_allclose(v, rows["velocity"], rtol=1e-6, atol=1e-6)
    for source, wanted, said, key in (
        (velocity, data, v, "data"),
        (velocity, noise, v, "noise"),
        (data, velocity, x1, "velocity_of_data"),
        (noise, velocity, x0, "velocity_of_noise"),
    ):
        np.testing.assert_allclose(targets.convert(source, wanted, path, said, x, t), rows[key], rtol=1e-6, atol=1e-6)


def test_discrete_diffusion_is_that_of_diffusers():
    known, diffusion = GOLDENS["ddpm"], ddpm.linear()
    # Theirs is a product of float32; the steps are compared at their levels, and in their precision.
    np.testing.assert_allclose(diffusion.alpha_bar, known["alpha_bar"], rtol=1e-4)
    diffusion = diffusion._replace(alpha_bar=np.asarray(known["alpha_bar"]))
    x1, noise = (jnp.asarray(known[key])[None] for key in ("x1", "noise"))
    for row in known["steps"]:
        level, kept = jnp.asarray([row["level"]]), diffusion.alpha_bar[row["level"]]
        x = jnp.sqrt(kept) * x1 + jnp.sqrt(1 - kept) * noise
        np.testing.assert_allclose(x[0], row["x"], rtol=1e-5, atol=1e-6)
        rotation = jnp.sqrt(1 - kept) * x1 - jnp.sqrt(kept) * noise
        np.testing.assert_allclose(-rotation[0], row["v"], rtol=1e-5, atol=1e-6)
        mean = ddpm.posterior_mean(diffusion, ddpm.datum(diffusion, 0.9 * noise, x, level), x, level)
        deviation = jnp.exp(0.5 * ddpm.log_variance(diffusion, jnp.full_like(x, 0.3), level))
        below = mean + deviation * jnp.asarray(row["fresh"]) * (row["level"] > 0)
        np.testing.assert_allclose(below[0], row["below"], rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("name", SOLVERS)
def test_samplers_go_where_those_of_diffusers_go(name):
    known = GOLDENS["trajectories"]
    path, times = paths.linear(0.0), 1.0 - np.asarray(known["sigmas"])

    def field(x, t):  # ours runs the other way, from noise at 0 to data at 1
        return -(jnp.sin(2.0 * x) + (1.0 - t) * x)

    x = SOLVERS[name](path)(field, jnp.asarray(known["x0"]).reshape(2, 8), times)
    np.testing.assert_allclose(x.ravel(), known["ends"][name], rtol=1e-5, atol=1e-5)
