"""What pictures are called between a server and whoever asks it: tensors, parameters, and the code words of errors.

A request to the picture model (`bundle.picture_model`) has one tensor of bytes, and gets two: the file of the restored
picture, and what there is to say about it as a JSON object.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["ABOUT", "FORMAT", "PARAMETERS", "PICTURE", "QUALITY", "RESTORED", "CodedError", "coded"]

PICTURE, RESTORED, ABOUT = "picture", "restored", "about"
"""The tensors, uint8 ``[1, bytes]`` each: a picture's file; the restored one's; JSON (UTF-8).

A request that asks for `ABOUT` alone is about the model: its picture, of any content, is not looked at."""

FORMAT, QUALITY = "format", "quality"
PARAMETERS = (FORMAT, QUALITY)
"""The parameters of a request: the suffix of the restored file without its dot, by default the picture's own or png for
formats that are only read; and 1 to 100 for JPEG and WebP."""

_CODED = re.compile(r"((?:cancelled|environment|input|internal|limit|unsupported)(?:\.[a-z-]+)?): (.*)", re.DOTALL)


@dataclass(frozen=True)
class CodedError:
    """An error of the picture model.

    Attributes:
        code: Stable word: ``input.image``, ``input.parameter``, ``input.output``, ``limit.pixels``, ``limit.bytes``,
            ``limit.time``, ``cancelled``, ``environment``, ``unsupported`` or ``internal``.
        text: What happened; it names no file of the server.
    """

    code: str
    text: str

    def __str__(self) -> str:
        return f"{self.code}: {self.text}"


def coded(message: str) -> CodedError | None:
    """The error of a picture model in a message of its server; None where it is another's."""
    found = _CODED.fullmatch(message.strip())
    return None if found is None else CodedError(found[1], found[2])
