"""KML and KMZ: what is read, what is passed over, and what no reader of foreign XML may do."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from builders.areas import kml as module
from builders.areas.drawing import open_drawing, read_area
from builders.areas.geometry import MAX_BYTES, Home
from store.errors import Invalid
from store.format.area import Area
from tests.support.drawings import (
    RING,
    area_in,
    coordinates,
    corridor_in,
    kml,
    kml_line,
    kml_point,
    kml_polygon,
    kmz,
    placemark,
    ring_e7,
    written,
)

HOLE = [[47.015, -99.165], [47.015, -99.155], [47.025, -99.155], [47.025, -99.165]]
AREA = Area((-991700000, 470100000, -991500000, 470300000), ((ring_e7(),),))


@pytest.mark.parametrize(
    "text",
    [
        kml(placemark(kml_polygon())),
        "\ufeff" + kml(placemark(kml_polygon())),
        "\n" + kml(placemark(kml_polygon()), head=""),
        kml(placemark(f"<MultiGeometry>{kml_polygon()}</MultiGeometry>", "area")).replace("\n", "\r\n"),
        kml(placemark(kml_polygon())).replace("http://www.opengis.net/kml/2.2", "http://earth.google.com/kml/2.1"),
        kml(placemark(kml_polygon())).replace(' xmlns="http://www.opengis.net/kml/2.2"', ""),
        kml(placemark(kml_polygon())).replace("<", "<k:").replace("<k:/", "</k:").replace("<k:?", "<?").replace(
            "xmlns=", "xmlns:k="
        ),
        kml(placemark(kml_polygon())).replace(",0 ", "\n\t "),
        kml(placemark(kml_polygon()), head='<?xml version="1.0" encoding="ISO-8859-1"?><!-- drawn by hand -->'),
    ],
)  # fmt: skip
def test_a_polygon_wherever_it_may_be(tmp_path: Path, text: str) -> None:
    assert area_in(written(tmp_path / "a.kml", text)) == AREA


def test_holes_are_kept(tmp_path: Path) -> None:
    area = area_in(written(tmp_path / "a.kml", kml(placemark(kml_polygon(RING, HOLE)))))
    assert area.polygons == ((ring_e7(), ring_e7(HOLE)),)


def test_a_placemark_is_selected_by_its_name_and_all_else_is_listed(tmp_path: Path) -> None:
    other = [[46.0, 7.0], [46.0, 7.1], [46.1, 7.1]]
    path = written(
        tmp_path / "a.kml",
        kml(
            placemark(kml_polygon(), "the ridge"),
            placemark(kml_polygon(other), "Thun &amp; Bern"),
            placemark(kml_line(), "route"),
            placemark("", "note"),
            "<NetworkLink><Link><href>http://example.com/more.kml</href></Link></NetworkLink>",
            "<GroundOverlay><Icon><href>/etc/passwd</href></Icon></GroundOverlay>",
            placemark("<gx:Track xmlns:gx='http://www.google.com/kml/ext/2.2'/>", "flown"),
        ),
    )
    assert area_in(path, "the ridge") == AREA
    assert area_in(path, "Thun & Bern").polygons == ((ring_e7(other),),)
    file = open_drawing(path)
    assert len(read_area(file).polygons) == 2
    told = "\n".join(file.notes)
    for what in ("is a LineString", "has no geometry", "is a NetworkLink", "is a GroundOverlay", "is a Track"):
        assert f"{what}: passed over" in told
    with pytest.raises(Invalid, match="of the name") as caught:
        area_in(path, "the rige")
    assert '"the ridge"' in str(caught.value.remedy)


def test_lines_are_a_corridor_also_where_they_are_rings(tmp_path: Path) -> None:
    line = corridor_in(written(tmp_path / "a.kml", kml(placemark(kml_line()))), 400)
    ring = f"<LinearRing>{coordinates([[47.012, -99.165], [47.025, -99.155], [47.028, -99.168]])}</LinearRing>"
    assert corridor_in(written(tmp_path / "b.kml", kml(placemark(ring))), 400) == line
    with pytest.raises(Invalid, match=r"has no line; line .* is a Polygon: passed over"):
        corridor_in(written(tmp_path / "c.kml", kml(placemark(kml_polygon()))), 400)


def test_one_point_is_the_takeoff(tmp_path: Path) -> None:
    two = kml(placemark(kml_point(47.02, -99.16), "home"), placemark(kml_point(47.03, -99.16, 12.5), "spare"))
    file = open_drawing(written(tmp_path / "a.kml", two))
    assert file.home("home") == Home(-991600000, 470200000, None)
    assert file.home("spare") == Home(-991600000, 470300000, Decimal("12.5"))
    with pytest.raises(Invalid, match="has 2 points"):
        file.home(None)


def test_a_kmz_is_its_kml(tmp_path: Path) -> None:
    text = kml(placemark(kml_polygon()))
    for n, data in enumerate([kmz(doc_kml=text), kmz(files_png=b"\x89PNG", any_kml=text), kmz(**{"sub/a_kml": text})]):
        assert area_in(written(tmp_path / f"{n}.kmz", data)) == AREA
    file = open_drawing(written(tmp_path / "several.kmz", kmz(doc_kml=text, more_kml=kml())))
    assert read_area(file) == AREA
    assert file.notes == (f'{tmp_path}/several.kmz: "more.kml" is another KML of the KMZ: passed over',)


def zipped(make: Callable[[zipfile.ZipFile], None]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        make(archive)
    return buffer.getvalue()


def test_a_kmz_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = zipped(lambda z: z.writestr("doc.kml", b" " * (MAX_BYTES + 1), zipfile.ZIP_DEFLATED))
    assert len(bomb) < 20_000
    text = kml(placemark(kml_polygon()))
    damaged = bytearray(kmz(doc_kml=text))
    damaged[60] ^= 0xFF
    for n, (data, told) in enumerate(
        [
            (bomb, "has more than 16777216 bytes"),
            (kmz(a_txt="x"), "is a ZIP with 0 KML files"),
            (kmz(a_kml=text, b_kml=text), 'is a ZIP with 2 KML files "a.kml", "b.kml"'),
            (zipped(lambda z: z.writestr("doc.kml", text, zipfile.ZIP_BZIP2)), "packed in a rare way"),
            (bytes(damaged), "the ZIP is damaged"),
            (kmz(doc_kml=text)[:-30], "the ZIP is damaged"),
            (b"PK", "the ZIP is damaged"),
        ]
    ):
        with pytest.raises(Invalid, match=told) as caught:
            open_drawing(written(tmp_path / f"{n}.kmz", data))
        assert caught.value.remedy
    monkeypatch.setattr(module, "MAX_MEMBERS", 3)
    with pytest.raises(Invalid, match="it has 4 members"):
        open_drawing(written(tmp_path / "many.kmz", kmz(a_kml=text, b_txt="", c_txt="", d_txt="")))


def test_no_entity_is_defined_and_nothing_else_is_opened(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("47.0 secret")
    body = kml(placemark(kml_polygon(), "&more;"), head="")
    laughs = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    for declared in (
        f'<!DOCTYPE kml [<!ENTITY more SYSTEM "file://{tmp_path}/secret">]>',
        f'<!DOCTYPE kml SYSTEM "file://{tmp_path}/secret">',
        '<!DOCTYPE kml [<!ENTITY more "a"> <!ENTITY % out SYSTEM "http://example.com/x.dtd"> %out;]>',
        f'<!DOCTYPE kml [<!ENTITY a0 "ha">{laughs}]>',
        "<!DOCTYPE kml>",
    ):
        with pytest.raises(Invalid, match=r"line 1 is a document type") as caught:
            open_drawing(written(tmp_path / "a.kml", declared + body))
        assert "secret" not in str(caught.value)
    with pytest.raises(Invalid, match="undefined entity"):
        open_drawing(written(tmp_path / "a.kml", body))
    # The remedy.
    assert area_in(written(tmp_path / "a.kml", body.replace("&more;", "more"))) == AREA


def test_elements_and_depth_are_bounded(tmp_path: Path) -> None:
    for text in ("<kml>" + "<a/>" * (module.MAX_ELEMENTS + 1) + "</kml>", "<kml>" + "<Folder>" * 100):
        with pytest.raises(Invalid, match="exceeds a bound"):
            open_drawing(written(tmp_path / "a.kml", text))


ONE_RING = "<LinearRing><coordinates>0,0 1,0 1,1 0,0</coordinates></LinearRing>"
TWO_RINGS = f"<Polygon><outerBoundaryIs>{ONE_RING}{ONE_RING}</outerBoundaryIs></Polygon>"
TWICE = kml_polygon().replace("<coordinates>", "<coordinates>0,0</coordinates><coordinates>")
INNER = f"<innerBoundaryIs>{ONE_RING}</innerBoundaryIs>"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<kml>", "is not well-formed XML"),
        ('<gpx xmlns="http://www.topografix.com/GPX/1/1"></gpx>', 'first element is "gpx", must be kml'),
        (kml(placemark(kml_polygon([[47.0, -99.0]]))), "a ring has at least 4"),
        (kml(placemark(kml_polygon().replace("-99.17,47.01,0", "-99.17, 47.01, 0"))), 'has "-99.17," among'),
        (kml(placemark(kml_polygon().replace("-99.17,47.01,0", "-99,17;47,01"))), "among its coordinates"),
        (kml(placemark(kml_polygon().replace("-99.17,47.01,0", "-99.17,91,0"))), "outside the world"),
        (kml(placemark(kml_polygon().replace("-99.17,47.01,0", "nan,47.01,0"))), "among its coordinates"),
        (kml(placemark(kml_polygon().replace("outerBoundaryIs", "other"))), "without exactly one outer ring"),
        (kml(placemark(TWO_RINGS)), "without exactly one outer ring"),
        (kml(placemark("<Polygon><outerBoundaryIs/>" + INNER + "</Polygon>")), "without exactly one outer ring"),
        (kml(placemark(TWICE)), "coordinates twice"),
        (kml(placemark(kml_polygon().replace("<coordinates>", "<coordinates>0,0 <b/> "))), "elements among them"),
        (kml(placemark("<Polygon/>")), "without exactly one outer ring"),
        (kml(placemark(kml_line())), "has no polygon; line .* is a LineString"),
        (kml(), "has no polygon"),
        ('<?xml version="1.0" encoding="x-klingon"?><kml/>', "XML"),
    ],
)
def test_refuses(tmp_path: Path, text: str, told: str) -> None:
    path = written(tmp_path / "a.kml", text)
    with pytest.raises(Invalid, match=told) as caught:
        area_in(path)
    assert str(path) in caught.value.message
    assert caught.value.remedy


def test_an_empty_polygon_beside_another_is_passed_over(tmp_path: Path) -> None:
    """As in GeoJSON: programs leave one for a shape that was begun and not drawn."""
    empty = re.sub(r"<coordinates>.*?</coordinates>", "<coordinates> </coordinates>", kml_polygon(), flags=re.DOTALL)
    file = open_drawing(written(tmp_path / "a.kml", kml(placemark(empty) + placemark(kml_polygon()))))
    assert read_area(file) == read_area(open_drawing(written(tmp_path / "b.kml", kml(placemark(kml_polygon())))))
    assert any("is an empty Polygon: passed over" in note for note in file.notes)
