"""Parts by their names in a config."""

import jax.numpy as jnp
import numpy as np
import pytest

from vidflow.choices import choose, options
from vidflow.errors import UsageError
from vidflow.flow import multistep, paths, schedules, solvers, targets, times


def pick(spec, kind=paths.Path, module=paths, **given):
    return choose(spec, kind, module, where="config.flow.path", **given)


def test_a_name_and_its_arguments_make_the_part():
    t = jnp.asarray(0.25)
    assert float(pick("linear").alpha(t)) == 0.25
    assert float(pick("polynomial:power=2").alpha(t)) == 0.0625
    zero = pick("variance_preserving:zero_terminal_snr=true,beta_max=10")
    assert float(zero.alpha(jnp.asarray(0.0))) == 0.0


@pytest.mark.parametrize(
    ("kind", "module", "names"),
    [
        (paths.Path, paths, {"linear", "variance_preserving", "cosine", "polynomial"}),
        (targets.Target, targets, {"velocity", "noise", "data", "score", "rotation", "edm"}),
        (times.TimeDensity, times, {"uniform", "logit_normal", "mode", "cosmap", "shifted"}),
        (schedules.Schedule, schedules, {"uniform", "linear_quadratic", "shifted", "cosine"}),
        (solvers.Solver, solvers, {"euler", "midpoint", "heun"}),
        (solvers.Solver, multistep, {"ddim", "dpm_solver", "unipc"}),
    ],
)
def test_what_there_is_is_what_the_module_makes(kind, module, names):
    assert options(kind, module, given=("path",) if kind is solvers.Solver else ()).keys() == names


def test_what_no_config_holds_is_given_to_those_that_take_it():
    path = paths.cosine()
    for name in ("euler", "unipc"):
        solver = choose(name, solvers.Solver, solvers, multistep, where="config.sampling.solver", path=path)
        x = solver(lambda x, t: 0.0 * x, jnp.ones((1, 2)), np.array([0.1, 0.5, 0.9]))
        assert x.shape == (1, 2) and (float(x[0, 0]) == 1.0) == (name == "euler")  # the other follows the path given


def spiral(turns: float = 1.0) -> paths.Path:
    return paths.cosine()._replace(alpha=lambda t: turns * t)


def bare(power) -> paths.Path:
    return paths.polynomial(power)


def test_a_function_of_ones_own_is_named_with_its_module():
    assert float(pick("tests.test_choices.spiral:turns=3").alpha(jnp.asarray(0.5))) == 1.5


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("liner", "Unknown config.flow.path 'liner'; did you mean 'linear'"),
        ("linear:smin=0", "config.flow.path=linear:smin=0: .*'smin' is unknown; did you mean 's_min'"),
        ("linear:s_min=x", "must be a number"),
        ("no.such.module", "cannot be imported"),
        ("vidflow.flow.paths.Path", "is no function"),
        (".x", "names '.x', which is no dotted name"),
        ("tests..test_choices", "no dotted name"),
        ("tests.test_choices.bare", "whose parameter 'power' has no default: give it one"),
        ("tests.test_choices.bare:power=2", "whose parameter 'power' has no default: give it one"),
        ("vidflow.flow.targets.velocity", "which makes a Target: name what makes a Path"),
    ],
)
def test_what_there_is_not_is_refused(spec, why):
    with pytest.raises(UsageError, match=why):
        pick(spec)
