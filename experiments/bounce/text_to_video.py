"""Text to video on the bounce world: the demo, and the whole main path in small.

Claim: the Movie Gen recipe (sections 3.1.2 and 3.1.3), in small and on two CPU cores, names colour, shape and
direction of held-out attribute combinations right in at least 90% of samples after minutes.
Results: experiments/bounce/RESULTS.md.

    python -m vidflow.train --config=experiments/bounce/text_to_video.py --workdir=runs/demo \
        --config.autoencoder.run=runs/demo_autoencoder

Argument: `level=0..3` of bounce, `size` of the frames in pixels, `reference` for the model that ships with the package
(the top level at 40 pixels), `smoke` for a run of seconds.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vidflow import config as configs
from vidflow import settings
from vidflow.config import parse_arg


def get_config(arg: str = "") -> ConfigDict:
    arg = parse_arg(arg, level=0, size=32, reference=False, smoke=False)
    level, size = (3, 40) if arg.reference else (arg.level, arg.size)
    config = settings.of_a_generator()
    config.steps = 1200
    config.batch_size = 64
    config.ema_decay = 0.99

    config.data = ConfigDict()
    config.data.source = "bounce"  # or "folder" or "cache" (what vidflow encode wrote), with `path`; or a dotted name
    config.data.path = ""
    config.data.test_path = ""  # a folder of other videos that scores are of; where there is none, those of `path`
    config.data.clips = 16384  # of bounce; a folder has as many as it has
    config.data.level = level
    config.data.captions = "short"
    config.data.frames = 8
    config.data.height = size
    config.data.width = size
    config.data.fps = 8.0
    config.data.threads = 2
    config.data.max_bad = 0.5  # of a folder: the share of unusable files above which a run stops

    config.autoencoder = ConfigDict()
    config.autoencoder.run = ""  # empty: train the one below first, inside the workdir
    sibling = Path(__file__).with_name("autoencoder.py")
    variant = "reference" if arg.reference else "smoke" if arg.smoke else ""
    config.autoencoder.train = configs.load(f"{sibling}:level={level},size={size},{variant}")

    config.model = ConfigDict()
    config.model.size = "demo"
    config.model.patch = (2, 2, 2)
    config.model.positions = (4, 8, 8)
    config.model.design = settings.movie_gen_design()
    config.model.remat = "none"  # or full, attention, matmuls, offload, named (then `saved` lists names)
    config.model.saved = ()
    config.model.unrolled = True  # layers compiled one by one: faster on a CPU, slower to compile where they are many
    config.model.kernel = "xla"
    config.model.strategy = "ulysses_allgather"  # how devices along config.mesh.sequence share attention
    config.model.dtype = "float32"

    config.text = ConfigDict({"length": 64, "stride": 4, "width": 96, "layers": 2, "heads": 4, "dropout": 0.1})
    # Movie Gen's mean is 0; a smaller one dwells where the layout is decided, and a small model learns it sooner.
    config.flow.times = "logit_normal:mean=-0.8"
    config.optimizer = ConfigDict(
        {"name": "muon", "learning_rate": 2e-2, "warmup": 20, "decay": "linear", "weight_decay": 0.0}
    )
    config.optimizer.update({"clip": 1.0, "b1": 0.9, "b2": 0.99})
    config.checkpoint.every = 300
    config.sampling.update({"steps": 25, "guidance": 3.0})

    if arg.reference:
        config.steps = 16_000
        config.batch_size = 32  # the same loss in three quarters of the time of 64
        config.optimizer.learning_rate = 5e-3
        config.ema_decay = 0.999
        config.data.clips = 40960
        config.model.size = "small"
        config.text.update({"length": 216, "width": 96, "layers": 3})
        config.flow.times = "logit_normal:mean=-0.5,std=1.2"  # more of the late times, where edges are drawn
        config.checkpoint.every = 500

    if arg.smoke:
        config.steps = 20
        config.batch_size = 8
        config.optimizer.update({"name": "adamw", "learning_rate": 5e-3})  # compiles in a fraction of muon's time
        config.data.clips = 64
        config.model.size = "smoke"
        config.checkpoint.every = 5
        config.sampling.steps = 4
    return config
