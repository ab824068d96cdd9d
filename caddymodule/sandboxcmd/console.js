// The sandbox's part of the console: the simulated device in place of the vendor's library, and
// the bank, which the sandbox plays.

import { field, fill, offer, phone } from "./console.js";
import { SandboxDevice } from "./sandbox-device.js";

let device = new SandboxDevice();
let activeCode; // that a standard licence was activated with

async function bank(call, members) {
  const answer = await fetch(`sandbox/${call}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(members),
    credentials: "omit",
    cache: "no-store",
  });
  const content = await answer.json();
  if (answer.status !== 200) throw new Error(`the sandbox answered: ${content.error ?? content.resultCodes?.statusCodeEnum ?? answer.status}`);
  return content;
}

async function register(licenseType) {
  const { result, resultCodes } = await bank("register", { licenseType });
  if (result === undefined) throw new Error(`the registration was refused: ${resultCodes.statusCodeEnum}`);
  device = new SandboxDevice();
  fill("apiKey", "sandbox-front-end");
  return result.activationImage;
}

// Adds a line to the part of a form that says what happens elsewhere.
function line(form) {
  const said = document.createElement("p");
  said.className = "said";
  said.setAttribute("role", "status");
  field(form).parentElement.append(said);
  return said;
}

const outcome = line("retrieve"); // what the bank was told
const screen = line("approve"); // what the device shows its user

async function request(kind) {
  outcome.textContent = screen.textContent = "";
  const { serialNumber } = device;
  const { key } = await bank("request", { kind, serialNumber });
  fill("serialNumber", serialNumber);
  fill("kind", kind);
  fill("channel", "scan");
  bank("outcome", { kind, key }).then(
    (answer) => { outcome.textContent = `The bank was told: ${answer.outcome}.`; },
    (error) => { outcome.textContent = `The bank was told nothing: ${error.message}.`; },
  );
  return key;
}

async function oneTimePassword() {
  if (activeCode !== phone.activationCode) {
    await device.activateStandard(phone.activationCode ?? "", phone.eventReactivationCounter ?? "0");
    activeCode = phone.activationCode;
  }
  return device.oneTimePassword();
}

async function sign() {
  const requestMessage = phone.requestMessage ?? "";
  const { title, fields } = await device.open(requestMessage);
  screen.textContent = `The device shows: ${[title, ...(fields ?? []).map(({ key, value }) => `${key} ${value}`)].join(", ")}.`;
  return device.sign(requestMessage);
}

offer("image", "Register jane.doe", () => register("mdl"));
offer("image", "Register jane.doe for a standard licence", () => register("standard"));
offer("deviceCode", "Ask the simulated device", () => device.activateLicense(phone.activationMessage ?? ""));
offer("activationSignature", "Sign with the simulated device", () => device.activateInstance(phone.instanceActivationMessage ?? ""));
offer("response", "Ask the simulated device", oneTimePassword);
offer("requestKey", "Have the bank request a signature", () => request("signature"));
offer("requestKey", "Have the bank request a login", () => request("login"));
offer("signature", "Sign with the simulated device", sign);
offer("cancelSerialNumber", "Take another serial number", () => "VDS9999999-1");
offer("cancelKey", "Wrap it with the simulated device", () => device.wrapKey(field("requestKey").value.trim()));
