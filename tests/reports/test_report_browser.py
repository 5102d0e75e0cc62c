"""Opens a report in a real Chromium: Debian's packages chromium and chromium-driver."""

import json
import shutil

import pytest
from PIL import Image

from a3cjax.reports import write_report
from tests.run_folders import RESULTS, make_run_folder

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRIVER = shutil.which("chromedriver")
HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"

pytestmark = pytest.mark.skipif(
    BROWSER is None or DRIVER is None,
    reason="needs a browser: apt-get install chromium chromium-driver",
)

# Relative luminance and contrast as WCAG 2 defines them, of text against what lies behind it.
CONTRAST = """
const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const parse = (color) => color.match(/[\\d.]+/g).map(Number);
const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const behind = (element) => {
  for (; element; element = element.parentElement) {
    const color = parse(getComputedStyle(element).backgroundColor);
    if (color.length === 3 || color[3] === 1) return color;
  }
};
return [...document.querySelectorAll(arguments[0])].map((element) => {
  const style = getComputedStyle(element);
  const text = parse(element instanceof SVGElement ? style.fill : style.color);
  const [low, high] = [luminance(text), luminance(behind(element))].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
});
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The address of a report on real runs, one with a video, and one that is up to no good."""
    folder = tmp_path_factory.mktemp("browser")
    hostile = make_run_folder(
        folder / "hostile", env=HOSTILE, summary={"commit": HOSTILE, "command": HOSTILE}
    )
    pictures = [Image.new("RGB", (32, 24), (80 * index, 0, 0)) for index in range(2)]
    pictures[0].save(hostile / "play.gif", save_all=True, append_images=pictures[1:], duration=100)
    names = ("pong-seed1", "pong-seed2", "breakout-seed1", "pong-paper")
    runs = [*(RESULTS / name for name in names), hostile]
    return write_report(runs, folder / "report").as_uri()


@pytest.fixture(scope="module")
def browser():
    """A Chromium without a window and without a network, and with a log of what it does."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # With the driver's path given, Selenium looks for nothing and downloads nothing.
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        driver.execute_cdp_cmd("Network.enable", {})
        driver.execute_cdp_cmd(
            "Network.emulateNetworkConditions",
            {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0},
        )
        yield driver
    finally:
        driver.quit()


@pytest.fixture
def show(browser, page):
    """Opens the report anew, at a width in pixels and with what the reader's system prefers."""

    def open_page(width=1200, scheme="light"):
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
        )
        browser.get(page)
        browser.execute_script("try { localStorage.clear() } catch {}")
        browser.refresh()
        return browser

    return open_page


def background(browser):
    return browser.execute_script("return getComputedStyle(document.body).backgroundColor")


def column(browser, table, index):
    return browser.execute_script(
        f"return [...document.querySelector('#{table}').tBodies[0].rows]"
        f".map((row) => row.cells[{index}].textContent)"
    )


def test_page_reports_no_error_and_asks_the_network_for_nothing(show, page):
    browser = show()
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what came before is not of this visit
    browser.get(page)
    assert browser.execute_script("return document.readyState") == "complete"
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert page in requests  # the log does see them
    assert all(url == page or url.startswith("data:") for url in requests)
    assert not [event for event in events if event["method"] == "Network.loadingFailed"]
    assert browser.execute_script("return window.hacked") is None


def test_page_is_not_allowed_to_load_or_run_anything_else(show):
    browser = show()
    browser.execute_script(
        "const script = document.createElement('script');"
        "script.textContent = 'window.hacked = 1';"
        "document.body.append(script);"
    )
    assert browser.execute_script("return window.hacked") is None
    assert any(
        "Content Security Policy" in entry["message"] for entry in browser.get_log("browser")
    )


def test_all_pictures_are_shown(show):
    browser = show()
    images = browser.execute_script(
        "return [...document.images].map((image) => [image.naturalWidth, image.width])"
    )
    assert images == [[32, 32]]
    drawings = browser.execute_script(
        "return [...document.querySelectorAll('.drawing svg')].map((svg) => {"
        "  const box = svg.getBoundingClientRect();"
        "  const lines = [...svg.querySelectorAll('path')].filter((path) => {"
        "    const {width, height} = path.getBoundingClientRect();"
        "    return width > 50 && height > 5 && getComputedStyle(path).stroke !== 'none';"
        "  });"
        "  return [box.width, box.height, lines.length, svg.querySelectorAll('text').length];"
        "})"
    )
    # Two of each game, normalised scores, two of speed.
    assert len(drawings) == 2 * 3 + 1 + 2
    for width, height, _num_lines, num_texts in drawings:
        assert width > 300
        assert height > 100
        assert num_texts > 3
    assert all(num_lines >= 1 for _, _, num_lines, _ in drawings[:6])


def test_every_colour_of_a_picture_is_one_of_the_page(show):
    browser = show()
    unresolved = browser.execute_script(
        "const style = document.documentElement;"
        "const names = new Set(style.outerHTML.match(/var\\(--[a-z0-9-]+\\)/g));"
        "return [...names].filter((name) => "
        "  !getComputedStyle(style).getPropertyValue(name.slice(4, -1)));"
    )
    assert unresolved == []


def test_click_sorts_a_table_and_says_so(show):
    browser = show()
    heading = browser.find_element("css selector", "#table-speed th:nth-child(2)")
    before = column(browser, "table-speed", 1)
    values = sorted((float(text.replace(",", "")) for text in before), reverse=True)
    assert heading.get_attribute("aria-sort") is None
    button = heading.find_element("css selector", "button")
    for order, expected in (("descending", values), ("ascending", values[::-1])):
        browser.execute_script("arguments[0].click()", button)
        assert heading.get_attribute("aria-sort") == order
        shown = [float(text.replace(",", "")) for text in column(browser, "table-speed", 1)]
        assert shown == expected
    assert column(browser, "table-speed", 1) != before
    sorted_headings = browser.find_elements("css selector", "#table-speed th[aria-sort]")
    assert len(sorted_headings) == 1


def test_tables_can_be_sorted_with_the_keyboard_and_unknown_values_come_last(show):
    from selenium.webdriver.common.keys import Keys

    browser = show()
    button = browser.find_element("css selector", "#table-scores th:last-child button")
    index = len(browser.find_elements("css selector", "#table-scores thead th")) - 1
    for _ in range(2):  # both orders
        button.send_keys(Keys.ENTER)
        shown = column(browser, "table-scores", index)
        assert shown.count("–") == 2  # never at human level, and no Atari game
        assert shown[-2:] == ["–", "–"]


def test_words_are_sorted_as_words(show):
    browser = show()
    button = browser.find_element("css selector", "#table-scores th button")
    browser.execute_script("arguments[0].click()", button)
    shown = column(browser, "table-scores", 0)
    assert shown == sorted(shown)


@pytest.mark.parametrize("width", [360, 1200])
def test_page_is_never_wider_than_the_screen(show, width):
    browser = show(width)
    assert browser.execute_script("return innerWidth") == width
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    wide = browser.execute_script(
        "return [...document.querySelectorAll('.scroll')].map((box) => "
        "[box.scrollWidth > box.clientWidth, box.tabIndex, box.getBoundingClientRect().right])"
    )
    if width == 360:  # a table goes on within its own box, which the keyboard can move
        assert any(is_wide for is_wide, _, _ in wide)
    assert all(tab_index == 0 and right <= width for _, tab_index, right in wide)


def test_text_in_pictures_is_large_enough_on_a_phone(show):
    browser = show(360)
    heights = browser.execute_script(
        "return [...document.querySelectorAll('.drawing svg text')]"
        ".map((text) => text.getBoundingClientRect().height)"
    )
    assert min(heights) >= 8


def test_page_follows_the_system_and_the_reader_may_choose_otherwise(show):
    browser = show(scheme="light")
    light = background(browser)
    browser = show(scheme="dark")
    dark = background(browser)
    assert light != dark
    toggle = browser.find_element("id", "theme")
    seen = []
    for _ in range(3):
        toggle.click()
        seen.append((toggle.text, background(browser)))
    assert seen == [("Theme: light", light), ("Theme: dark", dark), ("Theme: auto", dark)]
    toggle.click()
    browser.refresh()  # the choice is kept
    assert background(browser) == light


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(show, scheme):
    browser = show(scheme=scheme)
    words = "p, li, h1, h2, h3, th, td, dt, dd, figcaption, a, code, summary, .hint, .bar span"
    for selector in (words, ".drawing svg text", "button", ".bar-name"):
        ratios = browser.execute_script(CONTRAST, selector)
        assert ratios
        assert min(ratios) >= 4.5, (selector, min(ratios))
