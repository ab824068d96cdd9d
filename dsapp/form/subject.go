package form

// Subject says whose a registration or a request is, and which instance of the
// authentication server has it. What is not known or does not apply is empty.
type Subject struct {
	UserID, Domain, SerialNumber, Instance string
}
