package io.github.dsappgateway.phone;

import java.math.BigInteger;
import java.security.MessageDigest;
import java.security.SecureRandom;
import java.util.HashMap;
import java.util.Map;

/**
 * The phone's side of one exchange, without network: {@link #publicValue}, {@link #prove}, {@link #confirm}, in this order.
 * It is for one exchange and one thread. docs/protocol.md has the formulas.
 */
public final class Exchange implements AutoCloseable {
  private static final int SALT_SIZE = 16;
  private static final int PRIVATE_SIZE = 32;
  private static final int MIN_TEXT = 4;
  private static final int MAX_TEXT = 64;

  /** Gets every intermediate value. For tests: these values are secrets. */
  interface Inspector {
    void value(String name, byte[] value);
  }

  private final Profile profile;
  private final byte[] identifier;
  private final byte[] a;
  private final byte[] publicA;
  private final Inspector inspector;
  private final byte[] password;
  private boolean used;
  private byte[] key;
  private byte[] expected;
  private byte[] transcript;

  /**
   * An exchange with a new private value. The password is copied; the caller should overwrite it.
   *
   * @throws DsappException.Input if identifier or password cannot be right
   */
  public Exchange(Profile profile, String registrationIdentifier, char[] activationPassword) throws DsappException.Input {
    this(profile, registrationIdentifier, activationPassword, random(), (name, value) -> {});
  }

  Exchange(Profile profile, String identifier, char[] password, byte[] privateValue, Inspector inspector) throws DsappException.Input {
    if (!isText(identifier) || !identifier.matches("[0-9A-Za-z._-]+")) {
      throw new DsappException.Input("the registration identifier is not 4 to 64 letters, digits, dots, hyphens or underscores");
    }
    if (!isText(java.nio.CharBuffer.wrap(password))) {
      throw new DsappException.Input("the activation password is not 4 to 64 printable ASCII characters");
    }
    this.profile = profile;
    this.identifier = Bytes.ascii(identifier);
    this.password = Bytes.ascii(java.nio.CharBuffer.wrap(password));
    this.a = privateValue;
    this.inspector = inspector;
    this.publicA = Bytes.pad(profile.g.modPow(Bytes.toNumber(a), profile.n), profile.size);
    inspector.value("A", publicA);
  }

  private static byte[] random() {
    byte[] b = new byte[PRIVATE_SIZE];
    new SecureRandom().nextBytes(b);
    return b;
  }

  private static boolean isText(CharSequence text) {
    if (text.length() < MIN_TEXT || text.length() > MAX_TEXT) {
      return false;
    }
    for (int i = 0; i < text.length(); i++) {
      if (text.charAt(i) < ' ' || text.charAt(i) > '~') {
        return false;
      }
    }
    return true;
  }

  /** A as hexadecimal digits, for the first call. */
  public String publicValue() {
    return Bytes.toHex(publicA);
  }

  /**
   * Takes salt and B of the first answer and returns M1 for the second call, all as hexadecimal digits. Call it once.
   *
   * @throws DsappException.Verification if they are unusable
   */
  public String prove(String saltDigits, String serverPublicDigits) throws DsappException.Verification {
    if (used) {
      throw new IllegalStateException("the exchange was used before");
    }
    used = true;
    byte[] salt = Bytes.fromHex(saltDigits);
    if (salt == null || salt.length != SALT_SIZE) {
      throw new DsappException.Verification(DsappException.Verification.Value.SALT, "the salt is not 16 bytes");
    }
    byte[] publicB = Bytes.fromHex(serverPublicDigits);
    BigInteger n = profile.n;
    if (publicB == null || publicB.length != profile.size || Bytes.toNumber(publicB).signum() == 0 || Bytes.toNumber(publicB).compareTo(n) >= 0) {
      throw unusable();
    }
    BigInteger b = Bytes.toNumber(publicB);
    byte[] bytesOfN = Bytes.pad(n, profile.size);
    Profile.Formulas formulas = profile.formulas;
    Map<String, byte[]> members = new HashMap<>();
    members.put("N", bytesOfN);
    members.put("g", Bytes.pad(profile.g, profile.size));
    members.put("s", salt);
    members.put("A", publicA);
    members.put("B", publicB);
    members.put("H(I)", Bytes.hash(formulas.hash, identifier));
    BigInteger k = Bytes.toNumber(hash(formulas.k, members));
    byte[] u = hash("A B", members);
    if (Bytes.toNumber(u).signum() == 0) {
      throw unusable();
    }

    byte[] inner = Bytes.hash(formulas.hash, identifier, new byte[] {':'}, password);
    members.put("inner", inner);
    byte[] x = hash(formulas.x, members);
    // S = (B - k*g^x)^(a + u*x); mod is never negative.
    BigInteger base = b.subtract(k.multiply(profile.g.modPow(Bytes.toNumber(x), n))).mod(n);
    BigInteger exponent = Bytes.toNumber(a).add(Bytes.toNumber(u).multiply(Bytes.toNumber(x)));
    byte[] s = Bytes.pad(base.modPow(exponent, n), profile.size);
    members.put("S", s);
    key = formulas.keyIsHash ? hash(formulas.key, members) : word(formulas.key, members);
    members.put("K", key);

    byte[] start = Bytes.hash(formulas.hash, bytesOfN);
    byte[] hashOfG = Bytes.hash(formulas.hash, profile.g.toByteArray());
    for (int i = 0; i < start.length; i++) {
      start[i] ^= hashOfG[i];
    }
    members.put("X", start);
    byte[] m1 = hash(formulas.m1, members);
    members.put("M1", m1);
    expected = hash(formulas.m2, members);
    transcript = Bytes.sha256(publicA, publicB);
    inspector.value("innerHash", inner);
    inspector.value("x", x);
    inspector.value("u", u);
    inspector.value("S", s);
    inspector.value("K", key);
    inspector.value("M1", m1);
    inspector.value("M2", expected);
    Bytes.clear(password, inner, x, s, a);
    return Bytes.toHex(m1);
  }

  /** The hash of the joined words. */
  private byte[] hash(String words, Map<String, byte[]> members) {
    String[] each = words.split(" ");
    byte[][] parts = new byte[each.length][];
    for (int i = 0; i < each.length; i++) {
      parts[i] = word(each[i], members);
    }
    return Bytes.hash(profile.formulas.hash, parts);
  }

  /** The bytes of a member, in a form if the word has one. */
  private byte[] word(String word, Map<String, byte[]> members) {
    int dot = word.indexOf('.');
    byte[] bytes = members.get(dot < 0 ? word : word.substring(0, dot));
    if (word.endsWith(".minimal")) {
      return Bytes.minimal(bytes);
    }
    return word.endsWith(".padded") ? Bytes.pad(Bytes.toNumber(bytes), profile.size) : bytes;
  }

  private static DsappException.Verification unusable() {
    return new DsappException.Verification(DsappException.Verification.Value.SERVER_PUBLIC, "the server's public value is unusable");
  }

  /**
   * Takes M2 of the second answer and returns the session that opens the data.
   *
   * @throws DsappException.Verification if the server did not prove itself
   */
  public Session confirm(String serverEvidenceDigits) throws DsappException.Verification {
    if (key == null) {
      throw new IllegalStateException("no exchange waits for the server's evidence");
    }
    byte[] sessionKey = key;
    key = null;
    byte[] evidence = Bytes.fromHex(serverEvidenceDigits);
    // Compares in constant time.
    if (evidence == null || !MessageDigest.isEqual(expected, evidence)) {
      Bytes.clear(sessionKey);
      throw new DsappException.Verification(
          DsappException.Verification.Value.SERVER_EVIDENCE, "the server did not prove that it knows the activation password");
    }
    return new Session(sessionKey, transcript);
  }

  /** Overwrites what can be overwritten. */
  @Override
  public void close() {
    used = true;
    Bytes.clear(password, a, key);
    key = null;
  }
}
