// An echo server with heartbeats on the npm package ws, set up for many connections.
import { parseArgs } from 'node:util';
import { WebSocketServer } from 'ws';

// The grain at which the beats of an interval are spread.
const TICK_MS = 20;
// Bounds a message; the library's own bound is 100 MiB.
const MESSAGE_BYTES_MAX = 1 << 20;

function fail(why) {
  console.error(why);
  process.exit(2);
}

// Understands what Go prints and reads for durations, as far as the benchmarks use it: 0, 500ms, 2s, 1m.
function milliseconds(text) {
  if (text === '0') return 0;
  const match = /^(\d+(?:\.\d+)?)(ms|s|m)$/.exec(text);
  if (!match) fail(`${text} is no duration such as 500ms, 2s or 1m`);
  return Number(match[1]) * { ms: 1, s: 1000, m: 60000 }[match[2]];
}

function options() {
  try {
    return parseArgs({
      options: {
        listen: { type: 'string', default: '127.0.0.1:9001' },
        'heartbeat-interval': { type: 'string', default: '0' },
        'heartbeat-timeout': { type: 'string', default: '0' },
      },
    }).values;
  } catch (error) {
    return fail(error.message);
  }
}

// The documentation's way to find broken connections: one that has not answered by the next ping is ended.
function answered() {
  this.isAlive = true;
}

function beat(socket) {
  if (timeout > 0) {
    if (!socket.isAlive) {
      socket.terminate();
      return;
    }
    socket.isAlive = false;
  }
  socket.ping();
}

const values = options();
const colon = values.listen.lastIndexOf(':');
const interval = milliseconds(values['heartbeat-interval']);
const timeout = milliseconds(values['heartbeat-timeout']);
if (timeout > 0 && timeout !== 2 * interval) fail('--heartbeat-timeout is two intervals, or 0 for never');

// Connections by the tick at which they are pinged. One timer for all, as the documentation does it, but not one burst for
// all; and no set of clients kept by the library beside these.
const turns = Array.from({ length: Math.max(Math.floor(interval / TICK_MS), 1) }, () => new Set());
let opened = 0;

const server = new WebSocketServer({
  host: values.listen.slice(0, colon).replace(/^\[|\]$/g, ''),
  port: Number(values.listen.slice(colon + 1)),
  path: '/ws',
  backlog: 65535, // Node's default is 511; the kernel lowers it to what it allows
  clientTracking: false,
  perMessageDeflate: false,
  maxPayload: MESSAGE_BYTES_MAX,
});
server.on('error', (error) => fail(error.message));
server.on('connection', (socket) => {
  const turn = turns[opened++ % turns.length];
  turn.add(socket);
  socket.isAlive = true;
  if (timeout > 0) socket.on('pong', answered);
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
  socket.on('close', () => turn.delete(socket));
  socket.on('error', () => {}); // a close follows
});

if (interval > 0) {
  const begun = performance.now();
  let beaten = 0;
  setInterval(() => {
    // By the clock, since a timer of Node's comes late and never catches up.
    for (const due = Math.floor((performance.now() - begun) / TICK_MS); beaten < due; beaten++) {
      turns[beaten % turns.length].forEach(beat);
    }
  }, TICK_MS);
}
