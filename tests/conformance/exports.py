"""Export backbones of different make with torch, beside what torch itself computes of them.

    python exports.py FOLDER

Runs in an environment of its own: the project needs no torch. It writes, for each backbone, FOLDER/<name>.onnx (with
its .data where the exporter makes one) and FOLDER/<name>.npz: an input and the output of torch.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np


def main(folder: Path) -> None:
    import torch
    from torch import nn

    class Tokens(nn.Module):
        """As DINOv2: patches of 14 pixels, a class token, positions, transformer blocks; tokens [N, 1 + T, d]."""

        def __init__(self, side: int = 112, patch: int = 14, d: int = 64) -> None:
            super().__init__()
            self.patch = nn.Conv2d(3, d, patch, patch)
            self.cls = nn.Parameter(torch.randn(1, 1, d) * 0.02)
            self.pos = nn.Parameter(torch.randn(1, 1 + (side // patch) ** 2, d) * 0.5)
            layer = nn.TransformerEncoderLayer(d, 4, 2 * d, 0.0, "gelu", batch_first=True, norm_first=True)
            self.blocks = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
            self.norm = nn.LayerNorm(d)

        def forward(self, image: Any) -> Any:
            x = self.patch(image).flatten(2).transpose(1, 2)
            x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.pos
            return self.norm(self.blocks(x))

    class Convolutions(nn.Module):
        """With batch normalisation, a SiLU, and a descriptor of length 1."""

        def __init__(self) -> None:
            super().__init__()
            body = [nn.Conv2d(3, 32, 5, 2, 2), nn.BatchNorm2d(32), nn.SiLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.SiLU()]
            self.net = nn.Sequential(*body, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(1024, 64))

        def forward(self, image: Any) -> Any:
            return nn.functional.normalize(self.net(image))

    class Bytes(Convolutions):
        """The same from pixels in bytes, [N, H, W, 3]."""

        def forward(self, image: Any) -> Any:
            return super().forward(image.permute(0, 3, 1, 2).to(torch.float32) / 255)

    torch.manual_seed(7)

    def export(name: str, network: Any, image: Any, output: str, *, dynamo: bool) -> None:
        network = network.eval()
        with torch.no_grad():
            made = network(image)
        if image.dtype != torch.bfloat16:  # which numpy does not have
            np.savez(folder / f"{name}.npz", image=image.numpy(), **{output: made.numpy()})
        ends: dict[str, Any] = {"input_names": ["image"], "output_names": [output], "dynamo": dynamo}
        if dynamo:
            ends["dynamic_shapes"] = {"image": {0: torch.export.Dim("N", min=1, max=64)}}
        else:
            ends["dynamic_axes"] = {"image": {0: "N"}, output: {0: "N"}}
        torch.onnx.export(network, (image,), str(folder / f"{name}.onnx"), **ends)

    large, small = torch.rand(2, 3, 112, 112), torch.rand(2, 3, 64, 64)
    tokens = Tokens()
    export("tokens-dynamo", tokens, large, "tokens", dynamo=True)
    export("tokens-legacy", tokens, large, "tokens", dynamo=False)
    export("convolutions-dynamo", Convolutions(), small, "descriptor", dynamo=True)
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    export("bytes-legacy", Bytes(), pixels, "descriptor", dynamo=False)
    export("half-legacy", Convolutions().half(), small.half(), "descriptor", dynamo=False)
    export("bfloat16-dynamo", Convolutions().bfloat16(), small.bfloat16(), "descriptor", dynamo=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
