"""Reports in a browser: ``make browser-test``, which brings the browser; CI has none.

No console message, no request, no serious finding of axe-core, light and dark, wide and narrow;
sorting, filtering and details by keyboard; with JavaScript off; printed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from saeaudit.records import ClaimRecord, PairRecord, Record, TripleRecord
from tests.support.records import choice, score
from tests.support.reports import HOSTILE, built, fired, golden, hard_to_pack, scan_of

Open = Callable[..., Page]
SIZES = {"stitched": 100_000, "sample": 150_000, "large": 600_000, "huge": 1_200_000,
         "hard": 600_000, "fired": 200_000,
         "release": 600_000, "hostile": 200_000}  # fmt: skip
WIDTHS = (390, 1280)


def _release() -> list[Record]:
    records: list[Record] = []
    for layer in range(12):
        sae = f"hf://google/gemma-scope-2b-pt-res/layer_{layer}/width_16k/average_l0_{50 + layer}"
        records += scan_of(sae, 30 + 10 * layer, seed=layer)
        records.append(replace(score(), sae=sae, bits_per_token=200.0 + 9 * (layer % 5) + layer,
                               fvu_quantised=0.3 - layer / 100))  # fmt: skip
    return records


def _hostile() -> list[Record]:
    said = replace(choice(), sae=HOSTILE, text=f"{HOSTILE}{'word ' * 2000}")
    return [*scan_of(HOSTILE, 40), said]


def _fired() -> list[Record]:
    """The stitched sample, of whose findings all fire in ways that were counted."""
    base = golden("stitched")
    findings = [r for r in base if isinstance(r, (PairRecord, TripleRecord, ClaimRecord))]
    return [*base[:-1], *(fired(finding.features) for finding in findings), base[-1]]


def _sample() -> list[Record]:
    said = [replace(choice(), sae="sample", token=token, disagreement=token / 10, text=f"w{token}")
            for token in range(9)]  # fmt: skip
    return [*golden("sample"), *said, replace(score(), sae="sample")]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of each kind."""
    folder = tmp_path_factory.mktemp("reports")
    records = {
        "stitched": golden("stitched"),
        "sample": _sample(),
        "large": scan_of("made/16k", 20_000),
        "huge": scan_of("made/16k", 100_000),
        "release": _release(),
        "hard": hard_to_pack(20_000),
        "fired": _fired(),
        "hostile": _hostile(),
    }
    for name, listed in records.items():
        (folder / f"{name}.html").write_text(built(listed), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM") or None, args=["--no-sandbox"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Browser, folder: Path) -> Iterator[Open]:
    """Open a report; whatever it says or asks for fails the test at its end."""
    said: list[str] = []
    contexts: list[BrowserContext] = []

    def opened(name: str, *, scripts: bool = True, **options: object) -> Page:
        context = browser.new_context(java_script_enabled=scripts, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url)
                if request.resource_type != "document" else None)  # fmt: skip
        page.goto((folder / f"{name}.html").as_uri())
        if scripts:
            page.wait_for_selector("html[data-ready]", state="attached")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not said


@pytest.mark.parametrize("name", SIZES)
def test_sizes(folder: Path, name: str) -> None:
    assert (folder / f"{name}.html").stat().st_size <= SIZES[name]


@pytest.mark.parametrize("scheme", ("light", "dark"))
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ("stitched", "sample", "large", "release", "hostile", "fired"))
def test_each_report_is_quiet_and_accessible(
    opened: Open, name: str, width: int, scheme: str
) -> None:
    page = opened(name, viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tested = opened(name, viewport={"width": width, "height": 900}, color_scheme=scheme,
                    bypass_csp=True)  # fmt: skip
    found = Axe().run(tested).response["violations"]
    serious = [(entry["id"], entry["nodes"][0]["html"]) for entry in found
               if entry["impact"] in ("serious", "critical")]  # fmt: skip
    assert not serious


@pytest.mark.parametrize("width", WIDTHS)
def test_without_scripts_charts_and_the_first_findings_are_there(opened: Open, width: int) -> None:
    page = opened("large", scripts=False, viewport={"width": width, "height": 900})
    assert page.locator("figure svg").count() >= 3
    assert page.locator("#findings-table tbody tr").count() == 200
    assert page.locator("#findings-filter").is_hidden()
    assert "The first 200 of 20,000" in page.locator("#findings-note").inner_text()
    assert page.locator("#findings-view").bounding_box()["width"] <= width


@pytest.mark.parametrize("name", ("large", "fired"))
def test_the_script_shows_the_rows_that_the_page_had(opened: Open, name: str) -> None:
    static = opened(name, scripts=False).locator("#findings-table tbody tr")
    live = opened(name).locator("#findings-table tbody tr[aria-rowindex]")
    for place in range(5):
        assert live.nth(place).inner_text().split() == static.nth(place).inner_text().split()


def test_sorting_filtering_and_details_by_keyboard(opened: Open) -> None:
    page = opened("large")
    page.locator("th button", has_text="Encoder").focus()
    page.keyboard.press("Enter")
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
    values = page.locator("tr[aria-rowindex] td:nth-child(4)").all_inner_texts()
    assert values[0] == "1.00" and values == sorted(values, reverse=True)
    page.keyboard.press("Enter")
    values = page.locator("tr[aria-rowindex] td:nth-child(4)").all_inner_texts()
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
    assert float(values[0]) == min(map(float, values))

    page.locator("#filter-words").focus()
    page.keyboard.type("BIOLOGY")
    status = page.locator("#findings-status")
    expect(status).to_contain_text("of 20,000 findings")
    shown = page.locator("tr[aria-rowindex] td:nth-child(2)").all_inner_texts()
    assert shown and all("biology" in text for text in shown)
    page.keyboard.press("Tab")
    page.keyboard.press("g")
    expect(page.locator("tr[aria-rowindex]").first).to_contain_text("group of duplicates")

    page.locator("tr[aria-rowindex] button").first.focus()
    page.keyboard.press("ArrowDown")
    second = page.evaluate("document.activeElement.dataset.at")
    page.keyboard.press("End")
    last = page.evaluate("document.activeElement.dataset.at")
    assert second == "1" and int(last) > 10
    page.keyboard.press("Enter")
    dialog = page.locator("dialog[open]")
    assert "group of duplicates" in dialog.inner_text()
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert page.evaluate("document.activeElement.dataset.at") == last


def test_a_feature_is_found_by_its_number_and_an_empty_answer_is_said(opened: Open) -> None:
    page = opened("stitched")
    page.fill("#filter-words", "2280")
    expect(page.locator("#findings-status")).to_contain_text("of 21 findings")
    assert "114" in page.locator("tr[aria-rowindex]").first.inner_text()
    page.fill("#filter-words", "no such words")
    expect(page.locator("#findings-status")).to_have_text("0 of 21 findings")
    assert page.locator("tr[aria-rowindex]").count() == 0


def test_a_hundred_thousand_rows_do_not_lag(opened: Open) -> None:
    page = opened("huge")
    milliseconds = page.evaluate(
        """async () => {
          const begun = performance.now(), view = document.getElementById("findings-view");
          for (const key of ["measure", "encoder", "features"]) {
            document.querySelector(`button[data-key=${key}]`).click();
          }
          for (let step = 0; step < 60; step++) {
            view.scrollTop = step * 100000;
            await new Promise(requestAnimationFrame);
          }
          return performance.now() - begun;
        }"""
    )
    assert milliseconds < 4000
    assert page.locator("tr[aria-rowindex]").count() < 60


def test_printed_it_has_the_first_findings_and_no_form(opened: Open) -> None:
    page = opened("large")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert page.locator("#findings-table tbody tr").count() == 200
    assert page.locator("#findings-filter").is_hidden()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("#findings-table tbody tr").count() < 60
    assert page.pdf()[:4] == b"%PDF"
