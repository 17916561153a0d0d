"""Key files: what is written is strong and standard, and what is read is bounded before any of it is done."""

from __future__ import annotations

import base64
import subprocess
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import Invalid
from store.trust import key_file
from store.trust.key_file import MAX_ROUNDS, ROUNDS, Protection, armoured, block
from store.trust.keys import PrivateKey
from tests.support.missions import key

PASSPHRASE = b"correct horse battery"


def der_of(pem: bytes) -> bytes:
    return base64.b64decode(b"".join(pem.splitlines()[1:-1]))


def of_openssl(folder: Path, *options: str) -> bytes:
    """The private key of ada, as openssl encrypts it."""
    (folder / "plain").write_bytes(key("ada").pem(None))
    secret = ("-passout", f"pass:{PASSPHRASE.decode()}")
    command = ["openssl", "pkcs8", "-topk8", "-in", folder / "plain", *secret, *options]
    return subprocess.run(command, capture_output=True, check=True).stdout


@given(st.sampled_from(["PUBLIC KEY", "PRIVATE KEY", "X"]), st.binary(min_size=1, max_size=200))
def test_a_block_reads_back(label: str, der: bytes) -> None:
    assert block(armoured(label, der)) == (label, der)
    assert block(armoured(label, der).replace(b"\n", b"\r\n")) == (label, der)
    assert block(armoured(label, der)[:-1]) == (label, der)


@given(st.data())
def test_one_other_byte_is_no_block_or_another_one(data: st.DataObject) -> None:
    whole = armoured("PUBLIC KEY", bytes(44))
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:at] + data.draw(st.binary(min_size=1, max_size=1)) + whole[at + 1 :]
    try:
        read = block(changed)
    except Invalid:
        return
    assert (read == ("PUBLIC KEY", bytes(44))) == (changed == whole)


class TestWritten:
    def test_it_is_600_000_rounds_of_a_modern_hash_and_no_weakness(self) -> None:
        assert ROUNDS >= 600_000
        label, der = block(key("ada").pem(PASSPHRASE))
        assert label == "ENCRYPTED PRIVATE KEY"
        protection = Protection.of(der)
        assert (protection.rounds, protection.weaknesses) == (ROUNDS, ())

    def test_openssl_and_the_library_read_it(self, tmp_path: Path) -> None:
        (tmp_path / "key").write_bytes(key("ada").pem(PASSPHRASE))
        command = ("openssl", "pkey", "-in", tmp_path / "key", "-passin", f"pass:{PASSPHRASE.decode()}", "-pubout")
        assert subprocess.run(command, capture_output=True, check=True).stdout == key("ada").public.pem()
        assert load_pem_private_key((tmp_path / "key").read_bytes(), PASSPHRASE)

    def test_two_files_share_neither_salt_nor_vector(self) -> None:
        one, two = key("ada").pem(PASSPHRASE), key("ada").pem(PASSPHRASE)
        assert one != two
        assert der_of(one)[-64:] != der_of(two)[-64:]

    @given(st.binary(max_size=200))
    @settings(deadline=None, max_examples=10)
    def test_any_content(self, content: bytes) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(key_file, "ROUNDS", 1000)
            _, der = block(key_file.encrypted(content, PASSPHRASE))
            assert Protection.of(der).rounds == 1000


class TestRead:
    @pytest.mark.parametrize(
        "options",
        [
            *((), ("-iter", "100000"), ("-v2", "aes-128-cbc"), ("-v2prf", "hmacWithSHA512"), ("-scrypt",)),
            *(("-v2prf", "hmacWithSHA1"), ("-v2", "des3")),
        ],
        ids=str,
    )
    def test_what_openssl_writes_is_read(self, tmp_path: Path, options: tuple[str, ...]) -> None:
        assert PrivateKey.of_pem(of_openssl(tmp_path, *options), PASSPHRASE).public == key("ada").public

    def test_another_scheme(self, tmp_path: Path) -> None:
        with pytest.raises(Invalid, match="PBKDF2 or scrypt"):
            PrivateKey.of_pem(of_openssl(tmp_path, "-v1", "PBE-SHA1-3DES"), PASSPHRASE)

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            (("-iter", "100000"), ["100000 rounds"]),
            (("-iter", str(ROUNDS)), []),
            (("-iter", str(ROUNDS), "-v2", "aes-128-cbc"), []),
            (("-iter", str(ROUNDS), "-v2prf", "hmacWithSHA1"), ["SHA-1"]),
            (("-iter", str(ROUNDS), "-v2", "des3"), ["not AES"]),
            (("-scrypt",), ["N*r*p = 131072"]),
            (("-scrypt", "-scrypt_N", "16384", "-scrypt_r", "8", "-scrypt_p", "8"), []),
            (("-v2prf", "hmacWithSHA1", "-v2", "des3"), ["2048 rounds", "SHA-1", "not AES"]),
        ],
        ids=str,
    )
    def test_weaknesses(self, tmp_path: Path, options: tuple[str, ...], says: list[str]) -> None:
        weaknesses = Protection.of(block(of_openssl(tmp_path, *options))[1]).weaknesses
        assert len(weaknesses) == len(says)
        for text, word in zip(weaknesses, says, strict=True):
            assert word in text

    @pytest.mark.parametrize("rounds", [MAX_ROUNDS + 1, 2**31, 2**31 - 1, 2**63 - 1, 2**64, 2**520])
    def test_rounds_without_end(self, rounds: int) -> None:
        number = rounds.to_bytes(rounds.bit_length() // 8 + 1)
        bad = altered(key("ada").pem(PASSPHRASE), ROUNDS.to_bytes(3), number)
        start = time.monotonic()
        with pytest.raises(Invalid, match="at most 10000000"):
            PrivateKey.of_pem(bad, PASSPHRASE)
        with pytest.raises(Invalid, match="at most 10000000"):
            PrivateKey.of_pem(bad, None)
        assert time.monotonic() - start < 5

    @pytest.mark.parametrize(("n", "r", "p"), [(2**22, 8, 1), (2**14, 2**20, 1), (2**14, 8, 2**10), (2**62, 8, 1)])
    def test_scrypt_without_end(self, tmp_path: Path, n: int, r: int, p: int) -> None:
        bad = altered(
            of_openssl(tmp_path, "-scrypt"), b"\x02\x02\x40\x00\x02\x01\x08\x02\x01\x01", numbers(n, r, p), tag=False
        )
        with pytest.raises(Invalid, match="asks for scrypt"):
            PrivateKey.of_pem(bad, PASSPHRASE)

    def test_a_derived_key_of_gigabytes(self, tmp_path: Path) -> None:
        """PBKDF2 does all of its rounds again for each 32 bytes that it is asked for."""
        for scrypt in (False, True):
            options = ("-scrypt",) if scrypt else ()
            before = b"\x02\x01\x08\x02\x01\x01" if scrypt else b"\x02\x02\x08\x00"
            bad = altered(of_openssl(tmp_path, *options), before, before + numbers(2**31), tag=False)
            with pytest.raises(Invalid, match="PBKDF2 or scrypt"):
                PrivateKey.of_pem(bad, PASSPHRASE)

    def test_damage_is_never_another_error(self, tmp_path: Path) -> None:
        der = der_of(of_openssl(tmp_path))
        # The parameters of the encryption lie at the front; every 7th byte of the rest will do.
        for at in sorted({*range(60), *range(60, len(der), 7)}):
            bad = bytearray(der)
            bad[at] ^= 0x40
            try:
                read = PrivateKey.of_pem(armoured("ENCRYPTED PRIVATE KEY", bytes(bad)), PASSPHRASE)
            except Invalid:
                continue
            assert isinstance(read, PrivateKey)


def numbers(*values: int) -> bytes:
    """INTEGERs of DER."""
    return b"".join(
        b"\x02" + bytes([len(data)]) + data
        for value in values
        for data in [value.to_bytes(value.bit_length() // 8 + 1)]
    )


def altered(pem: bytes, old: bytes, new: bytes, *, tag: bool = True) -> bytes:
    """An encrypted key with other parameters, the lengths of all items around them made right."""
    if tag:
        old, new = (b"\x02" + bytes([len(number)]) + number for number in (old, new))

    def changed(data: bytes) -> bytes:
        """The items of a constructed one."""
        result = b""
        while data:
            tag, length, start = data[0], data[1], 2
            if length > 127:
                start += length & 127
                length = int.from_bytes(data[2:start])
            content, whole = data[start : start + length], data[: start + length]
            if data.startswith(old):
                result, data = result + new, data[len(old) :]
                continue
            if tag == 0x30 and old in content:
                inner = changed(content)
                size = bytes([len(inner)]) if len(inner) < 128 else b"\x82" + len(inner).to_bytes(2)
                if 128 <= len(inner) < 256:
                    size = b"\x81" + bytes([len(inner)])
                whole = bytes([tag]) + size + inner
            result, data = result + whole, data[start + length :]
        return result

    bad = changed(der_of(pem))
    assert bad != der_of(pem)
    return armoured("ENCRYPTED PRIVATE KEY", bad)
