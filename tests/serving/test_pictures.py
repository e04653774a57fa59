"""The picture model without a server: what it makes, batches, waits for, refuses and says."""

from __future__ import annotations

import json
import threading
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image as pillow

from agileir_export.errors import EnvironmentProblem, InternalError
from agileir_export.restore import TiledRunner, restore_pictures
from agileir_export.restore.memory import MemoryPlan
from agileir_export.restore.wire import ABOUT, RESTORED, CodedError, coded
from agileir_export.serving.batching import SharedRunner
from agileir_export.serving.limits import LEAST_PIXELS, Limits, RefusedRequest, Waiting, fitting_limits
from agileir_export.serving.pictures import PictureRequest, PictureService, ServiceOptions

from ..restore.small_folders import Doubling
from .pictures import bad, good

FEW = Limits(pixels=4096, bytes=100_000, seconds=20.0)


def service(runner: Any = None, **options: Any) -> PictureService:
    return PictureService(runner or Doubling(), ServiceOptions(**{"limits": FEW, **options}))


def test_it_makes_the_bytes_that_restore_makes(tmp_path: Path) -> None:
    files = good(16)
    (tmp_path / "in").mkdir()
    for name, data in files.items():
        (tmp_path / "in" / name).write_bytes(data)
    restore_pictures(Doubling(), tmp_path / "in", tmp_path / "out", tile=16, overlap=4)
    found = service(tile=16, overlap=4).answer([PictureRequest(data) for data in files.values()])
    for name, answer in zip(files, found, strict=True):
        assert answer[RESTORED] == (tmp_path / "out" / name).read_bytes(), name  # type: ignore[index]


def test_a_bad_one_does_not_touch_the_others() -> None:
    spoilt = bad(FEW.pixels, FEW.bytes)
    sound = good(1)["0.png"]
    answers = service().answer([PictureRequest(each) for data, _ in spoilt.values() for each in (data, sound)])
    assert [getattr(answer, "code", "") for answer in answers[::2]] == [code for _, code in spoilt.values()]
    assert len({answer[RESTORED] for answer in answers[1::2]}) == 1  # type: ignore[index]


@pytest.mark.parametrize("told", [True, False], ids=["by-the-header", "by-the-decoder"])
@pytest.mark.parametrize("format", ["GIF", "TIFF", "WEBP", "BMP", "JPEG", "PNG", "JPEG2000", "AVIF", "TIFF16"])
def test_too_many_pixels_are_refused_before_they_are_unpacked(
    format: str, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = BytesIO()
    if format == "TIFF16":
        tifffile.imwrite(file, np.zeros((80, 80), np.uint16))
    else:
        pillow.new("RGB", (80, 80)).save(file, format)
    if not told:
        monkeypatch.setattr("agileir_export.serving.pictures.size_told", lambda file: None)
    for module in ("png", "pillow_formats", "tiff", "iso"):
        samples = f"agileir_export.images.{module}.from_samples"
        monkeypatch.setattr(samples, lambda *_: pytest.fail("it was unpacked"))
    (answer,) = service().answer([PictureRequest(file.getvalue())])
    assert isinstance(answer, CodedError) and answer.code == "limit.pixels"
    assert "80x80" in answer.text and "4096" in answer.text


def test_a_tiff_whose_tile_is_a_bomb() -> None:
    file = BytesIO()
    tifffile.imwrite(file, np.zeros((16, 16), np.uint16), tile=(16, 16), compression="zlib")
    data = bytearray(file.getvalue())
    with tifffile.TiffFile(BytesIO(bytes(data))) as read:
        for code in (322, 323):  # a tile of 65520x65520 pixels around a picture of 16x16
            tag = read.pages.first.tags[code]
            data[tag.valueoffset : tag.valueoffset + 2] = (65520).to_bytes(2, "little")
    (answer,) = service().answer([PictureRequest(bytes(data))])
    assert isinstance(answer, CodedError) and answer.code == "limit.pixels"


def test_what_is_asked_for_and_no_more() -> None:
    (answer,) = service().answer([PictureRequest(b"", wanted=[ABOUT])])
    assert json.loads(answer[ABOUT])["limits"] == FEW.to_json()  # type: ignore[index]
    (answer,) = service().answer([PictureRequest(good(1)["0.png"], wanted=[RESTORED])])
    assert [*answer] == [RESTORED]  # type: ignore[misc]


class Gate(Doubling):
    """Waits in the first run until it is let go, and counts the images of every run."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.entered, self.open = threading.Event(), threading.Event()

    def run(self, images: Any) -> Any:
        self.sizes.append(len(images))
        self.entered.set()
        assert self.open.wait(20)
        return super().run(images)


def ask_together(shared: SharedRunner, gate: Gate, images: list[Any]) -> list[Any]:
    """Runs the first, and all others at once behind it."""
    found: list[Any] = [None] * len(images)

    def ask(number: int) -> None:
        try:
            found[number] = shared.run(images[number])
        except Exception as error:
            found[number] = error

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(images))]
    threads[0].start()
    gate.entered.wait(20)
    for number, thread in enumerate(threads[1:], 1):
        thread.start()
        end = time.monotonic() + 20
        while len(shared._jobs) < number and time.monotonic() < end:
            time.sleep(0.001)
    gate.open.set()
    for thread in threads:
        thread.join()
    return found


def test_tiles_that_wait_go_together_where_they_have_one_size() -> None:
    gate = Gate()
    shared = SharedRunner(gate, together=3)
    generator = np.random.default_rng(0)
    sides = (8, 8, 16, 8, 8, 16, 8)
    images = [generator.random((1, 3, side, side), np.float32) for side in sides]
    found = ask_together(shared, gate, images)
    shared.close()
    assert gate.sizes == [1, 3, 2, 1], "the one in work; three of eight; both of sixteen; the last of eight"
    assert shared.shared == 5
    for before, after in zip(images, found, strict=True):
        assert np.array_equal(after, Doubling().run(before))


def test_of_a_batch_that_fails_only_the_guilty_one_fails() -> None:
    class Picky(Gate):
        def run(self, images: Any) -> Any:
            restored = super().run(images)
            if (images == 0).all((1, 2, 3)).any():
                raise RuntimeError("a black picture")
            return restored

    gate = Picky()
    shared = SharedRunner(gate, together=4)
    images = [np.full((1, 3, 4, 4), value, np.float32) for value in (1, 1, 0, 1)]
    found = ask_together(shared, gate, images)
    assert [isinstance(each, RuntimeError) for each in found] == [False, False, True, False]
    assert gate.sizes == [1, 3, 1, 1, 1]


class Bent(Doubling):
    """Comes out otherwise in a batch, as kernels of a GPU may."""

    def run(self, images: Any) -> Any:
        return super().run(images) + np.float32(1e-7) * (len(images) > 1)


def test_tiles_go_together_only_where_that_changes_no_bit() -> None:
    assert service(together=4).about["together"] == 4
    assert service(Bent(), together=4).about["together"] == 1
    assert service().about["together"] == 1, "on a CPU"


def test_time_is_bounded_and_who_has_gone_is_not_served() -> None:
    slow = service(Doubling(seconds=0.3), tile=8, overlap=0, limits=Limits(4096, 100_000, 0.2))
    (answer,) = slow.answer([PictureRequest(good(1)["0.png"])])
    assert isinstance(answer, CodedError) and answer.code == "limit.time"
    runner = Doubling()
    (answer,) = service(runner).answer([PictureRequest(good(1)["0.png"], cancelled=lambda: True)])
    assert isinstance(answer, CodedError) and answer.code == "cancelled"
    assert runner.count == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("/home/somebody/secret"), "internal"),
        (InternalError("plan at /home/somebody/secret"), "internal"),
        (EnvironmentProblem("no memory, see /home/somebody/secret"), "environment"),
        (MemoryError(), "environment"),
    ],
    ids=["any", "typed", "environment", "memory"],
)
def test_the_inside_of_the_server_stays_there(error: Exception, code: str) -> None:
    class Failing(Doubling):
        def run(self, images: Any) -> Any:
            raise error

    (answer,) = service(Failing(), tile="off").answer([PictureRequest(good(1)["0.png"])])
    assert isinstance(answer, CodedError) and answer.code == code
    assert "secret" not in answer.text and "Error" not in answer.text
    assert coded(str(answer)) == answer


def test_messages_of_others_have_no_code() -> None:
    assert coded("Stub process 'x' is not healthy.") is None
    assert coded("unable to find backend") is None


def test_memory_of_pictures_is_waited_for() -> None:
    waiting = Waiting(100)
    order = []

    def second() -> None:
        with waiting.held_for(80, lambda: None):
            order.append("second")

    with waiting.held_for(500, lambda: None):  # more than there is: alone
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join()
    assert order == ["first", "second"] and waiting.held == 0

    def over() -> None:
        raise RefusedRequest("limit.time", "over")

    with waiting.held_for(90, lambda: None), pytest.raises(RefusedRequest), waiting.held_for(20, over):
        pass
    assert waiting.held == 0


def test_limits_fit_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(room: int) -> MemoryPlan:
        return MemoryPlan(1e6, 5000.0, 8, room)

    def fitting(room: int) -> int:
        return fitting_limits(Limits(), plan(room), 2, 8, room).pixels

    small, large = fitting(2**27), fitting(2**33)
    assert LEAST_PIXELS <= small < large
    assert 3 * small * 4 * (4 + 8) < 2**27
    with pytest.raises(EnvironmentProblem, match="no memory"):
        fitting(2**24)
    assert fitting_limits(Limits(pixels=77), plan(2**33), 2, 8).pixels == 77


def test_the_room_of_tiles_is_that_of_restore() -> None:
    found = service(tile=16, overlap=4)
    assert isinstance(found._runner, TiledRunner)
    key = json.loads(found.answer([PictureRequest(b"", wanted=[ABOUT])])[0][ABOUT])["key"]  # type: ignore[index]
    other = service(tile=24, overlap=4).about["key"]
    assert key != other, "other tiles make other pixels"
