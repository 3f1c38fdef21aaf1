// Ports for what a test starts.
import { createServer } from "node:net";

const free = (port) =>
  new Promise((resolve) => {
    const probe = createServer().once("error", () => resolve(false));
    probe.listen(port, "127.0.0.1", () => probe.close(() => resolve(true)));
  });

// Below the ports that the system gives to connections, so that none of them sits on a port while its server restarts; and
// processes that run at the same time begin at places of their own.
const [FIRST, MANY, EACH] = [10_000, 20_000, 50];
let taken = 0;

/** A port that nobody listens at, and that this process gives out once. */
export async function freePort() {
  for (let tries = 0; tries < MANY; tries++) {
    const port = FIRST + ((process.pid * EACH + taken++) % MANY);
    if (await free(port)) return port;
  }
  throw new Error("no free port");
}
