"""The page in Chromium: what a reader can do with it, and that the right pixels are shown.

A voxel is 1 mm high and 2 mm wide, a slice 24 x 20 voxels; so the canvas is 384 pixels high and 640 wide, and on it a
voxel 16 high and 32 wide.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgb

from nnunet_ext.prediction_folder.case_table import CaseTable
from nnunet_ext.report import gather, write_report
from nnunet_ext.report.contact_sheet import LABEL_COLOURS

playwright = pytest.importorskip(
    "playwright.sync_api", reason="Playwright, which drives the browser, is not installed"
)

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="There is no Chromium on the path (Debian's package is chromium)"),
]

SHAPE = (5, 24, 20)
VOXEL = (16, 32)  # pixels, height and width
CASES = {"heart_a": 0.91, "heart_b": 0.52, "heart_c": 0.78}  # pairwise Dice: heart_b is the first card
RV, LV = (np.array(to_rgb(colour)) for colour in LABEL_COLOURS[:2])
WHITE = (1.0, 1.0, 1.0)
IN_RV, IN_LV, OUTSIDE = (12, 6), (12, 11), (3, 3)  # voxels (y, x) far from every border


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cases with two channels, two maps and a truth that is one voxel to the left of the prediction.

    Slice k of channel T1 has k quarters of white, that of T2 the rest.
    """
    folder = tmp_path_factory.mktemp("browser")
    prediction, images, truths = (folder / name for name in ("results", "images", "labels"))
    brightness = np.broadcast_to(np.arange(5.0)[:, None, None], SHAPE)
    labels, truth = np.zeros(SHAPE, dtype=np.uint8), np.zeros(SHAPE, dtype=np.uint8)
    labels[1:4, 8:16, 4:9] = 1
    labels[1:4, 8:16, 9:14] = 2
    truth[1:4, 8:16, 3:8] = 1
    entropy, variance = np.zeros(SHAPE, dtype=np.float32), np.zeros(SHAPE, dtype=np.float32)
    entropy[2, 6:18, 8:15] = 0.64
    variance[2, 6:18, 8:15] = 0.16
    table = CaseTable(prediction, keep_existing=False)
    for case, agreement in CASES.items():
        save(labels, prediction / f"{case}.nii.gz")
        save(truth, truths / f"{case}.nii.gz")
        save(entropy, prediction / "maps" / "entropy" / f"{case}.nii.gz")
        save(variance, prediction / "maps" / "variance" / f"{case}.nii.gz")
        save(brightness, images / f"{case}_0000.nii.gz")
        save(4 - brightness, images / f"{case}_0001.nii.gz")
        table.add({"case": case, "members": 4, "mean_entropy": 0.031, "pairwise_dice": agreement, "flags": []})
    names = {"0": "T1", "1": "T2"}
    dataset = {"channel_names": names, "labels": {"background": 0, "RV": 1, "LV": 2}, "file_ending": ".nii.gz"}
    (prediction / "dataset.json").write_text(json.dumps(dataset))
    (prediction / "plans.json").write_text(json.dumps({"image_reader_writer": "NibabelIO"}))
    file = folder / "report.html"
    write_report(gather(prediction, images=images, truth=truths), file)
    return file


def save(values: np.ndarray, path: Path) -> None:
    """Writes (z, y, x) as NIfTI, which stores (x, y, z)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values.transpose(2, 1, 0), np.diag([2.0, 1.0, 8.0, 1.0])), path)


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def desktop(browser: playwright.Browser, report: Path) -> playwright.Page:
    page = browser.new_page(viewport={"width": 1280, "height": 700})
    page.set_default_timeout(10_000)
    page.goto(report.as_uri())
    return page


class Shown:
    """The first card of a page."""

    def __init__(self, page: playwright.Page) -> None:
        self.page = page
        self.card = page.locator(".card").first
        self.canvas = self.card.locator("canvas")
        self.slider = self.card.get_by_role("slider")

    def layer(self, name: str) -> playwright.Locator:
        return self.card.get_by_role("checkbox", name=name, exact=True)

    def choice(self, name: str) -> playwright.Locator:
        return self.card.get_by_role("combobox", name=name, exact=True)

    def wait_for(self, *words: str) -> None:
        """Until a picture with these words in its description is drawn."""
        for word in words:
            playwright.expect(self.canvas).to_have_attribute("aria-label", re.compile(re.escape(word)))

    def wait_for_slice(self, number: int) -> None:
        self.wait_for(f"slice {number} of 5")

    def colour(self, row: float, column: float) -> np.ndarray:
        """Red, green and blue in [0, 1] at a place in voxels; .5 is the middle of the first one."""
        x, y = round(column * VOXEL[1]), round(row * VOXEL[0])
        pixel = self.canvas.evaluate(f"canvas => [...canvas.getContext('2d').getImageData({x}, {y}, 1, 1).data]")
        return np.array(pixel[:3]) / 255

    def in_voxel(self, voxel: tuple[int, int]) -> np.ndarray:
        return self.colour(voxel[0] + 0.5, voxel[1] + 0.5)

    def point_at_picture(self) -> None:
        self.canvas.scroll_into_view_if_needed()
        box = self.canvas.bounding_box()
        self.page.mouse.move(box["x"] + 30, box["y"] + 30)
        self.page.mouse.move(box["x"] + 100, box["y"] + 100)


def wait_until(page: playwright.Page, condition: str) -> None:
    """Asks again and again; Playwright's own waiting is JavaScript in the page, whose security policy forbids it."""
    for _ in range(100):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"It never was that {condition}.")


@pytest.fixture
def shown(desktop: playwright.Page) -> Shown:
    """The first card as it is after loading: slice 3, all layers on, T1 and entropy."""
    desktop.goto(desktop.url)
    first = Shown(desktop)
    first.wait_for_slice(3)
    return first


def grey(share: float) -> np.ndarray:
    return np.full(3, share)


def under(colour: np.ndarray, opacity: float, background: np.ndarray) -> np.ndarray:
    return opacity * colour + (1 - opacity) * background


def assert_colour(found: np.ndarray, expected: object) -> None:
    np.testing.assert_allclose(found, np.asarray(expected), atol=0.03)


def test_the_viewer_opens_at_the_most_uncertain_slice(shown):
    assert shown.slider.get_attribute("aria-valuetext").startswith("slice 3 of 5: most uncertain")
    assert_colour(shown.in_voxel(OUTSIDE), grey(0.5))
    assert_colour(shown.colour(0.1, 0.1), grey(0.5))  # in the corner nothing of the next slice


def test_the_canvas_has_the_proportions_of_the_body(shown):
    assert shown.canvas.evaluate("canvas => [canvas.height, canvas.width]") == [24 * VOXEL[0], 20 * VOXEL[1]]
    box = shown.canvas.bounding_box()
    assert box["height"] / box["width"] == pytest.approx(24 / 40, abs=0.01)


@pytest.mark.parametrize(
    ("key", "number"),
    [("ArrowRight", 4), ("ArrowUp", 4), ("ArrowLeft", 2), ("ArrowDown", 2), ("Home", 1), ("End", 5)],
)
def test_keys_move_the_slice_once_the_picture_was_clicked(shown, key, number):
    shown.canvas.click()
    shown.page.keyboard.press(key)
    shown.wait_for_slice(number)
    assert_colour(shown.in_voxel(OUTSIDE), grey((number - 1) / 4))


def test_the_slider_moves_the_slice(shown):
    shown.slider.fill("5")
    shown.wait_for_slice(5)
    assert_colour(shown.in_voxel(IN_RV), grey(1))  # no foreground in this slice


def test_the_wheel_moves_the_slice_and_not_the_page(shown):
    shown.point_at_picture()
    top = shown.page.evaluate("scrollY")
    shown.page.mouse.wheel(0, 100)
    shown.wait_for_slice(4)
    shown.page.mouse.wheel(0, -100)
    shown.wait_for_slice(3)
    assert shown.page.evaluate("scrollY") == top


def test_after_a_pause_at_the_last_slice_the_wheel_scrolls_the_page(shown):
    shown.slider.fill("5")
    shown.wait_for_slice(5)
    shown.point_at_picture()
    shown.page.mouse.wheel(0, 100)
    wait_until(shown.page, "scrollY > 0")


def test_a_picture_that_scrolls_under_a_resting_pointer_does_not_stop_the_page(shown):
    """The pointer rests where the picture comes to lie after the first turn of the wheel."""
    box = shown.canvas.bounding_box()
    shown.page.mouse.move(box["x"] + 100, max(box["y"] - 60, 1))
    shown.page.mouse.wheel(0, 160)
    wait_until(shown.page, "scrollY >= 160")
    shown.page.mouse.wheel(0, 100)
    wait_until(shown.page, "scrollY >= 260")
    shown.wait_for_slice(3)


def test_dragging_the_picture_moves_the_slice(shown):
    shown.point_at_picture()
    shown.page.mouse.down()
    box = shown.canvas.bounding_box()
    shown.page.mouse.move(box["x"] + 60, box["y"] + 100)  # 40 pixels to the left: a slice back
    shown.wait_for_slice(2)
    shown.page.mouse.up()


def test_a_click_on_a_chosen_slice_shows_it(shown):
    shown.card.get_by_role("button", name="slice 2 of 5").press("Enter")
    shown.wait_for_slice(2)


def test_each_channel_can_be_chosen(shown):
    shown.slider.fill("2")
    shown.wait_for_slice(2)
    assert_colour(shown.in_voxel(OUTSIDE), grey(0.25))
    shown.choice("Channel").select_option("T2")
    shown.slider.fill("1")
    shown.wait_for_slice(1)
    assert_colour(shown.in_voxel(OUTSIDE), grey(1))


@pytest.mark.parametrize(("name", "value"), [("entropy", 0.64), ("variance", 0.16)])
def test_each_map_can_be_chosen_and_is_laid_over_the_image(shown, name, value):
    """The root of the value is the opacity, and its place on the scale starts at a quarter."""
    shown.choice("Map").select_option(name)
    shown.wait_for(name)
    colour = np.array(colormaps["inferno"](0.25 + 0.75 * value)[:3])
    assert_colour(shown.in_voxel(IN_LV), under(colour, value**0.5, grey(0.5)))
    assert_colour(shown.in_voxel(OUTSIDE), grey(0.5))


def test_without_map_the_segmentation_is_filled(shown):
    shown.layer("map").uncheck()
    shown.wait_for("image, segmentation, truth")
    assert_colour(shown.in_voxel(IN_RV), under(RV, 0.22, grey(0.5)))
    assert_colour(shown.in_voxel(IN_LV), under(LV, 0.22, grey(0.5)))
    assert_colour(shown.in_voxel(OUTSIDE), grey(0.5))


def test_segmentation_and_truth_are_outlined_until_they_are_switched_off(shown):
    """In row 12 the prediction's right border is that of LV at column 14; the truth's left one is at column 3."""
    shown.layer("map").uncheck()
    shown.wait_for("image, segmentation, truth")
    assert_colour(shown.colour(12.5, 14), LV)
    assert_colour(shown.colour(12.5, 3), WHITE)
    shown.layer("segmentation").uncheck()
    shown.wait_for("image, truth")
    assert_colour(shown.colour(12.5, 14), grey(0.5))
    assert_colour(shown.colour(12.5, 3), WHITE)
    shown.layer("truth").uncheck()
    shown.wait_for("5: image")
    assert_colour(shown.colour(12.5, 3), grey(0.5))
    shown.layer("image").uncheck()
    shown.wait_for("no layer")
    assert_colour(shown.in_voxel(OUTSIDE), grey(0))


def test_the_table_is_sorted_by_a_click_on_a_head(shown):
    names = shown.page.locator("table.sortable tbody th")
    assert names.all_inner_texts() == ["heart_b", "heart_c", "heart_a"]
    head = shown.page.get_by_role("button", name="case")
    head.click()
    assert names.all_inner_texts() == ["heart_a", "heart_b", "heart_c"]
    head.press("Enter")
    assert names.all_inner_texts() == ["heart_c", "heart_b", "heart_a"]
    shown.page.get_by_role("button", name="pairwise Dice").click()
    assert names.all_inner_texts() == ["heart_b", "heart_c", "heart_a"]


def test_every_control_is_reached_by_the_tab_key_and_named(shown):
    shown.slider.focus()
    reached = []
    for _ in range(7):
        reached.append(
            shown.page.evaluate("document.activeElement.labels[0]?.innerText || document.activeElement.ariaLabel")
        )
        shown.page.keyboard.press("Tab")
    assert [words.split()[0] for words in reached] == [
        "Slice",
        "Channel",
        "Map",
        "image",
        "segmentation",
        "truth",
        "map",
    ]


@pytest.fixture(scope="module")
def phone(browser: playwright.Browser, report: Path) -> Iterator[playwright.Page]:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(report.as_uri())
    yield page
    context.close()


def test_on_a_phone_the_page_is_as_wide_as_the_screen(phone):
    phone.locator("canvas").first.scroll_into_view_if_needed()
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    box = phone.locator("canvas").first.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390


def test_a_swipe_to_the_side_moves_the_slice(phone):
    first = Shown(phone)
    first.canvas.evaluate("canvas => canvas.scrollIntoView({block: 'center', behavior: 'instant'})")
    first.wait_for_slice(3)
    box = first.canvas.bounding_box()
    swipe(phone, (box["x"] + 40, box["y"] + 40), (box["x"] + 125, box["y"] + 40))  # 85 pixels, 40 a slice
    first.wait_for_slice(5)


def swipe(page: playwright.Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """One finger, in ten steps."""
    touch: Callable[..., object] = page.context.new_cdp_session(page).send
    for step in range(11):
        x, y = (a + (b - a) * step / 10 for a, b in zip(start, end, strict=True))
        kind = "touchMove" if step else "touchStart"
        touch("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    touch("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_without_scripts_the_chosen_slices_are_shown_and_no_viewer(browser, report):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    pictures = page.locator(".card").first.locator("img")
    assert pictures.count() == 6  # slices 2, 3 and 4 with segmentation and entropy
    assert all(picture.bounding_box()["width"] > 100 for picture in pictures.all())
    assert not page.locator(".viewer").first.is_visible()
    context.close()


def test_nothing_but_the_file_itself_is_requested(browser, report):
    page = browser.new_page()
    requested, refused = [], []
    page.on("request", lambda request: requested.append(request.url))
    page.on("console", lambda message: refused.append(message.text))
    page.on("pageerror", lambda error: refused.append(str(error)))
    page.goto(report.as_uri())
    Shown(page).canvas.scroll_into_view_if_needed()
    Shown(page).wait_for_slice(3)
    assert [url for url in requested if not url.startswith("data:")] == [report.as_uri()]
    assert not refused  # such as a breach of the Content Security Policy
    page.close()
