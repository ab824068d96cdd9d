import com.nimbusds.srp6.SRP6ClientSession;
import com.nimbusds.srp6.SRP6CryptoParams;
import com.nimbusds.srp6.SRP6Exception;
import com.nimbusds.srp6.SRP6Routines;
import com.nimbusds.srp6.XRoutineWithUserIdentity;
import java.math.BigInteger;
import java.security.SecureRandom;

/** SRP6ClientSession of Nimbus SRP with the identity in x, for the preset nimbus. */
public final class Nimbus implements Peer.Library {
  private static final SRP6CryptoParams PARAMETERS = SRP6CryptoParams.getInstance(2048, "SHA-256");

  /** The session draws a when it has got the salt. Here it draws one that is known before. */
  private static final class Session extends SRP6ClientSession {
    Session(BigInteger own) {
      setXRoutine(new XRoutineWithUserIdentity());
      random = new SecureRandom() {
        @Override
        public void nextBytes(byte[] bytes) {
          byte[] signed = own.toByteArray();
          java.util.Arrays.fill(bytes, (byte) 0);
          System.arraycopy(signed, 0, bytes, bytes.length - signed.length, signed.length);
        }
      };
    }
  }

  private Session session;

  @Override
  public BigInteger begin(String identifier, String password, BigInteger a) {
    session = new Session(a);
    session.step1(identifier, password);
    return new SRP6Routines().computePublicClientValue(PARAMETERS.N, PARAMETERS.g, a);
  }

  @Override
  public BigInteger prove(byte[] salt, BigInteger b) throws SRP6Exception {
    return session.step2(PARAMETERS, new BigInteger(1, salt), b).M1;
  }

  @Override
  public void confirm(BigInteger m2) throws SRP6Exception {
    session.step3(m2);
  }

  @Override
  public byte[] key() {
    return session.getSessionKeyHash();
  }
}
