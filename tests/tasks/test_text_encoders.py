"""The experiment on text encoders: towers from nothing, a model of signs that any of them tells its prompt."""

import importlib.util
import json

import pytest

from tests.tasks.experiments import ROOT
from vidflow import config as configs
from vidflow import evaluate, train
from vidflow.tasks import ablating
from vidflow.text import load_encoder, tokenizers
from vidflow.text.reads import READS
from vidflow.worlds import bounce

SIGNS = f"{ROOT}/experiments/text_encoders/signs.py"


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    file = f"{ROOT}/experiments/text_encoders/towers.py"
    spec = importlib.util.spec_from_file_location("towers", file)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    folder = tmp_path_factory.mktemp("towers")
    script.main(folder)
    return folder


@pytest.mark.parametrize("name", ["meaning", "look", "letters"])
def test_a_tower_tells_words_apart_and_has_a_token_for_all_of_them(towers, name):
    encoder = load_encoder(towers / name)
    embeddings, mask = encoder.encode(['says "K7"', 'says "7K"', 'says "王田"'])
    assert abs(embeddings[mask].std() - 1) < 0.5
    assert abs(embeddings[0] - embeddings[1]).max() > 0.1


@pytest.mark.parametrize("captions", ["short", "long"])
def test_the_longest_captions_fit(towers, captions):
    config = configs.load(f"{SIGNS}:captions={captions}")
    size = {"level": config.data.level, "height": config.data.height, "width": config.data.width}
    texts = [
        bounce.told(0, n, split="train", captions=captions, with_signs=True, **size)[1] for n in range(1000)
    ]
    for name, encoder in config.text.encoders.items():
        read = [READS[encoder.reads](text) for text in texts]
        ids = tokenizers.tokenize(tokenizers.load(towers / name), read, 500)
        assert max(map(len, ids)) <= encoder.tokens


def test_arms_are_the_subsets_of_the_encoders():
    _, arms = ablating.plan(f"{SIGNS}:smoke", ())
    assert [arm.name.count("+") + 1 for arm in arms] == [3, 2, 2, 2, 1, 1, 1]
    assert all(list(arm.changed) == ["text.use"] for arm in arms[1:])


def test_a_model_of_signs_trains_and_its_words_are_read(towers, tmp_path):
    paths = [f"--config.text.encoders.{name}.path={towers / name}" for name in ("meaning", "look", "letters")]
    run = f"{tmp_path}/run"
    train.main([f"--config={SIGNS}:smoke", f"--workdir={run}", '--config.text.use=("letters", "look")', *paths])
    evaluate.main([f"--run={run}", "--prompts=2", "--seeds=1", "--clips=8"])
    scores = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert scores["reader/ground_truth/word"]["mean"] == 1.0
    assert 0 <= scores["bounce/glyphs"]["mean"] <= 1 and "bounce/colour" in scores
