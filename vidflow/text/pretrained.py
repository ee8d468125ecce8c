"""Text encoders that others trained: a folder as Hugging Face saves it, `config.json`, safetensors (one file or shards)
and the files of its tokenizer.

    ul2 = vidflow.text.load_encoder("ul2")
    embeddings, mask = ul2.encode(["A cat walks.", ""])      # [2, L, 4096] float32, [2, L] bool

Of an encoder with a decoder, or a tower of text beside one of images, the encoder of text is read. Tensors go from file
to device one parameter at a time, and of a model that is spread over devices every host reads its share.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from vidflow import files
from vidflow.errors import UsageError
from vidflow.text import parameters, published, tokenizers
from vidflow.text.clip import ClipText, longer
from vidflow.text.t5 import T5Encoder
from vidflow.text.tensors import Tensors

REVISION = 3  # of this code: raised when the same files come to give other embeddings, whose caches are then refused
ROWS = 32
STEP = 16  # lengths of batches are multiples of it, so that few are compiled
T5_TOKENS = 512  # with which T5 was trained; its positions know no end
FEWEST = 2  # tokens of a text: what opens it and what closes it, as CLIP has

Place = Callable[[Any], Any]  # a tree of parameters with their logical names -> a tree of shardings


class TextEncoder:
    """A tower with its weights and its tokenizer.

    Attributes:
      module, params: as Linen applies them.
      tokens: the most that a text has; what is beyond is cut.
    """

    def __init__(
        self,
        module: T5Encoder | ClipText,
        params: Any,
        tokenizer: tokenizers.Tokenizer,
        tokens: int,
        rows: tuple[int, int],
    ) -> None:
        """`rows`: the fewest and the most of a batch."""
        self.module, self.params, self.tokens = module, params, tokens
        self._tokenizer, self._rows = tokenizer, rows
        self._apply = jax.jit(module.apply)
        # TPUs and GPUs round the factors of float32 unless they are asked not to.
        self._products = "highest" if module.dtype == jnp.float32 else None

    @property
    def width(self) -> int:
        """Of an embedding."""
        return self.module.size.width

    def encode(self, texts: Iterable[str]) -> tuple[Float[np.ndarray, "B L D"], Bool[np.ndarray, "B L"]]:
        """The embeddings of each text's tokens, and which there are; elsewhere they are zero. L is the number of tokens
        of the longest text.

        Raises:
          UsageError: one text instead of several, one of more than 20,000 characters, or with half of a surrogate pair.
        """
        ids = tokenizers.tokenize(self._tokenizer, texts, self.tokens)
        longest = max(map(len, ids), default=0)
        embeddings = np.zeros((len(ids), longest, self.width), np.float32)
        mask = np.arange(longest) < np.array([len(text) for text in ids], int)[:, None]
        for rows, (found, _) in self._batches(ids):
            for row, values in zip(rows, np.asarray(found, np.float32), strict=False):
                embeddings[row, : len(ids[row])] = values[: len(ids[row])]
        return embeddings, mask

    def pooled(self, texts: Iterable[str]) -> Float[np.ndarray, "B E"]:
        """CLIP's one vector for each text.

        Raises:
          UsageError: as `encode`, or an encoder of another kind.
        """
        if not isinstance(self.module, ClipText):
            raise UsageError("Only CLIP says something of a text as a whole: take its tokens' embeddings (encode).")
        size = self.module.size
        ids = tokenizers.tokenize(self._tokenizer, texts, self.tokens)
        vectors = np.zeros((len(ids), size.projection or size.width), np.float32)
        for rows, (_, pooled) in self._batches(ids):
            vectors[rows] = np.asarray(pooled, np.float32)[: len(rows)]
        return vectors

    def _batches(self, ids: list[list[int]]) -> Iterator[tuple[list[int], Any]]:
        """Rows of texts of about one length, and what the tower says of them: few sizes, so few compilations."""
        order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
        fewest, most = self._rows
        for low in range(0, len(order), most):
            rows = order[low : low + most]
            length = min(-(-len(ids[rows[-1]]) // STEP) * STEP, self.tokens)
            count = max(fewest, min(most, 1 << (len(rows) - 1).bit_length()))  # few sizes are compiled
            filled = [ids[row] for row in rows] + [ids[rows[0]]] * (count - len(rows))
            batch = tokenizers.padded(filled, length, self._tokenizer.padding)
            with jax.default_matmul_precision(self._products):
                found = self._apply(self.params, batch.ids, batch.real)
            yield rows, found if isinstance(found, tuple) else (found, None)


def load_encoder(
    path: Any,
    *,
    dtype: Any = jnp.float32,
    tokens: int = 0,
    rows: int = ROWS,
    place: Place | None = None,
) -> TextEncoder:
    """Reads CLIP's text tower, or the encoder of a T5 v1.1, UL2, ByT5 or UMT5.

    Args:
      path: the folder. The tokenizer is there or, as diffusers has it, in `tokenizer` beside it.
      dtype: of weights and computation, float32 or bfloat16.
      tokens: the most that a text has; 0: as many as it was trained with. More than its positions stretch CLIP's table.
      rows: of a batch; a number that the devices divide, where the batch is spread over them.
      place: where the parameters lie; everything on the first device if None.

    Raises:
      UsageError: no such folder, another kind of model, a tensor that is missing, left over or of another shape (names
        the first), a file that was cut short, another dtype, too few tokens, or no tokenizer or one of more words than
        the encoder has.
    """
    dtype = _precision(dtype)
    if rows < 1:
        raise UsageError(f"A batch of texts has one row or more, not {rows}.")
    if tokens and tokens < FEWEST:
        raise UsageError(f"A text encoder reads {FEWEST} tokens or more of a text, not {tokens}.")
    config = files.read_json(f"{path}/config.json")
    family = published.family(config, path)
    weights = Tensors(path, family.prefixes, family.others, family.instead)
    module = _module(family, config, weights, dtype, path)
    trained, changes = T5_TOKENS, {}
    if isinstance(module, ClipText):
        trained = module.size.tokens
        if tokens > trained:
            module = module.clone(size=module.size._replace(tokens=tokens))
            changes = {"position": ((trained, module.size.width), partial(longer, tokens=tokens))}
    words = tokenizers.load(tokenizer_folder(path))
    if words.size > module.size.vocabulary:
        raise UsageError(
            f"The tokenizer of {path} knows {words.size} words and the encoder {module.size.vocabulary}: take the one "
            "that was published with it."
        )
    try:
        like = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 1), np.int32), np.ones((1, 1), bool))
    except (ArithmeticError, TypeError, ValueError) as error:
        raise UsageError(f"{path}/config.json describes what cannot be built ({error}): copy it again.") from None
    params = parameters.read(like, family.names, weights, dtype, place(like) if place else None, changes)
    return TextEncoder(module, params, words, tokens or trained, (rows if place else 1, rows))


def _module(
    family: published.Family, config: dict[str, Any], weights: Tensors, dtype: np.dtype, path: Any
) -> T5Encoder | ClipText:
    try:
        module = family.module(config, weights.shapes, dtype)
    except KeyError as missing:
        raise UsageError(f"{path}/config.json has no {missing}: take the whole folder of the model.") from None
    except (AttributeError, TypeError) as error:
        raise UsageError(f"{path}/config.json describes what cannot be built ({error}): copy it again.") from None
    for name, value in module.size._asdict().items():
        whole = type(module.size).__annotations__[name] is int
        fewest = 0 if name == "projection" else 1  # which not every CLIP has
        if whole and (type(value) is not int or value < fewest):
            raise UsageError(f"{path}/config.json describes a tower with {name}={value!r}: copy it again.")
    return module


def digest(path: Any, *, dtype: Any, tokens: int) -> str:
    """Of all that changes an embedding: the files of weights and tokenizer, how `load_encoder` is told to use them, and
    REVISION.

    Raises:
      UsageError: no such folder, or one without weights.
    """
    folder = tokenizer_folder(path)
    parts = [f"{path}/config.json", *Tensors(path).shards]
    parts += [file for name in tokenizers.FILES if files.is_file(file := f"{folder}/{name}")]
    sums = {file.rpartition("/")[2]: files.sha256(file) for file in parts}
    return files.digest({"files": sums, "dtype": str(_precision(dtype)), "tokens": tokens, "revision": REVISION})


def _precision(dtype: Any) -> np.dtype:
    try:
        found = jnp.dtype(dtype)
    except TypeError:  # no dtype at all
        found = np.dtype(object)
    if found not in (jnp.float32, jnp.bfloat16):
        raise UsageError(f"A text encoder (config.text.dtype) computes in float32 or bfloat16, not in {dtype}.")
    return found


def tokenizer_folder(path: Any) -> str:
    """Where the tokenizer is: with the encoder or beside it, as diffusers' tokenizer_2 beside text_encoder_2."""

    def has_one(folder: Any) -> bool:
        return any(files.is_file(f"{folder}/{name}") for name in tokenizers.FILES)

    where, slash, name = str(path).rstrip("/").rpartition("/")
    beside = f"{where}{slash}{name.replace('text_encoder', 'tokenizer')}"
    return beside if has_one(beside) and not has_one(path) else str(path)
