"""What an argument of `sync` names."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Invalid
from store.remotes import place
from store.remotes.place import Bucket, Folder, Host, place_of


def test_examples() -> None:
    assert doctest.testmod(place).failed == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("store", Folder("store")),
        ("/media/stick/a:b", Folder("/media/stick/a:b")),
        ("./a:b", Folder("./a:b")),
        ("hangar:store", Host("", "hangar", "store")),
        ("crew@hangar.example.org:/srv/./store//", Host("crew", "hangar.example.org", "/srv/store")),
        ("crew@[fe80::1%eth0]:store", Host("crew", "fe80::1%eth0", "store")),
        ("[2001:db8::7]:/srv", Host("", "2001:db8::7", "/srv")),
        ("hangar:~/store", Host("", "hangar", "store")),
        ("hangar:-rf", Host("", "hangar", "./-rf")),
        ("hangar:a b'c\"d$e", Host("", "hangar", "a b'c\"d$e")),
        ("hangar:a:b", Host("", "hangar", "a:b")),
        ("s3://fleet/north", Bucket("s3://fleet/north")),
        ("gs://fleet", Bucket("gs://fleet")),
        ("crew@s3:/fleet", Host("crew", "s3", "/fleet")),
        ("s3:fleet", Host("", "s3", "fleet")),
    ],
)
def test_places(text: str, expected: object) -> None:
    assert place_of(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "-oProxyCommand=x:store",
        "crew@-oProxyCommand=x:store",
        "-crew@hangar:store",
        "@hangar:store",
        "hangar:",
        "hangar:/",
        "hangar:~",
        "hangar:~other/store",
        "hangar::module",
        ":store",
        "hangar:a*",
        "hangar:a[b]",
        "hangar:a\nb",
        "rsync://hangar/module",
        "http://hangar/store",
        "[::1:store",
        "[-x]:store",
        "crew@a@b:store",
        "hang ar:store",
        "s3:/fleet/north",
        "gs:/fleet",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        place_of(text)
    assert caught.value.remedy


def test_a_folder_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hangar:store").mkdir()
    assert place_of("hangar:store") == Folder("hangar:store")


@given(st.text(max_size=40))
def test_no_text_becomes_an_option_or_a_pattern(text: str) -> None:
    try:
        one = place_of(text)
    except (Invalid, ValueError):  # a null byte is no path
        return
    if isinstance(one, Host):
        assert not one.login.startswith("-")
        assert not one.path.startswith(("-", "~"))
        assert not set(one.path) & set("*?[\\\n\0")
        assert place_of(str(one)) == one
