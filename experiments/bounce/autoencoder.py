"""A small temporal autoencoder for the bounce world.

Claim: the 2.5D design of Movie Gen (section 3.1.1) reconstructs bounce at 29 dB PSNR or better, from one latent number
for 24 pixel values, after minutes on two CPU cores. Results: experiments/bounce/RESULTS.md.

    python -m vidflow.train --config=experiments/bounce/autoencoder.py --workdir=runs/demo_autoencoder

Argument: `level=0..3` of bounce, `size` of the frames in pixels, `reference` for the autoencoder of the model that
ships with the package (the top level at 40 pixels), `smoke` for a run of seconds.
"""

from ml_collections import ConfigDict

from vidflow import settings
from vidflow.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    arg = parse_arg(arg, level=0, size=32, reference=False, smoke=False)
    level, size = (3, 40) if arg.reference else (arg.level, arg.size)
    config = settings.of_an_autoencoder()
    config.steps = 1200
    config.batch_size = 8
    config.ema_decay = 0.99

    config.data = ConfigDict()
    config.data.source = "bounce"  # or "folder", with `path`; or a dotted name of your own
    config.data.path = ""
    config.data.test_path = ""  # a folder of other videos that scores are of; where there is none, those of `path`
    config.data.clips = 16384  # of bounce; a folder has as many as it has
    config.data.level = level
    config.data.captions = "mixed"
    config.data.frames = 8
    config.data.height = size
    config.data.width = size
    config.data.fps = 8.0
    config.data.threads = 2
    config.data.max_bad = 0.5  # of a folder: the share of unusable files above which a run stops
    config.data.max_interval = 1  # frames between those of a clip, drawn for each clip up to this one: fast motion
    config.data.image_every = 0  # steps between two batches of images, which are frames of its clips; 0: none

    config.model = ConfigDict()
    config.model.family = "tae"  # of vidflow/autoencoders; or "causal"
    config.model.kind = "2.5d"  # of the convolutions; or "3d"
    config.model.patch = 4
    config.model.widths = (48, 64)
    config.model.strides = ((2, 1),)
    config.model.blocks = 0
    config.model.channels = 4
    config.model.attention = False
    config.model.groups = 0
    config.model.narrow = True
    config.model.update({"pointwise": False, "hinted": False})
    config.model.dtype = "float32"

    config.losses.update({"l1": 0.1, "l2": 1.0, "kl": 1e-4})
    config.optimizer = ConfigDict(
        {"name": "muon", "learning_rate": 1.5e-2, "warmup": 20, "decay": "cosine", "weight_decay": 0.0}
    )
    config.optimizer.update({"clip": 1.0, "b1": 0.9, "b2": 0.99})
    config.checkpoint.every = 300

    if arg.reference:
        config.steps = 3000
        config.data.clips = 65536
        config.model.widths = (64, 96)

    if arg.smoke:
        config.steps = 20
        config.batch_size = 8
        config.optimizer.name = "adamw"  # compiles in a fraction of muon's time
        config.data.clips = 64
        config.model.widths = (16, 16)
        config.checkpoint.every = 5
    return config
