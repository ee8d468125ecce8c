"""How fast texts become embeddings on this device: our towers and, beside them, transformers' in PyTorch.

  python benchmarks/text.py --against=torch
  python benchmarks/text.py --tower=clip --texts=64 --against=torch --json=results.json

Both read the same folders, random weights in the shapes of T5 small, ByT5 (of 6 layers) and CLIP-L, and turn the same
captions of bounce, short and long ones, into arrays: tokenizing counts. Batches have 32 texts; transformers' are padded
to their longest text, in the order in which texts come; ours are of texts of about one length, for `encode` sorts them.
float32 on a CPU, bfloat16 elsewhere. Compilation is not counted. A ratio is our texts/s over theirs; `farthest` is the
largest difference between the two, of embeddings of about 1.
"""

import resource
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import arguments
import children

TOWERS = {
    "t5": {"model_type": "t5", "d_model": 512, "num_layers": 6, "num_heads": 8, "d_kv": 64, "d_ff": 1024},
    "byt5": {"model_type": "t5", "d_model": 512, "num_layers": 6, "num_heads": 8, "d_kv": 64, "d_ff": 1024},
    "clip": {"model_type": "clip_text_model", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
}
for _tower, _words in {"t5": 32128, "byt5": 384}.items():
    TOWERS[_tower] |= {"feed_forward_proj": "gated-gelu", "relative_attention_num_buckets": 32, "vocab_size": _words}
TOWERS["clip"] |= {"intermediate_size": 3072, "max_position_embeddings": 77, "vocab_size": 49408, "eos_token_id": 1}
ROWS, TOKENS = 32, {"t5": 256, "byt5": 512, "clip": 77}
KEPT = "embeddings.npy"  # of the first texts, to be compared


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments.parser(__doc__, "text.py")
    parser.add_argument("--tower", choices=tuple(TOWERS), help="one of them (default: all)")
    parser.add_argument("--texts", type=int, default=256, help="how many (default 256)")
    arguments.add_common(parser)
    args = arguments.parse(parser, argv)
    towers = _towers()
    if not 1 <= args.texts <= towers.CAPTIONS:
        parser.error(f"--texts={args.texts} is not from 1 to {towers.CAPTIONS}, the captions that there are.")

    import machine
    import numpy as np
    import tables

    document: dict[str, Any] = {"benchmark": "text", **machine.look(args.against), "rows": [], "ratios": []}
    print(tables.device(document))
    print(tables.heading("text"))
    with tempfile.TemporaryDirectory() as scratch:
        for tower in (args.tower,) if args.tower else TOWERS:
            folder = Path(scratch) / tower
            _publish(folder, tower)
            case = {"tower": tower, "texts": args.texts, "folder": str(folder), "seconds": args.seconds}
            found = {}
            for framework in ("vidflow", *(["transformers"] if args.against else [])):
                row = children.measure(__file__, [case | {"framework": framework}], args.limit)[0]
                row["farthest"] = None
                if framework == "transformers" and "ms" in row:
                    ours, theirs = (np.load(folder / f"{name}-{KEPT}") for name in ("vidflow", framework))
                    row["farthest"] = float(np.abs(ours - theirs).max())
                print(tables.row("text", row), flush=True)
                document["rows"].append({name: value for name, value in row.items() if name != "folder"})
                found[framework] = row.get("ms")
            if all(found.values()) and len(found) == 2:
                ratio = found["transformers"] / found["vidflow"]
                document["ratios"].append({"tower": tower, "against": "transformers", "ratio": ratio})
            machine.write(args.json, document)
    print(*(tables.ratio("text", ratio) for ratio in document["ratios"]), sep="\n")
    children.exit_if_nothing_was_measured(document["rows"])


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """The row of one case, in a process of its own."""
    result = (_ours if case["framework"] == "vidflow" else _theirs)(case)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if result["peak_bytes"] is None:
        result |= {"peak_bytes": kilobytes * (1 if sys.platform == "darwin" else 1024), "peak_of": "process"}
    return result | {"texts_per_second": 1000 * case["texts"] / result["ms"]}


def _publish(folder: Path, tower: str) -> None:
    """A folder with random weights, and the tokenizers of the experiment on text encoders."""
    towers = _towers()
    folder.parent.mkdir(exist_ok=True)
    towers.write(folder, TOWERS[tower])
    corpus = folder.parent / "captions.txt"
    if not corpus.exists():
        towers.write_captions(corpus)
    towers.write_tokenizer(folder, {"t5": "meaning", "byt5": "letters", "clip": "look"}[tower], corpus)


def _towers() -> Any:
    import importlib.util

    file = Path(__file__).parents[1] / "experiments" / "text_encoders" / "towers.py"
    spec = importlib.util.spec_from_file_location("towers", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _texts(case: dict[str, Any]) -> list[str]:
    return (Path(case["folder"]).parent / "captions.txt").read_text(encoding="utf-8").splitlines()[: case["texts"]]


def _ours(case: dict[str, Any]) -> dict[str, Any]:
    import jax
    import numpy as np
    import timing

    from vidflow.text import load_encoder

    texts, dtype = _texts(case), "float32" if jax.default_backend() == "cpu" else "bfloat16"
    encoder = load_encoder(case["folder"], dtype=dtype, tokens=TOKENS[case["tower"]])
    timed = timing.repeat(lambda calls: [encoder.encode(texts) for _ in range(calls)], case["seconds"])
    np.save(f"{case['folder']}/vidflow-{KEPT}", np.concatenate([x[m] for x, m in [encoder.encode(texts[:ROWS])]]))
    stats = jax.devices()[0].memory_stats() or {}
    parameters = sum(leaf.size for leaf in jax.tree.leaves(encoder.params))
    return timed | {"parameters": parameters, "peak_bytes": stats.get("peak_bytes_in_use"), "peak_of": "allocator"}


def _theirs(case: dict[str, Any]) -> dict[str, Any]:
    import numpy as np
    import timing
    import torch
    import transformers

    texts, folder, gpu = _texts(case), Path(case["folder"]), torch.cuda.is_available()
    words = {
        "t5": lambda: transformers.T5Tokenizer(str(folder / "spiece.model"), legacy=True),
        "byt5": transformers.ByT5Tokenizer,
        "clip": lambda: transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"), pad_token="<|endoftext|>"
        ),
    }[case["tower"]]()
    kind = transformers.CLIPTextModel if case["tower"] == "clip" else transformers.T5EncoderModel
    dtype = torch.bfloat16 if gpu else torch.float32
    model = kind.from_pretrained(folder, torch_dtype=dtype).eval().to("cuda" if gpu else "cpu")
    how = {"padding": True, "truncation": True, "max_length": TOKENS[case["tower"]], "return_tensors": "pt"}

    def encode(some: list[str]) -> list[np.ndarray]:
        found = []
        for low in range(0, len(some), ROWS):
            batch = words(some[low : low + ROWS], **how).to(model.device)
            batch = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
            out = model(**batch).last_hidden_state.float().cpu().numpy()
            found.append(out[batch["attention_mask"].cpu().numpy().astype(bool)])
        return found

    with torch.inference_mode():
        timed = timing.repeat(lambda calls: [encode(texts) for _ in range(calls)], case["seconds"])
        np.save(folder / f"transformers-{KEPT}", np.concatenate(encode(texts[:ROWS])))
    return timed | {"parameters": sum(p.numel() for p in model.parameters()), **timing.torch_memory()}


if __name__ == "__main__":
    children.run(main, measure)
