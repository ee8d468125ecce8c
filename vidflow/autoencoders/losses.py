"""Losses of an autoencoder, each per row and averaged over elements, so that weights do not depend on size."""

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from vidflow.autoencoders.latents import Posterior
from vidflow.typing import Latents, Video

Rows = Float[Array, "B"]
TINY = 1e-12  # under a root, whose gradient at 0 is infinite


def l1(reconstruction: Video, video: Video) -> Rows:
    """Mean absolute error, pixels in [-1, 1]."""
    return jnp.abs(reconstruction - video).mean(axis=(1, 2, 3, 4))


def l2(reconstruction: Video, video: Video) -> Rows:
    """Mean squared error, pixels in [-1, 1]."""
    return jnp.square(reconstruction - video).mean(axis=(1, 2, 3, 4))


def outliers(z: Latents, deviations: float = 3.0) -> Rows:
    """Movie Gen's outlier penalty (section 3.1.1): how far latents lie beyond some standard deviations of their frame.

    With mean m and standard deviation s over the sites of a frame, per channel, and norms over channels, it is the mean
    over sites of max(|z - m| - deviations |s|, 0); of a video, the mean over its frames. In float32, whatever z is. Its
    weight in the paper is 1e5. The gradient passes through m and s; the paper does not say whether it should.
    """
    z = z.astype(jnp.float32)
    mean, variance = z.mean(axis=(2, 3), keepdims=True), z.var(axis=(2, 3), keepdims=True)
    excess = _norm(z - mean) - deviations * jnp.sqrt(variance.sum(axis=-1) + TINY)
    return jnp.maximum(excess, 0.0).mean(axis=(1, 2, 3))


def consistency(first: Posterior, again: Posterior) -> Rows:
    """H3AE's latent consistency (Eq 3): KL(again || first) of the posteriors of the reconstruction and of the video, in
    nats per latent element. The video's is what the other is drawn to and passes no gradient: our choice.
    """
    mean, logvar = jax.lax.stop_gradient((first.mean, first.logvar))
    ratio = again.logvar - logvar
    nats = 0.5 * (jnp.exp(ratio) + jnp.square(again.mean - mean) * jnp.exp(-logvar) - 1.0 - ratio)
    return nats.mean(axis=(1, 2, 3, 4))


def wavelet(reconstruction: Video, video: Video) -> Rows:
    """Mean absolute error of the eight Haar bands of blocks of 2 x 2 x 2 pixels, so that fine detail counts as much as
    flat areas. The last frame is repeated where their number is odd.
    """
    return jnp.abs(_haar(reconstruction) - _haar(video)).mean(axis=(1, 2, 3, 4, 5))


def total(terms: dict[str, Rows], weights: dict[str, float]) -> tuple[Float[Array, ""], dict[str, jax.Array]]:
    """The weighted sum of the terms that have a weight, and each of them by itself, batch means."""
    means = {name: term.mean() for name, term in terms.items()}
    return sum(weights[name] * mean for name, mean in means.items()), means


def _norm(x: Latents) -> Float[Array, "B t h w"]:
    return jnp.sqrt(jnp.square(x).sum(axis=-1) + TINY)


def _haar(video: Video) -> Float[Array, "B bands t h w 3"]:
    """Sums and differences of neighbours along each axis, of the same energy as the pixels."""
    video = jnp.pad(video, ((0, 0), (0, video.shape[1] % 2), (0, 0), (0, 0), (0, 0)), mode="edge")
    blocks = rearrange(video, "b (t i) (h j) (w k) c -> b t h w c i j k", i=2, j=2, k=2)
    butterfly = jnp.array([[1.0, 1.0], [1.0, -1.0]]) / jnp.sqrt(2.0)
    bands = jnp.einsum("bthwcijk,li,mj,nk->blmnthwc", blocks, butterfly, butterfly, butterfly)
    return rearrange(bands, "b l m n t h w c -> b (l m n) t h w c")
