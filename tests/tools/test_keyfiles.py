"""Key files and passphrases, from the command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from store.disk.durable import Disk
from store.errors import Invalid, Unavailable
from store.trust.key_file import ROUNDS, Protection, armoured, block
from store.trust.keys import PrivateKey, PublicKey
from tests.support.commands import Ran, flightbag, program
from tests.support.missions import key
from tests.support.opens import make_device, make_socket, opens_of
from tests.support.terminal import at_terminal, typed
from tools import keyfiles

HORSE, STAPLE = "correct horse battery", "staple of the battery"


def openssl(folder: Path, *options: str) -> Path:
    """A key that openssl has encrypted under the passphrase HORSE; its default is weak."""
    (folder / "plain").write_bytes(key("ada").pem(None))
    command = ("openssl", "pkcs8", "-topk8", "-in", folder / "plain", "-out", folder / "old.key")
    subprocess.run([*command, "-passout", f"pass:{HORSE}", *options], capture_output=True, check=True)
    return folder / "old.key"


def test_keys_are_encrypted_private_and_never_overwritten(tmp_path: Path) -> None:
    typed(tmp_path / "pass", HORSE)
    path = tmp_path / "a.key"
    ran = flightbag("keys", "new", path, "--passphrase-file", tmp_path / "pass", "--json")
    assert ran.status == 0
    protection = Protection.of(*block(path.read_bytes()))
    assert protection is not None
    assert protection.rounds == ROUNDS
    assert path.stat().st_mode & 0o777 == 0o600
    public = PublicKey.of_pem((tmp_path / "a.key.pub").read_bytes())
    assert ran.json["kid"] == public.kid.hex()
    assert PrivateKey.of_pem(path.read_bytes(), HORSE.encode()).public == public
    for one in (path, tmp_path / "a.key.pub"):
        said = flightbag("keys", "show", one, "--passphrase-file", tmp_path / "pass").out
        assert said == f"kid {public.kid.hex()}\n"
    before = path.read_bytes()
    assert flightbag("keys", "new", path, "--no-passphrase").status == 2
    assert path.read_bytes() == before
    typed(tmp_path / "wrong", STAPLE)
    assert flightbag("keys", "show", path, "--passphrase-file", tmp_path / "wrong").status == 2


def test_a_key_needs_a_passphrase_or_the_word_that_it_does_not(tmp_path: Path) -> None:
    ran = program("flightbag", "keys", "new", tmp_path / "a.key", stdin=subprocess.DEVNULL)
    assert ran.status == 2
    assert "--passphrase-file" in ran.err
    assert list(tmp_path.iterdir()) == []
    openssl(tmp_path)
    ran = program("flightbag", "keys", "rewrap", tmp_path / "plain", stdin=subprocess.DEVNULL)
    assert ran.status == 2
    assert "give --new-passphrase-file" in ran.err


@pytest.mark.parametrize("text", ["", "fourteen chars", "ü" * 14, "x"])
def test_a_short_passphrase_is_refused_for_what_is_written_and_for_nothing_else(tmp_path: Path, text: str) -> None:
    typed(tmp_path / "pass", text)
    ran = flightbag("keys", "new", tmp_path / "a.key", "--passphrase-file", tmp_path / "pass")
    assert ran.status == 2
    assert f"{len(text)} characters, and must have at least 15" in ran.err
    old = openssl(tmp_path, "-passout", "pass:short")
    typed(tmp_path / "short", "short")
    before = old.read_bytes()
    args = ("--passphrase-file", tmp_path / "short", "--new-passphrase-file", tmp_path / "pass")
    assert flightbag("keys", "rewrap", old, *args).status == 2
    assert old.read_bytes() == before
    assert flightbag("keys", "show", old, "--passphrase-file", tmp_path / "short").status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.key", "pass", "plain", "short"]


def test_a_passphrase_is_asked_at_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    answers = [("New passphrase", HORSE), ("again", HORSE)]
    status, seen = at_terminal("keys", "new", path, answers=answers)
    assert status == 0, seen
    assert HORSE not in seen
    assert PrivateKey.of_pem(path.read_bytes(), HORSE.encode())
    answers = [("Passphrase for a.key", HORSE), ("New passphrase", STAPLE), ("again", STAPLE)]
    status, seen = at_terminal("keys", "rewrap", path, answers=answers)
    assert status == 0, seen
    assert STAPLE not in seen
    assert PrivateKey.of_pem(path.read_bytes(), STAPLE.encode())
    before = path.read_bytes()
    answers = [("Passphrase for a.key", STAPLE), ("New passphrase", HORSE), ("again", f"{HORSE}s")]
    status, seen = at_terminal("keys", "rewrap", path, answers=answers)
    assert status == 2
    assert "differ" in seen
    assert path.read_bytes() == before


def test_no_answer_is_no_passphrase(tmp_path: Path) -> None:
    """Ctrl-D is no error of the program."""
    status, seen = at_terminal("keys", "new", tmp_path / "a.key", answers=[("New passphrase", "")], end=b"\x04")
    assert (status, "no passphrase was given" in seen, "Traceback" in seen) == (2, True, False)
    assert not list(tmp_path.iterdir())


class TestNames:
    """A key gets its name where it is made, and a trust root takes it from the public file."""

    @pytest.fixture
    def named(self, tmp_path: Path) -> Path:
        for file, name in (("a.key", "Ada"), ("p.key", "Pia of the ridge"), ("r.key", "")):
            ran = flightbag("keys", "new", tmp_path / file, "--no-passphrase", "--name", name)
            assert (ran.status, f"name {name}\n" in ran.out) == (0, bool(name)), ran.err
        assert flightbag("init", tmp_path / "store").status == 0
        return tmp_path

    def found(self, folder: Path, *more: object) -> Ran:
        keys = ("--root-key", folder / "a.key", "--mission-key", folder / "p.key.pub")
        return flightbag("trust", "new", folder / "store", "--domain", "test", *keys, *more)

    def called(self, shown: object) -> list[str]:
        ran = flightbag("trust", "show", shown, "--json")
        assert ran.status == 0, ran.err
        return sorted(ran.json["names"].values())

    def test_both_files_show_it(self, named: Path) -> None:
        for file in ("p.key", "p.key.pub"):
            ran = flightbag("keys", "show", named / file)
            assert ran.out.splitlines()[-1 if file == "p.key.pub" else 1] == "name Pia of the ridge"
            assert flightbag("keys", "show", named / file, "--json").json["name"] == "Pia of the ridge"
        assert flightbag("keys", "show", named / "r.key.pub", "--json").json["name"] == ""
        typed(named / "new", HORSE)
        rewrap = ("keys", "rewrap", named / "p.key", "--new-passphrase-file", named / "new")
        assert flightbag(*rewrap).out.splitlines()[-1] == "name Pia of the ridge"

    def test_the_file_of_another_key_beside_it_names_nobody(self, named: Path) -> None:
        shutil.copy(named / "a.key.pub", named / "p.key.pub")
        assert flightbag("keys", "show", named / "p.key", "--json").json["name"] == ""

    @pytest.mark.parametrize("name", ["x" * 33, " Ada", "Ada\nGO", "Zoë", "a@b"])
    def test_what_is_no_name_makes_no_key(self, tmp_path: Path, name: str) -> None:
        ran = flightbag("keys", "new", tmp_path / "a.key", "--no-passphrase", "--name", name)
        assert (ran.status, "is not the name of a key" in ran.err, list(tmp_path.iterdir())) == (2, True, [])
        assert "give 1 to 32 letters" in ran.err

    def test_a_trust_root_takes_it(self, named: Path) -> None:
        assert self.found(named).status == 0
        assert self.called(named / "store") == ["Ada", "Pia of the ridge"]

    def test_the_option_goes_before(self, named: Path) -> None:
        assert self.found(named, "--name", f"{named / 'p.key.pub'}=Chief").status == 0
        assert self.called(named / "store") == ["Ada", "Chief"]

    def test_two_keys_of_one_name_are_told_apart_by_the_option(self, named: Path) -> None:
        (named / "p.key.pub").write_bytes((named / "p.key.pub").read_bytes().replace(b"Pia of the ridge", b"Ada"))
        ran = self.found(named)
        assert (ran.status, "Ada is already the name of the key" in ran.err, "--name" in ran.err) == (2, True, True)
        assert self.found(named, "--name", f"{named / 'p.key.pub'}=Pia").status == 0

    def test_a_key_that_is_added_brings_it_and_loses_none_by_it(self, named: Path) -> None:
        assert self.found(named, "--name", f"{named / 'p.key.pub'}=Chief").status == 0
        draft, r = named / "draft", (named / "r.key.pub").read_bytes()
        (named / "r.key.pub").write_bytes(b"name: Rea\n" + r)
        for key_, status in (("r.key.pub", 0), ("p.key.pub", 2)):
            ran = flightbag("trust", "add-key", named / "store", draft, "mission", named / key_)
            assert ran.status == status, ran.err
        assert self.called(draft) == ["Ada", "Chief", "Rea"]
        assert (
            flightbag(
                "trust", "add-key", named / "store", draft, "mission", named / "p.key.pub", "--name", "Pia"
            ).status
            == 0
        )
        assert self.called(draft) == ["Ada", "Pia", "Rea"]


class TestWarnings:
    def warned(self, path: Path, tmp_path: Path) -> list[str]:
        typed(tmp_path / "pass", HORSE)
        ran = flightbag("keys", "show", path, "--passphrase-file", tmp_path / "pass", "--json")
        assert ran.status == 0, ran.err
        warnings: list[str] = [finding["message"] for finding in ran.json["findings"]]
        said = flightbag("keys", "show", path, "--passphrase-file", tmp_path / "pass").out
        assert all(f"warning: {text}" in said for text in warnings)
        assert ("flightbag keys rewrap" in said) == bool(warnings)
        return warnings

    def test_of_a_weak_derivation(self, tmp_path: Path) -> None:
        path = openssl(tmp_path, "-v2", "des3", "-v2prf", "hmacWithSHA1")
        path.chmod(0o600)
        warnings = self.warned(path, tmp_path)
        assert [one for text in warnings for one in ("2048 rounds", "SHA-1", "not AES") if one in text] == [
            *("2048 rounds", "SHA-1", "not AES")
        ]

    @pytest.mark.parametrize(
        ("mode", "bad"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True), (0o644, True)]
    )
    def test_of_an_open_mode(self, tmp_path: Path, mode: int, bad: bool) -> None:
        path = openssl(tmp_path, "-iter", str(ROUNDS))
        path.chmod(mode)
        assert [f"{mode:04o}" in text for text in self.warned(path, tmp_path)] == [True] * bool(mode & 0o77)

    def test_of_a_key_in_the_clear(self, tmp_path: Path) -> None:
        assert flightbag("keys", "new", tmp_path / "a.key", "--no-passphrase").status == 0
        assert self.warned(tmp_path / "a.key", tmp_path) == ["it is not encrypted"]
        assert self.warned(tmp_path / "a.key.pub", tmp_path) == []


class TestRewrap:
    def rewrapped(self, path: Path, tmp_path: Path) -> int:
        typed(tmp_path / "old", HORSE)
        typed(tmp_path / "new", STAPLE)
        args = ("--passphrase-file", tmp_path / "old", "--new-passphrase-file", tmp_path / "new")
        return flightbag("keys", "rewrap", path, *args).status

    def test_a_weak_file_becomes_a_strong_one_of_the_same_key(self, tmp_path: Path) -> None:
        path = openssl(tmp_path, "-v2", "des3", "-v2prf", "hmacWithSHA1")
        path.chmod(0o644)
        assert self.rewrapped(path, tmp_path) == 0
        assert PrivateKey.of_pem(path.read_bytes(), STAPLE.encode()).public == key("ada").public
        assert keyfiles.weaknesses(path)[0] == []
        assert path.stat().st_mode & 0o777 == 0o600

    def test_a_key_in_the_clear(self, tmp_path: Path) -> None:
        assert flightbag("keys", "new", tmp_path / "a.key", "--no-passphrase").status == 0
        public = (tmp_path / "a.key.pub").read_bytes()
        assert self.rewrapped(tmp_path / "a.key", tmp_path) == 0
        assert PrivateKey.of_pem((tmp_path / "a.key").read_bytes(), STAPLE.encode()).public.pem() == public
        assert (tmp_path / "a.key.pub").read_bytes() == public

    def test_through_a_link_it_is_the_file_that_changes(self, tmp_path: Path) -> None:
        path = openssl(tmp_path)
        (tmp_path / "link").symlink_to(path)
        assert self.rewrapped(tmp_path / "link", tmp_path) == 0
        assert (tmp_path / "link").is_symlink()
        assert keyfiles.weaknesses(path)[0] == []

    def test_what_is_no_private_key_stays(self, tmp_path: Path) -> None:
        public = tmp_path / "a.pub"
        public.write_bytes(key("ada").public.pem())
        assert self.rewrapped(public, tmp_path) == 2
        assert public.read_bytes() == key("ada").public.pem()
        typed(tmp_path / "old.key", HORSE)
        assert self.rewrapped(tmp_path / "old.key", tmp_path) == 2
        assert self.rewrapped(tmp_path / "none", tmp_path) == 2

    def test_a_wrong_passphrase_changes_nothing(self, tmp_path: Path) -> None:
        path = openssl(tmp_path, "-passout", f"pass:{STAPLE}")
        before = path.read_bytes()
        assert self.rewrapped(path, tmp_path) == 2
        assert path.read_bytes() == before

    @pytest.mark.parametrize("call", ["create", "write", "sync_file", "rename", "sync_directory"])
    def test_a_crash_leaves_the_old_key_or_the_new_one(
        self, tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = openssl(tmp_path)

        def fails(*args: object) -> None:
            raise Unavailable("the power is cut")

        with monkeypatch.context() as patch:
            patch.setattr(Disk, call, fails)
            with pytest.raises(Unavailable):
                keyfiles.rewrap(path, lambda _: HORSE.encode(), lambda _: STAPLE.encode(), confirm=False)
        done = call == "sync_directory"
        assert PrivateKey.of_pem(path.read_bytes(), (STAPLE if done else HORSE).encode()).public == key("ada").public
        assert all(one.stat().st_mode & 0o077 == 0 for one in tmp_path.glob("old.key.*"))
        assert self.rewrapped(path, tmp_path) == (2 if done else 0)


class TestOneKey:
    """A file is one key and nothing else, wherever a command takes one."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for name in ("a", "b"):
            assert flightbag("keys", "new", tmp_path / name, "--no-passphrase").status == 0
        assert flightbag("init", tmp_path / "store").status == 0
        return tmp_path

    def enrolled(self, folder: Path, root: Path, mission: Path) -> tuple[int, str]:
        args = ("trust", "new", folder / "store", "--domain", "d", "--root-key", root, "--mission-key", mission)
        ran = flightbag(*args)
        assert os.path.exists(folder / "store/trust/1.root.cbor") == (ran.status == 0)
        return ran.status, ran.err

    @pytest.mark.parametrize("where", ["before", "after"])
    @pytest.mark.parametrize("what", ["b.pub", "b", "text"])
    def test_something_else_beside_it(self, folder: Path, where: str, what: str) -> None:
        other = b"# key of the second pilot\n" if what == "text" else (folder / what).read_bytes()
        for name in ("a", "a.pub"):
            one = (folder / name).read_bytes()
            both = folder / f"both-{name}"
            both.write_bytes(other + one if where == "before" else one + other)
            assert flightbag("keys", "show", both).status == 2
            for root, mission in ((folder / "a", both), (both, folder / "b.pub")):
                status, err = self.enrolled(folder, root, mission)
                assert status == 2
                assert f"{both}: expected one key in PEM and nothing else" in err
        assert self.enrolled(folder, folder / "a", folder / "b.pub")[0] == 0

    def test_a_key_that_asks_for_too_much_is_refused_by_name(self, folder: Path) -> None:
        path = openssl(folder, "-scrypt")
        label, der = block(path.read_bytes())
        honest, greedy = b"\x02\x01\x08\x02\x01\x01", b"\x02\x01\x08\x02\x01\x7f"
        assert honest in der
        path.write_bytes(armoured(label, der.replace(honest, greedy)))
        typed(folder / "pass", HORSE)
        for args in (("keys", "show"), ("keys", "rewrap")):
            ran = flightbag(*args, path, "--passphrase-file", folder / "pass")
            assert ran.status == 2
            assert f"{path}: the private key asks for scrypt with N = 16384, r = 8, p = 127" in ran.err


@pytest.mark.parametrize("kind", ["device", "socket", "directory", "fifo"])
def test_a_file_that_the_user_names_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    if kind == "device":
        make_device(Path("thing"))
    elif kind == "fifo":
        os.mkfifo("thing")
    elif kind == "socket":
        make_socket(Path("thing").absolute())
    else:
        Path("thing").mkdir()
    for read in (keyfiles.read_file, keyfiles.read_file_or_pipe):
        with opens_of(Path("thing")) as opens, pytest.raises(Invalid, match=f"thing: expected a file, found a {kind}"):
            read(Path("thing"), 10, "the key file")
        assert opens == []


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Path]:
    """A FIFO to which nobody writes; whoever waits for it all the same is released in the end."""
    path = tmp_path / "fifo"
    os.mkfifo(path)

    def release() -> None:
        with suppress(OSError):  # nobody reads
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))

    timer = threading.Timer(30, release)
    timer.start()
    yield path
    timer.cancel()


@pytest.mark.parametrize(
    "command",
    [
        "keys show FIFO",
        "keys rewrap FIFO",
        "keys rewrap weak --passphrase-file FIFO",
        "keys rewrap ada --new-passphrase-file FIFO",
        "keys new other --passphrase-file FIFO",
        "trust new empty --domain d --root-key FIFO --mission-key ada",
        "trust new empty --domain d --root-key ada --mission-key FIFO",
        "trust add-key store FIFO mission ada",
        "trust add-key store draft mission FIFO",
        "trust revoke store draft FIFO",
        "trust sign FIFO --key ada",
        "trust sign root --key FIFO",
        "trust rotate store FIFO",
        "trust show FIFO",
        "release sign store FIFO --key ada",
        "release show FIFO",
        "plan FIFO --store store",
        "build mission.toml --store store --key FIFO",
        "build mission.toml --store store --key weak --passphrase-file FIFO",
        "sign store north-ridge --key FIFO",
        "rollback store north-ridge --key FIFO",
        "verify store north-ridge --trust FIFO",
        "verify store north-ridge --state FIFO",
        "probe store north-ridge --trust FIFO",
        "checkout store north-ridge out --trust FIFO",
        "check-proof FIFO 00 --trust root",
        "aircraft enrol --state state --id uav-07 --host cpu --trust FIFO",
        "aircraft show --state FIFO",
    ],
)
def test_a_fifo_is_never_waited_for(fifo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """It is not opened, and its path is in the message."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ada").write_bytes(key("ada").pem(None))
    openssl(tmp_path).rename(tmp_path / "weak")
    assert flightbag("init", "store").status == 0
    assert flightbag("init", "empty").status == 0
    assert flightbag("trust", "new", "store", "--domain", "d", "--root-key", "ada", "--mission-key", "ada").status == 0
    (tmp_path / "root").write_bytes(next((tmp_path / "store/trust").iterdir()).read_bytes())
    (tmp_path / "mission.toml").write_text("[mission]\n")
    with opens_of(fifo) as opens:
        ran = flightbag(*command.replace("FIFO", str(fifo)).split())
    assert (opens, ran.status != 0, str(fifo) in ran.out + ran.err) == ([], True, True), ran.out + ran.err


def test_a_passphrase_may_come_through_a_pipe_that_has_no_name(tmp_path: Path) -> None:
    """As of `--passphrase-file <(pass show planner)`. What is no passphrase does not: some of it is read twice."""
    reader, writer = os.pipe()
    os.write(writer, b"words")
    os.close(writer)
    path = Path(f"/dev/fd/{reader}")
    with pytest.raises(Invalid, match="expected a file, found a fifo"):
        keyfiles.read_file(path, 10, "the key file")
    assert keyfiles.read_file_or_pipe(path, 10, "the passphrase file") == b"words"
    os.close(reader)


class TestOpenSsh:
    """Keys that people have already: the two files of ssh-keygen, as every command takes keys."""

    @pytest.fixture
    def ssh_key(self, tmp_path: Path) -> Path:
        command = ("ssh-keygen", "-q", "-t", "ed25519", "-a", "1", "-N", HORSE, "-f", tmp_path / "ada")
        if shutil.which(command[0]) is None:
            pytest.skip("ssh-keygen is not installed")
        subprocess.run(command, check=True)
        typed(tmp_path / "pass", HORSE)
        return tmp_path / "ada"

    def test_a_trust_root_of_such_keys(self, tmp_path: Path, ssh_key: Path) -> None:
        public = ssh_key.with_suffix(".pub")
        assert flightbag("init", tmp_path / "ground").status == 0
        args = ("--domain", "fleet", "--root-key", ssh_key, "--mission-key", public, "--passphrase-file")
        assert flightbag("trust", "new", tmp_path / "ground", *args, tmp_path / "pass").status == 0
        kid = flightbag("keys", "show", public, "--json").json["kid"]
        assert flightbag("trust", "show", tmp_path / "ground", "--json").json["roles"]["mission"]["kids"] == [kid]

    def test_what_is_weak_is_mended_by_the_command_that_is_named(self, ssh_key: Path, tmp_path: Path) -> None:
        ssh_key.chmod(0o644)
        shown = flightbag("keys", "show", ssh_key, "--passphrase-file", tmp_path / "pass")
        assert "1 rounds of bcrypt" in shown.out
        assert "mode is 0644" in shown.out
        before = ssh_key.read_bytes()
        refused = flightbag("keys", "rewrap", ssh_key, "--passphrase-file", tmp_path / "pass")
        assert (refused.status, ssh_key.read_bytes()) == (2, before)
        for told in (shown.out, refused.err):
            assert f"ssh-keygen -p -a 100 -f {ssh_key} encrypts it again" in told
        ssh_key.chmod(0o600)
        command = ("ssh-keygen", "-p", "-a", "16", "-f", ssh_key, "-P", HORSE, "-N", HORSE)
        subprocess.run(command, capture_output=True, check=True)
        assert "warning" not in flightbag("keys", "show", ssh_key, "--passphrase-file", tmp_path / "pass").out

    def test_another_algorithm_is_named_with_the_file(self, tmp_path: Path) -> None:
        subprocess.run(["openssl", "genrsa", "-out", tmp_path / "rsa.key", "2048"], capture_output=True, check=True)
        ran = flightbag("keys", "show", tmp_path / "rsa.key")
        assert ran.status == 2
        assert f"{tmp_path / 'rsa.key'}: this is an RSA key; an Ed25519 key is needed" in ran.err
