"""A hostile hub makes a command end with one line and exit 2, and does nothing else."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import saeaudit
from saeaudit import AuditError
from saeaudit.audit.fetch import fetch_all
from saeaudit.sources import durable, http
from saeaudit.sources import hub as hub_module
from saeaudit.sources.download import RangesUnsupported, get_range
from saeaudit.sources.hosts import HostError
from saeaudit.sources.target import resolve
from tests.support.hostile_hub import CONTENT, INFO, SLOW, TARGET, TREE, World
from tests.support.hub import large


@pytest.mark.parametrize("scenario", [*INFO, *TREE, *CONTENT])
def test_one_line_and_nothing_else(
    scenario: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "0.2" if _is_slow(scenario) else "10")
    before = world.outside()
    world.play(scenario)
    began = time.monotonic()
    status, lines = world.run("fetch", TARGET)
    assert time.monotonic() - began < 20
    said = [line for line in lines if "limiting requests; waiting" not in line]
    assert (status, len(said)) == (2, 1), lines
    assert str(world.hub.port) in said[0] or "the hub" in said[0] or "are free" in said[0]
    assert said[0].isprintable() and len(said[0]) < 500
    assert "Traceback" not in said[0] and "a bug in" not in said[0]
    assert sum(world.waits) <= 300 + 30
    assert world.outside() == before
    assert _bytes(world.cache) < 1 << 20
    world.play("")
    monkeypatch.delenv("HF_HUB_DOWNLOAD_TIMEOUT")
    assert world.run("fetch", TARGET)[0] == 0
    assert saeaudit.open(TARGET, offline=True).d_sae == 60


CHECK = "check the network and HF_ENDPOINT)"


@pytest.mark.parametrize(
    ("scenario", "hint"),
    [
        ("info: 404", f"(nothing of this name is there; {CHECK}"),
        ("info: 204", f"(is there a login page or a proxy between? {CHECK}"),
        ("info: login page", f"(is there a login page or a proxy between? {CHECK}"),
        ("info: endless", f"more than 8,388,608 bytes (run it again; if that repeats, {CHECK}"),
        ("info: slow body", f" ({CHECK}"),
        ("tree: too many", "(run it again; if that repeats, "),
        ("tree: null", "(run it again; if that repeats, "),
        ("content: 404", f"(nothing of this name is there; {CHECK}"),
        ("content: 204", f"(is there a login page or a proxy between? {CHECK}"),
        ("content: 416", f"shorter than was listed; run it again; {CHECK}"),
        ("content: longer", f"more bytes than announced (run it again; if that repeats, {CHECK}"),
        ("content: cut at once", f"({CHECK[:-1]}; what has arrived is kept, run it again)"),
    ],
)
def test_the_line_says_what_can_be_done(
    scenario: str, hint: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "0.2" if _is_slow(scenario) else "10")
    world.play(scenario)
    status, (line,) = world.run("fetch", TARGET)
    assert status == 2 and hint in line, line


def _is_slow(scenario: str) -> bool:
    return any(word in scenario for word in SLOW)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_path_in_the_etag_names_no_file(world: World) -> None:
    """huggingface_hub 2.4.0 creates the file that the header names."""
    before = world.outside()
    world.play("resolve: ETag leads out")
    assert world.run("fetch", TARGET)[0] == 0
    assert world.outside() == before


def test_the_commit_is_checked_by_every_command(world: World) -> None:
    before = world.outside()
    world.play("info: sha leads out")
    for command in (
        ("scan", TARGET), ("fetch", TARGET, "--decoder-only"), ("mediators", TARGET, "--scan", "-"),
        ("score", TARGET),
    ):  # fmt: skip
        status, lines = world.run(*command)
        assert (status, len(lines)) == (2, 1) and "answered with no commit" in lines[0]
    assert world.outside() == before and not world.cache.exists()


def test_the_token_stays_at_the_hub(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert world.run("fetch", TARGET)[0] == 0
    assert any("/cdn/" in request for request in world.hub.requests)
    assert world.hub.authorized
    assert all(place.startswith("127.0.0.1") for place in world.hub.authorized)
    world.play("tree: pages elsewhere")
    world.hub.requests.clear()
    status, lines = world.run("fetch", TARGET)
    assert status == 2 and "goes on at another host" in lines[0]
    assert len([r for r in world.hub.requests if "/tree/" in r]) == 1
    monkeypatch.setenv("HF_TOKEN", "hf_sec\x01ret")
    status, lines = world.run("fetch", TARGET)
    assert status == 2 and "HF_TOKEN" in lines[0] and "ret" not in lines[0].split("HF_TOKEN")[1]


def test_waiting_that_the_hub_asks_for_is_said(world: World) -> None:
    world.play("info: wait for ever")
    status, lines = world.run("scan", TARGET)
    assert status == 2 and len(lines) == 2
    assert "is limiting requests; waiting 200 s" in lines[0]
    assert "too long a wait" in lines[1]
    assert world.waits == [200.0]
    world.play("info: wait an age")
    status, lines = world.run("scan", TARGET)
    assert status == 2 and len(lines) == 1 and world.waits == [200.0]


@pytest.mark.parametrize(
    ("taken", "end"), [(0.0, 15.0), (10.0, 33.0), (14.5, 30.0), (18.0, 37.0), (20.0, 41.0)]
)
def test_no_try_begins_that_time_is_too_short_for(
    taken: float, end: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever each failure takes, a server is given up well within a minute."""
    monkeypatch.delenv("HF_HUB_DOWNLOAD_TIMEOUT", raising=False)
    clock = 0.0

    def sleep(seconds: float) -> None:
        nonlocal clock
        clock += seconds

    monkeypatch.setattr(time, "monotonic", lambda: clock)
    monkeypatch.setattr(time, "sleep", sleep)
    patience = http.Patience("a file")
    with pytest.raises(HostError, match="is silent"):
        while True:
            sleep(taken)
            patience.broken("http://host", http.Broken("is silent"))
    assert clock == end


def test_a_host_that_no_name_server_knows_is_given_up_soon(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no network; once a host has answered, its name is known."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: unknown_name())
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    status, lines = world.run("fetch", TARGET)
    assert (status, len(lines), pauses) == (2, 1, [1.0])
    assert "hub.invalid cannot be reached" in lines[0] and "check the network" in lines[0]
    patience = http.Patience("a file")
    patience.answered()
    broken = http.Broken("cannot be reached")
    broken.__cause__ = socket.gaierror()
    for _ in range(3):
        patience.broken("http://host", broken)
    assert pauses == [1.0, 1.0, 2.0, 4.0]


def unknown_name() -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7), ({"retry-after": "0"}, 0), ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None), ({}, None), ({"retry-after": "9" * 5_000}, 999999999999),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0), ({"retry-after": "²"}, None),
        ({"ratelimit": '"api";r=0;t=55'}, 55), ({"ratelimit": '"api";r=9;t=55'}, None),
    ],
)  # fmt: skip
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert http._asked_wait(headers) == seconds


def test_an_honest_listing_of_several_pages_below_a_path(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.hub.base, world.hub.page = "/mirror/hub", 1
    monkeypatch.setenv("HF_ENDPOINT", world.hub.url)
    assert world.run("fetch", TARGET)[0] == 0
    assert len([r for r in world.hub.requests if "/tree/" in r]) == 2


@pytest.mark.parametrize("address", ("localhost:1", "ftp://host", "http://[", "http://h:port"))
def test_an_endpoint_that_is_no_address(
    address: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    status, lines = world.run("fetch", TARGET)
    assert (status, len(lines)) == (2, 1) and "HF_ENDPOINT" in lines[0]
    assert not world.waits


def test_a_hub_that_keeps_failing_is_not_asked_for_every_file(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "bcdefgh":
        large(world.hub.root / f"o/r/{name}", features=60, width=16)
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "0.4")
    world.play("content: silent")
    began = time.monotonic()
    records = list(fetch_all(resolve("hf://o/r")))
    assert time.monotonic() - began < 6
    assert [record.type for record in records] == ["error"] * 8
    assert "keeps failing" in records[-1].reason
    world.play("")
    assert [record.type for record in fetch_all(resolve("hf://o/r"))] == ["listing"] * 8


def test_a_server_without_ranges_is_told_apart(world: World) -> None:
    world.play("content: other bytes")
    with pytest.raises(RangesUnsupported, match="does not send ranges"):
        get_range(f"{world.hub.url}/o/r/resolve/main/a/params.npz", 10, 20, where="x")
    world.play("")
    content = get_range(f"{world.hub.url}/o/r/resolve/main/a/params.npz", 10, 2_000, where="x")
    assert content == (world.hub.root / "o/r/a/params.npz").read_bytes()[10:2_000]


def test_a_file_that_grew_is_not_resumed_beyond_its_size(world: World) -> None:
    (local,) = resolve(TARGET)
    listed = local.remote.repo.files()["a/params.npz"]
    blobs = local.remote.repo.folder / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{listed.sha256}.saeaudit.part").write_bytes(b"x" * (listed.size + 1))
    assert world.run("fetch", TARGET)[0] == 0


@pytest.mark.parametrize(
    ("command", "scenario"), [("scan", "info: silent"), ("fetch", "content: silent")]
)
def test_ctrl_c_ends_a_stalled_fetch(command: str, scenario: str, world: World) -> None:
    world.play(scenario)
    process = subprocess.Popen(
        [sys.executable, "-m", "saeaudit", command, TARGET],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # A job in a shell's background starts with SIGINT ignored, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    awaited = "/api/models" if scenario.startswith("info") else "/cdn/"
    _until(lambda: any(awaited in request for request in world.hub.requests))
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert time.monotonic() - began < 9  # a silence is 10 s; a busy machine's farewell takes some
    assert errors == b""


def _until(condition: Callable[[], bool]) -> None:
    for _ in range(1200):
        if condition():
            return
        threading.Event().wait(0.05)
    raise AssertionError("never happened")


def test_another_process_is_waited_for_with_a_line(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # real pauses: the lock is asked for again and again
    monkeypatch.setenv("HF_HOME", str(world.cache))
    monkeypatch.setenv("HF_ENDPOINT", world.hub.url)
    monkeypatch.setattr(durable, "WAITING", 0.2)
    said = threading.Event()
    notes: list[str] = []

    def note(line: str) -> None:
        notes.append(line)
        said.set()

    (local,) = resolve(TARGET, note=note)
    repo = local.remote.repo
    lock = world.cache / "hub/.locks/models--o--r"
    oid = repo.files()["a/params.npz"].oid
    with durable.locked(lock / f"{oid}.saeaudit.lock", "the other"):
        thread = threading.Thread(target=repo.fetch, args=(local.remote.files,))
        thread.start()
        assert said.wait(20) and not world.hub.sent
    thread.join(20)
    assert not thread.is_alive() and local.file.is_file()
    assert notes == ["hf://o/r/a/params.npz: another process is fetching it; waiting"]


def test_links_in_the_cache_that_lead_out(world: World) -> None:
    """Whoever made them, nothing is written through them."""
    repo = world.cache / "hub/models--o--r"
    for below in ("blobs", "snapshots", "snapshots/" + "a" * 40, "refs"):
        shutil.rmtree(world.cache, ignore_errors=True)
        (repo / below).parent.mkdir(parents=True)
        (repo / below).symlink_to(world.decoy)
        before = world.outside()
        status, lines = world.run("fetch", TARGET)
        assert (status, len(lines)) == (2, 1) and "leads out of it" in lines[0], below
        assert world.outside() == before
    shutil.rmtree(world.cache)
    (local,) = resolve(TARGET)
    oid = local.remote.repo.files()["a/params.npz"].oid
    (repo / "blobs").mkdir(parents=True)
    (repo / f"blobs/{oid}.saeaudit.part").symlink_to(world.decoy / "start.py")
    before = world.outside()
    status, lines = world.run("fetch", TARGET)
    assert (status, len(lines)) == (2, 1) and "cannot be written" in lines[0]
    assert world.outside() == before


def test_a_cache_that_is_no_folder(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    place = world.decoy / "start.py"
    monkeypatch.setenv("HF_HUB_CACHE", str(place))
    status, lines = world.run("fetch", TARGET)
    assert status == 2 and str(place) in lines[-1] and "cannot be written" in lines[-1]
    assert place.read_text() == "the user's own\n"


def test_a_read_only_cache_serves(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.run("fetch", TARGET)[0] == 0

    def refuse(*_: object, **__: object) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    for owner, name in (
        (Path, "mkdir"), (Path, "write_bytes"), (Path, "write_text"), (Path, "unlink"),
        (Path, "replace"), (Path, "symlink_to"), (Path, "touch"), (hub_module, "_opened"),
        (hub_module, "keep"),
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, refuse)
    for command in ("fetch", "scan"):
        status, lines = world.run(command, TARGET)
        assert status == 0, lines
    world.hub.commit = "b" * 40
    status, lines = world.run("fetch", TARGET)
    assert status == 2 and str(world.cache / "hub") in lines[-1]
    assert "Permission denied" in lines[-1]


def test_a_full_disk_is_one_line(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(world.decoy)._replace(free=100)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: usage)
        status, lines = world.run("fetch", TARGET)
    assert (status, len(lines)) == (2, 1) and "100 bytes are free" in lines[0]
    assert not world.hub.sent

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(hub_module, "append", full)
        status, lines = world.run("fetch", TARGET)
    assert (status, len(lines)) == (2, 1) and "the disk is full" in lines[0]
    assert world.run("fetch", TARGET)[0] == 0


def test_where_symbolic_links_are_impossible(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    assert world.run("fetch", TARGET)[0] == 0
    (local,) = resolve(TARGET, offline=True)
    assert local.file.is_file() and not local.file.is_symlink()
    assert saeaudit.open(TARGET, offline=True).d_sae == 60


def test_the_hubs_own_library_reads_the_cache_and_the_other_way_round(world: World) -> None:
    from huggingface_hub import hf_hub_download, scan_cache_dir

    where = {"endpoint": world.hub.url, "cache_dir": world.cache / "hub"}
    assert world.run("fetch", TARGET)[0] == 0
    sent = sum(world.hub.sent.values())
    place = hf_hub_download("o/r", "a/params.npz", local_files_only=True, **where)
    assert Path(place).read_bytes() == (world.hub.root / "o/r/a/params.npz").read_bytes()
    (repo,) = scan_cache_dir(world.cache / "hub").repos
    assert repo.repo_id == "o/r" and repo.nb_files == 1
    shutil.rmtree(world.cache)
    with http.untracked():
        hf_hub_download("o/r", "a/params.npz", **where)
    world.hub.sent.clear()
    assert world.run("fetch", TARGET)[0] == 0
    assert sent and not world.hub.sent


def test_settings_that_are_no_numbers_and_an_environment_that_stays() -> None:
    program = (
        "import os, pkgutil, importlib, saeaudit\n"
        "before = dict(os.environ)\n"
        "for module in pkgutil.walk_packages(saeaudit.__path__, 'saeaudit.'):\n"
        "    if 'sources' in module.name: importlib.import_module(module.name)\n"
        "from saeaudit.sources.http import library, silence\n"
        "library(); assert silence() == 10.0\n"
        "assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())\n"
    )
    environment = {**os.environ, "HF_HUB_DOWNLOAD_TIMEOUT": "soon"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=100)


def test_the_hub_is_not_told_of_the_users_software() -> None:
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers

    before = constants.HF_HUB_DISABLE_TELEMETRY
    with http.untracked():
        told = build_hf_headers()["user-agent"]
        assert "torch/" not in told and "agent/" not in told
    assert constants.HF_HUB_DISABLE_TELEMETRY == before


def test_odd_names_of_revisions(world: World) -> None:
    before = world.outside()
    for revision in ("../../x", "a/../b", "x" * 300, "a\0b", "/abs", "a//b"):
        with pytest.raises(AuditError, match="refused"):
            resolve(TARGET, revision=revision)
    with pytest.raises(AuditError, match="not a repository name"):
        resolve("hf://../..")
    assert world.outside() == before
