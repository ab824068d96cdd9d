// Runs the two SRP calls of an activation as a phone would, with an unmodified npm
// package as the SRP implementation and node:crypto for the rest.
// Nothing here comes from the gateway's own code, so that both sides can only
// agree by following the same profile.
//
//   GATEWAY_URL              base URL, with the context path if there is one
//   GATEWAY_CA               PEM file with the CA of the gateway's certificate
//   GATEWAY_KEY              front-end API key
//   REGISTRATION_IDENTIFIER  SRP identity
//   ACTIVATION_PASSWORD      SRP password
//   SRP_LIBRARY              preset of the library: fast-srp-hap (default),
//                            secure-remote-password, tssrp6a, or nimbus, which is tssrp6a
//                            with the hash and the session key of Nimbus SRP
//   SRP_GROUP                2048 (default), or with fast-srp-hap 3072 or 4096
//   SRP_SHORT                1: send numbers as BigInt writes them, and draw until both
//                            begin with zeros, which are then missing
//   SRP_CAPTURE              file for the exchange, in the form that caddy dsapp profile reads
//
// Prints one line of JSON. Exits with 0 only if the server proved itself and every
// item was authentic; otherwise with 1 (2 for wrong usage) and the reason on stderr.

import { createDecipheriv, createHash, createHmac, hkdfSync, randomBytes, timingSafeEqual } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { Agent, request } from "node:https";
import { asNumber, groupOf, libraries, powersOfG } from "./libraries.mjs";

const groups = ["2048", "3072", "4096"];
const maxAnswer = 1 << 20;

class Failure extends Error {
  constructor(stage, message, details = {}) {
    super(`${stage}: ${message}`);
    this.details = details;
  }
}

function settings(env) {
  const need = (name) => {
    if (!env[name]) throw new Error(`${name} is missing`);
    return env[name];
  };
  const base = new URL(need("GATEWAY_URL"));
  if (base.protocol !== "https:") throw new Error("GATEWAY_URL must begin with https:");
  if (!base.pathname.endsWith("/")) base.pathname += "/";
  const group = env.SRP_GROUP || "2048";
  if (!groups.includes(group)) throw new Error(`SRP_GROUP must be one of ${groups.join(", ")}`);
  const library = libraries[env.SRP_LIBRARY || "fast-srp-hap"];
  if (!library) throw new Error(`SRP_LIBRARY must be one of ${Object.keys(libraries).join(", ")}`);
  return {
    base,
    group,
    library,
    agent: new Agent({ ca: readFileSync(need("GATEWAY_CA")), keepAlive: true }),
    apiKey: need("GATEWAY_KEY"),
    registration: need("REGISTRATION_IDENTIFIER"),
    password: need("ACTIVATION_PASSWORD"),
    short: env.SRP_SHORT === "1",
    capture: env.SRP_CAPTURE,
  };
}

// call posts one service and returns the members of its result.
async function call(s, service, body) {
  const { status, type, text } = await post(s, new URL(`rest/v2/provisioning/${service}`, s.base), body).catch((e) => {
    throw new Failure(service, `${e.code ?? "error"}: ${e.message}`);
  });
  if (!/^application\/json(;|$)/.test(type)) throw new Failure(service, `HTTP ${status} with media type "${type}"`, { httpStatus: status });
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    throw new Failure(service, `HTTP ${status} with a body that is not JSON`, { httpStatus: status });
  }
  const codes = answer.resultCodes;
  if (status !== 200 || codes?.returnCode !== 0) {
    const reason = [codes?.statusCodeEnum, answer.errorDescription].filter(Boolean).join(", ");
    throw new Failure(service, `HTTP ${status}: ${reason || "no result codes"}`, { httpStatus: status, resultCodes: codes });
  }
  if (typeof answer.result !== "object" || answer.result === null) throw new Failure(service, "success without a result");
  return answer.result;
}

function post(s, url, body) {
  const data = Buffer.from(JSON.stringify(body));
  return new Promise((resolve, reject) => {
    const req = request(url, {
      method: "POST",
      agent: s.agent,
      timeout: 20_000,
      headers: {
        Authorization: `Basic ${Buffer.from(`${s.apiKey}:`).toString("base64")}`,
        "Content-Type": "application/json",
        "Content-Length": data.length,
      },
    });
    req.on("timeout", () => req.destroy(new Error("no answer within 20 seconds")));
    req.on("error", reject);
    req.on("response", (res) => {
      const chunks = [];
      let size = 0;
      res.on("error", reject);
      res.on("data", (chunk) => {
        size += chunk.length;
        if (size > maxAnswer) return req.destroy(new Error(`answer of more than ${maxAnswer} bytes`));
        chunks.push(chunk);
      });
      res.on("end", () =>
        resolve({ status: res.statusCode, type: res.headers["content-type"] ?? "", text: Buffer.concat(chunks).toString("utf8") }),
      );
    });
    req.end(data);
  });
}

// unhex reads a hex member of exactly that many bytes, or of any number of bytes
// but none. The digits must be in the case that is right.
function unhex(stage, object, member, bytes, right = /^([0-9A-F]{2})+$/) {
  const digits = object?.[member];
  if (typeof digits !== "string" || !right.test(digits)) {
    throw new Failure(stage, `${member} is not hex of the right case`);
  }
  if (bytes !== undefined && digits.length !== 2 * bytes) {
    throw new Failure(stage, `${member} has ${digits.length} digits, not ${2 * bytes}`);
  }
  return Buffer.from(digits, "hex");
}

// shortPrivate returns an a such that g^a begins with a zero byte.
function shortPrivate(group) {
  const power = powersOfG(group);
  for (;;) {
    const a = randomBytes(32);
    if (power(a)[0] === 0) return a;
  }
}

// open checks and decrypts one item under keys that belong to it alone.
function open(stage, key, transcript, item, data, counter, mac) {
  const derive = (purpose) => Buffer.from(hkdfSync("sha256", key, transcript, `DSAPP-SRP v1 ${item} ${purpose}`, 32));
  const want = createHmac("sha256", derive("mac")).update(counter).update(data).digest();
  if (!timingSafeEqual(want, mac)) throw new Failure(stage, `the MAC of ${item} does not match`);
  const cipher = createDecipheriv("aes-256-ctr", derive("encryption"), Buffer.concat([counter, Buffer.alloc(8)]));
  const text = Buffer.concat([cipher.update(data), cipher.final()]);
  if (text.some((byte) => byte < 0x20 || byte > 0x7e)) throw new Failure(stage, `${item} is not ASCII text`);
  return text.toString("latin1");
}

async function activate(s) {
  const { size } = groupOf(s.group);
  const { digits } = s.library;
  const text = s.short ? asNumber : s.library.text;
  const exchange = await s.library.start({
    identifier: s.registration, password: s.password, group: s.group, a: s.short ? shortPrivate(s.group) : undefined,
  });
  const { A } = exchange;

  const first = "DSAPPSRPGenerateEphemeralKey";
  let B, M1, challenge;
  do {
    challenge = await call(s, first, { registrationIdentifier: s.registration, clientEphemeralPublicKey: text(A) });
    B = unhex(first, challenge, "serverEphemeralPublicKey", size, digits);
    const salt = unhex(first, challenge, "salt", 16, digits);
    try {
      M1 = await exchange.prove(salt, B);
    } catch (e) {
      throw new Failure(first, e.message);
    }
  } while (s.short && M1[0] >= 0x10);

  const second = "DSAPPSRPGenerateActivationData";
  const proof = await call(s, second, { registrationIdentifier: s.registration, clientEvidenceMessage: text(M1) });
  const evidence = unhex(second, proof, "serverEvidenceMessage", M1.length, digits);
  try {
    await exchange.confirm(evidence);
  } catch (e) {
    throw new Failure(second, e.message);
  }

  if (s.capture) {
    const hex = (bytes) => bytes.toString("hex");
    const record = {
      identity: s.registration, password: s.password, salt: challenge.salt, a: hex(exchange.a), A: hex(A), B: challenge.serverEphemeralPublicKey,
      K: hex(exchange.key()), M1: hex(M1), M2: proof.serverEvidenceMessage,
      items: [{ item: "licenseActivationMessage", data: proof.encryptedLicenseActivationMessage, counter: proof.encryptedCounter, mac: proof.mac }],
    };
    writeFileSync(s.capture, JSON.stringify(record), { mode: 0o600 });
  }

  const transcript = createHash("sha256").update(A).update(B).digest();
  const item = (name, object, member) =>
    open(
      second,
      exchange.key(),
      transcript,
      name,
      unhex(second, object, member),
      unhex(second, object, "encryptedCounter", 8),
      unhex(second, object, "mac", 32),
    );
  const result = { ok: true, group: Number(s.group), registrationIdentifier: s.registration, serverEvidenceVerified: true };
  if (proof.standard !== undefined) {
    result.activationCode = item("activationCode", proof.standard.activationCode, "data");
    result.eventReactivationCounter = item("eventReactivationCounter", proof.standard.eventReactivationCounter, "data");
  } else {
    result.activationMessage = item("licenseActivationMessage", proof, "encryptedLicenseActivationMessage");
    if (!/^([0-9A-F]{2})+$/.test(result.activationMessage)) throw new Failure(second, "the activation message is not upper-case hex");
  }
  result.macVerified = true;
  result.publicValueStartsWithZero = A[0] === 0;
  return result;
}

let s;
try {
  s = settings(process.env);
} catch (e) {
  console.error(e.message);
  process.exit(2);
}
try {
  console.log(JSON.stringify(await activate(s)));
} catch (e) {
  console.log(JSON.stringify({ ok: false, error: e.message, ...e.details }));
  console.error(e instanceof Failure ? e.message : e.stack);
  process.exitCode = 1;
} finally {
  s.agent.destroy();
}
