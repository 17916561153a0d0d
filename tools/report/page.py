"""A page of facts as HTML. Every text goes through Jinja's escaping, and through `printable` before it.

The policy in the file forbids everything but the one style sheet in it and pictures that are in the file: even a
mistake in a template would not let a name of a mission run or load anything.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from tools import render
from tools.legend import SIGNS
from tools.printable import printable

if TYPE_CHECKING:
    from jinja2 import Environment


def page(template: str, facts: Any) -> str:
    """Return the page of a template, `mission` or `store`, about these facts."""
    return _environment().get_template(f"{template}.html").render(facts=facts)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    style = resources.files(__package__).joinpath("templates/style.css").read_text("utf-8")
    environment = Environment(
        loader=PackageLoader("tools.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment.globals.update(
        style=Markup(style),  # noqa: S704 - a file of this package
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'",
        signs=SIGNS,
        size=render.size,
        when=render.when,
        many=render.many,
    )
    return environment
