"""Frozen values that are made quickly: what flies needs of the library `dataclasses`, under the same names.

    @dataclass(frozen=True, slots=True)
    class Role: ...

The library compiles six methods for each class, and loads the modules that take functions apart: of the 100 ms of a
takeoff check in a cold process that was a third. Here `__init__` alone is compiled; the other methods are closures over
the names of the fields. What is not frozen uses the library. Its functions `replace`, `asdict` and `fields` take these
values too, and a type checker sees its classes.

Law: a class that is made here and one that the library makes of the same declaration have equal values, order, hashes,
texts and errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

__all__ = ["dataclass", "field", "replace"]

_Class = TypeVar("_Class", bound=type)


_MISSING = object()


class _Unprinted(NamedTuple):
    """Stands for a field that `repr` leaves out, and for its default."""

    default: object


def _field(*, repr: bool, default: object = _MISSING) -> _Unprinted:  # noqa: A002 - the name in the library
    assert not repr
    return _Unprinted(default)


def _replace(value: Any, /, **changes: Any) -> Any:
    """Return the value with other fields, checked as a new one."""
    kept = {name: getattr(value, name) for name in value.__match_args__ if name not in changes}
    return type(value)(**kept, **changes)


def _dataclass(*, frozen: bool, slots: bool = False, order: bool = False) -> Callable[[_Class], _Class]:
    """Return a decorator that makes a class of frozen values of one with annotated fields.

    A field `InitVar` is an argument of `__post_init__`, and not kept.
    """
    assert frozen
    return lambda cls: _made(cls, slots=slots, order=order)


def _made(cls: Any, *, slots: bool, order: bool) -> Any:
    declared: dict[str, str] = cls.__annotations__
    names = [name for name, kind in declared.items() if not kind.startswith("InitVar[")]
    given = {name: cls.__dict__[name] for name in declared if name in cls.__dict__}
    unprinted = {name: it.default for name, it in given.items() if isinstance(it, _Unprinted)}
    defaults = {name: it for name, it in (given | unprinted).items() if it is not _MISSING}
    values = _values_of(names)
    methods = _methods(values, [name for name in names if name not in unprinted])
    if order:
        methods |= _order(values)
    methods["__match_args__"] = tuple(declared)
    methods["__dataclass_fields__"] = _Fields(declared, defaults)
    if slots:  # which a class has from the start
        methods["__reduce__"] = lambda self: (type(self), values(self))  # checked in the other process as any value is
        own = {name: it for name, it in cls.__dict__.items() if name not in (*declared, "__dict__", "__weakref__")}
        own["__qualname__"] = cls.__qualname__
        cls = type(cls)(cls.__name__, cls.__bases__, {**methods, **own, "__slots__": tuple(names)})
    else:
        for name in methods.keys() - cls.__dict__.keys():
            setattr(cls, name, methods[name])
    if cls.__dict__.get("__hash__") is None:
        cls.__hash__ = lambda self: hash(values(self))
    cls.__init__ = _initialiser(cls, declared, names, defaults, slots=slots)
    return cls


def _values_of(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    return lambda value: tuple([getattr(value, name) for name in names])


def _methods(values: Callable[[Any], tuple[Any, ...]], printed: list[str]) -> dict[str, Any]:
    def same(self: Any, other: object) -> Any:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    def text(self: Any) -> str:
        return f"{type(self).__qualname__}({', '.join([f'{name}={getattr(self, name)!r}' for name in printed])})"

    return {"__eq__": same, "__repr__": text, "__setattr__": _refuse_to_assign, "__delattr__": _refuse_to_delete}


def _order(values: Callable[[Any], tuple[Any, ...]]) -> dict[str, Any]:
    return {
        "__lt__": lambda a, b: values(a) < values(b) if b.__class__ is a.__class__ else NotImplemented,
        "__le__": lambda a, b: values(a) <= values(b) if b.__class__ is a.__class__ else NotImplemented,
        "__gt__": lambda a, b: values(a) > values(b) if b.__class__ is a.__class__ else NotImplemented,
        "__ge__": lambda a, b: values(a) >= values(b) if b.__class__ is a.__class__ else NotImplemented,
    }


def _refuse_to_assign(_self: object, name: str, _value: object) -> NoReturn:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(_self: object, name: str) -> NoReturn:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _initialiser(
    cls: Any, declared: Mapping[str, str], names: list[str], defaults: Mapping[str, Any], *, slots: bool
) -> Any:
    """Return `__init__`, compiled. Of the declaration only the names of the fields are in its text."""
    space: dict[str, Any] = {f"_default_{name}": default for name, default in defaults.items()}
    heads = [f"{name}=_default_{name}" if name in defaults else name for name in declared]
    if slots:
        space |= {f"_set_{name}": cls.__dict__[name].__set__ for name in names}
        lines = [f"_set_{name}(self, {name})" for name in names]
    else:
        lines = [f"self.__dict__[{name!r}] = {name}" for name in names]
    if hasattr(cls, "__post_init__"):
        lines.append(f"self.__post_init__({', '.join([name for name in declared if name not in names])})")
    exec(f"def __init__(self, {', '.join(heads)}):\n " + "\n ".join(lines), space)  # noqa: S102 - see above
    made = space["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made


class _Fields:
    """The fields as the functions of the library find them, made when one of these asks."""

    def __init__(self, declared: Mapping[str, str], defaults: Mapping[str, Any]) -> None:
        self._declared = declared
        self._defaults = defaults

    def __get__(self, _value: object, cls: Any) -> Any:
        import dataclasses

        fields = [
            (
                name,
                dataclasses.InitVar[object] if kind.startswith("InitVar[") else kind,
                dataclasses.field(default=self._defaults.get(name, dataclasses.MISSING)),
            )
            for name, kind in self._declared.items()
        ]
        made: Any = dataclasses.make_dataclass(cls.__name__, fields)
        cls.__dataclass_fields__ = made.__dataclass_fields__
        return made.__dataclass_fields__


if TYPE_CHECKING:
    from dataclasses import dataclass, field, replace
else:
    dataclass, field, replace = _dataclass, _field, _replace
