import java.io.FileInputStream;
import java.math.BigInteger;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.security.KeyStore;
import java.security.MessageDigest;
import java.security.SecureRandom;
import java.security.cert.CertificateFactory;
import java.util.Arrays;
import java.util.Base64;
import java.util.HexFormat;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.crypto.Cipher;
import javax.crypto.Mac;
import javax.crypto.spec.IvParameterSpec;
import javax.crypto.spec.SecretKeySpec;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/**
 * Runs the two SRP calls of an activation as a phone would, with an unmodified SRP library and the
 * standard library for the rest. It shares no code with the gateway.
 *
 * <p>{@code java Peer LIBRARY activate} takes the environment that activate.mjs of srp-client
 * takes, and prints the activation message. {@code java Peer LIBRARY vectors FILE} computes the
 * vectors of a file of docs/vectors, and prints how many. LIBRARY is the name of a class here.
 */
public final class Peer {
  /** A library in one exchange. All values are numbers, as the libraries take and give them. */
  interface Library {
    /** Begins with a private value of 32 bytes. */
    BigInteger begin(String identifier, String password, BigInteger a);

    /** Returns M1. */
    BigInteger prove(byte[] salt, BigInteger b) throws Exception;

    /** Fails unless M2 is right. */
    void confirm(BigInteger m2) throws Exception;

    /** The session key, as phones with this library take it. */
    byte[] key() throws Exception;
  }

  static final int SIZE = 256;

  public static void main(String[] args) throws Exception {
    Library library = (Library) Class.forName(args[0]).getDeclaredConstructor().newInstance();
    if (args[1].equals("vectors")) {
      vectors(library, new String(Files.readAllBytes(Paths.get(args[2])), StandardCharsets.UTF_8));
      return;
    }
    System.out.println(activate(library));
  }

  // A vector begins with its name. The first B and the last M1 of it are those of its values.
  static void vectors(Library library, String file) throws Exception {
    int right = 0;
    for (String v : file.split("\n  \\{\n   \"name\": ")) {
      String name = v.substring(0, v.indexOf('\n'));
      if (!v.contains("\"expect\": \"success\"")) {
        continue; // the head of the file, and what a library does not decide
      }
      BigInteger a = library.begin(member(v, "identifier"), member(v, "password"), new BigInteger(member(v, "a"), 16));
      same(name + "A", number(v, "A"), a);
      same(name + "M1", number(v, "M1"), library.prove(unhex(v, "salt"), number(v, "B")));
      library.confirm(number(v, "M2"));
      if (!Arrays.equals(unhex(v, "K"), library.key())) {
        throw new Exception(name + "K differs");
      }
      right++;
    }
    System.out.println(right + " vectors");
  }

  static void same(String what, BigInteger want, BigInteger got) throws Exception {
    if (!want.equals(got)) {
      throw new Exception(what + " is " + got.toString(16));
    }
  }

  static String activate(Library library) throws Exception {
    String identifier = System.getenv("REGISTRATION_IDENTIFIER");
    String password = System.getenv("ACTIVATION_PASSWORD");
    BigInteger secret = new BigInteger(256, new SecureRandom());
    BigInteger a = library.begin(identifier, password, secret);
    String first = call("DSAPPSRPGenerateEphemeralKey", identifier, "clientEphemeralPublicKey", a);
    BigInteger b = number(first, "serverEphemeralPublicKey");
    BigInteger m1 = library.prove(unhex(first, "salt"), b);
    String second = call("DSAPPSRPGenerateActivationData", identifier, "clientEvidenceMessage", m1);
    library.confirm(number(second, "serverEvidenceMessage"));
    // The file is there, and only its owner can read it.
    Files.writeString(Paths.get(System.getenv("SRP_CAPTURE")), String.format(
        "{\"identity\":\"%s\",\"password\":\"%s\",\"salt\":\"%s\",\"a\":\"%x\",\"A\":\"%x\",\"B\":\"%s\",\"K\":\"%s\",\"M1\":\"%064x\",\"M2\":\"%s\","
            + "\"items\":[{\"item\":\"licenseActivationMessage\",\"data\":\"%s\",\"counter\":\"%s\",\"mac\":\"%s\"}]}",
        identifier, password, member(first, "salt"), secret, a, member(first, "serverEphemeralPublicKey"),
        HexFormat.of().formatHex(library.key()), m1, member(second, "serverEvidenceMessage"),
        member(second, "encryptedLicenseActivationMessage"), member(second, "encryptedCounter"), member(second, "mac")));

    MessageDigest transcript = MessageDigest.getInstance("SHA-256");
    transcript.update(pad(a));
    transcript.update(pad(b));
    byte[] salt = transcript.digest();
    byte[] counter = unhex(second, "encryptedCounter");
    byte[] data = unhex(second, "encryptedLicenseActivationMessage");
    if (!MessageDigest.isEqual(hmac(derive(library.key(), salt, "mac"), counter, data), unhex(second, "mac"))) {
      throw new Exception("the MAC does not match");
    }
    Cipher cipher = Cipher.getInstance("AES/CTR/NoPadding");
    cipher.init(Cipher.DECRYPT_MODE, new SecretKeySpec(derive(library.key(), salt, "encryption"), "AES"), new IvParameterSpec(Arrays.copyOf(counter, 16)));
    return new String(cipher.doFinal(data), StandardCharsets.US_ASCII);
  }

  static byte[] derive(byte[] key, byte[] salt, String purpose) throws Exception {
    return hmac(hmac(salt, key), ("DSAPP-SRP v1 licenseActivationMessage " + purpose).getBytes(StandardCharsets.US_ASCII), new byte[] {1});
  }

  static byte[] hmac(byte[] key, byte[]... parts) throws Exception {
    Mac mac = Mac.getInstance("HmacSHA256");
    mac.init(new SecretKeySpec(key, "HmacSHA256"));
    for (byte[] part : parts) {
      mac.update(part);
    }
    return mac.doFinal();
  }

  static byte[] pad(BigInteger n) {
    byte[] b = n.toByteArray();
    byte[] padded = new byte[SIZE];
    int length = Math.min(b.length, SIZE);
    System.arraycopy(b, b.length - length, padded, SIZE - length, length);
    return padded;
  }

  static String member(String json, String name) {
    Matcher m = Pattern.compile("\"" + name + "\": ?\"([^\"]+)\"").matcher(json);
    if (!m.find()) {
      throw new IllegalArgumentException("no " + name);
    }
    return m.group(1);
  }

  static byte[] unhex(String json, String name) {
    return HexFormat.of().parseHex(member(json, name));
  }

  static BigInteger number(String json, String name) {
    return new BigInteger(member(json, name), 16);
  }

  // Numbers are sent as BigInteger writes them.
  static String call(String service, String identifier, String member, BigInteger value) throws Exception {
    KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
    trusted.load(null, null);
    try (FileInputStream in = new FileInputStream(System.getenv("GATEWAY_CA"))) {
      trusted.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(in));
    }
    TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    trust.init(trusted);
    SSLContext tls = SSLContext.getInstance("TLS");
    tls.init(null, trust.getTrustManagers(), null);
    String body = "{\"registrationIdentifier\":\"" + identifier + "\",\"" + member + "\":\"" + value.toString(16) + "\"}";
    HttpRequest request = HttpRequest.newBuilder(URI.create(System.getenv("GATEWAY_URL") + "/rest/v2/provisioning/" + service))
        .header("Content-Type", "application/json")
        .header("Authorization", "Basic " + Base64.getEncoder().encodeToString((System.getenv("GATEWAY_KEY") + ":").getBytes(StandardCharsets.US_ASCII)))
        .POST(HttpRequest.BodyPublishers.ofString(body)).build();
    HttpResponse<String> answer = HttpClient.newBuilder().sslContext(tls).build().send(request, HttpResponse.BodyHandlers.ofString());
    if (answer.statusCode() != 200 || !answer.body().contains("STAT_SUCCESS")) {
      throw new Exception(service + ": HTTP " + answer.statusCode() + " " + answer.body());
    }
    return answer.body();
  }
}
