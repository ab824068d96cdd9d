package io.github.dsappgateway.phone;

import java.math.BigInteger;

/**
 * What is computed in an exchange: one of the gateway's own profiles, or that of the preset of a library. A phone never takes its parameters
 * from a server: the bank says which profile its gateway uses.
 */
public enum Profile {
  /** 2048 bits. */
  RFC5054_2048_SHA256("rfc5054-2048-sha256", Group.BITS_2048, Formulas.RFC5054),
  /** 3072 bits. */
  RFC5054_3072_SHA256("rfc5054-3072-sha256", Group.BITS_3072, Formulas.RFC5054),
  /** 4096 bits. */
  RFC5054_4096_SHA256("rfc5054-4096-sha256", Group.BITS_4096, Formulas.RFC5054),
  /** What SRP6Client of Bouncy Castle computes. */
  BOUNCY_CASTLE("bouncycastle", Group.BITS_2048, new Formulas("SHA-256", "N g", "s inner", "S", true, "A B S", "A M1.padded S")),
  /** What fast-srp-hap computes: the same as the default. */
  FAST_SRP_HAP("fast-srp-hap", Group.BITS_2048, Formulas.RFC5054),
  /** What Nimbus SRP computes with the identity in x. */
  NIMBUS("nimbus", Group.BITS_2048,
      new Formulas("SHA-256", "N g", "s.minimal inner", "S.minimal", true, "A.minimal B.minimal S.minimal", "A.minimal M1.minimal S.minimal")),
  /** What secure-remote-password computes. */
  SECURE_REMOTE_PASSWORD("secure-remote-password", Group.BITS_2048,
      new Formulas("SHA-256", "N g.minimal", "s inner", "S", true, "X H(I) s A B K", "A M1 K")),
  /** What tssrp6a computes with the identity in x. */
  TSSRP6A("tssrp6a", Group.BITS_2048,
      new Formulas("SHA-512", "N g", "s.minimal inner", "S.minimal", false, "A.minimal B.minimal S.minimal", "A.minimal M1.minimal S.minimal"));

  /** The profile of a gateway that is not configured otherwise. */
  public static final Profile DEFAULT = RFC5054_2048_SHA256;

  private final String profileName;
  final BigInteger n;
  final BigInteger g;
  /** The length of N in bytes. */
  final int size;
  final Formulas formulas;

  Profile(String profileName, Group group, Formulas formulas) {
    this.profileName = profileName;
    this.n = group.n;
    this.g = group.g;
    this.size = group.size;
    this.formulas = formulas;
  }

  /** The name of a gateway's own profile, such as rfc5054-2048-sha256, or of a preset. */
  public String profileName() {
    return profileName;
  }

  /**
   * The profile with a name.
   *
   * @throws IllegalArgumentException if there is none
   */
  public static Profile of(String profileName) {
    for (Profile p : values()) {
      if (p.profileName.equals(profileName)) {
        return p;
      }
    }
    throw new IllegalArgumentException("unknown profile " + profileName);
  }

  /** Which byte strings each formula joins, as docs/protocol.md writes them: a word is a member, or a member and a form. */
  static final class Formulas {
    static final Formulas RFC5054 = new Formulas("SHA-256", "N g", "s inner", "S", true, "X H(I) s A B K", "A M1 K");

    final String hash;
    final String k;
    final String x;
    /** What the session key is: the hash of these words, or the words themselves. */
    final String key;
    final boolean keyIsHash;
    final String m1;
    final String m2;

    Formulas(String hash, String k, String x, String key, boolean keyIsHash, String m1, String m2) {
      this.hash = hash;
      this.k = k;
      this.x = x;
      this.key = key;
      this.keyIsHash = keyIsHash;
      this.m1 = m1;
      this.m2 = m2;
    }
  }

  private static final class Group {
    static final Group BITS_2048 = new Group(2,
      "AC6BDB41324A9A9BF166DE5E1389582FAF72B6651987EE07FC3192943DB56050A37329CBB4A099ED8193E0757767A13D"
          + "D52312AB4B03310DCD7F48A9DA04FD50E8083969EDB767B0CF6095179A163AB3661A05FBD5FAAAE82918A9962F0B93B8"
          + "55F97993EC975EEAA80D740ADBF4FF747359D041D5C33EA71D281E446B14773BCA97B43A23FB801676BD207A436C6481"
          + "F1D2B9078717461A5B9D32E688F87748544523B524B0D57D5EA77A2775D2ECFA032CFBDBF52FB3786160279004E57AE6"
          + "AF874E7303CE53299CCC041C7BC308D82A5698F3A8D0C38271AE35F8E9DBFBB694B5C803D89F7AE435DE236D525F5475"
          + "9B65E372FCD68EF20FA7111F9E4AFF73");

    static final Group BITS_3072 = new Group(5,
      "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD"
          + "EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED"
          + "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F"
          + "83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B"
          + "E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510"
          + "15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7"
          + "ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864D87602733EC86A64521F2B18177B200C"
          + "BBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF");

    static final Group BITS_4096 = new Group(5,
      "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DD"
          + "EF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED"
          + "EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F"
          + "83655D23DCA3AD961C62F356208552BB9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B"
          + "E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF6955817183995497CEA956AE515D2261898FA0510"
          + "15728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7"
          + "ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864D87602733EC86A64521F2B18177B200C"
          + "BBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A92108011A723C12A787E6D7"
          + "88719A10BDBA5B2699C327186AF4E23C1A946834B6150BDA2583E9CA2AD44CE8DBBBC2DB04DE8EF92E8EFC141FBECAA6"
          + "287C59474E6BC05D99B2964FA090C3A2233BA186515BE7ED1F612970CEE2D7AFB81BDD762170481CD0069127D5B05AA9"
          + "93B4EA988D8FDDC186FFB7DC90A6C08F4DF435C934063199FFFFFFFFFFFFFFFF");

    final BigInteger n;
    final BigInteger g;
    final int size;

    Group(int g, String n) {
      this.n = new BigInteger(n, 16);
      this.g = BigInteger.valueOf(g);
      this.size = n.length() / 2;
    }
  }
}
