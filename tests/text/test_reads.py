"""What stands between quotation marks of many kinds."""

import pytest

from vidflow.text.reads import quoted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('a sign says "CAT" over "dog"', "CAT dog"),
        ("“CAT” and “DOG”", "CAT DOG"),
        ("„Hund“, «chien», 「犬」 und ＂狗＂", "Hund chien 犬 狗"),
        ('“CAT"', "CAT"),
        ('no mark, an open one "CAT', ""),
        ('"" " "', ""),
        ("the dog's bone", ""),
        ("「a『b』c」", "a『b』c"),
        ("«" * 20_000, ""),  # in a moment
    ],
)
def test_quoted_text_is_found(text, wanted):
    assert quoted(text) == wanted
