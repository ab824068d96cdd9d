// The formulas of all profiles, written from docs/protocol.md with Node's standard library alone.
// It is an illustration: BigInt is not constant-time, and nothing is overwritten.
//
// The names of options, members and forms are those of docs/protocol.md.

import { createCipheriv, createHash, createHmac, getDiffieHellman, hkdfSync } from "node:crypto";

// The groups. From 3072 bits on N is a prime of RFC 3526, which Node has, and g is that of RFC 5054.
const groups = {
  "rfc5054-2048": [
    2n,
    BigInt(
      "0xAC6BDB41324A9A9BF166DE5E1389582FAF72B6651987EE07FC3192943DB56050A37329CBB4A099ED8193E0757767A13DD52312AB4B03310DCD7F48A9DA04FD50" +
        "E8083969EDB767B0CF6095179A163AB3661A05FBD5FAAAE82918A9962F0B93B855F97993EC975EEAA80D740ADBF4FF747359D041D5C33EA71D281E446B14773B" +
        "CA97B43A23FB801676BD207A436C6481F1D2B9078717461A5B9D32E688F87748544523B524B0D57D5EA77A2775D2ECFA032CFBDBF52FB3786160279004E57AE6" +
        "AF874E7303CE53299CCC041C7BC308D82A5698F3A8D0C38271AE35F8E9DBFBB694B5C803D89F7AE435DE236D525F54759B65E372FCD68EF20FA7111F9E4AFF73",
    ),
  ],
  "rfc5054-3072": [5n, prime("modp15")],
  "rfc5054-4096": [5n, prime("modp16")],
  "rfc5054-6144": [5n, prime("modp17")],
  "rfc5054-8192": [19n, prime("modp18")],
};

function prime(name) {
  return number(getDiffieHellman(name).getPrime());
}

export function number(bytes) {
  return BigInt(`0x${bytes.toString("hex") || "0"}`);
}

const ascii = (text) => Buffer.from(text, "latin1");
const hmac = (key, bytes) => createHmac("sha256", key).update(bytes).digest();

function withoutZeros(bytes) {
  const first = bytes.findIndex((byte) => byte !== 0);
  return bytes.subarray(first < 0 ? bytes.length : first);
}

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

/** Formulas computes the values of exchanges with a variant, all of whose options are given. */
export class Formulas {
  constructor(variant) {
    if (!groups[variant.group]) throw new Error("unknown group");
    this.variant = variant;
    [this.g, this.n] = groups[variant.group];
    this.size = this.n.toString(16).length / 2;
    const xor = (g) => {
      const b = this.hash(g);
      return this.hash(this.pad(this.n)).map((byte, i) => byte ^ b[i]);
    };
    const g = this.pad(this.g);
    // The members that are the same in all exchanges.
    this.constants = { N: this.pad(this.n), g, X: xor(withoutZeros(g)), Xp: xor(g) };
    this.k = number(this.digest("k", {}));
  }

  hash(...parts) {
    const hash = createHash(this.variant.hash);
    for (const part of parts) hash.update(part);
    return hash.digest();
  }

  pad(x) {
    return Buffer.from(x.toString(16).padStart(2 * this.size, "0"), "hex");
  }

  // word returns the bytes of a word of a template.
  word(word, members) {
    if (word.startsWith("=")) return ascii(word.slice(1));
    const [name, form] = word.split(".");
    const bytes = this.constants[name] ?? members[name];
    if (bytes === undefined) throw new Error(`${name} is not known here`);
    const minimal = withoutZeros(bytes);
    switch (form) {
      case undefined: return bytes;
      case "minimal": return minimal;
      case "signed": return minimal[0] >= 0x80 ? Buffer.concat([Buffer.alloc(1), minimal]) : minimal;
      case "padded": return Buffer.concat([Buffer.alloc(Math.max(0, this.size - bytes.length)), bytes]);
      case "hex": return ascii(bytes.toString("hex"));
      case "HEX": return ascii(bytes.toString("hex").toUpperCase());
      case "digits": return ascii(bytes.toString("hex").replace(/^0+/, ""));
      case "DIGITS": return ascii(bytes.toString("hex").replace(/^0+/, "").toUpperCase());
      case "lower": return ascii(bytes.toString("latin1").toLowerCase());
      case "upper": return ascii(bytes.toString("latin1").toUpperCase());
      default: throw new Error(`unknown form ${form}`);
    }
  }

  // join returns the joined bytes of a template, which is an option of the variant.
  join(option, members) {
    return Buffer.concat(this.variant[option].map((word) => this.word(word, members)));
  }

  digest(option, members) {
    return this.hash(this.join(option, members));
  }

  publicValue(a) {
    return power(this.g, number(a), this.n);
  }

  /** The inner hash, empty if x does not contain it, and x. */
  exponent(I, P, s) {
    const members = { I, P, s, "H(I)": this.hash(I), "H(P)": this.hash(P), inner: Buffer.alloc(0) };
    if (this.variant.inner) members.inner = this.digest("inner", members);
    return { inner: members.inner, x: this.digest("x", members) };
  }

  verifier(x) {
    return power(this.g, number(x), this.n);
  }

  serverPublic(verifier, b) {
    return (this.k * verifier + power(this.g, number(b), this.n)) % this.n;
  }

  scrambler(A, B) {
    return this.digest("u", { A, B });
  }

  serverSecret(A, verifier, u, b) {
    return power((A * power(verifier, number(u), this.n)) % this.n, number(b), this.n);
  }

  clientSecret(B, x, u, a) {
    const base = (((B - this.k * power(this.g, number(x), this.n)) % this.n) + this.n) % this.n;
    return power(base, number(a) + number(u) * number(x), this.n);
  }

  /** K, M1 and M2 from the number S; I, s, A and B are bytes, A and B with the length of N. */
  keyAndEvidence(I, s, A, B, S) {
    const members = { I, "H(I)": this.hash(I), s, A, B, S: this.pad(S) };
    members.K = this.sessionKey(this.join("key_input", members));
    members.M1 = this.digest("m1", members);
    return { K: members.K, M1: members.M1, M2: this.digest("m2", members) };
  }

  sessionKey(input) {
    switch (this.variant.key_function) {
      case "hash": return this.hash(input);
      case "none": return input;
      case "mgf1": return Buffer.concat([0, 1].map((i) => this.hash(input, Buffer.from([0, 0, 0, i]))));
      case "interleave": {
        const stripped = withoutZeros(input);
        const bytes = stripped.subarray(stripped.length % 2);
        const [even, odd] = [0, 1].map((parity) => this.hash(bytes.filter((_, i) => i % 2 === parity)));
        return Buffer.concat([...even].map((byte, i) => Buffer.from([byte, odd[i]])));
      }
      default: throw new Error("unknown key_function");
    }
  }

  /** The salt of HKDF. */
  derivationSalt(s, A, B) {
    const salts = { transcript: () => createHash("sha256").update(A).update(B).digest(), salt: () => s, none: () => Buffer.alloc(0) };
    return this.variant.key_derivation === "hkdf" ? salts[this.variant.hkdf_salt]() : Buffer.alloc(0);
  }

  /** The key of an item for a purpose, encryption or mac. */
  itemKey(K, salt, item, purpose) {
    switch (this.variant.key_derivation) {
      case "hkdf": return Buffer.from(hkdfSync("sha256", K, salt, this.info(item, purpose), 32));
      case "hash": return createHash("sha256").update(K).digest();
      case "none": return K.subarray(0, 32);
      default: throw new Error("unknown key_derivation");
    }
  }

  info(item, purpose) {
    return this.variant.hkdf_info.replaceAll("<item>", item).replaceAll("<purpose>", purpose);
  }

  /** The initial block of CTR, or undefined if the counter has another length than it must have. */
  initialBlock(counter) {
    const zeros = Buffer.alloc(8);
    const layouts = { first: [counter, zeros], last: [zeros, counter], block: [counter] };
    const block = Buffer.concat(layouts[this.variant.counter]);
    return block.length === 16 ? block : undefined;
  }

  encrypt(key, counter, text) {
    return createCipheriv("aes-256-ctr", key, this.initialBlock(counter)).update(text);
  }

  mac(key, counter, data) {
    return hmac(key, this.join("mac", { counter, data }));
  }
}
