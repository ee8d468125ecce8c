"""What an encoder reads of a prompt: all of it, or what is to be written in the picture.

Movie Gen gives ByT5, which sees characters, only the text between quotation marks (section 3.1.3).
"""

from collections.abc import Callable

# What closes what each mark opens; languages differ ("CAT", „Hund“, «chien», »Hund«, ”hund”, 「犬」).
CLOSED_BY = {'"': '"', "＂": "＂", "“": '”"', "„": '“”"', "”": "”", "❝": "❞", "‘": "’", "'": "'", "«": "»", "»": "«"}
CLOSED_BY |= {"‹": "›", "›": "‹", "「": "」", "『": "』", "｢": "｣", "﹁": "﹂", "﹃": "﹄", "〝": "〞〟"}
APART = "”'’"  # do not open behind a letter or digit
APOSTROPHES = "'’"  # do not close before one


def prompt(text: str) -> str:
    """All of it."""
    return text


def quoted(text: str) -> str:
    """What stands between quotation marks, one after the other; nothing where there are none.

    Of quotations within one another the outer counts, of a mark that is opened twice the second. An apostrophe that
    begins a word is taken for a mark if one that ends a word follows.
    """
    opened: dict[str, int] = {}  # a mark -> where its text begins
    found: list[tuple[int, int]] = []
    for place, mark in enumerate(text):
        behind_word, before_word = text[max(place - 1, 0) : place].isalnum(), text[place + 1 : place + 2].isalnum()
        begun = [start for other, start in opened.items() if mark in CLOSED_BY[other]]
        if begun and not (mark in APOSTROPHES and before_word):
            start = max(begun)
            opened = {other: at for other, at in opened.items() if at < start}
            while found and found[-1][0] > start:
                found.pop()
            found.append((start, place))
        elif mark in CLOSED_BY and not (mark in APART and behind_word):
            opened[mark] = place + 1
    return " ".join(filter(None, (text[low:high].strip() for low, high in found)))


READS: dict[str, Callable[[str], str]] = {"prompt": prompt, "quoted": quoted}
