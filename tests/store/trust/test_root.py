"""Trust roots: one canonical form, who may sign, and how one root leads to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Corrupt, Invalid, Untrusted
from store.format import manifest as manifests
from store.format.cbor import INT_MAX, decode, encode
from store.format.cose import Envelope, Signature
from store.format.ids import derive
from store.format.manifest import TIME_MAX
from store.trust import root as roots
from store.trust.key_file import KEY_NAME
from store.trust.keys import PublicKey, sign
from store.trust.root import (
    AAD_LABEL,
    MAX_STEPS,
    ROOT_LIMIT,
    Role,
    SignedRoot,
    TrustRoot,
    advance,
    check_signatures,
    count_signers,
)
from tests.support.missions import ROOT, key, next_root, pinned, plus_order_2, role, sign_payload, sign_root

KEYS = [key(f"key {i}").public for i in range(9)]


@st.composite
def trust_roots(draw: st.DrawFn) -> TrustRoot:
    sorts: list[set[str]] = [draw(st.sets(st.sampled_from(roots.ROLES))) for _ in KEYS]
    held: dict[str, tuple[PublicKey, ...]] = {
        name: tuple(sorted(k for k, s in zip(KEYS, sorts, strict=True) if name in s)) for name in roots.ROLES
    }
    held["release"] = tuple(k for k in held["release"] if k not in held["mission"])
    others = {*held["root"], *held["mission"], *held["release"]}
    held["builder"] = tuple(k for k in held["builder"] if k not in others)
    for name in ("root", "mission"):
        held[name] = held[name] or (key(f"the only one for {name}").public,)
    taken = {k for keys in held.values() for k in keys}
    revoked = tuple(sorted(k for k in KEYS if k not in taken))
    called = st.dictionaries(
        st.sampled_from(sorted({*taken, *revoked})), st.from_regex(KEY_NAME, fullmatch=True), max_size=4
    ).filter(lambda names: len({*names.values()}) == len(names))
    later: bool = draw(st.booleans())
    digests: st.SearchStrategy[bytes] = st.binary(min_size=32, max_size=32)
    return TrustRoot(
        version=draw(st.integers(2, INT_MAX)) if later else 1,
        domain=draw(st.text("aZ09", min_size=1, max_size=64)),
        epoch=draw(st.integers(1, INT_MAX)),
        issued_at=draw(st.integers(0, TIME_MAX)),
        salt=draw(st.binary(min_size=16, max_size=16)),
        root=Role(held["root"], draw(st.integers(1, min(8, len(held["root"]))))),
        mission=Role(held["mission"], draw(st.integers(1, min(8, len(held["mission"]))))),
        release=Role(held["release"], draw(st.integers(1, min(8, len(held["release"]) or 8)))),
        builder=Role(held["builder"], draw(st.integers(1, min(8, len(held["builder"]) or 1)))),
        releases="required" if draw(st.booleans()) and held["release"] else "optional",
        revoked=revoked,
        issued_after=draw(st.none() | st.integers(0, TIME_MAX)),
        default_lifetime=draw(st.none() | st.integers(1, 10**6)),
        max_lifetime=draw(st.none() | st.integers(10**6, TIME_MAX)),
        parent_domain=draw(digests) if later else None,
        previous=draw(digests) if later else None,
        names=tuple(sorted(draw(called).items())),
    )


@given(trust_roots())
def test_a_rendered_root_parses_to_itself(root: TrustRoot) -> None:
    assert TrustRoot.parse(root.render()) == root


@given(trust_roots(), st.data())
def test_a_changed_byte_makes_another_root_or_none(root: TrustRoot, data: st.DataObject) -> None:
    good = root.render()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    try:
        parsed = TrustRoot.parse(bad)
    except Corrupt:
        return
    assert parsed != root
    assert parsed.render() == bad


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_corrupt(data: bytes) -> None:
    for read in (TrustRoot.parse, SignedRoot.parse):
        with pytest.raises(Corrupt):
            read(data)


def test_the_domain_is_the_hash_of_the_first_payload() -> None:
    second = next_root(ROOT)
    third = next_root(second)
    digest = derive("flightbag 2026 trust root v1", ROOT.render())
    assert ROOT.domain_id == second.domain_id == third.domain_id == digest
    assert (second.previous, third.previous) == (ROOT.digest, second.digest)
    assert replace(ROOT, domain="ridge fleet 2").domain_id != ROOT.domain_id
    assert ROOT.aad("label") == encode(["label", digest])


def bad_values() -> dict[str, dict[str, Any]]:
    """Payloads of version 2 that differ from a good one by their name."""
    weak, pilot, lab = bytes(31), key("pilot").public.raw, key("lab").public.raw
    a_role, unmet = {"keys": [pilot], "threshold": 1}, {"keys": [pilot], "threshold": 2}
    two, other = sorted([pilot, lab]), key("orin").public.raw

    def with_role(name: str, value: Any) -> dict[str, Any]:
        good = decode(next_root(ROOT).render(), limit=ROOT_LIMIT, what="the root")
        return {"roles": {**good["roles"], name: value}}

    return {
        "format_2": {"format": 2},
        "version_0": {"version": 0},
        "version_1_with_a_parent": {"version": 1},
        "epoch_0": {"epoch": 0},
        "issued_before_time": {"issued_at": -1},
        "issued_after_all_calendars": {"issued_at": TIME_MAX + 1},
        "issued_after_null": {"issued_after": "never"},
        "lifetime_of_nothing": {"max_lifetime": 0},
        "lifetime_of_less": {"default_lifetime": -1},
        "lifetime_of_all_calendars": {"max_lifetime": TIME_MAX + 1},
        "lifetime_in_words": {"max_lifetime": "72h"},
        "default_beyond_the_longest": {"default_lifetime": 61, "max_lifetime": 60},
        "domain_empty": {"domain": ""},
        "domain_with_a_newline": {"domain": "fleet\n"},
        "domain_that_ends_in_a_space": {"domain": "fleet "},
        "domain_id_short": {"domain_id": bytes(31)},
        "previous_long": {"previous": bytes(33)},
        "salt_short": {"salt": bytes(15)},
        "salt_as_text": {"salt": "x" * 16},
        "releases_perhaps": {"releases": "perhaps"},
        "roles_missing_one": {"roles": {"root": a_role, "mission": a_role}},
        "roles_with_a_fourth": with_role("captain", a_role),
        "role_with_more": with_role("mission", {**a_role, "name": "x"}),
        "role_without_a_key": with_role("mission", {"keys": [], "threshold": 1}),
        "role_that_cannot_be_met": with_role("mission", unmet),
        "root_role_that_cannot_be_met": with_role("root", unmet),
        "threshold_0": with_role("mission", {"keys": [pilot], "threshold": 0}),
        "threshold_9": with_role("mission", {"keys": [pilot], "threshold": 9}),
        "keys_in_another_order": with_role("mission", {"keys": two[::-1], "threshold": 1}),
        "key_twice": with_role("mission", {"keys": [pilot, pilot], "threshold": 2}),
        "key_short": with_role("mission", {"keys": [weak], "threshold": 1}),
        "key_of_order_2": with_role("mission", {"keys": [(2**255 - 20).to_bytes(32, "little")], "threshold": 1}),
        "key_outside_the_subgroup": with_role("root", {"keys": [plus_order_2(pilot)], "threshold": 1}),
        "key_that_is_no_point": with_role("release", {"keys": [b"\x02" + bytes(31)], "threshold": 1}),
        "key_as_text": with_role("mission", {"keys": ["x" * 32], "threshold": 1}),
        "sixty_five_keys": with_role(
            "mission", {"keys": sorted(key(f"key {i}").public.raw for i in range(65)), "threshold": 1}
        ),
        "key_for_release_and_mission": with_role("release", {"keys": [pilot], "threshold": 1}),
        "role_of_builders_without_a_key": with_role("builder", {"keys": [], "threshold": 1}),
        "role_of_builders_that_cannot_be_met": with_role("builder", {"keys": [other], "threshold": 2}),
        "key_for_builder_and_root": with_role("builder", {"keys": [key("root-a").public.raw], "threshold": 1}),
        "key_for_builder_and_mission": with_role("builder", {"keys": [pilot], "threshold": 1}),
        "key_for_builder_and_release": with_role("builder", {"keys": [lab], "threshold": 1}),
        "revoked_key_in_the_role_builder": {
            "revoked": [other], **with_role("builder", {"keys": [other], "threshold": 1})
        },
        "revoked_key_in_the_role_mission": {"revoked": [pilot]},
        "revoked_key_in_the_role_release": {"revoked": [lab]},
        "revoked_key_in_the_role_root": {"revoked": [key("root-a").public.raw]},
        "revoked_twice": {"revoked": [bytes(32), bytes(32)]},
        "revoked_as_text": {"revoked": ["x"]},
        "names_of_nobody": {"names": []},
        "name_of_a_key_in_no_role": {"names": [[key("nobody").public.raw, "Ada"]]},
        "name_of_a_short_key": {"names": [[weak, "Ada"]]},
        "name_of_two_keys": {"names": [[one, "Ada"] for one in sorted([pilot, key("root-a").public.raw])]},
        "two_names_of_a_key": {"names": [[pilot, "Ada"], [pilot, "Ben"]]},
        "names_in_another_order": {
            "names": [[one, f"N{i}"] for i, one in enumerate(sorted([pilot, key("root-a").public.raw])[::-1])]
        },
        "name_with_a_newline": {"names": [[pilot, "Ada\n"]]},
        "name_with_an_escape": {"names": [[pilot, "A\x1b[2Ka"]]},
        "name_that_ends_in_a_space": {"names": [[pilot, "Ada "]]},
        "name_of_33_characters": {"names": [[pilot, "A" * 33]]},
        "name_that_is_empty": {"names": [[pilot, ""]]},
        "name_in_bytes": {"names": [[pilot, b"Ada"]]},
        "name_with_more": {"names": [[pilot, "Ada", "x"]]},
        "names_as_a_map": {"names": {"Ada": pilot}},
        "revoked_more_than_1024": {"revoked": [number.to_bytes(32, "big") for number in range(1025)]},
        "domain_of_65": {"domain": "a" * 65},
        "issued_after_before_time": {"issued_after": -1},
        "issued_after_after_all_calendars": {"issued_after": TIME_MAX + 1},
        "default_of_all_calendars": {"default_lifetime": TIME_MAX + 1},
        "required_releases_nobody_can_sign": {
            "releases": "required", **with_role("release", {"keys": [], "threshold": 1})
        },
        "unknown_key": {"expires": 1},
    }  # fmt: skip


def test_what_keeps_a_bound_exactly_is_read() -> None:
    good = decode(next_root(ROOT).render(), limit=ROOT_LIMIT, what="the root")
    many = sorted(key(f"key {number}").public.raw for number in range(64))
    roles = {**good["roles"], "root": {"keys": many, "threshold": 8}}
    for fields in (
        {"roles": roles},
        {"version": INT_MAX, "epoch": INT_MAX},
        {"domain": "a" * 64},
        {"domain": "Z"},
        {"issued_at": 0, "issued_after": 0},
        {"issued_at": TIME_MAX, "issued_after": TIME_MAX},
        {"default_lifetime": 1, "max_lifetime": 1},
        {"default_lifetime": TIME_MAX, "max_lifetime": TIME_MAX},
        {"revoked": [number.to_bytes(32, "big") for number in range(1024)]},
    ):
        assert TrustRoot.parse(encode(good | fields)).render() == encode(good | fields)


@pytest.mark.parametrize("name", bad_values())
def test_refuses(name: str) -> None:
    good = decode(next_root(ROOT).render(), limit=ROOT_LIMIT, what="the root")
    TrustRoot.parse(encode(good))
    with pytest.raises(Corrupt) as caught:
        TrustRoot.parse(encode(good | bad_values()[name]))
    assert caught.value.fields["kind"] in ("bad-field", "bad-order")


@pytest.mark.parametrize("field", decode(next_root(ROOT).render(), limit=ROOT_LIMIT, what="the root"))
def test_every_field_is_needed_and_typed(field: str) -> None:
    good = decode(next_root(ROOT).render(), limit=ROOT_LIMIT, what="the root")
    with pytest.raises(Corrupt):
        TrustRoot.parse(encode({name: value for name, value in good.items() if name != field}))
    for wrong in (1, "x", b"x", [1], {"x": 1}):
        if type(wrong) is not type(good[field]):
            with pytest.raises(Corrupt):
                TrustRoot.parse(encode({**good, field: wrong}))


def test_a_first_root_has_no_parent() -> None:
    good = decode(ROOT.render(), limit=ROOT_LIMIT, what="the root")
    for field in ("domain_id", "previous"):
        with pytest.raises(Corrupt):
            TrustRoot.parse(encode({**good, field: bytes(32)}))


def test_the_size_is_bounded() -> None:
    with pytest.raises(Corrupt) as caught:
        TrustRoot.parse(bytes(ROOT_LIMIT + 1))
    assert caught.value.fields["kind"] == "too-large"


class TestPinned:
    """A root on its own: signed by its own threshold."""

    TWO = replace(ROOT, root=role("root-a", "root-b", "root-c", threshold=2))

    def test_met(self) -> None:
        assert SignedRoot.parse(sign_root(self.TWO, "root-a", "root-c")).root == self.TWO

    @pytest.mark.parametrize(
        ("names", "kind"),
        [
            ((), "threshold"),
            (("root-a",), "threshold"),
            (("pilot", "lab"), "unknown-signer"),
            (("root-a", "root-b", "stranger"), "unknown-signer"),
        ],
    )
    def test_not_met(self, names: Sequence[str], kind: str) -> None:
        with pytest.raises(Untrusted) as caught:
            SignedRoot.parse(sign_root(self.TWO, *names))
        assert caught.value.fields["kind"] == kind

    def test_a_later_root_may_carry_signatures_of_the_root_before_which_do_not_count(self) -> None:
        later = next_root(self.TWO)
        assert SignedRoot.parse(sign_root(later, "root-a", "root-b", "stranger")).root == later
        with pytest.raises(Untrusted) as caught:
            SignedRoot.parse(sign_root(later, "root-a", "stranger"))
        assert caught.value.fields["kind"] == "threshold"

    def test_a_forged_signature_of_an_own_key(self) -> None:
        envelope = Envelope.parse(sign_root(self.TWO, "root-a", "root-b"), roots.CONTENT_TYPE, ROOT_LIMIT)
        forged = Signature(key("root-c").public.kid, bytes(64))
        with pytest.raises(Untrusted) as caught:
            SignedRoot.parse(envelope.with_signature(forged).render())
        assert caught.value.fields["kind"] == "bad-signature"

    def test_a_manifest_is_no_root(self) -> None:
        data = sign_payload(ROOT.render(), manifests.CONTENT_TYPE, ROOT.aad(AAD_LABEL), ["root-a"])
        with pytest.raises(Corrupt):
            SignedRoot.parse(data)

    def test_a_signature_under_the_label_of_manifests_does_not_count(self) -> None:
        data = sign_payload(ROOT.render(), roots.CONTENT_TYPE, ROOT.aad(manifests.AAD_LABEL), ["root-a"])
        with pytest.raises(Untrusted) as caught:
            SignedRoot.parse(data)
        assert caught.value.fields["kind"] == "bad-signature"


def broken(chain: Sequence[bytes]) -> str:
    with pytest.raises((Corrupt, Untrusted)) as caught:
        advance(pinned(), chain)
    return str(caught.value.fields["kind"])


class TestChain:
    def test_of_no_step_is_the_pinned_root(self) -> None:
        start = pinned()
        assert advance(start, []) is start

    def test_keys_rotate_through_both_thresholds(self) -> None:
        first = replace(ROOT, root=role("a", "b", "c", threshold=2))
        second = next_root(first, root=role("b", "d", "e", threshold=2))
        third = next_root(second, root=role("f"))
        chain = [sign_root(second, "a", "b", "d"), sign_root(third, "d", "e", "f")]
        assert advance(pinned(first, "a", "c"), chain).root == third
        # b is one of two for the old root, though b and d are two for the new one; and the other way round.
        for names in (("b", "d"), ("a", "b")):
            with pytest.raises(Untrusted) as caught:
                advance(pinned(first, "a", "b"), [sign_root(second, *names)])
            assert caught.value.fields["kind"] == "threshold"

    def test_a_rotated_out_key_counts_no_more(self) -> None:
        second = next_root(ROOT, root=role("root-b"))
        third = next_root(second, mission=role("co-pilot"))
        good = sign_root(second, "root-a", "root-b")
        assert advance(pinned(), [good, sign_root(third, "root-b")]).root == third
        assert broken([good, sign_root(third, "root-a", "root-b")]) == "unknown-signer"
        assert broken([good, sign_root(third, "root-a")]) == "threshold"

    def test_self_signed_by_a_new_key_alone(self) -> None:
        assert broken([sign_root(next_root(ROOT, root=role("thief")), "thief")]) == "threshold"

    def test_signed_by_the_old_key_alone(self) -> None:
        assert broken([sign_root(next_root(ROOT, root=role("root-b")), "root-a")]) == "threshold"

    def test_the_root_whose_keys_have_not_signed_is_named(self) -> None:
        step = sign_root(next_root(ROOT, root=role("thief")), "thief")
        with pytest.raises(Untrusted, match="0 of 1 required signatures by root keys of trust root 1"):
            advance(pinned(), [step])

    def test_signed_by_a_stranger_too(self) -> None:
        assert broken([sign_root(next_root(ROOT), "root-a", "stranger")]) == "unknown-signer"

    def test_signed_by_a_key_of_another_role_too(self) -> None:
        assert broken([sign_root(next_root(ROOT), "root-a", "pilot")]) == "unknown-signer"

    @pytest.mark.parametrize("version", [1, 3, 4, INT_MAX])
    def test_a_version_is_skipped_or_repeated(self, version: int) -> None:
        step = replace(next_root(ROOT), version=version)
        if version == 1:
            step = ROOT
        assert broken([sign_root(step, "root-a")]) == "bad-trust-chain"

    def test_a_gap(self) -> None:
        second = next_root(ROOT)
        third = next_root(second)
        assert broken([sign_root(third, "root-a")]) == "bad-trust-chain"
        assert broken([sign_root(third, "root-a"), sign_root(second, "root-a")]) == "bad-trust-chain"

    def test_an_older_root_cannot_follow_a_newer_one(self) -> None:
        second = next_root(ROOT)
        with pytest.raises(Untrusted):
            advance(pinned(second, "root-a"), [sign_root(second, "root-a")])

    def test_a_branch(self) -> None:
        second, other = next_root(ROOT), next_root(ROOT, epoch=2)
        third = next_root(other)
        assert advance(pinned(), [sign_root(other, "root-a"), sign_root(third, "root-a")]).root == third
        assert broken([sign_root(second, "root-a"), sign_root(third, "root-a")]) == "bad-trust-chain"

    @pytest.mark.parametrize("label", ["ridge fleet 2", "Ridge fleet", "r"])
    def test_another_label_of_the_domain(self, label: str) -> None:
        assert broken([sign_root(next_root(ROOT, domain=label), "root-a")]) == "bad-trust-chain"

    def test_the_root_before_by_another_digest(self) -> None:
        assert broken([sign_root(next_root(ROOT, previous=bytes(32)), "root-a")]) == "bad-trust-chain"

    def test_another_salt(self) -> None:
        assert broken([sign_root(next_root(ROOT, salt=bytes(16)), "root-a")]) == "bad-trust-chain"

    def test_a_salt_alone_makes_another_domain(self) -> None:
        twin = replace(ROOT, salt=bytes(16))
        assert twin.domain_id != ROOT.domain_id
        assert broken([sign_root(next_root(twin), "root-a")]) == "bad-trust-chain"

    def test_another_domain(self) -> None:
        other = replace(ROOT, domain="valley fleet")
        assert broken([sign_root(next_root(other), "root-a")]) == "bad-trust-chain"
        assert broken([sign_root(next_root(ROOT, parent_domain=other.digest), "root-a")]) == "bad-trust-chain"

    def test_a_signature_made_for_another_domain(self) -> None:
        other = replace(ROOT, domain="valley fleet")
        second = next_root(ROOT)
        data = sign_payload(second.render(), roots.CONTENT_TYPE, other.aad(AAD_LABEL), ["root-a"])
        assert broken([data]) == "bad-signature"

    def test_a_revocation_taken_back(self) -> None:
        stolen, lost = key("stolen").public, key("lost").public
        second = next_root(ROOT, revoked=(stolen,))
        start = sign_root(second, "root-a")
        longer = next_root(second, revoked=tuple(sorted((stolen, lost))))
        assert advance(pinned(), [start, sign_root(longer, "root-a")]).root == longer
        assert broken([start, sign_root(next_root(second, revoked=()), "root-a")]) == "bad-trust-chain"
        assert broken([start, sign_root(next_root(second, revoked=(lost,)), "root-a")]) == "bad-trust-chain"
        back_in_a_role = next_root(second, revoked=(), mission=role("pilot", "stolen"))
        assert broken([start, sign_root(back_in_a_role, "root-a")]) == "bad-trust-chain"

    def test_a_key_that_the_new_root_revokes_may_sign_it_for_the_old_one(self) -> None:
        second = next_root(ROOT, root=role("root-b"), revoked=(key("root-a").public,))
        assert advance(pinned(), [sign_root(second, "root-a", "root-b")]).root == second

    def test_an_epoch_taken_back(self) -> None:
        second = next_root(ROOT, epoch=5)
        start = sign_root(second, "root-a")
        assert advance(pinned(), [start, sign_root(next_root(second), "root-a")]).root.epoch == 5
        assert broken([start, sign_root(next_root(second, epoch=4), "root-a")]) == "bad-trust-chain"

    def test_one_bad_step_refuses_the_good_ones_before_it(self) -> None:
        second = next_root(ROOT)
        assert broken([sign_root(second, "root-a"), b"garbage"]) == "bad-envelope"

    def test_its_length(self) -> None:
        current, chain = ROOT, []
        for _ in range(MAX_STEPS):
            current = next_root(current)
            chain.append(sign_root(current, "root-a"))
        assert advance(pinned(), chain).root == current
        chain.append(sign_root(next_root(current), "root-a"))
        assert broken(chain) == "bad-trust-chain"

    def test_one_flipped_bit_anywhere_in_a_step(self) -> None:
        good = sign_root(next_root(ROOT), "root-a")
        start = pinned()
        for at in range(len(good)):
            bad = good[:at] + bytes([good[at] ^ (1 << at % 8)]) + good[at + 1 :]
            with pytest.raises((Corrupt, Untrusted)):
                advance(start, [bad])


ENVELOPE = Envelope(manifests.CONTENT_TYPE, b"a payload")
LABEL = manifests.AAD_LABEL
CREW = next_root(
    replace(ROOT, mission=role("pilot", "co-pilot", "navigator", threshold=2)), revoked=(key("thief").public,)
)


def signed(*names: str, root: TrustRoot = CREW) -> Envelope:
    envelope = ENVELOPE
    for name in names:
        envelope = sign(envelope, key(name), root.aad(LABEL))
    return envelope


def refused(envelope: Envelope, root: TrustRoot = CREW) -> str:
    with pytest.raises(Untrusted) as caught:
        check_signatures(envelope, root, LABEL, "mission", "it")
    return str(caught.value.fields["kind"])


class TestMissionSignatures:
    @pytest.mark.parametrize("names", [("pilot", "co-pilot"), ("pilot", "co-pilot", "navigator")])
    def test_enough(self, names: Sequence[str]) -> None:
        check_signatures(signed(*names), CREW, LABEL, "mission", "it")

    @pytest.mark.parametrize(
        ("names", "kind"),
        [
            ((), "threshold"),
            (("pilot",), "threshold"),
            (("pilot", "co-pilot", "stranger"), "unknown-signer"),
            (("stranger",), "unknown-signer"),
            (("pilot", "co-pilot", "thief"), "revoked-key"),
            (("thief",), "revoked-key"),
            (("pilot", "co-pilot", "root-a"), "wrong-role"),
            (("pilot", "lab"), "wrong-role"),
        ],
    )
    def test_not_enough_or_too_much(self, names: Sequence[str], kind: str) -> None:
        assert refused(signed(*names)) == kind

    def test_one_key_twice_is_one(self) -> None:
        (once,) = signed("pilot").signatures
        assert refused(replace(ENVELOPE, signatures=(once, once))) == "threshold"
        with pytest.raises(Corrupt) as caught:
            Envelope.parse(replace(ENVELOPE, signatures=(once, once)).render(), manifests.CONTENT_TYPE, 1000)
        assert caught.value.fields["kind"] == "bad-order"

    def test_one_signature_under_two_kids(self) -> None:
        (once,) = signed("pilot").signatures
        again = replace(once, kid=key("co-pilot").public.kid)
        assert refused(signed("pilot").with_signature(again)) == "bad-signature"

    def test_good_ones_and_a_forged_one(self) -> None:
        forged = Signature(key("navigator").public.kid, bytes(64))
        assert refused(signed("pilot", "co-pilot").with_signature(forged)) == "bad-signature"

    def test_of_another_payload(self) -> None:
        assert refused(replace(signed("pilot", "co-pilot"), payload=b"another payload")) == "bad-signature"

    def test_of_another_domain(self) -> None:
        other = replace(CREW, parent_domain=bytes(32))
        assert refused(signed("pilot", "co-pilot", root=other)) == "bad-signature"

    def test_a_key_that_is_in_two_roles_may_sign_in_its_role(self) -> None:
        both = replace(CREW, root=role("pilot", "root-a"))
        check_signatures(signed("pilot", "co-pilot", root=both), both, LABEL, "mission", "it")

    def test_a_key_of_small_order_signs_nothing(self) -> None:
        """Not even where a root names it, which none that is read does."""
        weak = PublicKey((2**255 - 20).to_bytes(32, "little"))
        root = replace(CREW, mission=Role((weak,), 1))
        forged = Signature(weak.kid, (1).to_bytes(32, "little") + bytes(32))
        assert refused(ENVELOPE.with_signature(forged), root) == "bad-signature"


def test_known_keys_may_sign_and_are_not_counted() -> None:
    envelope, aad = signed("pilot", "co-pilot"), CREW.aad(LABEL)
    pilot, copilot = key("pilot").public, key("co-pilot").public
    assert count_signers(envelope, aad, [pilot, copilot]) == 2
    assert count_signers(envelope, aad, [pilot, pilot], admitted=[copilot]) == 1
    assert count_signers(envelope, aad, [], admitted=[pilot, copilot]) == 0
    assert count_signers(envelope, aad, [pilot], ignore_unknown=True) == 1
    with pytest.raises(Untrusted):
        count_signers(envelope, aad, [pilot])


def test_nothing_is_rendered_that_would_not_parse() -> None:
    every: list[dict[str, Any]] = [
        {"version": 0},
        {"mission": Role((), 1)},
        {"revoked": ROOT.mission.keys},
        {"releases": "x"},
    ]
    for changes in every:
        with pytest.raises((Corrupt, Invalid)):
            replace(ROOT, **changes).render()


def test_what_lacks_signatures_names_those_that_it_has() -> None:
    root = replace(ROOT, mission=role("pilot", "copilot", threshold=2), names=((key("pilot").public, "Pia"),))
    kid = key("pilot").public.kid.hex()[:12]
    for names, signers in ((["pilot"], rf" \({kid} \(Pia\)\)$"), ([], "trust root 1$")):
        envelope = Envelope.parse(sign_payload(b"x", "text/x", root.aad("x"), names), "text/x", 1)
        with pytest.raises(Untrusted, match=f"{len(names)} of 2 required signatures by mission keys of .*{signers}"):
            check_signatures(envelope, root, "x", "mission", "it")
