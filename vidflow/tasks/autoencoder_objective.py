"""What an autoencoder learns by: every loss that has a weight, and a discriminator against it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from vidflow.autoencoders import discriminator, losses, perceptual
from vidflow.autoencoders.latents import Posterior
from vidflow.errors import UsageError
from vidflow.typing import RowKeys, Video

Metrics = dict[str, jax.Array]
OF_PIXELS = {"l1": losses.l1, "l2": losses.l2, "wavelet": losses.wavelet}
KNOWN = (*OF_PIXELS, "perceptual", "kl", "outliers", "consistency", "adversarial")


def make_discriminator(config: ConfigDict) -> discriminator.PatchDiscriminator | None:
    """The module that `config.discriminator` describes, if `config.losses.adversarial` wants one."""
    if not config.losses.adversarial:
        return None
    own = config.discriminator
    return discriminator.PatchDiscriminator(own.width, own.layers, own.time, jnp.dtype(config.model.dtype))


def make_objective(module: Any, config: ConfigDict) -> Callable[[Any, RowKeys, dict[str, jax.Array]], Any]:
    """(params, row keys, batch) -> (loss, metrics): reconstruction from a posterior sample, under `config.losses`.

    A loss without a weight is not computed. Every `config.data.image_every` steps the batch is of images: the frames of
    its clips, each by itself.

    Raises:
      UsageError: an unknown loss, or LPIPS without its weights.
    """
    weights = {name: weight for name, weight in config.losses.items() if weight}
    unknown = sorted(set(config.losses) - set(KNOWN))
    if unknown:
        raise UsageError(f"Unknown config.losses.{unknown[0]}: use {', '.join(KNOWN)}.")
    if "perceptual" in weights and not config.lpips:
        raise UsageError("config.losses.perceptual needs config.lpips=FILE, the weights of LPIPS: name it, or set 0.")
    pixels = {name: OF_PIXELS[name] for name in OF_PIXELS if name in weights}
    if "perceptual" in weights:
        pixels["perceptual"] = jax.tree.map(jnp.asarray, perceptual.load(config.lpips)).distance
    critic, share = make_discriminator(config), config.hint_share
    if share and not getattr(module, "hinted", False):
        raise UsageError(
            "config.hint_share shows the decoder first frames, and config.model.hinted is false: set both."
        )

    def objective(params: Any, keys: RowKeys, batch: dict[str, jax.Array]) -> tuple[jax.Array, Metrics]:
        video = batch["video"].astype(jnp.float32) / 127.5 - 1.0
        step, every = batch["step"][0], config.data.image_every
        adversarial = partial(_adversarial, module, critic, params, config.discriminator, step) if critic else None
        learn = partial(
            on_videos, module, params, weights=weights, pixels=pixels, adversarial=adversarial, hint_share=share
        )
        if not every:
            return learn(keys, video)
        images, their_keys = _apart(video), _for_each(keys, video.shape[1])
        return jax.lax.cond(step % every == 0, lambda: learn(their_keys, images), lambda: learn(keys, video))

    return objective


def on_videos(
    module: Any,
    params: Any,
    keys: RowKeys,
    video: Video,
    *,
    weights: dict[str, float],
    pixels: dict[str, Callable[[Video, Video], jax.Array]],
    adversarial: Callable[..., tuple[jax.Array, Metrics]] | None,
    hint_share: float,
) -> tuple[jax.Array, Metrics]:
    """Loss and terms of one batch."""
    own = {"params": params["params"]}
    posterior: Posterior = module.apply(own, video, method="encode")
    z, hints = posterior.sample(keys), _hints(module, own, keys, video, hint_share) if hint_share else None
    reconstruction = module.apply(own, z, video.shape[1], *([hints] if hint_share else []), method="decode")
    terms = {name: loss(reconstruction, video) for name, loss in pixels.items()}
    if "kl" in weights:
        terms["kl"] = posterior.kl()
    if "outliers" in weights:
        terms["outliers"] = losses.outliers(posterior.mean)
    if "consistency" in weights:
        again = module.apply(jax.lax.stop_gradient(own), reconstruction, method="encode")
        terms["consistency"] = losses.consistency(posterior, again)
    loss, metrics = losses.total(terms, weights)
    if adversarial:
        extra, more = adversarial(
            video, (z, video.shape[1], *([hints] if hint_share else [])), reconstruction, weights, pixels
        )
        loss, metrics = loss + extra, metrics | more
    # The range of pixels is 2 wide.
    return loss, {**metrics, "psnr": 10 * jnp.log10(4.0 / losses.l2(reconstruction, video)).mean()}


def _adversarial(
    module: Any,
    critic: discriminator.PatchDiscriminator,
    params: Any,
    settings: ConfigDict,
    step: jax.Array,
    video: Video,
    inputs: tuple[Any, ...],
    reconstruction: Video,
    weights: dict[str, float],
    pixels: dict[str, Callable[[Video, Video], jax.Array]],
) -> tuple[jax.Array, Metrics]:
    """Both sides of the game; neither side's term passes a gradient to the other's parameters."""
    judge, fixed = params["discriminator"], jax.lax.stop_gradient(params["discriminator"])
    fool = lambda video: discriminator.deceive(critic.apply(fixed, video)).mean()  # noqa: E731
    generator, weight = fool(reconstruction), jnp.asarray(weights["adversarial"])
    if settings.adaptive:
        own = jax.lax.stop_gradient(params["params"])
        place, (z, frames, *more) = module.last_kernel, inputs
        z, more = jax.lax.stop_gradient((z, more))

        def last(kernel: jax.Array) -> Video:
            flat = traverse_util.flatten_dict(own) | {place: kernel}
            return module.apply({"params": traverse_util.unflatten_dict(flat)}, z, frames, *more, method="decode")

        def reconstruct(again: Video) -> jax.Array:
            return losses.total({name: loss(again, video) for name, loss in pixels.items()}, weights)[0]

        weight *= discriminator.adaptive_weight(last, traverse_util.flatten_dict(own)[place], reconstruct, fool)
    real, fake = critic.apply(judge, video), critic.apply(judge, jax.lax.stop_gradient(reconstruction))
    hinge = discriminator.hinge(real, fake).mean()
    loss = weight * generator + hinge
    metrics = {"adversarial": generator, "adversarial_weight": weight, "discriminator": hinge}
    if settings.r1:
        metrics["r1"] = discriminator.r1(partial(critic.apply, judge), video).mean()
        loss += settings.r1 * metrics["r1"]
    return jnp.where(step >= settings.start, loss, 0.0), metrics


def _hints(module: Any, own: Any, keys: RowKeys, video: Video, share: float) -> Any:
    """The first frame's features for a share of the rows, zeros for the others: one decoder learns both."""
    draw = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, 1), share))(keys)
    features = module.apply(own, video[:, :1], method="hints")
    return jax.tree.map(lambda x: x * draw[:, None, None, None, None], features)


def _apart(video: Video) -> Float[Array, "N 1 H W 3"]:
    """Every frame as a video of its own."""
    return video.reshape(-1, 1, *video.shape[2:])


def _for_each(keys: RowKeys, frames: int) -> Key[Array, "N"]:
    """A key for each frame of each row."""
    return jax.vmap(lambda key: jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(frames)))(keys).reshape(-1)
