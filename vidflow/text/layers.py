"""A stack of equal layers, one array for each kind of parameter: one layer is compiled, however many there are."""

import flax.linen as nn


def stacked(layer: type[nn.Module], count: int) -> type[nn.Module]:
    """The class of a stack: `(x, what all layers are told) -> (x, None)`, like `layer`."""
    return nn.scan(
        layer,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=nn.broadcast,
        length=count,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
