"""The device mesh of a run."""

import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vidflow import axes
from vidflow.errors import UsageError


def make_mesh(
    data: int = 1, fsdp: int = 1, sequence: int = 1, tensor: int = 1, *, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh over the first data * fsdp * sequence * tensor devices, its axes named as in `axes.MESH`.

    Neighbours in the mesh are neighbours in a TPU's torus. Over several slices, which only the data-centre network
    joins, `data` and then `fsdp` are split: they send least. Axes are Auto: sharding propagates from the annotations of
    the model.

    Args:
      devices: all of this process group by default.

    Raises:
      UsageError: more devices asked for than there are, an axis below 1, or slices that data x fsdp cannot be split
        over.
    """
    shape = (data, fsdp, sequence, tensor)
    devices = jax.devices() if devices is None else list(devices)
    wanted = math.prod(shape)
    if min(shape) < 1 or wanted > len(devices):
        sizes = ", ".join(f"{axis}={size}" for axis, size in zip(axes.MESH, shape, strict=True))
        raise UsageError(f"The mesh {sizes} wants {wanted} device(s) and there are {len(devices)}: ask for fewer.")
    return Mesh(_arranged(shape, devices[:wanted]), axes.MESH, axis_types=(AxisType.Auto,) * len(axes.MESH))


def whole_mesh(sizes: dict[str, int]) -> Mesh:
    """The mesh of `config.mesh` over all devices of all processes; an axis of -1 takes what the others leave.

    Raises:
      UsageError: another axis, or sizes whose product is not the number of devices.
    """
    if unknown := [axis for axis in sizes if axis not in axes.MESH]:
        raise UsageError(f"config.mesh has no axis '{unknown[0]}': its axes are {', '.join(axes.MESH)}.")
    number, free = jax.device_count(), [axis for axis, size in sizes.items() if size == -1]
    fixed = math.prod(size for size in sizes.values() if size != -1)
    left = number // fixed if free and fixed > 0 else 1
    known = all(size > 0 for axis, size in sizes.items() if axis not in free)
    if not known or len(free) > 1 or fixed * left != number:
        said = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
        raise UsageError(
            f"config.mesh ({said}) does not cover the {number} device(s) of this run: make the product of its axes "
            f"{number}, or one of them -1, which takes what the others leave."
        )
    return make_mesh(**{axis: left if size == -1 else size for axis, size in sizes.items()})


def _arranged(shape: tuple[int, ...], devices: Sequence[jax.Device]) -> np.ndarray:
    slices = len({device.slice_index for device in devices}) if hasattr(devices[0], "slice_index") else 1
    if slices == 1 or devices[0].platform != "tpu":
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    data = math.gcd(shape[0], slices)
    fsdp = slices // data
    if shape[1] % fsdp:
        raise UsageError(
            f"config.mesh has data={shape[0]} and fsdp={shape[1]}, which do not split over {slices} slices: make "
            f"data x fsdp a multiple of {slices}."
        )
    within = (shape[0] // data, shape[1] // fsdp, *shape[2:])
    return mesh_utils.create_hybrid_device_mesh(within, (data, fsdp, 1, 1), devices, allow_split_physical_axes=True)


def parse_sizes(text: str) -> dict[str, int]:
    """`sequence=8,tensor=2` -> the size of every axis; those left out are 1.

    Raises:
      UsageError: another form or axis, or an axis twice.
    """
    said: dict[str, int] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        if name.strip() not in axes.MESH or not number.strip().isdecimal() or int(number) < 1:
            raise UsageError(f"--mesh={text}: '{part}' is not an axis ({', '.join(axes.MESH)}) with its size.")
        if name.strip() in said:
            raise UsageError(f"--mesh={text} names '{name.strip()}' twice: give it one size.")
        said[name.strip()] = int(number)
    return dict.fromkeys(axes.MESH, 1) | said


def mesh_of(text: str) -> Mesh:
    """The mesh of a flag --mesh: over some devices of a single process, over all of several.

    Raises:
      UsageError: as `parse_sizes`, more devices than there are, or of several processes not as many.
    """
    sizes = parse_sizes(text)
    if jax.process_count() > 1 and math.prod(sizes.values()) != jax.device_count():
        raise UsageError(f"--mesh={text} has to cover the {jax.device_count()} devices of all hosts.")
    return make_mesh(**sizes)


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
