#!/usr/bin/env python3
"""Checks test vectors with Python's standard library alone.

Usage: check.py [FILE...]     without files: all that stand beside this program

Every value is computed anew from the inputs by the formulas of docs/protocol.md, and every
exchange is played from both sides. Prints one line for each vector that is wrong, and ends
with 1 if there is one. AES, which the library lacks, is at the end of this file.
"""

import functools
import glob
import hashlib
import hmac
import json
import os
import struct
import sys

power = functools.lru_cache(maxsize=None)(pow)


class Wrong(Exception):
    """A value that is not what the formulas give."""


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def number(b):
    return int.from_bytes(b, "big")


def same(name, got, want):
    if got != want:
        raise Wrong(f"{name} is {got!r:.90}, computed is {want!r:.90}")


def same_bytes(name, digits, want):
    same(name, digits, want.hex().upper())


def unhex(name, digits):
    if digits != digits.upper():
        raise Wrong(f"{name} has digits in lower case")
    return bytes.fromhex(digits)


def hkdf(key, salt, info):
    """RFC 5869 with SHA-256, for 32 bytes: a single block."""
    return hmac.digest(hmac.digest(salt, key, "sha256"), info.encode() + b"\x01", "sha256")


# What a form makes of the bytes of a member, and of the length of N.
FORMS = {
    "": lambda b, size: b,
    "minimal": lambda b, size: b.lstrip(b"\0"),
    "padded": lambda b, size: b.rjust(size, b"\0"),
}


class Group:
    """A group with the formulas of a variant. Of the options it has what the files need."""

    def __init__(self, variant, group):
        self.variant = variant
        bits, self.g = {"rfc5054-2048": (2048, 2), "rfc5054-3072": (3072, 5), "rfc5054-4096": (4096, 5)}[variant["group"]]
        self.n = number(unhex("N", group["N"]))
        same_bytes("g", group["g"], bytes([self.g]))
        self.size = group["bytes"]
        same("bytes", self.size, bits // 8)
        n, g = self.pad(self.n), bytes([self.g])
        same_bytes("N", group["N"], n)
        self.constants = {"N": n, "g": self.pad(self.g)}
        self.k = number(self.digest("k"))
        same_bytes("k", group["k"], self.digest("k"))
        same_bytes("hashN", group["hashN"], self.hash(n))
        same_bytes("hashG", group["hashG"], self.hash(g))
        self.constants["X"] = bytes(x ^ y for x, y in zip(self.hash(n), self.hash(g)))
        same_bytes("hashNXorHashG", group["hashNXorHashG"], self.constants["X"])
        for option, value in (("key_derivation", "hkdf"), ("hkdf_salt", "transcript"), ("hkdf_info", "DSAPP-SRP v1 <item> <purpose>"),
                              ("counter", "first"), ("mac", ["counter", "data"])):
            same(option, variant[option], value)
        if variant["hex_case"] not in ("upper", "lower"):
            raise Wrong("hex_case is unknown")

    def pad(self, x):
        return x.to_bytes(self.size, "big")

    def hash(self, *parts):
        return hashlib.new(self.variant["hash"], b"".join(parts)).digest()

    def join(self, option, **members):
        """Returns the joined bytes of a template."""
        parts = []
        for word in self.variant[option]:
            name, _, form = word.partition(".")
            parts.append(word[1:].encode() if word[0] == "=" else FORMS[form]({**self.constants, **members}[name], self.size))
        return b"".join(parts)

    def digest(self, option, **members):
        return self.hash(self.join(option, **members))

    def exponent(self, identifier, password, salt):
        """Returns the inner hash and x."""
        inner = self.digest("inner", I=identifier, P=password)
        return inner, self.digest("x", s=salt, inner=inner)

    def key_and_evidence(self, identifier, salt, a_public, b_public, s):
        """Returns K, M1 and M2."""
        members = {"H(I)": self.hash(identifier), "s": salt, "A": a_public, "B": b_public, "S": self.pad(s)}
        k = self.join("key_input", **members)
        if self.variant["key_function"] != "none":
            same("key_function", self.variant["key_function"], "hash")
            k = self.hash(k)
        m1 = self.digest("m1", K=k, **members)
        return k, m1, self.digest("m2", K=k, M1=m1, **members)


def result(call):
    codes = call["answer"]["resultCodes"]
    if codes == {"returnCodeEnum": "RET_SUCCESS", "statusCodeEnum": "STAT_SUCCESS", "returnCode": 0, "statusCode": 0}:
        return call["answer"]["result"]
    same("resultCodes", codes, {"returnCodeEnum": "RET_FAILURE", "statusCodeEnum": "STAT_INVCREDENTIALS", "returnCode": -1, "statusCode": 1000})
    same("result", "result" in call["answer"], False)
    return None


def play(group, v):
    """Checks the values of a vector and returns what happens to its exchange."""
    inputs = v["inputs"]
    identifier, password = inputs["identifier"].encode("ascii"), inputs["password"].encode("ascii")
    salt, a, b = (unhex(x, inputs[x]) for x in ("salt", "a", "b"))
    same("size of salt, a, b", [len(salt), len(a), len(b)], [16, 32, 32])
    n, g = group.n, group.g

    first = v["calls"][0]
    same("service", first["service"], "DSAPPSRPGenerateEphemeralKey")
    same("identifier of the first call", first["request"]["registrationIdentifier"], inputs["identifier"])
    a_public = power(g, number(a), n)
    same("A of the request", int(first["request"]["clientEphemeralPublicKey"], 16), a_public)
    a_bytes = group.pad(a_public)
    answer = result(first)
    same("salt of the answer", answer["salt"], inputs["salt"])
    b_bytes = unhex("B of the answer", answer["serverEphemeralPublicKey"])
    if len(b_bytes) != group.size or not 0 < number(b_bytes) < n:
        same("calls after an unusable B", len(v["calls"]), 1)
        same("values", "values" in v or "sealing" in v or "typed" in v, False)
        return "serverPublicRefused"

    # The server.
    values = v["values"]
    inner, x = group.exponent(identifier, password, salt)
    verifier = power(g, number(x), n)
    b_public = (group.k * verifier + power(g, number(b), n)) % n
    u = group.digest("u", A=a_bytes, B=group.pad(b_public))
    s = power(a_public * power(verifier, number(u), n) % n, number(b), n)
    k, m1, m2 = group.key_and_evidence(identifier, salt, a_bytes, group.pad(b_public), s)
    for name, want in (("identityHash", group.hash(identifier)), ("innerHash", inner), ("x", x), ("v", group.pad(verifier)),
                       ("A", a_bytes), ("B", group.pad(b_public)), ("u", u), ("S", group.pad(s)), ("K", k), ("M1", m1), ("M2", m2)):
        same_bytes(name, values[name], want)
    same("B of the answer", number(b_bytes), b_public)

    # The phone.
    typed = v.get("typed")
    if typed:
        _, x = group.exponent(identifier, typed["password"].encode("ascii"), salt)
    s = power((b_public - group.k * power(g, number(x), n)) % n, number(a) + number(u) * number(x), n)
    k, sent, expected = group.key_and_evidence(identifier, salt, a_bytes, b_bytes, s)
    if typed:
        for name, want in (("x", x), ("S", group.pad(s)), ("K", k), ("M1", sent)):
            same_bytes("typed " + name, typed[name], want)

    same("number of calls", len(v["calls"]), 2)
    second = v["calls"][1]
    same("service", second["service"], "DSAPPSRPGenerateActivationData")
    same("identifier of the second call", second["request"]["registrationIdentifier"], inputs["identifier"])
    wire = int(second["request"]["clientEvidenceMessage"], 16)
    if wire != number(m1):
        if typed:
            same("M1 of the request", wire, number(sent))
        same("answer", result(second), None)
        same("sealing", "sealing" in v, False)
        return "clientEvidenceRefused"
    same("typed password", typed, None)
    same("M1 of the request", wire, number(sent))

    answer = result(second)
    items = check_items(v, k, sha256(a_bytes, b_bytes), answer)
    if not hmac.compare_digest(unhex("M2 of the answer", answer["serverEvidenceMessage"]), expected):
        same("items of the answer", items, True)
        return "serverEvidenceRefused"
    return "success" if items else "dataRefused"


def check_items(v, key, salt, answer):
    """Checks the sealed items. Returns whether the answer has them unaltered."""
    sealing = v["sealing"]
    same_bytes("salt of the keys", sealing["salt"], salt)
    if v["licenseType"] == "mdl":
        names = ["licenseActivationMessage"]
    else:
        same("licenseType", v["licenseType"], "standard")
        names = ["activationCode", "eventReactivationCounter"][:len(answer["standard"])]
    same("items", [i["item"] for i in sealing["items"]], names)
    unaltered = True
    for item in sealing["items"]:
        name = item["item"]
        for purpose, info, derived in (("encryption", "encryptionInfo", "encryptionKey"), ("mac", "macInfo", "macKey")):
            same(info, item[info], f"DSAPP-SRP v1 {name} {purpose}")
            same_bytes(derived, item[derived], hkdf(key, salt, item[info]))
        counter, plaintext = unhex("counter", item["counter"]), item["plaintext"].encode("ascii")
        same("size of the counter", len(counter), 8)
        same_bytes("initialBlock", item["initialBlock"], counter + bytes(8))
        stream = aes256_ctr(unhex("encryptionKey", item["encryptionKey"]), counter, len(plaintext))
        ciphertext = bytes(x ^ y for x, y in zip(plaintext, stream))
        same_bytes("ciphertext", item["ciphertext"], ciphertext)
        tag = hmac.digest(unhex("macKey", item["macKey"]), counter + ciphertext, "sha256")
        same_bytes("mac", item["mac"], tag)

        members, data = (answer, "encryptedLicenseActivationMessage") if v["licenseType"] == "mdl" else (answer["standard"][name], "data")
        sent = [unhex(m, members[m]) for m in (data, "encryptedCounter", "mac")]
        right = hmac.compare_digest(hmac.digest(unhex("macKey", item["macKey"]), sent[1] + sent[0], "sha256"), sent[2])
        same(f"{name} of the answer is that of the vector", sent == [ciphertext, counter, tag], right)
        unaltered = unaltered and right
    return unaltered


# AES-256 (FIPS 197) by tables, as an illustration: not constant-time, and not for production.

def tables():
    exp, log, x = [0] * 512, [0] * 256, 1
    for i in range(255):
        exp[i] = exp[i + 255] = x
        log[x] = i
        x ^= (x << 1) ^ (0x11B if x & 0x80 else 0)
    sbox = []
    for i in range(256):
        inverse = 0 if i == 0 else exp[255 - log[i]]
        y = inverse
        for _ in range(4):
            inverse = ((inverse << 1) | (inverse >> 7)) & 0xFF
            y ^= inverse
        sbox.append(y ^ 0x63)
    double = [((i << 1) ^ (0x11B if i & 0x80 else 0)) for i in range(256)]
    columns = []
    for rotation in range(4):
        column = []
        for i in range(256):
            s = sbox[i]
            word = [double[s], s, s, double[s] ^ s]
            word = word[-rotation:] + word[:-rotation] if rotation else word
            column.append(number(bytes(word)))
        columns.append(column)
    return sbox, columns


SBOX, (T0, T1, T2, T3) = tables()


@functools.lru_cache(maxsize=64)
def expand(key):
    w = list(struct.unpack(">8I", key))
    constant = 1
    for i in range(8, 60):
        t = w[-1]
        if i % 8 == 0:
            t = ((t << 8) | (t >> 24)) & 0xFFFFFFFF
        if i % 4 == 0:
            t = number(bytes(SBOX[x] for x in t.to_bytes(4, "big")))
        if i % 8 == 0:
            t ^= constant << 24
            constant = (constant << 1) ^ (0x11B if constant & 0x80 else 0)
        w.append(w[-8] ^ t)
    return w


def aes256_block(key, block):
    w = expand(key)
    s = [x ^ y for x, y in zip(struct.unpack(">4I", block), w)]
    for r in range(1, 14):
        s = [T0[s[i] >> 24] ^ T1[s[(i + 1) % 4] >> 16 & 255] ^ T2[s[(i + 2) % 4] >> 8 & 255] ^ T3[s[(i + 3) % 4] & 255] ^ w[4 * r + i]
             for i in range(4)]
    return b"".join(struct.pack(">I", number(bytes((
        SBOX[s[i] >> 24], SBOX[s[(i + 1) % 4] >> 16 & 255], SBOX[s[(i + 2) % 4] >> 8 & 255], SBOX[s[(i + 3) % 4] & 255]))) ^ w[56 + i])
        for i in range(4))


@functools.lru_cache(maxsize=None)
def aes256_ctr(key, counter, size):
    return b"".join(aes256_block(key, counter + struct.pack(">Q", i)) for i in range((size + 15) // 16))[:size]


def check(path):
    """Returns the number of vectors and of those that are wrong."""
    with open(path, encoding="utf-8") as f:
        profile = json.load(f)
    try:
        group = Group(profile["variant"], profile["group"])
    except (Wrong, KeyError, TypeError, ValueError) as e:
        print(f"{os.path.basename(path)}: group: {e!r}")
        return 0, 1
    wrong = 0
    for v in profile["vectors"]:
        try:
            same("outcome", play(group, v), v["expect"])
        except (Wrong, KeyError, TypeError, ValueError, OverflowError, AttributeError) as e:
            print(f"{os.path.basename(path)}: {v['name']}: {e if isinstance(e, Wrong) else repr(e)}")
            wrong += 1
    return len(profile["vectors"]), wrong


def main(paths):
    paths = paths or sorted(glob.glob(os.path.join(os.path.dirname(os.path.abspath(__file__)), "*.json")))
    same("FIPS 197, appendix C.3", aes256_block(bytes(range(32)), bytes.fromhex("00112233445566778899aabbccddeeff")).hex(),
         "8ea2b7ca516745bfeafc49904b496089")
    results = [check(path) for path in paths]
    vectors, wrong = (sum(x) for x in zip(*results)) if results else (0, 0)
    print(f"{vectors} vectors in {len(paths)} files, {wrong} wrong")
    return 1 if wrong or not vectors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
