// Remuda for Node: a worker in three lines, and a client. One file, no dependencies, Node 18 or later.
//
// A worker, started by `remuda map -- node worker.mjs`:
//
//     import { serve } from "./remuda.mjs";
//     const upper = (text) => text.toUpperCase();
//     serve(upper);
//
// A client of a pool that `remuda serve` runs:
//
//     const pool = await connect();
//     console.log(await pool.call("abc"));
//
// `remuda map --node FILE.mjs:FUNCTION` runs this same file, which the binary carries inside. README.md beside this
// file has the whole contract; docs/protocol.md has the protocol.

import buffer from "node:buffer";
import { randomBytes } from "node:crypto";
import { setMaxListeners } from "node:events";
import { existsSync, readFileSync, realpathSync, statSync, unlinkSync, writeSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import tls from "node:tls";
import { fileURLToPath, pathToFileURL } from "node:url";

export const PROTOCOL_VERSION = "1";
const DEFAULT_BATCH = 512; // bodies that one call may carry to a function that runs one job at a time
const MAX_BODY_BYTES_DEFAULT = 16 * 1024 * 1024; // of one body, where this side accepts connections
const ENVELOPE_BYTES = 64 * 1024; // what a line may hold besides its body
const QUEUED_BYTES = 1024 * 1024; // of calls waiting for their turn, before the connection is read no further
const WAITING_CALLS = 1024; // beyond the capacity, before the connection is read no further
const ID_BYTES_MAX = 64;
const ERROR_CHARS = 2000; // of an `error`
const TRACEBACK_CHARS = 8000; // of a `traceback`
const HANDSHAKE_MS = 10_000; // how long a client waits for the handshake's answer
const TIMER_MS_MAX = 2 ** 31 - 1; // setTimeout takes a longer one for no time at all
const CANCEL_MS = 1_000; // how long past its timeout a client waits for the pool's own answer
const MAP_WINDOW = 64; // jobs that `Client.map` has in flight
const EXIT_CANNOT_SERVE = 78; // EX_CONFIG: the function couldn't be loaded, or there is nobody to serve
const NEWLINE = 10;
const { isUtf8 } = buffer; // from Node 18.14 on

// ---------------------------------------------------------------------------------------------------------------
// A worker's public face

/**
 * Answers jobs with `handler(body)` until the pool closes the connection; the process then ends.
 *
 * The handler may be async. It runs one job at a time, in order, unless `capacity` is above 1; then that many run at
 * once, and it is called as `handler(body, { id, signal })`, whose signal aborts when the job is cancelled. `batch: N` says that the handler takes an array of at
 * most N bodies and returns as many results. `listen: "/path.sock"` makes this a worker started by hand, for
 * `--attach`, on a Unix socket of its own. The same options may be properties of the function.
 *
 * Throws TypeError for an option that makes no sense; ends the process with status 78 when it was neither started by
 * a pool nor told where to listen.
 */
export function serve(handler, options = {}) {
  const plan = new Plan(handler, options);
  if (options.listen !== undefined) return listen(options.listen, plan, options.maxBodyBytes ?? MAX_BODY_BYTES_DEFAULT);
  const socket = poolSocket();
  if (!socket) {
    complain("this is a worker, and no pool started it. Run `remuda map -- node FILE`, or give it a socket of its own: "
      + 'serve(handler, { listen: "/path.sock" })');
    process.exit(EXIT_CANNOT_SERVE);
  }
  new Session(plan, socket).run(() => process.exit(0));
  return undefined;
}

/** The handler takes an array of at most `size` bodies, and returns (a promise of) an array of as many results. */
export function batch(size, handler) {
  handler.batch = size;
  return handler;
}

/** The async handler runs up to `jobs` at once. */
export function capacity(jobs, handler) {
  handler.capacity = jobs;
  return handler;
}

/** This worker's place in its pool, 0 to num_workers - 1, kept over restarts; undefined outside a pool. */
export function slot() {
  const text = process.env.REMUDA_WORKER_SLOT;
  return /^\d+$/.test(text ?? "") ? Number(text) : undefined;
}

/** The id that the pool gave this process, a string; undefined outside a pool. */
export function workerId() {
  return process.env.REMUDA_WORKER_ID;
}

class Plan {
  constructor(handler, options) {
    if (typeof handler !== "function") throw new TypeError(`serve needs a function, and got ${typeName(handler)}`);
    const size = options.batch ?? handler.batch;
    const jobs = options.capacity ?? handler.capacity ?? 1;
    for (const [name, value] of [["batch", size ?? 1], ["capacity", jobs]]) {
      if (!Number.isSafeInteger(value) || value < 1) {
        throw new TypeError(`${name} must be a whole number from 1 on; got ${String(value)}`);
      }
    }
    this.handler = handler;
    this.takesList = size !== undefined;
    this.capacity = jobs;
    this.batch = this.takesList ? size : jobs > 1 ? 0 : DEFAULT_BATCH;
    this.jobs = 0;
    this.failures = 0;
    this.onStop = () => {};
    this.handshake = {
      kind: "handshake", version: PROTOCOL_VERSION, instance: randomBytes(16).toString("hex"), pid: process.pid,
      capacity: jobs, ordered: jobs === 1, batch: this.batch, capabilities: jobs > 1 ? ["cancel"] : [],
    };
  }

  status() {
    const uptime = Math.round(process.uptime() * 1000) / 1000;
    return { kind: "status", pid: process.pid, jobs: this.jobs, failures: this.failures, uptime_seconds: uptime };
  }
}

function complain(text) {
  writeSync(2, `remuda: ${text}\n`); // console.error may still be in a buffer when the process ends
}

function typeName(value) {
  if (value === null || typeof value !== "object") return value === null ? "null" : typeof value;
  return value.constructor?.name ?? "object";
}

// ---------------------------------------------------------------------------------------------------------------
// JSON

/** A result that can't be sent. */
class Unfit extends Error {}

/** `value` as JSON. Throws Unfit with a sentence for the job's owner. */
function encode(value) {
  if (typeof value === "string") return checked(JSON.stringify(value));
  if (value === undefined || value === null) return "null";
  if (value instanceof Uint8Array) {
    if (!validUtf8(value)) throw new Unfit("the result is bytes that aren't UTF-8; return text, or base64");
    return JSON.stringify(Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("utf8"));
  }
  let text;
  try {
    text = JSON.stringify(value);
  } catch (error) {
    if (error instanceof RangeError) throw new Unfit("the result nests too deeply");
    if (/circular/i.test(String(error?.message))) throw new Unfit("the result holds itself");
    throw new Unfit(`a result of type ${typeName(value)} can't be JSON: ${message(error)}`);
  }
  if (text === undefined) throw new Unfit(`a result of type ${typeName(value)} can't be JSON`);
  // JSON.stringify writes NaN and Infinity as null: only where it wrote one need they be looked for.
  if (text.includes("null") && holdsNonFinite(value)) {
    throw new Unfit("the result holds NaN or Infinity, which JSON lacks");
  }
  return checked(text);
}

function checked(text) {
  // JSON.stringify escapes half a surrogate pair, and nothing else, as \ud...
  if (text.includes("\\ud") && /(^|[^\\])(\\\\)*\\ud[89a-f]/.test(text)) {
    throw new Unfit("the result holds half a surrogate pair, which UTF-8 lacks");
  }
  return text;
}

function holdsNonFinite(value) {
  if (typeof value === "number") return !Number.isFinite(value);
  if (value === null || typeof value !== "object" || typeof value.toJSON === "function") return false;
  return Object.values(value).some(holdsNonFinite);
}

function validUtf8(bytes) {
  if (isUtf8) return isUtf8(bytes);
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return true;
  } catch {
    return false;
  }
}

function clean(text, limit) {
  const short = text.length > limit ? `${text.slice(0, limit / 4)}\n...\n${text.slice(-limit * 3 / 4)}` : text;
  return Buffer.from(short, "utf8").toString("utf8"); // halves of surrogate pairs become replacement characters
}

function message(error) {
  try {
    return String(error?.message ?? error);
  } catch {
    return "(its message could not be had)";
  }
}

/** The fields that tell of what a handler threw: code, error as "TypeError: ...", traceback. */
function failure(error) {
  const text = message(error);
  if (error instanceof Unfit) return { code: "handler_error", error: clean(text, ERROR_CHARS) };
  const name = error instanceof Error ? `${error.name}` : `thrown ${typeName(error)}`;
  const summary = clean(text ? `${name}: ${text}` : name, ERROR_CHARS);
  let stack = summary;
  try {
    if (typeof error?.stack === "string") stack = userFrames(error.stack);
  } catch {
    // a getter that throws must not hide the failure itself
  }
  return { code: "handler_error", error: summary, traceback: clean(stack, TRACEBACK_CHARS) };
}

const ownUrl = import.meta.url;

function userFrames(stack) {
  const own = (line) => line.includes(ownUrl) || /\(?node:internal/.test(line);
  return stack.split("\n").filter((line) => !(/^\s+at /.test(line) && own(line))).join("\n");
}

/** The text of a top-level member's value in a line that was parsed before: a number too large keeps its digits. */
function rawMember(text, name) {
  let depth = 0;
  let found = "";
  for (let at = 0; at < text.length; at += 1) {
    const c = text[at];
    if (c === "{" || c === "[") depth += 1;
    else if (c === "}" || c === "]") depth -= 1;
    else if (c === '"') {
      const start = at;
      for (at += 1; text[at] !== '"'; at += 1) if (text[at] === "\\") at += 1;
      if (depth !== 1) continue;
      const value = /\s*:\s*(-?[\d.eE+-]+|"(?:[^"\\]|\\.)*")?/y;
      value.lastIndex = at + 1;
      const match = value.exec(text);
      if (match && JSON.parse(text.slice(start, at + 1)) === name) found = match[1] ?? "";
      if (match) at = value.lastIndex - 1;
    }
  }
  return found;
}

// ---------------------------------------------------------------------------------------------------------------
// The protocol, on the accepting side

/** Cuts what arrives into lines. */
class Lines {
  constructor(limit = Infinity) {
    this.limit = limit;
    this.parts = [];
    this.held = 0;
  }

  /** Adds to `lines` those that `chunk` completes, without their ends. Throws RangeError over the limit. */
  feed(chunk, lines) {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      let line = chunk.subarray(start, end);
      if (this.held > 0) {
        this.parts.push(line);
        line = Buffer.concat(this.parts);
        this.parts = [];
        this.held = 0;
      }
      if (line.length > this.limit) throw new RangeError("line over the limit");
      lines.push(line);
      start = end + 1;
    }
    if (start < chunk.length) {
      this.parts.push(start === 0 ? chunk : chunk.subarray(start));
      this.held += chunk.length - start;
      if (this.held > this.limit) throw new RangeError("line over the limit");
    }
  }
}

const withId = (id, fields) => (id === undefined ? `{${fields}\n` : `{"id":${id},${fields}\n`);
const accepted = (id, data) => withId(id, `"ok":true,"data":${JSON.stringify(data)}}`);
const refusal = (id, code, error) =>
  withId(id, `"ok":false,"code":"${code}","error":${JSON.stringify(clean(error, ERROR_CHARS))}}`);
const BAD_ID = Symbol("bad id");
const badId = () => refusal(undefined, "bad_request", `an id is a number or a string of at most ${ID_BYTES_MAX} bytes`);
const HEAD_ID = /^\s*\{\s*"op"\s*:\s*"call"\s*,\s*"id"\s*:\s*(-?\d{1,20}|"[ !#-[\]-~]{1,64}")\s*,/;

/** One connection: reads lines, runs jobs, and sends each answer before the next job starts, unless capacity > 1. */
class Session {
  constructor(plan, socket, limit) {
    this.plan = plan;
    this.socket = socket;
    this.lines = new Lines(limit);
    this.queue = []; // lines not looked at yet
    this.next = 0; // the first of them
    this.queuedBytes = 0; // what came since the queue was last empty
    this.busy = false; // an ordered job is running, or its answer is on its way
    this.greeted = false;
    this.closing = false;
    this.blocked = false; // the peer doesn't read its answers
    this.running = new Map(); // id as JSON -> AbortController, where capacity > 1
    this.active = 0;
    this.later = []; // calls beyond the capacity
    this.unnumbered = []; // answers without an id go out in the order of their requests
  }

  /** Serves the connection; `ended` is called when it is over. */
  run(ended) {
    const socket = this.socket;
    socket.on("data", (chunk) => this.received(chunk));
    socket.on("error", () => {});
    socket.on("end", () => {
      this.ended = true;
      this.closeWhenIdle();
    });
    socket.on("close", () => {
      for (const controller of this.running.values()) controller.abort();
      ended();
    });
  }

  received(chunk) {
    this.queuedBytes += chunk.length;
    try {
      this.lines.feed(chunk, this.queue);
    } catch {
      this.send(refusal(undefined, "body_too_large", "the line is over this worker's limit"));
      this.close();
      return;
    }
    this.turn();
    if (this.next < this.queue.length && this.queuedBytes > QUEUED_BYTES) this.socket.pause();
  }

  /** Takes lines until one of them must be waited for. */
  turn() {
    while (!this.closing && this.next < this.queue.length && !this.busy) {
      const line = this.queue[this.next];
      this.next += 1;
      const answer = this.take(line);
      if (answer !== undefined) this.send(answer);
    }
    if (this.next === this.queue.length) {
      if (this.next > 0) this.queue = [];
      this.next = 0;
      this.queuedBytes = 0;
      this.readOn();
      this.closeWhenIdle();
    }
  }

  /** Reads on, where there is no reason left not to. */
  readOn() {
    if (this.blocked || this.next < this.queue.length || this.later.length >= WAITING_CALLS) return;
    if (this.socket.isPaused()) this.socket.resume();
  }

  send(answer) {
    if (this.socket.destroyed) return;
    if (this.unnumbered.length > 0 && !answer.startsWith('{"id":')) this.unnumbered.push({ answer });
    else this.write(answer);
  }

  write(answer) {
    const room = this.socket.write(answer);
    if (!room && this.plan.capacity > 1 && !this.blocked) {
      this.blocked = true; // a peer that doesn't read gets nothing more started
      this.socket.pause();
      this.socket.once("drain", () => {
        this.blocked = false;
        this.readOn();
      });
    }
    // A pool tells by the answers which job a dead worker was running: none may lie in a buffer when a job starts.
    if (this.socket.writableLength > 0 && this.plan.capacity === 1) {
      this.busy = true;
      this.socket.write("", () => {
        this.busy = false;
        this.turn();
      });
    }
  }

  close() {
    this.closing = true;
    this.socket.end();
  }

  closeWhenIdle() {
    if (this.ended && !this.busy && this.active === 0 && this.next === this.queue.length) this.socket.end();
  }

  /** The answer to a line, if it has one at once. */
  take(line) {
    const text = line.utf8Slice(0, line.length);
    let request;
    try {
      if (text.includes("\ufffd") && !validUtf8(line)) throw new SyntaxError("it isn't UTF-8");
      request = JSON.parse(text);
    } catch (error) {
      if (!this.greeted) return this.notGreeted();
      if (text.trim() === "") return undefined;
      const id = HEAD_ID.exec(text)?.[1];
      return refusal(id, "bad_request", `the line could not be read as JSON: ${message(error)}`);
    }
    if (request === null || typeof request !== "object" || Array.isArray(request)) {
      return this.greeted ? refusal(undefined, "bad_request", "a line must be an object") : this.notGreeted();
    }
    if (!this.greeted && request.op !== "handshake") return this.notGreeted();
    const id = this.idText(request.id, text);
    if (id === BAD_ID) return badId();
    return request.op === "call" ? this.call(id, request) : this.other(id, request.op);
  }

  /** Refuses, and ends the connection: an HTTP request, say, must never be read as lines. */
  notGreeted() {
    this.closing = true;
    this.socket.end(refusal(undefined, "handshake_required",
      'the first line must be {"op":"handshake","version":"1"}'));
    return undefined;
  }

  idText(id, text) {
    if (id === undefined) return undefined;
    if (Number.isSafeInteger(id) && text.startsWith(`{"op":"call","id":${id},`)) return String(id);
    if (typeof id !== "number" && typeof id !== "string") return BAD_ID;
    const raw = rawMember(text, "id");
    return Buffer.byteLength(raw) <= ID_BYTES_MAX + (typeof id === "string" ? 2 : 0) ? raw : BAD_ID;
  }

  other(id, op) {
    if (op === "handshake") { // its version is for the other side to judge
      this.greeted = true;
      return accepted(id, this.plan.handshake);
    }
    if (op === "status") return accepted(id, this.plan.status());
    if (op === "cancel") {
      this.cancel(id);
      return undefined;
    }
    if (op === "shutdown") {
      this.closing = true;
      this.socket.end(accepted(id, { kind: "shutdown" }));
      this.plan.onStop();
      return undefined;
    }
    if (typeof op !== "string") return refusal(id, "bad_request", '"op" must be a string');
    return refusal(id, "unknown_op",
      `a worker answers handshake, call, cancel, status, shutdown; not ${JSON.stringify(op.slice(0, 32))}`);
  }

  call(id, request) {
    const many = request.bodies !== undefined;
    if (many === (request.body !== undefined)) {
      return refusal(id, "bad_request", many ? 'a call has a "body" or "bodies", not both'
        : 'a call needs a "body", or "bodies"');
    }
    if (many && !Array.isArray(request.bodies)) return refusal(id, "bad_request", '"bodies" must be an array');
    if (many && request.bodies.length === 0) return refusal(id, "bad_request", '"bodies" must hold at least one body');
    if (many && request.bodies.length > this.plan.batch) {
      return refusal(id, "bad_request",
        `this worker takes at most ${this.plan.batch} bodies a call, not ${request.bodies.length}`);
    }
    if (this.plan.capacity > 1) {
      this.admit({ id, request, hole: { answer: undefined } });
      return undefined;
    }
    const answer = this.execute(id, request);
    if (typeof answer === "string") return answer;
    this.busy = true;
    answer.then((text) => {
      this.busy = false;
      this.write(text);
      this.turn();
    });
    return undefined;
  }

  execute(id, request, context) {
    const many = request.bodies !== undefined;
    this.plan.jobs += many ? request.bodies.length : 1;
    return many ? this.runMany(id, request.bodies, context) : this.runOne(id, request.body, context);
  }

  /** Starts one of several jobs, or lets it wait until the capacity has room. */
  admit(entry) {
    if (entry.id === undefined) this.unnumbered.push(entry.hole);
    if (this.active < this.plan.capacity) this.begin(entry);
    else this.later.push(entry);
    if (this.later.length >= WAITING_CALLS) this.socket.pause();
  }

  begin({ id, request, hole }) {
    const controller = new AbortController();
    if (id !== undefined) this.running.set(id, controller);
    this.active += 1;
    Promise.resolve(this.execute(id, request, { id, signal: controller.signal })).then((text) => {
      if (this.running.get(id) === controller) this.running.delete(id);
      this.active -= 1;
      this.finish(id, text, hole);
    });
  }

  finish(id, text, hole) {
    if (this.socket.destroyed) return;
    hole.answer = text;
    if (id !== undefined) this.write(text);
    while (this.unnumbered[0]?.answer !== undefined) this.write(this.unnumbered.shift().answer);
    while (this.later.length > 0 && this.active < this.plan.capacity) this.begin(this.later.shift());
    this.readOn();
    this.closeWhenIdle();
  }

  /** The call itself answers, with its result or with `cancelled`. */
  cancel(id) {
    this.running.get(id)?.abort();
    const at = id === undefined ? -1 : this.later.findIndex((entry) => entry.id === id);
    if (at >= 0) {
      this.later.splice(at, 1);
      this.send(refusal(id, "cancelled", "cancelled before it started"));
    }
  }

  /** Without a capacity the body is all that a handler gets: functions with an optional second parameter abound. */
  invoke(body, context) {
    return context === undefined ? this.plan.handler(body) : this.plan.handler(body, context);
  }

  /** One job: its answer, or a promise of it. */
  runOne(id, body, context) {
    try {
      const result = this.invoke(this.plan.takesList ? [body] : body, context);
      if (typeof result?.then === "function") {
        return result.then((value) => this.oneDone(id, value), (error) => this.oneFailed(id, error, context))
          .catch((error) => this.oneFailed(id, error, context));
      }
      return this.oneDone(id, result);
    } catch (error) {
      return this.oneFailed(id, error, context);
    }
  }

  oneDone(id, value) {
    const result = this.plan.takesList ? asList(value, 1)[0] : value;
    if (this.plan.takesList && result instanceof Error) throw result;
    return withId(id, `"ok":true,"data":{"kind":"result","body":${encode(result)}}}`);
  }

  oneFailed(id, error, context) {
    if (context?.signal.aborted) return refusal(id, "cancelled", "cancelled while it ran");
    this.plan.failures += 1;
    return withId(id, `"ok":false,${JSON.stringify(failure(error)).slice(1)}`);
  }

  /** A call with several bodies: its answer, or a promise of it. */
  runMany(id, bodies, context) {
    if (!this.plan.takesList) return this.runEach(id, bodies, 0, [], {});
    const failAll = (error) => {
      if (context?.signal.aborted) return refusal(id, "cancelled", "cancelled while it ran");
      const reason = failure(error);
      return this.manyDone(id, bodies.map(() => "null"), Object.fromEntries(bodies.map((_, at) => [at, reason])));
    };
    const done = (value) => {
      const failed = {};
      const texts = asList(value, bodies.length).map((result, at) => encodeOrFail(result, at, failed));
      return this.manyDone(id, texts, failed);
    };
    try {
      const results = this.invoke(bodies, context);
      return typeof results?.then === "function" ? results.then(done).catch(failAll) : done(results);
    } catch (error) {
      return failAll(error);
    }
  }

  /** Runs the handler on one body after the other, from `at` on; a promise among the results is waited for. */
  runEach(id, bodies, at, texts, failed) {
    const handler = this.plan.handler;
    for (let index = at; index < bodies.length; index += 1) {
      try {
        const result = handler(bodies[index]);
        if (typeof result?.then === "function") {
          return result.then((value) => texts.push(encodeOrFail(value, index, failed)), (error) => {
            failed[index] = failure(error);
            texts.push("null");
          }).then(() => this.runEach(id, bodies, index + 1, texts, failed));
        }
        texts.push(encode(result));
      } catch (error) {
        failed[index] = failure(error);
        texts.push("null");
      }
    }
    return this.manyDone(id, texts, failed);
  }

  manyDone(id, texts, failed) {
    this.plan.failures += Object.keys(failed).length;
    const bodies = texts.join(",");
    return withId(id, `"ok":true,"data":{"kind":"results","bodies":[${bodies}],"failed":${JSON.stringify(failed)}}}`);
  }
}

function encodeOrFail(result, at, failed) {
  try {
    if (result instanceof Error) throw result;
    return encode(result);
  } catch (error) {
    failed[at] = failure(error);
    return "null";
  }
}

function asList(value, count) {
  if (!Array.isArray(value)) throw new Unfit(`a batch handler must return an array of results, not ${typeName(value)}`);
  if (value.length !== count) {
    throw new Unfit(`the batch handler was given ${count} bodies and returned ${value.length} results`);
  }
  return value;
}

// ---------------------------------------------------------------------------------------------------------------
// Below a pool, or by hand

/** The connection that a pool left at descriptor REMUDA_FD; undefined without one. */
function poolSocket() {
  const text = process.env.REMUDA_FD;
  if (text === undefined) return undefined;
  delete process.env.REMUDA_FD; // what this process starts is no worker
  try {
    // Node opens no child with a descriptor that it wasn't told to pass on, so nothing else can hold this one.
    const socket = new net.Socket({ fd: Number(text), readable: true, writable: true, allowHalfOpen: true });
    process.on("SIGINT", () => {}); // Ctrl-C reaches the whole terminal; the pool says whether jobs may finish
    return socket;
  } catch (error) {
    complain(`REMUDA_FD=${text} is no socket: ${message(error)}`);
    return process.exit(EXIT_CANNOT_SERVE);
  }
}

function listen(address, plan, maxBodyBytes) {
  const file = address.startsWith("unix:") ? address.slice(5) : address;
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    new Session(plan, socket, maxBodyBytes + ENVELOPE_BYTES).run(() => sockets.delete(socket));
  });
  const sockets = new Set();
  const stop = () => server.close(() => process.exit(0));
  plan.onStop = stop;
  process.on("SIGTERM", () => {
    for (const socket of sockets) socket.destroy();
    stop();
  });
  const open = () => {
    const mask = process.umask(0o177);
    server.listen(file);
    process.umask(mask);
  };
  server.on("error", (error) => {
    complain(`can't listen on ${file}: ${error.message}`);
    process.exit(EXIT_CANNOT_SERVE);
  });
  if (!existsSync(file)) {
    open();
    return server;
  }
  const probe = net.connect(file, () => {
    complain(`${file} is in use by another process; choose another path`);
    process.exit(EXIT_CANNOT_SERVE);
  });
  probe.on("error", () => {
    unlinkSync(file);
    open();
  });
  return server;
}

// ---------------------------------------------------------------------------------------------------------------
// The client

/**
 * A job that has no result, or a pool that can't be reached. `code` is one of the protocol's, or `disconnected` where
 * the connection failed: a job that was under way may then have run. `traceback` is the handler's, if it sent one.
 */
export class RemudaError extends Error {
  constructor(code, text, traceback) {
    super(`${code}: ${text}`);
    this.name = "RemudaError";
    this.code = code;
    this.reason = text;
    this.traceback = traceback;
  }
}

/**
 * A client of the pool at `address`: `unix:/path`, `tcp:host:port`, `tls:host:port` or a path that begins with a slash;
 * without it, REMUDA_ADDR, else default.sock in $XDG_RUNTIME_DIR/remuda or in /tmp/remuda-UID. Options follow after
 * commas: `ca=FILE` (whom to trust, else Node's own list), `name=HOST` (the name in the certificate, else the host),
 * `cert=FILE` and `key=FILE` (what to show, where it is asked for), `token_file=FILE`. `token` (or the file's, or
 * REMUDA_TOKEN) is for listeners that want one; `connectTimeout` bounds connecting and the handshake, in milliseconds (10,000).
 *
 * Rejects with RemudaError, which names all addresses that were tried.
 */
export async function connect(address, { token, connectTimeout = HANDSHAKE_MS } = {}) {
  const client = new Client(address, token, connectTimeout);
  await client.link();
  return client;
}

/** What `connect` gives. Calls travel together on one connection, which is made anew by the next call when lost. */
class Client {
  #address;
  #token;
  #connectTimeout;
  #link; // a promise of the connection
  #closed = false;
  /** What the pool declared in its handshake. */
  peer = {};

  constructor(address, token, connectTimeout) {
    this.#address = address;
    this.#token = token;
    this.#connectTimeout = connectTimeout;
  }

  /** The result of one job. `timeout` is in milliseconds and enforced by the pool; `signal` cancels the job. Rejects with
   * RemudaError, and with RangeError for a timeout that is none. */
  async call(body, { timeout, signal } = {}) {
    let json;
    try {
      json = encode(body);
    } catch (error) {
      throw new RemudaError("bad_request", error.message.replace("result", "body"));
    }
    signal?.throwIfAborted();
    return (await this.#ask("call", `,"body":${json}`, timeout, signal)).body;
  }

  /**
   * Yields the results of `bodies` (any iterable, async ones too) in their order, with up to `window` jobs under way.
   * A failed job throws its RemudaError, and ends the iteration; with `returnErrors` it is yielded in its place.
   */
  async* map(bodies, { window = MAP_WINDOW, returnErrors = false, timeout } = {}) {
    const stop = new AbortController();
    setMaxListeners(0, stop.signal);
    const underWay = [];
    const result = async () => {
      const answer = await underWay.shift();
      if (answer instanceof RemudaError && !returnErrors) throw answer;
      return answer;
    };
    try {
      for await (const body of bodies) {
        underWay.push(this.call(body, { timeout, signal: stop.signal }).catch((error) => error));
        if (underWay.length >= window) yield await result();
      }
      while (underWay.length > 0) yield await result();
    } finally {
      stop.abort();
    }
  }

  /** What the pool says of itself. */
  status() {
    return this.#ask("status", "", HANDSHAKE_MS);
  }

  /** Ends the connection; calls that still wait fail with `disconnected`. */
  async close() {
    this.#closed = true;
    const link = await this.#link?.catch(() => undefined);
    link?.lose("the client was closed");
  }

  async [Symbol.asyncDispose ?? Symbol.for("Symbol.asyncDispose")]() {
    await this.close();
  }

  /** The connection, made when there is none. */
  link() {
    if (this.#closed) return Promise.reject(new RemudaError("disconnected", "this client was closed"));
    this.#link ??= Link.open(this.#address, this.#token, this.#connectTimeout, () => {
      this.#link = undefined;
    }).then((link) => {
      this.peer = link.peer;
      return link;
    }, (error) => {
      this.#link = undefined;
      throw error;
    });
    return this.#link;
  }

  async #ask(op, fields, timeout, signal) {
    const budget = op === "call" ? budgetOf(timeout) : "";
    const link = await this.link();
    const answer = await link.ask(op, fields + budget, timeout, signal);
    if (!answer.ok) throw new RemudaError(answer.code ?? "internal", answer.error ?? "", answer.traceback);
    return answer.data;
  }
}

/** One connection of a client. */
class Link {
  constructor(socket, lost) {
    this.socket = socket;
    this.lost = lost;
    this.waiting = new Map(); // id -> what takes its answer
    this.count = 0;
    this.lines = new Lines();
    this.reason = undefined; // why it is over
  }

  /** Connects and exchanges handshakes within `timeout` milliseconds. */
  static async open(address, token, timeout, lost) {
    const failures = [];
    for (const target of addresses(address)) {
      try {
        const socket = await connectTo(target, timeout);
        const link = new Link(socket, lost);
        await link.greet(token ?? tokenOf(target), timeout, target.name);
        return link;
      } catch (error) {
        if (error instanceof RemudaError) throw error;
        failures.push(`${target.name} (${error.code ?? error.message})`);
      }
    }
    throw new RemudaError("disconnected",
      `no pool answers at ${failures.join(" or ")}; start one with \`remuda serve\``);
  }

  greet(token, timeout, name) {
    const { socket } = this;
    return new Promise((resolve, reject) => {
      const fail = (text) => {
        clearTimeout(timer);
        socket.destroy();
        reject(text instanceof RemudaError ? text : new RemudaError("disconnected", text));
      };
      const timer = setTimeout(() => fail(`${name} accepted, and didn't answer the handshake in time`), timeout);
      this.waiting.set(undefined, {
        resolve: (answer) => {
          clearTimeout(timer);
          this.waiting.delete(undefined);
          if (!answer.ok) fail(new RemudaError(answer.code ?? "internal", answer.error ?? "the handshake was refused"));
          else if (answer.data?.version !== PROTOCOL_VERSION) {
            fail(`${name} speaks version ${answer.data?.version} of the protocol, this client version ${PROTOCOL_VERSION}`);
          } else {
            this.peer = answer.data;
            resolve();
          }
        },
        reject: (error) => fail(error.reason.startsWith("not JSON") ? `${name} does not speak Remuda's protocol`
          : `${name} closed the connection in the handshake`),
      });
      socket.on("data", (chunk) => this.received(chunk));
      socket.on("error", (error) => this.lose(error.message));
      socket.on("close", () => this.lose("the pool closed the connection"));
      socket.write(`{"op":"handshake","version":"${PROTOCOL_VERSION}"${
        token === undefined ? "" : `,"token":${JSON.stringify(token)}`}}\n`);
    });
  }

  received(chunk) {
    const lines = [];
    try {
      this.lines.feed(chunk, lines);
      for (const line of lines) {
        const answer = JSON.parse(line.toString("utf8"));
        const waiter = this.waiting.get(answer.id);
        if (waiter) waiter.resolve(answer);
        else if (answer.id === undefined && !answer.ok) this.lose(`${answer.code}: ${answer.error}`);
      }
    } catch (error) {
      this.lose(`not JSON: ${message(error)}`);
    }
  }

  ask(op, fields, timeout, signal) {
    if (this.reason !== undefined) return Promise.reject(new RemudaError("disconnected", this.reason));
    this.count += 1;
    const id = this.count;
    return new Promise((resolve, reject) => {
      const settle = (act) => (value) => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", aborted);
        this.waiting.delete(id);
        act(value);
      };
      const giveUp = (error) => {
        if (op === "call") this.socket.write(`{"op":"cancel","id":${id}}\n`);
        waiter.reject(error);
      };
      const aborted = () => giveUp(signal.reason);
      const waiter = { resolve: settle(resolve), reject: settle(reject) };
      const timer = timeout == null ? undefined : setTimeout(
        () => giveUp(new RemudaError("timeout", `no answer within ${timeout} ms`)),
        Math.min(timeout + CANCEL_MS, TIMER_MS_MAX));
      signal?.addEventListener("abort", aborted);
      this.waiting.set(id, waiter);
      this.socket.write(`{"op":"${op}","id":${id}${fields}}\n`);
    });
  }

  /** Ends it; whoever waits finds out. */
  lose(reason) {
    if (this.reason !== undefined) return;
    this.reason = reason;
    this.lost();
    this.socket.destroy();
    for (const waiter of [...this.waiting.values()]) waiter.reject(new RemudaError("disconnected", reason));
  }
}

/** The field that tells the pool how long a call may take. */
function budgetOf(timeout) {
  if (timeout == null) return "";
  if (!(timeout >= 0 && timeout < Infinity)) {
    throw new RangeError(`timeout is ${timeout}: give milliseconds, 0 or more, or none for as long as it takes`);
  }
  return `,"timeout_ms":${Math.max(1, Math.ceil(timeout))}`;
}

/** What to try, in order. */
function addresses(given) {
  const address = given ?? process.env.REMUDA_ADDR;
  if (!address) {
    const folders = process.env.XDG_RUNTIME_DIR ? [path.join(process.env.XDG_RUNTIME_DIR, "remuda")] : [];
    folders.push(ownFolder());
    return folders.map((folder) => unixAddress(path.join(folder, "default.sock")));
  }
  const [plain, ...words] = address.split(",");
  if (plain.startsWith("/")) return [unixAddress(plain)];
  if (/^unix:./.test(plain)) return [unixAddress(plain.slice(5))];
  const remote = /^(tcp|tls):\[?(.+?)\]?:(\d+)$/.exec(plain);
  if (remote) {
    const [, kind, host, port] = remote;
    const given = Object.fromEntries(words.map((word) => word.split(/=(.*)/s, 2)));
    const target = { name: plain, given, options: { host, port: Number(port), noDelay: true } };
    return [kind === "tls" ? { ...target, tls: true, options: { ...target.options, ...tlsOptions(plain, host, given) } }
      : target];
  }
  throw new RemudaError("bad_request",
    `${address} is no address for this client: use unix:/path, tcp:host:port or tls:host:port`);
}

/** What TLS needs of an address's options; the files are read each time. */
function tlsOptions(name, host, { ca, cert, key, name: servername = host }) {
  const read = (file) => (file === undefined ? undefined : readFor(name, file));
  // An IP address is no name for the extension that says which host is meant, but is checked all the same.
  const sent = net.isIP(servername) ? {} : { servername };
  return { ca: read(ca), cert: read(cert), key: read(key), ...sent,
    checkServerIdentity: (_, certificate) => tls.checkServerIdentity(servername, certificate) };
}

const readFor = (name, file) => {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new RemudaError("bad_request", `${name}: ${file} can't be read: ${error.code ?? error.message}`);
  }
};

/** The token of an address's `token_file=`, else the environment's. */
function tokenOf({ name, given }) {
  if (given?.token_file !== undefined) return readFor(name, given.token_file).split("\n", 1)[0].trim();
  return process.env.REMUDA_TOKEN || undefined;
}

const ownFolder = () => `/tmp/remuda-${process.getuid?.() ?? 0}`;
const unixAddress = (file) => ({ name: `unix:${file}`, file, options: { path: file } });

function connectTo(target, timeout) {
  if (target.file === path.join(ownFolder(), "default.sock") && existsSync(ownFolder())) {
    const owner = statSync(ownFolder()).uid; // anyone may make a folder in /tmp
    if (owner !== 0 && owner !== process.getuid()) throw new Error(`its folder belongs to uid ${owner}`);
  }
  return new Promise((resolve, reject) => {
    const socket = target.tls ? tls.connect(target.options) : net.connect(target.options);
    const timer = setTimeout(() => socket.destroy(new Error("no answer in time")), timeout);
    socket.once("error", reject).once("close", () => clearTimeout(timer)).once(target.tls ? "secureConnect" : "connect", () => {
      clearTimeout(timer);
      socket.off("error", reject);
      // Notices a pool on TCP whose machine or network is gone, which says no goodbye.
      socket.setKeepAlive(true, 20_000);
      resolve(socket);
    });
  });
}

// ---------------------------------------------------------------------------------------------------------------
// The shim: node remuda.mjs --shim FILE.mjs:FUNCTION, which is what `remuda map --node` runs

/** A function that couldn't be had; says what to do. */
class CannotLoad extends Error {}

/** Loads the function that `spec` names and serves it; the pool hears of a failure instead of a handshake. */
async function shim(spec) {
  const socket = poolSocket();
  try {
    if (!socket) throw new CannotLoad(`no pool started this; run \`remuda map --node ${spec}\``);
    let plan;
    try {
      plan = new Plan(await load(spec), {});
    } catch (error) {
      throw error instanceof TypeError ? new CannotLoad(`${spec}: ${error.message}`) : error;
    }
    new Session(plan, socket).run(() => process.exit(0));
  } catch (error) {
    if (!(error instanceof CannotLoad)) throw error;
    const reason = `cannot run --node ${error.message.split(/\s+/).join(" ")}`;
    complain(reason);
    if (!socket) process.exit(EXIT_CANNOT_SERVE);
    refuseHandshake(socket, reason);
  }
}

function refuseHandshake(socket, reason) {
  const leave = () => process.exit(EXIT_CANNOT_SERVE);
  setTimeout(leave, HANDSHAKE_MS);
  socket.on("error", leave).on("close", leave);
  socket.on("end", leave);
  socket.once("data", () => socket.end(refusal(undefined, "internal", reason), leave));
}

/** The function that FILE.mjs:FUNCTION or package:function names. Throws CannotLoad. */
async function load(spec) {
  const colon = spec.lastIndexOf(":");
  const [place, name] = [spec.slice(0, Math.max(colon, 0)), spec.slice(colon + 1)];
  if (!place || !name) throw new CannotLoad(`${spec}: name the function too, as FILE.mjs:FUNCTION`);
  const isFile = /\.[cm]?[jt]s$/.test(place) || place.includes("/");
  const file = path.resolve(place);
  if (isFile && !(existsSync(file) && statSync(file).isFile())) {
    throw new CannotLoad(`${spec}: there is no file ${file}`);
  }
  let module;
  process.argv = [process.argv[0], file];
  try {
    const { createRequire } = await import("node:module");
    const found = isFile ? file : createRequire(path.join(process.cwd(), "index.js")).resolve(place);
    module = await import(path.isAbsolute(found) ? pathToFileURL(found).href : found);
  } catch (error) {
    throw new CannotLoad(`${spec}: ${await whyNotLoaded(error, file)}`);
  }
  return findFunction(spec, module, name);
}

/** One line for what loading threw; the stack goes to the log, where it says more than the line. */
async function whyNotLoaded(error, file) {
  if (error instanceof SyntaxError) {
    const { spawnSync } = await import("node:child_process");
    const shown = spawnSync(process.execPath, ["--check", file], { encoding: "utf8" }).stderr ?? "";
    const line = /^(.*):(\d+)$/m.exec(shown);
    const where = line ? `${path.relative("", line[1])}, line ${line[2]}: ` : "";
    return `${where}SyntaxError: ${error.message}${where ? "; correct that line" : ""}`;
  }
  if (error?.code === "ERR_MODULE_NOT_FOUND" || error?.code === "MODULE_NOT_FOUND") {
    const [first] = error.message.split("\n");
    return `${first}; install it where that file can find it (npm install)`;
  }
  writeSync(2, `${error?.stack ?? error}\n`);
  return `${error instanceof Error ? error.name : "thrown"}: ${message(error)} while it was loaded; the stack is in the log`;
}

function findFunction(spec, module, name) {
  let found = module;
  for (const part of name.split(".")) {
    found = found === module ? module[part] ?? module.default?.[part] : found?.[part];
  }
  if (name === "default") found = module.default;
  if (found === undefined) {
    const functions = Object.keys({ ...module.default, ...module }).filter((key) =>
      typeof (module[key] ?? module.default?.[key]) === "function" && key !== "default");
    const known = functions.length > 0 ? `; it exports ${functions.slice(0, 10).join(", ")}` : "; export it";
    throw new CannotLoad(`${spec}: there is no exported function ${name}${known}`);
  }
  if (typeof found !== "function") throw new CannotLoad(`${spec}: ${name} is of type ${typeName(found)}, not a function`);
  return found;
}

function realPath(file) {
  return existsSync(file) ? realpathSync(file) : file;
}

const evaluated = /\[eval\d*\]$/.test(ownUrl);
const started = evaluated || (process.argv[1] && realPath(process.argv[1]) === realPath(fileURLToPath(ownUrl)));
if (started) {
  const own = process.argv.slice(evaluated ? 1 : 2);
  if (own[0] === "--shim" && own.length === 2) {
    await shim(own[1]);
  } else {
    complain("usage: remuda map --node FILE.mjs:FUNCTION (which runs this file with --shim FILE.mjs:FUNCTION)");
    process.exit(EXIT_CANNOT_SERVE);
  }
}
