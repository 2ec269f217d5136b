"""The report in a browser: headless Chromium opens it as a reader's would, on a phone, on a desk and in print."""

import base64
import re
from collections.abc import Iterator
from typing import Any

import pytest
from helpers.browser import at_width, browser, why_not
from helpers.reports import pages

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

PAGES = ["learned/report.html", "comparison.html"]
WIDTHS = [400, 1400]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(params=PAGES)
def opened(request: pytest.FixtureRequest, chromium: Any) -> Any:
    """The browser with the page in it, and nothing left of the pages before."""
    chromium.get_log("browser")
    chromium.get_log("performance")
    at_width(chromium, 1400)
    chromium.get((pages() / request.param).as_uri())
    return chromium


def test_page_opens_without_errors_and_asks_for_nothing(opened: Any) -> None:
    assert opened.title
    assert opened.get_log("browser") == []
    asked = re.findall(r'"Network.requestWillBeSent".*?"url":"([^"]*)"', str(opened.get_log("performance")))
    of_its_own = ("data:", "chrome:", "chrome-untrusted:")  # a new tab's, before the page
    assert {url for url in asked if not url.startswith(of_its_own)} == {opened.current_url}


def test_every_picture_loads(opened: Any) -> None:
    widths = opened.execute_script("return Array.from(document.images, (image) => image.naturalWidth)")
    assert len(widths) > 6
    assert min(widths) > 100


@pytest.mark.parametrize("width", WIDTHS)
def test_page_has_no_horizontal_overflow(opened: Any, width: int) -> None:
    at_width(opened, width)
    opened.execute_script("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    across = "return [document.documentElement.scrollWidth, window.innerWidth]"
    content, window = opened.execute_script(across)
    assert window == width
    assert content <= window
    text = "return parseFloat(getComputedStyle(document.querySelector('main p, main li')).fontSize)"
    assert opened.execute_script(text) >= 16


COLUMN = "return Array.from(document.querySelectorAll('{table} tbody tr'), (row) => row.cells[{column}].textContent)"


def test_tables_are_sorted_by_their_headers(opened: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    opened.execute_script("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    caption = "Test statistics of the data"
    opened.execute_script(
        "Array.from(document.querySelectorAll('table')).find((table) => table.caption.textContent.startsWith"
        f"('{caption}')).id = 'sorted'"
    )
    head = opened.find_elements(By.CSS_SELECTOR, "#sorted thead th")
    number = next(at for at, cell in enumerate(head) if cell.text == "data")
    values = (
        "return Array.from(document.querySelectorAll('#sorted tbody tr'), (row) => "
        f"parseFloat(row.cells[{number}].dataset.value))"
    )
    button = head[number].find_element(By.TAG_NAME, "button")
    button.click()
    rising = opened.execute_script(values)
    assert rising == sorted(rising)
    assert len(set(rising)) > 3
    assert head[number].get_attribute("aria-sort") == "ascending"
    button.send_keys(Keys.ENTER)  # by keyboard, and back
    falling = opened.execute_script(values)
    assert falling == sorted(falling, reverse=True)
    assert head[number].get_attribute("aria-sort") == "descending"
    head[0].find_element(By.TAG_NAME, "button").click()
    names = opened.execute_script(COLUMN.format(table="#sorted", column=0))
    assert [name.lower() for name in names] == sorted(name.lower() for name in names)
    assert head[number].get_attribute("aria-sort") is None


def test_keyboard_reaches_everything(opened: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    opened.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    first = opened.switch_to.active_element
    assert first.text == "Skip to the content"
    assert first.rect["x"] >= 0, "seen where it has the focus"
    assert opened.execute_script("return getComputedStyle(document.activeElement).outlineWidth") == "3px"
    first.send_keys(Keys.ENTER)
    assert opened.current_url.endswith("#content")


@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_no_barrier(opened: Any, width: int) -> None:
    """axe-core, the accessibility engine of browsers' own tools, with all its rules, on all that can be unfolded."""
    from axe_core_python.selenium import Axe

    at_width(opened, width)
    opened.execute_script("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    found = Axe().run(opened)
    assert [(rule["id"], rule["help"], rule["nodes"][0]["html"][:200]) for rule in found["violations"]] == []
    assert {"color-contrast", "image-alt", "html-has-lang", "button-name"} <= {rule["id"] for rule in found["passes"]}


def test_print_shows_what_is_folded(opened: Any) -> None:
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    opened.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    closed = "return document.querySelectorAll('details:not([open])').length"
    hidden = "return getComputedStyle(document.querySelector('nav')).display"
    assert (opened.execute_script(closed), opened.execute_script(hidden)) == (0, "none")
    opened.execute_script("window.dispatchEvent(new Event('afterprint'))")
    assert opened.execute_script(closed) > 0
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    printed = base64.b64decode(opened.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) > 3


def test_page_is_complete_without_scripts(chromium: Any) -> None:
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        chromium.get((pages() / PAGES[0]).as_uri())
        from selenium.webdriver.common.by import By

        assert chromium.find_elements(By.CSS_SELECTOR, "th button") == []
        assert "What the checks say" in [head.text for head in chromium.find_elements(By.TAG_NAME, "h2")]
    finally:
        chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
