"""The commands for the trust root: create it, change it, sign it, put it into effect, show it.

A change is a draft in a file. The holders of root keys sign it one after the other, each on a machine of their own.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from store.errors import Conflict, Corrupt, FlightbagError, Invalid, NotFound, Untrusted, instead_of
from store.format.code import short_code
from store.format.duration import duration_text, lifetime_of
from store.format.ids import begun_by, may_begin
from store.ground import trust_chain
from store.ground.ending import Ended, ended_by
from store.ground.repository import Repository
from store.trust import draft as drafts
from store.trust.draft import DRAFT_LIMIT, RootDraft
from store.trust.keys import PrivateKey, PublicKey
from store.trust.root import ROLES, SALT_SIZE, RoleName, SignedRoot, TrustRoot, check_begun
from tools import keyfiles, lines, render
from tools.arguments import (
    Json,
    Keys,
    PassphraseFile,
    SignerCommand,
    Store,
    StoreBeforeFile,
    leading,
    moment,
    print_lines,
)
from tools.parameters import Argument, Option
from tools.review import Expect, show_and_ask
from tools.status import OK, action, command, print_json, say

Draft = Annotated[
    Path,
    Argument(metavar="DRAFT", help="The file of the draft. It is created if it does not exist."),
]
ExistingDraft = Annotated[Path, Argument(metavar="DRAFT", help="The file of the draft.")]
RoleArgument = Annotated[str, Argument(metavar="ROLE", help="The role: root, mission, release or builder.")]
KeyOrKid = Annotated[str, Argument(metavar="KEY|KID", help="The .pub file of the key, or the first digits of its kid.")]
KeyArgument = Annotated[Path, Argument(metavar="KEY", help="The .pub file of the key.")]
_LIFETIMES = {"default": "default_lifetime", "max": "max_lifetime"}
ReleaseKeys = Annotated[
    list[Path] | None,
    Option(metavar="FILE", help="The .pub file of a release key. May be repeated."),
]
BuilderKeys = Annotated[
    list[Path] | None,
    Option(
        metavar="FILE",
        help="The .pub file of the key of a device that makes engines: May be repeated.",
    ),
]


@action
def new(
    store: Store,
    domain: Annotated[str, Option(metavar="NAME", help="A name for the trust domain, for people.")],
    root_key: Annotated[
        list[Path],
        Option(
            metavar="FILE",
            help="A root key: a private key, which signs, or a .pub file. May be repeated.",
        ),
    ],
    mission_key: Annotated[
        list[Path],
        Option(metavar="FILE", help="The .pub file of a mission key. May be repeated."),
    ],
    release_key: ReleaseKeys = None,
    builder_key: BuilderKeys = None,
    threshold: Annotated[
        list[str] | None,
        Option(metavar="ROLE=N", help="The number of signatures that a role needs. The default is 1."),
    ] = None,
    lifetime: Annotated[
        list[str] | None,
        Option(
            metavar="default|max=TIME",
            help="How long missions are valid, such as max=72h. A default is for mission files that set no end.",
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        Option(
            metavar="FILE=NAME",
            help="What people call the key of one of these files, in every list, in place of the name in the file. "
            "May be repeated.",
        ),
    ] = None,
    draft: Annotated[
        Path | None,
        Option(metavar="FILE", help="Write a draft to this file, for other holders of root keys to sign."),
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> int:
    """Create trust root 1 of a store: which keys may sign missions and releases, and which may change the trust root.

    A root key that only a command can use signs the --draft: flightbag trust sign --signer.

    Example: flightbag trust new ground --domain fleet --root-key a.key --mission-key p.key.pub
    """
    ask = keyfiles.passphrase_from(passphrase_file)
    with Repository.open(store) as repository:
        if repository.evidence.root_versions():
            text = f"{store} already has a trust root"
            raise Conflict(text, remedy="change it by a draft: see `flightbag trust add-key --help`", kind="founded")
    root_keys = {path: keyfiles.key_of(path, ask) for path in root_key}
    signers = [key for key in root_keys.values() if isinstance(key, PrivateKey)]
    public = {path: key.public if isinstance(key, PrivateKey) else key for path, key in root_keys.items()}
    others = (*mission_key, *(release_key or ()), *(builder_key or ()))
    public |= {path: keyfiles.public_key(path, ask) for path in others if path not in public}
    root_draft = drafts.founding(
        domain,
        keys={
            "root": [public[path] for path in root_key],
            "mission": [public[path] for path in mission_key],
            "release": [public[path] for path in release_key or ()],
            "builder": [public[path] for path in builder_key or ()],
        },
        names=_proposed(public) | dict(_name(item, public) for item in name or ()),
        thresholds=dict(_threshold(item) for item in threshold or ()),
        issued_at=int(time.time()),
        salt=secrets.token_bytes(SALT_SIZE),
    ).with_fields(**dict(_lifetime(item) for item in lifetime or ()))
    for signer in signers:
        root_draft = root_draft.with_signature(signer)
    if draft is not None:
        keyfiles.write_new(draft, root_draft.render())
        return _show_file(root_draft, draft, as_json=as_json)
    if not all(one.enough for one in root_draft.signatures()):
        raise Invalid(
            "too few private root keys for the threshold of the role root",
            remedy="give more of them, or --draft FILE for the other holders to sign",
        )
    return _into_effect(store, root_draft, as_json=as_json)


def _threshold(text: str) -> tuple[RoleName, int]:
    role, _, number = text.partition("=")
    if not number.isdecimal() or not 1 <= int(number) <= 8:
        raise Invalid(f"{text!r} is not ROLE=N", remedy=f"ROLE is one of {', '.join(ROLES)}, N from 1 to 8")
    return _role(role), int(number)


def _proposed(public: Mapping[Path, PublicKey]) -> dict[PublicKey, str]:
    """Return the names that the files of keys propose for them."""
    return {key: called for path, key in public.items() if (called := keyfiles.proposed_name(path, key))}


def _name(text: str, public: Mapping[Path, PublicKey]) -> tuple[PublicKey, str]:
    file, _, name = text.rpartition("=")
    if Path(file) not in public:
        text = f"{text!r} is not FILE=NAME with the file of a key that is given"
        raise Invalid(text, remedy=f"FILE is one of {', '.join(map(str, public))}")
    return public[Path(file)], name


def _lifetime(text: str) -> tuple[str, int | None]:
    """Return the field of the trust root and its seconds, None for `none`."""
    which, _, length = text.partition("=")
    with suppress(Invalid):
        for name, field in _LIFETIMES.items():
            if name == which:
                return field, None if length == "none" else lifetime_of(length)
    raise Invalid(
        f"{text!r} is not a lifetime",
        remedy="give default=TIME or max=TIME; TIME is none, or at least 1s and whole seconds, like 90m, 72h or 14d",
    )


def _role(text: str) -> RoleName:
    for name in ROLES:
        if name == text:
            return name
    raise Invalid(f"{text!r} is not a role", remedy=f"{instead_of(text, ROLES)}; the roles are {', '.join(ROLES)}")


@action
def add_key(
    store: StoreBeforeFile,
    draft: Draft,
    role: RoleArgument,
    key: KeyArgument,
    name: Annotated[
        str,
        Option(metavar="NAME", help="What people call the key, in every list. The default is the name in the file."),
    ] = "",
    as_json: Json = False,
) -> int:
    """Add a key to a role, in the draft of the next trust root. A key that is in the role already gets the name.

    Example: flightbag trust add-key ground next.draft mission relief.key.pub --name "Relief pilot"
    """
    public = _public(key)

    def edit(root_draft: RootDraft) -> RootDraft:
        # Only --name takes a name away that the key has.
        proposed = "" if root_draft.root.name_of(public.kid) else keyfiles.proposed_name(key, public)
        return drafts.with_key(root_draft, _role(role), public, name or proposed)

    return _edit(store, draft, edit, as_json=as_json)


@action
def remove_key(store: StoreBeforeFile, draft: Draft, role: RoleArgument, key: KeyOrKid, as_json: Json = False) -> int:
    """Remove a key from a role, in the draft of the next trust root. It can be added again later.

    For a key that is lost or stolen, use `flightbag trust revoke`.

    Example: flightbag trust remove-key ground next.draft mission pilot.key.pub
    """

    def edit(root_draft: RootDraft) -> RootDraft:
        return drafts.without_key(root_draft, _role(role), _key_named(root_draft.root, key))

    return _edit(store, draft, edit, as_json=as_json)


@action
def revoke(
    store: StoreBeforeFile,
    draft: Draft,
    key: KeyOrKid,
    as_json: Json = False,
) -> int:
    """Revoke a key for ever, in the draft of the next trust root: from then on none of its signatures counts.

    Example: flightbag trust revoke ground next.draft 87add0aa8f85
    """

    def edit(root_draft: RootDraft) -> RootDraft:
        return drafts.with_revoked(root_draft, _key_named(root_draft.root, key))

    return _edit(store, draft, edit, as_json=as_json)


@action
def set_threshold(
    store: StoreBeforeFile,
    draft: Draft,
    threshold: Annotated[str, Argument(metavar="ROLE=N", help="The role, and the number of signatures that it needs.")],
    as_json: Json = False,
) -> int:
    """Set how many signatures a role needs, in the draft of the next trust root.

    Example: flightbag trust set-threshold ground next.draft mission=2
    """
    role, number = _threshold(threshold)
    return _edit(store, draft, lambda d: drafts.with_threshold(d, role, number), as_json=as_json)


@action
def set_releases(
    store: StoreBeforeFile,
    draft: Draft,
    what: Annotated[str, Argument(metavar="required|optional", help="Whether an engine needs a release to fly.")],
    as_json: Json = False,
) -> int:
    """Set whether an engine needs a release to fly, in the draft of the next trust root.

    Example: flightbag trust set-releases ground next.draft required
    """
    if what not in ("required", "optional"):
        remedy = instead_of(what, ("required", "optional"))
        raise Invalid(f"{what!r} is neither required nor optional", remedy=remedy)
    return _edit(store, draft, lambda d: d.with_fields(releases=what), as_json=as_json)


@action
def set_lifetime(
    store: StoreBeforeFile,
    draft: Draft,
    lifetime: Annotated[
        str, Argument(metavar="default|max=TIME", help="Which lifetime, and how long it is: 72h, 14d, or none.")
    ],
    as_json: Json = False,
) -> int:
    """Set how long missions are valid, in the draft of the next trust root.

    With max, a mission flies only if it expires, and at most so long after its
    issue. The default is for mission files that set no end.

    Example: flightbag trust set-lifetime ground next.draft max=72h
    """
    field, seconds = _lifetime(lifetime)
    return _edit(store, draft, lambda d: d.with_fields(**{field: seconds}), as_json=as_json)


@action
def new_epoch(store: StoreBeforeFile, draft: Draft, as_json: Json = False) -> int:
    """Begin a new epoch, in the draft of the next trust root: all signatures before it end, and sequences restart.

    Example: flightbag trust new-epoch ground next.draft
    """
    return _edit(store, draft, drafts.with_new_epoch, as_json=as_json)


@action
def set_issued_after(
    store: StoreBeforeFile,
    draft: Draft,
    time_: Annotated[str, Argument(metavar="TIME", help="A time like 2026-11-25T12:00:00Z, or unix seconds.")],
    as_json: Json = False,
) -> int:
    """Refuse manifests that were issued before a time, in the draft of the next trust root.

    Example: flightbag trust set-issued-after ground next.draft 2026-11-25T12:00:00Z
    """
    at = moment(time_)
    if at > time.time():
        text = f"{render.when(at)} lies in the future: until then no manifest would count"
        raise Invalid(text, remedy="give a time in the past")
    return _edit(store, draft, lambda d: d.with_fields(issued_after=at), as_json=as_json)


@action
def sign(
    draft: ExistingDraft,
    key: Keys,
    signer: SignerCommand = None,
    passphrase_file: PassphraseFile = None,
    expect: Expect = None,
    as_json: Json = False,
) -> int:
    """Sign the draft of a trust root. It needs enough root keys of the current trust root and of the new one.

    The command shows the draft, and signs it if you give its code, which `flightbag trust show` prints.

    Example: flightbag trust sign next.draft --key ada.key --expect 4X7QK-09DZM
    """
    keys = keyfiles.keys_for_later(key, passphrase_file, signer)
    root_draft = _read(draft)
    check_begun(root_draft.root, now=int(time.time()))
    _review(root_draft, draft, expect, as_json=as_json)
    for one in keys.open():
        root_draft = root_draft.with_signature(one)
    _replace(draft, root_draft)
    if as_json:
        return _show_file(root_draft, draft, as_json=as_json)
    print_lines(_next_step(root_draft, str(draft)))
    return OK


@action
def join(
    draft: ExistingDraft,
    other: Annotated[Path, Argument(metavar="OTHER", help="Another copy of the same draft.")],
    as_json: Json = False,
) -> int:
    """Join the signatures that two copies of one draft got in parallel: DRAFT gets those of OTHER.

    Two different drafts are refused. `flightbag sync` does the same for drafts of missions.

    Example: flightbag trust join next.draft next-from-ben.draft
    """
    ours, theirs = _read(draft), _read(other)
    try:
        root_draft = ours.joined(theirs)
    except Conflict as error:
        raise error.restated(f"{draft} and {other}: {error.message}") from error
    _replace(draft, root_draft)
    return _show_file(root_draft, draft, as_json=as_json)


def _review(root_draft: RootDraft, path: Path, expect: str | None, *, as_json: bool) -> None:
    """Show the draft that was read from a file. Raise Refused unless the person names it by its code."""
    if expect is not None:
        root_draft.require(expect)
    how = f"look at it with `flightbag trust show {path}`, and give its code as --expect CODE"
    code = show_and_ask(_lines(root_draft, str(path)), expect=expect, as_json=as_json, how=how)
    if code is not None:
        root_draft.require(code)


@action
def rotate(
    store: StoreBeforeFile,
    draft: ExistingDraft,
    expect: Expect = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Show what the draft would end, signed or not. Write nothing.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Put the draft of a trust root into effect, once it has enough signatures.

    The trust root before vouches for the next one. Nobody vouches for trust root 1: give its code. The command lists
    the missions that fly no more, and what else ends; with --dry-run before anything does.

    Example: flightbag trust rotate ground next.draft
    """
    root_draft = _read(draft)
    with Repository.open(store) as repository:
        if repository.evidence.root_versions() and repository.trust_root().root.digest == root_draft.root.digest:
            if as_json:
                path = repository.media.absolute(f"trust/{root_draft.root.version}.root.cbor")
                _print_effect(root_draft, path, Ended({}, {}, {}, {}, ()), dry_run=dry_run)
            else:
                say(f"trust root {root_draft.root.version} is already in effect")
            return OK
    if dry_run:
        return _would_end(store, root_draft, as_json=as_json)
    root_draft.signed_root()  # nobody is asked about a draft that lacks signatures
    if root_draft.before is None or expect is not None:
        _review(root_draft, draft, expect, as_json=as_json)
    return _into_effect(store, root_draft, as_json=as_json)


@command
def show(
    what: Annotated[
        str,
        leading("The folder of a store, or the file of a trust root or a draft.", metavar="STORE|FILE"),
    ],
    as_json: Json = False,
) -> int:
    """Show the newest trust root of a store, or the trust root or draft in a file.

    Example: flightbag trust show next.draft
    """
    if os.path.isdir(what):
        with Repository.open(what) as repository:
            signed, before = repository.trust_root(), None
            if signed.root.version > 1:
                before = SignedRoot.parse(repository.evidence.root_file(signed.root.version - 1))
            return _show(RootDraft(before, signed.root, signed.envelope), "", as_json=as_json)
    data = keyfiles.read_file(Path(what), DRAFT_LIMIT, "the file")
    try:
        signed = SignedRoot.parse(data)
    except FlightbagError:
        root_draft = _parsed(what, data)
        return _show(root_draft, what, as_json=as_json)
    return _show(RootDraft(None, signed.root, signed.envelope), "", as_json=as_json)


def _public(path: Path) -> PublicKey:
    return keyfiles.public_key(path, keyfiles.passphrase_from(None))


def _key_named(root: TrustRoot, key: str) -> PublicKey:
    """Return the key of a file, or where no file has this name the key of a trust root whose kid begins so."""
    if os.path.lexists(key) or not may_begin(key):
        return _public(Path(key))
    return _of_kid(root, key)


def _of_kid(root: TrustRoot, start: str) -> PublicKey:
    """Return the key of a trust root whose kid begins with `start`. A lost key may have left no file."""
    keys = {key.kid: key for name in ROLES for key in root.role(name).keys}
    return keys[begun_by(start, keys, "key of the trust root")]


def _parsed(path: str | Path, data: bytes) -> RootDraft:
    try:
        return RootDraft.parse(data)
    except (Corrupt, Untrusted) as error:
        remedy = error.remedy or "give a draft that `flightbag trust` made"
        raise error.restated(f"{path}: {error.message}", remedy=remedy) from error


def _read(path: Path) -> RootDraft:
    return _parsed(path, keyfiles.read_file(path, DRAFT_LIMIT, "the draft"))


def _replace(path: Path, root_draft: RootDraft) -> None:
    """Replace the file of a draft."""
    keyfiles.write_over(path, root_draft.render())


def _edit(store: str, draft: Path, edit: Callable[[RootDraft], RootDraft], *, as_json: bool) -> int:
    """Change a draft, or begin one from the newest trust root of the store."""
    with Repository.open(store) as repository:
        newest = None if not repository.evidence.root_versions() else repository.trust_root()
        if os.path.lexists(draft):
            root_draft = _read(draft)
            before = None if root_draft.before is None else root_draft.before.root.digest
            if before != (None if newest is None else newest.root.digest):
                in_effect = newest is not None and newest.root.digest == root_draft.root.digest
                why = "is already in effect" if in_effect else "does not follow the newest trust root of the store"
                text = f"the draft {draft} of trust root {root_draft.root.version} {why}"
                raise Invalid(text, remedy="name a new file, to begin a new draft")
        elif newest is None:
            raise NotFound(
                f"{store} has no trust root", remedy="create one with `flightbag trust new`", kind="bad-trust-chain"
            )
        else:
            root_draft = RootDraft.after(newest, now=int(time.time()))
    signatures_before = len(root_draft.envelope.signatures)
    root_draft = edit(root_draft)
    _replace(draft, root_draft)
    if signatures_before and not root_draft.envelope.signatures and not as_json:
        say(f"the change removed {render.many(signatures_before, 'signature')} of the draft")
    return _show_file(root_draft, draft, as_json=as_json)


def _would_end(store: str, root_draft: RootDraft, *, as_json: bool) -> int:
    root = root_draft.root
    with Repository.open(store) as repository:
        drafts.require_follows(root_draft, repository.trust_root() if repository.evidence.root_versions() else None)
        ended = ended_by(repository, SignedRoot(root, root_draft.envelope))
    if as_json:
        _print_effect(root_draft, None, ended, dry_run=True)
        return OK
    say(f"trust root {root.version}, code {short_code(root.digest)}, is not in effect yet")
    print_lines(_ended(ended, "would be "))
    return OK


def _into_effect(store: str, root_draft: RootDraft, *, as_json: bool) -> int:
    with Repository.open(store) as repository:
        ended = ended_by(repository, SignedRoot(root_draft.root, root_draft.envelope))
        signed = trust_chain.rotate(repository, root_draft, now=int(time.time()))
        path = repository.media.absolute(f"trust/{signed.root.version}.root.cbor")
    root = signed.root
    if as_json:
        _print_effect(root_draft, path, ended, dry_run=False)
        return OK
    say(f"trust domain {root.domain}, id {lines.short(root.domain_id.hex())}")
    say(f"trust root {root.version} is in effect, code {short_code(root.digest)}: wrote {path}")
    if root.version == 1:
        say("give a copy of that file to everyone who verifies, by another way than the store")
    else:
        say("`flightbag sync` carries it: everyone who has pinned an earlier trust root accepts it")
    print_lines(_ended(ended, ""))
    return OK


def _print_effect(root_draft: RootDraft, path: str | None, ended: Ended, *, dry_run: bool) -> None:
    print_json(_json(root_draft, "") | {"file": path, "ended": asdict(ended), "dry_run": dry_run})


def _ended(ended: Ended, would: str) -> Iterator[str]:
    """Yield what a trust root ends, and what people do about it."""
    is_ = would or "is "
    for mission, why in ended.missions.items():
        yield f"{mission} {is_}grounded: {why}; build it again, signed by keys of the new trust root"
    for name, why in ended.releases.items():
        yield f"release {name} {is_}worth nothing: {why}; make it again with `flightbag release new`"
    for key, why in ended.results.items():
        yield f"result {lines.short(key)} {is_}worth nothing: {why}; fulfil the order again"
    for name, why in ended.withdrawals.items():
        yield f"withdrawal {name} {is_}without its signers: {why}; withdraw it again, with keys of the new trust root"
    for mission in ended.drafts:
        yield f"the draft of {mission} {is_}overtaken: build it again"
    if not any((ended.missions, ended.releases, ended.results, ended.withdrawals, ended.drafts)):
        yield f"nothing in this store {is_}ended by it"


def _show_file(root_draft: RootDraft, path: Path, *, as_json: bool) -> int:
    return _show(root_draft, str(path), as_json=as_json)


def _show(root_draft: RootDraft, draft: str, *, as_json: bool) -> int:
    if as_json:
        print_json(_json(root_draft, draft))
    else:
        print_lines(_lines(root_draft, draft))
        if draft:
            print_lines(_next_step(root_draft, draft))
    return OK


def _json(root_draft: RootDraft, draft: str) -> dict[str, Any]:
    root = root_draft.root
    value: dict[str, Any] = {
        "version": root.version,
        "domain": root.domain,
        "domain_id": root.domain_id.hex(),
        "code": short_code(root.digest),
        "epoch": root.epoch,
        "issued_at": root.issued_at,
        "issued_after": root.issued_after,
        "default_lifetime": root.default_lifetime,
        "max_lifetime": root.max_lifetime,
        "releases": root.releases,
        "roles": {
            name: {"threshold": root.role(name).threshold, "kids": [key.kid.hex() for key in root.role(name).keys]}
            for name in ROLES
        },
        "revoked": [key.kid.hex() for key in root.revoked],
        "names": {key.kid.hex(): name for key, name in root.names},
    }
    of_root, of_before = _signers(root_draft)
    value["signers"] = render.signers_json(root, of_root)
    if root_draft.before is not None:
        value["signers"] += render.signers_json(root_draft.before.root, of_before)
    if draft:
        value["draft"] = draft
        value["signatures"] = [
            {"root": one.version, "have": one.have, "threshold": one.threshold} for one in root_draft.signatures()
        ]
    return value


def _lines(root_draft: RootDraft, draft: str) -> Iterator[str]:
    root = root_draft.root
    of_root, of_before = _signers(root_draft)
    yield from lines.table(
        [
            ("trust root", f"{root.version}{' (draft)' if draft else ''}"),
            ("domain", f"{root.domain}, id {lines.short(root.domain_id.hex())}"),
            ("code", short_code(root.digest)),
            ("issued", render.when(root.issued_at)),
            *((label, text) for label, text in rules_of(root) if text),
        ]
    )
    for name in ROLES:
        role = root.role(name)
        if role.keys:
            yield f"{name}: {role.threshold} of {render.many(len(role.keys), 'key')}"
        for key in role.keys:
            yield from render.key_lines(root, key.kid, "has signed" if name == "root" and key.kid in of_root else "")
    if root.revoked:
        yield "revoked"
        for key in root.revoked:
            yield from render.key_lines(root, key.kid)
    if root_draft.before is not None:
        for kid in of_before:
            yield f"root key of trust root {root.version - 1} alone"
            yield from render.key_lines(root_draft.before.root, kid, "has signed")
        if draft:
            yield from _changes(root_draft.before.root, root)


def _signers(root_draft: RootDraft) -> tuple[list[bytes], list[bytes]]:
    """Return the kids of the root keys that have signed, and of the other signers: root keys of the root before alone,
    whose signatures nobody can check without that root."""
    kids, own = root_draft.envelope.kids, {key.kid for key in root_draft.root.root.keys}
    return [kid for kid in kids if kid in own], [kid for kid in kids if kid not in own]


def _next_step(root_draft: RootDraft, draft: str) -> Iterator[str]:
    for one in root_draft.signatures():
        yield f"{one.have} of {one.threshold} required signatures by root keys of trust root {one.version}"
    if all(one.enough for one in root_draft.signatures()):
        yield f"the draft has enough signatures: `flightbag trust rotate STORE {draft}`"
    else:
        yield f"carry {draft} to the holder of the next root key: flightbag trust sign {draft} --key KEY"


def rules_of(root: TrustRoot) -> list[tuple[str, str]]:
    """Return what a trust root demands of missions besides their signatures, as rows of a label and a text; "" where it
    demands nothing."""
    return [
        ("epoch", str(root.epoch)),
        ("not before", "" if root.issued_after is None else render.when(root.issued_after)),
        ("releases", root.releases),
        ("valid for", _lifetimes(root)),
    ]


def _lifetimes(root: TrustRoot) -> str:
    """Return how long missions are valid under a trust root."""
    longest = (
        "missions may never expire" if root.max_lifetime is None else f"at most {duration_text(root.max_lifetime)}"
    )
    default = "" if root.default_lifetime is None else f"{duration_text(root.default_lifetime)} by default; "
    return default + longest


def _changes(old: TrustRoot, new: TrustRoot) -> Iterator[str]:
    yield f"changes from trust root {old.version}:"
    for name in ROLES:
        before, after = old.role(name), new.role(name)
        yield from (f"  - {name} {old.key_text(key.kid)}" for key in before.keys if key not in after.keys)
        yield from (f"  + {name} {new.key_text(key.kid)}" for key in after.keys if key not in before.keys)
        if before.threshold != after.threshold:
            yield f"  {name}: threshold {after.threshold}, before {before.threshold}"
    yield from (f"  revoked {new.key_text(key.kid)}" for key in new.revoked if key not in old.revoked)
    for key, called in new.names:
        was = old.name_of(key.kid)
        if was != called and any(key in old.role(role).keys for role in ROLES):
            yield f"  {lines.short(key.kid.hex())} is called {called}, before {was or 'nothing'}"
    for (label, was), (_, is_) in zip(rules_of(old), rules_of(new), strict=True):
        if is_ != was:
            yield f"  {label}: {is_ or 'none'}, before {was or 'none'}"
