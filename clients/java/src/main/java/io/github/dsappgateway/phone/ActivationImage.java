package io.github.dsappgateway.phone;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;

/** The content of an activation image. */
public final class ActivationImage {
  public final String userID;
  public final String domain;
  public final String registrationIdentifier;
  public final String activationPassword;
  public final String gatewayID;

  private ActivationImage(String[] fields) {
    userID = fields[2];
    domain = fields[3];
    registrationIdentifier = fields[4];
    activationPassword = fields[5];
    gatewayID = fields[6];
  }

  /**
   * Reads the content of an activation image, hexadecimal digits.
   *
   * @throws DsappException.Input if it is none
   */
  public static ActivationImage parse(String digits) throws DsappException.Input {
    byte[] bytes = Bytes.fromHex(digits.trim());
    if (bytes != null) {
      try {
        String[] fields = StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString().split(";", -1);
        if (fields.length == 7 && fields[0].equals("01") && fields[1].equals("01")) {
          return new ActivationImage(fields);
        }
      } catch (CharacterCodingException e) {
        // Not an image, either.
      }
    }
    throw new DsappException.Input("this is not an activation image");
  }
}
