import doctest
import json
import sys
from pathlib import Path

import pytest
from jaxtyping import TypeCheckError
from ml_collections import ConfigDict, FieldReference

from vidflow.config import (
    digest,
    flatten,
    from_json,
    load,
    nearest,
    override,
    parse_arg,
    to_json,
)
from vidflow.errors import UsageError


def example() -> ConfigDict:
    return ConfigDict(
        {
            "steps": 100,
            "name": "demo",
            "init": None,
            "remat": False,
            "mixed": ("adam", 0.9),
            "data": {"source": "bounce", "size": (64, 64), "weights": (0.5, 1.0)},
            "model": {"width": 32, "encoders": ("clip", "t5")},
            "optimizer": {"learning_rate": 1e-4, "betas": (), "grid": ((1, 2), (3, 4))},
        }
    )


def write(folder: Path, text: str) -> str:
    file = folder / "experiment.py"
    file.write_text(text)
    return str(file)


# parse_arg

SPEC = {"size": ("demo", "5b", "30b"), "res": 256, "smoke": False, "lr": 1e-4, "tag": "", "n": None}


def test_parse_arg_examples_of_its_docstring():
    finder = doctest.DocTestFinder(recurse=False)
    (examples,) = finder.find(parse_arg, "parse_arg", module=False, globs={"parse_arg": parse_arg})
    assert len(examples.examples) == 2
    assert doctest.DocTestRunner().run(examples).failed == 0


@pytest.mark.parametrize(
    "arg, changed",
    [
        ("", {}),
        (" , ", {}),
        ("30b", {"size": "30b"}),
        ("size=5b", {"size": "5b"}),
        ("smoke", {"smoke": True}),
        ("smoke=0", {"smoke": False}),
        ("30b, res=768 ,lr=3", {"size": "30b", "res": 768, "lr": 3.0}),
        ("tag=a=b", {"tag": "a=b"}),
        ("tag=", {"tag": ""}),
        ("n=7", {"n": 7}),
        ("n=seven", {"n": "seven"}),
    ],
)
def test_parse_arg_keeps_defaults_and_their_types(arg, changed):
    defaults = {"size": "demo", "res": 256, "smoke": False, "lr": 1e-4, "tag": "", "n": None}
    parsed = parse_arg(arg, **SPEC)
    assert parsed.to_dict() == {**defaults, **changed}
    assert parsed.is_locked
    assert type(parsed.lr) is float


@pytest.mark.parametrize(
    "arg, message",
    [
        ("31b", "'31b' is unknown; did you mean '30b'"),
        ("smok", "did you mean 'smoke'"),
        ("rse=5", "'rse' is unknown; did you mean 'res'"),
        ("30b=1", "'30b' is unknown"),
        ("res", "'res' needs a value; write res=VALUE"),
        ("res=big", "'res' must be an integer, not 'big'"),
        ("res=2.5", "'res' must be an integer"),
        ("smoke=maybe", "'smoke' must be true or false"),
        ("size=40b", "'size' cannot be '40b'; did you mean '30b'"),
        ("30b,size=5b", "'size' is given twice"),
    ],
)
def test_parse_arg_refuses(arg, message):
    with pytest.raises(UsageError) as error:
        parse_arg(arg, **SPEC)
    assert message in str(error.value)
    assert repr(arg) in str(error.value)


def test_parse_arg_choices_keep_their_type_and_must_be_unambiguous():
    assert parse_arg("512", res=(256, 512)).res == 512
    with pytest.raises(UsageError, match="'8' fits height and width; write height=8"):
        parse_arg("8", height=(4, 8), width=(4, 8))
    with pytest.raises(UsageError, match="takes no argument"):
        parse_arg("demo")


def test_parse_arg_accepts_a_key_named_arg():
    assert parse_arg("arg=3", arg=1).arg == 3


# load


def test_load_passes_the_argument_and_locks(tmp_path):
    file = write(
        tmp_path,
        "from ml_collections import ConfigDict\n"
        "def get_config(arg=''):\n"
        "    return ConfigDict({'arg': arg, 'sub': {'x': 1}})\n",
    )
    assert load(file).arg == ""
    assert load(file + ":").arg == ""
    config = load(file + ":30b,init=a.py:b")
    assert config.arg == "30b,init=a.py:b"
    with pytest.raises(KeyError):
        config.sub["y"] = 2


def test_load_locks_children_of_a_config_that_came_locked(tmp_path):
    file = write(
        tmp_path,
        "from ml_collections import ConfigDict\n"
        "def get_config(arg=''):\n"
        "    config = ConfigDict({'sub': {'x': 1}}).lock()\n"
        "    config.sub.unlock()\n"
        "    return config\n",
    )
    assert load(file).sub.is_locked


def test_load_sees_an_edit_at_once_and_leaves_no_trace(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    text = "from ml_collections import ConfigDict\ndef get_config(): return ConfigDict({'x': 1})\n"
    path_before = list(sys.path)
    assert load(write(tmp_path, text)).x == 1
    assert load(write(tmp_path, text.replace("1", "2"))).x == 2
    assert sys.path == path_before
    assert [file.name for file in tmp_path.iterdir()] == ["experiment.py"]


def test_load_runs_a_file_with_a_dataclass(tmp_path):
    file = write(
        tmp_path,
        "from __future__ import annotations\n"
        "from dataclasses import KW_ONLY, dataclass\n"
        "from ml_collections import ConfigDict\n"
        "@dataclass\n"
        "class Row:\n"
        "    _: KW_ONLY\n"
        "    x: int = 3\n"
        "def get_config(arg=''): return ConfigDict({'x': Row().x})\n",
    )
    assert load(file).x == 3


@pytest.mark.parametrize(
    "text, suffix, message",
    [
        ("", "", "has no get_config"),
        ("get_config = 3", "", "has no get_config"),
        ("def get_config(arg=''): return {}", "", "returned a dict; return an ml_collections"),
        ("def get_config(): return None", ":30b", "takes no argument; drop ':30b'"),
        (
            "from vidflow.errors import UsageError\n"
            "def get_config(arg=''): raise UsageError('size too big')",
            "",
            "^size too big$",
        ),
        (
            "from ml_collections import ConfigDict\n"
            "def get_config(): return ConfigDict({'a': {'b': [1]}})",
            "",
            "'a.b' holds a list; write a tuple",
        ),
    ],
)
def test_load_refuses(tmp_path, text, suffix, message):
    with pytest.raises(UsageError, match=message):
        load(write(tmp_path, text) + suffix)


def test_load_names_the_nearest_file(tmp_path):
    write(tmp_path, "")
    (tmp_path / "other.py").write_text("")
    with pytest.raises(UsageError, match=r"experimnt.py does not exist; .*experiment.py\?"):
        load(str(tmp_path / "experimnt.py"))
    with pytest.raises(UsageError, match="check the path"):
        load(str(tmp_path / "nowhere" / "a.py"))
    with pytest.raises(UsageError, match="write FILE.py or FILE.py:arg"):
        load("experiment")
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(UsageError, match="cannot be read"):
        load(str(tmp_path / "folder.py"))


def test_load_keeps_the_traceback_of_a_broken_file(tmp_path):
    file = write(tmp_path, "1 / 0")
    before = set(sys.modules)
    with pytest.raises(ZeroDivisionError):
        load(file)
    assert not {name for name in set(sys.modules) - before if name.startswith("vidflow_config")}


# override


@pytest.mark.parametrize(
    "key, text, value",
    [
        ("steps", "7", 7),
        ("steps", "-7", -7),
        ("optimizer.learning_rate", "1", 1.0),
        ("optimizer.learning_rate", "1e-3", 1e-3),
        ("remat", "true", True),
        ("remat", "1", True),
        ("remat", "False", False),
        ("name", "None", "None"),
        ("name", "", ""),
        ("name", "a,b", "a,b"),
        ("init", "runs/a", "runs/a"),
        ("init", "3", 3),
        ("init", "[1, 'a']", (1, "a")),
        ("init", "{1}", "{1}"),
        ("init", "false", False),
        ("init", "none", None),
        ("data.size", "(1, 2)", (1, 2)),
        ("data.size", "[1, 2]", (1, 2)),
        ("data.size", "1,2,3", (1, 2, 3)),
        ("data.size", "5", (5,)),
        ("data.size", "()", ()),
        ("data.size", "", ()),
        ("data.weights", "1,0.25", (1.0, 0.25)),
        ("model.encoders", "clip,byt5", ("clip", "byt5")),
        ("model.encoders", "('clip', 'byt5')", ("clip", "byt5")),
        ("model.encoders", "(clip, byt5)", ("clip", "byt5")),
        ("model.encoders", "1,2", ("1", "2")),
        ("model.encoders", "clip,", ("clip",)),
        ("optimizer.betas", "0.9,a", (0.9, "a")),
        ("mixed", "sgd,0.5", ("sgd", 0.5)),
        ("optimizer.grid", "((5, 6),)", ((5, 6),)),
    ],
)
def test_override_takes_the_type_of_the_leaf(key, text, value):
    config = example()
    assert override(config, [(key, text)]) is config
    assert flatten(config) == {**flatten(example()), key: value}
    assert repr(config[key]) == repr(value)  # 1 == 1.0 == True
    assert config.is_locked and config.data.is_locked


@pytest.mark.parametrize(
    "key, text, message",
    [
        ("data.sorce", "x", "'data.sorce' is unknown; did you mean 'data.source'"),
        ("width", "x", "did you mean 'model.width'"),
        ("optimizer_.width", "x", "did you mean 'model.width'"),
        ("data.source.x", "x", "did you mean 'data.source'"),
        ("", "x", "is unknown"),
        ("data", "x", "'data' is a group; set one of data.size, data.source, data.weights"),
        ("steps", "1.5", "'steps' must be an integer, not '1.5'"),
        ("steps", "None", "must be an integer"),
        ("optimizer.learning_rate", "fast", "must be a number, not 'fast'"),
        ("remat", "yes", "must be true or false"),
        ("data.size", "1,x", r"must be a tuple like (64, 64), not '1,x'"),
        ("data.size", "(1, 2.5)", "must be a tuple like (64, 64)"),
        ("optimizer.grid", "1,2", "must be a tuple like ((1, 2), (3, 4))"),
        ("optimizer.grid", "(1, (2.5,))", "must be a tuple like ((1, 2), (3, 4))"),
    ],
)
def test_override_refuses_and_sets_nothing(key, text, message):
    config = example()
    with pytest.raises(UsageError) as error:
        override(config, [("steps", "7"), (key, text)])
    assert message in str(error.value)
    assert flatten(config) == flatten(example())


def test_override_last_one_wins():
    assert override(example(), [("steps", "1"), ("steps", "2")]).steps == 2


def test_override_moves_derived_leaves():
    config = ConfigDict({"width": 64})
    config.hidden = config.get_ref("width") * 4
    config.half = config.get_ref("width") / 2
    assert override(config, [("width", "128")]).hidden == 512
    assert override(config, [("half", "0.5")]).half == 0.5
    assert (config.width, config.hidden) == (128, 512)


def test_override_reads_a_leaf_once_none_by_its_new_type():
    config = override(example(), [("init", "3")])
    with pytest.raises(UsageError, match="must be an integer"):
        override(config, [("init", "runs/a")])


# flatten, JSON, digest


def test_flatten_names_every_leaf_in_order():
    leaves = flatten(ConfigDict({"b": 1, "a": {"y": None, "x": (1, 2)}, "empty": {}}))
    assert list(leaves.items()) == [("a.x", (1, 2)), ("a.y", None), ("b", 1)]


@pytest.mark.parametrize("leaf", [[1], {1}, print, b"x", 1j, ({"a": 1},), ((1, [2]),)])
def test_leaves_that_json_cannot_keep_are_refused(leaf):
    config = ConfigDict({"a": {}})
    config.a.b = leaf
    for function in (flatten, to_json, digest):
        with pytest.raises(UsageError, match=r"'a\.b' holds a"):
            function(config)


def test_flatten_refuses_keys_that_are_no_strings():
    with pytest.raises(UsageError, match="key 3 is not a string; write '3'"):
        flatten(ConfigDict({3: 1}))


def test_json_round_trip_is_exact():
    config = example()
    config.numbers = (0.1 + 0.2, 1e-300, 1.0, 1, True, -0.0, 2**70, None)
    config.caption = 'a "red" 円\n'
    config.empty = ConfigDict()
    config.nested = (((),), ("a",))
    config.derived = FieldReference(3) * 2
    text = to_json(config)
    back = from_json(text)
    assert repr(flatten(back)) == repr(flatten(config))
    assert back.empty == ConfigDict().lock()
    assert back.is_locked and back.data.is_locked
    assert to_json(back) == text
    assert json.loads(text)["data"]["size"] == [64, 64]


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", '{"a.b": 1}'])
def test_from_json_refuses(text):
    with pytest.raises(UsageError, match="no config in JSON"):
        from_json(text)


def test_digest_depends_on_leaves_alone():
    unsorted = ConfigDict(sort_keys=False)
    unsorted.b, unsorted.a = 1, 2
    assert digest(unsorted) == digest(ConfigDict({"a": 2, "b": 1}))
    assert digest(example()) == digest(example().lock()) == digest(from_json(to_json(example())))
    digests = {digest(ConfigDict({"a": leaf})) for leaf in (1, 1.0, True, "1", None, (1,), ((1,),))}
    assert len(digests) == 7
    assert all(len(d) == 12 and int(d, 16) >= 0 for d in digests)


def test_nearest_ignores_case_and_always_answers():
    assert nearest("WIDTH", ["with", "width", "depth"]) == "width"
    assert nearest("zzz", ["Only"]) == "Only"


def test_calls_are_type_checked_in_tests():
    with pytest.raises(TypeCheckError):
        nearest(3, ["a"])
