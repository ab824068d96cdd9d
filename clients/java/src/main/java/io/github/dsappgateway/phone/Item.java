package io.github.dsappgateway.phone;

/** An item of activation data. Each is encrypted under keys of its own. */
public enum Item {
  LICENSE_ACTIVATION_MESSAGE("licenseActivationMessage"),
  ACTIVATION_CODE("activationCode"),
  EVENT_REACTIVATION_COUNTER("eventReactivationCounter");

  final String wireName;

  Item(String wireName) {
    this.wireName = wireName;
  }
}
