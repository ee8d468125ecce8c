"""Losses of an autoencoder, each per row and averaged over elements, so that weights do not depend on size."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vidflow.autoencoders.latents import Posterior
from vidflow.typing import Video


def l1(reconstruction: Video, video: Video) -> Float[Array, "B"]:
    """Mean absolute error, pixels in [-1, 1]."""
    return jnp.abs(reconstruction - video).mean(axis=(1, 2, 3, 4))


def l2(reconstruction: Video, video: Video) -> Float[Array, "B"]:
    """Mean squared error, pixels in [-1, 1]."""
    return jnp.square(reconstruction - video).mean(axis=(1, 2, 3, 4))


def total(
    reconstruction: Video, video: Video, posterior: Posterior, weights: dict[str, float]
) -> tuple[Float[Array, ""], dict[str, jax.Array]]:
    """The weighted sum over `weights` (any of l1, l2, kl) and each term by itself, batch means."""
    terms = {"l1": l1(reconstruction, video), "l2": l2(reconstruction, video), "kl": posterior.kl()}
    terms = {name: term.mean() for name, term in terms.items()}
    return sum(weights[name] * terms[name] for name in weights), terms
