"""The commands for engines: build them, show their cards, show and compare build keys, name the host class."""

from __future__ import annotations

import time
from typing import Annotated, Any

from builders.extras import import_extra, require_build_extra, require_onboard_extra
from store.errors import FlightbagError, Invalid, NotFound, Unavailable
from store.findings import Finding
from store.format.ids import may_begin
from store.ground.repository import Repository
from store.trust.root import check_signer
from store.values import replace
from tools import keyfiles, lines, render, render_engines
from tools.arguments import (
    LEFT_OUT,
    BuilderKeys,
    ExecutorOption,
    Json,
    MissionFilePath,
    OptionalKeys,
    PassphraseFile,
    SharedCache,
    SignerCommand,
    Store,
    StoreBeforeName,
    StoreOption,
    cache_folder,
    found_store,
    print_lines,
)
from tools.named_remotes import folder_named
from tools.parameters import Argument, Option
from tools.progress import work_bars
from tools.status import NO, OK, UNKNOWN, action, command, exits, print_json, say, writes

# A device may take hours for an engine.
_FULFIL_S = 24 * 3600.0


@exits(kept="what was built whole stays in the store; the same command goes on from there", acts=writes)
def build(
    mission_file: MissionFilePath,
    store: StoreOption,
    shared_cache: SharedCache = None,
    builder_key: BuilderKeys = None,
    signer: SignerCommand = None,
    passphrase_file: PassphraseFile = None,
    executor: ExecutorOption = "local",
    as_json: Json = False,
) -> int:
    """Build the engines of a mission, as a build of the mission would. Publish nothing.

    Example: flightbag engines build north-ridge.toml --store ground
    """
    require_build_extra()
    from builders.sharing import engines

    sharing, now = keyfiles.sharing(shared_cache, builder_key or [], passphrase_file, signer), int(time.time())
    with work_bars() as progress:
        report, cache = engines(
            mission_file, store, cache_folder(), now=now, progress=progress, sharing=sharing, executor=executor
        )
    rows = [one.as_json() for one in report]
    errors = [one.error for one in report if one.error is not None]
    if as_json:
        print_json({"engines": rows, "cache": None if cache is None else cache.as_json()}, map(Finding.of, errors))
    else:
        print_lines(render_engines.engines(report))
        print_lines(render.shared_cache(cache))
    if any(isinstance(error, Unavailable) for error in errors):
        return UNKNOWN
    return NO if errors else OK


@action
def order(mission_file: MissionFilePath, store: StoreOption, as_json: Json = False) -> int:
    """Order the engines that this machine cannot make or measure.

    An order lies in the store: `flightbag sync` carries it to a device, where `engines fulfil` makes the engine.
    The map is built for the probes, and is not built again with the mission.

    Example: flightbag engines order north-ridge.toml --store ground
    """
    require_build_extra()
    from builders import confinement

    with work_bars() as progress:
        report = confinement.order(mission_file, store, cache_folder(), now=int(time.time()), progress=progress)
    if as_json:
        print_json({"orders": [one.as_json() for one in report]})
    else:
        print_lines(render_engines.orders(report))
    return OK


@exits(
    kept="results that were signed stay in the store; the same command makes the others",
    acts=lambda given: bool(given["key"]),
)
def fulfil(
    store: Store,
    key: OptionalKeys = None,
    signer: SignerCommand = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> int:
    """Make and measure the ordered engines that this machine can, and sign the results. Without a key, list the orders.

    The key is one of the role builder: `flightbag trust add-key STORE DRAFT builder KEY`.

    Example: flightbag engines fulfil /media/stick/store --key orin.key
    """
    require_onboard_extra()
    from builders.engines.compiling import CompileSettings
    from builders.engines.isolation import Limits, usable_memory
    from builders.fulfilment import fulfil, offers

    keys = keyfiles.keys_for_later(key or [], passphrase_file, signer)
    rows: list[dict[str, Any]] = []
    errors: list[FlightbagError] = []
    with Repository.open(store) as repository, work_bars() as progress:
        for public in keys.known:  # before anything is made
            check_signer(repository.trust_root().root, public, "builder")
        for offer in offers(repository):
            row = render_engines.offer_json(offer)
            if key and offer.open:
                try:
                    result = fulfil(
                        repository,
                        offer,
                        keys.open,
                        CompileSettings(Limits(usable_memory(), _FULFIL_S), cache_folder()),
                        now=int(time.time()),
                        progress=lambda phase, _now, _total: progress(phase, 0, 0),
                    )
                    row |= {"state": "fulfilled", "figures": render_engines.lowest_figures(result)}
                except FlightbagError as error:
                    errors.append(error)
                    row |= {"state": "failed", "why": error.message, "kind": error.kind, "remedy": error.remedy}
            rows.append(row)
    if as_json:
        print_json({"orders": rows}, map(Finding.of, errors))
    else:
        print_lines(render_engines.offers(rows, signed=bool(key)))
    return NO if errors else OK


@action
def accept(
    store: Store,
    stick: Annotated[
        str,
        Option("--from", metavar="STICK", help="The store that came back from the device."),
    ],
    as_json: Json = False,
) -> int:
    """Take the results of orders from a store that came back.

    A result counts for an order that this store made, if keys of the role builder
    have signed it. The next build uses the engine and its figures.

    Example: flightbag engines accept ground --from /media/stick/store
    """
    require_build_extra()
    from builders.acceptance import accept

    with Repository.open(store) as repository:
        taken = accept(repository, folder_named(stick, "--from"), now=int(time.time()))
    if as_json:
        refused = [Finding.of(one.error) for one in taken if one.error is not None]
        print_json({"results": [render_engines.acceptance_json(one) for one in taken]}, refused)
    else:
        print_lines(render_engines.acceptances(taken))
    return OK if all(one.error is None for one in taken) else NO


@command
def show(
    store: StoreBeforeName,
    what: Annotated[
        str,
        Argument(metavar="MISSION|KEY", help="The id of a mission, or the first digits of the build key of an engine."),
    ],
    as_json: Json = False,
) -> int:
    """Show the cards of a mission's engines, or of the engine with a build key: its need, parts, checks and key.

    Example: flightbag engines show ground north-ridge
    """
    from builders.artifacts.cards import card_of_key, cards_of_mission, key_named

    with Repository.open(store) as repository:
        try:
            cards = cards_of_mission(repository, what)
        except NotFound:
            if not may_begin(what):
                raise
            cards = {"": card_of_key(repository, key_named(repository, what))}
    if as_json:
        print_json({"cards": [{"entry": name or None, **card.as_json()} for name, card in cards.items()]})
    else:
        for name, card in cards.items():
            print_lines(render_engines.card(name, card.as_json()))
    return OK


@command
def host(as_json: Json = False) -> int:
    """Show the host class of this machine: of its CPU, and of each backend and FAISS, as far as they are installed.

    A mission file names it under target.host, and `flightbag aircraft enrol` takes it as --host.

    Example: flightbag engines host
    """
    from builders.engines.backends import BACKENDS, backend, runs_nothing
    from builders.engines.onnxruntime import cpu_host

    classes = [cpu_host()]
    backends: dict[str, dict[str, str]] = {}
    unsure: list[Finding] = []
    for name in (*BACKENDS, "faiss"):
        try:
            if name == "faiss":
                component = _faiss_component()
                backends[name] = {"host": component, "version": component.partition("-")[2]}
            else:
                backends[name] = {"host": backend(name).describe_host(), "version": backend(name).version}
        except FlightbagError as error:
            backends[name] = {"error": error.message}
            if not runs_nothing(error):
                unsure.append(replace(Finding.of(error), unreadable=True))
    classes += [part for one in backends.values() if "host" in one for part in one["host"].split("+")]
    whole = "+".join(sorted(set(classes)))
    if as_json:
        print_json({"host": whole, "backends": backends}, unsure)
    else:
        say(f"host {whole}")
        print_lines(
            lines.table([(name, one.get("host") or f"not usable: {one['error']}") for name, one in backends.items()])
        )
    return UNKNOWN if unsure else OK


def _faiss_component() -> str:
    import_extra("numpy")
    from builders.onboard.ann import host_component

    return host_component()


@command
def explain_key(
    mission_file: MissionFilePath,
    backbone: Annotated[str, Argument(metavar="BACKBONE", help="The name of a backbone of the mission file.")],
    against: Annotated[
        str | None,
        Option(
            metavar="MISSION|KEY",
            help="Compare with the engine of this mission, which a store has, or with the one of this build key: its "
            "first digits suffice.",
        ),
    ] = None,
    store: Annotated[
        str | None, Option(metavar="STORE", help=f"With --against: the store of that mission. {LEFT_OUT}")
    ] = None,
    host: Annotated[
        str | None, Option(metavar="CLASS", help="The target to explain, where the mission file has several.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Show each field of an engine's build key. With --against, show why the engine would be built again.

    Example: flightbag explain-key north-ridge.toml place-embedder --against north-ridge --store ground
    """
    if store is not None and against is None:
        raise Invalid("--store needs --against", remedy="name the mission to compare with, or leave --store out")
    require_build_extra()
    from builders.artifacts.cards import card_of_backbone, card_of_key, key_named
    from builders.confinement import recipes
    from builders.engines.card import differences, plain

    with work_bars() as progress:
        keyed = recipes(mission_file, backbone, cache_folder(), host=host, progress=progress)
    value: dict[str, Any] = {
        "key": str(keyed.recipe.key),
        "fields": plain(keyed.recipe.fields),
        "steps": {name: plain(step.fields) for name, step in keyed.steps.items()},
    }
    differs: list[dict[str, Any]] = []
    if against is not None:
        with Repository.open(found_store() if store is None else store) as repository:
            try:
                published = card_of_backbone(repository, against, backbone, host)
            except NotFound:
                if not may_begin(against):
                    raise
                published = card_of_key(repository, key_named(repository, against))
        value["against"] = str(published.recipe.key)
        value["differs"] = differs = differences(keyed, published)
    if as_json:
        names = ", ".join(one["field"] for one in differs)
        print_json(value, [Finding("other-key", f"the engine would be built again: {names} differ")] if differs else [])
    else:
        print_lines(render_engines.key_fields(value, compared=against is not None))
    return NO if differs else OK
