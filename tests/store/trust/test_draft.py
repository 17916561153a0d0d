"""Drafts of a trust root: founded, edited, signed one at a time on machines that never meet, complete in the end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Conflict, Corrupt, FlightbagError, Invalid, Refused, Untrusted
from store.format.cbor import INT_MAX, encode
from store.format.cose import Signature
from store.trust import draft as drafts
from store.trust.draft import MAGIC, RootDraft, complete, founding
from store.trust.keys import PublicKey
from store.trust.root import NOBODY, ROLES, Role, SignedRoot, TrustRoot, advance
from tests.support.missions import NOW, ROOT, key, next_root, pinned, role, sign_root


def first(**changes: Any) -> SignedRoot:
    """Root 1 of a fleet with two root holders, both of whom sign."""
    asked: dict[str, Any] = {
        "root": [key("root-b").public, key("root-a").public],
        "mission": [key("pilot").public],
        "thresholds": {"root": 2, "mission": 1},
        "issued_at": ROOT.issued_at,
        "salt": ROOT.salt,
        "signers": [key("root-a"), key("root-b")],
    }
    asked |= changes
    keys = {name: asked.pop(name) for name in ROLES if name in asked}
    signers = asked.pop("signers")
    draft = founding(asked.pop("domain", "ridge fleet"), keys=keys, **asked)
    for signer in signers:
        draft = draft.with_signature(signer)
    return draft.signed_root()


class TestJoined:
    """Two copies of one draft, signed by people who did not meet."""

    def test_it_has_the_signatures_of_both(self) -> None:
        draft = RootDraft.after(first(), now=NOW)
        one, two = (draft.with_signature(key(name)) for name in ("root-a", "root-b"))
        joined = one.joined(two)
        assert joined == two.joined(one)
        assert RootDraft.parse(joined.render()) == joined
        assert complete(joined, first()).root == draft.root
        assert one.joined(one) == one
        assert draft.joined(one) == one

    def test_two_drafts_are_named(self) -> None:
        one = RootDraft.after(first(), now=NOW)
        for two in (RootDraft.after(first(), now=NOW + 1), drafts.with_new_epoch(one)):
            with pytest.raises(Conflict) as caught:
                one.joined(two)
            assert one.code in caught.value.message
            assert two.code in caught.value.message
            assert caught.value.kind == "other-draft"

    def test_no_more_than_an_envelope_holds(self) -> None:
        names = [f"root-{number}" for number in range(12)]
        before = first(root=[key(name).public for name in names], signers=[key(name) for name in names[:2]])
        draft = RootDraft.after(before, now=NOW)
        one = two = draft
        for number in range(6):
            one, two = one.with_signature(key(names[number])), two.with_signature(key(names[number + 6]))
        joined = one.joined(two)
        assert len(joined.envelope.signatures) == 8
        assert {*one.envelope.signatures} <= {*joined.envelope.signatures}
        assert RootDraft.parse(joined.render()) == joined


class TestFirst:
    """The root that a trust domain begins with."""

    def test_is_what_was_asked_for(self) -> None:
        signed = first()
        expected = replace(ROOT, root=role("root-a", "root-b", threshold=2), release=Role((), 1))
        assert signed.root == expected
        assert SignedRoot.parse(signed.envelope.render()) == signed

    def test_a_role_needs_one_signature_where_nothing_is_said(self) -> None:
        lab = [key("lab").public]
        root = first(thresholds={}, release=lab, signers=[key("root-a")]).root
        assert [root.role(name).threshold for name in ROLES] == [1, 1, 1, 1]
        assert (root.version, root.epoch, root.release.keys) == (1, 1, tuple(lab))

    def test_has_builders_where_they_are_given(self) -> None:
        root = first(builder=[key("orin").public]).root
        assert root.builder == role("orin")
        assert TrustRoot.parse(root.render()) == root
        assert first().root.builder == NOBODY
        assert b"builder" not in first().root.render()

    def test_has_no_builder_that_has_another_role(self) -> None:
        with pytest.raises(Invalid) as error:
            first(builder=[key("pilot").public])
        assert error.value.remedy == "make a key of its own for the device"

    def test_a_key_given_twice_is_one(self) -> None:
        twice = [key("pilot").public] * 2
        assert first(mission=twice).root == first().root
        with pytest.raises(Invalid):
            first(mission=twice, thresholds={"root": 2, "mission": 2})

    @pytest.mark.parametrize(
        "changes",
        [
            {"domain": ""},
            {"domain": "fleet\n"},
            {"mission": []},
            {"root": [], "thresholds": {"root": 1, "mission": 1}},
            {"thresholds": {"root": 3, "mission": 1}},
            {"thresholds": {"root": 2, "mission": 2}},
            {"thresholds": {"root": 2, "mission": 0}},
            {"mission": [key(f"pilot {i}").public for i in range(65)]},
            {"release": [key("pilot").public]},
            {"release": [], "thresholds": {"root": 2, "release": 1}},
            {"issued_at": -1},
        ],
        ids=lambda changes: ",".join(changes),
    )
    def test_cannot_be(self, changes: dict[str, Any]) -> None:
        with pytest.raises(Invalid):
            first(**changes)

    @pytest.mark.parametrize("signers", [[], ["root-a"], ["root-a", "root-a"]], ids=len)
    def test_takes_its_threshold_of_signatures(self, signers: list[str]) -> None:
        with pytest.raises(Untrusted) as caught:
            first(signers=[key(name) for name in signers])
        assert caught.value.fields["kind"] == "threshold"

    def test_takes_no_signature_of_anybody_else(self) -> None:
        with pytest.raises(Untrusted) as caught:
            first(signers=[key("root-a"), key("root-b"), key("stranger")])
        assert caught.value.fields["kind"] == "unknown-signer"

    def test_enrols_no_weak_key(self) -> None:
        with pytest.raises(Untrusted) as caught:
            first(mission=[PublicKey((1).to_bytes(32, "little"))])
        assert caught.value.fields["kind"] == "weak-key"


THREE = replace(ROOT, root=role("a", "b", "c", threshold=2), mission=role("pilot", "co-pilot", threshold=2))


def begun(root: TrustRoot = THREE) -> RootDraft:
    return RootDraft.after(pinned(root, "a", "b"), now=NOW)


def carried(draft: RootDraft) -> RootDraft:
    """The draft after a walk to another machine."""
    return RootDraft.parse(draft.render())


class TestDraft:
    def test_one_operator_at_a_time(self) -> None:
        draft = drafts.with_key(begun(), "mission", key("navigator").public)
        for have, name in enumerate(("a", "c")):
            assert [(one.version, one.have, one.threshold) for one in draft.signatures()] == [
                (1, have, 2),
                (2, have, 2),
            ]
            with pytest.raises(Untrusted) as caught:
                draft.signed_root()
            assert caught.value.fields["kind"] == "threshold"
            draft = carried(draft.with_signature(key(name)))
        signed = complete(draft, pinned(THREE, "a", "b"))
        assert signed.root.mission == role("pilot", "co-pilot", "navigator", threshold=2)
        assert advance(pinned(THREE, "a", "b"), [signed.envelope.render()]).root == signed.root

    def test_a_change_drops_the_signatures(self) -> None:
        draft = begun().with_signature(key("a")).with_signature(key("b"))
        assert drafts.with_threshold(draft, "mission", 1).envelope.signatures == ()

    def test_a_new_root_key_needs_the_old_ones_and_the_new_ones(self) -> None:
        draft = drafts.with_key(begun(), "root", key("d").public)
        draft = drafts.without_key(draft, "root", key("a").public)
        draft = draft.with_signature(key("d")).with_signature(key("b"))
        assert [one.enough for one in draft.signatures()] == [False, True]
        draft = draft.with_signature(key("a"))
        assert all(one.enough for one in draft.signatures())
        complete(draft, pinned(THREE, "a", "b"))

    @pytest.mark.parametrize("name", ["pilot", "stranger", "d"])
    def test_only_root_keys_sign(self, name: str) -> None:
        with pytest.raises(Untrusted) as caught:
            begun().with_signature(key(name))
        assert caught.value.fields["kind"] == "unknown-signer"

    def test_a_key_that_is_being_revoked_does_not_sign_for_that(self) -> None:
        draft = drafts.with_revoked(drafts.with_key(begun(), "root", key("d").public), key("a").public)
        assert draft.root.revoked == (key("a").public,)
        assert key("a").public not in draft.root.root.keys
        with pytest.raises(Untrusted) as caught:
            draft.with_signature(key("a"))
        assert caught.value.fields["kind"] == "revoked-key"
        complete(draft.with_signature(key("b")).with_signature(key("c")), pinned(THREE, "a", "b"))

    @pytest.mark.parametrize(
        "edit",
        [
            lambda d: drafts.with_key(d, "mission", key("pilot").public),
            lambda d: drafts.with_key(d, "release", key("pilot").public),
            lambda d: drafts.without_key(d, "mission", key("stranger").public),
            lambda d: drafts.without_key(d, "mission", key("pilot").public),
            lambda d: drafts.with_revoked(d, key("pilot").public),
            lambda d: drafts.with_revoked(drafts.with_revoked(d, key("x").public), key("x").public),
            lambda d: drafts.with_threshold(d, "mission", 3),
            lambda d: drafts.with_threshold(d, "root", 9),
            lambda d: (
                d.with_fields(releases="required") if not d.root.release.can_be_met else d.with_fields(releases="x")
            ),
            lambda d: d.with_fields(issued_after=-1),
            lambda d: drafts.with_new_epoch(drafts.with_new_epoch(d)),
        ],
    )
    def test_what_cannot_be(self, edit: Callable[[RootDraft], RootDraft]) -> None:
        with pytest.raises(Invalid):
            edit(RootDraft.after(pinned(replace(THREE, release=Role((), 1)), "a", "b"), now=NOW))

    def test_a_weak_or_a_revoked_key_is_not_enrolled(self) -> None:
        with pytest.raises(Untrusted) as caught:
            drafts.with_key(begun(), "mission", PublicKey((1).to_bytes(32, "little")))
        assert caught.value.fields["kind"] == "weak-key"
        revoked = drafts.with_revoked(begun(), key("x").public)
        with pytest.raises(Untrusted) as caught:
            drafts.with_key(revoked, "mission", key("x").public)
        assert caught.value.fields["kind"] == "revoked-key"

    def test_follows_the_newest_root_alone(self) -> None:
        draft = begun().with_signature(key("a")).with_signature(key("b"))
        other = next_root(THREE, issued_at=NOW + 1)
        newest = SignedRoot.parse(sign_root(other, "a", "b"))
        for store in (None, newest, pinned(replace(THREE, domain="other"), "a", "b")):
            with pytest.raises(Conflict) as caught:
                complete(draft, store)
            assert caught.value.fields["kind"] == "stale-draft"

    def test_a_draft_that_could_never_be_signed(self) -> None:
        alone = RootDraft.after(pinned(ROOT), now=NOW)
        with_b = drafts.with_key(alone, "root", key("b").public)
        with pytest.raises(Invalid, match="remove-key"):
            drafts.with_revoked(with_b, key("root-a").public)
        five = replace(ROOT, root=role(*"abcde", threshold=5))
        begun_by_five = RootDraft.after(pinned(five, *"abcde"), now=NOW)
        with pytest.raises(Invalid, match="room for 8"):
            begun_by_five.with_fields(root=role(*"vwxyz", threshold=5))
        assert begun_by_five.with_fields(root=role(*"dewxyz", threshold=5)).root.root.threshold == 5

    def test_a_change_of_nothing_keeps_the_signatures(self) -> None:
        draft = begun().with_signature(key("a"))
        assert draft.with_fields(releases=draft.root.releases) == draft

    @pytest.mark.parametrize(("keys", "fits"), [("ewxyz", False), ("dewxy", True), ("abcde", True)])
    def test_an_envelope_has_room_for_eight_signatures(self, keys: str, fits: bool) -> None:
        """Five of the old root and five of the new one: two signers of both are needed."""
        draft = RootDraft.after(pinned(replace(ROOT, root=role(*"abcde", threshold=5)), *"abcde"), now=NOW)
        with nullcontext() if fits else pytest.raises(Invalid, match="needs 9 signatures"):
            assert draft.with_fields(root=role(*keys, threshold=5)).root.root.threshold == 5

    def test_more_signers_of_both_than_a_threshold_needs_save_no_more(self) -> None:
        old = replace(ROOT, root=role(*"abcdef", threshold=2))
        draft = RootDraft.after(pinned(old, "a", "b"), now=NOW)
        assert draft.with_fields(root=role(*"abcdefgh", threshold=8)).root.root.threshold == 8

    @pytest.mark.parametrize("root", [ROOT, next_root(ROOT, domain="other"), next_root(ROOT, epoch=0)], ids=range(3))
    def test_what_may_not_follow_is_no_draft(self, root: TrustRoot) -> None:
        with pytest.raises(Invalid, match="cannot become a trust root"):
            RootDraft.of(pinned(), root)

    def test_as_many_old_keys_as_the_threshold_have_to_remain(self) -> None:
        draft = drafts.with_key(begun(), "root", key("d").public)
        draft = drafts.with_revoked(draft, key("a").public)
        with pytest.raises(Invalid, match="1 of its keys remain"):
            drafts.with_revoked(draft, key("b").public)

    def test_a_revoked_key_leaves_every_role(self) -> None:
        both = replace(THREE, mission=role("a", "pilot"))
        draft = drafts.with_revoked(RootDraft.after(pinned(both, "a", "b"), now=NOW), key("a").public)
        assert (draft.root.root, draft.root.mission) == (role("b", "c", threshold=2), role("pilot"))
        draft = drafts.with_revoked(draft, key("x").public)
        assert draft.root.revoked == tuple(sorted((key("a").public, key("x").public)))
        assert carried(draft) == draft

    def test_it_follows_the_root_before_it(self) -> None:
        draft = begun()
        assert draft.root == next_root(THREE, issued_at=NOW)
        third = RootDraft.after(pinned(draft.root, "a", "b"), now=NOW + 1)
        assert third.root == next_root(draft.root, issued_at=NOW + 1)

    def test_the_code_that_was_reviewed(self) -> None:
        draft = begun()
        draft.require(draft.code)
        with pytest.raises(Refused, match="trust root 2") as caught:
            draft.require(drafts.with_new_epoch(draft).code)
        assert caught.value.kind == "other-code"

    def test_the_first_root_is_complete_in_a_store_without_one(self) -> None:
        draft = RootDraft.of(None, ROOT).with_signature(key("root-a"))
        assert complete(draft, None).root == ROOT
        with pytest.raises(Conflict, match="is root 1 of its domain, but the store has trust root 1"):
            complete(draft, pinned())

    def test_the_signatures_that_are_missing_are_counted(self) -> None:
        draft = drafts.with_threshold(begun(), "root", 3).with_signature(key("a"))
        with pytest.raises(Untrusted, match="1 of 2 by root keys of trust root 1, 1 of 3 by") as caught:
            draft.signed_root()
        assert (caught.value.fields["expected"], caught.value.fields["actual"]) == (2, 1)

    def test_a_new_epoch(self) -> None:
        draft = drafts.with_new_epoch(begun())
        assert draft.root.epoch == THREE.epoch + 1
        last = replace(THREE, epoch=INT_MAX)
        for cannot in (RootDraft.of(None, THREE), RootDraft.after(pinned(last, "a", "b"), now=NOW)):
            with pytest.raises(Invalid, match="at most one epoch"):
                drafts.with_new_epoch(cannot)


class TestDraftFile:
    @pytest.mark.parametrize(
        ("bad", "kind"),
        [
            (b"", "not-canonical"),
            (encode([MAGIC, b""]), "bad-draft"),
            (encode(["flightbag/root-draft/2", b"", b""]), "bad-draft"),
            (encode([MAGIC, b"", begun().envelope.render()]), "bad-draft"),
            (encode([MAGIC, pinned(ROOT).envelope.render(), begun().envelope.render()]), "bad-trust-chain"),
            (begun().render() + b"\0", "not-canonical"),
            (begun().envelope.render(), "not-canonical"),
        ],
        ids=["empty", "short", "of another version", "no root before", "another before", "trailing", "no draft"],
    )
    def test_refused(self, bad: bytes, kind: str) -> None:
        with pytest.raises((Corrupt, Untrusted)) as caught:
            RootDraft.parse(bad)
        assert caught.value.fields["kind"] == kind

    def test_a_forged_signature(self) -> None:
        draft = begun()
        forged = Signature(key("a").public.kid, bytes(64))
        with pytest.raises(Untrusted) as caught:
            RootDraft.parse(replace(draft, envelope=draft.envelope.with_signature(forged)).render())
        assert caught.value.fields["kind"] == "bad-signature"

    def test_comes_back_as_it_was(self) -> None:
        for draft in (begun(), begun().with_signature(key("b")), RootDraft.of(None, THREE)):
            assert carried(draft) == draft

    @given(st.binary(max_size=200))
    def test_arbitrary_bytes(self, data: bytes) -> None:
        with pytest.raises(FlightbagError):
            RootDraft.parse(data)


class TestNames:
    def test_a_name_comes_with_its_key_and_goes_with_its_last_role(self) -> None:
        navigator = key("navigator").public
        draft = drafts.with_key(begun(), "mission", navigator, "Nora of the ridge")
        assert draft.root.key_text(navigator.kid) == f"{navigator.kid.hex()[:12]} (Nora of the ridge)"
        both = drafts.with_key(draft, "root", navigator)
        assert drafts.without_key(both, "root", navigator).root.name_of(navigator.kid) == "Nora of the ridge"
        assert drafts.without_key(draft, "mission", navigator).root.names == ()
        assert drafts.with_revoked(draft, navigator).root.name_of(navigator.kid) == "Nora of the ridge"

    def test_a_key_in_the_role_gets_another_name(self) -> None:
        pilot = key("pilot").public
        draft = drafts.with_key(begun(), "mission", pilot, "Pia")
        assert drafts.with_key(draft, "mission", pilot, "Pia Two").root.name_of(pilot.kid) == "Pia Two"
        with pytest.raises(Invalid, match=r"\(Pia\) is already in the role"):
            drafts.with_key(draft, "mission", pilot, "Pia")

    @pytest.mark.parametrize("name", [" Pia", "Pia\n", "P" * 33, "Pi\u0430", "-", "\x1b[31mPia"])
    def test_what_is_no_name(self, name: str) -> None:
        with pytest.raises(Invalid, match="is not the name of a key"):
            drafts.with_key(begun(), "mission", key("pilot").public, name)

    def test_one_name_is_of_one_key_also_of_a_revoked_one(self) -> None:
        draft = drafts.with_key(begun(), "mission", key("navigator").public, "Nora")
        for one in (draft, drafts.with_revoked(draft, key("navigator").public)):
            with pytest.raises(Invalid, match="Nora is already the name of the key"):
                drafts.with_key(one, "mission", key("second").public, "Nora")

    def test_no_name_stands_in_the_way_of_a_key(self) -> None:
        """Names of revoked keys fill a root long before the keys do: they go, and those of the roles stay."""
        pilot, spare = key("pilot").public, key("spare").public
        gone = tuple(sorted(PublicKey(number.to_bytes(32, "big")) for number in range(600)))
        names = {one: f"one of many {number:020d}" for number, one in enumerate(gone)}
        full = drafts.with_name(begun().with_fields(revoked=gone, names=tuple(names.items())), pilot, "Pia")
        assert len(full.root.names) == 601
        more = [PublicKey(number.to_bytes(32, "big")) for number in range(600, 1024)]
        full = full.with_fields(revoked=tuple(sorted((*gone, *more))))
        assert dict(full.root.names) == {pilot: "Pia"}
        added = drafts.with_key(full, "mission", spare, "Spare")
        assert dict(added.root.names) == {pilot: "Pia", spare: "Spare"}
