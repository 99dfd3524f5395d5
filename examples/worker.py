"""A worker of one's own: `PYTHONPATH=sdk/python remuda map -- python3 examples/worker.py < FILE` reverses each line."""

import remuda

remuda.serve(lambda line: line[::-1])
