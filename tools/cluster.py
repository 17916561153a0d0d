"""The command for a cluster: which nodes it has, what each can build, and what a node is started with."""

from __future__ import annotations

import json
from typing import Annotated

from builders.extras import require_build_extra
from store.errors import Invalid
from store.findings import Finding
from tools import render
from tools.arguments import Json, print_lines
from tools.parameters import Argument, Option
from tools.status import NO, OK, command, print_json, say


@command
def nodes(
    executor: Annotated[
        str,
        Argument(
            metavar="[CLUSTER]", help="ray, the cluster that this machine is a node of (default), or ray://HOST:PORT."
        ),
    ] = "ray",
    resources: Annotated[
        bool,
        Option("--resources", help="Print what this machine is started with as a node: ray start --resources."),
    ] = False,
    as_json: Json = False,
) -> int:
    """List the nodes of a Ray cluster, and what each can build: host class, providers, backends.

    Example: flightbag nodes ray://10.0.0.5:6379
    """
    require_build_extra()
    if resources:
        from builders.cluster.node import Facts

        mine = Facts.of_this_machine().resources
        if as_json:
            print_json({"resources": mine})
        else:
            say(json.dumps(mine))
        return OK
    if executor == "local":
        raise Invalid("this machine is no cluster", remedy="give ray or ray://HOST:PORT")
    from builders.confinement import nodes as nodes_of

    report = nodes_of(executor)
    if as_json:
        any_runs = any(not one.why for one in report)
        found = [Finding("no-node", f"{one.name}: {one.why}", information=any_runs) for one in report if one.why]
        print_json({"nodes": [one.as_json() for one in report]}, found)
    else:
        print_lines(render.nodes(report))
    return OK if any(not one.why for one in report) else NO
