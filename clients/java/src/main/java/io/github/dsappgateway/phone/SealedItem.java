package io.github.dsappgateway.phone;

/** An encrypted item as the gateway sends it: hexadecimal digits. */
public final class SealedItem {
  final String data;
  final String encryptedCounter;
  final String mac;

  public SealedItem(String data, String encryptedCounter, String mac) {
    this.data = data;
    this.encryptedCounter = encryptedCounter;
    this.mac = mac;
  }
}
