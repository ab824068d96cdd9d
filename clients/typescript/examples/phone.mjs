// A phone in a terminal, with the simulated device of the sandbox. It reads commands from the
// standard input and answers each with one line, "ok …" or "error KIND …":
//
//   activate IDENTIFIER PASSWORD
//   approve login|signature KEY
//   reject login|signature KEY
//
//   GATEWAY_URL          such as https://localhost:11080
//   GATEWAY_KEY          front-end API key
//   GATEWAY_PROFILE      default rfc5054-2048-sha256
//   GATEWAY_REPEATS      how often a call is repeated whose answer is lost, default 3
//   NODE_EXTRA_CA_CERTS  file with the authority of the gateway's certificate

import { createInterface } from "node:readline";
import { Gateway } from "../dist/dsapp.js";
import { SandboxDevice } from "../dist/sandbox-device.js";

const gateway = new Gateway({
  baseURL: process.env.GATEWAY_URL ?? "https://localhost:11080",
  apiKey: process.env.GATEWAY_KEY ?? "sandbox-front-end",
  profile: process.env.GATEWAY_PROFILE,
  repeats: Number(process.env.GATEWAY_REPEATS ?? 3),
});
let device;
let user;

const services = {
  login: { path: "/rest/v2/authentication/push/", retrieve: "getPreparedSecureChallenge", approve: "authUser", reject: "cancelAuthUser", key: "challengeKey" },
  signature: { path: "/rest/v2/signature/push/", retrieve: "getPreparedSignatureRequest", approve: "authSignature", reject: "cancelAuthSignatureRequest", key: "requestKey" },
};

const commands = {
  async activate(identifier, password) {
    const data = await gateway.exchange(identifier, password);
    device = new SandboxDevice();
    if (data.licenseType === "standard") {
      await device.activateStandard(data.activationCode, data.eventReactivationCounter);
      user = await gateway.activateStandard(identifier, { response: await device.oneTimePassword() });
      return device.serialNumber;
    }
    const deviceCode = await device.activateLicense(data.activationMessage);
    const message = await gateway.addDevice(identifier, deviceCode, "a phone in TypeScript");
    user = await gateway.activate(identifier, await device.activateInstance(message));
    await gateway.call("/rest/v2/notification/push/updateNotificationID", {
      userID: user.userID,
      domain: user.domain,
      digipassInstanceID: device.serialNumber,
      encryptedNotificationID: await device.wrapNotificationID("a push ID"),
    });
    return device.serialNumber;
  },

  async approve(kind, key) {
    const [s, message] = await retrieve(kind, key);
    const signature = await device.sign(message);
    const { userID } = await gateway.call(s.path + s.approve, { userID: user.userID, domain: user.domain, [s.key]: key, signature });
    return userID;
  },

  async reject(kind, key) {
    const [s, message] = await retrieve(kind, key);
    await gateway.call(s.path + s.reject, { serialNumber: device.serialNumber, [s.key]: await device.wrapKey(key) });
    return (await device.open(message)).title;
  },
};

async function retrieve(kind, key) {
  const s = services[kind];
  const { requestMessage } = await gateway.call(s.path + s.retrieve, { serialNumber: device.serialNumber, [s.key]: key });
  return [s, requestMessage];
}

for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...values] = line.split(" ");
  try {
    console.log("ok", await commands[command](...values));
  } catch (e) {
    console.log("error", e.kind ?? "other", e.message, e.cause ?? "");
  }
}
