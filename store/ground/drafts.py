"""Drafts that travel: a sync brings them, and joins the signatures that two copies of one draft got apart.

A draft vouches for nothing (FORMAT.md 2): what is signed is what a person was shown, and what is published is judged
anew. So a draft goes to where none is, signatures are joined where the payloads are equal, and two drafts of one thing
with different payloads are left as they are, for people to choose.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from store.disk.layout import DRAFTS
from store.disk.media import FOLDER_LIMIT, object_path
from store.errors import Corrupt, FlightbagError, NotFound, Refused, Unavailable
from store.format import manifest as manifests
from store.format import withdrawal
from store.format.cose import Envelope
from store.format.ids import ObjectId
from store.format.manifest import ENVELOPE_LIMIT, MISSION_ID, Manifest
from store.ground import withdrawals
from store.ground.issuing import mission_lock
from store.ground.needs import UNKNOWN, need_of_unsigned
from store.ground.repository import Repository, SmallFile, names_at
from store.takeoff.withdrawn import parsed
from store.trust.review import signing_code
from store.trust.root import TrustRoot, count_signatures


@dataclass
class Drafts:
    """The drafts that a sync brings: the files, the objects with sizes that they need, and those that stay, each with
    the reason."""

    files: list[SmallFile] = field(default_factory=list)
    objects: dict[ObjectId, int] = field(default_factory=dict)
    refused: list[tuple[str, str]] = field(default_factory=list)


def to_bring(source: Repository, target: Repository | None, root: TrustRoot) -> Drafts:
    """Return the drafts that a sync brings to the target, under the newest trust root of both."""
    brought = Drafts()
    names = names_at(target, DRAFTS)
    for name in _names(source):
        try:
            envelope = _read(source, name)
            file = _merged(envelope, target, name, root)
            if file is None:
                continue
            if withdrawal.NAME.fullmatch(name):
                file = withdrawals.as_far_as_signed(file, root)
            if file.name.startswith(DRAFTS) and name not in names:
                if len(names) >= FOLDER_LIMIT:
                    text = f"the target has {FOLDER_LIMIT} drafts, which is the most"
                    raise Refused(text, remedy="discard some there: `flightbag discard`", kind="too-many")
                names.add(name)
            if not withdrawal.NAME.fullmatch(name):
                brought.objects.update(_objects(source, file.data))
            brought.files.append(file)
        except Unavailable:
            raise
        except NotFound as error:
            brought.refused.append((name, f"its draft is not whole: {error.message}"))
        except FlightbagError as error:
            brought.refused.append((name, f"its draft: {error.message}"))
    return brought


def receive(repository: Repository, file: SmallFile, *, at: int) -> None:
    """Place a draft that a sync brings, joined with the signatures that it got here meanwhile. Another draft that was
    made here meanwhile stays. A withdrawal with all its signatures takes effect. `at` is unix seconds."""
    name = file.name.removeprefix(f"{DRAFTS}/")
    root = repository.trust_root().root
    if withdrawal.NAME.fullmatch(name):
        with withdrawals.alone(repository, name), suppress(_Differs):
            if (joined := _joined(repository, name, file.data, root)) is not None:
                withdrawals.keep_or_put_into_effect(repository, name, joined.data, root, at=at)
        return
    with mission_lock(repository, name, f"the draft of mission {name}"), suppress(_Differs):
        if (joined := _joined(repository, name, file.data, root)) is not None:
            repository.place([joined])


def _joined(repository: Repository, name: str, data: bytes, root: TrustRoot) -> SmallFile | None:
    return _merged(_envelope(data, name), repository, name, root)


class _Differs(Corrupt):
    """Two drafts of one thing have different payloads."""


def _names(repository: Repository) -> Iterator[str]:
    for name in repository.media.names_if_there(DRAFTS):
        if MISSION_ID.fullmatch(name) or withdrawal.NAME.fullmatch(name):
            yield name


def _read(repository: Repository, name: str) -> Envelope:
    return _envelope(repository.media.read(f"{DRAFTS}/{name}", ENVELOPE_LIMIT), name)


def _envelope(data: bytes, name: str) -> Envelope:
    """Return the envelope of a draft, whoever signed it. Raise Corrupt for one that is of another thing."""
    if withdrawal.NAME.fullmatch(name):
        return parsed(data, name)[0]
    envelope = Envelope.parse(data, manifests.CONTENT_TYPE, manifests.PAYLOAD_LIMIT)
    of = Manifest.parse(envelope.payload).mission.id
    if of != name:
        raise Corrupt(f"it holds a manifest of mission {of}", kind="bad-draft")
    return envelope


def _merged(envelope: Envelope, target: Repository | None, name: str, root: TrustRoot) -> SmallFile | None:
    """Return the draft as the target shall have it, None where it has it so, or has published it or what follows it.

    Raise Untrusted for a signature in either that does not verify, `_Differs` for two payloads.
    """
    _check(envelope, name, root)
    if target is None:
        return SmallFile(f"{DRAFTS}/{name}", envelope.render())
    if _is_over(envelope, target, name, root):
        return None
    there = None
    with suppress(NotFound, Corrupt):
        there = _read(target, name)
    if there is None:
        return SmallFile(f"{DRAFTS}/{name}", envelope.render())
    if there.payload != envelope.payload:
        raise _Differs(
            f"the source has one with the code {_described(envelope)}, and the target another one with the code "
            f"{_described(there)}: discard one of the two, and sync again",
            kind="other-draft",
        )
    _check(there, name, root)
    joined = there.joined(envelope)
    return None if joined == there else SmallFile(f"{DRAFTS}/{name}", joined.render())


def _described(envelope: Envelope) -> str:
    count = len(envelope.signatures)
    return f"{signing_code(envelope)} and {count} signature{'' if count == 1 else 's'}"


def _check(envelope: Envelope, name: str, root: TrustRoot) -> None:
    """Raise Untrusted for a signature that is not a good one by a key of the role."""
    if withdrawal.NAME.fullmatch(name):
        withdrawals.Pending(parsed(envelope.render(), name)[1], envelope).signatures(root)
    else:
        count_signatures(envelope, root, manifests.AAD_LABEL, "mission")


def _is_over(envelope: Envelope, target: Repository, name: str, root: TrustRoot) -> bool:
    """Whether the target has published what this is a draft of, or something later."""
    try:
        if withdrawal.NAME.fullmatch(name):
            value, there = parsed(envelope.render(), name)[1], withdrawals.standing(target, name, root)
            return there is not None and there.order >= value.order
        order = Manifest.parse(envelope.payload).issue.order
        return target.current(name).manifest.issue.order >= order
    except Unavailable:
        raise
    except FlightbagError:
        return False


def _objects(source: Repository, data: bytes) -> Sequence[tuple[ObjectId, int]]:
    """Return the objects that a draft needs, each with its size. Raise NotFound for a release that is not there."""
    return [
        (id_, source.media.stamp(object_path(id_)).size if size == UNKNOWN else size)
        for id_, size in need_of_unsigned(DRAFTS, data, source.evidence)
    ]
