"""Key files at their bounds: an encryption of exactly so much work is read and judged, one of a little more is not."""

from __future__ import annotations

import pytest

from store.errors import Invalid
from store.trust import key_file
from store.trust.key_file import ENCRYPTED, Protection, block, check_passphrase

PBES2, PBKDF2 = bytes.fromhex("2a864886f70d01050d"), bytes.fromhex("2a864886f70d01050c")
SCRYPT = bytes.fromhex("2b06010401da47040b")
SHA1, SHA256 = bytes.fromhex("2a864886f70d0207"), bytes.fromhex("2a864886f70d0209")
AES_256 = bytes.fromhex("60864801650304012a")
SEQUENCE, INTEGER, OCTETS, NULL, OID = 0x30, 0x02, 0x04, 0x05, 0x06


def item(tag: int, *parts: bytes) -> bytes:
    """An item of DER of less than 256 bytes."""
    content = b"".join(parts)
    return bytes([tag, *([0x81] if len(content) > 127 else []), len(content)]) + content


def number(value: int) -> bytes:
    return item(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def algorithm(oid: bytes, *parameters: bytes) -> bytes:
    return item(SEQUENCE, item(OID, oid), *parameters)


PRF = algorithm(SHA256, item(NULL))
CIPHER = algorithm(AES_256, item(OCTETS, bytes(16)))


def info(derivation: bytes, *more: bytes, scheme: bytes = PBES2, cipher: bytes = CIPHER) -> bytes:
    """An EncryptedPrivateKeyInfo (RFC 5958, section 3)."""
    return item(SEQUENCE, algorithm(scheme, item(SEQUENCE, derivation, cipher)), item(OCTETS, bytes(64)), *more)


def derived(function: bytes, *parameters: bytes) -> bytes:
    return info(algorithm(function, item(SEQUENCE, item(OCTETS, bytes(16)), *parameters)))


def pbkdf2(rounds: int, prf: bytes, *, aes: bool = True) -> Protection:
    return Protection("PBKDF2", rounds, None, prf, aes=aes)


def scrypt(n: int, r: int, p: int) -> Protection:
    return Protection("scrypt", None, (n, r, p), b"", aes=True)


def read(der: bytes) -> Protection:
    protection = Protection.of(ENCRYPTED, der)
    assert protection is not None
    return protection


def test_the_numbers() -> None:
    assert key_file.KEY_FILE_LIMIT == 16_384
    assert key_file.ROUNDS == 600_000
    assert (key_file.MAX_SCRYPT_MEMORY, key_file.MAX_SCRYPT_WORK) == (268_435_456, 8_388_608)
    assert (key_file.LEAST_PASSPHRASE, key_file.MAX_PASSPHRASE) == (15, 1023)


@pytest.mark.parametrize("passphrase", ["p" * 15, "ü" * 15, "p" * 1023])
def test_a_passphrase_of_the_least_and_of_the_most(passphrase: str) -> None:
    check_passphrase(passphrase.encode())


@pytest.mark.parametrize("passphrase", ["", "p" * 14, "ü" * 14, "p" * 1024, "ü" * 512])
def test_a_passphrase_of_one_less_or_one_more(passphrase: str) -> None:
    with pytest.raises(Invalid):
        check_passphrase(passphrase.encode())


class TestPbkdf2:
    @pytest.mark.parametrize(("parameters", "prf"), [([], SHA1), ([PRF], SHA256), ([number(64), PRF], SHA256)])
    def test_the_length_and_the_prf_may_be_absent(self, parameters: list[bytes], prf: bytes) -> None:
        protection = read(derived(PBKDF2, number(10_000_000), *parameters))
        assert protection == pbkdf2(10_000_000, prf)

    @pytest.mark.parametrize(
        "parameters",
        [
            [number(10_000_001)],
            [number(1), number(65)],
            [],
            [number(1), PRF, number(1)],
            [number(1), number(1), number(1)],
            [item(OCTETS, b"1")],
        ],
        ids=["rounds", "length", "none", "more", "two lengths", "no number"],
    )
    def test_what_is_not_read(self, parameters: list[bytes]) -> None:
        with pytest.raises(Invalid):
            read(derived(PBKDF2, *parameters))

    @pytest.mark.parametrize(("rounds", "weak"), [(599_999, True), (600_000, False), (600_001, False)])
    def test_fewer_rounds_than_are_written_are_weak(self, rounds: int, weak: bool) -> None:
        assert bool(read(derived(PBKDF2, number(rounds), PRF)).weaknesses) is weak


@pytest.mark.parametrize("rounds", [1, 127, 128, 255, 256, 32_768, 600_000])
def test_what_is_written_is_der(monkeypatch: pytest.MonkeyPatch, rounds: int) -> None:
    """Every number in its shortest form (X.690, 8.3.2): a strict reader takes no other."""
    monkeypatch.setattr(key_file, "ROUNDS", rounds)
    label, der = block(key_file.encrypted(bytes(48), b"p" * 15))
    assert (label, read(der)) == ("ENCRYPTED PRIVATE KEY", pbkdf2(rounds, SHA256))
    assert number(rounds) + PRF in der
    assert CIPHER[:-16] in der
    assert der.endswith(item(OCTETS, der[-64:])), "48 bytes, padded"


class TestScrypt:
    @pytest.mark.parametrize(
        "numbers",
        [(2**18, 8, 1), (2**18, 8, 4), (2, 1, 2**22), (2**14, 8, 1, 64), (1, 1, 1, 0)],
    )
    def test_what_is_read(self, numbers: tuple[int, ...]) -> None:
        protection = read(derived(SCRYPT, *map(number, numbers)))
        assert protection == scrypt(numbers[0], numbers[1], numbers[2])

    @pytest.mark.parametrize(
        "numbers",
        [
            (2**18, 9, 1),
            (2**18 + 1, 8, 1),
            (2**18, 8, 5),
            (2, 1, 2**22 + 1),
            (2**14, 8, 1, 65),
            (2, 1, 1, 1, 1),
            (2, 1),
        ],
    )
    def test_what_is_not_read(self, numbers: tuple[int, ...]) -> None:
        with pytest.raises(Invalid):
            read(derived(SCRYPT, *map(number, numbers)))

    @pytest.mark.parametrize(("p", "weak"), [(7, True), (8, False), (9, False)])
    def test_less_work_than_the_least_is_weak(self, p: int, weak: bool) -> None:
        assert bool(read(derived(SCRYPT, *map(number, (2**14, 8, p)))).weaknesses) is weak

    def test_a_number_that_is_something_else(self) -> None:
        with pytest.raises(Invalid):
            read(derived(SCRYPT, number(2), number(1), item(OCTETS, b"\x01")))


@pytest.mark.parametrize("last", [8, 9, 10, 11, 12, 13])
def test_the_hashes_of_sha_2_are_no_weakness(last: int) -> None:
    prf = bytes.fromhex(f"2a864886f70d02{last:02x}")
    assert pbkdf2(600_000, prf).weaknesses == ()


def test_sha_1_is_a_weakness() -> None:
    assert len(pbkdf2(600_000, SHA1).weaknesses) == 1


@pytest.mark.parametrize("last", [6, 14])
def test_other_hashes_are_not_read(last: int) -> None:
    prf = algorithm(bytes.fromhex(f"2a864886f70d02{last:02x}"), item(NULL))
    with pytest.raises(Invalid, match="another PRF"):
        read(derived(PBKDF2, number(600_000), prf))


@pytest.mark.parametrize("last", [0x02, 0x16, 0x2A])
def test_aes_in_cbc_is_no_weakness(last: int) -> None:
    cipher = algorithm(bytes.fromhex(f"6086480165030401{last:02x}"), item(OCTETS, bytes(16)))
    derivation = algorithm(PBKDF2, item(SEQUENCE, item(OCTETS, bytes(16)), number(600_000), PRF))
    assert read(info(derivation, cipher=cipher)) == pbkdf2(600_000, SHA256)


@pytest.mark.parametrize("last", [0x01, 0x2B])
def test_other_modes_of_aes_are_not_read(last: int) -> None:
    cipher = algorithm(bytes.fromhex(f"6086480165030401{last:02x}"), item(OCTETS, bytes(16)))
    with pytest.raises(Invalid, match="another cipher"):
        read(info(GOOD, cipher=cipher))


def test_a_cipher_but_aes_is_a_weakness() -> None:
    assert pbkdf2(600_000, SHA256, aes=False).weaknesses == ("the cipher is not AES",)


GOOD = algorithm(PBKDF2, item(SEQUENCE, item(OCTETS, bytes(16)), number(1), PRF))


def test_the_structure() -> None:
    assert read(info(GOOD)).rounds == 1
    other = bytes.fromhex("2a864886f70d01050e")
    for bad in (
        info(GOOD, scheme=other),
        info(algorithm(other, item(SEQUENCE, item(OCTETS, bytes(16)), number(1), PRF))),
        info(item(OCTETS, GOOD)),
        info(algorithm(PBKDF2, item(SEQUENCE, number(1)))),
        info(algorithm(PBKDF2, item(SEQUENCE, item(OCTETS, bytes(16)), number(1)), number(1))),
        info(GOOD, cipher=CIPHER + number(1)),
        info(GOOD, cipher=b""),
        info(GOOD) + number(1),
        info(GOOD)[:-1],
        b"",
        b"\x30",
        b"\x31" + info(GOOD)[1:],
    ):
        with pytest.raises(Invalid, match="is not encrypted in a way that is read"):
            read(bad)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65_535, 65_536])
def test_an_item_reads_back_with_a_length_of_any_size(size: int) -> None:
    whole = key_file._item(OCTETS, bytes(size))
    assert key_file._take(whole + b"rest", OCTETS) == (bytes(size), b"rest")
    head = len(whole) - size
    assert head == 2 + (size > 127) + (size > 255) + (size > 65_535)


def test_lines_have_64_characters() -> None:
    lines = key_file.armoured(ENCRYPTED, bytes(96)).splitlines()
    assert [len(line) for line in lines[1:-1]] == [64, 64]
    assert block(key_file.armoured(ENCRYPTED, bytes(97)))[1] == bytes(97)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no PEM block"),
        (key_file.armoured("X", b"a") * 2, "2 PEM blocks"),
        (key_file.armoured("X", b"a") + b"more", "more than a PEM block"),
        (key_file.armoured("X", b"a").replace(b"=", b""), "not base64"),
        (key_file.armoured("X", b"a").replace(b"YQ==", b"YR=="), "canonical"),
    ],
)
def test_what_is_found_instead_of_a_block(data: bytes, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        block(data)
