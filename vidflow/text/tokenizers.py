"""Texts to the token identifiers that a published encoder was trained with. All files are local.

A word of control in a prompt ("</s>", "<|endoftext|>") is text like any other, except where a folder's `tokenizer.json`
says otherwise: a prompt cannot end a prompt.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int32

from vidflow import files
from vidflow.errors import UsageError
from vidflow.text import byte_tokens

LONGEST = 20_000  # characters of a prompt; more is a file that was taken for a prompt
PIECES = ("spiece.model", "sentencepiece.model", "tokenizer.model")
FILES = (*PIECES, "vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json")
END = 1  # closes every text of T5's family
FIRST_BYTE = 3  # of ByT5: after padding, end and unknown


class Tokens(NamedTuple):
    """Identifiers, and which of them are not padding; every text has at least one."""

    ids: Int32[np.ndarray, "B L"]
    real: Bool[np.ndarray, "B L"]


@runtime_checkable
class Tokenizer(Protocol):
    """Texts -> identifiers below `size` with those that open and close them, at most `length`: of longer texts the end
    is cut, and what closes them is not."""

    padding: int
    size: int

    def __call__(self, texts: Sequence[str], length: int) -> list[list[int]]: ...


class Bytes:
    """ByT5's (Xue et al. 2022): a byte is a token."""

    padding, size = 0, FIRST_BYTE + 256

    def __call__(self, texts: Sequence[str], length: int) -> list[list[int]]:
        return [[FIRST_BYTE + byte for byte in text.encode()[: length - 1]] + [END] for text in texts]


class Pieces:
    """SentencePiece (Kudo and Richardson 2018), as in T5, UL2 and UMT5.

    Raises:
      UsageError: a file that is no model of SentencePiece.
    """

    padding = 0

    def __init__(self, file: str) -> None:
        import sentencepiece

        try:
            self._model = sentencepiece.SentencePieceProcessor(model_file=file)
        except (OSError, RuntimeError) as error:
            raise UsageError(f"{file} is no SentencePiece model ({error}): copy it again.") from None
        self.size = self._model.vocab_size()

    def __call__(self, texts: Sequence[str], length: int) -> list[list[int]]:
        return [[*ids[: length - 1], END] for ids in self._model.encode(list(texts))]


class Words:
    """What the library `tokenizers` describes: CLIP's byte pairs by their two files, or a folder's `tokenizer.json`."""

    def __init__(self, tokenizer: "tokenizers.Tokenizer", padding: int) -> None:  # noqa: F821
        tokenizer.no_padding()
        self._tokenizer, self.padding = tokenizer, padding
        self.size = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def __call__(self, texts: Sequence[str], length: int) -> list[list[int]]:
        self._tokenizer.enable_truncation(length)
        return [found.ids for found in self._tokenizer.encode_batch(list(texts))]


def tokenize(tokenizer: Tokenizer, texts: Iterable[str], length: int) -> list[list[int]]:
    """Identifiers of each text, at most `length`.

    Raises:
      UsageError: one text instead of several, or as `check`.
    """
    if isinstance(texts, str):
        raise UsageError(f"'{texts[:40]}' is one text: encode a list of texts, [text] for a single one.")
    several = list(texts)
    for text in several:
        check(text)
    return tokenizer(several, length)


def check(prompt: str) -> None:
    """Raises UsageError: one of more than `LONGEST` characters, or with half of a surrogate pair."""
    if len(prompt) > LONGEST:
        raise UsageError(
            f"The prompt '{prompt[:40]}...' has {len(prompt)} characters: a prompt has at most {LONGEST}; shorten it."
        )
    byte_tokens.as_bytes(prompt)


def padded(ids: Sequence[Sequence[int]], length: int, padding: int) -> Tokens:
    """As arrays of so many columns."""
    table = np.full((len(ids), length), padding, np.int32)
    real = np.zeros(table.shape, bool)
    for row, text in enumerate(ids):
        table[row, : len(text)] = text
        real[row, : len(text)] = True
    return Tokens(table, real)


def load(folder: Any) -> Tokenizer:
    """That of a folder as Hugging Face saves it: spiece.model, vocab.json with merges.txt, tokenizer.json, or ByT5's,
    which has none of these.

    Raises:
      UsageError: none of them is there, or one that cannot be read.
    """
    there = {name: f"{folder}/{name}" for name in FILES if files.is_file(f"{folder}/{name}")}
    described = files.read_json(there["tokenizer_config.json"]) if "tokenizer_config.json" in there else {}
    if described.get("tokenizer_class") == "ByT5Tokenizer":
        return Bytes()
    for name in PIECES:
        if name in there:
            return Pieces(there[name])
    padding = described.get("pad_token") or "<|endoftext|>"
    padding = padding.get("content") if isinstance(padding, dict) else padding
    if not isinstance(padding, str):
        raise UsageError(f"{there['tokenizer_config.json']} names no word in pad_token: copy it again.")
    if "vocab.json" in there and "merges.txt" in there:
        return clip_words(there["vocab.json"], there["merges.txt"], padding)
    if "tokenizer.json" in there:
        import tokenizers

        try:
            tokenizer = tokenizers.Tokenizer.from_file(there["tokenizer.json"])
        except Exception as error:  # the library raises nothing narrower
            raise UsageError(f"{there['tokenizer.json']} is no tokenizer ({error}): copy it again.") from None
        return Words(tokenizer, tokenizer.token_to_id(padding) or 0)
    raise UsageError(
        f"{folder} holds no tokenizer (spiece.model, vocab.json and merges.txt, or tokenizer.json): copy it there from "
        "where the weights came from."
    )


def clip_words(vocabulary: str, merges: str, padding: str = "<|endoftext|>") -> Words:
    """CLIP's: composed characters in lower case, split into words, numerals one by one, and byte pairs within a word.

    Raises:
      UsageError: files that are not its.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    start, end = "<|startoftext|>", "<|endoftext|>"
    try:
        words, joined = models.BPE.read_file(vocabulary, merges)
        pairs = models.BPE(words, joined, end_of_word_suffix="</w>", unk_token=end)
    except Exception as error:  # the library raises nothing narrower
        raise UsageError(f"{vocabulary} and {merges} are not CLIP's vocabulary ({error}): copy them again.") from None
    tokenizer = Tokenizer(pairs)
    if None in (numbers := [tokenizer.token_to_id(word) for word in (start, end, padding)]):
        raise UsageError(f"{vocabulary} lacks {start}, {end} or {padding}: it is not the vocabulary of a CLIP.")
    if not joined:
        raise UsageError(f"{merges} joins no letters to words: copy it again.")
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    word = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(word), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    if padding not in (start, end):  # transformers takes it for padding in a text too, as SDXL's "!"
        tokenizer.add_special_tokens([padding])
    tokenizer.post_processor = processors.RobertaProcessing(
        (end, numbers[1]), (start, numbers[0]), trim_offsets=False, add_prefix_space=False
    )
    return Words(tokenizer, numbers[2])
