// Drives the live channels with the unmodified npm package `centrifuge` and prints what happens as JSON lines.
//
//   node centrifuge.mjs WS_URL TOKEN CHANNEL
//
// Needs `centrifuge` (5.8) in a `node_modules` at or above this folder, or in the one of the folder `CENTRIFUGE_DIR`; and
// the package `ws` in the same place where Node has no WebSocket of its own (before 22).
//
// Printed, one object a line, always with `event`:
//   connected {client}  connecting {code}  disconnected {code,reason}  error {message}
//   subscribed {channel,recoverable,positioned,wasRecovering,recovered,position}  unsubscribed {code,reason}
//   publication {channel,offset,data}  join/leave {client,user}  reply {id,result}  failed {id,code,message}
//
// Read from standard input, one JSON object a line; `id` comes back with `reply` or `failed`:
//   {"id":1,"do":"rpc","method":"echo","data":{}}   {"do":"history","limit":10,"reverse":false,"since":{..}}
//   {"do":"presence"}  {"do":"presenceStats"}  {"do":"publish","data":{}}  {"do":"subscribe","channel":".."}
//   {"do":"unsubscribe"}  {"do":"drop"} (cuts the transport; the client reconnects and recovers)
//   {"do":"disconnect"}  {"do":"connect"}  {"do":"exit"}      The end of input is `exit`.
import dns from 'node:dns';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { join } from 'node:path';

const [url, token, firstChannel] = process.argv.slice(2);
if (!url || !token || !firstChannel) {
  console.error('usage: node centrifuge.mjs WS_URL TOKEN CHANNEL');
  process.exit(2);
}
const dir = process.env.CENTRIFUGE_DIR;
const require = createRequire(dir ? join(dir, 'package.json') : import.meta.url);
const { Centrifuge } = require('centrifuge');
const Base = globalThis.WebSocket ?? require('ws');

// Names under `.localhost` are this machine (RFC 6761), also where the resolver does not know it.
const { lookup } = dns;
dns.lookup = (host, options, done) => lookup(host.endsWith('.localhost') ? '127.0.0.1' : host, options, done);

// Remembers the socket of the transport, so that `drop` can cut it as a lost network would.
let current = null;
class Recorded extends Base {
  constructor(...args) {
    super(...args);
    current = this;
  }
}

const print = (event, fields = {}) => process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
const client = new Centrifuge(url, { token, websocket: Recorded, minReconnectDelay: 20, maxReconnectDelay: 200 });
client.on('connected', (c) => print('connected', { client: c.client }));
client.on('connecting', (c) => print('connecting', { code: c.code, reason: c.reason }));
client.on('disconnected', (c) => print('disconnected', { code: c.code, reason: c.reason }));
client.on('error', (c) => print('error', { message: c.error?.message, code: c.error?.code }));

const subscriptions = new Map();
function subscribe(channel) {
  const sub = client.newSubscription(channel, { joinLeave: true });
  subscriptions.set(channel, sub);
  sub.on('subscribed', (c) => print('subscribed', {
    channel, recoverable: c.recoverable, positioned: c.positioned, wasRecovering: c.wasRecovering,
    recovered: c.recovered, position: c.streamPosition,
  }));
  sub.on('publication', (c) => print('publication', { channel, offset: c.offset, data: c.data }));
  sub.on('join', (c) => print('join', { channel, client: c.info.client, user: c.info.user, info: c.info.connInfo }));
  sub.on('leave', (c) => print('leave', { channel, client: c.info.client, user: c.info.user }));
  sub.on('unsubscribed', (c) => print('unsubscribed', { channel, code: c.code, reason: c.reason }));
  sub.on('error', (c) => print('error', { channel, message: c.error?.message, code: c.error?.code }));
  sub.subscribe();
}

const actions = {
  rpc: (a) => client.rpc(a.method, a.data ?? null),
  history: (a, sub) => sub.history({ limit: a.limit, reverse: a.reverse, since: a.since }),
  presence: (_, sub) => sub.presence(),
  presenceStats: (_, sub) => sub.presenceStats(),
  publish: (a, sub) => sub.publish(a.data),
  subscribe: (a) => subscribe(a.channel),
  unsubscribe: (_, sub) => sub.unsubscribe(),
  drop: () => (current.terminate ? current.terminate() : current.close()),
  disconnect: () => client.disconnect(),
  connect: () => client.connect(),
  exit: () => process.exit(0),
};

const lines = createInterface({ input: process.stdin });
lines.on('line', async (line) => {
  const ask = JSON.parse(line);
  try {
    const result = await actions[ask.do](ask, subscriptions.get(ask.channel ?? firstChannel));
    print('reply', { id: ask.id, result: result ?? null });
  } catch (e) {
    print('failed', { id: ask.id, code: e?.code, message: e?.message ?? String(e) });
  }
});
lines.on('close', () => process.exit(0));

subscribe(firstChannel);
client.connect();
