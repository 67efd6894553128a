import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { PulsewheelClient } from "../pulsewheel.js";
import { FakeWebSocket, settle, world } from "./fake.js";

test("messages wait for a connection and go out in order, after the server's first word", (t) => {
  const w = world(t);
  const client = w.client();
  assert.ok(client.send("a"));
  assert.ok(client.send("b"));
  w.socket.open();
  assert.ok(client.send("c"), "behind the others");
  assert.deepEqual(w.socket.sent, []);
  w.socket.hello();
  assert.deepEqual(w.socket.sent, ["a", "b", "c"]);
  assert.ok(client.send("d"));
  assert.deepEqual(w.socket.sent, ["a", "b", "c", "d"]);
  assert.equal(client.queued, 0);
});

test("a refusal after the opening loses no waiting message", (t) => {
  const w = world(t);
  const client = w.client();
  client.send("precious");
  w.socket.open();
  w.socket.end(1013, "overload; retry-after=2");
  assert.equal(client.queued, 1);
  w.tick(2500);
  w.socket.open();
  w.socket.hello();
  assert.deepEqual(w.socket.sent, ["precious"]);
});

test("a server without a hello holds the backlog for a second at most", (t) => {
  const w = world(t);
  const client = w.client();
  client.send("a");
  w.socket.open();
  assert.ok(client.timers.includes("hello"));
  w.tick(1000);
  assert.deepEqual(w.socket.sent, ["a"]);
  const other = w.client({ heartbeatMode: "ping" });
  other.send("b");
  w.socket.open();
  assert.deepEqual(w.socket.sent, ["b"], "nothing to wait for");
});

test("the queue is bounded in messages and bytes", (t) => {
  const w = world(t);
  const client = w.client({ queueMax: 3, queueBytesMax: 100 });
  assert.ok(client.send("x".repeat(500)), "an empty queue takes one of any size");
  assert.equal(client.send("y"), false);
  const other = w.client({ queueMax: 3, queueBytesMax: 100 });
  assert.deepEqual([1, 2, 3, 4].map((n) => other.send(`${n}`)), [true, true, true, false]);
  assert.equal(other.counts.refusedSends, 1);
  const third = w.client({ queueBytesMax: 100 });
  assert.deepEqual([60, 60, 40].map((n) => third.send(new Uint8Array(n))), [true, false, true]);
});

test("what has gone out makes room in the queue", (t) => {
  const w = world(t);
  const client = w.client({ queueBytesMax: 100, heartbeatMode: null });
  for (let i = 0; i < 3; i++) {
    assert.ok(client.send("x".repeat(50)) && client.send("y".repeat(50)));
    assert.equal(client.send("z"), false);
    w.socket.open();
    w.socket.end(1006);
    w.tick(4000);
  }
});

test("a socket that doesn't drain takes no more than the bound", (t) => {
  const w = world(t);
  const client = w.opened({ queueBytesMax: 100 });
  w.socket.bufferedAmount = 80;
  assert.equal(client.send("x".repeat(30)), false);
  assert.equal(client.send("x".repeat(20)), true);
});

test("a socket that has begun to close queues instead of swallowing", (t) => {
  const w = world(t);
  const client = w.opened();
  w.socket.readyState = 2;
  assert.ok(client.send("a"));
  assert.equal(client.queued, 1);
  w.tick(5000); // and no beat into it either
  assert.deepEqual(w.socket.sent, []);
});

test("a queued buffer is a copy", (t) => {
  const w = world(t);
  const client = w.client({ heartbeatMode: null });
  const bytes = new Uint8Array([1, 2, 3]).subarray(1);
  client.send(bytes);
  bytes[0] = 9;
  w.socket.open();
  assert.deepEqual([...new Uint8Array(w.socket.sent[0])], [2, 3]);
});

// Every state from which close() can be called; in each it must leave no timer
// at once, and no attempt may follow.
for (const [name, prepare] of [
  ["idle", () => {}],
  ["connecting", (w, client) => client.connect()],
  ["open", (w, client) => { client.connect(); w.socket.open(); w.tick(5000); }],
  ["open with a backlog", (w, client) => { client.send("a"); client.connect(); w.socket.open(); }],
  ["open without own beats", (w, client) => { client.connect(); w.socket.open(); w.socket.hello(); }],
  ["waiting", (w, client) => { client.connect(); w.socket.end(1006); }],
]) {
  test(`close() while ${name} leaves no timer`, (t) => {
    const w = world(t);
    const client = w.client({ autoConnect: false, heartbeatInterval: name.endsWith("own beats") ? 0 : 5000 });
    prepare(w, client);
    client.close(1000, "bye");
    assert.deepEqual(client.timers, []);
    const sockets = w.sockets.length;
    if (client.state === "closing") {
      assert.deepEqual(w.socket.closedWith, { code: 1000, reason: "bye" });
      w.socket.end(1000, "bye");
    }
    w.tick(600_000);
    assert.equal(client.state, "closed");
    assert.equal(w.sockets.length, sockets);
    assert.equal(client.seen("close").at(-1).willReconnect, false);
    assert.equal(client.send("late"), false);
    client.close();
  });
}

test("close() while a token is awaited is followed by no attempt", async (t) => {
  const w = world(t);
  let give;
  const client = w.client({ getToken: () => new Promise((resolve) => { give = resolve; }) });
  await settle();
  client.close();
  assert.equal(client.state, "closed");
  assert.deepEqual(client.timers, []);
  give("late");
  await settle();
  assert.equal(w.sockets.length, 0);
});

test("close() from within every event leaves no timer", (t) => {
  const w = world(t);
  for (const type of ["state", "open", "hello", "message", "beat", "ack", "serverbeat", "silent", "close", "error"]) {
    const client = w.client({ autoConnect: false });
    client.on(type, () => client.close());
    client.send("backlog");
    client.connect();
    const steps = [
      (s) => s.open(), (s) => s.hello(), (s) => s.message("x"), (s) => s.message({ type: "heartbeat" }), () => w.tick(5000),
      (s) => s.ackLast(), () => w.tick(20_000), (s) => s.error(), (s) => s.end(1006), () => w.tick(100_000),
    ];
    for (const step of steps) {
      const socket = w.socket;
      if (socket && socket.readyState === 3) break;
      if (client.state === "closing" && socket) socket.end(1000);
      else if (client.state !== "closed") step(socket);
    }
    assert.equal(client.state, "closed", type);
    assert.deepEqual(client.timers, [], type);
  }
});

test("a client can come back from closed, and from closing", (t) => {
  const w = world(t);
  const client = w.opened();
  const first = w.socket;
  client.close();
  client.connect();
  assert.equal(w.sockets.length, 2);
  first.end(1000);
  assert.equal(client.state, "connecting", "the old socket's end is not ours");
  w.socket.open();
  assert.equal(client.state, "open");
});

test("what can't work is refused at construction", () => {
  const tests = [
    ["not a url", {}], ["ftp://x/", {}], ["ws://x/", { heartbeatIntervall: 1 }], ["ws://x/", { heartbeatInterval: -1 }],
    ["ws://x/", { heartbeatInterval: NaN }], ["ws://x/", { ackTimeout: 2 ** 31 }], ["ws://x/", { heartbeatMode: "TEXT" }],
    ["ws://x/", { getToken: "abc" }], ["ws://x/", { WebSocket: {} }],
  ];
  for (const [url, options] of tests) {
    assert.throws(() => new PulsewheelClient(url, { WebSocket: FakeWebSocket, autoConnect: false, ...options }), TypeError, JSON.stringify(options));
  }
  const client = new PulsewheelClient("ws://x/", { WebSocket: FakeWebSocket, autoConnect: false });
  assert.throws(() => client.close(1001), RangeError);
  assert.throws(() => client.on("open", null), TypeError);
});

// The types are written by hand: whatever the code has, they must name, and the
// other way round.
test("options, events and members agree with pulsewheel.d.ts and README.md", () => {
  const read = (name) => readFileSync(new URL(`../${name}`, import.meta.url), "utf8");
  const [code, types, readme] = ["pulsewheel.js", "pulsewheel.d.ts", "README.md"].map(read);
  const part = (start) => types.slice(types.indexOf(start)).split("\n}")[0];
  const names = (text, pattern) => [...new Set([...text.matchAll(pattern)].map((match) => match[1]))].sort();

  const options = names(code.slice(code.indexOf("const DEFAULTS"), code.indexOf("});")), /^ {2}(\w+):/gm);
  assert.deepEqual(names(part("interface PulsewheelOptions"), /^ {2}(\w+)\?:/gm), options);
  const events = names(code, /#emit\("(\w+)"/g);
  assert.deepEqual(names(part("interface PulsewheelEvents"), /^ {2}(\w+):/gm), events);
  const members = Object.getOwnPropertyNames(PulsewheelClient.prototype).sort();
  assert.deepEqual(names(part("class PulsewheelClient"), /^ {2}(?:readonly )?(\w+)[<(:]/gm), members);
  for (const name of [...options, ...events]) assert.ok(readme.includes(`\`${name}\``), `README.md: ${name}`);
});
