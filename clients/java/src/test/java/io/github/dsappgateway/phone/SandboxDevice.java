package io.github.dsappgateway.phone;

import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.SecureRandom;
import java.util.Arrays;
import java.util.Locale;
import java.util.Map;
import javax.crypto.Cipher;
import javax.crypto.spec.IvParameterSpec;
import javax.crypto.spec.SecretKeySpec;

/**
 * The simulated device of `caddy dsapp sandbox`, for tests. It stands in for the vendor's device library and has nothing in common
 * with it but the form of the values. docs/protocol.md describes it.
 */
final class SandboxDevice implements DeviceLibrary {
  private static final String ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  private static final int HEADER = 7;
  private static final int SECRET = 32;
  private static final int TAG = 14;
  private static final int CHANNEL_START = HEADER + 1 + 16;

  private byte[] license;
  private byte[] secret;
  private String code;
  private String serial;
  private int sequence;
  private long counter;

  String serialNumber() {
    return sequence == 0 ? serial : serial + "-" + sequence;
  }

  @Override
  public String activateLicense(String activationMessage) {
    byte[] message = Bytes.fromHex(activationMessage);
    license = Arrays.copyOfRange(message, HEADER, HEADER + SECRET);
    checkTag(message, 32, license, "sandbox license message");
    serial = serialOf(message);
    String payload = "07" + String.format("%010d", new SecureRandom().nextInt() & 0xFFFFFFFFL);
    String digits = payload + decimal(derive(license, "sandbox device code", Bytes.ascii(payload)), 13);
    code = digits + luhn(digits);
    return code;
  }

  @Override
  public String activateInstance(String instanceActivationMessage) {
    byte[] message = Bytes.fromHex(instanceActivationMessage);
    byte[] codeBytes = Bytes.ascii(code);
    checkTag(message, TAG, license, "sandbox instance mac", codeBytes);
    sequence = message[HEADER];
    byte[] key = derive(license, "sandbox instance encryption", codeBytes, new byte[] {message[HEADER]});
    secret = stream(key, Arrays.copyOfRange(message, HEADER + 1, message.length - TAG));
    return decimal(derive(secret, "sandbox confirmation", codeBytes, Bytes.ascii(instanceActivationMessage.toUpperCase(Locale.ROOT))), 16);
  }

  void activateStandard(String activationCode, String eventReactivationCounter) {
    byte[] message = Bytes.fromHex(activationCode);
    secret = Arrays.copyOfRange(message, HEADER, HEADER + SECRET);
    checkTag(message, TAG, secret, "sandbox activation code");
    serial = serialOf(message);
    sequence = 0;
    counter = new BigInteger(eventReactivationCounter).longValueExact();
  }

  String oneTimePassword() {
    return decimal(derive(secret, "sandbox one-time password", ByteBuffer.allocate(8).putLong(counter++).array()), 6);
  }

  /** The content of a request message: JSON. */
  private byte[] content(String requestMessage) {
    byte[] message = Bytes.fromHex(requestMessage);
    byte[] kind = Bytes.ascii("request");
    checkTag(message, TAG, secret, "sandbox channel mac", kind);
    byte[] key = derive(secret, "sandbox channel encryption", kind, Arrays.copyOf(message, CHANNEL_START));
    return stream(key, Arrays.copyOfRange(message, CHANNEL_START, message.length - TAG));
  }

  Map<?, ?> open(String requestMessage) {
    return (Map<?, ?>) Json.parse(new String(content(requestMessage), StandardCharsets.UTF_8));
  }

  String sign(String requestMessage) {
    String kind = (String) open(requestMessage).get("kind");
    byte[] hash = derive(secret, "sandbox request signature", Bytes.ascii(kind), content(requestMessage));
    return decimal(hash, kind.equals("login") ? 16 : 7);
  }

  /** A message of the device for the authentication server: of the kind "key" or "notification ID". */
  String wrap(String kind, String content) {
    int prefix = 0;
    for (int i = 0; i < 3; i++) {
      prefix = prefix * 40 + ALPHABET.indexOf(serial.charAt(i));
    }
    int number = Integer.parseInt(serial.substring(3));
    byte[] nonce = new byte[16];
    new SecureRandom().nextBytes(nonce);
    byte[] start = ByteBuffer.allocate(CHANNEL_START).putShort((short) 0x0901).putShort((short) prefix).put((byte) (number >> 16))
        .putShort((short) number).put((byte) sequence).put(nonce).array();
    byte[] encrypted = stream(derive(secret, "sandbox channel encryption", Bytes.ascii(kind), start), Bytes.ascii(content));
    byte[] message = ByteBuffer.allocate(start.length + encrypted.length).put(start).put(encrypted).array();
    byte[] tag = derive(secret, "sandbox channel mac", Bytes.ascii(kind), message);
    return Bytes.toHex(message) + Bytes.toHex(Arrays.copyOf(tag, TAG));
  }

  private static String serialOf(byte[] message) {
    ByteBuffer header = ByteBuffer.wrap(message);
    int prefix = header.getShort(2) & 0xFFFF;
    String letters = "";
    for (int i = 0; i < 3; i++, prefix /= 40) {
      letters = ALPHABET.charAt(prefix % 40) + letters;
    }
    return letters + String.format("%07d", (message[4] & 255) << 16 | header.getShort(5) & 0xFFFF);
  }

  private static void checkTag(byte[] message, int size, byte[] secret, String label, byte[]... parts) {
    byte[][] all = Arrays.copyOf(parts, parts.length + 1);
    all[parts.length] = Arrays.copyOf(message, message.length - size);
    byte[] tag = Arrays.copyOf(derive(secret, label, all), size);
    if (!Arrays.equals(tag, Arrays.copyOfRange(message, message.length - size, message.length))) {
      throw new IllegalArgumentException("the message is altered or for another device");
    }
  }

  private static byte[] derive(byte[] secret, String label, byte[]... parts) {
    byte[][] framed = new byte[2 * parts.length + 2][];
    for (int i = 0; i <= parts.length; i++) {
      byte[] part = i == 0 ? Bytes.ascii(label) : parts[i - 1];
      framed[2 * i] = ByteBuffer.allocate(4).putInt(part.length).array();
      framed[2 * i + 1] = part;
    }
    return Session.hmac(secret, framed);
  }

  private static byte[] stream(byte[] key, byte[] data) {
    try {
      Cipher cipher = Cipher.getInstance("AES/CTR/NoPadding");
      cipher.init(Cipher.ENCRYPT_MODE, new SecretKeySpec(key, "AES"), new IvParameterSpec(new byte[16]));
      return cipher.doFinal(data);
    } catch (GeneralSecurityException e) {
      throw new IllegalStateException(e);
    }
  }

  private static String decimal(byte[] hash, int digits) {
    String all = String.format("%020d", new BigInteger(1, Arrays.copyOf(hash, 8)));
    return all.substring(all.length() - digits);
  }

  private static int luhn(String digits) {
    int sum = 0;
    for (int i = 0; i < digits.length(); i++) {
      int d = digits.charAt(digits.length() - 1 - i) - '0';
      if (i % 2 == 0) {
        d = d > 4 ? 2 * d - 9 : 2 * d;
      }
      sum += d;
    }
    return (10 - sum % 10) % 10;
  }
}
