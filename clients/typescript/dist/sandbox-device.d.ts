import { type DeviceLibrary } from "./dsapp.js";
/** What a request message asks the user to approve. */
export interface PendingRequest {
    kind: "login" | "signature";
    key: string;
    userID: string;
    domain: string;
    title: string;
    fields?: {
        key: string;
        value: string;
    }[];
}
/** A simulated device, first without a licence. */
export declare class SandboxDevice implements DeviceLibrary {
    #private;
    private readonly id;
    constructor(id?: number);
    /** Serial number, such as VDS1000120-1, or VDS1000121 for a standard licence. */
    get serialNumber(): string;
    activateLicense(activationMessage: string): Promise<string>;
    activateInstance(instanceActivationMessage: string): Promise<string>;
    /** Activates a standard licence. */
    activateStandard(activationCode: string, eventReactivationCounter: string): Promise<void>;
    /** Returns the next one-time password. */
    oneTimePassword(): Promise<string>;
    /** Reads a request message. */
    open(requestMessage: string): Promise<PendingRequest>;
    /** Returns the signature that approves the request of a request message. */
    sign(requestMessage: string): Promise<string>;
    /** Wraps the key of a request to reject. */
    wrapKey(key: string): Promise<string>;
    /** Wraps the ID of the phone in the push service. */
    wrapNotificationID(id: string): Promise<string>;
}
