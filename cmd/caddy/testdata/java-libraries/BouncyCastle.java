import java.math.BigInteger;
import java.nio.charset.StandardCharsets;
import java.security.SecureRandom;
import org.bouncycastle.crypto.CryptoException;
import org.bouncycastle.crypto.agreement.srp.SRP6Client;
import org.bouncycastle.crypto.agreement.srp.SRP6StandardGroups;
import org.bouncycastle.crypto.digests.SHA256Digest;

/** SRP6Client of Bouncy Castle, for the preset bouncycastle. */
public final class BouncyCastle implements Peer.Library {
  /**
   * The client wants the salt before it gives A, the protocol the other way round. A depends on a
   * alone, so that a first client without salt supplies it, and a second one has the same a.
   */
  private static final class Client extends SRP6Client {
    private final BigInteger own;

    Client(BigInteger own) {
      this.own = own;
      init(SRP6StandardGroups.rfc5054_2048, new SHA256Digest(), new SecureRandom());
    }

    @Override
    protected BigInteger selectPrivateValue() {
      return own;
    }
  }

  private byte[] identifier;
  private byte[] password;
  private BigInteger a;
  private SRP6Client client;

  @Override
  public BigInteger begin(String identifier, String password, BigInteger a) {
    this.identifier = identifier.getBytes(StandardCharsets.US_ASCII);
    this.password = password.getBytes(StandardCharsets.US_ASCII);
    this.a = a;
    return new Client(a).generateClientCredentials(new byte[0], this.identifier, this.password);
  }

  @Override
  public BigInteger prove(byte[] salt, BigInteger b) throws CryptoException {
    client = new Client(a);
    client.generateClientCredentials(salt, identifier, password);
    client.calculateSecret(b);
    return client.calculateClientEvidenceMessage();
  }

  @Override
  public void confirm(BigInteger m2) throws CryptoException {
    if (!client.verifyServerEvidenceMessage(m2)) {
      throw new CryptoException("the server's evidence is wrong");
    }
  }

  @Override
  public byte[] key() throws CryptoException {
    byte[] signed = client.calculateSessionKey().toByteArray();
    byte[] key = new byte[32];
    int length = Math.min(signed.length, key.length);
    System.arraycopy(signed, signed.length - length, key, key.length - length, length);
    return key;
  }
}
