// What hostile clients send: values for every place of a body, bytes that are no JSON, raw sockets, a wire that can be cut.
import { connect, createServer } from "node:net";

const NASTY = ["", "\0", "a\0b", "\ud800", "x".repeat(1 << 20), -1, 1e308, 9007199254740993, null, [], {}, true, "../../etc/passwd", "' OR 1=1 --", "\u202e", "-009999-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2027-01-01T10:00:60Z"];

/** The good body with each place in turn, and the whole, replaced by each of the nasty values. */
export function* spoiled(good) {
  for (const path of places(good)) for (const value of NASTY) yield JSON.stringify(replaced(good, path, value));
}

function* places(value, path = []) {
  yield path;
  if (value && typeof value === "object") for (const key of Object.keys(value)) yield* places(value[key], [...path, key]);
}

function replaced(value, [key, ...rest], by) {
  if (key === undefined) return by;
  const copy = Array.isArray(value) ? [...value] : { ...value };
  copy[key] = replaced(value[key], rest, by);
  return copy;
}

/** Bodies that are not the JSON they claim to be, or too much of it. */
export const GARBAGE = ["", "{", "[".repeat(100_000), '{"a":'.repeat(5000), "null", '"x"', "1e999999", Buffer.from([0xff, 0xfe, 0x7b]), '{"a":1,"a":2}', Buffer.alloc(3 << 20, 0x20)];

/** Sends bytes to a port and answers what came back until the server closed, or for as long as `patience`. */
export function raw(port, bytes, { end = false, patience = 10_000 } = {}) {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    let got = "";
    const done = (how) => {
      clearTimeout(timer);
      socket.destroy();
      resolve({ text: got, closed: how === "closed", status: Number(/^HTTP\/1.1 (\d+)/.exec(got)?.[1]) });
    };
    const timer = setTimeout(() => done("open"), patience);
    socket.on("connect", () => (end ? socket.end(bytes) : socket.write(bytes)));
    socket.on("data", (chunk) => (got += chunk.toString("latin1")));
    socket.on("close", () => done("closed")).on("error", () => {});
  });
}

/** A wire to a port that can be cut without a goodbye. */
export async function wire(port) {
  const sockets = new Set();
  const server = createServer((near) => {
    const far = connect(port, "127.0.0.1");
    for (const [a, b] of [[near, far], [far, near]]) {
      sockets.add(a);
      a.pipe(b);
      a.on("error", () => b.destroy()).on("close", () => (sockets.delete(a), b.destroy()));
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: server.address().port,
    cut: () => sockets.forEach((socket) => socket.resetAndDestroy()),
    close: () => new Promise((resolve) => (sockets.forEach((s) => s.destroy()), server.close(resolve))),
  };
}
