"""Requests, events, answers and errors as values of JSON, and back: what crosses to another process is no pickle."""

import base64
from array import array
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from millm.errors import InternalError, MiLLMError

T = TypeVar("T")


def plain(value: Any) -> Any:
    """A value as JSON knows it. Fields of a dataclass that are at their defaults are left out."""
    if is_dataclass(value):
        given = ((each, getattr(value, each.name)) for each in fields(value))
        return {each.name: plain(it) for each, it in given if each.default is MISSING or it != each.default}
    if isinstance(value, Mapping):
        return {str(key): plain(it) for key, it in value.items()}
    if isinstance(value, list | tuple | frozenset):
        return [plain(it) for it in value]
    if isinstance(value, array):
        value = value.tobytes()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value) if isinstance(value, Path | StrEnum) else value


def restored(kind: type[T], value: Any) -> T:
    """The dataclass that `plain` was given. Raises `LookupError`, `TypeError` or `ValueError` if it is none."""
    hints = _hints(kind)  # type: ignore[arg-type]  # mypy does not take a type for hashable here
    return kind(**{name: _restored(hints[name], it) for name, it in value.items()})


def plain_error(error: MiLLMError) -> dict[str, Any]:
    """An error as JSON knows it; of its details only what is plain."""
    details = {name: it for name, it in error.details.items() if isinstance(it, str | int | float | NoneType)}
    return {"code": error.code, "message": error.message, "details": details}


def restored_error(value: Mapping[str, Any]) -> MiLLMError:
    """The error that `plain_error` was given; `InternalError` if this version knows no such code."""
    kind = _kinds().get(value["code"], InternalError)
    error = kind.__new__(kind)  # some make their message themselves
    MiLLMError.__init__(error, value["message"], **value["details"])
    return error


@cache
def _kinds() -> dict[str, type[MiLLMError]]:
    found, waiting = {}, [MiLLMError]
    while waiting:
        kind = waiting.pop()
        found[kind.code] = kind
        waiting += kind.__subclasses__()
    return found


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, localns={"array": list})  # which Python 3.11 cannot evaluate as array[float]


def _restored(kind: Any, value: Any) -> Any:
    """A value of the kind that a field is declared with."""
    outer, inner = get_origin(kind), get_args(kind)
    if outer in (Union, UnionType):
        return _restored(_which(inner, value), value)
    if outer is tuple:
        kinds = inner[:1] * len(value) if inner[1:] == (...,) else inner
        return tuple(_restored(each, it) for each, it in zip(kinds, value, strict=True))
    if outer is frozenset:
        return frozenset(value)
    if outer is list:
        return array("f", base64.b64decode(value))
    if is_dataclass(kind):
        return restored(kind, value)  # type: ignore[arg-type]
    if kind is bytes:
        return base64.b64decode(value)
    return kind(value) if isinstance(kind, type) and issubclass(kind, StrEnum | Path) else value


def _which(kinds: tuple[Any, ...], value: Any) -> Any:
    """The one of several kinds that a value is: a list was a tuple, anything else stands as it is."""
    if isinstance(value, list):
        return next(kind for kind in kinds if get_origin(kind) is tuple)
    if value is None:
        return NoneType
    return next(kind for kind in kinds if get_origin(kind) is None and kind is not NoneType)
