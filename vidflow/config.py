"""Experiment configs: load a file, override leaves, write and read them back.

An experiment is a Python file whose `get_config(arg="")` returns an `ml_collections.ConfigDict`:

    def get_config(arg=""):
        arg = parse_arg(arg, size=("demo", "5b", "30b"), res=256, smoke=False)
        config = ConfigDict()
        config.data = ConfigDict({"source": "bounce", "size": (arg.res, arg.res)})
        ...
        return config

A config is a tree whose leaves are None, bool, int, float, str, or tuples of these. So every leaf
has a dotted name that the command line can set, and the whole tree survives JSON.

This module imports neither jax nor flax, so that `--help` answers at once.
"""

import ast
import difflib
import hashlib
import importlib.util
import inspect
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from vidflow.errors import UsageError

TYPE_NAMES = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}
Leaf = bool | int | float | str | tuple | None


def nearest(word: str, valid: Iterable[str]) -> str:
    """The member of `valid` (not empty) that looks most like `word`, whatever its case."""
    spelled = {candidate.lower(): candidate for candidate in valid}
    return spelled[difflib.get_close_matches(word.lower(), spelled, n=1, cutoff=0.0)[0]]


# Text to typed values


def _fit(value: object, like: Leaf) -> Leaf:
    """`value`, a Python literal, as the type of `like`; ValueError if it is another type."""
    if isinstance(value, list | tuple) and (like is None or isinstance(like, tuple)):
        element = _element(like or ())
        return tuple(_fit(item, element) for item in value)
    if isinstance(like, float) and type(value) is int:
        return float(value)
    if like is None and (value is None or type(value) in TYPE_NAMES):
        return value
    if like is not None and type(value) is type(like):
        return value
    raise ValueError(value)


def _element(items: tuple) -> Leaf:
    """What a new item of this tuple must look like; None where the present items do not agree."""
    return items[0] if len({type(item) for item in items}) == 1 else None


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(text) from error


def _untyped(text: str) -> Leaf:
    """A literal if `text` is one, otherwise the text itself."""
    # Spellings that flags of other tools take; the string "false" would be true.
    spellings = {"true": True, "false": False, "none": None}
    if text.lower() in spellings:
        return spellings[text.lower()]
    try:
        return _fit(_literal(text), None)
    except ValueError:
        return text


def _items(text: str, like: tuple) -> tuple:
    """`(1, 2)`, `[1, 2]`, `1,2`, `(a,b)`, `a` or nothing, with items like those of `like`."""
    try:
        return _fit(_literal(text), like)
    except ValueError:
        if isinstance(_element(like), tuple):
            raise  # Commas alone cannot say where an inner tuple ends.
        # Otherwise its words are bare strings, or digits meant as strings.
    body = text.strip()
    if body[:1] + body[-1:] in ("()", "[]"):
        body = body[1:-1]
    words = [word.strip() for word in body.split(",")]
    if words[-1] == "":
        words.pop()
    return tuple(_typed(word, _element(like)) for word in words)


def _typed(text: str, like: Leaf) -> Leaf:
    """`text` as a value of the type of `like`; ValueError if it cannot be read as one."""
    if like is None:
        return _untyped(text)
    if isinstance(like, str):
        return text
    if isinstance(like, tuple):
        return _items(text, like)
    if isinstance(like, bool):
        spellings = {"true": True, "1": True, "false": False, "0": False}
        if text.lower() not in spellings:
            raise ValueError(text)
        return spellings[text.lower()]
    return type(like)(text)


def _expected(like: Leaf) -> str:
    return f"a tuple like {like}" if isinstance(like, tuple) else TYPE_NAMES[type(like)]


# The argument of an experiment


def parse_arg(arg: str, /, **spec: Leaf) -> ConfigDict:
    """Reads the argument of `get_config`: comma-separated words and `key=value` pairs.

    Each keyword is a key with its default, whose type the value takes:
      `res=256`               an int: "res=768". float, str and None (any literal) likewise.
      `smoke=False`           a flag: "smoke" alone means true; "smoke=false" works too.
      `size=("demo", "30b")`  a choice, the first being the default: "30b" or "size=30b".

    >>> parse_arg("30b,res=768,smoke", size=("demo", "30b"), res=256, smoke=False).to_dict()
    {'res': 768, 'size': '30b', 'smoke': True}
    >>> parse_arg("", size=("demo", "30b"), res=256).to_dict()
    {'res': 256, 'size': 'demo'}

    Returns: a locked ConfigDict with one value per key.
    Raises: UsageError for an unknown word or key (naming the nearest valid one), a value of another
      type, a key without a value, a key given twice, or a word that is a choice of two keys.
    """
    values = {key: like[0] if isinstance(like, tuple) else like for key, like in spec.items()}
    given = set()
    try:
        for part in filter(None, (part.strip() for part in arg.split(","))):
            key, text = _argument(part, spec)
            if key in given:
                raise ValueError(f"{key!r} is given twice; keep one.")
            given.add(key)
            values[key] = _argument_value(key, text, spec[key])
    except ValueError as error:
        raise UsageError(f"Config argument {arg!r}: {error}") from None
    return ConfigDict(values).lock()


def _argument(part: str, spec: dict[str, Leaf]) -> tuple[str, str]:
    """Key and text of one part, whether written "key=text", "flag" or "choice"."""
    key, equals, text = (piece.strip() for piece in part.partition("="))
    if key in spec and (equals or isinstance(spec[key], bool)):
        return key, text if equals else "true"
    if key in spec:
        raise ValueError(f"{key!r} needs a value; write {key}=VALUE.")
    choices = {k: [*map(str, like)] for k, like in spec.items() if isinstance(like, tuple)}
    keys = [] if equals else [k for k, words in choices.items() if key in words]
    if len(keys) == 1:
        return keys[0], key
    if keys:
        raise ValueError(f"{key!r} fits {' and '.join(keys)}; write {keys[0]}={key}.")
    valid = [*spec] if equals else [*spec, *(word for words in choices.values() for word in words)]
    hint = f"did you mean {nearest(key, valid)!r}?" if valid else "this config takes no argument."
    raise ValueError(f"{key!r} is unknown; {hint}")


def _argument_value(key: str, text: str, like: Leaf) -> Leaf:
    if isinstance(like, tuple):
        choices = {str(choice): choice for choice in like}
        if text not in choices:
            hint = f"did you mean {nearest(text, choices)!r}? Choices: {', '.join(choices)}."
            raise ValueError(f"{key!r} cannot be {text!r}; {hint}")
        return choices[text]
    try:
        return _typed(text, like)
    except ValueError:
        raise ValueError(f"{key!r} must be {_expected(like)}, not {text!r}.") from None


# Files


def load(spec: str) -> ConfigDict:
    """Runs `get_config` of a config file.

    Args:
      spec: `FILE.py` or `FILE.py:arg`, e.g. "experiments/dit/base.py:30b,res=768".

    Returns: the locked config.
    Raises: UsageError if the file is missing or unreadable, has no `get_config`, returns something
      else than a ConfigDict, has a leaf that JSON cannot keep, or itself raises UsageError. Any
      other error of the file keeps its traceback.
    """
    match = re.fullmatch(r"(.*?\.py)(?::(.*))?", spec, flags=re.DOTALL)
    if match is None:
        raise UsageError(f"{spec!r} names no config; write FILE.py or FILE.py:arg.")
    path, arg = Path(match[1]), match[2] or ""
    get_config = function(path, "get_config", 'def get_config(arg="")')
    if inspect.signature(get_config).parameters:
        config = get_config(arg)
    elif arg:
        raise UsageError(f"get_config in {path} takes no argument; drop {':' + arg!r}.")
    else:
        config = get_config()
    if type(config) is not ConfigDict:
        raise UsageError(
            f"get_config in {path} returned a {type(config).__name__}; "
            "return an ml_collections.ConfigDict."
        )
    flatten(config)  # A leaf that cannot be saved must fail now, not at the first checkpoint.
    return _locked(config)


def function(path: Path, name: str, shape: str) -> Callable[..., Any]:
    """A function of a config file, which its text `shape` explains.

    Raises: UsageError if the file is missing or unreadable, or has no such function.
    """
    found = getattr(_execute(path), name, None)
    if not callable(found):
        raise UsageError(f"{path} has no {name}; define `{shape}` in it.")
    return found


def _execute(path: Path) -> ModuleType:
    try:
        source = path.read_bytes()
    except FileNotFoundError:
        others = [str(file) for file in path.parent.glob("*.py")]
        hint = f"did you mean {nearest(str(path), others)}?" if others else "check the path."
        raise UsageError(f"Config file {path} does not exist; {hint}") from None
    except OSError as error:
        raise UsageError(f"Config file {path} cannot be read: {error.strerror}.") from None
    name = "vidflow_config_" + hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    module_spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # dataclasses look their own module up while they are defined.
    try:
        # Not `exec_module`: its bytecode cache would miss a second edit within the same second.
        exec(module_spec.loader.source_to_code(source, str(path)), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _locked(config: ConfigDict) -> ConfigDict:
    # `lock` stops at a locked root, even if a child is open.
    return config.unlock().lock()


# Leaves


def flatten(config: ConfigDict) -> dict[str, Leaf]:
    """The leaves by dotted name, sorted: {"data.source": "folder", "steps": 100}.

    Raises: UsageError for a leaf that is not None, bool, int, float, str or a tuple of these, and
      for a key that is not a string.
    """
    return dict(_leaves(config, ""))


def _leaves(config: ConfigDict, prefix: str) -> Iterator[tuple[str, Leaf]]:
    for key, value in config.items():
        if not isinstance(key, str):
            raise UsageError(f"Config key {prefix}{key!r} is not a string; write '{key}'.")
        if isinstance(value, ConfigDict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, _checked(prefix + key, value)


def _checked(name: str, value: object) -> Leaf:
    if isinstance(value, tuple):
        for item in value:
            _checked(name, item)
    elif value is not None and type(value) not in TYPE_NAMES:
        hint = (
            "write a tuple" if isinstance(value, list) else "use None, bool, int, float, str, tuple"
        )
        raise UsageError(f"Config leaf {name!r} holds a {type(value).__name__}; {hint}.")
    return value


def override(config: ConfigDict, assignments: Sequence[tuple[str, str]]) -> ConfigDict:
    """Sets leaves from text, in place: `("data.source", "folder")`; the last of two wins.

    The present value gives the type: an int takes "3"; a float takes "1" and "1e-3"; a bool takes
    true, false, 1, 0; a str takes the text as it is; a tuple takes "(1, 2)", "1,2" or "a,b", with
    items like the present ones; None takes a literal, else the text. Leaves that derive from this
    one by a FieldReference follow it.

    Returns: `config` itself, locked.
    Raises: UsageError for an unknown key (naming the nearest), for a subtree (naming its leaves),
      and for text of another type. Then nothing has been set.
    """
    leaves = flatten(config)
    parsed = {key: _assigned(leaves, key, text) for key, text in assignments}
    for key, value in parsed.items():
        *parents, name = key.split(".")
        node = config
        for parent in parents:
            node = node[parent]
        # The type is checked already, and `FieldReference(1) / 2` wrongly claims to be an int.
        with node.ignore_type():
            node[name] = value
    return _locked(config)


def _assigned(leaves: dict[str, Leaf], key: str, text: str) -> Leaf:
    below = [leaf for leaf in leaves if leaf.startswith(key + ".")]
    if below:
        raise UsageError(f"Config key {key!r} is a group; set one of {', '.join(below)}.")
    if key not in leaves:
        same_name = [leaf for leaf in leaves if leaf.split(".")[-1] == key.split(".")[-1]]
        valid = same_name or leaves
        hint = f"did you mean {nearest(key, valid)!r}?" if valid else "this config has no keys."
        raise UsageError(f"Config key {key!r} is unknown; {hint}")
    try:
        return _typed(text, leaves[key])
    except ValueError:
        expected = _expected(leaves[key])
        raise UsageError(f"Config key {key!r} must be {expected}, not {text!r}.") from None


# JSON


def to_json(config: ConfigDict) -> str:
    """The config as indented JSON with sorted keys; tuples become arrays, derived values numbers.

    Raises: UsageError as `flatten` does.
    """
    flatten(config)
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> ConfigDict:
    """The locked config that `to_json` wrote; arrays become tuples, floats are exact.

    Raises: UsageError if the text is not a JSON object of valid config keys.
    """
    try:
        tree = json.loads(text)
        if not isinstance(tree, dict):
            raise ValueError("it is not an object")
        return ConfigDict({key: _thawed(value) for key, value in tree.items()}).lock()
    except ValueError as error:
        raise UsageError(f"This is no config in JSON: {error}.") from None


def _thawed(value: object) -> object:
    if isinstance(value, list):
        return tuple(_thawed(item) for item in value)
    if isinstance(value, dict):
        return {key: _thawed(item) for key, item in value.items()}
    return value


def digest(config: ConfigDict) -> str:
    """12 hexadecimal digits that change with any leaf and nothing else (SHA-256 of the JSON)."""
    return hashlib.sha256(to_json(config).encode()).hexdigest()[:12]
