"""Records of several files and commands, sorted by SAE."""

from __future__ import annotations

from dataclasses import replace

import pytest

from saeaudit import AuditError
from saeaudit.records import Context, DictionaryRecord, Finding
from saeaudit.report.contested import contested
from tests.support.records import RUN, choice, score
from tests.support.reports import gathered, golden, scan_of


def test_of_two_scans_the_later_counts() -> None:
    scan = [RUN, *golden("stitched")]
    whole = gathered(scan, scan)
    (audited,) = whole.saes
    assert len(audited.findings) == 21 and audited.scanned.summary is not None
    fewer = [r for r in scan if not isinstance(r, Finding)]
    assert gathered(scan, fewer).saes[0].findings == []


def test_two_files_under_one_name_are_refused() -> None:
    records = golden("stitched")
    other = [
        replace(r, source=replace(r.source, sha256="0" * 64))
        if isinstance(r, DictionaryRecord) else r for r in records
    ]  # fmt: skip
    with pytest.raises(AuditError, match=r"^file 1: sample/stitched is another file here"):
        gathered(records, other)


def test_records_without_their_dictionary_are_refused() -> None:
    with pytest.raises(AuditError, match=r"^file 0: has records of sample/stitched, and no dict"):
        gathered([r for r in golden("stitched") if not isinstance(r, DictionaryRecord)])
    with pytest.raises(AuditError, match="no audited SAE"):
        gathered([])


def test_controls_stand_beside_their_sae() -> None:
    records = golden("stitched")
    dictionary = next(r for r in records if isinstance(r, DictionaryRecord))
    name = "sample/stitched (random-decoder)"
    control = replace(dictionary, sae=name, control="random-decoder")
    whole = gathered([*records, control])
    assert [audited.name for audited in whole.saes] == ["sample/stitched"]
    assert [a.name for a in whole.controls["sample/stitched"]] == [name]


def test_a_summary_of_one_token_does_not_replace_that_of_many() -> None:
    dictionary = next(r for r in golden("sample") if isinstance(r, DictionaryRecord))
    many, one = (replace(score(), sae="sample", choices=count) for count in (200, 0))
    audited = gathered([dictionary, many], [dictionary, one]).saes[0]
    assert audited.scored.summary == many


def test_thresholds_are_those_of_the_run() -> None:
    records = scan_of("made", 3)
    run = replace(RUN, arguments={"min_cosine": 0.7})
    assert gathered([run, *records[1:]]).saes[0].limits["min_cosine"] == 0.7
    assert gathered(records).saes[0].limits["min_cosine"] == 0.9


def test_the_most_contested_token_comes_first_with_its_context() -> None:
    dictionary = next(r for r in golden("sample") if isinstance(r, DictionaryRecord))
    made = replace(choice(), sae="sample", context=None)
    mild = replace(made, token=7, text="mild", disagreement=0.1)
    wild = replace(made, token=8, text="wild", disagreement=0.9)
    after = replace(made, token=9, text="after", disagreement=0.0)
    entries = contested(gathered([dictionary, mild, wild, after]))
    first = entries[0]
    assert (first.before, first.text, first.after) == ("mild", "wild", "after")
    assert [entry.text for entry in entries] == ["wild", "mild", "after"]
    assert [side.feature for side in first.removed] == [1]
    assert [side.feature for side in first.added] == [2]
    said = replace(wild, context=Context("it was a ", " horse"))  # no neighbours, but the text
    first = contested(gathered([dictionary, mild, said, after]))[0]
    assert (first.before, first.text, first.after) == ("it was a ", "wild", " horse")
