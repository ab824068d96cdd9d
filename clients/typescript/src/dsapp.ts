// A phone's side of the DSAPP Gateway: the SRP-6a exchange, the opening of activation data, and
// the calls of an activation. docs/protocol.md describes the protocol.
//
// This is one module without dependencies, for browsers and Node 18 or later: a page can embed the
// compiled file as it is. It needs fetch and WebCrypto (crypto.subtle), which browsers have in
// secure contexts only.
//
// Secrets: byte arrays are overwritten when they are no longer needed. Numbers (BigInt) and strings,
// among them a, x, S and the password, cannot be overwritten in JavaScript; they are dropped and
// left to the garbage collector. BigInt arithmetic is not constant-time, see README.md.

/** The groups of the profiles. A phone never takes them from a server. */
const groups = {
  "rfc5054-2048": {
    g: 2n,
    n:
    "AC6BDB41324A9A9BF166DE5E1389582FAF72B6651987EE07FC3192943DB56050A37329CBB4A099ED8193E0757767A13DD52312AB4B03310DCD7F48A9DA04FD50" +
    "E8083969EDB767B0CF6095179A163AB3661A05FBD5FAAAE82918A9962F0B93B855F97993EC975EEAA80D740ADBF4FF747359D041D5C33EA71D281E446B14773B" +
    "CA97B43A23FB801676BD207A436C6481F1D2B9078717461A5B9D32E688F87748544523B524B0D57D5EA77A2775D2ECFA032CFBDBF52FB3786160279004E57AE6" +
    "AF874E7303CE53299CCC041C7BC308D82A5698F3A8D0C38271AE35F8E9DBFBB694B5C803D89F7AE435DE236D525F54759B65E372FCD68EF20FA7111F9E4AFF73",
  },
  "rfc5054-3072": {
    g: 5n,
    n:
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437" +
    "4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05" +
    "98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B" +
    "E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA051015728E5A8AAAC42DAD33170D04507A33" +
    "A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864" +
    "D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF",
  },
  "rfc5054-4096": {
    g: 5n,
    n:
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437" +
    "4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05" +
    "98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B" +
    "E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA051015728E5A8AAAC42DAD33170D04507A33" +
    "A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864" +
    "D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A92108011A723C12A787E6D7" +
    "88719A10BDBA5B2699C327186AF4E23C1A946834B6150BDA2583E9CA2AD44CE8DBBBC2DB04DE8EF92E8EFC141FBECAA6287C59474E6BC05D99B2964FA090C3A2" +
    "233BA186515BE7ED1F612970CEE2D7AFB81BDD762170481CD0069127D5B05AA993B4EA988D8FDDC186FFB7DC90A6C08F4DF435C934063199FFFFFFFFFFFFFFFF",
  },
};

/**
 * A profile: which byte strings each formula joins, as docs/protocol.md writes them. A word is a
 * member, a member and a form, or `=` and a text.
 */
interface Formulas {
  group: keyof typeof groups;
  hash: "SHA-256" | "SHA-512";
  k: string;
  x: string;
  /** What the session key K is: the hash of these words, or the words themselves. */
  keyFunction: "hash" | "none";
  key: string;
  m1: string;
  m2: string;
}

const rfc5054: Formulas = {
  group: "rfc5054-2048", hash: "SHA-256", k: "N g", x: "s inner", keyFunction: "hash", key: "S", m1: "X H(I) s A B K", m2: "A M1 K",
};
const nimbus: Formulas = {
  ...rfc5054, x: "s.minimal inner", key: "S.minimal", m1: "A.minimal B.minimal S.minimal", m2: "A.minimal M1.minimal S.minimal",
};

const profiles = {
  "rfc5054-2048-sha256": rfc5054,
  "rfc5054-3072-sha256": { ...rfc5054, group: "rfc5054-3072" },
  "rfc5054-4096-sha256": { ...rfc5054, group: "rfc5054-4096" },
  "bouncycastle": { ...rfc5054, m1: "A B S", m2: "A M1.padded S" },
  "fast-srp-hap": rfc5054,
  nimbus,
  "secure-remote-password": { ...rfc5054, k: "N g.minimal" },
  "tssrp6a": { ...nimbus, hash: "SHA-512", keyFunction: "none" },
} as const satisfies Record<string, Formulas>;

/**
 * The name of a profile: one of the gateway's own, or of the preset of a library. The bank says
 * which one its gateway uses.
 */
export type ProfileName = keyof typeof profiles;

/** The profile of a gateway that is not configured otherwise. */
export const defaultProfile: ProfileName = "rfc5054-2048-sha256";

/** The names of all profiles. */
export const profileNames = Object.keys(profiles) as readonly ProfileName[];

/** An item of activation data. Each is encrypted under keys of its own. */
export type Item = "licenseActivationMessage" | "activationCode" | "eventReactivationCounter";

/** An encrypted item as the gateway sends it: hexadecimal digits. */
export interface SealedItem {
  data: string;
  encryptedCounter: string;
  mac: string;
}

/** The result codes of an answer. */
export interface ResultCodes {
  returnCodeEnum: string;
  statusCodeEnum: string;
  returnCode: number;
  statusCode: number;
}

// Errors. All are DsappErrors; `kind` tells them apart without instanceof, which fails between
// two copies of this module. No message contains a password, key or activation data.

export type ErrorKind =
  | "input"
  | "refused"
  | "locked"
  | "request"
  | "unauthorized"
  | "unavailable"
  | "unknownOutcome"
  | "verification"
  | "protocol";

/** The class of all errors of this module. */
export class DsappError extends Error {
  constructor(
    readonly kind: ErrorKind,
    message: string,
    options?: { cause?: unknown },
  ) {
    super(message);
    this.name = new.target.name;
    // Set here because older engines do not take it as an option of Error.
    if (options?.cause !== undefined) Object.defineProperty(this, "cause", { value: options.cause, configurable: true });
  }
}

/** A value of the caller, such as an identifier or a password, cannot be right. No call was made. */
export class InputError extends DsappError {
  constructor(message: string) {
    super("input", message);
  }
}

/**
 * The gateway or the authentication server refused the call. In an exchange this means a wrong
 * password, or a registration that is unknown, expired or used up: nobody can tell which.
 */
export class RefusedError extends DsappError {
  constructor(
    readonly call: string,
    readonly resultCodes: ResultCodes,
    kind: "refused" | "locked" = "refused",
  ) {
    super(kind, `${call} was refused: ${resultCodes.statusCodeEnum} (${resultCodes.statusCode})`);
  }
}

/** The call was refused because the user's account is locked. */
export class LockedError extends RefusedError {
  constructor(call: string, resultCodes: ResultCodes) {
    super(call, resultCodes, "locked");
  }
}

/** The gateway calls the request malformed (400, 404, 405, 413, 415): a mistake of the program. */
export class RequestError extends DsappError {
  constructor(
    readonly call: string,
    readonly httpStatus: number,
    readonly description: string,
  ) {
    super("request", `${call}: HTTP status ${httpStatus}${description === "" ? "" : `: ${description}`}`);
  }
}

/** The API key is missing, wrong or not for this service (401, 403). */
export class UnauthorizedError extends DsappError {
  constructor(
    readonly call: string,
    readonly httpStatus: number,
  ) {
    super("unauthorized", `${call}: the API key is not accepted (HTTP status ${httpStatus})`);
  }
}

/**
 * The gateway carried out nothing (408, 425, 429, 503). The same call can be made again after
 * `retryAfter` seconds; a proof (DSAPPSRPGenerateActivationData) only after a new exchange.
 */
export class UnavailableError extends DsappError {
  constructor(
    readonly call: string,
    readonly httpStatus: number,
    readonly retryAfter: number,
  ) {
    super("unavailable", `${call}: not available now (HTTP status ${httpStatus}), try again after ${retryAfter} seconds`);
  }
}

/**
 * No answer, or one that does not tell (5xx, lost connection, timeout, abort): the call may have been
 * carried out or not. `httpStatus` is 0 if there was no answer.
 */
export class UnknownOutcomeError extends DsappError {
  constructor(
    readonly call: string,
    readonly httpStatus: number,
    cause?: unknown,
  ) {
    super("unknownOutcome", `${call}: ${httpStatus === 0 ? "no answer" : `HTTP status ${httpStatus}`}, it may have been carried out`, { cause });
  }
}

/**
 * The gateway did not prove itself, or activation data was altered. Do not go on, and do not use
 * anything of the answer: this can be an attack.
 */
export class VerificationError extends DsappError {
  constructor(
    readonly value: "salt" | "serverEphemeralPublicKey" | "serverEvidenceMessage" | "activationData" | "serialNumber",
    message: string,
  ) {
    super("verification", message);
  }
}

/** An answer does not have the documented form: another program answers there, or it is too new. */
export class ProtocolError extends DsappError {
  constructor(call: string, problem: string) {
    super("protocol", `${call}: ${problem}`);
  }
}

// Bytes and numbers.

type Bytes = Uint8Array<ArrayBuffer>;

/** Returns upper-case hexadecimal digits. */
export function toHex(bytes: Uint8Array): string {
  let digits = "";
  for (const byte of bytes) digits += byte.toString(16).padStart(2, "0");
  return digits.toUpperCase();
}

/** Returns the bytes of hexadecimal digits of either case, or undefined if they are none. */
export function fromHex(digits: string): Bytes | undefined {
  if (digits.length % 2 !== 0 || !/^[0-9A-Fa-f]*$/.test(digits)) return undefined;
  const bytes = new Uint8Array(digits.length / 2);
  for (let i = 0; i < bytes.length; i++) bytes[i] = parseInt(digits.slice(2 * i, 2 * i + 2), 16);
  return bytes;
}

const toNumber = (bytes: Uint8Array): bigint => (bytes.length === 0 ? 0n : BigInt(`0x${toHex(bytes)}`));

/** PAD: big-endian bytes with leading zeros. */
function pad(n: bigint, size: number): Bytes {
  const bytes = fromHex(n.toString(16).padStart(2 * size, "0"));
  if (bytes === undefined || bytes.length !== size) throw new RangeError("number is too large");
  return bytes;
}

function concat(...parts: Uint8Array[]): Bytes {
  const all = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    all.set(part, offset);
    offset += part.length;
  }
  return all;
}

/** Returns the bytes of ASCII text, which the callers have checked. */
function ascii(text: string): Bytes {
  return Uint8Array.from(text, (c) => c.charCodeAt(0));
}

/** Compares without stopping at the first difference. */
function equal(a: Uint8Array, b: Uint8Array): boolean {
  let difference = a.length ^ b.length;
  for (let i = 0; i < a.length; i++) difference |= (a[i] as number) ^ (b[i % b.length] ?? 0);
  return difference === 0;
}

const windowBits = 4;

/**
 * Returns base^exponent mod modulus. The sequence of multiplications depends on the size of the
 * exponent in bytes only. The time of each multiplication is up to the engine.
 */
function power(base: bigint, exponent: Uint8Array, modulus: bigint): bigint {
  const table = [1n % modulus];
  for (let i = 1; i < 1 << windowBits; i++) table.push(((table[i - 1] as bigint) * base) % modulus);
  let result = 1n;
  for (const byte of exponent) {
    for (const digit of [byte >> windowBits, byte & ((1 << windowBits) - 1)]) {
      for (let i = 0; i < windowBits; i++) result = (result * result) % modulus;
      result = (result * (table[digit] as bigint)) % modulus;
    }
  }
  return result;
}

// The exchange.

/** Joins the byte strings of words. The length of N is that of padded members. */
function join(words: string, members: Record<string, Bytes>, size: number): Bytes {
  return concat(...words.split(" ").map((word) => {
    const [name = "", form] = word.split(".");
    const bytes = members[name];
    if (bytes === undefined) throw new RangeError(`${name} is not known here`);
    const first = bytes.findIndex((byte) => byte !== 0);
    if (form === "minimal") return bytes.subarray(first < 0 ? bytes.length : first);
    return form === "padded" ? concat(new Uint8Array(Math.max(0, size - bytes.length)), bytes) : bytes;
  }));
}

const saltSize = 16;
const privateSize = 32;
const macSize = 32;
const counterSize = 8;

/** Part of WebCrypto that this module uses. */
export type CryptoProvider = Pick<Crypto, "subtle" | "getRandomValues">;

export interface ExchangeOptions {
  /** Default: defaultProfile. */
  profile?: ProfileName;
  /** Default: globalThis.crypto. React Native needs a polyfill here. */
  crypto?: CryptoProvider;
  /**
   * Gets every intermediate value (x, u, S, K …) in hexadecimal digits, for tests and for pages that
   * show how the exchange works. These values are secrets: never set it in an application.
   */
  inspect?: (name: string, value: string) => void;
  /** The private value a, 32 bytes, for tests with fixed vectors. Default: random. It is overwritten. */
  privateValue?: Uint8Array;
}

/** The phone's side of one exchange, without network: begin, prove, confirm, in this order. */
export class Exchange {
  readonly #formulas: Formulas;
  readonly #n: bigint;
  readonly #g: bigint;
  readonly #size: number;
  readonly #crypto: CryptoProvider;
  readonly #inspect: (name: string, value: string) => void;
  readonly #identifier: string;
  #password: string;
  readonly #a: Uint8Array;
  readonly #A: Bytes;
  #key: Bytes | undefined;
  #expected: Uint8Array | undefined;
  #transcript: Bytes | undefined;

  /** Throws an InputError if identifier or password cannot be right. */
  constructor(identifier: string, password: string, options: ExchangeOptions = {}) {
    if (!/^[0-9A-Za-z._-]{4,64}$/.test(identifier)) throw new InputError("the registration identifier is not 4 to 64 letters, digits, dots, hyphens or underscores");
    if (!/^[\x20-\x7e]{4,64}$/.test(password)) throw new InputError("the activation password is not 4 to 64 printable ASCII characters");
    const formulas: Formulas | undefined = profiles[options.profile ?? defaultProfile];
    if (formulas === undefined) throw new InputError("the profile is unknown");
    this.#formulas = formulas;
    const group = groups[formulas.group];
    this.#crypto = options.crypto ?? globalThis.crypto;
    if (this.#crypto?.subtle === undefined) throw new InputError("there is no crypto.subtle: a browser has it on https and localhost only");
    this.#n = BigInt(`0x${group.n}`);
    this.#g = group.g;
    this.#size = group.n.length / 2;
    this.#inspect = options.inspect ?? (() => undefined);
    this.#identifier = identifier;
    this.#password = password;
    this.#a = options.privateValue ?? this.#crypto.getRandomValues(new Uint8Array(privateSize));
    if (this.#a.length !== privateSize) throw new InputError("the private value is not 32 bytes");
    this.#A = pad(power(this.#g, this.#a, this.#n), this.#size);
    this.#show("a", this.#a);
    this.#show("A", this.#A);
  }

  /** A as hexadecimal digits, for the first call. */
  get publicValue(): string {
    return toHex(this.#A);
  }

  /**
   * Takes salt and B of the first answer and returns M1 for the second call, all as hexadecimal
   * digits. Throws a VerificationError if they are unusable. Call it once.
   */
  async prove(saltDigits: string, serverPublicDigits: string): Promise<string> {
    const password = this.#password;
    if (password === "") throw new InputError("the exchange was used before");
    this.#password = "";
    const salt = fromHex(saltDigits);
    if (salt?.length !== saltSize) throw new VerificationError("salt", "the salt is not 16 bytes");
    const B = fromHex(serverPublicDigits);
    const b = toNumber(B ?? new Uint8Array());
    if (B?.length !== this.#size || b === 0n || b >= this.#n) {
      throw new VerificationError("serverEphemeralPublicKey", "the server's public value is out of range");
    }
    const [f, n, g, size] = [this.#formulas, this.#n, this.#g, this.#size];
    const I = ascii(this.#identifier);
    const members: Record<string, Bytes> = { N: pad(n, size), g: pad(g, size), s: salt, A: this.#A, B, "H(I)": await this.#hash(I) };
    const k = toNumber(await this.#digest(f.k, members));
    const u = await this.#digest("A B", members);
    if (u.every((byte) => byte === 0)) throw new VerificationError("serverEphemeralPublicKey", "the server's public value is unusable");

    const typed = ascii(`${this.#identifier}:${password}`);
    const inner = members.inner = await this.#hash(typed);
    const x = await this.#digest(f.x, members);
    // S = (B - k*g^x)^(a + u*x); the exponent as big-endian bytes of one size.
    const base = (((b - ((k * power(g, x, n)) % n)) % n) + n) % n;
    const exponent = pad(toNumber(this.#a) + toNumber(u) * toNumber(x), 2 * x.length + 1);
    const S = members.S = pad(power(base, exponent, n), size);
    const key = members.K = f.keyFunction === "hash" ? await this.#digest(f.key, members) : join(f.key, members, size);

    const start = members.X = await this.#hash(pad(n, size));
    const hashG = await this.#hash(pad(g, 1));
    for (let i = 0; i < start.length; i++) start[i] = (start[i] as number) ^ (hashG[i] as number);
    const M1 = members.M1 = await this.#digest(f.m1, members);
    this.#expected = await this.#digest(f.m2, members);
    this.#transcript = await this.#hash(concat(this.#A, B), "SHA-256");
    this.#key = key;
    for (const [name, value] of Object.entries({ salt, B, u, innerHash: inner, x, S, K: key, M1 })) this.#show(name, value);
    for (const secret of [typed, inner, x, exponent, S, this.#a]) secret.fill(0);
    return toHex(M1);
  }

  /**
   * Takes M2 of the second answer and returns the session that opens the data. Throws a
   * VerificationError if the server did not prove itself.
   */
  async confirm(serverEvidenceDigits: string): Promise<Session> {
    const [key, expected, transcript] = [this.#key, this.#expected, this.#transcript];
    this.#key = this.#expected = undefined;
    if (key === undefined || expected === undefined || transcript === undefined) throw new InputError("no exchange waits for the server's evidence");
    this.#show("M2", expected);
    const evidence = fromHex(serverEvidenceDigits);
    if (evidence?.length !== expected.length || !equal(evidence, expected)) {
      key.fill(0);
      throw new VerificationError("serverEvidenceMessage", "the server did not prove that it knows the activation password");
    }
    return new Session(key, transcript, this.#crypto, this.#inspect);
  }

  /** Overwrites what can be overwritten. For exchanges that are not brought to their end. */
  clear(): void {
    this.#password = "";
    this.#a.fill(0);
    this.#key?.fill(0);
    this.#key = undefined;
  }

  /** The hash of the joined words. */
  async #digest(words: string, members: Record<string, Bytes>): Promise<Bytes> {
    const input = join(words, members, this.#size);
    const digest = await this.#hash(input);
    input.fill(0);
    return digest;
  }

  async #hash(input: Bytes, algorithm: string = this.#formulas.hash): Promise<Bytes> {
    return new Uint8Array(await this.#crypto.subtle.digest(algorithm, input));
  }

  #show(name: string, value: Uint8Array): void {
    this.#inspect(name, toHex(value));
  }
}

/** Opens the items of one exchange. Clear it when all are opened. */
export class Session {
  readonly #key: Bytes;
  readonly #salt: Bytes;
  readonly #subtle: SubtleCrypto;
  readonly #inspect: (name: string, value: string) => void;

  /** Exchange.confirm makes sessions. */
  constructor(key: Bytes, salt: Bytes, crypto: CryptoProvider, inspect: (name: string, value: string) => void) {
    this.#key = key;
    this.#salt = salt;
    this.#subtle = crypto.subtle;
    this.#inspect = inspect;
  }

  /** Verifies and decrypts an item, which is ASCII text. Throws a VerificationError if it was altered. */
  async open(item: Item, sealed: SealedItem): Promise<string> {
    const [data, counter, mac] = [sealed.data, sealed.encryptedCounter, sealed.mac].map(fromHex);
    const altered = new VerificationError("activationData", `the ${item} was altered`);
    if (data === undefined || data.length === 0 || counter?.length !== counterSize || mac?.length !== macSize) throw altered;

    const macKey = await this.#derive(item, "mac");
    const verifier = await this.#subtle.importKey("raw", macKey, { name: "HMAC", hash: "SHA-256" }, false, ["verify"]);
    this.#inspect(`${item} macKey`, toHex(macKey));
    macKey.fill(0);
    if (!(await this.#subtle.verify("HMAC", verifier, mac, concat(counter, data)))) throw altered;

    const encryptionKey = await this.#derive(item, "encryption");
    const decrypter = await this.#subtle.importKey("raw", encryptionKey, "AES-CTR", false, ["decrypt"]);
    this.#inspect(`${item} encryptionKey`, toHex(encryptionKey));
    encryptionKey.fill(0);
    // The blocks are counted in the last 64 bits of the initial block.
    const algorithm = { name: "AES-CTR", counter: concat(counter, new Uint8Array(8)), length: 64 };
    const plaintext = new Uint8Array(await this.#subtle.decrypt(algorithm, decrypter, data));
    let text = "";
    for (const byte of plaintext) text += String.fromCharCode(byte);
    plaintext.fill(0);
    return text;
  }

  /** Overwrites the key. Nothing can be opened after it. */
  clear(): void {
    this.#key.fill(0);
  }

  async #derive(item: Item, purpose: string): Promise<Bytes> {
    const key = await this.#subtle.importKey("raw", this.#key, "HKDF", false, ["deriveBits"]);
    const algorithm = { name: "HKDF", hash: "SHA-256", salt: this.#salt, info: ascii(`DSAPP-SRP v1 ${item} ${purpose}`) };
    return new Uint8Array(await this.#subtle.deriveBits(algorithm, key, 256));
  }
}

// The activation image.

/** The content of an activation image. */
export interface ActivationImage {
  userID: string;
  domain: string;
  registrationIdentifier: string;
  activationPassword: string;
  gatewayID: string;
}

/** Reads the content of an activation image, hexadecimal digits. Throws an InputError. */
export function parseActivationImage(digits: string): ActivationImage {
  const bytes = fromHex(digits.trim());
  let fields: string[] = [];
  try {
    fields = new TextDecoder("utf-8", { fatal: true }).decode(bytes).split(";");
  } catch {
    // The check below fails.
  }
  const [version, type, userID, domain, registrationIdentifier, activationPassword, gatewayID] = fields;
  if (fields.length !== 7 || version !== "01" || type !== "01") throw new InputError("this is not an activation image");
  return { userID, domain, registrationIdentifier, activationPassword, gatewayID } as ActivationImage;
}

// The calls.

/** What a phone gets by an exchange. */
export type ActivationData =
  | { licenseType: "mdl"; activationMessage: string }
  | { licenseType: "standard"; activationCode: string; eventReactivationCounter: string | undefined };

/** Whom the authentication server has activated. */
export interface Activated {
  userID: string;
  domain: string;
  serialNumber: string;
}

/** One call, for those who want to show or count calls. It contains secrets in `answer` and `request`. */
export interface CallObservation {
  path: string;
  request: Record<string, string>;
  httpStatus: number;
  answer: unknown;
}

export interface GatewayOptions {
  /** For example https://gateway.example.com, with the path in front of /rest if there is one. */
  baseURL: string;
  /** The front-end API key. It is in every copy of the application and no secret. */
  apiKey: string;
  profile?: ProfileName;
  crypto?: CryptoProvider;
  /** Default: globalThis.fetch. Pass another one to pin certificates. */
  fetch?: typeof globalThis.fetch;
  /** Milliseconds for one call, 45000 by default: the gateway waits up to 30 seconds for a server. */
  timeout?: number;
  /**
   * How often a call without an answer, or with 502, 503 or 504, is repeated: 3 by default. Only calls
   * are repeated that the gateway answers again; an exchange begins anew, at most twice. Use 0 if the
   * gateway has `requests.repeat` `0s`: it would carry out such a call again.
   */
  repeats?: number;
  inspect?: ExchangeOptions["inspect"];
  observe?: (call: CallObservation) => void;
}

/** What the device library has to do in an activation of a multi-device licence. */
export interface DeviceLibrary {
  /** Takes the activation message and returns the device code. */
  activateLicense(activationMessage: string): string | Promise<string>;
  /** Takes the instance activation message and returns the signature. */
  activateInstance(instanceActivationMessage: string): string | Promise<string>;
}

/** Members of an answer. */
export type Result = Record<string, unknown>;

const provisioning = "/rest/v2/provisioning/";
/** The services whose answer the gateway keeps for a repeat. */
const repeatable = /^\/rest\/v2\/(provisioning\/(MdlAddDevice|MdlActivate|DSAPPSRPActivate)|(authentication|signature)\/(push|scan)\/[A-Za-z]+)$/;
/** A registration allows three successful exchanges by default. */
const maxNewExchanges = 2;
/** Milliseconds before the first repeat; each further one waits twice as long. */
const firstPause = 250;
/** Milliseconds from the first call on within which calls are repeated. The gateway keeps answers for a minute. */
const repeatWithin = 60_000;
const maxAnswer = 1 << 20;

/**
 * The calls of a phone to one gateway. Methods throw DsappErrors only, except for what a device library
 * throws.
 */
export class Gateway {
  readonly #options: GatewayOptions;

  /** Throws an InputError for a URL or an API key that cannot be one. */
  constructor(options: GatewayOptions) {
    if (!/^https?:\/\//.test(options.baseURL)) throw new InputError("the URL of the gateway does not begin with https://");
    if (!/^[\x20-\x39\x3b-\x7e]+$/.test(options.apiKey)) throw new InputError("the API key is not printable ASCII without a colon");
    this.#options = options;
  }

  /**
   * Makes the two calls of the exchange and returns the activation data. After a RefusedError, ask
   * for the password again; after 3 of them a registration is used up. If an answer is lost, it begins
   * a new exchange by itself.
   */
  async exchange(registrationIdentifier: string, activationPassword: string, signal?: AbortSignal): Promise<ActivationData> {
    return this.#repeat(maxNewExchanges, () => this.#exchange(registrationIdentifier, activationPassword, signal), signal);
  }

  async #exchange(registrationIdentifier: string, activationPassword: string, signal?: AbortSignal): Promise<ActivationData> {
    const exchange = new Exchange(registrationIdentifier, activationPassword, this.#options);
    let session: Session | undefined;
    try {
      const first = new Answer("DSAPPSRPGenerateEphemeralKey", await this.call(
        `${provisioning}DSAPPSRPGenerateEphemeralKey`, { registrationIdentifier, clientEphemeralPublicKey: exchange.publicValue }, signal,
      ));
      const clientEvidenceMessage = await exchange.prove(first.text("salt"), first.text("serverEphemeralPublicKey"));
      const second = new Answer("DSAPPSRPGenerateActivationData", await this.call(
        `${provisioning}DSAPPSRPGenerateActivationData`, { registrationIdentifier, clientEvidenceMessage }, signal,
      ));
      session = await exchange.confirm(second.text("serverEvidenceMessage"));
      if (!second.has("standard")) {
        const activationMessage = await session.open("licenseActivationMessage", second.sealed("encryptedLicenseActivationMessage"));
        if (fromHex(activationMessage) === undefined) throw new ProtocolError(second.call, "the activation message is not hexadecimal");
        return { licenseType: "mdl", activationMessage };
      }
      const standard = second.object("standard");
      return {
        licenseType: "standard",
        activationCode: await session.open("activationCode", standard.object("activationCode").sealed("data")),
        eventReactivationCounter: standard.has("eventReactivationCounter")
          ? await session.open("eventReactivationCounter", standard.object("eventReactivationCounter").sealed("data"))
          : undefined,
      };
    } finally {
      session?.clear();
      exchange.clear();
    }
  }

  /** Adds the device with its device code. Returns the instance activation message. */
  async addDevice(registrationIdentifier: string, deviceCode: string, description = "", signal?: AbortSignal): Promise<string> {
    const request = { registrationIdentifier, deviceCode, ...(description === "" ? {} : { description }) };
    return new Answer("MdlAddDevice", await this.call(`${provisioning}MdlAddDevice`, request, signal)).text("instanceActivationMessage");
  }

  /** Completes the activation of a multi-device licence. */
  async activate(registrationIdentifier: string, signature: string, signal?: AbortSignal): Promise<Activated> {
    return activated("MdlActivate", await this.call(`${provisioning}MdlActivate`, { registrationIdentifier, signature }, signal));
  }

  /** Completes the activation of a standard licence, by a one-time password or a derivation code. */
  async activateStandard(
    registrationIdentifier: string, proof: { response: string } | { derivationCode: string }, signal?: AbortSignal,
  ): Promise<Activated> {
    return activated("DSAPPSRPActivate", await this.call(`${provisioning}DSAPPSRPActivate`, { registrationIdentifier, ...proof }, signal));
  }

  /** Makes the four calls of an activation of a multi-device licence. */
  async activateDevice(
    registrationIdentifier: string, activationPassword: string, device: DeviceLibrary, description = "", signal?: AbortSignal,
  ): Promise<Activated> {
    const data = await this.exchange(registrationIdentifier, activationPassword, signal);
    if (data.licenseType !== "mdl") throw new ProtocolError("DSAPPSRPGenerateActivationData", "this is a standard licence");
    const deviceCode = await device.activateLicense(data.activationMessage);
    const message = await this.addDevice(registrationIdentifier, deviceCode, description, signal);
    return this.activate(registrationIdentifier, await device.activateInstance(message), signal);
  }

  /**
   * Calls any service of version 2 and returns the members of its result. path begins with /rest/v2/.
   * For the services of logins and signatures, which docs/protocol.md lists. A call that the gateway
   * answers again is repeated if its answer is lost.
   */
  async call(path: string, request: Record<string, string>, signal?: AbortSignal): Promise<Result> {
    return this.#repeat(repeatable.test(path) ? Infinity : 0, () => this.#call(path, request, signal), signal);
  }

  /** Makes a call, and again up to so many times and options.repeats while the answer is lost. */
  async #repeat<T>(most: number, make: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const repeats = Math.min(most, this.#options.repeats ?? 3);
    const began = Date.now();
    for (let made = 0; ; made++) {
      try {
        return await make();
      } catch (e) {
        const pause = Math.max(firstPause * 2 ** made, e instanceof UnavailableError ? e.retryAfter * 1000 : 0);
        if (made >= repeats || !answerLost(e) || signal?.aborted || Date.now() - began + pause > repeatWithin) throw e;
        await sleep(pause, signal);
        if (signal?.aborted) throw e;
      }
    }
  }

  async #call(path: string, request: Record<string, string>, signal?: AbortSignal): Promise<Result> {
    const { baseURL, apiKey, observe } = this.#options;
    const call = path.slice(path.lastIndexOf("/") + 1);
    const controller = new AbortController();
    const abort = () => controller.abort(signal?.reason);
    if (signal?.aborted) abort();
    signal?.addEventListener("abort", abort);
    const timer = setTimeout(() => controller.abort(new Error("timeout")), this.#options.timeout ?? 45_000);
    let response: Response;
    let text: string;
    try {
      response = await (this.#options.fetch ?? globalThis.fetch)(baseURL.replace(/\/+$/, "") + path, {
        method: "POST",
        headers: { "Content-Type": "application/json", Authorization: `Basic ${btoa(`${apiKey}:`)}` },
        body: JSON.stringify(request),
        credentials: "omit",
        redirect: "error",
        cache: "no-store",
        signal: controller.signal,
      });
      text = await response.text();
    } catch (e) {
      observe?.({ path, request, httpStatus: 0, answer: undefined });
      throw new UnknownOutcomeError(call, 0, e);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    }
    let answer: unknown;
    try {
      if (text.length <= maxAnswer) answer = JSON.parse(text);
    } catch {
      // An answer of a proxy, perhaps.
    }
    observe?.({ path, request, httpStatus: response.status, answer });
    return read(call, response, answer);
  }
}

/** Returns the result of an answer, or throws the error that it stands for. */
function read(call: string, response: Response, answer: unknown): Result {
  const status = response.status;
  const members: Result = isObject(answer) ? answer : {};
  if (status === 401 || status === 403) throw new UnauthorizedError(call, status);
  if (status === 408 || status === 425 || status === 429 || status === 503) {
    const seconds = Number(response.headers.get("Retry-After") ?? "");
    throw new UnavailableError(call, status, Number.isFinite(seconds) && seconds > 0 ? seconds : 1);
  }
  if (status >= 400 && status < 500) {
    throw new RequestError(call, status, typeof members.errorDescription === "string" ? members.errorDescription : "");
  }
  if (status !== 200) throw new UnknownOutcomeError(call, status);

  const codes = members.resultCodes;
  if (
    !isObject(codes) || typeof codes.returnCodeEnum !== "string" || typeof codes.statusCodeEnum !== "string" ||
    typeof codes.returnCode !== "number" || typeof codes.statusCode !== "number"
  ) {
    throw new ProtocolError(call, "the answer has no result codes");
  }
  const resultCodes = codes as unknown as ResultCodes;
  if ((resultCodes.returnCode === 0) !== (resultCodes.returnCodeEnum === "RET_SUCCESS")) throw new ProtocolError(call, "the result codes contradict each other");
  if (resultCodes.returnCode !== 0) {
    throw resultCodes.statusCodeEnum === "STAT_LOCKED" ? new LockedError(call, resultCodes) : new RefusedError(call, resultCodes);
  }
  const result = members.result ?? {};
  if (!isObject(result)) throw new ProtocolError(call, "result is not an object");
  return result;
}

/** Reports whether an error is that of a lost answer, or of a gateway that is not available for the moment. */
function answerLost(e: unknown): boolean {
  return e instanceof UnknownOutcomeError ? [0, 502, 504].includes(e.httpStatus) : e instanceof UnavailableError && e.httpStatus === 503;
}

/** Waits, at most until the signal aborts. */
function sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    signal?.addEventListener("abort", done);
  });
}

function isObject(value: unknown): value is Result {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function activated(call: string, result: Result): Activated {
  const answer = new Answer(call, result);
  return { userID: answer.text("userID"), domain: answer.text("domain"), serialNumber: answer.text("serialNumber") };
}

/** Members of a result that must have a type. */
class Answer {
  constructor(
    readonly call: string,
    private readonly members: Result,
    private readonly path = "",
  ) {}

  has(name: string): boolean {
    return this.members[name] !== undefined;
  }

  text(name: string): string {
    const value = this.members[name];
    if (typeof value !== "string") throw new ProtocolError(this.call, `${this.path}${name} is missing or not a string`);
    return value;
  }

  object(name: string): Answer {
    const value = this.members[name];
    if (!isObject(value)) throw new ProtocolError(this.call, `${this.path}${name} is missing or not an object`);
    return new Answer(this.call, value, `${this.path}${name}.`);
  }

  sealed(data: string): SealedItem {
    return { data: this.text(data), encryptedCounter: this.text("encryptedCounter"), mac: this.text("mac") };
  }
}
