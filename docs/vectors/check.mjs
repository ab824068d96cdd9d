#!/usr/bin/env node
// Checks test vectors with Node's standard library alone.
//
// Usage: check.mjs [FILE...]     without files: all that stand beside this program
//
// Every value is computed anew from the inputs by the formulas of docs/protocol.md, and every
// exchange is played from both sides. Prints one line for each vector that is wrong, and ends
// with 1 if there is one.

import { createCipheriv, createHash, createHmac, hkdfSync, timingSafeEqual } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";

const sizes = { "rfc5054-2048-sha256": 256, "rfc5054-3072-sha256": 384, "rfc5054-4096-sha256": 512 };

function same(name, got, want) {
  const [g, w] = [got, want].map((x) => (typeof x === "bigint" ? x.toString(16) : JSON.stringify(x)));
  if (g !== w) throw new Error(`${name} is ${String(g).slice(0, 80)}, computed is ${String(w).slice(0, 80)}`);
}

const hex = (bytes) => bytes.toString("hex").toUpperCase();
const sameBytes = (name, digits, bytes) => same(name, digits, hex(bytes));
const number = (bytes) => BigInt(`0x${bytes.toString("hex")}`);

// fromWire is a number that the phone sends: digits of either case, zeros may be missing.
function fromWire(name, digits) {
  if (!/^[0-9A-Fa-f]+$/.test(digits)) throw new Error(`${name} is not hexadecimal`);
  return BigInt(`0x${digits}`);
}

function unhex(name, digits) {
  if (!/^([0-9A-F]{2})+$/.test(digits)) throw new Error(`${name} is not upper-case hex`);
  return Buffer.from(digits, "hex");
}

function ascii(name, text) {
  if (!/^[\x20-\x7e]+$/.test(text)) throw new Error(`${name} is not ASCII`);
  return Buffer.from(text, "latin1");
}

function sha256(...parts) {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest();
}

const hmac = (key, ...parts) => parts.reduce((h, part) => h.update(part), createHmac("sha256", key)).digest();

const known = new Map();

// power remembers its results: many vectors share them.
function power(base, exponent, modulus) {
  const name = [base, exponent, modulus].map((x) => x.toString(36)).join(" ");
  if (!known.has(name)) {
    let result = 1n;
    for (const bit of exponent.toString(2)) {
      result = (result * result) % modulus;
      if (bit === "1") result = (result * base) % modulus;
    }
    known.set(name, result);
  }
  return known.get(name);
}

class Group {
  constructor({ profile, hash, group }) {
    this.size = sizes[profile];
    if (!this.size) throw new Error("unknown profile");
    same("hash", hash, "SHA-256");
    same("bytes", group.bytes, this.size);
    const n = unhex("N", group.N);
    const g = unhex("g", group.g);
    same("size of N", n.length, this.size);
    same("size of g", g.length, 1);
    this.n = number(n);
    this.g = number(g);
    this.k = number(sha256(n, this.pad(this.g)));
    sameBytes("k", group.k, sha256(n, this.pad(this.g)));
    sameBytes("hashN", group.hashN, sha256(n));
    sameBytes("hashG", group.hashG, sha256(g));
    const hashG = sha256(g);
    this.start = sha256(n).map((byte, i) => byte ^ hashG[i]);
    sameBytes("hashNXorHashG", group.hashNXorHashG, Buffer.from(this.start));
  }

  pad(x) {
    return Buffer.from(x.toString(16).padStart(2 * this.size, "0"), "hex");
  }

  keyAndEvidence(identifier, salt, A, B, S) {
    const K = sha256(this.pad(S));
    const M1 = sha256(this.start, sha256(identifier), salt, A, B, K);
    return { K, M1, M2: sha256(A, M1, K) };
  }
}

const success = { returnCodeEnum: "RET_SUCCESS", statusCodeEnum: "STAT_SUCCESS", returnCode: 0, statusCode: 0 };
const refusal = { returnCodeEnum: "RET_FAILURE", statusCodeEnum: "STAT_INVCREDENTIALS", returnCode: -1, statusCode: 1000 };
const sorted = (object) => Object.entries(object).sort();

function result(call) {
  same("resultCodes", sorted(call.answer.resultCodes), sorted(success));
  return call.answer.result;
}

// play checks the values of a vector and returns what happens to its exchange.
function play(group, v) {
  const identifier = ascii("identifier", v.inputs.identifier);
  const password = ascii("password", v.inputs.password);
  const [salt, a, b] = ["salt", "a", "b"].map((name) => unhex(name, v.inputs[name]));
  same("sizes of salt, a, b", [salt.length, a.length, b.length], [16, 32, 32]);
  const { n, g, k } = group;
  const [first, second] = v.calls;

  same("service", first.service, "DSAPPSRPGenerateEphemeralKey");
  same("identifier of the first call", first.request.registrationIdentifier, v.inputs.identifier);
  const A = power(g, number(a), n);
  same("A of the request", fromWire("A", first.request.clientEphemeralPublicKey), A);
  const answer = result(first);
  same("salt of the answer", answer.salt, v.inputs.salt);
  const received = unhex("B of the answer", answer.serverEphemeralPublicKey);
  if (received.length !== group.size || number(received) === 0n || number(received) >= n) {
    same("calls after an unusable B", v.calls.length, 1);
    same("values", ["values", "typed", "sealing"].filter((name) => name in v), []);
    return "serverPublicRefused";
  }

  // The server.
  const inner = sha256(identifier, ":", password);
  const x = sha256(salt, inner);
  const verifier = power(g, number(x), n);
  const B = (k * verifier + power(g, number(b), n)) % n;
  const u = sha256(group.pad(A), group.pad(B));
  const S = power((A * power(verifier, number(u), n)) % n, number(b), n);
  const server = group.keyAndEvidence(identifier, salt, group.pad(A), group.pad(B), S);
  const computed = {
    identityHash: sha256(identifier), innerHash: inner, x, v: group.pad(verifier), A: group.pad(A), B: group.pad(B), u, S: group.pad(S), ...server,
  };
  for (const name of Object.keys(computed)) sameBytes(name, v.values[name], computed[name]);
  same("number of values", Object.keys(v.values).length, Object.keys(computed).length);
  same("B of the answer", number(received), B);

  // The phone.
  const typedX = v.typed ? sha256(salt, sha256(identifier, ":", ascii("password", v.typed.password))) : x;
  const base = (((B - k * power(g, number(typedX), n)) % n) + n) % n;
  const phoneS = power(base, number(a) + number(u) * number(typedX), n);
  const phone = group.keyAndEvidence(identifier, salt, group.pad(A), received, phoneS);
  if (v.typed) {
    for (const [name, bytes] of Object.entries({ x: typedX, S: group.pad(phoneS), K: phone.K, M1: phone.M1 })) {
      sameBytes(`typed ${name}`, v.typed[name], bytes);
    }
  }

  same("number of calls", v.calls.length, 2);
  same("service", second.service, "DSAPPSRPGenerateActivationData");
  same("identifier of the second call", second.request.registrationIdentifier, v.inputs.identifier);
  const sent = fromWire("M1", second.request.clientEvidenceMessage);
  if (sent !== number(server.M1)) {
    if (v.typed) same("M1 of the request", sent, number(phone.M1));
    same("answer", sorted(second.answer.resultCodes), sorted(refusal));
    same("result and sealing", "result" in second.answer || "sealing" in v, false);
    return "clientEvidenceRefused";
  }
  same("typed", v.typed, undefined);
  same("M1 of the request", sent, number(phone.M1));

  const proof = result(second);
  const unaltered = checkItems(v, phone.K, sha256(group.pad(A), received), proof);
  const M2 = unhex("M2 of the answer", proof.serverEvidenceMessage);
  if (M2.length !== phone.M2.length || !timingSafeEqual(M2, phone.M2)) {
    same("items of the answer", unaltered, true);
    return "serverEvidenceRefused";
  }
  return unaltered ? "success" : "dataRefused";
}

// checkItems checks the sealed items and returns whether the answer has them unaltered.
function checkItems(v, K, salt, answer) {
  sameBytes("salt of the keys", v.sealing.salt, salt);
  if (v.licenseType !== "mdl") same("licenseType", v.licenseType, "standard");
  const names =
    v.licenseType === "mdl" ? ["licenseActivationMessage"] : ["activationCode", "eventReactivationCounter"].slice(0, Object.keys(answer.standard).length);
  same("items", v.sealing.items.map((i) => i.item), names);
  let unaltered = true;
  for (const i of v.sealing.items) {
    const derive = (purpose) => Buffer.from(hkdfSync("sha256", K, salt, `DSAPP-SRP v1 ${i.item} ${purpose}`, 32));
    same("encryptionInfo", i.encryptionInfo, `DSAPP-SRP v1 ${i.item} encryption`);
    same("macInfo", i.macInfo, `DSAPP-SRP v1 ${i.item} mac`);
    sameBytes("encryptionKey", i.encryptionKey, derive("encryption"));
    sameBytes("macKey", i.macKey, derive("mac"));
    const counter = unhex("counter", i.counter);
    same("size of the counter", counter.length, 8);
    const block = Buffer.concat([counter, Buffer.alloc(8)]);
    sameBytes("initialBlock", i.initialBlock, block);
    const ciphertext = createCipheriv("aes-256-ctr", derive("encryption"), block).update(ascii("plaintext", i.plaintext));
    sameBytes("ciphertext", i.ciphertext, ciphertext);
    const mac = hmac(derive("mac"), counter, ciphertext);
    sameBytes("mac", i.mac, mac);

    const [members, data] = v.licenseType === "mdl" ? [answer, "encryptedLicenseActivationMessage"] : [answer.standard[i.item], "data"];
    const [sentData, sentCounter, sentMAC] = [data, "encryptedCounter", "mac"].map((name) => unhex(name, members[name]));
    const right = hmac(derive("mac"), sentCounter, sentData).equals(sentMAC);
    same(`${i.item} of the answer is that of the vector`, sentData.equals(ciphertext) && sentCounter.equals(counter) && sentMAC.equals(mac), right);
    unaltered &&= right;
  }
  return unaltered;
}

const here = fileURLToPath(new URL(".", import.meta.url));
const paths = process.argv.length > 2 ? process.argv.slice(2) : readdirSync(here).filter((f) => f.endsWith(".json")).map((f) => join(here, f));
let vectors = 0;
let wrong = 0;
for (const path of paths) {
  const file = JSON.parse(readFileSync(path, "utf8"));
  let group;
  try {
    group = new Group(file);
  } catch (e) {
    console.log(`${basename(path)}: group: ${e.message}`);
    wrong++;
    continue;
  }
  for (const v of file.vectors) {
    vectors++;
    try {
      same("outcome", play(group, v), v.expect);
    } catch (e) {
      console.log(`${basename(path)}: ${v.name}: ${e.message}`);
      wrong++;
    }
  }
}
console.log(`${vectors} vectors in ${paths.length} files, ${wrong} wrong`);
process.exitCode = wrong > 0 || vectors === 0 ? 1 : 0;
