"""Movie Gen Video: its sizes, and the stages of its training (section 3.1 and table 3; arXiv 2410.13720).

    python -m vidflow.plan --config=experiments/moviegen/video.py:30b,768px --topology=v5p:2x2x2 --config.batch_size=1
    python -m vidflow.train --config=experiments/moviegen/video.py:smoke --workdir=runs/moviegen_smoke

Argument: `size` (1b, 5b, 9b, 17b, 30b), `stage` (256px-images, 256px, 768px, finetune), `smoke` for a run of seconds on
bounce. The text comes as embeddings of three frozen encoders, computed before.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vidflow import config as configs
from vidflow import settings
from vidflow.config import parse_arg

# Frames, height and width; global batch, learning rate and steps; position tables in patches (the spatial ones grow
# twofold and threefold between stages, and hold portrait and landscape formats of the same area).
# The paper doubles the batch of the 256px stage in its course (1536, then 3072), and lowers batch (to 512) and rate (to
# 1e-5) of the 768px stage as the validation loss flattens; here stand the values that a stage begins with. Of the
# finetuning it tells the 512 devices and the cosine decay; batch, rate and steps are ours.
STAGES = {
    "256px-images": {"video": (1, 256, 256), "training": (9216, 1e-4, 210_000), "positions": (1, 16, 16)},
    "256px": {"video": (256, 256, 256), "training": (1536, 6e-5, 185_000), "positions": (32, 32, 32)},
    "768px": {"video": (256, 768, 768), "training": (1536, 6e-5, 74_500), "positions": (32, 96, 96)},
    "finetune": {"video": (256, 768, 768), "training": (64, 1e-5, 10_000), "positions": (32, 96, 96)},
}


def get_config(arg: str = "") -> ConfigDict:
    arg = parse_arg(arg, size=("30b", "17b", "9b", "5b", "1b"), stage=("768px", *(s for s in STAGES if s != "768px")),
                    smoke=False)
    stage = STAGES[arg.stage]
    (frames, height, width), (batch, rate, steps) = stage["video"], stage["training"]
    config = settings.of_a_generator()
    config.steps = steps
    config.batch_size = batch
    config.gradient_dtype = "bfloat16"  # of the matrices; their master copies and moments are float32
    config.ema_decay = 0.9999

    config.data = ConfigDict({"source": "cache", "path": "", "test_path": "", "frames": frames})
    config.data.update({"height": height, "width": width, "fps": 16.0, "threads": 16, "max_bad": 0.01})

    config.autoencoder = ConfigDict({"run": ""})
    sibling = Path(__file__).with_name("autoencoder.py")
    config.autoencoder.train = configs.load(f"{sibling}:{'smoke' if arg.smoke else ''}")

    config.model = ConfigDict({"size": arg.size, "patch": (1, 2, 2), "positions": stage["positions"]})
    config.model.update({"remat": "attention", "saved": (), "unrolled": False, "dtype": "bfloat16"})
    config.model.update({"kernel": "splash", "strategy": "ulysses_allgather", "design": settings.movie_gen_design()})
    # Widths are those of the encoders, budgets of tokens those of the open replication (MetaCLIP's the paper's); the
    # paper does not say how often it drops the text.
    config.text = settings.of_text_encoders()
    config.text.encoders.ul2 = settings.text_encoder("ul2", tokens=300, width=4096)
    config.text.encoders.metaclip = settings.text_encoder("metaclip-g", tokens=256, width=1280)
    config.text.encoders.byt5 = settings.text_encoder("byt5-small", tokens=100, width=1472, reads="quoted")
    config.text.use = ("ul2", "metaclip", "byt5")
    config.text.prefix = "FPS-{fps}. "
    decay = "cosine" if arg.stage == "finetune" else "constant"
    # The optimizer's constants are not published; these are ours.
    config.optimizer = ConfigDict({"name": "adamw", "learning_rate": rate, "warmup": 1000, "decay": decay})
    config.optimizer.update({"weight_decay": 0.0, "clip": 1.0, "b1": 0.9, "b2": 0.95})
    config.sampling.update({"guidance": 7.5, "batch": 1})

    if arg.smoke:
        config.steps = 20
        config.batch_size = 8
        config.gradient_dtype = "float32"
        config.data = ConfigDict({"source": "bounce", "path": "", "test_path": "", "clips": 64, "level": 0})
        config.data.update({"captions": "short", "frames": 8, "height": 32, "width": 32, "fps": 8.0})
        config.data.update({"threads": 2, "max_bad": 0.5})
        config.model.update({"size": "smoke", "positions": (1, 2, 2), "kernel": "xla", "dtype": "float32"})
        config.text = ConfigDict({"length": 64, "stride": 4, "width": 96, "layers": 2, "heads": 4, "dropout": 0.1})
        config.optimizer.warmup = 5
        config.checkpoint.every = 5
        config.sampling.steps = 4
    return config
