"""What an autoencoder's parts are worth: the same small model, one thing changed.

Claim: none; the tables are the point. Results: experiments/autoencoder/RESULTS.md.

    vidflow train --config=experiments/autoencoder/ablation.py:3d --workdir=runs/3d
    vidflow ablate --config=experiments/autoencoder/ablation.py --workdir=runs/autoencoders/bounce
    launch/ablations.sh autoencoders   # on bounce and on real clips

The arms of Movie Gen's kind are not normalised: on flat colours small models with group normalisation learn several
times more slowly. The causal one has Wan's normalisation of each vector, without which it learns little. Pixels are
folded two by two before the first layer, which buys four times as many steps.

Compression is 2 x 4 x 4 in every row (a clip of 9 frames has 5 latents along time, whether the first stands alone or
not), and widths are chosen so that encoder and decoder have as many parameters.

Argument: `kind` of the model (2.5d, 3d, causal), `smoke` for a run of seconds.
"""

from ml_collections import ConfigDict

from vidflow import settings
from vidflow.config import parse_arg
from vidflow.tasks.ablating import Ablation, Arm

WIDTHS = {"2.5d": (24, 48), "3d": (17, 31), "causal": (16, 32)}


def get_config(arg: str = "") -> ConfigDict:
    arg = parse_arg(arg, kind=("2.5d", "3d", "causal"), smoke=False)
    config = settings.of_an_autoencoder()
    config.steps = 400
    config.batch_size = 8
    config.ema_decay = 0.99

    config.data = ConfigDict({"source": "bounce", "path": "", "test_path": "", "clips": 16384, "level": 3})
    config.data.update({"captions": "short", "frames": 9, "height": 32, "width": 32, "fps": 8.0})
    config.data.update({"threads": 2, "max_bad": 0.5, "max_interval": 1, "image_every": 0})

    config.model = ConfigDict({"widths": WIDTHS[arg.kind], "blocks": 1, "channels": 8, "patch": 2, "groups": 0})
    config.model.dtype = "float32"
    if arg.kind == "causal":
        config.model.update({"family": "causal", "strides": (2,), "up_strides": (2,), "attention": ""})
        config.model.update({"norm": "rms", "edge": True, "jointly": False})
    else:
        config.model.update({"family": "tae", "kind": arg.kind, "strides": ((2, 2),), "attention": False})
        config.model.narrow = True
        config.model.update({"pointwise": False, "hinted": False})

    # Squared errors: with absolute ones alone the flat background wins, and some seeds stay there for most of a run.
    config.losses.update({"l1": 0.1, "l2": 1.0, "kl": 1e-4})
    config.optimizer = ConfigDict(
        {"name": "muon", "learning_rate": 1e-2, "warmup": 20, "decay": "cosine", "weight_decay": 0.0}
    )
    config.optimizer.update({"clip": 1.0, "b1": 0.9, "b2": 0.99})
    config.checkpoint.every = 500

    if arg.smoke:
        config.steps = 10
        config.optimizer.name = "adamw"  # compiles in a fraction of muon's time
        config.data.update({"clips": 16, "level": 0})
        config.checkpoint.every = 5
    return config


def ablation() -> Ablation:
    widths = "its widths give it as many parameters"
    arms = (
        Arm("2.5D"),
        Arm("3D", arg="3d", together=widths),
        Arm("causal", arg="causal", together=widths),
        Arm("outlier penalty", {"losses.outliers": 1e5}),  # Movie Gen's weight
        # H3AE's loss. It divides by the posterior's variance, and at 1e-3 it soon outweighs the others.
        Arm("latent consistency", {"losses.consistency": 1e-4}),
        Arm("4 channels", {"model.channels": 4}),
        Arm("16 channels", {"model.channels": 16}),
    )
    scores = tuple(f"autoencoder/{name}" for name in ("psnr", "image_psnr", "ssim"))
    return Ablation(arms, matched="steps", rates=(1e-2,), measures=scores, evaluation=("--clips=384",))
