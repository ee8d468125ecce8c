"""Movie Gen's temporal autoencoder at its published compression: 8 x 8 x 8, 16 channels (section 3.1.1). Or the causal
ones of Wan 2.1 and HunyuanVideo, 4 x 8 x 8, 16 channels, with the same training.

Widths are those of the image autoencoder that it is inflated from (Rombach et al. 2022). Loss weights other than the
outlier penalty's are not published; these are ours. The penalty is off: the paper's is --config.losses.outliers=1e5.

    python -m vidflow.plan --config=experiments/moviegen/autoencoder.py --topology=v5p:2x2x1 --config.batch_size=4
    python -m vidflow.train --config=experiments/moviegen/autoencoder.py --workdir=runs/moviegen_autoencoder \\
        --config.init_from=stable-diffusion-3.5-large/vae --config.data.path=my_videos
    python -m vidflow.train --config=experiments/moviegen/autoencoder.py:like=wan,frames=33 --workdir=runs/wan \\
        --config.init_from=Wan2.1-T2V-14B-Diffusers/vae --config.data.path=my_videos
    python -m vidflow.train --config=experiments/moviegen/autoencoder.py:smoke --workdir=runs/smoke

Argument: `like` movie_gen, wan or hunyuan_video, `size` of the frames in pixels, `frames` of a clip (causal ones want
one more than a multiple of four), `smoke` for a run of seconds on bounce.
"""

from ml_collections import ConfigDict

from vidflow import settings
from vidflow.autoencoders.causal3d import HUNYUAN_VIDEO, WAN
from vidflow.config import parse_arg

CAUSAL = {"wan": WAN, "hunyuan_video": HUNYUAN_VIDEO}


def get_config(arg: str = "") -> ConfigDict:
    arg = parse_arg(arg, like=("movie_gen", *CAUSAL), size=256, frames=32, smoke=False)
    config = settings.of_an_autoencoder()
    config.steps = 50_000
    config.batch_size = 64
    config.ema_decay = 0.999

    config.data = ConfigDict({"source": "folder", "path": "", "test_path": "", "frames": arg.frames})
    config.data.update({"height": arg.size, "width": arg.size, "fps": 16.0, "threads": 16, "max_bad": 0.01})
    config.data.update({"max_interval": 1, "image_every": 4})  # one batch of images for three of videos

    config.model = ConfigDict({"patch": 1, "widths": (128, 256, 512, 512), "strides": ((2, 2), (2, 2), (2, 2))})
    config.model.update({"blocks": 2, "channels": 16, "attention": True, "groups": 32, "dtype": "bfloat16"})
    config.model.update({"family": "tae", "kind": "2.5d", "narrow": False, "pointwise": False, "hinted": False})
    if arg.like in CAUSAL:
        config.model = ConfigDict({"family": "causal", "dtype": "bfloat16", **CAUSAL[arg.like]._asdict()})
    config.losses.update({"l1": 1.0, "kl": 1e-6})
    config.optimizer = ConfigDict(
        {"name": "adamw", "learning_rate": 1e-4, "warmup": 1000, "decay": "constant", "weight_decay": 0.0}
    )
    config.optimizer.update({"clip": 1.0, "b1": 0.9, "b2": 0.99})

    if arg.smoke:
        config.steps = 10
        config.batch_size = 2
        config.data = ConfigDict({"source": "bounce", "path": "", "test_path": "", "clips": 16, "level": 0})
        config.data.update({"captions": "short", "frames": 8, "height": 32, "width": 32, "fps": 8.0})
        config.data.update({"threads": 2, "max_bad": 0.5, "max_interval": 1, "image_every": 4})
        small = {"widths": (8, 8, 8, 8), "blocks": 0, "groups": 0}
        config.model.update({**small, "attention": "" if arg.like in CAUSAL else False})
        config.model.dtype = "float32"
        config.checkpoint.every = 5
    return config
