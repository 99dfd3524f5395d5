"""Runs a function of jobs.py over the lines of a file by a pool of two Python processes, as its user
would write it: `python_pools.py executor|loky|pebble FUNCTION FILE CHUNKSIZE`."""

import sys

import jobs

WORKERS = 2


def main(kind, function, path, chunksize):
    function, chunksize = getattr(jobs, function), int(chunksize)
    with open(path) as lines:
        inputs = lines.read().splitlines()
    with open("/dev/null", "w") as out:
        for result in results(kind, function, inputs, chunksize):
            out.write(result + "\n")


def results(kind, function, inputs, chunksize):
    if kind == "executor":
        from concurrent.futures import ProcessPoolExecutor

        with ProcessPoolExecutor(WORKERS) as pool:
            yield from pool.map(function, inputs, chunksize=chunksize)
    elif kind == "loky":
        from loky import ProcessPoolExecutor

        with ProcessPoolExecutor(WORKERS) as pool:
            yield from pool.map(function, inputs, chunksize=chunksize)
    else:
        from pebble import ProcessPool

        with ProcessPool(max_workers=WORKERS) as pool:
            yield from pool.map(function, inputs, chunksize=chunksize).result()


if __name__ == "__main__":
    main(*sys.argv[1:])
