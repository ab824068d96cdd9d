package io.github.dsappgateway.phone;

import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.Arrays;
import javax.crypto.Cipher;
import javax.crypto.Mac;
import javax.crypto.spec.IvParameterSpec;
import javax.crypto.spec.SecretKeySpec;

/** Opens the items of one exchange. Close it when all are opened. */
public final class Session implements AutoCloseable {
  private static final int COUNTER_SIZE = 8;
  private static final int BLOCK_SIZE = 16;

  private final byte[] key;
  private final byte[] salt;

  Session(byte[] key, byte[] salt) {
    this.key = key;
    this.salt = salt;
  }

  /**
   * Verifies and decrypts an item, which is ASCII text.
   *
   * @throws DsappException.Verification if it was altered
   */
  public String open(Item item, SealedItem sealed) throws DsappException.Verification {
    byte[] data = Bytes.fromHex(sealed.data);
    byte[] counter = Bytes.fromHex(sealed.encryptedCounter);
    byte[] mac = Bytes.fromHex(sealed.mac);
    if (data == null || data.length == 0 || counter == null || counter.length != COUNTER_SIZE || mac == null) {
      throw altered(item);
    }
    byte[] macKey = derive(item, "mac");
    byte[] encryptionKey = derive(item, "encryption");
    try {
      // Compares in constant time, also the length.
      if (!MessageDigest.isEqual(hmac(macKey, counter, data), mac)) {
        throw altered(item);
      }
      Cipher cipher = Cipher.getInstance("AES/CTR/NoPadding");
      cipher.init(Cipher.DECRYPT_MODE, new SecretKeySpec(encryptionKey, "AES"), new IvParameterSpec(Arrays.copyOf(counter, BLOCK_SIZE)));
      byte[] plaintext = cipher.doFinal(data);
      String text = new String(plaintext, java.nio.charset.StandardCharsets.US_ASCII);
      Bytes.clear(plaintext);
      return text;
    } catch (GeneralSecurityException e) {
      throw new IllegalStateException(e);
    } finally {
      Bytes.clear(macKey, encryptionKey);
    }
  }

  private static DsappException.Verification altered(Item item) {
    return new DsappException.Verification(DsappException.Verification.Value.ACTIVATION_DATA, "the " + item.wireName + " was altered");
  }

  /** HKDF (RFC 5869) for 32 bytes: a single block. */
  byte[] derive(Item item, String purpose) {
    byte[] extracted = hmac(salt, key);
    try {
      return hmac(extracted, Bytes.ascii("DSAPP-SRP v1 " + item.wireName + " " + purpose), new byte[] {1});
    } finally {
      Bytes.clear(extracted);
    }
  }

  static byte[] hmac(byte[] key, byte[]... parts) {
    try {
      Mac mac = Mac.getInstance("HmacSHA256");
      mac.init(new SecretKeySpec(key, "HmacSHA256"));
      for (byte[] part : parts) {
        mac.update(part);
      }
      return mac.doFinal();
    } catch (GeneralSecurityException e) {
      throw new IllegalStateException(e);
    }
  }

  /** Overwrites the key. Nothing can be opened after it. */
  @Override
  public void close() {
    Bytes.clear(key);
  }
}
