"""How many parameters a transformer has, by closed formula."""

from vidflow.models.design import MOVIE_GEN, Design
from vidflow.models.sizes import Size


def transformer(
    size: Size,
    *,
    positions: tuple[int, int, int],
    text_width: int,
    features: int,
    design: Design = MOVIE_GEN,
    classes: int = 0,
    variance: bool = False,
) -> int:
    """Of `models.dit.VideoTransformer`.

    Args:
      positions: lengths of the three position tables.
      text_width: of the text tokens.
      features: numbers in a patch of latents.
      classes, variance: as the model has them.
    """
    d, f, bias = size.width, size.feed_forward, int(design.bias)
    modulated = bool(design.vectors)
    projected = design.text == "in_context" or (design.text != "none" and design.time == "cross_attention")

    def matrix(inputs: int, outputs: int) -> int:
        return inputs * outputs + bias * outputs

    def norm(modulated: bool) -> int:
        return d if design.norm == "rms" else 0 if modulated else 2 * d

    modulation = design.vectors * (d * d + d)
    of_heads = 2 * d // size.heads if design.qk_norm else 0
    layer = 4 * matrix(d, d) + of_heads + 2 * norm(modulated)
    layer += 2 * matrix(d, f) + matrix(f, d) if design.mlp == "swiglu" else matrix(d, f) + matrix(f, d)
    layer += design.vectors * d if design.shared else modulation  # a table, or a projection
    if design.attends_across:
        layer += 2 * matrix(d, d) + 2 * matrix(d if projected or design.text == "none" else text_width, d)
        layer += of_heads + norm(False)
    ends = matrix(features, d) + matrix(d, features * (2 if variance else 1)) + norm(modulated)
    time = 256 * d + d + d * d + d + (2 * (d * d + d) if modulated else 0) + (modulation if design.shared else 0)
    tables = (sum(positions) * d if design.learns_positions else 0) + ((classes + 1) * d if classes else 0)
    return size.layers * layer + ends + time + tables + (text_width * d if projected else 0)
