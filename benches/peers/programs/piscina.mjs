// Upper-cases the lines of a file by piscina with two threads.
import { createRequire } from "node:module";
import { readFileSync, createWriteStream, writeFileSync } from "node:fs";
import { join } from "node:path";

const [folder, path] = process.argv.slice(2);
const require = createRequire(join(folder, "package.json"));
const { Piscina } = require("piscina");
const worker = join(folder, "upper-worker.cjs");
writeFileSync(worker, "module.exports = (text) => text.toUpperCase();\n");

const IN_FLIGHT = 1024;
const pool = new Piscina({ filename: worker, minThreads: 2, maxThreads: 2, concurrentTasksPerWorker: 8 });
const lines = readFileSync(path, "utf8").split("\n").slice(0, -1);
const out = createWriteStream("/dev/null");
let next = 0;
async function feed() {
  while (next < lines.length) out.write((await pool.run(lines[next++])) + "\n");
}
await Promise.all(Array.from({ length: IN_FLIGHT }, feed));
await pool.destroy();
