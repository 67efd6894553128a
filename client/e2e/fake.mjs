#!/usr/bin/env node
// A stand-in for the server on top of ws: as much of the WebSocket contract as
// run.mjs checks, with the same command line, so that the client and its checks can be tried
// without the server. It promises nothing about the server itself.

import { createServer } from "node:http";
import { randomBytes } from "node:crypto";
import { parseArgs } from "node:util";
import { WebSocketServer } from "ws";

const { values } = parseArgs({
  allowPositionals: true,
  options: {
    listen: { type: "string", default: "127.0.0.1:8080" }, "admin-listen": { type: "string" },
    echo: { type: "boolean" }, "heartbeat-mode": { type: "string", default: "ping" },
    "heartbeat-interval": { type: "string", default: "25s" }, "heartbeat-timeout": { type: "string", default: "75s" },
    "allowed-origins": { type: "string", multiple: true }, "stats-interval": { type: "string" },
  },
});
const ms = (text) => Math.round(parseFloat(text) * (text.endsWith("ms") ? 1 : 1000));
const interval = ms(values["heartbeat-interval"]);
const timeout = ms(values["heartbeat-timeout"]);
const [host, port] = values.listen.split(/:(?=\d+$)/);

const http = createServer((request, response) => {
  response.writeHead(["/healthz", "/readyz"].includes(request.url) ? 200 : 404).end();
});
const server = new WebSocketServer({ server: http, path: "/ws" });

server.on("connection", (socket, request) => {
  const query = new URL(request.url, "ws://x").searchParams;
  const mode = query.get("heartbeat") ?? values["heartbeat-mode"];
  let heard = Date.now();
  let quietSince = heard;
  socket.on("error", () => {});
  socket.on("ping", () => { heard = Date.now(); });
  socket.on("pong", () => { heard = Date.now(); });
  socket.on("message", (data, binary) => {
    heard = Date.now();
    if (!binary && protocol(socket, data)) return;
    if (values.echo) socket.send(data, { binary });
  });
  if (query.get("heartbeat") === "text") {
    socket.send(JSON.stringify({ type: "hello", id: randomBytes(8).toString("hex"), interval_ms: interval, timeout_ms: timeout, node: "fake" }));
  }
  const timer = setInterval(() => {
    const time = Date.now();
    if (time - heard >= timeout) {
      socket.close(4408, "heartbeat-timeout");
      clearInterval(timer);
    } else if (mode !== "none" && time - Math.max(heard, quietSince) >= interval) {
      quietSince = time;
      if (mode === "ping") socket.ping();
      else socket.send('{"type":"heartbeat"}');
    }
  }, 20);
  socket.on("close", () => clearInterval(timer));
});

function protocol(socket, data) {
  if (data.length > 512) return false;
  let message;
  try { message = JSON.parse(data); } catch { return false; }
  if (message?.type === "heartbeat_ack") return true;
  if (message?.type !== "heartbeat") return false;
  socket.send(JSON.stringify({ type: "heartbeat_ack", ts: message.ts }));
  return true;
}

process.on("SIGTERM", () => {
  for (const socket of server.clients) socket.close(1012, "restart; retry-after=1");
  server.close();
  http.close(() => process.exit(0));
  http.closeIdleConnections();
});
http.listen(Number(port), host);
