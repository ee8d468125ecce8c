"""What the values of a config may be."""

from pathlib import Path

import pytest

from vidflow import config as configs
from vidflow import limits
from vidflow.errors import UsageError

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
FILES = [path for path in sorted(EXPERIMENTS.glob("*/*.py")) if "def get_config" in path.read_text()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_experiment_is_within_them(path):
    limits.check(configs.load(str(path)))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (("text.encoders.ul2.dropout", "2"), "config.text.encoders.ul2.dropout is 2.0 and must be a number"),
        (("text.dtype", "float16"), "config.text.dtype is 'float16' and must be float32 or bfloat16"),
        (("autoencoder.train.model.patch", "0"), "config.autoencoder.train.model.patch is 0 and must be 1 or more"),
        (("preemption_code", "256"), "config.preemption_code is 256 and must be a number from 1 to 255"),
        (("optimizer.b2", "1"), "config.optimizer.b2 is 1.0 and must be a number from 0 on and below 1"),
    ],
)
def test_a_value_beyond_its_limit_is_named(setting, said):
    config = configs.override(configs.load(str(EXPERIMENTS / "moviegen/video.py")), [setting])
    with pytest.raises(UsageError, match=said):
        limits.check(config)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (("discriminator.time", "2"), "config.discriminator.time is 2 and must be 1 or 3"),
        (("discriminator.layers", "-1"), "config.discriminator.layers is -1 and must be 0 or more"),
        (("model.widths", "0,8"), r"config.model.widths is \(0, 8\) and must be 1 or more"),
        (("model.blocks", "-1"), "config.model.blocks is -1 and must be 0 or more"),
    ],
)
def test_an_autoencoder_has_limits_too(setting, said):
    config = configs.override(configs.load(str(EXPERIMENTS / "bounce/autoencoder.py")), [setting])
    with pytest.raises(UsageError, match=said):
        limits.check(config)
