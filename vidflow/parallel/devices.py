"""What a device can do at most: the one table of peaks."""

import jax

# Dense bf16 FLOP/s of one JAX device, by `device_kind`. TPU figures: Google Cloud's system architecture pages, per
# chip. GPU figures: NVIDIA's data sheets, without sparsity.
PEAK_BF16_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}


def peak_flops(devices: int) -> float | None:
    """Peak bf16 FLOP/s of `devices` devices of the kind this process has; None for a kind not in the table."""
    peak = PEAK_BF16_FLOPS.get(jax.devices()[0].device_kind)
    return None if peak is None else peak * devices
