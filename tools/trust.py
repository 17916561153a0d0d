"""The commands of the trust root: made, changed as a draft that is carried from one root holder to the next, shown."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from store.errors import Conflict, Corrupt, FlightbagError, Invalid, NotFound, Untrusted
from store.ground import trust_chain
from store.ground.repository import Repository
from store.ground.writer import check_fit
from store.takeoff.code import short_code
from store.trust import draft as drafts
from store.trust.draft import DRAFT_LIMIT, RootDraft
from store.trust.keys import PublicKey
from store.trust.root import ROLES, SALT_SIZE, RoleName, SignedRoot, TrustRoot
from tools import keyfiles, render
from tools.arguments import Json, Keys, PassphraseFile, SignerCommand, StoreFirst, moment, print_lines
from tools.status import OK, command, print_json, say

app = typer.Typer(no_args_is_help=True, help="Say who may sign.")

Draft = Annotated[
    Path, typer.Argument(readable=False, metavar="DRAFT", help="The draft's file; made if it is not there.")
]
RoleArgument = Annotated[str, typer.Argument(metavar="ROLE", help="root, release or mission.")]
KeyArgument = Annotated[Path, typer.Argument(readable=False, metavar="KEY", help="The key's .pub file.")]
RoleKeys = Annotated[list[Path] | None, typer.Option(readable=False, help="A .pub file; once for each key.")]


def add_to(parent: typer.Typer) -> None:
    """Registers the commands."""
    parent.add_typer(app, name="trust")


@app.command("new")
@command
def new(
    store: StoreFirst,
    domain: Annotated[str, typer.Option(help="A label for the trust domain.")],
    root_key: Annotated[list[Path], typer.Option(readable=False, help="A root key; a private one signs.")],
    mission_key: Annotated[list[Path], typer.Option(readable=False, help="May sign missions; a .pub will do.")],
    release_key: RoleKeys = None,
    threshold: Annotated[list[str] | None, typer.Option(help="ROLE=N; 1 if not said.", metavar="ROLE=N")] = None,
    draft: Annotated[
        Path | None, typer.Option(readable=False, help="Where the draft goes, if root holders are missing here.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> int:
    """Make trust root 1 of a store: who may sign missions, and who may change that.

    Root keys that live behind a command sign its --draft: flightbag trust sign --signer.
    """
    ask = keyfiles.passphrase_from(passphrase_file)
    with Repository.open(store) as repository:
        if repository.evidence.root_versions():
            text = f"{store} has a trust root already"
            raise Conflict(text, remedy="change it with a draft: flightbag trust add-key and the like", kind="founded")
    signers = [keyfiles.private_key(path, ask) for path in root_key if keyfiles.is_private(path)]
    public = [keyfiles.public_key(path, ask) for path in root_key if not keyfiles.is_private(path)]
    made = drafts.founding(
        domain,
        keys={
            "root": [*public, *(signer.public for signer in signers)],
            "mission": [keyfiles.public_key(path, ask) for path in mission_key],
            "release": [keyfiles.public_key(path, ask) for path in release_key or ()],
        },
        thresholds=dict(_threshold(item) for item in threshold or ()),
        issued_at=int(time.time()),
        salt=secrets.token_bytes(SALT_SIZE),
    )
    for signer in signers:
        made = made.with_signature(signer)
    if draft is not None:
        keyfiles.write_new(draft, made.render())
        return _told(made, draft, as_json=as_json)
    if not all(one.enough for one in made.signatures()):
        raise Invalid(
            "the private root keys given are too few for the threshold",
            remedy="give more of them, or --draft FILE to have it signed elsewhere",
        )
    return _into_effect(store, made, as_json=as_json)


def _threshold(text: str) -> tuple[RoleName, int]:
    role, _, number = text.partition("=")
    if not number.isdecimal() or not 1 <= int(number) <= 8:
        raise Invalid(f"{text!r} is not ROLE=N", remedy=f"ROLE is one of {', '.join(ROLES)}, N from 1 to 8")
    return _role(role), int(number)


def _role(text: str) -> RoleName:
    for name in ROLES:
        if name == text:
            return name
    raise Invalid(f"{text!r} is no role", remedy=f"give one of {', '.join(ROLES)}")


@app.command("add-key")
@command
def add_key(store: StoreFirst, draft: Draft, role: RoleArgument, key: KeyArgument, as_json: Json = False) -> int:
    """Let a key sign in a role."""
    public = _public(key)
    return _edit(store, draft, lambda d: drafts.with_key(d, _role(role), public), as_json=as_json)


@app.command("remove-key")
@command
def remove_key(store: StoreFirst, draft: Draft, role: RoleArgument, key: KeyArgument, as_json: Json = False) -> int:
    """Take a key out of a role; it may come back. For one that is lost or stolen: revoke."""
    public = _public(key)
    return _edit(store, draft, lambda d: drafts.without_key(d, _role(role), public), as_json=as_json)


@app.command("revoke")
@command
def revoke(
    store: StoreFirst,
    draft: Draft,
    key: Annotated[str, typer.Argument(metavar="KEY|KID", help="The key's .pub file, or the start of its kid.")],
    as_json: Json = False,
) -> int:
    """Take a key out of every role, for ever: nothing that it signed counts any more."""

    def edit(made: RootDraft) -> RootDraft:
        return drafts.with_revoked(made, _public(Path(key)) if os.path.lexists(key) else _of_kid(made.root, key))

    return _edit(store, draft, edit, as_json=as_json)


@app.command("set-threshold")
@command
def set_threshold(
    store: StoreFirst,
    draft: Draft,
    threshold: Annotated[str, typer.Argument(metavar="ROLE=N", help="How many keys of a role it takes.")],
    as_json: Json = False,
) -> int:
    """Set how many keys of a role it takes."""
    role, number = _threshold(threshold)
    return _edit(store, draft, lambda d: drafts.with_threshold(d, role, number), as_json=as_json)


@app.command("set-releases")
@command
def set_releases(
    store: StoreFirst,
    draft: Draft,
    what: Annotated[str, typer.Argument(metavar="required|optional", help="Whether engines need a release.")],
    as_json: Json = False,
) -> int:
    """Say whether engines need a release to fly."""
    if what not in ("required", "optional"):
        raise Invalid(f"{what!r} is neither required nor optional")
    return _edit(store, draft, lambda d: d.with_fields(releases=what), as_json=as_json)


@app.command("new-epoch")
@command
def new_epoch(store: StoreFirst, draft: Draft, as_json: Json = False) -> int:
    """End everything that was signed before at once; sequences begin anew."""
    return _edit(store, draft, drafts.with_new_epoch, as_json=as_json)


@app.command("set-issued-after")
@command
def set_issued_after(
    store: StoreFirst,
    draft: Draft,
    time_: Annotated[str, typer.Argument(metavar="TIME", help="Like 2026-11-25T12:00:00Z, or unix seconds.")],
    as_json: Json = False,
) -> int:
    """Let no manifest count that was issued before a time."""
    at = moment(time_)
    if at > time.time():
        text = f"{render.when(at)} is yet to come: until then no manifest at all would count"
        raise Invalid(text, remedy="give a time that has passed")
    return _edit(store, draft, lambda d: d.with_fields(issued_after=at), as_json=as_json)


@app.command("sign")
@command
def sign(
    draft: Annotated[Path, typer.Argument(readable=False, metavar="DRAFT", help="The draft's file.")],
    key: Keys,
    signer: SignerCommand = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> int:
    """Sign the draft of a root. It takes enough root keys of the root before, and of the new one."""
    signers = keyfiles.signers(key, keyfiles.passphrase_from(passphrase_file), signer)
    made = _read(draft)
    for one in signers:
        made = made.with_signature(one)
    _replace(draft, made)
    return _told(made, draft, as_json=as_json)


@app.command("rotate")
@command
def rotate(store: StoreFirst, draft: Draft, as_json: Json = False) -> int:
    """Put the draft of a root into effect, once it has its signatures."""
    made = _read(draft)
    with Repository.open(store) as repository:
        if repository.evidence.root_versions() and repository.trust_root().root.digest == made.root.digest:
            if as_json:
                print_json(_json(made, "") | {"in_effect": True})
            else:
                say(f"root {made.root.version} is in effect already")
            return OK
    return _into_effect(store, made, as_json=as_json)


@app.command("show")
@command
def show(
    what: Annotated[str, typer.Argument(metavar="STORE|FILE", help="A store, a root's file, or a draft's.")],
    as_json: Json = False,
) -> int:
    """Show a store's newest root, or what a root's file or a draft says."""
    if os.path.isdir(what):
        with Repository.open(what) as repository:
            return _shown(
                RootDraft(None, (signed := repository.trust_root()).root, signed.envelope), "", as_json=as_json
            )
    data = keyfiles.read_file(Path(what), DRAFT_LIMIT, "the file")
    try:
        signed = SignedRoot.parse(data)
    except FlightbagError:
        made = _parsed(what, data)
        return _shown(made, what, as_json=as_json)
    return _shown(RootDraft(None, signed.root, signed.envelope), "", as_json=as_json)


def _public(path: Path) -> PublicKey:
    return keyfiles.public_key(path, keyfiles.passphrase_from(None))


def _of_kid(root: TrustRoot, start: str) -> PublicKey:
    """The key of the root whose kid begins with `start`: a key that is lost may have left no file."""
    keys = {key for name in ROLES for key in root.role(name).keys}
    found = [key for key in keys if key.kid.hex().startswith(start.lower())]
    if len(found) != 1 or len(start) < 8:
        raise Invalid(
            f"{start!r} is no file, nor the start of one kid",
            remedy="give at least 8 digits of a kid that `flightbag trust show` lists",
        )
    return found[0]


def _parsed(path: str | Path, data: bytes) -> RootDraft:
    try:
        return RootDraft.parse(data)
    except (Corrupt, Untrusted) as error:
        raise error.restated(f"{path}: {error.message}") from error


def _read(path: Path) -> RootDraft:
    return _parsed(path, keyfiles.read_file(path, DRAFT_LIMIT, "the draft"))


def _replace(path: Path, made: RootDraft) -> None:
    """Writes a draft over the one before."""
    keyfiles.write_over(path, made.render())


def _edit(store: str, draft: Path, edit: Callable[[RootDraft], RootDraft], *, as_json: bool) -> int:
    """Changes a draft, or begins one from the store's newest root."""
    with Repository.open(store) as repository:
        newest = None if not repository.evidence.root_versions() else repository.trust_root()
        if os.path.lexists(draft):
            made = _read(draft)
            before = None if made.before is None else made.before.root.digest
            if before != (None if newest is None else newest.root.digest):
                what = f"root {made.root.version}"
                is_ = "is in effect already" if newest and newest.root.digest == made.root.digest else "follows another"
                raise Invalid(f"{draft} is of {what}, which {is_}", remedy="give another file, to begin a new draft")
        elif newest is None:
            raise NotFound(f"{store} has no trust root", remedy="flightbag trust new", kind="bad-trust-chain")
        else:
            made = RootDraft.after(newest, now=int(time.time()))
    had = len(made.envelope.signatures)
    made = edit(made)
    _replace(draft, made)
    if had and not made.envelope.signatures and not as_json:
        say(f"{had} signatures are gone: they were for what the draft said before")
    return _told(made, draft, as_json=as_json)


def _into_effect(store: str, made: RootDraft, *, as_json: bool) -> int:
    with Repository.open(store) as repository:
        before = _grounded(repository)
        signed = trust_chain.rotate(repository, made, now=int(time.time()))
        grounded = {mission: why for mission, why in _grounded(repository).items() if mission not in before}
        path = repository.media.absolute(f"trust/{signed.root.version}.root.cbor")
    root = signed.root
    if as_json:
        print_json(
            {"root": path, "domain": root.domain, "domain_id": root.domain_id.hex(), "version": root.version}
            | {"code": short_code(root.digest), "grounded": grounded}
        )
        return OK
    say(f"trust domain {root.domain}, id {root.domain_id.hex()}")
    say(f"root {root.version} is in effect, code {short_code(root.digest)}: wrote {path}")
    if root.version == 1:
        say("hand a copy of that file to everyone who verifies, by another way than the store itself")
    else:
        say("it travels with the store: sync, and whoever has pinned an earlier root follows")
    for mission, why in grounded.items():
        say(f"{mission} flies no more: {why}; build it again, signed by keys that hold")
    return OK


def _grounded(repository: Repository) -> dict[str, str]:
    """The missions that no aircraft could fly under the store's newest root, with why."""
    found = {}
    for mission in repository.missions() if repository.evidence.root_versions() else ():
        try:
            check_fit(repository.evidence, repository.current(mission), mission)
        except FlightbagError as error:
            found[mission] = error.message
    return found


def _told(made: RootDraft, path: Path, *, as_json: bool) -> int:
    return _shown(made, str(path), as_json=as_json)


def _shown(made: RootDraft, draft: str, *, as_json: bool) -> int:
    if as_json:
        print_json(_json(made, draft))
    else:
        print_lines(_lines(made, draft))
    return OK


def _json(made: RootDraft, draft: str) -> dict[str, Any]:
    root = made.root
    value: dict[str, Any] = {
        "version": root.version,
        "domain": root.domain,
        "domain_id": root.domain_id.hex(),
        "code": short_code(root.digest),
        "epoch": root.epoch,
        "issued_at": root.issued_at,
        "issued_after": root.issued_after,
        "releases": root.releases,
        "roles": {
            name: {"threshold": root.role(name).threshold, "kids": [key.kid.hex() for key in root.role(name).keys]}
            for name in ROLES
        },
        "revoked": [key.kid.hex() for key in root.revoked],
    }
    if draft:
        value["draft"] = draft
        value["signed"] = [signature.kid.hex() for signature in made.envelope.signatures]
        value["signatures"] = [
            {"root": one.version, "have": one.have, "threshold": one.threshold} for one in made.signatures()
        ]
    return value


def _lines(made: RootDraft, draft: str) -> Iterator[str]:
    root = made.root
    signed = {signature.kid for signature in made.envelope.signatures}
    yield from render.table(
        [
            ("root", f"{root.version}{' (a draft)' if draft else ''}"),
            ("domain", f"{root.domain}, id {root.domain_id.hex()}"),
            ("code", short_code(root.digest)),
            ("epoch", str(root.epoch)),
            ("issued", render.when(root.issued_at)),
            *([("not before", render.when(root.issued_after))] if root.issued_after is not None else []),
            ("releases", root.releases),
        ]
    )
    for name in ROLES:
        role = root.role(name)
        if role.keys:
            yield f"{name}: {role.threshold} of {render.many(len(role.keys), 'key')}"
        for key in role.keys:
            yield f"  {key.kid.hex()}{'  has signed' if draft and key.kid in signed else ''}"
    if root.revoked:
        yield "revoked"
        yield from (f"  {key.kid.hex()}" for key in root.revoked)
    if not draft:
        return
    if made.before is not None:
        yield from _changes(made.before.root, root)
    for one in made.signatures():
        yield f"signed by {one.have} of the {one.threshold} keys that it takes of root {one.version}"
    if all(one.enough for one in made.signatures()):
        yield f"complete: flightbag trust rotate STORE {draft}"
    else:
        yield f"carry {draft} to the next root holder: flightbag trust sign {draft} --key KEY"


def _changes(old: TrustRoot, new: TrustRoot) -> Iterator[str]:
    yield f"against root {old.version}:"
    for name in ROLES:
        before, after = old.role(name), new.role(name)
        yield from (f"  - {name} {key.kid.hex()[:16]}" for key in before.keys if key not in after.keys)
        yield from (f"  + {name} {key.kid.hex()[:16]}" for key in after.keys if key not in before.keys)
        if before.threshold != after.threshold:
            yield f"  {name}: it takes {after.threshold}, not {before.threshold}"
    yield from (f"  revoked {key.kid.hex()[:16]}" for key in new.revoked if key not in old.revoked)
    for field in ("epoch", "releases", "issued_after"):
        if getattr(old, field) != getattr(new, field):
            was, is_ = getattr(old, field), getattr(new, field)
            yield f"  {field}: {is_}" + ("" if was is None else f", not {was}")
