"""Calls with wrong arguments, refused by a sentence with the word or the line that was meant."""

import abc
import dataclasses
import difflib
import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from pyro_vae.core.errors import InputError, abbreviated_repr, is_integer, is_real
from pyro_vae.core.rng import GLOBAL_STATE

Function = TypeVar("Function", bound=Callable[..., Any])


class CallError(InputError, TypeError):
    """A call with a keyword that is unknown, an argument too many, or one missing."""


SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "vae": ("model",),
    "x": ("data", "test_data", "X"),
    "event_shape": ("input_dim", "input_shape"),
    "validation": ("eval_set", "val", "val_data", "valid", "validation_data"),
    "objective": ("loss",),
    "optimizer": ("optim",),
    "lr": ("learning_rate", "rate"),
    "beta": ("kl_beta", "kl_weight"),
    "clip_norm": ("clip", "clip_grad_norm", "grad_clip", "gradient_clip_val", "max_norm"),
    "accumulate_grad_batches": ("accumulate", "gradient_accumulation_steps"),
    "callbacks": ("callback",),
    "seed": ("random_state", "rng_key", "seeds"),
    "run": (
        "default_root_dir",
        "log_dir",
        "logdir",
        "out",
        "output",
        "output_dir",
        "path",
        "root_dir",
        "save",
        "save_dir",
    ),
    "progress": ("show_progress", "verbose"),
    "loggers": ("logger",),
    "accelerator": ("cuda", "device", "gpu", "use_cuda", "use_gpu"),
    "devices": ("gpus",),
    "jobs": ("n_jobs",),
    "batch_size": ("batchsize", "bs"),
    "draws": ("n_draws", "n_samples", "num_draws", "num_samples", "particles", "samples"),
    "simulations": ("n_samples", "num_samples", "samples"),
    "particles": (
        "k",
        "K",
        "n_draws",
        "n_particles",
        "n_samples",
        "num_draws",
        "num_particles",
        "num_samples",
        "samples",
    ),
    "components": ("k", "K", "n_components"),
    "latent_dim": (
        "dim",
        "dims",
        "latent",
        "latent_dims",
        "latent_size",
        "latents",
        "n_components",
        "n_latent",
        "z_dim",
    ),
    "steps": ("num_steps",),
    "epochs": ("max_epochs", "n_epochs", "num_epochs", "num_steps"),
    "n": ("n_samples", "num_samples", "size"),
    "hidden": ("hidden_dim", "hidden_dims", "hidden_sizes"),
    "activation": ("activations",),
    "amp": ("fp16", "mixed_precision", "use_amp"),
    "checkpoints": ("checkpoint",),
    "early_stopping": ("early_stop",),
    "labels": ("target", "targets", "y"),
    "n_layers": ("num_layers",),
    "scheduler": ("lr_scheduler",),
    "validation_split": ("test_size", "train_size", "val_split"),
    "loc": ("mean", "mu"),
    "scale": ("sd", "sigma", "std", "stddev", "tau"),
}
"""Words of other libraries for the same thing as ours, which stand in the order in which they are tried."""

LINES: Mapping[str, tuple[str, object]] = {
    "activation": ("encoder=pv.MLP(activation='relu')", None),
    "checkpoints": ("run=pv.RunOptions('run', checkpoints=pv.Checkpoints())", None),
    "early_stopping": ("monitor=pv.Monitor(stopping=pv.EarlyStopping())", None),
    "loggers": ("monitor=pv.Monitor(loggers=['csv']), run='run'", None),
    "amp": ("runtime=pv.Runtime(precision='bf16-mixed')", None),
    "hidden": ("encoder=pv.MLP(hidden={!r})", (400,)),
    "momentum": ("optimizer=pv.SGD(momentum=0.9)", None),
    "n_layers": ("hidden=(400, 400)", None),
    "patience": ("monitor=pv.Monitor(stopping=pv.EarlyStopping(patience={!r}))", 10),
    "scheduler": ("optimizer=pv.Adam(lr=pv.schedules.Cosine(1e-3, 0, epochs=20))", None),
    "weight_decay": ("optimizer=functools.partial(torch.optim.AdamW, weight_decay={!r})", 0.01),
}
"""What is written in the place of a word, by its value or this one, where the keyword before `=` is there."""

HELD_OUT = "`x, held_out = x[: len(x) * 9 // 10], x[len(x) * 9 // 10 :]`"
"""The last tenth of the rows held out."""

_FIT = "it is of training, where it is written as `pv.fit(vae, x, {})`"

REMARKS = {
    "beta": _FIT.format("objective=pv.objectives.ELBO(beta=4.0)"),
    "device": _FIT.format("runtime=pv.Runtime(accelerator='auto')"),
    "epochs": _FIT.format("epochs=20"),
    "lr": _FIT.format("optimizer=pv.Adam(lr=1e-3)"),
    "labels": "labels are for pictures, `pv.plots.latent(vae, x, labels=labels)`",
    "mask": "it is given with the data, `{'x': x, 'mask': mask}`",
    "size_factor": "it is given with the data, `{'x': x, 'size_factor': size_factor}`",
    "num_workers": "a data set is read ahead by `pv.data.stream(dataset, workers=2)`",
    "shuffle": "rows are shuffled in every epoch, by the seed",
    "seed": GLOBAL_STATE,
    "random_state": GLOBAL_STATE,
    "validation_split": f"hold out rows in random order, {HELD_OUT}, and write validation=held_out",
}
"""What takes the place of words that have no keyword."""

EXAMPLES = {"event_shape": "(3,)", "latent_dim": "2", "run": "'run'"}
"""Values of keywords without a default that says how one is written."""

MADE_BY = {
    "AggregateKL": "pv.criticism.aggregate_kl(vae, x)",
    "Comparison": "pv.compare({'a': pv.evidence(a, x), 'b': pv.evidence(b, x)})",
    "DataTree": "pv.predictive_check(vae, x)",
    "Evidence": "pv.evidence(vae, x)",
    "History": "history = pv.fit(vae, x)",
    "InferenceGap": "pv.criticism.inference_gap(vae, x)",
    "Latents": "pv.criticism.latents(vae, x)",
    "SBC": "pv.criticism.sbc(vae)",
    "VAE": "vae = pv.VAE(event_shape=(3,), latent_dim=2)",
}
"""How results are made, by the names of their classes."""

PLACES = {"criticism": "pv.criticism", "objectives": "pv.objectives", "schedules": "pv.schedules", "data": "pv.data"}
"""Where classes of a package are found, other than in `pv`."""


def explained(function: Function) -> Function:
    """Decorator that refuses calls which do not match a signature by an error with the word that was meant.

    The signature stays as it is, and a call that matches it costs nothing more.

    >>> @explained
    ... def fit(x: float, *, epochs: int = 20) -> None:
    ...     ...
    >>> fit(1.0, n_epochs=3)
    Traceback (most recent call last):
    pyro_vae.core.calls.CallError: fit has no keyword 'n_epochs': write epochs=3. It takes x, epochs.
    """

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        try:
            return function(*given, **named)
        except (TypeError, AttributeError) as error:
            if isinstance(error, CallError):
                raise
            explain(function, inspect.signature(function), given, named)
            raise

    wrapped: Any = call
    return wrapped


class ExplainedCalls(abc.ABCMeta):
    """Metaclass of classes whose constructor is `explained`."""

    def __call__(cls, *given: Any, **named: Any) -> Any:
        """Instance of the class."""
        try:
            return super().__call__(*given, **named)
        except TypeError as error:
            if isinstance(error, CallError) or inspect.isabstract(cls):
                raise
            explain(cls, cls.__signature__, given, named)
            raise

    @property
    def __signature__(cls) -> inspect.Signature:
        """Signature of the constructor, which `inspect` would take from this metaclass."""
        constructor: Any = cls
        signature = inspect.signature(constructor.__init__)
        return signature.replace(parameters=list(signature.parameters.values())[1:])


def explain(target: Any, signature: inspect.Signature, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
    """Raise an error with advice where arguments do not match a signature or its types; otherwise return.

    Args:
        target: what is called, for its name.
        signature: its signature.
        given: arguments by position.
        named: arguments by name.

    Raises:
        CallError: they do not match.
    """
    name = target.__qualname__.removesuffix(".__init__")
    try:
        bound = signature.bind(*given, **named)
    except TypeError as error:
        known = [p for p in signature.parameters if p != "self"]
        takes = f"It takes {', '.join(known)}." if known else "It takes no arguments."
        unknown = next((word for word in named if word not in signature.parameters), None)
        if unknown is not None:
            advice = advise(unknown, named[unknown], signature, target)
            raise CallError(f"{name} has no keyword {unknown!r}{advice} {takes}") from None
        raise CallError(f"{name}: {error}. Write {name.split('.')[-1]}({', '.join(_written(signature))}).") from None
    for parameter, value in bound.arguments.items():
        kind = signature.parameters[parameter].annotation
        if isinstance(kind, type) and kind is not Any and not isinstance(value, kind) and parameter != "self":
            made = f", such as {MADE_BY[kind.__name__]}" if kind.__name__ in MADE_BY else ""
            found = type(value).__name__
            raise CallError(f"{name} takes a {kind.__name__} as {parameter}, not {found}: give one{made}.")


def advise(word: str, value: Any, signature: inspect.Signature, target: Any) -> str:
    """Advice on an unknown keyword, from a colon to a full stop; a full stop where nothing is near.

    It is, in this order: a keyword of that meaning, a line, a field of a record that a keyword takes, a remark, and
    keywords that are spelled alike. What it says to write is legal: "..." is the value as it was.
    """
    words = meanings(word)
    found = find_meant(word, signature)
    if found is not None and found[1] is None:
        if dataclasses.is_dataclass(target):
            return f": write {found[0]}={_shown(legal_value(target, found[0], value))}."
        return f": write {found[0]}={_as_written(signature.parameters[found[0]], value)}."
    for line, usual in (LINES[meant] for meant in words if meant in LINES):
        keyword = line.partition("=")[0]
        if keyword in signature.parameters and signature.parameters[keyword].annotation is not str:
            return f": write {line.format(_converted(value, usual))}."
    if found is not None:
        keyword, record, field = found
        return f": write {keyword}={_construction(record, field, value)}."
    if (remark := next((REMARKS[meant] for meant in words if meant in REMARKS), None)) is not None:
        return f": {remark}."
    close = difflib.get_close_matches(word, [p for p in signature.parameters if p != "self"], n=2, cutoff=0.6)
    return f": did you mean {' or '.join(close)}?" if close else "."


def _as_written(parameter: inspect.Parameter, value: Any) -> str:
    """Python text of the value of a keyword: of this one, or of a legal one where this one is not."""
    hint, usual = parameter.annotation, parameter.default
    if dataclasses.is_dataclass(usual):
        kind = next(one for one in (*typing.get_args(hint), hint) if isinstance(one, type) and isinstance(usual, one))
        return "..." if isinstance(value, kind) else declaration_of(kind, value, f"{place_of(type(usual))}()")
    if typing.get_origin(hint) is tuple and is_integer(value):
        return f"({value},)"
    if hint is bool:
        return repr(bool(value))
    hints = typing.get_args(hint) or (hint,)
    checks = {
        int: is_integer,
        float: is_real,
        str: lambda one: isinstance(one, str),
        type(None): lambda one: one is None,
    }
    if not {int, float, str} & {*hints}:
        return "..."
    is_legal = any(checks[one](value) for one in hints if one in checks)
    return _shown(value) if is_legal else EXAMPLES.get(parameter.name, repr(usual))


def _converted(value: Any, usual: Any) -> Any:
    """Value as a usual one is, or the usual one."""
    if isinstance(usual, tuple):
        value = value if isinstance(value, list | tuple) else (value,)
        return tuple(value) if all(is_integer(size) and size > 0 for size in value) and value else usual
    if isinstance(usual, float):
        return value if is_real(value) else usual
    return value if type(value) is type(usual) else usual


def meanings(word: str) -> tuple[str, ...]:
    """A word, and ours for the same thing."""
    return (word, *(ours for ours, theirs in SYNONYMS.items() if word in theirs))


def find_meant(word: str, signature: inspect.Signature) -> tuple[str, Any, str] | None:
    """Keyword, class of the record that it takes, and field, with the meaning of an unknown word; None where none has.

    The class is None, and the field empty, where it is the keyword itself.
    """
    words = meanings(word)
    for meant in words:
        if meant in signature.parameters:
            return meant, None, ""
    for meant in words:
        for keyword, record in _records(signature):
            if meant in record.__dataclass_fields__:
                return keyword, record, meant
    return None


def _records(signature: inspect.Signature) -> Iterator[tuple[str, Any]]:
    """Keywords that take a record, with its class: of their defaults first, then of their types."""
    by_default = [(p.name, type(p.default)) for p in signature.parameters.values()]
    by_type = [(p.name, each) for p in signature.parameters.values() for each in typing.get_args(p.annotation)]
    yield from ((name, each) for name, each in by_default + by_type if dataclasses.is_dataclass(each))


def _construction(record: Any, field: str, value: Any) -> str:
    """Python text of a record with this value of a field, or with its default where it cannot have that."""
    others = {name: "run" for name in _needed(record) if name != field}
    inside = [*map(repr, others.values()), f"{field}={_shown(legal_value(record, field, value))}"]
    return f"{place_of(record)}({', '.join(inside)})"


def _shown(value: Any) -> str:
    """Python text of a plain value, and an ellipsis for any other."""
    return abbreviated_repr(value) if isinstance(value, int | float | str | None) else "..."


def legal_value(record: Any, field: str, value: Any) -> Any:
    """Value of a field of a record; the field's default where it cannot have that."""
    try:
        record(**dict.fromkeys(_needed(record), "run") | {field: value})
    except (InputError, TypeError):
        return record.__dataclass_fields__[field].default
    return value


def _needed(record: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(record) if f.default is f.default_factory is dataclasses.MISSING]


def place_of(declared: type[Any]) -> str:
    """Name of a class of the package, to follow `import pyro_vae as pv`."""
    return f"{PLACES.get(declared.__module__.split('.')[1], 'pv')}.{declared.__name__}"


def check_kind(name: str, value: Any, kind: type[Any], example: str, otherwise: str = "") -> None:
    """Check that an argument is a declaration of a kind, such as a family.

    Args:
        name: the argument.
        value: its value.
        kind: the base class of this kind.
        example: a declaration of this kind, as it is written.
        otherwise: what else may be given, from a comma.

    Raises:
        InputError: it is not; for a class, or the name of one, the message has the declaration that was meant.

    >>> from pyro_vae.families import Family, Normal
    >>> check_kind("prior", "laplace", Family, "pv.Normal()")
    Traceback (most recent call last):
    pyro_vae.core.errors.InputError: prior = 'laplace' is not a family: write prior=pv.Laplace().
    """
    if isinstance(value, kind):
        return
    fix = declaration_of(kind, value, example)
    noun = kind.__name__.lower()
    article = "an" if noun[0] in "aeiou" else "a"
    raise InputError(f"{name} = {abbreviated_repr(value)} is not {article} {noun}: write {name}={fix}{otherwise}.")


def declaration_of(kind: type[Any], value: Any, example: str) -> str:
    """Declaration of a kind, as it is written, of its class or its name; the example where it is neither."""
    subclasses = {each.__name__.lower(): each for each in _subclasses(kind) if not inspect.isabstract(each)}
    meant = value if isinstance(value, type) and issubclass(value, kind) else subclasses.get(str(value).lower())
    return example if meant is None else f"{place_of(meant)}()"


def _subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    for each in kind.__subclasses__():
        yield each
        yield from _subclasses(each)


def _written(signature: inspect.Signature) -> Iterator[str]:
    """Parameters as in a call: what is needed by its name, and keywords with their defaults."""
    for parameter in signature.parameters.values():
        if parameter.name == "self" or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.default is parameter.empty:
            yield parameter.name if parameter.kind is not parameter.KEYWORD_ONLY else f"{parameter.name}=..."
        elif type(parameter.default) in (int, float, str, bool, type(None)):
            yield f"{parameter.name}={parameter.default!r}"
