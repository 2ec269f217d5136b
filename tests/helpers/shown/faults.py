"""A fault put by hand into a module of the package, for the time of a block."""

import ast
import contextlib
import importlib
import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType


def _codes(compiled: CodeType) -> Iterator[tuple[str, CodeType]]:
    """Codes of the functions and methods of a module, by qualified name."""
    for part in compiled.co_consts:
        if isinstance(part, CodeType) and part.co_name != "<lambda>":
            yield part.co_qualname, part
            yield from _codes(part)


def _functions(module: ModuleType) -> Iterator[tuple[str, FunctionType]]:
    """Functions of a module, and methods and properties of its classes, by qualified name."""
    for value in vars(module).values():
        held = [value, *vars(value).values()] if inspect.isclass(value) else [value]
        for each in held:
            for name in ("fget", "func", "__func__", "__wrapped__"):
                each = getattr(each, name, None) or each
            if isinstance(each, FunctionType) and each.__module__ == module.__name__:
                yield each.__qualname__, each


@contextlib.contextmanager
def fault(name: str, right: str, wrong: str) -> Iterator[None]:
    """Block in which the functions of a module are those of its source with one passage replaced."""
    module = importlib.import_module(f"pyro_vae.{name}")
    source = inspect.getsource(module)
    assert source.count(right) == 1, f"{right!r} is {source.count(right)} times in {name}"
    edited = source.replace(right, wrong)
    codes = dict(_codes(compile(ast.parse(edited), module.__file__ or "", "exec")))
    before = [(function, function.__code__) for _, function in _functions(module)]
    constants = _constants(module, source, edited)
    for qualified, function in _functions(module):
        if qualified in codes and codes[qualified].co_freevars == function.__code__.co_freevars:
            function.__code__ = codes[qualified]
    for key, (_, new) in constants.items():
        setattr(module, key, new)
    try:
        yield
    finally:
        for function, code in before:
            function.__code__ = code
        for key, (old, _) in constants.items():
            setattr(module, key, old)


def _constants(module: ModuleType, source: str, edited: str) -> dict[str, tuple[object, object]]:
    """Constants of a module that an edit changes, with the values before and after it."""
    found = {}
    for old, new in zip(ast.parse(source).body, ast.parse(edited).body, strict=True):
        if isinstance(new, ast.Assign | ast.AnnAssign) and ast.dump(old) != ast.dump(new) and new.value is not None:
            target = new.targets[0] if isinstance(new, ast.Assign) else new.target
            names = [part.id for part in ast.walk(target) if isinstance(part, ast.Name)]
            value = eval(compile(ast.Expression(new.value), "", "eval"), vars(module))  # a constant of the package
            values = value if len(names) > 1 else [value]
            found |= {key: (getattr(module, key), each) for key, each in zip(names, values, strict=True)}
    return found
