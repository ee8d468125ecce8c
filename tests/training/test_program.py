"""The step and the shapes and places of its arguments."""

import jax
import pytest

from vidflow import config as configs
from vidflow.errors import UsageError
from vidflow.parallel.mesh import make_mesh
from vidflow.tasks import autoencoder
from vidflow.training.program import make_program

EXPERIMENT = "experiments/bounce/autoencoder.py:smoke"


def program(**changes):
    config = configs.override(configs.load(EXPERIMENT), [(key, str(value)) for key, value in changes.items()])
    return make_program(config, autoencoder.outline(config), make_mesh())


def kinds(tree):
    return {leaf.sharding.memory_kind for leaf in jax.tree.leaves(tree)}


def test_the_parts_that_host_memory_names_rest_there():
    state = program(host_memory="ema,mu").state
    assert kinds(state.ema) == {"pinned_host"} and kinds(state.params) == {"device"}
    in_host = [
        path
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state)
        if leaf.sharding.memory_kind == "pinned_host"
    ]
    assert len(in_host) == len(jax.tree.leaves(state.params))  # first moments, not the second
    assert kinds(program().state) == {"device"}


def test_a_batch_has_rows_of_what_the_learner_says():
    batch = program(batch_size=4).batch
    assert batch["row"].shape == (4,) and batch["video"].shape == (4, 8, 32, 32, 3)


def test_a_part_that_the_state_does_not_have_is_an_error():
    with pytest.raises(UsageError, match="config.host_memory names 'momentum'.*ema, mu or nu"):
        program(host_memory="momentum")


def test_seeds_rates_and_lengths_of_runs_share_one_program():
    def text(program):
        return program.step.lower(program.state, program.batch, program.given(0)).as_text()

    one, other = program(), program(**{"seed": 1, "steps": 30, "optimizer.learning_rate": 1e-4})
    assert text(one) == text(other) != text(program(ema_decay=0.5))
    assert [int(each.given(0).seed) for each in (one, other)] == [0, 1]
    assert max(float(other.given(s).rate) for s in range(30)) == pytest.approx(1e-4)
