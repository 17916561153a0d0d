"""The text of a new mission file: it has every key of the schema, and each that is commented out is right."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from builders.mission.reader import _parse
from builders.mission.schema import MissionFile, Section
from builders.mission.template import Facts, Tensor, template

IMAGE = Tensor("image", "float32", ("N", 3, 64, 64), 4)
ROW = Tensor("descriptor", "float32", ("N", 32), 2)
FACTS = Facts(
    id="north-ridge",
    source="naip.mbtiles",
    zooms=(16, 17),
    bbox=(-991749998, 470080002, -991350002, 470329998),
    captured=datetime.date(2018, 7, 16),
    tile_size=256,
    scheme="",
    about_source="The source has the zooms 15 to 17.",
    model="net.onnx",
    backbone="net",
    inputs=(IMAGE,),
    outputs=(ROW,),
    today=datetime.date(2026, 11, 30),
)
HEADER = re.compile(r"(# )?(\[\[?)([A-Za-z0-9_.\"]+)(\]\]?)")
KEY = re.compile(r"(# )?([a-z0-9_]+) = (.*?)  +# (.+)")


def validated(text: str) -> MissionFile:
    return MissionFile.model_validate(_parse(Path("m.toml"), text.encode()), context={"folder": Path("/x")})


def keys_in(text: str) -> Iterator[tuple[str, str]]:
    """(table, key) of every key that stands in a mission file, commented out or not."""
    table = ""
    for line in text.splitlines():
        if header := HEADER.fullmatch(line):
            table = header[3]
        elif key := KEY.fullmatch(line):
            yield table.replace("inputs.image", "inputs"), key[2]


def keys_of(model: type[Section], table: str = "") -> Iterator[tuple[str, str]]:
    """(table, key) of every key of the schema that is a value."""
    for name, field in model.model_fields.items():
        inner = list(sections_in(field.annotation))
        path = f"{table}.{name}".lstrip(".")
        if not inner:
            yield table, name
        for kind in inner:
            for end in ("fp32", "fp16", "int8") if name == "tolerances" else ("",):
                yield from keys_of(kind, f"{path}.{end}".rstrip("."))


def sections_in(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    elif get_origin(annotation) is not None or get_args(annotation):
        for inner in get_args(annotation):
            yield from sections_in(inner)


def test_every_key_of_the_schema_stands_in_it_with_a_line_of_explanation() -> None:
    """A new key of the schema needs a line in `builders.mission.template`."""
    text, _ = template(FACTS)
    assert set(keys_in(text)) == set(keys_of(MissionFile))
    assert all(len(line) <= 120 for line in text.splitlines())


def test_it_is_a_mission_file() -> None:
    text, open_points = template(FACTS)
    mission = validated(text)
    assert mission.mission.id == "north-ridge"
    assert mission.mission.area.bbox_e7 == FACTS.bbox
    assert mission.tiles[0].zooms == (16, 17)
    assert mission.backbones[0].inputs["image"].shape == ("N", 3, 64, 64)
    assert mission.descriptors[0].output == "descriptor"
    assert mission.descriptors[0].preprocess.resize == (64, 64)
    assert {one.partition(":")[0] for one in open_points} == {
        "mission.takeoff",
        "mission.aircraft",
        "tiles[0].captured",
        "descriptors[0].preprocess",
    }


def tables_of(lines: list[str]) -> Iterator[tuple[int, list[int]]]:
    """The line of each header, and those of the keys below it."""
    starts = [place for place, line in enumerate(lines) if HEADER.fullmatch(line)]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield start, [place for place in range(start + 1, end) if KEY.fullmatch(lines[place])]


def commented() -> list[str]:
    text, _ = template(FACTS)
    lines = text.splitlines()
    return [
        f"{HEADER.fullmatch(lines[start])[3]} {KEY.fullmatch(lines[place])[2]}"  # type: ignore[index]
        for start, places in tables_of(lines)
        for place in places
        if lines[place].startswith("# ")
    ]


@pytest.mark.parametrize("name", commented())
def test_a_key_that_is_commented_out_is_right_once_it_is_not(name: str) -> None:
    """A table that is commented out comes with all of its keys. What excludes or needs another key says so."""
    text, _ = template(FACTS)
    lines = text.splitlines()
    for start, places in tables_of(lines):
        whole = lines[start].startswith("# ")
        for place in places:
            if f"{HEADER.fullmatch(lines[start])[3]} {KEY.fullmatch(lines[place])[2]}" == name:  # type: ignore[index]
                for chosen in [start, *places] if whole else [place]:
                    lines[chosen] = lines[chosen].removeprefix("# ")
                if whole and name.startswith("descriptors.view"):
                    for chosen in places[2:]:
                        lines[chosen] = f"# {lines[chosen]}"
    try:
        validated("\n".join(lines))
    except ValidationError as error:
        # An array of which an element is wrong is too short as well, as pydantic counts.
        problems = [one for one in error.errors(include_url=False) if one["type"] != "too_short"]
        assert [one["type"] for one in problems] == ["value_error"], problems
        words = str(problems[0]["ctx"]["error"])
        assert re.match(r"has .*must have|must have (all|both) or none|has a value and min|has \w+ and no", words), (
            words
        )


@pytest.mark.parametrize(
    ("shape", "sizes", "resize", "ranged"),
    [
        (("batch", 3, 224, 224), ("N", 3, 224, 224), (224, 224), True),
        (("", 3, "height", "width"), ("N", 3, 224, 224), (224, 224), True),
        ((1, 3, 322, 518), (1, 3, 322, 518), (322, 518), False),
        (("N", 256, 256, 3), ("N", 256, 256, 3), (256, 256), True),
        (("N", 1, 128, 96), ("N", 1, 128, 96), (128, 96), True),
        (("b", "c", "h", "w"), ("N", 3, 224, 224), (224, 224), True),
        ((4, "h", "w", 1), (4, 224, 224, 1), (224, 224), False),
    ],
)
def test_the_input_is_the_one_that_the_model_declares(
    shape: tuple[int | str, ...], sizes: tuple[int | str, ...], resize: tuple[int, int], ranged: bool
) -> None:
    text, _ = template(replace(FACTS, inputs=(replace(IMAGE, shape=shape),)))
    mission = validated(text)
    image = mission.backbones[0].inputs["image"]
    assert (image.shape, image.max is not None) == (sizes, ranged)
    assert mission.descriptors[0].preprocess.resize == resize
    assert (mission.descriptors[0].preprocess.colour == "grey") == (1 in (sizes[1], sizes[3]))


@pytest.mark.parametrize(
    ("outputs", "chosen", "pool"),
    [
        ([("scores", ("K",)), ("descriptor", ("N", 32))], "descriptor", None),
        ([("last_hidden_state", ("N", 257, 384)), ("pooler_output", ("N", 384))], "pooler_output", None),
        ([("last_hidden_state", ("N", 257, 384))], "last_hidden_state", "cls"),
        ([("logits", ("N", 1000)), ("embedding", ("N", 512))], "embedding", None),
        ([("map", ("N", 8, 8, 8)), ("row", ("N", 512, 1, 1))], "row", None),
    ],
)
def test_the_output_is_the_one_that_describes_an_image(outputs: list[Any], chosen: str, pool: str | None) -> None:
    tensors = tuple(Tensor(name, "float32", shape, len(shape)) for name, shape in outputs)
    mission = validated(template(replace(FACTS, outputs=tensors))[0])
    assert (mission.descriptors[0].output, mission.descriptors[0].pool) == (chosen, pool)


def test_an_input_that_takes_no_images_is_left_open() -> None:
    """A value that is made up would describe the map wrongly without an error: the plan refuses the file instead."""
    text, open_points = template(replace(FACTS, inputs=(Tensor("mask", "bool", ("N", 257), 2), IMAGE)))
    assert any("inputs.mask" in one for one in open_points)
    with pytest.raises(ValidationError, match="no range"):
        validated(text)
    validated(text.replace("# value = 1", "value = 1", 1))


def test_a_model_that_takes_no_images_and_gives_nothing_says_so() -> None:
    _, open_points = template(replace(FACTS, inputs=(Tensor("x", "int64", ("N", 77), 2),), outputs=()))
    assert any("none of the inputs takes images" in one for one in open_points)
    assert any("has no output" in one for one in open_points)


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(source=NAMES, model=NAMES, end=NAMES, about=NAMES)
def test_no_name_of_the_files_says_more_than_a_name(source: str, model: str, end: str, about: str) -> None:
    """Law: names from foreign files are values and comments of the file, and nothing else, whatever stands in them."""
    usual = validated(template(FACTS)[0])
    facts = replace(
        FACTS,
        source=source,
        model=model,
        about_source=about,
        inputs=(replace(IMAGE, name=end),),
        outputs=(replace(ROW, name=end),),
    )
    data: Mapping[str, Any] = _parse(Path("m.toml"), template(facts)[0].encode())
    assert data["tiles"][0]["source"] == source
    assert data["backbones"][0]["model"] == model
    assert list(data["backbones"][0]["inputs"]) == [end]
    assert data["descriptors"][0]["output"] == end
    assert data.keys() == _parse(Path("m.toml"), template(FACTS)[0].encode()).keys()
    assert usual.mission.id == data["mission"]["id"]
