"""System calls of a process, counted by name. perf counts them in the kernel and stops nobody; where it
may not, strace does, which stops a process at each of its calls: what sleeps then sleeps more often."""

import contextlib
import functools
import os
import pathlib
import signal
import subprocess
import tempfile
import time

from script.places import ROOT

ATTACH_TIMEOUT_S = 10
COMMAND_TIMEOUT_S = 120
ALL = "raw_syscalls:sys_enter"
# Those that are counted by name. What a process makes of others is the rest.
NAMES = ["read", "write", "readv", "writev", "recvfrom", "sendto", "recvmsg", "sendmsg", "io_uring_enter", "epoll_wait",
         "epoll_pwait", "epoll_ctl", "poll", "ppoll", "futex", "sched_yield", "clock_nanosleep", "accept4", "close", "setsockopt"]
EVENTS = [pathlib.Path(folder) for folder in ("/sys/kernel/tracing/events", "/sys/kernel/debug/tracing/events")]


@functools.cache
def counted_by():
    """What counts here."""
    command = ["perf", "stat", "-x", ",", "-e", ALL, "true"]
    with contextlib.suppress(OSError):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode == 0 and parsed_perf(done.stderr).get("other", 0) > 0:
            return "perf"
    return "strace"


def of_processes(pids, work):
    """The calls of running processes, all their threads, while something is done."""
    return by_perf(pids, work, events()) if counted_by() == "perf" else by_strace(pids, work)


def number(pids, work):
    """How many they are, without their names: perf takes a second to begin with all of these."""
    return sum((by_perf(pids, work, ["-e", ALL]) if counted_by() == "perf" else by_strace(pids, work)).values())


def of_command(command):
    """The calls of a command and all that it starts."""
    with tempfile.NamedTemporaryFile("r") as table:
        perf = counted_by() == "perf"
        tracer = ["perf", "stat", "-x", ",", "-o", table.name, *events()] if perf else ["strace", "-c", "-f", "-o", table.name]
        subprocess.run([*tracer, *command], cwd=ROOT, check=True, capture_output=True, timeout=COMMAND_TIMEOUT_S)
        return parsed_perf(table.read()) if perf else parsed_strace(table.read())


@functools.cache
def events():
    """The options that name what perf counts: as far as this kernel has it."""
    there = [name for name in NAMES if any((folder / f"syscalls/sys_enter_{name}").exists() for folder in EVENTS)]
    return [word for event in [ALL, *(f"syscalls:sys_enter_{name}" for name in there)] for word in ("-e", event)]


def by_perf(pids, work, events):
    """perf is told when to begin and to end, and says that it does."""
    with tempfile.NamedTemporaryFile("r") as table:
        (control_read, control), (said, said_write) = os.pipe(), os.pipe()
        perf = subprocess.Popen(
            ["perf", "stat", "-x", ",", "-o", table.name, "-D", "-1", "--control", f"fd:{control_read},{said_write}", *events, "-p",
             ",".join(map(str, pids))],
            stderr=subprocess.DEVNULL, pass_fds=(control_read, said_write))
        os.close(control_read), os.close(said_write)
        try:
            for what, then in (("enable", work), ("disable", lambda: None)):
                os.write(control, what.encode() + b"\n")
                if not os.read(said, 16).startswith(b"ack"):
                    raise ValueError("perf could not count")
                then()
        finally:
            perf.send_signal(signal.SIGINT)
            perf.wait()
            os.close(control), os.close(said)
        return parsed_perf(table.read())


def parsed_perf(text):
    """The calls of perf's table by name, and how many had another name."""
    counts = {}
    for line in text.splitlines():
        words = line.split(",")
        if len(words) > 2 and words[0].isdigit():
            counts[words[2].removeprefix("syscalls:sys_enter_")] = int(words[0])
    every = counts.pop(ALL, 0)
    return {**{name: count for name, count in counts.items() if count}, "other": max(0, every - sum(counts.values()))}


def by_strace(pids, work):
    with tempfile.NamedTemporaryFile("r") as table:
        attach = [word for pid in pids for word in ("-p", str(pid))]
        strace = subprocess.Popen(["strace", "-c", "-f", "-o", table.name, *attach], stderr=subprocess.DEVNULL)
        try:
            end = time.monotonic() + ATTACH_TIMEOUT_S
            while not all(is_traced(pid) for pid in pids):
                if time.monotonic() > end or strace.poll() is not None:
                    raise ValueError("strace could not attach")
                time.sleep(0.02)
            work()
        finally:
            strace.send_signal(signal.SIGINT)
            strace.wait()
        return parsed_strace(table.read())


def is_traced(pid):
    threads = pathlib.Path(f"/proc/{pid}/task").glob("*/status")
    return all("TracerPid:\t0\n" not in thread.read_text() for thread in threads)


def parsed_strace(table):
    """The calls of strace's table, by name."""
    counts = {}
    for line in table.splitlines():
        words = line.split()
        if len(words) >= 5 and words[3].isdigit() and words[-1] != "total":
            counts[words[-1]] = int(words[3])
    return counts
