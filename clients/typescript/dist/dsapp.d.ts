/** The groups of the profiles. A phone never takes them from a server. */
declare const groups: {
    "rfc5054-2048": {
        g: bigint;
        n: string;
    };
    "rfc5054-3072": {
        g: bigint;
        n: string;
    };
    "rfc5054-4096": {
        g: bigint;
        n: string;
    };
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
declare const profiles: {
    readonly "rfc5054-2048-sha256": Formulas;
    readonly "rfc5054-3072-sha256": {
        readonly group: "rfc5054-3072";
        readonly hash: "SHA-256" | "SHA-512";
        readonly k: string;
        readonly x: string;
        readonly keyFunction: "hash" | "none";
        readonly key: string;
        readonly m1: string;
        readonly m2: string;
    };
    readonly "rfc5054-4096-sha256": {
        readonly group: "rfc5054-4096";
        readonly hash: "SHA-256" | "SHA-512";
        readonly k: string;
        readonly x: string;
        readonly keyFunction: "hash" | "none";
        readonly key: string;
        readonly m1: string;
        readonly m2: string;
    };
    readonly bouncycastle: {
        readonly m1: "A B S";
        readonly m2: "A M1.padded S";
        readonly group: keyof typeof groups;
        readonly hash: "SHA-256" | "SHA-512";
        readonly k: string;
        readonly x: string;
        readonly keyFunction: "hash" | "none";
        readonly key: string;
    };
    readonly "fast-srp-hap": Formulas;
    readonly nimbus: Formulas;
    readonly "secure-remote-password": {
        readonly k: "N g.minimal";
        readonly group: keyof typeof groups;
        readonly hash: "SHA-256" | "SHA-512";
        readonly x: string;
        readonly keyFunction: "hash" | "none";
        readonly key: string;
        readonly m1: string;
        readonly m2: string;
    };
    readonly tssrp6a: {
        readonly hash: "SHA-512";
        readonly keyFunction: "none";
        readonly group: keyof typeof groups;
        readonly k: string;
        readonly x: string;
        readonly key: string;
        readonly m1: string;
        readonly m2: string;
    };
};
/**
 * The name of a profile: one of the gateway's own, or of the preset of a library. The bank says
 * which one its gateway uses.
 */
export type ProfileName = keyof typeof profiles;
/** The profile of a gateway that is not configured otherwise. */
export declare const defaultProfile: ProfileName;
/** The names of all profiles. */
export declare const profileNames: readonly ProfileName[];
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
export type ErrorKind = "input" | "refused" | "locked" | "request" | "unauthorized" | "unavailable" | "unknownOutcome" | "verification" | "protocol";
/** The class of all errors of this module. */
export declare class DsappError extends Error {
    readonly kind: ErrorKind;
    constructor(kind: ErrorKind, message: string, options?: {
        cause?: unknown;
    });
}
/** A value of the caller, such as an identifier or a password, cannot be right. No call was made. */
export declare class InputError extends DsappError {
    constructor(message: string);
}
/**
 * The gateway or the authentication server refused the call. In an exchange this means a wrong
 * password, or a registration that is unknown, expired or used up: nobody can tell which.
 */
export declare class RefusedError extends DsappError {
    readonly call: string;
    readonly resultCodes: ResultCodes;
    constructor(call: string, resultCodes: ResultCodes, kind?: "refused" | "locked");
}
/** The call was refused because the user's account is locked. */
export declare class LockedError extends RefusedError {
    constructor(call: string, resultCodes: ResultCodes);
}
/** The gateway calls the request malformed (400, 404, 405, 413, 415): a mistake of the program. */
export declare class RequestError extends DsappError {
    readonly call: string;
    readonly httpStatus: number;
    readonly description: string;
    constructor(call: string, httpStatus: number, description: string);
}
/** The API key is missing, wrong or not for this service (401, 403). */
export declare class UnauthorizedError extends DsappError {
    readonly call: string;
    readonly httpStatus: number;
    constructor(call: string, httpStatus: number);
}
/**
 * The gateway carried out nothing (408, 425, 429, 503). The same call can be made again after
 * `retryAfter` seconds; a proof (DSAPPSRPGenerateActivationData) only after a new exchange.
 */
export declare class UnavailableError extends DsappError {
    readonly call: string;
    readonly httpStatus: number;
    readonly retryAfter: number;
    constructor(call: string, httpStatus: number, retryAfter: number);
}
/**
 * No answer, or one that does not tell (5xx, lost connection, timeout, abort): the call may have been
 * carried out or not. `httpStatus` is 0 if there was no answer.
 */
export declare class UnknownOutcomeError extends DsappError {
    readonly call: string;
    readonly httpStatus: number;
    constructor(call: string, httpStatus: number, cause?: unknown);
}
/**
 * The gateway did not prove itself, or activation data was altered. Do not go on, and do not use
 * anything of the answer: this can be an attack.
 */
export declare class VerificationError extends DsappError {
    readonly value: "salt" | "serverEphemeralPublicKey" | "serverEvidenceMessage" | "activationData" | "serialNumber";
    constructor(value: "salt" | "serverEphemeralPublicKey" | "serverEvidenceMessage" | "activationData" | "serialNumber", message: string);
}
/** An answer does not have the documented form: another program answers there, or it is too new. */
export declare class ProtocolError extends DsappError {
    constructor(call: string, problem: string);
}
type Bytes = Uint8Array<ArrayBuffer>;
/** Returns upper-case hexadecimal digits. */
export declare function toHex(bytes: Uint8Array): string;
/** Returns the bytes of hexadecimal digits of either case, or undefined if they are none. */
export declare function fromHex(digits: string): Bytes | undefined;
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
export declare class Exchange {
    #private;
    /** Throws an InputError if identifier or password cannot be right. */
    constructor(identifier: string, password: string, options?: ExchangeOptions);
    /** A as hexadecimal digits, for the first call. */
    get publicValue(): string;
    /**
     * Takes salt and B of the first answer and returns M1 for the second call, all as hexadecimal
     * digits. Throws a VerificationError if they are unusable. Call it once.
     */
    prove(saltDigits: string, serverPublicDigits: string): Promise<string>;
    /**
     * Takes M2 of the second answer and returns the session that opens the data. Throws a
     * VerificationError if the server did not prove itself.
     */
    confirm(serverEvidenceDigits: string): Promise<Session>;
    /** Overwrites what can be overwritten. For exchanges that are not brought to their end. */
    clear(): void;
}
/** Opens the items of one exchange. Clear it when all are opened. */
export declare class Session {
    #private;
    /** Exchange.confirm makes sessions. */
    constructor(key: Bytes, salt: Bytes, crypto: CryptoProvider, inspect: (name: string, value: string) => void);
    /** Verifies and decrypts an item, which is ASCII text. Throws a VerificationError if it was altered. */
    open(item: Item, sealed: SealedItem): Promise<string>;
    /** Overwrites the key. Nothing can be opened after it. */
    clear(): void;
}
/** The content of an activation image. */
export interface ActivationImage {
    userID: string;
    domain: string;
    registrationIdentifier: string;
    activationPassword: string;
    gatewayID: string;
}
/** Reads the content of an activation image, hexadecimal digits. Throws an InputError. */
export declare function parseActivationImage(digits: string): ActivationImage;
/** What a phone gets by an exchange. */
export type ActivationData = {
    licenseType: "mdl";
    activationMessage: string;
} | {
    licenseType: "standard";
    activationCode: string;
    eventReactivationCounter: string | undefined;
};
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
/**
 * The calls of a phone to one gateway. Methods throw DsappErrors only, except for what a device library
 * throws.
 */
export declare class Gateway {
    #private;
    /** Throws an InputError for a URL or an API key that cannot be one. */
    constructor(options: GatewayOptions);
    /**
     * Makes the two calls of the exchange and returns the activation data. After a RefusedError, ask
     * for the password again; after 3 of them a registration is used up. If an answer is lost, it begins
     * a new exchange by itself.
     */
    exchange(registrationIdentifier: string, activationPassword: string, signal?: AbortSignal): Promise<ActivationData>;
    /** Adds the device with its device code. Returns the instance activation message. */
    addDevice(registrationIdentifier: string, deviceCode: string, description?: string, signal?: AbortSignal): Promise<string>;
    /** Completes the activation of a multi-device licence. */
    activate(registrationIdentifier: string, signature: string, signal?: AbortSignal): Promise<Activated>;
    /** Completes the activation of a standard licence, by a one-time password or a derivation code. */
    activateStandard(registrationIdentifier: string, proof: {
        response: string;
    } | {
        derivationCode: string;
    }, signal?: AbortSignal): Promise<Activated>;
    /** Makes the four calls of an activation of a multi-device licence. */
    activateDevice(registrationIdentifier: string, activationPassword: string, device: DeviceLibrary, description?: string, signal?: AbortSignal): Promise<Activated>;
    /**
     * Calls any service of version 2 and returns the members of its result. path begins with /rest/v2/.
     * For the services of logins and signatures, which docs/protocol.md lists. A call that the gateway
     * answers again is repeated if its answer is lost.
     */
    call(path: string, request: Record<string, string>, signal?: AbortSignal): Promise<Result>;
}
export {};
