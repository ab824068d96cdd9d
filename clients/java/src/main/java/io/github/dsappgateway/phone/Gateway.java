package io.github.dsappgateway.phone;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.regex.Pattern;

/**
 * The calls of a phone to one gateway. They block: make them on a thread of their own. A Gateway can be used by several threads if
 * its transport can.
 */
public final class Gateway {
  private static final String PROVISIONING = "/rest/v2/provisioning/";
  /** The services whose answer the gateway keeps for a repeat. */
  private static final Pattern REPEATABLE = Pattern.compile(
      "/rest/v2/(provisioning/(MdlAddDevice|MdlActivate|DSAPPSRPActivate)|(authentication|signature)/(push|scan)/[A-Za-z]+)");
  /** How often a call is repeated by default. */
  private static final int REPEATS = 3;
  /** A registration allows three successful exchanges by default. */
  private static final int MAX_NEW_EXCHANGES = 2;
  /** Milliseconds before the first repeat; each further one waits twice as long. */
  private static final long FIRST_PAUSE = 250;
  /** Nanoseconds from the first call on within which calls are repeated. The gateway keeps answers for a minute. */
  private static final long REPEAT_WITHIN = 60_000_000_000L;

  private final Transport transport;
  private final String authorization;
  private final Profile profile;
  private final int repeats;

  /**
   * @param apiKey the front-end API key, which is in every copy of the application and no secret
   */
  public Gateway(Transport transport, String apiKey, Profile profile) {
    this(transport, apiKey, profile, REPEATS);
  }

  /**
   * @param apiKey the front-end API key, which is in every copy of the application and no secret
   * @param repeats how often a call without an answer, or with 502, 503 or 504, is repeated. Only calls are repeated that the
   *     gateway answers again; an exchange begins anew, at most twice. 0 if the gateway has requests.repeat 0s: it would carry out
   *     such a call again.
   */
  public Gateway(Transport transport, String apiKey, Profile profile, int repeats) {
    this.transport = transport;
    this.authorization = "Basic " + Base64.getEncoder().encodeToString((apiKey + ":").getBytes(StandardCharsets.UTF_8));
    this.profile = profile;
    this.repeats = repeats;
  }

  /**
   * Makes the two calls of the exchange and returns the activation data. After a Refused, ask for the password again; after 3 of
   * them a registration is used up. If an answer is lost, it begins a new exchange by itself.
   */
  public ActivationData exchange(String registrationIdentifier, char[] activationPassword) throws DsappException {
    return repeat(MAX_NEW_EXCHANGES, () -> {
      try (Exchange exchange = new Exchange(profile, registrationIdentifier, activationPassword)) {
        return exchange(registrationIdentifier, exchange);
      }
    });
  }

  ActivationData exchange(String registrationIdentifier, Exchange exchange) throws DsappException {
    Answer first = provisioning("DSAPPSRPGenerateEphemeralKey", registrationIdentifier, "clientEphemeralPublicKey", exchange.publicValue());
    String evidence = exchange.prove(first.text("salt"), first.text("serverEphemeralPublicKey"));
    Answer second = provisioning("DSAPPSRPGenerateActivationData", registrationIdentifier, "clientEvidenceMessage", evidence);
    try (Session session = exchange.confirm(second.text("serverEvidenceMessage"))) {
      if (!second.has("standard")) {
        String message = session.open(Item.LICENSE_ACTIVATION_MESSAGE, second.sealed("encryptedLicenseActivationMessage"));
        if (Bytes.fromHex(message) == null) {
          throw new DsappException.Protocol(second.call, "the activation message is not hexadecimal");
        }
        return new ActivationData(message, null, null);
      }
      Answer standard = second.object("standard");
      String code = session.open(Item.ACTIVATION_CODE, standard.object("activationCode").sealed("data"));
      String counter = !standard.has("eventReactivationCounter") ? null
          : session.open(Item.EVENT_REACTIVATION_COUNTER, standard.object("eventReactivationCounter").sealed("data"));
      return new ActivationData(null, code, counter);
    }
  }

  /**
   * Adds the device with its device code and returns the instance activation message.
   *
   * @param description for people, or null
   */
  public String addDevice(String registrationIdentifier, String deviceCode, String description) throws DsappException {
    Map<String, String> request = new LinkedHashMap<>();
    request.put("registrationIdentifier", registrationIdentifier);
    request.put("deviceCode", deviceCode);
    if (description != null) {
      request.put("description", description);
    }
    return new Answer("MdlAddDevice", call(PROVISIONING + "MdlAddDevice", request), "").text("instanceActivationMessage");
  }

  /** Completes the activation of a multi-device licence. */
  public Activated activate(String registrationIdentifier, String signature) throws DsappException {
    return activated(provisioning("MdlActivate", registrationIdentifier, "signature", signature));
  }

  /** Completes the activation of a standard licence by a one-time password. */
  public Activated activateStandard(String registrationIdentifier, String oneTimePassword) throws DsappException {
    return activated(provisioning("DSAPPSRPActivate", registrationIdentifier, "response", oneTimePassword));
  }

  /** Completes the activation of a standard licence by a derivation code, which binds it to the device. */
  public Activated bindStandard(String registrationIdentifier, String derivationCode) throws DsappException {
    return activated(provisioning("DSAPPSRPActivate", registrationIdentifier, "derivationCode", derivationCode));
  }

  /** Makes the four calls of an activation of a multi-device licence. */
  public Activated activateDevice(String registrationIdentifier, char[] activationPassword, DeviceLibrary device, String description)
      throws DsappException {
    ActivationData data = exchange(registrationIdentifier, activationPassword);
    if (data.isStandard()) {
      throw new DsappException.Protocol("DSAPPSRPGenerateActivationData", "this is a standard licence");
    }
    String message = addDevice(registrationIdentifier, device.activateLicense(data.activationMessage), description);
    return activate(registrationIdentifier, device.activateInstance(message));
  }

  /**
   * Calls any service of version 2 and returns the members of its result: strings, numbers (Double) and maps. For the services of
   * logins and signatures, which docs/protocol.md lists. A call that the gateway answers again is repeated if its answer is lost.
   *
   * @param path begins with /rest/v2/
   */
  public Map<String, Object> call(String path, Map<String, String> request) throws DsappException {
    return repeat(REPEATABLE.matcher(path).matches() ? repeats : 0, () -> callOnce(path, request));
  }

  /** Makes calls and returns what they give. */
  private interface Attempt<T> {
    T make() throws DsappException;
  }

  /** Makes an attempt, and again up to so many times and this.repeats while an answer is lost. */
  private <T> T repeat(int most, Attempt<T> attempt) throws DsappException {
    long began = System.nanoTime();
    for (int made = 0;; made++) {
      try {
        return attempt.make();
      } catch (DsappException e) {
        long pause = FIRST_PAUSE << made;
        if (e instanceof DsappException.Unavailable) {
          pause = Math.max(pause, 1000 * ((DsappException.Unavailable) e).retryAfterSeconds);
        }
        if (made >= Math.min(most, repeats) || !answerLost(e) || System.nanoTime() - began + pause * 1_000_000 > REPEAT_WITHIN) {
          throw e;
        }
        try {
          Thread.sleep(pause);
        } catch (InterruptedException interrupted) {
          Thread.currentThread().interrupt();
          throw e;
        }
      }
    }
  }

  /** Reports whether an exception is that of a lost answer, or of a gateway that is not available for the moment. */
  private static boolean answerLost(DsappException e) {
    if (e instanceof DsappException.Unavailable) {
      return ((DsappException.Unavailable) e).httpStatus == 503;
    }
    int status = e instanceof DsappException.UnknownOutcome ? ((DsappException.UnknownOutcome) e).httpStatus : -1;
    return status == 0 || status == 502 || status == 504;
  }

  private Map<String, Object> callOnce(String path, Map<String, String> request) throws DsappException {
    String call = path.substring(path.lastIndexOf('/') + 1);
    Transport.Response response;
    try {
      response = transport.post(path, authorization, Json.write(request).getBytes(StandardCharsets.UTF_8));
    } catch (IOException e) {
      throw new DsappException.UnknownOutcome(call, 0, e);
    }
    return read(call, response);
  }

  private Answer provisioning(String service, String registrationIdentifier, String name, String value) throws DsappException {
    Map<String, String> request = new LinkedHashMap<>();
    request.put("registrationIdentifier", registrationIdentifier);
    request.put(name, value);
    return new Answer(service, call(PROVISIONING + service, request), "");
  }

  private static Activated activated(Answer answer) throws DsappException.Protocol {
    return new Activated(answer.text("userID"), answer.text("domain"), answer.text("serialNumber"));
  }

  /** Returns the result of an answer, or throws the exception that it stands for. */
  private static Map<String, Object> read(String call, Transport.Response response) throws DsappException {
    Answer answer = new Answer(call, members(Json.parse(new String(response.body, StandardCharsets.UTF_8))), "");
    int status = response.status;
    switch (status) {
      case 200:
        break;
      case 401:
      case 403:
        throw new DsappException.Unauthorized(call, status);
      case 408:
      case 425:
      case 429:
      case 503:
        throw new DsappException.Unavailable(call, status, seconds(response.retryAfter));
      default:
        if (status >= 400 && status < 500) {
          Object description = answer.members == null ? null : answer.members.get("errorDescription");
          throw new DsappException.Request(call, status, description instanceof String ? (String) description : "");
        }
        throw new DsappException.UnknownOutcome(call, status, null);
    }
    if (answer.members == null) {
      throw new DsappException.Protocol(call, "the answer is not a JSON object");
    }
    Answer codes = answer.object("resultCodes");
    int returnCode = codes.integer("returnCode");
    if ((returnCode == 0) != codes.text("returnCodeEnum").equals("RET_SUCCESS")) {
      throw new DsappException.Protocol(call, "the result codes contradict each other");
    }
    if (returnCode != 0) {
      throw new DsappException.Refused(call, codes.text("statusCodeEnum"), codes.integer("statusCode"), returnCode);
    }
    return answer.has("result") ? answer.object("result").members : new LinkedHashMap<>();
  }

  private static long seconds(String retryAfter) {
    try {
      return Math.max(1, Long.parseLong(retryAfter));
    } catch (NumberFormatException e) {
      return 1;
    }
  }

  @SuppressWarnings("unchecked") // Json makes no other maps.
  private static Map<String, Object> members(Object value) {
    return value instanceof Map ? (Map<String, Object>) value : null;
  }

  /** Members that must have a type. */
  private static final class Answer {
    final String call;
    private final Map<String, Object> members;
    private final String path;

    Answer(String call, Map<String, Object> members, String path) {
      this.call = call;
      this.members = members;
      this.path = path;
    }

    boolean has(String name) {
      return members.get(name) != null;
    }

    String text(String name) throws DsappException.Protocol {
      Object value = members.get(name);
      if (!(value instanceof String)) {
        throw new DsappException.Protocol(call, path + name + " is missing or not a string");
      }
      return (String) value;
    }

    int integer(String name) throws DsappException.Protocol {
      Object value = members.get(name);
      if (!(value instanceof Double)) {
        throw new DsappException.Protocol(call, path + name + " is missing or not a number");
      }
      return ((Double) value).intValue();
    }

    Answer object(String name) throws DsappException.Protocol {
      Map<String, Object> value = members(members.get(name));
      if (value == null) {
        throw new DsappException.Protocol(call, path + name + " is missing or not an object");
      }
      return new Answer(call, value, path + name + ".");
    }

    SealedItem sealed(String data) throws DsappException.Protocol {
      return new SealedItem(text(data), text("encryptedCounter"), text("mac"));
    }
  }
}
