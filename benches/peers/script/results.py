"""The results, a line of JSON each, written as soon as they are there."""

import json
import os

from script.places import RESULTS


class Results:
    """Of a run that may have been interrupted and gone on with; a row's last result counts."""

    def __init__(self, mode, fresh=False, folder=RESULTS):
        folder.mkdir(exist_ok=True)
        self.path = folder / f"{mode}.jsonl"
        if fresh and self.path.exists():
            self.path.replace(self.path.with_suffix(".jsonl.before"))
        self.of = {}
        self.half_a_line = False
        if self.path.exists():
            text = self.path.read_text()
            self.half_a_line = bool(text) and not text.endswith("\n")
            for line in text.splitlines():
                try:
                    result = json.loads(line)
                except ValueError:
                    # What was written as the run was killed.
                    continue
                self.of[result["row"]] = result

    def add(self, result):
        """Once this returns the result outlives the machine's going off."""
        self.of[result["row"]] = result
        with open(self.path, "a") as file:
            file.write("\n" * self.half_a_line + json.dumps(result) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.half_a_line = False

    def has(self, name):
        """Whether the row needn't run again."""
        return name in self.of and not {"error", "missing"} & set(self.of[name])
