// Records exchanges in the form that `caddy dsapp profile solve` reads, with nothing but Node's
// standard library and the formulas that were written from docs/protocol.md.
//
// It reads variants from the standard input, a JSON object with all options in each line, and answers
// each with the recorded exchange of a phone and a server in one line.

import { randomBytes } from "node:crypto";
import { createInterface } from "node:readline";
import { Formulas } from "../../../../docs/vectors/formulas.mjs";

const identity = "e3wfISG9";
const password = "Tb048aX1";
const item = "licenseActivationMessage";
const plaintext = "0041C3E4F1A2B3C4D5E6F708192A3B4C";

function record(variant) {
  const f = new Formulas(variant);
  const [I, P, text] = [identity, password, plaintext].map((value) => Buffer.from(value, "latin1"));
  const [s, a, b] = [16, 32, 32].map((size) => randomBytes(size));
  const verifier = f.verifier(f.exponent(I, P, s).x);
  const publicA = f.publicValue(a);
  const [A, B] = [publicA, f.serverPublic(verifier, b)].map((number) => f.pad(number));
  const { K, M1, M2 } = f.keyAndEvidence(I, s, A, B, f.serverSecret(publicA, verifier, f.scrambler(A, B), b));

  const counter = randomBytes(variant.counter === "block" ? 16 : 8);
  const [encryption, authentication] = ["encryption", "mac"].map((purpose) => f.itemKey(K, f.derivationSalt(s, A, B), item, purpose));
  const data = f.encrypt(encryption, counter, text);
  const mac = f.mac(authentication, counter, data);
  const hex = (bytes) => (variant.hex_case === "lower" ? bytes.toString("hex") : bytes.toString("hex").toUpperCase());
  return {
    identity, password, salt: hex(s), a: hex(a), A: hex(A), B: hex(B), K: hex(K), M1: hex(M1), M2: hex(M2),
    items: [{ item, data: hex(data), counter: hex(counter), mac: hex(mac), plaintext }],
  };
}

for await (const line of createInterface({ input: process.stdin })) console.log(JSON.stringify(record(JSON.parse(line))));
