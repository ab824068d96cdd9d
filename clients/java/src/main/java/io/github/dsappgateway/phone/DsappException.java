package io.github.dsappgateway.phone;

/**
 * The class of all exceptions of this package. {@link #kind} tells them apart, and the nested classes say more. No message
 * contains a password, key or activation data.
 */
public abstract class DsappException extends Exception {
  private static final long serialVersionUID = 1;

  /** The kinds of exceptions. */
  public enum Kind {
    INPUT,
    REFUSED,
    LOCKED,
    REQUEST,
    UNAUTHORIZED,
    UNAVAILABLE,
    UNKNOWN_OUTCOME,
    VERIFICATION,
    PROTOCOL
  }

  private final Kind kind;

  private DsappException(Kind kind, String message, Throwable cause) {
    super(message, cause);
    this.kind = kind;
  }

  public final Kind kind() {
    return kind;
  }

  /** A value of the caller, such as an identifier or a password, cannot be right. No call was made. */
  public static final class Input extends DsappException {
    private static final long serialVersionUID = 1;

    Input(String message) {
      super(Kind.INPUT, message, null);
    }
  }

  /**
   * The gateway or the authentication server refused the call. In an exchange this means a wrong password, or a registration
   * that is unknown, expired or used up: nobody can tell which. The kind is LOCKED if the user's account is locked.
   */
  public static final class Refused extends DsappException {
    private static final long serialVersionUID = 1;

    public final String statusCodeEnum;
    public final int statusCode;
    public final int returnCode;

    Refused(String call, String statusCodeEnum, int statusCode, int returnCode) {
      super("STAT_LOCKED".equals(statusCodeEnum) ? Kind.LOCKED : Kind.REFUSED,
          call + " was refused: " + statusCodeEnum + " (" + statusCode + ")", null);
      this.statusCodeEnum = statusCodeEnum;
      this.statusCode = statusCode;
      this.returnCode = returnCode;
    }
  }

  /** The gateway calls the request malformed (400, 404, 405, 413, 415): a mistake of the program. */
  public static final class Request extends DsappException {
    private static final long serialVersionUID = 1;

    public final int httpStatus;
    /** The gateway's errorDescription, which names the member, or an empty string. */
    public final String description;

    Request(String call, int httpStatus, String description) {
      super(Kind.REQUEST, call + ": HTTP status " + httpStatus + (description.isEmpty() ? "" : ": " + description), null);
      this.httpStatus = httpStatus;
      this.description = description;
    }
  }

  /** The API key is missing, wrong or not for this service (401, 403). */
  public static final class Unauthorized extends DsappException {
    private static final long serialVersionUID = 1;

    public final int httpStatus;

    Unauthorized(String call, int httpStatus) {
      super(Kind.UNAUTHORIZED, call + ": the API key is not accepted (HTTP status " + httpStatus + ")", null);
      this.httpStatus = httpStatus;
    }
  }

  /**
   * The gateway carried out nothing (408, 425, 429, 503). The same call can be made again after retryAfterSeconds; a proof only
   * after a new exchange.
   */
  public static final class Unavailable extends DsappException {
    private static final long serialVersionUID = 1;

    public final int httpStatus;
    public final long retryAfterSeconds;

    Unavailable(String call, int httpStatus, long retryAfterSeconds) {
      super(Kind.UNAVAILABLE, call + ": not available now (HTTP status " + httpStatus + "), try again after " + retryAfterSeconds + " seconds", null);
      this.httpStatus = httpStatus;
      this.retryAfterSeconds = retryAfterSeconds;
    }
  }

  /** No answer (httpStatus 0), or one that does not tell (5xx): the call may have been carried out or not. */
  public static final class UnknownOutcome extends DsappException {
    private static final long serialVersionUID = 1;

    public final int httpStatus;

    UnknownOutcome(String call, int httpStatus, Throwable cause) {
      super(Kind.UNKNOWN_OUTCOME, call + ": " + (httpStatus == 0 ? "no answer" : "HTTP status " + httpStatus) + ", it may have been carried out", cause);
      this.httpStatus = httpStatus;
    }
  }

  /**
   * The gateway did not prove itself, or activation data was altered. Do not go on, and do not use anything of the answer: this
   * can be an attack.
   */
  public static final class Verification extends DsappException {
    private static final long serialVersionUID = 1;

    /** What was wrong. */
    public enum Value {
      SALT,
      SERVER_PUBLIC,
      SERVER_EVIDENCE,
      ACTIVATION_DATA
    }

    public final Value value;

    Verification(Value value, String message) {
      super(Kind.VERIFICATION, message, null);
      this.value = value;
    }
  }

  /** An answer does not have the documented form: another program answers there, or it is too new. */
  public static final class Protocol extends DsappException {
    private static final long serialVersionUID = 1;

    Protocol(String call, String problem) {
      super(Kind.PROTOCOL, call + ": " + problem, null);
    }
  }
}
