"""Key files: what is written is strong and standard, and what is read is bounded before any of it is done."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from hypothesis import given, settings
from hypothesis import strategies as st

from store.errors import Invalid
from store.installation import install_remedy
from store.trust import key_file
from store.trust.key_file import (
    KEY_NAME,
    MAX_BCRYPT_ROUNDS,
    MAX_ROUNDS,
    ROUNDS,
    Protection,
    armoured,
    block,
    name_in,
    named,
)
from store.trust.keys import PassphraseNeeded, PrivateKey, PublicKey
from tests.support.missions import key

PASSPHRASE = b"correct horse battery"
# The ciphers before AES lie in a module of their own.
PROVIDERS = ("-provider", "legacy", "-provider", "default")


def der_of(pem: bytes) -> bytes:
    return base64.b64decode(b"".join(pem.splitlines()[1:-1]))


def of_openssl(folder: Path, *options: str) -> bytes:
    """The private key of ada, as openssl encrypts it."""
    (folder / "plain").write_bytes(key("ada").pem(None))
    secret = ("-passout", f"pass:{PASSPHRASE.decode()}")
    command = ["openssl", "pkcs8", "-topk8", "-in", folder / "plain", *secret, *options, *PROVIDERS]
    return subprocess.run(command, capture_output=True, check=True).stdout


@given(st.sampled_from(["PUBLIC KEY", "PRIVATE KEY", "OPENSSH PRIVATE KEY"]), st.binary(min_size=1, max_size=200))
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


class TestNames:
    """A public key's file may propose a name, which changes nothing else."""

    PEM = key("ada").public.pem()

    @given(st.from_regex(KEY_NAME, fullmatch=True))
    def test_it_reads_back(self, name: str) -> None:
        for data in (named(self.PEM, name), named(self.PEM, name).replace(b"\n", b"\r\n")):
            assert (block(data), name_in(data)) == (block(self.PEM), name)
            assert PublicKey.of_pem(data) == key("ada").public

    @given(st.text(max_size=40).filter(lambda text: not KEY_NAME.fullmatch(text)))
    def test_what_is_no_name_is_refused(self, text: str) -> None:
        with pytest.raises(Invalid, match="is not the name of a key"):
            named(self.PEM, text)
        if not {"\r", "\n"} & set(text):
            with pytest.raises(Invalid, match="is not the name of a key"):
                block(b"name: " + text.encode("utf-8", "surrogatepass") + b"\n" + self.PEM)

    def test_there_is_one_line_and_it_is_of_a_public_key_in_pem(self) -> None:
        twice = named(named(self.PEM, "Ada"), "Ben")
        for data in (twice, named(key("ada").pem(None), "Ada"), named(b"ssh-ed25519 AAAA\n", "Ada"), b"name: Ada\n"):
            with pytest.raises(Invalid):
                block(data)
        assert name_in(self.PEM) == ""

    @pytest.mark.parametrize(
        ("comment", "name"),
        [(b"", ""), (b" Ada", "Ada"), (b" Ada of the ridge\r", "Ada of the ridge"), (b" ada@ground", "")],
    )
    def test_the_comment_of_openssh_is_a_name_where_it_has_the_form(self, comment: bytes, name: str) -> None:
        assert name_in(b"ssh-ed25519 AAAA" + comment + b"\n") == name

    def test_openssl_and_the_library_read_it(self, tmp_path: Path) -> None:
        (tmp_path / "pub").write_bytes(named(self.PEM, "Relief pilot"))
        command = ["openssl", "pkey", "-pubin", "-in", tmp_path / "pub"]
        assert subprocess.run(command, capture_output=True, check=True).stdout == self.PEM
        assert load_pem_public_key(named(self.PEM, "Relief pilot"))


class TestWritten:
    def test_it_is_600_000_rounds_of_a_modern_hash_and_no_weakness(self) -> None:
        assert ROUNDS >= 600_000
        label, der = block(key("ada").pem(PASSPHRASE))
        assert label == "ENCRYPTED PRIVATE KEY"
        protection = Protection.of(label, der)
        assert protection is not None
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
            protection = Protection.of(*block(key_file.encrypted(content, PASSPHRASE)))
            assert protection is not None
            assert protection.rounds == 1000


class TestRead:
    @pytest.mark.parametrize(
        "options",
        [
            *((), ("-iter", "100000"), ("-v2", "aes-128-cbc"), ("-v2prf", "hmacWithSHA512"), ("-scrypt",)),
            *(("-v2prf", "hmacWithSHA1"), ("-v2prf", "hmacWithSHA224"), ("-v2", "des3"), ("-v2", "aes-192-cbc")),
            *(("-v1", "PBE-SHA1-3DES"), ("-v2", "rc2"), ("-v1", "PBE-MD5-DES"), ("-v1", "PBE-SHA1-RC2-40")),
            ("-v1", "PBE-SHA1-RC4-128"),
        ],
        ids=str,
    )
    def test_what_openssl_writes_is_read(self, tmp_path: Path, options: tuple[str, ...]) -> None:
        assert PrivateKey.of_pem(of_openssl(tmp_path, *options), PASSPHRASE).public == key("ada").public

    @pytest.mark.parametrize("options", [("-v1", "PBE-SHA1-2DES"), ("-v1", "PBE-SHA1-RC2-128")], ids=str)
    def test_another_scheme(self, tmp_path: Path, options: tuple[str, ...]) -> None:
        data = of_openssl(tmp_path, *options)
        with pytest.raises(Invalid, match="another scheme than PBES2") as caught:
            PrivateKey.of_pem(data, PASSPHRASE)
        assert PrivateKey.of_pem(remedied(tmp_path, data, caught.value.remedy), PASSPHRASE).public == key("ada").public

    @pytest.mark.parametrize("options", [("-v2", "camellia-256-cbc"), ("-v2prf", "hmacWithSHA512-256")], ids=str)
    def test_another_cipher_is_no_wrong_passphrase(self, tmp_path: Path, options: tuple[str, ...]) -> None:
        data = of_openssl(tmp_path, *options)
        with pytest.raises(Invalid, match="not encrypted in a way that is read") as caught:
            PrivateKey.of_pem(data, None)
        assert PrivateKey.of_pem(remedied(tmp_path, data, caught.value.remedy), PASSPHRASE).public == key("ada").public

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
            (("-v1", "PBE-SHA1-3DES"), ["2048 rounds of PKCS#12", "not AES"]),
            (("-v1", "PBE-MD5-DES"), ["2048 rounds of PBKDF1", "not AES"]),
        ],
        ids=str,
    )
    def test_weaknesses(self, tmp_path: Path, options: tuple[str, ...], says: list[str]) -> None:
        protection = Protection.of(*block(of_openssl(tmp_path, *options)))
        assert protection is not None
        assert len(protection.weaknesses) == len(says)
        for text, word in zip(protection.weaknesses, says, strict=True):
            assert word in text

    @pytest.mark.parametrize("rounds", [MAX_ROUNDS + 1, 2**31, 2**31 - 1, 2**63 - 1, 2**64, 2**520])
    def test_rounds_without_end(self, rounds: int) -> None:
        number = rounds.to_bytes(rounds.bit_length() // 8 + 1, "big")
        bad = altered(key("ada").pem(PASSPHRASE), ROUNDS.to_bytes(3, "big"), number)
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
            with pytest.raises(Invalid, match="another length of key"):
                PrivateKey.of_pem(bad, PASSPHRASE)

    @pytest.mark.parametrize("scheme", ["PBE-SHA1-3DES", "PBE-MD5-DES"])
    def test_old_rounds_without_end(self, tmp_path: Path, scheme: str) -> None:
        bad = altered(of_openssl(tmp_path, "-v1", scheme), b"\x08\x00", b"\x7f\xff\xff\xff")
        with pytest.raises(Invalid, match="at most 10000000"):
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


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
class TestOpenSsh:
    @pytest.mark.parametrize("passphrase", ["", PASSPHRASE.decode()])
    @pytest.mark.parametrize("comment", ["", "ada@ground station"])
    def test_both_files_are_read(self, tmp_path: Path, passphrase: str, comment: str) -> None:
        private, public = ssh_key(tmp_path, passphrase, "-C", comment, "-a", "1")
        key = PrivateKey.of_pem(private, passphrase.encode() or None)
        assert key.public == PublicKey.of_pem(public) == PublicKey.of_pem(public.replace(b"\n", b"\r\n"))
        pem = subprocess.run(["ssh-keygen", "-e", "-m", "PKCS8", "-f", tmp_path / "key.pub"], capture_output=True)
        # This program cannot write Ed25519 so in every version; where it does, it is the same key.
        assert pem.returncode or PublicKey.of_pem(pem.stdout) == key.public

    @pytest.mark.parametrize("cipher", ["aes256-ctr", "aes256-cbc", "aes256-gcm@openssh.com"])
    def test_ciphers(self, tmp_path: Path, cipher: str) -> None:
        private, public = ssh_key(tmp_path, PASSPHRASE.decode(), "-a", "1", "-Z", cipher)
        assert PrivateKey.of_pem(private, PASSPHRASE).public == PublicKey.of_pem(public)
        with pytest.raises(PassphraseNeeded):
            PrivateKey.of_pem(private, None)
        with pytest.raises(Invalid, match="passphrase is wrong"):
            PrivateKey.of_pem(private, b"another")
        assert_weak(private, ["1 rounds of bcrypt, should be 16"])

    def test_a_cipher_that_is_not_read_has_a_remedy(self, tmp_path: Path) -> None:
        private, public = ssh_key(tmp_path, PASSPHRASE.decode(), "-a", "1", "-Z", "chacha20-poly1305@openssh.com")
        with pytest.raises(Invalid, match="the cipher is 'chacha20-poly1305") as caught:
            PrivateKey.of_pem(private, PASSPHRASE)
        command = caught.value.remedy.partition(": ")[2].replace("FILE", str(tmp_path / "key")).split()
        command[command.index("100")] = "16"  # the same, in less time
        secret = ("-P", PASSPHRASE.decode(), "-N", PASSPHRASE.decode())
        subprocess.run([*command, *secret], capture_output=True, check=True)
        private = (tmp_path / "key").read_bytes()
        assert PrivateKey.of_pem(private, PASSPHRASE).public == PublicKey.of_pem(public)
        assert_weak(private, [])

    @pytest.mark.parametrize("rounds", [MAX_BCRYPT_ROUNDS + 1, 2**31, 2**32 - 1])
    def test_rounds_without_end(self, tmp_path: Path, rounds: int) -> None:
        private, _ = ssh_key(tmp_path, PASSPHRASE.decode(), "-a", "3")
        _, content = block(private)
        assert content.count(b"\0\0\0\3") == 1
        start = time.monotonic()
        for passphrase in (PASSPHRASE, None):
            bad = armoured("OPENSSH PRIVATE KEY", content.replace(b"\0\0\0\3", rounds.to_bytes(4, "big")))
            with pytest.raises(Invalid, match="at most 1024"):
                PrivateKey.of_pem(bad, passphrase)
        assert time.monotonic() - start < 5

    @pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
    def test_damage_is_never_another_error_or_another_key(self, tmp_path: Path, passphrase: bytes | None) -> None:
        private, public = ssh_key(tmp_path, (passphrase or b"").decode(), "-a", "1", "-C", "")
        _, content = block(private)
        for at in range(0, len(content), 3):
            bad = content[:at] + bytes([content[at] ^ 0x20]) + content[at + 1 :]
            try:
                read = PrivateKey.of_pem(armoured("OPENSSH PRIVATE KEY", bad), passphrase)
            except Invalid:
                continue
            assert read.public == PublicKey.of_pem(public)

    @pytest.mark.parametrize(
        ("options", "kind"),
        [(("rsa", "-b", "2048"), "an RSA key"), (("ecdsa",), "an ECDSA key")],
        ids=str,
    )
    def test_another_algorithm_is_named_before_a_passphrase_is_asked(
        self, tmp_path: Path, options: tuple[str, ...], kind: str
    ) -> None:
        private, public = ssh_key(tmp_path, PASSPHRASE.decode(), "-a", "1", "-t", *options)
        for read in (lambda: PrivateKey.of_pem(private, None), lambda: PublicKey.of_pem(public)):
            with pytest.raises(Invalid, match=f"this is {kind}; an Ed25519 key is needed"):
                read()

    def test_several_lines_are_several_keys(self, tmp_path: Path) -> None:
        _, public = ssh_key(tmp_path, "")
        for more in (public, b"\n", b"# a comment\n"):
            with pytest.raises(Invalid, match="found 2 lines"):
                PublicKey.of_pem(public + more)

    def test_without_the_library_the_extra_is_named(self, tmp_path: Path) -> None:
        ssh_key(tmp_path, PASSPHRASE.decode(), "-a", "1")
        code = f"""
import sys
sys.modules["bcrypt"] = None
from pathlib import Path
from store.errors import Unavailable
from store.trust.keys import PrivateKey
try:
    PrivateKey.of_pem(Path({str(tmp_path / "key")!r}).read_bytes(), {PASSPHRASE!r})
except Unavailable as error:
    print(error.extra, error)
"""
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert out == f"ssh an encrypted OpenSSH key needs bcrypt, which is not installed; {install_remedy('ssh')}\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"ssh-ed25519 AAAA x\n", "torn"),
        (b"ssh-ed25519\n", "torn"),
        (b"ssh-ed25519 AAAAB3NzaC1yc2EAAAADAQABAAAAgQ== x\n", "torn, or its content is of another kind"),
        (b"sk-ssh-ed25519@openssh.com AAAA token\n", "FIDO token"),
        (b"ssh-ed25519-cert-v01@openssh.com AAAA x\n", "a certificate"),
        (b"ssh-dss AAAA x\n", "a DSA key"),
        (b"ssh-new AAAA x\n", "unknown kind"),
        (b"PuTTY-User-Key-File-3: ssh-ed25519\r\nEncryption: none\r\n", "a key of PuTTY"),
        (b"---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n---- END SSH2 PUBLIC KEY ----\n", "RFC 4716"),
        (b"\x30\x2a\x30\x05", "DER"),
        (
            b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
            "an RSA key",
        ),
        (b"-----BEGIN EC PARAMETERS-----\nBggq\n-----END EC PARAMETERS-----\n", "an ECDSA key"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "a certificate"),
        (b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQ==\n", "an OpenPGP key"),
        (b"-----BEGIN SOMETHING-----\nAAAA\n-----END SOMETHING-----\n", "found a block SOMETHING"),
    ],
    ids=range(15),
)
def test_what_is_no_key_here_is_named(data: bytes, message: str) -> None:
    for read in (PublicKey.of_pem, lambda data: PrivateKey.of_pem(data, None)):
        with pytest.raises(Invalid, match=message) as caught:
            read(data)
        assert caught.value.remedy


@pytest.mark.parametrize(
    ("algorithm", "kind"),
    [
        *(("rsa:2048", "an RSA key"), ("X25519", "an X25519 key"), ("X448", "an X448 key"), ("ED448", "an Ed448 key")),
        ("EC", "an ECDSA key"),
    ],
)
def test_other_algorithms_of_openssl_are_named(tmp_path: Path, algorithm: str, kind: str) -> None:
    name, _, bits = algorithm.partition(":")
    options = [("-pkeyopt", f"rsa_keygen_bits:{bits}")] if bits else []
    options += [("-pkeyopt", "ec_paramgen_curve:P-256")] if name == "EC" else []
    command = ["openssl", "genpkey", "-algorithm", name, *(word for option in options for word in option)]
    subprocess.run([*command, "-out", tmp_path / "key"], capture_output=True, check=True)
    made = subprocess.run(["openssl", "pkey", "-in", tmp_path / "key", "-pubout"], capture_output=True, check=True)
    with pytest.raises(Invalid, match=kind):
        PublicKey.of_pem(made.stdout)
    with pytest.raises(Invalid, match=kind):
        PrivateKey.of_pem((tmp_path / "key").read_bytes(), None)
    command = ["openssl", "pkcs8", "-topk8", "-in", tmp_path / "key", "-passout", f"pass:{PASSPHRASE.decode()}"]
    made = subprocess.run(command, capture_output=True, check=True)
    with pytest.raises(Invalid, match=kind):
        PrivateKey.of_pem(made.stdout, PASSPHRASE)


def remedied(folder: Path, data: bytes, remedy: str) -> bytes:
    """An encrypted key after the command of a remedy; openssl has the oldest ciphers in a module of their own."""
    (folder / "odd").write_bytes(data)
    command = remedy.partition(": ")[2].replace("FILE", str(folder / "odd")).replace("NEW", str(folder / "new")).split()
    secret = f"pass:{PASSPHRASE.decode()}"
    command += ["-passin", secret, "-passout", secret, *PROVIDERS]
    subprocess.run(command, capture_output=True, check=True)
    return (folder / "new").read_bytes()


def ssh_key(folder: Path, passphrase: str, *options: str) -> tuple[bytes, bytes]:
    """The two files of a new key of ssh-keygen, Ed25519 unless the options say otherwise."""
    kind = () if "-t" in options else ("-t", "ed25519")
    command = ["ssh-keygen", "-q", *kind, "-N", passphrase, "-f", folder / "key", *options]
    subprocess.run(command, capture_output=True, check=True)
    return (folder / "key").read_bytes(), (folder / "key.pub").read_bytes()


def assert_weak(private: bytes, says: list[str]) -> None:
    protection = Protection.of(*block(private))
    assert protection is not None
    assert len(protection.weaknesses) == len(says)
    for text, word in zip(protection.weaknesses, says, strict=True):
        assert word in text


def numbers(*values: int) -> bytes:
    """INTEGERs of DER."""
    return b"".join(
        b"\x02" + bytes([len(data)]) + data
        for value in values
        for data in [value.to_bytes(value.bit_length() // 8 + 1, "big")]
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
                length = int.from_bytes(data[2:start], "big")
            content, whole = data[start : start + length], data[: start + length]
            if data.startswith(old):
                result, data = result + new, data[len(old) :]
                continue
            if tag == 0x30 and old in content:
                inner = changed(content)
                size = bytes([len(inner)]) if len(inner) < 128 else b"\x82" + len(inner).to_bytes(2, "big")
                if 128 <= len(inner) < 256:
                    size = b"\x81" + bytes([len(inner)])
                whole = bytes([tag]) + size + inner
            result, data = result + whole, data[start + length :]
        return result

    bad = changed(der_of(pem))
    assert bad != der_of(pem)
    return armoured("ENCRYPTED PRIVATE KEY", bad)
