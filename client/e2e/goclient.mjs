#!/usr/bin/env node
// End to end: the Go client of examples/goclient against the server.
//
//   node goclient.mjs BINARY GOCLIENT
//
// Exit 0 when all checks hold, 1 when not, 2 for a wrong call. About 25 seconds.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { resolve } from "node:path";
import { Server, check, conclude, failures, freePort, pause, until } from "./harness.mjs";

const TIMEOUT_MS = 6_000;
const SILENCE_MS = 5_000;

class Program {
  constructor(binary, url, interval) {
    this.log = "";
    this.child = spawn(binary, ["-target", url, "-interval", interval, "-silence", `${SILENCE_MS}ms`], { stdio: ["ignore", "ignore", "pipe"] });
    this.child.stderr.setEncoding("utf8").on("data", (text) => { this.log += text; });
    this.exit = once(this.child, "exit");
  }

  said(text) { return this.log.split(text).length - 1; }
  get runs() { return this.child.exitCode === null; }
}

async function main() {
  const [binary, goclient] = process.argv.slice(2).map((path) => resolve(path));
  if (!goclient) {
    console.error("usage: node goclient.mjs BINARY GOCLIENT");
    return 2;
  }
  const server = new Server(binary, await freePort(), await freePort(), ["--heartbeat-interval", "2s", "--heartbeat-timeout", `${TIMEOUT_MS}ms`]);
  const programs = [];
  try {
    await server.start();
    const [answers, beats] = [new Program(goclient, server.url, "0s"), new Program(goclient, server.url, "1s")];
    programs.push(answers, beats);
    await pause(2 * TIMEOUT_MS + 1000);
    check("Go client without beats of its own: answers the server's and lives past two timeouts", answers.runs && answers.said("server beats") >= 4, `${answers.said("server beats")} answered`);
    check("Go client with beats of its own: each is acknowledged", beats.runs && beats.said("acknowledged") >= 10, `${beats.said("acknowledged")} acknowledged`);
    check("Go client: hello comes first", /^[^\n]*hello[^\n]*interval_ms/.test(beats.log), beats.log.split("\n")[0]);
    server.freeze();
    const from = performance.now();
    const noticed = await until(() => !answers.runs && !beats.runs, SILENCE_MS + 3000);
    check("Go client: a frozen server is noticed", noticed && answers.child.exitCode === 1 && beats.child.exitCode === 1, `${Math.round(performance.now() - from)} ms`);
  } finally {
    for (const { child } of programs) child.kill("SIGKILL");
    await server.end();
    if (failures()) console.error(programs.map(({ log }) => log).join("----\n"));
  }
  return conclude();
}

process.exitCode = await main();
