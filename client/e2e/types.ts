// What pulsewheel.d.ts promises, for the compiler alone: e2e_test.go runs
// `tsc --noEmit` over it. A line below @ts-expect-error must not compile.

import { PulsewheelClient, type PulsewheelClose, type PulsewheelOptions, type PulsewheelState } from "../pulsewheel.js";

class Socket {
  constructor(public url: string, public protocols?: string | string[]) {}
}

const options: PulsewheelOptions = {
  heartbeatInterval: 5000,
  heartbeatMode: null,
  WebSocket: Socket,
  getToken: async ({ refused }) => (refused ? "new" : undefined),
};
const client = new PulsewheelClient(new URL("wss://server.example/ws"), options);
new PulsewheelClient("ws://server.example/ws", { WebSocket }); // the browser's own class
new PulsewheelClient("ws://server.example/ws", { getToken: () => "at once" });

const state: PulsewheelState = client.state;
const off: () => void = client.on("close", (end: PulsewheelClose) => { const wait: number | undefined = end.delay; void wait; });
client.on("message", ({ data }) => { const text: string = typeof data === "string" ? data : new TextDecoder().decode(data); void text; });
client.on("ack", ({ rtt }) => { if (rtt !== undefined) rtt.toFixed(); });
client.on("hello", (hello) => {
  const node: string = hello.node;
  // @ts-expect-error: what the server granted isn't the page's to change
  hello.interval_ms = 1;
  void node;
});
const sent: boolean = client.send(new Uint8Array(3)) || client.send(new Blob([]));
client.close(4000, "enough");
void [state, off, sent, client.hello?.timeout_ms, client.timers.includes("beat")];

// @ts-expect-error: no such mode
new PulsewheelClient("ws://server.example/ws", { heartbeatMode: "loud" });
// @ts-expect-error: no such option
new PulsewheelClient("ws://server.example/ws", { heartbeatIntervall: 1 });
// @ts-expect-error: no such event
client.on("opened", () => {});
// @ts-expect-error: an answer to a beat carries no code
client.on("ack", ({ code }) => code);
// @ts-expect-error: objects are the caller's to encode
client.send({ type: "chat" });
// @ts-expect-error: the state is the client's
client.state = "open";
// @ts-expect-error: a token is text
new PulsewheelClient("ws://server.example/ws", { getToken: async () => 42 });
// @ts-expect-error: a rtt may be unknown
client.rtt.toFixed();
