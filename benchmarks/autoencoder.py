"""How fast a causal autoencoder is on this device: Wan 2.1's, ours and, beside it, diffusers' in PyTorch.

  python benchmarks/autoencoder.py --against=torch
  python benchmarks/autoencoder.py --frames=17 --height=256 --width=256 --chunk=1 --against=torch --json=results.json

Both have the same layers, the same number of parameters and random weights, and compute in float32 on a CPU, in
bfloat16 elsewhere. diffusers' always goes through a clip latent by latent; ours by `--chunk` latents at a time, 0 for
all at once. Compilation is not counted; diffusers' runs as shipped, without any. Peak memory is the process's on a CPU,
the allocator's elsewhere. A ratio is our frames/s over theirs.
"""

import resource
import sys
from collections.abc import Sequence
from typing import Any

import arguments
import children


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments.parser(__doc__, "autoencoder.py")
    parser.add_argument("--width-factor", type=int, default=96, help="features of the first level; 96 is Wan's")
    parser.add_argument("--frames", type=int, default=9, help="1 + 4 k (default 9)")
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--chunk", type=int, default=0, help="latents at a time of ours; 0 for all (default)")
    arguments.add_common(parser)
    args = arguments.parse(parser, argv)

    import machine
    import tables

    document: dict[str, Any] = {"benchmark": "autoencoder", **machine.look(args.against), "rows": []}
    print(tables.device(document))
    print(tables.heading("autoencoder"))
    case = {name: getattr(args, name) for name in ("width_factor", "frames", "height", "width", "chunk", "seconds")}
    for framework in ("vidflow", *(["diffusers"] if args.against else [])):
        for step in ("encode", "decode"):
            row = children.measure(__file__, [case | {"framework": framework, "step": step}], args.limit)[0]
            print(tables.row("autoencoder", row), flush=True)
            document["rows"].append(row)
            document["ratios"] = ratios(document["rows"])
            machine.write(args.json, document)
    print(*(tables.ratio("autoencoder", ratio) for ratio in document["ratios"]), sep="\n")
    children.exit_if_nothing_was_measured(document["rows"])


def ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of encoding, of decoding, and of both one after the other."""
    times: dict[str, dict[str, float]] = {"vidflow": {}, "diffusers": {}}
    for row in rows:
        if "ms" in row:
            times[row["framework"]][row["step"]] = row["ms"]
    ours, theirs = times["vidflow"], times["diffusers"]
    steps = [step for step in ours if step in theirs]
    found = [{"step": step, "against": "diffusers", "ratio": theirs[step] / ours[step]} for step in steps]
    if len(steps) == 2:
        both = sum(theirs.values()) / sum(ours.values())
        found.append({"step": "encode and decode", "against": "diffusers", "ratio": both})
    return found


def measure(case: dict[str, Any]) -> dict[str, Any]:
    """The row of one case, in a process of its own."""
    result = (_ours if case["framework"] == "vidflow" else _theirs)(case)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if result["peak_bytes"] is None:
        result |= {"peak_bytes": kilobytes * (1 if sys.platform == "darwin" else 1024), "peak_of": "process"}
    return result | {"frames_per_second": 1000 * case["frames"] / result["ms"]}


def _ours(case: dict[str, Any]) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp
    import timing

    from vidflow.autoencoders.causal3d import WAN, CausalAutoencoder
    from vidflow.autoencoders.streaming import Streaming
    from vidflow.parallel import compiling, rules

    factor, cpu = case["width_factor"], jax.default_backend() == "cpu"
    layout = WAN._replace(widths=(factor, 2 * factor, 4 * factor, 4 * factor))
    module = CausalAutoencoder(layout, jnp.float32 if cpu else jnp.bfloat16)
    params = rules.unbox(jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 1, 8, 8, 3))))
    shape = (case["frames"], case["height"], case["width"])
    size = (1, *shape, 3) if case["step"] == "encode" else (1, *module.compression.latent_shape(*shape))
    x = jnp.tanh(jax.random.normal(jax.random.key(1), size))  # pixels lie in [-1, 1]
    coder, chunk = Streaming(module, params), case["chunk"]
    if chunk:
        function = lambda x: list(getattr(coder, case["step"])(x, chunk))  # noqa: E731
    else:
        method = "encode" if case["step"] == "encode" else "decode_all"
        options = compiling.options(jax.devices()[0])
        jitted = jax.jit(lambda params, x: module.apply(params, x, method=method), compiler_options=options)
        function = lambda x: jitted(params, x)  # noqa: E731

    def run(calls: int) -> None:
        for _ in range(calls):
            result = function(x)
        jax.block_until_ready(result)

    timed = timing.repeat(run, case["seconds"])
    stats = jax.devices()[0].memory_stats() or {}
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    return timed | {"parameters": parameters, "peak_bytes": stats.get("peak_bytes_in_use"), "peak_of": "allocator"}


def _theirs(case: dict[str, Any]) -> dict[str, Any]:
    import timing
    import torch
    from diffusers import AutoencoderKLWan

    gpu = torch.cuda.is_available()
    torch.manual_seed(0)
    with torch.device("cuda" if gpu else "cpu"):
        model = AutoencoderKLWan(base_dim=case["width_factor"]).eval().to(torch.bfloat16 if gpu else torch.float32)
        time = 1 + (case["frames"] - 1) // 4
        video = (1, 3, case["frames"], case["height"], case["width"])
        size = video if case["step"] == "encode" else (1, 16, time, case["height"] // 8, case["width"] // 8)
        x = torch.randn(size, dtype=torch.bfloat16 if gpu else torch.float32)
    function = model.encode if case["step"] == "encode" else model.decode

    def run(calls: int) -> None:
        with torch.inference_mode():
            for _ in range(calls):
                function(x)
        if gpu:
            torch.cuda.synchronize()

    timed = timing.repeat(run, case["seconds"])
    return timed | {"parameters": sum(p.numel() for p in model.parameters()), **timing.torch_memory()}


if __name__ == "__main__":
    children.run(main, measure)
