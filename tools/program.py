"""The two programs, `flightbag` and `store-fsck`, from the start of the process to its exit status.

A command returns a status or raises (see `status.exits`). Three cases are left, and are the same for all commands:

- The reader of a standard stream has gone, as in `flightbag ls ground | head -1`: the program ends silently with 141,
  the status of the signal SIGPIPE. It is never 0, because nobody has read the verdict.
- A standard stream cannot be written for another reason: an error message, and the status for "could not do".
- The arguments of the command line are wrong: the status for "usage", which is 2 or, for `store-fsck`, 16.
"""

from __future__ import annotations

import errno
import gc
import logging
import resource
import signal
import sys
import warnings
from contextlib import suppress
from typing import NoReturn

import click

from store.errors import FlightbagError, Unavailable
from tools.lines import Loudness, set_loudness
from tools.status import (
    INTERRUPTED,
    READER_GONE,
    fail,
    fail_usage,
    interrupted_error,
    is_document_begun,
    print_document,
)
from tools.streams import STANDARD_OUTPUT, OutputLost, discard, empty_streams, flush_streams, open_streams

# Open files that a process may have. A store has 256 folders of objects, which stay open; several stores may be open.
_OPEN_FILES = 16_384
# New objects after which Python looks for cycles. The tables of a store are large, and have none.
_OBJECTS_BETWEEN_COLLECTIONS = 100_000


def run_program(program: click.Command, *, usage: int, could_not_do: int) -> NoReturn:
    """Run a program on the arguments of the command line, and exit with its status.

    `usage` is the status of a mistake in the arguments, `could_not_do` that of output that cannot be written.
    """
    _prepare_process()
    try:
        open_streams()
        status = status_of_run(program, sys.argv[1:], usage=usage)
        flush_streams()
    except OutputLost as lost:
        status = _output_lost(lost, could_not_do)
    except FlightbagError as error:  # of `open_streams`; a command turns its own errors into a status
        with suppress(OutputLost):
            fail(error, as_json=False)
        status = could_not_do
    # The work is done and its verdict is out: Ctrl-C would replace the status while the interpreter ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    empty_streams()
    raise SystemExit(status)


def _prepare_process() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _OPEN_FILES if most == resource.RLIM_INFINITY else min(most, _OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    # What a library warns of concerns the code that calls it: each input is judged by checks of this program, which
    # raise. A warning would print paths of the installation. `python -W` still shows them.
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)


def status_of_run(program: click.Command, args: list[str], *, usage: int) -> int:
    """Run a program on arguments, and return its status; `usage` is that of a mistake in them."""
    as_json = "--json" in args
    set_loudness(Loudness.NORMAL)
    try:
        # --help returns 0.
        return int(program.main(args, prog_name=program.name, standalone_mode=False) or 0)
    except SystemExit as end:
        return int(end.code or 0)
    except click.Abort:  # Ctrl-C while a command is loaded, or while its document waits for a slow reader
        if is_document_begun():
            discard(STANDARD_OUTPUT)  # what is left of it: a second one would follow the first half
        fail(interrupted_error(), as_json=as_json)
        if as_json and not is_document_begun():
            print_document(INTERRUPTED)
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:  # its message is the help text
        error.show()
        return usage
    except click.UsageError as error:
        fail_usage(error, usage, as_json=as_json)
        return usage


def _output_lost(lost: OutputLost, could_not_do: int) -> int:
    discard(lost.stream)
    if lost.errno == errno.EPIPE:
        return READER_GONE
    with suppress(OutputLost):
        remedy = "only the output is lost: the command may have done its work; make room, or redirect the output"
        fail(Unavailable(str(lost), remedy=remedy), as_json=False)
    return could_not_do
