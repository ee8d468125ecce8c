"""What an autoencoder learns by: every loss that has a weight, and a discriminator against it."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from vidflow.autoencoders import discriminator, losses, perceptual, tiling
from vidflow.autoencoders.latents import Posterior
from vidflow.autoencoders.tiling import Tiles
from vidflow.errors import UsageError
from vidflow.tasks import frozen_autoencoder
from vidflow.typing import Latents, RowKeys, Video

Metrics = dict[str, jax.Array]
OF_PIXELS = {"l1": losses.l1, "l2": losses.l2, "wavelet": losses.wavelet}
KNOWN = (*OF_PIXELS, "perceptual", "random_features", "kl", "outliers", "consistency", "adversarial")


class Recipe(NamedTuple):
    """Everything but the parameters and the data.

    Attributes:
      weights: of the losses that are computed.
      pixels: those of them that compare reconstruction and video.
      critic, game: the discriminator and `config.discriminator`.
      hint_share: of the clips whose first frame the decoder is shown.
      tiles, tile_share: in which encoder and decoder work at a share of the steps.
    """

    module: Any
    weights: dict[str, float]
    pixels: dict[str, Callable[[Video, Video], jax.Array]]
    critic: discriminator.PatchDiscriminator | None
    game: ConfigDict
    hint_share: float
    tiles: Tiles | None
    tile_share: float


def make_discriminator(config: ConfigDict) -> discriminator.PatchDiscriminator | None:
    """The module that `config.discriminator` describes, if `config.losses.adversarial` wants one."""
    if not config.losses.adversarial:
        return None
    own = config.discriminator
    return discriminator.PatchDiscriminator(own.width, own.layers, own.time, jnp.dtype(config.model.dtype))


def make_recipe(module: Any, config: ConfigDict) -> Recipe:
    """What the config of an autoencoder experiment asks for.

    Raises:
      UsageError: an unknown loss or none, LPIPS without its weights, an adaptive weight with nothing to adapt to, hints
        or tiles that the config does not describe, spikes looked for in a loss that rises by plan.
    """
    weights = {name: weight for name, weight in config.losses.items() if weight}
    unknown = sorted(set(config.losses) - set(KNOWN))
    if unknown:
        raise UsageError(f"Unknown config.losses.{unknown[0]}: use {', '.join(KNOWN)}.")
    if not weights:
        raise UsageError("Every weight in config.losses is 0, so there is nothing to learn by: set one.")
    pixels = {name: OF_PIXELS[name] for name in OF_PIXELS if name in weights}
    if "perceptual" in weights and not config.lpips:
        raise UsageError("config.losses.perceptual needs config.lpips=FILE, the weights of LPIPS: name it, or set 0.")
    if config.hint_share and not getattr(module, "hinted", False):
        raise UsageError(
            "config.hint_share shows the decoder first frames, and config.model.hinted is false: set both."
        )
    tiles = frozen_autoencoder.make_tiles(config.tiles)
    if config.tile_share and not tiles:
        raise UsageError("config.tile_share learns in tiles, and config.tiles.size is empty: set both.")
    if config.tile_share and config.hint_share:
        raise UsageError(
            "config.tile_share and config.hint_share exclude one another, for hints are of whole pictures."
        )
    if "perceptual" in weights:
        pixels["perceptual"] = jax.tree.map(jnp.asarray, perceptual.load(config.lpips)).distance
    if "random_features" in weights:
        pixels["random_features"] = jax.tree.map(jnp.asarray, perceptual.random_features()).distance
    critic = make_discriminator(config)
    if critic and config.discriminator.start and config.stability.loss_spike:
        raise UsageError(
            "The loss rises for good at config.discriminator.start, and config.stability.loss_spike takes all steps "
            "from there for spikes: set one of them to 0."
        )
    if critic and config.discriminator.adaptive and not pixels:
        raise UsageError(
            "config.discriminator.adaptive weighs the discriminator against losses of pixels, and config.losses has "
            "none: set one, or adaptive to false."
        )
    return Recipe(module, weights, pixels, critic, config.discriminator, config.hint_share, tiles, config.tile_share)


def make_objective(recipe: Recipe, image_every: int) -> Callable[[Any, RowKeys, dict[str, jax.Array]], Any]:
    """(params, row keys, batch) -> (loss, metrics): reconstruction from a posterior sample.

    Every `image_every` steps (0: never) the batch is of images: frames of its clips by themselves, as many as the clips
    have latents along time, without hints.
    """

    def objective(params: Any, keys: RowKeys, batch: dict[str, jax.Array]) -> tuple[jax.Array, Metrics]:
        video, step = batch["video"].astype(jnp.float32) / 127.5 - 1.0, batch["step"][0]
        learn = partial(on_videos, recipe, step=step)
        ways, way = [partial(learn, keys=keys, video=video)], jnp.zeros((), jnp.int32)
        if recipe.tile_share:
            drawn = jax.random.bernoulli(jax.random.fold_in(jax.random.key(0), step), recipe.tile_share)
            ways, way = [*ways, partial(learn, keys=keys, video=video, tiled=True)], drawn.astype(jnp.int32)
        if image_every:
            frames = video[:, :: recipe.module.compression.time]
            # An image that its decoder is shown leaves nothing to be decoded.
            alone = partial(on_videos, recipe._replace(hint_share=0.0), step=step)
            images = partial(alone, keys=_for_each(keys, frames.shape[1]), video=_apart(frames))
            ways, way = [*ways, images], jnp.where(step % image_every == 0, len(ways), way)
        return _one_of(ways, way, params)

    return objective


def _one_of(ways: list[Callable[[Any], tuple[jax.Array, Metrics]]], way: jax.Array, params: Any) -> Any:
    """`ways[way](params)`. The gradient is computed on the way taken, for `switch` would keep what that of every one
    needs."""
    if len(ways) == 1:
        return ways[0](params)

    @jax.custom_vjp
    def taken(params: Any) -> tuple[jax.Array, Metrics]:
        return jax.lax.switch(way, ways, params)

    def forward(params: Any) -> tuple[Any, Any]:
        return jax.lax.switch(way, [jax.value_and_grad(each, has_aux=True) for each in ways], params)

    def backward(gradient: Any, cotangent: tuple[jax.Array, Metrics]) -> tuple[Any]:
        return (jax.tree.map(lambda g: g * cotangent[0].astype(g.dtype), gradient),)

    taken.defvjp(forward, backward)
    return taken(params)


def on_videos(
    recipe: Recipe, params: Any, *, keys: RowKeys, video: Video, step: jax.Array, tiled: bool = False
) -> tuple[jax.Array, Metrics]:
    """Loss and terms of one batch, in tiles if wanted."""
    own, weights = {"params": params["params"]}, recipe.weights
    posterior = _encode(recipe, own, video, tiled)
    z, hints = posterior.sample(keys), None
    if recipe.hint_share:
        hints = _hints(recipe, own, keys, video)
    reconstruction = _decode(recipe, own, z, video.shape[1], hints, tiled)
    terms = {name: loss(reconstruction, video) for name, loss in recipe.pixels.items()}
    if "kl" in weights:
        terms["kl"] = posterior.kl()
    if "outliers" in weights:
        terms["outliers"] = losses.outliers(posterior.mean)
    if "consistency" in weights:
        terms["consistency"] = losses.consistency(
            posterior, _encode(recipe, jax.lax.stop_gradient(own), reconstruction, tiled)
        )
    loss, metrics = losses.total(terms, weights)
    if recipe.critic:
        still, their_hints = jax.lax.stop_gradient((z, hints))
        again = lambda own: _decode(recipe, own, still, video.shape[1], their_hints, tiled)  # noqa: E731
        extra, more = _adversarial(recipe, params, again, video, reconstruction, step)
        loss, metrics = loss + extra, metrics | more
    # The range of pixels is 2 wide.
    return loss, {**metrics, "psnr": 10 * jnp.log10(4.0 / losses.l2(reconstruction, video)).mean()}


def _encode(recipe: Recipe, own: Any, video: Video, tiled: bool) -> Posterior:
    return tiling.encode_with(recipe.module, recipe.tiles if tiled else None)(own, video)


def _decode(recipe: Recipe, own: Any, z: Latents, frames: int, hints: Any, tiled: bool) -> Video:
    if hints is not None:  # of a whole picture, which tiles are not
        return recipe.module.apply(own, z, frames, hints, method="decode")
    return tiling.decode_with(recipe.module, recipe.tiles if tiled else None)(own, z, frames)


def _adversarial(
    recipe: Recipe,
    params: Any,
    decode: Callable[[Any], Video],
    video: Video,
    reconstruction: Video,
    step: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Both sides of the game; neither side's term passes a gradient to the other's parameters.

    `decode` gives the reconstruction again, of other parameters.
    """
    critic, game, weight = recipe.critic, recipe.game, jnp.asarray(recipe.weights["adversarial"])
    judge, fixed = params["discriminator"], jax.lax.stop_gradient(params["discriminator"])
    fool = lambda video: discriminator.deceive(critic.apply(fixed, video)).mean()  # noqa: E731
    generator = fool(reconstruction)
    if game.adaptive:
        own, place = jax.lax.stop_gradient(params["params"]), recipe.module.last_kernel

        def last(kernel: jax.Array) -> Video:
            flat = traverse_util.flatten_dict(own) | {place: kernel}
            return decode({"params": traverse_util.unflatten_dict(flat)})

        def reconstruct(again: Video) -> jax.Array:
            return losses.total({name: loss(again, video) for name, loss in recipe.pixels.items()}, recipe.weights)[0]

        weight *= discriminator.adaptive_weight(last, traverse_util.flatten_dict(own)[place], reconstruct, fool)
    real, fake = critic.apply(judge, video), critic.apply(judge, jax.lax.stop_gradient(reconstruction))
    hinge = discriminator.hinge(real, fake).mean()
    loss = weight * generator + hinge
    metrics = {"adversarial": generator, "adversarial_weight": weight, "discriminator": hinge}
    if game.r1:
        metrics["r1"] = discriminator.r1(partial(critic.apply, judge), video).mean()
        loss += game.r1 * metrics["r1"]
    return jnp.where(step >= game.start, loss, 0.0), metrics


def _hints(recipe: Recipe, own: Any, keys: RowKeys, video: Video) -> Any:
    """The first frame's features for a share of the rows, zeros for the others: one decoder learns both."""
    draw = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, 1), recipe.hint_share))(keys)
    features = recipe.module.apply(own, video[:, :1], method="hints")
    return jax.tree.map(lambda x: x * draw[:, None, None, None, None], features)


def _apart(video: Video) -> Float[Array, "N 1 H W 3"]:
    """Every frame as a video of its own."""
    return video.reshape(-1, 1, *video.shape[2:])


def _for_each(keys: RowKeys, frames: int) -> Key[Array, "N"]:
    """A key for each frame of each row."""
    return jax.vmap(lambda key: jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(frames)))(keys).reshape(-1)
