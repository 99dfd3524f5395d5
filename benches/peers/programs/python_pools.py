"""Upper-cases the lines of a file by a pool of two Python processes, as its user would write it."""

import sys
from concurrent.futures import ProcessPoolExecutor

WORKERS = 2


def upper(text):
    return text.upper()


def main(kind, path, chunksize):
    with open(path) as lines:
        inputs = lines.read().splitlines()
    with open("/dev/null", "w") as out:
        if kind == "executor":
            with ProcessPoolExecutor(WORKERS) as pool:
                for result in pool.map(upper, inputs, chunksize=int(chunksize)):
                    out.write(result + "\n")
        else:
            from pebble import ProcessPool

            with ProcessPool(max_workers=WORKERS) as pool:
                for result in pool.map(upper, inputs, chunksize=int(chunksize)).result():
                    out.write(result + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
