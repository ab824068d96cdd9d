// The console: a phone in a browser. It holds what is typed in memory only.

import { DsappError, Gateway, defaultProfile, parseActivationImage, profileNames } from "./dsapp.js";

// What the phone has got so far, for modules that act in the place of a device library.
export const phone = {};

export const field = (id) => document.getElementById(id);

// Fills in a field and tells its listeners.
export function fill(id, value) {
  field(id).value = value;
  field(id).dispatchEvent(new Event("input", { bubbles: true }));
}

// Adds a button below a field that fills it in with what produce returns.
export function offer(id, label, produce) {
  const button = make("button", { type: "button", textContent: label });
  const form = field(id).form;
  button.addEventListener("click", () => act(form, button, async () => {
    fill(id, await produce());
    return `${field(id).labels[0].textContent}: filled in.`;
  }));
  field(id).parentElement.append(button);
}

// The values of an exchange, as docs/protocol.md names them.
const meanings = {
  a: "random number of the phone, which it never sends",
  A: "public number of the phone, g^a mod N",
  salt: "salt, from the gateway",
  B: "public number of the gateway",
  u: "hash of A and B",
  innerHash: "hash of the identifier, a colon and the activation password",
  x: "hash of the salt and innerHash",
  S: "the shared number, (B − k·g^x)^(a + u·x) mod N",
  K: "the session key, the hash of S",
  M1: "evidence of the phone",
  M2: "evidence that the phone expects from the gateway",
  macKey: "key from K that verifies this item of the activation data",
  encryptionKey: "key from K that decrypts it",
};

// What the calls for logins and signatures are.
const services = {
  login: { path: "/rest/v2/authentication/", retrieve: "getPreparedSecureChallenge", approve: "authUser", cancel: "cancelAuthUser", key: "challengeKey" },
  signature: { path: "/rest/v2/signature/", retrieve: "getPreparedSignatureRequest", approve: "authSignature", cancel: "cancelAuthSignatureRequest", key: "requestKey" },
};

// One step for each form. Each returns what happened.
const steps = {
  async exchange(gateway, show) {
    for (const name of Object.keys(phone)) delete phone[name];
    const data = await gateway.exchange(value("identifier"), field("password").value);
    const standard = data.licenseType === "standard";
    Object.assign(phone, data);
    for (const article of document.querySelectorAll("[data-license]")) article.hidden = (article.dataset.license === "standard") !== standard;
    const { licenseType, ...opened } = data;
    for (const [name, text] of Object.entries(opened)) if (text !== undefined) show(name, text, "decrypted activation data, for the device library");
    return `The phone and the gateway have proved that they know the activation password. The licence is a ${standard ? "standard" : "multi-device"} licence.`;
  },

  async addDevice(gateway) {
    delete phone.instanceActivationMessage;
    phone.instanceActivationMessage = await gateway.addDevice(value("identifier"), value("deviceCode"), "console");
    return "The device is added. Give the instance activation message to the device library.";
  },

  async activate(gateway) {
    return activated(await gateway.activate(value("identifier"), value("activationSignature")));
  },

  async activateStandard(gateway) {
    return activated(await gateway.activateStandard(value("identifier"), { response: value("response") }));
  },

  async retrieve(gateway) {
    const { path, service } = requested();
    delete phone.requestMessage;
    const { requestMessage } = await gateway.call(path + service.retrieve, { serialNumber: value("serialNumber"), [service.key]: value("requestKey") });
    phone.requestMessage = requestMessage;
    fill("cancelSerialNumber", value("serialNumber"));
    fill("cancelKey", value("requestKey"));
    return "The request is retrieved. From now on it is this phone's. Give the request message to the device library.";
  },

  async approve(gateway) {
    const { path, service } = requested();
    const { userID } = await gateway.call(path + service.approve, {
      userID: value("userID"), domain: value("domain"), [service.key]: value("requestKey"), signature: value("signature"),
    });
    return `Approved by ${userID}.`;
  },

  async cancel(gateway) {
    const { path, service } = requested();
    await gateway.call(path + service.cancel, { serialNumber: value("cancelSerialNumber"), [service.key]: value("cancelKey") });
    return "The request is cancelled.";
  },
};

function value(id) {
  return field(id).value.trim();
}

function requested() {
  const service = services[value("kind")];
  return { service, path: `${service.path}${value("channel")}/` };
}

function activated(user) {
  for (const name of ["userID", "domain"]) fill(name, user[name]);
  return `Activated: ${user.serialNumber} of ${user.userID} in ${user.domain}.`;
}

// What to do after an error, by its kind.
const advice = {
  unauthorized: "Check the front-end key.",
  unavailable: "Nothing was carried out. Try again.",
  unknownOutcome: "Begin again.",
  verification: "Stop: the server did not prove itself, or the data was altered.",
};

// Runs one action of a form and says how it ended. Others are refused while it runs, so that
// values of two steps never mix.
let busy = false;
async function act(form, button, action) {
  if (busy) return;
  busy = true;
  button.setAttribute("aria-disabled", "true");
  const said = form.querySelector(".said");
  said.textContent = "";
  said.classList.remove("failed");
  try {
    said.textContent = await action();
  } catch (error) {
    said.classList.add("failed");
    said.textContent = `Failed: ${error.message}. ${(error instanceof DsappError && advice[error.kind]) || ""}`.trimEnd();
  } finally {
    busy = false;
    button.removeAttribute("aria-disabled");
  }
}

for (const form of document.forms) {
  const step = steps[form.id];
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (step === undefined || busy) return;
    act(form, form.querySelector("[type=submit]"), () => {
      form.parentElement.querySelector(".record")?.remove();
      const record = make("ol", { className: "record" });
      form.after(record);
      const show = (name, text, meaning = meanings[name.split(" ").at(-1)] ?? "") => record.append(shownValue(name, text, meaning));
      const gateway = new Gateway({
        baseURL: location.origin,
        apiKey: field("apiKey").value,
        profile: value("profile"),
        inspect: (name, digits) => show(name, digits), // name is that of a value, or an item and a key
        observe: (call) => record.append(shownCall(call)),
      });
      return step(gateway, show);
    });
  });
}

// An item of a record with one value.
function shownValue(name, text, meaning) {
  const title = make("p");
  title.append(make("code", { className: "name", textContent: name }), meaning === "" ? "" : `: ${meaning}`);
  const item = make("li");
  item.append(title, make("code", { className: "value", textContent: text }));
  return item;
}

// An item of a record with one call.
function shownCall({ path, request, httpStatus, answer }) {
  const title = make("p");
  const status = answer?.resultCodes?.statusCodeEnum ?? "";
  title.append(make("span", { className: "method", textContent: "POST" }), " ", make("code", { className: "path", textContent: path }),
    ` ${httpStatus === 0 ? "no answer" : httpStatus} ${status}`);
  const item = make("li");
  item.append(title, shownJSON("Request", request));
  if (answer !== undefined) item.append(shownJSON("Answer", answer));
  return item;
}

function shownJSON(label, members) {
  const head = make("p");
  head.append(make("span", { className: "tongue", textContent: label }));
  const text = make("pre");
  text.append(make("code", { textContent: JSON.stringify(members, undefined, 2) }));
  const block = make("div", { className: "code" });
  block.append(head, text);
  return block;
}

function make(name, properties = {}) {
  return Object.assign(document.createElement(name), properties);
}

// The content of an image fills in the fields.
field("image").addEventListener("input", () => {
  const said = field("exchange").querySelector(".said");
  said.textContent = "";
  said.classList.remove("failed");
  if (value("image") === "") return;
  try {
    const { registrationIdentifier, activationPassword, userID, domain } = parseActivationImage(value("image"));
    fill("identifier", registrationIdentifier);
    fill("password", activationPassword);
    said.textContent = `The image is for ${userID} in ${domain}.`;
  } catch (error) {
    said.classList.add("failed");
    said.textContent = `Failed: ${error.message}.`;
  }
});

field("origin").textContent = location.origin;
for (const name of profileNames) field("profile").append(new Option(name, name, name === defaultProfile, name === defaultProfile));

// A browser may keep a page that was left, with all its values.
addEventListener("pagehide", () => {
  for (const form of document.forms) {
    form.reset();
    form.parentElement.querySelector(".record")?.remove();
  }
  for (const name of Object.keys(phone)) delete phone[name];
});
