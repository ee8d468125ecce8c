"""Which of three text encoders a model of signs needs (Movie Gen, section 3.1.3, has all three and ablates none).

    launch/text_encoders.sh                                  # all of it
    python experiments/text_encoders/towers.py runs/towers   # or by hand
    vidflow train --config=experiments/text_encoders/signs.py:autoencoder --workdir=runs/signs_autoencoder
    vidflow train --config=experiments/text_encoders/signs.py --workdir=runs/signs \
        --config.autoencoder.run=runs/signs_autoencoder '--config.text.use=("letters",)'

Every clip of bounce has a sign with a word, which the caption quotes; words of several glyphs that are asked for in
scoring were in no training caption. Arms are the subsets of the encoders that towers.py writes; `letters` reads only
what is quoted. The towers are random and frozen (see there), so the tables show what a way of tokenizing lets through,
not what training of the encoders adds. Results: experiments/text_encoders/RESULTS.md.

Arguments: `captions` (short, long), `bytes` for the reference, whose encoder of bytes is trained along, `autoencoder`
for the config of the autoencoder, `smoke` for a run of seconds.
"""

from itertools import combinations
from pathlib import Path

from ml_collections import ConfigDict

from vidflow import config as configs
from vidflow import settings
from vidflow.config import parse_arg
from vidflow.tasks.ablating import Ablation, Arm

BOUNCE = Path(__file__).parents[1] / "bounce"
ENCODERS = ("meaning", "look", "letters")
TOWERS = "runs/towers"  # where towers.py has put them
HEIGHT, WIDTH = 48, 32  # a square world above its sign


def get_config(arg: str = "") -> ConfigDict:
    arg = parse_arg(arg, captions=("short", "long"), bytes=False, autoencoder=False, smoke=False)
    autoencoder = configs.load(f"{BOUNCE}/autoencoder.py:{'smoke' if arg.smoke else ''}")
    autoencoder.model.channels = 8  # strokes are thinner than a patch
    _with_signs(autoencoder.data, "mixed")
    if not arg.smoke:
        autoencoder.steps = 2400
    if arg.autoencoder:
        return autoencoder
    config = configs.load(f"{BOUNCE}/text_to_video.py:{'smoke' if arg.smoke else ''}")
    config.autoencoder.train = autoencoder
    if not arg.smoke:
        # As many clips as the demo sees, in twice the steps.
        config.steps, config.batch_size = 2400, 32
    _with_signs(config.data, arg.captions)
    config.model.positions = (4, 6, 4)
    if arg.bytes:
        config.text.length = 256 if arg.captions == "long" else 128
        return config
    config.text = settings.of_text_encoders()
    pieces, words = (40, 36) if arg.captions == "long" else (24, 24)  # the longest captions fit
    config.text.encoders.meaning = settings.text_encoder("", tokens=pieces, width=96)
    config.text.encoders.look = settings.text_encoder("", tokens=words, width=96)
    config.text.encoders.letters = settings.text_encoder("", tokens=8, width=96, reads="quoted")
    for name in ENCODERS:
        config.text.encoders[name].path = f"{TOWERS}/{name}"
    config.text.use = ENCODERS
    config.text.dtype = "float32"
    return config


def _with_signs(data: ConfigDict, captions: str) -> None:
    with data.unlocked():
        data.update({"signs": True, "height": HEIGHT, "width": WIDTH, "captions": captions})


def ablation() -> Ablation:
    subsets = [some for size in (3, 2, 1) for some in combinations(ENCODERS, size)]
    arms = tuple(Arm(" + ".join(some), {"text.use": some} if len(some) < 3 else {}) for some in subsets)
    measures = ("loss", "bounce/glyphs", "bounce/word", "bounce/colour", "bounce/shape", "bounce/direction")
    evaluation = ("--only=loss,samples", "--prompts=192", "--seeds=1")
    return Ablation(arms, matched="steps", rates=(1e-2, 2e-2), measures=measures, evaluation=evaluation)
