"""The report in a real browser: Debian's Chromium, driven by Playwright's Python package."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from test_report import EVIL, Folder, Watched, finished, rewrite, trained, until

from autolr.report import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
sync_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on PATH: apt-get install chromium")


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        # In a container Chromium runs as root, and then only without its sandbox; it opens our own files alone.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A page, with all it asked for and complained of."""

    def __init__(self, browser, **options):
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def ids(self) -> list[str]:
        return self.page.locator("#table tbody tr:visible th a").all_text_contents()

    def column(self, name: str) -> list[str]:
        heads = self.page.locator("#table thead th").all_inner_texts()
        return self.page.locator(f"#table tbody tr td:nth-child({heads.index(name) + 1})").all_inner_texts()

    def open_trials(self) -> list[str]:
        return self.page.locator("details[open]").evaluate_all("parts => parts.map(part => part.id)")

    def wait_for_trials(self, *ids: str) -> None:
        """After a link to a part of the page: the browser tells the page of the new address a little later."""
        until(lambda: self.open_trials() == list(ids))


@pytest.fixture
def visit(browser):
    visits = []

    def start(address, **options) -> Visit:
        visits.append(Visit(browser, **options))
        visits[-1].page.goto(address.as_uri() if isinstance(address, Path) else address)
        return visits[-1]

    yield start
    for each in visits:
        each.context.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A search with something of everything: good and doubtful bounds, a failure, a trial under way, odd names."""
    where = tmp_path_factory.mktemp("browser")
    folder = Folder(where / "mnist")
    for n in range(10):
        folder.trial(
            f"{n:02d}", 0.9 + 0.001 * (n * 7 % 10), units=[32, 64, 128][n % 3], optimizer=["sgd", "adam"][n % 2]
        )
    folder.trial("10", 0.5, bounds={"status": "too_noisy", "reason": "Too noisy.", "confidence": "low"}, units=4)
    folder.trial(
        "11", None, status="FAILED", message="Traceback\n" + "a very long line " * 30, record=False, units=1000
    )
    folder.trial("12", None, status="RUNNING", **{EVIL: EVIL})
    rewrite(folder.path / "trial_04", training=trained(), optimizer="Adam", warnings=["Mind the gap."])
    rewrite(folder.path / "trial_12", training=trained(200, 2, losses={"step": [1, 9], "loss": [2e-3, 5.0]}))
    return write_report(folder.done(), where / "report.html")


def test_it_opens_from_disk_without_a_complaint_or_a_request(visit, report):
    page = visit(report)
    page.page.get_by_role("button", name="Open all").click()
    page.page.wait_for_timeout(300)
    assert page.complaints == []
    assert [url for url in page.requests if not url.startswith("data:")] == [report.as_uri()]
    assert page.page.title() == "mnist · autolr"


def test_a_column_sorts_both_ways_with_what_is_missing_last(visit, report):
    page = visit(report)
    assert page.ids() == [f"{n:02d}" for n in range(13)]
    head = page.page.locator("#table thead th").nth(1)
    for order in ("ascending", "descending"):
        head.get_by_role("button").click()
        assert head.get_attribute("aria-sort") == order
        scores = page.column("val_accuracy")
        numbers = [float(score) for score in scores[:-2]]
        assert numbers == sorted(numbers, reverse=order == "descending")
        assert len(set(scores[-2:])) == 1, "those without a score"
    page.page.get_by_role("button", name="units").click()
    assert [int(units) for units in page.column("units")] == sorted(int(units) for units in page.column("units"))
    page.page.get_by_role("button", name="optimizer").click()
    assert page.column("optimizer") == sorted(page.column("optimizer"))
    assert page.page.locator("th[aria-sort]").count() == 1


def test_sorting_works_by_keyboard(visit, report):
    page = visit(report)
    page.page.locator("#table thead button").nth(1).focus()
    page.page.keyboard.press("Enter")
    assert page.page.locator("#table thead th").nth(1).get_attribute("aria-sort") == "ascending"


def test_filters_leave_what_matches(visit, report):
    page = visit(report)
    page.page.get_by_label("Filter").fill("adam 128")
    assert page.ids() == ["05"]
    assert page.page.locator("#count").inner_text() == "1 of 13 trials"
    assert page.page.locator("details.trial:visible").count() == 1
    page.page.get_by_label("Filter").fill("UNITS=128 lr_decay=0.9")
    assert page.ids() == ["02", "05", "08"], "also by what is no column"
    page.page.get_by_label("Filter").fill("nothing like it")
    assert page.page.get_by_text("No trial matches.").is_visible()
    page.page.get_by_label("Filter").fill("")
    page.page.get_by_label("Show").select_option("look")
    assert page.ids() == ["10", "11"]
    page.page.get_by_label("Show").select_option("completed")
    assert len(page.ids()) == 11


def test_a_trial_opens_from_the_table_the_chart_and_an_address(visit, report):
    page = visit(report)
    page.page.locator("#table a", has_text="03").click()
    page.wait_for_trials("trial-03")
    part = page.page.locator("#trial-03")
    assert part.get_by_role("img", name=re.compile("Range test")).is_visible()
    assert part.get_by_role("img", name=re.compile("Schedule")).is_visible()
    part.locator("summary").click()
    assert page.open_trials() == []
    page.page.locator("#table a", has_text="03").click()  # the same address again
    page.wait_for_trials("trial-03")
    page.page.get_by_role("link", name=re.compile("Trial 05: ")).click()
    page.wait_for_trials("trial-03", "trial-05")
    assert visit(f"{report.as_uri()}#trial-07").open_trials() == ["trial-07"]


def test_a_training_is_drawn_in_place_of_its_plan(visit, report):
    page = visit(f"{report.as_uri()}#trial-04")
    part = page.page.locator("#trial-04")
    assert part.get_by_role("img", name=re.compile("^Training as run")).is_visible()
    assert part.get_by_role("img", name=re.compile("^Schedule")).count() == 0
    assert part.get_by_text("Mind the gap.").is_visible()
    assert part.get_by_text("val_loss", exact=True).first.is_visible()


OVERLAPS = """() => [...document.querySelectorAll("details[open] svg.chart")].flatMap((chart) => {
  const boxes = [...chart.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
  return boxes.flatMap(([a, p], n) => boxes.slice(n + 1).filter(([, q]) =>
    p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 3 && q.top < p.bottom - 3
  ).map(([b]) => `${a} on ${b}`));
})"""


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_labels_of_a_trials_charts_do_not_overlap(visit, report, width):
    page = visit(report, viewport={"width": width, "height": 800})
    page.page.get_by_role("button", name="Open all").click()
    page.page.wait_for_timeout(100)
    assert page.page.evaluate(OVERLAPS) == []


def test_all_trials_open_and_close(visit, report):
    page = visit(report)
    page.page.get_by_role("button", name="Open all").click()
    assert len(page.open_trials()) == 13
    page.page.get_by_role("button", name="Close all").click()
    assert page.open_trials() == []


def test_the_code_can_be_copied_or_selected(visit, report):
    page = visit(report)
    page.page.get_by_role("button", name="Copy").click()
    page.page.get_by_role("button", name=re.compile("Copied|Selected")).wait_for()


def test_a_script_in_a_name_does_not_run(visit, report):
    page = visit(report)
    dialogs = []
    page.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.page.get_by_role("button", name="Open all").click()
    assert page.page.get_by_text("<script>alert(1)</script>").first.is_visible()
    # Even one that had not been escaped would be stopped by the page's own policy.
    page.page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'alert(2)'}))")
    assert dialogs == []
    assert any("Content Security Policy" in complaint for complaint in page.complaints)


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_the_page_fits_its_window(visit, report, width):
    page = visit(report, viewport={"width": width, "height": 800})
    page.page.get_by_role("button", name="Open all").click()
    page.page.wait_for_timeout(100)
    assert page.page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.page.locator(".scroll").evaluate("box => box.scrollWidth >= box.clientWidth")


CONTRAST = """() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const color = parse(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!text || ["SCRIPT", "STYLE", "TITLE"].includes(element.tagName.toUpperCase())) continue;
    const style = getComputedStyle(element);
    const ink = parse(element instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(ink), light(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    const need = element.closest("[aria-hidden=true], .star") ? 3 : 4.5;
    if (ratio < need) poor.push(`${element.tagName} ${element.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(visit, report, scheme):
    page = visit(report, color_scheme=scheme)
    page.page.get_by_role("button", name="Open all").click()
    assert page.page.evaluate(CONTRAST) == []
    ground = page.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.search(r"\d+", ground)[0]) > 128) == (scheme == "light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_can_be_reached_has_a_name(visit, report, scheme):
    page = visit(report, color_scheme=scheme)
    nameless = page.page.evaluate(
        """() => [...document.querySelectorAll("a, button, input, select, svg:not([aria-hidden]), [tabindex]")]
            .filter((e) => !(e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.labels?.length
                || e.textContent.trim())).map((e) => e.outerHTML.slice(0, 80))"""
    )
    assert nameless == []


def test_it_can_be_read_without_scripts(visit, report):
    page = visit(report, java_script_enabled=False)
    page.page.locator("#trial-03 summary").click()
    assert page.page.locator("#trial-03").get_by_role("img", name=re.compile("Range test")).is_visible()


def test_watching_follows_the_search_and_keeps_the_readers_place(visit, tmp_path):
    folder = Folder(tmp_path / "live")
    folder.trial("0", 0.9)
    folder.trial("1", None, status="RUNNING")
    process = Watched(folder.done())
    try:
        page = visit(process.url)
        page.page.locator("#table a", has_text="0").click()
        page.page.get_by_label("Filter").fill("adam")
        page.page.locator("#table thead button").nth(1).click()
        page.page.get_by_label("Filter").focus()
        page.page.keyboard.press("Home")
        page.page.keyboard.press("ArrowRight")
        folder.trial("2", 0.95)
        folder.done()
        page.page.locator("#table a", has_text="2").wait_for(timeout=20_000)
        assert page.open_trials() == ["trial-0"]
        assert page.page.get_by_label("Filter").input_value() == "adam"
        page.page.keyboard.type("x")
        assert page.page.get_by_label("Filter").input_value() == "axdam", "who types goes on typing"
        page.page.get_by_label("Filter").fill("adam")
        assert page.ids() == ["0", "2", "1"]
        assert page.complaints == []
        assert {url.split("/")[2] for url in page.requests if url.startswith("http")} == {process.url.split("/")[2]}
    finally:
        code, _ = process.end()
    assert code == 0
    until(lambda: "No longer watched" in page.page.locator("#watch").inner_text())


def test_a_hundred_trials_are_there_at_once(visit, tmp_path):
    page = visit(write_report(finished(tmp_path / "large", 100), tmp_path / "r.html"))
    assert len(page.ids()) == 100
    page.page.get_by_label("Filter").fill("128")
    assert page.page.locator("#count").inner_text() == "33 of 100 trials"
