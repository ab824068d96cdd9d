// SRP libraries from npm, unmodified, behind one interface. Only what the packages export is used.
//
// start({ identifier, password, group, a }) begins an exchange. group is "2048", "3072" or "4096";
// libraries with one group ignore it. a has 32 bytes; without it the library draws its own. The
// result has
//
//   a, A              secret value, public value with the length of N
//   prove(salt, B)    returns M1
//   confirm(M2)       throws unless it is right
//   key()             the session key, as phones with this library take it
//
// All values are Buffers. text writes a number as applications of the library usually do.

import { createDiffieHellman, createHash } from "node:crypto";
import hap from "fast-srp-hap";
import remote from "secure-remote-password/client.js";
import tssrp6a from "tssrp6a";

const hex = (bytes) => bytes.toString("hex");
const upperHex = (bytes) => hex(bytes).toUpperCase();
const toNumber = (bytes) => BigInt(`0x${hex(bytes)}`);

/** Writes bytes as JavaScript writes the number that they are. */
export const asNumber = (bytes) => toNumber(bytes).toString(16);

/** Returns N and g of a group. */
export function groupOf(name) {
  const params = hap.SRP.params[name];
  return { params, N: params.N.toBuffer(true), g: params.g.toBuffer(true), size: params.N_length_bits / 8 };
}

/** Returns a function that returns g^a. OpenSSL is a good deal faster than the packages. */
export function powersOfG(group) {
  const { N, g, size } = groupOf(group);
  const dh = createDiffieHellman(N, g); // takes long, since it tests N
  return (a) => {
    dh.setPrivateKey(a);
    // Without leading zeros in some versions of OpenSSL, with them in others.
    const A = dh.generateKeys();
    return Buffer.concat([Buffer.alloc(size - A.length), A]);
  };
}

// The package wants the salt before it gives A, the protocol the other way round. A depends on a
// alone, so a first client without salt supplies it.
async function startHAP({ identifier, password, group, a }) {
  const { params, size } = groupOf(group);
  a ??= await hap.SRP.genKey(32);
  const [I, P] = [identifier, password].map((text) => Buffer.from(text, "ascii"));
  const A = new hap.SrpClient(params, Buffer.alloc(0), I, P, a).computeA();
  if (A.length !== size) throw new Error("the package no longer pads A");
  let client;
  return {
    a,
    A,
    prove(salt, B) {
      client = new hap.SrpClient(params, salt, I, P, a, true);
      client.setB(B);
      return client.computeM1();
    },
    confirm: (M2) => client.checkM2(M2),
    key: () => client.computeK(),
  };
}

let power2048;

async function startRemote({ identifier, password, a }) {
  power2048 ??= a && powersOfG("2048");
  const own = a ? { secret: hex(a), public: hex(power2048(a)) } : remote.generateEphemeral();
  let session;
  return {
    a: Buffer.from(own.secret, "hex"),
    A: Buffer.from(own.public, "hex"),
    prove(salt, B) {
      const x = remote.derivePrivateKey(hex(salt), identifier, password);
      session = remote.deriveSession(own.secret, hex(B), hex(salt), identifier, x);
      return Buffer.from(session.proof, "hex");
    },
    confirm: (M2) => remote.verifySession(own.public, session, hex(M2)),
    key: () => Buffer.from(session.key, "hex"),
  };
}

// The routines of tssrp6a with the identity in x, as its README shows it, and with a private value
// that is known before the salt, since the package draws it after it has got the salt.
class Routines extends tssrp6a.SRPRoutines {
  constructor(hash, a) {
    super(new tssrp6a.SRPParameters(tssrp6a.SRPParameters.PrimeGroup[2048], tssrp6a.SRPParameters.H[hash]));
    this.a = a ? toNumber(a) : super.generatePrivateValue();
  }

  generatePrivateValue() {
    return this.a;
  }

  computeIdentityHash(I, P) {
    return this.hash(new TextEncoder().encode(`${I}:${P}`).buffer);
  }
}

const startTSSRP6a = (hash, keyOf) => async ({ identifier, password, a }) => {
  const routines = new Routines(hash, a);
  const session = await new tssrp6a.SRPClientSession(routines).step1(identifier, password);
  const size = 256;
  const padded = (n, length) => Buffer.from(n.toString(16).padStart(2 * length, "0"), "hex");
  let step;
  return {
    a: padded(routines.a, size),
    A: padded(routines.computeClientPublicValue(routines.a), size),
    async prove(salt, B) {
      step = await session.step2(toNumber(salt), toNumber(B));
      return padded(step.M1, hash === "SHA512" ? 64 : 32);
    },
    confirm: (M2) => step.step3(toNumber(M2)),
    key: () => keyOf(Buffer.from(tssrp6a.bigIntToArrayBuffer(step.S))),
  };
};

/** The libraries by the names of their presets. */
export const libraries = {
  "fast-srp-hap": { start: startHAP, text: upperHex, digits: /^([0-9A-F]{2})+$/ },
  "secure-remote-password": { start: startRemote, text: hex, digits: /^([0-9a-f]{2})+$/ },
  tssrp6a: { start: startTSSRP6a("SHA512", (S) => S), text: asNumber, digits: /^([0-9A-F]{2})+$/ },
  // tssrp6a is a port of Nimbus SRP for Java. It has no hash of the session key.
  nimbus: {
    start: startTSSRP6a("SHA256", (S) => createHash("sha256").update(S).digest()),
    text: asNumber,
    digits: /^([0-9A-F]{2})+$/,
  },
};
