"""Run the command line many times without importing PyTorch each time.

A server imports what any command imports and forks for each request, before anything computes
(PyTorch has started no thread yet). A client hands over its arguments, environment, working folder
and standard streams, and ends with the child's status: to a caller it is `python -m saeaudit`.

    python tests/support/forks.py serve SOCKET
    python -S -E tests/support/forks.py run SOCKET ARGUMENT...
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys


def serve(path: str) -> None:
    import gc
    import importlib
    import multiprocessing.resource_tracker  # noqa: F401
    import pkgutil
    import warnings

    import altair  # noqa: F401
    import jinja2  # noqa: F401

    import saeaudit
    from saeaudit.cli.app import run as run_command

    for module in pkgutil.walk_packages(saeaudit.__path__, "saeaudit."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    gc.freeze()  # a collection in a child would copy whatever it looks at
    warnings.simplefilter("default")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen(64)
    print("ready", flush=True)
    while True:
        connection, _ = listening.accept()
        if os.fork():
            connection.close()
            while True:  # those that have ended
                try:
                    if os.waitpid(-1, os.WNOHANG)[0] == 0:
                        break
                except ChildProcessError:
                    break
            continue
        listening.close()
        request, fds = _receive(connection)
        worker = os.fork()
        if worker:
            for fd in fds:
                os.close(fd)
            _, status = os.waitpid(worker, 0)
            connection.sendall(struct.pack("i", os.waitstatus_to_exitcode(status)))
            os._exit(0)
        connection.close()
        for target, fd in enumerate(fds):
            os.dup2(fd, target)
            os.close(fd)
        for fd in request["closed"]:
            os.close(fd)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        sys.argv = ["saeaudit", *request["arguments"]]
        run_command()


def _receive(connection: socket.socket) -> tuple[dict, list[int]]:
    data, fds, _, _ = socket.recv_fds(connection, 8, 3)
    (size,) = struct.unpack("q", data)
    text = b""
    while len(text) < size:
        text += connection.recv(size - len(text))
    return json.loads(text), fds


def _fill_gaps() -> list[int]:
    """Standard streams that are closed: they are stood in for here and closed again there."""
    closed = []
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            closed.append(os.open(os.devnull, os.O_RDWR))
    return closed


def run(path: str, arguments: list[str]) -> int:
    request = {
        "arguments": arguments,
        "closed": _fill_gaps(),
        "cwd": os.getcwd(),  # noqa: PTH109  (pathlib would take 20 ms to import)
        "env": dict(os.environ),
    }
    text = json.dumps(request).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [struct.pack("q", len(text))], [0, 1, 2])
        connection.sendall(text)
        status: int = struct.unpack("i", connection.recv(4))[0]
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.exit(run(sys.argv[2], sys.argv[3:]))
