"""The projections that every transformer here is made of, and what they send between devices.

A kernel rests in parts: its `embed` side over `fsdp` and `sequence`, its other side (`heads`, `mlp`) over `tensor`.
To use it, devices gather the first split in the compute dtype and keep the second, which makes the pairs of Megatron-LM
(Shoeybi et al. 2019; Korthikanti et al. 2022): embed -> heads gathers the tokens over `tensor`, heads -> embed adds the
partial sums and scatters them over the tokens again. All of it is explicit, because a compiler left to itself gathers a
kernel about three times a step, or turns the product into a loop of permutes. The backward pass follows by
transposition: gathers become reduce-scatters.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from vidflow.axes import BATCH, SEQUENCE, TENSOR
from vidflow.errors import UsageError

linear_init = nn.initializers.lecun_normal()
Names = tuple[str, str]  # logical axes of a kernel: input, output


class Affine(nn.Module):
    """The matrix of a projection, and its bias if it has one, float32."""

    features: int
    names: Names
    init: Any = linear_init
    bias: bool = False

    @nn.compact
    def __call__(self, inputs: int) -> tuple[Float[Array, "i o"], Float[Array, "o"] | None]:
        kernel = self.param("kernel", nn.with_logical_partitioning(self.init, self.names), (inputs, self.features))
        zeros = nn.with_logical_partitioning(nn.initializers.zeros, self.names[1:])
        return kernel, self.param("bias", zeros, (self.features,)) if self.bias else None


def linear(
    x: Float[Array, "B N i"],
    name: str,
    features: int,
    names: Names,
    dtype: Any,
    init: Any = linear_init,
    *,
    spread: bool = False,
    bias: bool = False,
) -> Float[Array, "B N o"]:
    """A projection of the last axis; to be called within a compact module, whose child `name` it makes.

    `spread` says that the tokens of x lie over the devices (those of a video do, those of a text do not).
    """
    return linears(x, (name,), features, names, dtype, init, spread=spread, bias=bias)[0]


def linears(
    x: Float[Array, "B N i"],
    children: Sequence[str],
    features: int,
    names: Names,
    dtype: Any,
    init: Any = linear_init,
    *,
    spread: bool = False,
    bias: bool = False,
) -> tuple[Float[Array, "B N o"], ...]:
    """Several projections of one x, which is then gathered once for all of them. Rematerialisation knows their results
    by the children's names."""
    affine = [Affine(features, names, init, bias, name=name)(x.shape[-1]) for name in children]
    results = project(x.astype(dtype), tuple(_cast(kernel, dtype) for kernel, _ in affine), names, spread)
    if bias:
        results = tuple(y + own.astype(dtype) for y, (_, own) in zip(results, affine, strict=True))
    return tuple(checkpoint_name(y, name) for y, name in zip(results, children, strict=True))


def _cast(kernel: Float[Array, "i o"], dtype: Any) -> Float[Array, "i o"]:
    """In the compute dtype. The barrier keeps XLA from casting the kernels of all layers at once, before their loop:
    that would be half of the parameters' memory again."""
    return kernel if kernel.dtype == dtype else jax.lax.optimization_barrier(kernel).astype(dtype)


def project(
    x: Float[Array, "B N i"], kernels: tuple[Float[Array, "i o"], ...], names: Names, spread: bool = False
) -> tuple[Float[Array, "B N o"], ...]:
    """x @ kernel for each kernel, over the ambient mesh if there is one. Reverse mode only.

    Tokens that are spread enter and leave over `sequence` and `tensor`, but over `sequence` alone where the features
    are over `tensor`.

    Raises:
      UsageError: rows, tokens or features that the mesh does not divide.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return tuple(_product(x, kernel) for kernel in kernels)
    spec = nn.logical_to_mesh_axes(names)
    narrow, wide = ((SEQUENCE, TENSOR), SEQUENCE) if spread else (None, None)
    column, row = (TENSOR in _axes(side) for side in (spec[1], spec[0]))
    entering = P(BATCH, wide if row else narrow, TENSOR if row else None)
    leaving = P(BATCH, wide if column else narrow, TENSOR if column else None)
    _check_sizes(("rows", "tokens", "features"), x.shape, entering, mesh.shape)
    _check_sizes(("features", "features"), kernels[0].shape, spec, mesh.shape)

    def on_one_device(x: Array, kernels: tuple[Array, ...]) -> tuple[Array, ...]:
        if column and spread:
            x = jax.lax.all_gather(x, TENSOR, axis=1, tiled=True)
        parts = tuple(_product(x, _whole(kernel, spec)) for kernel in kernels)
        if row and spread:
            return tuple(jax.lax.psum_scatter(y, TENSOR, scatter_dimension=1, tiled=True) for y in parts)
        return tuple(jax.lax.psum(y, TENSOR) for y in parts) if row else parts

    spread_out = jax.shard_map(on_one_device, in_specs=(entering, spec), out_specs=leaving, check_vma=False)
    return spread_out(x, kernels)


def _check_sizes(names: Sequence[str], shape: Sequence[int], spec: P, mesh: Mapping[str, int]) -> None:
    for name, number, side in zip(names, shape, spec, strict=True):
        ways = math.prod(mesh[axis] for axis in _axes(side))
        if number % ways:
            raise UsageError(
                f"A projection of {number} {name} does not divide over the mesh axes {' x '.join(_axes(side))} of "
                f"{ways}: choose a mesh that does."
            )


def _axes(side: Any) -> tuple[str, ...]:
    """The mesh axes of one dimension of a spec."""
    return () if side is None else (side,) if isinstance(side, str) else tuple(side)


def _whole(kernel: Float[Array, "i o"], spec: P) -> Float[Array, "I O"]:
    """The kernel gathered over all axes but `tensor`."""
    for dimension, side in enumerate(spec):
        axes = tuple(axis for axis in _axes(side) if axis != TENSOR)
        if axes:
            kernel = _gather(kernel, axes, dimension)
    return kernel


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gather(part: Array, axes: tuple[str, ...], dimension: int) -> Array:
    """An all-gather whose transpose is a reduce-scatter by stages.

    A single reduce-scatter over an axis that covers several sides of a TPU's torus compiles to a fusion of an
    all-reduce and a slice. Stages of four or a prime stay on one side or two and mostly compile to reduce-scatters.
    Which is quicker has not been timed.
    """
    return jax.lax.all_gather(part, axes, axis=dimension, tiled=True)


def _gather_forward(part: Array, axes: tuple[str, ...], dimension: int) -> tuple[Array, None]:
    return _gather(part, axes, dimension), None


def _gather_backward(axes: tuple[str, ...], dimension: int, _: None, g: Array) -> tuple[Array]:
    for axis in axes:
        for groups in _stages(jax.lax.axis_size(axis)):
            g = jax.lax.psum_scatter(g, axis, scatter_dimension=dimension, axis_index_groups=groups, tiled=True)
    return (g,)


def _stages(size: int) -> list[list[list[int]]]:
    """Groups of devices for each factor of an axis; scattering over one after another ends where one scatter over all
    of them does: the device at place p keeps part p."""
    stages, stride = [], size
    for factor in (4, *(p for p in range(2, size + 1) if all(p % d for d in range(2, p)))):
        while stride % factor == 0:
            stride //= factor
            first = [p for p in range(size) if (p // stride) % factor == 0]
            stages.append([[p + digit * stride for digit in range(factor)] for p in first])
    return stages


_gather.defvjp(_gather_forward, _gather_backward)


@jax.custom_vjp
def _product(x: Float[Array, "... i"], kernel: Float[Array, "i o"]) -> Float[Array, "... o"]:
    """x @ kernel.

    JAX derives the kernel's gradient as dot(g, x) and transposes it; XLA then writes g out transposed, which on CPU
    took three times as long for a whole SwiGLU layer as the same contraction with x first.
    """
    return x @ kernel


def _product_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _product(x, kernel), (x, kernel)


def _product_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = saved
    return jnp.einsum("...o,io->...i", g, kernel), jnp.einsum("...i,...o->io", x, g)


_product.defvjp(_product_forward, _product_backward)
