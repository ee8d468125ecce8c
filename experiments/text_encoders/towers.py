"""Writes three small text encoders with random weights, as Hugging Face would save them, and what each tokenizes with.

    python experiments/text_encoders/towers.py runs/towers

They stand for Movie Gen's three by what they see: `meaning` sees subwords (T5's tower, a SentencePiece model, as UL2),
`look` sees words in one direction (CLIP's, byte pairs), `letters` sees bytes (ByT5's). Nobody trained them: a random
tower keeps which tokens stand where and mixes them, and knows nothing of what they mean. Their tokenizers are made from
captions whose signs say one glyph, so that no word is a token because training had it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import sentencepiece
from flax import traverse_util
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from vidflow.startup import start
from vidflow.text.clip import ClipText
from vidflow.text.published import FAMILIES
from vidflow.text.t5 import T5Encoder
from vidflow.worlds import bounce
from vidflow.worlds.bounce import signs
from vidflow.worlds.bounce.glyphs import GLYPHS

# Cross-attention sees a set of tokens: their order is what the tower says of it. As modules are initialised a tower
# says next to nothing: T5's table of distances, of 0.1, is small beside its logits, and CLIP's embeddings, of 0.02,
# beside what its layers add. So these parameters are larger; a token then tells its glyph and its place.
SCALES = {"t5": {"positions/table": 100.0}, "clip_text_model": {"embedding": 50.0, "position": 50.0}}
CAPTIONS = 4000
PIECES, PAIRS = 240, 640  # of the vocabularies: words of captions are whole, glyphs alone
SEED = 7
SHAPE = {"model_type": "t5", "d_model": 96, "num_layers": 2, "num_heads": 8, "d_kv": 12, "d_ff": 192}
SHAPE |= {"feed_forward_proj": "gated-gelu", "relative_attention_num_buckets": 32}
CLIP = {"model_type": "clip_text_model", "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
CLIP |= {"intermediate_size": 192, "max_position_embeddings": 128}
TOWERS = {"meaning": {**SHAPE, "vocab_size": PIECES}, "look": {**CLIP, "vocab_size": PAIRS}}
TOWERS |= {"letters": {**SHAPE, "vocab_size": 384}}


def main(out: Path) -> None:
    start()
    out.mkdir(parents=True, exist_ok=True)
    corpus = out / "captions.txt"
    write_captions(corpus)
    for name, config in TOWERS.items():
        write(out / name, config)
        write_tokenizer(out / name, name, corpus)


def write_captions(file: Path) -> None:
    """Texts that the tokenizers are made from, a line each: captions of training, short and long ones, whose signs say
    one glyph, each as often as the others."""
    rng = np.random.default_rng(SEED)
    glyphs = sorted(GLYPHS)
    worlds = (
        bounce.told(SEED, n, level=3, split="train", height=32, width=32, captions="mixed")[1] for n in range(CAPTIONS)
    )
    told = (signs.caption(glyphs[n % len(glyphs)], world, rng) for n, world in enumerate(worlds))
    file.write_text("\n".join(told), encoding="utf-8")


def write_tokenizer(folder: Path, name: str, corpus: Path) -> None:
    """That of one of `TOWERS`, made from the corpus."""
    if name == "letters":
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}))
    elif name == "look":
        train_pairs(corpus).save(str(folder / "tokenizer.json"))
    else:
        sentencepiece.SentencePieceTrainer.train(
            input=str(corpus),
            model_prefix=str(folder / "spiece"),
            model_type="bpe",
            vocab_size=PIECES,
            character_coverage=1.0,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            num_threads=1,
            minloglevel=3,
        )


def write(folder: Path, config: dict[str, Any]) -> None:
    """A tower of this config with random weights."""
    folder.mkdir(exist_ok=True)
    family = FAMILIES[config["model_type"]]
    module = family.module(config, (), jnp.float32)
    assert isinstance(module, T5Encoder | ClipText)
    init = jax.jit(module.init)(jax.random.key(SEED), jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool))
    tensors = {}
    for ours, value in traverse_util.flatten_dict(nn.unbox(init)["params"], sep="/").items():
        value = np.asarray(value) * np.float32(SCALES[config["model_type"]].get(ours, 1))
        theirs = family.prefixes[0] + family.names[ours]
        layers = [(theirs.format(n), part) for n, part in enumerate(value)] if "{}" in theirs else [(theirs, value)]
        tensors |= {name: np.ascontiguousarray(x.T if ours.endswith("kernel") else x) for name, x in layers}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=1))


def train_pairs(corpus: Path) -> Tokenizer:
    """Byte pairs within words, in lower case, between a word that begins a text and one that ends it, as CLIP's."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=end))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    split = pre_tokenizers.Split(Regex(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    trainer = trainers.BpeTrainer(
        vocab_size=PAIRS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[start, end],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train([str(corpus)], trainer)
    ends = ((end, tokenizer.token_to_id(end)), (start, tokenizer.token_to_id(start)))
    tokenizer.post_processor = processors.RobertaProcessing(*ends, trim_offsets=False, add_prefix_space=False)
    return tokenizer


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/towers"))
