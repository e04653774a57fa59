"""Charts of bars: lengths, headings, legend, and what an embedded chart leaves to its page."""

from __future__ import annotations

from xml.etree import ElementTree

from agileir_export.images.charts import Bar, bar_chart

GROUPS = {"one": [Bar("<a>", 0.5, "5 dB", "#111")], "two": [Bar("b", 7.0, "70 dB", "#222"), Bar("c", -1, "", "#111")]}


def test_a_chart_of_its_own_is_a_document_with_everything_written_in_it() -> None:
    root = ElementTree.fromstring(bar_chart("A & B", GROUPS, legend=[("#111", "dark")], labels=100, bars=200))
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and "background" in root.attrib["style"]
    words = [text.text for text in root.findall(".//{*}text")]
    assert words == ["A & B", "dark", "one", "<a>", "5 dB", "two", "b", "70 dB", "c", None]
    legend, *bars = root.findall(".//{*}rect")
    assert [(bar.attrib["fill"], float(bar.attrib["width"])) for bar in bars] == [
        ("#111", 100),
        ("#222", 200),  # cut: no bar leaves the chart
        ("#111", 0),
    ]
    heights = [float(rect.attrib["y"]) for rect in (legend, *bars)]
    assert heights == sorted(set(heights)) and heights[-1] < float(root.attrib["viewBox"].split()[-1])


def test_an_embedded_chart_has_the_style_of_its_page_and_tells_its_title() -> None:
    root = ElementTree.fromstring(bar_chart("told", {"": GROUPS["one"]}, mark=(0.5, "limit"), embedded=True))
    assert root.attrib["aria-label"] == "told" and "style" not in root.attrib
    assert [text.text for text in root.iter("text")] == ["<a>", "5 dB", "limit"]
    (line,), (bar,) = root.iter("line"), root.iter("rect")
    assert float(line.attrib["x1"]) == float(bar.attrib["x"]) + float(bar.attrib["width"])
