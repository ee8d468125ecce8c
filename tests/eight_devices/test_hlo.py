"""Reading compiled programs: what is known beforehand is found, and loops count as their unrolled form."""

from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from vidflow.parallel.hlo import Program, _groups
from vidflow.parallel.mesh import make_mesh

LAYERS, WIDTH = 5, 32


def compiled(function, *shapes, mesh):
    with jax.set_mesh(mesh):
        arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
        return Program(jax.jit(function).lower(*arrays).compile().as_text())


def layers(unroll=1, remat=lambda layer: layer):
    """A stack whose kernels lie over sequence and are gathered in every layer."""

    def loss(x, kernels):
        def on_one_device(x, kernels):
            def layer(x, kernel):
                return jnp.tanh(x @ jax.lax.all_gather(kernel, "sequence", axis=0, tiled=True)), None

            return jax.lax.scan(remat(layer), x, kernels, unroll=unroll)[0]

        specs = (P("data"), P(None, "sequence"))
        return jax.shard_map(on_one_device, in_specs=specs, out_specs=P("data"), check_vma=False)(x, kernels).sum()

    return jax.grad(loss, argnums=(0, 1))


def totals(program, mesh):
    sent = Counter()
    for collective in program.collectives(dict(mesh.shape)):
        sent[collective.operation, collective.axes] += collective.bytes
    return sent


def test_a_loop_counts_as_its_unrolled_form_does():
    mesh = make_mesh(data=2, sequence=4)
    shapes = (8, WIDTH), (LAYERS, WIDTH, WIDTH)
    loop, unrolled = (compiled(layers(unroll), *shapes, mesh=mesh) for unroll in (1, LAYERS))
    assert any(i.operation == "while" for i, _ in loop.instructions())
    assert not any(i.operation == "while" for i, _ in unrolled.instructions())
    assert loop.matrix_flops() == unrolled.matrix_flops() > 0
    for name in (("all-gather", ("sequence",)), ("reduce-scatter", ("sequence",))):
        assert totals(loop, mesh)[name] == totals(unrolled, mesh)[name] > 0


def test_flops_and_bytes_are_the_closed_forms():
    mesh = make_mesh(data=2, sequence=4)
    program = compiled(layers(remat=jax.checkpoint), (8, WIDTH), (LAYERS, WIDTH, WIDTH), mesh=mesh)
    rows, kernel = 8 // 2, WIDTH * WIDTH
    # Forward, its recomputation, and two products for the gradients.
    assert program.matrix_flops() == 2 * rows * kernel * (2 * LAYERS + 2 * LAYERS)
    sent = totals(program, mesh)
    assert sent["reduce-scatter", ("sequence",)] == LAYERS * kernel * 4 * 3 / 4
    assert sent["all-gather", ("sequence",)] == 2 * LAYERS * kernel * 4 * 3 / 4


def test_a_gradient_within_a_branch_counts_as_the_dearest_branch_alone():
    mesh = make_mesh(data=2, sequence=4)
    shapes = (8, WIDTH), (LAYERS, WIDTH, WIDTH)

    def either(x, kernels):
        return jax.lax.cond(x[0, 0] > 0, layers(), lambda x, kernels: (x @ kernels[0], kernels), x, kernels)

    one, both = compiled(layers(), *shapes, mesh=mesh), compiled(either, *shapes, mesh=mesh)
    assert any(i.operation == "conditional" for i, _ in both.instructions())
    assert both.matrix_flops() == one.matrix_flops() > 0
    assert totals(both, mesh)["reduce-scatter", ("sequence",)] == totals(one, mesh)["reduce-scatter", ("sequence",)]


@pytest.mark.parametrize(
    ("operation", "share"), [("psum", 2 * 7 / 8), ("all_gather", 7), ("all_to_all", 7 / 8), ("ppermute", 1)]
)
def test_every_collective_sends_its_share(operation, share):
    mesh = make_mesh(sequence=8)

    def on_one_device(x):
        if operation == "psum":
            return jax.lax.psum(x, "sequence")
        if operation == "all_gather":
            return jax.lax.all_gather(x, "sequence")
        if operation == "all_to_all":
            return jax.lax.all_to_all(x, "sequence", 0, 1, tiled=True)
        return jax.lax.ppermute(x, "sequence", [(i, (i + 1) % 8) for i in range(8)])

    def function(x):
        return jax.shard_map(on_one_device, in_specs=P("sequence"), out_specs=P("sequence"), check_vma=False)(x)

    program = compiled(function, (64, 16), mesh=mesh)
    (collective,) = program.collectives(dict(mesh.shape))
    assert collective.axes == ("sequence",) and collective.runs == 1
    assert collective.bytes == 8 * 16 * 4 * share


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("mesh['a'=2,'b'=1,'c'=4] {'c'}", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("mesh['a'=2,'b'=1,'c'=4] {'a','b'}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("mesh[a=2,c=4] {}", [[device] for device in range(8)]),
        ("mesh['a'=2,'c'=2], device_ids=(0,2,1,3) {'c'}", [[0, 2], [1, 3]]),
        ("mesh['a'=8] {'a':(1)2}", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("mesh['a'=8] {'a':(2)2}", [[0, 2], [1, 3], [4, 6], [5, 7]]),
        ("mesh['a'=8] {'a':(1)2,'a':(4)2}", [[0, 1, 4, 5], [2, 3, 6, 7]]),
    ],
)
def test_groups_along_axes_of_a_mesh(written, wanted):
    assert _groups(f"x replica_groups={written}, use_global_device_ids=true, dimensions={{0}}") == wanted


def test_groups_that_are_written_otherwise_are_not_taken_for_none():
    with pytest.raises(ValueError, match="which devices replica_groups=new names"):
        _groups("x replica_groups=new {'a'}, y")


def test_both_notations_of_groups():
    assert _groups("x replica_groups={{0,2},{1,3}}, y") == [[0, 2], [1, 3]]
    assert _groups("x replica_groups=[2,2]<=[4], y") == [[0, 1], [2, 3]]
    assert _groups("x replica_groups=[2,2]<=[2,2]T(1,0), y") == [[0, 2], [1, 3]]
    assert _groups("x source_target_pairs={{0,1},{1,0}}") == [[0, 1], [1, 0]]
