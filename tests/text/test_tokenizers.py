"""Tokenizers give the ids of Hugging Face's, on texts of many scripts, cut and padded."""

import json

import numpy as np
import pytest

from tests.text import strings
from tests.text.published import GOLDENS
from vidflow.errors import UsageError
from vidflow.text import tokenizers

LENGTH = 40


@pytest.mark.parametrize("name", ["clip", "t5", "umt5", "byt5"])
def test_ids_are_those_of_transformers(name):
    with np.load(GOLDENS / "tokenizers" / f"{name}.npz") as kept:
        wanted, lengths, padding = kept["ids"], kept["lengths"], int(kept["padding"])
    texts = strings.mixed(len(wanted))
    tokenizer = tokenizers.load(GOLDENS / "tokenizers" / name)
    ids = tokenizers.tokenize(tokenizer, texts, LENGTH)
    found = tokenizers.padded(ids, LENGTH, tokenizer.padding)
    wrong = ((found.ids * found.real) != wanted).any(axis=1)
    assert len(texts) >= 2000 and not [text for text, row in zip(texts, wrong, strict=True) if row]
    assert (found.real.sum(axis=1) == lengths).all() and tokenizer.padding == padding


def test_a_saved_pipeline_gives_the_ids_of_the_files_it_was_made_of(tmp_path):
    whole = tokenizers.load(GOLDENS / "tokenizers" / "clip")
    whole._tokenizer.no_truncation()
    whole._tokenizer.save(str(tmp_path / "tokenizer.json"))
    saved = tokenizers.load(tmp_path)
    texts = strings.mixed(200)
    assert saved(texts, LENGTH) == whole(texts, LENGTH) and saved.padding == whole.padding


def test_one_text_is_not_taken_for_its_letters():
    with pytest.raises(UsageError, match="'A cat' is one text"):
        tokenizers.tokenize(tokenizers.Bytes(), "A cat", LENGTH)
    assert len(tokenizers.tokenize(tokenizers.Bytes(), (text for text in ("A", "B")), LENGTH)) == 2


def test_no_identifier_is_beyond_the_size():
    for name in ("clip", "t5", "umt5", "byt5"):
        tokenizer = tokenizers.load(GOLDENS / "tokenizers" / name)
        assert max(map(max, tokenizer(strings.mixed(500), LENGTH))) < tokenizer.size <= 700


def _clip(tmp_path, **changes):
    """Its two files, of which one has other words or merges."""
    words = json.loads((GOLDENS / "tokenizers" / "clip" / "vocab.json").read_text())
    merges = (GOLDENS / "tokenizers" / "clip" / "merges.txt").read_text()
    (tmp_path / "vocab.json").write_text(json.dumps({**words, **changes.get("words", {})}))
    (tmp_path / "merges.txt").write_text(changes.get("merges", merges))
    return tmp_path


def test_an_identifier_behind_a_gap_counts(tmp_path):
    assert tokenizers.load(_clip(tmp_path, words={"<|endoftext|>": 5000})).size == 5001


def test_a_mark_that_pads_is_padding_within_a_text_too(tmp_path):
    """As transformers has it of SDXL's second encoder."""
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": "!"}')
    words = json.loads((GOLDENS / "tokenizers" / "clip" / "vocab.json").read_text())
    tokenizer = tokenizers.load(_clip(tmp_path))
    (ids,) = tokenizer(["a!"], LENGTH)
    assert tokenizer.padding == words["!"] and ids[1:-1] == [words["a</w>"], words["!"]]


def test_a_tokenizer_without_a_word_for_padding_has_one(tmp_path):
    for file in ("vocab.json", "merges.txt"):
        (tmp_path / file).write_text((GOLDENS / "tokenizers" / "clip" / file).read_text())
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": null}')
    assert tokenizers.load(tmp_path).padding == tokenizers.load(GOLDENS / "tokenizers" / "clip").padding


def test_words_of_control_are_text():
    pieces = tokenizers.load(GOLDENS / "tokenizers" / "t5")
    (ids,) = pieces(["a </s> b"], LENGTH)
    assert ids.count(1) == 1 and ids[-1] == 1


@pytest.mark.parametrize(
    ("text", "why"), [("x" * 100_000, "has 100000 characters"), ("a \ud83d b", "surrogate pair at character 2")]
)
def test_what_is_no_prompt_is_refused(text, why):
    with pytest.raises(UsageError, match=why):
        tokenizers.tokenize(tokenizers.Bytes(), ["fine", text], LENGTH)


def test_a_vocabulary_without_merges_is_refused(tmp_path):
    with pytest.raises(UsageError, match="merges.txt joins no letters to words"):
        tokenizers.load(_clip(tmp_path, merges="#version: 0.2\n"))


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("spiece.model", "no model", "is no SentencePiece model"),
        ("vocab.json", '{"a": 0}', "lacks <|startoftext|>"),
        ("tokenizer.json", "{}", "tokenizer.json is no tokenizer"),
        ("tokenizer_config.json", '{"pad_token": {"x": 1}}', "names no word in pad_token"),
        ("other.txt", "", "holds no tokenizer"),
    ],
)
def test_a_folder_without_a_tokenizer_says_what_it_lacks(tmp_path, name, content, why):
    (tmp_path / name).write_text(content)
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(UsageError, match=why.replace("|", r"\|")):
        tokenizers.load(tmp_path)
