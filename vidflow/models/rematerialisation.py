"""What a layer keeps for its backward pass; the rest is computed again (Chen et al. 2016).

Tensors are known by the names that the code gives them with `checkpoint_name`:

  block_input                      what a layer begins with, [B, N, width]
  self_attention, cross_attention  result and log-sum-exp of the attention kernel; XLA's has none while it is dense
                                   (`kernels.xla.DENSE_LOGITS`), nor has cuDNN's: "attention" is "full" with them
  ..._inputs                       queries, keys and values, as the kernel sees them: once devices have exchanged them
  ..._output                       the result, once exchanged back
  query, key, value, out           results of the projections of an attention
  gate, up, down                   of the feed-forward
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

from vidflow.config import nearest
from vidflow.errors import UsageError


class Kept(NamedTuple):
    """Names of tensors kept in a device's memory, and of those kept in its host's."""

    device: tuple[str, ...] = ()
    host: tuple[str, ...] = ()


_ATTENTION = tuple(f"{kind}_attention{part}" for kind in ("self", "cross") for part in ("", "_inputs", "_output"))
# "none" keeps everything without being asked; "named" keeps what config.model.saved names.
TABLE = {
    "full": Kept(),
    "attention": Kept(("self_attention",)),
    "matmuls": Kept((*_ATTENTION, "out", "gate", "up", "down")),
    "offload": Kept((), ("block_input", "self_attention")),
}
CHOICES = ("none", *TABLE, "named")
NAMES = ("block_input", *_ATTENTION, "query", "key", "value", "out", "gate", "up", "down")


def policy(remat: str, saved: Sequence[str] = ()) -> Callable[..., bool] | None:
    """For `jax.checkpoint`; None for no rematerialisation.

    Raises:
      UsageError: a word that is not in `CHOICES`; "named" without names or with one that no tensor has; names without
        "named".
    """
    if remat not in CHOICES:
        raise UsageError(f"Unknown config.model.remat '{remat}': use one of {', '.join(CHOICES)}.")
    if remat == "named" and not saved:
        raise UsageError("config.model.remat is 'named' and config.model.saved is empty: name tensors, or use 'full'.")
    if unknown := [name for name in saved if name not in NAMES]:
        raise UsageError(
            f"Unknown tensor '{unknown[0]}' in config.model.saved; did you mean '{nearest(unknown[0], NAMES)}'? There "
            f"are {', '.join(NAMES)}."
        )
    if saved and remat != "named":
        raise UsageError(
            f"config.model.saved names tensors and config.model.remat is '{remat}': set it to 'named', or name none."
        )
    if remat == "none":
        return None
    kept = Kept(tuple(saved)) if remat == "named" else TABLE[remat]
    if not kept.host:
        return jax.checkpoint_policies.save_only_these_names(*kept.device)
    return jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=list(kept.device),
        names_which_can_be_offloaded=list(kept.host),
        offload_src="device",
        offload_dst="pinned_host",
    )
