"""Pictures too large for one device: each holds some of the rows, and asks its neighbours for those that it needs.

The compiler does it: where rows of a convolution's input lie on several devices, it exchanges the few rows at their
seams (collective-permute); normalisation of a whole picture and attention among its sites exchange more. Nothing is
blended, and the result is that of one device, as it is not with tiles.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vidflow.axes import SEQUENCE


def by_rows(function: Callable[[Any, Any], Any], mesh: Mesh) -> Callable[[Any, Any], Any]:
    """`function(params, x)` with the rows of x and of the result shared along the mesh's axis `sequence`.

    The height of x [B, T, H, W, C] and of the result must divide over that axis. Parameters are whole on every device.
    """
    everywhere, rows = NamedSharding(mesh, P()), NamedSharding(mesh, P(None, None, SEQUENCE))
    return jax.jit(function, in_shardings=(everywhere, rows), out_shardings=rows)
