// Requests whose end two readers could see in different places: none of them may be answered twice, and what hides in
// them never.

/** What hides in the others. */
export const hidden = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
const head = (...lines) => `POST /api/identity/sign-in HTTP/1.1\r\nHost: localhost\r\n${lines.join("\r\n")}\r\n\r\n`;

export const attacks = {
  "CL.TE": head("Content-Length: 60", "Transfer-Encoding: chunked") + `0\r\n\r\n${hidden}`,
  "TE.CL": head("Transfer-Encoding: chunked", "Content-Length: 4") + `5c\r\n${hidden}\r\n0\r\n\r\n`,
  "two lengths": head("Content-Length: 0", `Content-Length: ${hidden.length}`) + hidden,
  "a list of lengths": head(`Content-Length: 0, ${hidden.length}`) + hidden,
  "a signed length": head("Content-Length: +0") + hidden,
  "a length that is no number": head("Content-Length: 0x0") + hidden,
  "a negative length": head("Content-Length: -1") + hidden,
  "a length beyond numbers": head("Content-Length: 18446744073709551616") + hidden,
  "a space before the colon": head("Content-Length : 0") + hidden,
  "a folded line": head("Transfer-Encoding:", " chunked") + `0\r\n\r\n${hidden}`,
  "an unknown coding": head("Transfer-Encoding: xchunked") + `0\r\n\r\n${hidden}`,
  "chunked and then another": head("Transfer-Encoding: chunked, identity") + `0\r\n\r\n${hidden}`,
  "a bare CR in a header": `GET /healthz HTTP/1.1\r\nHost: localhost\rX: y\r\n\r\n${hidden}`,
  "NUL in a header": `GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n${hidden}`,
  "a chunk's size that is none": head("Transfer-Encoding: chunked") + `zz\r\n${hidden}`,
  "a chunk's size beyond numbers": head("Transfer-Encoding: chunked") + `ffffffffffffffffff\r\n${hidden}`,
  "a bare LF in a chunk's extension": head("Transfer-Encoding: chunked") + `0;x\n\r\n${hidden}`,
  "a bare LF behind a chunk's size": head("Transfer-Encoding: chunked") + `0\n\n${hidden}`,
  "a length behind a bare LF": head(`X: y\nContent-Length: ${hidden.length}`) + hidden,
  "an endless chunk extension": head("Transfer-Encoding: chunked") + `0;${"x".repeat(70_000)}\r\n\r\n${hidden}`,
  "a chunk without its end": head("Transfer-Encoding: chunked") + `1\r\nab\r\n0\r\n\r\n${hidden}`,
};

/** Sends bytes and answers every status that came back until the server closed, or until nothing more comes. */
export function wire(open, bytes) {
  return new Promise((resolve) => {
    const socket = open();
    let got = "";
    const done = (closed) => (socket.destroy(), resolve({ statuses: [...got.matchAll(/HTTP\/1\.1 (\d+)/g)].map((m) => Number(m[1])), closed, got }));
    socket.setTimeout(3_000, () => done(false));
    socket.on("data", (chunk) => (got += chunk.toString("latin1"))).on("close", () => done(true)).on("error", () => {});
    socket.write(bytes);
  });
}
