"""What the values of a config may be: looked at as a run begins, before anything is trained or compiled."""

from collections.abc import Callable
from fnmatch import fnmatch
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from vidflow import config as configs
from vidflow.errors import UsageError

SEEDS = range(2**32)  # JAX tells no more of them apart
DTYPES, TEXT_DTYPES = ("float32", "bfloat16", "float16"), ("float32", "bfloat16")
INSIDE = "autoencoder.train."  # the config of the autoencoder that a run trains for itself


class Limit(NamedTuple):
    """What a value must be, in words, and whether it is."""

    words: str
    holds: Callable[[Any], bool]


def _each(words: str, holds: Callable[[Any], bool]) -> Limit:
    """Of a number, or of every number of a tuple."""
    return Limit(words, lambda value: all(map(holds, value if isinstance(value, tuple) else (value,))))


LIMITS = (
    (
        Limit("three numbers, for time, height and width", lambda x: not isinstance(x, tuple) or len(x) == 3),
        ("model.patch", "model.positions"),
    ),
    (Limit(f"one of {', '.join(DTYPES)}", lambda x: x in DTYPES), ("model.dtype",)),
    (Limit(" or ".join(TEXT_DTYPES), lambda x: x in TEXT_DTYPES), ("text.dtype",)),
    (Limit(f"a number from 0 to {SEEDS[-1]}", lambda x: x in SEEDS), ("seed",)),
    (Limit("a number from 1 to 255", lambda x: x in range(1, 256)), ("preemption_code",)),  # 0 means finished
    (
        _each("1 or more", lambda x: x >= 1),
        (
            *("steps", "batch_size", "microbatches", "log_every"),
            *("checkpoint.every", "checkpoint.keep", "checkpoint.local_every"),
            *("stability.max_skips", "stability.window"),
            *("data.clips", "data.frames", "data.height", "data.width", "data.threads", "data.max_interval"),
            *("model.patch", "model.positions", "model.channels", "model.widths", "sampling.steps", "sampling.batch"),
            "discriminator.width",
            *("text.length", "text.stride", "text.width", "text.heads"),
            *("text.encoders.*.tokens", "text.encoders.*.width"),
        ),
    ),
    (
        _each("0 or more", lambda x: x >= 0),
        (
            *("checkpoint.keep_every", "stability.loss_spike", "stability.norm_spike", "data.image_every"),
            *("optimizer.learning_rate", "optimizer.warmup", "optimizer.weight_decay", "optimizer.clip"),
            *("text.layers", "losses.*", "model.blocks", "model.groups"),
            *("discriminator.layers", "discriminator.start", "discriminator.r1"),
        ),
    ),
    (
        _each("a number from 0 to 1", lambda x: 0 <= x <= 1),
        (
            *("ema_decay", "data.max_bad", "hint_share", "tile_share", "sampling.guidance_rescale"),
            *("text.dropout", "text.encoders.*.dropout"),
        ),
    ),
    (Limit("a positive number, or None", lambda x: x is None or 0 < x < float("inf")), ("data.fps",)),
    (Limit("1 or 3", lambda x: x in (1, 3)), ("discriminator.time",)),
    (_each("a number from 0 on and below 1", lambda x: 0 <= x < 1), ("optimizer.b1", "optimizer.b2")),
)


def check(config: ConfigDict) -> None:
    """Raises UsageError: a value beyond its limit."""
    for key, value in configs.flatten(config).items():
        own = key.removeprefix(INSIDE)
        for limit, names in LIMITS:
            if any(fnmatch(own, name) for name in names) and not limit.holds(value):
                raise UsageError(f"config.{key} is {value!r} and must be {limit.words}: correct it.")
