package form

// Sealed is one encrypted item of activation data: ciphertext, initial counter block and
// message authentication code, each in hex. Only the client of the exchange can decrypt it.
// The gateway's own exchange writes the digits in upper case.
type Sealed struct {
	Data    string
	Counter string
	MAC     string
}
