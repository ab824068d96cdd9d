// Prints a recorded exchange in the form that `caddy dsapp profile solve` reads, made with the
// unmodified npm package fast-srp-hap and node:crypto. Both sides are the package's; what the
// server sends encrypted is sealed by the profile rfc5054-2048-sha256.
//
//   SRP_GROUP  2048 (default), 3072 or 4096
//   SRP_HAP    0: without the form of evidence of HomeKit Accessory Protocol

import { createCipheriv, createHash, createHmac, hkdfSync, randomBytes } from "node:crypto";
import srp from "fast-srp-hap";

const group = process.env.SRP_GROUP || "2048";
const hap = process.env.SRP_HAP !== "0";
const params = srp.SRP.params[group];
const identity = "e3wfISG9";
const password = "Tb048aX1";
const [salt, a, b] = [randomBytes(16), randomBytes(32), randomBytes(32)];
const I = Buffer.from(identity, "ascii");
const P = Buffer.from(password, "ascii");

const client = new srp.SrpClient(params, salt, I, P, a, hap);
const verifier = srp.SRP.computeVerifier(params, salt, I, P);
const server = hap ? new srp.SrpServer(params, { username: I, salt, verifier }, b) : new srp.SrpServer(params, verifier, b);
const A = client.computeA();
const B = server.computeB();
client.setB(B);
server.setA(A);
const M1 = client.computeM1();
server.checkM1(M1);
const M2 = server.computeM2();
client.checkM2(M2);
const K = client.computeK();

const item = "licenseActivationMessage";
const plaintext = "0041C3E4F1A2B3C4D5E6F708192A3B4C";
const transcript = createHash("sha256").update(A).update(B).digest();
const derive = (purpose) => Buffer.from(hkdfSync("sha256", K, transcript, `DSAPP-SRP v1 ${item} ${purpose}`, 32));
const counter = randomBytes(8);
const cipher = createCipheriv("aes-256-ctr", derive("encryption"), Buffer.concat([counter, Buffer.alloc(8)]));
const data = Buffer.concat([cipher.update(plaintext, "latin1"), cipher.final()]);
const mac = createHmac("sha256", derive("mac")).update(counter).update(data).digest();

const hex = (bytes) => bytes.toString("hex").toUpperCase();
console.log(
  JSON.stringify(
    {
      identity,
      password,
      salt: hex(salt),
      a: hex(a),
      A: hex(A),
      B: hex(B),
      K: hex(K),
      M1: hex(M1),
      M2: hex(M2),
      items: [{ item, data: hex(data), counter: hex(counter), mac: hex(mac), plaintext }],
    },
    null,
    2,
  ),
);
