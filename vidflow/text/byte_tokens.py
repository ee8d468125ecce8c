"""Text as UTF-8 bytes: the tokenizer without a vocabulary file."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from vidflow.errors import UsageError

PADDING = 0
START = 1  # opens every text, so that the empty prompt, the null condition of guidance, has a token
FIRST_BYTE = 2
VOCABULARY = FIRST_BYTE + 256


def tokenize(texts: Sequence[str], length: int) -> Int32[np.ndarray, "B L"]:
    """Byte identifiers of each text after a START token, padded with 0 to `length`.

    Raises:
      UsageError: a text that does not fit, naming it; nothing is cut silently; one with half of a surrogate pair.
    """
    tokens = np.full((len(texts), length), PADDING, np.int32)
    for row, text in zip(tokens, texts, strict=True):
        data = np.frombuffer(as_bytes(text), np.uint8)
        if len(data) + 1 > length:
            raise UsageError(
                f"The text '{text[:60]}...' has {len(data)} bytes and the model reads {length - 1}: shorten it, "
                "or train with a larger config.text.length."
            )
        row[0] = START
        row[1 : 1 + len(data)] = FIRST_BYTE + data.astype(np.int32)
    return tokens


def as_bytes(text: str) -> bytes:
    """In UTF-8.

    Raises:
      UsageError: half of a surrogate pair, which has no bytes.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"The prompt {ascii(text[:60])} has half of a surrogate pair at character {error.start}: it was read "
            "with the wrong encoding; save it as UTF-8."
        ) from None
