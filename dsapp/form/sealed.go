package form

// Sealed is one item of activation data that only the client of an exchange can open, in
// hex; of the gateway's own exchange in upper case.
type Sealed struct {
	Data    string
	Counter string
	MAC     string
}
