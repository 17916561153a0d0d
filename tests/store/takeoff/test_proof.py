"""Proofs of one entry, releases, codes and the past: laws and edges. What attackers do is in tests/conformance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.disk.media import Media
from store.errors import Conflict, Corrupt, FlightbagError, Invalid, NotFound, Untrusted
from store.format.release import Approval, Release
from store.ground import releases
from store.ground.as_of import EvidenceAsOf, check_pinned
from store.ground.gc import collect
from store.ground.repository import Repository
from store.takeoff.code import short_code
from store.takeoff.mission import Binding, Opened
from store.takeoff.proof import PROOF_LIMIT, Proof, prove
from store.takeoff.verify import verify_mission
from tests.support.missions import NOW, ROOT, flight, key, next_root, pinned, sign_root
from tests.support.stores import ENGINE, NORTH, audit, later, make_store, publish

APPROVAL = Approval.of(NORTH.entry(ENGINE))


class TestProof:
    @given(count=st.integers(1, 70), index=st.integers(0, 69))
    def test_every_entry_of_every_mission(self, count: int, index: int) -> None:
        one = flight({f"files/x/{number}": b"%d" % number for number in range(count)})
        opened = Opened(one.manifest, one.manifest_id, len(one.signed), one.table, ROOT)
        entry = one.table.entries[index % count]
        data = Proof.of(opened, one.signed, [], entry.name).render()
        assert len(data) < PROOF_LIMIT
        assert Proof.parse(data).render() == data
        shown = prove(Proof.parse(data), pinned())
        assert (shown.entry, shown.manifest) == (entry, one.manifest)

    def test_no_such_entry(self) -> None:
        opened = Opened(NORTH.manifest, NORTH.manifest_id, len(NORTH.signed), NORTH.table, ROOT)
        with pytest.raises(NotFound):
            Proof.of(opened, NORTH.signed, [], "files/none")

    def test_roots_before_the_pinned_one_are_passed_over(self) -> None:
        second = next_root(ROOT)
        third = next_root(second)
        opened = Opened(NORTH.manifest, NORTH.manifest_id, len(NORTH.signed), NORTH.table, ROOT)
        files = [sign_root(second, "root-a"), sign_root(third, "root-a")]
        proof = Proof.of(opened, NORTH.signed, files, ENGINE)
        for root, names in ((ROOT, ()), (second, ("root-a",)), (third, ("root-a",))):
            assert prove(proof, pinned(root, *names)).root.root == third

    @given(st.binary(max_size=300))
    def test_arbitrary_bytes(self, data: bytes) -> None:
        with pytest.raises(FlightbagError):
            Proof.parse(data)


class TestReleases:
    @pytest.fixture
    def store(self, tmp_path: Path) -> Path:
        return make_store(tmp_path / "store")

    def test_a_release_is_known_by_its_name_and_kept(self, store: Path) -> None:
        data, count = releases.signed(releases.drafted("winter", "cpu-x86_64", [APPROVAL], now=NOW), ROOT, [key("lab")])
        assert count == 1
        with Repository.open(store) as repository:
            id_ = releases.add(repository, data)
            assert releases.add(repository, data) == id_
            assert releases.listed(repository) == {"winter": id_}
            collect(repository, now=NOW + 10**9, keep_last=1)
            assert releases.approving(repository, ROOT, [APPROVAL]) == ((id_,), ())
            other = replace(APPROVAL, size=1)
            assert releases.approving(repository, ROOT, [APPROVAL, other]) == ((id_,), (other,))
        assert not [one for one in audit(store).findings if not one.information]

    def test_another_of_the_same_name(self, store: Path) -> None:
        with Repository.open(store) as repository:
            for now, expected in ((NOW, None), (NOW + 1, Conflict)):
                made = releases.drafted("winter", "cpu-x86_64", [APPROVAL], now=now)
                data, _ = releases.signed(made, ROOT, [key("lab")])
                if expected is None:
                    releases.add(repository, data)
                    continue
                with pytest.raises(expected):
                    releases.add(repository, data)

    def test_the_last_one_of_several_is_relied_on(self, store: Path) -> None:
        with Repository.open(store) as repository:
            for number in range(3):
                made = releases.drafted(f"r{number}", "cpu-x86_64", [APPROVAL], now=NOW + number)
                last = releases.add(repository, releases.signed(made, ROOT, [key("lab")])[0])
            assert releases.approving(repository, ROOT, [APPROVAL]) == ((last,), ())

    def test_unsigned(self, store: Path) -> None:
        with Repository.open(store) as repository, pytest.raises(Untrusted):
            releases.add(repository, releases.drafted("winter", "cpu-x86_64", [APPROVAL], now=NOW))
        assert audit(store).findings == ()

    @pytest.mark.parametrize(
        ("name", "host", "approvals"),
        [
            ("Winter", "cpu", [APPROVAL]),
            ("winter", "b+a", [APPROVAL]),
            ("winter", "cpu-aarch64", [APPROVAL]),
            ("w", "cpu", []),
        ],
    )
    def test_what_cannot_be(self, name: str, host: str, approvals: list[Approval]) -> None:
        with pytest.raises(Invalid):
            releases.drafted(name, host, approvals, now=NOW)

    @given(
        st.lists(
            st.builds(
                Approval,
                st.from_regex(r"engines/[a-z]{1,5}/[a-z]{1,5}\.onnx", fullmatch=True),
                st.just("engine"),
                st.just(APPROVAL.id),
                st.integers(0, 2**60),
                st.sampled_from(["cpu", "cpu-x86_64"]),
            ),
            min_size=1,
            max_size=8,
            unique=True,
        )
    )
    def test_comes_back_as_it_was(self, approvals: list[Approval]) -> None:
        made = Release("winter", NOW, "cpu-x86_64", tuple(sorted(approvals)))
        assert Release.parse(made.render()) == made

    @given(st.binary(max_size=200))
    def test_arbitrary_bytes(self, data: bytes) -> None:
        with pytest.raises(Corrupt):
            Release.parse(data)


class TestPast:
    def test_as_it_was_at_each_time(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "store", NORTH)
        newer = later(NORTH)
        publish(store, newer)
        log = store / "log"
        with Media(store) as media:
            from store.disk.log import events

            first, second = (event.at for event in events(media) if event.event == "published")
            found = {}
            for at in (first - 1, first, second):
                verdict = verify_mission(EvidenceAsOf(media, at), NORTH.id, pinned(), Binding(NOW))
                found[at] = None if verdict.mission is None else verdict.mission.manifest_id
        assert found[first - 1] is None
        assert found[second] == newer.manifest_id
        assert log.exists()

    def test_a_root_that_was_not_there_yet(self) -> None:
        check_pinned(pinned(), ROOT.issued_at)
        with pytest.raises(Invalid):
            check_pinned(pinned(), ROOT.issued_at - 1)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_a_code_is_ten_characters_of_crockford(a: bytes, b: bytes) -> None:
    code = short_code(a, b)
    assert len(code) == 11
    assert set(code) <= set("0123456789ABCDEFGHJKMNPQRSTVWXYZ-")
    assert (short_code(b, a) == code) == (a == b)


def test_the_code_of_known_digests() -> None:
    """Golden: two crews must read the same."""
    assert short_code(bytes(32)) == "XBZY5-2GJ7Z"
    assert short_code(bytes(range(32)), bytes(32)) == "FPYEK-EACHM"
