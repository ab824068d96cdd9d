package io.github.dsappgateway.phone;

import java.io.IOException;

/** Sends calls. An application has its own if it uses another HTTP client or pins certificates by it. */
public interface Transport {
  /**
   * Posts a JSON body with the value of the header Authorization. It does not follow redirects and sends nothing twice.
   *
   * @param path begins with /rest/
   * @throws IOException if there is no whole answer
   */
  Response post(String path, String authorization, byte[] body) throws IOException;

  /** An answer. */
  final class Response {
    final int status;
    final String retryAfter;
    final byte[] body;

    /**
     * @param retryAfter the value of the header Retry-After, or null
     * @param body at most 1 MiB
     */
    public Response(int status, String retryAfter, byte[] body) {
      this.status = status;
      this.retryAfter = retryAfter;
      this.body = body;
    }
  }
}
