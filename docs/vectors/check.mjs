#!/usr/bin/env node
// Checks test vectors with Node's standard library alone.
//
// Usage: check.mjs [FILE...]     without files: all that stand beside this program
//
// Every value is computed anew from the inputs by the formulas of docs/protocol.md, which are in
// formulas.mjs, and every
// exchange is played from both sides. Prints one line for each vector that is wrong, and ends
// with 1 if there is one.

import { timingSafeEqual } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Formulas, number } from "./formulas.mjs";

function same(name, got, want) {
  const [g, w] = [got, want].map((x) => (typeof x === "bigint" ? x.toString(16) : JSON.stringify(x)));
  if (g !== w) throw new Error(`${name} is ${String(g).slice(0, 80)}, computed is ${String(w).slice(0, 80)}`);
}

const hex = (bytes) => bytes.toString("hex").toUpperCase();
const sameBytes = (name, digits, bytes) => same(name, digits, hex(bytes));

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

// groupOf returns the formulas of a file whose group is right.
function groupOf({ variant, group }) {
  const f = new Formulas(variant);
  const { N, g } = f.constants;
  const short = Buffer.from([Number(f.g)]);
  same("bytes", group.bytes, f.size);
  sameBytes("N", group.N, N);
  sameBytes("g", group.g, short);
  same("number of members", Object.keys(group).length, 7);
  sameBytes("k", group.k, f.digest("k", {}));
  sameBytes("hashN", group.hashN, f.hash(N));
  sameBytes("hashG", group.hashG, f.hash(short));
  sameBytes("hashNXorHashG", group.hashNXorHashG, f.constants.X);
  return f;
}

const success = { returnCodeEnum: "RET_SUCCESS", statusCodeEnum: "STAT_SUCCESS", returnCode: 0, statusCode: 0 };
const refusal = { returnCodeEnum: "RET_FAILURE", statusCodeEnum: "STAT_INVCREDENTIALS", returnCode: -1, statusCode: 1000 };
const sorted = (object) => Object.entries(object).sort();

function result(call) {
  same("resultCodes", sorted(call.answer.resultCodes), sorted(success));
  return call.answer.result;
}

// play checks the values of a vector and returns what happens to its exchange.
function play(f, v) {
  const identifier = ascii("identifier", v.inputs.identifier);
  const password = ascii("password", v.inputs.password);
  const [salt, a, b] = ["salt", "a", "b"].map((name) => unhex(name, v.inputs[name]));
  same("sizes of salt, a, b", [salt.length, a.length, b.length], [16, 32, 32]);
  const [first, second] = v.calls;

  same("service", first.service, "DSAPPSRPGenerateEphemeralKey");
  same("identifier of the first call", first.request.registrationIdentifier, v.inputs.identifier);
  const A = f.publicValue(a);
  same("A of the request", fromWire("A", first.request.clientEphemeralPublicKey), A);
  const answer = result(first);
  same("salt of the answer", answer.salt, v.inputs.salt);
  const received = unhex("B of the answer", answer.serverEphemeralPublicKey);
  if (received.length !== f.size || number(received) === 0n || number(received) >= f.n) {
    same("calls after an unusable B", v.calls.length, 1);
    same("values", ["values", "typed", "sealing"].filter((name) => name in v), []);
    return "serverPublicRefused";
  }

  // The server.
  const { inner, x } = f.exponent(identifier, password, salt);
  const verifier = f.verifier(x);
  const B = f.serverPublic(verifier, b);
  const u = f.scrambler(f.pad(A), f.pad(B));
  const S = f.serverSecret(A, verifier, u, b);
  const server = f.keyAndEvidence(identifier, salt, f.pad(A), f.pad(B), S);
  const computed = { identityHash: f.hash(identifier), innerHash: inner, x, v: f.pad(verifier), A: f.pad(A), B: f.pad(B), u, S: f.pad(S), ...server };
  for (const name of Object.keys(computed)) sameBytes(name, v.values[name], computed[name]);
  same("number of values", Object.keys(v.values).length, Object.keys(computed).length);
  same("B of the answer", number(received), B);

  // The phone.
  const typedX = v.typed ? f.exponent(identifier, ascii("password", v.typed.password), salt).x : x;
  const phoneS = f.clientSecret(B, typedX, u, a);
  const phone = f.keyAndEvidence(identifier, salt, f.pad(A), received, phoneS);
  if (v.typed) {
    for (const [name, bytes] of Object.entries({ x: typedX, S: f.pad(phoneS), K: phone.K, M1: phone.M1 })) {
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
  const unaltered = checkItems(f, v, phone.K, f.derivationSalt(salt, f.pad(A), received), proof);
  const M2 = unhex("M2 of the answer", proof.serverEvidenceMessage);
  if (M2.length !== phone.M2.length || !timingSafeEqual(M2, phone.M2)) {
    same("items of the answer", unaltered, true);
    return "serverEvidenceRefused";
  }
  return unaltered ? "success" : "dataRefused";
}

// checkItems checks the sealed items and returns whether the answer has them unaltered.
function checkItems(f, v, K, salt, answer) {
  sameBytes("salt of the keys", v.sealing.salt, salt);
  if (v.licenseType !== "mdl") same("licenseType", v.licenseType, "standard");
  const names =
    v.licenseType === "mdl" ? ["licenseActivationMessage"] : ["activationCode", "eventReactivationCounter"].slice(0, Object.keys(answer.standard).length);
  same("items", v.sealing.items.map((i) => i.item), names);
  let unaltered = true;
  for (const i of v.sealing.items) {
    const [encryption, authentication] = ["encryption", "mac"].map((purpose) => f.itemKey(K, salt, i.item, purpose));
    same("encryptionInfo", i.encryptionInfo, f.info(i.item, "encryption"));
    same("macInfo", i.macInfo, f.info(i.item, "mac"));
    sameBytes("encryptionKey", i.encryptionKey, encryption);
    sameBytes("macKey", i.macKey, authentication);
    const counter = unhex("counter", i.counter);
    sameBytes("initialBlock", i.initialBlock, f.initialBlock(counter) ?? Buffer.alloc(0));
    const ciphertext = f.encrypt(encryption, counter, ascii("plaintext", i.plaintext));
    sameBytes("ciphertext", i.ciphertext, ciphertext);
    const mac = f.mac(authentication, counter, ciphertext);
    sameBytes("mac", i.mac, mac);

    const [members, data] = v.licenseType === "mdl" ? [answer, "encryptedLicenseActivationMessage"] : [answer.standard[i.item], "data"];
    const [sentData, sentCounter, sentMAC] = [data, "encryptedCounter", "mac"].map((name) => unhex(name, members[name]));
    const right = f.mac(authentication, sentCounter, sentData).equals(sentMAC);
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
  let f;
  try {
    f = groupOf(file);
  } catch (e) {
    console.log(`${basename(path)}: group: ${e.message}`);
    wrong++;
    continue;
  }
  for (const v of file.vectors) {
    vectors++;
    try {
      same("outcome", play(f, v), v.expect);
    } catch (e) {
      console.log(`${basename(path)}: ${v.name}: ${e.message}`);
      wrong++;
    }
  }
}
console.log(`${vectors} vectors in ${paths.length} files, ${wrong} wrong`);
process.exitCode = wrong > 0 || vectors === 0 ? 1 : 0;
