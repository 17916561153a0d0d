"""Two stations that share a bucket of a real S3 server, each build in processes of its own, as it is typed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.builders.test_sharing import SMALL, made, trusting
from tests.support.commands import flightbag
from tests.support.field import Desk
from tests.support.s3 import SECRET, Server

URL = "s3://fleet/shared/cache"


def test_the_second_of_two_stations_builds_nothing(
    storage: Server, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in storage.environment.items():
        monkeypatch.setenv(name, value)
    trusting(desk, "station.key")
    mission = desk.write_mission("left", **SMALL)
    second = Desk(shutil.copytree(desk.folder, tmp_path / "second"))
    args = ("--shared-cache", URL, "--builder-key", desk.folder / "station.key")
    first = desk.build(mission, *args)
    assert first.status == 0, first.err
    report = first.json["cache"]
    assert (report["hits"], report["asked"], report["refused"], report["down"]) == (0, report["pushed"], {}, None)
    planned = flightbag("plan", second.folder / "left.toml", "--store", second.store, "--shared-cache", URL, "--json")
    assert all(row["cached"] for row in planned.json["artifacts"] if row["key"])
    ran = second.build(second.folder / "left.toml", "--shared-cache", URL)
    assert ran.status == 0, ran.err
    cache = ran.json["cache"]
    assert (made(ran.json), ran.json["embedded"]) == ([], 0)
    assert (cache["hits"], cache["misses"], cache["refused"]) == (report["pushed"], 0, {})
    assert cache["bytes"] == report["pushed_bytes"]
    assert second.verify().json["ok"]
    # A server that goes changes nothing but the report.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    other = second.write_mission("left", **{**SMALL, "zooms": (15,)})
    planned = flightbag("plan", other, "--store", second.store, "--shared-cache", URL, "--json")
    assert planned.status == 0, planned.err
    assert not any(row["cached"] for row in planned.json["artifacts"])
    assert "does not answer" in planned.json["cache"]["down"]
    assert SECRET not in planned.out + planned.err
