// Activates a device with a client that openapi-typescript generates from docs/openapi.json and
// openapi-fetch runs: it registers a user, makes the exchange with fast-srp-hap, adds the device
// and completes the activation. The device itself is the test, which answers on the standard
// input: an Activation Message 1 with a device code, an Activation Message 2 with a signature.
//
//   GATEWAY_URL                      base URL; NODE_EXTRA_CA_CERTS has its CA
//   FRONT_END_KEY, BACK_END_KEY      API keys
//   USER_ID, DOMAIN, STATIC_PASSWORD of the user

import { createDecipheriv, createHash, createHmac, hkdfSync, timingSafeEqual } from "node:crypto";
import { createInterface } from "node:readline";
import srp from "fast-srp-hap";
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

const need = (name: string): string => {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is missing`);
  return value;
};

const clientWith = (key: string) =>
  createClient<paths>({
    baseUrl: need("GATEWAY_URL"),
    headers: { Authorization: `Basic ${Buffer.from(`${key}:`).toString("base64")}` },
  });
const bank = clientWith(need("BACK_END_KEY"));
const phone = clientWith(need("FRONT_END_KEY"));

type Failure = components["schemas"]["FailureV2"];

// resultOf returns the result of a call that must have succeeded.
function resultOf<Result>(call: { data?: { result: Result } | Failure; error?: Failure }): Result {
  const answer = call.data ?? call.error;
  if (answer && "result" in answer) return answer.result;
  throw new Error(`refused: ${answer?.resultCodes.statusCodeEnum} ${answer?.errorDescription ?? ""}`);
}

const hex = (bytes: Buffer) => bytes.toString("hex").toUpperCase();
const unhex = (digits: string) => Buffer.from(digits, "hex");

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

// ask shows a message to the device and returns what it answers.
async function ask(message: string): Promise<string> {
  console.log(message);
  const line = await lines.next();
  if (line.done) throw new Error("the device is gone");
  return line.value;
}

// prove makes the exchange and returns Activation Message 1.
async function prove(registrationIdentifier: string, activationPassword: string): Promise<string> {
  const params = srp.SRP.params[2048];
  const identity = Buffer.from(registrationIdentifier);
  const password = Buffer.from(activationPassword);
  const secret = await srp.SRP.genKey(32);
  const A = new srp.SrpClient(params, Buffer.alloc(0), identity, password, secret).computeA();

  const challenge = resultOf(
    await phone.POST("/rest/v2/provisioning/DSAPPSRPGenerateEphemeralKey", {
      body: { registrationIdentifier, clientEphemeralPublicKey: hex(A) },
    }),
  );
  const B = unhex(challenge.serverEphemeralPublicKey);
  const client = new srp.SrpClient(params, unhex(challenge.salt), identity, password, secret, true);
  client.setB(B);

  const proof = resultOf(
    await phone.POST("/rest/v2/provisioning/DSAPPSRPGenerateActivationData", {
      body: { registrationIdentifier, clientEvidenceMessage: hex(client.computeM1()) },
    }),
  );
  client.checkM2(unhex(proof.serverEvidenceMessage));
  const { encryptedLicenseActivationMessage, encryptedCounter, mac } = proof;
  if (!encryptedLicenseActivationMessage || !encryptedCounter || !mac) throw new Error("not a multi-device licence");

  const transcript = createHash("sha256").update(A).update(B).digest();
  const keyFor = (purpose: string) =>
    Buffer.from(hkdfSync("sha256", client.computeK(), transcript, `DSAPP-SRP v1 licenseActivationMessage ${purpose}`, 32));
  const counter = unhex(encryptedCounter);
  const data = unhex(encryptedLicenseActivationMessage);
  const authentic = createHmac("sha256", keyFor("mac")).update(counter).update(data).digest();
  if (!timingSafeEqual(authentic, unhex(mac))) throw new Error("the MAC is wrong");
  const cipher = createDecipheriv("aes-256-ctr", keyFor("encryption"), Buffer.concat([counter, Buffer.alloc(8)]));
  return Buffer.concat([cipher.update(data), cipher.final()]).toString("ascii");
}

const registered = resultOf(
  await bank.POST("/rest/v2/provisioning/DSAPPSRPRegister", {
    body: { userID: need("USER_ID"), domain: need("DOMAIN"), staticPassword: need("STATIC_PASSWORD") },
  }),
);
const registrationIdentifier = registered.registrationIdentifier;
const deviceCode = await ask(await prove(registrationIdentifier, registered.activationPassword));
const added = resultOf(
  await phone.POST("/rest/v2/provisioning/MdlAddDevice", { body: { registrationIdentifier, deviceCode, description: "generated client" } }),
);
const signature = await ask(added.instanceActivationMessage);
const activated = resultOf(await phone.POST("/rest/v2/provisioning/MdlActivate", { body: { registrationIdentifier, signature } }));
console.log(`${activated.userID} ${activated.domain} ${activated.serialNumber}`);
process.exit(0);
