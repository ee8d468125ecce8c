"""Writes `goldens/` with PyTorch and transformers 4.57, which no test needs: python -m tests.text.make_goldens

Ids are those of the tokenizers that transformers builds on SentencePiece itself; version 5 builds others, which differ
from what the models were trained with at U+0085, at some combining marks, and where bytes stand for rare characters.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import sentencepiece
import torch
import transformers
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from tests.text import published, strings
from tests.text.published import GOLDENS

VOCABULARY = 700
LENGTH = 40  # tokens at which texts are cut
TEXTS = published.TEXTS
COMMON = {"vocab_size": VOCABULARY, "d_model": 32, "d_ff": 48, "num_layers": 3, "feed_forward_proj": "gated-gelu"}
CLIP = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
CLIP |= {"num_attention_heads": 4, "max_position_embeddings": 20}
T5, UMT5, CLIP_TEXT = transformers.T5Config, transformers.UMT5Config, transformers.CLIPTextConfig


def make_models(start: int, end: int) -> dict[str, torch.nn.Module]:
    ends = {"bos_token_id": start, "eos_token_id": end, "pad_token_id": end}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 8, "patch_size": 4}
    both = transformers.CLIPConfig(text_config={**CLIP, **ends}, projection_dim=24, vision_config=vision)
    wide = {**COMMON, "d_kv": 16, "num_heads": 3}
    return {
        "clip": transformers.CLIPTextModel(CLIP_TEXT(**CLIP, **ends)),
        "clip_projection": transformers.CLIPTextModelWithProjection(
            CLIP_TEXT(**{**CLIP, **ends, "hidden_act": "gelu", "projection_dim": 24, "layer_norm_eps": 1e-2})
        ),
        "clip_both_towers": transformers.CLIPModel(both),
        "t5": transformers.T5EncoderModel(T5(**COMMON, d_kv=8, num_heads=4)),
        # With its decoder, as UL2 is published; few buckets that reach less far than the texts are long.
        "t5_ul2": transformers.T5ForConditionalGeneration(
            T5(
                **{**wide, "feed_forward_proj": "gated-silu"},
                relative_attention_num_buckets=16,
                relative_attention_max_distance=20,
                num_decoder_layers=1,
            )
        ),
        "byt5": transformers.T5EncoderModel(T5(**{**COMMON, "vocab_size": 384}, d_kv=8, num_heads=4)),
        "umt5": transformers.UMT5EncoderModel(UMT5(**COMMON, d_kv=8, num_heads=4)),
        "umt5_few_buckets": transformers.UMT5EncoderModel(
            UMT5(
                **wide,
                relative_attention_num_buckets=8,
                relative_attention_max_distance=16,
                layer_norm_epsilon=1e-2,
            )
        ),
    }


def train_pieces(name: str, corpus: Path, **how) -> None:
    folder = GOLDENS / "tokenizers" / name
    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "spiece"),
        model_type="unigram",
        vocab_size=VOCABULARY,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        normalization_rule_name="nmt_nfkc",
        num_threads=1,
        minloglevel=2,
        **how,
    )
    (folder / "spiece.vocab").unlink()


def train_pairs(corpus: Path) -> None:
    """CLIP's vocabulary: bytes, bytes that end a word, what pairs of them make, and two words of control."""
    folder, suffix = GOLDENS / "tokenizers" / "clip", "</w>"
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner = Tokenizer(models.BPE(end_of_word_suffix=suffix))
    learner.normalizer = normalizers.Lowercase()
    split = pre_tokenizers.Split(Regex(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True)
    learner.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    learner.train([str(corpus)], trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=alphabet, end_of_word_suffix=suffix, show_progress=False
    ))  # fmt: skip
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    words = alphabet + [letter + suffix for letter in alphabet] + ["".join(pair) for pair in merges]
    words = list(dict.fromkeys(words))[: VOCABULARY - 2]
    merges = [pair for pair in merges if "".join(pair) in words]
    words += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n")


def tokenizer(name: str):
    folder = GOLDENS / "tokenizers" / name
    if name == "clip":
        return transformers.CLIPTokenizerFast(str(folder / "vocab.json"), str(folder / "merges.txt"))
    if name == "byt5":
        return transformers.ByT5Tokenizer()
    return transformers.T5Tokenizer(str(folder / "spiece.model"), legacy=True)


def keep_ids(name: str) -> None:
    """Of many texts, cut and padded, as small as they go."""
    found = tokenizer(name)(strings.mixed(2500), max_length=LENGTH, truncation=True, padding="max_length")
    ids = np.array(found.input_ids, np.uint16) * np.array(found.attention_mask, np.uint16)
    lengths = np.array(found.attention_mask).sum(axis=1).astype(np.uint8)
    file = GOLDENS / "tokenizers" / f"{name}.npz"
    np.savez_compressed(file, ids=ids, lengths=lengths, padding=found.input_ids[1][-1])


def keep_embeddings(name: str, model: torch.nn.Module) -> None:
    folder = GOLDENS / name
    folder.mkdir(exist_ok=True)
    shapes = {key: list(value.shape) for key, value in model.state_dict().items() if "position_ids" not in key}
    tied = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"}
    kept = {key: shape for key, shape in shapes.items() if key not in tied}  # as safetensors keeps one name of each
    (folder / "tensors.json").write_text(json.dumps(kept, indent=0) + "\n")
    model.config.to_json_file(folder / "config.json", use_diff=False)
    values = {key: torch.from_numpy(value) for key, value in published.tensors(name).items()}
    model.load_state_dict(values, strict=False)
    model.eval()
    length = 20 if name.startswith("clip") else LENGTH
    how = {"max_length": length, "truncation": True, "padding": True, "return_tensors": "pt"}
    text = tokenizer(name.split("_")[0])(list(TEXTS), **how)
    with torch.no_grad():
        kept = {"mask": text.attention_mask.numpy().astype(bool)}
        if name == "clip_both_towers":
            out, kept["pooled"] = model.text_model(**text), model.get_text_features(**text).numpy()
        elif name == "clip_projection":
            out = model(**text)
            kept["pooled"] = out.text_embeds.numpy()
        elif name == "clip":
            out = model(**text)
            kept["pooled"] = out.pooler_output.numpy()
        else:
            out = (model.encoder if name == "t5_ul2" else model)(**text)
        kept["embeddings"] = out.last_hidden_state.numpy()
    save_file({key: np.ascontiguousarray(value) for key, value in kept.items()}, folder / "golden.safetensors")


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        corpus = Path(scratch) / "corpus.txt"
        plain = [line.replace("\x00", "") for line in strings.mixed(2500)]
        corpus.write_text("\n".join(plain + ["a small red circle moves to the left", "the sign says"] * 50))
        train_pieces("t5", corpus)
        train_pieces("umt5", corpus, byte_fallback=True, character_coverage=0.98)
        train_pairs(corpus)
    byt5 = GOLDENS / "tokenizers" / "byt5"
    byt5.mkdir(exist_ok=True)
    (byt5 / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}) + "\n")
    for name in published.TOKENIZERS:
        keep_ids(name)
    words = json.loads((GOLDENS / "tokenizers" / "clip" / "vocab.json").read_text())
    for name, model in make_models(words["<|startoftext|>"], words["<|endoftext|>"]).items():
        keep_embeddings(name, model)


if __name__ == "__main__":
    main()
