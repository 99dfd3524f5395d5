// Counts a file, JSON in and JSON out; an async function, which runs one job at a time unless it has a `capacity`.
//
//     git ls-files | jq -c -R '{path: .}' | remuda map --json --node examples/wc.mjs:count

import { readFile } from "node:fs/promises";

export async function count({ path }) {
  const bytes = await readFile(path);
  const text = bytes.toString("latin1");
  const lines = text.split("\n").length - 1;
  const words = text.split(/[\t-\r ]+/).filter((word) => word !== "").length;
  return { path, lines, words, bytes: bytes.length };
}
