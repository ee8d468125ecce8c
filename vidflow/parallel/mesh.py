"""The device mesh of a run."""

import math

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vidflow import axes
from vidflow.errors import UsageError


def make_mesh(data: int = 1, fsdp: int = 1, sequence: int = 1, tensor: int = 1) -> Mesh:
    """A mesh over the first data * fsdp * sequence * tensor devices, its axes named as in `axes.MESH`.

    Axes are Auto: sharding propagates from the annotations of the model.

    Raises:
      UsageError: more devices asked for than there are, or an axis below 1.
    """
    shape = (data, fsdp, sequence, tensor)
    devices = jax.devices()
    wanted = math.prod(shape)
    if min(shape) < 1 or wanted > len(devices):
        sizes = ", ".join(f"{axis}={size}" for axis, size in zip(axes.MESH, shape, strict=True))
        raise UsageError(
            f"The mesh {sizes} wants {wanted} device(s) and this process group has {len(devices)}: change config.mesh."
        )
    return Mesh(np.array(devices[:wanted]).reshape(shape), axes.MESH, axis_types=(AxisType.Auto,) * len(axes.MESH))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows spread over the data and fsdp axes."""
    return NamedSharding(mesh, P(axes.BATCH))


def check_batch(mesh: Mesh, batch_size: int, microbatches: int = 1) -> None:
    """Raises UsageError unless the rows divide over the devices that split the batch, in every microbatch."""
    if microbatches < 1 or batch_size % microbatches:
        raise UsageError(
            f"config.batch_size = {batch_size} does not divide into {microbatches} parts (config.microbatches): use a "
            "divisor."
        )
    batch_size //= microbatches
    ways = math.prod(mesh.shape[axis] for axis in axes.BATCH)
    if batch_size % ways:
        raise UsageError(
            f"{batch_size} rows (config.batch_size over config.microbatches) do not divide over the {ways} device "
            f"groups of config.mesh (data x fsdp): use a multiple of {ways}."
        )
