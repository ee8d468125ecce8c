"""What the devices of this process can do at most."""

import jax

from vidflow.parallel.topologies import GENERATIONS

# Dense bf16 FLOP/s, without sparsity, by `device_kind`: NVIDIA's data sheets.
GPUS = {
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}
PEAK_BF16_FLOPS = GPUS | {generation.device_kind: generation.flops for generation in GENERATIONS.values()}


def peak_flops(devices: int) -> float | None:
    """Peak bf16 FLOP/s of `devices` devices of the kind this process has; None for a kind not in the table."""
    peak = PEAK_BF16_FLOPS.get(jax.devices()[0].device_kind)
    return None if peak is None else peak * devices
