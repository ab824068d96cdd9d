package io.github.dsappgateway.phone;

import java.io.BufferedReader;
import java.io.FileInputStream;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSocketFactory;
import javax.net.ssl.TrustManagerFactory;

/**
 * A phone in a terminal, with the simulated device of the sandbox. It reads commands from the standard input and answers each with one
 * line, "ok …" or "error KIND …":
 *
 * <pre>
 * activate IDENTIFIER PASSWORD
 * approve login|signature KEY
 * reject login|signature KEY
 * </pre>
 *
 * Environment: GATEWAY_URL, such as https://localhost:11080; GATEWAY_CA, a PEM file with the authority of its certificate; GATEWAY_KEY,
 * the front-end API key; GATEWAY_PROFILE; GATEWAY_REPEATS, how often a call is repeated whose answer is lost.
 */
public final class Phone {
  private final Gateway gateway;
  private SandboxDevice device;
  private Activated user;

  private Phone(Gateway gateway) {
    this.gateway = gateway;
  }

  public static void main(String[] arguments) throws Exception {
    Map<String, String> env = System.getenv();
    Transport transport = new HttpsTransport(env.get("GATEWAY_URL"), trusting(env.get("GATEWAY_CA")));
    Phone phone = new Phone(new Gateway(transport, env.get("GATEWAY_KEY"), Profile.of(env.getOrDefault("GATEWAY_PROFILE", Profile.DEFAULT.profileName())),
        Integer.parseInt(env.getOrDefault("GATEWAY_REPEATS", "3"))));
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      try {
        System.out.println("ok " + phone.execute(line.split(" ")));
      } catch (DsappException e) {
        System.out.println("error " + e.kind().name().toLowerCase(Locale.ROOT) + " " + e.getMessage() + " " + e.getCause());
      }
    }
  }

  private static SSLSocketFactory trusting(String authority) throws Exception {
    KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
    trusted.load(null, null);
    try (InputStream in = new FileInputStream(authority)) {
      trusted.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(in));
    }
    TrustManagerFactory managers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    managers.init(trusted);
    SSLContext tls = SSLContext.getInstance("TLS");
    tls.init(null, managers.getTrustManagers(), null);
    return tls.getSocketFactory();
  }

  private String execute(String[] words) throws DsappException {
    switch (words[0]) {
      case "activate":
        return activate(words[1], words[2].toCharArray());
      case "approve":
        return approve(words[1], words[2]);
      case "reject":
        return reject(words[1], words[2]);
      default:
        throw new IllegalArgumentException("unknown command");
    }
  }

  private String activate(String identifier, char[] password) throws DsappException {
    ActivationData data = gateway.exchange(identifier, password);
    device = new SandboxDevice();
    if (data.isStandard()) {
      device.activateStandard(data.activationCode, data.eventReactivationCounter);
      user = gateway.activateStandard(identifier, device.oneTimePassword());
      return device.serialNumber();
    }
    String message = gateway.addDevice(identifier, device.activateLicense(data.activationMessage), "a phone in Java");
    user = gateway.activate(identifier, device.activateInstance(message));
    gateway.call("/rest/v2/notification/push/updateNotificationID", request("userID", user.userID, "domain", user.domain,
        "digipassInstanceID", device.serialNumber(), "encryptedNotificationID", device.wrap("notification ID", "a push ID")));
    return device.serialNumber();
  }

  private String approve(String kind, String key) throws DsappException {
    String message = retrieve(kind, key);
    return (String) gateway.call(path(kind, "authUser", "authSignature"), request("userID", user.userID, "domain", user.domain,
        keyName(kind), key, "signature", device.sign(message))).get("userID");
  }

  private String reject(String kind, String key) throws DsappException {
    String message = retrieve(kind, key);
    gateway.call(path(kind, "cancelAuthUser", "cancelAuthSignatureRequest"),
        request("serialNumber", device.serialNumber(), keyName(kind), device.wrap("key", key)));
    return (String) device.open(message).get("title");
  }

  private String retrieve(String kind, String key) throws DsappException {
    return (String) gateway.call(path(kind, "getPreparedSecureChallenge", "getPreparedSignatureRequest"),
        request("serialNumber", device.serialNumber(), keyName(kind), key)).get("requestMessage");
  }

  private static String path(String kind, String login, String signature) {
    return kind.equals("login") ? "/rest/v2/authentication/push/" + login : "/rest/v2/signature/push/" + signature;
  }

  private static String keyName(String kind) {
    return kind.equals("login") ? "challengeKey" : "requestKey";
  }

  private static Map<String, String> request(String... namesAndValues) {
    Map<String, String> members = new LinkedHashMap<>();
    for (int i = 0; i < namesAndValues.length; i += 2) {
      members.put(namesAndValues[i], namesAndValues[i + 1]);
    }
    return members;
  }
}
