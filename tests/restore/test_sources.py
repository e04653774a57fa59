"""Which pictures are meant, and where they belong."""

from __future__ import annotations

from pathlib import Path

import pytest

from agileir_export.errors import ImageError
from agileir_export.restore.sources import find_pictures


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a tree of files."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "photos/10.jpg",
        "photos/9.jpg",
        "photos/notes.txt",
        "photos/.hidden.png",
        "photos/.cache/a.png",
        "photos/italy/1.png",
        "photos/italy/rome/1.png",
        "photos/italy/rome/2.gif",
        "photos/out/9.jpg",
        "a[1].png",
        "@b.png",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")
    Path("photos/x.png").mkdir()
    return tmp_path


def found(*named: str, recursive: bool = False, output: str | None = None) -> list[tuple[str, str]]:
    pictures = find_pictures(named, recursive, None if output is None else Path(output))
    return [(file.as_posix(), place.as_posix()) for file, place in pictures]


def test_a_folder(here: Path) -> None:
    assert found("photos") == [("photos/9.jpg", "9.jpg"), ("photos/10.jpg", "10.jpg")]


def test_a_tree_is_mirrored_without_the_output_in_it(here: Path) -> None:
    names = ["9.jpg", "10.jpg", "italy/1.png", "italy/rome/1.png", "italy/rome/2.gif", "out/9.jpg"]
    assert found("photos", recursive=True) == [(f"photos/{name}", name) for name in names]
    assert found("photos", recursive=True, output="photos/out") == [(f"photos/{name}", name) for name in names[:-1]]
    assert found("photos", recursive=True, output="photos") == found("photos", recursive=True)


def test_links_to_folders_are_not_followed(here: Path) -> None:
    Path("photos/italy/round").symlink_to(here / "photos")
    assert len(found("photos", recursive=True)) == 6


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("photos/*.jpg", ["9.jpg", "10.jpg"]),
        ("photos/*", ["9.jpg", "10.jpg"]),
        ("photos/**/*.png", ["italy/1.png", "italy/rome/1.png"]),
        ("photos/**/[12].*", ["italy/1.png", "italy/rome/1.png", "italy/rome/2.gif"]),
    ],
)
def test_a_pattern(pattern: str, names: list[str], here: Path) -> None:
    assert found(pattern) == [(f"photos/{name}", name) for name in names]
    absolute = f"{here.as_posix()}/{pattern}"
    assert found(absolute) == [(f"{here.as_posix()}/photos/{name}", name) for name in names]


def test_a_pattern_leaves_the_output_out(here: Path) -> None:
    assert ("photos/out/9.jpg", "out/9.jpg") in found("photos/**/*.jpg")
    assert ("photos/out/9.jpg", "out/9.jpg") not in found("photos/**/*.jpg", output="photos/out")


def test_a_file_comes_before_a_pattern(here: Path) -> None:
    assert found("a[1].png", "./@b.png") == [("a[1].png", "a[1].png"), ("@b.png", "@b.png")]


def test_a_list(here: Path) -> None:
    lines = "photos/italy/rome/1.png\n\nphotos\r\nphotos/italy/*.png\n@b.png\n"
    expected = [("photos/italy/rome/1.png", "1.png"), ("photos/9.jpg", "9.jpg"), ("photos/10.jpg", "10.jpg")]
    for encoding in ("utf-8", "utf-8-sig"):  # Windows writes the latter
        Path("list.txt").write_text(lines, encoding=encoding)
        assert found("@list.txt") == [*expected, ("photos/italy/1.png", "1.png"), ("@b.png", "@b.png")]
    Path("list.txt").write_text(f"photos/italy/rome/1.png\n{here}/photos/9.jpg\n../{here.name}/@b.png", "utf-8")
    assert [place for _, place in found("@list.txt", recursive=True)] == ["photos/italy/rome/1.png", "9.jpg", "@b.png"]


def test_each_comes_once(here: Path) -> None:
    assert found("photos/9.jpg", "photos", "photos/*.jpg") == [("photos/9.jpg", "9.jpg"), ("photos/10.jpg", "10.jpg")]


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("none.png", "no file or folder none"),
        ("photos/*.tif", "no picture that photos/"),
        ("@none.txt", r"Cannot read the list of pictures none\.txt: No such file"),
        ("photos/x.png", "has no image in it"),
        ("@empty.txt", "No image was given"),
        ("@binary", "Cannot read the list of pictures binary"),
    ],
)
@pytest.mark.parametrize("recursive", [False, True])
def test_nothing_there(named: str, message: str, recursive: bool, here: Path) -> None:
    Path("empty.txt").touch()
    Path("binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ImageError, match=message):
        found(named, recursive=recursive)
