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
        ("the dogs' bone and the cat's", ""),
        ("「a『b』c」", "a『b』c"),
        ("»Hund« und »Katze«, ‹chien›", "Hund Katze chien"),
        ("”Katt” och ”Hund” 12” bred", "Katt Hund"),
        ("‘CAT’ and ‘it’s DOG’", "CAT it’s DOG"),
        ("'CAT' and 'it's', a 6' man", "CAT it's"),
        ("“CAT and “DOG”", "DOG"),
        ("“outer “inner” more”", "inner"),
        ("„outer „inner“ more“", "inner"),
        ('"a \'b\' “c” d"', "a 'b' “c” d"),
        ("'tis written: 「犬」", "犬"),
    ],
)
def test_quoted_text_is_found(text, wanted):
    assert quoted(text) == wanted


@pytest.mark.parametrize("text", ["„", "«„", "“‘「", " 'a", "»a"])
def test_marks_without_end_cost_no_more_than_others(text):
    """Were every mark compared with all before it, these would take minutes."""
    assert len(quoted(text * 200_000)) < 600_000
