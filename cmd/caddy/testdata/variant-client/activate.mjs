// A phone for any variant of the exchange, with nothing but Node's standard library and the formulas
// that were written from docs/protocol.md. It shares no code with the gateway.
//
// It reads jobs from the standard input, a JSON object in each line: the variant with all options,
// identifier and password of a registration of a multi-device licence, and url, which is GATEWAY_URL
// if it is missing. It answers each with a line: "ok", a space and the activation message, or
// "error" and the reason. GATEWAY_KEY is the front-end API key, and NODE_EXTRA_CA_CERTS a file with
// the authority of the gateway's certificate.

import { randomBytes, timingSafeEqual } from "node:crypto";
import * as http from "node:http";
import * as https from "node:https";
import { createInterface } from "node:readline";
import { Formulas, number } from "../../../../docs/vectors/formulas.mjs";

// Each call has a connection of its own, so that it reaches the newest configuration.
function call(url, service, body) {
  const client = url.startsWith("https:") ? https : http;
  const authorization = `Basic ${Buffer.from(`${process.env.GATEWAY_KEY}:`).toString("base64")}`;
  const options = { method: "POST", agent: false, headers: { "Content-Type": "application/json", Authorization: authorization } };
  return new Promise((resolve, reject) => {
    const request = client.request(`${url}/rest/v2/provisioning/${service}`, options, async (response) => {
      let text = "";
      for await (const chunk of response) text += chunk;
      try {
        resolve(JSON.parse(text).result ?? reject(new Error(`${service}: HTTP ${response.statusCode}: ${text}`)));
      } catch (e) {
        reject(e);
      }
    });
    request.on("error", reject);
    request.end(JSON.stringify(body));
  });
}

// unhex reads digits of the right case.
function unhex(digits, letters) {
  const right = letters === "lower" ? /^([0-9a-f]{2})+$/ : /^([0-9A-F]{2})+$/;
  if (!right.test(digits)) throw new Error("digits have the wrong case");
  return Buffer.from(digits, "hex");
}

async function activate({ url = process.env.GATEWAY_URL, variant, identifier, password }) {
  const f = new Formulas(variant);
  const [I, P] = [identifier, password].map((text) => Buffer.from(text, "latin1"));
  const a = randomBytes(32);
  const A = f.pad(f.publicValue(a));
  const first = await call(url, "DSAPPSRPGenerateEphemeralKey", { registrationIdentifier: identifier, clientEphemeralPublicKey: A.toString("hex") });
  const [B, s] = [first.serverEphemeralPublicKey, first.salt].map((digits) => unhex(digits, variant.hex_case));
  if (B.length !== f.size || number(B) === 0n || number(B) >= f.n || s.length !== 16) throw new Error("B or s is unusable");

  const u = f.scrambler(A, B);
  const { x } = f.exponent(I, P, s);
  const { K, M1, M2 } = f.keyAndEvidence(I, s, A, B, f.clientSecret(number(B), x, u, a));
  const second = await call(url, "DSAPPSRPGenerateActivationData", { registrationIdentifier: identifier, clientEvidenceMessage: M1.toString("hex") });
  const evidence = unhex(second.serverEvidenceMessage, variant.hex_case);
  if (evidence.length !== M2.length || !timingSafeEqual(evidence, M2)) throw new Error("the server's evidence is wrong");

  const [data, counter, mac] = [second.encryptedLicenseActivationMessage, second.encryptedCounter, second.mac].map((digits) => unhex(digits));
  const salt = f.derivationSalt(s, A, B);
  const [encryption, authentication] = ["encryption", "mac"].map((purpose) => f.itemKey(K, salt, "licenseActivationMessage", purpose));
  if (!f.mac(authentication, counter, data).equals(mac)) throw new Error("the MAC is wrong");
  return f.encrypt(encryption, counter, data).toString("latin1");
}

for await (const line of createInterface({ input: process.stdin })) {
  try {
    console.log(`ok ${await activate(JSON.parse(line))}`);
  } catch (e) {
    console.log(`error ${e.message.trim()}`);
  }
}
