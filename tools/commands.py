"""Commands of click, made of functions whose parameters say what the command line gives them (see `parameters`).

This is the smaller part of what Typer gives. Typer itself examines parameters with pydantic: seven packages more in
every install, and a tenth of a second more at each start, where the crew waits for `verify`.

A group has a table, name -> "module:function": a command's module is loaded when the command is called, or when the
help of its group lists it. The program, its groups and its commands share the options -v and -q.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import click
from click.core import ParameterSource

from tools.lines import Loudness, set_loudness
from tools.parameters import Argument, Later, Leading, Option, Parameter
from tools.status import notice

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


_HELP_NAMES = ("-h", "--help")
_VERBOSE, _QUIET = Loudness.VERBOSE.value, Loudness.QUIET.value
_VERBOSE_HELP = "Print ids and lists whole."
_QUIET_HELP = "Print nothing but answers, errors and findings."
# Stands in for a leading argument that was left out: no argument of a process can hold it.
_LEFT_OUT = "\0"


class Commands(click.Group):
    """A group of commands. `sections` has its tables by their titles, in the order in which the help lists them:
    name -> "module:function", or a group of its own."""

    def __init__(
        self,
        name: str,
        sections: Mapping[str, Mapping[str, str | Commands]],
        *,
        help: str,  # noqa: A002 - the name that click gives it
        params: Sequence[click.Parameter] = (),
    ) -> None:
        params = [*params, *_shared_options()]
        super().__init__(name, help=help, params=params, context_settings={"help_option_names": _HELP_NAMES})
        self._sections = sections
        self._table = {name: place for table in sections.values() for name, place in table.items()}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _naming(ctx):
            return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click calls it so
        return list(self._table)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, table in self._sections.items():
            commands = [(name, self.get_command(ctx, name)) for name in table]
            with formatter.section(title):
                formatter.write_dl([(name, first_sentence(one)) for name, one in commands if one is not None])

    def subgroup(self, name: str) -> Commands | None:
        """Return the group of this name; None for a command. Nothing is loaded."""
        place = self._table.get(name)
        return place if isinstance(place, Commands) else None

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in self.commands and (place := self._table.get(cmd_name)) is not None:
            command = place if isinstance(place, Commands) else command_of(cmd_name, _function(place))
            self.add_command(command, cmd_name)
        return self.commands.get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self._table and not ctx.resilient_parsing:
            raise click.exceptions.NoSuchCommand(args[0], possibilities=self._table, ctx=ctx)
        return super().resolve_command(ctx, args)


@contextmanager
def _naming(context: click.Context) -> Iterator[None]:
    """Let every mistake in the arguments name the command that got them; click leaves it out of some."""
    try:
        yield
    except click.UsageError as error:
        error.ctx = error.ctx or context
        raise


def first_sentence(command: click.Command) -> str:
    """Return what a command does, in the first sentence of its help."""
    return re.split(r"(?<=\.)\s", " ".join(inspect.cleandoc(command.help or "").split()), maxsplit=1)[0]


def _shared_options() -> list[click.Option]:
    """Return the options that the program, each group and each command take. All of a line count together."""
    return [
        click.Option(["-v", _VERBOSE], is_flag=True, expose_value=False, callback=_set_loudness, help=_VERBOSE_HELP),
        click.Option(["-q", _QUIET], is_flag=True, expose_value=False, callback=_set_loudness, help=_QUIET_HELP),
    ]


def _set_loudness(context: click.Context, option: click.Parameter, given: bool) -> None:
    if not given:
        return
    one, before = Loudness(option.opts[-1]), context.meta.setdefault(__name__, Loudness(option.opts[-1]))
    if one is not before:
        raise click.UsageError("-v and -q exclude each other", context)
    set_loudness(one)


def _function(place: str) -> Callable[..., Any]:
    module, _, name = place.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def command_of(name: str, function: Callable[..., Any]) -> click.Command:
    """Return the command of this name that calls the function. Its help is the docstring of the function."""
    declared = {one.name: _declared(one) for one in inspect.signature(function, eval_str=True).parameters.values()}
    return _Command(name, function, declared)


class _Command(click.Command):
    """A command of a function, which finds what was left out: see `Leading` and `Option` of `parameters`."""

    def __init__(self, name: str, function: Callable[..., Any], declared: Mapping[str, _Declared]) -> None:
        super().__init__(
            name,
            callback=function,
            help=function.__doc__,
            params=[*(_parameter(*one) for one in declared.values()), *_shared_options()],
            context_settings={"help_option_names": _HELP_NAMES},
        )
        hows = {name: how for name, (_, _, how) in declared.items()}
        self._leading = next(((name, how) for name, how in hows.items() if isinstance(how, Leading)), None)
        self._options = {name: how for name, how in hows.items() if isinstance(how, Option)}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _naming(ctx):
            return self._parsed(ctx, args)

    def _parsed(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # a shell completes a line that is not whole
            return super().parse_args(ctx, args)
        if self._leading is None:
            rest = super().parse_args(ctx, args)
        else:
            name, how = self._leading
            given = self._without_options(ctx, args)
            first, after = (given[0], given[1:]) if self._is_given(how, given) else (None, given)
            rest = super().parse_args(ctx, args if first is not None else [_LEFT_OUT, *args])
            ctx.params[name] = Later(partial(how.resolve, first, after))
        for name, option in self._options.items():
            sources = [ctx.get_parameter_source(one) for one in (name, option.yields_to or name)]
            if sources == [ParameterSource.ENVIRONMENT, ParameterSource.COMMANDLINE]:
                ctx.params[name] = None
            if option.absent is not None and ctx.params[name] is None:
                ctx.params[name] = Later(option.absent)
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. What it takes from the environment is named first: it may be of another day."""
        for one in self.get_params(ctx):
            how, value = self._options.get(one.name or ""), ctx.params.get(one.name or "")
            from_environment = ctx.get_parameter_source(one.name or "") is ParameterSource.ENVIRONMENT
            if how is not None and how.envvar and from_environment and value:
                paths = value if isinstance(value, list) else [value]
                notice(f"flightbag: {one.opts[0]} {' '.join(map(str, paths))}, by {how.envvar}")
        return super().invoke(ctx)

    def _without_options(self, ctx: click.Context, args: Sequence[str]) -> list[str]:
        """Return the arguments that are given by their place. Raise as click does for a mistake in an option."""
        options = click.Command(self.name, params=[one for one in self.params if isinstance(one, click.Option)])
        return options.make_parser(ctx).parse_args(list(args))[1]

    def _is_given(self, leading: Leading, given: Sequence[str]) -> bool:
        """Return whether the leading argument is among the arguments that were given by their place."""
        fit = list(self._counts(len(given)))
        left_out, there = len(given) in fit, len(given) - 1 in fit
        if left_out and there:
            return leading.is_first(given[0])
        return there or (not left_out and len(given) > fit[0])

    def _counts(self, most: int) -> Iterator[int]:
        """Yield how many arguments may follow the leading one, the least number first, and numbers up to `most`."""
        following = [one for one in self.params if isinstance(one, click.Argument)][1:]
        count = sum(abs(one.nargs) for one in following if one.required)
        yield count
        for one in following:
            if one.nargs < 0:
                yield from range(count + 1, most + 1)
            elif not one.required:
                count += one.nargs
                yield count


def came_from_environment(name: str) -> bool:
    """Return whether a parameter of the command that runs has its value from the environment."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.ENVIRONMENT


# A parameter of a function, the type of its value, and what the command line gives.
_Declared = tuple[inspect.Parameter, Any, Parameter]


def _declared(one: inspect.Parameter) -> _Declared:
    if get_origin(one.annotation) is not Annotated:
        raise TypeError(f"the parameter {one.name} has no Argument and no Option")
    declared, how = get_args(one.annotation)
    return one, declared, how


def _parameter(one: inspect.Parameter, declared: Any, how: Parameter) -> click.Parameter:
    if get_origin(declared) is UnionType:
        [declared] = (kind for kind in get_args(declared) if kind is not NoneType)
    several = get_origin(declared) is list
    kinds = get_args(declared) or (declared,)
    may_be_found = isinstance(how, Leading) or (isinstance(how, Option) and how.absent is not None)
    required = one.default is one.empty and not may_be_found
    metavar = how.metavar or ("N" if kinds[0] in (int, float) else None)
    options: dict[str, Any] = {"help": how.help, "metavar": metavar, "envvar": how.envvar, "required": required}
    types = tuple(_type(kind, how) for kind in kinds)
    options["type"] = types if get_origin(declared) is tuple else types[0]
    if several:
        options["callback"] = _listed
    elif not required and not may_be_found:
        options["default"] = one.default
    if isinstance(how, Argument):
        if metavar is not None:
            options["metavar"] = _in_usage(metavar, required=required, several=several)
        offered = None if how.offers is None else partial(_offered, how.offers)
        return click.Argument([one.name], nargs=-1 if several else len(types), shell_complete=offered, **options)
    shown = "default" in options and not (one.default is None or one.default is False or one.default == "")
    return click.Option(
        [one.name, *(how.names or ["--" + one.name.replace("_", "-")])],
        **options,
        multiple=several,
        is_flag=declared is bool,
        show_default=shown,
        show_envvar=True,
    )


def _offered(
    offers: Callable[[str | None], list[str]], ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the words that a shell offers for an argument, or where there are none that fit, files."""
    from click.shell_completion import CompletionItem

    first = ctx.command.params[0].name or ""
    words = offers(None if parameter.name == first else ctx.params.get(first))
    fit = [CompletionItem(word) for word in words if word.startswith(incomplete)]
    return fit or [CompletionItem(incomplete, type="file")]


def _in_usage(metavar: str, *, required: bool, several: bool) -> str:
    """Return how the line of usage spells an argument. A metavar with brackets says itself what may be left out."""
    if "[" in metavar:
        return metavar
    return (metavar if required else f"[{metavar}]") + ("..." if several else "")


def _listed(_context: click.Context, parameter: click.Parameter, value: tuple[Any, ...]) -> list[Any] | None:
    """Return the values of a parameter that may be repeated; None for none of one that may be left out."""
    return list(value) if value or parameter.required else None


class _Text(click.ParamType[Any]):
    """Text, which a shell completes as the name of a file."""

    name = "text"
    envvar_list_splitter = os.pathsep

    def __init__(self, make: Callable[[str], Any]) -> None:
        self._make = make

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:  # noqa: ARG002
        return self._make(value)

    def shell_complete(self, ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        from click.shell_completion import CompletionItem

        return [CompletionItem(incomplete, type="file")]


def _type(kind: type, how: Parameter) -> click.ParamType[Any]:
    if kind is int:
        return click.INT if how.least is how.greatest is None else click.IntRange(how.least, how.greatest)
    if kind is bool:
        return click.BOOL
    return click.FLOAT if kind is float else _Text(kind)
