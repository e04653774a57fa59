"""The recipe of an INT8 file: everything that was found out about it, so that it can be made again without images."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..json_form import JsonForm, parse_json
from .equalise import Equalisation

if TYPE_CHECKING:
    from ..export import OnnxArtifact

__all__ = ["Recipe", "read_recipe"]

FORMAT = "agileir-export INT8 recipe"
VERSION = 1


@dataclass(frozen=True)
class Recipe(JsonForm):
    """What makes an INT8 file of a float one.

    Attributes:
        model: Name of the model.
        weights_sha256: Digest of its weights, as the float file has it.
        method: Calibration method.
        percentile: Share in percent that is not clipped; for the method ``"percentile"`` only, else None.
        crops: Number of calibration crops.
        crops_sha256: Digest of their pixels.
        psnr_budget: dB that a picture may lose.
        rescaled: Whether residual streams had been divided to fit into float16: thresholds are those of the divided.
        int8: Names of the layers in INT8.
        thresholds: By name of every layer, the absolute value of its input that becomes 127.
        equalisations: Channel scales that were moved into weights.
    """

    model: str
    weights_sha256: str | None
    method: str
    percentile: float | None
    crops: int
    crops_sha256: str
    psnr_budget: float
    rescaled: bool
    int8: tuple[str, ...]
    thresholds: dict[str, float]
    equalisations: tuple[Equalisation, ...]

    def to_json(self) -> dict[str, Any]:
        """The recipe as a JSON object."""
        return {"format": FORMAT, "version": VERSION, **super().to_json()}

    def text(self) -> str:
        """The recipe as the text of a file."""
        return json.dumps(self.to_json(), indent=1) + "\n"

    def provenance(self) -> dict[str, Any]:
        """What a file made with the recipe says of its calibration."""
        digest = hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()
        told = {
            "method": self.method,
            "crops": self.crops,
            "crops_sha256": self.crops_sha256,
            "psnr_budget": self.psnr_budget,
            "int8_layers": len(self.int8),
            "float_layers": len(self.thresholds) - len(self.int8),
            "equalised": bool(self.equalisations),
            "recipe_sha256": digest,
        }
        return told if self.percentile is None else {**told, "percentile": self.percentile}

    def check(self, artifact: OnnxArtifact, names: list[str], rescaled: bool) -> None:
        """Refuses a file the recipe was not made for.

        Args:
            artifact: The float file.
            names: Names of its layers.
            rescaled: Whether its graph was rescaled.

        Raises:
            InputError: It has other weights or layers.
        """
        if self.weights_sha256 != artifact.provenance.get("weights_sha256"):
            raise InputError(
                f"The recipe was made for other weights of {self.model} than those of {artifact.name}.",
                fix="Calibrate this model: leave --recipe out.",
            )
        if self.rescaled != rescaled:
            raise InputError(
                f"The streams of {artifact.name} outgrow float16, and the recipe was made "
                + ("with float16 in mind." if self.rescaled else "for float32."),
                fix="Apply it with the same type for the rest, or calibrate again.",
            )
        unknown = sorted({*self.thresholds} ^ {*names})
        if unknown:
            raise InputError(
                f"The recipe does not fit the graph of {artifact.name}: {len(unknown)} layers differ, "
                f"such as {unknown[0]}.",
                fix="Export as for the recipe, or calibrate again.",
            )


def read_recipe(path: str | Path) -> Recipe:
    """Reads a recipe file.

    Raises:
        InputError: It is missing, or no recipe of this version.
    """
    path = Path(path)
    try:
        fields = parse_json(path.read_text(encoding="utf-8"))
        if fields.pop("format") != FORMAT or fields.pop("version") != VERSION:
            raise ValueError("another format or version")
        fields["int8"] = tuple(map(str, fields["int8"]))
        fields["thresholds"] = {str(name): _positive(value) for name, value in fields["thresholds"].items()}
        fields["equalisations"] = tuple(
            Equalisation(tuple(entry["layers"]), entry["producer"], tuple(map(int, entry["exponents"])))
            for entry in fields["equalisations"]
        )
        recipe = Recipe(**fields)
        if stray := set(recipe.int8) - set(recipe.thresholds):
            raise ValueError(f"no threshold for {min(stray)}")
    except OSError as error:
        raise InputError(f"Cannot read the recipe {path}: {error.strerror}.", fix="Check the path.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is not a recipe of this version: {type(error).__name__}: {error}.",
            fix="Use a file that `agileir-export calibrate --save-recipe` wrote.",
        ) from error
    return recipe


def _positive(value: Any) -> float:
    number = float(value)
    if not 0 < number < math.inf:
        raise ValueError(f"the threshold {value!r} is not a positive number")
    return number
