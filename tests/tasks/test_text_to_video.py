"""What a text-to-video config asks of its clips and caches."""

import pytest

from tests.tasks.experiments import TEXT_TO_VIDEO
from vidflow import config as configs
from vidflow.errors import UsageError
from vidflow.tasks import text_to_video

LONG = (32, 8, 8, 4)  # latents of 64 frames


@pytest.mark.parametrize("positions", ["rotary", "waves"])
def test_positions_that_are_not_learnt_end_nowhere(positions):
    config = configs.override(configs.load(TEXT_TO_VIDEO), [("model.design.positions", positions)])
    assert text_to_video.check_grid(config, LONG) == (16, 4, 4)


@pytest.mark.parametrize("positions", ["every", "first"])
def test_tables_end(positions):
    config = configs.override(configs.load(TEXT_TO_VIDEO), [("model.design.positions", positions)])
    with pytest.raises(UsageError, match="16 patches along time and the model's position table holds 4"):
        text_to_video.check_grid(config, LONG)


@pytest.mark.parametrize("time", ["in_context", "cross_attention"])
def test_a_model_that_is_told_the_time_as_tokens_has_no_times_of_frames(time):
    """Attention does not see the order of the tokens, which stand nowhere."""
    values = [("flow.per_frame", "true"), ("model.design.time", time)]
    with pytest.raises(UsageError, match=f"'{time}' makes them tokens of which none says whose time it is"):
        text_to_video.outline(configs.override(configs.load(TEXT_TO_VIDEO), values))


@pytest.mark.parametrize(
    "changed", [{"data.source": "folder", "data.path": "videos"}, {"autoencoder.train.data.source": "my_data.digits"}]
)
def test_an_autoencoder_is_not_trained_on_other_clips_than_the_run(tmp_path, changed):
    config = configs.override(configs.load(TEXT_TO_VIDEO), list(changed.items()))
    with pytest.raises(UsageError, match="and the autoencoder would learn from config.autoencoder.train.data.source"):
        text_to_video.build(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("path", "said"), [("", "config.data.path is empty: name a folder"), ("nowhere", "nowhere holds no whole cache")]
)
def test_a_cache_that_is_none_is_refused_before_an_autoencoder_is_trained(tmp_path, path, said):
    config = configs.override(configs.load(TEXT_TO_VIDEO), [("data.source", "cache"), ("data.path", path)])
    with pytest.raises(UsageError, match=said):
        text_to_video.build(config, tmp_path)
    assert not list(tmp_path.iterdir())
