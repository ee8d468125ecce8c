"""The worked example of docs/extending.md, as it stands there."""

import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from tests.flow.mixtures import mixture
from vidflow import settings
from vidflow.flow import objectives, schedules, targets
from vidflow.tasks import flow_parts

DOCUMENT = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The config of the example's commands, with its module in a folder of its own."""
    text = DOCUMENT.read_text()
    (tmp_path / "my_flow.py").write_text(re.search(r"```python\n(.*?)```", text, re.DOTALL)[1])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_flow", raising=False)
    config = settings.of_a_generator()
    for group, name, value in re.findall(r"--config\.(flow|sampling)\.(\w+)=(my_flow\S+)", text):
        config[group][name] = value
    yield config
    sys.modules.pop("my_flow", None)


def test_the_parts_are_found_and_fit_together(mine):
    recipe, path = flow_parts.make_recipe(mine.flow), flow_parts.make_path(mine.flow)
    assert recipe.target.name == "displacement"
    keys, x1 = jax.random.split(jax.random.key(0), 256), jnp.full((256, 2), 3.0)

    def exact(x, t):  # one datum: the noise follows
        return 3.0 - (x - path.alpha(t)[:, None] * 3.0) / path.sigma(t)[:, None]

    assert float(objectives.regression(exact, keys, x1, recipe)[0].mean()) < 1e-4


def test_the_solver_follows_the_flow_of_the_target(mine):
    path, target = flow_parts.make_path(mine.flow), flow_parts.make_target(mine.flow)
    solver, world = flow_parts.make_solver(mine.sampling, path, jax.random.split(jax.random.key(0), 4)), mixture(2)

    def network(x, t):
        return targets.convert(targets.data(), target, path, world.data(path, x, t), x, t)

    field = targets.as_velocity(network, target, path)
    x0 = jax.random.normal(jax.random.key(1), (4, 2))
    ends = [
        jax.jit(lambda x, n=n: solver(field, x, schedules.within(schedules.uniform()(n), 0.05, 0.95)))(x0)
        for n in (10, 20, 80)
    ]
    errors = [float(jnp.abs(end - ends[-1]).max()) for end in ends[:-1]]
    assert 2.5 < errors[0] / errors[1] < 7 and errors[1] < 0.05  # second order


def test_the_table_of_the_document_is_whole():
    rows = re.findall(r"^\| `((?:flow|sampling)\.\w+)` \| (.*) \| (.*) \| (.*) \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert [name for name, *_ in rows] == list(flow_parts.PARTS)
    for name, modules, _, names in rows:
        part = flow_parts.PARTS[name]
        files = [Path(module.__file__).name for module in part.modules]
        assert [Path(file).name for file in re.findall(r"`([\w/]+\.py)`", modules)] == files
        assert set(re.findall(r"`(\w+)`", names)) == set(part.names())
