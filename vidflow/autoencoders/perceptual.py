"""LPIPS (Zhang et al. 2018): the distance of two pictures in the features of a network for images.

The weights are not part of this package. A safetensors file with the tensors of `lpips.LPIPS(net="vgg")`, or "alex", of
the PyPI package lpips serves: `safetensors.torch.save_file(model.state_dict(), FILE)`, leaving out the copies "lins.*".

Without weights there is `random_features`, which is another measure and never goes by the name of LPIPS.
"""

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vidflow import files
from vidflow.errors import UsageError
from vidflow.typing import Video

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of pixels in [-1, 1], to what the networks have seen


class Network(NamedTuple):
    """Convolutions of an image network, in five stages after each of which features are compared.

    Attributes:
      stages: (index among the network's layers, kernel size, stride, padding) of the convolutions of each stage.
      pool: width of the maximum, of stride 2, before every stage but the first.
      pooled: which stages have it before them.
      smallest: pixels that a picture's height and width need, so that something is left to compare in the last stage.
    """

    stages: tuple[tuple[tuple[int, int, int, int], ...], ...]
    pool: int
    pooled: tuple[int, ...]
    smallest: int


def _three(*indices: int) -> tuple[tuple[int, int, int, int], ...]:
    return tuple((index, 3, 1, 1) for index in indices)


NETWORKS = {
    "vgg": Network(
        (_three(0, 2), _three(5, 7), _three(10, 12, 14), _three(17, 19, 21), _three(24, 26, 28)), 2, (1, 2, 3, 4), 16
    ),
    "alex": Network((((0, 11, 4, 2),), ((3, 5, 1, 2),), _three(6), _three(8), _three(10)), 3, (1, 2), 31),
    "random": Network((_three(0), _three(2), _three(4)), 2, (1, 2), 4),
}
RANDOM_WIDTHS = (32, 64, 128)


@flax.struct.dataclass
class Perceptual:
    """LPIPS with its weights, or the same sum over the features of a random network.

    Attributes:
      kernels, biases: of each convolution, by stage.
      weights: of each stage's features.
      name: of the network, "vgg", "alex" or "random".
    """

    kernels: Any
    biases: Any
    weights: Any
    name: str = flax.struct.field(pytree_node=False)

    def distance(self, one: Video, other: Video) -> Float[Array, "B"]:
        """The mean over frames of the distance; pixels in [-1, 1], passes gradients.

        Raises:
          UsageError: pictures of which the network's last stage would have nothing.
        """
        smallest = NETWORKS[self.name].smallest
        if min(one.shape[2:4]) < smallest:
            size = f"{one.shape[2]} x {one.shape[3]}"
            raise UsageError(
                f"Features of the network '{self.name}' need pictures of at least {smallest} x {smallest} pixels, not "
                f"{size}: use larger ones, or another network."
            )
        pairs = zip(self._features(one), self._features(other), self.weights, strict=True)
        frames = sum((jnp.square(_unit(a) - _unit(b)) @ weight).mean(axis=(1, 2)) for a, b, weight in pairs)
        return frames.reshape(one.shape[0], -1).mean(axis=1)

    def _features(self, video: Video) -> list[Float[Array, "N h w C"]]:
        x = (video.reshape(-1, *video.shape[2:]) - jnp.array(SHIFT)) / jnp.array(SCALE)
        network, found = NETWORKS[self.name], []
        for number, stage in enumerate(network.stages):
            if number in network.pooled:
                window = (1, network.pool, network.pool, 1)
                x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, (1, 2, 2, 1), "VALID")
            for (_, _, stride, pad), kernel, bias in zip(stage, self.kernels[number], self.biases[number], strict=True):
                x = jax.lax.conv_general_dilated(
                    x, kernel, (stride, stride), [(pad, pad)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
                )
                x = jax.nn.relu(x + bias)
            found.append(x)
        return found


def load(path: Any) -> Perceptual:
    """Reads the weights of LPIPS, of VGG or AlexNet, whichever the file holds.

    Raises:
      UsageError: no such file, or a tensor that is missing or of another shape; names it.
    """
    tensors, _ = files.read_tensors(path)
    name = "vgg" if "net.slice1.2.weight" in tensors else "alex"
    kernels, biases, weights = [], [], []
    for number, stage in enumerate(NETWORKS[name].stages):
        prefixes = [f"net.slice{number + 1}.{index}" for index, *_ in stage]
        kernels.append(tuple(_found(tensors, f"{p}.weight", path, 4).transpose(2, 3, 1, 0) for p in prefixes))
        biases.append(tuple(_found(tensors, f"{p}.bias", path, 1) for p in prefixes))
        weights.append(_found(tensors, f"lin{number}.model.1.weight", path, 4).reshape(-1))
    return Perceptual(tuple(kernels), tuple(biases), tuple(weights), name)


def random_features() -> Perceptual:
    """A stand-in that needs no weights: distances in the features of three convolutions drawn once and for all.

    Random features weigh edges and textures against flat areas, as trained ones do, but know nothing of what people
    see: **not LPIPS**, and no number of it compares with one of LPIPS.
    """
    random, features, kernels = np.random.default_rng(0), 3, []
    for width in RANDOM_WIDTHS:
        kernel = random.standard_normal((3, 3, features, width)) * np.sqrt(2 / (9 * features))
        kernels.append((kernel.astype(np.float32),))
        features = width
    biases = tuple((np.zeros(width, np.float32),) for width in RANDOM_WIDTHS)
    weights = tuple(np.full(width, 1 / width, np.float32) for width in RANDOM_WIDTHS)
    return Perceptual(tuple(kernels), biases, weights, "random")


def _found(tensors: dict[str, np.ndarray], name: str, path: Any, axes: int) -> np.ndarray:
    if name not in tensors or tensors[name].ndim != axes:
        raise UsageError(
            f"{path} does not hold the weights of LPIPS ('{name}' is missing or of another shape): save the state_dict "
            "of lpips.LPIPS as safetensors."
        )
    return tensors[name].astype(np.float32)


def _unit(x: Float[Array, "N h w C"]) -> Float[Array, "N h w C"]:
    """Each vector of features at length 1. The root's gradient at zero features would be infinite."""
    length = jnp.sqrt(jnp.square(x).sum(axis=-1, keepdims=True) + 1e-20)
    return x / (length + 1e-10)
