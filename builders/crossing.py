"""How values and errors cross from a confined process to its parent: as JSON, checked against their types.

The parent believes nothing of what comes: a value is read by the types of its class, strictly, and an error becomes one
of the classes of `store.errors` with plain fields. Nothing is unpickled, and no class but these is looked up by name.

Law: from_json(type, to_json(value)) == value; an error keeps its class, message, remedy, kind and problems.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError

from builders.jsontext import MAX_VALUES, values_in
from store import errors
from store.errors import Corrupt, FlightbagError, Invalid, Unavailable
from store.format.ids import ObjectId

Value = TypeVar("Value")

_CLASSES: Mapping[str, Any] = {
    name: one for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, FlightbagError)
}
_PLAIN = (str, int, float, bool, type(None))


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    # The tuple hands its configuration on to the dataclasses in it.
    config = ConfigDict(
        strict=True,
        arbitrary_types_allowed=True,  # of fields that cross by themselves, and are None meanwhile
        ser_json_bytes="base64",
        val_json_bytes="base64",
        ser_json_inf_nan="constants",
    )
    return TypeAdapter(cast(Any, tuple[kind]), config=config)


def to_json(kind: type[Value], value: Value) -> Any:
    """Return a value of this type as JSON can hold it."""
    return _adapter(cast(Hashable, kind)).dump_json((value,)).decode()


def from_json(kind: type[Value], text: Any) -> Value:
    """Return the value that `to_json` wrote. Raise Corrupt for anything else."""
    try:
        if not isinstance(text, str):
            raise TypeError("it is no text")
        if values_in(data := text.encode()) > MAX_VALUES:
            raise ValueError("it has too many values")
        (value,) = _adapter(cast(Hashable, kind)).validate_json(data)
    except (ValidationError, ValueError, TypeError, RecursionError, Invalid) as error:
        what = f"the confined process gave back something else than a {getattr(kind, '__name__', kind)}"
        raise Corrupt(what, remedy="report this as a defect", kind="failed") from error
    result: Value = value
    return result


def error_to_json(error: FlightbagError) -> dict[str, Any]:
    """Return an error as JSON can hold it. Fields that are neither plain values nor lists of such stay behind."""
    name = next(one.__name__ for one in type(error).__mro__ if _CLASSES.get(one.__name__) is one)
    fields = {key: _plain(value) for key, value in error.fields.items() if _crosses(value)}
    return {"class": name, "message": error.message, "remedy": error.remedy, "fields": fields}


def error_from_json(value: Any) -> FlightbagError:
    """Return the error that `error_to_json` wrote; an Unavailable for anything else: the work is not done."""
    try:
        facts = {str(key): tuple(one) if isinstance(one, list) else one for key, one in value["fields"].items()}
        message, remedy = str(value["message"]), str(value["remedy"])
        error: FlightbagError = _CLASSES[value["class"]](message, remedy=remedy, **facts)
        return error
    except (KeyError, TypeError, AttributeError):
        text = "the confined process failed, and did not state how"
        return Unavailable(text, remedy="report this as a defect", kind="failed")


def _crosses(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(isinstance(one, (*_PLAIN, ObjectId)) for one in value)
    return isinstance(value, (*_PLAIN, ObjectId))


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, ObjectId) else value
