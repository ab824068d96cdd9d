package io.github.dsappgateway.phone;

/** What the vendor's device library has to do in an activation of a multi-device licence. */
public interface DeviceLibrary {
  /** Takes the activation message and returns the device code. */
  String activateLicense(String activationMessage);

  /** Takes the instance activation message and returns the signature. */
  String activateInstance(String instanceActivationMessage);
}
