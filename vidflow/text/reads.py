"""What an encoder reads of a prompt: all of it, or what is to be written in the picture.

Movie Gen gives ByT5, which sees characters, only the text between quotation marks (section 3.1.3).
"""

import re
from collections.abc import Callable

QUOTED = re.compile(r'["“„＂]([^"“”＂]*)["“”＂]|«([^«»]*)»|「([^「」]*)」|『([^『』]*)』')


def prompt(text: str) -> str:
    """All of it."""
    return text


def quoted(text: str) -> str:
    """What stands between quotation marks, one after the other; nothing where there are none."""
    found = ("".join(groups).strip() for groups in QUOTED.findall(text))
    return " ".join(filter(None, found))


READS: dict[str, Callable[[str], str]] = {"prompt": prompt, "quoted": quoted}
