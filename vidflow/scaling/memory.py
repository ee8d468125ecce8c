"""Memory, communication and recomputation of a training step by closed formula: good enough to choose a mesh by.

The compiler has the last word: `vidflow.plan` compiles what these formulas choose. They cover the transformer of
`models/dit.py` under AdamW with a moving average, and count what is large: the state, the gradients, one layer's
working set, and what every layer keeps for the backward pass.
"""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from vidflow.axes import DATA, FSDP, SEQUENCE, TENSOR
from vidflow.models.sizes import Size
from vidflow.scaling import flops

PART_BYTES = 4  # of a parameter's master copy, and of each of its two moments and its average
STATE_BYTES = 4 * PART_BYTES
KEY_BLOCK = 2048  # of splash attention's backward, which keeps a partial gradient of the queries for each

# Widths kept for each token in each layer besides its input: (multiples of the model width, of the feed-forward's).
# What "named" keeps is not known here; it counts as "matmuls".
KEPT = {"none": (24, 4), "matmuls": (10, 2), "named": (10, 2), "attention": (1, 0), "full": (0, 0), "offload": (0, 0)}


class Workload(NamedTuple):
    """One step, before it is spread over devices.

    Attributes:
      size: of the model.
      parameters: all of them.
      rows: clips in a batch.
      tokens, text_tokens: of a clip.
      gradient_bytes: of one number of a gradient.
      flops: of a clip, forward and backward, nothing computed again, by part of the model.
      spread: the axes of the mesh, beside `tensor`, over which a parameter lies in parts.
      state_bytes: of a parameter, moments and average included, that rest in the memory of the devices.
    """

    size: Size
    parameters: int
    rows: int
    tokens: int
    text_tokens: int
    gradient_bytes: int
    flops: Mapping[str, float]
    spread: tuple[str, ...] = (FSDP, SEQUENCE)
    state_bytes: int = STATE_BYTES

    @property
    def model_flops(self) -> float:
        """Of the step."""
        return self.rows * sum(self.flops.values())


class Layout(NamedTuple):
    """How a step is spread over devices and time."""

    data: int
    fsdp: int
    sequence: int
    tensor: int
    remat: str
    microbatches: int

    @property
    def mesh(self) -> dict[str, int]:
        return {DATA: self.data, FSDP: self.fsdp, SEQUENCE: self.sequence, TENSOR: self.tensor}

    def over(self, axes: Iterable[str]) -> int:
        """Devices along some axes of the mesh."""
        return math.prod(self.mesh[axis] for axis in axes)


def bytes_per_device(work: Workload, layout: Layout) -> float:
    """Of main memory that a device needs at the peak of a step."""
    shards = layout.over(work.spread) * layout.tensor
    d, f, layers = work.size.width, work.size.feed_forward, work.size.layers
    rows = work.rows / (layout.data * layout.fsdp * layout.microbatches)
    tokens = rows * work.tokens / (layout.sequence * layout.tensor)
    state = work.state_bytes * work.parameters / shards
    accumulated = 4 if layout.microbatches > 1 else 0
    gradients = (work.gradient_bytes + accumulated + 2) * work.parameters / shards  # 2: the copy that is computed with
    widths, hidden = KEPT[layout.remat]
    inputs = 0 if layout.remat == "offload" else 1
    kept = 2 * layers * tokens * ((inputs + widths) * d + hidden * f)
    gathered = 2 * (work.parameters / layers) / layout.tensor
    partial = -(-work.tokens // KEY_BLOCK) * 2 * rows * work.tokens * d / work.size.heads  # of one head
    working = 2 * tokens * (10 * d + 3 * f)
    return state + gradients + kept + gathered + partial + working


def bytes_sent(work: Workload, layout: Layout) -> float:
    """By a device in a step: kernels gathered twice and their gradients scattered once for each microbatch, and these
    summed over the axes along which parameters are whole; tokens and heads exchanged, tokens gathered and scattered
    over `tensor`."""
    shards, d = layout.over(work.spread), work.size.width
    whole = layout.over({DATA, FSDP, SEQUENCE} - set(work.spread))
    kernels = 2 * work.parameters / layout.tensor * (1 - 1 / shards)
    rows = work.rows / (layout.data * layout.fsdp)
    tokens = 2 * rows * work.tokens * d / (layout.sequence * layout.tensor)
    exchanged = 12 * tokens * (1 - 1 / layout.sequence) * work.size.layers
    gathered = 18 * tokens * (layout.tensor - 1) * work.size.layers
    state = 0 if whole == 1 else 2 * work.gradient_bytes * work.parameters / (shards * layout.tensor)
    return 3 * kernels * layout.microbatches + exchanged + gathered + state


def recomputed(work: Workload, remat: str) -> float:
    """FLOPs of a step that are done a second time, all devices together."""
    share = {"none": 0.0, "matmuls": 0.0, "named": 0.0, "attention": 1.0, "full": 1.0, "offload": 1.0}[remat]
    kept = ("text_encoder", "attention") if remat == "attention" else ("text_encoder",)
    again = sum(value for part, value in work.flops.items() if part not in kept)
    return share * work.rows * again / (1 + flops.BACKWARD)
