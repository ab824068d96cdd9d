// The simulated device of `caddy dsapp sandbox`, for demonstrations and tests. It stands in for the
// vendor's device library and has nothing in common with it but the form of the values.
// docs/protocol.md describes it.

import { type DeviceLibrary, fromHex, toHex } from "./dsapp.js";

type Bytes = Uint8Array<ArrayBuffer>;

const headerSize = 7;
const secretSize = 32;
const tagSize = 14;
const nonceSize = 16;
const informationFlags = 0x0901;
const serialAlphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/** What a request message asks the user to approve. */
export interface PendingRequest {
  kind: "login" | "signature";
  key: string;
  userID: string;
  domain: string;
  title: string;
  fields?: { key: string; value: string }[];
}

const text = (s: string): Bytes => new TextEncoder().encode(s);

function concat(...parts: Uint8Array[]): Bytes {
  const all = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    all.set(part, offset);
    offset += part.length;
  }
  return all;
}

function uint(value: number | bigint, size: number): Bytes {
  return fromHex(value.toString(16).padStart(2 * size, "0")) as Bytes;
}

async function derive(secret: Bytes, label: string, ...parts: Uint8Array[]): Promise<Bytes> {
  const key = await crypto.subtle.importKey("raw", secret, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  const framed = [text(label), ...parts].flatMap((part) => [uint(part.length, 4), part]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", key, concat(...framed)));
}

async function stream(key: Bytes, data: Bytes): Promise<Bytes> {
  const cipher = await crypto.subtle.importKey("raw", key, "AES-CTR", false, ["encrypt"]);
  return new Uint8Array(await crypto.subtle.encrypt({ name: "AES-CTR", counter: new Uint8Array(16), length: 128 }, cipher, data));
}

function decimal(hash: Uint8Array, digits: number): string {
  return BigInt(`0x${toHex(hash.subarray(0, 8))}`).toString().padStart(20, "0").slice(-digits);
}

function luhn(digits: string): string {
  let sum = 0;
  for (let i = 0; i < digits.length; i++) {
    let d = Number(digits[digits.length - 1 - i]);
    if (i % 2 === 0 && (d *= 2) > 9) d -= 9;
    sum += d;
  }
  return String((10 - (sum % 10)) % 10);
}

function header(flags: number, serial: string): Bytes {
  let prefix = 0;
  for (const letter of serial.slice(0, 3)) prefix = prefix * 40 + serialAlphabet.indexOf(letter);
  return concat(uint(flags, 2), uint(prefix, 2), uint(Number(serial.slice(3)), 3));
}

function serialOf(message: Uint8Array): string {
  const at = (i: number) => message[i] as number;
  let prefix = at(2) * 256 + at(3);
  let letters = "";
  for (let i = 0; i < 3; i++) {
    letters = serialAlphabet.charAt(prefix % 40) + letters;
    prefix = Math.floor(prefix / 40);
  }
  return letters + String(at(4) * 65536 + at(5) * 256 + at(6)).padStart(7, "0");
}

function parse(digits: string, what: string): Bytes {
  const message = fromHex(digits);
  if (message === undefined || message.length < headerSize + secretSize + tagSize) throw new Error(`this is no ${what}`);
  return message;
}

async function checkTag(message: Bytes, size: number, secret: Bytes, label: string, parts: Uint8Array[], what: string): Promise<void> {
  const end = message.length - size;
  const tag = await derive(secret, label, ...parts, message.subarray(0, end));
  if (toHex(tag.subarray(0, size)) !== toHex(message.subarray(end))) throw new Error(`the ${what} is altered or for another device`);
}

/** A simulated device, first without a licence. */
export class SandboxDevice implements DeviceLibrary {
  #license: Bytes | undefined;
  #code = "";
  #serial = "";
  #sequence = 0;
  #secret: Bytes | undefined;
  #counter = 0n;

  constructor(private readonly id: number = crypto.getRandomValues(new Uint32Array(1))[0] as number) {}

  /** Serial number, such as VDS1000120-1, or VDS1000121 for a standard licence. */
  get serialNumber(): string {
    return this.#sequence === 0 ? this.#serial : `${this.#serial}-${this.#sequence}`;
  }

  async activateLicense(activationMessage: string): Promise<string> {
    const message = parse(activationMessage, "activation message");
    const secret = message.slice(headerSize, headerSize + secretSize);
    await checkTag(message, 32, secret, "sandbox license message", [], "activation message");
    this.#license = secret;
    this.#serial = serialOf(message);
    const payload = `07${String(this.id).padStart(10, "0")}`;
    const digits = payload + decimal(await derive(secret, "sandbox device code", text(payload)), 13);
    this.#code = digits + luhn(digits);
    return this.#code;
  }

  async activateInstance(instanceActivationMessage: string): Promise<string> {
    if (this.#license === undefined) throw new Error("the licence has to be activated first");
    const message = parse(instanceActivationMessage, "instance activation message");
    const code = text(this.#code);
    await checkTag(message, tagSize, this.#license, "sandbox instance mac", [code], "instance activation message");
    const sequence = message[headerSize] as number;
    const key = await derive(this.#license, "sandbox instance encryption", code, uint(sequence, 1));
    const secret = await stream(key, message.slice(headerSize + 1, message.length - tagSize));
    this.#sequence = sequence;
    this.#secret = secret;
    return decimal(await derive(secret, "sandbox confirmation", code, text(instanceActivationMessage.toUpperCase())), 16);
  }

  /** Activates a standard licence. */
  async activateStandard(activationCode: string, eventReactivationCounter: string): Promise<void> {
    const message = parse(activationCode, "activation code");
    const secret = message.slice(headerSize, headerSize + secretSize);
    await checkTag(message, tagSize, secret, "sandbox activation code", [], "activation code");
    this.#serial = serialOf(message);
    this.#sequence = 0;
    this.#secret = secret;
    this.#counter = BigInt(eventReactivationCounter);
  }

  /** Returns the next one-time password. */
  async oneTimePassword(): Promise<string> {
    return decimal(await derive(this.#key(), "sandbox one-time password", uint(this.#counter++, 8)), 6);
  }

  /** Reads a request message. */
  async open(requestMessage: string): Promise<PendingRequest> {
    return JSON.parse(new TextDecoder().decode(await this.#content(requestMessage))) as PendingRequest;
  }

  /** Returns the signature that approves the request of a request message. */
  async sign(requestMessage: string): Promise<string> {
    const { kind } = await this.open(requestMessage);
    const hash = await derive(this.#key(), "sandbox request signature", text(kind), await this.#content(requestMessage));
    return decimal(hash, kind === "login" ? 16 : 7);
  }

  /** Wraps the key of a request to reject. */
  wrapKey(key: string): Promise<string> {
    return this.#seal("key", text(key));
  }

  /** Wraps the ID of the phone in the push service. */
  wrapNotificationID(id: string): Promise<string> {
    return this.#seal("notification ID", text(id));
  }

  #key(): Bytes {
    if (this.#secret === undefined) throw new Error("the device has to be activated first");
    return this.#secret;
  }

  async #content(requestMessage: string): Promise<Bytes> {
    const message = parse(requestMessage, "request message");
    const kind = text("request");
    await checkTag(message, tagSize, this.#key(), "sandbox channel mac", [kind], "request message");
    const start = headerSize + 1 + nonceSize;
    const key = await derive(this.#key(), "sandbox channel encryption", kind, message.subarray(0, start));
    return stream(key, message.slice(start, message.length - tagSize));
  }

  async #seal(kind: string, content: Bytes): Promise<string> {
    const nonce = crypto.getRandomValues(new Uint8Array(nonceSize));
    const start = concat(header(informationFlags, this.#serial), uint(this.#sequence, 1), nonce);
    const key = await derive(this.#key(), "sandbox channel encryption", text(kind), start);
    const message = concat(start, await stream(key, content));
    const tag = await derive(this.#key(), "sandbox channel mac", text(kind), message);
    return toHex(concat(message, tag.subarray(0, tagSize)));
  }
}
