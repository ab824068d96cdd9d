import java.io.FileInputStream;
import java.math.BigInteger;
import java.net.Authenticator;
import java.net.PasswordAuthentication;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.security.KeyStore;
import java.security.MessageDigest;
import java.security.SecureRandom;
import java.security.cert.CertificateFactory;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/**
 * Runs the two SRP calls of an activation as a phone would that is written in Java, with
 * nothing but its standard library: java.net.http answers challenges with an Authenticator,
 * so that every first request comes without a key, and BigInteger writes numbers, with a
 * sign byte or without leading zeros.
 *
 * <p>Arguments: base URL, PEM file with the CA, front-end API key, registration identifier,
 * activation password, and how many calls that need no registration to make before. Ends
 * with 0 only if the server proved itself.
 */
public class Activate {
  static final BigInteger N = new BigInteger(
      "AC6BDB41324A9A9BF166DE5E1389582FAF72B6651987EE07FC3192943DB56050A37329CBB4A099ED8193E0757767A13DD52312AB4B03310D"
          + "CD7F48A9DA04FD50E8083969EDB767B0CF6095179A163AB3661A05FBD5FAAAE82918A9962F0B93B855F97993EC975EEAA80D740ADBF4"
          + "FF747359D041D5C33EA71D281E446B14773BCA97B43A23FB801676BD207A436C6481F1D2B9078717461A5B9D32E688F87748544523B5"
          + "24B0D57D5EA77A2775D2ECFA032CFBDBF52FB3786160279004E57AE6AF874E7303CE53299CCC041C7BC308D82A5698F3A8D0C38271AE"
          + "35F8E9DBFBB694B5C803D89F7AE435DE236D525F54759B65E372FCD68EF20FA7111F9E4AFF73", 16);
  static final BigInteger G = BigInteger.TWO;
  static final int SIZE = 256;
  static final SecureRandom RANDOM = new SecureRandom();

  final String base;
  final HttpClient client;

  Activate(String base, String authority, String key) throws Exception {
    KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
    trusted.load(null, null);
    try (FileInputStream in = new FileInputStream(authority)) {
      trusted.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(in));
    }
    TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    trust.init(trusted);
    SSLContext tls = SSLContext.getInstance("TLS");
    tls.init(null, trust.getTrustManagers(), null);
    this.base = base;
    this.client = HttpClient.newBuilder().sslContext(tls).authenticator(new Authenticator() {
      @Override
      protected PasswordAuthentication getPasswordAuthentication() {
        return new PasswordAuthentication(key, new char[0]);
      }
    }).build();
  }

  String call(String service, String body) throws Exception {
    HttpRequest request = HttpRequest.newBuilder(URI.create(base + "/rest/v2/provisioning/" + service))
        .header("Content-Type", "application/json")
        .POST(HttpRequest.BodyPublishers.ofString(body)).build();
    HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
    if (answer.statusCode() != 200 || !answer.body().contains("STAT_SUCCESS")) {
      throw new Exception(service + ": HTTP " + answer.statusCode() + " " + answer.body());
    }
    return answer.body();
  }

  static byte[] member(String answer, String name) {
    Matcher m = Pattern.compile("\"" + name + "\":\"([0-9A-F]+)\"").matcher(answer);
    if (!m.find()) {
      throw new IllegalArgumentException("no " + name);
    }
    return HexFormat.of().parseHex(m.group(1));
  }

  static byte[] hash(byte[]... parts) throws Exception {
    MessageDigest h = MessageDigest.getInstance("SHA-256");
    for (byte[] part : parts) {
      h.update(part);
    }
    return h.digest();
  }

  static byte[] pad(BigInteger n) {
    byte[] b = n.toByteArray();
    byte[] padded = new byte[SIZE];
    int length = Math.min(b.length, SIZE);
    System.arraycopy(b, b.length - length, padded, SIZE - length, length);
    return padded;
  }

  static BigInteger number(byte[] b) {
    return new BigInteger(1, b);
  }

  static byte[] ascii(String s) {
    return s.getBytes(StandardCharsets.US_ASCII);
  }

  void activate(String identifier, String password) throws Exception {
    BigInteger a;
    BigInteger publicKey;
    do {
      a = new BigInteger(256, RANDOM);
      publicKey = G.modPow(a, N);
    } while (publicKey.bitLength() < 8 * SIZE); // toByteArray adds a sign byte then
    BigInteger k = number(hash(pad(N), pad(G)));
    byte[] evidence;
    byte[] key;
    do {
      String challenge = call("DSAPPSRPGenerateEphemeralKey", "{\"registrationIdentifier\":\"" + identifier
          + "\",\"clientEphemeralPublicKey\":\"" + HexFormat.of().formatHex(publicKey.toByteArray()) + "\"}");
      BigInteger b = number(member(challenge, "serverEphemeralPublicKey"));
      byte[] salt = member(challenge, "salt");
      BigInteger x = number(hash(salt, hash(ascii(identifier + ":" + password))));
      BigInteger u = number(hash(pad(publicKey), pad(b)));
      BigInteger shared = b.subtract(k.multiply(G.modPow(x, N))).mod(N).modPow(a.add(u.multiply(x)), N);
      key = hash(pad(shared));
      byte[] group = hash(pad(N));
      byte[] generator = hash(new byte[] {2});
      for (int i = 0; i < group.length; i++) {
        group[i] ^= generator[i];
      }
      evidence = hash(group, hash(ascii(identifier)), salt, pad(publicKey), pad(b), key);
    } while ((evidence[0] & 0xF0) != 0); // toString leaves leading zeros out
    String proof = call("DSAPPSRPGenerateActivationData", "{\"registrationIdentifier\":\"" + identifier
        + "\",\"clientEvidenceMessage\":\"" + number(evidence).toString(16) + "\"}");
    if (!Arrays.equals(member(proof, "serverEvidenceMessage"), hash(pad(publicKey), evidence, key))) {
      throw new Exception("the server's evidence is wrong");
    }
  }

  public static void main(String[] args) throws Exception {
    Activate phone = new Activate(args[0], args[1], args[2]);
    for (int i = Integer.parseInt(args[5]); i > 0; i--) {
      phone.call("getServerTime", "{}");
    }
    phone.activate(args[3], args[4]);
  }
}
