"""A part of a design by its name in a config: "linear", "logit_normal:mean=-0.8,std=1.2", "my_package.my_paths.spiral".

A choice is a function that makes the part, in the one module that lists such functions or, by its dotted name, in any
module that Python finds. After a colon come its arguments, with the types of their defaults. So a new path, solver or
target is one function and one config value, and nothing has to be registered.
"""

import importlib
import inspect
from collections.abc import Callable, Container
from types import ModuleType
from typing import Any

from vidflow.config import nearest, parse_arg
from vidflow.errors import UsageError


def choose(spec: str, kind: Any, *modules: ModuleType, where: str, **given: Any) -> Any:
    """What the function that `spec` names returns.

    Args:
      kind: the type that the functions say they return, by which they are told from others in their modules.
      where: the name of the config value, for messages.
      given: arguments that no config holds, such as the path; a function takes those that it has parameters for.

    Raises:
      UsageError: a name that no function has (naming the nearest), arguments that it does not take, a parameter without
        a default that is not `given`, or a function that makes another kind.
    """
    name, _, arguments = spec.partition(":")
    make = imported(name, where) if "." in name else _listed(name, options(kind, *modules, given=given), where)
    parameters = inspect.signature(make).parameters
    defaults = {key: p.default for key, p in parameters.items() if key not in given}
    if bare := [key for key, default in defaults.items() if default is inspect.Parameter.empty]:
        raise UsageError(f"{where} names '{name}', whose parameter '{bare[0]}' has no default: give it one.")
    try:
        chosen = parse_arg(arguments, **defaults)
    except UsageError as error:
        raise UsageError(f"{where}={spec}: {error}") from None
    made = make(**chosen, **{key: value for key, value in given.items() if key in parameters})
    if inspect.isclass(kind) and not isinstance(made, kind):
        raise UsageError(
            f"{where} names '{name}', which makes a {type(made).__name__}: name what makes a {kind.__name__}."
        )
    return made


def options(kind: Any, *modules: ModuleType, given: Container[str] = ()) -> dict[str, Callable[..., Any]]:
    """The public functions of these modules that return this kind and need no other argument than those `given`."""
    return {
        name: function
        for module in modules
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_") and _makes(function, kind, given)
    }


def _makes(function: Callable[..., Any], kind: Any, given: Container[str]) -> bool:
    signature = inspect.signature(function)
    needed = [key for key, p in signature.parameters.items() if p.default is inspect.Parameter.empty]
    return signature.return_annotation is kind and all(key in given for key in needed)


def _listed(name: str, found: dict[str, Callable[..., Any]], where: str) -> Callable[..., Any]:
    if name not in found:
        raise UsageError(
            f"Unknown {where} '{name}'; did you mean '{nearest(name, found)}'? There are {', '.join(found)}, and "
            "functions of your own by their dotted names."
        )
    return found[name]


def imported(name: str, where: str) -> Callable[..., Any]:
    """The function of that dotted name.

    Raises:
      UsageError: no dotted name, or one of nothing that can be imported or of no function.
    """
    module, _, function = name.rpartition(".")
    if not all(map(str.isidentifier, name.split("."))):
        raise UsageError(f"{where} names '{name}', which is no dotted name: write module.function.")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{where} names '{name}', which cannot be imported ({error}): check its spelling.") from None
    if not inspect.isfunction(found):
        raise UsageError(f"{where} names '{name}', which is no function: name one that makes the part.")
    return found
