package srp

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"github.com/dsapp-gateway/dsapp-gateway/internal/digits"
)

// padded returns b with leading zeros up to PrivateSize bytes.
func padded(b []byte) (e [PrivateSize]byte) {
	copy(e[PrivateSize-len(b):], b)
	return e
}

func wantBytes(t *testing.T, name string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s = %X, want %X", name, got, want)
	}
}

// The inputs of RFC 5054, appendix B.
const (
	vectorIdentity = "alice"
	vectorPassword = "password123"
	vectorSalt     = "BEB25379D1A8581EB5A727673A2441EE"
	vectorA        = "60975527035CF2AD1989806F0407210BC81EDC04E2762A56AFD529DDDA2D4393"
	vectorB        = "E487CB59D31AC550471E81F00F6928E01DDA08E974A004F49E61F5D105284D20"
)

// TestRFC5054Vector: every kernel computes all values of RFC 5054, appendix B, and S by both
// formulas.
func TestRFC5054Vector(t *testing.T) {
	t.Parallel()
	forEachProfileKernel(t, rfcProfile(), testRFC5054Vector)
}

func testRFC5054Vector(t *testing.T, p *Profile) {
	w := p.acquireWorkspace()
	defer w.release()
	bytesOf := func(x element) []byte {
		b := make([]byte, p.Size())
		w.toBytes(b, x)
		return b
	}
	salt := digits.Decode(t, vectorSalt)

	wantBytes(t, "k", bytesOf(w.g.k), p.pad(digits.Decode(t, "7556AA045AEF2CDD07ABAF0F665C3E818913186F")))

	wantX := padded(digits.Decode(t, "94B7555AABE9127CC58CCF4993DB6CF84D16C124"))
	w.passwordExponent(vectorIdentity, vectorPassword, salt)
	wantBytes(t, "x", w.secret[:], wantX[:])

	v := p.Verifier(vectorIdentity, vectorPassword, salt)
	wantBytes(t, "v", v, digits.Decode(t, ""+
		"7E273DE8696FFC4F4E337D05B4B375BEB0DDE1569E8FA00A9886D8129BADA1F1"+
		"822223CA1A605B530E379BA4729FDC59F105B4787E5186F5C671085A1447B52A"+
		"48CF1970B4FB6F8400BBF4CEBFBB168152E08AB5EA53D15C1AFF87B2B9DA6E04"+
		"E058AD51CC72BFC9033B564E26480D78E955A5E29E7AB245DB2BE315E2099AFB"))

	private := digits.Decode(t, vectorA)
	c, err := p.newClient(vectorIdentity, vectorPassword, bytes.NewReader(private))
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, "A", c.Public(), digits.Decode(t, ""+
		"61D5E490F6F1B79547B0704C436F523DD0E560F0C64115BB72557EC44352E890"+
		"3211C04692272D8B2D1A5358A2CF1B6E0BFCF99F921530EC8E39356179EAE45E"+
		"42BA92AEACED825171E1E8B9AF6D9C03E1327F44BE087EF06530E69F66615261"+
		"EEF54073CA11CF5858F0EDFDFE15EFEAB349EF5D76988A3672FAC47B0769447B"))

	e, err := p.newEphemeral(v, bytes.NewReader(digits.Decode(t, vectorB)))
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, "B", e.public, digits.Decode(t, ""+
		"BD0C61512C692C0CB6D041FA01BB152D4916A1E77AF46AE105393011BAF38964"+
		"DC46A0670DD125B95A981652236F99D9B681CBF87837EC996C6DA04453728610"+
		"D0C6DDB58B318885D7D82C7F8DEB75CE7BD4FBAA37089E6F9C6059F388838E7A"+
		"00030B331EB76840910440B1B27AAEAEEB4012B7D7665238A8E3FB004B117B58"))

	if !w.setU(c.Public(), e.public) {
		t.Error("u is refused")
	}
	wantU := padded(digits.Decode(t, "CE38B9593487DA98554ED47D70A7AE5F462EF019"))
	wantBytes(t, "u", w.u[:], wantU[:])

	wantS := digits.Decode(t, ""+
		"B0DC82BABCF30674AE450C0287745E7990A3381F63B387AAF271A10D233861E3"+
		"59B48220F7C4693C9AE12B0A6F67809F0876E2D013800D6C41BB59B6D5979B5C"+
		"00A172B4A2A5903A0BDCAF8A709585EB2AFAFA8F3499B200210DCC1F10EB3394"+
		"3CD67FC88A2F39A4BE5BEC4EC0A3212DC346D7E474B29EDE8A469FFECA686E5A")
	a := padded(private)
	w.clientPremasterSecret(e.public, &a)
	wantBytes(t, "S of the client", bytesOf(w.x), wantS)
	w.serverPremasterSecret(exchange{verifier: v, clientPublic: c.Public(), private: e.private})
	wantBytes(t, "S of the server", bytesOf(w.x), wantS)
}

// TestSHA256Vectors: every kernel agrees with an independent implementation, the Python
// package srptools, for the inputs of RFC 5054, appendix B (as published in
// github.com/secure-remote-password/test-vectors). x begins with a zero byte.
func TestSHA256Vectors(t *testing.T) {
	t.Parallel()
	const x = "0065AC38DFF8BC34AE0F259E91FBD0F4CA2FA43081C9050CEC7CAC20D015F303"
	tests := []struct {
		profile          *Profile
		k, u, key        string
		evidence, answer string
	}{
		{
			profileWith("rfc5054-1024-sha256", prime1024, 2, sha256.New),
			"1A1A4C140CDE70AE360C1EC33A33155B1022DF951732A476A862EB3AB8206A5C",
			"C557AF6030C3DF27B4704462DF2ECEAEAED5D16B4C7D87FDF992E282F985293E",
			"FEBAC740E997507C1C7DF7690BAC49A97F84ECDA99CEB047C575B58E160C477B",
			"51D0AF1793F2921CFC4A41BC5134605A7BF89A3497AED7C29ED6C56AE709037F",
			"2F6B44340BF8DC05148B6B3AE1D70B6A896588BA6B2C16D8AEC619D2CC57653F",
		},
		{
			profiles[0],
			"05B9E8EF059C6B32EA59FC1D322D37F04AA30BAE5AA9003B8321E21DDB04E300",
			"D56E895D00CB8A9EA81F0C9967522018BCA195A485CD59687EBB2A3F5ECDA88B",
			"899F35B485D44D577957E87CFDD48343D97EA2E0C3E8620594E0B8DA9CE5DA98",
			"7B1867CA8CC93AB5A9E40A5FD504B28F757A41B5CC5AC7DE7AC1078130601C42",
			"91385641BF84309D0321B32AE665D508DE8DBA72342030D0A5BF46A2F05A53CA",
		},
		{
			profiles[1],
			"081F4874FA543A371B49A670402FDA59ECFAB53A1B850FC42E1C357CC846111E",
			"250BBEC635F367F772C0ECBD993C068F98D08480251209DD0599784A6473D129",
			"468F4BB304EB97C9C5141BA81E44369A929C3AA7D695078CC7ED7761915D0396",
			"C5BEA29EC22DC8BDFD4F7AC1E2C3438BEEB58FE767BF31B6D444838EFE0A6603",
			"8481E8DD0E76F3F23C52A96A27E4AE550A98279E326A3E27BF57E3B11D77632B",
		},
		{
			profiles[2],
			"3509477EA9FCA66EADB7CF7B1BD0EB508F54D3989A9C988006A7D0B338374DD2",
			"3422AF3643319934BFFAD4D8CE866FB23240593C854A531054DE7D6D45DAFAD0",
			"46EB48BFCB2E112C1033B37127238EE4E5E6B83D9EE2F93EC0CD26215ED0866D",
			"864CDA3BADC606AE98E0612EF21C0B0A1EBD9A9D2C8C32A7D0EAE9776664EB31",
			"3FB5B7F46223636448EC0D455AB1E60FC4045D8A1970530634059356D54D88BA",
		},
	}
	for _, test := range tests {
		t.Run(test.profile.name, func(t *testing.T) {
			t.Parallel()
			forEachProfileKernel(t, test.profile, func(t *testing.T, p *Profile) {
				w := p.acquireWorkspace()
				defer w.release()
				salt := digits.Decode(t, vectorSalt)
				k := make([]byte, p.Size())
				w.toBytes(k, w.g.k)
				wantBytes(t, "k", k, p.pad(digits.Decode(t, test.k)))
				w.passwordExponent(vectorIdentity, vectorPassword, salt)
				wantBytes(t, "x", w.secret[:], digits.Decode(t, x))

				c, err := p.newClient(vectorIdentity, vectorPassword, bytes.NewReader(digits.Decode(t, vectorA)))
				if err != nil {
					t.Fatal(err)
				}
				v := p.Verifier(vectorIdentity, vectorPassword, salt)
				e, err := p.newEphemeral(v, bytes.NewReader(digits.Decode(t, vectorB)))
				if err != nil {
					t.Fatal(err)
				}
				w.setU(c.Public(), e.public)
				wantBytes(t, "u", w.u[:], digits.Decode(t, test.u))

				evidence, err := c.Prove(salt, e.public)
				if err != nil {
					t.Fatal(err)
				}
				wantBytes(t, "M1", evidence, digits.Decode(t, test.evidence))
				key, m2, ok := p.verify(exchange{
					identity: vectorIdentity, salt: salt, verifier: v, clientPublic: c.Public(),
					private: e.private, serverPublic: e.public,
				}, digits.Decode(t, test.evidence))
				if !ok {
					t.Fatal("evidence is refused")
				}
				wantBytes(t, "K of the server", key, digits.Decode(t, test.key))
				wantBytes(t, "M2", m2, digits.Decode(t, test.answer))
				key, err = c.Confirm(digits.Decode(t, test.answer))
				if err != nil {
					t.Fatal(err)
				}
				wantBytes(t, "K of the client", key, digits.Decode(t, test.key))
			})
		})
	}
}
