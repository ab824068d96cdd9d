package io.github.dsappgateway.phone;

/** What a phone gets by an exchange. */
public final class ActivationData {
  /** Of a multi-device licence, else null: hexadecimal digits for the device library. */
  public final String activationMessage;
  /** Of a standard licence, else null. */
  public final String activationCode;
  /** Of a standard licence; null if there is none. */
  public final String eventReactivationCounter;

  ActivationData(String activationMessage, String activationCode, String eventReactivationCounter) {
    this.activationMessage = activationMessage;
    this.activationCode = activationCode;
    this.eventReactivationCounter = eventReactivationCounter;
  }

  /** Whether it is that of a standard licence. */
  public boolean isStandard() {
    return activationCode != null;
  }
}
