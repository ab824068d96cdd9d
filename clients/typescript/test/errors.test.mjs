// What a caller gets when something goes wrong.

import assert from "node:assert/strict";
import { test } from "node:test";
import { DsappError, Exchange, Gateway, Session, parseActivationImage } from "../dist/dsapp.js";

const codes = (statusCodeEnum, statusCode) => ({ returnCodeEnum: "RET_FAILURE", statusCodeEnum, returnCode: -1, statusCode });
const success = { returnCodeEnum: "RET_SUCCESS", statusCodeEnum: "STAT_SUCCESS", returnCode: 0, statusCode: 0 };

function gateway(answer, more = {}) {
  return new Gateway({ baseURL: "https://gateway.example.com", apiKey: "key", fetch: async (url, init) => answer(init, url), repeats: 0, ...more });
}
const answering = (status, body, headers = {}) =>
  gateway(() => new Response(typeof body === "string" ? body : JSON.stringify(body), { status, headers }));

test("every answer becomes the error of its kind", async () => {
  for (const [status, body, headers, want] of [
    [200, { resultCodes: codes("STAT_INVCREDENTIALS", 1000) }, {}, { kind: "refused", name: "RefusedError" }],
    [200, { resultCodes: codes("STAT_LOCKED", 1012) }, {}, { kind: "locked", name: "LockedError" }],
    [200, {}, {}, { kind: "protocol" }],
    [200, [], {}, { kind: "protocol" }],
    [200, "<html>", {}, { kind: "protocol" }],
    [200, { resultCodes: { ...success, returnCode: -1 } }, {}, { kind: "protocol" }],
    [200, { resultCodes: success, result: [] }, {}, { kind: "protocol" }],
    [200, { resultCodes: success }, {}, { kind: "protocol" }], // no instanceActivationMessage
    [200, { resultCodes: success, result: { instanceActivationMessage: 7 } }, {}, { kind: "protocol" }],
    [400, { errorDescription: "deviceCode is missing" }, {}, { kind: "request", description: "deviceCode is missing" }],
    [404, "not JSON", {}, { kind: "request", httpStatus: 404 }],
    [401, {}, {}, { kind: "unauthorized", httpStatus: 401 }],
    [403, {}, {}, { kind: "unauthorized" }],
    [429, {}, { "Retry-After": "7" }, { kind: "unavailable", retryAfter: 7 }],
    [503, "busy", {}, { kind: "unavailable", retryAfter: 1 }],
    [503, "busy", { "Retry-After": "soon" }, { kind: "unavailable", retryAfter: 1 }],
    [425, {}, {}, { kind: "unavailable" }],
    [500, {}, {}, { kind: "unknownOutcome", httpStatus: 500 }],
    [502, "", {}, { kind: "unknownOutcome" }],
    [504, {}, {}, { kind: "unknownOutcome", call: "MdlAddDevice" }],
  ]) {
    const e = await answering(status, body, headers).addDevice("e3wfISG9", "123").catch((e) => e);
    assert.ok(e instanceof DsappError, `${status} ${JSON.stringify(body)}: ${e}`);
    for (const [name, value] of Object.entries(want)) assert.equal(e[name], value, `${status} ${JSON.stringify(body)}`);
  }
});

test("no answer is an unknown outcome, with its cause", async () => {
  const cause = new TypeError("fetch failed");
  const e = await gateway(() => Promise.reject(cause)).activate("e3wfISG9", "1").catch((e) => e);
  assert.equal(e.kind, "unknownOutcome");
  assert.equal(e.httpStatus, 0);
  assert.equal(e.cause, cause);
});

test("a call ends with its timeout and with the caller's signal", async () => {
  const hanging = ({ signal }) => new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason));
  });
  assert.equal((await gateway(hanging, { timeout: 1 }).activate("e3wfISG9", "1").catch((e) => e)).kind, "unknownOutcome");
  const controller = new AbortController();
  const call = gateway(hanging).activate("e3wfISG9", "1", controller.signal).catch((e) => e);
  controller.abort();
  assert.equal((await call).kind, "unknownOutcome");
  assert.equal((await gateway(hanging).activate("e3wfISG9", "1", AbortSignal.abort()).catch((e) => e)).kind, "unknownOutcome");
});

test("wrong input makes no call", async () => {
  const g = gateway(() => assert.fail("called"));
  for (const [identifier, password] of [["abc", "Tb048aX1"], ["e3w fISG9", "Tb048aX1"], ["e3wfISG9", "abc"], ["e3wfISG9", "Tb048aXé"], ["e3wfISG9", "x".repeat(65)]]) {
    assert.equal((await g.exchange(identifier, password).catch((e) => e)).kind, "input");
  }
  for (const wrong of [{ baseURL: "gateway.example.com" }, { apiKey: "" }, { apiKey: "kéy" }, { apiKey: "a:b" }]) {
    assert.throws(() => gateway(() => assert.fail("called"), wrong), { kind: "input" });
  }
  assert.throws(() => new Exchange("e3wfISG9", "Tb048aX1", { profile: "nonsense" }), { kind: "input" });
  assert.throws(() => new Exchange("e3wfISG9", "Tb048aX1", { crypto: {} }), { kind: "input" });
});

test("an exchange cannot be used twice, and does not confirm before it has proved", async () => {
  const exchange = new Exchange("e3wfISG9", "Tb048aX1");
  await assert.rejects(exchange.confirm("00".repeat(32)), { kind: "input" });
  await assert.rejects(exchange.prove("00", "00"), { kind: "verification", value: "salt" });
  await assert.rejects(exchange.prove("00".repeat(16), "01".repeat(256)), { kind: "input" });
});

test("errors and the objects of an exchange show no secrets", async () => {
  const { inspect } = await import("node:util");
  const exchange = new Exchange("e3wfISG9", "Tb048aX1");
  const session = new Session(new Uint8Array(32).fill(0xab), new Uint8Array(32), crypto, () => undefined);
  const e = await session.open("activationCode", { data: "00", encryptedCounter: "00".repeat(8), mac: "00".repeat(32) }).catch((e) => e);
  assert.equal(e.kind, "verification");
  const shown = inspect([exchange, session, e], { depth: 9 }) + JSON.stringify([exchange, session, e]);
  assert.ok(!shown.includes("Tb048aX1") && !shown.includes("171") && !shown.toLowerCase().includes("abab"), shown);
});

test("an activation image is read", () => {
  const hex = (text) => Buffer.from(text, "utf8").toString("hex");
  assert.deepEqual(parseActivationImage(hex("01;01;jané;;e3wfISG9;Tb048aX1;")), {
    userID: "jané", domain: "", registrationIdentifier: "e3wfISG9", activationPassword: "Tb048aX1", gatewayID: "",
  });
  for (const wrong of ["", "xyz", hex("01;02;a;b;c;d;e"), hex("01;01;a;b;c;d"), "ff"]) assert.throws(() => parseActivationImage(wrong), { kind: "input" });
});
