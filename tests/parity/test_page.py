"""The page: one file, sound markup, every picture, every figure, and nothing of it can be read as markup."""

from __future__ import annotations

import base64
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agileir_export.files import write_atomic
from agileir_export.images.codecs import decode
from agileir_export.parity import ParityImage, verify
from agileir_export.parity.drawings import amplification, bar_plot, difference_map, picture
from agileir_export.parity.page import report_page

from ..export import networks
from .tampering import tamper, with_nan, without_task

KIND = "swinir-light"
COMMAND = "agileir-export verify 'a b.onnx' --html <p>.html"
VOID = {"meta", "img", "input"}


class Page(HTMLParser):
    """Elements of a page; fails where they are not nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def image(source: str) -> Any:
    prefix, data = source.split(",")
    assert prefix == "data:image/png;base64"
    return decode(base64.b64decode(data)).pixels


@pytest.fixture(scope="module")
def written(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    model, artifact = networks.shared(KIND), networks.exported(folder, KIND)
    artifact = without_task(artifact)
    named = {"a cat": (5, 7), "<script>": (1, 1)}
    images = [ParityImage(name, networks.images(1, 3, *size)[0]) for name, size in named.items()]
    report = verify(model, artifact, images, subject='<b>"mine" & yours</b>')
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_atomic(path, report_page(report, model, artifact, images, command=COMMAND).encode())
    text = path.read_text(encoding="utf-8")
    return {"page": Page(text), "text": text, "report": report, "images": images, "artifact": artifact, "path": path}


def test_the_page_is_whole_and_alone(written: dict[str, Any]) -> None:
    text, page = written["text"], written["page"]
    assert text.startswith("<!DOCTYPE html>")
    assert not {"link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert page.all("script") == [{}]
    assert not re.search(r"https?://|@import|url\(|\bon\w+=", text)
    assert all((attributes["src"] or "").startswith("data:") for attributes in page.all("img"))
    assert all(attributes["alt"] for attributes in page.all("img"))
    assert [path.name for path in written["path"].parent.iterdir()] == ["report.html"]


def test_texts_are_escaped(written: dict[str, Any]) -> None:
    page = written["page"]
    assert page.all("b") == []
    assert 'Parity of <b>"mine" & yours</b>: passed' in page.text
    assert "<script>, 1x1" in page.text


def test_verdict_rungs_and_provenance(written: dict[str, Any]) -> None:
    text = written["page"].text
    for rung in written["report"].rungs:
        assert rung.name in text
        assert f">= {rung.floor:g} dB" in text
        assert f"floor {rung.floor:g} dB" in text
    artifact = written["artifact"]
    assert re.search(r"made\d{4}-\d\d-\d\d \d\d:\d\d UTC", text) and f"command{COMMAND}" in text
    for fact in (artifact.sha256, artifact.provenance["weights_sha256"], artifact.provenance["torch"], "onnxruntime"):
        assert fact in text


def test_every_picture_four_times(written: dict[str, Any]) -> None:
    drawn = [image(attributes["src"]) for attributes in written["page"].all("img")]
    assert len(drawn) == 8
    for index, given in enumerate(written["images"]):
        shown, candidate, reference, difference = drawn[4 * index : 4 * index + 4]
        np.testing.assert_allclose(shown, given.pixels, atol=0.5 / 255 + 1e-6)
        rows, columns = given.pixels.shape[1:]
        assert reference.shape == candidate.shape == difference.shape == (3, 2 * rows, 2 * columns)
        assert np.abs(reference - candidate).max() <= 1 / 255
        assert difference.max() > 0.45  # amplified until it can be seen
    assert len(re.findall(r"amplified [0-9,]+ times", written["page"].text)) == 2


def test_bars_for_every_measured_rung(written: dict[str, Any]) -> None:
    page, report = written["page"], written["report"]
    assert len(page.all("svg")) == len(report.rungs) == 2
    assert len(page.all("rect")) == sum(len(rung.measures) for rung in report.rungs) == 3
    for measure in report.rungs[1].measures:
        assert f"{measure.psnr:.1f} dB" in page.text


def test_a_miss_shows_what_is_not_finite(folder: Path, tmp_path: Path) -> None:
    model = networks.shared(KIND)
    broken = without_task(tamper(networks.exported(folder, KIND), tmp_path / "nan.onnx", "upsample.0.bias", with_nan))
    images = [ParityImage("a", networks.images(1, 3, 4, 4)[0])]
    report = verify(model, broken, images)
    write_atomic(tmp_path / "page.html", report_page(report, model, broken, images).encode())
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "MISSED" in page.text
    assert "output values are NaN or infinite" in page.text
    bad = report.rungs[1].measures[0].nonfinite
    assert f"{bad} values not finite (magenta)" in page.text
    difference = image(page.all("img")[3]["src"] or "")
    magenta = (difference == np.array([1, 0, 1])[:, None, None]).all(0)
    assert magenta.sum() == bad  # the bias is of one channel and one of the four places of a pixel


def test_the_pictures_of_verify_by_default(folder: Path, tmp_path: Path, small_samples: list[tuple[str, Path]]) -> None:
    model, artifact = networks.shared(KIND), networks.exported(folder, KIND)
    report = verify(model, artifact)
    write_atomic(tmp_path / "page.html", report_page(report, model, artifact, None).encode())
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert len(page.all("img")) == 4 * len(report.rungs[1].measures) == 12
    assert "restores ground truth" in page.text
    assert len(page.all("svg")) == 2  # the task rung has no PSNR of parity


# ---- drawings ----


@pytest.mark.parametrize(
    ("greatest", "factor"), [(0.0, 0), (1.0, 1), (0.6, 1), (0.5, 2), (0.26, 2), (0.25, 4), (2.0**-20, 2**20), (3.0, 1)]
)
def test_amplification_is_the_greatest_that_does_not_clip(greatest: float, factor: int) -> None:
    truth = np.zeros((3, 2, 2), np.float32)
    found = truth.copy()
    found[1, 0, 1] = -greatest
    assert amplification(truth, found) == factor
    assert difference_map(truth, found, factor)[1, 0, 1] == pytest.approx(factor * greatest)


def test_differences_that_are_not_finite() -> None:
    truth = np.zeros((1, 1, 3), np.float32)
    found = np.array([[[np.nan, np.inf, 0.25]]], np.float32)
    assert amplification(truth, found) == 4
    drawn = difference_map(truth, found, 4)
    assert np.isnan(drawn[0, 0, :2]).all() and drawn[0, 0, 2] == 1
    assert np.array_equal(image(picture(drawn))[:, 0].T, [[1, 0, 1], [1, 0, 1], [1, 1, 1]])


def test_bars() -> None:
    drawn = Page(bar_plot([("<a>", math.inf), ("b", 50.0), ("c", -math.inf), ("d", 100.0)], 100.0))
    widths = [float(bar["width"] or 0) for bar in drawn.all("rect")]
    assert widths[0] > widths[3] == pytest.approx(2 * widths[1], abs=0.2)
    assert widths[2] == 0
    colours = [bar["fill"] for bar in drawn.all("rect")]
    assert colours[0] == colours[3] != colours[1] == colours[2]
    (line,) = drawn.all("line")
    assert line["x1"] == line["x2"]
    bar = drawn.all("rect")[3]
    assert float(line["x1"] or 0) == pytest.approx(float(bar["x"] or 0) + widths[3], abs=0.1)  # the floor is 100
    assert "<a>" in drawn.text and "identical" in drawn.text and "not finite" in drawn.text


def test_a_floor_below_zero_is_drawn() -> None:
    Page(bar_plot([("a", 3.0)], -math.inf))
    Page(bar_plot([], 100.0))


def test_four_channels_are_shown_as_three() -> None:
    pixels = networks.images(1, 4, 3, 5)[0]
    np.testing.assert_allclose(image(picture(pixels)), pixels[:3], atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(image(picture(pixels[:2])), pixels[[0, 0, 0]], atol=0.5 / 255 + 1e-6)


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MOVED = """<script>addEventListener("load", () => {
  const slider = document.querySelector(".compare input"), box = document.querySelector(".compare div");
  slider.focus(); slider.value = VALUE; slider.dispatchEvent(new Event("input"));
  const {left, top, width, height} = box.getBoundingClientRect();
  document.title = JSON.stringify([left, top, width, height, document.documentElement.scrollWidth,
                                   document.activeElement === slider]) })</script></body>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here (Debian: apt install chromium)")
@pytest.mark.parametrize("width", [1200, 500], ids=["desk", "phone"])
def test_the_slider_in_a_real_browser(folder: Path, tmp_path: Path, width: int) -> None:
    """At its ends a comparison shows one picture each, in the middle half of both; nothing is wider than the window."""
    model, artifact = networks.shared(KIND), without_task(networks.exported(folder, KIND))
    images = [ParityImage("a", np.zeros((3, 8, 8), np.float32))]
    text = report_page(verify(model, artifact, images), model, artifact, images)
    for source, colour in zip(re.findall(r'src="([^"]+)"', text), ((1, 0, 0), (0, 0, 1)), strict=False):
        text = text.replace(source, picture(np.full((8, 8, 3), colour, np.float32).transpose(2, 0, 1)), 1)
    browser = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    browser += [f"--user-data-dir={tmp_path}", f"--window-size={width},3000", "--virtual-time-budget=2000"]
    page, shot = tmp_path / "page.html", tmp_path / "shot.png"
    found = []
    for value in (0, 50, 100):
        page.write_text(text.replace("</body>", MOVED.replace("VALUE", str(value))), encoding="utf-8")
        answer = subprocess.run([*browser, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120)
        title = re.search(r"<title>(.*?)</title>", answer.stdout)
        assert title is not None, answer.stderr
        left, top, wide, high, scrolled, focused = json.loads(title[1])
        assert focused and left >= 0 and left + wide <= width and scrolled <= width
        subprocess.run([*browser, f"--screenshot={shot}", page.as_uri()], capture_output=True, timeout=120, check=True)
        red, _, blue = decode(shot.read_bytes()).pixels[:, int(top + high / 2)]
        places = [int(left + wide * share) for share in (0.25, 0.75)]
        found.append(["red" if red[place] > blue[place] else "blue" for place in places])
    assert found == [["blue", "blue"], ["red", "blue"], ["red", "red"]]
