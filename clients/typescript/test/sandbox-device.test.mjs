// The sandbox's device on the example of docs/vectors/sandbox.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { SandboxDevice } from "../dist/sandbox-device.js";

const example = JSON.parse(readFileSync(new URL("../../../docs/vectors/sandbox/device.json", import.meta.url), "utf8"));

test("a multi-device licence", async () => {
  const device = new SandboxDevice(example.device.number);
  assert.equal(await device.activateLicense(example.license.activationMessage), example.device.deviceCode);
  assert.equal(await device.activateInstance(example.device.instanceActivationMessage), example.device.signature);
  assert.equal(device.serialNumber, example.device.serialNumber);
  for (const { content, message, signature } of example.requests) {
    assert.deepEqual(await device.open(message), JSON.parse(content));
    assert.equal(await device.sign(message), signature);
  }
  for (const password of example.oneTimePasswords) assert.equal(await device.oneTimePassword(), password);
});

test("a standard licence", async () => {
  const device = new SandboxDevice();
  await device.activateStandard(example.standard.activationCode, example.standard.eventReactivationCounter);
  assert.equal(device.serialNumber, example.standard.serialNumber);
  for (const password of example.standard.oneTimePasswords) assert.equal(await device.oneTimePassword(), password);
});
