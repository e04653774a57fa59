"""INT8 engines of models whose streams outgrow float16: rescaled once, by the calibration."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from agileir_export.calib import CalibrationOptions
from agileir_export.conversion import ConversionRequest, Int8Request, convert
from agileir_export.engines import OnnxRuntimeRunner
from agileir_export.parity.images import ParityImage

from ..cli.command import document, run
from ..export import networks
from ..export.blown_up import blow_up_file
from ..export.written import int8_file


def test_the_verb_takes_the_recipe_of_a_calibration_that_rescaled(files: dict[str, Path], tmp_path: Path) -> None:
    exported = networks.exported(files["onnx"].parent, "swinir-light")
    picture = networks.images(1, exported.spec.channels, 16, 24)
    loud = blow_up_file(exported, tmp_path / "loud.onnx", ParityImage("noise", picture[0]))
    how = CalibrationOptions(rest="float16", crops=2, held_out=1, every_layer=False, equalise=False, psnr_budget=5.0)
    artifact, report = int8_file(loud, tmp_path / "int8.onnx", options=how)
    assert report.recipe.rescaled and max(artifact.rescale.values()) > 0
    assert artifact.rescale_report is not None and artifact.rescale_report["bit_identical"] is True
    assert np.isfinite(OnnxRuntimeRunner(artifact).run(picture)).all()
    wanted = ConversionRequest("int8", int8=Int8Request(recipe=report.recipe))
    if importlib.util.find_spec("tensorrt_rtx_bindings") is not None:  # the weights' scales are below float16's range
        sizes = ("--min", "8x8", "--opt", "16x16", "--max", "32x32")
        built = run(
            "trt", artifact.path, "--target", "rtx", "--gpu", "sm86", *sizes, "-o", "a.plan", "--no-cache", "--json"
        )
        assert built.exit_code == 0, built.stderr
        shares = document(built)["audit"]["shares"]
        assert sum(share["count"] for share in shares if share["precision"] == "int8") == len(report.recipe.int8)
    again = convert(loud, wanted)
    assert again.sha256 == artifact.sha256
