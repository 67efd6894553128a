import assert from "node:assert/strict";
import { test } from "node:test";
import { settle, world } from "./fake.js";

test("beats every heartbeatInterval from open on, with a ts", (t) => {
  const w = world(t);
  const client = w.client();
  w.tick(6000);
  assert.deepEqual(client.timers, ["connect"], "no beat before the socket opens");
  w.socket.open();
  w.tick(4999);
  assert.equal(w.socket.beats.length, 0);
  w.tick(1);
  assert.equal(w.socket.beats.length, 1);
  assert.equal(typeof w.socket.beats[0].ts, "number");
  w.socket.ackLast();
  for (let i = 0; i < 9; i++) { w.tick(5000); w.socket.ackLast(); }
  assert.equal(w.socket.beats.length, 10);
  assert.equal(client.counts.acks, 10);
});

test("heartbeatInterval 0 sends none where the server said no hello", (t) => {
  const w = world(t);
  const client = w.opened({ heartbeatInterval: 0 });
  w.tick(600_000);
  assert.deepEqual(w.socket.sent, []);
  assert.deepEqual(client.timers, []);
  assert.equal(client.state, "open");
});

for (const [name, end] of [
  ["close by the server", (w) => w.socket.end(1001, "going-away")],
  ["error", (w) => w.socket.error()],
  ["close()", (w, client) => client.close()],
]) {
  test(`the beat stops on ${name}`, (t) => {
    const w = world(t);
    const client = w.opened();
    const socket = w.socket;
    w.tick(5000);
    assert.deepEqual(client.timers.sort(), ["answer", "beat"]);
    end(w, client);
    assert.ok(!client.timers.includes("beat") && !client.timers.includes("answer"), client.timers.join());
    w.tick(30_000);
    assert.equal(socket.beats.length, 1);
  });
}

test("an acknowledgement measures the round trip, a replayed or foreign one doesn't", (t) => {
  const w = world(t);
  const client = w.opened();
  w.tick(5000);
  w.tick(40);
  w.socket.ackLast();
  assert.equal(client.rtt, 40);
  w.tick(1000);
  w.socket.ackLast();
  w.socket.message({ type: "heartbeat_ack", ts: 1 });
  w.socket.message({ type: "heartbeat_ack" });
  assert.equal(client.rtt, 40);
  assert.deepEqual(client.seen("ack").map((ack) => ack.rtt), [40, undefined, undefined, undefined]);
  assert.equal(client.seen("message").length, 0);
});

test("an acknowledgement of an earlier connection's beat measures nothing", (t) => {
  const w = world(t);
  const client = w.opened();
  w.tick(5000);
  const { ts } = w.socket.beats[0];
  w.socket.end(1006);
  w.tick(500);
  w.socket.open();
  w.socket.message({ type: "heartbeat_ack", ts });
  assert.equal(client.rtt, undefined);
});

test("answers the server's beat, with its ts unchanged", (t) => {
  const w = world(t);
  const client = w.opened();
  const tests = [
    [{ type: "heartbeat" }, { type: "heartbeat_ack" }],
    [{ type: "heartbeat", ts: 12.5 }, { type: "heartbeat_ack", ts: 12.5 }],
    [{ type: "heartbeat", ts: "abc" }, { type: "heartbeat_ack", ts: "abc" }],
    [{ type: "heartbeat", ts: "x".repeat(65) }, { type: "heartbeat_ack" }],
    [{ type: "heartbeat", ts: { deep: 1 } }, { type: "heartbeat_ack" }],
  ];
  for (const [beat, answer] of tests) {
    w.socket.message(beat);
    assert.deepEqual(JSON.parse(w.socket.sent.at(-1)), answer);
  }
  assert.equal(client.counts.serverBeats, tests.length);
  assert.equal(client.seen("message").length, 0);
});

test("a server silent after a beat is given up after ackTimeout", (t) => {
  const w = world(t);
  const client = w.opened({ ackTimeout: 7000 });
  w.tick(5000 + 6999);
  assert.equal(client.state, "open");
  w.tick(1);
  assert.equal(client.state, "waiting");
  assert.equal(client.seen("silent").length, 1);
  assert.equal(client.seen("close")[0].code, 4408);
  assert.deepEqual(w.socket.closedWith, { code: 4408, reason: "heartbeat-timeout" });
  assert.deepEqual(client.timers, ["reconnect"]);
  // The socket given up may end whenever it likes.
  w.socket.end(1006);
  assert.equal(client.seen("close").length, 1);
});

test("any message counts as alive", (t) => {
  const w = world(t);
  const client = w.opened({ ackTimeout: 3000 });
  for (let i = 0; i < 20; i++) { w.tick(5000); w.socket.message("data"); }
  assert.equal(client.state, "open");
});

test("ackTimeout 0 never gives up, and remembers few beats", (t) => {
  const w = world(t);
  const client = w.opened({ ackTimeout: 0 });
  w.tick(500_000);
  assert.equal(client.state, "open");
  assert.equal(w.socket.beats.length, 100);
  w.socket.message({ type: "heartbeat_ack", ts: w.socket.beats[0].ts });
  assert.equal(client.rtt, undefined, "forgotten");
  w.socket.ackLast();
  assert.equal(client.rtt, 0);
});

test("no second beat goes behind an unsent one", (t) => {
  const w = world(t);
  w.opened({ heartbeatInterval: 1000, ackTimeout: 60_000 });
  w.tick(1000);
  w.socket.bufferedAmount = 50;
  w.tick(10_000);
  assert.equal(w.socket.beats.length, 1);
});

test("an upload that still moves is no silence", (t) => {
  const w = world(t);
  const client = w.opened();
  w.socket.bufferedAmount = 900_000;
  w.tick(5000);
  for (let i = 0; i < 5; i++) { w.socket.bufferedAmount -= 100_000; w.tick(10_000); }
  assert.equal(client.state, "open");
  w.tick(10_000);
  assert.equal(client.state, "waiting", "stuck at last");
});

test("the beat's own bytes leaving the buffer are no sign of life", (t) => {
  const w = world(t);
  const client = w.opened();
  const { socket } = w;
  socket.send = (data) => { socket.bufferedAmount += data.length; }; // as browsers do until the task ends
  w.tick(5000);
  socket.bufferedAmount = 0;
  w.tick(10_000);
  assert.equal(client.counts.silences, 1);
});

test("after a freeze of the page the server is asked once more before the verdict", (t) => {
  const w = world(t);
  const client = w.opened();
  w.tick(5000);
  w.skew += 3_600_000; // the laptop slept: the timer fires an hour late
  w.tick(10_000);
  assert.equal(client.state, "open");
  assert.ok(client.timers.includes("answer"));
  w.socket.ackLast();
  assert.equal(client.counts.silences, 0);
  w.tick(20_000);
  assert.equal(client.counts.silences, 1, "the ordinary verdict is back");
});

test("after a freeze a dead server is still found, lateness or not", (t) => {
  const w = world(t);
  const client = w.opened();
  w.tick(5000);
  w.skew += 3_600_000;
  w.tick(10_000);
  w.skew += 50_000; // timers of a hidden tab stay late
  w.tick(10_000);
  assert.equal(client.state, "waiting");
});

test("with its own beats off the client watches those of the server", (t) => {
  const w = world(t);
  const client = w.opened({ heartbeatInterval: 0 });
  w.socket.hello(10_000, 30_000);
  assert.equal(client.hello.interval_ms, 10_000);
  assert.deepEqual(client.timers, ["quiet"]);
  for (let i = 0; i < 12; i++) { w.tick(10_000); w.socket.message({ type: "heartbeat" }); }
  assert.equal(w.socket.beats.length, 0, "nothing was ever missing");
  w.tick(30_000);
  assert.equal(w.socket.beats.length, 1, "one question");
  w.tick(10_000);
  assert.equal(client.state, "waiting");
});

test("hello is the protocol's only as the first message and where it was asked for", (t) => {
  const w = world(t);
  const client = w.opened();
  w.socket.hello(30_000, 90_000);
  w.socket.hello(1, 1);
  assert.equal(client.hello.interval_ms, 30_000);
  assert.equal(client.seen("hello").length, 1);
  assert.equal(client.seen("message").length, 1);
  const plain = w.opened({ heartbeatMode: null });
  w.socket.hello();
  assert.equal(plain.hello, null);
  assert.equal(plain.seen("message").length, 1);
});

test("what only looks like the protocol is an ordinary message", (t) => {
  const w = world(t);
  const client = w.opened();
  const tests = [
    "plain", "", "null", '"type"', '{"type":', '{"type":1}', '["type"]', '{"type":"other"}',
    `{"type":"heartbeat","pad":"${"x".repeat(600)}"}`, '{"x":{"type":"heartbeat"}}',
  ];
  for (const data of tests) w.socket.message(data);
  w.socket.message(new ArrayBuffer(4));
  assert.deepEqual(client.seen("message").slice(0, -1).map((event) => event.data), tests);
  assert.equal(client.seen("message").at(-1).data.byteLength, 4);
  assert.deepEqual(w.socket.sent, []);
});

test("a listener that throws stops neither the others nor the heartbeat", async (t) => {
  const w = world(t);
  const told = [];
  globalThis.reportError = (error) => told.push(error.message);
  t.after(() => { delete globalThis.reportError; });
  const client = w.opened();
  client.on("beat", () => { throw new Error("mine"); });
  let later = 0;
  const off = client.on("beat", () => later++);
  w.tick(5000);
  w.socket.ackLast();
  off();
  w.tick(5000);
  await settle();
  assert.equal(w.socket.beats.length, 2);
  assert.equal(later, 1);
  assert.deepEqual(told, ["mine", "mine"]);
});

test("a heartbeat message is the application's where the server sends none", (t) => {
  const w = world(t);
  const client = w.opened({ heartbeatMode: "ping", heartbeatInterval: 0 });
  const seen = [];
  client.on("message", ({ data }) => seen.push(data));
  w.socket.message('{"type":"heartbeat","bpm":71}');
  w.socket.message('{"type":"heartbeat_ack"}');
  assert.deepEqual(seen, ['{"type":"heartbeat","bpm":71}', '{"type":"heartbeat_ack"}']);
  assert.deepEqual(w.socket.sent, []);
});
