"""The inspector's text, which an engine card holds: bounded. `test_tensorrt.py` has the whole flow."""

from __future__ import annotations

import json

from builders.engines.tensorrt_compile import bounded_inspection


def test_inspector_json_is_bounded() -> None:
    layer = {"Name": "n" * 300, "LayerType": "Conv", "TacticName": "t", "Metadata": "m" * 1000}
    text = json.dumps({"Layers": [layer] * 12_000})
    value = bounded_inspection(text)
    assert value["layers"] == 12_000
    assert len(json.dumps(value)) < 4 * 2**20
    assert value["Layers"][0] == {"Name": "n" * 100, "LayerType": "Conv", "TacticName": "t"}
    assert bounded_inspection('{"Layers": ["a"], "x": NaN}') == {"Layers": ["a"], "x": "NaN"}
    assert bounded_inspection("no JSON") == {"unreadable": "no JSON"}
