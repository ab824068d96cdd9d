// The client on the test vectors of docs/vectors.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { Exchange, Gateway, profileNames, fromHex } from "../dist/dsapp.js";

const folder = new URL("../../../docs/vectors/", import.meta.url);
const files = readdirSync(folder).filter((name) => name.endsWith(".json"));
const number = (digits) => BigInt(`0x${digits}`);

test("every profile of the vectors is known, and no other", () => {
  assert.deepEqual(files.map((name) => name.replace(".json", "")).sort(), [...profileNames].sort());
});

for (const file of files) {
  const { profile, group, vectors } = JSON.parse(readFileSync(new URL(file, folder), "utf8"));
  for (const v of vectors) {
    test(`${profile}: ${v.name}`, async () => assert.equal(await play(profile, group, v), v.expect));
  }
}

// play plays a vector and returns what happens. The values that the client computes on the way must
// be those of the vector.
async function play(profile, group, v) {
  const seen = {};
  const { identifier, password, a } = v.inputs;
  const options = { profile, privateValue: fromHex(a), inspect: (name, value) => (seen[name] = value) };
  const exchange = new Exchange(identifier, v.typed?.password ?? password, options);
  const [first, second] = v.calls;
  assert.equal(number(exchange.publicValue), number(first.request.clientEphemeralPublicKey));
  assert.equal(exchange.publicValue.length, group.N.length);
  try {
    const M1 = await exchange.prove(first.answer.result.salt, first.answer.result.serverEphemeralPublicKey);
    if (v.values) assert.equal(M1.length, v.values.M1.length);
    const want = { ...v.values, ...v.typed };
    for (const name of ["A", "B", "u", "x", "S", "K", "M1"]) assert.equal(seen[name], want[name], name);
    if (!v.typed) assert.equal(seen.innerHash, want.innerHash);
    if (second.answer.result === undefined) {
      assert.ok(v.typed || number(M1) !== number(second.request.clientEvidenceMessage));
      return "clientEvidenceRefused";
    }
    assert.equal(number(M1), number(second.request.clientEvidenceMessage));
    const session = await exchange.confirm(second.answer.result.serverEvidenceMessage);
    assert.equal(seen.M2, v.values.M2);
    for (const i of v.sealing.items) {
      const members = v.licenseType === "mdl" ? second.answer.result : second.answer.result.standard[i.item];
      const text = await session.open(i.item, { ...members, data: members.data ?? members.encryptedLicenseActivationMessage });
      assert.equal(text, i.plaintext);
      assert.equal(seen[`${i.item} macKey`], i.macKey);
      assert.equal(seen[`${i.item} encryptionKey`], i.encryptionKey);
    }
    session.clear();
    return "success";
  } catch (e) {
    if (e.kind !== "verification") throw e;
    return { serverEphemeralPublicKey: "serverPublicRefused", serverEvidenceMessage: "serverEvidenceRefused", activationData: "dataRefused" }[e.value];
  }
}

// The same through Gateway, with a transport that answers as the vector does. The private value is
// that of the vector because the source of random bytes is.
test("Gateway reads the answers of the vectors", async () => {
  const { profile, vectors } = JSON.parse(readFileSync(new URL(files[0], folder), "utf8"));
  for (const v of vectors) {
    const calls = [];
    const gateway = new Gateway({
      baseURL: "https://gateway.example.com/",
      apiKey: "key",
      profile,
      crypto: { subtle: crypto.subtle, getRandomValues: (b) => (b.set(fromHex(v.inputs.a)), b) },
      fetch: async (url, init) => {
        const call = v.calls[calls.length];
        assert.equal(url, `https://gateway.example.com/rest/v2/provisioning/${call.service}`);
        assert.equal(init.headers.Authorization, "Basic a2V5Og==");
        calls.push(JSON.parse(init.body));
        return new Response(JSON.stringify(call.answer));
      },
    });
    const result = await gateway.exchange(v.inputs.identifier, v.typed?.password ?? v.inputs.password).catch((e) => e);
    const items = Object.fromEntries((v.sealing?.items ?? []).map((i) => [i.item, i.plaintext]));
    switch (v.expect) {
      case "success":
        assert.equal(result.licenseType, v.licenseType, v.name);
        if (v.licenseType === "mdl") assert.equal(result.activationMessage, items.licenseActivationMessage);
        else {
          assert.equal(result.activationCode, items.activationCode);
          assert.equal(result.eventReactivationCounter, items.eventReactivationCounter);
        }
        break;
      case "clientEvidenceRefused":
        assert.equal(result.kind, "refused", v.name);
        assert.equal(result.resultCodes.statusCode, 1000);
        break;
      default:
        assert.equal(result.kind, "verification", v.name);
        assert.equal(calls.length, v.calls.length);
    }
  }
});
