from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import saeaudit
from saeaudit import AuditError
from saeaudit.audit.fetch import fetch_all
from saeaudit.audit.scan.options import ScanOptions
from saeaudit.audit.scan.run import scan_all
from saeaudit.sources.target import resolve
from tests.support.hub import GEMMA, Hub, large
from tests.support.records import but_for_runs
from tests.weights import layouts

COMMAND: list[str] = []


@pytest.fixture(autouse=True)
def _command(saeaudit: list[str]) -> None:
    COMMAND[:] = saeaudit


def run(*arguments: str, **extra: Any) -> subprocess.CompletedProcess[bytes]:
    command = [*COMMAND, *arguments]
    return subprocess.run(command, capture_output=True, check=False, timeout=100, **extra)


def lines(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_whole_release_and_again_offline(hub: Hub) -> None:
    listed = run("fetch", f"hf://{GEMMA}", "--sae", "layer_16/*", "--list")
    assert listed.returncode == 0
    records = lines(listed)
    names = [f"hf://{GEMMA}/layer_16/width_16k/average_l0_{n}" for n in (78, 154)]
    assert [r["sae"] for r in records] == names
    assert all(r["format"] == "gemma_scope" and not r["cached"] for r in records)
    size = (hub.root / GEMMA / "layer_16/width_16k/average_l0_78/params.npz").stat().st_size
    assert records[0]["bytes"] == size and records[0]["files"][0].endswith("params.npz")
    assert not hub.sent
    dry = run("fetch", f"hf://{GEMMA}", "--dry-run")
    assert len(lines(dry)) == 3 and f"{3 * size:,} bytes" in dry.stderr.decode()
    assert not hub.sent
    fetched = run("fetch", f"hf://{GEMMA}", "--sae", "layer_16/*")
    assert fetched.returncode == 0, fetched.stderr
    assert [r["sae"] for r in lines(fetched)] == names and lines(fetched)[0]["cached"]
    assert sum(hub.sent.values()) == 2 * size
    assert not any("agent" in request for request in hub.requests)  # no telemetry
    online = run("scan", f"hf://{GEMMA}", "--sae", "layer_16/*")
    assert online.returncode == 0
    assert sum(hub.sent.values()) == 2 * size  # nothing twice
    source = lines(online)[1]["source"]
    assert source["revision"] == hub.commit
    assert source["path"] == "layer_16/width_16k/average_l0_78/params.npz"
    hub_down = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9"}
    again = run("scan", f"hf://{GEMMA}", "--sae", "layer_16/*", "--offline", env=hub_down)
    assert again.returncode == 0, again.stderr
    assert but_for_runs(again.stdout) == but_for_runs(online.stdout)
    missing = run("scan", f"hf://{GEMMA}/layer_2/width_16k/average_l0_141", "--offline")
    assert missing.returncode == 2 and missing.stderr.count(b"\n") == 1


def test_release_names(hub: Hub) -> None:
    name = "gemma-scope-2b-pt-res/layer_16/width_16k/canonical"
    done = run("scan", name)
    assert done.returncode == 0, done.stderr
    record = lines(done)[1]
    assert record["sae"] == name
    assert record["source"]["path"].startswith("layer_16/width_16k/average_l0_78")
    (local,) = resolve("gemma-scope-2b-pt-res", ["layer_16/*/canonical", "layer_16*78"])
    assert local.id.endswith("average_l0_78")
    assert len(resolve("gemma-scope-2b-pt-res")) == 3
    assert saeaudit.open("gemma-scope-2b-pt-res/layer_2/width_16k/average_l0_141").d_sae == 300
    with pytest.raises(AuditError, match=r"did you mean .*layer_16/width_16k/canonical"):
        resolve("gemma-scope-2b-pt-res/layer_16/width_16k/canonicle")
    with pytest.raises(AuditError, match="no SAE here matches"):
        resolve("gemma-scope-2b-pt-res", ["layer_99*"])


def test_decoder_only(hub: Hub) -> None:
    name = f"hf://{GEMMA}/layer_16/width_16k/average_l0_78"
    file = hub.root / GEMMA / "layer_16/width_16k/average_l0_78/params.npz"
    done = run("fetch", name, "--decoder-only")
    assert done.returncode == 0, done.stderr
    assert sum(hub.sent.values()) <= 0.55 * file.stat().st_size + 2 * (1 << 16)
    bulk = 300 * 64 * 4
    assert sum(hub.sent.values()) < bulk + 2 * (1 << 16) + 10_000
    scanned = run("scan", name, "--offline")
    assert scanned.returncode == 0, scanned.stderr
    whole = run("scan", str(file))
    ours = [r for r in lines(scanned) if r["type"] in ("pair", "triple", "group")]
    assert ours == [
        {**r, "sae": name} for r in lines(whole) if r["type"] in ("pair", "triple", "group")
    ]
    assert lines(scanned)[1]["architecture"] == "decoder-only"
    assert lines(scanned)[1]["format"] == "gemma_scope"
    with pytest.raises(AuditError, match=r"saeaudit fetch hf://.* brings the whole SAE"):
        from saeaudit.audit.codes import make_encoder

        make_encoder(saeaudit.open(name, offline=True))


def test_decoder_only_bytes_of_a_large_file(hub: Hub) -> None:
    file = large(hub.root / "big/one/sae", features=4000, width=128)
    done = run("fetch", "hf://big/one/sae", "--decoder-only")
    assert done.returncode == 0, done.stderr
    assert sum(hub.sent.values()) <= 0.55 * file.stat().st_size


def test_decoder_only_falls_back(hub: Hub) -> None:
    done = run("fetch", "hf://someone/qwen", "--decoder-only")
    assert done.returncode == 0
    assert b"fetched the whole file" in done.stderr
    packed = hub.root / "someone/packed/a/params.npz"
    packed.parent.mkdir(parents=True)
    np.savez_compressed(packed, W_dec=layouts.DEC, W_enc=layouts.ENC)
    done = run("fetch", "hf://someone/packed", "--decoder-only")
    assert done.returncode == 0 and b"compressed" in done.stderr


def fetch(target: str) -> list[Any]:
    return list(fetch_all(resolve(target)))


def test_cut_connections_are_resumed(hub: Hub, quick: list[float]) -> None:
    hub.faults = {"78/params.npz": ["cut", "cut"]}
    (record,) = fetch(f"hf://{GEMMA}/layer_16/width_16k/average_l0_78")
    assert record.type == "listing"
    size = record.bytes
    assert size <= sum(hub.sent.values()) < 1.05 * size  # resumed, not begun again


def test_wrong_bytes_are_found_and_thrown_away(hub: Hub) -> None:
    hub.faults = {"78/params.npz": ["flip"]}
    name = f"hf://{GEMMA}/layer_16/width_16k/average_l0_78"
    (record,) = fetch(name)
    assert record.type == "error" and "sha256 differs" in record.reason
    (record,) = fetch(name)
    assert record.type == "listing"


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (403, "gated"),
        (401, "no such repository"),
        (429, "limiting requests"),
        (500, "answered 500"),
    ],
)
def test_refusals_are_one_line(status: int, says: str, hub: Hub, quick: list[float]) -> None:
    hub.faults = {GEMMA: ["always", status]}
    with pytest.raises(AuditError, match=says) as caught:
        resolve(f"hf://{GEMMA}")
    assert "\n" not in caught.value.line() and caught.value.hint
    assert len(quick) <= 12  # bounded retries
    hub.faults = {}
    assert len(resolve(f"hf://{GEMMA}")) == 3


@pytest.mark.parametrize("status", (404, 429, 500))
def test_files_that_cannot_be_fetched(status: int, hub: Hub, quick: list[float]) -> None:
    hub.faults = {"78/params.npz": ["always", status]}
    (record,) = fetch(f"hf://{GEMMA}/layer_16/width_16k/average_l0_78")
    assert record.type == "error" and record.hint is not None
    hub.faults = {"78/params.npz": [429, 429]}
    (record,) = fetch(f"hf://{GEMMA}/layer_16/width_16k/average_l0_78")
    assert record.type == "listing"


def test_names_that_are_not_there(hub: Hub) -> None:
    for target, says in (
        ("hf://no/such", "no such repository"),
        (f"hf://{GEMMA}@gone", "no such revision"),
        (f"hf://{GEMMA}/layer_99", "no such path"),
        ("hf://broken", "not a hub address"),
    ):
        with pytest.raises(AuditError, match=says):
            resolve(target)


def test_the_nearest_path_is_suggested(hub: Hub) -> None:
    with pytest.raises(AuditError, match=r"did you mean hf://.*average_l0_78\?"):
        resolve(f"hf://{GEMMA}/layer_16/width_16k/average_l0_79")


def test_no_connection_is_one_line(hub: Hub, monkeypatch: pytest.MonkeyPatch, quick: Any) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(AuditError, match="cannot be reached"):
        resolve(f"hf://{GEMMA}")


def test_a_killed_fetch_resumes(hub: Hub) -> None:
    name = "hf://big/slow/sae"
    file = large(hub.root / "big/slow/sae", features=6000, width=128)
    hub.faults = {"sae/params.npz": ["slow"]}
    command = [sys.executable, "-m", "saeaudit", "fetch", name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while sum(hub.sent.values()) < 1 << 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with pytest.raises(AuditError):
        saeaudit.open(name, offline=True)  # nothing half-written is opened
    time.sleep(0.3)
    hub.sent.clear()
    done = run("fetch", name)
    assert done.returncode == 0, done.stderr
    size = file.stat().st_size
    assert sum(hub.sent.values()) < size - (1 << 19)
    (record,) = [r for r in lines(run("scan", name, "--offline")) if r["type"] == "dictionary"]
    assert record["source"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_two_processes_fetch_the_same_file_once(hub: Hub) -> None:
    name = "hf://big/shared/sae"
    file = large(hub.root / "big/shared/sae", features=3000, width=128)
    hub.faults = {"sae/params.npz": ["slow"]}
    command = [*COMMAND, "fetch", name]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)
    ]
    assert [process.wait(timeout=100) for process in both] == [0, 0]
    for process in both:
        process.communicate()
    assert sum(hub.sent.values()) == file.stat().st_size


def test_offline_opens_no_socket(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"hf://{GEMMA}/layer_16/width_16k/average_l0_78"
    assert fetch(name)[0].type == "listing"

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    records = list(scan_all(resolve(name, offline=True), ScanOptions(), "fp32"))
    assert records[-1].passed
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve(name)[0].file.is_file()
    with pytest.raises(AuditError, match="not in the cache"):
        resolve("hf://never/seen", offline=True)


def test_damage_in_the_cache_is_found_and_mended(hub: Hub) -> None:
    name = f"hf://{GEMMA}/layer_16/width_16k/average_l0_78"
    fetch(name)
    (local,) = resolve(name, offline=True)
    blob = local.file.resolve()
    data = bytearray(blob.read_bytes())
    data[5000] ^= 1
    blob.write_bytes(bytes(data))
    with pytest.raises(AuditError, match="damaged in the cache"):
        saeaudit.open(name, offline=True)
    assert fetch(name)[0].type == "listing"
    assert saeaudit.open(name, offline=True).d_sae == 300


def test_names_and_links_that_lead_out_of_the_cache(hub: Hub, tmp_path: Path) -> None:
    from saeaudit.sources.cache import check_name

    for name in ("../../etc/passwd", "/etc/passwd", "a/../../b", "a\\b", ""):
        with pytest.raises(AuditError, match="leads out"):
            check_name(name, "x")
    name = f"hf://{GEMMA}/layer_16/width_16k/average_l0_78"
    fetch(name)
    (local,) = resolve(name, offline=True)
    local.file.unlink()
    secret = tmp_path / "secret.npz"
    secret.write_bytes(b"x")
    local.file.symlink_to(secret)
    with pytest.raises(AuditError, match="leads out"):
        resolve(name, offline=True)


def test_companion_files_come_along(hub: Hub) -> None:
    dictionary = saeaudit.open("hf://someone/mixed")
    assert dictionary.weights.format == "saelens"
    assert [Path(f.path).name for f in dictionary.source.files] == [
        "sae_weights.safetensors", "cfg.json",
    ]  # fmt: skip
    assert not any("sparsity" in path for path in hub.sent)
    pinned = saeaudit.open(f"hf://someone/mixed@{hub.commit}/blocks.0.hook_resid_pre")
    assert pinned.source.revision == hub.commit
