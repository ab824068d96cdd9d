package io.github.dsappgateway.phone;

import java.io.File;
import java.io.IOException;
import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Deque;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** All tests, without a framework. Argument: the folder docs/vectors. Ends with 1 if one fails. */
public final class Tests {
  private int failed;
  private int passed;

  private interface Test {
    void run() throws Exception;
  }

  public static void main(String[] arguments) throws Exception {
    Tests tests = new Tests();
    File[] files = new File(arguments[0]).listFiles((folder, name) -> name.endsWith(".json"));
    Arrays.sort(files);
    tests.test("every profile has vectors, and no other", () -> equal("files", Profile.values().length, files.length));
    for (File file : files) {
      tests.vectors(file);
    }
    tests.test("every answer becomes the exception of its kind", Tests::answers);
    tests.test("no answer is an unknown outcome, with its cause", Tests::noAnswer);
    tests.test("a call whose answer is lost is repeated", Tests::repeats);
    tests.test("an exchange begins anew, at most twice", Tests::newExchanges);
    tests.test("wrong input makes no call", Tests::wrongInput);
    tests.test("an exchange cannot be used twice, and does not confirm before it has proved", Tests::order);
    tests.test("an activation image is read", Tests::image);
    tests.test("JSON is read and written", Tests::json);
    System.out.println(tests.passed + " passed, " + tests.failed + " failed");
    System.exit(tests.failed == 0 && tests.passed > 0 ? 0 : 1);
  }

  private void test(String name, Test test) {
    try {
      test.run();
      passed++;
    } catch (Exception | AssertionError e) {
      failed++;
      System.out.println("FAILED " + name + ": " + e);
    }
  }

  private static void equal(String what, Object want, Object got) {
    if (want == null ? got != null : !want.equals(got)) {
      throw new AssertionError(what + " is " + got + ", want " + want);
    }
  }

  @SuppressWarnings("unchecked")
  private static Map<String, Object> map(Object value) {
    return (Map<String, Object>) value;
  }

  private static List<?> list(Object value) {
    return (List<?>) value;
  }

  private static BigInteger number(Object digits) {
    return new BigInteger((String) digits, 16);
  }

  // The vectors.

  private void vectors(File file) throws IOException {
    Map<String, Object> content = map(Json.parse(new String(Files.readAllBytes(file.toPath()), StandardCharsets.UTF_8)));
    Profile profile = Profile.of((String) content.get("profile"));
    test(file + ": group", () -> {
      equal("N", profile.n, number(map(content.get("group")).get("N")));
      equal("g", profile.g, number(map(content.get("group")).get("g")));
    });
    for (Object v : list(content.get("vectors"))) {
      Map<String, Object> vector = map(v);
      test(file.getName() + ": " + vector.get("name"), () -> equal("outcome", vector.get("expect"), play(profile, vector)));
    }
  }

  /** Plays the calls of a vector through a Gateway, and returns what happens. */
  private static String play(Profile profile, Map<String, Object> vector) throws Exception {
    Map<String, Object> inputs = map(vector.get("inputs"));
    Map<String, Object> want = new HashMap<>();
    for (String part : new String[] {"values", "typed"}) {
      if (vector.containsKey(part)) {
        want.putAll(map(vector.get(part)));
      }
    }
    boolean typed = vector.containsKey("typed");
    String password = (String) (typed ? want.get("password") : inputs.get("password"));
    Map<String, String> seen = new HashMap<>();
    Exchange exchange = new Exchange(profile, (String) inputs.get("identifier"), password.toCharArray(), Bytes.fromHex((String) inputs.get("a")),
        (name, value) -> seen.put(name, Bytes.toHex(value)));

    Deque<Object> calls = new ArrayDeque<>(list(vector.get("calls")));
    boolean[] altered = {false};
    Transport transport = (path, authorization, body) -> {
      Map<String, Object> call = map(calls.remove());
      equal("path", "/rest/v2/provisioning/" + call.get("service"), path);
      equal("authorization", "Basic a2V5Og==", authorization);
      Map<String, Object> sent = map(Json.parse(new String(body, StandardCharsets.UTF_8)));
      for (Map.Entry<String, Object> member : map(call.get("request")).entrySet()) {
        boolean digits = !member.getKey().equals("registrationIdentifier");
        Object got = sent.get(member.getKey());
        if (digits ? !number(member.getValue()).equals(number(got)) : !member.getValue().equals(got)) {
          altered[0] = true;
        }
      }
      equal("members", map(call.get("request")).size(), sent.size());
      return new Transport.Response(200, null, text(call.get("answer")).getBytes(StandardCharsets.UTF_8));
    };
    String outcome;
    try {
      ActivationData data = new Gateway(transport, "key", profile).exchange((String) inputs.get("identifier"), exchange);
      for (Object i : list(map(vector.get("sealing")).get("items"))) {
        String item = (String) map(i).get("item");
        equal(item, map(i).get("plaintext"), item.equals("licenseActivationMessage") ? data.activationMessage
            : item.equals("activationCode") ? data.activationCode : data.eventReactivationCounter);
      }
      equal("licence", "standard".equals(vector.get("licenseType")), data.isStandard());
      outcome = "success";
    } catch (DsappException.Refused e) {
      equal("status", 1000, e.statusCode);
      outcome = "clientEvidenceRefused";
    } catch (DsappException.Verification e) {
      outcome = e.value == DsappException.Verification.Value.SERVER_PUBLIC ? "serverPublicRefused"
          : e.value == DsappException.Verification.Value.SERVER_EVIDENCE ? "serverEvidenceRefused" : "dataRefused";
    }
    equal("calls left", 0, calls.size());
    equal("a request differs", "altered M1".equals(vector.get("name")), altered[0]);
    if (want.containsKey("S")) {
      for (String name : new String[] {"A", "x", "u", "S", "K", "M1"}) {
        equal(name, want.get(name), seen.get(name));
      }
      if (!typed) {
        equal("innerHash", want.get("innerHash"), seen.get("innerHash"));
        equal("M2", want.get("M2"), seen.get("M2"));
      }
    }
    return outcome;
  }

  /** JSON of a value that was parsed. */
  private static String text(Object value) {
    if (value instanceof Map) {
      StringBuilder out = new StringBuilder("{");
      for (Map.Entry<String, Object> member : map(value).entrySet()) {
        out.append(out.length() > 1 ? "," : "").append('"').append(member.getKey()).append("\":").append(text(member.getValue()));
      }
      return out.append('}').toString();
    }
    return value instanceof String ? "\"" + value + "\"" : String.valueOf(value);
  }

  // Errors.

  private static Gateway answering(int status, String retryAfter, String body) {
    return new Gateway((path, authorization, sent) -> new Transport.Response(status, retryAfter, body.getBytes(StandardCharsets.UTF_8)), "key", Profile.DEFAULT, 0);
  }

  private static DsappException failure(Gateway gateway) {
    try {
      gateway.addDevice("e3wfISG9", "123", null);
      throw new AssertionError("no exception");
    } catch (DsappException e) {
      return e;
    }
  }

  private static void answers() {
    String success = "{\"resultCodes\":{\"returnCodeEnum\":\"RET_SUCCESS\",\"statusCodeEnum\":\"STAT_SUCCESS\",\"returnCode\":0,\"statusCode\":0}";
    String refusal = "{\"resultCodes\":{\"returnCodeEnum\":\"RET_FAILURE\",\"statusCodeEnum\":\"%s\",\"returnCode\":-1,\"statusCode\":%d}}";
    Object[][] cases = {
      {200, null, String.format(refusal, "STAT_INVCREDENTIALS", 1000), DsappException.Kind.REFUSED},
      {200, null, String.format(refusal, "STAT_LOCKED", 1012), DsappException.Kind.LOCKED},
      {200, null, "{}", DsappException.Kind.PROTOCOL},
      {200, null, "[]", DsappException.Kind.PROTOCOL},
      {200, null, "<html>", DsappException.Kind.PROTOCOL},
      {200, null, String.format(refusal, "STAT_ERROR", -1).replace("\"returnCode\":-1", "\"returnCode\":0"), DsappException.Kind.PROTOCOL},
      {200, null, success + "}", DsappException.Kind.PROTOCOL},
      {200, null, success + ",\"result\":[]}", DsappException.Kind.PROTOCOL},
      {200, null, success + ",\"result\":{\"instanceActivationMessage\":7}}", DsappException.Kind.PROTOCOL},
      {400, null, "{\"errorDescription\":\"deviceCode is missing\"}", DsappException.Kind.REQUEST},
      {404, null, "not JSON", DsappException.Kind.REQUEST},
      {401, null, "{}", DsappException.Kind.UNAUTHORIZED},
      {403, null, "{}", DsappException.Kind.UNAUTHORIZED},
      {429, "7", "{}", DsappException.Kind.UNAVAILABLE},
      {503, "soon", "busy", DsappException.Kind.UNAVAILABLE},
      {425, null, "{}", DsappException.Kind.UNAVAILABLE},
      {302, null, "", DsappException.Kind.UNKNOWN_OUTCOME},
      {500, null, "{}", DsappException.Kind.UNKNOWN_OUTCOME},
      {502, null, "", DsappException.Kind.UNKNOWN_OUTCOME},
      {504, null, "{}", DsappException.Kind.UNKNOWN_OUTCOME},
    };
    for (Object[] c : cases) {
      DsappException e = failure(answering((Integer) c[0], (String) c[1], (String) c[2]));
      equal(c[0] + " " + c[2], c[3], e.kind());
      if (e instanceof DsappException.Unavailable) {
        equal("retry", "7".equals(c[1]) ? 7L : 1L, ((DsappException.Unavailable) e).retryAfterSeconds);
      }
      if (Integer.valueOf(400).equals(c[0])) {
        equal("description", "deviceCode is missing", ((DsappException.Request) e).description);
      }
    }
  }

  private static void noAnswer() {
    IOException cause = new IOException("connection reset");
    DsappException e = failure(new Gateway((path, authorization, body) -> {
      throw cause;
    }, "key", Profile.DEFAULT, 0));
    equal("kind", DsappException.Kind.UNKNOWN_OUTCOME, e.kind());
    equal("cause", cause, e.getCause());
  }

  /** A transport whose first answers have these statuses, 0 for a lost one, and the others 200. It notes path and body of each call. */
  private static Transport losing(List<String> calls, int... fates) {
    return (path, authorization, body) -> {
      calls.add(path + " " + new String(body, StandardCharsets.UTF_8));
      int status = calls.size() <= fates.length ? fates[calls.size() - 1] : 200;
      if (status == 0) {
        throw new IOException("connection reset");
      }
      String codes = "{\"resultCodes\":{\"returnCodeEnum\":\"RET_SUCCESS\",\"statusCodeEnum\":\"STAT_SUCCESS\",\"returnCode\":0,\"statusCode\":0}"
          + ",\"result\":{\"userID\":\"jane.doe\",\"domain\":\"\",\"serialNumber\":\"VDS1000000\",\"instanceActivationMessage\":\"AA\"}}";
      return new Transport.Response(status, null, (status == 200 ? codes : "{}").getBytes(StandardCharsets.UTF_8));
    };
  }

  private static DsappException.Kind kindOf(Test call) throws Exception {
    try {
      call.run();
      return null;
    } catch (DsappException e) {
      return e.kind();
    }
  }

  private static void repeats() throws Exception {
    Map<String, String> request = new LinkedHashMap<>();
    request.put("serialNumber", "VDS1000000-1");
    request.put("challengeKey", "1");
    Object[][] cases = {
      // How many calls are made, and what they end with.
      {"/rest/v2/provisioning/MdlActivate", 3, null, new int[] {0, 502}, 3},
      {"/rest/v2/provisioning/MdlAddDevice", 2, null, new int[] {503}, 3},
      {"/rest/v2/provisioning/DSAPPSRPActivate", 2, null, new int[] {504}, 3},
      {"/rest/v2/signature/scan/getPreparedSignatureRequest", 2, null, new int[] {0}, 3},
      {"/rest/v2/authentication/push/authUser", 2, null, new int[] {0}, 3},
      {"/rest/v2/authentication/push/cancelAuthUser", 4, DsappException.Kind.UNKNOWN_OUTCOME, new int[] {0, 504, 502, 0}, 3},
      {"/rest/v2/authentication/authUser", 1, DsappException.Kind.UNKNOWN_OUTCOME, new int[] {0}, 3},
      {"/rest/v2/notification/push/updateNotificationID", 1, DsappException.Kind.UNKNOWN_OUTCOME, new int[] {0}, 3},
      {"/rest/v2/provisioning/MdlActivate", 1, DsappException.Kind.UNKNOWN_OUTCOME, new int[] {500}, 3},
      {"/rest/v2/provisioning/MdlActivate", 1, DsappException.Kind.UNAVAILABLE, new int[] {429}, 3},
      {"/rest/v2/provisioning/MdlActivate", 1, DsappException.Kind.UNKNOWN_OUTCOME, new int[] {0}, 0},
    };
    for (Object[] c : cases) {
      List<String> calls = new ArrayList<>();
      Gateway gateway = new Gateway(losing(calls, (int[]) c[3]), "key", Profile.DEFAULT, (Integer) c[4]);
      equal(c[0] + " ends with", c[2], kindOf(() -> gateway.call((String) c[0], request)));
      equal(c[0] + ": calls", c[1], calls.size());
      equal(c[0] + ": different calls", 1, new HashSet<>(calls).size());
    }
  }

  private static void newExchanges() throws Exception {
    List<String> calls = new ArrayList<>();
    Gateway gateway = new Gateway(losing(calls, 0, 502, 0), "key", Profile.DEFAULT);
    equal("ends with", DsappException.Kind.UNKNOWN_OUTCOME, kindOf(() -> gateway.exchange("e3wfISG9", "Tb048aX1".toCharArray())));
    equal("calls", 3, calls.size());
    equal("different calls", 3, new HashSet<>(calls).size());
  }

  private static void wrongInput() throws Exception {
    Gateway gateway = new Gateway((path, authorization, body) -> {
      throw new AssertionError("called");
    }, "key", Profile.DEFAULT);
    char[] long65 = new char[65];
    Arrays.fill(long65, 'x');
    String[][] wrong = {
      {"abc", "Tb048aX1"}, {"e3w fISG9", "Tb048aX1"}, {"e3wfISG9", "abc"}, {"e3wfISG9", "Tb048aX\u00e9"}, {"e3wfISG9", new String(long65)},
    };
    for (String[] w : wrong) {
      try {
        gateway.exchange(w[0], w[1].toCharArray());
        throw new AssertionError(w[0] + " " + w[1] + " accepted");
      } catch (DsappException.Input e) {
        equal("the password is in the message", false, e.getMessage().contains(w[1]));
      }
    }
  }

  private static void order() throws Exception {
    try (Exchange exchange = new Exchange(Profile.DEFAULT, "e3wfISG9", "Tb048aX1".toCharArray())) {
      try {
        exchange.confirm("00");
        throw new AssertionError("confirmed before it has proved");
      } catch (IllegalStateException e) {
        // As it should be.
      }
      try {
        exchange.prove("00", "00");
        throw new AssertionError("short salt accepted");
      } catch (DsappException.Verification e) {
        equal("value", DsappException.Verification.Value.SALT, e.value);
      }
      try {
        exchange.prove("00", "00");
        throw new AssertionError("used twice");
      } catch (IllegalStateException e) {
        // As it should be.
      }
    }
  }

  private static String hex(String text) {
    return Bytes.toHex(text.getBytes(StandardCharsets.UTF_8));
  }

  private static void image() throws Exception {
    ActivationImage image = ActivationImage.parse(hex("01;01;jan\u00e9;;e3wfISG9;Tb048aX1;"));
    equal("image", "jan\u00e9,,e3wfISG9,Tb048aX1,", image.userID + "," + image.domain + "," + image.registrationIdentifier + ","
        + image.activationPassword + "," + image.gatewayID);
    for (String wrong : new String[] {"", "xyz", hex("01;02;a;b;c;d;e"), hex("01;01;a;b;c;d"), "ff"}) {
      try {
        ActivationImage.parse(wrong);
        throw new AssertionError(wrong + " accepted");
      } catch (DsappException.Input e) {
        // As it should be.
      }
    }
  }

  private static void json() {
    Map<String, String> members = new LinkedHashMap<>();
    members.put("plain", "e3wfISG9");
    members.put("escaped", "\"\\\n\u0001/\u00e9\u20ac");
    equal("round trip", members, Json.parse(Json.write(members)));
    equal("escapes", "\"\\/\b\f\n\r\t\u20ac", Json.parse("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u20AC\""));
    equal("values", "{a=[1.0, -2.5, true, false, null, {}]}", String.valueOf(Json.parse(" { \"a\" : [1,-2.5,true,false,null,{}] } ")));
    StringBuilder deep = new StringBuilder();
    for (int i = 0; i < 10_000; i++) {
      deep.append('[');
    }
    for (String wrong : new String[] {
      "", "{", "}", "{\"a\"}", "{\"a\":1,}", "[1 2]", "\"a", "\"\\x\"", "\"\\u12\"", "\"\n\"", "tru", "1x", "{} {}", "{\"a\":1,\"a\":2}", "{1:2}", "-", deep.toString(),
    }) {
      equal(wrong, null, Json.parse(wrong));
    }
  }
}
