package srp

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

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
	vectorSalt     = "BEB25379 D1A8581E B5A72767 3A2441EE"
	vectorA        = "60975527 035CF2AD 1989806F 0407210B C81EDC04 E2762A56 AFD529DD DA2D4393"
	vectorB        = "E487CB59 D31AC550 471E81F0 0F6928E0 1DDA08E9 74A004F4 9E61F5D1 05284D20"
)

// TestRFC5054Vector reproduces every value of RFC 5054, appendix B, S by both
// formulas, with every kernel.
func TestRFC5054Vector(t *testing.T) {
	t.Parallel()
	forEachServingKernel(t, rfcProfile(), testRFC5054Vector)
}

func testRFC5054Vector(t *testing.T, p *Profile) {
	w := p.acquireWorkspace()
	defer w.release()
	bytesOf := func(x element) []byte {
		b := make([]byte, p.Size())
		w.toBytes(b, x)
		return b
	}
	salt := unhex(t, vectorSalt)

	wantBytes(t, "k", bytesOf(w.g.k), p.pad(unhex(t, "7556AA04 5AEF2CDD 07ABAF0F 665C3E81 8913186F")))

	wantX := padded(unhex(t, "94B7555A ABE9127C C58CCF49 93DB6CF8 4D16C124"))
	w.passwordExponent(&w.secret, vectorIdentity, vectorPassword, salt)
	wantBytes(t, "x", w.secret[:], wantX[:])

	v := p.Verifier(vectorIdentity, vectorPassword, salt)
	wantBytes(t, "v", v, unhex(t, `
		7E273DE8 696FFC4F 4E337D05 B4B375BE B0DDE156 9E8FA00A 9886D812 9BADA1F1
		822223CA 1A605B53 0E379BA4 729FDC59 F105B478 7E5186F5 C671085A 1447B52A
		48CF1970 B4FB6F84 00BBF4CE BFBB1681 52E08AB5 EA53D15C 1AFF87B2 B9DA6E04
		E058AD51 CC72BFC9 033B564E 26480D78 E955A5E2 9E7AB245 DB2BE315 E2099AFB`))

	private := unhex(t, vectorA)
	c, err := p.newClient(vectorIdentity, vectorPassword, bytes.NewReader(private))
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, "A", c.Public(), unhex(t, `
		61D5E490 F6F1B795 47B0704C 436F523D D0E560F0 C64115BB 72557EC4 4352E890
		3211C046 92272D8B 2D1A5358 A2CF1B6E 0BFCF99F 921530EC 8E393561 79EAE45E
		42BA92AE ACED8251 71E1E8B9 AF6D9C03 E1327F44 BE087EF0 6530E69F 66615261
		EEF54073 CA11CF58 58F0EDFD FE15EFEA B349EF5D 76988A36 72FAC47B 0769447B`))

	e, err := p.newEphemeral(v, bytes.NewReader(unhex(t, vectorB)))
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, "B", e.public, unhex(t, `
		BD0C6151 2C692C0C B6D041FA 01BB152D 4916A1E7 7AF46AE1 05393011 BAF38964
		DC46A067 0DD125B9 5A981652 236F99D9 B681CBF8 7837EC99 6C6DA044 53728610
		D0C6DDB5 8B318885 D7D82C7F 8DEB75CE 7BD4FBAA 37089E6F 9C6059F3 88838E7A
		00030B33 1EB76840 910440B1 B27AAEAE EB4012B7 D7665238 A8E3FB00 4B117B58`))

	if !w.setU(c.Public(), e.public) {
		t.Error("u is refused")
	}
	wantU := padded(unhex(t, "CE38B959 3487DA98 554ED47D 70A7AE5F 462EF019"))
	wantBytes(t, "u", w.u[:], wantU[:])

	wantS := unhex(t, `
		B0DC82BA BCF30674 AE450C02 87745E79 90A3381F 63B387AA F271A10D 233861E3
		59B48220 F7C4693C 9AE12B0A 6F67809F 0876E2D0 13800D6C 41BB59B6 D5979B5C
		00A172B4 A2A5903A 0BDCAF8A 709585EB 2AFAFA8F 3499B200 210DCC1F 10EB3394
		3CD67FC8 8A2F39A4 BE5BEC4E C0A3212D C346D7E4 74B29EDE 8A469FFE CA686E5A`)
	a := padded(private)
	w.clientPremasterSecret(e.public, &a)
	wantBytes(t, "S of the client", bytesOf(w.x), wantS)
	w.serverPremasterSecret(exchange{verifier: v, clientPublic: c.Public(), private: e.private})
	wantBytes(t, "S of the server", bytesOf(w.x), wantS)
}

// TestSHA256Vectors compares with what an independent implementation, the Python
// package srptools, computes from the inputs of RFC 5054, appendix B (as
// published in github.com/secure-remote-password/test-vectors). x begins with a
// zero byte. k of the 2048-bit profile is also its self-check value.
func TestSHA256Vectors(t *testing.T) {
	t.Parallel()
	const x = "0065AC38DFF8BC34AE0F259E91FBD0F4CA2FA43081C9050CEC7CAC20D015F303"
	tests := []struct {
		profile          *Profile
		k, u, key        string
		evidence, answer string
	}{
		{
			newProfile("rfc5054-1024-sha256", prime1024, 2, sha256.New),
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
			forEachServingKernel(t, test.profile, func(t *testing.T, p *Profile) {
				w := p.acquireWorkspace()
				defer w.release()
				salt := unhex(t, vectorSalt)
				k := make([]byte, p.Size())
				w.toBytes(k, w.g.k)
				wantBytes(t, "k", k, p.pad(unhex(t, test.k)))
				w.passwordExponent(&w.secret, vectorIdentity, vectorPassword, salt)
				wantBytes(t, "x", w.secret[:], unhex(t, x))

				c, err := p.newClient(vectorIdentity, vectorPassword, bytes.NewReader(unhex(t, vectorA)))
				if err != nil {
					t.Fatal(err)
				}
				v := p.Verifier(vectorIdentity, vectorPassword, salt)
				e, err := p.newEphemeral(v, bytes.NewReader(unhex(t, vectorB)))
				if err != nil {
					t.Fatal(err)
				}
				w.setU(c.Public(), e.public)
				wantBytes(t, "u", w.u[:], unhex(t, test.u))

				evidence, err := c.Prove(salt, e.public)
				if err != nil {
					t.Fatal(err)
				}
				wantBytes(t, "M1", evidence, unhex(t, test.evidence))
				key, m2, ok := p.verify(exchange{
					identity: vectorIdentity, salt: salt, verifier: v, clientPublic: c.Public(),
					private: e.private, serverPublic: e.public,
				}, unhex(t, test.evidence))
				if !ok {
					t.Fatal("evidence is refused")
				}
				wantBytes(t, "K of the server", key, unhex(t, test.key))
				wantBytes(t, "M2", m2, unhex(t, test.answer))
				key, err = c.Confirm(unhex(t, test.answer))
				if err != nil {
					t.Fatal(err)
				}
				wantBytes(t, "K of the client", key, unhex(t, test.key))
			})
		})
	}
}
