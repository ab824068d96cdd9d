package io.github.dsappgateway.phone;

import java.math.BigInteger;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;

/** Bytes, numbers and hexadecimal digits. */
final class Bytes {
  private static final char[] DIGITS = "0123456789ABCDEF".toCharArray();

  private Bytes() {}

  static String toHex(byte[] bytes) {
    char[] digits = new char[2 * bytes.length];
    for (int i = 0; i < bytes.length; i++) {
      digits[2 * i] = DIGITS[bytes[i] >> 4 & 15];
      digits[2 * i + 1] = DIGITS[bytes[i] & 15];
    }
    return new String(digits);
  }

  /** The bytes of hexadecimal digits of either case, or null if they are none. */
  static byte[] fromHex(String digits) {
    if (digits == null || digits.length() % 2 != 0) {
      return null;
    }
    byte[] bytes = new byte[digits.length() / 2];
    for (int i = 0; i < digits.length(); i++) {
      char c = digits.charAt(i);
      int value = c > 'f' ? -1 : Character.digit(c, 16);
      if (value < 0) {
        return null;
      }
      bytes[i / 2] = (byte) (bytes[i / 2] << 4 | value);
    }
    return bytes;
  }

  /** An unsigned big-endian number. */
  static BigInteger toNumber(byte[] bytes) {
    return new BigInteger(1, bytes);
  }

  /** PAD: big-endian bytes with leading zeros and without a sign byte. */
  static byte[] pad(BigInteger n, int size) {
    byte[] signed = n.toByteArray();
    byte[] padded = new byte[size];
    int sign = signed.length > size ? 1 : 0;
    System.arraycopy(signed, sign, padded, size - (signed.length - sign), signed.length - sign);
    clear(signed);
    return padded;
  }

  static byte[] sha256(byte[]... parts) {
    return hash("SHA-256", parts);
  }

  static byte[] hash(String algorithm, byte[]... parts) {
    try {
      MessageDigest digest = MessageDigest.getInstance(algorithm);
      for (byte[] part : parts) {
        digest.update(part);
      }
      return digest.digest();
    } catch (GeneralSecurityException e) {
      throw new IllegalStateException(e);
    }
  }

  /** Big-endian bytes without leading zeros. */
  static byte[] minimal(byte[] b) {
    int first = 0;
    while (first < b.length && b[first] == 0) {
      first++;
    }
    return java.util.Arrays.copyOfRange(b, first, b.length);
  }

  /** The bytes of ASCII text, which the callers have checked. */
  static byte[] ascii(CharSequence text) {
    byte[] bytes = new byte[text.length()];
    for (int i = 0; i < bytes.length; i++) {
      bytes[i] = (byte) text.charAt(i);
    }
    return bytes;
  }

  static void clear(byte[]... secrets) {
    for (byte[] secret : secrets) {
      if (secret != null) {
        java.util.Arrays.fill(secret, (byte) 0);
      }
    }
  }
}
