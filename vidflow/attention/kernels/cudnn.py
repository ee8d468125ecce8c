"""The fused attention of cuDNN, on NVIDIA GPUs; half precision only. Its residuals have no name: rematerialisation
computes it again, whatever it is asked to save."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vidflow.attention.mask import Mask
from vidflow.errors import UsageError


def attend(
    q: Float[Array, "B N K head"],
    k: Float[Array, "B M K head"],
    v: Float[Array, "B M K head"],
    mask: Mask | None,
    label: str,
) -> Float[Array, "B N K head"]:
    """See `vidflow.attention.attend.attend`.

    Of a mask of the relation "all" it takes the number of real keys in every row; one of the relation "real" becomes an
    [B, 1, N, M] array of bits, which is for short keys, such as text.

    Raises:
      UsageError: float32.
    """
    if q.dtype.itemsize != 2:
        raise UsageError(
            f"The attention kernel 'cudnn' does not compute in {q.dtype}: set config.model.dtype = 'bfloat16', or "
            "config.model.kernel = 'xla'."
        )
    masked = {}
    if mask is not None and mask.relation == "all":
        # A row without keys may give NaN; with one, its queries get something finite, and then zeros.
        lengths = [(segment != 0).sum(axis=1, dtype=jnp.int32) for segment in (mask.q_segment, mask.kv_segment)]
        masked = {"query_seq_lengths": lengths[0], "key_value_seq_lengths": jnp.maximum(lengths[1], 1)}
    elif mask is not None:
        real = (mask.kv_segment != 0)[:, None, None, :]
        masked = {"mask": jnp.broadcast_to(real, (q.shape[0], 1, q.shape[1], k.shape[1]))}
    return jax.nn.dot_product_attention(q, k, v, **masked, implementation="cudnn")
