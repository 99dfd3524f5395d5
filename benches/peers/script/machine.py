"""What a result has to say of where it was measured."""

import datetime
import os
import platform
import re
import subprocess

from script.places import ROOT


def machine():
    with open("/proc/cpuinfo") as file:
        cpu = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "?")
    with open("/proc/meminfo") as file:
        memory = int(re.search(r"\d+", file.readline()).group()) / (1 << 20)
    return {
        "date": str(datetime.date.today()),
        "commit": first(["git", "rev-parse", "--short", "HEAD"]),
        "cpu": f"{os.cpu_count()} cores of {cpu}",
        "memory": f"{memory:.0f} GiB",
        "kernel": f"Linux {platform.release()}",
        "python": platform.python_version(),
        "node": first(["node", "--version"]).lstrip("v"),
        "rust": first(["rustc", "--version"]).removeprefix("rustc ").split(" ")[0],
    }


def first(command):
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return "none"
    return (done.stdout.splitlines() or ["none"])[0]
