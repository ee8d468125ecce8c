"""The protocol of autoencoders: what it says, its floor, and published models under it."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import save_file

from tests.autoencoders import published
from tests.tasks.experiments import AUTOENCODER, TEXT_TO_VIDEO
from vidflow import config as configs
from vidflow import evaluate
from vidflow.autoencoders.latents import Compression
from vidflow.autoencoders.tiling import Tiles
from vidflow.errors import UsageError
from vidflow.metrics import i3d
from vidflow.metrics.intervals import Interval
from vidflow.tasks import evaluation, frozen_autoencoder, reconstruction
from vidflow.training import run_folder


def waves(frames=9, size=32):
    t, y, x = np.mgrid[:frames, :size, :size] / 6
    video = 127 + 120 * np.stack([np.sin(x + t / 5), np.cos(y - t / 5), np.sin(x + y)], -1)
    return video[None].astype(np.uint8)


def test_the_floor_stores_no_more_numbers_than_there_are_latents(monkeypatch):
    """With as many numbers as pixels it is nearly the video; with fewer it is worse, never better."""
    video, errors, stored, through = waves(), [], [], reconstruction._through

    def counted(videos, small):
        stored.append(videos.shape[1] * small[0] * small[1] * 3)
        return through(videos, small)

    monkeypatch.setattr(reconstruction, "_through", counted)
    for compression in (
        Compression(1, 1, 1, 3),
        Compression(1, 4, 4, 12),
        Compression(2, 8, 8, 12),
        Compression(9, 8, 8, 3),
    ):
        again = reconstruction.floor(compression)(video)
        assert again.shape == video.shape and again.dtype == np.uint8
        most = np.prod(compression.latent_shape(*video.shape[1:4]))
        assert 0.5 * most < stored[-1] <= most
        errors.append(np.abs(again.astype(int) - video).mean())
    assert errors[0] < 1 and errors == sorted(errors) and errors[-1] > 10


def test_frames_that_are_dropped_are_copies_of_the_one_before():
    video = waves()
    again = reconstruction.floor(Compression(3, 1, 1, 3))(video)
    assert (again[:, 0] == again[:, 1]).all() and (again[:, 0] == again[:, 2]).all()
    assert (again[:, 3] == again[:, 5]).all() and (again[:, 2] != again[:, 3]).any()


def test_the_card_says_what_the_numbers_are_of():
    data = {"source": "folder", "path": "clips", "frames": 33, "height": 64, "width": 96, "fps": 16.0}
    from ml_collections import ConfigDict

    card = reconstruction.protocol(ConfigDict(data), 5, 12, Compression(4, 8, 8, 16, True)).card()
    assert "12 clips of clips (the first ones, not held out), 33 frames of 96x64 at 16 frames a second" in card
    assert "4x8x8, 16 channels: 13824 numbers for 608256, one for 44.0." in card


def test_the_card_tells_what_else_the_numbers_depend_on():
    config = configs.override(configs.load(AUTOENCODER), [("data.max_interval", "3")])
    data = configs.from_json(json.dumps({**json.loads(configs.to_json(config.data)), "signs": True}))
    card = reconstruction.protocol(data, 5, 12, Compression(2, 4, 4, 4), Tiles((2, 4, 4), (1, 2, 2))).card()
    assert "12 clips of bounce level 0 with signs (held out, seed 5)" in card
    assert "at 8 frames a second, one in 1 to 3 of them; " in card
    assert "Latents 2x4x4, 4 channels, in tiles of 2x4x4 that share 1x2x2: 1024 numbers" in card


class Loaded(Exception):
    """With the tiles that a model should work in."""


def loaded(folder, tiles=None):
    raise Loaded(tiles)


@pytest.mark.parametrize(("experiment", "where"), [(AUTOENCODER, ""), (TEXT_TO_VIDEO, "autoencoder.train.")])
def test_an_autoencoder_is_scored_in_its_tiles(experiment, where, tmp_path, monkeypatch):
    tiles = [(f"{where}tiles.size", "2,4,4"), (f"{where}tiles.overlap", "1,2,2")]
    run_folder.write_config(tmp_path, configs.override(configs.load(experiment), tiles))
    monkeypatch.setattr(frozen_autoencoder, "load", loaded)
    with pytest.raises(Loaded) as found:
        evaluation.evaluate(tmp_path, 2, [0], 4, parts=("autoencoder",))
    assert found.value.args == (Tiles((2, 4, 4), (1, 2, 2)),)


def test_a_published_autoencoder_is_scored_in_the_tiles_of_the_config(monkeypatch):
    monkeypatch.setattr(evaluation.autoencoders, "load", loaded)
    flags = ["--autoencoder=wan", f"--config={AUTOENCODER}"]
    for tiles, wanted in (
        ([], None),
        (["--config.tiles.size=2,4,4", "--config.tiles.overlap=1,2,2"], Tiles((2, 4, 4), (1, 2, 2))),
    ):
        with pytest.raises(Loaded) as found:
            evaluate.main([*flags, *tiles])
        assert found.value.args == (wanted,)


def test_a_published_model_is_scored_beside_the_floor(tmp_path, capsys):
    folder = published.write("wan", tmp_path / "wan")
    save_file(published.tensors("lpips_alex"), tmp_path / "alex.safetensors")
    command = [
        f"--autoencoder={folder}",
        f"--config={AUTOENCODER}",
        "--clips=3",
        f"--lpips={tmp_path}/alex.safetensors",
    ]
    evaluate.main([*command, "--config.data.frames=5"])
    said = capsys.readouterr().out
    assert all(word in said for word in ("psnr", "ssim", "lpips", "autoencoder", "floor", "3 clips of bounce level 0"))


def test_the_distance_of_all_clips_is_in_the_table_without_an_interval(tmp_path):
    save_file(published.tensors("i3d"), tmp_path / "i3d.safetensors")
    judges = reconstruction.Judges(i3d=i3d.load(tmp_path / "i3d.safetensors"))
    source = [{"video": waves(2)[0]}, {"video": 255 - waves(3)[0, 1:] // 2}]
    rows = {
        name: reconstruction.scores(codec, source, 2, judges)
        for name, codec in (("moved", lambda v: np.roll(v, 1, axis=2)), ("black", np.zeros_like))
    }
    assert 0 < rows["moved"]["rfvd"].mean < rows["black"]["rfvd"].mean
    assert reconstruction.table({"black": rows["black"]}).splitlines()[1].endswith(f" {rows['black']['rfvd'].mean:.3f}")


def test_the_interval_of_one_number_is_not_known(monkeypatch):
    monkeypatch.setattr(reconstruction.I3D, "logits", lambda network, video: video.mean(axis=(1, 2, 3)))
    judges = reconstruction.Judges(i3d=reconstruction.I3D({}))
    found = reconstruction.scores(np.zeros_like, [{"video": waves(2)[0]}, {"video": waves(3)[0, 1:]}], 2, judges)
    assert found["rfvd"].mean > 0 and np.isnan(found["rfvd"][1:3]).all()


def test_a_run_leaves_its_protocol_beside_its_scores(smoke_run, tmp_path):
    run = shutil.copytree(smoke_run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "latents"))
    (run / "evaluation.json").unlink(missing_ok=True)
    evaluate.main([f"--run={run}", "--prompts=2", "--seeds=1", "--clips=4"])
    scores, said = (json.loads((run / name).read_text()) for name in ("evaluation.json", "protocol.json"))
    assert {"autoencoder/psnr", "autoencoder/ssim", "floor/psnr", "floor/ssim"} <= set(scores)
    assert said["clips"] == scores["floor/psnr"]["n"] == 4 and said["card"].startswith(
        "4 clips of bounce level 0 (held"
    )


def test_samples_that_are_kept_are_of_all_prompts_and_not_of_the_first(tmp_path):
    videos = np.zeros((40, 2, 16, 16, 3), np.uint8)
    samples = [evaluation.Sample(f"prompt {number}", 0, frames, {}) for number, frames in enumerate(videos)]
    evaluation.write(tmp_path, {}, None, samples, 8.0)
    shown = json.loads((tmp_path / "samples" / "index.json").read_text())
    assert [entry["prompt"] for entry in shown] == [f"prompt {number * 40 // 16}" for number in range(16)]
    assert len(json.loads((tmp_path / "samples" / "scores.json").read_text())) == 40
    assert len(list((tmp_path / "samples").glob("*.mp4"))) == 16


def test_the_protocol_of_an_earlier_evaluation_does_not_stay(tmp_path):
    config = configs.load(AUTOENCODER)
    said = reconstruction.protocol(config.data, config.seed, 4, Compression(2, 4, 4, 4))
    evaluation.write(tmp_path, {}, said)
    assert (tmp_path / "protocol.json").exists()
    evaluation.write(tmp_path, {"loss": Interval(np.inf, np.nan, np.nan, 3)}, None)
    assert json.loads((tmp_path / "evaluation.json").read_text())["loss"]["mean"] is None
    assert not (tmp_path / "protocol.json").exists()


def test_what_a_cache_held_out_is_told_by_its_own_seed(smoke_run, monkeypatch):
    config = run_folder.read_config(smoke_run).unlock()
    monkeypatch.setattr(evaluation, "LatentsSource", lambda path: SimpleNamespace(recipe={"seed": 7}))
    own, bounce = ConfigDict({"source": "my_data.clips"}), ConfigDict({"source": "bounce"})
    assert evaluation._seed_of_split(config, own) == config.seed == 0
    config.data.source = "cache"
    assert evaluation._seed_of_split(config, own) == 7
    assert evaluation._seed_of_split(config, bounce) == 0  # whose splits are apart by themselves


def test_clips_that_are_thinned_say_nothing_of_the_reader(smoke_run, monkeypatch):
    config = configs.override(run_folder.read_config(smoke_run), [("data.level", "1"), ("data.clips", "4")])
    autoencoder = evaluation.frozen_autoencoder.load(smoke_run / "autoencoder")
    for interval in (1, 2):
        data = config.data.unlock()
        data.max_interval = interval
        source = evaluation.make_source(data, seed=0, split="test")
        _, scores = evaluation.autoencoder_scores(autoencoder, source, data, 0, 4, reconstruction.NO_JUDGES)
        assert any(name.startswith("reader/") for name in scores) == (interval == 1)


def test_prompts_are_of_the_data_that_clips_come_from(smoke_run, tmp_path, monkeypatch):
    """A run on a cache has settings of its own for data, which need not be those of the encode."""
    shutil.copytree(smoke_run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "latents"))
    encoded = configs.override(run_folder.read_config(smoke_run), [("data.level", "3")]).data

    def samples_of(generator, prompts, seeds, grade):
        return [evaluation.Sample(prompt, 0, waves(2)[0], grade(waves(8)[0], prompt)) for prompt in prompts]

    monkeypatch.setattr(evaluation, "data_of", lambda config: encoded)
    monkeypatch.setattr(evaluation, "samples_of", samples_of)
    _, scores = evaluation.evaluate(tmp_path / "run", 2, [0], 4, parts=("samples",))
    assert "bounce/three_objects/colour" in scores


@pytest.mark.parametrize(
    "flags", [[], ["--run=a", "--autoencoder=b"], ["--autoencoder=b"], ["--run=a", f"--config={AUTOENCODER}"]]
)
def test_what_to_evaluate_must_be_said_once(flags):
    with pytest.raises(UsageError, match="Name a run with --run, or an autoencoder"):
        evaluate.main(flags)


def test_one_clip_has_no_interval(tmp_path):
    folder = published.write("wan", tmp_path / "wan")
    with pytest.raises(UsageError, match="at least 2 clips"):
        evaluate.main([f"--autoencoder={folder}", f"--config={AUTOENCODER}", "--clips=1"])
