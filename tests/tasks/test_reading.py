"""A model that is told its prompt by frozen encoders: from a folder of weights to a sampled video."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tasks.experiments import AUTOENCODER, TEXT_TO_VIDEO
from tests.text import published
from vidflow import config as configs
from vidflow import encode, export, sample, settings, train
from vidflow.errors import UsageError
from vidflow.tasks import prompts
from vidflow.tasks.reading import make_reader
from vidflow.text import load_encoder

EXPERIMENT = '''
from vidflow import config as configs, settings

def get_config(arg=""):
    config = configs.load({base!r})
    config.autoencoder.run = {autoencoder!r}
    config.text = settings.of_text_encoders()
    config.text.encoders.meaning = settings.text_encoder("", tokens=24, width=32)
    config.text.encoders.letters = settings.text_encoder("", tokens=12, width=32, reads="quoted")
    config.text.encoders.meaning.path, config.text.encoders.letters.path = {paths!r}
    config.text.use = ("meaning", "letters")
    config.text.dtype = "float32"
    config.text.prefix = "FPS-{{fps}}. "
    return config
'''
PROMPTS = ["a red circle moves up", 'a sign says "CAT" and “犬”', ""]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An experiment file, its encoders' folders and its autoencoder."""
    root = tmp_path_factory.mktemp("encoders")
    paths = [str(published.folder(name, root / name)) for name in ("t5", "byt5")]
    train.main([f"--config={AUTOENCODER}", f"--workdir={root}/autoencoder"])
    file = root / "experiment.py"
    file.write_text(EXPERIMENT.format(base=TEXT_TO_VIDEO, autoencoder=f"{root}/autoencoder", paths=paths))
    return file, paths


def test_each_encoder_reads_its_part_of_a_prompt(made, tmp_path):
    file, paths = made
    text = make_reader(configs.load(str(file)), tmp_path)(PROMPTS)
    meaning, mask = load_encoder(paths[0], tokens=24).encode([f"FPS-8. {prompt}" for prompt in PROMPTS[:2]])
    letters, _ = load_encoder(paths[1], tokens=12).encode(["CAT 犬"])
    assert text["meaning"]["mask"].sum(axis=1).tolist() == [*mask.sum(axis=1), 0]
    assert text["letters"]["mask"].sum(axis=1).tolist() == [0, len("CAT 犬".encode()) + 1, 0]
    for row in (0, 1):
        found = text["meaning"]["embeddings"][row][text["meaning"]["mask"][row]].astype(np.float32)
        np.testing.assert_allclose(found, meaning[row][mask[row]], rtol=2**-8, atol=1e-6)
    found = text["letters"]["embeddings"][1, : letters.shape[1]].astype(np.float32)
    np.testing.assert_allclose(found, letters[0], rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("prompt", ["x" * 100_000, "a \ud83d b"])
def test_what_no_encoder_reads_of_a_prompt_is_looked_at_too(made, tmp_path, prompt):
    config = configs.load(str(made[0]))
    config.text.use = ("letters",)
    with pytest.raises(UsageError, match="100000 characters|half of a surrogate pair"):
        make_reader(config, tmp_path)([prompt])


def test_an_encoder_that_is_not_there_is_missed_before_an_autoencoder_is_trained(made, tmp_path):
    flags = ["--config.autoencoder.run=", "--config.text.encoders.letters.path=/nowhere"]
    with pytest.raises(UsageError, match="letters.path=/nowhere: correct it"):
        train.main([f"--config={made[0]}", f"--workdir={tmp_path}/run", *flags])
    assert not (tmp_path / "run" / "config.json").exists() and not (tmp_path / "run" / "autoencoder_run").exists()


def test_an_encoder_that_is_not_there_is_missed_before_clips_are_encoded(made, tmp_path):
    flags = ["--config.text.encoders.letters.path=/nowhere", f"--out={tmp_path}/out"]
    with pytest.raises(UsageError, match="letters.path=/nowhere: correct it"):
        encode.main([f"--config={made[0]}", *flags])
    assert not list(tmp_path.glob("out/part-*"))


def test_a_cache_is_not_made_of_a_cache(made, tmp_path):
    with pytest.raises(UsageError, match="encode makes a cache, and config.data.source=cache reads one"):
        encode.main([f"--config={made[0]}", f"--out={tmp_path}/out", "--config.data.source=cache"])


def test_a_run_makes_its_cache_before_it_trains_and_samples_with_its_towers(made, tmp_path):
    file, _ = made
    run = tmp_path / "run"
    train.main([f"--config={file}", f"--workdir={run}"])
    assert (run / "finished.json").exists() and (run / "text" / "meaning" / "encoder.json").exists()
    sample.main([f"--run={run}", f"--out={tmp_path}/a.mp4", "--prompt=a prompt of nobody's", "--negative=blurred"])
    assert (tmp_path / "a.mp4").exists()


def test_a_frame_rate_that_is_not_known_is_not_told(made, tmp_path):
    config = configs.load(str(made[0]))
    with config.data.ignore_type():
        config.data.fps = None
    with pytest.raises(UsageError, match="tells the frame rate: set config.data.fps"):
        make_reader(config, tmp_path)(PROMPTS)
    config.text.prefix = "Video: "
    make_reader(config, tmp_path)(PROMPTS)


def test_texts_that_fill_their_budget_are_counted(made, tmp_path, caplog):
    config = configs.load(str(made[0]))
    config.text.encoders.meaning.tokens = 4
    make_reader(config, tmp_path).prepare(["up", "a red circle moves up", 'a sign says "CAT"'])
    assert [record.getMessage() for record in caplog.records if "are cut" in record.getMessage()] == [
        "config.text.encoders.meaning.tokens=4: 3 of 3 texts have so many, or more and are cut."
    ]


def test_a_run_that_learnt_from_one_encoder_reads_no_other(made, tmp_path):
    file, _ = made
    folder, run = tmp_path / "encoder", tmp_path / "run"
    published.folder("t5", folder)
    train.main([f"--config={file}", f"--workdir={run}", f"--config.text.encoders.meaning.path={folder}"])
    folder.rename(moved := tmp_path / "moved")
    ask = [f"--run={run}", f"--out={tmp_path}/a.mp4", "--prompt=a prompt of nobody's"]
    with pytest.raises(UsageError, match=f"path={folder}: correct it, for a run by its own vidflow train command"):
        sample.main(ask)
    train.main([f"--config={file}", f"--workdir={run}", f"--config.text.encoders.meaning.path={moved}"])
    sample.main(ask)
    export.main([f"--run={run}", f"--out={tmp_path}/exported"])
    sample.main([f"--run={tmp_path}/exported", *ask[1:]])
    shutil.rmtree(moved)
    published.folder("umt5", moved)
    with pytest.raises(UsageError, match="exported learnt from embeddings by 'meaning' that another encoder made"):
        sample.main([f"--run={tmp_path}/exported", *ask[1:]])
    with pytest.raises(UsageError, match="learnt from embeddings by 'meaning' that another encoder made"):
        sample.main(ask)
    train.main([f"--config={file}", f"--workdir={tmp_path}/other", f"--config.text.encoders.meaning.path={moved}"])
    with pytest.raises(UsageError, match="other and .*run learnt from embeddings of different text encoders"):
        export.main([f"--run={run}", f"--run={tmp_path}/other", f"--out={tmp_path}/mean"])
    out = tmp_path / "cache"
    flags = [f"--config={file}", f"--config.text.encoders.meaning.path={moved}"]
    encode.main([*flags, f"--out={out}"])
    with pytest.raises(UsageError, match="learnt from embeddings by 'meaning' that another encoder made"):
        train.main([*flags, f"--workdir={run}", f"--config.text.cache={out}/text", "--config.steps=21"])


def test_training_from_a_shared_cache_runs_no_tower(made, tmp_path, monkeypatch):
    file, paths = made
    out = tmp_path / "cache"
    encode.main([f"--config={file}", f"--out={out}"])
    moved = ["--config.text.encoders.meaning.path=/nowhere", "--config.text.encoders.letters.path=/nowhere"]
    source = ["--config.data.source=cache", f"--config.data.path={out}", f"--config.text.cache={out}/text"]
    train.main([f"--config={file}", f"--workdir={tmp_path}/run", *source, *moved])
    assert (tmp_path / "run" / "finished.json").exists() and not (tmp_path / "run" / "text").exists()
    for setting in ("encoders.meaning.tokens=9", "encoders.meaning.tokens=400", "dtype=bfloat16"):
        with pytest.raises(UsageError, match=f"embeddings of another encoder.*{setting.rpartition('.')[2]}"):
            train.main(
                [f"--config={file}", f"--workdir={tmp_path}/{setting}", *source, *moved, f"--config.text.{setting}"]
            )
    one = ['--config.text.use=("letters",)']  # a subset of the encoders, from the same cache
    train.main([f"--config={file}", f"--workdir={tmp_path}/one", *source, *moved, *one])

    other = f"--config.text.encoders.meaning.path={published.folder('umt5', tmp_path / 'umt5')}"
    with pytest.raises(UsageError, match="embeddings of another encoder"):
        encode.main([f"--config={file}", f"--out={out}", other])

    shutil.rmtree(out / "text" / "meaning")
    with pytest.raises(UsageError, match="lacks the embeddings by 'meaning' of .* captions.*run vidflow encode"):
        train.main([f"--config={file}", f"--workdir={tmp_path}/other", *source, *moved])


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--config.text.use=()"], "config.text.use is empty: name one or more of letters, meaning"),
        (['--config.text.use=("ul2",)'], "names 'ul2'"),
        (['--config.text.use=("letters","meaning","letters")'], "names 'letters' twice"),
        (["--config.text.encoders.meaning.reads=all"], "reads='all': use one of prompt, quoted"),
        (["--config.text.prefix=FPS-{rate}. "], "the only name in braces is {fps}"),
        (["--config.text.encoders.meaning.path="], "config.text.encoders.meaning.path is empty"),
        (["--config.text.encoders.meaning.width=31"], "are 32 wide: set config.text.encoders.meaning.width=32"),
    ],
)
def test_settings_that_cannot_be_are_refused(made, tmp_path, flags, why):
    with pytest.raises(UsageError, match=why.replace("(", r"\(")):
        train.main([f"--config={made[0]}", f"--workdir={tmp_path}/run", *flags])


def test_encoders_are_dropped_together_and_each_on_its_own():
    text = settings.of_text_encoders()
    text.encoders.one, text.encoders.two = (settings.text_encoder("", tokens=2, width=3) for _ in range(2))
    text.use, text.encoders.one.dropout, text.encoders.two.dropout = ("one", "two"), 0.5, 0.5
    text.dropout = 0.0
    apart = prompts.make_prompts(text, 8, jnp.float32).drops(jax.random.split(jax.random.key(0), 4000))
    assert abs((apart["one"] & apart["two"]).mean() - 0.25) < 0.03  # each by draws of its own
    text.dropout, text.encoders.two.dropout = 0.2, 0.0
    made = prompts.make_prompts(text, 8, jnp.float32)
    drops = made.drops(jax.random.split(jax.random.key(0), 4000))
    one, two = np.asarray(drops["one"]), np.asarray(drops["two"])
    assert abs(two.mean() - 0.2) < 0.02 and abs(one.mean() - 0.6) < 0.03 and one[two].all()
    full = jax.tree.map(lambda x: jnp.ones((4000, *x.shape), x.dtype), made.empty)
    left = prompts.without_some(full, made.empty, drops)
    assert (left["one"]["mask"].all(axis=1) == ~one).all() and (left["two"]["mask"].any(axis=1) == ~two).all()
    text.use = ("one",)
    alone = prompts.make_prompts(text, 8, jnp.float32).drops(jax.random.split(jax.random.key(0), 4000))
    assert (alone["one"] == drops["one"]).all()
