// What becomes of a call whose answer is lost. A proxy in front of a server cuts answers.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { connect, createServer as createProxy } from "node:net";
import { after, before, test } from "node:test";
import { Gateway } from "../dist/dsapp.js";

const codes = { returnCodeEnum: "RET_SUCCESS", statusCodeEnum: "STAT_SUCCESS", returnCode: 0, statusCode: 0 };
const activated = { userID: "jane.doe", domain: "mydomain.com", serialNumber: "VDS1000000" };

let server;
let proxy;
let requests = [];
/** What happens to the next answers: "cut", or an HTTP status; others are complete. */
let fates = [];
/** After how many bytes the answer under way is cut. */
let cutAfter = Infinity;

before(async () => {
  server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    requests.push({ path: request.url, body });
    const fate = fates.shift();
    // Before the first byte of the answer, or within it.
    cutAfter = fate === "cut" ? (requests.length % 2) * 40 : Infinity;
    const status = typeof fate === "number" ? fate : 200;
    response.writeHead(status, { "Content-Type": "application/json" });
    response.end(JSON.stringify(status === 200 ? { resultCodes: codes, result: { ...activated, instanceActivationMessage: "AA" } } : {}));
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  proxy = createProxy((client) => {
    const upstream = connect(server.address().port, "127.0.0.1");
    client.pipe(upstream);
    client.on("error", () => upstream.destroy());
    upstream.on("error", () => client.destroy());
    upstream.on("data", (chunk) => {
      client.write(chunk.subarray(0, cutAfter), () => cutAfter < Infinity && client.resetAndDestroy());
    });
    upstream.on("end", () => client.end());
  });
  await new Promise((done) => proxy.listen(0, "127.0.0.1", done));
});

after(() => {
  proxy.close();
  server.closeAllConnections();
  server.close();
});

const gateway = (more = {}) => new Gateway({ baseURL: `http://127.0.0.1:${proxy.address().port}`, apiKey: "key", ...more });

/** Makes a call and returns its error, if any, with the requests that arrived. */
async function lose(lost, call, more) {
  [requests, fates] = [[], [...lost]];
  const error = await call(gateway(more)).then(() => undefined, (e) => e);
  return { error, requests };
}

test("a call whose answer is lost is repeated up to three times, with the same members", async () => {
  for (const [path, call] of Object.entries({
    MdlAddDevice: (g) => g.addDevice("e3wfISG9", "123", "Jane's phone"),
    MdlActivate: (g) => g.activate("e3wfISG9", "1"),
    DSAPPSRPActivate: (g) => g.activateStandard("e3wfISG9", { response: "1" }),
    getPreparedSignatureRequest: (g) => g.call("/rest/v2/signature/scan/getPreparedSignatureRequest", { serialNumber: "VDS1000000-1", requestKey: "1" }),
    authUser: (g) => g.call("/rest/v2/authentication/push/authUser", { userID: "jane.doe", challengeKey: "1", signature: "1" }),
    cancelAuthUser: (g) => g.call("/rest/v2/authentication/push/cancelAuthUser", { serialNumber: "VDS1000000-1", challengeKey: "00" }),
  })) {
    const { error, requests } = await lose(["cut", 502], call);
    assert.equal(error, undefined, path);
    assert.equal(requests.length, 3, path);
    for (const r of requests) {
      assert.ok(r.path.endsWith(path));
      assert.equal(r.body, requests[0].body);
    }
  }
});

test("after three repeats the outcome is unknown", async () => {
  const { error, requests } = await lose(["cut", 504, 502, "cut"], (g) => g.activate("e3wfISG9", "1"));
  assert.equal(error?.kind, "unknownOutcome");
  assert.equal(requests.length, 4);
});

test("a repeat after 503 waits as long as the gateway says", async () => {
  const began = Date.now();
  const { error, requests } = await lose([503], (g) => g.activate("e3wfISG9", "1"));
  assert.equal(error, undefined);
  assert.equal(requests.length, 2);
  assert.ok(Date.now() - began >= 999);
});

test("other calls and other failures are not repeated, and none if repeats are switched off", async () => {
  for (const [lost, call, more] of [
    [["cut"], (g) => g.call("/rest/v2/authentication/authUser", { userID: "jane.doe", password: "123456" })],
    [["cut"], (g) => g.call("/rest/v2/notification/push/updateNotificationID", { userID: "jane.doe" })],
    [[500], (g) => g.activate("e3wfISG9", "1")],
    [[429], (g) => g.activate("e3wfISG9", "1")],
    [["cut"], (g) => g.activate("e3wfISG9", "1"), { repeats: 0 }],
  ]) {
    const { error, requests } = await lose(lost, call, more);
    assert.ok(error, lost);
    assert.equal(requests.length, 1, `${lost} ${call}`);
  }
});

test("an exchange begins anew, at most twice", async () => {
  const { error, requests } = await lose(["cut", 502, "cut"], (g) => g.exchange("e3wfISG9", "Tb048aX1"));
  assert.equal(error?.kind, "unknownOutcome");
  assert.equal(requests.length, 3);
  assert.equal(new Set(requests.map((r) => JSON.parse(r.body).clientEphemeralPublicKey)).size, 3, "a was used twice");
});

test("a signal ends the repeats", async () => {
  const controller = new AbortController();
  const { error, requests } = await lose(["cut", "cut"], (g) => {
    const call = g.activate("e3wfISG9", "1", controller.signal);
    setTimeout(() => controller.abort(), 100);
    return call;
  });
  assert.equal(error?.kind, "unknownOutcome");
  assert.equal(requests.length, 1);
});
