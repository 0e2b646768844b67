"""The page by itself: what it holds, loads and lets run; `make browser-test` opens it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import accumulate

import pytest

from saeaudit.formats.screen.lines import lines_of
from saeaudit.records import (
    CHANGED,
    ChangeShare,
    ClaimRecord,
    Code,
    DictionaryRecord,
    ErrorRecord,
    Magnitudes,
    MediatorsSummary,
    NonUnique,
    PairRecord,
    Record,
    RuleResult,
    ScanSummary,
    Texts,
    Typical,
    Verdict,
)
from saeaudit.report.draw import pictures
from saeaudit.report.firing_charts import firing
from saeaudit.report.rows import FIRST, first_rows, rows
from tests.support.records import choice, score
from tests.support.reports import HOSTILE, built, fired, gathered, golden, hard_to_pack, scan_of

VOID = {"meta", "br", "img", "input", "link", "hr"}


class Page(HTMLParser):
    """Elements with their attributes, and the text of each kind."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"{tag} is closed where it is not open"

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts.setdefault(self._open[-1], []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(data for tag, data in self.texts.items() if tag not in ("script", "style")
                        for data in data)  # fmt: skip

    @property
    def packed(self) -> dict[str, object]:
        data = re.search(r'id="packed">([^<]*)</script>', self.html)
        assert data is not None
        return json.loads(gzip.decompress(base64.b64decode(data[1])))


def hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def check_safe(page: Page) -> None:
    """Nothing is loaded, and only what the page's own policy names by its hash may run."""
    policy = next(meta["content"] or "" for meta in page.all("meta")
                  if meta.get("http-equiv") == "Content-Security-Policy")  # fmt: skip
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    script = page.html.rsplit("<script>", 1)[1].split("</script>")[0]
    style = page.html.split("<style>", 1)[1].split("</style>")[0]
    assert rules == {
        "default-src": "'none'", "script-src": hashed(script), "style-src": hashed(style),
        "base-uri": "'none'", "form-action": "'none'",
    }  # fmt: skip
    assert [tag.get("type") for tag in page.all("script")] == ["text/plain", None]
    assert len(page.all("style")) == 1
    for tag, attributes in page.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "image")
        assert not {"src", "style", "srcset", "xlink:href"} & attributes.keys(), tag
        assert not any(name.startswith("on") for name in attributes), tag
        href = attributes.get("href") or "#"
        assert href.startswith("#") or (
            tag == "a" and href.startswith("https://www.neuronpedia.org/")
        )
    assert "url(" not in style and "@import" not in style
    assert not re.search(r"\beval\b|new Function|innerHTML|fetch\(|import\(", script)


@pytest.fixture(scope="module")
def stitched() -> Page:
    return Page(built(golden("stitched")))


def test_the_page_of_a_scan(stitched: Page) -> None:
    check_safe(stitched)
    assert len(stitched.html.encode()) <= 100_000
    for said in ("17 duplicate pairs: 0.42% of the features could go; 3 dependent triples.",
                 "0.191 (random rows)", "What it does not say", "none in the file"):  # fmt: skip
        assert said in stitched.text
    sha256 = next(r for r in golden("stitched") if isinstance(r, DictionaryRecord)).source.sha256
    assert sha256 in stitched.text


def test_random_rows_of_few_dimensions_are_redundant_too() -> None:
    records = [
        replace(r, random_control=replace(r.random_control, max=0.95))
        if isinstance(r, ScanSummary) else r for r in golden("stitched")
    ]  # fmt: skip
    page = Page(built(records, charts=False))
    assert "not 0% (the nearest random rows: 0.950)" in page.text


def test_charts_have_text_that_stands_for_them(stitched: Page) -> None:
    charts = stitched.all("svg")
    assert len(charts) == 2 == len(stitched.all("figcaption"))
    for chart in charts:
        assert chart["role"] == "img" and len(chart["aria-label"] or "") > 60
    assert "var(--accent,#" in stitched.html


def test_parts_that_the_navigation_names_are_there(stitched: Page) -> None:
    ids = [attributes["id"] for _, attributes in stitched.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    named = [href[1:] for link in stitched.all("a") if (href := link["href"] or "")[0] == "#"]
    assert set(named) <= set(ids) and "findings" in named and "tokens" not in named
    assert stitched.all("html")[0]["lang"] == "en"
    for name in ("aria-labelledby", "for"):
        for _, attributes in stitched.elements:
            assert attributes.get(name) is None or attributes[name] in ids


def test_many_findings_stay_small() -> None:
    page = Page(built(scan_of("made/16k", 20_000)))
    assert len(page.html.encode()) <= 600_000
    columns = [page.packed[name] for name in ("weight", "kind", "features", "measure", "encoder")]
    assert {len(column) for column in columns} == {20_000}  # type: ignore[arg-type]


def test_what_packs_badly_is_left_out_of_the_findings_that_come_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("saeaudit.report.page.BYTES", 220_000)
    count = 1500
    records = hard_to_pack(count)
    page = Page(built(records, charts=False))
    check_safe(page)
    most = 220_000 + 7.5 * count
    assert 0.9 * most < len(page.html.encode()) <= most
    said = re.search(r"stand beside the first ([\d,]+) findings", page.html)
    assert said is not None
    described = int(said[1].replace(",", ""))
    assert FIRST < described < count - 100
    listed = rows(gathered(records))
    order = sorted(listed, key=lambda row: row.order)
    sae = page.packed["saes"][0]  # type: ignore[index]
    features = list(accumulate(sae["steps"]))
    assert {m.feature for row in order[:described] for m in row.members} == set(features)
    assert len(page.packed["weight"]) == count  # type: ignore[arg-type]
    assert len(page.packed["together"]) == described  # type: ignore[arg-type]
    table = page.html.split('id="findings-table"')[1].split("</table>")[0]
    assert table.count("fires on") == 2 * FIRST


def test_a_page_that_is_too_large_keeps_the_first_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saeaudit.report.page.BYTES", 1000)
    page = Page(built(hard_to_pack(FIRST + 50), charts=False))
    assert f"beside the first {FIRST} findings" in page.html
    assert len(page.packed["together"]) == FIRST  # type: ignore[arg-type]


def test_the_first_findings_are_in_the_page_itself() -> None:
    records = scan_of("made/16k", 600)
    page = Page(built(records, charts=False))
    check_safe(page)
    table = page.html.split('id="findings-table"')[1].split("</table>")[0]
    assert table.count("<tr>") == FIRST + 1
    listed = rows(gathered(records))
    first = first_rows(listed)
    assert [row.order for row in first] == sorted(row.order for row in listed)[:FIRST]
    shown = re.findall(r'gpt2-small/8-res-jb/(\d+)"', table)
    assert shown == [str(member.feature) for row in first for member in row.members]


def test_packed_columns_give_back_what_rows_say() -> None:
    records = scan_of("made/one", 60)
    listed = rows(gathered(records))
    packed = Page(built(records, charts=False)).packed
    before, features = 0, []
    for first, *others in packed["features"]:  # type: ignore[attr-defined]
        before += first
        features.append([before, *(before + other for other in others)])
    assert features == [[member.feature for member in row.members] for row in listed]
    sae = packed["saes"][0]  # type: ignore[index]
    numbers = [sum(sae["steps"][: place + 1]) for place in range(len(sae["steps"]))]
    labels = dict(zip(numbers, sae["labels"], strict=True))
    assert {m.feature: m.label for row in listed for m in row.members} == labels
    assert packed["encoder"] == [row.encoder for row in listed]


def test_hostile_texts_stay_text() -> None:
    long = f"{HOSTILE} {'word ' * 2000}"
    base = scan_of(HOSTILE, 12)
    dictionary = replace(base[1], neuronpedia=f'x" onclick="{HOSTILE}', notes=(HOSTILE,))
    findings = [
        replace(r, labels=(long, "\u200f\u202eABC", *r.labels[2:])) if isinstance(r, PairRecord)
        else r for r in base[2:]
    ]  # fmt: skip
    said = replace(choice(), sae=HOSTILE, text=long)
    records = [base[0], dictionary, *findings, said, replace(score(), sae=HOSTILE),
               ErrorRecord(HOSTILE, HOSTILE, HOSTILE)]  # fmt: skip
    page = Page(built(records))
    check_safe(page)
    assert "alert(1)" in page.text and "{{ 7 * 7 }}" in page.text
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f\x00\x1b]", page.html)
    assert len(page.html.encode()) < 200_000
    labels = page.packed["saes"][0]["labels"]  # type: ignore[index]
    assert max(map(len, labels)) <= 200 and not any("\u202e" in label for label in labels)


def test_what_ci_systems_would_obey_stays_as_it_is_in_a_page() -> None:
    """Pieces of words begin with two hashes in BERT's vocabulary."""
    pair = PairRecord("made", (1, 2), "duplicate", 0.96, 1.0, None, labels=("##ev", "a::b"))
    claim = next(r for r in golden("stitched") if isinstance(r, ClaimRecord))
    claim = replace(claim, sae="made", labels=("tokens '##ev'", None, None))
    base = scan_of("made", 0)
    said = replace(choice(), sae="made", text="##ev", explanations=Texts(("##ev",), ("x ##y",)))
    page = Page(built([*base[:2], pair, claim, *base[2:], said], charts=False))
    assert page.packed["saes"][0]["labels"] == ["##ev", "a::b"]  # type: ignore[index]
    table = page.html.split('id="findings-table"')[1].split("</table>")[0]
    tokens = page.html.split('id="tokens"')[1].split("</section>")[0]
    claims = page.html.split('id="claims"')[1].split("</section>")[0]
    assert "##ev" in table and "a::b" in table and "##ev" in claims
    assert tokens.count("##ev") == 2 and "x ##y" in tokens
    assert "# #" not in page.html


def test_any_mixture_of_records_makes_a_page() -> None:
    dictionary = next(r for r in golden("sample") if isinstance(r, DictionaryRecord))
    summary, said = replace(score(), sae="sample"), replace(choice(), sae="sample")
    alone = Page(built([dictionary, said, summary], charts=False))
    assert "No duplicate pairs" not in alone.text and "The encoder says" in alone.text
    assert not alone.all("table") or "findings-table" not in alone.html
    several = Page(built(golden("stitched"), [*golden("sample"), said, summary]))
    check_safe(several)
    assert re.search(r"\d+ duplicate pairs and \d+ dependent triples in 2 SAEs", several.text)
    assert "filter-sae" in several.html and "The encoder says" in several.text


def test_scores_of_several_saes_are_compared_by_bits_and_error() -> None:
    dictionary = next(r for r in golden("sample") if isinstance(r, DictionaryRecord))
    records: list[Record] = []
    for number in range(3):
        sae = f"made/{number}"
        records += [
            replace(dictionary, sae=sae),
            replace(
                score(), sae=sae, bits_per_token=100.0 + number, fvu_quantised=0.3 - number / 10
            ),
        ]
    page = Page(built(records))
    assert "Bits against distortion" in page.text and "3 SAEs" in page.text


def test_policies_and_what_was_not_audited_stand_on_the_first_screen() -> None:
    records = golden("stitched")
    rule = RuleResult("pairs>1", 1.0, 17.0, "sample/stitched", passed=False)
    error = ErrorRecord("made/x", "is damaged", "fetch it again")
    page = Page(built([*records, error, Verdict(False, (rule,), 21, 0)], charts=False))
    verdict = page.html.split('id="verdict"')[1].split("</section>")[0]
    assert "made/x: is damaged (fetch it again)" in verdict
    assert "sample/stitched: pairs is 17, above the limit of 1" in verdict


def test_a_run_that_did_not_end_is_said_to_have_no_verdict() -> None:
    records = [r for r in golden("stitched") if not isinstance(r, ScanSummary)]
    page = Page(built(records, charts=False))
    assert "without a summary" in page.text and "findings-table" in page.html


def codes(share: float) -> MediatorsSummary:
    steps = tuple(ChangeShare(change, share - change, None) for change in CHANGED)
    rows = tuple(
        NonUnique(
            mode, epsilon, share, None, share / 2, None, steps, 0.1, 1.0, share, 9.0, None, 4.0
        )
        for mode in ("refit", "accuracy") for epsilon in (0.0, 0.01)
    )  # fmt: skip
    return MediatorsSummary(
        sae="sample", tokens=50, drawn_by=None, skipped=(), exchanges=0, mean_l0=8.0,
        fvu_encoder=0.2, fvu_refit=0.1, refit_gap=0.9, mean_refit_change=0.1, non_unique=rows,
        most_involved=(), encoders=(),
    )  # fmt: skip


def test_charts_of_several_saes_have_a_name_each() -> None:
    dictionary = next(r for r in golden("sample") if isinstance(r, DictionaryRecord))
    records: list[Record] = []
    for sae in ("made/1", "made/2"):
        records += [replace(dictionary, sae=sae), replace(codes(0.9), sae=sae)]
    assert [picture.name for picture in pictures(gathered(records))] == [
        "other-codes-by-change", "other-codes-by-tolerance",
        "other-codes-by-change-2", "other-codes-by-tolerance-2",
    ]  # fmt: skip


def test_magnitudes_are_drawn_with_both_codes_and_their_bits() -> None:
    base = golden("stitched")
    claim = next(r for r in base if isinstance(r, ClaimRecord) and len(r.features) == 3)
    pairs = [r for r in base if isinstance(r, PairRecord) and r.kind == "duplicate"]
    records: list[Record] = [fired(pair.features) for pair in pairs[:5]]
    page = Page(built([*base[:-2], *records, fired(claim.features), *base[-2:]]))
    check_safe(page)
    assert len(page.html.encode()) <= 150_000
    charts = [chart["aria-label"] or "" for chart in page.all("svg")]
    drawn = [text for text in charts if "bits" in text]
    assert len(drawn) == 3, "of the claim, and of the first findings"
    f1, f2, f3 = claim.features
    assert drawn[0] == (
        "sample/stitched, 5,000 tokens: they fire on 1.0%, 2.0% and 3.0% of them, together on "
        "0.12%, 2 times (1.2 to 3.1) as often as by chance. "
        f"z is {f1} at {2 + f1 / 1000:.3g} and {f2} at {2 + f2 / 1000:.3g}, 12.3 bits; z' is {f2} "
        f"at 3 and {f3} at 3, 15.6 bits: the mean of 40 tokens with these features, and the "
        "nearest code with the other in place of one of them."
    )
    assert page.html.count("z, 12.3 bits") == 3 == page.html.count("z', 15.6 bits")
    for feature in claim.features:
        assert f">code of {feature}<" in page.html
    assert page.html.count("together on 0.12%, 2 times chance") == 5
    assert list(page.packed["together"].values()) == ["0.12% 2"] * 5  # type: ignore[attr-defined]


def test_features_that_never_fire_together_or_at_all() -> None:
    base = golden("stitched")
    first, second, third = [r for r in base if isinstance(r, PairRecord)][:3]
    records = [
        fired(first.features, together=0.0, ratio=0.0, ratio_interval=None),
        fired(second.features, magnitudes=(Magnitudes(None, ()),) * 2, typical=None, ratio=None,
              together=0.0, rates=(0.0, 0.0)),
    ]  # fmt: skip
    records.append(
        fired(third.features, typical=replace(records[0].typical, bits=None, alternative_bits=None))
    )  # type: ignore[type-var]
    page = Page(built([*base[:-2], *records, *base[-2:]]))
    assert page.html.count("never together") >= 2
    drawn = [c["aria-label"] or "" for c in page.all("svg") if "the mean of 40" in c["aria-label"]]
    assert len(drawn) == 2 and sum("bits" in text for text in drawn) == 1


def test_records_of_firing_that_nobody_could_count_make_a_page_too() -> None:
    base = golden("stitched")
    pairs = [r for r in base if isinstance(r, PairRecord)]
    odd: tuple[dict[str, object], ...] = (
        {"rates": (), "rate_intervals": (), "labels": ("a",)},
        {"magnitudes": ()},
        {"magnitudes": (Magnitudes(0.5, (0,) * 50), Magnitudes(-1.0, (-3,) * 50))},
        {"magnitudes": (Magnitudes(1e300, (1,) * 5000),) * 2},
        {"typical": Typical(0, (), (Code(77, -1e308),), None, None, -1e300)},
        {"ratio": 1e300, "together": -3.0, "tokens": 0},
    )
    records = [fired(p.features, **change) for p, change in zip(pairs, odd, strict=False)]
    for record in records:
        (picture,) = firing(gathered([*base, record]))
        assert len(json.dumps(picture.chart.to_dict())) < 20_000 and lines_of(record)
    assert "findings-table" in built([*base, *records], charts=False)


def test_controls_stand_beside_the_figures_of_their_sae() -> None:
    dictionary = next(r for r in golden("sample") if isinstance(r, DictionaryRecord))
    records: list[Record] = [dictionary, codes(0.9)]
    for control, share in (("pursuit", 0.5), ("random-decoder", 0.4)):
        name = f"sample ({control})"
        records += [replace(dictionary, sae=name, control=control),
                    replace(codes(share), sae=name, control=control)]  # fmt: skip
    page = Page(built(records))
    assert "90.0% of tokens have another code, 70.0% one that changes a fifth" in page.text
    assert "50.0% pursued on its rows, 40.0% on random rows" in page.text
    assert "30.0% pursued on its rows, 20.0% on random rows" in page.text
    assert "control: codes pursued on random rows" in page.html
    assert "sample (random-decoder) is a control" in page.text
    assert len(page.all("figure")) == 2 and "filter-sae" not in page.html
