package io.github.dsappgateway.phone;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.HttpRetryException;
import java.net.HttpURLConnection;
import java.net.URL;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLSocketFactory;

/** A transport by HttpsURLConnection, which Java and Android have. */
public final class HttpsTransport implements Transport {
  private static final int MAX_ANSWER = 1 << 20;
  private static final int CONNECT_TIMEOUT = 10_000;
  private static final int READ_TIMEOUT = 45_000;

  private final String baseUrl;
  private final SSLSocketFactory sockets;

  /**
   * @param baseUrl such as https://gateway.example.com, with the path in front of /rest if there is one
   * @param sockets decides which certificates are accepted, or null for those of the system
   */
  public HttpsTransport(String baseUrl, SSLSocketFactory sockets) {
    this.baseUrl = baseUrl.endsWith("/") ? baseUrl.substring(0, baseUrl.length() - 1) : baseUrl;
    this.sockets = sockets;
    if (!baseUrl.startsWith("https://")) {
      throw new IllegalArgumentException("the URL does not begin with https://");
    }
  }

  @Override
  public Response post(String path, String authorization, byte[] body) throws IOException {
    HttpsURLConnection connection = (HttpsURLConnection) new URL(baseUrl + path).openConnection();
    if (sockets != null) {
      connection.setSSLSocketFactory(sockets);
    }
    connection.setConnectTimeout(CONNECT_TIMEOUT);
    connection.setReadTimeout(READ_TIMEOUT);
    connection.setInstanceFollowRedirects(false);
    connection.setUseCaches(false);
    connection.setRequestMethod("POST");
    connection.setRequestProperty("Content-Type", "application/json");
    connection.setRequestProperty("Authorization", authorization);
    connection.setDoOutput(true);
    // Without this, the class repeats a POST by itself after a lost connection.
    connection.setFixedLengthStreamingMode(body.length);
    try {
      try (OutputStream out = connection.getOutputStream()) {
        out.write(body);
      }
      int status = connection.getResponseCode();
      InputStream in = status < HttpURLConnection.HTTP_BAD_REQUEST ? connection.getInputStream() : connection.getErrorStream();
      return new Response(status, connection.getHeaderField("Retry-After"), in == null ? new byte[0] : read(in));
    } catch (HttpRetryException e) {
      // How the class reports a 401 for a body that it cannot repeat.
      return new Response(e.responseCode(), null, new byte[0]);
    }
  }

  private static byte[] read(InputStream in) throws IOException {
    try (InputStream body = in) {
      ByteArrayOutputStream out = new ByteArrayOutputStream();
      byte[] buffer = new byte[8192];
      for (int n = body.read(buffer); n >= 0; n = body.read(buffer)) {
        out.write(buffer, 0, n);
        if (out.size() > MAX_ANSWER) {
          throw new IOException("the answer is too large");
        }
      }
      return out.toByteArray();
    }
  }
}
