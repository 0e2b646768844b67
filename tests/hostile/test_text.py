"""Text from outside: each case is refused in one line, within bounded time and memory."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from saeaudit import AuditError
from saeaudit.formats.reading import read_records
from saeaudit.policy.config import load_config
from saeaudit.sources.activations import read_tokens
from saeaudit.sources.explanations import load_explanations
from saeaudit.sources.releases import load_release
from saeaudit.untrusted import finite, parse_json, parse_yaml, read_text, text_lines, whole
from tests.conftest import Cli
from tests.hostile.bounds import bounded

JSON: dict[str, tuple[str | bytes, str]] = {
    "brackets": ("[" * 1_000_000, "nested more than 64"),
    "objects": ('{"a":' * 1_000_000, "nested more than 64"),
    "a long list": ('{"a":[' + "0," * 5_000_000, "more than 1,000,000 values"),
    "lists that grow": ("[" + "[]," * 5_000_000, "more than 1,000,000 values"),
    "quotes that do not end": ('"' + '\\"' * 5_000_000, "Unterminated"),
    "too many bytes": ('"' + "a" * (17 << 20), "more than 16,777,216"),
    "a key twice": ('{"a": 1, "a": 2}', "same key twice: 'a'"),
    "many keys twice": ("{" + '"a":1,' * 300_000 + '"b":1}', "same key twice: 'a'"),
    "a huge number": ("1" * 100_000, "bad JSON"),
    "latin-1": ('{"a":\n"é"}'.encode("latin-1"), "line 2 is not UTF-8"),
    "utf-16": ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
    "nothing": ("", "bad JSON"),
}


@pytest.mark.parametrize("name", JSON)
def test_json_is_refused(name: str) -> None:
    text, says = JSON[name]
    with bounded(), pytest.raises(AuditError, match=says) as caught:
        parse_json(text, "a.json")
    assert len(caught.value.line()) < 500 and caught.value.line().startswith("a.json: ")


def test_json_is_read() -> None:
    value = {"a": ["[[[[", '"{', "\\", "\u2028", "😀"], "b": {"c": [[1, 2.5, None, True]]}}
    assert parse_json(json.dumps(value), "") == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode("utf-8-sig"), "") == value
    assert parse_json("[" * 64 + "]" * 64, "")[0][0] is not None
    many = [[["[" * 9, []]] for _ in range(100)]
    assert parse_json(json.dumps(many), "") == many
    mended = parse_json('{"\\ud800": ["\\udc00a", "\\ud83d\\ude00"]}', "")
    assert mended == {"\ufffd": ["\ufffda", "😀"]}


YAML: dict[str, tuple[str, str]] = {
    "brackets": ("[" * 1_000_000, "nested more than 64"),
    "braces": ("a: " + "{a: " * 100_000, "nested more than 64"),
    "dashes": ("- " * 1_000_000, "nested more than 64"),
    "question marks": ("? " * 100_000, "nested more than 64"),
    "an alias": ("a: &x [1]\nb: *x", r"an alias \(\*x\) on line 2"),
    "a billion laughs": (
        "a: &a [x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise("abcde")),
        "an alias",
    ),
    "a tag": ("a: !!python/object/apply:os.system [x]", "a tag .* on line 1"),
    "a tag that fails": ("a: !!timestamp x", "a tag"),
    "a key twice": ("policy: {}\nscan: {}\npolicy: {}", "'policy' stands twice, again on line 3"),
    "a quoted key twice": ("{a: 1, 'a': 2}", "'a' stands twice"),
    "an inner key twice": ("a:\n  - b: {c: 1, c: 2}", "'c' stands twice, again on line 2"),
    "no date": ("a: 2020-13-45", "bad YAML"),
    "no number": ("a: 0b_", "bad YAML"),
    "base 60": ("a: " + "1:" * 100_000 + "1", "a text of"),
    "many digits": ("a: 0x" + "f" * 3700, "a number of 3,702 characters"),
    "many entries": ("- a\n" * 300_000, "more than 200,000 values"),
    "a list as key": ("? [a]\n: 1", "unhashable"),
    "a control character": ("a: \a", "not allowed"),
    "two documents": ("a: 1\n---\nb: 2", "single document"),
    "unfinished": ("a: [1", "bad YAML"),
}


@pytest.mark.parametrize("name", YAML)
def test_yaml_is_refused(name: str) -> None:
    text, says = YAML[name]
    with bounded(), pytest.raises(AuditError, match=says) as caught:
        parse_yaml(text, "a.yaml")
    assert "\n" not in caught.value.line()


def test_yaml_is_read() -> None:
    text = "a: {b: [1, 2.5, x], c: null}\nd:\n  - {a: 1}\n  - {a: 2}\n? e\n: 'a: b'\n"
    assert parse_yaml(text, "") == {
        "a": {"b": [1, 2.5, "x"], "c": None}, "d": [{"a": 1}, {"a": 2}], "e": "a: b",
    }  # fmt: skip
    assert parse_yaml("", "") is None


@pytest.mark.parametrize("load", (load_config, load_release))
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"source: hf://a/b\nsource: hf://c/d\n", "'source' stands twice, again on line 2"),
        (b"source: hf://a/b\nsaes: " + b"[" * 100_000, "nested more than 64"),
        (b"source: \xff", "line 1 is not UTF-8"),
    ],
)
def test_configurations(load: Callable[[Path], Any], content: bytes, says: str, tmp_path: Path):
    file = tmp_path / "a.yaml"
    file.write_bytes(content)
    with bounded(), pytest.raises(AuditError, match=says) as caught:
        load(file)
    assert str(file) in caught.value.line()


def test_a_second_policy_does_not_disarm_the_first(tmp_path: Path, cli: Cli) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("policy: {max_pairs: 0}\npolicy: {}\n")
    done = cli("scan", "sample/stitched", "--config", file, "-o", "out.jsonl")
    assert done.returncode == 2
    assert b"'policy' stands twice, again on line 2" in done.stderr
    file.write_text("policy: {max_pairs: " + "9" * 400 + "}\n")
    done = cli("scan", "sample/stitched", "--config", file, "-o", "out.jsonl")
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1


def test_lines_end_at_line_feeds_alone() -> None:
    text = "\ufeffa\fb\u2028c\x85\r\nd\re\v\x1c\n\nlast"
    lines = list(text_lines(io.BytesIO(text.encode()), ""))
    assert lines == ["a\fb\u2028c\x85", "d\re\v\x1c", "", "last"]
    for content, says in (
        (b"a\nb" + b"c" * 99, "line 2 has more than 50"),
        (b"abcdefgh\n" * 99, "more than 100 bytes"),
        (b"a\n\xff\n", "line 2 is not UTF-8"),
    ):
        with pytest.raises(AuditError, match=says):
            list(text_lines(io.BytesIO(content), "", line=50, total=100))


def test_a_large_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(101))
    with pytest.raises(AuditError, match="more than 100 bytes"):
        read_text(tmp_path / "a", 100)
    with pytest.raises(AuditError, match="cannot be read"):
        read_text(tmp_path)


def test_numbers() -> None:
    inf, nan = float("inf"), float("nan")
    for value in (True, "1", None, [], inf, -inf, nan, 10**400):
        assert finite(value) is None and whole(value) is None
    assert (finite(3), finite(2.5), whole(3.0), whole(2.5)) == (3.0, 2.5, 3, None)


def test_tokens(tmp_path: Path) -> None:
    file = tmp_path / "tokens.txt"
    tokens = ["a\fb", "\u2028", "", "é", "x\x85", "\r"]
    file.write_bytes("\n".join(tokens).encode() + b"\n")
    assert read_tokens(file, 6) == [*tokens[:5], ""]  # "\r\n" ends a line
    file.write_text(json.dumps(tokens))
    assert read_tokens(file, 6) == tokens
    for count in (5, 7):
        with pytest.raises(AuditError, match=f"6 tokens for {count} activations"):
            read_tokens(file, count)
    for content, says in (
        (b"\n" * 20_000_000, "20,000,000 tokens for 5"),
        (b"[" * 20_000_000, "bad JSON"),
        (b"a\n\xff\n1\n2\n3", "line 2 is not UTF-8"),
    ):
        file.write_bytes(content)
        with bounded(), pytest.raises(AuditError, match=says):
            read_tokens(file, 5)


def test_more_tokens_than_activations_is_an_error(tmp_path: Path, cli: Cli) -> None:
    from saeaudit.sources.activations import read_activations, sample_activations

    activations, tokens = sample_activations("sample")  # type: ignore[misc]
    count = len(read_activations([activations], 384).activations)
    file = tmp_path / "tokens.json"
    file.write_text(json.dumps([*json.loads(tokens.read_text()), "one more"]))
    given = ("sample", "--activations", activations, "--tokens", file, "--max-tokens", 3)
    for command in ("mediators", "score"):
        done = cli(command, *given, "-o", "out.jsonl")
        assert done.returncode == 2
        assert f"{count + 1:,} tokens for {count:,} activations" in done.stderr.decode()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b'{"index": 0, "description": "a"}\n' + b"[" * 1_000_000, "nested"),
        ("a.jsonl", b'{"index": 0, "index": 1, "description": "a"}', "same key twice"),
        ("a.jsonl", b'{"index": -1, "description": "a"}', "row 1 has no index"),
        ("a.jsonl", b'{"index": 1e999, "description": "a"}', "a.jsonl"),
        ("a.jsonl", b"\xff", "line 1 is not UTF-8"),
        ("a.csv", b'index,description\n0,"a\n' + b"b" * 200_000, "field larger"),
        ("a.csv", b"index,description\n0,a,b,c\n\xff", "line 3 is not UTF-8"),
    ],
)
def test_explanations(name: str, content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with bounded(), pytest.raises(AuditError, match=says):
        load_explanations(tmp_path / name, 5)


def test_explanations_keep_their_place(tmp_path: Path) -> None:
    text = 'index,description\n0,a\fb\n1,"c\nd"\n2,e\u2028f\n'
    (tmp_path / "a.csv").write_bytes(text.encode())
    labels = load_explanations(tmp_path / "a.csv", 3).labels
    assert [labels[i].description for i in range(3)] == ["a\fb", "c\nd", "e\u2028f"]


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 1_000_000,
        b'{"type":"dictionary","zero_rows":[' + b"0," * 5_000_000,
        b'{"type":"pair","sae":[' + b"[],[]," * 3_000_000,
        b"\xff\n",
        b"null\n",
        b'{"type":' + b"1" * 1_000_000,
    ],
)
def test_records(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with bounded(), pytest.raises(AuditError, match="line 1 is not"):
        list(read_records(str(tmp_path / "a.jsonl"), "--scan", ""))
    with pytest.raises(AuditError, match="cannot be read"):
        list(read_records(str(tmp_path), "--scan", ""))
