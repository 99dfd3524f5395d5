"""Counts a file, JSON in and JSON out.

    git ls-files | jq -c -R '{path: .}' | remuda map --json --python examples/wc.py:count
"""


def count(job):
    lines = words = size = 0
    with open(job["path"], "rb") as file:
        for line in file:
            lines += line.endswith(b"\n")
            words += len(line.split())
            size += len(line)
    return {"path": job["path"], "lines": lines, "words": words, "bytes": size}
