"""`saeaudit show` and `saeaudit explain`: saved records of any commands, without PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

import saeaudit
from saeaudit import AuditError
from saeaudit.formats import github, junit, sarif
from saeaudit.formats.meanings import MEANINGS, Topic
from saeaudit.formats.screen.card import cards
from saeaudit.policy.rules import SUMMARIES, names
from saeaudit.records import (
    BaselineRecord,
    DictionaryRecord,
    ErrorRecord,
    GroupRecord,
    ListingRecord,
    PairRecord,
    Record,
    RuleResult,
    Verdict,
    dump,
)
from saeaudit.sources.activations import read_activations, sample_activations
from saeaudit.vocabulary import Format
from tests.conftest import Cli
from tests.fuzz.oracle import unclean
from tests.fuzz.seeds import call
from tests.support.records import EVIL, RUN, choice, score
from tests.support.reports import fired


@pytest.fixture(scope="module")
def scanned() -> list[Record]:
    options = saeaudit.ScanOptions(triples=((9, 114, 2280),))
    return list(saeaudit.scan(saeaudit.open("sample/stitched"), options))


def saved(folder: Path, *records: Record) -> Path:
    file = folder / "records.jsonl"
    file.write_text("".join(dump(record) + "\n" for record in records))
    return file


def test_records_of_several_commands_in_one_file(
    scanned: list[Record], cli: Cli, tmp_path: Path
) -> None:
    scored = [replace(RUN, command="score"), choice(), score()]
    sample = list(saeaudit.scan(saeaudit.open("sample")))
    file = saved(tmp_path, RUN, *scanned, *scored, replace(RUN, started="later"), *sample)
    text = call(tmp_path, "show", str(file), "--format", "table")
    parts = ("sample/stitched: 4,096", "claim about", "1.0 bits a token", "sample: 2,048")
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert cli("show", "-", "--format", "table", input=file.read_bytes()).stdout.decode() == text
    bare = saved(tmp_path, *scanned, *scored[1:], *sample)
    assert call(tmp_path, "show", str(bare), "--format", "table") == text, (
        "runs are told by what their records are"
    )
    assert call(tmp_path, "show", str(file), "--sae", "sample", "-o", "out.txt") == ""
    assert "stitched" not in (tmp_path / "out.txt").read_text()


def test_every_format_as_the_scan_would_have_written_it(
    scanned: list[Record], tmp_path: Path
) -> None:
    records = [RUN, *scanned, Verdict(True, (), 21, 0)]
    file = saved(tmp_path, *records)
    assert call(tmp_path, "show", str(file), "--format", "jsonl") == file.read_text()
    for form, render in (("github", github), ("junit", junit), ("sarif", sarif)):
        assert call(tmp_path, "show", str(file), "--format", form) == render.render(records), form


def test_a_line_for_each_record(scanned: list[Record], tmp_path: Path) -> None:
    known = [replace(r, known=True) if r.type == "triple" else r for r in scanned]
    rule = RuleResult("pairs>1", 1.0, 17.0, "sample/stitched", False)
    others = [
        ErrorRecord("broken.npz", "damaged", "fetch it again"),
        ListingRecord("a/b", "hf://o/r", ("x",), 1234, "plain", False), BaselineRecord("0.1.0", 21),
    ]  # fmt: skip
    records = [RUN, *known, Verdict(False, (rule,), 21, 0), *others, *sample_tokens()]
    lines = call(tmp_path, "show", str(saved(tmp_path, *records))).splitlines()
    assert lines[:3] == [
        "saeaudit scan, 2026-11-23T18:00:00+00:00", "",
        "sample/stitched: 4,096 features of width 384",
    ]  # fmt: skip
    assert lines[3] == "  claim about sample/stitched: 2280 = beta (114 - alpha 9)"
    kinds = [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "]
    assert [kinds.count(kind) for kind in ("duplicate", "antipodal", "triple")] == [17, 1, 3]
    assert all(line.endswith(" (known)") for line in lines if line.startswith("  triple"))
    for line in (
        "  summary    17 duplicate pairs, 1 antipodal pair, 3 triples, 0.42% redundant",
        "verdict: not passed", "  sample/stitched: pairs is 17, above the limit of 1",
        "  error      broken.npz: damaged (fetch it again)",
        "  listing    a/b: 1,234 bytes, not here", "a baseline of 21 findings",
    ):  # fmt: skip
        assert line in lines
    assert set(kinds) >= {"token", "mediator", "choice", "summary"}


def sample_tokens() -> list[Record]:
    sample = saeaudit.open("sample")
    path, _ = sample_activations("sample") or (None, None)
    assert path is not None
    inputs = saeaudit.MediatorInputs(read_activations([path], 384).activations[:300])
    return [*saeaudit.mediators(sample, inputs, saeaudit.MediatorOptions(max_tokens=2)), choice()]


def test_selected_records(scanned: list[Record], tmp_path: Path) -> None:
    file = saved(tmp_path, *scanned)

    def features(*options: str) -> list[list[int]]:
        text = call(tmp_path, "show", str(file), "--format", "jsonl", *options)
        return [json.loads(line)["features"] for line in text.splitlines()]

    assert features("--type", "duplicate", "--sort", "cosine", "--top", "1") == [[114, 2280]]
    assert features("--type", "triple", "--sort", "-residual", "--top", "1") == [[692, 3925, 554]]
    assert features("--type", "claim", "--type", "antipodal")[0] == [9, 114, 2280]
    assert features("--type", "pair", "--type", "triple", "--feature", "554") == [
        [554, 3925], [692, 3925, 554],
    ]  # fmt: skip


def test_a_feature_s_card(scanned: list[Record], tmp_path: Path) -> None:
    sample = list(saeaudit.scan(saeaudit.open("sample")))
    scored = [replace(choice(), sae="sample", removed=(554,), added=(3,))]
    file = str(saved(tmp_path, *scanned, *sample, *scored))
    first, second = call(tmp_path, "show", file, "--feature", "554").split("\n\n")
    assert first.splitlines() == [
        "sample/stitched, feature 554", "  one of 4,096 features, norms 1 to 1",
        "  nearest neighbours", "    3925: decoder cosine 0.960, 1 times as long",
        "    692: decoder cosine 0.516", "  findings and claims",
        "    pair: features 554 and 3925: decoder cosine 0.960",
        "    triple: features 692, 3925, 554 are dependent, residual 0.114",
    ]  # fmt: skip
    assert second.splitlines()[::2] == [
        "sample, feature 554", "  choices between codes: leaves in 1, enters in 0",
    ]  # fmt: skip
    short = call(tmp_path, "show", file, "--feature", "54", "--top", "1")
    assert short.count("more (--top)\n") == 2 and "    … 2 more (--top)\n" in short
    plain = call(tmp_path, "show", file, "--feature", "8", "--sae", "sample")
    assert plain.splitlines()[-1] == "  in no finding and no code of this file"
    only = call(tmp_path, "show", file, "--feature", "3000")
    assert only.startswith("sample/stitched, feature 3000\n") and "sample," not in only
    with pytest.raises(AuditError, match=r"no feature 4096 .features 0 to 4095"):
        call(tmp_path, "show", file, "--feature", "4096")


def test_a_run_that_was_cut_short_is_noticed(
    scanned: list[Record], cli: Cli, tmp_path: Path
) -> None:
    done = cli("show", saved(tmp_path, RUN, *scanned[:4]), "--top", "1")
    assert done.returncode == 0 and b"there is no verdict at its end" in done.stderr
    whole = cli("show", saved(tmp_path, RUN, *scanned, Verdict(True, (), 21, 0)), "--top", "1")
    assert (whole.returncode, whole.stderr) == (0, b"")


def test_dead_features_and_norms_on_cards(scanned: list[Record]) -> None:
    dictionary = next(r for r in scanned if isinstance(r, DictionaryRecord))
    dictionary = replace(dictionary, zero_rows=(5,), collapsed_rows=(6,), nonfinite_rows=(7,))
    pair = PairRecord("sample/stitched", (1, 2), "duplicate", 0.95, 4.0, 0.25,
                      firing_rates=(0.002, None), urls=("https://n.org/1", None),
                      labels=("dogs", "cats"))  # fmt: skip
    group = GroupRecord("sample/stitched", (1, 2, 3), 3, 0.9, 0.95)

    def card(feature: int, shown: int | None = None) -> str:
        lines = cards([dictionary, group, pair], feature, shown, "f")
        return "".join(f"{line}\n" for line in lines)

    for feature, says in ((5, "zero"), (6, "collapsed: a dead feature"), (7, "not finite")):
        assert f"  its decoder row is {says}\n" in card(feature)
    first, second = card(1), card(2)
    assert "  label: dogs\n  fires on 0.2% of tokens\n  https://n.org/1\n" in first
    assert "    2: decoder cosine 0.950, encoder cosine 0.25, 0.25 times as long, cats\n" in first
    assert "    1: decoder cosine 0.950, encoder cosine 0.25, 4 times as long, dogs\n" in second
    assert "    group: 3 features that duplicate each other: 1, 2, 3" in second
    assert "    … 1 more (--top)\n" in card(1, 1)


def test_hostile_texts_stay_text(scanned: list[Record], tmp_path: Path) -> None:
    made = []
    for record in scanned:
        labels = {"labels": (EVIL, EVIL)} if isinstance(record, PairRecord) else {}
        texts = {"sentence": EVIL, "similarity_method": EVIL} if record.type == "claim" else {}
        made.append(replace(record, sae=EVIL, **labels, **texts))
    firing = fired((2280, 114), sae=EVIL, labels=(EVIL, EVIL))
    file = saved(tmp_path, *made, choice(), firing, score())
    forms = [("--format", form) for form in get_args(Format)]
    for options in (*forms, ("--feature", "2280"), ("--sort", "worst")):
        for line in call(tmp_path, "show", str(file), *options).split("\n"):
            line = line.replace("::", "", 2) if options[1] == "github" else line
            assert not unclean(line), (options, line)


MISTAKES = [
    (("show", "none.jsonl"), "none.jsonl: cannot be read: No such file"),
    (("show", "text.txt"), "text.txt: line 1 is not a record of saeaudit (what saeaudit writes)"),
    (
        ("show", "r.jsonl", "--sort", "cosin"),
        "--sort: 'cosin' is none (did you mean cosine, cosine_max or cosine_min?)",
    ),
    (("show", "r.jsonl", "--type", "pears"), "--type: 'pears' is none (did you mean pair?)"),
    (("show", "r.jsonl", "--type", "xyz"), "--type: 'xyz' is none (known: antipodal, "),
    (("show", "r.jsonl", "--sae", "x*"), "r.jsonl: no SAE in it matches --sae (has sample"),
    (("show", "r.jsonl", "--top", "0"), "--top: 0 is out of range (allowed: 1 or more)"),
    (("show", "r.jsonl", "--feature", "-1"), "--feature: -1 is out of range"),
    (("show", "r.jsonl", "-o", "r.jsonl"), "would be written over r.jsonl, which is read"),
    (("explain", "tripel"), "'tripel' is no kind of finding and no number of a rule (did you mean"),
    (("explain", "Dup"), "(did you mean duplicate or duplicate_fraction?)"),
    (("explain", "\x1b[31m##[error]"), "is no kind of finding"),
]


def test_mistakes_are_one_line(scanned: list[Record], tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text("".join(dump(record) + "\n" for record in scanned))
    (tmp_path / "text.txt").write_text("hello\n")
    for arguments, says in MISTAKES:
        with pytest.raises(AuditError) as caught:
            call(tmp_path, *arguments)
        assert says in caught.value.line(), arguments


def test_every_kind_and_every_number_is_explained(tmp_path: Path) -> None:
    from saeaudit.cli.explain import of_number, of_topic

    listed = call(tmp_path, "explain")
    assert set(MEANINGS) == set(get_args(Topic))
    for topic, meaning in MEANINGS.items():
        assert f"{topic:<11} {meaning.title}\n" in listed
        text = of_topic(topic)
        assert all(len(line) <= 80 for line in text.splitlines())
        assert all(f"    {command}\n" in text for command in meaning.commands)
        assert (Path(saeaudit.__file__).parents[1] / meaning.page).is_file()
    for command in SUMMARIES:
        for name in names(command):
            assert f"{name}: a number of the summary of {command}\n" in of_number(name, [])
    rule = call(tmp_path, "explain", "duplicate_fraction>0.01")
    assert "Share of the live features that could go" in rule and "--fail-on '" in rule


def test_commands_that_explanations_name_are_there() -> None:
    import typer.main

    from saeaudit.cli.app import app

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for meaning in MEANINGS.values():
        for line in meaning.commands:
            for part in line.split(" | "):
                _, name, *words = part.split()
                known = {option for p in commands[name].params for option in p.opts}
                assert {word for word in words if word.startswith("--")} <= known, part


def test_neither_loads_pytorch(scanned: list[Record], tmp_path: Path) -> None:
    file = saved(tmp_path, RUN, *scanned)
    code = (
        "import sys; from saeaudit.cli.app import app\n"
        "for arguments in ARGUMENTS:\n"
        "    try: app(arguments)\n"
        "    except SystemExit as end: assert not end.code, arguments\n"
        "assert 'torch' not in sys.modules"
    )
    forms = [["show", str(file), "--format", form] for form in get_args(Format)]
    arguments = [*forms, ["show", str(file), "--feature", "9"], ["explain", "pairs"]]
    subprocess.run(
        [sys.executable, "-c", code.replace("ARGUMENTS", repr(arguments))],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
