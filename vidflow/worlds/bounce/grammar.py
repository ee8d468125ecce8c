"""Captions of bounce in both directions: `describe` writes them, `parse` understands them."""

import re
from dataclasses import dataclass

import numpy as np

from vidflow.errors import UsageError
from vidflow.worlds.bounce.scene import BACKGROUNDS, COLOURS, MAX_OBJECTS, SHAPES, SIZES, Scene

STYLES = ("short", "long", "mixed")
LEAVE_OUT = 0.1  # probability that a short caption leaves out an object's size, or its speed
NAME_BACKGROUND = 0.5  # probability that a short caption names a background that varies


@dataclass(frozen=True)
class ObjectDescription:
    """What a caption says of one object; None is not named. "still" objects name no speed."""

    shape: str
    colour: str
    size: str | None
    direction: str
    speed: str | None


@dataclass(frozen=True)
class Description:
    """What a caption names."""

    objects: tuple[ObjectDescription, ...]
    background: str | None


def caption(scene: Scene, level: int, rng: np.random.Generator, style: str) -> str:
    """A caption of a scene drawn at `level`, which says what varies and so is worth naming.

    Raises `UsageError` for a style that is not one of STYLES.
    """
    style = _resolve(style, rng)
    return describe(name(scene, level, rng, style), rng, style)


def name(scene: Scene, level: int, rng: np.random.Generator, style: str) -> Description:
    """Choose what a "short" or "long" caption names: what varies at the level, if long all of it.

    Size and speed vary from level 1 on, the background from level 2 on.
    """
    everything = style == "long"
    objects = []
    for thing in scene.objects:
        with_size, with_speed = everything | (rng.random(2) >= LEAVE_OUT)
        size = thing.size if level >= 1 and with_size else None
        speed = thing.speed if level >= 1 and with_speed else None
        objects.append(ObjectDescription(thing.shape, thing.colour, size, thing.direction, speed))
    with_background = level >= 2 and (everything or rng.random() < NAME_BACKGROUND)
    return Description(tuple(objects), scene.background if with_background else None)


def describe(description: Description, rng: np.random.Generator, style: str) -> str:
    """The caption, ASCII; `parse` gives the description back.

    "short" is one clause per object, "long" two to four sentences that also state the number of
    objects, "mixed" either with equal probability; `rng` varies the wording. Raises `UsageError`
    for a style that is not one of STYLES, or no objects, or more than MAX_OBJECTS.
    """
    if not 1 <= len(description.objects) <= MAX_OBJECTS:
        raise UsageError(
            f"bounce captions name 1 to {MAX_OBJECTS} objects, got {len(description.objects)}."
        )
    return (_short if _resolve(style, rng) == "short" else _long)(description, rng)


def _resolve(style: str, rng: np.random.Generator) -> str:
    if style not in STYLES:
        raise UsageError(f"bounce has no caption style {style!r}: use one of {', '.join(STYLES)}.")
    return ("short", "long")[rng.integers(2)] if style == "mixed" else style


def _short(description: Description, rng: np.random.Generator) -> str:
    clauses = [f"{_noun(thing)} {_motion(thing)}" for thing in description.objects]
    *most, last = clauses
    text = f"{', '.join(most)} and {last}" if most else last
    if description.background is None:
        return text
    ground = f"{_article(description.background)} {description.background} background"
    return f"on {ground}, {text}" if rng.integers(2) else f"{text}, on {ground}"


def _long(description: Description, rng: np.random.Generator) -> str:
    count = len(description.objects)
    number = ("one", "two", "three")[count - 1]
    objects = f"{number} object{'s' if count > 1 else ''}"
    ground = ""
    if description.background is not None:
        place = _pick(rng, "on", "against", "in front of")
        ground = f" {place} {_article(description.background)} {description.background} background"
    be = "is" if count == 1 else "are"
    sentences = [
        _pick(
            rng,
            f"The video shows {objects}{ground}.",
            f"There {be} {objects}{ground}.",
            f"{objects.capitalize()} can be seen{ground}.",
        )
    ]
    if count == 1:
        thing = description.objects[0]
        sentences += _pick(
            rng,
            [f"It is {_noun(thing)}, which {_motion(thing)}."],
            [f"It is {_noun(thing)}.", f"It {_motion(thing)}."],
            [f"{_noun(thing).capitalize()} {_motion(thing)}."],
        )
        return " ".join(sentences)
    for place, thing in zip(("first", "second", "third"), description.objects, strict=False):
        sentences.append(
            _pick(
                rng,
                f"The {place} is {_noun(thing)}, which {_motion(thing)}.",
                f"The {place} one, {_noun(thing)}, {_motion(thing)}.",
                f"{_noun(thing).capitalize()} {_motion(thing)}.",
            )
        )
    return " ".join(sentences)


def _pick(rng: np.random.Generator, *choices):
    return choices[rng.integers(len(choices))]


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _noun(thing: ObjectDescription) -> str:
    words = [word for word in (thing.size, thing.colour, thing.shape) if word]
    return " ".join([_article(words[0]), *words])


def _motion(thing: ObjectDescription) -> str:
    if thing.direction == "still":
        return "stays still"
    way = thing.direction
    way = f"to the {way}" if way in ("left", "right") else way
    return " ".join(
        ["moves", *({"slow": ["slowly"], "fast": ["quickly"]}.get(thing.speed, [])), way]
    )


# Understanding. A word outside this vocabulary makes a text not understood: half an understanding
# would score a video against something that its author did not say.
WAYS = {"up": "up", "upward": "up", "upwards": "up", "down": "down", "downward": "down",
        "downwards": "down", "left": "left", "leftward": "left", "leftwards": "left",
        "right": "right", "rightward": "right", "rightwards": "right"}  # fmt: skip
PACES = {"slowly": "slow", "slow": "slow", "quickly": "fast", "fast": "fast", "quick": "fast",
         "rapidly": "fast"}  # fmt: skip
AT_REST = {"still", "motionless", "stationary"}
NUMBERS = {"one": 1, "two": 2, "three": 3, "1": 1, "2": 2, "3": 3}
FILLERS = frozenset(
    "a an the and is are it its to in on against front of with one which that there while "
    "video shows can be seen first second third moves moving move goes going stays staying "
    "remains stands diagonally direction toward towards".split()
)


def parse(text: str) -> Description | None:
    """What a caption, or a user's text in similar words, names; None when it is not understood.

    Case, punctuation, articles and the spelling "gray" do not matter. Every object needs a colour,
    a shape and a direction (or to be still); size, speed, background and number may be missing.
    """
    text = re.sub(r"[\W_]+", " ", text.lower().replace("gray", "grey"))
    text = text.replace("does not move", "stays still").replace("not moving", "still")
    text = re.sub(rf"\b({'|'.join(PACES)}) moving\b", r"\1", text)
    grounds = re.findall(rf"\b({'|'.join(BACKGROUNDS)}) background\b", text)
    text = re.sub(rf"\b({'|'.join(BACKGROUNDS)}) background\b", " ", text)
    if len(grounds) > 1:
        return None
    number = re.search(rf"\b({'|'.join(NUMBERS)}) objects?\b", text)
    text = re.sub(rf"\b({'|'.join(NUMBERS)}) objects?\b|\b(first|second|third) one\b", " ", text)
    objects = _objects(text.split())
    if not objects or (number and NUMBERS[number.group(1)] != len(objects)):
        return None
    return Description(objects, grounds[0] if grounds else None)


def _objects(words: list[str]) -> tuple[ObjectDescription, ...] | None:
    """Adjectives belong to the next shape; ways, paces and rest to the last one.

    A pace is an adjective if an adjective or a shape follows it ("a fast red star").
    """
    found: list[dict[str, list[str]]] = []
    adjectives: dict[str, list[str]] = {}
    nouns = {*SIZES, *COLOURS, *SHAPES}
    for word, after in zip(words, [*words, ""][1:], strict=True):
        if word in SIZES:
            adjectives.setdefault("size", []).append(word)
        elif word in COLOURS:
            adjectives.setdefault("colour", []).append(word)
        elif word in SHAPES:
            found.append({"shape": [word], **adjectives})
            adjectives = {}
        elif word in PACES and after in nouns:
            adjectives.setdefault("pace", []).append(PACES[word])
        elif word in PACES or word in WAYS or word in AT_REST:
            if not found or adjectives:
                return None
            kind = "pace" if word in PACES else "way" if word in WAYS else "rest"
            value = PACES.get(word, WAYS.get(word, word))
            found[-1].setdefault(kind, []).append(value)
        elif word not in FILLERS:
            return None
    objects = tuple(_object(facts) for facts in found)
    return None if adjectives or None in objects else objects


def _object(facts: dict[str, list[str]]) -> ObjectDescription | None:
    """One object of the words said about it, or None if they contradict or do not suffice."""
    ways = facts.get("way", [])
    if any(len(values) > 1 for kind, values in facts.items() if kind != "way"):
        return None
    if "colour" not in facts or bool(ways) == ("rest" in facts):
        return None
    vertical = [way for way in ways if way in ("up", "down")]
    sideways = [way for way in ways if way in ("left", "right")]
    if len(vertical) > 1 or len(sideways) > 1 or ("rest" in facts and "pace" in facts):
        return None
    direction = " and to the ".join(vertical + sideways) or "still"
    size, pace = facts.get("size", [None])[0], facts.get("pace", [None])[0]
    return ObjectDescription(facts["shape"][0], facts["colour"][0], size, direction, pace)
