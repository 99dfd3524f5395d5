"""Servers that are started and stopped, and what the kernel says of processes."""

import contextlib
import ctypes
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import time

from script.places import ROOT

READY_TIMEOUT_S = 30
STOP_TIMEOUT_S = 10
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def filled(command, names):
    """The command with the values of this run in it."""
    def word(text):
        for name, value in names.items():
            text = text.replace("{" + name + "}", str(value))
        return text

    return [word(str(text)) for text in command]


@contextlib.contextmanager
def running(servers, ready, environment=None):
    """Starts servers in a fresh folder, and gives what their commands were filled with; "pids" are
    theirs."""
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        names = {"folder": folder, "port": free_port()}
        started = []
        try:
            for command in servers:
                started.append(start(filled(command, names), environment))
            if ready:
                until_ready(filled(ready, names), started)
            yield {**names, "pids": [server.pid for server in started]}
        finally:
            for server in reversed(started):
                stop(server)


def start(command, environment):
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0,
        env={**os.environ, **(environment or {})}, preexec_fn=end_with_parent,
    )


def end_with_parent():
    """For a child as it starts: a run that is killed shall not leave servers behind that disturb the
    next."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def until_ready(command, servers):
    end = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < end:
        if any(server.poll() is not None for server in servers):
            raise ValueError("a server ended before it was ready: " + " ".join(command))
        try:
            if subprocess.run(command, cwd=ROOT, capture_output=True, timeout=5).returncode == 0:
                return
        except subprocess.TimeoutExpired:
            pass
        time.sleep(0.05)
    raise ValueError("the server was not ready in time: " + " ".join(command))


def stop(server):
    server.terminate()
    try:
        server.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        pass
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def children(pid):
    """All descendants of a process."""
    of = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in brackets, may hold anything.
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            of.setdefault(parent, []).append(int(stat.parent.name))
    found, next_ones = [], [pid]
    while next_ones:
        next_ones = [child for parent in next_ones for child in of.get(parent, [])]
        found += next_ones
    return found


def leaves(pid):
    """The descendants that have no children: of a pool, its workers."""
    found = children(pid)
    return [child for child in found if not children(child)]


def own_pid(pid):
    """The number by which a process knows itself: a pool may keep its workers in a namespace."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^NSpid:.*?(\d+)$", status, re.M).group(1))


def cpu_seconds(pid):
    """The processor time of all its threads, user and system, to the nanosecond. What threads used
    that have ended is not in it."""
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"):
        total += int(task.read_text().split()[0])
    return total / 1e9


def wake_ups(pid):
    """How often its threads went to sleep of their own."""
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/status"):
        total += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", task.read_text(), re.M).group(1))
    return total


def memory(pid, field="VmHWM"):
    """Its resident memory in bytes: the most so far, or (VmRSS) what it has."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+)", status, re.M).group(1)) * 1024
