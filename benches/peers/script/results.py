"""The results, a line of JSON each, written as soon as they are there."""

import json

from script.places import RESULTS


class Results:
    """Of a run that may have been interrupted and gone on with; a row's last result counts."""

    def __init__(self, mode, fresh=False):
        RESULTS.mkdir(exist_ok=True)
        self.path = RESULTS / f"{mode}.jsonl"
        if fresh and self.path.exists():
            self.path.replace(self.path.with_suffix(".jsonl.before"))
        self.of = {}
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                # An interrupted run may have left half a line.
                if line.endswith("}"):
                    result = json.loads(line)
                    self.of[result["row"]] = result

    def add(self, result):
        self.of[result["row"]] = result
        with open(self.path, "a") as file:
            file.write(json.dumps(result) + "\n")

    def has(self, name):
        """Whether the row needn't run again."""
        return name in self.of and not {"error", "missing"} & set(self.of[name])
