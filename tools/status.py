"""Exit statuses, the status that an error stands for, and what a command prints. Scripts may rely on the numbers.

With `--json` a command prints one document (docs/json.md), whatever happens. `print_json` and `fail` give it its parts,
and `exits` prints it when the command ends: so the status in it is the exit status. Only a command that goes on after
its result calls `print_document`; from then on nothing changes the status.
"""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TextIO

import click

from store.errors import NO_SPACE, FlightbagError, Invalid, Unavailable, either, no_space
from tools.lines import fitted, is_quiet, shortened
from tools.parameters import Later
from tools.printable import printable
from tools.streams import OutputLost, discard

if TYPE_CHECKING:
    from store.findings import Finding

OK, NO, USAGE, UNKNOWN, INTERRUPTED, READER_GONE = 0, 1, 2, 3, 128 + signal.SIGINT, 128 + signal.SIGPIPE
# What each says, for people: docs/commands.md lists them. `store-fsck` has statuses of its own (see `fsck`).
MEANINGS = {
    OK: "done, or GO",
    NO: "the answer is no, for certain: NO-GO, something is damaged or not signed as it must be, a gate was not met, "
    "the mission does not exist",
    USAGE: "wrong arguments, or an input that breaks a rule: a mission file, a key, a trust root",
    UNKNOWN: "could not look, or not do it: what was to be looked at (a store, a bag, a proof, an aircraft's state) is "
    "not there, not mounted, locked or unreadable; a full disk, a missing extra, output that cannot be written",
    INTERRUPTED: "interrupted",
    READER_GONE: "nobody reads the output",
}
P = ParamSpec("P")


def status_of(error: FlightbagError) -> int:
    """Return the exit status that an error stands for."""
    if isinstance(error, Invalid):
        return USAGE
    return UNKNOWN if isinstance(error, Unavailable) else NO


def status_of_findings(findings: Iterable[Finding]) -> int:
    """Return the exit status that findings stand for: NO if one of them is wrong for certain, UNKNOWN if nothing is but
    something could not be read, OK if all of them are information."""
    wrong = [finding for finding in findings if not finding.information]
    if not wrong:
        return OK
    return UNKNOWN if all(finding.unreadable for finding in wrong) else NO


def lacks_signatures(signatures: int, threshold: int) -> Finding:
    """Return the finding of a draft that was to be published, and has too few signatures."""
    from store.findings import Finding  # not above: the start of the program would wait for it

    text = f"it has {signatures} of {threshold} required signatures"
    return Finding("threshold", text, remedy="the next key signs")


# Lines for standard output that wait for the status of the command; None where nothing waits.
_held: list[str] | None = None


def say(text: str, file: TextIO | None = None) -> None:
    """Print a line for people, as several where it is too wide: on standard output, or on `file`.

    With -q the lines of a command that acts wait until it ends (see `settle`), those on `file` do not.
    """
    if file is None and _held is not None:
        _held.append(text)
        return
    for line in fitted(printable(text), file):
        print(line, file=file or sys.stdout)


def warn(*lines: str) -> None:
    """Print lines on standard error. The command goes on where nobody can read them."""
    try:
        for line in lines:
            say(line, sys.stderr)
        sys.stderr.flush()
    except OutputLost as lost:
        discard(lost.stream)


def notice(*lines: str) -> None:
    """As `warn`, for lines that nobody needs who asks for quiet (-q)."""
    if not is_quiet():
        warn(*lines)


def insist(*lines: str) -> None:
    """As `say`, for what nobody may miss: also with -q."""
    for line in lines:
        say(line, sys.stdout)


def settle(status: int) -> None:
    """Print what `say` held back, unless the command ends with a status that says that nothing is wrong."""
    global _held
    held, _held = _held, None
    for text in held or () if status not in _document.good else ():
        say(text)


class _Document:
    """The JSON document of the command that runs: its own fields, its findings and its error. `printed` is the status
    that it has, None until it is printed; `good` are the statuses of a command that found nothing wrong."""

    def __init__(self, good: Container[int] = (OK,)) -> None:
        self.fields: Mapping[str, Any] = {}
        self.findings: list[dict[str, Any]] = []
        self.error: dict[str, Any] | None = None
        self.printed: int | None = None
        self.good = good


_document = _Document()
_ENVELOPE = {"schema", "ok", "status", "findings", "error"}


def print_json(fields: Mapping[str, Any], findings: Iterable[Finding] = ()) -> None:
    """Give the command's JSON document these fields of its own, and these findings. It is printed when the command ends
    (see `print_document`)."""
    if taken := _ENVELOPE & fields.keys():
        raise ValueError(f"the fields {sorted(taken)} are those of the envelope")
    _document.fields = fields
    _document.findings += [finding.as_json() for finding in findings]


def print_document(status: int, *, command: str = "") -> None:
    """Print the JSON document on standard output, in ASCII, now. `command` is the name in its schema, by default that
    of the command that runs."""
    import json  # not above: each start of the program would wait for it

    envelope = {
        "schema": f"flightbag/{command or command_name()}/1",
        "ok": status in _document.good,
        "status": status,
        "findings": _document.findings,
    }
    if _document.error is not None:
        envelope["error"] = _document.error
    # Before it is written: a write that fails half-way is followed by no second document.
    _document.printed = status
    print(json.dumps({**envelope, **_document.fields}, indent=2, sort_keys=True, default=str))
    sys.stdout.flush()


def is_document_begun() -> bool:
    """Whether some of the JSON document may be on standard output."""
    return _document.printed is not None


def command_name(context: click.Context | None = None) -> str:
    """Return the name of the command that runs, or that a context of click is for, such as `trust show`; the name of
    the program where no command is named."""
    context = context or click.get_current_context(silent=True)
    names: list[str] = []
    while context is not None and (context.parent is not None or not names):
        names.append(context.command.name or "")
        context = context.parent
    return " ".join(reversed(names)).removeprefix("store-") or "flightbag"


def carried_json() -> dict[str, Any]:
    """Return what `print_json` was given in this process, for `print_carried` in the process that waits for it."""
    import json

    carried: dict[str, Any] = json.loads(
        json.dumps({"fields": _document.fields, "findings": _document.findings}, default=str)
    )
    return carried


def print_carried(carried: Mapping[str, Any]) -> None:
    """As `print_json`, for what another process was given (`carried_json`)."""
    _document.fields = carried["fields"]
    _document.findings += carried["findings"]


def error_json(error: FlightbagError) -> dict[str, Any]:
    """Return an error for machines: its kind, its message, its remedy, and its facts."""
    facts = {key: value for key, value in error.fields.items() if key not in ("kind", "findings")}
    kind = error.kind or type(error).__name__.lower()
    return {"kind": kind, "message": error.message, "remedy": error.remedy, **facts}


def fail(error: FlightbagError, *, as_json: bool) -> None:
    """Print an error on standard error, and with `as_json` give it to the document."""
    if as_json:
        _document.error = error_json(error)
    for message in error.problems or (error.message,):
        say(f"flightbag: {shortened(message)}", sys.stderr)
    if error.remedy:
        first, *more = error.remedy.split("\n")
        say(f"  -> {first}", sys.stderr)
        for line in more:
            say(f"     {line}", sys.stderr)


def fail_usage(error: click.UsageError, status: int, *, as_json: bool) -> None:
    """Print a mistake in the arguments: on standard error, and with `as_json` also as a JSON document."""
    global _document
    mistake = _mistake(error)
    fail(mistake, as_json=False)
    if as_json:
        _document = _Document()
        _document.error = error_json(mistake)
        print_document(status, command=command_name(error.ctx))


def _mistake(error: click.UsageError) -> Invalid:
    """Return a mistake in the arguments as an error of this program. The remedy names what is like the word that was
    given, or has the line of usage; and the help of the command."""
    context = error.ctx
    assert context is not None, "`commands` names it"
    like: Sequence[str] = ()
    if isinstance(error, click.NoSuchOption):
        text, like = f"`{context.command_path}` has no option {error.option_name}", error.possibilities or ()
    elif isinstance(error, click.exceptions.NoSuchCommand):
        text, like = f"`{context.command_path}` has no command {error.command_name}", error.possibilities or ()
    elif isinstance(error, click.BadParameter) and error.param is not None:
        name = error.param.get_error_hint(context).replace("'", "")
        text = f"{name} is missing" if isinstance(error, click.MissingParameter) else f"{name}: {error.message}"
    else:
        text = error.message[:1].lower() + error.message[1:]
    usage = " ".join(context.get_usage().split()).removeprefix("Usage: ")
    remedy = f"give {either(like)}" if like else f"usage: {usage}"
    # An argument may be a file name of a medium: one line.
    message = printable(text.rstrip("."))
    return Invalid(message, remedy=f"{remedy}\nsee `{context.command_path} -h`", kind="usage")


def _exhausted(error: MemoryError | RecursionError) -> Unavailable:
    """Return the error for an input that needs more than the process may have. A reader names its file itself."""
    if isinstance(error, MemoryError):
        return Unavailable(
            "the command needs more memory than it may have",
            remedy="free memory, or raise the limit of the process; if an input came from outside, check it",
            kind="out-of-memory",
        )
    return Unavailable(
        "an input is nested more deeply than this program reads", remedy="check the inputs that came from outside"
    )


def _defect() -> Unavailable:
    """Print the traceback of the error that is being handled, and return the error of the program that it is."""
    import traceback  # not above: only errors need it, and each start of the program would wait for it

    say("flightbag: an error of this program; a report of it needs these lines:", sys.stderr)
    for line in traceback.format_exc().split("\n"):
        say(f"  | {line}".rstrip(), sys.stderr)  # no message of an exception begins a line of ours
    return Unavailable(
        "an error of this program", remedy="report it, with the lines on standard error", kind="program-error"
    )


def interrupted_error(kept: str = "") -> Unavailable:
    """Return the error of a command that was interrupted; `kept` says what is left of its work, and what to do."""
    return Unavailable("interrupted", remedy=kept, kind="interrupted")


def exits(
    *,
    error_status: Callable[[FlightbagError], int] = status_of,
    unknown: int = UNKNOWN,
    interrupted: int = INTERRUPTED,
    kept: str = "",
    good: Container[int] = (OK,),
    acts: Callable[[Mapping[str, Any]], bool] | None = None,
) -> Callable[[Callable[P, int]], Callable[P, None]]:
    """Return a decorator that makes a command of a function that returns its status: every error becomes a status, and
    with the keyword `as_json` the command prints one JSON document.

    `error_status` gives the status of a FlightbagError, `unknown` is the status of an error of the program itself;
    `kept` says what is left of the work of a long command that was interrupted, and what to do; `good` are the statuses
    that say that nothing is wrong. `acts` says of the parameters whether the command does something, so that with -q it
    prints no result when it succeeds; None for a command whose output is the answer to a question.
    """

    def decorate(function: Callable[P, int]) -> Callable[P, None]:
        @functools.wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            global _document, _held
            _document = _Document(good)
            _held = [] if is_quiet() and acts is not None and acts(kwargs) else None
            as_json = bool(kwargs.get("as_json"))
            try:
                for name, value in kwargs.items():
                    if isinstance(value, Later):
                        kwargs[name] = value.look()
                status = function(*args, **kwargs)
                sys.stdout.flush()
            except FlightbagError as error:
                fail(error, as_json=as_json)
                status = error_status(error)
            except (MemoryError, RecursionError) as error:
                exhausted = _exhausted(error)
                fail(exhausted, as_json=as_json)
                status = error_status(exhausted)
            except OutputLost:  # `program` ends the process
                raise
            except OSError as error:
                if error.errno not in NO_SPACE:
                    _document.error = error_json(_defect())
                    status = unknown
                else:
                    full = no_space(str(error.filename or ""), error.errno)
                    fail(full, as_json=as_json)
                    status = error_status(full)
            except KeyboardInterrupt:
                fail(interrupted_error(kept), as_json=as_json)
                status = interrupted
            except Exception:  # noqa: BLE001 - an error of the program is "unknown", never Python's 1, which means "no"
                _document.error = error_json(_defect())
                status = unknown
            settle(status)
            if as_json:
                if _document.printed is None:
                    print_document(status)
                else:
                    status = _document.printed
            raise SystemExit(status)

        return run

    return decorate


def writes(given: Mapping[str, Any]) -> bool:
    """Whether a command acts with these parameters: always, but for a dry run, whose output is the answer."""
    return not given.get("dry_run")


command = exits()
# A command that does something, and prints what it has done.
action = exits(acts=writes)
