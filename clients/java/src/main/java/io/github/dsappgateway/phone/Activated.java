package io.github.dsappgateway.phone;

/** Whom the authentication server has activated. */
public final class Activated {
  public final String userID;
  public final String domain;
  /** Of the licence, such as VDS1000120. */
  public final String serialNumber;

  Activated(String userID, String domain, String serialNumber) {
    this.userID = userID;
    this.domain = domain;
    this.serialNumber = serialNumber;
  }
}
