"""What papers count when they say FLOPs of training. They differ by tens of percent, and exponents with them.

`counted` is this code base's own: every matrix product that the model needs (`scaling.flops`), three times. The others
leave parts out, or count some that are not there:

    6ND            parameters are used once for each token, by a multiply-add, and twice more backward (Kaplan et al.
                   2020). Short of the scores of attention; counts modulation, which a clip needs once, for every token.
    6ND+attention  and 12 layers * width FLOPs a token for each token that it attends to (Chowdhery et al. 2022,
                   appendix B).
    layers         self-attention and feed-forward alone, three times: a sum over layers of an in-context transformer,
                   like that of Liang et al. (2024), who find it within 1% of 6ND.
    cross_dit      3/4 parameters (7 + tokens / width) a token: what a cross-attention layer of 16 width^2 parameters
                   comes to if the keys and values of the text cost nothing. It is what one reading of Yin et al. (2024)
                   has for theirs; the derivation is ours.
"""

from collections.abc import Mapping

from vidflow.models.sizes import Size

COUNTED = "counted"


def training(counted: Mapping[str, float], size: Size, *, parameters: int, tokens: int) -> dict[str, float]:
    """FLOPs of one clip, forward and backward, under each convention.

    Args:
      counted: by part, as `training.program.Learner.flops` of a transformer has them.
      size, parameters: of the transformer.
      tokens: spacetime patches of the clip.
    """
    six = 6.0 * parameters * tokens
    return {
        COUNTED: sum(counted.values()),
        "6ND": six,
        "6ND+attention": six + 12.0 * size.layers * size.width * tokens * tokens,
        "layers": sum(counted[part] for part in ("attention", "projections", "feed_forward")),
        "cross_dit": 0.75 * parameters * tokens * (7 + tokens / size.width),
    }
