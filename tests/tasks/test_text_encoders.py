"""The experiment on text encoders: towers from nothing, a model of signs that any of them tells its prompt."""

import importlib.util
import json

import numpy as np
import pytest

from tests.tasks.experiments import ROOT
from vidflow import config as configs
from vidflow import evaluate, train
from vidflow.tasks import ablating
from vidflow.text import byte_tokens, load_encoder, tokenizers
from vidflow.text.reads import READS
from vidflow.worlds import bounce
from vidflow.worlds.bounce.glyphs import GLYPHS as FONT

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


LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"


def _told(encoder, words):
    """Embeddings of the tokens of the letters of words, which of `LETTERS` they are, and their places."""
    embeddings, mask = encoder.encode([f"says {word}" for word in words])  # one more token closes a text
    ends = mask.sum(axis=1) - 1
    tokens = [row[end - len(word) : end] for row, end, word in zip(embeddings, ends, words, strict=True)]
    letters = [LETTERS.index(letter) for word in words for letter in word]
    return np.concatenate(tokens), np.array(letters), np.array([place for word in words for place in range(len(word))])


@pytest.mark.parametrize("name", ["meaning", "look", "letters"])
def test_a_token_tells_its_glyph_and_its_place(towers, name):
    encoder, rng = load_encoder(towers / name), np.random.default_rng(0)
    words = ["".join(rng.choice(list(LETTERS), size=size)) for size in (2, 3) for _ in range(400)]
    (x, *known), (y, *asked) = _told(encoder, words[::2]), _told(encoder, words[1::2])
    for labels, wanted, least in zip(known, asked, (0.95, 0.6), strict=True):
        # A linear map, fitted to some words, of others. Of two places in five the most frequent one would be right.
        map_ = np.linalg.lstsq(np.c_[x, np.ones(len(x))], np.eye(labels.max() + 1)[labels], rcond=1e-4)[0]
        assert ((np.c_[y, np.ones(len(y))] @ map_).argmax(axis=1) == wanted).mean() > least


@pytest.mark.parametrize("name", ["meaning", "look", "letters"])
def test_every_glyph_has_tokens_of_its_own_and_no_word_is_one_token(towers, name):
    tokenizer = tokenizers.load(towers / name)
    ids = dict(zip(FONT, tokenizers.tokenize(tokenizer, [f'"{glyph}"' for glyph in FONT], 99), strict=True))
    assert len(set(map(tuple, ids.values()))) == len(FONT)
    for word in ("KG", "7K", "王田", "日口"):
        (found,) = tokenizers.tokenize(tokenizer, [f'"{word}"'], 99)
        assert len(found) > max(len(ids[glyph]) for glyph in word)


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
    byte_tokens.tokenize(texts, configs.load(f"{SIGNS}:captions={captions},bytes").text.length)  # refuses longer ones


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
