"""The keys of a shared cache: those of files and those of a command, beside the keys that sign the mission."""

from __future__ import annotations

from pathlib import Path

import pytest

from store.errors import Invalid
from tests.support.commands import flightbag
from tests.support.missions import key
from tools import keyfiles


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A private key and its public one."""
    private = tmp_path / "station.key"
    private.write_bytes(key("orin").pem(None))
    public = tmp_path / "station.key.pub"
    public.write_bytes(key("orin").public.pem())
    return private, public


def test_a_command_signs_for_a_public_key_alone(files: tuple[Path, Path], tmp_path: Path) -> None:
    private, public = files
    place = str(tmp_path)
    for given, command in ((private, "sign-the-mission"), (private, None), (public, "sign-this")):
        sharing = keyfiles.sharing(place, [given], None, command)
        assert sharing is not None
        assert (sharing.place, sharing.keys.count, list(sharing.keys.known)) == (place, 1, [key("orin").public])
    with pytest.raises(Invalid):
        keyfiles.sharing(place, [public])


def test_keys_need_a_cache(files: tuple[Path, Path]) -> None:
    assert keyfiles.sharing(None) is None
    with pytest.raises(Invalid, match="needs --shared-cache") as error:
        keyfiles.sharing(None, [files[0]])
    assert error.value.remedy == "name the cache, or leave the key out"


@pytest.mark.parametrize("command", ["plan", "build", "engines build"])
def test_the_help_names_the_cache(command: str) -> None:
    assert "--shared-cache" in flightbag(*command.split(), "--help").out
